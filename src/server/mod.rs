//! The server: one loop that notes readiness, reads, asks the hub, does what it says, writes.
//!
//! ```text
//!   poll --> note readiness --> read --> hub --> to do --> write --> tick --> accept --> poll
//! ```
//!
//! What became non-empty in a turn is written once, at its end: that batching is what makes one
//! thread fast. Nobody gets more than a budget in one turn.

mod acceptor;
mod answers;
pub mod arguments;
mod border;
mod budget;
mod commands;
mod connections;
pub mod credentials;
mod edge;
mod exchanges;
mod identity;
mod keys;
mod leftovers;
mod lingering;
mod listings;
mod passwd;
mod program;
mod programs;
mod questions;
mod token;
mod transfers;
mod upload;
mod watch;
mod work;

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    time::Duration,
};

use acceptor::Acceptor;
use border::Border;
use commands::{CommandSetup, Commands};
use connections::Connections;
use edge::{Edge, Place};
use exchanges::Exchanges;
use identity::{Identity, Plan};
use keys::Keys;
use leftovers::Leftovers;
use lingering::Lingering;
use mio::{Events, Interest, Poll, Waker, event::Event};
pub use program::run;
use questions::Questions;
use token::{Pipe, Source};
use transfers::Transfers;
use zeroize::Zeroize as _;

use crate::{
    hub::{CloseReason, Effect, Hub, Input, OperationId, Piece, SessionId, Time},
    limits::{Limits, leftovers_max, lingering_max},
    sys::{
        clock::Clock,
        descriptors,
        files::Share,
        listen::Listeners,
        pulse::PulseReader,
        signals::{Signal, Signals},
        transport::Transport,
    },
};

/// Bytes read from or written to one session in one turn.
const BUDGET_BYTES: usize = 64 * 1024;
/// A write may go beyond the budget by so much where that empties an outbox: what one budget of
/// requests became is often a little more, and a rest would cost a turn and a cold buffer.
const SLACK_BYTES: usize = 32 * 1024;
/// So many bytes for one session are written before the end of the turn.
const WORTH_A_WRITE_BYTES: usize = 16 * 1024;
/// Commands started in one turn: each takes the better part of a millisecond, and meanwhile
/// nobody else is served.
const STARTS_PER_TURN: usize = 8;
/// Chunks of output handed to the hub in one turn. Most wait for the socket long before; replies in
/// JSON are collected, and a whole listing would hold up everybody.
const PULLS_PER_TURN: usize = 64;
/// A server that was asked to stop is gone after so many milliseconds, whoever does not read or
/// does not end: 10 s are promised. The hub ends what still runs well before that.
const STOP_MAX_MS: u64 = 9_800;

/// A running server.
pub struct Server {
    poll: Poll,
    hub: Border,
    clock: Clock,
    /// The time of this turn.
    now: u64,
    signals: Signals,
    acceptor: Acceptor,
    connections: Connections,
    pulse: PulseReader,
    lingering: Lingering,
    commands: Commands,
    leftovers: Leftovers,
    transfers: Transfers,
    edge: Edge,
    questions: Questions,
    exchanges: Exchanges,
    /// Conversations for which something has come.
    fed: Vec<OperationId>,
    identity: Identity,
    keys: Keys,
    waker: Arc<Waker>,
    /// What the hub wants done, but for writing and reading, which have lists of their own.
    todo: VecDeque<Effect>,
    /// Commands that may yet be started in this turn.
    starts_left: usize,
    /// Chunks that may yet be handed in in this turn.
    pulls_left: usize,
    /// Where all bytes are read to; nobody owns a buffer while idle.
    buffer: Box<[u8]>,
    /// When to leave in any case; set by the signal that asks to stop.
    stop_by: Option<u64>,
}

/// Whether the loop goes on.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Course {
    GoOn,
    /// A second signal: leave now.
    Leave,
}

