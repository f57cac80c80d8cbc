//! Listening on both address families, accepting, and the options of every TCP connection.
//!
//! Two sockets serve one port: `[::]` with `IPV6_V6ONLY` and `0.0.0.0`. One dual-stack socket
//! would hand IPv4 peers in as `::ffff:a.b.c.d` and fail as a whole where IPv6 is switched off.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

mod error;

pub use error::ListenError;

/// Connections the kernel keeps ready between two turns of the loop; it cuts the number to
/// `net.core.somaxconn` by itself (listen(2)).
const BACKLOG: i32 = 1024;

/// How often `port 0` looks for a number that is free in both families.
const FREE_PORT_ATTEMPTS: usize = 32;

/// Silence after which the kernel asks whether the peer is there (tcp(7), `TCP_KEEPIDLE`).
const KEEPALIVE_IDLE: Duration = Duration::from_secs(90);
/// Time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// Questions without an answer until the connection is dead. On Linux the user timeout below
/// overrides it: an idle peer that vanished is dead at the second question, after 110 s.
const KEEPALIVE_COUNT: u32 = 3;
/// The same where something is held for the peer: see [`ask_often`]. Three questions without an
/// answer come before [`PEER_SILENT_MAX`](crate::limits::PEER_SILENT_MAX).
const WATCHED_IDLE: Duration = Duration::from_secs(4);
/// See [`WATCHED_IDLE`].
const WATCHED_INTERVAL: Duration = Duration::from_secs(2);
/// Sent data that stays unacknowledged for so long ends the connection (`TCP_USER_TIMEOUT`).
const USER_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes not yet sent beyond which the socket is not writable: what waits longer waits in our own
/// queue, where a chat line can still overtake a file (`TCP_NOTSENT_LOWAT`).
const NOT_SENT_LOW_WATER_BYTES: u32 = 128 * 1024;

/// Which address families to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv6 and IPv4; a host that has only one of them serves that one.
    Both,
    /// IPv4 alone.
    V4Only,
    /// IPv6 alone.
    V6Only,
}

impl Families {
    fn wanted(self) -> &'static [Family] {
        match self {
            Self::Both => &[Family::V6, Family::V4],
            Self::V4Only => &[Family::V4],
            Self::V6Only => &[Family::V6],
        }
    }
}

/// One address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The address that means "every interface" in this family.
    pub(super) fn any(self, port: u16) -> SocketAddr {
        match self {
            Self::V4 => (Ipv4Addr::UNSPECIFIED, port).into(),
            Self::V6 => (Ipv6Addr::UNSPECIFIED, port).into(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The listening sockets; at least one of the two is there.
#[derive(Debug)]
pub struct Listeners {
    /// `[::]`, IPv6 alone.
    pub v6: Option<TcpListener>,
    /// `0.0.0.0`.
    pub v4: Option<TcpListener>,
    /// The port of both; the one found where 0 was asked for.
    pub port: u16,
    /// The families that were asked for.
    pub families: Families,
    /// Sentences for the operator, such as that this host has no IPv6.
    pub notes: Vec<String>,
}

/// Listens on `port` in the wanted families; port 0 finds one number free in all of them.
///
/// # Errors
/// [`ListenError`], whose text is fit for the operator. Nothing stays open then.
pub fn listen(port: u16, families: Families) -> Result<Listeners, ListenError> {
    let Arranged { v6, v4, port, mut notes } = arrange(port, families, open)?;
    if v6.is_some() && !has_loopback(Family::V6) {
        notes.push(absence_note(Family::V6));
    }
    if v4.is_some() && !has_loopback(Family::V4) {
        notes.push(absence_note(Family::V4));
    }
    Ok(Listeners { v6, v4, port, families, notes })
}

/// False if not even the loopback address of the family can be used. With IPv6 switched off by
/// `net.ipv6.conf.all.disable_ipv6` the kernel still lets `[::]` listen, to nobody.
pub(super) fn has_loopback(family: Family) -> bool {
    let address: IpAddr = match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    };
    let bound = std::net::UdpSocket::bind((address, 0));
    !bound.is_err_and(|error| is_missing(&error))
}

fn absence_note(family: Family) -> String {
    format!("{family} is switched off on this host now; peers reach it by the other family only")
}

/// The result of [`arrange`], for any kind of listener so that tests need no missing network.
#[derive(Debug)]
pub(super) struct Arranged<L> {
    pub(super) v6: Option<L>,
    pub(super) v4: Option<L>,
    pub(super) port: u16,
    pub(super) notes: Vec<String>,
}

/// Opens the wanted families by `open`, which gives a listener and its port.
pub(super) fn arrange<L>(
    port: u16,
    families: Families,
    mut open: impl FnMut(Family, u16) -> io::Result<(L, u16)>,
) -> Result<Arranged<L>, ListenError> {
    for _ in 0..FREE_PORT_ATTEMPTS {
        match arrange_once(port, families, &mut open) {
            // The number that one family gave was taken in the other: try another number.
            Err(ListenError::Busy { .. }) if port == 0 => {}
            other => return other,
        }
    }
    Err(ListenError::NoFreePort)
}

fn arrange_once<L>(
    port: u16,
    families: Families,
    open: &mut impl FnMut(Family, u16) -> io::Result<(L, u16)>,
) -> Result<Arranged<L>, ListenError> {
    let mut found = Arranged { v6: None, v4: None, port, notes: Vec::new() };
    for &family in families.wanted() {
        match open(family, found.port) {
            Ok((listener, port)) => {
                found.port = port;
                match family {
                    Family::V6 => found.v6 = Some(listener),
                    Family::V4 => found.v4 = Some(listener),
                }
            }
            Err(error) if is_missing(&error) => {
                found.notes.push(format!("this host has no {family} ({error})"));
            }
            Err(error) => return Err(ListenError::new(family, found.port, error)),
        }
    }
    match (&found.v6, &found.v4) {
        (None, None) => return Err(ListenError::NoFamily { families }),
        (Some(_), None) if families == Families::Both => {
            found.notes.iter_mut().for_each(|note| note.push_str("; serving IPv6 alone"));
        }
        (None, Some(_)) if families == Families::Both => {
            found.notes.iter_mut().for_each(|note| note.push_str("; serving IPv4 alone"));
        }
        _ => {}
    }
    Ok(found)
}

/// True for the errors by which a kernel says that it lacks a family: built without it
/// (`EAFNOSUPPORT`, `EPROTONOSUPPORT`) or switched off by sysctl (`EADDRNOTAVAIL`).
fn is_missing(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL | Errno::PROTONOSUPPORT)
    )
}

