//! The client's part of a handshake, done by a thread that waits for it.

use std::fmt;
use std::io;
use std::net;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, InvalidMessage};

use super::tls::Tls;

/// Why a connection could not be secured. Nothing but the handshake was sent.
#[derive(Debug)]
pub enum SecureError {
    /// What answers there speaks no TLS.
    NotTls,
    /// It speaks TLS, and not of our protocol: it is no server of ours.
    OtherProtocol,
    /// It did not answer in time.
    TimedOut,
    /// TLS itself failed: the certificate, the signature, or what either side had to say.
    Tls(rustls::Error),
    /// The connection failed.
    Io(io::Error),
}

impl fmt::Display for SecureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecureError::NotTls => f.write_str("it does not speak TLS"),
            SecureError::OtherProtocol => f.write_str("it speaks TLS, but is no sixfour server"),
            SecureError::TimedOut => f.write_str("it did not answer the TLS handshake in time"),
            SecureError::Tls(error) => write!(f, "the TLS handshake failed: {error}"),
            SecureError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("it closed the connection within the TLS handshake")
            }
            SecureError::Io(error) => write!(f, "the TLS handshake failed: {error}"),
        }
    }
}

impl std::error::Error for SecureError {}

/// Does the handshake on `stream`, which is given back without blocking.
pub(super) fn secure(
    stream: net::TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    timeout: Duration,
) -> Result<(TcpStream, Tls), SecureError> {
    let begun = Instant::now();
    stream.set_nonblocking(true).map_err(SecureError::Io)?;
    let stream = TcpStream::from_std(stream);
    let wanted = config.alpn_protocols.clone();
    let mut tls = Tls::client(config, name).map_err(SecureError::Tls)?;
    loop {
        match tls.handshake(&stream) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let left = timeout.saturating_sub(begun.elapsed());
                if left.is_zero() {
                    return Err(SecureError::TimedOut);
                }
                wait(&stream, tls.wants_write(), left);
                continue;
            }
            Err(error) => return Err(SecureError::Io(error)),
        }
        if let Some(error) = tls.take_failure() {
            return Err(classify(error));
        }
        let is_ours = tls.protocol().is_some_and(|it| wanted.iter().any(|wanted| wanted == it));
        return if is_ours { Ok((stream, tls)) } else { Err(SecureError::OtherProtocol) };
    }
}

/// Waits until the socket is ready, or the time is over.
fn wait(stream: &TcpStream, for_room: bool, left: Duration) {
    let flags = if for_room { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    let left = Timespec::try_from(left.min(Duration::from_secs(1))).expect("a second fits");
    // An interrupted wait is an empty one: the caller looks again.
    let _ = poll(&mut [PollFd::new(stream, flags)], Some(&left));
}

fn classify(error: rustls::Error) -> SecureError {
    match error {
        rustls::Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => SecureError::NotTls,
        rustls::Error::NoApplicationProtocol => SecureError::OtherProtocol,
        rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol) => {
            SecureError::OtherProtocol
        }
        error => SecureError::Tls(error),
    }
}
