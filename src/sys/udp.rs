//! UDP on both address families: many datagrams in one system call, and what QUIC needs to know
//! of each (ECN, the address that it came to).
//!
//! Two sockets serve one port number, `[::]` with `IPV6_V6ONLY` and `0.0.0.0`, as with TCP in
//! [`super::listen`].

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
};

use mio::{Interest, Registry, Token, net::UdpSocket};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
pub use quinn_udp::{EcnCodepoint, Transmit};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::listen::{self, Arranged, Families, Family, ListenError};

/// What the kernel may hold for us, each way: some milliseconds at full speed. It gives less where
/// its `net.core.rmem_max` and `wmem_max` say so.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Room for the datagrams that the kernel hands over in one piece (UDP_GRO): an IP packet at most.
const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;

/// Pieces in one recvmmsg(2).
const RECEIVE_BATCH: usize = if BATCH_SIZE < 16 { BATCH_SIZE } else { 16 };

/// Why the sockets could not be made. Its text says what to do.
#[derive(Debug)]
pub struct BindError(ListenError);

impl fmt::Display for BindError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            ListenError::Busy { family, port } => write!(
                formatter,
                "UDP port {port} is busy on {family}: another program has it; choose another \
                 --udp-port"
            ),
            ListenError::NotAllowed { family, port } => write!(
                formatter,
                "UDP port {port} on {family} is reserved for the system; choose a --udp-port from \
                 1024 on"
            ),
            ListenError::NoFamily { .. } => {
                formatter.write_str("this host has neither IPv6 nor IPv4 for UDP")
            }
            ListenError::NoFreePort => formatter.write_str(
                "found no UDP port that is free on both IPv6 and IPv4; name one by --udp-port",
            ),
            ListenError::Other { family, port, source } => {
                write!(formatter, "cannot use UDP port {port} on {family}: {source}")
            }
        }
    }
}

impl std::error::Error for BindError {}

/// What became of a datagram that was to be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sent {
    /// The system has it, or has lost it as a network may.
    Done,
    /// There is no room; keep it until the socket is writable.
    WouldBlock,
    /// Nothing goes to that address from here.
    Unreachable,
}

/// One piece of what was received: one datagram, or several of `stride` bytes of which the last
/// may be shorter.
#[derive(Debug)]
pub struct Received<'a> {
    /// From whom.
    pub remote: SocketAddr,
    /// To which of our addresses.
    pub local: Option<IpAddr>,
    /// What the network marked.
    pub ecn: Option<EcnCodepoint>,
    /// Bytes of one datagram.
    pub stride: usize,
    /// All of them, one behind the other.
    pub bytes: &'a [u8],
}

#[derive(Debug)]
struct Half {
    socket: UdpSocket,
    state: UdpSocketState,
    family: Family,
    token: Token,
    is_readable: bool,
    is_writable: bool,
}

/// The sockets of both families, as far as this host has them.
pub struct UdpSockets {
    halves: Vec<Half>,
    port: u16,
    notes: Vec<String>,
    buffers: Vec<u8>,
}

impl UdpSockets {
    /// Binds both families to `port`; 0 finds one number that is free in both. The token of each
    /// is told apart by its family: `tokens` are those of IPv6 and IPv4.
    ///
    /// # Errors
    /// [`BindError`], whose text is fit for the user.
    pub fn bind(
        port: u16,
        families: Families,
        tokens: [Token; 2],
        registry: &Registry,
    ) -> Result<UdpSockets, BindError> {
        let Arranged { v6, v4, port, notes } =
            listen::arrange(port, families, open).map_err(BindError)?;
        let mut halves = Vec::new();
        for (socket, token, family) in [(v6, tokens[0], Family::V6), (v4, tokens[1], Family::V4)] {
            let Some(socket) = socket else { continue };
            let half = Half::new(socket, family, token, registry);
            halves.push(
                half.map_err(|source| BindError(ListenError::Other { family, port, source }))?,
            );
        }
        let buffers = vec![0; RECEIVE_BATCH * RECEIVE_BUFFER_BYTES];
        Ok(UdpSockets { halves, port, notes, buffers })
    }

    /// The port of both families.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sentences for the user, such as that this host has no IPv6.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether the system may cut datagrams of ours to pieces; then large ones are not worth it.
    pub fn may_fragment(&self) -> bool {
        self.halves.iter().any(|half| half.state.may_fragment())
    }

