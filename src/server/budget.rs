//! What operations share out among themselves, by session, by source and in all: memory, and turns.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
};

use crate::{
    hub::{HubSource, SessionId},
    sys::workers::Behalf,
};

/// On whose behalf something is held: a session, and whoever may have many of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Holder {
    /// The session.
    pub session: SessionId,
    /// Whose that is; `None` where all belong to the server's own account.
    pub source: Option<HubSource>,
}

/// Nobody shares with it: the loop always says whose a session is.
#[cfg(test)]
impl From<SessionId> for Holder {
    fn from(session: SessionId) -> Holder {
        Holder { session, source: None }
    }
}

/// What is held on whose behalf. It refuses nothing: who is about to take more asks for the room
/// first, and makes do with less where there is little.
#[derive(Debug)]
pub struct Budget {
    of_one_max: usize,
    total_max: usize,
    held: HashMap<SessionId, usize>,
    of_sources: HashMap<HubSource, usize>,
    total: usize,
}

impl From<SessionId> for Behalf {
    fn from(session: SessionId) -> Behalf {
        Behalf::of(session.to_bits())
    }
}

impl Budget {
    /// So many bytes for one session, and for all.
    pub fn new(of_one_max: usize, total_max: usize) -> Budget {
        let (held, of_sources) = (HashMap::new(), HashMap::new());
        Budget { of_one_max, total_max, held, of_sources, total: 0 }
    }

    /// Bytes that the session may yet take, of its own, of its source's, and of all.
    pub fn room(&self, holder: Holder) -> usize {
        let own = self.held.get(&holder.session).copied().unwrap_or(0);
        let room =
            self.of_one_max.saturating_sub(own).min(self.total_max.saturating_sub(self.total));
        let Some(source) = holder.source else { return room };
        let of_source = self.of_sources.get(&source).copied().unwrap_or(0);
        room.min(source.part_of(self.total_max, self.of_one_max).saturating_sub(of_source))
    }

    /// Notes that an operation of the session holds so much now, in place of `held`.
    pub fn change(&mut self, holder: Holder, held: &mut usize, now: usize) {
        let before = std::mem::replace(held, now);
        note(&mut self.held, holder.session, before, now);
        if let Some(source) = holder.source {
            note(&mut self.of_sources, source, before, now);
        }
        self.total = self.total + now - before;
    }
}

fn note<K: Eq + Hash>(table: &mut HashMap<K, usize>, key: K, before: usize, now: usize) {
    match table.entry(key) {
        Entry::Occupied(entry) if *entry.get() + now == before => drop(entry.remove()),
        entry => {
            let sum = entry.or_default();
            *sum = *sum + now - before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::SourceNet;

    #[test]
    fn room_is_what_the_session_and_all_together_leave() {
        let session = |number| Holder::from(SessionId::new(0, number));
        let mut budget = Budget::new(100, 150);
        let (mut one, mut other, mut third) = (0, 0, 0);
        budget.change(session(1), &mut one, 70);
        assert_eq!((budget.room(session(1)), budget.room(session(2))), (30, 80));
        budget.change(session(1), &mut other, 70);
        assert_eq!((budget.room(session(1)), budget.room(session(2))), (0, 10));
        budget.change(session(2), &mut third, 20);
        assert_eq!(budget.room(session(3)), 0);
        for held in [&mut one, &mut other] {
            budget.change(session(1), held, 0);
        }
        assert_eq!((one, budget.room(session(1)), budget.total), (0, 100, 20));
        budget.change(session(2), &mut third, 0);
        assert!(budget.held.is_empty());
    }
    #[test]
    fn many_sessions_of_one_address_leave_room_to_others() {
        let of = |text: &str| {
            let address = text.parse().expect("an address");
            Some(HubSource::Network(SourceNet::of(address)))
        };
        for (one, same, other) in [
            ("10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1"),
        ] {
            let holder =
                |number, text| Holder { session: SessionId::new(0, number), source: of(text) };
            let mut budget = Budget::new(100, 800);
            let (mut first, mut second) = (0, 0);
            budget.change(holder(1, one), &mut first, 90);
            budget.change(holder(2, same), &mut second, 90);
            assert_eq!(budget.room(holder(3, one)), 20, "a quarter is 200");
            assert_eq!(budget.room(holder(4, other)), 100);
            budget.change(holder(1, one), &mut first, 0);
            assert_eq!(budget.room(holder(3, one)), 100);
            budget.change(holder(2, same), &mut second, 0);
            assert!(budget.of_sources.is_empty());
        }
        // Programs of this machine are many users, in either family.
        for local in ["::1", "127.0.0.1"] {
            let mut budget = Budget::new(100, 800);
            let local = |number| Holder { session: SessionId::new(0, number), source: of(local) };
            for number in 0..6 {
                assert_eq!(budget.room(local(number)), 100);
                budget.change(local(number), &mut 0, 100);
            }
            assert_eq!(budget.room(local(7)), 0);
            assert_eq!(budget.room(Holder { source: of("10.0.0.1"), ..local(8) }), 100);
        }
    }
}
