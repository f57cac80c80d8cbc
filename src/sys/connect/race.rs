//! When which address is tried: the timing of RFC 8305 without sockets and without a clock.

use std::collections::VecDeque;
use std::time::Duration;

use super::Family;

/// The pauses before the second, third and further addresses are tried beside the running ones
/// (RFC 8305, section 5). The first pause is the recommended one; a host whose first two addresses
/// are silent is not worth waiting for as long again. None is below the 10 ms that the section
/// allows at the least.
pub(super) const ATTEMPT_DELAYS: [Duration; 3] =
    [Duration::from_millis(250), Duration::from_millis(100), Duration::from_millis(50)];
/// How long an IPv4 address waits for the name's IPv6 addresses, once it is known itself (RFC 8305,
/// section 3, the resolution delay).
pub(super) const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// The timing of the attempts, without sockets: times are durations since the start of the race.
///
/// ```text
///   names known            poll                    failed
///  ────────────▶ waiting ────────▶ Start(i) running ─────▶ failed     all failed: AllFailed
///                          next one after a pause,                    time over:  TimedOut
///                          or at once when one failed
/// ```
///
/// Attempts are numbered in the order in which [`Race::handle_names`] heard of their addresses.
#[derive(Debug)]
pub struct Race {
    attempts: Vec<Attempt>,
    v6: Pool,
    v4: Pool,
    /// The family of the attempt that was started last.
    last: Option<Family>,
    /// How many attempts were started.
    started: usize,
    /// When the next attempt may start; the first may at once.
    next_at: Duration,
    deadline: Duration,
}

/// The addresses of one family.
#[derive(Debug, Default)]
struct Pool {
    /// Not tried yet, in their order.
    waiting: VecDeque<usize>,
    /// When the resolver had said all that it knows of them.
    known_at: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    Waiting,
    Running,
    Failed,
}

/// What a [`Race`] wants done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Start the attempt of this index, then ask again.
    Start(usize),
    /// Nothing until this time (since the start of the race) or news of an attempt or a name.
    Wait(Duration),
    /// It is over without a winner.
    GiveUp(End),
}

/// How a race without a winner ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Each attempt failed by itself.
    AllFailed,
    /// The time was over while attempts ran, or while an address was still asked for.
    TimedOut,
}

