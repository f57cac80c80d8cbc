//! Failed logins by source: whoever has many waits before the next one is looked at.
//!
//! The lockout protects names. This protects the check itself, which is slow on purpose: a source
//! that guesses is slowed down, and others, who have no such debts, are not.

use std::{collections::HashMap, time::Duration};

use super::{Time, directory::Keyed, strangers::SourceNet};
use crate::limits::{
    LOGIN_DEBT_MAX, LOGIN_FAILURE_FORGOTTEN_AFTER, LOGIN_FAILURES_FREE, LOGIN_SOURCES_MAX,
    LOGIN_WAIT_STEP,
};

/// What each source owes.
#[derive(Debug)]
pub(super) struct Debts {
    by_source: HashMap<SourceNet, Debt, Keyed>,
}

#[derive(Clone, Copy, Debug)]
struct Debt {
    failures: u32,
    /// When it was counted.
    at: Time,
}

impl Debt {
    fn at(self, now: Time) -> u32 {
        let passed =
            now.0.saturating_sub(self.at.0) / LOGIN_FAILURE_FORGOTTEN_AFTER.as_millis() as u64;
        self.failures.saturating_sub(u32::try_from(passed).unwrap_or(u32::MAX))
    }
}

impl Debts {
    pub(super) fn new(key: Keyed) -> Debts {
        Debts { by_source: HashMap::with_hasher(key) }
    }

    /// Counts a failure.
    pub(super) fn add(&mut self, source: SourceNet, now: Time) {
        if self.by_source.len() >= LOGIN_SOURCES_MAX && !self.by_source.contains_key(&source) {
            self.by_source.retain(|_, debt| debt.at(now) > 0);
            if self.by_source.len() >= LOGIN_SOURCES_MAX {
                return;
            }
        }
        let failures = self.failures(source, now);
        let debt = Debt { failures: (failures + 1).min(LOGIN_DEBT_MAX), at: now };
        self.by_source.insert(source, debt);
    }

    /// How long the next login from here waits.
    pub(super) fn wait(&self, source: SourceNet, now: Time) -> Duration {
        LOGIN_WAIT_STEP * self.failures(source, now).saturating_sub(LOGIN_FAILURES_FREE)
    }

    /// Whether any failure from here is remembered.
    pub(super) fn has_any(&self, source: SourceNet, now: Time) -> bool {
        self.failures(source, now) > 0
    }

    fn failures(&self, source: SourceNet, now: Time) -> u32 {
        self.by_source.get(&source).map_or(0, |debt| debt.at(now))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    #[test]
    fn many_failures_slow_their_source_down_for_a_while_and_no_other() {
        let mut debts = Debts::new(Keyed([1, 2]));
        let (guesses, other) = (SourceNet::V4([192, 0, 2, 1]), SourceNet::Loopback);
        for _ in 0..LOGIN_FAILURES_FREE {
            debts.add(guesses, Time(0));
        }
        assert_eq!(debts.wait(guesses, Time(0)), Duration::ZERO);
        for _ in 0..1_000 {
            debts.add(guesses, Time(0));
        }
        assert_eq!(
            debts.wait(guesses, Time(0)),
            LOGIN_WAIT_STEP * (LOGIN_DEBT_MAX - LOGIN_FAILURES_FREE)
        );
        assert_eq!(debts.wait(other, Time(0)), Duration::ZERO);
        assert_eq!(
            debts.wait(guesses, Time(10_000)),
            LOGIN_WAIT_STEP * (LOGIN_DEBT_MAX - LOGIN_FAILURES_FREE - 10)
        );
        assert_eq!(debts.wait(guesses, Time(100_000)), Duration::ZERO);
    }

    #[test]
    fn memory_is_bounded_and_what_is_paid_makes_room() {
        let mut debts = Debts::new(Keyed([1, 2]));
        let source = |number: u32| SourceNet::of(IpAddr::from(Ipv4Addr::from_bits(number)));
        for number in 0..LOGIN_SOURCES_MAX as u32 + 100 {
            debts.add(source(number), Time(0));
        }
        assert_eq!(debts.by_source.len(), LOGIN_SOURCES_MAX);
        debts.add(source(u32::MAX), Time(5_000));
        assert_eq!(debts.by_source.len(), 1);
    }
}
