//! TLS over real sockets of both families, against rustls' own buffered client.

use std::io::{Read as _, Write as _};
use std::net::{self, Shutdown};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConnection, StreamOwned};

use super::super::{SecureError, Transport};
use super::*;
use crate::sys::fingerprint::Fingerprint;
use crate::sys::tls::{self as setup, Trust};

/// How long anything may take before it counts as never happening.
const PATIENCE: Duration = Duration::from_secs(10);

type Peer = StreamOwned<ClientConnection, net::TcpStream>;

fn key_and_certificate() -> (PrivateKeyDer<'static>, CertificateDer<'static>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["server.test".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    (PrivateKeyDer::Pkcs8(key.serialize_der().into()), certificate)
}

fn server_config() -> Arc<ServerConfig> {
    let (key, certificate) = key_and_certificate();
    setup::server_config(vec![certificate], key).unwrap()
}

fn client_config() -> Arc<ClientConfig> {
    setup::client_config(Trust::Pins(Vec::new())).unwrap().0
}

fn name() -> ServerName<'static> {
    ServerName::try_from("server.test").unwrap()
}

/// For each family of this host: both ends of a connection.
fn sockets() -> Vec<(net::TcpStream, net::TcpStream)> {
    let mut pairs = Vec::new();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = net::TcpListener::bind(address) else {
            println!("skipped for {address}: this host has no such loopback address");
            continue;
        };
        let peer = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        pairs.push((listener.accept().unwrap().0, peer));
    }
    pairs
}

fn accepted(stream: net::TcpStream, config: &Arc<ServerConfig>) -> Transport {
    stream.set_nonblocking(true).unwrap();
    Transport::accepted(TcpStream::from_std(stream), Arc::clone(config))
}

fn wait(transport: &Transport, flags: PollFlags) {
    let patience = Timespec::try_from(PATIENCE).unwrap();
    let ready = poll(&mut [PollFd::new(transport.stream(), flags)], Some(&patience)).unwrap();
    assert_eq!(ready, 1, "nothing happened in time");
}

/// Reads as soon as there is something.
fn read(transport: &mut Transport, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match transport.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait(transport, PollFlags::IN);
            }
            other => return other,
        }
    }
}

fn read_exactly(transport: &mut Transport, count: usize, room: usize) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; room]);
    while all.len() < count {
        let read = read(transport, &mut buffer).unwrap();
        assert_ne!(read, 0, "the end after {} bytes", all.len());
        all.extend_from_slice(&buffer[..read]);
    }
    all
}

/// Writes all, a call as often as the socket asks for it.
fn write_all(transport: &mut Transport, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match transport.write(bytes, false) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                assert!(transport.wants_write());
                wait(transport, PollFlags::OUT);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn peer(stream: net::TcpStream) -> Peer {
    StreamOwned::new(ClientConnection::new(client_config(), name()).unwrap(), stream)
}

/// A session for each family: the server's side after the handshake, and rustls' own client.
fn sessions() -> Vec<(Transport, Peer)> {
    let config = server_config();
    let finish = |(server, client): (net::TcpStream, net::TcpStream)| {
        let mut server = accepted(server, &config);
        let client = thread::spawn(move || {
            let mut peer = peer(client);
            peer.write_all(b"!").unwrap();
            peer
        });
        assert_eq!(read_exactly(&mut server, 1, 64 * 1024), b"!");
        assert!(server.is_secured() && !server.has_failed());
        (server, client.join().unwrap())
    };
    sockets().into_iter().map(finish).collect()
}

fn noise(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// A ClientHello as rustls writes it.
fn hello() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut connection = ClientConnection::new(client_config(), name()).unwrap();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_hello_may_come_in_any_pieces() {
    let (config, hello) = (server_config(), hello());
    for cut in 1..hello.len() {
        let Some((server, mut client)) = sockets().into_iter().nth(cut % 2) else { continue };
        let mut server = accepted(server, &config);
        client.write_all(&hello[..cut]).unwrap();
        let early = server.read(&mut [0; 64 * 1024]);
        assert_eq!(early.unwrap_err().kind(), io::ErrorKind::WouldBlock, "cut at {cut}");
        client.write_all(&hello[cut..]).unwrap();
        wait(&server, PollFlags::IN);
        let late = server.read(&mut [0; 64 * 1024]);
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::WouldBlock, "cut at {cut}");
        let mut answer = [0; 6];
        client.read_exact(&mut answer).unwrap();
        assert_eq!((answer[0], answer[5]), (0x16, 0x02), "a ServerHello, cut at {cut}");
    }
}

#[test]
fn a_handshake_survives_one_byte_a_segment() {
    /// Writes and reads a byte at a time.
    struct Trickle(net::TcpStream);
    impl io::Read for Trickle {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = buffer.len().min(1);
            self.0.read(&mut buffer[..most])
        }
    }
    impl io::Write for Trickle {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(&bytes[..bytes.len().min(1)])
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let config = server_config();
    for (server, client) in sockets() {
        let mut server = accepted(server, &config);
        client.set_nodelay(true).unwrap();
        let client = thread::spawn(move || {
            let connection = ClientConnection::new(client_config(), name()).unwrap();
            let mut stream = StreamOwned::new(connection, Trickle(client));
            stream.write_all(b"hello").unwrap();
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).unwrap();
            answer
        });
        assert_eq!(read_exactly(&mut server, 5, 64 * 1024), b"hello");
        write_all(&mut server, b"world");
        assert_eq!(&client.join().unwrap(), b"world");
    }
}

