//! Failed logins, counted by name: after so many in a row the name is blocked for a while.
//!
//! The count belongs to the name, whatever address, dialect or session an attempt comes from. An
//! attempt is counted from the moment it is let through to the check, so that no more of them are
//! under way than may fail yet, however many come at once.
//!
//! ```text
//!   free --a failure--> free, one less to go --the last one--> blocked --time--> free, as new
//!     ^--a success, from any count                             attempts change nothing
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::{Time, directory::Keyed};
use crate::wire::Name;

/// What is known of the attempts on all names.
#[derive(Debug)]
pub struct Lockout {
    /// Failures in a row that block a name.
    attempts: u8,
    /// How long.
    lasting: Duration,
    /// Names that have a password: these records are never given up.
    real: HashMap<Name, Record, Keyed>,
    /// Names that have none, and behave as if they had.
    unknown: HashMap<Name, Record, Keyed>,
    unknown_max: usize,
    /// The unknown ones by the number of their last change, oldest first.
    order: BTreeMap<u64, Name>,
    serial: u64,
}

/// The attempts on one name.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// In a row.
    failures: u8,
    /// Let through, and not decided yet.
    pending: u8,
    /// Nothing is let through before this.
    blocked_until: Time,
    /// Attempts that were refused while it was blocked.
    refused: u32,
    /// Its place in the order, where it has one.
    serial: u64,
}

/// Whether an attempt on a name may be checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// Yes.
    Free,
    /// Not before those have been decided that are being checked: all of them may fail.
    Waits,
    /// No: the name is blocked.
    Blocked,
}

/// What a failure has led to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failed {
    /// One may try again.
    MayTryAgain,
    /// That was one too many; the name is blocked from now on.
    IsBlocked,
}

impl Lockout {
    /// No attempts so far. `attempts` failures in a row block a name for `lasting`; `unknown_max`
    /// names without a password are remembered.
    pub fn new(attempts: u8, lasting: Duration, unknown_max: usize, key: Keyed) -> Lockout {
        assert!(attempts > 0 && unknown_max > 0);
        Lockout {
            attempts,
            lasting,
            real: HashMap::with_hasher(key),
            unknown: HashMap::with_hasher(key),
            unknown_max,
            order: BTreeMap::new(),
            serial: 0,
        }
    }

    /// Tells which names have a password. What is known of a name stays known of it.
    pub fn set_names(&mut self, names: impl Iterator<Item = Name>) {
        let empty = HashMap::with_hasher(*self.real.hasher());
        let mut before = std::mem::replace(&mut self.real, empty);
        for name in names {
            let record = before.remove(&name).or_else(|| {
                let record = self.unknown.remove(&name)?;
                self.order.remove(&record.serial);
                Some(record)
            });
            self.real.insert(name, record.unwrap_or_default());
        }
        for (name, record) in before {
            if record.failures > 0 || record.pending > 0 {
                *self.unknown_record(name) = record;
                self.touch(name);
            }
        }
    }

    /// Whether an attempt on this name may be checked now.
    pub fn standing(&self, name: &Name, now: Time) -> Standing {
        let Some(record) = self.real.get(name).or_else(|| self.unknown.get(name)) else {
            return Standing::Free;
        };
        if record.is_blocked(self.attempts, now) {
            return Standing::Blocked;
        }
        match record.failures(self.attempts, now) + record.pending < self.attempts {
            true => Standing::Free,
            false => Standing::Waits,
        }
    }

    /// Lets an attempt through, which must be free to go. Exactly one of [`Lockout::fail`],
    /// [`Lockout::succeed`] and [`Lockout::give_back`] is to follow.
    /// Gives back how many were refused while the name was blocked, where that is just over.
    pub fn let_through(&mut self, name: Name, now: Time) -> u32 {
        assert_eq!(self.standing(&name, now), Standing::Free);
        let attempts = self.attempts;
        let record = self.record(name);
        record.failures = record.failures(attempts, now);
        record.pending += 1;
        let refused = std::mem::take(&mut record.refused);
        self.touch(name);
        refused
    }

