//! JSON: what its replies need, and where its output stands.

use super::{held::Held, replies::Replies};
use crate::wire::Refusal;

/// What only a peer needs that speaks JSON.
#[derive(Debug, Default)]
pub(in crate::hub) struct JsonVoice {
    /// What it is owed for its requests; `None` before the first one, as an idle session is small.
    pub(super) replies: Option<Box<Replies>>,
    /// Words that came while part of an object was written.
    held: Option<Box<Held>>,
    /// Part of an object is written, and nothing may come before its end.
    pub(super) is_within_object: bool,
    /// The next request waits for the end of an operation.
    pub(super) awaits_slot: bool,
    /// Bytes have come that are no request: nothing is taken after them, and this is said once all
    /// is answered.
    nonsense: Option<Box<Refusal>>,
}

impl JsonVoice {
    /// Whether it is owed anything but what comes unasked, and the answer to a login.
    pub(in crate::hub) fn is_owed(&self) -> bool {
        self.replies.as_ref().is_some_and(|replies| !replies.is_empty())
    }

    pub(super) fn is_backed_up(&self) -> bool {
        self.replies.as_ref().is_some_and(|replies| replies.is_backed_up())
    }

    pub(super) fn awaits_slot(&self) -> bool {
        self.awaits_slot
    }

    pub(in crate::hub) fn is_within_object(&self) -> bool {
        self.is_within_object
    }

    pub(super) fn held(&self) -> Option<&Held> {
        self.held.as_deref()
    }

    pub(super) fn held_mut(&mut self) -> &mut Option<Box<Held>> {
        &mut self.held
    }

    pub(in crate::hub) fn has_met_nonsense(&self) -> bool {
        self.nonsense.is_some()
    }

    /// Takes nothing any more, and keeps this to be said at the end.
    pub(in crate::hub) fn keep_nonsense(&mut self, refusal: Refusal) {
        self.nonsense = Some(Box::new(refusal));
    }

    pub(in crate::hub) fn take_nonsense(&mut self) -> Option<Refusal> {
        self.nonsense.take().map(|refusal| *refusal)
    }
}
