//! Running commands: pipes and exits in the loop, no thread for any of them.
//!
//! ```text
//!   start --> running --exit of the shell--------> draining --> over: what it left behind goes on
//!                |                                    |
//!                +--cancelled, lost, out of time------+-------> TERM to its group, 2 s, KILL
//! ```
//!
//! A command is over when its shell has exited and both pipes are at their end. What it left in
//! the background does not hold the answer: pipes that stay open are given up after [`DRAIN_MS`].
//! It goes on, as with ssh, but for a write to a pipe that nobody reads any more.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    io::{self, Read as _, Write as _},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    time::Instant,
};

use mio::{
    Interest, Registry,
    unix::{SourceFd, pipe},
};

use super::{
    programs::{Invocation, resolve},
    token::{Pipe, Source},
};
use crate::{
    hub::{OperationId, Program, SessionId},
    sys::{
        guard::Guard,
        process::{
            self, Exit, Pid, Process, Spawn, endings::Endings, environment::Environment,
            programs::search_path,
        },
    },
    wire::{ErrorCode, Outcome, Refusal, Stream},
};

/// How long after the exit a pipe may stay open and silent, in milliseconds.
const DRAIN_MS: u64 = 200;

/// What commands are started with.
pub struct CommandSetup {
    /// Ends them where the server is killed.
    pub guard: Guard,
    /// What they find in their environment.
    pub environment: Environment,
}

/// All commands under way.
pub struct Commands {
    running: HashMap<OperationId, Command>,
    /// Whose group it is, while its end is awaited.
    groups: HashMap<Pid, OperationId>,
    endings: Endings,
    /// Commands whose shell has exited, and until when their pipes may stay open and silent.
    draining: Vec<(u64, OperationId)>,
    guard: Guard,
    environment: Environment,
    /// Where `run cd` has led the sessions that used it.
    folders: HashMap<SessionId, Folders>,
    root: PathBuf,
}

/// Where a session is, and where it was before, which is what `cd -` means.
struct Folders {
    current: PathBuf,
    previous: PathBuf,
}

struct Command {
    session: SessionId,
    /// Its shell, alive or a zombie that keeps the number of the group ours. `None` once the group
    /// is being ended, or left alone.
    process: Option<Process>,
    stdin: Option<pipe::Sender>,
    stdout: Output,
    stderr: Output,
    /// Which output was read last: they take turns.
    last: Stream,
    exit: Option<Exit>,
    /// Whether nobody waits any more for what others may still write.
    drained: bool,
    /// Whether it was ended before its time: then its end waits for no room.
    terminated: bool,
    /// `cd` prints where it leads; this is what it has printed.
    directory: Option<Vec<u8>>,
}

/// One output of a command.
struct Output {
    pipe: Option<pipe::Receiver>,
    /// Whether reading may give something: readiness is told once, so it is noted.
    readable: bool,
    /// So much is still to be read, once that is settled: somebody who has left the group could
    /// write for ever.
    left_bytes: Option<usize>,
}

/// What a look at a command's outputs gave.
#[derive(Debug)]
pub enum Produced {
    /// So many bytes of this output are in the buffer.
    Bytes(Stream, usize),
    /// Nothing for now.
    Nothing,
    /// It is over.
    Over(Outcome),
}

impl Commands {
    /// None so far; all begin in `root`.
    pub fn new(root: PathBuf, setup: CommandSetup) -> Commands {
        Commands {
            running: HashMap::new(),
            groups: HashMap::new(),
            endings: Endings::default(),
            draining: Vec::new(),
            guard: setup.guard,
            environment: setup.environment,
            folders: HashMap::new(),
            root,
        }
    }

    /// Starts a command; the refusal says why it could not be.
    pub fn start(
        &mut self,
        id: OperationId,
        session: SessionId,
        command: &str,
        stdin: bool,
        registry: &Registry,
    ) -> Result<(), Refusal> {
        let changes_directory = is_cd(command);
        let folders = self.folders.get(&session);
        let mut directory = folders.map_or(&self.root, |folders| &folders.current);
        // Whoever stands in a folder that is gone must be able to leave it.
        if changes_directory && process::check_directory(directory).is_err() {
            directory = &self.root;
        }
        let told = format!("{command} >/dev/null && pwd -P");
        let previous = folders.map(|folders| ("OLDPWD", folders.previous.as_os_str()));
        let spawn = Spawn {
            command: OsStr::new(if changes_directory { told.as_str() } else { command }),
            directory,
            stdin,
            environment: &self.environment,
            variables: previous.as_slice(),
        };
        let spawned = process::spawn(&spawn);
        self.watch(spawned, id, session, registry)?;
        if changes_directory && let Some(command) = self.running.get_mut(&id) {
            command.directory = Some(Vec::new());
        }
        Ok(())
    }