    /// An attempt was refused, since the name is blocked.
    pub fn count_refused(&mut self, name: &Name) {
        let record = self.real.get_mut(name).or_else(|| self.unknown.get_mut(name));
        if let Some(record) = record {
            record.refused = record.refused.saturating_add(1);
        }
    }

    /// Failures of this name in a row.
    pub fn failures_of(&self, name: &Name) -> u8 {
        let record = self.real.get(name).or_else(|| self.unknown.get(name));
        record.map_or(0, |record| record.failures)
    }

    /// The attempt has failed.
    pub fn fail(&mut self, name: Name, now: Time) -> Failed {
        let (attempts, until) = (self.attempts, now + self.lasting);
        let record = self.record(name);
        record.pending -= 1;
        record.failures += 1;
        let failed = match record.failures < attempts {
            true => Failed::MayTryAgain,
            false => {
                record.blocked_until = until;
                Failed::IsBlocked
            }
        };
        self.touch(name);
        failed
    }

    /// The attempt was right: the count begins anew.
    pub fn succeed(&mut self, name: Name) {
        let record = self.record(name);
        record.pending -= 1;
        record.failures = 0;
        self.touch(name);
    }

    /// The attempt was not decided: it never was.
    pub fn give_back(&mut self, name: Name) {
        self.record(name).pending -= 1;
        self.touch(name);
    }

    /// How many attempts are let through and not decided.
    pub fn pending(&self) -> usize {
        let records = self.real.values().chain(self.unknown.values());
        records.map(|record| usize::from(record.pending)).sum()
    }

    /// How many unknown names are remembered.
    pub fn unknown_count(&self) -> usize {
        assert_eq!(self.unknown.len(), self.order.len());
        self.unknown.len()
    }

    fn record(&mut self, name: Name) -> &mut Record {
        if self.real.contains_key(&name) {
            return self.real.get_mut(&name).expect("it was there");
        }
        self.unknown_record(name)
    }

    /// The record of an unknown name, for which the one that has changed least recently makes
    /// room; whoever is being checked stays.
    fn unknown_record(&mut self, name: Name) -> &mut Record {
        if !self.unknown.contains_key(&name) && self.unknown.len() >= self.unknown_max {
            let is_idle = |name: &Name| self.unknown[name].pending == 0;
            let oldest = self.order.iter().find(|(_, name)| is_idle(name));
            if let Some((&serial, &oldest)) = oldest {
                self.order.remove(&serial);
                self.unknown.remove(&oldest);
            }
        }
        self.unknown.entry(name).or_default()
    }

    /// Gives an unknown name its place at the end of the order.
    fn touch(&mut self, name: Name) {
        let Some(record) = self.unknown.get_mut(&name) else { return };
        self.serial += 1;
        self.order.remove(&record.serial);
        record.serial = self.serial;
        self.order.insert(self.serial, name);
    }
}

impl Record {
    fn is_blocked(&self, attempts: u8, now: Time) -> bool {
        self.failures >= attempts && now < self.blocked_until
    }

