//! The server's brain: sessions, the name index, routing and operations, without any I/O.
//!
//! No socket, no open file, no process, no clock and no randomness come in here: only bytes,
//! numbers, and what the shell says has happened. So a whole server runs in a simulation.

pub mod admission;
mod closing;
mod connection;
mod contract;
mod debts;
mod directory;
mod faults;
mod host;
mod ids;
mod inbound;
mod inputs;
mod invariants;
mod later;
mod lockout;
mod logins;
mod messages;
mod offers;
mod operation;
mod operations;
mod outbox;
mod pipe;
mod pipes;
mod receipts;
mod record;
mod requests;
pub mod rights;
mod session;
mod shares;
mod strangers;
mod time;
mod timers;
mod voice;
mod watching;

use std::collections::VecDeque;

use admission::{Mode, Origin, Policy};
pub use closing::CloseReason;
pub use connection::{Connection, Phase};
pub use contract::{Chunk, Counts, ENTRIES_MAX, Effect, Full, Input};
use directory::{Directory, Keyed};
pub use ids::{ConnectionId, OperationId, SessionId};
use later::{Due, Later};
use lockout::Lockout;
use logins::Logins;
pub use logins::Verdict;
use operation::{Operation, OperationKind, OperationOwner};
pub use operation::{Program, Work};
use outbox::Pool;
pub use outbox::{FilePiece, Outbox, Piece};
pub use record::Closes;
pub use session::Session;
pub use shares::HubSource;
use shares::Unfinished;
use slab::Slab;
pub use strangers::SourceNet;
use strangers::Strangers;
pub use time::Time;
use timers::{Alarm, Timers};
use voice::replies::Asked;

use crate::{
    limits::{LINE_FIRST_MAX_BYTES, LOGIN_ATTEMPTS_DEFAULT, Limits},
    wire::{Dialect, Event, json::Reply},
};

/// A connection, and the session that is heard and answered through it.
#[derive(Debug)]
struct Attached {
    connection: ConnectionId,
    session: SessionId,
}

