//! After a fault of ours: the session whose input has met it goes, the others only if they must.
//!
//! A panic within [`Hub::handle`] leaves the tables as they were just then. The shell, which has
//! caught it, lets the hub give the session up and check itself. Where that succeeds, nobody else
//! has lost anything; where it panics again, nothing here is to be relied on any more.

use super::{CloseReason, Hub, Input, OperationId, SessionId};
use crate::wire::{ErrorCode, Refusal, json::Reply};

impl Hub {
    /// Whose input this is; `None` where it is nobody's, as that of time.
    pub fn culprit(&self, input: &Input<'_>) -> Option<SessionId> {
        match *input {
            Input::Bytes { connection, .. }
            | Input::Secured { connection }
            | Input::EndOfInput { connection }
            | Input::CutOff { connection }
            | Input::Gone { connection }
            | Input::Sent { connection, .. } => self.session_at(connection),
            Input::Verified { session, .. } => Some(session),
            Input::Opened { operation, .. }
            | Input::Chunk { operation, .. }
            | Input::InputTaken { operation, .. }
            | Input::InputDone { operation, .. }
            | Input::InputClosed { operation }
            | Input::Ended { operation, .. } => self.owner_of(operation),
            Input::Accounts { .. } | Input::Tick | Input::Stop => None,
        }
    }

    fn owner_of(&self, id: OperationId) -> Option<SessionId> {
        self.listener(id).map(|(session, _)| session)
    }

    /// Ends a session that has met a fault, with a word to it where `is_told`. To be called once
    /// for each way until one returns.
    ///
    /// # Panics
    /// The tables are not whole even without it.
    pub fn give_up(&mut self, id: SessionId, number: u32, is_told: bool) {
        self.forget_input();
        match is_told {
            true => self.close(id, CloseReason::Fault, Some(&fault(number))),
            false => self.remove(id, CloseReason::Fault),
        }
        self.settle();
        self.check_invariants();
    }

    /// Says to a session that the server ends for a fault of its own.
    ///
    /// # Panics
    /// It cannot be told either.
    pub fn say_last_words(&mut self, id: SessionId, number: u32) {
        self.forget_input();
        self.close(id, CloseReason::Fault, Some(&fault(number)));
    }

    /// Forgets what belongs to the input at hand alone.
    fn forget_input(&mut self) {
        (self.asked, self.reply) = (None, Reply::default());
        (self.joined, self.scratch) = (Vec::new(), Vec::new());
        // There may have been a password among the bytes.
        self.heard_secret = true;
    }

    /// From now on a line `provoke fault in session` or `provoke fault in hub` is one.
    #[cfg(debug_assertions)]
    pub fn provoke_faults(&mut self) {
        self.is_provoked = true;
    }

    #[cfg(debug_assertions)]
    pub(super) fn provoke(&mut self, bytes: &[u8]) {
        if !self.is_provoked {
            return;
        }
        if bytes.starts_with(b"provoke fault in hub") {
            self.offers_count += 1;
        }
        assert!(!bytes.starts_with(b"provoke fault in "), "this fault was provoked");
    }
}

fn fault(number: u32) -> Refusal {
    let text = format!("a fault of the server, number {number} in its log; connect again");
    Refusal::new(0, ErrorCode::Internal, text)
}
