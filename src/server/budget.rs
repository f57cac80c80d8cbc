//! Memory that operations share out among themselves, by session and in all.

use std::collections::HashMap;

use crate::hub::SessionId;

/// What is held on whose behalf. It refuses nothing: who is about to take more asks for the room
/// first, and makes do with less where there is little.
#[derive(Debug)]
pub struct Budget {
    of_one_max: usize,
    total_max: usize,
    held: HashMap<SessionId, usize>,
    total: usize,
}

impl Budget {
    /// So many bytes for one session, and for all.
    pub fn new(of_one_max: usize, total_max: usize) -> Budget {
        Budget { of_one_max, total_max, held: HashMap::new(), total: 0 }
    }

    /// Bytes that the session may yet take.
    pub fn room(&self, session: SessionId) -> usize {
        let own = self.held.get(&session).copied().unwrap_or(0);
        self.of_one_max.saturating_sub(own).min(self.total_max.saturating_sub(self.total))
    }

    /// Notes that an operation of the session holds so much now, in place of `held`.
    pub fn change(&mut self, session: SessionId, held: &mut usize, now: usize) {
        let before = std::mem::replace(held, now);
        let own = self.held.entry(session).or_default();
        *own = *own + now - before;
        if *own == 0 {
            self.held.remove(&session);
        }
        self.total = self.total + now - before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_the_session_and_all_together_leave() {
        let session = |number| SessionId::new(0, number);
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
}
