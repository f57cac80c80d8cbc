//! What goes in and out between the hub and its shell.

use super::{CloseReason, ConnectionId, OperationId, SessionId, Verdict, Work, rights::Rights};
use crate::wire::{
    Name, Outcome, Secret, Stream,
    event::{Entry, Object},
};

/// What has happened. One closed enum, one `match`.
#[derive(Debug)]
pub enum Input<'a> {
    /// The peer's bytes, in any portions.
    Bytes {
        /// From whom.
        connection: ConnectionId,
        /// Not kept longer than this call but for an incomplete rest.
        bytes: &'a [u8],
    },
    /// Its bytes are protected by TLS from now on. Nothing was read of it before that but TLS.
    Secured {
        /// Whose.
        connection: ConnectionId,
    },
    /// The peer will say no more, and may still listen.
    EndOfInput {
        /// Who.
        connection: ConnectionId,
    },
    /// The peer's bytes have ended, and with TLS that was not said as it should be: perhaps it was
    /// somebody on the way who cut them off. What is not complete is not done.
    CutOff {
        /// Whose.
        connection: ConnectionId,
    },
    /// The socket failed.
    Gone {
        /// Whose.
        connection: ConnectionId,
    },
    /// The socket was offered [`Hub::piece`](super::Hub::piece) and took so many bytes, perhaps 0.
    Sent {
        /// Whose socket.
        connection: ConnectionId,
        /// Bytes.
        count: usize,
    },
    /// The answer to [`Effect::Verify`]; exactly one follows each, also where the session has gone.
    Verified {
        /// Whose password it was.
        session: SessionId,
        /// Whether it was right.
        verdict: Verdict,
    },
    /// Who has a password: at the start, and whenever that changes.
    Accounts {
        /// All of them, with what each may do.
        accounts: &'a [(Name, Rights)],
        /// Those who have another password than before.
        changed: &'a [Name],
    },
    /// A file is open and about to be sent.
    Opened {
        /// The download.
        operation: OperationId,
        /// The file's own name, without folders.
        name: &'a [u8],
        /// Bytes.
        size: u64,
        /// Seconds since 1970 of its last change.
        modified: i64,
    },
    /// A piece of output, no larger than [`Hub::room`](super::Hub::room) allowed.
    Chunk {
        /// Whose.
        operation: OperationId,
        /// What.
        chunk: Chunk<'a>,
    },
    /// The command took so many bytes of [`Hub::standard_input`](super::Hub::standard_input).
    InputTaken {
        /// Which command.
        operation: OperationId,
        /// Bytes.
        count: usize,
    },
    /// So many bytes of what [`Hub::take_input`](super::Hub::take_input) gave are dealt with.
    InputDone {
        /// Of which operation.
        operation: OperationId,
        /// Bytes.
        count: usize,
    },
    /// The command has closed its standard input.
    InputClosed {
        /// Which command.
        operation: OperationId,
    },
    /// The operation is over, and all of its output was handed in.
    Ended {
        /// Which.
        operation: OperationId,
        /// How.
        outcome: Outcome,
    },
    /// Nothing but time has passed.
    Tick,
    /// The server is to stop.
    Stop,
}

/// A piece of an operation's output.
#[derive(Debug)]
pub enum Chunk<'a> {
    /// Bytes of a command, or of a file where
    /// [`Hub::wants_content`](super::Hub::wants_content) says so.
    Output {
        /// Which of its outputs.
        stream: Stream,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// A part of an open file.
    File {
        /// Which of the operation's files, as the shell numbers them.
        file: u32,
        /// Where it begins.
        offset: u64,
        /// Bytes, not 0.
        length: usize,
    },
    /// Entries of a folder, at most [`ENTRIES_MAX`].
    Entries(&'a [Entry]),
    /// Lines for people, the last without a line end; at most [`CHUNK_MAX_BYTES`].
    ///
    /// [`CHUNK_MAX_BYTES`]: crate::limits::CHUNK_MAX_BYTES
    Text(&'a str),
    /// Facts; as JSON they have at most [`CHUNK_MAX_BYTES`].
    ///
    /// [`CHUNK_MAX_BYTES`]: crate::limits::CHUNK_MAX_BYTES
    Object(&'a Object),
}

/// Entries of a folder in one chunk: the longest names, all escaped, still fit a frame.
pub const ENTRIES_MAX: usize = 32;

/// What is to be done. One closed enum, one `match`.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// [`Hub::piece`](super::Hub::piece) has become something: write until it is `None`.
    Flush {
        /// Whose.
        connection: ConnectionId,
    },
    /// Reading goes on where [`Hub::wants_input`](super::Hub::wants_input) had said no.
    Resume {
        /// Whose.
        connection: ConnectionId,
    },
    /// The session is over: nothing is kept for it any more. With it goes its connection.
    Forget {
        /// Which.
        session: SessionId,
    },
    /// The connection is over. What was to be said is sent, or nobody is there to hear it.
    Close {
        /// Which.
        connection: ConnectionId,
        /// Why.
        reason: CloseReason,
    },
    /// Check this password, and report [`Input::Verified`]. At most so many are asked for at once
    /// as [`Limits::verifications_max`](crate::limits::Limits::verifications_max) says.
    Verify {
        /// For whom.
        session: SessionId,
        /// Whose password it should be.
        name: Name,
        /// What was given.
        password: Secret<'static>,
    },
    /// Start this.
    Start {
        /// Its id.
        operation: OperationId,
        /// On whose behalf.
        session: SessionId,
        /// What it is.
        work: Work,
    },
    /// There is room again for the operation's output: see [`Hub::room`](super::Hub::room).
    Pull {
        /// Whose.
        operation: OperationId,
    },
    /// [`Hub::standard_input`](super::Hub::standard_input) has changed.
    Feed {
        /// Whose.
        operation: OperationId,
    },
    /// End it, keep its output so far, and report [`Input::Ended`] as usual.
    Terminate {
        /// Which.
        operation: OperationId,
    },
    /// End it at once; nobody listens any more.
    Stop {
        /// Which.
        operation: OperationId,
    },
    /// It has ended, and nothing of it is needed any more.
    Release {
        /// Which.
        operation: OperationId,
    },
    /// Look whether the peer is there, and report [`Input::Gone`] where it is not: something is
    /// held for it, or was until now.
    Watch {
        /// Whose.
        connection: ConnectionId,
        /// Whether something is held yet; where not, nobody looks any more.
        holds: bool,
    },
    /// Close the listeners and open them again, on the same port.
    ListenAgain,
    /// Listen no more, and leave as soon as [`Hub::is_finished`](super::Hub::is_finished).
    Quit,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Counts {
    /// Sessions, named or not.
    pub sessions: usize,
    /// Names that are taken.
    pub users: usize,
    /// Operations under way.
    pub operations: usize,
    /// Messages that were handed to somebody since the start: one to three users counts thrice.
    pub messages: u64,
}

/// No more sessions can be opened.
#[derive(Debug, Eq, PartialEq)]
pub struct Full;