/// Opens one listening socket, and tells the port it got.
fn open(family: Family, port: u16) -> io::Result<(TcpListener, u16)> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if family == Family::V6 {
        socket.set_only_v6(true)?;
    }
    // Old connections in TIME_WAIT must not keep a restarted server off its port. SO_REUSEPORT
    // stays off: with it a second server would silently take half of the connections.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&family.any(port).into())?;
    // With SO_REUSEADDR two sockets may be bound to one port until one of them listens, so
    // "address in use" can come from either call.
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into());
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

/// Takes one waiting connection; the stream is non-blocking and closed on exec.
///
/// # Errors
/// What accept(2) said; [`AcceptError::classify`] tells what to do about it.
pub fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    listener.accept()
}

/// What an error of [`accept`] means for the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptError {
    /// Nobody waits any more; readiness will tell.
    WouldBlock,
    /// This connection died or was refused by the firewall before it was taken; take the next.
    Transient,
    /// The process or the host is out of descriptors or memory. The connection still waits, and an
    /// edge-triggered poll does not tell again: try later by the clock, or when something closed.
    NoDescriptors,
    /// The listener itself is broken.
    Fatal,
}

impl AcceptError {
    /// Sorts an error of accept(2). Linux hands in errors of the new connection there too, which
    /// the manual page says to treat like a retry.
    #[must_use]
    pub fn classify(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::AGAIN) => Self::WouldBlock,
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Self::NoDescriptors,
            Some(
                Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::INTR
                | Errno::PERM
                | Errno::TIMEDOUT
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NONET
                | Errno::OPNOTSUPP,
            ) => Self::Transient,
            _ if error.kind() == io::ErrorKind::WouldBlock => Self::WouldBlock,
            _ => Self::Fatal,
        }
    }
}

/// Sets the options of a connection, accepted or made by us: small messages leave at once, a
/// vanished peer is noticed, and at most 128 KiB wait unsent in the kernel (tcp(7)).
///
/// # Errors
/// What setsockopt(2) said; the connection is then not worth keeping.
pub fn prepare(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_COUNT),
    )?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_notsent_lowat(NOT_SENT_LOW_WATER_BYTES)
}

