//! What the server tells about its host and itself, for people.

use std::fmt;

use super::progress::Size;
use crate::wire::{
    escape::escape,
    info::{Disk, Info},
};

/// Time as people say it, by its two largest parts: `3 d 2 h`, `5 min 3 s`.
#[derive(Clone, Copy, Debug)]
pub struct Seconds(pub u64);

impl fmt::Display for Seconds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, minutes, hours) = (self.0 % 60, self.0 / 60 % 60, self.0 / 3600 % 24);
        match (self.0 / 86_400, hours, minutes) {
            (0, 0, 0) => write!(formatter, "{seconds} s"),
            (0, 0, minutes) => write!(formatter, "{minutes} min {seconds} s"),
            (0, hours, minutes) => write!(formatter, "{hours} h {minutes} min"),
            (days, hours, _) => write!(formatter, "{days} d {hours} h"),
        }
    }
}

/// A fact: what it is about, what is to be said, and the share in percent where it has one.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// One word.
    pub about: &'static str,
    /// Harmless on a terminal.
    pub text: String,
    /// 0 to 100.
    pub percent: Option<f64>,
}

/// All facts but the addresses, the more lively ones first.
pub fn facts(info: &Info) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut put = |about, percent, text: String| {
        facts.push(Fact { about, text: escape(&text).into_owned(), percent });
    };
    let (cpu, memory, server) = (&info.cpu, &info.memory, &info.server);
    let [one, five, fifteen] = info.load;
    put("cpu", Some(cpu.used_percent), cpu.to_string());
    put("load", None, format!("{one:.2} {five:.2} {fifteen:.2}"));
    let used = used(memory.used_bytes, memory.total_bytes, memory.used_percent);
    put("memory", Some(memory.used_percent), used);
    if memory.swap_total_bytes > 0 {
        let (used, total) = (memory.swap_used_bytes, memory.swap_total_bytes);
        put("swap", None, format!("{} of {} used", Size(used), Size(total)));
    }
    let (sessions, users) = (server.sessions, server.users);
    put("sessions", None, format!("{sessions}, users {users}"));
    let (operations, transfers) = (server.operations, server.transfers);
    let commands = server.commands;
    put("running", None, format!("{operations}: transfers {transfers}, commands {commands}"));
    let (messages, per_second) = (server.messages, server.messages_per_second);
    put("messages", None, format!("{messages}, {per_second:.1} a second"));
    for disk in &info.disks {
        put("disk", disk.error.is_none().then_some(disk.used_percent), disk_text(disk));
    }
    facts
}

/// Which server it is, and on which host.
pub fn heads(info: &Info) -> [Fact; 2] {
    let fact =
        |about, text: String| Fact { about, text: escape(&text).into_owned(), percent: None };
    let (uptime, server) = (Seconds(info.uptime_seconds), &info.server);
    let (own_uptime, resident) = (Seconds(server.uptime_seconds), Size(server.resident_bytes));
    let version = &server.version;
    [
        fact("host", format!("{}, {}, up {uptime}", info.name, info.os)),
        fact("server", format!("sixfour {version}, up {own_uptime}, {resident} of memory")),
    ]
}

/// The facts as lines: `client info`.
pub fn table(info: &Info) -> Vec<String> {
    let addresses = info.addresses.iter().map(|address| {
        let text = escape(&address.to_string()).into_owned();
        Fact { about: "address", text, percent: None }
    });
    let mut lines: Vec<String> = heads(info)
        .into_iter()
        .chain(facts(info))
        .chain(addresses)
        .map(|fact| format!("{:<9} {}", fact.about, fact.text))
        .collect();
    if info.truncated {
        lines.push("there is more than fits an answer".to_owned());
    }
    lines
}

fn disk_text(disk: &Disk) -> String {
    let Disk { path, device, r#type, total_bytes, used_bytes, used_percent, error, .. } = disk;
    match error {
        Some(error) => format!("{path}: {error} ({type} {device})"),
        None => {
            format!("{path} {} ({type} {device})", used(*used_bytes, *total_bytes, *used_percent))
        }
    }
}

fn used(used: u64, total: u64, percent: f64) -> String {
    format!("{} of {} used ({percent:.1} %)", Size(used), Size(total))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::info::{Address, Memory};

    #[test]
    fn time_is_told_by_its_two_largest_parts() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min 0 s"),
            (3599, "59 min 59 s"),
            (3600, "1 h 0 min"),
            (86_399, "23 h 59 min"),
            (180_000, "2 d 2 h"),
        ] {
            assert_eq!(Seconds(seconds).to_string(), text);
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_fact_and_all_of_it_is_harmless() {
        let evil = "x\u{1b}[2J\ny".to_owned();
        let known = Disk { path: evil.clone(), used_percent: 12.0, ..Disk::default() };
        let silent = Disk { error: Some(evil.clone()), ..known.clone() };
        let address = Address { interface: evil.clone(), ..Address::default() };
        let memory =
            Memory { total_bytes: 8_000_000_000, swap_total_bytes: 5, ..Memory::default() };
        let disks = vec![known, silent];
        let mut info = Info { disks, addresses: vec![address], memory, ..Info::default() };
        (info.name, info.server.version, info.truncated) = (evil.clone(), evil, true);
        let lines = table(&info);
        let abouts = lines.iter().map(|line| line.split(' ').next().unwrap_or_default());
        let expected = "host server cpu load memory swap sessions running messages disk disk \
                        address there";
        assert_eq!(abouts.collect::<Vec<_>>().join(" "), expected);
        assert!(lines.iter().all(|line| !line.contains(['\u{1b}', '\n'])), "{lines:?}");
        assert!(lines[4].contains("0 B of 8.00 GB used (0.0 %)"), "{}", lines[4]);
    }
}
