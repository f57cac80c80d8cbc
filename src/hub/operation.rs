//! Operations: transfers and commands, one shape and one rule of back-pressure.
//!
//! The hub never sees a file or a process. It lets the shell start something, says when there is
//! room for a piece of its output, and is told how it ended.

use super::{OperationId, SessionId, Time, pipe::End, rights::Right};
use crate::wire::{
    EdgeCall, Name, Refusal, SharePath, Tag,
    event::Ended,
    host::{Interpreter, PingHost, Question},
};

/// Something that takes time, on behalf of one session.
///
/// ```text
///   Running{blocked: false} --no room--> Running{blocked: true} --room: Pull--> ...
///      |
///      end --> Ending --last piece of its file is sent--> gone (Release)
///   any state: session gone --> gone (Stop)
/// ```
#[derive(Debug)]
pub struct Operation {
    pub(super) id: OperationId,
    pub(super) owner: SessionId,
    /// The client's number for it.
    pub(super) tag: Tag,
    pub(super) state: State,
    /// Bytes of output that the client has room for.
    pub(super) window_bytes: u64,
    /// Pieces of its file in the outbox: while there are any, the file must stay open.
    pub(super) file_pieces: usize,
    /// Whether the file was announced with its size, so that its bytes are owed.
    pub(super) announced: bool,
    /// Whether it had a turn since it was last woken.
    pub(super) has_spoken: bool,
    /// Standard input on its way, where the command takes any.
    pub(super) input: Option<Box<Input>>,
    /// Why the server has ended it before its time.
    pub(super) because: Option<Ended>,
    /// The right by which it runs, where it takes one.
    pub(super) right: Option<Right>,
    /// Its end, where the hub has ended it for a reason that the shell does not know.
    pub(super) verdict: Option<Box<Refusal>>,
    /// What it has to do with another user's operation. The shell knows nothing of those that
    /// have this.
    pub(super) end: Option<Box<End>>,
}

/// Where an operation stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// It may speak; `blocked` where it wanted to and there was no room.
    Running {
        /// Whether a [`Pull`](super::Effect::Pull) is owed once there is room.
        blocked: bool,
    },
    /// All is said, and pieces of its file still wait.
    Ending,
}

/// Standard input on its way to a command.
#[derive(Debug, Default)]
pub struct Input {
    pub(super) bytes: Vec<u8>,
    /// Bytes that the shell has taken and not dealt with.
    pub(super) taken: usize,
    /// Bytes that may wait.
    pub(super) window: usize,
    /// Whether it is bytes for a disk, which somebody is expected to send.
    pub(super) is_upload: bool,
    /// When some of it came last.
    pub(super) moved: Time,
    /// The client has said that no more comes.
    pub(super) ended: bool,
    /// The command has closed its end: what comes is dropped.
    pub(super) closed: bool,
}

/// What the shell is to start.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Work {
    /// Send a file.
    Download {
        /// Below the root.
        path: SharePath,
        /// Whether the outcome is to carry the file's hash: lines have no place for it.
        verified: bool,
    },
    /// Send files by the conversation of transfers.
    Fetch {
        /// Below the root; the names in them may be patterns.
        paths: Vec<SharePath>,
    },
    /// Receive files by the conversation of transfers.
    Store {
        /// The folder, `None` being the root.
        into: Option<SharePath>,
    },
    /// Receive one file, whose bytes come as input. All of them are to be taken, whatever
    /// happens: the session cannot go on before.
    Upload {
        /// Where it goes, or why that is no place.
        path: Result<SharePath, Refusal>,
        /// Bytes that come.
        size: u64,
    },
    /// Run a command under `/bin/sh -c`, in the folder of the session.
    Run {
        /// As the shell gets it.
        command: String,
        /// Whether standard input may follow; else it is empty from the start.
        stdin: bool,
    },
    /// List a folder, `None` being the root.
    List {
        /// Below the root.
        path: Option<SharePath>,
    },
    /// Do what a device has asked for.
    Edge {
        /// Who asks; a listing needs no name.
        device: Option<Name>,
        /// What for. Its input follows as that of a command does.
        call: EdgeCall,
        /// Whether a person reads the answer: then it is sentences, else an object.
        plain: bool,
    },
    /// Answer a question about the host.
    Ask(Question),
    /// Run a program of the host without a shell, in the folder of the session.
    Program {
        /// Which.
        program: Program,
        /// Whether standard input may follow; else it is empty from the start.
        stdin: bool,
    },
}

/// A program of the host, by what it is for: where it is, the shell finds out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Program {
    /// What pings this host a few times, and ends by itself.
    Ping(PingHost),
    /// What tells the version of Python.
    PythonVersion,
    /// An interpreter with a command for it.
    Script {
        /// Which.
        interpreter: Interpreter,
        /// As it gets it.
        command: String,
    },
}

impl Operation {
    /// Whether it offers something that nobody has answered.
    pub(super) fn is_offer(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.joint().is_none())
    }

    /// Whose it is.
    pub fn owner(&self) -> SessionId {
        self.owner
    }

    /// Bytes of input that may come; `None` where it takes none any more.
    pub(super) fn input_room(&self, window_bytes: u32) -> Option<usize> {
        if let Some(end) = &self.end {
            return Some(end.room(window_bytes));
        }
        let input = self.input.as_ref().filter(|input| !input.closed)?;
        Some(input.window.saturating_sub(input.bytes.len() + input.taken))
    }

    /// Since when an upload waits for its owner, if it does.
    pub(super) fn waits_since(&self) -> Option<Time> {
        let input = self.input.as_ref()?;
        let is_fed = !input.bytes.is_empty() || input.taken > 0;
        (input.is_upload && !input.ended && !is_fed).then_some(input.moved)
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }
}