impl Race {
    /// A race that ends at `timeout`, and of which no address is known yet.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self {
            attempts: Vec::new(),
            v6: Pool::default(),
            v4: Pool::default(),
            last: None,
            started: 0,
            next_at: Duration::ZERO,
            deadline: timeout,
        }
    }

    /// The resolver has told at `now` all `count` addresses of a family, which may be none.
    pub fn handle_names(&mut self, family: Family, count: usize, now: Duration) {
        let first = self.attempts.len();
        self.attempts.extend(std::iter::repeat_n(Attempt::Waiting, count));
        let pool = self.pool(family);
        pool.waiting.extend(first..first + count);
        pool.known_at = Some(now);
    }

    /// Nothing more will be heard of a family's addresses; those that are known already stay.
    pub fn close_names(&mut self, family: Family, now: Duration) {
        self.pool(family).known_at.get_or_insert(now);
    }

    /// Tells what to do at `now`; call again after each start, each failure and each name.
    pub fn poll(&mut self, now: Duration) -> Step {
        let runs = self.attempts.contains(&Attempt::Running);
        let asks = self.v6.known_at.is_none() || self.v4.known_at.is_none();
        let next = self.next_family();
        if !runs && !asks && next.is_none() {
            return Step::GiveUp(End::AllFailed);
        }
        if now >= self.deadline {
            return Step::GiveUp(End::TimedOut);
        }
        let Some(family) = next else { return Step::Wait(self.deadline) };
        let start_at = self.next_at.max(self.grace_of(family));
        if now < start_at {
            return Step::Wait(start_at.min(self.deadline));
        }
        let index = self.pool(family).waiting.pop_front().expect("it was chosen for having one");
        self.attempts[index] = Attempt::Running;
        self.last = Some(family);
        self.next_at = now + ATTEMPT_DELAYS[self.started.min(ATTEMPT_DELAYS.len() - 1)];
        self.started += 1;
        Step::Start(index)
    }

    /// Notes that a running attempt failed: the next need not wait any longer. News of an attempt
    /// that does not run changes nothing.
    pub fn handle_failed(&mut self, index: usize, now: Duration) {
        if self.attempts.get(index) == Some(&Attempt::Running) {
            self.attempts[index] = Attempt::Failed;
            self.next_at = self.next_at.min(now);
        }
    }

    fn pool(&mut self, family: Family) -> &mut Pool {
        match family {
            Family::V6 => &mut self.v6,
            Family::V4 => &mut self.v4,
        }
    }

    /// The families take turns, IPv6 first (RFC 8305, section 4).
    fn next_family(&self) -> Option<Family> {
        let (v6, v4) = (!self.v6.waiting.is_empty(), !self.v4.waiting.is_empty());
        match self.last {
            Some(Family::V6) if v4 => Some(Family::V4),
            _ if v6 => Some(Family::V6),
            _ if v4 => Some(Family::V4),
            _ => None,
        }
    }

    /// Until when the first attempt waits for the other family's names.
    fn grace_of(&self, family: Family) -> Duration {
        match (family, self.started, self.v6.known_at, self.v4.known_at) {
            (Family::V4, 0, None, Some(known_at)) => known_at + RESOLUTION_DELAY,
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// A race of so many IPv6 addresses, 0 and up, and then IPv4 addresses, known at once.
    fn race(v6: usize, v4: usize, timeout: Duration) -> Race {
        let mut race = Race::new(timeout);
        race.handle_names(Family::V6, v6, ms(0));
        race.handle_names(Family::V4, v4, ms(0));
        race
    }

    #[test]
    fn attempts_start_one_after_the_other_while_none_answers() {
        let mut race = race(0, 4, LONG);
        assert_eq!(race.poll(ms(0)), Step::Start(0));
        assert_eq!(race.poll(ms(0)), Step::Wait(ms(250)));
        assert_eq!(race.poll(ms(249)), Step::Wait(ms(250)));
        assert_eq!(race.poll(ms(250)), Step::Start(1));
        assert_eq!(race.poll(ms(250)), Step::Wait(ms(350)));
        // A late look does not start two at once.
        assert_eq!(race.poll(ms(900)), Step::Start(2));
        assert_eq!(race.poll(ms(900)), Step::Wait(ms(950)));
        assert_eq!(race.poll(ms(950)), Step::Start(3));
        assert_eq!(race.poll(ms(950)), Step::Wait(LONG));
        assert_eq!(race.poll(LONG), Step::GiveUp(End::TimedOut));
    }

    #[test]
    fn two_silent_addresses_of_each_family_cost_under_half_a_second() {
        let mut race = race(2, 3, LONG);
        let mut started = Vec::new();
        let mut now = ms(0);
        while started.len() < 5 {
            match race.poll(now) {
                Step::Start(index) => started.push((index, now)),
                Step::Wait(until) => now = until,
                Step::GiveUp(end) => panic!("{end:?}"),
            }
        }
        let order: Vec<usize> = started.iter().map(|(index, _)| *index).collect();
        assert_eq!(order, [0, 2, 1, 3, 4], "the families take turns");
        assert_eq!(started[4].1, ms(450));
    }

    #[test]
    fn a_failure_starts_the_next_at_once() {
        let mut race = race(3, 0, LONG);
        assert_eq!(race.poll(ms(0)), Step::Start(0));
        race.handle_failed(0, ms(3));
        assert_eq!(race.poll(ms(3)), Step::Start(1));
        assert_eq!(race.poll(ms(3)), Step::Wait(ms(103)));
        race.handle_failed(1, ms(10));
        assert_eq!(race.poll(ms(10)), Step::Start(2));
        race.handle_failed(2, ms(11));
        assert_eq!(race.poll(ms(11)), Step::GiveUp(End::AllFailed));
    }

    #[test]
    fn an_earlier_attempt_may_outlive_a_failed_later_one() {
        let mut race = race(1, 1, LONG);
        assert_eq!(race.poll(ms(0)), Step::Start(0));
        assert_eq!(race.poll(ms(250)), Step::Start(1));
        race.handle_failed(1, ms(260));
        assert_eq!(race.poll(ms(260)), Step::Wait(LONG));
        race.handle_failed(0, ms(300));
        assert_eq!(race.poll(LONG), Step::GiveUp(End::AllFailed));
    }

    #[test]
    fn the_time_limit_ends_a_race_before_all_were_tried() {
        let mut short = race(5, 0, ms(300));
        assert_eq!(short.poll(ms(0)), Step::Start(0));
        assert_eq!(short.poll(ms(250)), Step::Start(1));
        assert_eq!(short.poll(ms(250)), Step::Wait(ms(300)));
        assert_eq!(short.poll(ms(300)), Step::GiveUp(End::TimedOut));
        assert_eq!(race(0, 0, LONG).poll(ms(0)), Step::GiveUp(End::AllFailed));
    }

    #[test]
    fn an_ipv6_address_is_tried_at_once_and_the_ipv4_names_come_when_they_come() {
        let mut race = Race::new(LONG);
        assert_eq!(race.poll(ms(0)), Step::Wait(LONG));
        race.handle_names(Family::V6, 1, ms(20));
        assert_eq!(race.poll(ms(20)), Step::Start(0));
        assert_eq!(race.poll(ms(20)), Step::Wait(LONG));
        race.handle_names(Family::V4, 1, ms(90));
        assert_eq!(race.poll(ms(90)), Step::Wait(ms(270)));
        assert_eq!(race.poll(ms(270)), Step::Start(1));
    }

    #[test]
    fn ipv4_waits_50_ms_for_the_ipv6_names_and_no_longer() {
        let mut race = Race::new(LONG);
        race.handle_names(Family::V4, 2, ms(20));
        assert_eq!(race.poll(ms(20)), Step::Wait(ms(70)));
        assert_eq!(race.poll(ms(70)), Step::Start(0));
        // Late IPv6 names have the next turn.
        race.handle_names(Family::V6, 1, ms(100));
        assert_eq!(race.poll(ms(320)), Step::Start(2));
        assert_eq!(race.poll(ms(420)), Step::Start(1));

        let mut race = Race::new(LONG);
        race.handle_names(Family::V4, 1, ms(20));
        race.handle_names(Family::V6, 1, ms(40));
        assert_eq!(race.poll(ms(40)), Step::Start(1), "IPv6 came in time and goes first");
    }

    #[test]
    fn names_that_do_not_come_hold_up_only_the_end() {
        let mut race = Race::new(ms(500));
        race.handle_names(Family::V4, 1, ms(0));
        assert_eq!(race.poll(ms(50)), Step::Start(0));
        race.handle_failed(0, ms(60));
        assert_eq!(race.poll(ms(60)), Step::Wait(ms(500)), "IPv6 may still come");
        race.handle_names(Family::V6, 0, ms(400));
        assert_eq!(race.poll(ms(400)), Step::GiveUp(End::AllFailed));
    }

    #[test]
    fn news_of_an_attempt_that_does_not_run_changes_nothing() {
        let mut race = race(1, 1, LONG);
        race.handle_failed(0, ms(0));
        race.handle_failed(9, ms(0));
        assert_eq!(race.poll(ms(0)), Step::Start(0));
        race.handle_failed(0, ms(5));
        race.handle_failed(0, ms(900));
        assert_eq!(race.poll(ms(5)), Step::Start(1));
    }
}
