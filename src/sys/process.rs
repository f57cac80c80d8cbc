//! Commands under `/bin/sh -c`, each in a session of its own, seen through pipes and a pidfd.
//!
//! ```text
//!  spawn ─▶ Process ── try_status() = Some ──▶ reap() ─▶ Orphans ── is_empty() ──▶ over
//!           leader lives, or is a zombie        the leader is gone; children that
//!           that keeps the group's number       outlived it keep the number
//! ```
//!
//! Nothing here blocks but the start itself (`launch`), whose cost does not grow with the memory of
//! the server.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use mio::unix::pipe::{Receiver, Sender};
use rustix::io::Errno;
use rustix::pipe::fcntl_setpipe_size;
pub use rustix::process::{Pid, Signal};
use rustix::process::{
    PidfdFlags, WaitId, WaitIdOptions, kill_process_group, pidfd_open, test_kill_process,
    test_kill_process_group, waitid,
};

pub mod endings;
pub mod environment;
pub mod launch;
pub mod programs;

use environment::Environment;
use launch::{Launch, Launched, StreamTo};

const SHELL: &str = "/bin/sh";

/// Four times the kernel's default: fewer turns of the loop for the same output. Users without
/// privileges share 64 MiB of pipe buffers (`pipe-user-pages-soft`); beyond them we take less.
const OUTPUT_PIPE_BYTES: usize = 256 * 1024;

/// What to run, and where.
#[derive(Debug, Clone, Copy)]
pub struct Spawn<'a> {
    /// Handed to the shell as one argument, byte for byte.
    pub command: &'a OsStr,
    /// The working folder of the command.
    pub directory: &'a Path,
    /// Whether standard input is a pipe; otherwise it is `/dev/null`.
    pub stdin: bool,
    /// All that is in its environment.
    pub environment: &'a Environment,
    /// Variables on top of that.
    pub variables: &'a [(&'a str, &'a OsStr)],
}

/// How the leader of a group ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited by itself with this code.
    Code(u8),
    /// It was ended by the signal of this number.
    Signal(i32),
}

/// A started command. Dropped before [`Process::reap`], it kills its whole group.
#[derive(Debug)]
pub struct Process {
    /// Input of the command, non-blocking; dropping it is the end of file.
    pub stdin: Option<Sender>,
    /// Output of the command, non-blocking.
    pub stdout: Option<Receiver>,
    /// Error output of the command, non-blocking.
    pub stderr: Option<Receiver>,
    pidfd: OwnedFd,
    group: Pid,
    /// Once true the group's number is no longer ours to signal.
    reaped: bool,
}

/// What a reaped leader may have left in its group. [`Orphans::is_empty`] tells of the care.
#[derive(Debug)]
pub struct Orphans {
    group: Pid,
}

/// Starts `spawn.command` under `/bin/sh -c`.
///
/// # Errors
/// `NotFound`, `NotADirectory` and `PermissionDenied` name the folder when the folder is at fault;
/// every other failure keeps its kind and says what could not be started. `InvalidInput` is a NUL
/// byte in the command, `ArgumentListTooLong` a command of more than 128 KiB.
pub fn spawn(spawn: &Spawn) -> io::Result<Process> {
    spawn_with_shell(spawn, SHELL)
}

/// Tells whether `directory` is a folder that a command can start in.
///
/// # Errors
/// `NotFound`, `NotADirectory`, `PermissionDenied`, or what `stat(2)` says, with the folder's name.
pub fn check_directory(directory: &Path) -> io::Result<()> {
    let problem = |kind: io::ErrorKind, why: String| {
        let directory = directory.display();
        io::Error::new(kind, format!("the folder {directory:?} {why}; choose another one"))
    };
    match std::fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(problem(io::ErrorKind::NotADirectory, "is not a folder".to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(problem(error.kind(), "does not exist".to_owned()))
        }
        Err(error) => Err(problem(error.kind(), format!("cannot be entered: {error}"))),
    }
}

fn spawn_with_shell(spawn: &Spawn, shell: &str) -> io::Result<Process> {
    // Without `--` a command that begins with `-` or `+` would be options of the shell.
    let arguments = [OsStr::new("-c"), OsStr::new("--"), spawn.command];
    begin(&Launch {
        program: OsStr::new(shell),
        arguments: &arguments,
        directory: Some(spawn.directory),
        environment: spawn.environment,
        variables: spawn.variables,
        streams: streams(spawn.stdin),
    })
}

