//! The processes that the bench starts, each in a group of its own, and their certain end.
//!
//! A guard kills its group when it goes out of scope, so also on a panic. Ctrl-C and SIGTERM are
//! awaited by a thread that kills all groups and removes the folders.

use std::{
    fs::{self, File},
    io::Read,
    net::TcpStream,
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpid};

use crate::machine::Cores;

/// A server has so long to answer its first connection.
const START_TIMEOUT: Duration = Duration::from_secs(10);

struct Registry {
    groups: Vec<Pid>,
    folders: Vec<PathBuf>,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { groups: Vec::new(), folders: Vec::new() });

fn registry() -> std::sync::MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Kills everything and leaves with 130 when the user gives up.
pub fn watch_signals() -> Result<(), String> {
    let text = |error| format!("cannot watch for Ctrl-C: {error}");
    let (mut awaited, told) = UnixStream::pair().map_err(text)?;
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let told = told.try_clone().map_err(text)?;
        signal_hook::low_level::pipe::register(signal, told).map_err(text)?;
    }
    thread::spawn(move || {
        // The stream ends only with the process; whatever comes means the end.
        if awaited.read(&mut [0]).is_ok() {
            let registry = registry();
            for group in &registry.groups {
                let _gone_already = kill_process_group(*group, Signal::KILL);
                let _reaped_already = waitpid(Some(*group), WaitOptions::empty());
            }
            for folder in &registry.folders {
                let _cannot_help = fs::remove_dir_all(folder);
            }
            std::process::exit(130);
        }
    });
    Ok(())
}

/// A folder that is removed at the end, however that comes.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes one below `parent`.
    pub fn below(parent: &Path) -> Result<Folder, String> {
        let folder = tempfile::Builder::new().prefix("sixfour-peers-").tempdir_in(parent);
        let folder = folder.map_err(|error| format!("no folder in {}: {error}", parent.display()));
        Ok(Folder::adopt(folder?.keep()))
    }

    /// Takes a folder over that exists already.
    pub fn adopt(path: PathBuf) -> Folder {
        registry().folders.push(path.clone());
        Folder(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        registry().folders.retain(|folder| *folder != self.0);
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} stays behind: {error}", self.0.display());
        }
    }
}

/// A running server; its whole process group dies with the value.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts the command on the core of the servers, its output going to a file in `folder`.
    pub fn start(command: &mut Command, folder: &Path, cores: &Cores) -> Result<Daemon, String> {
        cores.take_server_core();
        let started = Daemon::start_here(command, folder);
        cores.take_load_core();
        started
    }

    /// Starts the command on the cores of the calling thread.
    pub fn start_here(command: &mut Command, folder: &Path) -> Result<Daemon, String> {
        let program = Path::new(command.get_program()).to_path_buf();
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = folder.join(format!("{name}.log"));
        let open = || File::create(&log).map_err(|error| format!("{}: {error}", log.display()));
        let output = open()?;
        let errors = output.try_clone().map_err(|error| error.to_string())?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
        let child = command.spawn().map_err(|error| format!("{name} did not start: {error}"))?;
        registry().groups.push(group(&child));
        Ok(Daemon { child, log })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` gives something, which is what the server takes connections at.
    pub fn wait<T>(&mut self, mut ready: impl FnMut(&str) -> Option<T>) -> Result<T, String> {
        let begin = Instant::now();
        loop {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            if let Some(value) = ready(&log) {
                return Ok(value);
            }
            let last = log.lines().last().unwrap_or("it said nothing").to_owned();
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("did not start ({status}): {last}"));
            }
            if begin.elapsed() > START_TIMEOUT {
                return Err(format!("was not ready after {START_TIMEOUT:?}: {last}"));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the port on 127.0.0.1 takes a connection.
    pub fn wait_for_port(&mut self, port: u16) -> Result<(), String> {
        self.wait(|_| TcpStream::connect(("127.0.0.1", port)).ok().map(drop))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let group = group(&self.child);
        let _gone_already = kill_process_group(group, Signal::KILL);
        let _reaped = self.child.wait();
        registry().groups.retain(|other| *other != group);
    }
}

fn group(child: &Child) -> Pid {
    Pid::from_raw(child.id() as i32).expect("a child has a process id")
}
