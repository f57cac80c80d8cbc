//! A large file from tmpfs to tmpfs, as a user fetches it.
//!
//! Each fetch is a process of its own, started by hand as it were, nobody pinned; the time is from
//! its start to its exit. Every fetched file is compared with the source outside of that time.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    children::{Daemon, Folder},
    direct,
    peers::{self, Peer, Place, find},
    sent,
};

/// Where files live in memory.
pub const MEMORY_FOLDER: &str = "/dev/shm";

/// The file that everybody fetches.
pub const SOURCE: &str = "source.bin";

/// Source and target in memory.
pub struct Files {
    /// Removed at the end.
    pub folder: Folder,
    bytes: u64,
}

impl Files {
    /// Makes the source, of bytes that no compression shortens.
    pub fn make(mebibytes: u64) -> Result<Files, String> {
        let folder = Folder::below(Path::new(MEMORY_FOLDER))?;
        for name in ["source", "target"] {
            let path = folder.path().join(name);
            fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        let files = Files { folder, bytes: mebibytes << 20 };
        write_source(&files.root().join(SOURCE), mebibytes).map_err(|error| {
            format!("{MEMORY_FOLDER} has no room for 2 x {mebibytes} MiB: {error}")
        })?;
        files.touch_memory()?;
        Ok(files)
    }

    /// Copies the file once and throws the copy away: a virtual machine has to get memory that
    /// nobody has used for a while from its host, and who fetches would pay for that by chance.
    pub fn touch_memory(&self) -> Result<(), String> {
        let copy = self.target().join(SOURCE);
        fs::copy(self.root().join(SOURCE), &copy)
            .and_then(|_| fs::remove_file(&copy))
            .map_err(|error| format!("{MEMORY_FOLDER} has no room for a copy: {error}"))
    }

    /// The folder with the source.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("target")
    }

    /// Empties the target, lets `work` fill it, which tells the time that it took, and compares.
    fn fetch_by(
        &self,
        work: impl FnOnce(&Path) -> Result<Duration, String>,
    ) -> Result<Duration, String> {
        let target = self.target();
        let text = |error| format!("{}: {error}", target.display());
        fs::remove_dir_all(&target).map_err(text)?;
        fs::create_dir(&target).map_err(text)?;
        self.touch_memory()?;
        let taken = work(&target)?;
        self.compare()?;
        Ok(taken)
    }

    /// Lets a command fill the target, from its start to its end.
    fn fetch(&self, command: &mut Command) -> Result<Duration, String> {
        self.fetch_by(|target| {
            command.current_dir(target).stdin(Stdio::null()).stdout(Stdio::null());
            let begin = Instant::now();
            let output = command.stderr(Stdio::piped()).output();
            let taken = begin.elapsed();
            let output = output.map_err(|error| format!("did not start: {error}"))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                return Err(format!("failed ({}): {}", output.status, said.trim()));
            }
            Ok(taken)
        })
    }

    fn compare(&self) -> Result<(), String> {
        let text = |error| format!("cannot compare: {error}");
        let mut found = fs::read_dir(self.target()).map_err(text)?;
        let fetched = match (found.next(), found.next()) {
            (Some(Ok(entry)), None) => entry.path(),
            _ => return Err("the target does not hold exactly one file".to_owned()),
        };
        let mut left = File::open(self.root().join(SOURCE)).map_err(text)?;
        let mut right = File::open(fetched).map_err(text)?;
        if right.metadata().map_err(text)?.len() != self.bytes {
            return Err("the fetched file has another length".to_owned());
        }
        let mut blocks = [vec![0; 1 << 20], vec![0; 1 << 20]];
        for _ in 0..self.bytes >> 20 {
            left.read_exact(&mut blocks[0]).map_err(text)?;
            right.read_exact(&mut blocks[1]).map_err(text)?;
            if blocks[0] != blocks[1] {
                return Err("the fetched file differs".to_owned());
            }
        }
        Ok(())
    }
}

/// A folder on a disk with the source, of which nothing is in memory; and its size in bytes.
pub fn cold_file(mebibytes: u64) -> Result<(Folder, u64), String> {
    let folder = Folder::below(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    let text = |error: std::io::Error| format!("{}: {error}", folder.path().display());
    let path = folder.path().join(SOURCE);
    write_source(&path, mebibytes).map_err(text)?;
    let file = File::open(&path).map_err(text)?;
    file.sync_all().map_err(text)?;
    let dropped = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    dropped.map_err(|error| text(error.into()))?;
    if sixfour::sys::files::page_is_cached(&file, 0) {
        return Err(format!("{} is no disk that can be waited for", folder.path().display()));
    }
    Ok((folder, mebibytes << 20))
}

/// Writes a file of bytes that no compression shortens.
fn write_source(path: &Path, mebibytes: u64) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut block = vec![0u8; 1 << 20];
    for _ in 0..mebibytes {
        // xorshift64 (Marsaglia 2003): fast, and never the same block twice.
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block)?;
    }
    Ok(())
}

