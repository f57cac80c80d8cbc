//! The bytes of one connection, whatever protects them on their way.
//!
//! ```text
//!   accepted: Undecided --16 03--> Tls        connected: Plain, or Tls by [`Transport::secure`]
//!                     \--other---> Plain
//! ```

use std::fs::File;
use std::io;
use std::net;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};

mod handshake;
mod plain;
#[cfg(test)]
mod tests;
mod tls;

pub use handshake::SecureError;
use tls::Tls;

/// The first two bytes of a TLS ClientHello: a handshake record of version 3.x (RFC 8446,
/// section 5.1).
const HELLO: [u8; 2] = [0x16, 0x03];

/// The fatal alert `internal_error`, as one sends it before a handshake (RFC 8446, section 6).
const BUSY: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x50];

/// A connection. All calls are non-blocking: `WouldBlock` means wait for readiness, and readiness
/// is edge-triggered, so go on until it comes.
#[derive(Debug)]
pub struct Transport {
    stream: TcpStream,
    layer: Layer,
}

#[derive(Debug)]
enum Layer {
    /// An accepted connection whose first bytes will tell. `begun` says that the first byte of a
    /// hello was read, and nothing else.
    Undecided { config: Arc<ServerConfig>, begun: bool },
    /// TCP as it is.
    Plain,
    /// TLS, in its handshake or after it. Boxed: most sessions of a busy server may have none.
    Tls(Box<Tls>),
}

impl Transport {
    /// A connection in clear.
    pub fn plain(stream: TcpStream) -> Transport {
        Transport { stream, layer: Layer::Plain }
    }

    /// A connection that was accepted: its first bytes tell whether it is TLS.
    pub fn accepted(stream: TcpStream, config: Arc<ServerConfig>) -> Transport {
        Transport { stream, layer: Layer::Undecided { config, begun: false } }
    }

    /// Does the client's part of the handshake on a fresh connection. Blocks for at most
    /// `timeout`, so it wants a thread of its own.
    ///
    /// # Errors
    /// [`SecureError`]; nothing but the handshake was sent then.
    pub fn secure(
        stream: net::TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        timeout: Duration,
    ) -> Result<Transport, SecureError> {
        let (stream, tls) = handshake::secure(stream, config, name, timeout)?;
        Ok(Transport { stream, layer: Layer::Tls(Box::new(tls)) })
    }

    /// The socket below.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether TLS protects it: the handshake is complete.
    pub fn is_secured(&self) -> bool {
        matches!(&self.layer, Layer::Tls(tls) if tls.is_open())
    }

    /// Whether the handshake or a record failed. The alert that says why is on its way, and
    /// nothing else can be written or read.
    pub fn has_failed(&self) -> bool {
        matches!(&self.layer, Layer::Tls(tls) if tls.has_failed())
    }

