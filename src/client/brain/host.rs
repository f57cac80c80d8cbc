//! Facts about the server and its host, round trips to it, and watching it.

use super::{Brain, Call, Effect, Online, Shown, Tag, Task, exit};
use crate::{
    client::core::order::Route,
    limits::INFO_INTERVAL_MIN_MS,
    wire::{ErrorCode, HostCall, host::Question},
};

/// A round trip takes no longer than this, in milliseconds, or counts as none.
const TRIP_MAX_MS: u64 = 10_000;
/// A server that has no time for a question is asked again after so many milliseconds.
const ASK_AGAIN_MS: u64 = 1000;

/// Ask for the facts again and again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Watch {
    /// What the server measures for so long, in milliseconds, before it answers.
    pub interval_ms: u32,
    /// So many answers are enough; `None`: until somebody leaves.
    pub count: Option<u32>,
}

/// How the watching goes.
#[derive(Debug, Default)]
pub(super) struct Watching {
    answers: u32,
    /// When to ask again.
    due_ms: Option<u64>,
}

/// Round trips, one after the other.
#[derive(Debug)]
pub(super) struct Probe {
    route: Route,
    left: u32,
    interval_ms: u64,
    /// The ping that is on its way, and when it counts as lost.
    waiting: Option<(u32, u64)>,
    /// When the next one is due.
    due_ms: Option<u64>,
    trips: Trips,
}

/// What the round trips took, in microseconds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Trips {
    /// How many there were.
    pub count: u32,
    /// The shortest.
    pub min_us: u64,
    /// The longest.
    pub max_us: u64,
    /// All of them together.
    pub sum_us: u64,
}

impl Trips {
    fn add(&mut self, us: u64) {
        self.min_us = if self.count == 0 { us } else { self.min_us.min(us) };
        self.max_us = self.max_us.max(us);
        self.sum_us += us;
        self.count += 1;
    }

    /// The average; 0 of none.
    pub fn average_us(&self) -> u64 {
        self.sum_us.checked_div(self.count.into()).unwrap_or(0)
    }
}

/// What waits for the answer to a host command.
pub(super) fn task_of(call: &HostCall<'_>) -> Task {
    match call {
        HostCall::Ask(Question::Pong) => Task::Pong(String::new()),
        HostCall::Ping { .. } | HostCall::PythonVersion => Task::Run(Box::default()),
        HostCall::Script { command, stdin, .. } => {
            Task::Run(Box::new(super::Run::new(command, *stdin)))
        }
        HostCall::Ask(_)
        | HostCall::Clear
        | HostCall::Disconnect
        | HostCall::Reset
        | HostCall::Kill => Task::Answer(""),
    }
}

/// Round trips.
impl Brain {
    pub(super) fn start_probe(&mut self, route: Route, count: u32, interval_ms: u64, now_ms: u64) {
        let trips = Trips::default();
        let (waiting, due_ms) = (None, None);
        self.probe = Some(Probe { route, left: count, interval_ms, waiting, due_ms, trips });
        self.send_probe(now_ms);
    }

    fn send_probe(&mut self, now_ms: u64) {
        let Online::Here(link) = &mut self.online else { return };
        let Some(probe) = &mut self.probe else { return };
        let number = link.ping();
        probe.waiting = Some((number, now_ms + TRIP_MAX_MS));
        probe.due_ms = None;
        self.effects.push_back(Effect::StartClock(number));
    }

    /// True where the pong answers a ping of a probe.
    pub(super) fn handle_probe_pong(&mut self, number: u32) -> bool {
        let waiting = self.probe.as_ref().and_then(|probe| probe.waiting);
        let is_ours = waiting.is_some_and(|(awaited, _)| awaited == number);
        if is_ours {
            self.effects.push_back(Effect::StopClock(number));
        }
        is_ours
    }

    /// So much time, in microseconds, went by from [`Effect::StartClock`] to
    /// [`Effect::StopClock`] with this number.
    pub fn handle_clock(&mut self, number: u32, us: u64, now_ms: u64) {
        if let Some(Task::Pong(text)) = self.tasks.get_mut(&number) {
            let text = std::mem::take(text);
            return self.show(Shown::Pong { text, us });
        }
        let Some(probe) = &mut self.probe else { return };
        if probe.waiting.is_none_or(|(awaited, _)| awaited != number) {
            return;
        }
        probe.waiting = None;
        probe.trips.add(us);
        probe.left = probe.left.saturating_sub(1);
        let (route, trips, is_last) = (probe.route.clone(), probe.trips, probe.left == 0);
        probe.due_ms = Some(now_ms + probe.interval_ms);
        self.show(Shown::RoundTrip { route: route.clone(), us });
        if is_last {
            self.probe = None;
            self.show(Shown::RoundTrips { route, trips });
        }
        self.settle();
    }

    pub(super) fn host_due_ms(&self) -> Option<u64> {
        let probe = self.probe.as_ref().map(|probe| (probe.waiting, probe.due_ms));
        let (waiting, due_ms) = probe.unwrap_or_default();
        let online = matches!(self.online, Online::Here(_));
        let watching = self.watching.due_ms.filter(|_| online);
        waiting.map(|(_, late_ms)| late_ms).into_iter().chain(due_ms).chain(watching).min()
    }

    pub(super) fn handle_host_timeout(&mut self, now_ms: u64) {
        if self.watching.due_ms.is_some_and(|due| due <= now_ms) {
            self.watching.due_ms = None;
            self.settle();
        }
        let Some(probe) = &self.probe else { return };
        if probe.waiting.is_some_and(|(_, late_ms)| late_ms <= now_ms) {
            self.probe = None;
            self.fail(exit::TIMED_OUT);
            let text = format!("no answer within {} s", TRIP_MAX_MS / 1000);
            self.show(Shown::refusal(ErrorCode::TimedOut, &text));
            return self.settle();
        }
        if probe.due_ms.is_some_and(|due| due <= now_ms) {
            self.send_probe(now_ms);
        }
    }
}

/// Watching.
impl Brain {
    /// Asks for the next facts, unless that is done or is to wait.
    pub(super) fn watch_on(&mut self, watch: Watch) {
        if !self.tasks.is_empty() || self.watching.due_ms.is_some() {
            return;
        }
        if watch.count.is_some_and(|count| self.watching.answers >= count) {
            return self.leave(None);
        }
        let Online::Here(link) = &mut self.online else { return };
        if !link.is_ready() {
            return;
        }
        // The first answer is wanted soon.
        let is_first = self.watching.answers == 0;
        let interval_ms = if is_first { INFO_INTERVAL_MIN_MS } else { watch.interval_ms };
        let tag = link.request(&Call::Host(HostCall::Ask(Question::Info { interval_ms })));
        self.tasks.insert(tag, Task::Answer(""));
    }

    pub(super) fn count_facts(&mut self) {
        self.watching.answers = self.watching.answers.saturating_add(1);
    }

    /// A question was refused. One that may be answered later is asked again; false where there is
    /// no use in that.
    pub(super) fn ask_again(&mut self, code: ErrorCode, now_ms: u64) -> bool {
        let later = matches!(code, ErrorCode::Busy | ErrorCode::ShuttingDown);
        if later && self.setup.watch.is_some() {
            self.watching.due_ms = Some(now_ms + ASK_AGAIN_MS);
        }
        later && self.setup.watch.is_some()
    }

    pub(super) fn handle_pong_text(&mut self, tag: Tag, text: String) {
        if let Some(Task::Pong(kept)) = self.tasks.get_mut(&tag) {
            *kept = text;
            self.effects.push_back(Effect::StopClock(tag));
        }
    }
}
