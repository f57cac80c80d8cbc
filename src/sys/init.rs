//! The first process of a container, where the server would be that.
//!
//! ```text
//!   process 1 (this) ── starts ──▶ the server ── starts ──▶ commands
//!        │  ──── TERM, INT, HUP ────▶                           │ their children, left behind
//!        └──────────────── inherits, and collects when dead ◀───┘
//! ```
//!
//! The kernel hands orphans to process 1, and dead ones stay in the table of processes until it
//! asks for them. Where the server did that itself it would have to tell them from its own
//! commands, whose exit codes it still wants.

use std::ffi::OsString;
use std::io;

use mio::{Events, Interest, Poll, Token};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, wait};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

use super::process::environment::Environment;
use super::process::launch::{Launch, StreamTo};

/// Whether this is process 1, of a container or of a machine.
#[must_use]
pub fn is_first_process() -> bool {
    getpid().is_init()
}

/// Starts this program again with the same arguments, and stays until it ends: its exit code,
/// 128 more than the signal that ended it.
///
/// # Errors
/// It could not be started, or the signals could not be taken over.
pub fn run_below() -> io::Result<u8> {
    let mut poll = Poll::new()?;
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGCHLD])?;
    poll.registry().register(&mut signals, Token(0), Interest::READABLE)?;
    let server = start()?;
    let mut events = Events::with_capacity(1);
    loop {
        if let Some(code) = collect(server) {
            return Ok(code);
        }
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for signal in signals.pending().filter_map(passed_on) {
            // It is not collected yet, so the number is its own; dead, it does not mind.
            let _ = kill_process(server, signal);
        }
    }
}

/// In a session of its own: at a terminal, Ctrl-C comes once, by way of us.
fn start() -> io::Result<Pid> {
    let program = std::env::current_exe()?;
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(OsString::as_os_str).collect();
    let launch = Launch {
        program: program.as_os_str(),
        arguments: &arguments,
        directory: None,
        environment: &Environment::of(std::env::vars_os()),
        variables: &[],
        streams: [StreamTo::Same; 3],
    };
    Ok(launch.start()?.pid)
}

fn passed_on(number: i32) -> Option<Signal> {
    match number {
        SIGTERM => Some(Signal::TERM),
        SIGINT => Some(Signal::INT),
        SIGHUP => Some(Signal::HUP),
        _ => None,
    }
}

/// Takes all that are dead off the table; the exit code, once the server is among them.
fn collect(server: Pid) -> Option<u8> {
    // An error means that there is no child at all, and there is one until the server is found.
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == server {
            let code = status.exit_status().or(status.terminating_signal().map(|it| it + 128));
            return Some(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX));
        }
    }
    None
}
