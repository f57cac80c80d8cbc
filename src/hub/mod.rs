//! The server's brain: sessions, the name index, routing and operations, without any I/O.
//!
//! No socket, no open file, no process, no clock and no randomness come in here: only bytes,
//! numbers, and what the shell says has happened. So a whole server runs in a simulation.

pub mod admission;
mod closing;
mod debts;
mod faults;
mod held;
mod host;
mod ids;
mod inbound;
mod inputs;
mod invariants;
mod lockout;
mod logins;
mod messages;
mod names;
mod offers;
mod operation;
mod operations;
mod outbox;
mod pipe;
mod pipes;
mod record;
mod replies;
mod requests;
pub mod rights;
mod session;
mod shares;
mod strangers;
mod time;
mod timers;
mod watching;

use std::collections::VecDeque;

use admission::{Mode, Origin, Policy};
pub use closing::CloseReason;
use held::Held;
pub use ids::{OperationId, SessionId};
use lockout::Lockout;
use logins::Logins;
pub use logins::Verdict;
use names::{Keyed, Names};
pub use operation::{Operation, Program, State as OperationState, Work};
use outbox::Pool;
pub use outbox::{FilePiece, Outbox, Piece};
pub use record::Closes;
use replies::{Asked, Replies};
use rights::Rights;
use session::Column;
pub use session::{Phase, Session};
pub use shares::HubSource;
use shares::Unfinished;
use slab::Slab;
pub use strangers::SourceNet;
use strangers::Strangers;
pub use time::Time;
use timers::{Alarm, Timers};

use crate::{
    limits::{LINE_FIRST_MAX_BYTES, LOGIN_ATTEMPTS_DEFAULT, Limits},
    wire::{
        Dialect, Name, Outcome, Secret, Stream,
        event::{Entry, Event, Object},
        json::Reply,
    },
};

/// The server without its sockets.
///
/// Contract: after every call of [`Hub::open`] and [`Hub::handle`], drain [`Hub::poll_effect`]
/// until it returns `None`, then wait no longer than until [`Hub::poll_timeout`]. `Hub` asserts
/// it. Every [`Hub::open`] that succeeds is answered by exactly one [`Effect::Close`]; the shell
/// drops a socket there and nowhere else. Every [`Effect::Start`] is followed by exactly one
/// [`Effect::Stop`] or [`Effect::Release`].
pub struct Hub {
    limits: Limits,
    policy: Policy,
    now: Time,
    sessions: Slab<Session>,
    names: Names,
    logins: Logins,
    strangers: Strangers,
    /// Those with a name that anybody could have taken.
    unproven: Strangers,
    closes: Closes,
    operations: Slab<Operation>,
    effects: VecDeque<Effect>,
    timers: Timers,
    pool: Pool,
    /// Where the rest and the news of one session are joined, so that they can be read as one.
    joined: Vec<u8>,
    /// Where codecs put together what does not lie in one piece.
    scratch: Vec<u8>,
    /// The request of a JSON session that is being executed, and the reply to it.
    asked: Option<Asked>,
    reply: Reply,
    /// Bytes that all replies hold which are not written yet.
    replies_bytes: usize,
    /// Whether a password was among the bytes of the last input.
    heard_secret: bool,
    serial: u64,
    /// Messages that were handed to somebody.
    messages: u64,
    /// When the time is over that a stopping server gives its operations.
    stopping: Option<Time>,
    /// Sessions that must go once the input at hand is dealt with.
    doomed: Vec<(SessionId, CloseReason)>,
    /// Sessions that may be able to go on then: what others did has made room for them.
    freed: Vec<SessionId>,
    /// Offers that nobody has answered.
    offers_count: usize,
    /// Large requests that have begun and not ended.
    unfinished: Unfinished,
    /// When to look again who may go where perhaps too much waits for one source; and where too
    /// much waits for all.
    shed_from: [Time; 2],
    /// Whether tests may provoke faults.
    #[cfg(debug_assertions)]
    is_provoked: bool,
}

