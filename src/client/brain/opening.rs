//! What the brain tells the thread of a transfer.

use crate::{
    client::{
        channel::Meeting,
        core::order::{Local, Target},
        mover::peer::Taking,
    },
    wire::Form,
};

/// What the thread of a transfer has to know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Opening {
    /// Files of the server come.
    Fetch {
        /// What was asked for.
        paths: Vec<Vec<u8>>,
        /// Where it goes.
        target: Target,
        /// Bytes a second, at most.
        limit: Option<u64>,
        /// Bytes that may be taken before they are reported.
        credit_step_bytes: u32,
    },
    /// Files of ours go to another user.
    Give {
        /// Which.
        paths: Vec<Local>,
        /// Bytes a second, at most.
        limit: Option<u64>,
        /// How they go.
        form: Form,
        /// How the two clients meet, where both have told how they can.
        meeting: Option<Meeting>,
    },
    /// Files of another user come.
    Take {
        /// What and how.
        taking: Taking,
        /// See [`Opening::Give`].
        meeting: Option<Meeting>,
        /// Bytes that may be taken before they are reported.
        credit_step_bytes: u32,
    },
    /// Files of ours go.
    Store {
        /// Which.
        paths: Vec<Local>,
        /// Bytes a second, at most.
        limit: Option<u64>,
    },
}

impl Opening {
    /// Bytes a second, at most.
    pub fn limit(&self) -> Option<u64> {
        match self {
            Opening::Fetch { limit, .. }
            | Opening::Store { limit, .. }
            | Opening::Give { limit, .. } => *limit,
            Opening::Take { .. } => None,
        }
    }

    /// How the two clients meet, if they do.
    pub fn meeting(&self) -> Option<&Meeting> {
        match self {
            Opening::Give { meeting, .. } | Opening::Take { meeting, .. } => meeting.as_ref(),
            Opening::Fetch { .. } | Opening::Store { .. } => None,
        }
    }

    /// The same, for who opens the way.
    pub fn take_meeting(&mut self) -> Option<Meeting> {
        match self {
            Opening::Give { meeting, .. } | Opening::Take { meeting, .. } => meeting.take(),
            Opening::Fetch { .. } | Opening::Store { .. } => None,
        }
    }
}
