//! One end of what goes from user to user: an offer that waits for its answer, then half a pipe.
//!
//! ```text
//!   send --> Offered --accept--> Joined <--other--> Joined <-- accept
//!               \                   \                 /
//!                refused, withdrawn  both end together
//! ```

use super::{OperationId, SessionId, Time};
use crate::wire::Parcel;

/// What makes an operation an end of something between two users.
#[derive(Debug)]
pub struct End {
    pub(super) stage: Stage,
    /// Bytes of the owner that the other has not got yet.
    pub(super) held: Held,
    /// All bytes that the owner has handed in, and all that the other was given. Invariant: what
    /// is held is the difference.
    pub(super) came: u64,
    pub(super) went: u64,
    /// Bytes that went and for which the owner was granted no credit yet.
    pub(super) owed: u32,
    /// The owner has no more to say.
    pub(super) ended: bool,
    /// The other knows that.
    pub(super) told: bool,
    /// BLAKE3 of all that the owner has sent, where it has told that.
    pub(super) hash: Option<[u8; 32]>,
    /// When bytes last went, or began to be held.
    pub(super) moved: Time,
    /// Whether it has the alarm of the pipe: one of the two has.
    pub(super) watches: bool,
}

/// Where an end stands.
#[derive(Debug)]
pub(super) enum Stage {
    /// Nobody has answered. The offer stands in the list of the receiver.
    Offered {
        to: SessionId,
        /// As the receiver knows it.
        number: u32,
        parcel: Box<Parcel>,
    },
    /// It has another end. That one may be gone only where all has gone into its outbox.
    Joined { other: OperationId, role: Role },
}

/// What the owner of an end does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    /// Sends the bytes of one file, so many, as they are.
    Sends { size: u64 },
    /// Gets those of the other.
    Gets,
    /// Both, as long as it likes.
    Talks,
}

/// An offer in the list of its receiver.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) number: u32,
    /// The operation of the sender.
    pub(super) offer: OperationId,
}

/// Bytes that come in at the back and leave at the front, in one piece of memory.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    /// So many of them have left. Invariant: less than all, or none.
    start: usize,
}

impl End {
    /// The end of who offers something.
    pub(super) fn offer(to: SessionId, number: u32, parcel: Parcel, now: Time) -> End {
        End::new(Stage::Offered { to, number, parcel: Box::new(parcel) }, now)
    }

    /// The end of who accepts it.
    pub(super) fn joined(other: OperationId, role: Role, now: Time) -> End {
        End { watches: true, ..End::new(Stage::Joined { other, role }, now) }
    }

    fn new(stage: Stage, now: Time) -> End {
        End {
            stage,
            held: Held::default(),
            came: 0,
            went: 0,
            owed: 0,
            ended: false,
            told: false,
            hash: None,
            moved: now,
            watches: false,
        }
    }

    /// The other end and what the owner does, once they are joined.
    pub(super) fn joint(&self) -> Option<(OperationId, Role)> {
        match self.stage {
            Stage::Joined { other, role } => Some((other, role)),
            Stage::Offered { .. } => None,
        }
    }

    /// Bytes that the owner may still hand in, of a window of so many.
    pub(super) fn room(&self, window_bytes: u32) -> usize {
        match self.stage {
            Stage::Offered { .. } | Stage::Joined { role: Role::Gets, .. } => 0,
            Stage::Joined { .. } => {
                let used = self.held.length() + self.owed as usize;
                (window_bytes as usize).saturating_sub(used)
            }
        }
    }

    /// Takes in bytes that the other cannot be given now.
    pub(super) fn hold(&mut self, bytes: &[u8], now: Time) {
        if self.held.is_empty() {
            self.moved = now;
        }
        self.held.append(bytes);
    }

    /// Notes that the other was given so many bytes, which are not held any more.
    pub(super) fn note_gone(&mut self, count: usize, now: Time) {
        self.went += count as u64;
        // Who has said all needs no credit.
        if !self.ended {
            self.owed += count as u32;
        }
        self.moved = now;
    }
}

impl Held {
    pub(super) fn length(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        // Growing copies all of it; then only what is still wanted.
        if self.start > 0 && self.bytes.len() + bytes.len() > self.bytes.capacity() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next bytes, at most so many.
    pub(super) fn front(&self, most: usize) -> &[u8] {
        let rest = &self.bytes[self.start..];
        &rest[..rest.len().min(most)]
    }

    /// Drops bytes at the front.
    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
        assert!(self.start <= self.bytes.len(), "more has left than there was");
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_bytes_leave_in_order_and_the_memory_does_not_grow() {
        let mut held = Held::default();
        let (mut next_in, mut next_out) = (0u8, 0u8);
        for round in 0..10_000usize {
            let count = (round * 7) % 100;
            if held.length() + count <= 300 {
                let bytes: Vec<u8> = (0..count).map(|at| next_in.wrapping_add(at as u8)).collect();
                held.append(&bytes);
                next_in = next_in.wrapping_add(count as u8);
            }
            let taken = held.front((round * 13) % 90).to_vec();
            for byte in &taken {
                assert_eq!(*byte, next_out);
                next_out = next_out.wrapping_add(1);
            }
            held.consume(taken.len());
            assert_eq!(held.is_empty(), held.length() == 0);
        }
        assert!(held.bytes.capacity() < 1000);
    }
}
