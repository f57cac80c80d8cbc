//! The name servers of this machine, all asked at once (RFC 1035, over UDP).
//!
//! A helper for [`super::names`], not a resolver: it knows how to find an address, and where it
//! finds none it says nothing. Each question has a port and a number of its own, and an answer
//! counts only from the server and port that were asked (RFC 5452).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use resolv_conf::{Config, ScopedIp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, TYPE};

use super::Family;

const PORT: u16 = 53;
/// More servers and more search domains than this are not asked; resolv.conf(5) has 3 and 6.
const SERVERS_MAX: usize = 4;
/// See [`SERVERS_MAX`].
const NAMES_MAX: usize = 7;
/// When a question is sent again: datagrams get lost.
const AGAIN_AFTER: [Duration; 2] = [Duration::from_millis(400), Duration::from_millis(1200)];
/// What one name may take.
const LIMIT: Duration = Duration::from_millis(2500);
/// How often it is looked whether anybody still waits.
const LOOK_AFTER: Duration = Duration::from_millis(100);
/// No answer over UDP without EDNS is longer (RFC 1035, section 4.2.1). One that was cut off holds
/// addresses all the same.
const ANSWER_MAX_BYTES: usize = 512;

/// Whether a name is one of the DNS here: nsswitch.conf(5) may leave it out, and `.local` belongs
/// to multicast (RFC 6762).
pub(super) fn may_be_asked(name: &str) -> bool {
    let bare = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let is_local =
        bare == "localhost" || [".local", ".localhost"].iter().any(|it| bare.ends_with(it));
    !is_local && uses_dns(fs::read_to_string("/etc/nsswitch.conf").ok().as_deref())
}

/// Whether the line for hosts names the DNS; a system without that file asks it, too.
fn uses_dns(nsswitch: Option<&str>) -> bool {
    let line = nsswitch
        .and_then(|text| text.lines().find_map(|line| line.trim_start().strip_prefix("hosts:")));
    line.is_none_or(|line| line.split_whitespace().any(|word| word == "dns" || word == "resolve"))
}

/// Asks every name server for the families that are wanted, until each is found or nobody knows
/// more. `found` hears of a family at most once, and only of one that has addresses.
pub(super) fn ask_all(
    name: &str,
    wanted: &[Family],
    is_over: impl Fn() -> bool,
    mut found: impl FnMut(Family, Vec<IpAddr>),
) {
    let Some(config) = read_config(Path::new("/etc/resolv.conf")) else { return };
    let servers: Vec<SocketAddr> =
        config.nameservers.iter().filter_map(server_address).take(SERVERS_MAX).collect();
    ask(&names_to_try(name, &config), &servers, wanted, is_over, &mut found);
}

/// The same with the names and servers that the settings led to.
fn ask(
    names: &[String],
    servers: &[SocketAddr],
    wanted: &[Family],
    is_over: impl Fn() -> bool,
    found: &mut dyn FnMut(Family, Vec<IpAddr>),
) {
    for name in names {
        let mut round = Round::new(name, wanted, servers);
        let addresses = round.run(&is_over);
        let any = !addresses.is_empty();
        for (family, addresses) in addresses {
            found(family, addresses);
        }
        // As for resolv.conf(5), the next name counts only where all servers that spoke know none.
        if any || round.is_unsure() || is_over() {
            return;
        }
    }
}

fn read_config(path: &Path) -> Option<Config> {
    let (mut config, _faults) = Config::parse_with_errors(&fs::read(path).ok()?);
    config.glibc_normalize();
    Some(config)
}

fn server_address(server: &ScopedIp) -> Option<SocketAddr> {
    match server {
        ScopedIp::V4(ip) => Some((*ip, PORT).into()),
        ScopedIp::V6(ip, None) => Some((*ip, PORT).into()),
        ScopedIp::V6(ip, Some(zone)) => {
            let scope = super::host::interface_index(zone).ok()?;
            Some(SocketAddrV6::new(*ip, PORT, 0, scope).into())
        }
    }
}

