//! What two clients learn of each other from the server before they meet without it.
//!
//! An [`Announcement`] is what a client has told of itself: the fingerprint of its key and where
//! its UDP sockets are. The server passes it on as it is, and adds where it sees its sender; the
//! other client makes an [`Introduction`] of both. All are checked when they are read: what exists
//! is within its bounds.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits::{DIRECT_ADDRESSES_MAX, DIRECT_CANDIDATES_MAX, DIRECT_PORT_MIN};

/// The BLAKE3 hash of the certificate (DER) that a client made for its session: by this the other
/// end knows it, wherever it comes from. In JSON 64 lower case hexadecimal digits.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Fingerprint(pub [u8; 32]);

/// Says which introduction a connection belongs to, and is good for one. 32 random bytes; in JSON
/// 64 lower case hexadecimal digits. Whoever knows it may not show it: `Debug` does not.
#[derive(Clone, Copy)]
pub struct OneTimeToken(pub [u8; 32]);

impl OneTimeToken {
    /// Whether both are the same, in a time that does not depend on where they differ.
    pub fn matches(&self, other: &[u8; 32]) -> bool {
        let differences = self.0.iter().zip(other).fold(0, |found, (a, b)| found | (a ^ b));
        std::hint::black_box(differences) == 0
    }
}

impl PartialEq for OneTimeToken {
    fn eq(&self, other: &OneTimeToken) -> bool {
        self.matches(&other.0)
    }
}

impl Eq for OneTimeToken {}

impl fmt::Debug for OneTimeToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("OneTimeToken(..)")
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&digits(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Fingerprint({})", &digits(&self.0)[..16])
    }
}

fn digits(bytes: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*bytes).to_hex().to_string()
}

/// Reads exactly what [`digits`] writes: two ways to write one key would be two keys to somebody.
fn from_digits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    struct Digits;
    impl de::Visitor<'_> for Digits {
        type Value = [u8; 32];

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("64 lower case hexadecimal digits")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<[u8; 32], E> {
            let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            let hash = blake3::Hash::from_hex(text).ok().filter(|_| text.bytes().all(is_digit));
            let wrong = || E::invalid_value(de::Unexpected::Other("other text"), &self);
            hash.map(|hash| *hash.as_bytes()).ok_or_else(wrong)
        }
    }
    deserializer.deserialize_str(Digits)
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&digits(&self.0))
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fingerprint, D::Error> {
        from_digits(deserializer).map(Fingerprint)
    }
}

impl Serialize for OneTimeToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&digits(&self.0))
    }
}

impl<'de> Deserialize<'de> for OneTimeToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OneTimeToken, D::Error> {
        from_digits(deserializer).map(OneTimeToken)
    }
}

/// How far an address reaches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Scope {
    /// This machine.
    Loopback,
    /// A network of its own: RFC 1918, RFC 4193, and what carriers share (RFC 6598).
    Private,
    /// Anybody, as far as the address tells.
    Global,
    /// Nobody, many, or something else on every link: never a place to send to.
    None,
}

/// Whether an address is of this machine alone.
pub(super) fn scope_is_loopback(address: IpAddr) -> bool {
    scope(address.to_canonical()) == Scope::Loopback
}

fn scope(address: IpAddr) -> Scope {
    match address {
        IpAddr::V4(address) => scope_v4(address),
        IpAddr::V6(address) => scope_v6(address),
    }
}

fn scope_v4(address: Ipv4Addr) -> Scope {
    let [first, second, ..] = address.octets();
    match first {
        127 => Scope::Loopback,
        // "This network", multicast, reserved and broadcast (RFC 6890, RFC 5771).
        0 | 224.. => Scope::None,
        169 if second == 254 => Scope::None,
        100 if second & 0xc0 == 64 => Scope::Private,
        _ if address.is_private() => Scope::Private,
        _ => Scope::Global,
    }
}

