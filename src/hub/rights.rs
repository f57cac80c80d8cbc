//! Who may do what: the rights, and which of them each request needs.
//!
//! [`need_of`] is the only place that says so, for all verbs and dialects. It names every request,
//! so that the compiler asks for the place of a new one.

use std::fmt;

use crate::wire::{Call, HostCall, Request};

/// Something that not everybody may do.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Right {
    /// Write to others.
    Message,
    /// Fetch and list what is shared.
    Files,
    /// Put files there.
    Upload,
    /// Be a device of the edge network.
    Edge,
    /// Run commands, which is all that the server's account may do.
    Run,
    /// End or reset the server.
    Admin,
}

impl Right {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Right; 6] =
        [Right::Message, Right::Files, Right::Upload, Right::Edge, Right::Run, Right::Admin];

    /// The word for it in the credentials file and in `--grant`.
    pub fn as_str(self) -> &'static str {
        match self {
            Right::Message => "message",
            Right::Files => "files",
            Right::Upload => "upload",
            Right::Edge => "edge",
            Right::Run => "run",
            Right::Admin => "admin",
        }
    }

    /// The one sentence for whoever lacks it: what is denied, and how to get it.
    pub fn denial(self) -> &'static str {
        macro_rules! denial {
            ($right:literal) => {
                concat!(
                    $right,
                    " is not enabled for you; whoever runs the server can allow it: `",
                    $right,
                    "` among your rights in its credentials file, or --grant ",
                    $right
                )
            };
        }
        match self {
            Right::Message => denial!("message"),
            Right::Files => denial!("files"),
            Right::Upload => denial!("upload"),
            Right::Edge => denial!("edge"),
            Right::Run => denial!("run"),
            Right::Admin => denial!("admin"),
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Right {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

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
        self.0 & right.bit() != 0
    }

    /// The set with this one.
    #[must_use]
    pub fn with(self, right: Right) -> Rights {
        Rights(self.0 | right.bit())
    }

    /// The set without this one.
    #[must_use]
    pub fn without(self, right: Right) -> Rights {
        Rights(self.0 & !right.bit())
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

/// What a request asks of whoever makes it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Need {
    /// Nothing: it says who one is, how to go on, or how to leave; or it concerns something that
    /// was allowed when it began.
    Nothing,
    /// To have logged in where the server asks for that, and no right besides.
    Login,
    /// This right, and to have logged in.
    Right(Right),
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
        Call::Help | Call::Echo { .. } | Call::Refused(_) => Need::Nothing,
        Call::Who | Call::Announce { .. } => Need::Login,
        // To send is to write to somebody; the answer is to somebody who may.
        Call::Send(_) => Need::Right(Right::Message),
        Call::Accept { .. } | Call::Refuse { .. } => Need::Login,
        Call::Download { .. } | Call::Fetch { .. } | Call::List { .. } => Need::Right(Right::Files),
        Call::Store { .. } | Call::Upload { .. } => Need::Right(Right::Upload),
        Call::Run { .. } => Need::Right(Right::Run),
        Call::Edge(_) => Need::Right(Right::Edge),
        Call::Host(call) => need_of_host(call),
    }
}

impl Need {
    /// The right that it takes, if any.
    pub fn right(self) -> Option<Right> {
        match self {
            Need::Right(right) => Some(right),
            Need::Nothing | Need::Login => None,
        }
    }
}

fn need_of_host(call: &HostCall<'_>) -> Need {
    match call {
        HostCall::Clear | HostCall::Disconnect => Need::Nothing,
        HostCall::Ask(_) | HostCall::PythonVersion => Need::Login,
        // It makes the host send packets where a peer wants them to go.
        HostCall::Ping { .. } | HostCall::Script { .. } => Need::Right(Right::Run),
        HostCall::Reset | HostCall::Kill => Need::Right(Right::Admin),
    }
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
