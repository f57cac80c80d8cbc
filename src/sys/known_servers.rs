//! The keys of the servers that this user has met: `HOST:PORT SHA256:...`, one a line.
//!
//! What follows the fingerprint is a remark; lines that begin with `#` are remarks as a whole.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::connect::Host;
use super::fingerprint::Fingerprint;
use super::state;

/// The name of the file in the state folder.
pub const FILE_NAME: &str = "known_servers";

/// More than a hundred thousand servers.
const FILE_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// How long others may be writing.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// The file, which may not be there.
#[derive(Clone, Debug)]
pub struct KnownServers {
    folder: PathBuf,
    path: PathBuf,
}

/// What the file says of one server.
#[derive(Debug, Default)]
pub struct Known {
    /// Its keys, each with the number of its line.
    pub pins: Vec<(usize, Fingerprint)>,
    /// The line that names the server and no key that can be read.
    pub damaged: Option<usize>,
    /// Sentences about other lines, and about the file.
    pub warnings: Vec<String>,
}

/// Why nothing was saved.
#[derive(Debug)]
pub enum PinError {
    /// Somebody else has pinned another key meanwhile.
    OtherKey(Fingerprint),
    /// The file cannot be written: half a sentence.
    Unwritable(String),
}

/// A server as the file names it: `host:5000`, `192.0.2.1:5000`, `[2001:db8::1]:5000`. Upper case
/// and a dot at the end make no other host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerKey(String);

impl ServerKey {
    /// The server on this host and port.
    pub fn new(host: &Host, port: u16) -> ServerKey {
        let host = host.to_string().to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        ServerKey(if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        })
    }

    /// Reads `HOST:PORT`, `[v6]:PORT`, or a host alone, which then has this port.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn parse(text: &str, port: u16) -> Result<ServerKey, String> {
        let is_bare = text.ends_with(']') || text.matches(':').count() != 1 && !text.contains(']');
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port_text)) if !is_bare => {
                let port = port_text.parse().ok().filter(|port| *port != 0);
                (host, port.ok_or_else(|| format!("{port_text:?} is no port: 1 to 65535"))?)
            }
            _ => (text, port),
        };
        Host::parse(host).map(|host| ServerKey::new(&host, port))
    }
}

impl fmt::Display for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One line of the file.
enum Line<'a> {
    Nothing,
    Pin(&'a str, Fingerprint),
    /// No pin; the first word may still be a server.
    Damaged(&'a str),
}

impl Line<'_> {
    fn parse(line: &[u8]) -> Line<'_> {
        let Ok(text) = std::str::from_utf8(line) else { return Line::Damaged("") };
        let mut words = text.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (None, _) => Line::Nothing,
            (Some(word), _) if word.starts_with('#') => Line::Nothing,
            (Some(server), fingerprint) => match fingerprint.and_then(Fingerprint::parse) {
                Some(fingerprint) => Line::Pin(server, fingerprint),
                None => Line::Damaged(server),
            },
        }
    }
}

