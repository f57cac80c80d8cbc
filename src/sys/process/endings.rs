//! The end of process groups: TERM, a grace, KILL, without ever blocking the loop.
//!
//! ```text
//!  push: TERM ─▶ Led ── leader gone: Ended ─▶ Orphaned ── group empty ─▶ Empty
//!                 │                              │                          ▲
//!                 └──── grace over: KILL ────────┴──── another grace over ──┘ (given up, logged)
//! ```
//!
//! For commands that are ended: cancelled, out of time, or of somebody who is gone. What they have
//! left in the background belongs to their group and is ended with them.

use std::io;
use std::time::{Duration, Instant};

use super::{Exit, Orphans, Pid, Process, Signal};
use crate::sys::guard::Guard;

/// What a group gets between TERM and KILL.
pub const GRACE: Duration = Duration::from_secs(2);

/// First pause between two looks at a group; doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// Bounds how late an end is noticed; also keeps [`Orphans::is_empty`] trustworthy.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// The leader of a group is gone. Children that outlived it are ended without further news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Number of the group; only a name by now, never to be signalled.
    pub group: Pid,
    /// How its leader ended; `None` if that could not be learnt or it would not die.
    pub exit: Option<Exit>,
}

/// The groups that are being ended.
#[derive(Debug)]
pub struct Endings {
    grace: Duration,
    terminations: Vec<Termination>,
}

/// One group on its way out.
#[derive(Debug)]
struct Termination {
    group: Pid,
    rest: Rest,
    exit: Option<Exit>,
    /// When patience is over: KILL first, giving up a grace later.
    deadline: Instant,
    killed: bool,
    look_at: Instant,
    pause: Duration,
}

/// What may be left of a group.
#[derive(Debug)]
enum Rest {
    /// The leader, alive or a zombie, which keeps the number ours.
    Led(Process),
    /// Children that outlived the leader.
    Orphaned(Orphans),
    /// Nothing.
    Empty,
}

impl Default for Endings {
    fn default() -> Self {
        Self::new(GRACE)
    }
}

impl Endings {
    /// Nothing to end yet; groups will get `grace` between TERM and KILL.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        Self { grace, terminations: Vec::new() }
    }

    /// Sends TERM to the group and takes it over; pipes that are still in `process` are closed,
    /// so take out those that are to be read to their end. [`Endings::poll`] is due at once.
    pub fn push(&mut self, mut process: Process, now: Instant) {
        process.stdin = None;
        process.stdout = None;
        process.stderr = None;
        let group = process.group();
        // A zombie leader does not mind, and keeps the number ours until this is sent.
        report_failure(group, process.signal_group(Signal::TERM));
        self.terminations.push(Termination {
            group,
            rest: Rest::Led(process),
            exit: None,
            deadline: now + self.grace,
            killed: false,
            look_at: now,
            pause: PAUSE_MIN,
        });
    }

    /// Looks at the groups whose time has come; returns those whose leader is gone, each once.
    /// Tells `guard` which numbers are no longer ours.
    pub fn poll(&mut self, now: Instant, guard: &mut Guard) -> Vec<Ended> {
        let mut ended = Vec::new();
        let grace = self.grace;
        self.terminations.retain_mut(|termination| {
            if now >= termination.look_at {
                ended.extend(termination.poll(now, grace, guard));
            }
            !matches!(termination.rest, Rest::Empty)
        });
        ended
    }

    /// When [`Endings::poll`] is due; `None` if there is nothing to end.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.terminations.iter().map(|termination| termination.look_at).min()
    }

    /// Whether nothing is being ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terminations.is_empty()
    }

    /// Sends KILL to every group now, for a server that cannot wait any longer.
    pub fn kill_all(&mut self, now: Instant) {
        for termination in &mut self.terminations {
            termination.kill(now, self.grace);
            termination.look_at = now;
        }
    }
}

