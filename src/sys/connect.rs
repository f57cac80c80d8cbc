//! Connecting to a host by whichever of its addresses answers first: Happy Eyeballs v2 (RFC 8305).
//!
//! [`Host`] is what a user may name, [`Race`] decides when which address is tried (pure, on a
//! clock handed in), [`connect`] does the deed with sockets and blocks its thread meanwhile. The
//! addresses of a name come as they become known, each family by itself (`names.rs`).

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream};
use std::time::{Duration, Instant};

use rustix::io::Errno;

mod host;
mod names;
mod race;
mod runner;
mod servers;

use super::listen::{Family, has_loopback};
pub use host::Host;
use host::Kind;
use names::Question;
pub use race::{End, Race, Step};

/// What a resolver may take; getaddrinfo(3) itself can hang for much longer.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// A name with more addresses than this is tried by its first ones alone.
const ADDRESSES_MAX: usize = 64;

/// Why no connection came about. Its text names each address with its own reason.
#[derive(Debug)]
pub enum ConnectError {
    /// The name has no address, or nobody could tell in time.
    Name {
        /// The name as typed.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// Every address failed before the time was over.
    Unreachable(Failures),
    /// The time was over, or every address ran into its own time limit.
    TimedOut(Failures),
}

/// What became of each address.
#[derive(Debug)]
pub struct Failures {
    /// The host as typed.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Each address in the order tried, with what the system said.
    pub attempts: Vec<(SocketAddr, io::Error)>,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { host, reason } => write!(
                f,
                "cannot find the host {host}: {reason}; check the name or give its address"
            ),
            Self::Unreachable(failures) | Self::TimedOut(failures) => failures.fmt(f),
        }
    }
}

impl std::error::Error for ConnectError {}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot connect to {} port {}: ", self.host, self.port)?;
        for (index, (address, error)) in self.attempts.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{address} ")?;
            match Errno::from_io_error(error) {
                Some(Errno::CONNREFUSED) => f.write_str("refused (is the server running?)")?,
                Some(Errno::NETUNREACH | Errno::ADDRNOTAVAIL) => {
                    f.write_str("has no route from here")?;
                }
                Some(Errno::HOSTUNREACH) => f.write_str("is unreachable")?,
                Some(Errno::ACCESS | Errno::PERM) => {
                    f.write_str("is blocked by a firewall here")?
                }
                _ if error.kind() == io::ErrorKind::TimedOut => f.write_str("timed out")?,
                _ => write!(f, "failed ({error})")?,
            }
        }
        Ok(())
    }
}

/// What became of a connection that was put to the proof.
#[derive(Debug)]
pub enum Proof<T, F> {
    /// It is the one, and what was made of it.
    Good(T),
    /// It came to nothing. Another address may do better.
    Bad(io::Error),
    /// Nothing more is to be tried.
    Final(F),
}

/// Why there is no connection that stood the proof.
#[derive(Debug)]
pub enum NoWay<F> {
    /// No address led to one.
    Unconnected(ConnectError),
    /// A proof has ended it all.
    Final(F),
}

/// Connects to the first address of `host` that answers and stands the proof, within `timeout`
/// including the look-up and the proof.
///
/// A path that opens and then swallows everything loses against another as one that does not open:
/// `prove` runs on a thread of its own for each connection, gets the time that is left, and should
/// end when its stream is shut down, which happens once the race is over.
///
/// Blocks, so it wants a thread of its own. The stream is in blocking mode, as std makes them, and
/// carries the options of [`super::listen::prepare`].
///
/// # Errors
/// [`NoWay`]; the text of a [`ConnectError`] is fit for the user.
pub fn connect<T: Send + 'static, F: Send + 'static>(
    host: &Host,
    port: u16,
    timeout: Duration,
    prove: impl Fn(TcpStream, Duration) -> Proof<T, F> + Send + Sync + 'static,
) -> Result<T, NoWay<F>> {
    let names = Names::of(host, port).map_err(NoWay::Unconnected)?;
    runner::run_race(names, timeout, prove).map_err(|lost| lost.into_error(host, port, timeout))
}

/// The addresses that a host has in one family.
#[derive(Clone, Debug)]
pub struct FamilyOf {
    family: Family,
    addresses: Vec<SocketAddr>,
}

