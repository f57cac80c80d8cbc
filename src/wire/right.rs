//! The rights that a server grants its users, by the words that both sides have for them.

use std::fmt;

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
}

impl fmt::Display for Right {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What a request asks of the peer that makes it.
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

impl Need {
    /// The right that it takes, if any.
    pub fn right(self) -> Option<Right> {
        match self {
            Need::Right(right) => Some(right),
            Need::Nothing | Need::Login => None,
        }
    }
}