    /// Starts a program without a shell; the refusal says why it could not be, which may be that
    /// it is not there.
    pub fn start_program(
        &mut self,
        id: OperationId,
        session: SessionId,
        program: &Program,
        stdin: bool,
        registry: &Registry,
    ) -> Result<(), Refusal> {
        let Invocation { program, arguments } = resolve(program, &search_path())?;
        let folders = self.folders.get(&session);
        let directory = folders.map_or(&self.root, |folders| &folders.current);
        let environment = &self.environment;
        let spawned = process::spawn_program(&program, &arguments, directory, stdin, environment);
        self.watch(spawned, id, session, registry)
    }

    fn watch(
        &mut self,
        spawned: io::Result<Process>,
        id: OperationId,
        session: SessionId,
        registry: &Registry,
    ) -> Result<(), Refusal> {
        let watched = spawned.and_then(|process| {
            let group = process.group();
            self.guard.watch(group);
            // Where it fails the process is dropped, and its group with it.
            Command::watch(process, id, session, registry).inspect_err(|_| self.guard.forget(group))
        });
        let command = watched.map_err(|error| {
            let text = format!("the command could not be started: {error}");
            Refusal::new(0, ErrorCode::CannotStart, text)
        })?;
        self.running.insert(id, command);
        Ok(())
    }

    /// Notes that something of a command is ready; false where it is gone.
    pub fn note(&mut self, id: OperationId, pipe: Pipe, now: u64) -> bool {
        let Some(command) = self.running.get_mut(&id) else { return false };
        match pipe {
            Pipe::Stdout => command.stdout.readable = true,
            Pipe::Stderr => command.stderr.readable = true,
            Pipe::Stdin => {}
            Pipe::Exit => self.on_exit(id, now),
        }
        true
    }

    fn on_exit(&mut self, id: OperationId, now: u64) {
        let Some(command) = self.running.get_mut(&id) else { return };
        let Some(process) = command.process.as_ref().filter(|_| command.exit.is_none()) else {
            return;
        };
        match process.try_status() {
            Ok(Some(exit)) => {
                command.exit = Some(exit);
                self.draining.push((now + DRAIN_MS, id));
            }
            Ok(None) => {}
            Err(error) => {
                log::error!("the exit of a command is not known: {error}");
                self.end_group(id);
            }
        }
    }

    /// Ends the group of a command: TERM, 2 s, KILL.
    fn end_group(&mut self, id: OperationId) {
        let Some(command) = self.running.get_mut(&id) else { return };
        if let Some(process) = command.process.take() {
            self.groups.insert(process.group(), id);
            self.endings.push(process, Instant::now());
        }
    }

    /// Lets go of a command that has come to its end by itself, and of all that it left behind.
    fn release(&mut self, id: OperationId) {
        let command = self.running.get_mut(&id);
        let Some(process) = command.and_then(|command| command.process.take()) else { return };
        // Before the zombie goes: after that its number may have a new owner.
        self.guard.forget(process.group());
        if let Err(process) = process.reap() {
            self.endings.push(process, Instant::now());
        }
    }

    /// Ends a command before its time; its output so far is kept.
    pub fn terminate(&mut self, id: OperationId) {
        if let Some(command) = self.running.get_mut(&id) {
            command.terminated = true;
        }
        self.end_group(id);
    }

    /// Ends a command about which nobody wants to know any more, or forgets one that is over.
    pub fn drop_command(&mut self, id: OperationId) {
        self.end_group(id);
        self.running.remove(&id);
    }

    /// Forgets where a session has gone by `run cd`.
    pub fn forget_session(&mut self, session: SessionId) {
        self.folders.remove(&session);
    }

