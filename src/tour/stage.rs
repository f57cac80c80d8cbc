//! The processes and folders of a tour, and how they are cleared away.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::PathBuf,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::Pid;

use super::{PATIENCE, SERVER_ARGUMENT};

/// What has to be cleared away at the end, whoever comes to that end: folders and processes.
pub(super) struct Stage {
    /// This program, which plays all parts.
    program: PathBuf,
    /// All else is below it, and it is removed at the end.
    folder: PathBuf,
    children: Mutex<Vec<Child>>,
    /// The folder that the server shares.
    pub(super) root: PathBuf,
    /// Where the server and the clients keep their keys.
    pub(super) state: PathBuf,
    /// The folder that the clients are in.
    pub(super) downloads: PathBuf,
}

/// Which part this program plays in a process.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Part {
    Server,
    Client,
}

impl Stage {
    pub(super) fn new() -> Result<Stage, String> {
        let program = std::env::current_exe().map_err(|error| format!("where am I? {error}"))?;
        let context = |error: io::Error| format!("no folder for temporary files: {error}");
        let mut chance = [0; 8];
        getrandom::fill(&mut chance).map_err(|error| error.to_string())?;
        let name = format!("sixfour-tour-{:016x}", u64::from_ne_bytes(chance));
        let folder = std::env::temp_dir().join(name);
        // Private, and new: nobody else has laid anything there.
        fs::DirBuilder::new().mode(0o700).create(&folder).map_err(context)?;
        let (root, downloads) = (folder.join("shared"), folder.join("fetched"));
        let state = folder.join("state");
        let stage =
            Stage { program, folder, children: Mutex::new(Vec::new()), root, state, downloads };
        let made = fs::create_dir(&stage.root).and_then(|()| fs::create_dir(&stage.downloads));
        match made {
            Ok(()) => Ok(stage),
            Err(error) => {
                let _ = stage.clear();
                Err(context(error))
            }
        }
    }

    fn children(&self) -> MutexGuard<'_, Vec<Child>> {
        // A thread that broke while it held them leaves them as they are: to be ended.
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts this program in one of its parts, its input and outputs in our hands.
    pub(super) fn start(&self, part: Part, arguments: &[&str]) -> Result<Program, String> {
        let mut command = Command::new(&self.program);
        if part == Part::Server {
            command.arg(SERVER_ARGUMENT);
        }
        command.args(arguments).current_dir(&self.downloads).env_remove("RUST_LOG");
        command.env("XDG_STATE_HOME", &self.state);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("it cannot start: {error}"))?;
        let (sender, lines) = mpsc::channel();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (stdin, pid) = (child.stdin.take(), Pid::from_child(&child));
        self.children().push(child);
        follow(Output::Out, stdout.ok_or("it has no output")?, sender.clone())?;
        follow(Output::Err, stderr.ok_or("it has no output for errors")?, sender)?;
        Ok(Program { pid, stdin, lines })
    }

    /// Waits for the end of a process that was started here.
    pub(super) fn wait(&self, pid: Pid) -> Result<ExitStatus, String> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let mut children = self.children();
            let child = children.iter_mut().find(|child| Pid::from_child(child) == pid);
            let child = child.ok_or("it was cleared away meanwhile")?;
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => {}
                Err(error) => return Err(error.to_string()),
            }
            drop(children);
            thread::sleep(Duration::from_millis(1));
        }
        Err(format!("it has not ended after {PATIENCE:?}"))
    }

    /// Ends what still runs and removes the folder.
    ///
    /// # Errors
    /// Something of it could not be removed.
    pub(super) fn clear(&self) -> io::Result<()> {
        for child in self.children().iter_mut() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Output {
    Out,
    Err,
}

/// Sends each line of a pipe until its end.
fn follow(
    output: Output,
    pipe: impl Read + Send + 'static,
    lines: mpsc::Sender<(Output, String)>,
) -> Result<(), String> {
    let started = thread::Builder::new().name("tour pipe".to_owned()).spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line).into_owned();
            if lines.send((output, text)).is_err() {
                return;
            }
            line.clear();
        }
    });
    started.map(drop).map_err(|error| format!("no thread can be had: {error}"))
}

/// A running `server` or `client`.
pub(super) struct Program {
    /// Its process.
    pub(super) pid: Pid,
    /// Its standard input, until it is closed.
    pub(super) stdin: Option<ChildStdin>,
    /// What it says, line by line.
    pub(super) lines: mpsc::Receiver<(Output, String)>,
}

impl Program {
    /// The next line of either output, without its end.
    pub(super) fn line(&self) -> Result<String, String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok((_, line)) => Ok(line.trim_end_matches('\n').to_owned()),
            Err(RecvTimeoutError::Timeout) => Err(format!("nothing came within {PATIENCE:?}")),
            Err(RecvTimeoutError::Disconnected) => Err("it has closed its outputs".to_owned()),
        }
    }

    pub(super) fn type_line(&mut self, line: &str) -> Result<(), String> {
        let stdin = self.stdin.as_mut().ok_or("its input is closed already")?;
        writeln!(stdin, "{line}").map_err(|error| format!("it takes no input: {error}"))
    }

    /// All that came and comes, by output. For a program that has ended.
    pub(super) fn rest(&self) -> (String, String) {
        let (mut out, mut err) = (String::new(), String::new());
        while let Ok((output, line)) = self.lines.recv_timeout(PATIENCE) {
            if output == Output::Out { out += &line } else { err += &line }
        }
        (out, err)
    }
}
