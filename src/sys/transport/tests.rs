//! Both layers over real sockets of both families.

use std::io::{Read as _, Write as _};
use std::net::{self, Shutdown};
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
        pairs.push((Transport::plain(stream), peer));
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
