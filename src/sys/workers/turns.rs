//! Jobs that wait, by whose they are: everybody has a turn before anybody has a second one.

use std::collections::{HashMap, VecDeque};

use crate::hub::SessionId;

/// On whose behalf something is done: a session, or the server itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Behalf(u64);

/// See the head of this file.
#[derive(Debug)]
pub struct Turns<J> {
    /// Those who have jobs here, the next one first; each is in it once.
    order: VecDeque<Behalf>,
    /// Their jobs, in order. Nobody is in it without any.
    jobs: HashMap<Behalf, VecDeque<J>>,
    count: usize,
}

impl Behalf {
    /// What nobody has asked for.
    pub const SERVER: Behalf = Behalf(u64::MAX);

    #[cfg(test)]
    pub(super) fn of(number: u64) -> Behalf {
        Behalf(number)
    }
}

impl From<SessionId> for Behalf {
    fn from(session: SessionId) -> Behalf {
        // Ids are below 2^61.
        Behalf(session.to_bits())
    }
}

impl<J> Default for Turns<J> {
    fn default() -> Turns<J> {
        Turns { order: VecDeque::new(), jobs: HashMap::new(), count: 0 }
    }
}

impl<J> Turns<J> {
    /// Queues a job behind those of the same owner.
    pub fn push(&mut self, behalf: Behalf, job: J) {
        self.count += 1;
        let own = self.jobs.entry(behalf).or_default();
        if own.is_empty() {
            self.order.push_back(behalf);
        }
        own.push_back(job);
    }

    /// The next job of the first in turn who may have one.
    pub fn pop(&mut self, may: impl Fn(Behalf) -> bool) -> Option<(Behalf, J)> {
        let at = self.order.iter().position(|behalf| may(*behalf))?;
        let behalf = self.order.remove(at)?;
        let own = self.jobs.get_mut(&behalf)?;
        let job = own.pop_front()?;
        self.count -= 1;
        match own.is_empty() {
            true => drop(self.jobs.remove(&behalf)),
            false => self.order.push_back(behalf),
        }
        Some((behalf, job))
    }

    /// How many jobs wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// How many of them are somebody's.
    #[must_use]
    pub fn len_of(&self, behalf: Behalf) -> usize {
        self.jobs.get(&behalf).map_or(0, VecDeque::len)
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(jobs: &[(u64, u32)]) -> Turns<u32> {
        let mut turns = Turns::default();
        jobs.iter().for_each(|(number, job)| turns.push(Behalf::of(*number), *job));
        turns
    }

    fn drain(turns: &mut Turns<u32>, may: impl Fn(Behalf) -> bool) -> Vec<u32> {
        std::iter::from_fn(|| turns.pop(&may)).map(|(_, job)| job).collect()
    }

    #[test]
    fn who_has_many_jobs_has_one_turn_for_each_of_the_others() {
        let mut turns = queue(&[(1, 10), (1, 11), (1, 12), (2, 20), (3, 30), (2, 21)]);
        assert_eq!((turns.len(), turns.len_of(Behalf::of(1))), (6, 3));
        assert_eq!(drain(&mut turns, |_| true), [10, 20, 30, 11, 21, 12]);
        assert!(turns.is_empty() && turns.pop(|_| true).is_none());
        assert_eq!(turns.len_of(Behalf::of(1)), 0);
    }

    #[test]
    fn who_may_have_none_loses_neither_jobs_nor_place() {
        let mut turns = queue(&[(1, 10), (2, 20), (1, 11), (2, 21)]);
        assert_eq!(drain(&mut turns, |behalf| behalf != Behalf::of(1)), [20, 21]);
        assert_eq!(turns.len(), 2);
        turns.push(Behalf::of(2), 22);
        assert_eq!(drain(&mut turns, |_| true), [10, 22, 11]);
    }
}
