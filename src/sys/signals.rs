//! SIGTERM, SIGINT and SIGHUP as events of the loop; SIGPIPE and SIGXFSZ do no harm.
//!
//! Whatever is caught here, commands start with the default: handlers do not survive `execve(2)`,
//! whereas "ignored" does. That is why SIGXFSZ gets a handler that does nothing.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mio::event::Source;
use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGXFSZ};
use signal_hook_mio::v1_0::Signals as Delivery;

/// What a signal asks of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGTERM or SIGINT: stop.
    Stop,
}

/// The source of signals; readable when [`Signals::pending`] has something to tell.
pub struct Signals {
    delivery: Delivery,
}

impl Signals {
    /// Takes over the signals of the process. Thereafter a write beyond the file size limit is
    /// the error `EFBIG`, one to a closed pipe or socket `EPIPE`. A poll may return `Interrupted`.
    ///
    /// # Errors
    /// No descriptors left, or `sigaction(2)` refused.
    pub fn new() -> io::Result<Self> {
        let delivery = Delivery::new([SIGTERM, SIGINT, SIGHUP])?;
        catch(SIGXFSZ)?;
        let ignored = ignored_signals();
        // The runtime of Rust ignores SIGPIPE before `main`, unless the binary was built not to.
        if ignored & bit(SIGPIPE) == 0 {
            catch(SIGPIPE)?;
        }
        // Whoever started us may have left this one ignored. The kernel would then reap our
        // children by itself, and their exit codes would be lost.
        if ignored & bit(SIGCHLD) != 0 {
            catch(SIGCHLD)?;
        }
        Ok(Self { delivery })
    }

    /// What has come since the last call, each thing once: Ctrl-C and a SIGTERM that follows it
    /// at its heels are one wish to stop.
    pub fn pending(&mut self) -> impl Iterator<Item = Signal> + use<> {
        let (mut reload, mut stop) = (None, None);
        for number in self.delivery.pending() {
            match number {
                SIGHUP => reload = Some(Signal::Reload),
                _ => stop = Some(Signal::Stop),
            }
        }
        reload.into_iter().chain(stop)
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Signals")
    }
}

impl Source for Signals {
    fn register(&mut self, registry: &Registry, token: Token, to: Interest) -> io::Result<()> {
        self.delivery.register(registry, token, to)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, to: Interest) -> io::Result<()> {
        self.delivery.reregister(registry, token, to)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.delivery.deregister(registry)
    }
}

/// Installs a handler that does nothing but set a flag that nobody reads.
fn catch(signal: i32) -> io::Result<()> {
    signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false))).map(drop)
}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// The set of ignored signals, from `proc_pid_status(5)`; empty where `/proc` is not mounted.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::time::Duration;

    use mio::{Events, Poll};
    use rustix::process::{Resource, Rlimit, setrlimit};
    use signal_hook::low_level::raise;

    use super::super::process::testing::{play_role, plays_role, run};
    use super::*;

    fn run_role(role: &str) {
        let output = play_role(role, role).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
    }

    #[test]
    fn signals_become_events() {
        run_role("as_receiver");
    }

    #[test]
    #[ignore = "a role that another test starts: signals reach the whole process"]
    fn as_receiver() {
        if !plays_role("as_receiver") {
            return;
        }
        let mut poll = Poll::new().unwrap();
        let mut signals = Signals::new().unwrap();
        poll.registry().register(&mut signals, Token(7), Interest::READABLE).unwrap();
        let mut events = Events::with_capacity(4);
        let mut receive = |numbers: &[i32]| {
            numbers.iter().for_each(|&number| raise(number).unwrap());
            // An interrupted poll is an empty one.
            let _ = poll.poll(&mut events, Some(Duration::from_secs(10)));
            signals.pending().collect::<Vec<_>>()
        };
        assert_eq!(receive(&[SIGTERM]), [Signal::Stop]);
        assert_eq!(receive(&[SIGINT]), [Signal::Stop]);
        assert_eq!(receive(&[SIGHUP, SIGHUP]), [Signal::Reload]);
        assert_eq!(receive(&[SIGINT, SIGHUP, SIGTERM]), [Signal::Reload, Signal::Stop]);
        assert_eq!(signals.pending().count(), 0);
    }

    #[test]
    fn full_pipes_and_file_limits_are_errors_and_not_deaths() {
        run_role("as_writer");
    }

    #[test]
    #[ignore = "a role that another test starts: limits hold for the whole process"]
    fn as_writer() {
        if !plays_role("as_writer") {
            return;
        }
        let _signals = Signals::new().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        assert_eq!(writer.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        // Commands get the defaults back.
        let status = run("grep SigIgn: /proc/self/status").1;
        let ignored = u64::from_str_radix(status.trim_start_matches("SigIgn:").trim(), 16).unwrap();
        assert_eq!(ignored & (bit(SIGPIPE) | bit(SIGXFSZ) | bit(SIGTERM) | bit(SIGHUP)), 0);

        let folder = tempfile::tempdir().unwrap();
        let mut file = File::create(folder.path().join("file")).unwrap();
        setrlimit(Resource::Fsize, Rlimit { current: Some(10), maximum: None }).unwrap();
        assert_eq!(file.write(&[0; 20]).unwrap(), 10);
        assert_eq!(file.write(&[0; 20]).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn children_that_would_be_reaped_by_the_kernel_keep_their_exit_codes() {
        // A shell that ignores SIGCHLD hands that on, as careless supervisors do.
        let role = play_role("as_child_of_careless", "as_child_of_careless");
        let mut shell = std::process::Command::new("bash");
        shell.args(["-c", "trap '' CHLD; exec \"$0\" \"$@\""]);
        shell.arg(role.get_program()).args(role.get_args());
        shell.envs(role.get_envs().filter_map(|(name, value)| Some((name, value?))));
        match shell.output() {
            Ok(output) => assert!(output.status.success(), "{output:?}"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound, "no bash here"),
        }
    }

    #[test]
    #[ignore = "a role that another test starts"]
    fn as_child_of_careless() {
        if !plays_role("as_child_of_careless") {
            return;
        }
        assert_ne!(ignored_signals() & bit(SIGCHLD), 0);
        let _signals = Signals::new().unwrap();
        assert_eq!(run("exit 7").0, super::super::process::Exit::Code(7));
    }
}
