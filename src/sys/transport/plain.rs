//! TCP as it is.

use std::io::{self, Read as _};
use std::net::Shutdown;

use mio::net::TcpStream;
use rustix::net::SendFlags;

/// recv(2).
pub(super) fn read(mut stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    stream.read(buffer)
}

/// send(2), without a signal where the connection is gone.
pub(super) fn write(stream: &TcpStream, bytes: &[u8], more: bool) -> io::Result<usize> {
    let flags = if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
    Ok(rustix::net::send(stream, bytes, flags)?)
}

/// shutdown(2) of the writing half; a connection that is gone is shut.
pub(super) fn shutdown_write(stream: &TcpStream) -> io::Result<()> {
    match stream.shutdown(Shutdown::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        other => other,
    }
}