#[test]
fn what_ends_a_handshake_is_an_error_and_not_a_loop() {
    let (config, hello) = (server_config(), hello());
    let alert = |level, what| vec![0x15, 3, 3, 0, 2, level, what];
    let garbage = vec![0x16, 3, 1, 0, 4, 2, 0, 0, 0];
    let short = hello[..hello.len() / 2].to_vec();
    let cases: [(&[&[u8]], io::ErrorKind); 6] = [
        (&[&hello, &alert(1, 0)], io::ErrorKind::InvalidData),
        (&[&hello, &alert(2, 48)], io::ErrorKind::InvalidData),
        (&[&hello, b"GET / HTTP/1.1\r\n"], io::ErrorKind::InvalidData),
        (&[&garbage], io::ErrorKind::InvalidData),
        (&[&short], io::ErrorKind::UnexpectedEof),
        (&[&hello], io::ErrorKind::UnexpectedEof),
    ];
    for (parts, kind) in cases {
        for (server, mut client) in sockets() {
            let mut server = accepted(server, &config);
            parts.iter().for_each(|part| client.write_all(part).unwrap());
            client.shutdown(Shutdown::Write).unwrap();
            let error = read(&mut server, &mut [0; 64 * 1024]).unwrap_err();
            assert_eq!(error.kind(), kind, "{parts:?}: {error}");
            assert!(server.write(b"x", false).is_err() && !server.is_secured());
            let again = server.read(&mut [0; 64 * 1024]).unwrap_err();
            assert_eq!(again.kind(), kind, "it stays an end");
        }
    }
}

