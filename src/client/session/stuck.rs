//! An end that a signal asks for does not wait for an output that takes nothing: a pager that shows
//! its first page, a pipe that nobody reads, a terminal that was stopped by Ctrl-S.

use std::time::{Duration, Instant};

use signal_hook::consts::SIGINT;

use super::Session;
use crate::client::{brain::Style, core::exit, outlet::Pace};

/// How long an output may take nothing once the end is asked for.
const STUCK_AFTER: Duration = Duration::from_millis(1500);

/// Nothing tells of a write that does not happen.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is still waited for after a signal.
#[derive(Debug)]
pub(super) struct Patience {
    code: u8,
    outputs: Vec<Pace>,
    written: u64,
    since: Instant,
}

impl Patience {
    fn new(code: u8, outputs: Vec<Pace>, now: Instant) -> Patience {
        Patience { code, outputs, written: 0, since: now }
    }

    /// The exit code, where an output has taken nothing for so long.
    fn code_where_stuck(&mut self, now: Instant) -> Option<u8> {
        let written = self.outputs.iter().map(Pace::written).sum();
        let is_behind = self.outputs.iter().any(Pace::is_behind);
        if !is_behind || written != self.written {
            (self.written, self.since) = (written, now);
        }
        (now.saturating_duration_since(self.since) >= STUCK_AFTER).then_some(self.code)
    }
}

impl Session<'_> {
    /// From now on outputs have to take what there is, if the signal asks for the end: at a
    /// prompt, Ctrl-C does not.
    pub(super) fn lose_patience(&mut self, number: i32) {
        if number == SIGINT && self.style == Style::Prompt {
            return;
        }
        let outputs = self.out.iter().chain(&self.err).map(super::Outlet::pace).collect();
        self.patience
            .get_or_insert_with(|| Patience::new(exit::of_signal(number), outputs, Instant::now()));
    }

    pub(super) fn code_where_stuck(&mut self) -> Option<u8> {
        self.patience.as_mut()?.code_where_stuck(Instant::now())
    }

    pub(super) fn next_look(&self) -> Option<Duration> {
        self.patience.as_ref().map(|_| LOOK_EVERY)
    }
}