/// Starts a program with these arguments, without a shell. Standard input is a pipe or, without
/// `stdin`, `/dev/null`.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_program(
    program: &Path,
    arguments: &[OsString],
    directory: &Path,
    stdin: bool,
    environment: &Environment,
) -> io::Result<Process> {
    let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
    begin(&Launch {
        program: program.as_os_str(),
        arguments: &arguments,
        directory: Some(directory),
        environment,
        variables: &[],
        streams: streams(stdin),
    })
}

fn streams(stdin: bool) -> [StreamTo; 3] {
    [if stdin { StreamTo::Pipe } else { StreamTo::Null }, StreamTo::Pipe, StreamTo::Pipe]
}

fn begin(launch: &Launch) -> io::Result<Process> {
    // A missing folder and a missing program are the same error of execve: ask first.
    launch.directory.map_or(Ok(()), check_directory)?;
    let launched = launch.start().map_err(|error| {
        let program = Path::new(launch.program).display();
        io::Error::new(error.kind(), format!("{program} could not be started: {error}"))
    })?;
    let group = launched.pid;
    Process::adopt(launched).map_err(|error| {
        // Without a pidfd nobody could ever tell its end. It is milliseconds old: no grace.
        let _ = kill_process_group(group, Signal::KILL);
        let _ = waitid(WaitId::Pid(group), WaitIdOptions::EXITED);
        io::Error::new(error.kind(), format!("the command cannot be watched: {error}"))
    })
}

impl Process {
    fn adopt(launched: Launched) -> io::Result<Self> {
        let group = launched.pid;
        // The child is not reaped yet, so the number is still its own.
        let pidfd = pidfd_open(group, PidfdFlags::empty())?;
        let [stdin, stdout, stderr] = launched.pipes;
        let process = Self {
            stdin: stdin.map(Sender::from),
            stdout: stdout.map(Receiver::from),
            stderr: stderr.map(Receiver::from),
            pidfd,
            group,
            reaped: false,
        };
        if let Some(stdin) = &process.stdin {
            stdin.set_nonblocking(true)?;
        }
        for output in [&process.stdout, &process.stderr].into_iter().flatten() {
            output.set_nonblocking(true)?;
            // EPERM beyond the user's share of pipe memory: the default size serves as well.
            let _ = fcntl_setpipe_size(output, OUTPUT_PIPE_BYTES);
        }
        Ok(process)
    }

    /// Number of the process group, which is also the leader's process id.
    #[must_use]
    pub fn group(&self) -> Pid {
        self.group
    }

    /// Becomes readable when the leader has exited, and stays so; for `mio::unix::SourceFd`.
    #[must_use]
    pub fn pidfd(&self) -> RawFd {
        self.pidfd.as_raw_fd()
    }

    /// How the leader ended, or `None` while it runs. Does not reap: the zombie keeps the group's
    /// number from being given to somebody else while the group may still be signalled.
    ///
    /// # Errors
    /// `ECHILD` if somebody else has reaped it; see `waitid(2)`.
    pub fn try_status(&self) -> io::Result<Option<Exit>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let Some(status) = waitid(WaitId::PidFd(self.pidfd.as_fd()), options)? else {
            return Ok(None);
        };
        if let Some(signal) = status.terminating_signal() {
            return Ok(Some(Exit::Signal(signal)));
        }
        let code = status.exit_status().expect("waitid(EXITED) tells of exits and signals only");
        // The kernel keeps the low eight bits of what was handed to exit(2).
        Ok(Some(Exit::Code(code as u8)))
    }

    /// Sends `signal` to everything in the group. A group that is gone already is no error.
    ///
    /// # Errors
    /// `PermissionDenied` when the group consists of other users' processes alone.
    pub fn signal_group(&self, signal: Signal) -> io::Result<()> {
        signal_group(self.group, signal)
    }

    /// Takes the zombie of the leader off the process table; gives `self` back while it runs.
    ///
    /// # Errors
    /// Not an error but the process itself: its leader has not exited yet.
    pub fn reap(mut self) -> Result<Orphans, Self> {
        if !self.try_reap() {
            return Err(self);
        }
        Ok(Orphans { group: self.group })
    }

    fn try_reap(&mut self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        // An error is ECHILD: it has been reaped by somebody else, so it is just as gone.
        self.reaped = !matches!(waitid(WaitId::PidFd(self.pidfd.as_fd()), options), Ok(None));
        self.reaped
    }
}

