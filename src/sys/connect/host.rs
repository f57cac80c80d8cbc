//! A server as the user names it: an address with or without an interface, or a host name.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};

/// A server as the user names it: an address, or a host name still to be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(pub(super) Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    V4(Ipv4Addr),
    /// The scope is 0 unless the address is link-local.
    V6(Ipv6Addr, u32),
    /// A good host name, as it was typed.
    Name(String),
}

impl Host {
    /// Reads an IPv4 or IPv6 literal, `[v6]`, `fe80::1%eth0` (interface by name or number) or a
    /// host name of letters, digits, hyphens, dots and underscores (RFC 1123, section 2.1).
    ///
    /// # Errors
    /// A sentence for the user that names what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the host is empty; give an address or a host name".to_owned());
        }
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']');
            let inner = inner.ok_or_else(|| format!("{text:?} lacks its closing bracket"))?;
            return parse_v6(inner);
        }
        if text.contains(':') {
            return parse_v6(text);
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Self(Kind::V4(address)));
        }
        check_name(text)?;
        Ok(Self(Kind::Name(text.to_owned())))
    }

    /// The address, if the user gave one instead of a name.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match &self.0 {
            Kind::V4(address) => Some((*address).into()),
            Kind::V6(address, _) => Some((*address).into()),
            Kind::Name(_) => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::V4(address) => address.fmt(f),
            Kind::V6(address, 0) => address.fmt(f),
            Kind::V6(address, scope) => write!(f, "{address}%{scope}"),
            Kind::Name(name) => f.write_str(name),
        }
    }
}

/// An IPv6 literal with or without an interface, without brackets (RFC 4007, section 11).
fn parse_v6(text: &str) -> Result<Host, String> {
    let (literal, zone) = match text.split_once('%') {
        Some((literal, zone)) => (literal, Some(zone)),
        None => (text, None),
    };
    let address: Ipv6Addr = literal
        .parse()
        .map_err(|_| format!("{text:?} is no IPv6 address; the port goes into --port"))?;
    if let Some(v4) = address.to_ipv4_mapped() {
        return Ok(Host(Kind::V4(v4)));
    }
    match zone {
        Some(zone) => Ok(Host(Kind::V6(address, interface_index(zone)?))),
        None if address.is_unicast_link_local() => {
            Err(format!("{address} is link-local and needs its interface, as in {address}%eth0"))
        }
        None => Ok(Host(Kind::V6(address, 0))),
    }
}

/// The number of an interface given by number or name (netdevice(7), `SIOCGIFINDEX`).
pub(super) fn interface_index(zone: &str) -> Result<u32, String> {
    if let Ok(index @ 1..) = zone.parse() {
        return Ok(index);
    }
    let unknown = |error: Errno| format!("no network interface {zone:?} here ({error})");
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None);
    rustix::net::netdevice::name_to_index(socket.map_err(unknown)?, zone).map_err(unknown)
}

fn check_name(name: &str) -> Result<(), String> {
    let refuse = |why: &str| Err(format!("{name:?} is no host name: {why}"));
    let bare = name.strip_suffix('.').unwrap_or(name);
    if bare.len() > 253 {
        return refuse("it is longer than 253 characters");
    }
    for label in bare.split('.') {
        if label.is_empty() || label.len() > 63 {
            return refuse("each part between dots has 1 to 63 characters");
        }
        if label.starts_with('-') || label.ends_with('-') {
            return refuse("no part may start or end with a hyphen");
        }
        if !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return refuse("only letters, digits, hyphens, dots and underscores may be in it");
        }
    }
    // The resolver would read 127.1 or 0x7f000001 as addresses in forms nobody means today, and a
    // mistyped 300.1.1.1 deserves a better answer than "name not known".
    let last = bare.rsplit('.').next().unwrap_or(bare);
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    if last.bytes().all(|b| b.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        return refuse("it ends in a number but is no IPv4 address either");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_addresses_or_names() {
        for (text, shown, address) in [
            ("127.0.0.1", "127.0.0.1", Some("127.0.0.1")),
            ("::1", "::1", Some("::1")),
            ("[::1]", "::1", Some("::1")),
            ("::ffff:10.0.0.1", "10.0.0.1", Some("10.0.0.1")),
            ("fe80::1%lo", "fe80::1%1", Some("fe80::1")),
            ("[fe80::1%7]", "fe80::1%7", Some("fe80::1")),
            ("localhost", "localhost", None),
            ("my_host-1.example.org.", "my_host-1.example.org.", None),
            ("3com.example", "3com.example", None),
        ] {
            let host = Host::parse(text).unwrap();
            assert_eq!(host.to_string(), shown);
            assert_eq!(host.address(), address.map(|text| text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn bad_hosts_are_refused_with_a_reason() {
        let long = "a.".repeat(127);
        for (text, words) in [
            ("", "empty"),
            ("[::1", "closing bracket"),
            ("[127.0.0.1]", "no IPv6 address"),
            ("127.0.0.1:5000", "--port"),
            ("[::1]:5000", "closing bracket"),
            ("1::2::3", "no IPv6 address"),
            ("fe80::1", "needs its interface, as in fe80::1%eth0"),
            ("fe80::1%no-such-if", "no network interface"),
            ("fe80::1%", "no network interface"),
            ("fe80::1%0", "no network interface"),
            ("300.1.1.1", "no IPv4 address"),
            ("127.1", "no IPv4 address"),
            ("0x7f000001", "no IPv4 address"),
            ("a..b", "1 to 63"),
            (".", "1 to 63"),
            ("-a.example", "hyphen"),
            ("a b", "only letters"),
            ("a\u{1b}[31m", "only letters"),
            ("müller.example", "only letters"),
            (&format!("{long}bcd"), "253"),
            (&"a".repeat(64), "1 to 63"),
        ] {
            let error = Host::parse(text).unwrap_err();
            assert!(error.contains(words), "{text:?}: {error}");
            assert!(!error.contains('\u{1b}'), "what was typed is shown escaped");
        }
    }
}