/// How a file is fetched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// Our client from a server that has just started and knows no hash.
    OursFirst,
    /// Our client from the same server again.
    OursLater,
    /// The same two inside TLS.
    OursTlsFirst,
    /// See [`Way::OursTlsFirst`].
    OursTlsLater,
    /// nginx with sendfile, and curl.
    Nginx,
    /// The rsync daemon.
    Rsync,
    /// scp from sshd with AES-128-GCM.
    Scp,
    /// Our clients, straight from one to the other.
    Direct,
    /// Our clients, sealed through our server.
    Relayed,
    /// The direct channel by itself, in one process and with no hash.
    Channel,
}

impl Way {
    /// All ways from a server, in the order of a round.
    pub const DOWNLOADS: [Way; 7] = [
        Way::OursFirst,
        Way::OursLater,
        Way::OursTlsFirst,
        Way::OursTlsLater,
        Way::Nginx,
        Way::Rsync,
        Way::Scp,
    ];

    /// All ways from one user to another.
    pub const SENDS: [Way; 4] = [Way::Direct, Way::Relayed, Way::Channel, Way::Scp];

    /// The name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Way::OursFirst => "sixfour-first",
            Way::OursLater => "sixfour-later",
            Way::OursTlsFirst => "sixfour-tls-first",
            Way::OursTlsLater => "sixfour-tls-later",
            Way::Nginx => "nginx+curl",
            Way::Rsync => "rsync",
            Way::Scp => "scp",
            Way::Direct => "sixfour-direct",
            Way::Relayed => "sixfour-relayed",
            Way::Channel => "sixfour-channel",
        }
    }

    /// What the receiver has checked when it ends.
    pub fn verified_by(self) -> &'static str {
        match self {
            Way::OursFirst | Way::OursLater => "verified by BLAKE3",
            Way::OursTlsFirst | Way::OursTlsLater | Way::Direct | Way::Relayed => {
                "verified by BLAKE3, AES-GCM in transit"
            }
            Way::Nginx => "not verified",
            Way::Rsync => "verified by xxHash",
            Way::Scp | Way::Channel => "verified by the cipher in transit",
        }
    }
}

/// The servers, as far as they are installed.
pub struct Sources {
    ours: Option<Peer>,
    nginx: Result<(Daemon, u16), String>,
    rsync: Result<(Daemon, u16), String>,
    scp: Result<Sshd, String>,
}

impl Sources {
    /// Starts those whose way is in `ways`.
    pub fn start(place: &Place, files: &Files, ways: &[Way]) -> Sources {
        let wanted = |way| if ways.contains(&way) { Ok(()) } else { Err("filtered".to_owned()) };
        Sources {
            ours: None,
            nginx: wanted(Way::Nginx).and_then(|()| start_nginx(place, files)),
            rsync: wanted(Way::Rsync).and_then(|()| start_rsync(place, files)),
            scp: wanted(Way::Scp).and_then(|()| start_sshd(place)),
        }
    }

    /// Fetches once.
    pub fn fetch(&mut self, way: Way, place: &Place, files: &Files) -> Result<Duration, String> {
        let mut command = match way {
            Way::OursFirst | Way::OursLater | Way::OursTlsFirst | Way::OursTlsLater => {
                let is_first = matches!(way, Way::OursFirst | Way::OursTlsFirst);
                if is_first || self.ours.is_none() {
                    self.ours = None;
                    self.ours = Some(peers::start_ours_unpinned(place, &files.root())?);
                }
                let ours = self.ours.as_ref().expect("it was started just now");
                let mut command = our_client(ours, place);
                if matches!(way, Way::OursTlsFirst | Way::OursTlsLater) {
                    command.arg("--tls");
                }
                command.args(["--user", "fetcher", "download", SOURCE]);
                command
            }
            Way::Nginx => {
                let port = self.nginx.as_ref().map_err(String::clone)?.1;
                let mut command = Command::new(find("curl", "curl")?);
                command.args(["-sS", "--fail", "-o", "fetched.bin"]);
                command.arg(format!("http://127.0.0.1:{port}/{SOURCE}"));
                command
            }
            Way::Rsync => {
                let port = self.rsync.as_ref().map_err(String::clone)?.1;
                let mut command = Command::new(find("rsync", "rsync")?);
                let source = format!("rsync://127.0.0.1:{port}/share/{SOURCE}");
                command.args(["--quiet", "--whole-file", &source, "fetched.bin"]);
                command
            }
            Way::Scp => self.scp.as_ref().map_err(String::clone)?.copy_command(files)?,
            Way::Channel => {
                let source = files.root().join(SOURCE);
                return files.fetch_by(|target| direct::copy(&source, &target.join(SOURCE)));
            }
            Way::Direct | Way::Relayed => {
                let source = files.root().join(SOURCE);
                if self.ours.is_none() {
                    self.ours = Some(peers::start_ours_unpinned(place, &files.root())?);
                }
                let ours = self.ours.as_ref().expect("it was started just now");
                return files.fetch_by(|target| sent::copy(ours, place, (&source, target), way));
            }
        };
        files.fetch(&mut command)
    }
}