#[test]
fn a_bad_handshake_is_answered_by_an_alert() {
    let config = server_config();
    for (server, mut client) in sockets() {
        let mut server = accepted(server, &config);
        client.write_all(&[0x16, 3, 1, 0, 4, 1, 0, 0, 9, 0x16, 3, 1, 0, 9]).unwrap();
        client.write_all(&[0xff; 9]).unwrap();
        let error = read(&mut server, &mut [0; 64 * 1024]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(server.has_failed());
        let _ = server.shutdown_write();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert!(matches!(answer[..], [0x15, 3, 3, 0, 2, 2, _]), "{answer:?}");
    }
}

#[test]
fn a_reset_in_the_handshake_is_an_error() {
    let (config, hello) = (server_config(), hello());
    for (server, mut client) in sockets() {
        let mut server = accepted(server, &config);
        client.write_all(&hello).unwrap();
        let pending = server.read(&mut [0; 64 * 1024]).unwrap_err();
        assert_eq!(pending.kind(), io::ErrorKind::WouldBlock);
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        let error = read(&mut server, &mut [0; 64 * 1024]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_hello_that_never_ends_is_cut_off() {
    let config = server_config();
    for (server, client) in sockets() {
        let mut server = accepted(server, &config);
        let writer = thread::spawn(move || {
            // A handshake message of 60,000 bytes in records of one byte each.
            let mut records = vec![0x16, 3, 1, 0, 4, 1, 0, 0xea, 0x60];
            (0..60_000).for_each(|_| records.extend([0x16, 3, 1, 0, 1, 7]));
            let _ = (&client).write_all(&records);
            client
        });
        let error = read(&mut server, &mut [0; 64 * 1024]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        drop(server);
        writer.join().unwrap();
    }
}

#[test]
fn large_messages_go_both_ways_at_once_through_small_sockets() {
    let (up, down) = (noise(6_000_000), noise(6_000_001));
    for (mut server, client) in sessions() {
        socket2::SockRef::from(&client.sock).set_recv_buffer_size(64 * 1024).unwrap();
        let (sent, wanted) = (up.clone(), down.len());
        let client = thread::spawn(move || {
            let mut client = client;
            client.write_all(&sent).unwrap();
            let mut got = vec![0; wanted];
            client.read_exact(&mut got).unwrap();
            got
        });
        assert!(read_exactly(&mut server, up.len(), 64 * 1024) == up);
        write_all(&mut server, &down);
        assert!(client.join().unwrap() == down);
    }
}

#[test]
fn a_write_that_the_socket_does_not_take_is_told_as_written_only_when_it_is() {
    for (mut server, mut client) in sessions() {
        let block = noise(1 << 20);
        let (mut told, mut blocked) = (0, 0);
        // Until nothing goes any more, however often it is tried.
        while blocked < 3 {
            match server.write(&block[told % block.len()..], false) {
                Ok(count) => told += count,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    blocked += 1;
                }
            }
        }
        assert!(server.wants_write());
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            // What was encrypted goes out; the end is said behind it.
            client.read_to_end(&mut all).map(|_| all)
        });
        while let Err(error) = server.shutdown_write() {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            wait(&server, PollFlags::OUT);
        }
        let all = reader.join().unwrap().unwrap();
        assert!(all.len() > told && all.len() - told <= WRITE_MAX_BYTES, "{} {told}", all.len());
        assert!(all.iter().zip(block.iter().cycle()).all(|(one, other)| one == other));
    }
}

#[test]
fn a_small_buffer_leaves_nothing_behind_and_nothing_unsaid() {
    let sent = noise(100_000);
    for (mut server, mut client) in sessions() {
        client.write_all(&sent).unwrap();
        let (mut all, mut buffer) = (Vec::new(), [0; 16]);
        while all.len() < sent.len() {
            let count = read(&mut server, &mut buffer).unwrap();
            all.extend_from_slice(&buffer[..count]);
            // The poller will not tell of what is decrypted already.
            let is_done = all.len() == sent.len();
            assert!(is_done || !server.has_drained(count, buffer.len()) || count == 16);
        }
        assert!(all == sent);
        assert_eq!(server.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}

#[test]
fn an_end_has_to_be_said() {
    for said in [true, false] {
        for (mut server, mut client) in sessions() {
            client.write_all(b"last").unwrap();
            if said {
                client.conn.send_close_notify();
                client.flush().unwrap();
            }
            client.sock.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_exactly(&mut server, 4, 64 * 1024), b"last");
            let end = read(&mut server, &mut [0; 64]);
            if said {
                assert_eq!(end.unwrap(), 0);
                // The other half is open still.
                write_all(&mut server, b"answer");
                let mut answer = [0; 6];
                client.read_exact(&mut answer).unwrap();
                assert_eq!(&answer, b"answer");
            } else {
                assert_eq!(end.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            }
        }
    }
}

#[test]
fn our_end_is_said_before_the_socket_is_shut() {
    for (mut server, mut client) in sessions() {
        write_all(&mut server, b"goodbye");
        server.shutdown_write().unwrap();
        server.shutdown_write().unwrap();
        let mut all = Vec::new();
        // rustls reports an end that was not said as an error.
        client.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"goodbye");
        client.write_all(b"late").unwrap();
        assert_eq!(read_exactly(&mut server, 4, 64), b"late");
    }
}

#[test]
fn a_file_goes_out_byte_by_byte_with_its_header_in_one_record() {
    let content = noise(700_001);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content).unwrap();
    for (mut server, mut client) in sessions() {
        let wanted = content.len() - 5;
        let reader = thread::spawn(move || {
            let mut all = vec![0; 7 + wanted];
            client.read_exact(&mut all).unwrap();
            all
        });
        assert_eq!(server.write(b"header:", true).unwrap(), 7);
        assert!(!server.wants_write(), "it waits for the file");
        let mut offset = 5;
        while offset < content.len() as u64 {
            match server.send_file(&file, &mut offset, 300_000) {
                Ok(count) => assert!(0 < count && count <= WRITE_MAX_BYTES),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    wait(&server, PollFlags::OUT);
                }
            }
        }
        assert_eq!(server.send_file(&file, &mut offset, 10).unwrap(), 0, "the file ends here");
        let all = reader.join().unwrap();
        assert!(all[..7] == *b"header:" && all[7..] == content[5..]);
    }
}

#[test]
fn keys_are_renewed_on_either_side() {
    for (mut server, mut client) in sessions() {
        for _ in 0..3 {
            client.conn.refresh_traffic_keys().unwrap();
            client.write_all(b"ping").unwrap();
            assert_eq!(read_exactly(&mut server, 4, 64 * 1024), b"ping");
            write_all(&mut server, b"pong");
            let mut answer = [0; 4];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"pong");
        }
    }
}

