//! What the server can say to a session, whatever dialect it speaks.

use serde::{Deserialize, Serialize};

use super::{Form, Name, Parcel, Refusal, Tag, Text};

/// One thing said to a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// The name is accepted.
    Welcome {
        /// As it was asked for.
        name: Name,
    },
    /// Somebody wrote.
    Message {
        /// Who.
        from: &'a Name,
        /// What: at most 64 KiB.
        text: Text<'a>,
        /// Not 0: the sender waits for an acknowledgement with this number.
        serial: u32,
    },
    /// The message `tag` has arrived.
    Delivered {
        /// The sender's number for it.
        tag: Tag,
        /// The recipient.
        to: Name,
        /// Who says so.
        by: Witness,
    },
    /// A file follows.
    File {
        /// The operation.
        tag: Tag,
        /// Its name, without folders.
        name: &'a [u8],
        /// Bytes that follow.
        size: u64,
        /// Seconds since 1970 of the last change.
        modified: i64,
    },
    /// Bytes of a command's output.
    Output {
        /// The operation.
        tag: Tag,
        /// Which of the two.
        stream: Stream,
        /// As they came from the pipe; at most one chunk.
        bytes: &'a [u8],
    },
    /// Bytes that another user has sent; at most one chunk.
    Data {
        /// The operation.
        tag: Tag,
        /// As they came.
        bytes: &'a [u8],
    },
    /// The other user has no more to say in this conversation.
    DataEnd {
        /// The operation.
        tag: Tag,
    },
    /// Somebody wants to send something. Unasked: it answers nothing.
    Offer {
        /// To be named when it is accepted or refused; not 0.
        number: u32,
        /// Who.
        from: Name,
        /// What.
        parcel: &'a Parcel,
        /// Where the sender's connection comes from, if it has introduced itself.
        address: Option<&'a str>,
    },
    /// What was offered under this number is not to be had any more.
    OfferWithdrawn {
        /// That of the offer.
        number: u32,
        /// Why.
        refusal: &'a Refusal,
    },
    /// The other user takes part: the two operations are connected.
    Accepted {
        /// The operation.
        tag: Tag,
        /// The user at the other end.
        by: Name,
        /// What goes through.
        form: Form,
        /// Words of the other client: see [`Parcel::introduction`].
        introduction: Option<&'a Object>,
        /// Where its connection comes from, if it has introduced itself.
        address: Option<&'a str>,
    },
    /// Some of a folder's entries.
    Entries {
        /// The operation.
        tag: Tag,
        /// In the order of their names.
        entries: &'a [Entry],
    },
    /// Some of the users that are here.
    Users {
        /// The operation.
        tag: Tag,
        /// In the order of their names.
        names: &'a [Name],
    },
    /// Those of the users of a list that take files straight from others, and where.
    UdpPorts {
        /// The operation.
        tag: Tag,
        /// In the order of the names.
        ports: &'a [UdpPort],
    },
    /// A text that answers `echo` or `help`.
    Text {
        /// The operation.
        tag: Tag,
        /// One or more lines, the last without a line end.
        text: &'a str,
    },
    /// Facts that answer a request, as one JSON object.
    Object {
        /// The operation.
        tag: Tag,
        /// Its members.
        object: &'a Object,
    },
    /// The operation is over; nothing more carries its number.
    End {
        /// The operation.
        tag: Tag,
        /// How it ended.
        outcome: &'a Outcome,
    },
    /// The command has taken so much of its standard input.
    Credit {
        /// The operation.
        tag: Tag,
        /// Bytes.
        bytes: u32,
    },
    /// A request failed, or something went wrong later (tag 0).
    Error(&'a Refusal),
    /// Is the client there?
    Ping {
        /// Any number.
        number: u32,
    },
    /// The answer to a ping.
    Pong {
        /// That of the ping.
        number: u32,
    },
    /// The server ends the connection: because it was asked to, or for this reason.
    Goodbye(Option<&'a Refusal>),
}

/// Where the client of a user takes files straight from others.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct UdpPort {
    /// The user.
    pub user: Name,
    /// Of both families.
    pub port: u16,
}

/// The members of a JSON object.
pub type Object = serde_json::Map<String, serde_json::Value>;

/// The two outputs of a command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// Who vouches for a delivery.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Witness {
    /// The receiving client acknowledged it.
    Client,
    /// There is no acknowledgement (lines have none, and the bytes of a file have none): the
    /// receiver's connection took the bytes.
    Connection,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All is said.
    Done,
    /// All bytes of the file were sent; they hash to this (BLAKE3, 32 bytes).
    Sent {
        /// Of the whole file.
        hash: [u8; 32],
    },
    /// All that was sent to another user has arrived.
    Delivered {
        /// Who says so.
        by: Witness,
    },
    /// The command ended with this code, 0 to 255.
    Exit {
        /// As `wait(2)` has it.
        code: u8,
        /// Where `run cd` has led: the folder of the session's next commands.
        directory: Option<Vec<u8>>,
    },
    /// The command was ended by this signal.
    Signal {
        /// As `signal(7)` numbers it.
        number: i32,
        /// Where it was the server that ended it: why.
        because: Option<Ended>,
    },
    /// There were so many entries or users.
    Counted {
        /// How many were listed.
        count: u64,
        /// What was listed, in the plural.
        noun: &'static str,
    },
    /// It failed.
    Failed(Refusal),
}

/// Why the server ended a command.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// The client asked for it.
    Cancelled,
    /// Its time was over.
    TimedOut,
    /// Its output was more than one reply can hold: JSON alone.
    OutputLimit,
}

/// One entry of a folder.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Entry {
    /// Without folders.
    #[serde(with = "blob")]
    pub name: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes; 0 for what is no file.
    pub size: u64,
    /// Seconds since 1970 of the last change.
    pub modified: i64,
}

/// What an entry of a folder is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    /// A regular file, or a link to one below the root.
    File,
    /// A folder.
    Folder,
    /// Anything else.
    Other,
}

mod blob {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::wire::Blob;

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        Blob::borrowed(bytes).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Ok(Blob::deserialize(deserializer)?.0.into_owned())
    }
}
