//! What only one dialect needs.

pub(super) mod held;
pub(super) mod replies;
