//! Messages for a line session that must not land in the middle of something.

use super::super::SessionId;
use crate::wire::Tag;

/// Lines that wait until the output of a session stands at the start of a line again.
#[derive(Debug, Default)]
pub struct Held {
    pub(in crate::hub) bytes: Vec<u8>,
    /// The messages among them.
    pub(in crate::hub) posts: Vec<HeldPost>,
}

/// One message among the held lines.
#[derive(Clone, Copy, Debug)]
pub struct HeldPost {
    /// Where it ends in the bytes.
    pub(in crate::hub) end: usize,
    pub(in crate::hub) sender: SessionId,
    /// See [`super::super::outbox::Posted::receipt`].
    pub(in crate::hub) receipt: Tag,
}
