//! Operations: transfers, commands and files between users, one shape and one rule of
//! back-pressure.
//!
//! The hub never sees a file or a process. It lets the shell start something, says when there is
//! room for a piece of its output, and is told how it ended. What goes from user to user is an
//! operation too, of which the shell knows nothing.

mod intake;
mod shell;

pub(super) use self::{
    intake::{Intake, Taken},
    shell::ShellOperation,
};
use super::{
    OperationId, SessionId, Time,
    pipe::{Flow, Offer, PipeEnd, Role},
    rights::Right,
};
use crate::wire::{
    EdgeCall, Name, Parcel, Refusal, SharePath, Tag,
    host::{Interpreter, PingHost, Question},
};

/// Something that takes time, on behalf of its owner.
#[derive(Debug)]
pub(super) struct Operation {
    id: OperationId,
    owner: OperationOwner,
    /// The client's number for it.
    tag: Tag,
    /// The right by which it runs, where it takes one.
    right: Option<Right>,
    /// Bytes of output that the client has room for.
    window_bytes: u64,
    /// It wanted to speak and there was no room; it stands in the list of its session exactly
    /// while this holds.
    is_blocked: bool,
    /// It had a turn since it was last woken.
    has_spoken: bool,
    pub(super) kind: OperationKind,
}

/// On whose behalf an operation runs. Who hears of it follows from that: see
/// [`Hub::session_of`](super::Hub::session_of).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum OperationOwner {
    /// A session, with which it ends.
    Session(SessionId),
}

/// What an operation is, with all that only such a one has.
#[derive(Debug)]
pub(super) enum OperationKind {
    /// The shell does it: it had its [`Effect::Start`](super::Effect::Start).
    Shell(ShellOperation),
    /// Something is offered to another user, who has not answered.
    Offer(Box<Offer>),
    /// It is joined with the operation of another user.
    Pipe(Box<PipeEnd>),
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
    /// An operation that may speak, with room for so many bytes of output at the client.
    pub(super) fn new(
        id: OperationId,
        owner: OperationOwner,
        tag: Tag,
        right: Option<Right>,
        window_bytes: u64,
        kind: OperationKind,
    ) -> Operation {
        let (is_blocked, has_spoken) = (false, false);
        Operation { id, owner, tag, right, window_bytes, is_blocked, has_spoken, kind }
    }

    pub(super) fn id(&self) -> OperationId {
        self.id
    }

    pub(super) fn owner(&self) -> OperationOwner {
        self.owner
    }

    pub(super) fn tag(&self) -> Tag {
        self.tag
    }

    pub(super) fn right(&self) -> Option<Right> {
        self.right
    }

    pub(super) fn window_bytes(&self) -> u64 {
        self.window_bytes
    }

    /// The client has room for so many more bytes.
    pub(super) fn add_credit(&mut self, bytes: u32) {
        self.window_bytes = self.window_bytes.saturating_add(u64::from(bytes));
    }

    /// So many bytes of its output go to the client.
    pub(super) fn spend(&mut self, bytes: usize) {
        assert!(bytes as u64 <= self.window_bytes, "more than there was room for");
        self.window_bytes -= bytes as u64;
    }