    /// Reads up to `room` bytes of output into `buffer`, or tells how the command has ended;
    /// without room only the latter, when all its output is read.
    pub fn produce(&mut self, id: OperationId, buffer: &mut [u8], room: usize) -> Produced {
        let Some(command) = self.running.get_mut(&id) else { return Produced::Nothing };
        let room = room.min(buffer.len());
        if let Some((stream, count)) = command.read(&mut buffer[..room]) {
            command.note_directory(stream, &buffer[..count]);
            return Produced::Bytes(stream, count);
        }
        match command.outcome() {
            Some(outcome) => {
                if let Outcome::Exit { directory: Some(directory), .. } = &outcome {
                    let session = command.session;
                    self.note_folder(session, OsString::from_vec(directory.clone()).into());
                }
                self.release(id);
                Produced::Over(outcome)
            }
            None => Produced::Nothing,
        }
    }

    fn note_folder(&mut self, session: SessionId, current: PathBuf) {
        let before = self.folders.remove(&session).map(|folders| folders.current);
        let previous = before.unwrap_or_else(|| self.root.clone());
        self.folders.insert(session, Folders { current, previous });
    }

    /// Writes to the standard input of a command: how many bytes it took, or `None` where it has
    /// closed it. With `ended`, and nothing left, the input is closed.
    pub fn feed(&mut self, id: OperationId, bytes: &[u8], ended: bool) -> Option<usize> {
        let command = self.running.get_mut(&id)?;
        let mut taken = 0;
        while taken < bytes.len() {
            match command.stdin.as_mut()?.write(&bytes[taken..]) {
                Ok(count) => taken += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(taken),
                Err(_) => {
                    command.stdin = None;
                    return None;
                }
            }
        }
        if ended {
            command.stdin = None;
        }
        Some(taken)
    }

    /// Sees to the groups that are being ended; returns the commands that have something to tell.
    pub fn tick(&mut self, now: u64) -> Vec<OperationId> {
        let mut news = Vec::new();
        for ended in self.endings.poll(Instant::now(), &mut self.guard) {
            let Some(id) = self.groups.remove(&ended.group) else { continue };
            let Some(command) = self.running.get_mut(&id) else { continue };
            if command.exit.is_none() {
                // What cannot be learnt of a group that was sent KILL is that it was killed.
                command.exit = ended.exit.or(Some(Exit::Signal(9)));
                self.draining.push((now + DRAIN_MS, id));
            }
            news.push(id);
        }
        let running = &mut self.running;
        self.draining.retain(|(at, id)| {
            let is_over = *at <= now;
            if let Some(command) = running.get_mut(id).filter(|_| is_over) {
                command.settle();
                news.push(*id);
            }
            !is_over
        });
        news
    }

    /// In how many milliseconds [`Commands::tick`] is due.
    pub fn next_timeout_ms(&self, now: u64) -> Option<u64> {
        let drain = self.draining.iter().map(|(at, _)| at.saturating_sub(now)).min();
        let ending = self.endings.next_deadline().map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            left.as_micros().div_ceil(1000) as u64
        });
        drain.into_iter().chain(ending).min()
    }

    /// How many commands are under way.
    pub fn count(&self) -> usize {
        self.running.len()
    }

    /// True where nothing runs and no group is being ended.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.endings.is_empty()
    }

    /// Sends KILL to all that is still there.
    pub fn kill_all(&mut self) {
        let ids: Vec<_> = self.running.keys().copied().collect();
        ids.into_iter().for_each(|id| self.drop_command(id));
        self.endings.kill_all(Instant::now());
    }
}

impl Command {
    fn watch(
        mut process: Process,
        id: OperationId,
        session: SessionId,
        registry: &Registry,
    ) -> io::Result<Command> {
        let token = |pipe| Source::Command(id, pipe).token();
        let pidfd = process.pidfd();
        registry.register(&mut SourceFd(&pidfd), token(Pipe::Exit), Interest::READABLE)?;
        let output = |pipe: Option<pipe::Receiver>, which| {
            let mut pipe = pipe.expect("both outputs are pipes");
            registry.register(&mut pipe, token(which), Interest::READABLE)?;
            // The first look costs nothing: a command rarely has something to say at once.
            Ok::<_, io::Error>(Output { pipe: Some(pipe), readable: false, left_bytes: None })
        };
        let stdout = output(process.stdout.take(), Pipe::Stdout)?;
        let stderr = output(process.stderr.take(), Pipe::Stderr)?;
        let mut stdin = process.stdin.take();
        if let Some(stdin) = &mut stdin {
            registry.register(stdin, token(Pipe::Stdin), Interest::WRITABLE)?;
        }
        Ok(Command {
            session,
            process: Some(process),
            stdin,
            stdout,
            stderr,
            last: Stream::Stderr,
            exit: None,
            drained: false,
            terminated: false,
            directory: None,
        })
    }

