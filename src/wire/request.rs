//! What a peer can ask, whatever dialect it speaks.

mod form;

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

use super::{
    EdgeCall, Form, HostCall, Name, Proposal, Refusal, Secret, SharePath, Text, check,
    event::Object, json::Label, offer,
};

/// The number a client gives to an operation or to a message it wants confirmed; the answers
/// carry it. 0 is none. The line dialect has no numbers: all its tags are 0.
pub type Tag = u32;

/// One request, borrowed from the bytes it came in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Request<'a> {
    /// Says who speaks: `user alice`, or the hello frame.
    Login {
        /// The name to be known by.
        name: Name,
        /// What the client said to prove it.
        password: Option<Secret<'a>>,
    },
    /// A text for other users.
    Message {
        /// Not 0: the sender wants to know when it was delivered.
        tag: Tag,
        /// Who is to get it.
        to: Recipients<'a>,
        /// At most 64 KiB, not empty.
        text: Text<'a>,
    },
    /// Something with an answer of its own.
    Call {
        /// The operation, as the client numbers it.
        tag: Tag,
        /// What to do.
        call: Call<'a>,
    },
    /// Bytes for the operation `tag`: the standard input of a command, or a part of what is sent.
    Input {
        /// The operation.
        tag: Tag,
        /// At most one chunk.
        bytes: &'a [u8],
    },
    /// The end of that input.
    InputEnd {
        /// The operation.
        tag: Tag,
        /// BLAKE3 of all of it, where the sender of a file tells it.
        hash: Option<[u8; 32]>,
    },
    /// The client has room for so many more bytes of the operation's output.
    Credit {
        /// The operation.
        tag: Tag,
        /// Bytes.
        bytes: u32,
    },
    /// The client wants no more of the operation.
    Cancel {
        /// The operation.
        tag: Tag,
    },
    /// The client has shown the message with this serial to its user.
    Acknowledge {
        /// As the message carried it.
        serial: u32,
    },
    /// To be answered by a pong with the same number.
    Ping {
        /// Any number.
        number: u32,
    },
    /// The answer to a ping.
    Pong,
    /// The client leaves of its own will.
    Goodbye,
    /// An empty line: nothing is asked, nothing is answered, and it is no first request.
    Nothing,
    /// What should have been a request with bytes behind it and is none. Lines alone: see
    /// [`Request::raw_bytes`].
    Skip {
        /// So many bytes follow, which are no requests.
        bytes: u64,
        /// The answer.
        refusal: Refusal,
    },
}

impl Request<'_> {
    /// How many bytes of input follow the request as they are, in a dialect that has no frames to
    /// put them in; `None` where nothing does. They are of the operation that it begins; where it
    /// begins none they are passed over.
    pub fn raw_bytes(&self) -> Option<u64> {
        match self {
            Request::Call { call: Call::Send(proposal), .. } => proposal.parcel.size,
            Request::Call { call: Call::Upload { size, .. }, .. } => Some(*size),
            Request::Skip { bytes, .. } => Some(*bytes),
            _ => None,
        }
    }
}

/// The verbs that have an answer. Their form in JSON is that of frames too.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(remote = "Self", tag = "op", rename_all = "kebab-case")]
pub enum Call<'a> {
    /// Send a file below the root.
    Download {
        /// Which.
        path: SharePath,
    },
    /// Send files and folders by the conversation of transfers, whose other half comes as input.
    Fetch {
        /// Which; the names in them may be patterns.
        #[serde(deserialize_with = "check::read_paths")]
        paths: Vec<SharePath>,
    },
    /// Receive files and folders by the same conversation.
    Store {
        /// Into this folder, `None` being the root.
        #[serde(default, deserialize_with = "check::read_folder")]
        into: Option<SharePath>,
    },
    /// Receive one file, whose bytes follow as they are. For dialects that cannot do better.
    #[serde(skip)]
    Upload {
        /// Where it goes; where that is no place, its bytes still follow.
        path: Result<SharePath, Refusal>,
        /// Bytes that follow.
        size: u64,
    },
    /// Run a command under `/bin/sh -c`. It is read with its interpreter: see [`form`].
    #[serde(skip_deserializing)]
    Run {
        /// As the shell gets it.
        command: Cow<'a, str>,
        /// Standard input follows in input requests; else it is empty.
        stdin: bool,
        /// The command may take so long, in milliseconds; 0 is no limit.
        timeout_ms: u64,
    },
    /// The names, sizes and times in a folder; `None` is the root.
    #[serde(rename = "ls")]
    List {
        /// Which.
        #[serde(default, deserialize_with = "check::read_folder")]
        path: Option<SharePath>,
    },
    /// Who is here.
    Who,
    /// Where this client takes files straight from others. Frames alone.
    Announce {
        /// Of its UDP sockets; 0: nowhere.
        udp_port: u16,
    },
    /// The same text back.
    Echo {
        /// Any text.
        #[serde(borrow, deserialize_with = "check::read_text")]
        text: Cow<'a, str>,
    },
    /// What one can ask.
    Help,
    /// Offer something to another user, and pass it on once that one accepts it.
    Send(Box<Proposal>),
    /// Take what was offered.
    Accept {
        /// The number of the offer.
        offer: u32,
        /// The most that the receiver can speak.
        #[serde(default, skip_serializing_if = "offer::is_raw")]
        form: Form,
        /// Words of the receiver's client for the sender's: see
        /// [`Parcel::introduction`](super::Parcel::introduction).
        #[serde(
            default,
            deserialize_with = "offer::read_introduction",
            skip_serializing_if = "Option::is_none"
        )]
        introduction: Option<Box<Object>>,
    },
    /// Do not take it.
    Refuse {
        /// The number of the offer.
        offer: u32,
        /// Why, for the sender.
        #[serde(
            default,
            deserialize_with = "offer::read_reason",
            skip_serializing_if = "Option::is_none"
        )]
        reason: Option<String>,
    },
    /// What should have been one of these and is none: it is answered by its end, as they all are.
    #[serde(skip)]
    Refused(Refusal),
    /// A request of a device.
    #[serde(skip)]
    Edge(EdgeCall),
    /// Something about the server's host, or the server itself.
    #[serde(skip)]
    Host(HostCall<'a>),
}

