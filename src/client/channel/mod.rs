//! The way from one client to another, for the threads of transfers: straight over UDP where that
//! can be, else sealed through the server.
//!
//! ```text
//!   mover ──Say──▶ thread ──▶ direct channel ──▶ the other client
//!         ◀─Work──        └─▶ sealed, News::Said ──▶ loop ──▶ server ──▶ the other client
//! ```
//!
//! One thread serves all transfers of a client: it owns the UDP sockets ([`crate::direct`]). What
//! goes through is a [`stream`](crate::stream) that goes on where it stood when the path changes.

mod passage;
mod thread;

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Arc, mpsc},
};

use bytes::Bytes;
use mio::Waker;

use super::{blocks::Chunk, mover::Work, post::Post};
use crate::{
    direct::driver::random_bytes,
    transfer::Fault,
    wire::{Contact, Introduction, Tag},
};

/// How two clients meet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Meeting {
    /// Of the other one.
    pub introduction: Introduction,
    /// It has UDP sockets: without, a direct path is not tried.
    pub is_direct: bool,
    /// We reach the server by loopback.
    pub same_host: bool,
}

/// Which way bytes go between two users.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// Straight to the other client, which is there.
    Direct(SocketAddr),
    /// Through the server, which cannot read them.
    Sealed,
    /// Through the server, as they are.
    Relayed,
}

impl Way {
    /// One word.
    pub fn word(self) -> &'static str {
        match self {
            Way::Direct(_) => "direct",
            Way::Sealed | Way::Relayed => "relayed",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Direct(place) => write!(formatter, "direct {place}"),
            Way::Sealed => formatter.write_str("relayed by the server, which cannot read it"),
            Way::Relayed => formatter.write_str("relayed by the server"),
        }
    }
}

/// What the thread is told.
#[derive(Debug)]
enum Command {
    /// A transfer begins; what comes goes to this thread.
    Open(Tag, Meeting, mpsc::Sender<Work>),
    /// Its thread says this.
    Say(Tag, Bytes),
    /// Its thread has taken so many bytes.
    Consumed(Tag, usize),
    /// Its thread is done.
    Over(Tag, Result<(), Fault>),
    /// Bytes of the pipe have come.
    Piped(Tag, Chunk),
    /// The connection has taken so many bytes for the pipe.
    PipeTaken(Tag, usize),
    /// The other end says no more in the pipe: it has ended the stream.
    PeerEnded(Tag),
    /// The server has ended the operation.
    ServerEnded(Tag),
    /// It is not wanted any more.
    Drop(Tag),
}

/// The near end of the thread; cheap to clone. It ends when the last one is dropped.
#[derive(Clone)]
pub struct Channels {
    sender: mpsc::Sender<Command>,
    waker: Arc<Waker>,
}

/// A thread that has begun.
pub struct Started {
    /// To it.
    pub channels: Channels,
    /// What others are to be told of this client.
    pub contact: Contact,
    /// Sentences for the user.
    pub notes: Vec<String>,
}

/// Begins, and gives random bytes to make tokens of. `udp_port`: 0 is any; without one all goes
/// through the server.
///
/// # Errors
/// The system has no random numbers, or no poll.
pub fn open(udp_port: Option<u16>, post: &Post) -> io::Result<(Started, [u8; 32])> {
    let random = random_bytes()?;
    Ok((thread::start(udp_port, post.clone())?, random))
}

impl Channels {
    fn send(&self, command: Command) -> bool {
        // A waker fails only without its poll, and then nobody is left to be woken.
        self.sender.send(command).is_ok() && self.waker.wake().is_ok()
    }

    /// Begins a transfer, the thread of which is at the other end of `mover`.
    pub fn open(&self, tag: Tag, meeting: Meeting, mover: mpsc::Sender<Work>) -> Ticket {
        self.send(Command::Open(tag, meeting, mover));
        Ticket { channels: self.clone(), tag }
    }

    /// The transfer says this; false where nobody listens any more.
    pub fn say(&self, tag: Tag, bytes: Vec<u8>) -> bool {
        self.send(Command::Say(tag, bytes.into()))
    }

    /// It has taken so many bytes of what it was given.
    pub fn consumed(&self, tag: Tag, bytes: usize) {
        self.send(Command::Consumed(tag, bytes));
    }

    /// It is done, one way or another.
    pub fn over(&self, tag: Tag, outcome: Result<(), Fault>) {
        self.send(Command::Over(tag, outcome));
    }
}

/// A transfer under way, as the loop has it. Dropped, it is given up.
pub struct Ticket {
    channels: Channels,
    tag: Tag,
}

impl Ticket {
    /// Bytes of the pipe have come.
    pub fn chunk(&self, chunk: Chunk) {
        self.channels.send(Command::Piped(self.tag, chunk));
    }

    /// The connection has taken so many bytes.
    pub fn taken(&self, bytes: usize) {
        self.channels.send(Command::PipeTaken(self.tag, bytes));
    }

    /// The other end says no more in the pipe.
    pub fn peer_ended(&self) {
        self.channels.send(Command::PeerEnded(self.tag));
    }

    /// The server has ended the operation.
    pub fn end(&self) {
        self.channels.send(Command::ServerEnded(self.tag));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.channels.send(Command::Drop(self.tag));
    }
}
