//! The bytes of one connection, whatever protects them on their way.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::Shutdown;

use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::net::SendFlags;

use super::files;

/// A connection. All calls are non-blocking: `WouldBlock` means wait for readiness, and readiness
/// is edge-triggered, so go on until it comes.
///
/// TLS becomes the second variant; what differs there (several turns to read, no sendfile) stays
/// behind these methods.
#[derive(Debug)]
pub enum Transport {
    /// TCP as it is.
    Plain(TcpStream),
}

impl Transport {
    /// Reads into `buffer`; 0 means that the peer sends no more.
    ///
    /// # Errors
    /// What recv(2) said.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self::Plain(stream) = self;
        stream.read(buffer)
    }

    /// Writes the start of `bytes` and tells how much of it. With `more` the kernel may hold back
    /// an unfilled packet for what follows at once, such as the body after its header (send(2),
    /// `MSG_MORE`); without anything following it leaves only after 200 ms.
    ///
    /// # Errors
    /// What send(2) said; a connection that is gone is `BrokenPipe`, never a signal.
    pub fn write(&mut self, bytes: &[u8], more: bool) -> io::Result<usize> {
        let Self::Plain(stream) = self;
        Ok(rustix::net::send(stream, bytes, send_flags(more))?)
    }

    /// Sends up to `count` bytes of `file` from `offset` on, and moves `offset` on; 0 means that
    /// the file ends there.
    ///
    /// # Errors
    /// As [`files::send_file`].
    pub fn send_file(&mut self, file: &File, offset: &mut u64, count: usize) -> io::Result<usize> {
        let Self::Plain(stream) = self;
        files::send_file(stream, file, offset, count)
    }

    /// Tells the peer that nothing more comes, after what was written; reading goes on. Fine to
    /// repeat, and after the peer has gone.
    ///
    /// # Errors
    /// What shutdown(2) said.
    pub fn shutdown_write(&mut self) -> io::Result<()> {
        let Self::Plain(stream) = self;
        match stream.shutdown(Shutdown::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other,
        }
    }
}

fn send_flags(more: bool) -> SendFlags {
    if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL }
}

impl Source for Transport {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        let Self::Plain(stream) = self;
        stream.register(registry, token, interests)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        let Self::Plain(stream) = self;
        stream.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        let Self::Plain(stream) = self;
        stream.deregister(registry)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net;
    use std::time::{Duration, Instant};

    use mio::{Events, Poll};

    use super::*;
    use crate::sys::listen;

    /// For each family of this host: a transport and the peer at its other end.
    fn pairs() -> Vec<(Transport, net::TcpStream)> {
        let mut pairs = Vec::new();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = net::TcpListener::bind(address) else {
                println!("skipped for {address}: this host has no such loopback address");
                continue;
            };
            let peer = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            let stream = TcpStream::from_std(stream);
            listen::prepare(&stream).unwrap();
            pairs.push((Transport::Plain(stream), peer));
        }
        pairs
    }

    fn file_of(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    fn would_block<T: std::fmt::Debug>(result: io::Result<T>) -> bool {
        matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    #[test]
    fn readiness_comes_through_the_transport() {
        for (mut transport, mut peer) in pairs() {
            let mut poll = Poll::new().unwrap();
            let mut events = Events::with_capacity(4);
            let registry = poll.registry().try_clone().unwrap();
            registry.register(&mut transport, Token(7), Interest::READABLE).unwrap();
            let mut buffer = [0; 16];
            assert!(would_block(transport.read(&mut buffer)));
            peer.write_all(b"hello").unwrap();
            poll.poll(&mut events, None).unwrap();
            assert!(events.iter().any(|event| event.token() == Token(7) && event.is_readable()));
            assert_eq!(transport.read(&mut buffer).unwrap(), 5);
            assert_eq!(&buffer[..5], b"hello");

            registry.reregister(&mut transport, Token(8), Interest::WRITABLE).unwrap();
            poll.poll(&mut events, None).unwrap();
            assert!(events.iter().any(|event| event.token() == Token(8) && event.is_writable()));
            registry.deregister(&mut transport).unwrap();
        }
    }

    #[test]
    fn a_header_waits_for_its_body_and_nothing_waits_after_it() {
        let file = file_of(b"abcdefgh");
        for (mut transport, mut peer) in pairs() {
            let mut deliver = |_| {
                let mut buffer = [0; 64];
                assert_eq!(transport.write(b"header:", true).unwrap(), 7);
                peer.set_nonblocking(true).unwrap();
                assert!(would_block(peer.read(&mut buffer)), "the header left alone");
                peer.set_nonblocking(false).unwrap();
                let begun = Instant::now();
                let mut offset = 2;
                assert_eq!(transport.send_file(&file, &mut offset, 4).unwrap(), 4);
                assert_eq!(offset, 6);
                let count = peer.read(&mut buffer).unwrap();
                assert_eq!(&buffer[..count], b"header:cdef");
                begun.elapsed()
            };
            // A busy machine may hold up any single one.
            let quickest = (0..3).map(&mut deliver).min().expect("some were delivered");
            assert!(quickest < Duration::from_millis(150), "{quickest:?}");
        }
    }

    #[test]
    fn a_full_socket_says_so_and_loses_nothing() {
        for (mut transport, mut peer) in pairs() {
            let block = vec![b'y'; 1 << 20];
            let mut written = 0;
            let full = loop {
                match transport.write(&block, false) {
                    Ok(count) => written += count,
                    other => break other,
                }
            };
            assert!(would_block(full));
            let file = file_of(&block);
            assert!(would_block(transport.send_file(&file, &mut 0, 10)));
            let reading = std::thread::spawn(move || {
                let mut all = Vec::new();
                peer.read_to_end(&mut all).map(|_| all.len())
            });
            transport.shutdown_write().unwrap();
            assert_eq!(reading.join().unwrap().unwrap(), written);
        }
    }

    #[test]
    fn half_close_leaves_the_other_direction_open() {
        for (mut transport, mut peer) in pairs() {
            transport.shutdown_write().unwrap();
            transport.shutdown_write().unwrap();
            assert_eq!(peer.read(&mut [0; 4]).unwrap(), 0);
            peer.write_all(b"late").unwrap();
            peer.shutdown(Shutdown::Both).unwrap();
            // Loopback delivers within the call that sends, so both are here already.
            let mut buffer = [0; 8];
            assert_eq!(transport.read(&mut buffer).unwrap(), 4);
            assert_eq!(transport.read(&mut buffer).unwrap(), 0);
        }
    }

    #[test]
    fn a_peer_that_reset_is_an_error_and_no_signal() {
        for (mut transport, peer) in pairs() {
            let socket = socket2::Socket::from(peer);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
            drop(socket);
            let read = transport.read(&mut [0; 4]).unwrap_err();
            assert_eq!(read.kind(), io::ErrorKind::ConnectionReset);
            let write = transport.write(b"x", false).unwrap_err();
            assert_eq!(write.kind(), io::ErrorKind::BrokenPipe);
            let file = file_of(b"x");
            let sent = transport.send_file(&file, &mut 0, 1).unwrap_err();
            assert_eq!(sent.kind(), io::ErrorKind::BrokenPipe);
            transport.shutdown_write().unwrap();
        }
    }
}
