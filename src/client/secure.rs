//! How the connection is protected: decided, and the server recognised, before anything but a
//! handshake is sent.
//!
//! ```text
//!   --ca            TLS, by certificate
//!   --tls           TLS, by the known key; an unknown one is pinned
//!   --plaintext     in clear, unless the server's key is known
//!   none of them    TLS where the key is known or the server is on another machine, else in clear
//! ```

use std::{
    io,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustls::{RootCertStore, pki_types::ServerName};

use super::{
    arguments::{Plan, Protection},
    core::exit,
    post::{News, Post},
};
use crate::sys::{
    connect::{self, FamilyOf, Host, NoWay, Proof},
    fingerprint::Fingerprint,
    known_servers::{Known, KnownServers, PinError, ServerKey},
    state,
    tls::{self, Trust},
    transport::{SecureError, Transport},
};

/// What connection is wanted.
#[derive(Clone, Debug)]
pub struct Wish {
    host: Host,
    port: u16,
    timeout: Duration,
    protection: Protection,
    state: Option<PathBuf>,
}

impl Plan {
    /// The connection that the plan wants.
    pub fn wish(&self) -> Wish {
        Wish {
            host: self.host.clone(),
            port: self.port,
            timeout: self.connect_timeout,
            protection: self.protection.clone(),
            state: self.state.clone(),
        }
    }
}

/// A connection that may be spoken to.
#[derive(Debug)]
pub struct Connected {
    /// It.
    pub transport: Transport,
    /// What the user should know: a key that was pinned, a file that is not as it should be.
    pub notices: Vec<String>,
    /// Until then the server has to let us in: connecting takes no longer than the wish grants.
    pub until: Instant,
    /// Where and how we are connected, for the user who asks for it.
    pub detail: String,
}

/// What is left until then, in milliseconds. A server that was slow to be reached has a moment.
pub fn left_ms(until: Instant) -> u64 {
    const LEAST: Duration = Duration::from_millis(250);
    until.saturating_duration_since(Instant::now()).max(LEAST).as_millis() as u64
}

/// Why there is none.
#[derive(Debug)]
pub struct Failure {
    /// The name of the error.
    pub code: &'static str,
    /// A sentence.
    pub text: String,
    /// The exit code; [`exit::REFUSED`] where it was we who refused.
    pub exit: u8,
}

impl Failure {
    fn refused(code: &'static str, text: String) -> Failure {
        Failure { code, text, exit: exit::REFUSED }
    }

    /// Whether what answered has shown that it is not the server, and not just failed.
    fn is_of_key(&self) -> bool {
        ["key-changed", "bad-signature", "bad-certificate"].contains(&self.code)
    }

    fn unconnected(text: String) -> Failure {
        Failure { code: "cannot-connect", text, exit: exit::CANNOT_CONNECT }
    }
}

/// What is known of the server before it is asked.
struct Acquaintance {
    server: ServerKey,
    servers: Option<KnownServers>,
    known: Known,
    /// Why nobody can tell whether it is known.
    unreadable: Option<String>,
}

/// Connects, and recognises the server. Blocks for at most the time that the wish grants.
///
/// # Errors
/// [`Failure`]. Nothing but a handshake was sent.
pub fn connect(wish: &Wish) -> Result<Connected, Failure> {
    connect_through(wish, |wish, proof| {
        connect::connect(&wish.host, wish.port, wish.timeout, move |stream, left| {
            proof.of(stream, left)
        })
    })
}

/// The same by addresses of one family alone.
///
/// # Errors
/// [`Failure`]. Nothing but a handshake was sent.
pub fn connect_by(wish: &Wish, family: &FamilyOf) -> Result<Connected, Failure> {
    connect_through(wish, |wish, proof| {
        family.connect(&wish.host, wish.timeout, move |stream, left| proof.of(stream, left))
    })
}

/// The same in a thread of its own, which tells what has become of it.
pub fn start_connecting(wish: Wish, post: Post) {
    let failed = post.clone();
    let spawned = std::thread::Builder::new().name("connect".into()).spawn(move || {
        post.send(match connect(&wish) {
            Ok(connected) => News::Connected(connected),
            Err(failure) => News::Unreachable(failure),
        })
    });
    if let Err(error) = spawned {
        let text = format!("no thread can be had to connect: {error}");
        failed.send(News::Unreachable(Failure::unconnected(text)));
    }
}

fn connect_through(
    wish: &Wish,
    race: impl FnOnce(&Wish, Examiner) -> Result<Recognised, NoWay<Failure>>,
) -> Result<Connected, Failure> {
    let authorities = match &wish.protection {
        Protection::Authorities(path) => {
            let read = tls::read_authorities(path).map_err(|why| Failure {
                code: "bad-arguments",
                text: format!("--ca: {why}"),
                exit: exit::BAD_ARGUMENTS,
            })?;
            Some(read)
        }
        _ => None,
    };
    let acquaintance = Arc::new(Acquaintance::look_up(wish));
    if wish.protection == Protection::Plaintext && acquaintance.is_known() {
        return Err(acquaintance.would_be_clear());
    }
    let begun = Instant::now();
    let closest = Arc::new(Mutex::new(None));
    let examiner = Examiner {
        wish: wish.clone(),
        acquaintance: Arc::clone(&acquaintance),
        authorities,
        closest: Arc::clone(&closest),
    };
    let Recognised { transport, key } = match race(wish, examiner) {
        Ok(recognised) => recognised,
        Err(NoWay::Final(failure)) => return Err(failure),
        Err(NoWay::Unconnected(error)) => {
            let closest = closest.lock().unwrap_or_else(PoisonError::into_inner).take();
            return Err(closest.unwrap_or_else(|| Failure::unconnected(error.to_string())));
        }
    };
    let mut notices = acquaintance.known.warnings.clone();
    if let Some(key) = key.filter(|_| !acquaintance.is_known()) {
        notices.push(acquaintance.meet(key)?);
    }
    let detail = describe_connection(&transport, begun, key);
    Ok(Connected { transport, notices, until: begun + wish.timeout, detail })
}

/// Where the connection leads, how soon it was there, and what protects it.
fn describe_connection(transport: &Transport, begun: Instant, key: Option<Fingerprint>) -> String {
    let place = transport.stream().peer_addr().map_or_else(
        |_| "the server".to_owned(),
        |peer| {
            let family = if peer.ip().to_canonical().is_ipv6() { "IPv6" } else { "IPv4" };
            format!("{peer} by {family}")
        },
    );
    let protection = match key {
        Some(key) => format!("TLS, by its key {key}"),
        None if transport.is_secured() => "TLS, by its certificate".to_owned(),
        None => "not encrypted".to_owned(),
    };
    let ms = begun.elapsed().as_millis();
    format!("connected to {place} within {ms} ms; {protection}")
}

impl Acquaintance {
    fn look_up(wish: &Wish) -> Acquaintance {
        let server = ServerKey::new(&wish.host, wish.port);
        // Without a folder nothing is known, and nothing will be.
        let folder = state::of_client(wish.state.as_deref()).ok();
        let servers = folder.map(|folder| KnownServers::in_folder(&folder));
        let (mut known, mut unreadable) = (Known::default(), None);
        if let Some(servers) = &servers {
            match servers.look_up(&server) {
                Ok(found) => known = found,
                Err(error) => unreadable = Some(format!("{}: {error}", servers.path().display())),
            }
        }
        Acquaintance { server, servers, known, unreadable }
    }

    fn is_known(&self) -> bool {
        !self.known.pins.is_empty() || self.known.damaged.is_some()
    }

    fn wants_tls(&self, protection: &Protection, peer: SocketAddr) -> bool {
        match protection {
            Protection::Plaintext => false,
            Protection::Tls | Protection::Authorities(_) => true,
            Protection::Usual => self.is_known() || !peer.ip().to_canonical().is_loopback(),
        }
    }

    fn would_be_clear(&self) -> Failure {
        let server = &self.server;
        let text = format!(
            "{server} is known to speak TLS ({}), and --plaintext would do without; nothing was \
             sent. Leave --plaintext out, or run `client forget {server}` first",
            self.place()
        );
        Failure::refused("would-be-clear", text)
    }

    /// Where the file says what it says of the server.
    fn place(&self) -> String {
        let lines = self.known.pins.iter().map(|(line, _)| *line).chain(self.known.damaged);
        let path =
            self.servers.as_ref().map_or(String::new(), |it| it.path().display().to_string());
        match lines.min() {
            Some(line) => format!("{path}:{line}"),
            None => path,
        }
    }

    /// The keys that the server may have: none means any.
    fn pins(&self) -> Result<Vec<Fingerprint>, Failure> {
        let server = &self.server;
        if let Some(why) = &self.unreadable {
            let text = format!(
                "nobody can tell whether the key of {server} is known: {why}; nothing was sent. \
                 Make the file readable, or name another folder with --state DIR"
            );
            return Err(Failure::refused("unknown-key", text));
        }
        if let Some(line) = self.known.damaged.filter(|_| self.known.pins.is_empty()) {
            let text = format!(
                "line {line} of the known servers is about {server}, but holds no key ({}); \
                 nothing was sent. Mend the line, or run `client forget {server}`",
                self.place()
            );
            return Err(Failure::refused("unknown-key", text));
        }
        Ok(self.known.pins.iter().map(|(_, fingerprint)| *fingerprint).collect())
    }

    /// What a first meeting leads to.
    fn meet(&self, fingerprint: Fingerprint) -> Result<String, Failure> {
        let server = &self.server;
        let unsaved = |why: &str| {
            Ok(format!(
                "warning: {server} is new here, and its key {fingerprint} could NOT be pinned: \
                 {why}; the next connection will take any key"
            ))
        };
        let Some(servers) = &self.servers else {
            return unsaved("this account has no home; name a folder with --state DIR");
        };
        let path = servers.path().display();
        match servers.pin(server, fingerprint) {
            Ok(()) => Ok(format!(
                "{server} is new here: its key {fingerprint} is pinned now in {path}; compare it \
                 with what `server fingerprint` says there"
            )),
            Err(PinError::OtherKey(other)) => Err(self.changed(&[other], fingerprint)),
            Err(PinError::Unwritable(why)) => unsaved(&format!("{path}: {why}")),
        }
    }

    fn changed(&self, pins: &[Fingerprint], seen: Fingerprint) -> Failure {
        let server = &self.server;
        let pins: Vec<String> = pins.iter().map(Fingerprint::to_string).collect();
        let text = format!(
            "{server} shows the key {seen}, but it is known by {} ({}). Somebody may be in \
             between, or the server has a new key; nothing was sent. If its operator confirms the \
             new key, run `client forget {server}`",
            pins.join(" or "),
            self.place()
        );
        Failure::refused("key-changed", text)
    }
}

/// A connection to the server that is meant.
struct Recognised {
    transport: Transport,
    /// The key by which it was recognised, or which it has shown where none was known.
    key: Option<Fingerprint>,
}

/// Looks at each connection that came about whether it may be spoken to.
struct Examiner {
    wish: Wish,
    acquaintance: Arc<Acquaintance>,
    authorities: Option<Arc<RootCertStore>>,
    /// What the first one said that answered, and was not taken: of more use than that others
    /// did not answer.
    closest: Arc<Mutex<Option<Failure>>>,
}

impl Examiner {
    /// Nothing but the handshake is sent. A path on which nothing comes back is given up with the
    /// stream, and so is one on which something else answers: another address may lead to the
    /// server. One that shows a wrong key ends it all, as it may be somebody in between.
    fn of(&self, stream: TcpStream, left: Duration) -> Proof<Recognised, Failure> {
        let peer = match stream.peer_addr() {
            Ok(peer) => peer,
            Err(error) => return Proof::Bad(error),
        };
        let trust = match &self.authorities {
            Some(authorities) => Trust::Authorities(authorities.clone()),
            None if !self.acquaintance.wants_tls(&self.wish.protection, peer) => {
                return in_clear(stream);
            }
            None => match self.acquaintance.pins() {
                Ok(pins) => Trust::Pins(pins),
                Err(failure) => return Proof::Final(failure),
            },
        };
        match self.secure(stream, peer, trust, left) {
            Ok(recognised) => Proof::Good(recognised),
            Err(failure) if failure.is_of_key() => Proof::Final(failure),
            Err(failure) => {
                let error = io::Error::other(failure.text.clone());
                let mut closest = self.closest.lock().unwrap_or_else(PoisonError::into_inner);
                closest.get_or_insert(failure);
                Proof::Bad(error)
            }
        }
    }

    fn secure(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        trust: Trust,
        left: Duration,
    ) -> Result<Recognised, Failure> {
        let pins = match &trust {
            Trust::Pins(pins) => Some(pins.clone()),
            Trust::Authorities(_) => None,
        };
        let (config, seen) = tls::client_config(trust)
            .map_err(|error| self.explain(pins.as_deref(), &SecureError::Tls(error), None))?;
        let name = server_name(&self.wish.host, peer);
        let secured = Transport::secure(stream, config, name, left);
        let seen = seen.get().copied();
        let transport = secured.map_err(|error| self.explain(pins.as_deref(), &error, seen))?;
        Ok(Recognised { transport, key: seen.filter(|_| pins.is_some()) })
    }

    /// `pins` are the keys that would do; `None` where authorities decide.
    fn explain(
        &self,
        pins: Option<&[Fingerprint]>,
        error: &SecureError,
        seen: Option<Fingerprint>,
    ) -> Failure {
        match (pins, error) {
            (Some(pins), _) => explain(&self.acquaintance, pins, error, seen),
            (None, SecureError::Tls(rustls::Error::InvalidCertificate(why))) => {
                let name = &self.acquaintance.server;
                let why = fault_of_certificate(why);
                let text =
                    format!("the certificate of {name} is not accepted: {why}; nothing was sent");
                Failure::refused("bad-certificate", text)
            }
            (None, _) => Failure::unconnected(describe(&self.acquaintance.server, error)),
        }
    }
}

/// What is wrong with a certificate that authorities decide about, and what to do.
fn fault_of_certificate(error: &rustls::CertificateError) -> String {
    use rustls::CertificateError::*;
    let other = "--ca names the authorities, and the certificate has to be for the name in --ip";
    match error {
        // The verifier's own name for it is inside an error that has no type here.
        Other(inner) if format!("{inner:?}").contains("CaUsedAsEndEntity") => {
            "it is one of an authority and not of a server, as `openssl req -x509` makes it; add \
             `-addext basicConstraints=critical,CA:FALSE`, or have it signed by the authority \
             that --ca names"
                .to_owned()
        }
        Other(_) => format!("it does not hold what a server's certificate has to; {other}"),
        UnknownIssuer => "none of the authorities in the file of --ca has signed it".to_owned(),
        NotValidForName | NotValidForNameContext { .. } => {
            format!("it is for another name than the one in --ip ({error})")
        }
        _ => format!("{error}; {other}"),
    }
}

fn in_clear(stream: TcpStream) -> Proof<Recognised, Failure> {
    match stream.set_nonblocking(true) {
        Ok(()) => {
            let transport = Transport::plain(mio::net::TcpStream::from_std(stream));
            Proof::Good(Recognised { transport, key: None })
        }
        Err(error) => Proof::Bad(error),
    }
}

/// Why the server is not taken for the one that is meant.
fn explain(
    acquaintance: &Acquaintance,
    pins: &[Fingerprint],
    error: &SecureError,
    seen: Option<Fingerprint>,
) -> Failure {
    let server = &acquaintance.server;
    let known = pins.iter().map(Fingerprint::to_string).collect::<Vec<_>>().join(" or ");
    match (error, seen) {
        (_, Some(seen)) if !pins.is_empty() && !pins.contains(&seen) => {
            acquaintance.changed(pins, seen)
        }
        (SecureError::Tls(rustls::Error::InvalidCertificate(_)), Some(seen)) => {
            let text = format!(
                "{server} shows the key {seen}, but cannot prove that it has it: somebody is in \
                 between, or the server is broken; nothing was sent"
            );
            Failure::refused("bad-signature", text)
        }
        (SecureError::NotTls | SecureError::OtherProtocol, _) if !pins.is_empty() => {
            let text = format!(
                "{server} is known by its key {known} ({}), but what answers there shows none: \
                 {error}. Somebody may be in between; nothing was sent. If that is as it should \
                 be, run `client forget {server}`",
                acquaintance.place()
            );
            Failure::refused("no-key", text)
        }
        (SecureError::NotTls, _) => {
            let text = format!(
                "{}, which is needed here; nothing was sent. --plaintext, given to both the server \
                 and the client, does without, and lets everybody on the way read all",
                describe(server, error)
            );
            Failure::unconnected(text)
        }
        _ => Failure::unconnected(describe(server, error)),
    }
}

fn describe(server: &ServerKey, error: &SecureError) -> String {
    format!("{server} answers, but {error}")
}

/// The name that the certificate is for, which also tells a server with several which one to show.
fn server_name(host: &Host, peer: SocketAddr) -> ServerName<'static> {
    let name = host.to_string();
    let bare = name.strip_suffix('.').unwrap_or(&name);
    match host.address() {
        Some(address) => ServerName::IpAddress(address.into()),
        // No certificate can be for a name that is not one of the DNS.
        None => ServerName::try_from(bare.to_owned())
            .unwrap_or_else(|_| ServerName::IpAddress(peer.ip().into())),
    }
}