impl Call<'_> {
    /// The same, borrowed from nothing.
    pub fn into_owned(self) -> Call<'static> {
        match self {
            Call::Run { command, stdin, timeout_ms } => {
                Call::Run { command: Cow::Owned(command.into_owned()), stdin, timeout_ms }
            }
            Call::Echo { text } => Call::Echo { text: Cow::Owned(text.into_owned()) },
            Call::Host(call) => Call::Host(call.into_owned()),
            Call::Download { path } => Call::Download { path },
            Call::Fetch { paths } => Call::Fetch { paths },
            Call::Store { into } => Call::Store { into },
            Call::Upload { path, size } => Call::Upload { path, size },
            Call::List { path } => Call::List { path },
            Call::Who => Call::Who,
            Call::Announce { udp_port } => Call::Announce { udp_port },
            Call::Help => Call::Help,
            Call::Send(proposal) => Call::Send(proposal),
            Call::Accept { offer, form, introduction } => {
                Call::Accept { offer, form, introduction }
            }
            Call::Refuse { offer, reason } => Call::Refuse { offer, reason },
            Call::Refused(refusal) => Call::Refused(refusal),
            Call::Edge(call) => Call::Edge(call),
        }
    }

    /// Whether bytes of the client follow.
    pub fn takes_input(&self) -> bool {
        match self {
            Call::Run { stdin, .. } | Call::Host(HostCall::Script { stdin, .. }) => *stdin,
            Call::Edge(call) => call.takes_input(),
            Call::Fetch { .. } | Call::Store { .. } | Call::Upload { .. } => true,
            Call::Send(_) | Call::Accept { .. } => true,
            _ => false,
        }
    }
}

/// The list of names of one message, still as it was written.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Recipients<'a>(pub &'a [u8]);

impl<'a> Recipients<'a> {
    /// `*`: everybody else.
    pub fn is_everybody(self) -> bool {
        self.0 == b"*"
    }

    /// The one name, where there is one and not a list.
    pub fn single(self) -> Option<&'a [u8]> {
        memchr::memchr(b',', self.0).is_none().then_some(self.0)
    }

    /// The names in order, spaces round them dropped.
    pub fn names(self) -> impl Iterator<Item = &'a [u8]> {
        self.0.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
    }
}

impl fmt::Debug for Recipients<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(self.0), formatter)
    }
}

/// A message found at the head of the bytes, and nothing but that: the way of most requests, which
/// is kept short. Whatever is not plainly a good message is left to the codec's `decode`.
#[derive(Clone, Copy, Debug)]
pub struct Post<'a> {
    /// See [`Request::Message`].
    pub tag: Tag,
    /// See [`Request::Message`].
    pub to: Recipients<'a>,
    /// See [`Request::Message`].
    pub text: Text<'a>,
    /// So many bytes belonged to it.
    pub consumed: usize,
}

impl<'a> From<Post<'a>> for Item<'a> {
    fn from(post: Post<'a>) -> Item<'a> {
        let Post { tag, to, text, consumed } = post;
        Item { request: Ok(Request::Message { tag, to, text }), consumed, label: None }
    }
}

/// What a codec found at the head of the bytes.
#[derive(Debug, Eq, PartialEq)]
pub struct Item<'a> {
    /// The request, or why it is none. The connection lives on either way.
    pub request: Result<Request<'a>, Refusal>,
    /// So many bytes belonged to it.
    pub consumed: usize,
    /// JSON alone: its id, and what else has no place in a request.
    pub label: Option<Label<'a>>,
}