    fn read(&mut self, buffer: &mut [u8]) -> Option<(Stream, usize)> {
        let order = match self.last {
            Stream::Stdout => [Stream::Stderr, Stream::Stdout],
            Stream::Stderr => [Stream::Stdout, Stream::Stderr],
        };
        for stream in order {
            let output = match stream {
                Stream::Stdout => &mut self.stdout,
                Stream::Stderr => &mut self.stderr,
            };
            if let Some(count) = output.read(buffer) {
                self.last = stream;
                return Some((stream, count));
            }
        }
        None
    }

    /// Keeps what `cd` prints: one path and a line end.
    fn note_directory(&mut self, stream: Stream, bytes: &[u8]) {
        if let (Some(directory), Stream::Stdout) = (&mut self.directory, stream) {
            directory.extend_from_slice(bytes);
        }
    }

    /// The time of those who may still write is over: what the pipes hold now is all.
    fn settle(&mut self) {
        self.drained = true;
        for output in [&mut self.stdout, &mut self.stderr] {
            output.left_bytes = Some(output.left_bytes());
        }
    }

    fn outcome(&mut self) -> Option<Outcome> {
        let exit = self.exit?;
        let outputs = [&self.stdout, &self.stderr];
        if !self.drained && outputs.iter().any(|output| output.pipe.is_some()) {
            return None;
        }
        if !self.terminated && outputs.iter().any(|output| output.left_bytes() > 0) {
            return None;
        }
        Some(match exit {
            Exit::Code(code) => {
                let path = self.directory.take().filter(|_| code == 0);
                let path = path.and_then(|path| path.strip_suffix(b"\n").map(<[u8]>::to_vec));
                let directory =
                    path.filter(|path| Path::new(OsStr::from_bytes(path)).is_absolute());
                Outcome::Exit { code, directory }
            }
            Exit::Signal(number) => Outcome::Signal { number, because: None },
        })
    }
}

impl Output {
    fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let most = buffer.len().min(self.left_bytes.unwrap_or(usize::MAX));
        while self.readable && most > 0 {
            match self.pipe.as_mut()?.read(&mut buffer[..most]) {
                Ok(0) => self.close(),
                Ok(count) => {
                    self.left_bytes = self.left_bytes.map(|left| left - count);
                    return Some(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) => {
                    log::warn!("the output of a command cannot be read: {error}");
                    self.close();
                }
            }
        }
        None
    }

    /// What the pipe holds, or what of that is still to be read.
    fn left_bytes(&self) -> usize {
        let Some(pipe) = &self.pipe else { return 0 };
        let held = || rustix::io::ioctl_fionread(pipe).unwrap_or(0) as usize;
        self.left_bytes.unwrap_or_else(held)
    }

    fn close(&mut self) {
        self.pipe = None;
        self.readable = false;
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// Whether a command is nothing but a change of folder. The shell itself then says where it
/// leads, so that its quotes, its `~` and its `-` mean what they always mean.
fn is_cd(command: &str) -> bool {
    let mut words = command.split_ascii_whitespace();
    let special = |char: char| ";&|<>()`#\n".contains(char);
    words.next() == Some("cd") && !command.contains(special) && !command.contains("$(")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_cd_changes_the_folder_of_the_session() {
        for yes in ["cd", "cd /tmp", " cd 'a b'", "cd -", "cd ~/x", "cd \"$HOME\""] {
            assert!(is_cd(yes), "{yes}");
        }
        for no in ["cdx", "cd /tmp && ls", "cd /tmp; ls", "echo cd", "cd $(pwd)", "(cd /)", ""] {
            assert!(!is_cd(no), "{no}");
        }
    }
}
