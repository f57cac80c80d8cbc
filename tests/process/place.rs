//! The client of one user, in a folder of its own.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{FAMILIES, PATIENCE, Server, await_true};

/// A folder in which the client of one user runs.
pub struct Place {
    pub folder: TempDir,
    pub user: &'static str,
    pub ip: IpAddr,
}

/// How a client ended.
pub struct Left {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn new(user: &'static str, ip: IpAddr) -> Place {
        Place { folder: TempDir::new().expect("a folder"), user, ip }
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn put(&self, name: impl AsRef<Path>, content: &[u8]) {
        fs::write(self.path(name), content).expect("a file of the test");
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect(name)
    }

    pub fn start(&self, server: &Server, arguments: &[&str]) -> Child {
        let child = self.start_by(server.port, arguments);
        // Whoever is written to has to be there.
        await_user(server, self.user);
        child
    }

    /// The same by way of another port; nobody is awaited.
    pub fn start_by(&self, port: u16, arguments: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
        command.args(["--ip", &self.ip.to_string(), "--port", &port.to_string()]);
        command.args(["--user", self.user]).args(arguments).current_dir(self.folder.path());
        command.env("XDG_STATE_HOME", self.folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the client starts")
    }

    /// To its end.
    pub fn run(&self, server: &Server, arguments: &[&str]) -> Left {
        end_of(self.start_by(server.port, arguments))
    }
}

impl Left {
    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Left {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        self
    }
}

/// Waits for the end, and kills what does not end in time.
pub fn end_of(child: Child) -> Left {
    let pid = Pid::from_child(&child);
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let watch = thread::spawn(move || {
        if is_done.recv_timeout(PATIENCE).is_err() {
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    let output = child.wait_with_output().expect("our child");
    let _ = done.send(());
    watch.join().expect("nothing can fail");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Left { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

pub fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("our child");
}

pub fn is_here(server: &Server, user: &str) -> bool {
    let mut line = server.line(FAMILIES[0]);
    line.send("who");
    let mut found = false;
    loop {
        let said = line.next();
        if said.starts_with('[') {
            return found;
        }
        found |= said == user;
    }
}

pub fn await_user(server: &Server, user: &str) {
    await_true("the user is here", || is_here(server, user));
}

pub fn await_gone(server: &Server, user: &str) {
    await_true("the user is gone", || !is_here(server, user));
}

/// The unfinished file that is to become `name`.
pub fn unfinished(place: &Place, name: &str) -> PathBuf {
    place.path(sixfour::sys::stage_name::stable(std::ffi::OsStr::new(name)))
}

/// Waits until so many bytes of an unfinished file are there.
pub fn await_bytes(path: &Path, bytes: u64) {
    await_true("a part of the file", || fs::metadata(path).is_ok_and(|it| it.len() >= bytes));
}

pub fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("one"));
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
