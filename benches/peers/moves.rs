//! Files and folders both ways, and a transfer that goes on: sixfour beside the rsync daemon.
//!
//! From memory to memory, each move a process of its own; the time is from its start to its exit.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use sixfour::sys::stage_name;

use crate::{
    children::Daemon,
    download::{Files, SOURCE},
    peers::{self, Peer, Place, find},
};

/// What is moved, and where to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Move {
    /// The large file, to the server.
    Upload,
    /// 10,000 files of 4 KiB, from the server.
    ManyDown,
    /// The same, to the server.
    ManyUp,
    /// The large file, of which 60 % are there already, from the server.
    Resume,
}

/// One move.
pub struct Moved {
    /// From the start of the process to its exit.
    pub time: Duration,
    /// The largest resident memory of our client and server, in KiB; 0 for others.
    pub client_kib: u64,
    /// See [`Moved::client_kib`].
    pub server_kib: u64,
    /// Bytes that our server has sent from its files, by the system's count; the last few KiB of a
    /// file, and messages, go another way.
    pub sent_bytes: u64,
}

const MANY: usize = 10_000;
const MANY_BYTES: usize = 4096;
const MANY_FOLDER: &str = "many";
const POLL: Duration = Duration::from_millis(2);

/// The servers and the folders.
pub struct Movers<'a> {
    files: &'a Files,
    ours: Peer,
    rsync: Result<(Daemon, u16), String>,
}

impl<'a> Movers<'a> {
    /// Makes the small files and starts both servers.
    pub fn start(place: &Place, files: &'a Files) -> Result<Movers<'a>, String> {
        let many = files.root().join(MANY_FOLDER);
        let text = |error: std::io::Error| format!("{}: {error}", many.display());
        fs::create_dir_all(&many).map_err(text)?;
        let mut source = File::open(files.root().join(SOURCE)).map_err(text)?;
        let mut content = vec![0; MANY_BYTES];
        for number in 0..MANY {
            source.read_exact(&mut content).map_err(text)?;
            fs::write(many.join(format!("f{number:05}")), &content).map_err(text)?;
        }
        let rsync = crate::download::start_rsync(place, files);
        let ours = peers::start_ours_unpinned(place, files.folder.path())?;
        Ok(Movers { files, ours, rsync })
    }

    /// Moves once, by our client or by rsync, into an empty target.
    pub fn run(&self, what: Move, is_ours: bool) -> Result<Moved, String> {
        let target = self.files.folder.path().join("target");
        let text = |error: std::io::Error| format!("{}: {error}", target.display());
        fs::remove_dir_all(&target).map_err(text)?;
        fs::create_dir(&target).map_err(text)?;
        self.files.touch_memory()?;
        if what == Move::Resume {
            let mut source = File::open(self.files.root().join(SOURCE)).map_err(text)?;
            let size = source.metadata().map_err(text)?.len();
            let name = stage_name::stable(format!("client_{SOURCE}").as_ref());
            let mut part = File::create(target.join(name));
            let part = part.as_mut().map_err(|error| error.to_string())?;
            std::io::copy(&mut source.by_ref().take(size * 6 / 10), part).map_err(text)?;
        }
        let mut command = if is_ours { self.ours(what) } else { self.rsync(what)? };
        command.current_dir(if is_up(what) { self.files.root() } else { target.clone() });
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let server = self.ours.daemon.pid();
        let before = field(server, "io", "wchar");
        let begin = Instant::now();
        let mut child = command.spawn().map_err(|error| format!("did not start: {error}"))?;
        let mut client_kib = 0;
        if is_ours {
            while child.try_wait().map_err(text)?.is_none() {
                client_kib = client_kib.max(field(child.id(), "status", "VmHWM"));
                std::thread::sleep(POLL);
            }
        }
        let output = child.wait_with_output().map_err(text)?;
        let time = begin.elapsed();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("failed ({}): {}", output.status, said.trim()));
        }
        self.check(what, &target)?;
        let sent_bytes = field(server, "io", "wchar").saturating_sub(before);
        let server_kib = if is_ours { field(server, "status", "VmHWM") } else { 0 };
        Ok(Moved { time, client_kib, server_kib, sent_bytes })
    }

    fn ours(&self, what: Move) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
        let address = self.ours.address(1);
        command.args(["--ip", &address.ip().to_string(), "--port", &address.port().to_string()]);
        match what {
            Move::Upload => command.args(["upload", SOURCE, "--to", "target"]),
            Move::ManyUp => command.args(["upload", MANY_FOLDER, "--to", "target"]),
            Move::ManyDown => command.args(["download", "source/many"]),
            Move::Resume => command.arg("download").arg(format!("source/{SOURCE}")),
        };
        command
    }

    fn rsync(&self, what: Move) -> Result<Command, String> {
        let port = self.rsync.as_ref().map_err(String::clone)?.1;
        let mut command = Command::new(find("rsync", "rsync")?);
        command.args(["--quiet", "--whole-file", "-rt"]);
        match what {
            Move::Upload => command.arg(SOURCE).arg(format!("rsync://127.0.0.1:{port}/target/")),
            Move::ManyUp => {
                command.arg(MANY_FOLDER).arg(format!("rsync://127.0.0.1:{port}/target/"))
            }
            Move::ManyDown => {
                command.arg(format!("rsync://127.0.0.1:{port}/share/{MANY_FOLDER}")).arg(".")
            }
            Move::Resume => return Err("it proves nothing of what is there".to_owned()),
        };
        Ok(command)
    }

    /// Whether all is there; contents are compared by the download's own row and by tests.
    fn check(&self, what: Move, target: &Path) -> Result<(), String> {
        let missing = || format!("not all is in {}", target.display());
        let found: PathBuf = match fs::read_dir(target).map_err(|it| it.to_string())?.next() {
            Some(Ok(entry)) => entry.path(),
            _ => return Err(missing()),
        };
        let is_there = match what {
            Move::ManyDown | Move::ManyUp => {
                fs::read_dir(found).map_err(|it| it.to_string())?.count() == MANY
            }
            Move::Upload | Move::Resume => {
                let size = |path: &Path| fs::metadata(path).map(|it| it.len()).ok();
                size(&found) == size(&self.files.root().join(SOURCE))
            }
        };
        if is_there { Ok(()) } else { Err(missing()) }
    }
}

fn is_up(what: Move) -> bool {
    matches!(what, Move::Upload | Move::ManyUp)
}

/// A number of `/proc/PID/...`; 0 where the process has ended.
fn field(pid: u32, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}