impl KnownServers {
    /// The file in this state folder.
    pub fn in_folder(folder: &Path) -> KnownServers {
        KnownServers { folder: folder.to_owned(), path: folder.join(FILE_NAME) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says of a server.
    ///
    /// # Errors
    /// It is there and cannot be read, so that nobody can tell whether the server is known.
    pub fn look_up(&self, server: &ServerKey) -> io::Result<Known> {
        let mut known = Known::default();
        let bytes = match self.read() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(known),
            Err(error) => return Err(error),
        };
        for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1..) {
            match Line::parse(line) {
                Line::Pin(named, fingerprint) if named.eq_ignore_ascii_case(&server.0) => {
                    known.pins.push((number, fingerprint));
                }
                Line::Damaged(named) if named.eq_ignore_ascii_case(&server.0) => {
                    known.damaged = Some(number);
                }
                Line::Damaged(_) => {
                    let path = self.path.display();
                    known.warnings.push(format!("{path}:{number} is not a pin, and is ignored"));
                }
                Line::Pin(..) | Line::Nothing => {}
            }
        }
        Ok(known)
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let file =
            OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(&self.path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        if metadata.len() > FILE_MAX_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut bytes = Vec::new();
        file.take(FILE_MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Adds a server. Lines that others add at the same time are kept.
    ///
    /// # Errors
    /// [`PinError`]; then the file is as it was.
    pub fn pin(&self, server: &ServerKey, fingerprint: Fingerprint) -> Result<(), PinError> {
        state::prepare(&self.folder).map_err(PinError::Unwritable)?;
        let unwritable = |error: io::Error| PinError::Unwritable(error.to_string());
        let _lock = self.lock().map_err(unwritable)?;
        let known = self.look_up(server).map_err(unwritable)?;
        match known.pins.first() {
            _ if known.pins.iter().any(|(_, known)| *known == fingerprint) => return Ok(()),
            Some((_, other)) => return Err(PinError::OtherKey(*other)),
            None => {}
        }
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(flags.bits() as i32)
            .open(&self.path)
            .map_err(|error| unwritable(explain(error)))?;
        let metadata = file.metadata().map_err(unwritable)?;
        state::is_safe(&metadata).map_err(PinError::Unwritable)?;
        let mut line = format!("{server} {fingerprint}\n");
        // Somebody's editor, or a full disk, may have left the last line without its end.
        if self.read().map_err(unwritable)?.last().is_some_and(|byte| *byte != b'\n') {
            line.insert(0, '\n');
        }
        let before = metadata.len();
        file.write_all(line.as_bytes()).and_then(|()| file.sync_data()).map_err(|error| {
            // What is cut short would be a damaged line.
            let _ = file.set_len(before);
            unwritable(error)
        })
    }

    /// Removes all that is said of a server; how many lines that were.
    ///
    /// # Errors
    /// What the system said; then the file is as it was.
    pub fn forget(&self, server: &ServerKey) -> io::Result<usize> {
        let _lock = match self.lock() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            other => other?,
        };
        let bytes = match self.read() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            other => other?,
        };
        let is_kept = |line: &&[u8]| match Line::parse(line) {
            Line::Pin(named, _) | Line::Damaged(named) => !named.eq_ignore_ascii_case(&server.0),
            Line::Nothing => true,
        };
        let all = || bytes.split_inclusive(|byte| *byte == b'\n');
        let kept: Vec<u8> = all().filter(is_kept).flatten().copied().collect();
        let removed = all().count() - all().filter(is_kept).count();
        if removed > 0 {
            self.replace(&kept)?;
        }
        Ok(removed)
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        if fs::symlink_metadata(&self.path)?.is_symlink() {
            return Err(explain(Errno::LOOP.into()));
        }
        let temporary = self.folder.join(format!(".{FILE_NAME}-{}", std::process::id()));
        let _ = fs::remove_file(&temporary);
        let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
        let replaced = written
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_data()))
            .and_then(|()| fs::rename(&temporary, &self.path));
        if replaced.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        replaced
    }

    /// Keeps other clients from writing until it is dropped. The folder is what is locked: the
    /// file may be replaced.
    fn lock(&self) -> io::Result<File> {
        let folder = File::open(&self.folder)?;
        let begun = Instant::now();
        loop {
            match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                // Some network disks know no locks: two clients may then forget what one learned.
                Ok(()) | Err(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP) => return Ok(folder),
                Err(Errno::WOULDBLOCK) if begun.elapsed() < LOCK_TIMEOUT => {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(Errno::WOULDBLOCK) => {
                    let text = "another client has it locked, and does not end";
                    return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn explain(error: io::Error) -> io::Error {
    match Errno::from_io_error(&error) {
        Some(Errno::LOOP) => {
            io::Error::other("it is a symbolic link, which is not written through")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn fingerprint(text: &str) -> Fingerprint {
        let digest = blake3::hash(text.as_bytes());
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(digest.as_bytes());
        Fingerprint::parse(&format!("SHA256:{text}")).unwrap()
    }

    fn key(text: &str) -> ServerKey {
        ServerKey::parse(text, 5000).unwrap()
    }

    fn pins(servers: &KnownServers, server: &str) -> Vec<(usize, Fingerprint)> {
        servers.look_up(&key(server)).unwrap().pins
    }

    #[test]
    fn servers_are_named_by_host_and_port_and_v6_stands_in_brackets() {
        for (typed, named) in [
            ("host.example", "host.example:5000"),
            ("Host.Example.:77", "host.example:77"),
            ("192.0.2.1", "192.0.2.1:5000"),
            ("192.0.2.1:1", "192.0.2.1:1"),
            ("2001:DB8::1", "[2001:db8::1]:5000"),
            ("[2001:db8::1]", "[2001:db8::1]:5000"),
            ("[2001:db8:0::1]:65535", "[2001:db8::1]:65535"),
            ("fe80::1%1", "[fe80::1%1]:5000"),
            ("[::ffff:192.0.2.1]:7", "192.0.2.1:7"),
        ] {
            assert_eq!(key(typed).to_string(), named, "{typed}");
        }
        for bad in ["", ":5000", "host:0", "host:65536", "host:x", "[::1", "[::1]5", "a b", "::g"] {
            assert!(ServerKey::parse(bad, 5000).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_pinned_is_found_and_what_is_forgotten_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let servers = KnownServers::in_folder(&folder.path().join("state"));
        assert!(pins(&servers, "one").is_empty());
        assert_eq!(servers.forget(&key("one")).unwrap(), 0);
        servers.pin(&key("one"), fingerprint("1")).unwrap();
        servers.pin(&key("[::1]:7"), fingerprint("2")).unwrap();
        servers.pin(&key("one"), fingerprint("1")).unwrap();
        assert_eq!(pins(&servers, "ONE"), [(1, fingerprint("1"))]);
        assert_eq!(pins(&servers, "[::1]:7"), [(2, fingerprint("2"))]);
        assert!(pins(&servers, "one:5001").is_empty() && pins(&servers, "::1").is_empty());
        let other = servers.pin(&key("one"), fingerprint("3")).unwrap_err();
        assert!(matches!(other, PinError::OtherKey(known) if known == fingerprint("1")));
        assert_eq!(servers.forget(&key("One")).unwrap(), 1);
        assert!(pins(&servers, "one").is_empty());
        assert_eq!(pins(&servers, "[::1]:7"), [(1, fingerprint("2"))]);
        let mode = fs::metadata(servers.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn damaged_lines_are_told_by_number_and_never_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let servers = KnownServers::in_folder(folder.path());
        let good = fingerprint("good");
        let text = format!(
            "# a remark\r\n\r\nwindows:5000 {good}\r\n\tspaced:5000\t{good} a remark\n\
             short:5000 SHA256:abc\n\u{fffd}\nalone:5000\nlast:5000 {}",
            &good.to_string()[..30]
        );
        let bytes = text.replace('\u{fffd}', "?").into_bytes();
        let bytes: Vec<u8> = bytes.into_iter().map(|b| if b == b'?' { 0xff } else { b }).collect();
        fs::write(servers.path(), &bytes).unwrap();
        for named in ["windows", "spaced"] {
            let known = servers.look_up(&key(named)).unwrap();
            assert_eq!(known.pins.len(), 1, "{named}");
            assert_eq!(known.warnings.len(), 4, "{:?}", known.warnings);
            assert!(known.warnings[0].ends_with("known_servers:5 is not a pin, and is ignored"));
        }
        for (named, line) in [("short", 5), ("alone", 7), ("last", 8)] {
            let known = servers.look_up(&key(named)).unwrap();
            assert!(known.pins.is_empty());
            assert_eq!(known.damaged, Some(line), "{named}");
        }
        // The line that was cut off does not swallow the next one.
        servers.pin(&key("next"), good).unwrap();
        assert_eq!(pins(&servers, "next"), [(9, good)]);
        assert_eq!(servers.forget(&key("last")).unwrap(), 1);
        assert_eq!(pins(&servers, "next"), [(8, good)]);
        assert!(fs::read(servers.path()).unwrap().starts_with(b"# a remark\r\n\r\nwindows"));
    }

    #[test]
    fn writers_at_once_lose_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let servers = KnownServers::in_folder(folder.path());
        servers.pin(&key("forgotten"), fingerprint("x")).unwrap();
        thread::scope(|scope| {
            for number in 0..20 {
                let servers = &servers;
                scope.spawn(move || {
                    let name = format!("host{number}");
                    servers.pin(&key(&name), fingerprint(&name)).unwrap();
                    servers.forget(&key("forgotten")).unwrap();
                });
            }
        });
        for number in 0..20 {
            let name = format!("host{number}");
            assert_eq!(pins(&servers, &name)[0].1, fingerprint(&name));
        }
        assert!(pins(&servers, "forgotten").is_empty());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_others_may_write_to_and_links_are_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let servers = KnownServers::in_folder(folder.path());
        servers.pin(&key("one"), fingerprint("1")).unwrap();
        let set_mode = |mode| {
            fs::set_permissions(servers.path(), fs::Permissions::from_mode(mode)).unwrap();
        };
        set_mode(0o666);
        let told = servers.pin(&key("two"), fingerprint("2")).unwrap_err();
        assert!(matches!(told, PinError::Unwritable(why) if why.contains("others may write")));
        set_mode(0o600);
        let elsewhere = folder.path().join("elsewhere");
        fs::rename(servers.path(), &elsewhere).unwrap();
        symlink(&elsewhere, servers.path()).unwrap();
        assert_eq!(pins(&servers, "one").len(), 1, "it is read through a link");
        let told = servers.pin(&key("two"), fingerprint("2")).unwrap_err();
        assert!(matches!(told, PinError::Unwritable(why) if why.contains("symbolic link")));
        assert!(servers.forget(&key("one")).unwrap_err().to_string().contains("symbolic link"));
        fs::remove_file(servers.path()).unwrap();
        fs::create_dir(servers.path()).unwrap();
        assert!(servers.look_up(&key("one")).is_err(), "nobody can tell");
    }
}
