//! Joins an endpoint with its sockets and the clock, inside the loop of somebody else.
//!
//! ```text
//!  poll(registry, timeout) ─▶ handle_ready ─▶ receive ─▶ poll_event, read, write ─▶ transmit ─┐
//!        ▲                                                                                   │
//!        └──────────────────────────── timeout ◀─────────────────────────────────────────────┘
//! ```

use std::{
    fmt, io,
    time::{Duration, Instant},
};

use mio::{Events, Poll, Registry, Token};

use super::{Endpoint, Event, SessionKey, Transmit, blocks::Blocks};
use crate::{
    sys::{
        listen::Families,
        udp::{self, BindError, Sent, UdpSockets},
    },
    wire::{Announcement, introduction::own_addresses},
};

/// System calls in one turn, each for up to 64 KiB to be sent and 1 MiB to be received. Then
/// others have their turn.
const SENDS_PER_TURN: usize = 32;
/// See [`SENDS_PER_TURN`].
const RECEIVES_PER_TURN: usize = 8;

/// So often the clock is not looked at because there is still something to receive.
const TIMEOUTS_PUT_OFF_MAX: u32 = 16;

/// Why there is no direct path from this client.
#[derive(Debug)]
pub enum DriverError {
    /// The sockets.
    Bind(BindError),
    /// The system's random source.
    Random(io::Error),
}

impl fmt::Display for DriverError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DriverError::Bind(error) => error.fmt(formatter),
            DriverError::Random(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for DriverError {}

/// An endpoint on real sockets. It does nothing by itself: the loop calls it, see the module.
pub struct Driver {
    /// Where channels are opened, read and written.
    pub endpoint: Endpoint,
    sockets: UdpSockets,
    blocks: Blocks,
    buffer: Vec<u8>,
    /// The socket had no room for it: it goes first, as soon as there is some.
    unsent: Option<Transmit>,
    /// There was more to do than a turn may take.
    has_more: bool,
    /// Turns since a timeout was due.
    put_off: u32,
}

impl SessionKey {
    /// A new key, for this process alone.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn generate() -> io::Result<SessionKey> {
        random_bytes().map(|seed| SessionKey::from_seed(&seed))
    }
}

/// Of the system's random source.
///
/// # Errors
/// The system has no random numbers.
pub fn random_bytes() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(io::Error::other(format!("no random numbers: {error}"))),
    }
}

impl Driver {
    /// Binds `port` in both families for who has this key; 0 is any that is free. The sockets are
    /// registered under `tokens`, IPv6 first.
    ///
    /// # Errors
    /// See [`DriverError`].
    pub fn bind(
        key: SessionKey,
        port: u16,
        families: Families,
        tokens: [Token; 2],
        registry: &Registry,
    ) -> Result<Driver, DriverError> {
        let seed = random_bytes().map_err(DriverError::Random)?;
        let sockets =
            UdpSockets::bind(port, families, tokens, registry).map_err(DriverError::Bind)?;
        let endpoint = Endpoint::new(key, &seed, sockets.may_fragment());
        let blocks = Blocks::default();
        let buffer = Vec::new();
        Ok(Driver { endpoint, sockets, blocks, buffer, unsent: None, has_more: false, put_off: 0 })
    }

    /// The UDP port of both families.
    pub fn port(&self) -> u16 {
        self.sockets.port()
    }

    /// What the server has to know of us, so that others can be introduced to us. The addresses
    /// are those of now.
    pub fn announcement(&self) -> Announcement {
        let interfaces = udp::interface_addresses().unwrap_or_else(|error| {
            // The server sees one address in any case.
            log::debug!("cannot list the addresses of this machine: {error}");
            Vec::new()
        });
        Announcement {
            fingerprint: self.endpoint.fingerprint(),
            port: self.port(),
            addresses: own_addresses(interfaces),
        }
    }

    /// Sentences for the user, such as that this host has no IPv6.
    pub fn notes(&self) -> &[String] {
        self.sockets.notes()
    }

    /// Notes what the poll said; false where the event is not of these sockets.
    pub fn handle_ready(&mut self, event: &mio::event::Event) -> bool {
        self.sockets.handle_ready(event)
    }

    /// Takes in what has come, and then looks at the clock: so a process that was stopped for a
    /// while finds what waited for it before it takes anybody for dead.
    ///
    /// # Errors
    /// A socket is broken.
    pub fn receive(&mut self, now: Instant) -> io::Result<()> {
        let (endpoint, blocks) = (&mut self.endpoint, &mut self.blocks);
        for _ in 0..RECEIVES_PER_TURN {
            if !self.sockets.is_readable() {
                break;
            }
            self.sockets.receive(|received| {
                let (remote, local) = (received.remote, received.local);
                let ecn = received.ecn.and_then(|ecn| super::EcnCodepoint::from_bits(ecn as u8));
                blocks.copy(received.bytes, received.stride, |datagram| {
                    endpoint.handle_datagram(remote, local, ecn, datagram, now);
                });
            })?;
        }
        if endpoint.poll_timeout().is_none_or(|at| at > now) {
            self.put_off = 0;
        } else if self.sockets.is_readable() && self.put_off < TIMEOUTS_PUT_OFF_MAX {
            self.put_off += 1;
        } else {
            self.put_off = 0;
            endpoint.handle_timeout(now);
        }
        Ok(())
    }