#[test]
fn a_message_of_tls_in_pieces_may_have_answers_in_between() {
    use rustls::crypto::cipher::{OutboundChunks, OutboundPlainMessage};
    use rustls::{ConnectionTrafficSecrets, ContentType, ProtocolVersion};
    let config = server_config();
    for (server, client) in sockets() {
        let mut server = accepted(server, &config);
        let client = thread::spawn(move || {
            let mut own = ClientConfig::clone(&client_config());
            own.enable_secret_extraction = true;
            let connection = ClientConnection::new(Arc::new(own), name()).unwrap();
            let mut stream = StreamOwned::new(connection, client);
            stream.write_all(b"!").unwrap();
            stream
        });
        read_exactly(&mut server, 1, 64 * 1024);
        let StreamOwned { conn, sock: mut client } = client.join().unwrap();
        let (mut sequence, secrets) = conn.dangerous_extract_secrets().unwrap().tx;
        let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else { panic!("AES first") };
        let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().unwrap();
        let mut encrypter = suite.aead_alg.encrypter(key, iv);
        // A KeyUpdate that asks for another one (RFC 8446, section 4.6.3).
        for (part, answer) in [(&[24, 0][..], b"one"), (&[0, 1, 1], b"two")] {
            let message = OutboundPlainMessage {
                typ: ContentType::Handshake,
                version: ProtocolVersion::TLSv1_2,
                payload: OutboundChunks::Single(part),
            };
            client.write_all(&encrypter.encrypt(message, sequence).unwrap().encode()).unwrap();
            sequence += 1;
            wait(&server, PollFlags::IN);
            let nothing = server.read(&mut [0; 64 * 1024]).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
            write_all(&mut server, answer);
        }
        assert!(server.is_secured());
    }
}

#[test]
fn whoever_offers_other_protocols_alone_is_refused() {
    let config = server_config();
    for (offered, good) in [
        (&[][..], true),
        (&[b"sixfour".to_vec()], true),
        (&[b"h2".to_vec(), b"sixfour".to_vec()], true),
        (&[b"h2".to_vec(), b"http/1.1".to_vec()], false),
    ] {
        for (server, client) in sockets() {
            let mut server = accepted(server, &config);
            let mut own = ClientConfig::clone(&client_config());
            own.alpn_protocols = offered.to_vec();
            let client = thread::spawn(move || {
                let connection = ClientConnection::new(Arc::new(own), name()).unwrap();
                let mut stream = StreamOwned::new(connection, client);
                stream.write_all(b"x").and_then(|()| stream.read(&mut [0; 8]))
            });
            let got = read(&mut server, &mut [0; 64 * 1024]);
            assert_eq!(got.is_ok(), good, "{offered:?}");
            let _ = server.write(b"y", false);
            let _ = server.shutdown_write();
            match client.join().unwrap() {
                Ok(count) => assert!(good && count == 1),
                Err(error) => assert!(!good && error.to_string().contains("NoApplicationProtocol")),
            }
        }
    }
}

/// What our client makes of a server that does `serve` with its end of the connection.
fn secured_against(
    trust: Trust,
    serve: impl FnOnce(net::TcpStream) + Send + Copy + 'static,
) -> Vec<Result<Transport, SecureError>> {
    let attempt = |(server, client)| {
        let server = thread::spawn(move || serve(server));
        let config = setup::client_config(trust.clone()).unwrap().0;
        let result = Transport::secure(client, config, name(), Duration::from_millis(1500));
        server.join().unwrap();
        result
    };
    sockets().into_iter().map(attempt).collect()
}

/// A server that takes all and says nothing.
fn hold(mut server: net::TcpStream) {
    let _ = server.read_to_end(&mut Vec::new());
}

