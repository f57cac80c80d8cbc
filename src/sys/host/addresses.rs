//! The addresses of the network interfaces, of both families.

use std::io;
use std::net::IpAddr;

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The name of the interface.
    pub interface: String,
    /// The address.
    pub ip: IpAddr,
}

impl Address {
    /// The address as programs of this machine take it: one that is good on its link alone carries
    /// the interface (RFC 4007, section 11).
    #[must_use]
    pub fn literal(&self) -> String {
        match self.ip {
            IpAddr::V6(ip) if ip.is_unicast_link_local() => format!("{ip}%{}", self.interface),
            ip => ip.to_string(),
        }
    }
}

/// Asks for all addresses: interfaces in the order of their names, in each IPv6 first.
///
/// # Errors
/// What getifaddrs(3) said.
pub fn addresses() -> io::Result<Vec<Address>> {
    let found = if_addrs::get_if_addrs()?;
    let mut addresses: Vec<Address> =
        found.into_iter().map(|it| Address { ip: it.ip(), interface: it.name }).collect();
    addresses.sort_unstable_by(|one, other| {
        let key = |it: &Address| (it.interface.clone(), it.ip.is_ipv4(), it.ip);
        key(one).cmp(&key(other))
    });
    addresses.dedup();
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn the_loopback_addresses_of_this_machine_are_among_them() {
        let addresses = addresses().unwrap();
        let has = |ip: IpAddr| addresses.iter().any(|it| it.ip == ip && it.interface == "lo");
        assert!(has(Ipv4Addr::LOCALHOST.into()));
        let has_v6 = std::fs::read_to_string("/proc/net/if_inet6")
            .is_ok_and(|text| text.contains("00000000000000000000000000000001"));
        assert_eq!(has(Ipv6Addr::LOCALHOST.into()), has_v6);
    }

    #[test]
    fn an_address_of_a_link_carries_its_interface() {
        let literal =
            |ip: &str| Address { interface: "eth0".to_owned(), ip: ip.parse().unwrap() }.literal();
        assert_eq!(literal("fe80::1"), "fe80::1%eth0");
        assert_eq!((literal("::1"), literal("10.0.0.1")), ("::1".into(), "10.0.0.1".into()));
    }
}