/// The server without its sockets.
///
/// Contract: after every call of [`Hub::open`] and [`Hub::handle`], drain [`Hub::poll_effect`]
/// until it returns `None`, then wait no longer than until [`Hub::poll_timeout`]. `Hub` asserts
/// it. Every [`Hub::open`] that succeeds is answered by exactly one [`Effect::Close`]; the shell
/// drops a socket there and nowhere else. Every session ends with one [`Effect::Forget`], behind
/// all of its [`Effect::Stop`]s. Every [`Effect::Start`] is followed by exactly one
/// [`Effect::Stop`] or [`Effect::Release`].
pub struct Hub {
    limits: Limits,
    policy: Policy,
    now: Time,
    /// Which session is heard and answered through each connection.
    attached: Slab<Attached>,
    sessions: Slab<Session>,
    directory: Directory,
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
    /// What is due for others once the input at hand is dealt with.
    later: Later,
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

impl Hub {
    /// A hub without sessions. `name_key` must be random and secret: see [`Directory`].
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
            attached: Slab::new(),
            sessions: Slab::new(),
            directory: Directory::new(key),
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
            later: Later::default(),
            offers_count: 0,
            unfinished: Unfinished::default(),
            shed_from: [Time(0); 2],
            #[cfg(debug_assertions)]
            is_provoked: false,
        }
    }

    /// Takes in a connection, in whose favour one may have to go that has no name.
    pub fn open(&mut self, now: Time, origin: Origin) -> Result<ConnectionId, Full> {
        self.begin(now);
        let source = origin.source();
        if self.stopping.is_some() || !self.admits(source) {
            return Err(Full);
        }
        let serial = self.next_serial();
        let entry = self.sessions.vacant_entry();
        let id = SessionId::new(entry.key(), serial);
        let attached = self.attached.vacant_entry();
        let connection = ConnectionId::new(attached.key(), serial);
        attached.insert(Attached { connection, session: id });
        let connection = Connection::new(connection, now, origin, &self.policy, &self.limits);
        let at = connection.id;
        entry.insert(Session::new(id, connection, self.policy.rights_of_anybody()));
        self.strangers.insert(id, source);
        record::begun(id, origin.peer());
        self.arm(id);
        Ok(at)
    }

    /// Takes in what has happened.
    pub fn handle(&mut self, now: Time, input: Input<'_>) {
        self.begin(now);
        match input {
            Input::Bytes { connection, bytes } => self.on_bytes(self.at(connection), bytes),
            Input::Secured { connection } => self.on_secured(self.at(connection)),
            Input::EndOfInput { connection } => self.on_end_of_input(self.at(connection)),
            Input::CutOff { connection } => self.on_cut_off(self.at(connection)),
            Input::Gone { connection } => self.remove(self.at(connection), CloseReason::PeerGone),
            Input::Sent { connection, count } => self.on_sent(self.at(connection), count),
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

    /// Does what an input has made due for others.
    fn settle(&mut self) {
        self.shed();
        while let Some(due) = self.later.next() {
            match due {
                // What was said before its bytes may still be heard.
                Due::Close(id, reason @ CloseReason::BrokenFile) => self.close(id, reason, None),
                Due::Close(id, reason) => self.remove(id, reason),
                Due::GoOn(id) => {
                    self.close_if_stopping(id);
                    self.resume(id);
                }
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

    /// What the socket of the connection is to send next.
    pub fn piece(&self, connection: ConnectionId) -> Option<Piece<'_>> {
        self.connection(self.at(connection))?.outbox.piece()
    }

    /// Bytes that wait for the socket of the connection.
    pub fn unsent_bytes(&self, connection: ConnectionId) -> usize {
        self.connection(self.at(connection)).map_or(0, |it| it.outbox.unsent_bytes())
    }

    /// Whether there was a password among the bytes handed in since it was last asked: then
    /// whoever has them overwrites them.
    pub fn take_heard_secret(&mut self) -> bool {
        std::mem::take(&mut self.heard_secret)
    }

    /// Bytes of the connection that may be read at once: few while it is a nobody's, so that the
    /// rest of them, which is kept, is small.
    pub fn input_max_bytes(&self, connection: ConnectionId) -> usize {
        match self.connection(self.at(connection)) {
            Some(connection) if connection.is_nobody() => LINE_FIRST_MAX_BYTES,
            _ => usize::MAX,
        }
    }

    /// Whether bytes of the connection may be read now. Where not, [`Effect::Resume`] follows.
    pub fn wants_input(&mut self, connection: ConnectionId) -> bool {
        let limits = self.limits;
        let Some(session) = self.session_mut(self.at(connection)) else { return false };
        if session.connection.is_closing() {
            return false;
        }
        session.connection.input.paused =
            session.connection.input.paused || session.must_pause(&limits);
        !session.connection.input.paused
    }

    /// All sessions.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.iter().map(|(_, session)| session)
    }

    /// How many operations of the shell are under way: those that had their [`Effect::Start`].
    pub fn operations_count(&self) -> usize {
        self.operations.iter().filter(|(_, operation)| operation.shell().is_some()).count()
    }

    /// How many operations are ends of something between two users.
    pub fn ends_count(&self) -> usize {
        self.operations.len() - self.operations_count()
    }

    /// How much there is of everything.
    pub fn counts(&self) -> Counts {
        Counts {
            sessions: self.sessions.len(),
            users: self.directory.users_count(),
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

    #[inline]
    fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(id.slot()).filter(|session| session.id == id)
    }

    #[inline]
    fn session_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(id.slot()).filter(|session| session.id == id)
    }

    /// The session that is heard through a connection; nobody's where that is gone.
    fn at(&self, connection: ConnectionId) -> SessionId {
        self.session_at(connection).unwrap_or(SessionId::NOBODY)
    }

    /// The session that is heard through a connection.
    pub fn session_at(&self, connection: ConnectionId) -> Option<SessionId> {
        let attached = self.attached.get(connection.slot());
        attached.filter(|it| it.connection == connection).map(|it| it.session)
    }

    /// The connection through which a session is heard.
    pub fn connection_of(&self, session: SessionId) -> Option<ConnectionId> {
        self.connection(session).map(|connection| connection.id)
    }

    /// The connection of a session.
    #[inline]
    fn connection(&self, id: SessionId) -> Option<&Connection> {
        self.session(id).map(|session| &session.connection)
    }

    #[inline]
    fn connection_mut(&mut self, id: SessionId) -> Option<&mut Connection> {
        self.session_mut(id).map(|session| &mut session.connection)
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Sees to it that the session is looked at when it is due.
    fn arm(&mut self, id: SessionId) {
        let limits = self.limits;
        let Some(session) = self.session_mut(id) else { return };
        let due = session.connection.due(&limits);
        if due < session.connection.armed {
            session.connection.armed = due;
            self.set_alarm(due, Alarm::Session(id));
        }
    }

    /// Sets an alarm, and sorts out those of the dead before they outnumber the living.
    fn set_alarm(&mut self, due: Time, alarm: Alarm) {
        if self.timers.len() >= self.stale_alarms_max() {
            let (sessions, operations) = (&self.sessions, &self.operations);
            self.timers.retain(|due, alarm| match alarm {
                Alarm::Session(id) => sessions
                    .get(id.slot())
                    .is_some_and(|it| it.id == id && it.connection.armed == due),
                Alarm::Operation(id) => operations.get(id.slot()).is_some_and(|it| it.id() == id),
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
        let Some(dialect) = session.connection.dialect() else { return };
        if dialect == Dialect::Json && self.answer(id, event) {
            return;
        }
        self.put_words(id, |out| dialect.encode(event, out));
    }

    /// Writes to a session at once, and has it sent where nothing waited before.
    fn put(&mut self, id: SessionId, write: impl FnOnce(&mut Vec<u8>)) {
        self.put_with(id, |connection, pool| connection.outbox.write(pool, write));
    }

    /// Lets `fill` put something into the outbox of a session, and has it sent where nothing
    /// waited before.
    fn put_with(&mut self, id: SessionId, fill: impl FnOnce(&mut Connection, &mut Pool)) {
        let Some(session) = self.sessions.get_mut(id.slot()).filter(|it| it.id == id) else {
            return;
        };
        let connection = &mut session.connection;
        let was_empty = connection.outbox.is_empty();
        fill(connection, &mut self.pool);
        if was_empty && !connection.outbox.is_empty() {
            self.effects.push_back(Effect::Flush { connection: connection.id });
        }
    }

    /// Appends words that must not come within others, such as the bytes of a file.
    fn put_words(&mut self, id: SessionId, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(session) = self.sessions.get_mut(id.slot()).filter(|it| it.id == id) else {
            return;
        };
        match session.connection.voice.as_mut().filter(|voice| !voice.is_at_start()) {
            Some(voice) => voice.hold_words(write),
            None => self.put(id, write),
        }
        // Requests wait for room; only news that nobody asked for can come this far.
        let waiting = self.connection(id).map_or(0, Connection::waiting_bytes);
        if waiting > 2 * self.limits.outbox_max_bytes {
            self.later.close(id, CloseReason::SlowConsumer);
        }
    }
}
