//! The key by which clients know a server: made at its first start, or given by the operator.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::fingerprint::Fingerprint;
use super::{state, tls};

/// The name of the file in the state folder that holds the key and its certificate, both in PEM
/// form (RFC 7468). One file, so that the two cannot come apart.
pub const FILE_NAME: &str = "server_key.pem";

/// A key that is made has its name within far less.
const LEFTOVER_SECONDS: u64 = 60;

/// Far more than any chain of certificates has.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// Where a server's key and certificate are.
#[derive(Clone, Debug)]
pub enum Source {
    /// In this state folder; made there if they are not.
    State(PathBuf),
    /// In files of the operator.
    Files {
        /// The server's certificate, then those that lead to an authority.
        certificates: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
}

/// A key, ready to be used.
#[derive(Clone, Debug)]
pub struct Identity {
    /// For each connection.
    pub config: Arc<ServerConfig>,
    /// What clients know it by.
    pub fingerprint: Fingerprint,
    /// It was made just now.
    pub is_new: bool,
}

impl Identity {
    /// Loads it, or makes it. Of several servers that start at once, one makes it and all load
    /// the same. Reads files, so it blocks.
    ///
    /// # Errors
    /// A sentence that names the file and what to do.
    pub fn load(source: &Source) -> Result<Identity, String> {
        match source {
            Source::Files { certificates, key } => {
                let chain = read(certificates, Access::Public)?;
                let key = read(key, Access::Secret)?;
                Identity::of(&chain, &key, source)
            }
            Source::State(folder) => {
                state::prepare(folder)?;
                let path = folder.join(FILE_NAME);
                sweep(folder, Duration::from_secs(LEFTOVER_SECONDS));
                let is_new = !path.exists() && make(folder, &path)?;
                let both = read(&path, Access::Own)?;
                Ok(Identity { is_new, ..Identity::of(&both, &both, source)? })
            }
        }
    }

    fn of(chain: &[u8], key: &[u8], source: &Source) -> Result<Identity, String> {
        let (chain_path, key_path) = source.paths();
        let bad = |path: &Path, why: &str| format!("{}: {why}{}", path.display(), source.advice());
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let certificates = certificates
            .map_err(|error| bad(&chain_path, &format!("no certificates in PEM form: {error}")))?;
        let first = certificates.first();
        let first = first.ok_or_else(|| bad(&chain_path, "there is no certificate in it"))?;
        let fingerprint = Fingerprint::of(first)
            .map_err(|error| bad(&chain_path, &format!("a bad certificate: {error}")))?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| bad(&key_path, "there is no private key in PEM form in it"))?;
        let config = tls::server_config(certificates, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                bad(&key_path, &format!("it is not the key of {}", chain_path.display()))
            }
            error => bad(&key_path, &format!("the key cannot be used: {error}")),
        })?;
        Ok(Identity { config, fingerprint, is_new: false })
    }
}