    /// Datagrams that may be handed over in one piece (UDP_SEGMENT); 1 where the system cannot.
    pub fn segments_max(&self) -> usize {
        self.halves.iter().map(|half| half.state.max_gso_segments()).min().unwrap_or(1)
    }

    /// Notes what the poll said; false where it spoke of somebody else.
    pub fn handle_ready(&mut self, event: &mio::event::Event) -> bool {
        let half = self.halves.iter_mut().find(|half| half.token == event.token());
        if let Some(half) = half {
            half.is_readable |= event.is_readable() || event.is_error();
            half.is_writable |= event.is_writable();
            return true;
        }
        false
    }

    /// Whether there may be something to receive.
    pub fn is_readable(&self) -> bool {
        self.halves.iter().any(|half| half.is_readable)
    }

    /// Receives once from each socket that has something, and hands over what there was.
    ///
    /// # Errors
    /// A socket is broken.
    pub fn receive(&mut self, mut take: impl FnMut(Received<'_>)) -> io::Result<()> {
        for half in self.halves.iter_mut().filter(|half| half.is_readable) {
            let mut metas = [RecvMeta::default(); RECEIVE_BATCH];
            let mut slices = self.buffers.chunks_mut(RECEIVE_BUFFER_BYTES).map(IoSliceMut::new);
            let mut slices: [IoSliceMut<'_>; RECEIVE_BATCH] =
                std::array::from_fn(|_| slices.next().expect("there is one for each"));
            let count = match half.state.recv((&half.socket).into(), &mut slices, &mut metas) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    half.is_readable = false;
                    continue;
                }
                // News of what became of something sent (ICMP); the next call goes on.
                Err(error) if is_of_a_datagram(&error) => continue,
                Err(error) => return Err(error),
            };
            // Fewer than there was room for were all there were.
            half.is_readable = count == RECEIVE_BATCH;
            for (slice, meta) in slices.iter().zip(&metas[..count]) {
                take(Received {
                    remote: meta.addr,
                    local: meta.dst_ip,
                    ecn: meta.ecn,
                    stride: meta.stride.max(1),
                    bytes: &slice[..meta.len],
                });
            }
        }
        Ok(())
    }

    /// Sends datagrams, which are lost where the system does not take them for another reason
    /// than the two that are told.
    pub fn send(&mut self, transmit: &Transmit<'_>) -> Sent {
        let family = if transmit.destination.is_ipv6() { Family::V6 } else { Family::V4 };
        match self.halves.iter_mut().find(|half| half.family == family) {
            Some(half) if half.is_writable => half.send(transmit),
            Some(_) => Sent::WouldBlock,
            None => Sent::Unreachable,
        }
    }
}

impl Half {
    fn new(socket: Socket, family: Family, token: Token, registry: &Registry) -> io::Result<Half> {
        let state = UdpSocketState::new((&socket).into())?;
        // Less than asked for is what there is.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
        let mut socket = UdpSocket::from_std(socket.into());
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Half { socket, state, family, token, is_readable: true, is_writable: true })
    }

    fn send(&mut self, transmit: &Transmit<'_>) -> Sent {
        let segments_before = self.state.max_gso_segments();
        match self.state.try_send((&self.socket).into(), transmit) {
            Ok(()) => Sent::Done,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_writable = false;
                Sent::WouldBlock
            }
            // The interface cannot cut them up for us: one after the other then.
            Err(_) if self.state.max_gso_segments() < segments_before => {
                let size = transmit.segment_size.unwrap_or(transmit.contents.len());
                let each = transmit.contents.chunks(size.max(1));
                let each =
                    each.map(|contents| Transmit { contents, segment_size: None, ..*transmit });
                each.map(|one| self.send(&one)).last().unwrap_or(Sent::Done)
            }
            Err(error) if is_unreachable(&error) => Sent::Unreachable,
            // Larger than the interface takes (a probe of the path, RFC 8899), no memory at the
            // moment, news of something else: as if the network had lost it.
            Err(error) => {
                log::trace!("a datagram to {} was not sent: {error}", transmit.destination);
                Sent::Done
            }
        }
    }
}

/// The addresses of this machine's interfaces that are up, of both families.
///
/// # Errors
/// What getifaddrs(3) says.
pub fn interface_addresses() -> io::Result<Vec<IpAddr>> {
    let interfaces = if_addrs::get_if_addrs()?;
    let up = interfaces.iter().filter(|it| it.oper_status != if_addrs::IfOperStatus::Down);
    Ok(up.map(if_addrs::Interface::ip).collect())
}

fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::NETUNREACH
                | Errno::HOSTUNREACH
                | Errno::ADDRNOTAVAIL
                | Errno::AFNOSUPPORT
                | Errno::NETDOWN
                | Errno::ACCESS
                | Errno::PERM
        )
    )
}

/// Errors of recvmsg(2) that speak of an earlier datagram, not of the socket.
fn is_of_a_datagram(error: &io::Error) -> bool {
    let kinds = [io::ErrorKind::ConnectionRefused, io::ErrorKind::ConnectionReset];
    is_unreachable(error)
        || kinds.contains(&error.kind())
        || Errno::from_io_error(error) == Some(Errno::MSGSIZE)
}

/// Opens one socket, and tells the port it got.
fn open(family: Family, port: u16) -> io::Result<(Socket, u16)> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if family == Family::V6 {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&family.any(port).into())?;
    let bound = socket.local_addr()?.as_socket().map_or(port, |address| address.port());
    Ok((socket, bound))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;

    const TOKENS: [Token; 2] = [Token(6), Token(4)];

    fn bound() -> (Poll, UdpSockets) {
        let poll = Poll::new().expect("a poll");
        let sockets = UdpSockets::bind(0, Families::Both, TOKENS, poll.registry());
        (poll, sockets.expect("some family is there"))
    }

    /// What comes within five seconds, each datagram by itself.
    fn receive(poll: &mut Poll, sockets: &mut UdpSockets, count: usize) -> Vec<Vec<u8>> {
        let mut events = Events::with_capacity(4);
        let mut found = Vec::new();
        while found.len() < count {
            sockets
                .receive(|it| found.extend(it.bytes.chunks(it.stride).map(<[u8]>::to_vec)))
                .expect("the sockets work");
            if found.len() < count && !sockets.is_readable() {
                poll.poll(&mut events, Some(Duration::from_secs(5))).expect("a poll");
                assert!(!events.is_empty(), "nothing came but {found:?}");
                for event in &events {
                    assert!(sockets.handle_ready(event));
                }
            }
        }
        found
    }

    #[test]
    fn both_families_have_one_port_and_several_datagrams_go_in_one_piece() {
        let (mut poll, mut sockets) = bound();
        let port = sockets.port();
        assert!(port >= 1024);
        for host in ["::1", "127.0.0.1"] {
            let host: IpAddr = host.parse().expect("an address");
            if std::net::UdpSocket::bind((host, 0)).is_err() {
                println!("skipped for {host}: this host has no such address");
                continue;
            }
            let contents = [vec![b'a'; 1200], vec![b'b'; 1200], vec![b'c'; 100]].concat();
            let transmit = Transmit {
                destination: (host, port).into(),
                ecn: Some(EcnCodepoint::Ect0),
                contents: &contents,
                segment_size: Some(1200),
                src_ip: None,
            };
            assert_eq!(sockets.send(&transmit), Sent::Done);
            let found = receive(&mut poll, &mut sockets, 3);
            assert_eq!(found.concat(), contents);
            assert_eq!(found[2].len(), 100);
        }
    }

    #[test]
    fn a_busy_port_is_told_with_what_to_do() {
        let (poll, sockets) = bound();
        let port = sockets.port();
        let error = UdpSockets::bind(port, Families::Both, TOKENS, poll.registry());
        let text = error.err().expect("it is busy").to_string();
        assert!(text.starts_with(&format!("UDP port {port} is busy on IPv")), "{text}");
        assert!(text.ends_with("choose another --udp-port"), "{text}");
    }

    #[test]
    fn what_is_too_large_is_lost_and_what_has_no_way_is_told() {
        let (_poll, mut sockets) = bound();
        let large = vec![0; 65_520];
        let mut transmit = Transmit {
            destination: ([127, 0, 0, 1], sockets.port()).into(),
            ecn: None,
            contents: &large,
            segment_size: None,
            src_ip: None,
        };
        assert_eq!(sockets.send(&transmit), Sent::Done);
        transmit.contents = b"x";
        // Broadcast without SO_BROADCAST.
        transmit.destination = ([255, 255, 255, 255], 5000).into();
        assert_eq!(sockets.send(&transmit), Sent::Unreachable);
    }
}