impl Server {
    /// A server for these listeners, sharing the folder `root` with those whom `plan` names;
    /// devices have their files in `data`.
    ///
    /// # Errors
    /// The folder cannot be opened, or the system lacks descriptors or threads.
    pub fn new(
        listeners: Listeners,
        root: &Path,
        data: Place,
        limits: Limits,
        plan: Plan,
        setup: CommandSetup,
        keys: Keys,
    ) -> io::Result<Server> {
        let descriptors = descriptors::raise_limit();
        let limits = limits.within(descriptors);
        limits.check().map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?;
        let poll = Poll::new()?;
        let mut signals = Signals::new()?;
        let registry = poll.registry();
        registry.register(&mut signals, Source::Signals.token(), Interest::READABLE)?;
        let waker = Arc::new(Waker::new(registry, Source::Workers.token())?);
        let root = root.canonicalize()?;
        let mut share = Share::open(&root)?;
        if let Err(why) = share.check_system() {
            log::warn!("{why}");
        }
        let hidden = [plan.hidden_places(), keys.hidden_places()?, data.hidden_places()?].concat();
        hidden.into_iter().try_for_each(|place| share.hide(place))?;
        let quota_bytes = plan.quota_bytes();
        let mut hub = Border::new(Hub::new(limits, random_key(), plan.policy()));
        #[cfg(debug_assertions)]
        if std::env::var_os("SIXFOUR_PROVOKE_FAULTS").is_some() {
            hub.provoke_faults();
        }
        let identity = Identity::new(plan, &limits, Arc::clone(&waker));
        let accounts = identity.accounts();
        hub.handle(Time(0), Input::Accounts { accounts: &accounts, changed: &[] });
        Ok(Server {
            acceptor: Acceptor::new(listeners, registry)?,
            hub,
            identity,
            clock: Clock::start(),
            now: 0,
            signals,
            connections: Connections::default(),
            pulse: PulseReader::default(),
            lingering: Lingering::new(lingering_max(descriptors)),
            edge: Edge::new(data, quota_bytes, Arc::clone(&waker)),
            questions: Questions::new(Arc::clone(&waker)),
            exchanges: Exchanges::new(&share, waker.clone())?,
            transfers: Transfers::new(share, Arc::clone(&waker)),
            keys,
            waker,
            commands: Commands::new(root, setup),
            leftovers: Leftovers::new(leftovers_max(descriptors)),
            fed: Vec::new(),
            todo: VecDeque::new(),
            starts_left: STARTS_PER_TURN,
            pulls_left: PULLS_PER_TURN,
            buffer: vec![0; BUDGET_BYTES].into_boxed_slice(),
            stop_by: None,
            poll,
        })
    }

    /// What is shared, for people: the folder `root`, or nothing.
    pub fn describe_share(&self, root: &Path) -> String {
        match self.exchanges.is_sharing() {
            true => root.display().to_string(),
            false => format!(
                "no files, as {} holds those of devices (--root DIR shares another folder)",
                root.display()
            ),
        }
    }