/// Makes the kernel ask every 2 s, after 4 s of silence, whether the peer's host is there, or no
/// more often than [`prepare`] has set. Asking costs a packet each way, so it is for connections
/// for which something is held. One that its peer has closed altogether is unknown to the host
/// after `net.ipv4.tcp_fin_timeout` (60 s), and then the answer is a reset.
///
/// # Errors
/// What setsockopt(2) said.
pub fn ask_often(socket: &impl AsFd, often: bool) -> io::Result<()> {
    let (idle, interval) = match often {
        true => (WATCHED_IDLE, WATCHED_INTERVAL),
        false => (KEEPALIVE_IDLE, KEEPALIVE_INTERVAL),
    };
    let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval);
    SockRef::from(socket).set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_COUNT))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    fn has_ipv6_loopback() -> bool {
        let there = std::net::TcpListener::bind("[::1]:0").is_ok();
        if !there {
            println!("skipped for IPv6: this host has no ::1");
        }
        there
    }

    fn errno(errno: Errno) -> io::Error {
        errno.into()
    }

    fn wait_readable(listener: &TcpListener) {
        let mut polled = [PollFd::new(listener, PollFlags::IN)];
        poll(&mut polled, None).expect("poll");
    }

    fn talk(listener: &TcpListener, address: IpAddr, port: u16) {
        let mut peer = std::net::TcpStream::connect((address, port)).unwrap();
        wait_readable(listener);
        let (accepted, from) = accept(listener).unwrap();
        assert_eq!(from, peer.local_addr().unwrap());
        assert_eq!(from.is_ipv4(), address.is_ipv4(), "no mapped address may show up");
        assert!(from.ip().to_canonical().is_loopback());
        let mut accepted = std::net::TcpStream::from(accepted);
        accepted.set_nonblocking(false).unwrap();
        peer.write_all(b"hello").unwrap();
        let mut bytes = [0; 5];
        accepted.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
        let empty = accept(listener).unwrap_err();
        assert_eq!(AcceptError::classify(&empty), AcceptError::WouldBlock);
    }

    #[test]
    fn both_families_serve_one_free_port() {
        let listeners = listen(0, Families::Both).unwrap();
        assert_ne!(listeners.port, 0);
        let v4 = listeners.v4.as_ref().expect("every test host has IPv4");
        talk(v4, Ipv4Addr::LOCALHOST.into(), listeners.port);
        talk(v4, Ipv4Addr::new(127, 0, 0, 2).into(), listeners.port);
        if has_ipv6_loopback() {
            let v6 = listeners.v6.as_ref().expect("::1 is there");
            assert_eq!(v6.local_addr().unwrap().port(), listeners.port);
            assert!(SockRef::from(v6).only_v6().unwrap());
            talk(v6, Ipv6Addr::LOCALHOST.into(), listeners.port);
            assert!(listeners.notes.is_empty());
        } else {
            assert_eq!(listeners.notes.len(), 1, "{:?}", listeners.notes);
            assert!(listeners.notes[0].contains("IPv6"));
        }
    }

    #[test]
    fn one_family_alone_opens_no_other_socket() {
        let listeners = listen(0, Families::V4Only).unwrap();
        assert!(listeners.v6.is_none() && listeners.v4.is_some());
        assert!(listeners.notes.is_empty());
        if has_ipv6_loopback() {
            let listeners = listen(0, Families::V6Only).unwrap();
            assert!(listeners.v4.is_none() && listeners.notes.is_empty());
            assert!(SockRef::from(&listeners.v6.unwrap()).only_v6().unwrap());
        }
    }

    #[test]
    fn a_second_server_on_the_port_is_told_family_and_port() {
        let first = listen(0, Families::V4Only).unwrap();
        let error = listen(first.port, Families::V4Only).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "port {0} is busy on IPv4 (0.0.0.0:{0}): another program listens there; \
                 choose another --port or stop it",
                first.port
            )
        );
        if has_ipv6_loopback() {
            let first = listen(0, Families::V6Only).unwrap();
            let error = listen(first.port, Families::Both).unwrap_err().to_string();
            let start = format!("port {0} is busy on IPv6 ([::]:{0}): ", first.port);
            assert!(error.starts_with(&start), "{error}");
        }
    }

    #[test]
    fn a_port_is_free_again_at_once_after_connections_ended() {
        let again = |_| {
            let first = listen(0, Families::V4Only).unwrap();
            let port = first.port;
            let peer = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            let listener = first.v4.as_ref().unwrap();
            wait_readable(listener);
            // Our side closes first, so our port is the one that enters TIME_WAIT.
            drop(accept(listener).unwrap());
            drop(peer);
            drop(first);
            listen(port, Families::V4Only).is_ok()
        };
        // Another program may get the very number in between, but hardly three times.
        assert!((0..3).any(again));
    }

    #[test]
    fn a_missing_family_leaves_the_other_and_a_note() {
        for missing in [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL, Errno::PROTONOSUPPORT] {
            let found = arrange(5000, Families::Both, |family, port| match family {
                Family::V6 => Err(errno(missing)),
                Family::V4 => Ok(((), port)),
            })
            .unwrap();
            assert!(found.v6.is_none() && found.v4.is_some());
            assert_eq!(found.port, 5000);
            assert_eq!(found.notes.len(), 1);
            assert!(found.notes[0].starts_with("this host has no IPv6"), "{:?}", found.notes);
            assert!(found.notes[0].ends_with("serving IPv4 alone"), "{:?}", found.notes);
        }
        let found = arrange(0, Families::Both, |family, _| match family {
            Family::V6 => Ok(((), 4321)),
            Family::V4 => Err(errno(Errno::AFNOSUPPORT)),
        })
        .unwrap();
        assert_eq!((found.v6, found.v4, found.port), (Some(()), None, 4321));
    }

    #[test]
    fn a_host_without_what_was_asked_for_is_refused_in_words() {
        for (families, words) in [
            (Families::Both, "neither IPv6 nor IPv4"),
            (Families::V4Only, "no IPv4; enable it or listen on IPv6"),
            (Families::V6Only, "no IPv6; enable it or listen on IPv4"),
        ] {
            let error = arrange::<()>(5000, families, |_, _| Err(errno(Errno::AFNOSUPPORT)));
            let text = error.unwrap_err().to_string();
            assert!(text.contains(words), "{text}");
        }
        let error = arrange::<()>(80, Families::Both, |_, _| Err(errno(Errno::ACCESS)));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("port 80 on IPv6") && text.contains("1024"), "{text}");
    }

    #[test]
    fn port_zero_tries_other_numbers_but_not_for_ever() {
        let mut next = 40_000;
        let found = arrange(0, Families::Both, |family, port| match family {
            Family::V6 => {
                next += 1;
                Ok(((), next))
            }
            Family::V4 if port < 40_003 => Err(errno(Errno::ADDRINUSE)),
            Family::V4 => Ok(((), port)),
        })
        .unwrap();
        assert_eq!(found.port, 40_003);

        let mut tries = 0;
        let error = arrange(0, Families::Both, |family, _| match family {
            Family::V6 => Ok(((), 40_000)),
            Family::V4 => {
                tries += 1;
                Err(errno(Errno::ADDRINUSE))
            }
        });
        assert!(matches!(error, Err(ListenError::NoFreePort)));
        assert_eq!(tries, FREE_PORT_ATTEMPTS);
    }

    #[test]
    fn accept_errors_are_sorted_by_what_to_do() {
        for (error, class) in [
            (Errno::AGAIN, AcceptError::WouldBlock),
            (Errno::CONNABORTED, AcceptError::Transient),
            (Errno::INTR, AcceptError::Transient),
            (Errno::PERM, AcceptError::Transient),
            (Errno::NETDOWN, AcceptError::Transient),
            (Errno::MFILE, AcceptError::NoDescriptors),
            (Errno::NFILE, AcceptError::NoDescriptors),
            (Errno::NOBUFS, AcceptError::NoDescriptors),
            (Errno::NOMEM, AcceptError::NoDescriptors),
            (Errno::BADF, AcceptError::Fatal),
            (Errno::INVAL, AcceptError::Fatal),
        ] {
            assert_eq!(AcceptError::classify(&error.into()), class, "{error}");
        }
    }

    #[test]
    fn accepted_connections_carry_all_options() {
        let listeners = listen(0, Families::Both).unwrap();
        for listener in [&listeners.v6, &listeners.v4].into_iter().flatten() {
            let mut address = listener.local_addr().unwrap();
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
            let Ok(_peer) = std::net::TcpStream::connect(address) else {
                println!("skipped for {address}: this host has no such loopback address");
                continue;
            };
            wait_readable(listener);
            let (stream, _) = accept(listener).unwrap();
            prepare(&stream).unwrap();
            let socket = SockRef::from(&stream);
            assert!(socket.tcp_nodelay().unwrap());
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_COUNT);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
            assert_eq!(socket.tcp_notsent_lowat().unwrap(), NOT_SENT_LOW_WATER_BYTES);
            let flags = rustix::io::fcntl_getfd(&stream).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
    }
}