/// The families that a host has addresses of, IPv6 first. `localhost` has those that this machine
/// has, whatever its table of hosts says (RFC 6761, section 6.3).
///
/// # Errors
/// [`ConnectError::Name`].
pub fn families(host: &Host, port: u16, timeout: Duration) -> Result<Vec<FamilyOf>, ConnectError> {
    let all = match is_localhost(host) {
        true => own_loopbacks().map(|ip| (ip, port).into()).collect(),
        false => all_addresses(host, port, timeout)?,
    };
    let (v6, v4) = all.into_iter().partition(SocketAddr::is_ipv6);
    let mut families = vec![
        FamilyOf { family: Family::V6, addresses: v6 },
        FamilyOf { family: Family::V4, addresses: v4 },
    ];
    families.retain(|family| !family.addresses.is_empty());
    Ok(families)
}

/// The addresses of both families, without a race: a family that is not known in time has none.
fn all_addresses(
    host: &Host,
    port: u16,
    timeout: Duration,
) -> Result<Vec<SocketAddr>, ConnectError> {
    let question = match Names::of(host, port)? {
        Names::Known(addresses) => return Ok(addresses),
        Names::Asked(question) => question,
    };
    let deadline = Instant::now() + timeout.min(LOOKUP_TIMEOUT);
    let (mut all, mut reasons) = (Vec::new(), Vec::new());
    while let left = deadline.saturating_duration_since(Instant::now())
        && let Some(answer) = question.await_answer(left)
    {
        match answer.found {
            Ok(addresses) => all.extend(addresses),
            Err(reason) => reasons.push(reason),
        }
    }
    match all.is_empty() {
        false => Ok(all),
        true => Err(ConnectError::no_name(host, reasons, timeout)),
    }
}

fn own_loopbacks() -> impl Iterator<Item = IpAddr> {
    let loopbacks: [(Family, IpAddr); 2] =
        [(Family::V6, Ipv6Addr::LOCALHOST.into()), (Family::V4, Ipv4Addr::LOCALHOST.into())];
    let there = loopbacks.into_iter().filter(|(family, _)| has_loopback(*family));
    there.map(|(_, ip)| ip)
}

fn is_localhost(host: &Host) -> bool {
    let Kind::Name(name) = &host.0 else { return false };
    name.strip_suffix('.').unwrap_or(name).eq_ignore_ascii_case("localhost")
}

impl FamilyOf {
    /// Which family it is.
    #[must_use]
    pub fn name(&self) -> Family {
        self.family
    }

    /// As [`connect`], but to addresses of this family alone.
    ///
    /// # Errors
    /// [`NoWay`].
    pub fn connect<T: Send + 'static, F: Send + 'static>(
        &self,
        host: &Host,
        timeout: Duration,
        prove: impl Fn(TcpStream, Duration) -> Proof<T, F> + Send + Sync + 'static,
    ) -> Result<T, NoWay<F>> {
        let port = self.addresses.first().map_or(0, SocketAddr::port);
        let names = Names::Known(self.addresses.clone());
        runner::run_race(names, timeout, prove).map_err(|lost| lost.into_error(host, port, timeout))
    }
}

/// Where a race has its addresses from.
enum Names {
    /// All of them, in the order in which their families' addresses are to be tried.
    Known(Vec<SocketAddr>),
    /// The resolver.
    Asked(Question),
}

impl Names {
    fn of(host: &Host, port: u16) -> Result<Self, ConnectError> {
        match &host.0 {
            Kind::V4(address) => Ok(Self::Known(vec![(*address, port).into()])),
            Kind::V6(address, scope) => {
                Ok(Self::Known(vec![SocketAddrV6::new(*address, port, 0, *scope).into()]))
            }
            Kind::Name(name) => Question::ask(name, port)
                .map(Self::Asked)
                .map_err(|reason| ConnectError::no_name(host, vec![reason], LOOKUP_TIMEOUT)),
        }
    }
}