/// The names that resolv.conf(5) makes of one: with few dots the search list goes first.
fn names_to_try(name: &str, config: &Config) -> Vec<String> {
    if let Some(absolute) = name.strip_suffix('.') {
        return vec![absolute.to_owned()];
    }
    let domains = config.get_last_search_or_domain();
    let searched = domains.filter(|it| !it.is_empty()).map(|it| format!("{name}.{it}"));
    let mut names: Vec<String> = searched.collect();
    let has_dots = name.matches('.').count() >= config.ndots as usize;
    names.insert(if has_dots { 0 } else { names.len() }, name.to_owned());
    names.truncate(NAMES_MAX);
    names
}

/// One name, asked of all servers for some families.
struct Round {
    asked: Vec<Asked>,
    wanted: Vec<Family>,
}

/// One question to one server, on a socket of its own.
struct Asked {
    family: Family,
    socket: UdpSocket,
    id: u16,
    bytes: Vec<u8>,
    /// What was asked, to compare answers with.
    name: String,
    state: Reply,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Awaited,
    /// The server says that the name has no such address.
    None,
    /// The server cannot tell, or nobody is there.
    Failed,
}

impl Round {
    fn new(name: &str, wanted: &[Family], servers: &[SocketAddr]) -> Self {
        let pairs = wanted.iter().flat_map(|&family| servers.iter().map(move |&it| (family, it)));
        let asked = pairs.filter_map(|(family, server)| Asked::new(name, family, server));
        Self { asked: asked.collect(), wanted: wanted.to_vec() }
    }

    /// Waits for an address of each family that is wanted.
    fn run(&mut self, is_over: &impl Fn() -> bool) -> Vec<(Family, Vec<IpAddr>)> {
        let begun = Instant::now();
        let mut again = AGAIN_AFTER.into_iter().peekable();
        let mut found: Vec<(Family, Vec<IpAddr>)> = Vec::new();
        self.asked.iter_mut().for_each(Asked::send);
        while found.len() < self.wanted.len() && begun.elapsed() < LIMIT && !is_over() {
            self.asked.retain(|it| found.iter().all(|(family, _)| *family != it.family));
            if self.asked.iter().all(|it| it.state != Reply::Awaited) {
                break;
            }
            if again.next_if(|at| begun.elapsed() >= *at).is_some() {
                self.asked.iter_mut().for_each(Asked::send);
            }
            self.wait();
            for asked in &mut self.asked {
                let is_new = found.iter().all(|(family, _)| *family != asked.family);
                if let Some(addresses) = asked.receive().filter(|_| is_new) {
                    found.push((asked.family, addresses));
                }
            }
        }
        found
    }

    /// Whether a server that did not answer may know better than those that did.
    fn is_unsure(&self) -> bool {
        self.asked.iter().all(|it| it.state != Reply::None)
    }

    fn wait(&self) {
        let awaited = self.asked.iter().filter(|it| it.state == Reply::Awaited);
        let mut polled: Vec<PollFd<'_>> =
            awaited.map(|it| PollFd::new(&it.socket, PollFlags::IN)).collect();
        let limit = Timespec::try_from(LOOK_AFTER).expect("a tenth of a second fits");
        // An interrupted wait is an empty one: the caller looks and asks again.
        let _ = poll(&mut polled, Some(&limit));
    }
}

impl Asked {
    /// `None` where this server cannot be asked from here.
    fn new(name: &str, family: Family, server: SocketAddr) -> Option<Self> {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.set_nonblocking(true).ok()?;
        socket.connect(server).ok()?;
        let mut id = [0; 2];
        getrandom::fill(&mut id).ok()?;
        let id = u16::from_ne_bytes(id);
        let mut packet = Packet::new_query(id);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let question = Name::new(name).ok()?;
        let question = Question::new(question, QTYPE::TYPE(kind(family)), CLASS::IN.into(), false);
        packet.questions.push(question);
        let bytes = packet.build_bytes_vec().ok()?;
        let name = name.to_owned();
        Some(Self { family, socket, id, bytes, name, state: Reply::Awaited })
    }

    fn send(&mut self) {
        if self.state == Reply::Awaited && self.socket.send(&self.bytes).is_err() {
            self.state = Reply::Failed;
        }
    }

