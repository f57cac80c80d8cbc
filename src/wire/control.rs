//! The JSON bodies of control frames, one type for both directions of travel.
//!
//! Unknown members are ignored, so that a newer peer may say more than we know.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{
    Blob, ErrorCode, Form, Name, Outcome, Secret,
    event::{Ended, Entry, Object, UdpPort, Witness},
    offer,
};
use crate::limits::{OUTPUT_WINDOW_BYTES, TEXT_MAX_BYTES};

/// The version of the framed dialect that this code speaks.
pub const VERSION: u32 = 1;

/// The first frame of a client.
#[derive(Debug, Deserialize, Serialize)]
pub struct HelloBody<'a> {
    /// [`VERSION`]; a server refuses what it does not speak.
    pub version: u32,
    /// The name to be known by.
    #[serde(borrow)]
    pub user: Cow<'a, str>,
    /// What proves it, where the server asks for that.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret<'a>>,
    /// What the client can do beyond version 1; none so far.
    #[serde(default)]
    pub capabilities: Vec<String>,
}

/// The answer to a good hello.
#[derive(Debug, Deserialize, Serialize)]
pub struct WelcomeBody<'a> {
    /// The version that the connection speaks from now on.
    pub version: u32,
    /// The name as accepted.
    pub user: Name,
    /// Name and version of the server program.
    #[serde(borrow)]
    pub server: Cow<'a, str>,
    /// What the server can do beyond version 1; none so far.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Longest text of a message, in bytes.
    pub text_max_bytes: u32,
    /// Output that the server sends in one operation before it waits for credit, in bytes.
    pub output_window_bytes: u32,
}

impl WelcomeBody<'_> {
    /// The welcome of this server for `user`.
    pub fn new(user: Name) -> WelcomeBody<'static> {
        WelcomeBody {
            version: VERSION,
            user,
            server: Cow::Borrowed(concat!("sixfour ", env!("CARGO_PKG_VERSION"))),
            capabilities: Vec::new(),
            text_max_bytes: TEXT_MAX_BYTES as u32,
            output_window_bytes: OUTPUT_WINDOW_BYTES,
        }
    }
}

/// News of a running operation.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum DetailBody<'a> {
    /// See [`super::Event::File`].
    File {
        /// Without folders.
        name: Blob<'a>,
        /// Bytes.
        size: u64,
        /// Seconds since 1970.
        modified: i64,
    },
    /// See [`super::Event::DataEnd`].
    DataEnd,
    /// See [`super::Event::Offer`].
    Offer {
        /// Its number.
        offer: u32,
        /// Who offers.
        from: Name,
        /// See [`super::Parcel::name`].
        name: Blob<'a>,
        /// Bytes in all, if that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
        /// Seconds since 1970.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        modified: Option<i64>,
        /// How many.
        #[serde(default = "offer::one", skip_serializing_if = "offer::is_one")]
        files: u64,
        /// Whether the name is that of a folder.
        #[serde(default, skip_serializing_if = "offer::is_false")]
        folder: bool,
        /// The most that the sender can speak.
        #[serde(default)]
        form: Form,
        /// From the sender's client.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        introduction: Option<Cow<'a, Object>>,
        /// Of the sender's connection.
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        address: Option<Cow<'a, str>>,
    },
    /// See [`super::Event::OfferWithdrawn`].
    OfferWithdrawn {
        /// The number of the offer.
        offer: u32,
        /// The name of the error.
        code: ErrorCode,
        /// One sentence.
        #[serde(borrow)]
        text: Cow<'a, str>,
    },
    /// See [`super::Event::Accepted`].
    Accepted {
        /// The user at the other end.
        by: Name,
        /// What goes through.
        #[serde(default)]
        form: Form,
        /// From the other client.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        introduction: Option<Cow<'a, Object>>,
        /// Of the other's connection.
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        address: Option<Cow<'a, str>>,
    },
    /// See [`super::Event::Entries`].
    Entries {
        /// In the order of their names.
        entries: Cow<'a, [Entry]>,
    },
    /// See [`super::Event::Users`].
    Users {
        /// In the order of the names.
        names: Cow<'a, [Name]>,
    },
    /// See [`super::Event::UdpPorts`].
    UdpPorts {
        /// In the order of the names.
        ports: Cow<'a, [UdpPort]>,
    },
    /// See [`super::Event::Text`].
    Text {
        /// Without a line end at its end.
        #[serde(borrow)]
        text: Cow<'a, str>,
    },
    /// See [`super::Event::Object`].
    Object {
        /// Its members.
        object: Cow<'a, Object>,
    },
}

/// How an operation ended; see [`Outcome`].
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum OutcomeBody<'a> {
    /// All is said.
    Done,
    /// The file is sent.
    Sent {
        /// BLAKE3 as 64 hexadecimal digits.
        #[serde(borrow)]
        hash: Cow<'a, str>,
    },
    /// It has arrived with another user.
    Delivered {
        /// Who vouches for it.
        by: Witness,
    },
    /// The command ended by itself.
    Exit {
        /// 0 to 255.
        code: u8,
        /// The folder of the next commands, where this one has changed it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        directory: Option<Blob<'a>>,
    },
    /// The command was ended.
    Signal {
        /// As `signal(7)` numbers it.
        number: i32,
        /// Where the server did it: why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        because: Option<Ended>,
    },
    /// All are listed.
    Counted {
        /// How many.
        count: u64,
    },
    /// It failed.
    Failed {
        /// The name of the error.
        code: ErrorCode,
        /// One sentence.
        #[serde(borrow)]
        text: Cow<'a, str>,
    },
}

impl<'a> From<&'a Outcome> for OutcomeBody<'a> {
    fn from(outcome: &'a Outcome) -> OutcomeBody<'a> {
        match outcome {
            Outcome::Done => OutcomeBody::Done,
            Outcome::Sent { hash } => {
                OutcomeBody::Sent { hash: Cow::Owned(blake3::Hash::from(*hash).to_string()) }
            }
            Outcome::Delivered { by } => OutcomeBody::Delivered { by: *by },
            Outcome::Exit { code, directory } => OutcomeBody::Exit {
                code: *code,
                directory: directory.as_ref().map(|bytes| Blob::borrowed(bytes)),
            },
            Outcome::Signal { number, because } => {
                OutcomeBody::Signal { number: *number, because: *because }
            }
            Outcome::Counted { count, .. } => OutcomeBody::Counted { count: *count },
            Outcome::Failed(refusal) => {
                OutcomeBody::Failed { code: refusal.code, text: Cow::Borrowed(&refusal.text) }
            }
        }
    }
}

/// An error, or the reason of a goodbye.
#[derive(Debug, Deserialize, Serialize)]
pub struct RefusalBody<'a> {
    /// The name of the error.
    pub code: ErrorCode,
    /// One sentence.
    #[serde(borrow)]
    pub text: Cow<'a, str>,
}

/// A delivery.
#[derive(Debug, Deserialize, Serialize)]
pub struct DeliveredBody {
    /// The recipient.
    pub to: Name,
    /// Who vouches for it.
    pub by: Witness,
}