    /// Reads into `buffer`, which has room for at least two bytes; 0 means that the peer sends no
    /// more. With TLS the end has to be said (`close_notify`): without that it could be anybody's
    /// who cuts the connection.
    ///
    /// # Errors
    /// What recv(2) said. With TLS: `UnexpectedEof` for an end that was not said, `InvalidData`
    /// for what is no TLS, or not good; see [`Transport::has_failed`].
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.layer {
            Layer::Plain => plain::read(&self.stream, buffer),
            Layer::Tls(tls) => tls.read(&self.stream, buffer),
            Layer::Undecided { .. } => self.decide(buffer),
        }
    }

    /// Reads the first bytes and decides by them.
    fn decide(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Layer::Undecided { config, begun } = &mut self.layer else {
                return self.read(buffer);
            };
            let kept = usize::from(*begun);
            let count = kept + plain::read(&self.stream, &mut buffer[kept..])?;
            buffer[..kept].copy_from_slice(&HELLO[..kept]);
            match &buffer[..count] {
                [first] if *first == HELLO[0] && !*begun => *begun = true,
                bytes if bytes.starts_with(&HELLO) => {
                    let tls = Tls::server(Arc::clone(config), bytes).map_err(io::Error::other)?;
                    self.layer = Layer::Tls(Box::new(tls));
                }
                _ => {
                    self.layer = Layer::Plain;
                    return Ok(count);
                }
            }
        }
    }

    /// Whether a read that gave `count` bytes of the `room` it was offered has taken all there was
    /// (epoll(7)), but for the end. If not, the poller may tell of nothing: read again.
    pub fn has_drained(&self, count: usize, room: usize) -> bool {
        match &self.layer {
            Layer::Tls(tls) => tls.has_drained(),
            Layer::Plain | Layer::Undecided { .. } => count < room,
        }
    }

    /// Writes the start of `bytes` and tells how much of it. With `more` the kernel may hold back
    /// an unfilled packet for what follows at once, such as the body after its header (send(2),
    /// `MSG_MORE`); without anything following it leaves only after 200 ms.
    ///
    /// A call that gave `WouldBlock` must be repeated with the same bytes, or more that begin with
    /// them: with TLS they are encrypted already. The same holds for [`Transport::send_file`].
    ///
    /// # Errors
    /// What send(2) said; a connection that is gone is `BrokenPipe`, never a signal.
    /// `NotConnected` before the end of a handshake.
    pub fn write(&mut self, bytes: &[u8], more: bool) -> io::Result<usize> {
        match &mut self.layer {
            Layer::Tls(tls) => tls.write(&self.stream, bytes, more),
            Layer::Plain | Layer::Undecided { .. } => plain::write(&self.stream, bytes, more),
        }
    }

    /// Sends up to `count` bytes of `file` from `offset` on, and moves `offset` on; 0 means that
    /// the file ends there. In clear they never come here (sendfile(2)); with TLS they are read
    /// and encrypted, at most 96 KiB in one call.
    ///
    /// # Errors
    /// As [`files::send_file`](super::files::send_file), and as [`Transport::write`].
    pub fn send_file(&mut self, file: &File, offset: &mut u64, count: usize) -> io::Result<usize> {
        match &mut self.layer {
            Layer::Tls(tls) => tls.send_file(&self.stream, file, offset, count),
            Layer::Plain | Layer::Undecided { .. } => {
                super::files::send_file(&self.stream, file, offset, count)
            }
        }
    }

    /// Whether bytes of TLS itself wait for the socket: see [`Transport::flush`].
    pub fn wants_write(&self) -> bool {
        matches!(&self.layer, Layer::Tls(tls) if tls.wants_write())
    }

    /// Sends what waits here, if anything does.
    ///
    /// # Errors
    /// As [`Transport::write`].
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.layer {
            Layer::Tls(tls) => tls.flush(&self.stream),
            Layer::Plain | Layer::Undecided { .. } => Ok(()),
        }
    }

    /// Tells the peer that nothing more comes, after what was written; reading goes on. Fine to
    /// repeat, and after the peer has gone.
    ///
    /// # Errors
    /// What shutdown(2) said. `WouldBlock`: something has to leave before; call again when the
    /// socket is writable.
    pub fn shutdown_write(&mut self) -> io::Result<()> {
        if let Layer::Tls(tls) = &mut self.layer {
            tls.close(&self.stream)?;
        }
        plain::shutdown_write(&self.stream)
    }

    /// Reads and throws away what comes, as it is; 0 means that the peer sends no more.
    ///
    /// # Errors
    /// What recv(2) said.
    pub fn discard(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        plain::read(&self.stream, buffer)
    }

    /// Overwrites what is left in memory of the bytes that were read last on this thread: there was
    /// a secret among them.
    pub fn forget_read() {
        tls::forget_read();
    }

    /// Says why nothing is served here, on a connection that was accepted just now: in `words`, or
    /// by an alert where the first bytes, if they are here already, are those of TLS.
    ///
    /// # Errors
    /// As [`Transport::write`].
    pub fn turn_away(&self, words: &[u8]) -> io::Result<()> {
        let mut first = [0; HELLO.len()];
        let peeked = self.stream.peek(&mut first).unwrap_or(0);
        let words = if peeked > 0 && HELLO.starts_with(&first[..peeked]) { &BUSY } else { words };
        plain::write(&self.stream, words, false).map(drop)
    }
}

impl Source for Transport {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        self.stream.register(registry, token, interests)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        self.stream.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.stream.deregister(registry)
    }
}