/// Our client, on its way to that server by IPv4.
pub fn our_client(peer: &Peer, place: &Place) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
    let address = peer.address(1);
    command.args(["--ip", &address.ip().to_string(), "--port", &address.port().to_string()]);
    command.arg("--state").arg(place.state_folder());
    command
}

fn start_nginx(place: &Place, files: &Files) -> Result<(Daemon, u16), String> {
    let program = find("nginx", "nginx-light")?;
    let port = place.free_port()?;
    let folder = place.folder.path().display();
    // The worker must read below a folder that is ours alone.
    let user = if rustix::process::getuid().is_root() { "user root;" } else { "" };
    let text = format!(
        "{user} worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log stderr;\n\
         events {{ worker_connections 64; }}\n\
         http {{\n  access_log off; sendfile on; tcp_nopush on;\n  \
         client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; \
         fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;\n  \
         server {{ listen 127.0.0.1:{port}; root {}; }}\n}}\n",
        files.root().display()
    );
    let config = place.write("nginx.conf", &text)?;
    let mut command = Command::new(program);
    command.arg("-c").arg(config).arg("-p").arg(place.folder.path());
    launch(command, place, port)
}

/// The rsync daemon, with the source to read and the target to write.
pub fn start_rsync(place: &Place, files: &Files) -> Result<(Daemon, u16), String> {
    let program = find("rsync", "rsync")?;
    let port = place.free_port()?;
    let user = if rustix::process::getuid().is_root() { "uid = root\ngid = root\n" } else { "" };
    let text = format!(
        "port = {port}\naddress = 127.0.0.1\nuse chroot = no\nreverse lookup = no\n{user}\
         [share]\npath = {}\nread only = yes\n[target]\npath = {}\nread only = no\n",
        files.root().display(),
        files.target().display()
    );
    let config = place.write("rsyncd.conf", &text)?;
    let mut command = Command::new(program);
    command.args(["--daemon", "--no-detach"]).arg(format!("--config={}", config.display()));
    launch(command, place, port)
}

fn launch(mut command: Command, place: &Place, port: u16) -> Result<(Daemon, u16), String> {
    let mut daemon = Daemon::start_here(&mut command, place.folder.path())?;
    daemon.wait_for_port(port)?;
    Ok((daemon, port))
}

/// sshd, and the key by which it lets us in.
pub struct Sshd {
    _daemon: Daemon,
    port: u16,
    key: PathBuf,
    _run_folder: Option<Folder>,
}

impl Sshd {
    /// `ssh` or `scp`, on its way to that server; `port_option` is what it calls its port.
    fn command(&self, program: &str, port_option: &str) -> Result<Command, String> {
        let mut command = Command::new(find(program, "openssh-client")?);
        command.args(["-q", "-c", "aes128-gcm@openssh.com", "-o", "StrictHostKeyChecking=no"]);
        command.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]);
        command.args(["-F", "none", port_option, &self.port.to_string(), "-i"]).arg(&self.key);
        Ok(command)
    }

    /// Runs `true` there.
    pub fn run_command(&self) -> Result<Command, String> {
        let mut command = self.command("ssh", "-p")?;
        command.arg(format!("{}@127.0.0.1", user()?)).arg("true");
        Ok(command)
    }

    fn copy_command(&self, files: &Files) -> Result<Command, String> {
        let mut command = self.command("scp", "-P")?;
        let source = files.root().join(SOURCE);
        command.arg(format!("{}@127.0.0.1:{}", user()?, source.display())).arg("fetched.bin");
        Ok(command)
    }
}

/// Who we are, by name.
fn user() -> Result<String, String> {
    let user = rustix::process::getuid();
    let output = Command::new("id").args(["-un", &user.as_raw().to_string()]).output();
    let output = output.map_err(|error| format!("who are we: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Starts sshd on 127.0.0.1, for us alone.
pub fn start_sshd(place: &Place) -> Result<Sshd, String> {
    let program = find("sshd", "openssh-server")?;
    let port = place.free_port()?;
    let folder = place.folder.path();
    let key = folder.join(format!("key-{port}"));
    let made = Command::new(find("ssh-keygen", "openssh-client")?)
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status();
    match made {
        Ok(status) if status.success() => {}
        other => return Err(format!("ssh-keygen failed: {other:?}")),
    }
    // The same key for host and user: it lives as long as this bench.
    let text = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {key}\nAuthorizedKeysFile {key}.pub\n\
         PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\n\
         PasswordAuthentication no\nSubsystem sftp internal-sftp\n",
        key = key.display()
    );
    let config = place.write("sshd.conf", &text)?;
    let run_folder = make_run_folder();
    let mut command = Command::new(program);
    command.args(["-D", "-e", "-f"]).arg(config);
    let (daemon, port) = launch(command, place, port)?;
    Ok(Sshd { _daemon: daemon, port, key, _run_folder: run_folder })
}

/// sshd wants its empty folder, which the service otherwise makes at its start.
fn make_run_folder() -> Option<Folder> {
    let path = PathBuf::from("/run/sshd");
    if !rustix::process::getuid().is_root() || path.exists() {
        return None;
    }
    fs::create_dir(&path).ok()?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).ok()?;
    Some(Folder::adopt(path))
}