fn scope_v6(address: Ipv6Addr) -> Scope {
    let first = address.segments()[0];
    match first {
        _ if address.is_loopback() => Scope::Loopback,
        // ::, IPv4 written as IPv6, link-local (which says nothing off its link) and multicast.
        0 | 0xfe80..=0xfebf | 0xff00.. => Scope::None,
        0xfc00..=0xfdff | 0xfec0..=0xfeff => Scope::Private,
        _ => Scope::Global,
    }
}

/// What a client says of itself, so that others can be introduced to it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Announcement {
    /// Of the key of this session.
    pub fingerprint: Fingerprint,
    /// Of its UDP sockets, of both families; from [`DIRECT_PORT_MIN`] on.
    #[serde(deserialize_with = "port")]
    pub port: u16,
    /// Of its interfaces; at most [`DIRECT_ADDRESSES_MAX`], see [`own_addresses`].
    #[serde(default, deserialize_with = "addresses")]
    pub addresses: Vec<IpAddr>,
}

/// Reads a port that a client may have.
pub(super) fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let port = u16::deserialize(deserializer)?;
    if port < DIRECT_PORT_MIN {
        return Err(de::Error::custom(format_args!("port {port} is below {DIRECT_PORT_MIN}")));
    }
    Ok(port)
}

/// Reads addresses that interfaces of a client may have.
pub(super) fn addresses<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<IpAddr>, D::Error> {
    let check = |address: &IpAddr| match scope(*address) {
        Scope::Private | Scope::Global => Ok(()),
        Scope::Loopback | Scope::None => Err(format!("{address} is no address of an interface")),
    };
    deserializer.deserialize_seq(Bounded { max: DIRECT_ADDRESSES_MAX, check })
}

/// The addresses of interfaces that are worth announcing: no loopback, no link-local, each once,
/// at most [`DIRECT_ADDRESSES_MAX`], those that reach far first.
pub fn own_addresses(interfaces: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
    let (mut found, mut private) = (Vec::new(), Vec::new());
    for address in interfaces {
        let list = match scope(address) {
            Scope::Global => &mut found,
            Scope::Private => &mut private,
            Scope::Loopback | Scope::None => continue,
        };
        if !list.contains(&address) {
            list.push(address);
        }
    }
    found.append(&mut private);
    found.truncate(DIRECT_ADDRESSES_MAX);
    found
}

impl Announcement {
    /// Where to look for this client, for the other one, in the order of promise.
    ///
    /// `seen` is the address from which the server sees this client, `other` that from which it
    /// sees the client that is to look, and `own` are the addresses of that client's interfaces.
    /// Where this client is on the server's machine and the other one is not, `seen` is the address
    /// at which the server itself was reached by the other. Loopback is named only if the server
    /// sees both there.
    ///
    /// What this client says of itself may be a lie: the addresses may be those of somebody who has
    /// never heard of it, and whom the other client would flood with its dials. So beside `seen`,
    /// which the server vouches for, only neighbours are named: addresses in the networks of the
    /// other client itself, and these only where this one is in such a network, or behind the same
    /// translator. One more may be asked for, of the family of which the server sees nothing:
    /// [`Candidates::is_vouched`] tells it from the others, and few datagrams go there.
    pub fn candidates(&self, seen: IpAddr, other: IpAddr, own: &[IpAddr]) -> Candidates {
        let (seen, other) = (seen.to_canonical(), other.to_canonical());
        let mut found: Vec<IpAddr> = Vec::new();
        let mut claimed = None;
        if scope(seen) == Scope::Loopback && scope(other) == Scope::Loopback {
            found.extend([IpAddr::from(Ipv6Addr::LOCALHOST), Ipv4Addr::LOCALHOST.into()]);
        } else {
            let is_near = |address| matches!(scope(address), Scope::Loopback | Scope::Private);
            let is_neighbour =
                |address: IpAddr| own.iter().any(|own| are_in_one_network(*own, address));
            let is_seen_of_use = match scope(seen) {
                Scope::Global => true,
                Scope::Private => seen == other || is_near(other),
                Scope::Loopback | Scope::None => false,
            };
            found.extend(Some(seen).filter(|_| is_seen_of_use));
            if seen == other || is_neighbour(seen) {
                for address in self.addresses.iter().copied().filter(|it| is_neighbour(*it)) {
                    if !found.contains(&address) {
                        found.push(address);
                    }
                }
            }
            let is_other = |it: &IpAddr| {
                scope(*it) == Scope::Global
                    && !found.iter().any(|own| own.is_ipv4() == it.is_ipv4())
            };
            claimed = self.addresses.iter().copied().find(is_other);
        }
        let vouched = found.len();
        let all = found.into_iter().chain(claimed);
        Candidates { all: all.map(|address| (address, self.port).into()).collect(), vouched }
    }
}

