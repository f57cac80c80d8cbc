//! Messages for a line session that must not land in the middle of something.

use super::SessionId;
use crate::wire::Tag;

/// Lines that wait until the output of a session stands at the start of a line again.
#[derive(Debug, Default)]
pub struct Held {
    pub(super) bytes: Vec<u8>,
    /// The messages among them.
    pub(super) posts: Vec<HeldPost>,
}

/// One message among the held lines.
#[derive(Clone, Copy, Debug)]
pub struct HeldPost {
    /// Where it ends in the bytes.
    pub(super) end: usize,
    pub(super) sender: SessionId,
    /// See [`super::outbox::Posted::receipt`].
    pub(super) receipt: Tag,
}
