//! The guard: a tiny process that ends the commands of a server that was killed with -9.
//!
//! ```text
//!  server ── 8-byte records: group, +1 started or -1 ended ──▶ guard (stdin)
//!         ✗  the pipe ends                                     TERM, grace, KILL, exit
//! ```
//!
//! It is the server's own binary, started once with [`ARGUMENTS`], in a session of its own so that
//! Ctrl-C in a terminal does not reach it. `PR_SET_PDEATHSIG` would do without it, but
//! would need a `pre_exec` for every command, whose cost grows with the server's memory.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use mio::unix::pipe::Sender;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, test_kill_process_group,
    waitid,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::process::{
    endings::GRACE,
    environment::Environment,
    launch::{Launch, StreamTo},
};

/// What the hidden mode is called with. The first is enough to know it by; the second makes any
/// other program that finds itself re-executed (a test runner would take the first as a filter)
/// refuse and exit.
pub const ARGUMENTS: [&str; 2] = ["guard", "--process-groups"];

const RECORD_BYTES: usize = 8;
const STARTED: i32 = 1;
const ENDED: i32 = -1;

/// How long the guard leaves records unread, in milliseconds: so many commands cannot be started
/// meanwhile that the pipe would be full.
const NAP_MS: i64 = 250;

/// Records that a stuck guard may leave unread, beyond the 8192 in the pipe, until it is replaced.
const UNSENT_BYTES_MAX: usize = 64 * 1024;

/// A guard that dies again and again is not worth a new process at every command.
const REPLACEMENTS_MAX: u32 = 3;

/// The server's end of the line to its guard.
#[derive(Debug)]
pub struct Guard {
    /// `None` if there is no guard: never started, or lost for good.
    line: Option<Line>,
    plan: Plan,
    /// Every group under watch, to tell a new guard when the old one was lost.
    live: HashSet<Pid>,
    replacements_left: u32,
}

/// A running guard.
#[derive(Debug)]
struct Line {
    guard: Pid,
    sender: Sender,
    /// Records the pipe had no room for, oldest first.
    unsent: Vec<u8>,
}

/// How to start a guard.
#[derive(Debug, Default)]
struct Plan {
    arguments: Vec<OsString>,
    /// The server's own may hold passwords; the guard needs none of it.
    environment: Environment,
}

impl Guard {
    /// Starts the guard process by executing the running binary again with [`ARGUMENTS`].
    ///
    /// # Errors
    /// What `/proc/self/exe` could not be started for; [`Guard::none`] goes on without it.
    pub fn start() -> io::Result<Self> {
        let arguments = ARGUMENTS.map(OsString::from).to_vec();
        Self::launch(Plan { arguments, environment: Environment::default() })
    }

    /// A guard that watches nothing: commands outlive a server that is killed with -9.
    #[must_use]
    pub fn none() -> Self {
        Self { line: None, plan: Plan::default(), live: HashSet::new(), replacements_left: 0 }
    }

    fn launch(plan: Plan) -> io::Result<Self> {
        let line = Some(Line::open(&plan)?);
        Ok(Self { line, plan, live: HashSet::new(), replacements_left: REPLACEMENTS_MAX })
    }

    /// Has `group` ended with the server. To be called right after the start of a command.
    pub fn watch(&mut self, group: Pid) {
        self.live.insert(group);
        self.tell(group, STARTED);
    }

    /// Takes `group` off the list. To be called while its number cannot have a new owner yet,
    /// that is before its leader is reaped.
    pub fn forget(&mut self, group: Pid) {
        if self.live.remove(&group) {
            self.tell(group, ENDED);
        }
    }

    fn tell(&mut self, group: Pid, change: i32) {
        let Some(line) = &mut self.line else { return };
        line.unsent.extend(record(group, change));
        match line.flush() {
            Ok(()) if line.unsent.len() <= UNSENT_BYTES_MAX => {}
            Ok(()) => self.replace("it does not read what it is told"),
            Err(error) => self.replace(&error.to_string()),
        }
    }

