//! Who may do what: the rights, and which of them each request needs.
//!
//! [`need_of`] is the only place that says so, for all verbs and dialects; for calls it reads the
//! table of verbs, where every row has a [`Need`].

use std::fmt;

use crate::wire::{Call, HostCall, Request, verbs};
pub use crate::wire::{Need, Right};

/// A set of rights.
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct Rights(u8);

impl Rights {
    /// No right at all.
    pub const NONE: Rights = Rights(0);
    /// All that there are.
    pub const ALL: Rights = Rights((1 << Right::ALL.len()) - 1);
    /// Those of a user whose line in the credentials file names none.
    pub const USUAL: Rights = Rights(0b1111);
    /// Those of anybody at an open server: what changes nothing that lasts.
    pub const OPEN: Rights = Rights(0b1011);

    /// Whether the set holds this one.
    #[inline]
    pub fn has(self, right: Right) -> bool {
        self.0 & bit(right) != 0
    }

    /// The set with this one.
    #[must_use]
    pub fn with(self, right: Right) -> Rights {
        Rights(self.0 | bit(right))
    }

    /// The set without this one.
    #[must_use]
    pub fn without(self, right: Right) -> Rights {
        Rights(self.0 & !bit(right))
    }

    /// What either set holds.
    #[must_use]
    pub fn union(self, other: Rights) -> Rights {
        Rights(self.0 | other.0)
    }

    /// Reads words with commas between them, as in `message,run`. `None` where one of them is no
    /// right, or missing.
    pub fn parse(text: &str) -> Option<Rights> {
        text.split(',').try_fold(Rights::NONE, |rights, word| {
            let right = Right::ALL.into_iter().find(|right| right.as_str() == word)?;
            Some(rights.with(right))
        })
    }
}

impl fmt::Display for Rights {
    /// As [`Rights::parse`] reads it; `none` where it is empty.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = Right::ALL.into_iter().filter(|right| self.has(*right)).map(Right::as_str);
        match *self {
            Rights::NONE => formatter.write_str("none"),
            _ => formatter.write_str(&words.collect::<Vec<_>>().join(",")),
        }
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Rights({self})")
    }
}

/// What this request needs.
pub fn need_of(request: &Request<'_>) -> Need {
    match request {
        Request::Login { .. } | Request::Goodbye | Request::Nothing => Need::Nothing,
        Request::Ping { .. } | Request::Pong => Need::Nothing,
        // It is answered by what is wrong with it.
        Request::Skip { .. } => Need::Nothing,
        // News of a message or an operation, without which these do nothing.
        Request::Input { .. } | Request::InputEnd { .. } | Request::Credit { .. } => Need::Nothing,
        Request::Cancel { .. } | Request::Acknowledge { .. } => Need::Nothing,
        Request::Message { .. } => Need::Right(Right::Message),
        Request::Call { call, .. } => need_of_call(call),
    }
}

/// What this call needs.
pub(super) fn need_of_call(call: &Call<'_>) -> Need {
    match call {
        // It makes the host send packets where a peer wants them to go.
        Call::Host(HostCall::Ping { .. }) => Need::Right(Right::Run),
        call => verbs::of_call(call).map_or(Need::Nothing, |entry| entry.need),
    }
}

fn bit(right: Right) -> u8 {
    1 << right as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sets_hold_what_their_names_say() {
        assert_eq!(Rights::ALL.to_string(), "message,files,upload,edge,run,admin");
        assert_eq!(Rights::USUAL.to_string(), "message,files,upload,edge");
        assert_eq!(Rights::OPEN.to_string(), "message,files,edge");
        assert_eq!(Rights::NONE.to_string(), "none");
        assert_eq!(Rights::OPEN.union(Rights::NONE.with(Right::Upload)), Rights::USUAL);
    }

    #[test]
    fn rights_are_read_as_they_are_shown_and_no_other_way() {
        for right in Right::ALL {
            assert_eq!(Rights::parse(right.as_str()), Some(Rights::NONE.with(right)));
            assert!(right.denial().starts_with(&format!("{right} is not enabled for you")));
        }
        assert_eq!(Rights::parse(&Rights::ALL.to_string()), Some(Rights::ALL));
        for bad in ["", ",", "run,", "Run", "run, admin", "all", "none", "run;admin"] {
            assert_eq!(Rights::parse(bad), None, "{bad}");
        }
    }
}
