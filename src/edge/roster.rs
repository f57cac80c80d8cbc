//! Who is an active device, and the log of them.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    net::IpAddr,
};

use super::log::DeviceLine;
use crate::wire::{Name, edge::Device};

/// The active devices, in the order in which they came. `S` tells one session from another.
#[derive(Clone, Debug)]
pub struct Roster<S> {
    /// By the number of their coming.
    members: BTreeMap<u64, Member<S>>,
    by_session: HashMap<S, u64>,
    by_name: HashMap<Name, u64>,
    serial: u64,
}

#[derive(Clone, Debug)]
struct Member<S> {
    session: S,
    device: Name,
    since: String,
    ip: IpAddr,
    udp_port: u16,
}

impl<S: Copy + Eq + Hash> Roster<S> {
    /// Takes in a device, or another port of one that is here: since when it is active.
    ///
    /// Another session of the same name is the same device, connected anew: it keeps nothing.
    pub fn join(
        &mut self,
        session: S,
        device: Name,
        ip: IpAddr,
        udp_port: u16,
        time: &str,
    ) -> String {
        let place = self.by_session.get(&session);
        if let Some(member) = place.and_then(|place| self.members.get_mut(place)) {
            member.udp_port = udp_port;
            return member.since.clone();
        }
        if let Some(older) = self.by_name.get(&device) {
            let older = self.members[older].session;
            self.leave(older);
        }
        self.serial += 1;
        let since = time.to_owned();
        let member = Member { session, device, since, ip: ip.to_canonical(), udp_port };
        self.members.insert(self.serial, member);
        self.by_session.insert(session, self.serial);
        self.by_name.insert(device, self.serial);
        time.to_owned()
    }

    /// Lets the device of a session go: its name, or `None` where it was none.
    pub fn leave(&mut self, session: S) -> Option<Name> {
        let place = self.by_session.remove(&session)?;
        let member = self.members.remove(&place).expect("it is in all three");
        self.by_name.remove(member.device.as_bytes());
        Some(member.device)
    }

    /// The whole log.
    pub fn log(&self) -> String {
        let lines = self.members.values().enumerate().map(|(index, member)| {
            let Member { device, ip, udp_port, .. } = *member;
            let since = member.since.clone();
            DeviceLine { sequence: index + 1, since, device, ip, udp_port }.write()
        });
        lines.collect()
    }
}

impl<S> Default for Roster<S> {
    fn default() -> Roster<S> {
        Roster {
            members: BTreeMap::new(),
            by_session: HashMap::new(),
            by_name: HashMap::new(),
            serial: 0,
        }
    }
}

/// The devices in a log but for `except`, and how many of its lines are none.
pub fn devices_in(text: &str, except: Option<Name>) -> (Vec<Device>, usize) {
    let lines: Vec<_> = text.lines().map(DeviceLine::parse).collect();
    let bad = lines.iter().filter(|line| line.is_none()).count();
    let others = lines.into_iter().flatten().filter(|line| Some(line.device) != except);
    let devices = others.map(|line| {
        let DeviceLine { since, device, ip, udp_port, .. } = line;
        Device { device, since, ip: ip.to_string(), udp_port }
    });
    (devices.collect(), bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "30 September 2022 10:31:13";

    fn join(roster: &mut Roster<u32>, session: u32, name: &str, ip: &str) {
        let device = Name::parse(name).expect("a name");
        roster.join(session, device, ip.parse().expect("an address"), 6000, TIME);
    }

    #[test]
    fn the_log_is_numbered_anew_when_somebody_goes() {
        let mut roster = Roster::default();
        join(&mut roster, 1, "one", "::ffff:10.0.0.1");
        join(&mut roster, 2, "two", "2001:db8::1");
        join(&mut roster, 3, "three", "127.0.0.1");
        assert_eq!(roster.leave(2).expect("it was here").as_str(), "two");
        assert_eq!(roster.leave(2), None);
        let log = roster.log();
        assert_eq!(
            log,
            "1; 30 September 2022 10:31:13; one; 10.0.0.1; 6000\n\
             2; 30 September 2022 10:31:13; three; 127.0.0.1; 6000\n"
        );
        let (others, bad) = devices_in(&log, Name::parse("one"));
        assert_eq!((others.len(), others[0].device.as_str(), bad), (1, "three", 0));
        assert_eq!(devices_in("nonsense\n", None), (vec![], 1));
        roster.leave(1);
        roster.leave(3);
        assert_eq!(roster.log(), "");
    }

    #[test]
    fn a_device_stands_in_the_log_once() {
        let mut roster = Roster::default();
        join(&mut roster, 1, "one", "::1");
        join(&mut roster, 2, "two", "::1");
        join(&mut roster, 1, "one", "::1");
        let before = roster.log();
        assert!(before.starts_with("1; 30 September 2022 10:31:13; one; ::1; 6000\n2; "));
        // The newer session has taken the name over, and the older one is found gone later.
        join(&mut roster, 3, "one", "::1");
        assert_eq!(roster.leave(1), None);
        assert!(roster.log().ends_with("2; 30 September 2022 10:31:13; one; ::1; 6000\n"));
    }
}