impl Termination {
    /// Takes the next step; tells when the leader is gone.
    fn poll(&mut self, now: Instant, grace: Duration, guard: &mut Guard) -> Option<Ended> {
        let was_led = matches!(self.rest, Rest::Led(_));
        self.advance(guard);
        if now >= self.deadline && !matches!(self.rest, Rest::Empty) {
            if self.killed {
                self.give_up(guard);
            } else {
                self.kill(now, grace);
            }
        }
        self.look_at = (now + self.pause).min(self.deadline);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        let is_led = matches!(self.rest, Rest::Led(_));
        (was_led && !is_led).then_some(Ended { group: self.group, exit: self.exit })
    }

    /// Finds out what is left.
    fn advance(&mut self, guard: &mut Guard) {
        self.rest = match std::mem::replace(&mut self.rest, Rest::Empty) {
            Rest::Led(process) => match process.try_status() {
                Ok(None) => Rest::Led(process),
                // An error means that somebody else has reaped it: gone without a status.
                status => {
                    self.exit = status.unwrap_or(None);
                    self.reap(process, guard)
                }
            },
            Rest::Orphaned(orphans) if !orphans.is_empty() => Rest::Orphaned(orphans),
            Rest::Orphaned(_) => {
                guard.forget(self.group);
                Rest::Empty
            }
            Rest::Empty => Rest::Empty,
        };
    }

    fn reap(&self, process: Process, guard: &mut Guard) -> Rest {
        // Before the zombie goes: should we be killed after that, the guard must not know a
        // number that may have a new owner.
        guard.forget(self.group);
        match process.reap() {
            Ok(orphans) if orphans.is_empty() => Rest::Empty,
            Ok(orphans) => {
                guard.watch(self.group);
                Rest::Orphaned(orphans)
            }
            Err(process) => {
                guard.watch(self.group);
                Rest::Led(process)
            }
        }
    }

    fn kill(&mut self, now: Instant, grace: Duration) {
        let result = match &self.rest {
            Rest::Led(process) => process.signal_group(Signal::KILL),
            Rest::Orphaned(orphans) => orphans.signal(Signal::KILL),
            Rest::Empty => Ok(()),
        };
        report_failure(self.group, result);
        self.killed = true;
        self.deadline = now + grace;
        self.pause = PAUSE_MIN;
    }

    /// Even KILL waits for a process inside a system call on a dead disk. We do not.
    fn give_up(&mut self, guard: &mut Guard) {
        let group = self.group.as_raw_nonzero();
        if matches!(self.rest, Rest::Led(_)) {
            log::warn!(
                "command {group} survives SIGKILL, probably waiting for a device or a network \
                 folder; it is no longer watched"
            );
        } else {
            // Zombies count as members; where process 1 collects none they are all that is left.
            log::info!(
                "process group {group} is still listed after SIGKILL: its processes wait for a \
                 device, or are dead but not collected (a container without an init process)"
            );
        }
        guard.forget(self.group);
        self.rest = Rest::Empty;
    }
}

