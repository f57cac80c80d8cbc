//! A tour: a real server and real clients do what the product is for, and every step is checked.
//!
//! `client tour`. It takes a few seconds, and 512 MiB below the folder for temporary files; all of
//! it is removed, and all processes are ended, however the tour ends. The processes are this very
//! program, once as the server and several times as the client, so nothing else need be there.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

mod bytes;
mod guide;
mod stage;

use guide::Guide;
use stage::Stage;

/// The first argument by which the client's binary runs the server, for the tour alone.
pub const SERVER_ARGUMENT: &str = "tour-server";
/// The whole tour may take so long.
const WATCHDOG: Duration = Duration::from_secs(60);
/// One answer may take so long.
const PATIENCE: Duration = Duration::from_secs(15);

/// Prints a line. Where nobody reads any more, the tour goes on to its end, which clears away.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Leads through the tour.
///
/// Exit code 0 where each step went as it should.
#[must_use]
pub fn run() -> ExitCode {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&interrupted)) {
            return fail(&format!("signals cannot be handled: {error}"));
        }
    }
    let stage = match Stage::new() {
        Ok(stage) => Arc::new(stage),
        Err(why) => return fail(&why),
    };
    let (done, report) = mpsc::channel();
    let guided = Arc::clone(&stage);
    let started = thread::Builder::new().name("tour".to_owned()).spawn(move || {
        let mut guide = Guide::new(guided);
        // Where a step fails on which others build, the guide has said so; the rest is left out.
        let _ = guide.tour();
        let _ = done.send(guide.finish());
    });
    let passed = match started {
        Ok(_) => watch(&report, &interrupted),
        Err(error) => Err(format!("no thread can be had: {error}")),
    };
    let passed = passed.unwrap_or_else(|why| {
        say(&format!("  FAILED: {why}"));
        false
    });
    if let Err(error) = stage.clear() {
        return fail(&format!("the temporary folder could not be removed: {error}"));
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn fail(why: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "tour: {why}");
    ExitCode::FAILURE
}

/// Waits for the end of the tour, the end of patience, or Ctrl-C.
fn watch(report: &mpsc::Receiver<bool>, interrupted: &AtomicBool) -> Result<bool, String> {
    let until = Instant::now() + WATCHDOG;
    loop {
        match report.recv_timeout(Duration::from_millis(50)) {
            Ok(passed) => return Ok(passed),
            Err(RecvTimeoutError::Disconnected) => return Err("the tour itself broke".to_owned()),
            Err(RecvTimeoutError::Timeout) if interrupted.load(Ordering::Relaxed) => {
                return Err("interrupted".to_owned());
            }
            Err(RecvTimeoutError::Timeout) if Instant::now() > until => {
                return Err(format!("not done after {WATCHDOG:?}"));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}