    /// Takes what has come; addresses where it has some.
    fn receive(&mut self) -> Option<Vec<IpAddr>> {
        let mut buffer = [0; ANSWER_MAX_BYTES];
        while self.state == Reply::Awaited {
            match self.socket.recv(&mut buffer) {
                Ok(count) => match self.read(&buffer[..count]) {
                    Some(Ok(addresses)) => return Some(addresses),
                    Some(Err(state)) => self.state = state,
                    None => {}
                },
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                // Refused by ICMP: nobody listens there.
                Err(_) => self.state = Reply::Failed,
            }
        }
        None
    }

    /// Reads an answer; `None` where it is none to this question.
    fn read(&self, bytes: &[u8]) -> Option<Result<Vec<IpAddr>, Reply>> {
        let packet = Packet::parse(bytes).ok()?;
        let question = packet.questions.first()?;
        let is_ours = packet.id() == self.id
            && packet.has_flags(PacketFlag::RESPONSE)
            && question.qtype == QTYPE::TYPE(kind(self.family))
            && question.qname.to_string().eq_ignore_ascii_case(&self.name);
        if !is_ours {
            return None;
        }
        // The record's own name is not compared: a chain of aliases leads there (RFC 1034, 3.6.2).
        let addresses: Vec<IpAddr> = packet
            .answers
            .iter()
            .filter_map(|record| match (&record.rdata, self.family) {
                (RData::A(a), Family::V4) => Some(Ipv4Addr::from(a.address).into()),
                (RData::AAAA(aaaa), Family::V6) => Some(Ipv6Addr::from(aaaa.address).into()),
                _ => None,
            })
            .collect();
        Some(match packet.rcode() {
            RCODE::NoError if !addresses.is_empty() => Ok(addresses),
            RCODE::NoError | RCODE::NameError => Err(Reply::None),
            _ => Err(Reply::Failed),
        })
    }
}