    /// Whether it waits for room.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    pub(super) fn has_spoken(&self) -> bool {
        self.has_spoken
    }

    pub(super) fn note_spoken(&mut self) {
        self.has_spoken = true;
    }

    pub(super) fn block(&mut self) {
        self.is_blocked = true;
    }

    /// It waits no longer: nothing is left that it could wait with.
    pub(super) fn unblock(&mut self) {
        self.is_blocked = false;
    }

    /// It waits no longer: its turn has come.
    pub(super) fn wake(&mut self) {
        (self.is_blocked, self.has_spoken) = (false, false);
    }

    /// Whether all is said, and what is queued of its files still waits for the socket.
    pub(super) fn is_draining(&self) -> bool {
        match &self.kind {
            OperationKind::Shell(shell) => shell.is_draining(),
            OperationKind::Offer(_) => false,
            OperationKind::Pipe(end) => end.is_passing(),
        }
    }

    /// Pieces of its files in the outbox, and marks behind them.
    pub(super) fn file_pieces(&self) -> usize {
        match &self.kind {
            OperationKind::Shell(shell) => shell.file_pieces(),
            OperationKind::Offer(_) => 0,
            OperationKind::Pipe(end) => end.marks(),
        }
    }

    /// Its session goes in order: whether it stays until what is queued of its files is sent.
    pub(super) fn drain(&mut self) -> bool {
        let stays = match &mut self.kind {
            OperationKind::Shell(shell) => shell.drain(),
            OperationKind::Offer(_) => false,
            OperationKind::Pipe(end) => end.is_passing(),
        };
        if stays {
            self.unblock();
        }
        stays
    }

    pub(super) fn shell(&self) -> Option<&ShellOperation> {
        match &self.kind {
            OperationKind::Shell(shell) => Some(shell),
            OperationKind::Offer(_) | OperationKind::Pipe(_) => None,
        }
    }

    pub(super) fn shell_mut(&mut self) -> Option<&mut ShellOperation> {
        match &mut self.kind {
            OperationKind::Shell(shell) => Some(shell),
            OperationKind::Offer(_) | OperationKind::Pipe(_) => None,
        }
    }

    /// Standard input on its way, where it takes any.
    pub(super) fn intake(&self) -> Option<&Intake> {
        self.shell()?.intake()
    }

    pub(super) fn intake_mut(&mut self) -> Option<&mut Intake> {
        self.shell_mut()?.intake_mut()
    }

    pub(super) fn offer(&self) -> Option<&Offer> {
        match &self.kind {
            OperationKind::Offer(offer) => Some(offer),
            OperationKind::Shell(_) | OperationKind::Pipe(_) => None,
        }
    }

    pub(super) fn pipe(&self) -> Option<&PipeEnd> {
        match &self.kind {
            OperationKind::Pipe(end) => Some(end),
            OperationKind::Shell(_) | OperationKind::Offer(_) => None,
        }
    }

    pub(super) fn pipe_mut(&mut self) -> Option<&mut PipeEnd> {
        match &mut self.kind {
            OperationKind::Pipe(end) => Some(end),
            OperationKind::Shell(_) | OperationKind::Offer(_) => None,
        }
    }

    /// What its owner says to another user, before and after that one has accepted.
    pub(super) fn flow(&self) -> Option<&Flow> {
        match &self.kind {
            OperationKind::Shell(_) => None,
            OperationKind::Offer(offer) => Some(offer.flow()),
            OperationKind::Pipe(end) => end.flow(),
        }
    }

    /// An offer that is accepted is the sender's end of a pipe from now on; what was offered.
    pub(super) fn join(&mut self, other: OperationId, role: Role, now: Time) -> Option<Parcel> {
        self.offer()?;
        let end = OperationKind::Pipe(Box::new(PipeEnd::of_sender(other, role, now)));
        let before = std::mem::replace(&mut self.kind, end);
        match (before, self.pipe_mut()) {
            (OperationKind::Offer(offer), Some(end)) => Some(end.take_over(*offer)),
            _ => None,
        }
    }

    /// Since when an upload waits for its owner, if it does.
    pub(super) fn waits_since(&self) -> Option<Time> {
        self.intake()?.waits_since()
    }

    /// Bytes of input that may come; `None` where it takes none any more.
    pub(super) fn input_room(&self, window_bytes: u32) -> Option<usize> {
        match &self.kind {
            OperationKind::Shell(shell) => shell.intake()?.room(),
            OperationKind::Offer(_) => Some(0),
            OperationKind::Pipe(end) => Some(end.room(window_bytes)),
        }
    }
}