impl AsFd for Process {
    /// The pidfd.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.signal_group(Signal::KILL);
            self.try_reap();
        }
    }
}

impl Orphans {
    /// Number of the group.
    #[must_use]
    pub fn group(&self) -> Pid {
        self.group
    }

    /// Whether nothing of the group is left. To be asked every 0.1 s or so until it is true.
    ///
    /// `kill(2)` of a group counts zombies, hence the leader is reaped first. From then on the
    /// number is held by the members alone, and the kernel gives it to nobody while one lives.
    /// When the last one goes, the number can return, but only as the id of a new *process*,
    /// and our own leader is gone: a process of this number proves that our group is empty.
    /// The doubt that is left, a foreign group whose leader has died too, needs all process ids
    /// to be used up between two questions, for they are given out in turn.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reap_adopted();
        // EPERM is a member that belongs to another user, hence not empty.
        test_kill_process_group(self.group) == Err(Errno::SRCH)
            || test_kill_process(self.group) != Err(Errno::SRCH)
    }

    /// Sends `signal` to whatever is left, after making sure that it is still ours.
    ///
    /// # Errors
    /// `PermissionDenied` when the rest belongs to other users.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        if self.is_empty() { Ok(()) } else { signal_group(self.group, signal) }
    }

    /// As process 1 of a container the server inherits the orphans, and must reap them.
    fn reap_adopted(&self) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        while matches!(waitid(WaitId::Pgid(Some(self.group)), options), Ok(Some(_))) {}
    }
}

