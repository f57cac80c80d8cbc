//! TLS 1.3 round one connection, either side of it, by rustls' unbuffered interface: sessions own
//! no buffers while nothing is on its way, as all that a thread serves share one [`Scratch`].
//!
//! ```text
//!   Handshaking --finished--> Open --close_notify of both--> (the socket is closed)
//!        \_____________________\____what is not good____> Failed
//! ```

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io;
use std::mem;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, ServerConfig};
use zeroize::Zeroize as _;

use super::plain;

mod engine;
#[cfg(test)]
mod tests;

use engine::{Driven, Engine, Halt, Outgoing, Work};

/// Plain bytes that one call encrypts at most: six records of the largest kind, which leave in one
/// system call.
const WRITE_MAX_BYTES: usize = 96 * 1024;
/// Encrypted bytes that one call reads at most, and those that it reads at least however little
/// room the caller has.
const READ_MAX_BYTES: usize = 256 * 1024;
const READ_MIN_BYTES: usize = 4 * 1024;
/// So little that is followed by more waits for it, and goes out in the same record.
const HELD_MAX_BYTES: usize = 256;
/// What may be kept of a record or of a handshake message until the rest of it comes. The largest
/// record has 16,645 bytes (RFC 8446, section 5.2), and a client's hello is far below that. What
/// a server says of itself may be longer.
const REST_MAX_BYTES: [usize; 2] = [20 * 1024, 96 * 1024];

/// Where a thread reads to and encrypts to, for all its sessions.
#[derive(Default)]
struct Scratch {
    incoming: Vec<u8>,
    outgoing: Outgoing,
    /// What was held and what a file has, side by side.
    plain: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// One session.
pub(super) struct Tls {
    engine: Engine,
    phase: Phase,
    /// What came and is part of something of which the rest is missing.
    rest: Vec<u8>,
    /// The engine has not looked at the rest yet.
    fresh: bool,
    /// Decrypted bytes for which the caller had no room.
    decrypted: Vec<u8>,
    /// Encrypted bytes that the socket did not take; those before `sent` are gone.
    backlog: Vec<u8>,
    sent: usize,
    /// Plain bytes whose encrypted form is in the backlog, and that were not reported as written.
    owed: usize,
    /// Plain bytes that wait for what follows.
    held: Vec<u8>,
    /// The peer has said that it sends no more.
    peer_closed: bool,
    /// We have.
    closed: bool,
    /// The last read took all that the socket had.
    drained: bool,
    /// What was not good.
    failure: Option<Box<rustls::Error>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Handshaking,
    Open,
    Failed,
}

impl Tls {
    /// The server's side, on a connection that begins with these bytes.
    pub(super) fn server(config: Arc<ServerConfig>, first: &[u8]) -> Result<Tls, rustls::Error> {
        let engine = Engine::Server(UnbufferedServerConnection::new(config)?);
        Ok(Tls { rest: first.to_vec(), fresh: true, ..Tls::new(engine) })
    }

    /// The client's side, before its first byte.
    pub(super) fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Tls, rustls::Error> {
        let engine = Engine::Client(UnbufferedClientConnection::new(config, name)?);
        Ok(Tls { fresh: true, ..Tls::new(engine) })
    }

    fn new(engine: Engine) -> Tls {
        Tls {
            engine,
            phase: Phase::Handshaking,
            rest: Vec::new(),
            fresh: false,
            decrypted: Vec::new(),
            backlog: Vec::new(),
            sent: 0,
            owed: 0,
            held: Vec::new(),
            peer_closed: false,
            closed: false,
            drained: false,
            failure: None,
        }
    }

    /// Whether the handshake is complete.
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// See [`Transport::has_failed`](super::Transport::has_failed).
    pub(super) fn has_failed(&self) -> bool {
        self.phase == Phase::Failed
    }

    /// What was not good, once.
    pub(super) fn take_failure(&mut self) -> Option<rustls::Error> {
        self.failure.take().map(|failure| *failure)
    }

    /// The protocol that both sides have agreed on (RFC 7301).
    pub(super) fn protocol(&self) -> Option<&[u8]> {
        self.engine.protocol()
    }

    /// Goes on with the handshake as far as possible. What came behind it is kept for the first
    /// read.
    pub(super) fn handshake(&mut self, stream: &TcpStream) -> io::Result<()> {
        self.flush(stream)?;
        while self.phase == Phase::Handshaking {
            SCRATCH.with_borrow_mut(|scratch| self.advance(stream, scratch, &mut []))?;
        }
        self.flush(stream)
    }