impl Source {
    /// The files of the certificates and of the key.
    fn paths(&self) -> (PathBuf, PathBuf) {
        match self {
            Source::State(folder) => (folder.join(FILE_NAME), folder.join(FILE_NAME)),
            Source::Files { certificates, key } => (certificates.clone(), key.clone()),
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Source::State(_) => {
                "; without the file a new key is made, which clients that know the old one refuse"
            }
            Source::Files { .. } => "",
        }
    }
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Access {
    /// Anybody.
    Public,
    /// Its owner, and a group that the operator has given the key to.
    Secret,
    /// Its owner alone.
    Own,
}

fn read(path: &Path, access: Access) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let refuse = |why: &str| Err(format!("{}: {why}", path.display()));
    // A FIFO without a writer would keep us waiting.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path);
    let file = file.map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return refuse("it is no regular file");
    }
    let forbidden = match access {
        Access::Public => 0o000,
        Access::Secret => 0o007,
        Access::Own => 0o077,
    };
    let mode = metadata.mode() & 0o777;
    if mode & forbidden != 0 {
        return refuse(&format!("others may read this key (mode {mode:o}); run chmod 600 on it"));
    }
    if access != Access::Public
        && let Err(why) = state::is_safe(&metadata)
    {
        return refuse(&format!("this key is not safe, as {why}"));
    }
    if metadata.len() > FILE_MAX_BYTES {
        return refuse("it is too large for certificates and keys");
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Makes a key and gives it its name as a whole, if nobody else has; whether it was we who did.
fn make(folder: &Path, path: &Path) -> Result<bool, String> {
    let text = generate().map_err(|error| format!("a key could not be made: {error}"))?;
    let failed = |error: io::Error| {
        format!(
            "a key cannot be kept in {}: {error}; --state DIR names another place",
            folder.display()
        )
    };
    let temporary =
        folder.join(format!("{}{:016x}", temporary_prefix(), random().map_err(failed)?));
    let result = write(&temporary, text.as_bytes()).and_then(|()| {
        // Unlike rename(2), link(2) does not take the place of what another server has made.
        match fs::hard_link(&temporary, path) {
            Ok(()) => File::open(folder)?.sync_all().map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    });
    let _ = fs::remove_file(&temporary);
    result.map_err(failed)
}

fn temporary_prefix() -> String {
    format!(".{FILE_NAME}-")
}

/// Removes keys that nobody got to know, as the server that made them was killed before they had
/// their name. One that is younger than `age` may still get it.
fn sweep(folder: &Path, age: Duration) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().as_bytes().starts_with(temporary_prefix().as_bytes());
        let modified = || entry.metadata().and_then(|it| it.modified());
        let is_old = || modified().is_ok_and(|at| at.elapsed().is_ok_and(|time| time >= age));
        if is_ours && is_old() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A new key for the curve P-256 with a certificate that it signs itself, in PEM form.
fn generate() -> Result<String, rcgen::Error> {
    let key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::new(["sixfour".to_owned()])?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "sixfour server");
    let certificate = params.self_signed(&key)?;
    Ok(key.serialize_pem() + &certificate.pem())
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_key_is_made_once_for_its_owner_alone_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::State(folder.path().join("state"));
        let first = Identity::load(&source).unwrap();
        assert!(first.is_new);
        let path = folder.path().join("state").join(FILE_NAME);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let again = Identity::load(&source).unwrap();
        assert!(!again.is_new && again.fingerprint == first.fingerprint);
        assert_eq!(fs::read_dir(folder.path().join("state")).unwrap().count(), 1);
    }

    #[test]
    fn servers_that_start_at_once_end_with_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::State(folder.path().to_owned());
        let barrier = Barrier::new(8);
        let loaded: Vec<Identity> = thread::scope(|scope| {
            let start = || {
                barrier.wait();
                Identity::load(&source).unwrap()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(loaded.iter().all(|it| it.fingerprint == loaded[0].fingerprint));
        assert_eq!(loaded.iter().filter(|it| it.is_new).count(), 1);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn keys_that_were_not_finished_are_swept_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let source = Source::State(folder.path().to_owned());
        let leftover = format!("{}0123456789abcdef", temporary_prefix());
        for name in [&leftover[..], ".server_key.pem", "known_servers"] {
            fs::write(at(name), "x").unwrap();
        }
        Identity::load(&source).unwrap();
        assert!(at(&leftover).exists(), "another server may be making it just now");
        let old = std::time::SystemTime::now() - Duration::from_secs(2 * LEFTOVER_SECONDS);
        File::open(at(&leftover)).unwrap().set_modified(old).unwrap();
        Identity::load(&source).unwrap();
        assert!(!at(&leftover).exists());
        for name in [".server_key.pem", "known_servers", FILE_NAME] {
            assert!(at(name).exists(), "{name}");
        }
    }

    #[test]
    fn a_key_that_others_may_read_or_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::State(folder.path().to_owned());
        Identity::load(&source).unwrap();
        let path = folder.path().join(FILE_NAME);
        for mode in [0o640, 0o604, 0o644, 0o660] {
            set_mode(&path, mode);
            let told = Identity::load(&source).unwrap_err();
            assert!(told.contains(FILE_NAME) && told.contains("chmod 600"), "{told}");
        }
        set_mode(&path, 0o600);
        let files = |mode| {
            set_mode(&path, mode);
            Identity::load(&Source::Files { certificates: path.clone(), key: path.clone() })
        };
        // A group may be given the key of a real certificate.
        for (mode, good) in [(0o600, true), (0o640, true), (0o644, false), (0o660, false)] {
            assert_eq!(files(mode).is_ok(), good, "{mode:o}");
        }
    }

    #[test]
    fn what_is_no_key_or_no_certificate_is_named_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        let [cert, key, garbage, fifo] =
            ["cert", "key", "garbage", "fifo"].map(|name| folder.path().join(name));
        for state in [&one, &other] {
            Identity::load(&Source::State(state.clone())).unwrap();
        }
        fs::copy(one.join(FILE_NAME), &cert).unwrap();
        fs::copy(other.join(FILE_NAME), &key).unwrap();
        write(&garbage, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
        let missing = folder.path().join("missing");
        for (certificates, key, named, why) in [
            (&cert, &key, "key", "not the key of"),
            (&garbage, &key, "garbage", "bad certificate"),
            (&cert, &garbage, "garbage", "no private key"),
            (&missing, &key, "missing", "No such file"),
            (&cert, &fifo, "fifo", "no regular file"),
            (&cert, &one, "one", "no regular file"),
        ] {
            let (certificates, key) = (certificates.clone(), key.clone());
            let told = Identity::load(&Source::Files { certificates, key }).unwrap_err();
            let file = folder.path().join(named).display().to_string();
            assert!(told.starts_with(&file) && told.contains(why), "{told}");
        }
    }

    #[test]
    fn a_damaged_key_is_not_replaced_in_silence() {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::State(folder.path().to_owned());
        Identity::load(&source).unwrap();
        let path = folder.path().join(FILE_NAME);
        let whole = fs::read(&path).unwrap();
        for length in [0, 10, whole.len() / 2, whole.len() - 40] {
            fs::write(&path, &whole[..length]).unwrap();
            let told = Identity::load(&source).unwrap_err();
            assert!(told.contains(FILE_NAME) && told.contains("a new key is made"), "{told}");
        }
        fs::write(&path, &whole).unwrap();
        Identity::load(&source).unwrap();
    }

    #[test]
    fn a_folder_that_takes_no_file_is_named_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        let told = Identity::load(&Source::State(file.join("state"))).unwrap_err();
        assert!(told.contains("--state DIR"), "{told}");
    }
}