impl ConnectError {
    /// `timeout` is what the look-up could take at the most.
    fn no_name(host: &Host, reasons: Vec<String>, timeout: Duration) -> Self {
        let limit = timeout.min(LOOKUP_TIMEOUT);
        let slow = || format!("no answer within {:.1} s", limit.as_secs_f32());
        let reason = reasons.into_iter().next().unwrap_or_else(slow);
        Self::Name { host: host.to_string(), reason }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use socket2::{Domain, Socket, Type};

    use super::race::ATTEMPT_DELAYS;
    use super::runner::{run_race, settle, start};
    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    /// Takes any connection.
    fn any(stream: TcpStream, _: Duration) -> Proof<TcpStream, ()> {
        Proof::Good(stream)
    }

    /// As users meet it.
    fn connect_any(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, ConnectError> {
        let host = Host::parse(host).unwrap();
        connect(&host, port, timeout, any).map_err(|error| match error {
            NoWay::Unconnected(error) => error,
            NoWay::Final(()) => panic!("nothing is final here"),
        })
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn loopbacks() -> Vec<IpAddr> {
        let mut all: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into()];
        if TcpListener::bind("[::1]:0").is_ok() {
            all.push(Ipv6Addr::LOCALHOST.into());
        } else {
            println!("skipped for IPv6: this host has no ::1");
        }
        all
    }

    /// A port at which nobody listens and which no outgoing connection gets meanwhile: bound, but
    /// not listening.
    fn dead_end(address: IpAddr) -> (Socket, SocketAddr) {
        let address = SocketAddr::new(address, 0);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.bind(&address.into()).unwrap();
        let bound = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, bound)
    }

    /// A listener whose queue is full, so that further connections hang without an answer.
    fn tar_pit(address: IpAddr) -> (Vec<Socket>, SocketAddr) {
        let (listener, bound) = dead_end(address);
        listener.listen(0).unwrap();
        let mut held = vec![listener];
        for _ in 0..3 {
            held.push(start(bound).unwrap());
        }
        (held, bound)
    }

    #[test]
    fn both_families_connect_and_carry_the_options() {
        for address in loopbacks() {
            let listener = TcpListener::bind((address, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            let mut stream = connect_any(&address.to_string(), port, LONG).unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            accepted.write_all(b"x").unwrap();
            // The stream blocks until the byte is there.
            stream.read_exact(&mut [0]).unwrap();
            assert!(stream.nodelay().unwrap());
            assert!(socket2::SockRef::from(&stream).keepalive().unwrap());
        }
    }

    #[test]
    fn a_name_is_looked_up() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        connect_any("localhost", port, LONG).expect("::1 is refused, 127.0.0.1 answers");
    }

    #[test]
    fn an_unknown_name_is_its_own_error() {
        // RFC 6761 keeps this name from ever having an address.
        let error = connect_any("nobody.invalid", 5000, ms(1500)).unwrap_err();
        assert!(matches!(error, ConnectError::Name { .. }));
        let text = error.to_string();
        assert!(text.starts_with("cannot find the host nobody.invalid: "), "{text}");
        assert!(text.ends_with("check the name or give its address"), "{text}");
    }

    #[test]
    fn refused_addresses_are_named_one_by_one() {
        for address in loopbacks() {
            let (_held, bound) = dead_end(address);
            let error = connect_any(&address.to_string(), bound.port(), LONG).unwrap_err();
            assert!(matches!(error, ConnectError::Unreachable(_)));
            assert_eq!(
                error.to_string(),
                format!(
                    "cannot connect to {address} port {}: {bound} refused (is the server running?)",
                    bound.port()
                )
            );
        }
    }

    /// What a race of these addresses takes, which the last one must win. A busy machine may hold
    /// up any single race, so one slower than `limit` is run again, twice at most.
    fn time_race(addresses: &[SocketAddr], limit: Duration) -> Duration {
        let mut took = Duration::MAX;
        for _ in 0..3 {
            let begun = Instant::now();
            let stream = run_race(Names::Known(addresses.to_vec()), LONG, any).unwrap();
            took = begun.elapsed();
            assert_eq!(stream.peer_addr().ok().as_ref(), addresses.last());
            if took < limit {
                break;
            }
        }
        took
    }

    #[test]
    fn a_silent_address_gives_way_to_the_next_after_250_ms() {
        let pause = ATTEMPT_DELAYS[0];
        for address in loopbacks() {
            let (_held, silent) = tar_pit(address);
            let listener = TcpListener::bind((address, 0)).unwrap();
            let addresses = [silent, listener.local_addr().unwrap()];
            let took = time_race(&addresses, pause * 2);
            assert!(took >= pause && took < pause * 2, "{took:?}");
        }
    }

    #[test]
    fn a_refused_address_costs_no_pause() {
        for address in loopbacks() {
            let (_held, refused) = dead_end(address);
            let listener = TcpListener::bind((address, 0)).unwrap();
            let addresses = [refused, refused, listener.local_addr().unwrap()];
            let took = time_race(&addresses, ATTEMPT_DELAYS[0]);
            assert!(took < ATTEMPT_DELAYS[0], "{took:?}");
        }
    }

    /// Takes a connection once its other end has said something.
    fn spoken_to(mut stream: TcpStream, left: Duration) -> Proof<SocketAddr, &'static str> {
        stream.set_read_timeout(Some(left)).unwrap();
        match stream.read(&mut [0]) {
            Ok(1..) => Proof::Good(stream.peer_addr().unwrap()),
            Ok(0) => Proof::Bad(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => Proof::Bad(error),
        }
    }

    #[test]
    fn a_path_that_opens_and_swallows_everything_gives_way_as_a_silent_one() {
        let pause = ATTEMPT_DELAYS[0];
        for address in loopbacks() {
            // The connection opens, as the listener's queue has room, and nobody ever speaks.
            let swallows = TcpListener::bind((address, 0)).unwrap();
            let speaks = TcpListener::bind((address, 0)).unwrap();
            let addresses = [&swallows, &speaks].map(|it| it.local_addr().unwrap());
            let speaker = std::thread::spawn(move || {
                let (mut stream, _) = speaks.accept().unwrap();
                stream.write_all(b"x").unwrap();
            });
            let begun = Instant::now();
            let won = run_race(Names::Known(addresses.to_vec()), LONG, spoken_to).unwrap();
            assert_eq!(won, addresses[1]);
            assert!(begun.elapsed() >= pause && begun.elapsed() < LONG / 2);
            speaker.join().unwrap();
            // The loser is let go of at once.
            let (mut dropped, _) = swallows.accept().unwrap();
            assert_eq!(dropped.read(&mut [0]).unwrap(), 0);
        }
    }

    #[test]
    fn a_connection_that_fails_its_proof_makes_room_for_the_next_at_once() {
        for address in loopbacks() {
            let closes = TcpListener::bind((address, 0)).unwrap();
            let speaks = TcpListener::bind((address, 0)).unwrap();
            let addresses = [&closes, &speaks].map(|it| it.local_addr().unwrap());
            let closer = std::thread::spawn(move || drop(closes.accept().unwrap()));
            let speaker = std::thread::spawn(move || {
                let (mut stream, _) = speaks.accept().unwrap();
                stream.write_all(b"x").unwrap();
            });
            let won = run_race(Names::Known(addresses.to_vec()), LONG, spoken_to).unwrap();
            assert_eq!(won, addresses[1]);
            closer.join().unwrap();
            speaker.join().unwrap();
        }
    }

    #[test]
    fn a_final_proof_ends_the_race_whatever_else_is_there() {
        let listeners = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = listeners.each_ref().map(|it| it.local_addr().unwrap());
        let refuse = |_, _| Proof::<(), _>::Final("another key");
        let lost = run_race(Names::Known(addresses.to_vec()), LONG, refuse).unwrap_err();
        let host = Host::parse("127.0.0.1").unwrap();
        assert!(matches!(lost.into_error(&host, 7, LONG), NoWay::Final("another key")));
    }

    #[test]
    fn silence_ends_at_the_time_limit() {
        let (_held, silent) = tar_pit(Ipv4Addr::LOCALHOST.into());
        let begun = Instant::now();
        let error = connect_any("127.0.0.1", silent.port(), ms(120)).unwrap_err();
        assert!(matches!(error, ConnectError::TimedOut(_)));
        assert!(begun.elapsed() >= ms(120) && begun.elapsed() < LONG);
        assert!(error.to_string().ends_with(&format!("{silent} timed out")), "{error}");
    }

    #[test]
    fn each_family_of_a_host_is_connected_by_itself() {
        let host = |text: &str| Host::parse(text).unwrap();
        for ip in loopbacks() {
            let listener = TcpListener::bind((ip, 0)).unwrap();
            let address = listener.local_addr().unwrap();
            let families = families(&host(&ip.to_string()), address.port(), LONG).unwrap();
            let [family] = &families[..] else { panic!("{families:?}") };
            assert_eq!(family.name() == Family::V6, ip.is_ipv6());
            let stream = family.connect(&host("::1"), LONG, any).unwrap();
            assert_eq!(stream.peer_addr().unwrap(), address);
        }
        let of_localhost = families(&host("LocalHost."), 7, LONG).unwrap();
        assert_eq!(of_localhost.len(), loopbacks().len());
        assert!(of_localhost.windows(2).all(|two| two[0].name() == Family::V6));
    }

    #[test]
    fn a_socket_connected_to_itself_counts_as_refused() {
        for address in loopbacks() {
            let (socket, bound) = dead_end(address);
            socket.connect(&bound.into()).unwrap();
            let error = settle(socket).unwrap_err();
            assert_eq!(Errno::from_io_error(&error), Some(Errno::CONNREFUSED));
        }
    }
}