    /// Starts another guard in place of one that is dead or stuck, and tells it everything.
    fn replace(&mut self, reason: &str) {
        if let Some(line) = self.line.take() {
            line.end();
        }
        if self.replacements_left == 0 {
            log::error!(
                "the guard process is lost ({reason}) and not started again; should this server \
                 be killed with -9, its commands go on"
            );
            return;
        }
        self.replacements_left -= 1;
        log::warn!("the guard process is lost ({reason}); starting another one");
        match Line::open(&self.plan) {
            Ok(mut line) => {
                line.unsent.extend(self.live.iter().flat_map(|&group| record(group, STARTED)));
                // If this one is dead already, the next record finds out.
                let _ = line.flush();
                self.line = Some(line);
            }
            Err(error) => log::error!("the guard process could not be started again: {error}"),
        }
    }
}

impl Line {
    fn open(plan: &Plan) -> io::Result<Self> {
        let arguments: Vec<_> = plan.arguments.iter().map(OsString::as_os_str).collect();
        let launch = Launch {
            program: "/proc/self/exe".as_ref(),
            arguments: &arguments,
            // Neither hold a mount nor the outputs of whoever started the server. All else that
            // the server has open is close-on-exec.
            directory: Some(Path::new("/")),
            environment: &plan.environment,
            variables: &[],
            streams: [StreamTo::Pipe, StreamTo::Null, StreamTo::Null],
        };
        let launched = launch.start().map_err(|error| {
            let text = format!("/proc/self/exe could not be started: {error}");
            io::Error::new(error.kind(), text)
        })?;
        let [stdin, ..] = launched.pipes;
        let sender = Sender::from(stdin.expect("standard input was asked to be a pipe"));
        let line = Self { guard: launched.pid, sender, unsent: Vec::new() };
        line.sender.set_nonblocking(true)?;
        Ok(line)
    }

    /// Writes what the pipe has room for.
    fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.sender.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Kills the guard before its pipe is closed: to a living one that would be our own death.
    fn end(self) {
        // Not reaped before, so the number is still its own, dead or not.
        let killed = kill_process(self.guard, Signal::KILL);
        if let Err(error) = killed.and_then(|()| self.await_end()) {
            log::warn!("the old guard process could not be ended: {error}");
        }
    }

    fn await_end(&self) -> rustix::io::Result<()> {
        rustix::io::retry_on_intr(|| waitid(WaitId::Pid(self.guard), WaitIdOptions::EXITED))?;
        Ok(())
    }
}

fn record(group: Pid, change: i32) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    // Both ends are the same binary on the same machine: native order.
    record[..4].copy_from_slice(&group.as_raw_nonzero().get().to_ne_bytes());
    record[4..].copy_from_slice(&change.to_ne_bytes());
    record
}

/// The hidden mode of the server binary: reads records from standard input until it ends, then
/// ends every group that is still alive. Returns 2 when a person starts it at a terminal.
#[must_use]
pub fn run_guard() -> ExitCode {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        let text = "guard is the mode in which the server watches its own commands; it starts it \
                    itself. See --help for what to start instead.";
        let _ = writeln!(io::stderr(), "{text}");
        return ExitCode::from(2);
    }
    // The name in `ps` and `top`, and one that `pkill server` does not match.
    let _ = rustix::thread::set_name(c"sixfour-guard");
    // It has to outlive the server that is stopped together with it. Failing that, it still
    // serves the case it is for.
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let _ = signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)));
    }
    watch_until_end(stdin.lock(), GRACE);
    ExitCode::SUCCESS
}