    /// Serves until a signal ends it.
    ///
    /// # Errors
    /// Only where the poller itself fails.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            let timeout = self.timeout();
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            self.now = self.clock.now().max(self.now);
            // The loop has no state of its own that a panic could leave half done and that anybody
            // would look at after it: it only ends.
            let turn = catch_unwind(AssertUnwindSafe(|| self.turn(&events)));
            let Some(course) = turn.ok().filter(|_| !self.hub.is_broken()) else {
                return Err(self.end_broken());
            };
            if course == Course::Leave || self.has_stopped() {
                self.commands.kill_all();
                log::info!("event=stop {}", self.hub.closes());
                return Ok(());
            }
        }
    }

    /// Whether all is done that stopping takes, or the time for it is over.
    fn has_stopped(&self) -> bool {
        let Some(stop_by) = self.stop_by else { return false };
        let is_idle = self.commands.is_idle() && self.lingering.is_empty();
        self.hub.is_finished() && is_idle && self.edge.is_idle() || self.now >= stop_by
    }

    /// One turn. What the sockets hold is read, and what they take is written, before any deadline
    /// is looked at, so that a server that was stopped for a while cuts off nobody.
    fn turn(&mut self, events: &Events) -> Course {
        self.starts_left = STARTS_PER_TURN;
        self.pulls_left = PULLS_PER_TURN;
        for event in events {
            if self.note(event) == Course::Leave {
                return Course::Leave;
            }
        }
        for id in std::mem::take(&mut self.connections.to_read) {
            self.read(id);
        }
        self.do_work();
        self.move_fed();
        for id in self.commands.tick(self.now) {
            self.produce(id);
        }
        self.take_answers();
        for id in std::mem::take(&mut self.connections.to_write) {
            self.write(id);
        }
        self.do_work();
        self.input(Input::Tick);
        self.do_work();
        self.move_fed();
        self.lingering.expire(self.now);
        self.leftovers.tick(self.now, &mut self.buffer);
        self.edge.tick(self.now);
        self.accept();
        Course::GoOn
    }

    fn timeout(&self) -> Option<Duration> {
        let Connections { to_read, to_write, .. } = &self.connections;
        if !(to_read.is_empty() && to_write.is_empty() && self.todo.is_empty()) {
            return Some(Duration::ZERO);
        }
        let at = |time: u64| time.saturating_sub(self.now);
        let now = self.now;
        [
            self.hub.poll_timeout().map(|time| at(time.0)),
            self.commands.next_timeout_ms(now),
            self.questions.next_deadline().map(at),
            self.lingering.next_deadline().map(at),
            self.leftovers.next_deadline().map(at),
            self.acceptor.next_deadline().map(at),
            self.edge.next_deadline().map(at),
            self.stop_by.map(at),
        ]
        .into_iter()
        .flatten()
        .min()
        .map(Duration::from_millis)
    }

    fn note(&mut self, event: &Event) -> Course {
        match Source::of(event.token()) {
            Source::Session(id) => self.note_session(id, event),
            Source::Command(id, pipe) => {
                self.commands.note(id, pipe, self.now);
                match pipe {
                    Pipe::Stdin => self.todo.push_back(Effect::Feed { operation: id }),
                    _ => self.todo.push_back(Effect::Pull { operation: id }),
                }
            }
            Source::Lingering(slot) => {
                self.lingering.drain(slot, &mut self.buffer, self.poll.registry());
            }
            Source::Leftover(serial) => {
                self.leftovers.drain(serial, self.now, &mut self.buffer);
            }
            Source::Workers => {
                self.take_results();
                self.keys.take_reloaded();
            }
            source @ (Source::ListenerV6 | Source::ListenerV4) => self.acceptor.note(source),
            Source::Signals => {
                for signal in self.signals.pending() {
                    if self.on_signal(signal) == Course::Leave {
                        return Course::Leave;
                    }
                }
            }
        }
        Course::GoOn
    }

    fn note_session(&mut self, id: SessionId, event: &Event) {
        let Some(connection) = self.connections.get(id) else { return };
        let is_broken = event.is_error() || (event.is_read_closed() && event.is_write_closed());
        let has_closed = event.is_read_closed() && !connection.read_closed;
        connection.read_closed |= has_closed;
        connection.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        connection.broken |= is_broken;
        if has_closed && !is_broken {
            connection.ask_often(true);
        }
        let wants_write = connection.transport.wants_write();
        if self.drop_if_broken(id) {
            return;
        }
        self.connections.list_to_read(id);
        if event.is_writable() && (wants_write || self.hub.piece(id).is_some()) {
            self.connections.list_to_write(id);
        }
    }

    /// Drops a broken connection of which nothing more will be read, so that reading cannot tell.
    fn drop_if_broken(&mut self, id: SessionId) -> bool {
        let Some(connection) = self.connections.get(id) else { return false };
        let (is_broken, ended) = (connection.broken, connection.ended);
        let is_over = is_broken && (ended || !self.hub.wants_input(id));
        if is_over {
            self.input(Input::Gone { session: id });
        }
        is_over
    }

    fn on_signal(&mut self, signal: Signal) -> Course {
        match signal {
            Signal::Reload => {
                self.identity.reload();
                self.keys.reload(Arc::clone(&self.waker));
                Course::GoOn
            }
            Signal::Stop if self.stop_by.is_some() => {
                log::info!("second signal: leaving at once");
                Course::Leave
            }
            Signal::Stop => {
                log::info!("stopping: no new connections, what runs may finish");
                self.quit();
                self.input(Input::Stop);
                Course::GoOn
            }
        }
    }

    /// Takes in nobody any more; the end comes when the hub has let everybody go.
    fn quit(&mut self) {
        self.stop_by.get_or_insert(self.now + STOP_MAX_MS);
        self.acceptor.close();
        self.questions.hurry(self.now);
    }

    /// After the end of all sessions: the listeners go on, and one that has failed is opened again.
    fn listen_again(&mut self) {
        if self.stop_by.is_none() {
            log::info!("all sessions were ended by a reset; listening on");
            self.acceptor.open_again(self.now, self.poll.registry());
        }
    }

    fn accept(&mut self) {
        let mut arrived = Vec::new();
        let Server { acceptor, identity, poll, now, .. } = self;
        acceptor.tick(*now, poll.registry());
        let has_room = acceptor.accept(*now, |stream, peer| {
            arrived.extend(identity.receive(stream, peer));
        });
        if !has_room {
            self.hub.make_room();
            self.take_effects();
        }
        arrived.into_iter().for_each(|(stream, origin)| self.take_in(stream, origin));
    }

    /// Takes in what is known now of who is who.
    fn take_identities(&mut self) {
        while let Some(news) = self.identity.try_recv() {
            match news {
                identity::News::Arrived(stream, origin) => {
                    self.take_in(stream, origin);
                }
                identity::News::Verified(session, verdict) => {
                    self.input(Input::Verified { session, verdict });
                }
                identity::News::Accounts(accounts, changed) => {
                    self.input(Input::Accounts { accounts: &accounts, changed: &changed });
                }
            }
        }
    }

    /// Reads what a session has sent, at most a budget of it.
    fn read(&mut self, id: SessionId) {
        let Some(connection) = self.connections.get(id) else { return };
        connection.listed_to_read = false;
        if !connection.readable || connection.ended || !self.hub.wants_input(id) {
            return;
        }
        let most = self.hub.input_max_bytes(id).min(self.buffer.len());
        let read = connection.transport.read(&mut self.buffer[..most]);
        if connection.transport.wants_write() || connection.is_newly_secured() {
            self.note_tls(id);
        }
        let Some(connection) = self.connections.get(id) else { return };
        match read {
            Ok(0) => {
                connection.ended = true;
                connection.readable = false;
                if connection.secured {
                    connection.ask_often(true);
                }
                self.input(Input::EndOfInput { session: id });
            }
            Ok(count) => {
                // What has emptied the socket has not read its end, if that is there already.
                let has_drained = connection.transport.has_drained(count, most);
                if !has_drained || connection.read_closed {
                    self.connections.list_to_read(id);
                } else {
                    connection.readable = false;
                }
                let listed = self.connections.to_write.len();
                let bytes = &self.buffer[..count];
                self.hub.handle(Time(self.now), Input::Bytes { session: id, bytes });
                if self.hub.take_heard_secret() {
                    self.buffer[..count].zeroize();
                    Transport::forget_read();
                }
                self.take_effects();
                self.write_large(listed);
                self.drop_if_broken(id);
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => connection.readable = false,
                io::ErrorKind::Interrupted => self.connections.list_to_read(id),
                // `ncat --ssl` ends its input like that; so can anybody on the way.
                io::ErrorKind::UnexpectedEof if connection.secured => {
                    connection.ended = true;
                    connection.readable = false;
                    connection.ask_often(true);
                    self.input(Input::CutOff { session: id });
                }
                _ => {
                    log::debug!("{id:?}: {error}");
                    self.input(Input::Gone { session: id });
                }
            },
        }
    }

    /// Deals with what TLS has come to by itself: bytes of its own that the socket did not take,
    /// and the end of the handshake, of which the hub hears once.
    fn note_tls(&mut self, id: SessionId) {
        let Some(connection) = self.connections.get(id) else { return };
        let is_new = connection.is_newly_secured();
        connection.secured |= is_new;
        if connection.transport.wants_write() {
            self.connections.list_to_write(id);
        }
        if is_new {
            self.input(Input::Secured { session: id });
        }
    }

    /// Writes to those that got much just now, from the `listed`-th on: it is still in the cache,
    /// and there is nothing to gain from waiting for more.
    fn write_large(&mut self, listed: usize) {
        for at in listed..self.connections.to_write.len() {
            let id = self.connections.to_write[at];
            if self.hub.unsent_bytes(id) >= WORTH_A_WRITE_BYTES {
                self.write(id);
            }
        }
    }

    /// Writes what waits for a session, at most a budget of it.
    fn write(&mut self, id: SessionId) {
        if let Some(connection) = self.connections.get(id) {
            connection.listed_to_write = false;
        }
        let mut left = BUDGET_BYTES;
        while left > 0 {
            let Some(connection) = self.connections.get(id) else { return };
            let Some(piece) = self.hub.piece(id) else { return self.flush(id) };
            let sent = match piece {
                Piece::Bytes { bytes, more } => {
                    let bytes = &bytes[..bytes.len().min(left + SLACK_BYTES)];
                    connection.transport.write(bytes, more)
                }
                Piece::File(piece) if self.exchanges.has(piece.operation) => {
                    self.exchanges.send(piece, &mut connection.transport, left)
                }
                Piece::File(piece) => self.transfers.send(piece, &mut connection.transport, left),
            };
            match sent {
                Ok(0) => {
                    let Some(Piece::File(piece)) = self.hub.piece(id) else { return };
                    self.on_shrunk(piece.operation);
                }
                Ok(count) => {
                    left = left.saturating_sub(count);
                    self.input(Input::Sent { session: id, count });
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        // The hub must know that it was tried.
                        return self.input(Input::Sent { session: id, count: 0 });
                    }
                    io::ErrorKind::Interrupted => {}
                    _ => return self.input(Input::Gone { session: id }),
                },
            }
        }
        self.connections.list_to_write(id);
    }

    /// Sends what TLS has to say beyond what the hub says.
    fn flush(&mut self, id: SessionId) {
        let Some(connection) = self.connections.get(id) else { return };
        match connection.transport.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                self.input(Input::Gone { session: id });
            }
            _ => {}
        }
    }

    /// Tells the hub something and takes in what it wants done.
    fn input(&mut self, input: Input<'_>) {
        self.hub.handle(Time(self.now), input);
        self.take_effects();
    }

    fn take_effects(&mut self) {
        while let Some(effect) = self.hub.poll_effect() {
            match effect {
                Effect::Flush { session } => self.connections.list_to_write(session),
                Effect::Resume { session } => self.connections.list_to_read(session),
                Effect::Close { session, reason } => self.close(session, reason),
                other => self.todo.push_back(other),
            }
        }
    }

    fn close(&mut self, id: SessionId, reason: CloseReason) {
        self.commands.forget_session(id);
        self.edge.forget_session(id);
        let Some(mut connection) = self.connections.remove(id) else { return };
        let failed = connection.transport.has_failed();
        match reason {
            CloseReason::PeerGone
            | CloseReason::Stalled
            | CloseReason::SlowConsumer
            | CloseReason::MadeRoom
                if !failed =>
            {
                // What waits in the kernel is for nobody; dropping the socket ends it.
                log::debug!("{id:?}: its socket is dropped as it is");
            }
            // With TLS the end of input is said within it, and the peer may not have hung up.
            _ if connection.ended && !connection.secured => {
                let _ = connection.transport.shutdown_write();
            }
            _ => self.lingering.push(connection.transport, self.now, self.poll.registry()),
        }
    }
}

/// A key that no peer can guess, from the system's randomness by way of the standard library.
fn random_key() -> [u64; 2] {
    use std::hash::{BuildHasher, RandomState};
    [RandomState::new().hash_one(0u8), RandomState::new().hash_one(1u8)]
}