    pub(super) fn read(&mut self, stream: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
        if !self.decrypted.is_empty() {
            let count = self.decrypted.len().min(into.len());
            into[..count].copy_from_slice(&self.decrypted[..count]);
            self.decrypted.drain(..count);
            if self.decrypted.is_empty() {
                self.decrypted = Vec::new();
            }
            return Ok(count);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                if self.phase == Phase::Failed {
                    return Err(self.say_failure());
                }
                if self.peer_closed {
                    return Ok(0);
                }
                let count = self.advance(stream, scratch, into)?;
                if count > 0 {
                    return Ok(count);
                }
            }
        })
    }

    pub(super) fn has_drained(&self) -> bool {
        let is_over = self.peer_closed || self.phase == Phase::Failed;
        self.drained && !is_over && self.decrypted.is_empty()
    }

    /// Reads once, and hands what came to the engine: how many decrypted bytes are in `into` now.
    fn advance(
        &mut self,
        stream: &TcpStream,
        scratch: &mut Scratch,
        into: &mut [u8],
    ) -> io::Result<usize> {
        let filled = self.fetch(stream, &mut scratch.incoming, into.len())?;
        let Scratch { incoming, outgoing, .. } = scratch;
        let (mut count, overflow) = (0, &mut self.decrypted);
        let mut take = |plain: &[u8]| {
            let fits = plain.len().min(into.len() - count);
            into[count..count + fits].copy_from_slice(&plain[..fits]);
            overflow.extend_from_slice(&plain[fits..]);
            count += fits;
        };
        outgoing.clear();
        let driven = self.engine.drive(&mut incoming[..filled], Work::Read, &mut take, outgoing);
        self.rest = incoming[driven.used..filled].to_vec();
        self.settle(driven);
        self.transmit(stream, outgoing.bytes())?;
        Ok(count)
    }

    /// Reads once, behind what is left of before; tells how many bytes there are now.
    fn fetch(
        &mut self,
        stream: &TcpStream,
        incoming: &mut Vec<u8>,
        wanted: usize,
    ) -> io::Result<usize> {
        let kept = self.rest.len();
        let room = wanted.saturating_sub(kept).clamp(READ_MIN_BYTES, READ_MAX_BYTES);
        if incoming.len() < kept + room {
            incoming.resize(kept + room, 0);
        }
        let mut count = 0;
        if !mem::take(&mut self.fresh) {
            count = plain::read(stream, &mut incoming[kept..kept + room])?;
            self.drained = count < room;
            if count == 0 {
                let text = "the connection ended without the end that TLS demands (close_notify)";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
        }
        incoming[..kept].copy_from_slice(&self.rest);
        self.rest = Vec::new();
        Ok(kept + count)
    }

    /// Takes in how far the engine has come.
    fn settle(&mut self, driven: Driven) {
        self.peer_closed |= driven.peer_closed;
        let cut_off = || rustls::Error::General("the peer closed it within the handshake".into());
        let rest_max = REST_MAX_BYTES[usize::from(self.engine.is_client())];
        let failure = match driven.halt {
            Err(error) => error,
            Ok(Halt::Handshake) if self.peer_closed => cut_off(),
            Ok(_) if self.rest.len() > rest_max => {
                rustls::Error::General("a handshake that goes on for too long".into())
            }
            Ok(Halt::Handshake) => return,
            Ok(Halt::Open | Halt::Closed) => return self.phase = Phase::Open,
        };
        self.phase = Phase::Failed;
        self.failure = Some(Box::new(failure));
        self.rest = Vec::new();
        self.owed = 0;
    }

    fn say_failure(&self) -> io::Error {
        let why = self.failure.as_ref().map_or_else(String::new, |failure| failure.to_string());
        io::Error::new(io::ErrorKind::InvalidData, format!("TLS failed: {why}"))
    }

    pub(super) fn write(
        &mut self,
        stream: &TcpStream,
        bytes: &[u8],
        more: bool,
    ) -> io::Result<usize> {
        if let Some(count) = self.begin_write(stream, bytes.len())? {
            return Ok(count);
        }
        if more && self.held.len() + bytes.len() <= HELD_MAX_BYTES {
            self.held.extend_from_slice(bytes);
            return Ok(bytes.len());
        }
        SCRATCH.with_borrow_mut(|scratch| {
            if self.held.is_empty() {
                let bytes = &bytes[..bytes.len().min(WRITE_MAX_BYTES)];
                return self.seal(stream, &mut scratch.outgoing, bytes, bytes.len());
            }
            let Scratch { plain, outgoing, .. } = scratch;
            let bytes = &bytes[..bytes.len().min(WRITE_MAX_BYTES - self.held.len())];
            plain.clear();
            plain.append(&mut mem::take(&mut self.held));
            plain.extend_from_slice(bytes);
            self.seal(stream, outgoing, plain, bytes.len())
        })
    }

    pub(super) fn send_file(
        &mut self,
        stream: &TcpStream,
        file: &File,
        offset: &mut u64,
        count: usize,
    ) -> io::Result<usize> {
        let mut sent = self.begin_write(stream, count)?;
        if sent.is_none() {
            sent = Some(SCRATCH.with_borrow_mut(|scratch| {
                let Scratch { plain, outgoing, .. } = scratch;
                plain.resize(WRITE_MAX_BYTES, 0);
                let held = self.held.len();
                let end = WRITE_MAX_BYTES.min(held + count);
                let read = file.read_at(&mut plain[held..end], *offset)?;
                if read == 0 {
                    return Ok(0);
                }
                plain[..held].copy_from_slice(&self.held);
                self.held = Vec::new();
                self.seal(stream, outgoing, &plain[..held + read], read)
            })?);
        }
        let sent = sent.unwrap_or(0);
        *offset += sent as u64;
        Ok(sent)
    }

    /// Sees to it that nothing waits. What was encrypted in a call before and has left only now
    /// is what the present call has written.
    fn begin_write(&mut self, stream: &TcpStream, offered: usize) -> io::Result<Option<usize>> {
        match self.phase {
            Phase::Handshaking => return Err(io::ErrorKind::NotConnected.into()),
            Phase::Failed => return Err(io::ErrorKind::BrokenPipe.into()),
            Phase::Open => self.flush(stream)?,
        }
        debug_assert!(self.owed <= offered, "a write is repeated with the same bytes");
        let count = mem::take(&mut self.owed).min(offered);
        Ok((count > 0).then_some(count))
    }

    /// Encrypts and sends: `count` bytes of it are the caller's.
    fn seal(
        &mut self,
        stream: &TcpStream,
        outgoing: &mut Outgoing,
        bytes: &[u8],
        count: usize,
    ) -> io::Result<usize> {
        self.drive(Work::Write(bytes), outgoing);
        if self.phase == Phase::Failed {
            return Err(self.say_failure());
        }
        self.transmit(stream, outgoing.bytes())?;
        if self.wants_write() {
            self.owed = count;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(count)
    }

    /// Has the engine do something for which it needs no more bytes.
    fn drive(&mut self, work: Work<'_>, outgoing: &mut Outgoing) {
        outgoing.clear();
        let decrypted = &mut self.decrypted;
        let mut take = |plain: &[u8]| decrypted.extend_from_slice(plain);
        // The engine may have a part of the rest in its mind.
        let driven = self.engine.drive(&mut self.rest, work, &mut take, outgoing);
        self.rest.drain(..driven.used);
        self.settle(driven);
    }

    /// Sends encrypted bytes, or keeps what the socket does not take.
    fn transmit(&mut self, stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.wants_write() {
            self.backlog.extend_from_slice(bytes);
            return self.flush(stream).or_else(unless_full);
        }
        let sent = loop {
            match plain::write(stream, bytes, false) {
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break 0,
                Err(error) => return Err(error),
            }
        };
        self.backlog.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    pub(super) fn wants_write(&self) -> bool {
        !self.backlog.is_empty()
    }

    pub(super) fn flush(&mut self, stream: &TcpStream) -> io::Result<()> {
        while self.sent < self.backlog.len() {
            match plain::write(stream, &self.backlog[self.sent..], false) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        (self.backlog, self.sent) = (Vec::new(), 0);
        Ok(())
    }

    /// Says that nothing more comes, and sends all that waits.
    pub(super) fn close(&mut self, stream: &TcpStream) -> io::Result<()> {
        if self.phase == Phase::Open && !mem::replace(&mut self.closed, true) {
            let held = mem::take(&mut self.held);
            SCRATCH.with_borrow_mut(|scratch| {
                let outgoing = &mut scratch.outgoing;
                for work in [Work::Write(&held), Work::Close] {
                    self.drive(work, outgoing);
                    self.transmit(stream, outgoing.bytes())?;
                }
                Ok::<(), io::Error>(())
            })?;
        }
        self.flush(stream)
    }
}

/// See [`Transport::forget_read`](super::Transport::forget_read). Records are decrypted in place.
pub(super) fn forget_read() {
    SCRATCH.with_borrow_mut(|scratch| scratch.incoming.zeroize());
}

fn unless_full(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::WouldBlock => Ok(()),
        _ => Err(error),
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tls").field("phase", &self.phase).finish_non_exhaustive()
    }
}
