//! What the client decides by itself, without a clock, a file, a thread, a socket or a terminal,
//! so that tests need none: `tests/tidy.rs` holds this folder to it.
//!
//! It imports from the rest of the client nothing at all; the loop and the threads import it.

pub mod backoff;
pub mod exit;
pub mod order;
pub mod rules;