fn signal_group(group: Pid, signal: Signal) -> io::Result<()> {
    match kill_process_group(group, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Small vocabulary for tests with real processes.

    use std::io::{Read, Write};
    use std::process::Command;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    /// Starts `command` in `/` without input.
    pub fn shell(command: &str) -> Process {
        start(command, false)
    }

    pub fn start(command: &str, stdin: bool) -> Process {
        spawn_in(Path::new("/"), command, stdin).unwrap()
    }

    /// Starts `command` with our own environment.
    pub fn spawn_in(directory: &Path, command: &str, stdin: bool) -> io::Result<Process> {
        let (command, environment) = (OsStr::new(command), &Environment::inherited());
        spawn(&Spawn { command, directory, stdin, environment, variables: &[] })
    }

    /// Waits until `fd` has news; ten seconds without any fail the test.
    pub fn await_readable(fd: impl AsFd) {
        assert!(is_readable(fd, Duration::from_secs(10)), "nothing came for ten seconds");
    }

    pub fn is_readable(fd: impl AsFd, limit: Duration) -> bool {
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        let limit = Timespec::try_from(limit).unwrap();
        poll(&mut fds, Some(&limit)).unwrap() > 0
    }

    /// Reads up to and with the next line end.
    pub fn read_line(output: &mut Receiver) -> String {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            await_readable(&*output);
            let mut byte = [0];
            assert_eq!(output.read(&mut byte).unwrap(), 1, "the output ended early");
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    pub fn read_to_end(output: &mut Receiver) -> String {
        let mut bytes = Vec::new();
        loop {
            await_readable(&*output);
            match output.read_to_end(&mut bytes) {
                Ok(_) => return String::from_utf8(bytes).unwrap(),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
    }

    pub fn write_all(input: &mut Sender, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let mut fds = [PollFd::new(&*input, PollFlags::OUT)];
            poll(&mut fds, None).unwrap();
            match input.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
    }

    /// Waits for the leader's end.
    pub fn await_exit(process: &Process) -> Exit {
        await_readable(process);
        process.try_status().unwrap().expect("the pidfd says that it exited")
    }

    /// Runs `command` without input to its end.
    pub fn run(command: &str) -> (Exit, String, String) {
        let mut process = shell(command);
        let stdout = read_to_end(process.stdout.as_mut().unwrap());
        let stderr = read_to_end(process.stderr.as_mut().unwrap());
        (await_exit(&process), stdout, stderr)
    }

    /// This test program again, running `test` alone with `role` in its environment. For what
    /// must not happen in a process that runs other tests beside it: signals, `kill -9`.
    pub fn play_role(test: &str, role: &str) -> Command {
        let name = std::thread::current().name().unwrap().to_owned();
        let module = name.rsplit_once("::").unwrap().0;
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", &format!("{module}::{test}"), "--nocapture", "--ignored"]);
        command.env(ROLE, role);
        command
    }

    /// Whether this process was started by [`play_role`] for this role.
    pub fn plays_role(role: &str) -> bool {
        std::env::var_os(ROLE).is_some_and(|value| value == role)
    }

    const ROLE: &str = "SIXFOUR_TEST_ROLE";
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::unix::SourceFd;
    use mio::{Events, Interest, Poll, Token};

    use super::testing::*;
    use super::*;

    #[test]
    fn exit_codes_and_signals_are_exact() {
        assert_eq!(run("exit 0").0, Exit::Code(0));
        assert_eq!(run("exit 7").0, Exit::Code(7));
        assert_eq!(run("exit 255").0, Exit::Code(255));
        assert_eq!(run("kill -9 $$").0, Exit::Signal(9));
        assert_eq!(run("kill -SEGV $$").0, Exit::Signal(11));
        assert_eq!(run("no-such-program-anywhere").0, Exit::Code(127));
        assert_eq!(run("/").0, Exit::Code(126));
    }

    #[test]
    fn stdout_and_stderr_stay_apart() {
        let (exit, stdout, stderr) = run("echo out; echo err >&2; echo out again");
        assert_eq!(exit, Exit::Code(0));
        assert_eq!((stdout.as_str(), stderr.as_str()), ("out\nout again\n", "err\n"));
    }

    #[test]
    fn the_command_is_one_argument_byte_for_byte() {
        assert_eq!(run("printf '%s|' 'a  b' \"c\nd\" $(echo e)").1, "a  b|c\nd|e|");
        // Not an option of the shell, but a program that does not exist.
        assert_eq!(run("-c").0, Exit::Code(127));
        assert_eq!(run("+x").0, Exit::Code(127));
        assert_eq!(run("").0, Exit::Code(0));
        let error = spawn_in(Path::new("/"), "echo a\0b", false);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_mebibyte_goes_through_standard_input() {
        let mut process = start("wc -c", true);
        let mut stdin = process.stdin.take().unwrap();
        write_all(&mut stdin, &vec![b'x'; 1 << 20]);
        drop(stdin);
        assert_eq!(read_to_end(process.stdout.as_mut().unwrap()).trim(), "1048576");
        assert_eq!(await_exit(&process), Exit::Code(0));
    }

    #[test]
    fn without_a_pipe_standard_input_is_empty() {
        let process = shell("cat");
        assert!(process.stdin.is_none());
        assert_eq!(await_exit(&process), Exit::Code(0));
    }

    #[test]
    fn another_command_does_not_hold_the_pipes_of_the_first() {
        let mut first = start("cat", true);
        let second = start("exec sleep 1000", true);
        first.stdin = None;
        assert_eq!(await_exit(&first), Exit::Code(0));
        assert_eq!(second.try_status().unwrap(), None);
    }

    #[test]
    fn folder_and_environment_are_those_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let environment = [("SIXFOUR_A".into(), "one ".into()), ("PATH".into(), "/bin".into())];
        let mut process = spawn(&Spawn {
            command: OsStr::new("pwd -P; echo $SIXFOUR_A$SIXFOUR_B; env | grep -c SIXFOUR"),
            directory: folder.path(),
            stdin: false,
            environment: &Environment::of(environment),
            variables: &[("SIXFOUR_B", OsStr::new("two"))],
        })
        .unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let expected = format!("{}\none two\n2\n", folder.display());
        assert_eq!(read_to_end(process.stdout.as_mut().unwrap()), expected);
    }

    #[test]
    fn a_bad_folder_is_told_apart_from_a_missing_shell() {
        let kind_and_text = |directory: &str, shell: &str| {
            let directory = Path::new(directory);
            let command = OsStr::new("true");
            let environment = &Environment::inherited();
            let spawn = Spawn { command, directory, stdin: false, environment, variables: &[] };
            let error = spawn_with_shell(&spawn, shell).unwrap_err();
            (error.kind(), error.to_string())
        };
        let (kind, text) = kind_and_text("/no/such/folder", SHELL);
        assert_eq!(kind, io::ErrorKind::NotFound);
        assert!(text.contains("\"/no/such/folder\" does not exist"), "{text}");
        let (kind, text) = kind_and_text("/dev/null", SHELL);
        assert_eq!(kind, io::ErrorKind::NotADirectory);
        assert!(text.contains("is not a folder"), "{text}");
        let (kind, text) = kind_and_text("/", "/no/such/shell");
        assert_eq!(kind, io::ErrorKind::NotFound);
        assert!(text.contains("/no/such/shell could not be started"), "{text}");
    }

    #[test]
    fn children_start_with_default_sigpipe_and_no_blocked_signal() {
        // The test program itself ignores SIGPIPE, as every Rust program does.
        assert_eq!(run("yes | head -n 1"), (Exit::Code(0), "y\n".into(), String::new()));
        let status = run("grep -E '^Sig(Blk|Ign):' /proc/self/status").1;
        let masks: Vec<u64> = status
            .lines()
            .map(|line| u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap())
            .collect();
        let [blocked, ignored] = masks[..] else { panic!("{status}") };
        assert_eq!([blocked, ignored & (1 << (Signal::PIPE.as_raw() - 1))], [0; 2]);
        // What whoever started us had ignored is not ignored there either.
        assert_eq!(ignored & 0x7fff_ffff, 0);
    }

    #[test]
    fn every_command_leads_a_session_of_its_own_and_has_no_terminal() {
        // proc_pid_stat(5): after the name in brackets state, parent, group, session, terminal.
        let script = "read -r all </proc/$$/stat; set -- ${all##*) }; echo $$ $3 $4 $5
            (: </dev/tty) 2>/dev/null || echo none";
        let output = run(script).1;
        let words: Vec<&str> = output.split_whitespace().collect();
        let [pid, group, session, terminal, opened] = words[..] else { panic!("{output}") };
        assert_eq!([group, session], [pid; 2]);
        assert_eq!([terminal, opened], ["0", "none"]);
    }

    #[test]
    fn the_event_loop_sees_output_and_exit() {
        let mut process = shell("echo hi");
        let mut poll = Poll::new().unwrap();
        let registry = poll.registry();
        registry.register(process.stdout.as_mut().unwrap(), Token(0), Interest::READABLE).unwrap();
        let pidfd = process.pidfd();
        registry.register(&mut SourceFd(&pidfd), Token(1), Interest::READABLE).unwrap();
        let mut seen = [false; 2];
        let mut events = Events::with_capacity(4);
        while seen != [true; 2] {
            poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
            assert!(!events.is_empty());
            events.iter().for_each(|event| seen[event.token().0] |= event.is_readable());
        }
        assert_eq!(process.try_status().unwrap(), Some(Exit::Code(0)));
    }

    #[test]
    fn a_background_child_does_not_hold_the_status_and_is_found_afterwards() {
        let mut process = shell("sleep 1000 & echo hi");
        assert_eq!(await_exit(&process), Exit::Code(0));
        // Asking does not reap: the answer stays.
        assert_eq!(process.try_status().unwrap(), Some(Exit::Code(0)));
        let mut stdout = process.stdout.take().unwrap();
        assert_eq!(read_line(&mut stdout), "hi\n");
        let orphans = process.reap().unwrap();
        assert!(!orphans.is_empty());
        orphans.signal(Signal::KILL).unwrap();
        // The sleeper held the pipe: its end is the end of the output.
        assert_eq!(read_to_end(&mut stdout), "");
    }

    #[test]
    fn a_server_that_inherits_orphans_collects_them() {
        let output = play_role("as_process_one", "process 1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
    }

    #[test]
    #[ignore = "a role that another test starts: the kernel hands orphans to the whole process"]
    fn as_process_one() {
        if !plays_role("process 1") {
            return;
        }
        let this = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(this)).unwrap();
        let mut process = shell("sleep 1000 & sleep 1000 & :");
        let mut stdout = process.stdout.take().unwrap();
        await_exit(&process);
        let orphans = process.reap().unwrap();
        assert!(!orphans.is_empty());
        orphans.signal(Signal::KILL).unwrap();
        assert_eq!(read_to_end(&mut stdout), "");
        // The pipes are closed a moment before the zombies appear.
        while !orphans.is_empty() {
            std::thread::yield_now();
        }
        orphans.signal(Signal::KILL).unwrap();
        let left = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
        assert_eq!(left.unwrap_err(), Errno::CHILD);
    }

    #[test]
    fn a_running_process_is_not_reaped_and_a_dropped_one_is_killed() {
        let process = shell("exec sleep 1000").reap().unwrap_err();
        assert_eq!(process.try_status().unwrap(), None);
        let watcher = process.pidfd.try_clone().unwrap();
        drop(process);
        await_readable(&watcher);
    }
}
