//! When which address is tried: the timing of RFC 8305 without sockets and without a clock.

use std::time::Duration;

/// The pause before the next address is tried beside the running ones (RFC 8305, section 5).
pub(super) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The timing of the attempts, without sockets: times are durations since the start of the race.
///
/// ```text
///            poll                    failed
///  waiting ────────▶ Start(i) running ─────▶ failed     all failed: GiveUp(AllFailed)
///                    next one after 250 ms,             time over:  GiveUp(TimedOut)
///                    or at once when one failed
/// ```
#[derive(Debug)]
pub struct Race {
    attempts: Vec<Attempt>,
    /// The attempt to be started next; all before it are running or failed.
    next: usize,
    /// When `next` may start; the first may at once.
    next_at: Duration,
    deadline: Duration,
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
    /// Nothing until this time (since the start of the race) or news of an attempt.
    Wait(Duration),
    /// It is over without a winner.
    GiveUp(End),
}

/// How a race without a winner ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Each attempt failed by itself.
    AllFailed,
    /// The time was over while attempts ran.
    TimedOut,
}

impl Race {
    /// A race of `count` attempts that ends at `timeout`.
    #[must_use]
    pub fn new(count: usize, timeout: Duration) -> Self {
        Self {
            attempts: vec![Attempt::Waiting; count],
            next: 0,
            next_at: Duration::ZERO,
            deadline: timeout,
        }
    }

    /// Tells what to do at `now`; call again after each start and each failure.
    pub fn poll(&mut self, now: Duration) -> Step {
        let runs = self.attempts.contains(&Attempt::Running);
        let more = self.next < self.attempts.len();
        if !runs && !more {
            return Step::GiveUp(End::AllFailed);
        }
        if now >= self.deadline {
            return Step::GiveUp(End::TimedOut);
        }
        if !more {
            return Step::Wait(self.deadline);
        }
        if now < self.next_at {
            return Step::Wait(self.next_at.min(self.deadline));
        }
        let index = self.next;
        self.attempts[index] = Attempt::Running;
        self.next += 1;
        self.next_at = now + ATTEMPT_DELAY;
        Step::Start(index)
    }

    /// Notes that a running attempt failed: the next need not wait any longer.
    pub fn handle_failed(&mut self, index: usize, now: Duration) {
        assert_eq!(self.attempts[index], Attempt::Running, "only a running attempt can fail");
        self.attempts[index] = Attempt::Failed;
        self.next_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn attempts_start_250_ms_apart_while_none_answers() {
        let mut race = Race::new(3, LONG);
        assert_eq!(race.poll(ms(0)), Step::Start(0));
        assert_eq!(race.poll(ms(0)), Step::Wait(ms(250)));
        assert_eq!(race.poll(ms(249)), Step::Wait(ms(250)));
        assert_eq!(race.poll(ms(250)), Step::Start(1));
        assert_eq!(race.poll(ms(250)), Step::Wait(ms(500)));
        // A late look does not start two at once.
        assert_eq!(race.poll(ms(900)), Step::Start(2));
        assert_eq!(race.poll(ms(900)), Step::Wait(LONG));
        assert_eq!(race.poll(LONG), Step::GiveUp(End::TimedOut));
    }

    #[test]
    fn a_failure_starts_the_next_at_once() {
        let mut race = Race::new(3, LONG);
        assert_eq!(race.poll(ms(0)), Step::Start(0));
        race.handle_failed(0, ms(3));
        assert_eq!(race.poll(ms(3)), Step::Start(1));
        assert_eq!(race.poll(ms(3)), Step::Wait(ms(253)));
        race.handle_failed(1, ms(10));
        assert_eq!(race.poll(ms(10)), Step::Start(2));
        race.handle_failed(2, ms(11));
        assert_eq!(race.poll(ms(11)), Step::GiveUp(End::AllFailed));
    }

    #[test]
    fn an_earlier_attempt_may_outlive_a_failed_later_one() {
        let mut race = Race::new(2, LONG);
        assert_eq!(race.poll(ms(0)), Step::Start(0));
        assert_eq!(race.poll(ms(250)), Step::Start(1));
        race.handle_failed(1, ms(260));
        assert_eq!(race.poll(ms(260)), Step::Wait(LONG));
        race.handle_failed(0, ms(300));
        assert_eq!(race.poll(LONG), Step::GiveUp(End::AllFailed));
    }

    #[test]
    fn the_time_limit_ends_a_race_before_all_were_tried() {
        let mut race = Race::new(5, ms(300));
        assert_eq!(race.poll(ms(0)), Step::Start(0));
        assert_eq!(race.poll(ms(250)), Step::Start(1));
        assert_eq!(race.poll(ms(250)), Step::Wait(ms(300)));
        assert_eq!(race.poll(ms(300)), Step::GiveUp(End::TimedOut));
        assert_eq!(Race::new(0, LONG).poll(ms(0)), Step::GiveUp(End::AllFailed));
    }
}
