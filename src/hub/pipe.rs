//! One end of what goes from user to user: an offer that waits for its answer, then half a pipe.
//!
//! ```text
//!   send --> Offer --accept--> PipeEnd <--other--> PipeEnd <-- accept
//!              \                  \                  /
//!               refused, withdrawn  both end together
//! ```

use super::{OperationId, SessionId, Time};
use crate::wire::Parcel;

/// Something that one user offers to another, until that one answers. It stands in the list of the
/// receiver.
#[derive(Debug)]
pub(super) struct Offer {
    to: SessionId,
    /// As the receiver knows it.
    number: u32,
    parcel: Parcel,
    /// What came with it already.
    flow: Flow,
}

/// One end of a pipe between the operations of two users.
#[derive(Debug)]
pub(super) struct PipeEnd {
    /// The other end. That one may be gone only where all has gone into the outbox of this one's
    /// owner.
    other: OperationId,
    /// Whether it has the alarm of the pipe: one of the two has.
    watches: bool,
    side: PipeSide,
}

/// What the owner of an end does, with what it has for that.
#[derive(Debug)]
enum PipeSide {
    Sends {
        size: u64,
        flow: Flow,
    },
    Gets {
        /// All bytes of the file are in the outbox, with a mark behind them.
        is_passing: bool,
    },
    Talks {
        flow: Flow,
    },
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

/// Bytes from the owner of one end to that of the other.
#[derive(Debug)]
pub(super) struct Flow {
    /// Those that the other has not got yet.
    held: HeldBytes,
    /// All that the owner has handed in, and all that the other was given. Invariant: what is
    /// held is the difference.
    came: u64,
    went: u64,
    /// Bytes that went and for which the owner was granted no credit yet.
    owed: u32,
    state: FlowState,
    /// When bytes last went, or began to be held.
    moved: Time,
}

/// Whether more bytes come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FlowState {
    /// They may.
    Open,
    /// The owner has no more to say.
    Ended {
        /// BLAKE3 of all that it has said, where it has told that.
        hash: Option<[u8; 32]>,
    },
    /// The other knows that.
    Told,
}

/// An offer in the list of its receiver.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenOffer {
    pub(super) number: u32,
    /// The operation of the sender.
    pub(super) offer: OperationId,
}

/// Bytes that come in at the back and leave at the front, in one piece of memory.
#[derive(Debug, Default)]
pub(super) struct HeldBytes {
    bytes: Vec<u8>,
    /// So many of them have left. Invariant: less than all, or none.
    start: usize,
}

impl Offer {
    pub(super) fn new(to: SessionId, number: u32, parcel: Parcel, now: Time) -> Offer {
        Offer { to, number, parcel, flow: Flow::new(now) }
    }

    /// To whom it was made.
    pub(super) fn to(&self) -> SessionId {
        self.to
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn parcel(&self) -> &Parcel {
        &self.parcel
    }

    pub(super) fn flow(&self) -> &Flow {
        &self.flow
    }

    pub(super) fn flow_mut(&mut self) -> &mut Flow {
        &mut self.flow
    }
}

impl PipeEnd {
    /// The end of the side that has accepted, which has the alarm.
    pub(super) fn of_receiver(other: OperationId, role: Role, now: Time) -> PipeEnd {
        PipeEnd { other, watches: true, side: PipeSide::new(role, Flow::new(now)) }
    }

    /// The end of the side that has offered.
    pub(super) fn of_sender(other: OperationId, role: Role, now: Time) -> PipeEnd {
        PipeEnd { other, watches: false, side: PipeSide::new(role, Flow::new(now)) }
    }

    /// Goes on with what came with the offer; what was offered.
    pub(super) fn take_over(&mut self, offer: Offer) -> Parcel {
        if let Some(flow) = self.flow_mut() {
            *flow = Flow { moved: flow.moved, ..offer.flow };
        }
        offer.parcel
    }

    pub(super) fn other(&self) -> OperationId {
        self.other
    }

    pub(super) fn watches(&self) -> bool {
        self.watches
    }

    pub(super) fn role(&self) -> Role {
        match self.side {
            PipeSide::Sends { size, .. } => Role::Sends { size },
            PipeSide::Gets { .. } => Role::Gets,
            PipeSide::Talks { .. } => Role::Talks,
        }
    }

    /// What the owner says to the other.
    pub(super) fn flow(&self) -> Option<&Flow> {
        match &self.side {
            PipeSide::Sends { flow, .. } | PipeSide::Talks { flow } => Some(flow),
            PipeSide::Gets { .. } => None,
        }
    }