/// Reads records until the server is gone, then ends what it left, with `grace` before KILL.
///
/// Records matter once the server is gone, so they are fetched now and then and not one by one:
/// otherwise the guard would be woken twice for every command, on a core that is wanted elsewhere.
fn watch_until_end(mut records: impl Read + AsFd, grace: Duration) {
    let mut groups = Groups::default();
    let mut buffer = [0; 4096];
    loop {
        match records.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                groups.feed(&buffer[..count]);
                if count < buffer.len() {
                    nap(&records);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    groups.end(grace);
}

/// Sleeps until the server is gone, but not so long that the pipe could fill (8192 records).
fn nap(records: &impl AsFd) {
    // No event is asked for: the end is reported all the same (poll(2), POLLHUP).
    let mut end = [PollFd::new(records, PollFlags::empty())];
    let timeout = Timespec { tv_sec: 0, tv_nsec: NAP_MS * 1_000_000 };
    let _ = rustix::event::poll(&mut end, Some(&timeout));
}

/// The groups that run now, according to the records so far.
#[derive(Debug, Default)]
struct Groups {
    live: HashSet<Pid>,
    /// The beginning of a record whose rest has not come yet: always less than one.
    partial: Vec<u8>,
}

impl Groups {
    fn feed(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        let whole_bytes = self.partial.len() / RECORD_BYTES * RECORD_BYTES;
        for record in self.partial[..whole_bytes].chunks_exact(RECORD_BYTES) {
            let (group, change) = record.split_at(4);
            let number = |bytes: &[u8]| {
                i32::from_ne_bytes(bytes.try_into().expect("half a record is four bytes"))
            };
            // kill(2) takes group 0 for our own and group 1 for every process there is.
            let Some(group) =
                Some(number(group)).filter(|&group| group > 1).and_then(Pid::from_raw)
            else {
                continue;
            };
            match number(change) {
                STARTED => drop(self.live.insert(group)),
                ENDED => drop(self.live.remove(&group)),
                _ => {}
            }
        }
        self.partial.drain(..whole_bytes);
    }

    fn end(mut self, grace: Duration) {
        const LOOK_EVERY: Duration = Duration::from_millis(10);
        let deadline = Instant::now() + grace;
        self.signal(Signal::TERM);
        loop {
            self.live.retain(|&group| test_kill_process_group(group) != Err(Errno::SRCH));
            let left = deadline.saturating_duration_since(Instant::now());
            if self.live.is_empty() || left.is_zero() {
                break;
            }
            std::thread::sleep(LOOK_EVERY.min(left));
        }
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        for &group in &self.live {
            // Gone is what we want, and nobody is left to be told of anything else.
            let _ = kill_process_group(group, signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    use rustix::process::{PidfdFlags, pidfd_open};

    use super::super::process::Exit;
    use super::super::process::testing::*;
    use super::*;

    fn group(number: i32) -> Pid {
        Pid::from_raw(number).unwrap()
    }

    fn live(groups: &Groups) -> Vec<i32> {
        let mut numbers: Vec<_> = groups.live.iter().map(|it| it.as_raw_nonzero().get()).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn records_are_understood_however_they_are_split() {
        let changes = [(10, STARTED), (20, STARTED), (10, ENDED), (30, STARTED), (99, ENDED)];
        let bytes: Vec<u8> =
            changes.iter().flat_map(|&(number, change)| record(group(number), change)).collect();
        for size in 1..=bytes.len() {
            let mut groups = Groups::default();
            bytes.chunks(size).for_each(|chunk| groups.feed(chunk));
            assert_eq!(live(&groups), [20, 30], "in pieces of {size}");
            assert!(groups.partial.is_empty());
        }
    }

    #[test]
    fn numbers_that_would_hit_everybody_are_not_believed() {
        let mut groups = Groups::default();
        for number in [0, 1, -1, i32::MIN] {
            groups.feed(&number.to_ne_bytes());
            groups.feed(&STARTED.to_ne_bytes());
        }
        groups.feed(&[0x7f; 7]);
        assert_eq!(live(&groups), [0; 0]);
    }

    #[test]
    fn the_end_of_the_pipe_ends_every_group_that_is_still_watched() {
        const STUBBORN: &str = "trap '' TERM; echo ready; while :; do sleep 1000; done";
        let (reader, mut writer) = io::pipe().unwrap();
        let guard = std::thread::spawn(|| watch_until_end(reader, Duration::from_millis(50)));
        let gentle = shell("sleep 1000 & wait");
        let mut stubborn = shell(STUBBORN);
        read_line(stubborn.stdout.as_mut().unwrap());
        let forgotten = shell("exec sleep 1000");
        for process in [&gentle, &stubborn, &forgotten] {
            writer.write_all(&record(process.group(), STARTED)).unwrap();
        }
        writer.write_all(&record(forgotten.group(), ENDED)).unwrap();
        drop(writer);
        guard.join().unwrap();
        assert_eq!(await_exit(&gentle), Exit::Signal(15));
        assert_eq!(await_exit(&stubborn), Exit::Signal(9));
        assert_eq!(forgotten.try_status().unwrap(), None);
    }

    #[test]
    fn a_program_that_is_no_guard_is_given_up_without_harm() {
        // The test runner refuses the arguments and exits; so does each of its successors.
        let mut guard = Guard::start().unwrap();
        while let Some(line) = &guard.line {
            let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            let status = waitid(WaitId::Pid(line.guard), ended).unwrap().unwrap();
            assert_ne!(status.exit_status(), Some(0));
            guard.watch(group(i32::MAX));
        }
        guard.forget(group(i32::MAX));
        assert_eq!(guard.replacements_left, 0);
    }

    #[test]
    fn no_guard_is_silent() {
        let mut guard = Guard::none();
        guard.watch(group(i32::MAX));
        guard.forget(group(i32::MAX));
        assert!(guard.live.is_empty());
    }

    /// A guard that is this test program in its role.
    fn start_test_guard() -> Guard {
        let role = play_role("as_guard", "guard");
        let arguments = role.get_args().map(Into::into).collect();
        let environment = role.get_envs();
        let environment =
            environment.filter_map(|(name, value)| Some((name.into(), value?.into())));
        Guard::launch(Plan { arguments, environment: Environment::of(environment) }).unwrap()
    }

    #[test]
    #[ignore = "a role that other tests start"]
    fn as_guard() {
        if plays_role("guard") {
            let _ = run_guard();
        }
    }

    #[test]
    #[ignore = "a role that other tests start"]
    fn as_server() {
        if !plays_role("server") {
            return;
        }
        let mut guard = start_test_guard();
        let processes: Vec<_> = (0..20).map(|_| shell("sleep 1000 & wait")).collect();
        for process in &processes {
            guard.watch(process.group());
        }
        for process in &processes {
            println!("\ngroup {}", process.group().as_raw_nonzero());
        }
        std::thread::sleep(Duration::from_secs(1000));
    }

    #[test]
    fn commands_die_with_a_server_that_is_killed() {
        let mut server = play_role("as_server", "server").stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let watchers: Vec<_> = lines
            .map(Result::unwrap)
            .filter_map(|line| line.strip_prefix("group ").map(|number| number.parse().unwrap()))
            .map(|number| pidfd_open(group(number), PidfdFlags::empty()).unwrap())
            .take(20)
            .collect();
        assert_eq!(watchers.len(), 20);
        server.kill().unwrap();
        server.wait().unwrap();
        watchers.iter().for_each(await_readable);
    }

    #[test]
    fn a_lost_guard_is_replaced_and_told_everything() {
        let mut guard = start_test_guard();
        let process = shell("exec sleep 1000");
        guard.watch(process.group());
        let lost = guard.line.as_ref().unwrap().guard;
        kill_process(lost, Signal::KILL).unwrap();
        waitid(WaitId::Pid(lost), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        // Noticed at the next record, which may be about another group; at a later one while a
        // command that another thread is just starting still has a copy of the pipe.
        while guard.replacements_left == REPLACEMENTS_MAX {
            guard.watch(group(i32::MAX));
            guard.forget(group(i32::MAX));
        }
        drop(guard);
        assert_eq!(await_exit(&process), Exit::Signal(15));
    }

    #[test]
    fn a_stuck_guard_is_replaced() {
        let mut guard = start_test_guard();
        let process = shell("exec sleep 1000");
        guard.watch(process.group());
        let stuck = guard.line.as_ref().unwrap().guard;
        kill_process(stuck, Signal::STOP).unwrap();
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(stuck), stopped).unwrap().expect("a stopped guard");
        // Pipe and queue hold less than twenty thousand records.
        for _ in 0..10_000 {
            guard.watch(group(i32::MAX));
            guard.forget(group(i32::MAX));
        }
        assert_eq!(guard.replacements_left, REPLACEMENTS_MAX - 1);
        assert_eq!(process.try_status().unwrap(), None, "the old guard did not strike");
        drop(guard);
        assert_eq!(await_exit(&process), Exit::Signal(15));
    }
}