/// What has happened. One closed enum, one `match`.
#[derive(Debug)]
pub enum Input<'a> {
    /// The peer's bytes, in any portions.
    Bytes {
        /// From whom.
        session: SessionId,
        /// Not kept longer than this call but for an incomplete rest.
        bytes: &'a [u8],
    },
    /// Its bytes are protected by TLS from now on. Nothing was read of it before that but TLS.
    Secured {
        /// Whose.
        session: SessionId,
    },
    /// The peer will say no more, and may still listen.
    EndOfInput {
        /// Who.
        session: SessionId,
    },
    /// The peer's bytes have ended, and with TLS that was not said as it should be: perhaps it was
    /// somebody on the way who cut them off. What is not complete is not done.
    CutOff {
        /// Whose.
        session: SessionId,
    },
    /// The socket failed.
    Gone {
        /// Whose.
        session: SessionId,
    },
    /// The socket was offered [`Hub::piece`] and took so many bytes, perhaps 0.
    Sent {
        /// Whose socket.
        session: SessionId,
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
    /// A piece of output, no larger than [`Hub::room`] allowed.
    Chunk {
        /// Whose.
        operation: OperationId,
        /// What.
        chunk: Chunk<'a>,
    },
    /// The command took so many bytes of [`Hub::standard_input`].
    InputTaken {
        /// Which command.
        operation: OperationId,
        /// Bytes.
        count: usize,
    },
    /// So many bytes of what [`Hub::take_input`] gave are dealt with.
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
    /// Bytes of a command, or of a file where [`Hub::wants_content`] says so.
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
    /// [`Hub::piece`] has become something: write until it is `None`.
    Flush {
        /// Whose.
        session: SessionId,
    },
    /// Reading goes on where [`Hub::wants_input`] had said no.
    Resume {
        /// Whose.
        session: SessionId,
    },
    /// The session is over. What was to be said is sent, or nobody is there to hear it.
    Close {
        /// Which.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
    /// Check this password, and report [`Input::Verified`]. At most so many are asked for at once
    /// as [`Limits::verifications_max`] says.
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
    /// There is room again for the operation's output: see [`Hub::room`].
    Pull {
        /// Whose.
        operation: OperationId,
    },
    /// [`Hub::standard_input`] has changed.
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
        session: SessionId,
        /// Whether something is held yet; where not, nobody looks any more.
        holds: bool,
    },
    /// Listen on, and open again what has failed.
    ListenAgain,
    /// Listen no more, and leave as soon as [`Hub::is_finished`].
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

impl Hub {
    /// A hub without sessions. `name_key` must be random and secret in earnest: see [`Names`].
    pub fn new(limits: Limits, name_key: [u64; 2], policy: Policy) -> Hub {
        assert_eq!(limits.check(), Ok(()), "whoever chooses limits has checked them");
        let attempts = match policy.mode {
            Mode::Credentials { attempts, .. } => attempts,
            Mode::Protected | Mode::Open { .. } => LOGIN_ATTEMPTS_DEFAULT,
        };
        let key = Keyed(name_key);
        let lockout = Lockout::new(attempts, limits.lockout_time, limits.unknown_names_max, key);
        Hub {
            limits,
            policy,
            now: Time(0),
            sessions: Slab::new(),
            names: Names::new(key),
            logins: Logins::new(lockout, key),
            strangers: Strangers::new(key),
            unproven: Strangers::new(key),
            closes: Closes::default(),
            operations: Slab::new(),
            effects: VecDeque::new(),
            timers: Timers::default(),
            pool: Pool::default(),
            joined: Vec::new(),
            scratch: Vec::new(),
            asked: None,
            reply: Reply::default(),
            replies_bytes: 0,
            heard_secret: false,
            serial: 0,
            messages: 0,
            stopping: None,
            doomed: Vec::new(),
            freed: Vec::new(),
            offers_count: 0,
            unfinished: Unfinished::default(),
            shed_from: [Time(0); 2],
            #[cfg(debug_assertions)]
            is_provoked: false,
        }
    }

    /// Takes in a connection, in whose favour one may have to go that has no name.
    pub fn open(&mut self, now: Time, origin: Origin) -> Result<SessionId, Full> {
        self.begin(now);
        let source = origin.source();
        if self.stopping.is_some() || !self.admits(source) {
            return Err(Full);
        }
        let serial = self.next_serial();
        let entry = self.sessions.vacant_entry();
        let id = SessionId::new(entry.key(), serial);
        entry.insert(Session::new(id, now, origin, &self.policy, &self.limits));
        self.strangers.insert(id, source);
        record::begun(id, origin.peer());
        self.arm(id);
        Ok(id)
    }

    /// Takes in what has happened.
    pub fn handle(&mut self, now: Time, input: Input<'_>) {
        self.begin(now);
        match input {
            Input::Bytes { session, bytes } => self.on_bytes(session, bytes),
            Input::Secured { session } => self.on_secured(session),
            Input::EndOfInput { session } => self.on_end_of_input(session),
            Input::CutOff { session } => self.on_cut_off(session),
            Input::Gone { session } => self.remove(session, CloseReason::PeerGone),
            Input::Sent { session, count } => self.on_sent(session, count),
            Input::Verified { session, verdict } => self.on_verified(session, verdict),
            Input::Accounts { accounts, changed } => self.on_accounts(accounts, changed),
            Input::Opened { operation, name, size, modified } => {
                self.on_opened(operation, name, size, modified);
            }
            Input::Chunk { operation, chunk } => self.on_chunk(operation, chunk),
            Input::InputTaken { operation, count } => self.on_input_taken(operation, count),
            Input::InputDone { operation, count } => self.on_input_done(operation, count),
            Input::InputClosed { operation } => self.on_input_closed(operation),
            Input::Ended { operation, outcome } => self.on_ended(operation, outcome),
            Input::Tick => self.on_tick(),
            Input::Stop => self.on_stop(),
        }
        self.settle();
    }

    /// Does what an input has made due for others. One at a time and not from within each other:
    /// each may tell others, who may be full too.
    fn settle(&mut self) {
        self.shed();
        loop {
            if let Some((session, reason)) = self.doomed.pop() {
                match reason {
                    // What was said before its bytes may still be heard.
                    CloseReason::BrokenFile => self.close(session, reason, None),
                    _ => self.remove(session, reason),
                }
            } else if let Some(session) = self.freed.pop() {
                self.close_if_stopping(session);
                self.resume(session);
            } else {
                break;
            }
        }
    }

    /// The next thing to be done.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Input::Tick`] is due if nothing else happens.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    /// What the socket of the session is to send next.
    pub fn piece(&self, session: SessionId) -> Option<Piece<'_>> {
        self.session(session)?.outbox.piece()
    }

    /// Bytes that wait for the socket of the session.
    pub fn unsent_bytes(&self, session: SessionId) -> usize {
        self.session(session).map_or(0, |session| session.outbox.unsent_bytes())
    }

    /// Whether there was a password among the bytes handed in since it was last asked: then
    /// whoever has them overwrites them.
    pub fn take_heard_secret(&mut self) -> bool {
        std::mem::take(&mut self.heard_secret)
    }

    /// Bytes of the session that may be read at once: few while it is a nobody's, so that the
    /// rest of them, which is kept, is small.
    pub fn input_max_bytes(&self, session: SessionId) -> usize {
        match self.session(session) {
            Some(session) if session.is_nobody() => LINE_FIRST_MAX_BYTES,
            _ => usize::MAX,
        }
    }

    /// Whether bytes of the session may be read now. Where not, [`Effect::Resume`] follows.
    pub fn wants_input(&mut self, id: SessionId) -> bool {
        let limits = self.limits;
        let Some(session) = self.session_mut(id) else { return false };
        if session.is_closing() {
            return false;
        }
        session.input.paused = session.input.paused || session.must_pause(&limits);
        !session.input.paused
    }

    /// All sessions.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.iter().map(|(_, session)| session)
    }

    /// How many operations of the shell are under way: those that had their [`Effect::Start`].
    pub fn operations_count(&self) -> usize {
        self.operations.iter().filter(|(_, operation)| operation.end.is_none()).count()
    }

    /// How many operations are ends of something between two users.
    pub fn ends_count(&self) -> usize {
        self.operations.len() - self.operations_count()
    }

    /// How much there is of everything.
    pub fn counts(&self) -> Counts {
        Counts {
            sessions: self.sessions.len(),
            users: self.names.len(),
            operations: self.operations.len(),
            messages: self.messages,
        }
    }

    /// How many sessions have ended, by the reason.
    pub fn closes(&self) -> &Closes {
        &self.closes
    }

    /// True once the server was told to stop and everybody has gone.
    pub fn is_finished(&self) -> bool {
        self.stopping.is_some() && self.sessions.is_empty()
    }

    fn begin(&mut self, now: Time) {
        assert!(self.effects.is_empty(), "effects of the input before are not drained");
        // A clock may be set back, be it by a machine that was suspended: then time stands still.
        self.now = self.now.max(now);
    }

    fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(id.slot()).filter(|session| session.id == id)
    }

    fn session_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(id.slot()).filter(|session| session.id == id)
    }

    fn operation_mut(&mut self, id: OperationId) -> Option<&mut Operation> {
        self.operations.get_mut(id.slot()).filter(|operation| operation.id == id)
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Sees to it that the session is looked at when it is due.
    fn arm(&mut self, id: SessionId) {
        let limits = self.limits;
        let Some(session) = self.session_mut(id) else { return };
        let due = session.due(&limits);
        if due < session.armed {
            session.armed = due;
            self.set_alarm(due, Alarm::Session(id));
        }
    }

    /// Sets an alarm, and sorts out those of the dead before they outnumber the living.
    fn set_alarm(&mut self, due: Time, alarm: Alarm) {
        if self.timers.len() >= self.stale_alarms_max() {
            let (sessions, operations) = (&self.sessions, &self.operations);
            self.timers.retain(|due, alarm| match alarm {
                Alarm::Session(id) => {
                    sessions.get(id.slot()).is_some_and(|it| it.id == id && it.armed == due)
                }
                Alarm::Operation(id) => operations.get(id.slot()).is_some_and(|it| it.id == id),
                Alarm::Logins | Alarm::Shutdown => true,
            });
        }
        self.timers.set(due, alarm);
    }

    /// Alarms beyond which the dead among them are looked for: well above what all that is or
    /// may be at once can need, so that sorting out is rare.
    fn stale_alarms_max(&self) -> usize {
        64 + 2 * (self.sessions.capacity() + self.operations.capacity())
    }

    /// Says something to a session. While the session is in the midst of something, what is said
    /// waits for the next start of a line or of an object.
    fn say(&mut self, id: SessionId, event: &Event<'_>) {
        let Some(session) = self.session(id) else { return };
        let Some(dialect) = session.dialect() else { return };
        if dialect == Dialect::Json && self.answer(id, event) {
            return;
        }
        self.put_words(id, |out| dialect.encode(event, out));
    }

    /// Appends words that must not come within others, such as the bytes of a file.
    fn put_words(&mut self, id: SessionId, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(session) = self.sessions.get_mut(id.slot()).filter(|it| it.id == id) else {
            return;
        };
        if session.column != Column::LineStart {
            write(&mut session.held.get_or_insert_default().bytes);
            // Lines have no word for some events.
            session.held.take_if(|held| held.bytes.is_empty());
        } else {
            let was_empty = session.outbox.is_empty();
            session.outbox.write(&mut self.pool, write);
            if was_empty && !session.outbox.is_empty() {
                self.effects.push_back(Effect::Flush { session: id });
            }
        }
        // Requests wait for room; only news that nobody asked for can come this far.
        if session.waiting_bytes() > 2 * self.limits.outbox_max_bytes {
            self.doomed.push((id, CloseReason::SlowConsumer));
        }
    }
}
