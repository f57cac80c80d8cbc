//! The direct path between two clients: QUIC (RFC 9000) over UDP, without I/O and without a clock.
//!
//! The server introduces two clients to each other ([`crate::wire::introduction`]). From then on
//! each end dials the candidates of the other, and answers the dials of the other. Both show the
//! key that was introduced, the dialling end says the one-time token of the introduction, and of
//! the connections that come about the end with the lower fingerprint chooses the one that lives:
//!
//! ```text
//!          open                    chosen, and confirmed                both finished,
//!  (none) ─────▶ racing ───────────────────────────────▶ open ─────────────────────────▶ (closed)
//!                  │ 3 s without a path: NoPath            │ silence, an error, a close
//!                  └──────────────▶ (closed) ◀─────────────┘
//! ```
//!
//! A channel is one stream of bytes each way. [`Endpoint`] is a function of datagrams, times and a
//! seed; [`driver`] joins it with sockets. [`sealed`] protects a channel through the server with
//! the same keys, where there is no direct path.

mod blocks;
mod channel;
mod congestion;
mod connection;
pub mod driver;
mod endpoint;
mod key;
mod race;
mod random;
pub mod sealed;
mod transport;
mod unanswered;
mod visitor;

use std::{fmt, net::SocketAddr};

pub use endpoint::Endpoint;
pub use key::SessionKey;
pub use quinn_proto::{EcnCodepoint, Transmit};

/// What both ends name as the protocol inside (ALPN, RFC 7301).
pub const PROTOCOL: &[u8] = b"sixfour-direct/1";

/// A channel of this endpoint. Numbers are not used again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ChannelId(pub u64);

/// What has become of a channel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// There is a path; bytes may be read and written.
    Opened {
        /// Which channel.
        channel: ChannelId,
        /// Where the other end is.
        remote: SocketAddr,
    },
    /// There may be something to read. It comes again only after a read that would block.
    Readable(ChannelId),
    /// There is room again. It comes only after a write that would block.
    Writable(ChannelId),
    /// It is over, and the last that is said of this channel.
    Closed(ChannelId, Ended),
}

/// Why a channel is over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ended {
    /// Both ends have finished, and each has read all that the other had to say.
    Done,
    /// No direct path was found in time.
    NoPath,
    /// Nothing was heard of the other end for 30 s.
    Silent,
    /// The other end gave it up.
    Cancelled,
    /// Something else; what, in words.
    Broken(String),
}

impl fmt::Display for Ended {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Ended::Done => "all is said",
            Ended::NoPath => "there is no direct path",
            Ended::Silent => "the other end has fallen silent",
            Ended::Cancelled => "the other end gave it up",
            Ended::Broken(why) => why,
        })
    }
}

/// Why a channel could not be begun.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OpenError {
    /// There are as many as may be; later there may be room.
    TooMany,
    /// The introduction is to ourselves.
    Oneself,
}

impl fmt::Display for OpenError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            OpenError::TooMany => "too many direct transfers at once; try again later",
            OpenError::Oneself => "this is the same client; nothing has to be sent",
        })
    }
}

impl std::error::Error for OpenError {}

/// Codes of the application in CONNECTION_CLOSE frames; PROTOCOL.md lists them.
mod code {
    pub(super) const DONE: u32 = 0;
    pub(super) const NOT_CHOSEN: u32 = 1;
    pub(super) const NO_PATH: u32 = 2;
    pub(super) const CANCELLED: u32 = 3;
    pub(super) const NOT_INTRODUCED: u32 = 4;
    pub(super) const PROTOCOL: u32 = 5;
}