#[test]
fn our_client_tells_what_answers_there() {
    let any = Trust::Pins(Vec::new());
    for result in secured_against(any.clone(), |mut server| {
        server.write_all(b"220 mail.example ESMTP\r\n").unwrap();
        let _ = server.read_to_end(&mut Vec::new());
    }) {
        assert!(matches!(result, Err(SecureError::NotTls)), "{result:?}");
    }
    for result in secured_against(any.clone(), drop) {
        assert!(matches!(result, Err(SecureError::Io(_))), "{result:?}");
    }
    for result in secured_against(any.clone(), hold) {
        assert!(matches!(result, Err(SecureError::TimedOut)), "{result:?}");
    }
    for result in secured_against(any, |mut server| {
        server.write_all(&[0x15, 3, 3, 0, 2, 2, 40]).unwrap();
        let _ = server.read_to_end(&mut Vec::new());
    }) {
        let told = rustls::Error::AlertReceived(rustls::AlertDescription::HandshakeFailure);
        assert!(matches!(result, Err(SecureError::Tls(error)) if error == told));
    }
}

#[test]
fn our_client_and_our_server_agree_and_pins_hold() {
    let (key, certificate) = key_and_certificate();
    let known = Fingerprint::of(&certificate).unwrap();
    let config = setup::server_config(vec![certificate], key).unwrap();
    let other = Fingerprint::of(&key_and_certificate().1).unwrap();
    for (pins, good) in
        [(vec![], true), (vec![known], true), (vec![other, known], true), (vec![other], false)]
    {
        for (server, client) in sockets() {
            let mut server = accepted(server, &config);
            let (own, seen) = setup::client_config(Trust::Pins(pins.clone())).unwrap();
            let client = thread::spawn(move || {
                let mut client = Transport::secure(client, own, name(), PATIENCE)?;
                write_all(&mut client, b"x");
                assert_eq!(read_exactly(&mut client, 1, 512 * 1024), b"y");
                Ok::<(), SecureError>(())
            });
            let got = read(&mut server, &mut [0; 64 * 1024]);
            assert_eq!(got.is_ok(), good);
            let _ = server.write(b"y", false);
            assert_eq!(client.join().unwrap().is_ok(), good);
            assert_eq!(seen.get(), Some(&known), "the key is known also where it is refused");
        }
    }
}

#[test]
fn a_copied_certificate_is_worth_nothing_without_its_key() {
    /// A server that shows the certificate of another one.
    #[derive(Debug)]
    struct Thief(Arc<rustls::sign::CertifiedKey>);
    impl rustls::server::ResolvesServerCert for Thief {
        fn resolve(
            &self,
            _hello: rustls::server::ClientHello<'_>,
        ) -> Option<Arc<rustls::sign::CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }
    let (_, copied) = key_and_certificate();
    let (own_key, _) = key_and_certificate();
    let signing = rustls::crypto::ring::sign::any_supported_type(&own_key).unwrap();
    let stolen = Arc::new(rustls::sign::CertifiedKey::new(vec![copied.clone()], signing));
    let mut config = ServerConfig::clone(&server_config());
    config.cert_resolver = Arc::new(Thief(stolen));
    let config = Arc::new(config);
    let pinned = Fingerprint::of(&copied).unwrap();
    for pins in [vec![pinned], vec![]] {
        for (server, client) in sockets() {
            let mut server = accepted(server, &config);
            let own = setup::client_config(Trust::Pins(pins.clone())).unwrap().0;
            let client =
                thread::spawn(move || Transport::secure(client, own, name(), PATIENCE).map(drop));
            assert!(read(&mut server, &mut [0; 64 * 1024]).is_err());
            let refused = client.join().unwrap().unwrap_err();
            assert!(
                matches!(refused, SecureError::Tls(rustls::Error::InvalidCertificate(_))),
                "{refused:?}"
            );
        }
    }
}

#[test]
fn an_idle_session_owns_no_buffers() {
    for (mut server, mut client) in sessions() {
        client.write_all(&noise(50_000)).unwrap();
        read_exactly(&mut server, 50_000, 64 * 1024);
        write_all(&mut server, &noise(50_000));
        let Transport { layer: super::super::Layer::Tls(tls), .. } = &server else {
            panic!("it is TLS")
        };
        let owned = [&tls.rest, &tls.decrypted, &tls.backlog, &tls.held];
        assert!(owned.iter().all(|buffer| buffer.capacity() == 0));
    }
}