    /// The next piece of news.
    pub fn poll_event(&mut self, now: Instant) -> Option<Event> {
        self.endpoint.poll_event(now)
    }

    /// Sends what is to be sent, as far as the sockets take it.
    pub fn transmit(&mut self, now: Instant) {
        self.has_more = false;
        for _ in 0..SENDS_PER_TURN {
            let transmit = match self.unsent.take() {
                Some(transmit) => transmit,
                None => {
                    let segments = self.sockets.segments_max();
                    match self.endpoint.poll_transmit(segments, &mut self.buffer, now) {
                        Some(transmit) => transmit,
                        None => return,
                    }
                }
            };
            match self.sockets.send(&udp::Transmit {
                destination: transmit.destination,
                ecn: transmit.ecn.and_then(|ecn| udp::EcnCodepoint::from_bits(ecn as u8)),
                contents: &self.buffer[..transmit.size],
                segment_size: transmit.segment_size,
                src_ip: transmit.src_ip,
            }) {
                Sent::Done => {}
                Sent::Unreachable => self.endpoint.handle_unreachable(transmit.destination, now),
                Sent::WouldBlock => {
                    self.unsent = Some(transmit);
                    return;
                }
            }
        }
        self.has_more = true;
    }

    /// Ends all channels, and stays until the others know: blocks this thread on `poll`, where the
    /// sockets are registered, for `limit` at most. After a good end on a good line that takes a
    /// quarter of a second. To be called once, and last.
    ///
    /// # Errors
    /// A socket is broken.
    pub fn leave(&mut self, poll: &mut Poll, limit: Duration) -> io::Result<()> {
        let mut events = Events::with_capacity(8);
        let until = Instant::now() + limit;
        self.endpoint.leave(Instant::now());
        loop {
            let now = Instant::now();
            while self.poll_event(now).is_some() {}
            self.transmit(now);
            if self.endpoint.is_idle() {
                return Ok(());
            }
            if now >= until {
                self.endpoint.shut_down(now);
                self.transmit(now);
                return Ok(());
            }
            let timeout = self.timeout(now).map_or(until - now, |it| it.min(until - now));
            match poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => other?,
            }
            for event in &events {
                self.handle_ready(event);
            }
            self.receive(Instant::now())?;
        }
    }

    /// How long the loop may sleep; for ever if there is none.
    pub fn timeout(&mut self, now: Instant) -> Option<Duration> {
        if self.has_more || self.sockets.is_readable() {
            return Some(Duration::ZERO);
        }
        self.endpoint.poll_timeout().map(|at| at.saturating_duration_since(now))
    }
}

/// A driver with a loop of its own that blocks its thread, for tests and measurements.
pub struct Runner {
    /// What runs.
    pub driver: Driver,
    poll: Poll,
    events: Events,
}

impl Runner {
    /// On any free port of both families.
    ///
    /// # Errors
    /// What the system, or [`Driver::bind`], says.
    pub fn new() -> io::Result<Runner> {
        let poll = Poll::new()?;
        let tokens = [Token(6), Token(4)];
        let key = SessionKey::generate()?;
        let driver = Driver::bind(key, 0, Families::Both, tokens, poll.registry());
        let driver = driver.map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Runner { driver, poll, events: Events::with_capacity(8) })
    }

    /// One turn: sleeps until there is something to do, at most `limit`, and hands the news to
    /// `work`, which reads and writes.
    ///
    /// # Errors
    /// What the system says.
    pub fn turn(
        &mut self,
        limit: Duration,
        work: &mut dyn FnMut(&mut Endpoint, Option<Event>),
    ) -> io::Result<()> {
        let timeout = self.driver.timeout(Instant::now()).map_or(limit, |it| it.min(limit));
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => other?,
        }
        for event in &self.events {
            self.driver.handle_ready(event);
        }
        let now = Instant::now();
        self.driver.receive(now)?;
        while let Some(event) = self.driver.poll_event(now) {
            work(&mut self.driver.endpoint, Some(event));
        }
        work(&mut self.driver.endpoint, None);
        while let Some(event) = self.driver.poll_event(now) {
            work(&mut self.driver.endpoint, Some(event));
        }
        self.driver.transmit(Instant::now());
        Ok(())
    }

    /// See [`Driver::leave`].
    ///
    /// # Errors
    /// What the system says.
    pub fn leave(&mut self, limit: Duration) -> io::Result<()> {
        self.driver.leave(&mut self.poll, limit)
    }
}