    /// Failures that count: a block that is over has used them up.
    fn failures(&self, attempts: u8, now: Time) -> u8 {
        match self.failures >= attempts && now >= self.blocked_until {
            true => 0,
            false => self.failures,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEN_SECONDS: Duration = Duration::from_secs(10);

    fn lockout(attempts: u8, unknown_max: usize, real: &[&str]) -> Lockout {
        let mut lockout = Lockout::new(attempts, TEN_SECONDS, unknown_max, Keyed([1, 2]));
        lockout.set_names(real.iter().map(|text| name(text)));
        lockout
    }

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    fn fail(lockout: &mut Lockout, name: Name, now: Time) -> Failed {
        lockout.let_through(name, now);
        lockout.fail(name, now)
    }

    #[test]
    fn the_last_failure_blocks_for_ten_seconds_to_the_millisecond() {
        for attempts in 1..=5 {
            let mut lockout = lockout(attempts, 8, &["alice"]);
            for who in [name("alice"), name("nobody")] {
                // One less, then a success: the count begins anew.
                for _ in 1..attempts {
                    assert_eq!(fail(&mut lockout, who, Time(0)), Failed::MayTryAgain);
                }
                lockout.let_through(who, Time(1));
                lockout.succeed(who);
                for _ in 1..attempts {
                    assert_eq!(fail(&mut lockout, who, Time(5)), Failed::MayTryAgain);
                }
                assert_eq!(fail(&mut lockout, who, Time(1_000)), Failed::IsBlocked);
                assert_eq!(lockout.standing(&who, Time(1_000)), Standing::Blocked);
                assert_eq!(lockout.standing(&who, Time(10_999)), Standing::Blocked);
                assert_eq!(lockout.standing(&who, Time(11_000)), Standing::Free);
                // And then it is as new.
                for _ in 1..attempts {
                    assert_eq!(fail(&mut lockout, who, Time(11_000)), Failed::MayTryAgain);
                }
                assert_eq!(fail(&mut lockout, who, Time(11_000)), Failed::IsBlocked);
            }
        }
    }

    #[test]
    fn no_more_are_let_through_at_once_than_may_fail() {
        let mut lockout = lockout(3, 8, &["alice"]);
        let alice = name("alice");
        fail(&mut lockout, alice, Time(0));
        lockout.let_through(alice, Time(0));
        lockout.let_through(alice, Time(0));
        assert_eq!(lockout.standing(&alice, Time(0)), Standing::Waits);
        lockout.give_back(alice);
        assert_eq!(lockout.standing(&alice, Time(0)), Standing::Free);
        lockout.let_through(alice, Time(0));
        assert_eq!(lockout.fail(alice, Time(1)), Failed::MayTryAgain);
        assert_eq!(lockout.standing(&alice, Time(1)), Standing::Waits);
        assert_eq!(lockout.fail(alice, Time(2)), Failed::IsBlocked);
        assert_eq!((lockout.pending(), lockout.unknown_count()), (0, 0));
    }

    #[test]
    fn unknown_names_are_few_and_real_ones_are_never_given_up() {
        let mut lockout = lockout(1, 4, &["alice"]);
        let unknown: Vec<Name> = (0..6).map(|at| name(&format!("x{at}"))).collect();
        fail(&mut lockout, name("alice"), Time(0));
        for who in &unknown[..4] {
            fail(&mut lockout, *who, Time(0));
        }
        // x0 is being checked again, and x1 is now the oldest of the others.
        lockout.let_through(unknown[0], Time(10_000));
        fail(&mut lockout, unknown[4], Time(10_000));
        fail(&mut lockout, unknown[5], Time(10_000));
        assert_eq!(lockout.unknown_count(), 4);
        assert_eq!(lockout.standing(&unknown[0], Time(10_001)), Standing::Waits);
        for (who, standing) in unknown[1..].iter().zip([
            Standing::Free,
            Standing::Free,
            Standing::Free,
            Standing::Blocked,
            Standing::Blocked,
        ]) {
            assert_eq!(lockout.standing(who, Time(10_001)), standing, "{who}");
        }
        assert_eq!(lockout.fail(unknown[0], Time(10_002)), Failed::IsBlocked);
        for at in 0..1_000 {
            fail(&mut lockout, name(&format!("y{at}")), Time(5));
        }
        assert_eq!(lockout.unknown_count(), 4);
        assert_eq!(lockout.standing(&name("alice"), Time(9_999)), Standing::Blocked);
    }

    #[test]
    fn a_name_keeps_its_record_when_the_names_change() {
        let mut lockout = lockout(2, 4, &["alice", "bob"]);
        let (alice, bob, carol) = (name("alice"), name("bob"), name("carol"));
        for who in [alice, bob, carol, carol] {
            fail(&mut lockout, who, Time(0));
        }
        lockout.let_through(bob, Time(0));
        lockout.set_names([alice, carol].into_iter());
        assert_eq!(lockout.standing(&carol, Time(9_999)), Standing::Blocked);
        assert_eq!(lockout.fail(bob, Time(1)), Failed::IsBlocked);
        assert_eq!(fail(&mut lockout, alice, Time(1)), Failed::IsBlocked);
        assert_eq!(lockout.unknown_count(), 1);
    }

    /// One attempt of a history: by whom, whether the password is right, how long before the next.
    fn attempts() -> impl Strategy<Value = Vec<(usize, bool, u64)>> {
        let pause = prop_oneof![Just(0), Just(1), Just(9_999), Just(10_000), 0..12_000u64];
        proptest::collection::vec((0..3usize, proptest::bool::weighted(0.3), pause), 0..60)
    }

    proptest! {
        /// Against a model that looks at the whole history each time.
        #[test]
        fn it_does_what_the_rule_says(limit in 1u8..=5, attempts in attempts()) {
            let names = ["alice", "bob", "nobody"].map(name);
            let mut lockout = lockout(limit, 4, &["alice", "bob"]);
            let mut in_a_row = [0u8; 3];
            let mut blocked_at: [Option<u64>; 3] = [None; 3];
            let mut now = 0;
            for (who, is_right, pause) in attempts {
                if blocked_at[who].is_some_and(|at| now >= at + 10_000) {
                    (blocked_at[who], in_a_row[who]) = (None, 0);
                }
                let standing = lockout.standing(&names[who], Time(now));
                prop_assert_eq!(standing == Standing::Blocked, blocked_at[who].is_some());
                if standing == Standing::Free {
                    lockout.let_through(names[who], Time(now));
                    in_a_row[who] = if is_right { 0 } else { in_a_row[who] + 1 };
                    if in_a_row[who] == limit {
                        blocked_at[who] = Some(now);
                    }
                    match is_right {
                        true => lockout.succeed(names[who]),
                        false => {
                            let failed = lockout.fail(names[who], Time(now));
                            let is_last = in_a_row[who] == limit;
                            prop_assert_eq!(failed == Failed::IsBlocked, is_last);
                        }
                    }
                } else {
                    prop_assert_eq!(standing, Standing::Blocked);
                }
                now += pause;
            }
            prop_assert_eq!(lockout.pending(), 0);
        }

        /// However attempts and answers interleave, no more are under way than may fail, and
        /// what was let through is what is decided.
        #[test]
        fn races_let_no_more_through(
            limit in 1u8..=5,
            steps in proptest::collection::vec(0..4, 0..200),
        ) {
            let (mut lockout, alice) = (lockout(limit, 4, &["alice"]), name("alice"));
            let (mut under_way, mut in_a_row) = (0u8, 0u8);
            for (at, step) in steps.into_iter().enumerate() {
                let now = Time(at as u64);
                let standing = lockout.standing(&alice, now);
                match step {
                    0 | 1 if standing == Standing::Free => {
                        lockout.let_through(alice, now);
                        under_way += 1;
                    }
                    2 if under_way > 0 => {
                        under_way -= 1;
                        in_a_row += 1;
                        let failed = lockout.fail(alice, now);
                        prop_assert_eq!(failed == Failed::IsBlocked, in_a_row == limit);
                    }
                    3 if under_way > 0 => {
                        under_way -= 1;
                        in_a_row = 0;
                        lockout.succeed(alice);
                    }
                    _ => {}
                }
                prop_assert!(under_way + in_a_row <= limit);
                prop_assert_eq!(lockout.pending(), usize::from(under_way));
                if in_a_row == limit {
                    prop_assert_eq!(lockout.standing(&alice, now), Standing::Blocked);
                }
            }
        }
    }
}