fn kind(family: Family) -> TYPE {
    match family {
        Family::V4 => TYPE::A,
        Family::V6 => TYPE::AAAA,
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, AAAA};

    use super::*;

    const V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    /// What a name server of ours does with a question.
    type Does = fn(&Packet<'_>) -> Vec<Vec<u8>>;

    /// A name server at a loopback address of each family that answers so, until the socket of
    /// its last question is gone: the thread ends with the test's process.
    fn name_server(does: Does) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((count, peer)) = socket.recv_from(&mut buffer) {
                let query = Packet::parse(&buffer[..count]).unwrap();
                for answer in does(&query) {
                    socket.send_to(&answer, peer).unwrap();
                }
            }
        });
        address
    }

    fn reply(query: &Packet<'_>, id: u16, code: RCODE, address: Option<u8>) -> Vec<u8> {
        let mut packet = Packet::new_reply(id);
        *packet.rcode_mut() = code;
        let question = query.questions[0].clone();
        if let Some(last) = address {
            let rdata = match question.qtype {
                QTYPE::TYPE(TYPE::A) => RData::A(A::from(Ipv4Addr::new(192, 0, 2, last))),
                _ => RData::AAAA(AAAA::from(Ipv6Addr::from(V6))),
            };
            let name = question.qname.clone();
            packet.answers.push(ResourceRecord::new(name, CLASS::IN, 60, rdata));
        }
        packet.questions.push(question);
        packet.build_bytes_vec().unwrap()
    }

    fn silent(_: &Packet<'_>) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn good(query: &Packet<'_>) -> Vec<Vec<u8>> {
        vec![reply(query, query.id(), RCODE::NoError, Some(1))]
    }

    fn failing(query: &Packet<'_>) -> Vec<Vec<u8>> {
        vec![reply(query, query.id(), RCODE::ServerFailure, None)]
    }

    fn knows_only_names_with_a_domain(query: &Packet<'_>) -> Vec<Vec<u8>> {
        match query.questions[0].qname.to_string().contains('.') {
            true => good(query),
            false => vec![reply(query, query.id(), RCODE::NameError, None)],
        }
    }

    /// Answers that are none: noise, another number, another question, a question. Then a good one.
    fn noisy(query: &Packet<'_>) -> Vec<Vec<u8>> {
        let mut other = query.clone();
        other.questions[0].qname = Name::new("elsewhere.example").unwrap();
        vec![
            vec![0xff; 40],
            Vec::new(),
            reply(query, query.id() ^ 1, RCODE::NoError, Some(66)),
            reply(&other, query.id(), RCODE::NoError, Some(67)),
            query.build_bytes_vec().unwrap(),
            reply(query, query.id(), RCODE::NoError, Some(1)),
        ]
    }

    fn asked(names: &[&str], servers: &[Does], wanted: &[Family]) -> Vec<(Family, Vec<IpAddr>)> {
        let names: Vec<String> = names.iter().map(|&it| it.to_owned()).collect();
        let servers: Vec<SocketAddr> = servers.iter().map(|&it| name_server(it)).collect();
        let mut all = Vec::new();
        ask(&names, &servers, wanted, || false, &mut |family, found| all.push((family, found)));
        all.sort_by_key(|(family, _)| *family == Family::V6);
        all
    }

    fn both() -> Vec<(Family, Vec<IpAddr>)> {
        vec![
            (Family::V4, vec![Ipv4Addr::new(192, 0, 2, 1).into()]),
            (Family::V6, vec![Ipv6Addr::from(V6).into()]),
        ]
    }

    #[test]
    fn a_silent_or_failing_server_does_not_hold_up_the_good_one() {
        let begun = Instant::now();
        let servers: [Does; 3] = [silent, failing, good];
        assert_eq!(asked(&["a.example"], &servers, &[Family::V6, Family::V4]), both());
        assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    }

    #[test]
    fn only_what_is_wanted_is_asked_for() {
        assert_eq!(asked(&["a.example"], &[good], &[Family::V4]), both()[..1]);
        assert_eq!(asked(&["a.example"], &[good], &[]), []);
        assert_eq!(asked(&["a.example"], &[], &[Family::V4]), []);
    }

    #[test]
    fn what_answers_no_question_of_ours_is_passed_over() {
        let both_families = [Family::V6, Family::V4];
        assert_eq!(asked(&["a.example"], &[noisy], &both_families), both());
    }

    #[test]
    fn a_name_that_is_not_known_gives_way_to_the_next_of_the_search_list() {
        let servers: [Does; 1] = [knows_only_names_with_a_domain];
        assert_eq!(asked(&["a", "a.example"], &servers, &[Family::V4]), both()[..1]);
        // One that nobody could look up does not: the next would be another host.
        let servers: [Does; 1] = [failing];
        assert_eq!(asked(&["a", "a.example"], &servers, &[Family::V4]), []);
    }

    #[test]
    fn nobody_who_waits_ends_the_asking() {
        let begun = Instant::now();
        let servers = [name_server(silent)];
        let never = &mut |_, _| panic!("a silent server says nothing");
        ask(&["a.example".to_owned()], &servers, &[Family::V4], || true, never);
        assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    }

    #[test]
    fn the_search_list_goes_first_for_names_with_few_dots() {
        let config = |text: &str| Config::parse_with_errors(text.as_bytes()).0;
        let plain = config("nameserver 192.0.2.53\nsearch one.example two.example\n");
        assert_eq!(names_to_try("a", &plain), ["a.one.example", "a.two.example", "a"]);
        assert_eq!(names_to_try("a.b", &plain), ["a.b", "a.b.one.example", "a.b.two.example"]);
        assert_eq!(names_to_try("a.", &plain), ["a"]);
        let none = config("nameserver 192.0.2.53\n");
        assert!(names_to_try("a", &none).contains(&"a".to_owned()));
    }

    #[test]
    fn names_of_other_systems_are_not_asked_of_the_dns() {
        for name in ["printer.local", "LOCALHOST", "x.localhost."] {
            assert!(!may_be_asked(name), "{name}");
        }
        assert!(uses_dns(None));
        assert!(uses_dns(Some("passwd: files\nhosts: files dns\n")));
        assert!(uses_dns(Some("hosts: mymachines resolve [!UNAVAIL=return] files\n")));
        assert!(!uses_dns(Some("hosts: files\n")));
    }
}