    pub(super) fn flow_mut(&mut self) -> Option<&mut Flow> {
        match &mut self.side {
            PipeSide::Sends { flow, .. } | PipeSide::Talks { flow } => Some(flow),
            PipeSide::Gets { .. } => None,
        }
    }

    /// Bytes that the owner may still hand in, of a window of so many.
    pub(super) fn room(&self, window_bytes: u32) -> usize {
        self.flow().map_or(0, |flow| flow.room(window_bytes))
    }

    /// A mark stands behind the last byte of the file in the outbox.
    pub(super) fn note_passing(&mut self) {
        if let PipeSide::Gets { is_passing } = &mut self.side {
            *is_passing = true;
        }
    }

    /// What was queued of the file is lost, and the mark with it.
    pub(super) fn drop_mark(&mut self) {
        if let PipeSide::Gets { is_passing } = &mut self.side {
            *is_passing = false;
        }
    }

    pub(super) fn is_passing(&self) -> bool {
        matches!(self.side, PipeSide::Gets { is_passing: true })
    }

    /// Marks of it in the outbox or among the replies.
    pub(super) fn marks(&self) -> usize {
        usize::from(self.is_passing())
    }
}

impl PipeSide {
    fn new(role: Role, flow: Flow) -> PipeSide {
        match role {
            Role::Sends { size } => PipeSide::Sends { size, flow },
            Role::Gets => PipeSide::Gets { is_passing: false },
            Role::Talks => PipeSide::Talks { flow },
        }
    }
}

impl Flow {
    fn new(now: Time) -> Flow {
        let (held, state) = (HeldBytes::default(), FlowState::Open);
        Flow { held, came: 0, went: 0, owed: 0, state, moved: now }
    }

    /// Bytes that the other has not got yet.
    pub(super) fn held_bytes(&self) -> usize {
        self.held.length()
    }

    /// All that the owner has handed in.
    pub(super) fn came(&self) -> u64 {
        self.came
    }

    pub(super) fn went(&self) -> u64 {
        self.went
    }

    pub(super) fn owed(&self) -> u32 {
        self.owed
    }

    pub(super) fn state(&self) -> FlowState {
        self.state
    }

    /// When bytes last went, or began to be held.
    pub(super) fn moved(&self) -> Time {
        self.moved
    }

    /// Whether the owner has no more to say.
    pub(super) fn is_ended(&self) -> bool {
        self.state != FlowState::Open
    }

    /// Whether the other knows that.
    pub(super) fn is_told(&self) -> bool {
        self.state == FlowState::Told
    }

    /// Bytes that the owner may still hand in, of a window of so many.
    fn room(&self, window_bytes: u32) -> usize {
        (window_bytes as usize).saturating_sub(self.held.length() + self.owed as usize)
    }

    /// All that there is to say came at once.
    pub(super) fn set_whole(&mut self, bytes: &[u8]) {
        self.came = bytes.len() as u64;
        self.held.append(bytes);
        self.state = FlowState::Ended { hash: None };
    }

    /// The owner has no more to say; whether that is news.
    pub(super) fn end(&mut self, hash: Option<[u8; 32]>) -> bool {
        let is_news = self.state == FlowState::Open;
        if is_news {
            self.state = FlowState::Ended { hash };
        }
        is_news
    }

    /// The other hears of the end.
    pub(super) fn note_told(&mut self) {
        self.state = FlowState::Told;
    }

    /// The owner hands in so many bytes.
    pub(super) fn note_came(&mut self, count: usize) {
        self.came += count as u64;
    }

    /// Takes in bytes that the other cannot be given now; whether they are the first of these.
    pub(super) fn hold(&mut self, bytes: &[u8], now: Time) -> bool {
        let is_first = self.held.is_empty();
        if is_first {
            self.moved = now;
        }
        self.held.append(bytes);
        is_first
    }

    /// Lends the bytes that wait, for as long as some of them are given to the other.
    pub(super) fn lend_held(&mut self) -> HeldBytes {
        std::mem::take(&mut self.held)
    }

    pub(super) fn give_back(&mut self, held: HeldBytes) {
        self.held = held;
    }

    /// Notes that the other was given so many bytes, which are not held any more.
    pub(super) fn note_gone(&mut self, count: usize, now: Time) {
        self.went += count as u64;
        // An owner that has said all needs no credit.
        if self.state == FlowState::Open {
            self.owed += count as u32;
        }
        self.moved = now;
    }

    /// The credit that is due to the owner, if it is at least a step.
    pub(super) fn take_owed(&mut self, step: u32) -> Option<u32> {
        (self.owed >= step).then(|| std::mem::take(&mut self.owed))
    }
}

impl HeldBytes {
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
        let mut held = HeldBytes::default();
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