/// Whether two addresses of hosts are of one network, as far as that can be told without its
/// mask: the usual sizes are 64 bits for IPv6 and 24 for IPv4.
fn are_in_one_network(one: IpAddr, other: IpAddr) -> bool {
    let is_of_host = |address| matches!(scope(address), Scope::Private | Scope::Global);
    let is_same = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => one.octets()[..3] == other.octets()[..3],
        (IpAddr::V6(one), IpAddr::V6(other)) => one.segments()[..4] == other.segments()[..4],
        _ => false,
    };
    is_same && is_of_host(one) && is_of_host(other)
}

/// Where the other end may be: at most [`DIRECT_CANDIDATES_MAX`], none of them with a port below
/// [`DIRECT_PORT_MIN`], multicast, unspecified or link-local.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Candidates {
    all: Vec<SocketAddr>,
    /// So many of them, the first, are more than the word of the other end.
    vouched: usize,
}

impl Candidates {
    /// Takes these; the first one that is no candidate is the error, or the first too many.
    ///
    /// # Errors
    /// A sentence that names it.
    pub fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Result<Candidates, String> {
        let mut found = Vec::new();
        for address in addresses {
            check_candidate(&address)?;
            found.push(address);
        }
        match found.len() {
            vouched @ 0..=DIRECT_CANDIDATES_MAX => Ok(Candidates { all: found, vouched }),
            _ => Err(format!("more than {DIRECT_CANDIDATES_MAX} candidates")),
        }
    }

    /// All of them, in the order of promise.
    pub fn as_slice(&self) -> &[SocketAddr] {
        &self.all
    }

    /// Whether somebody else than the other end itself tells that it is there.
    pub fn is_vouched(&self, address: IpAddr) -> bool {
        self.all[..self.vouched].iter().any(|it| it.ip() == address)
    }

    /// Those of use to this client; loopback only where `same_host`, that is where it reaches the
    /// server itself by loopback.
    pub fn usable(&self, same_host: bool) -> impl Iterator<Item = SocketAddr> {
        let is_loopback = |it: &SocketAddr| scope(it.ip()) == Scope::Loopback;
        self.all.iter().copied().filter(move |it| same_host || !is_loopback(it))
    }
}

fn check_candidate(candidate: &SocketAddr) -> Result<(), String> {
    if candidate.port() < DIRECT_PORT_MIN {
        return Err(format!("{candidate} has a port below {DIRECT_PORT_MIN}"));
    }
    let is_scoped = matches!(candidate, SocketAddr::V6(it) if it.scope_id() != 0);
    match scope(candidate.ip()) {
        Scope::Loopback | Scope::Private | Scope::Global if !is_scoped => Ok(()),
        _ => Err(format!("{candidate} is no address of one host")),
    }
}

impl<'de> Deserialize<'de> for Candidates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Candidates, D::Error> {
        let bounded = Bounded { max: DIRECT_CANDIDATES_MAX, check: check_candidate };
        let all = deserializer.deserialize_seq(bounded)?;
        Ok(Candidates { vouched: all.len(), all })
    }
}

impl Serialize for Candidates {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.all.serialize(serializer)
    }
}

/// What a client needs to reach another one and to know it when it answers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Introduction {
    /// Of the other end's key: the only one to be believed.
    pub fingerprint: Fingerprint,
    /// The same at both ends, and of this introduction alone.
    pub token: OneTimeToken,
    /// Where the other end may be; none where it can only come by itself.
    #[serde(default)]
    pub candidates: Candidates,
}

/// Reads a list of bounded length, each item of which passes the check.
struct Bounded<T> {
    max: usize,
    check: fn(&T) -> Result<(), String>,
}

impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Bounded<T> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a list of at most {}", self.max)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut found = Vec::new();
        while let Some(item) = list.next_element()? {
            if found.len() == self.max {
                return Err(de::Error::invalid_length(self.max + 1, &self));
            }
            (self.check)(&item).map_err(de::Error::custom)?;
            found.push(item);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    fn announcement(addresses: &[&str]) -> Announcement {
        let addresses = addresses.iter().map(|it| ip(it)).collect();
        Announcement { fingerprint: Fingerprint([7; 32]), port: 40000, addresses }
    }

    /// What somebody says who has these addresses, and is seen there, to a client that is seen at
    /// `other` and has the addresses `mine`.
    fn candidates(theirs: &[&str], seen: &str, other: &str, mine: &[&str]) -> Vec<String> {
        let mine: Vec<IpAddr> = mine.iter().map(|it| ip(it)).collect();
        let found = announcement(theirs).candidates(ip(seen), ip(other), &mine);
        let read = serde_json::to_string(&found).expect("it is JSON");
        assert_eq!(serde_json::from_str::<Candidates>(&read).expect("our own form").all, found.all);
        let mark = |it: IpAddr| if found.is_vouched(it) { "" } else { "?" };
        found.all.iter().map(|it| format!("{}{}", it.ip(), mark(it.ip()))).collect()
    }

    #[test]
    fn loopback_is_named_only_to_a_client_on_the_same_machine() {
        let (theirs, mine) = (["192.168.1.5", "2001:db8::5"], ["192.168.1.9", "2001:db8::9"]);
        for (seen, other) in [("::1", "127.0.0.1"), ("::ffff:127.0.0.1", "::1")] {
            assert_eq!(candidates(&theirs, seen, other, &mine), ["::1", "127.0.0.1"]);
        }
        assert_eq!(candidates(&theirs, "::1", "192.168.1.9", &mine), ["2001:db8::5?"]);
        assert_eq!(
            candidates(&theirs, "192.168.1.5", "::1", &mine),
            ["192.168.1.5", "2001:db8::5"]
        );
    }

    #[test]
    fn addresses_of_interfaces_are_named_only_between_neighbours() {
        let theirs = ["10.0.0.5", "fd00::5", "100.64.0.5", "2001:db8::5"];
        let mine = ["10.0.0.9", "fd00::9", "100.64.0.9", "2001:db8::9"];
        let far = |seen, other| candidates(&theirs, seen, other, &mine);
        assert_eq!(far("198.51.100.1", "203.0.113.1"), ["198.51.100.1", "2001:db8::5?"]);
        assert_eq!(far("10.0.7.5", "203.0.113.1"), ["2001:db8::5?"]);
        // The server is in this network.
        assert_eq!(far("10.0.7.5", "10.0.0.9"), ["10.0.7.5", "2001:db8::5?"]);
        assert_eq!(far("2001:db8:7::5", "203.0.113.1"), ["2001:db8:7::5"]);
        // Seen in a network of the other client, or behind the same translator.
        assert_eq!(far("10.0.0.5", "10.0.0.9").len(), 4);
        assert_eq!(far("203.0.113.1", "203.0.113.1").len(), 5);
        // Then, too, only what is in the other client's own networks.
        assert_eq!(
            candidates(&theirs, "10.0.0.5", "10.0.0.9", &["10.0.0.9"]),
            ["10.0.0.5", "2001:db8::5?"]
        );
    }

    #[test]
    fn at_third_parties_one_address_is_asked_for_at_most() {
        let victims = ["198.51.100.7", "2001:db8:4::2", "10.0.0.1", "192.168.1.1", "fd00::1"];
        let mine = ["2001:db8:1::9", "192.0.2.9", "10.0.0.9", "192.168.1.9", "fd00::9"];
        for (seen, other, claimed) in [
            ("2001:db8:3::3", "2001:db8:1::9", "198.51.100.7?"),
            ("203.0.113.5", "192.0.2.9", "2001:db8:4::2?"),
        ] {
            assert_eq!(candidates(&victims, seen, other, &mine), [seen, claimed]);
        }
        // A neighbour is believed no more, where they are elsewhere.
        let found = candidates(&victims, "192.0.2.5", "192.0.2.9", &["192.0.2.9"]);
        assert_eq!(found, ["192.0.2.5", "2001:db8:4::2?"]);
    }

    #[test]
    fn announcements_hold_only_what_an_interface_of_a_user_can_have() {
        let good = serde_json::to_string(&announcement(&["10.0.0.5", "2001:db8::5"]));
        let good = good.expect("it is JSON");
        let read: Announcement = serde_json::from_str(&good).expect("our own form");
        assert_eq!(read, announcement(&["10.0.0.5", "2001:db8::5"]));
        for (part, other) in [
            ("40000", "1023"),
            ("40000", "65536"),
            ("40000", "-1"),
            ("\"10.0.0.5\"", "\"127.0.0.1\""),
            ("\"10.0.0.5\"", "\"224.0.0.1\""),
            ("\"10.0.0.5\"", "\"255.255.255.255\""),
            ("\"10.0.0.5\"", "\"0.0.0.0\""),
            ("\"10.0.0.5\"", "\"169.254.1.1\""),
            ("\"10.0.0.5\"", "\"::\""),
            ("\"10.0.0.5\"", "\"::1\""),
            ("\"10.0.0.5\"", "\"::ffff:10.0.0.5\""),
            ("\"10.0.0.5\"", "\"fe80::1\""),
            ("\"10.0.0.5\"", "\"ff02::1\""),
            ("\"10.0.0.5\"", "\"1\",\"2\""),
            ("\"10.0.0.5\"", &["\"10.0.0.5\""; 8].join(",")),
            ("07", "7"),
            ("07", "0G"),
            ("\"0707", "\"A7A7"),
        ] {
            let bad = good.replacen(part, other, 1);
            assert_ne!(bad, good);
            assert!(serde_json::from_str::<Announcement>(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn introductions_are_bounded_and_name_no_place_that_is_not_one() {
        let text = |candidates: &str| {
            let digits = "ab".repeat(32);
            format!(
                r#"{{"fingerprint":"{digits}","token":"{digits}","candidates":[{candidates}]}}"#
            )
        };
        let good = text(r#""[::1]:5000","127.0.0.1:1024","[2001:db8::1]:65535""#);
        let read: Introduction = serde_json::from_str(&good).expect("it is good");
        assert_eq!(serde_json::to_string(&read).expect("it is JSON"), good);
        assert!(read.token.matches(&[0xab; 32]) && !read.token.matches(&[0; 32]));
        assert!(!format!("{read:?}").contains("abab\""), "the token is shown");
        assert_eq!(read.candidates.usable(true).count(), 3);
        assert_eq!(read.candidates.usable(false).count(), 1);
        let many = |count| vec![r#""192.0.2.1:5000""#; count].join(",");
        assert!(serde_json::from_str::<Introduction>(&text(&many(16))).is_ok());
        for bad in [
            &many(17),
            r#""127.0.0.1:25""#,
            r#""192.0.2.1:0""#,
            r#""224.0.0.1:5000""#,
            r#""0.0.0.0:5000""#,
            r#""[::]:5000""#,
            r#""[::ffff:127.0.0.1]:5000""#,
            r#""[fe80::1%2]:5000""#,
            r#""[2001:db8::1%2]:5000""#,
            r#""example.org:5000""#,
            "1",
        ] {
            assert!(serde_json::from_str::<Introduction>(&text(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn own_addresses_are_few_and_of_use() {
        let found = own_addresses(
            ["127.0.0.1", "10.0.0.5", "fe80::1", "2001:db8::5", "10.0.0.5", "192.0.2.7"].map(ip),
        );
        assert_eq!(found, ["2001:db8::5", "192.0.2.7", "10.0.0.5"].map(ip));
        let many = (1..=20).map(|it| IpAddr::from(Ipv4Addr::new(192, 0, 2, it)));
        assert_eq!(own_addresses(many).len(), DIRECT_ADDRESSES_MAX);
    }
}