fn report_failure(group: Pid, result: io::Result<()>) {
    if let Err(error) = result {
        let group = group.as_raw_nonzero();
        log::warn!("process group {group} cannot be ended: {error}; end it by hand");
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    /// Plays the event loop until `count` leaders are gone.
    fn finish(endings: &mut Endings, count: usize) -> Vec<Ended> {
        let mut ended = Vec::new();
        while ended.len() < count {
            let deadline = endings.next_deadline().expect("something is still to be ended");
            std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
            ended.extend(endings.poll(Instant::now(), &mut Guard::none()));
        }
        ended
    }

    /// Goes on until the orphans are gone or given up; who collects them is up to process 1.
    fn finish_orphans(endings: &mut Endings) {
        while let Some(deadline) = endings.next_deadline() {
            std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
            assert_eq!(endings.poll(Instant::now(), &mut Guard::none()), []);
        }
        assert!(endings.is_empty());
    }

    #[test]
    fn a_finished_command_is_over_at_the_first_look() {
        let process = shell("exit 7");
        let group = process.group();
        assert_eq!(await_exit(&process), Exit::Code(7));
        let mut endings = Endings::default();
        let now = Instant::now();
        endings.push(process, now);
        assert_eq!(endings.next_deadline(), Some(now));
        let ended = endings.poll(now, &mut Guard::none());
        assert_eq!(ended, [Ended { group, exit: Some(Exit::Code(7)) }]);
        assert!(endings.is_empty());
    }

    #[test]
    fn a_running_command_ends_by_term() {
        let process = shell("exec sleep 1000");
        let mut endings = Endings::default();
        let begun = Instant::now();
        endings.push(process, begun);
        assert_eq!(finish(&mut endings, 1)[0].exit, Some(Exit::Signal(15)));
        assert!(begun.elapsed() < GRACE, "it did not wait for the grace");
    }

    #[test]
    fn a_command_that_ignores_term_is_killed_after_the_grace() {
        let mut process = shell("trap '' TERM; echo ready; while :; do sleep 1000; done");
        read_line(process.stdout.as_mut().unwrap());
        let mut endings = Endings::new(SHORT);
        let begun = Instant::now();
        endings.push(process, begun);
        assert_eq!(finish(&mut endings, 1)[0].exit, Some(Exit::Signal(9)));
        assert!(begun.elapsed() >= SHORT);
    }

    #[test]
    fn background_children_are_ended_with_a_leader_that_left() {
        // One that heeds TERM and one that does not; the pipe ends with the last of them.
        let mut process =
            shell("sleep 1000 & (trap '' TERM; echo ready; exec sleep 1000) & exit 3");
        let mut stdout = process.stdout.take().unwrap();
        read_line(&mut stdout);
        assert_eq!(await_exit(&process), Exit::Code(3));
        let mut endings = Endings::new(SHORT);
        endings.push(process, Instant::now());
        assert_eq!(finish(&mut endings, 1)[0].exit, Some(Exit::Code(3)));
        finish_orphans(&mut endings);
        assert_eq!(read_to_end(&mut stdout), "");
    }

    #[test]
    fn orphans_do_not_delay_the_news_and_get_the_grace() {
        let mut process = shell("trap '' TERM; sleep 1000 & echo ready");
        let mut stdout = process.stdout.take().unwrap();
        read_line(&mut stdout);
        assert_eq!(await_exit(&process), Exit::Code(0));
        let mut endings = Endings::new(SHORT);
        let begun = Instant::now();
        endings.push(process, begun);
        let ended = endings.poll(begun, &mut Guard::none());
        assert_eq!(ended[0].exit, Some(Exit::Code(0)));
        assert!(!endings.is_empty());
        assert!(!is_readable(&stdout, Duration::ZERO), "the orphan lives");
        finish_orphans(&mut endings);
        assert!(begun.elapsed() >= SHORT);
        assert_eq!(read_to_end(&mut stdout), "");
    }

    #[test]
    fn kill_all_does_not_wait_for_the_grace() {
        let mut endings = Endings::default();
        let begun = Instant::now();
        for _ in 0..3 {
            let mut process = shell("trap '' TERM; echo ready; while :; do sleep 1000; done");
            read_line(process.stdout.as_mut().unwrap());
            endings.push(process, begun);
        }
        endings.kill_all(Instant::now());
        let ended = finish(&mut endings, 3);
        assert!(ended.iter().all(|ended| ended.exit == Some(Exit::Signal(9))));
        assert!(begun.elapsed() < GRACE);
    }

    #[test]
    fn between_looks_the_loop_is_left_alone() {
        let mut process = shell("trap '' TERM; echo ready; while :; do sleep 1000; done");
        read_line(process.stdout.as_mut().unwrap());
        let mut endings = Endings::new(Duration::from_secs(10));
        let mut now = Instant::now();
        let begun = now;
        endings.push(process, now);
        let mut looks = 0;
        // Virtual time: the process cannot end by itself, so only the clock matters.
        while now < begun + Duration::from_secs(9) {
            assert!(endings.poll(now, &mut Guard::none()).is_empty());
            let next = endings.next_deadline().unwrap();
            assert!(next > now && next <= now + PAUSE_MAX);
            now = next;
            looks += 1;
        }
        assert!(looks < 200, "{looks}");
        endings.kill_all(Instant::now());
        assert_eq!(finish(&mut endings, 1)[0].exit, Some(Exit::Signal(9)));
    }
}
