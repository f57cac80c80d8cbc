//! What the host has told, in the words and numbers of the answers.

use std::io;

use super::questions::{Busy, Facts, Look};
use crate::{
    sys::{
        clock,
        host::{
            self,
            addresses::{self, Address},
            disks::{Answer, Disk, Space},
        },
    },
    wire::{
        escape::escape_bytes,
        info::{self, Info, Processor, Server, one_digit, percent},
    },
};

/// Addresses in one piece of text, so that many do not pass what fits a frame.
const ADDRESSES_PER_TEXT: usize = 256;

/// `ip`: a line for each address.
pub fn addresses() -> io::Result<Vec<String>> {
    let lines: Vec<String> =
        addresses::addresses()?.iter().map(|it| address_of(it).to_string()).collect();
    Ok(lines.chunks(ADDRESSES_PER_TEXT).map(|lines| lines.join("\n")).collect())
}

/// `name`.
pub fn name() -> io::Result<Vec<String>> {
    Ok(vec![host::system().name])
}

/// `ram`.
pub fn memory() -> io::Result<Vec<String>> {
    Ok(vec![memory_of(&host::memory()?).to_string()])
}

/// `os`.
pub fn system() -> io::Result<Vec<String>> {
    Ok(vec![system_of(host::system()).1.to_string()])
}

/// `cpu`.
pub fn processor(first: &Look, second: &Look) -> Processor {
    let used = second.sample.used_since(&first.sample);
    let seconds = second.at.saturating_duration_since(first.at).as_secs_f64();
    Processor {
        count: second.sample.count(),
        used_percent: one_digit(used * 100.0),
        measured_seconds: (seconds * 1000.0).round() / 1000.0,
    }
}

/// `info`, but for the file systems.
pub fn info(first: &Look, facts: Facts, busy: &Busy, messages_per_second: f64) -> Info {
    let cpu = processor(first, &facts.look);
    let (name, os) = system_of(facts.system);
    Info {
        time: clock::wall_clock(),
        name,
        os,
        uptime_seconds: facts.uptime_seconds,
        load: facts.load,
        cpu,
        memory: memory_of(&facts.memory),
        disks: Vec::new(),
        addresses: facts.addresses.iter().map(address_of).collect(),
        server: Server {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: busy.now / 1000,
            sessions: busy.counts.sessions as u64,
            users: busy.counts.users as u64,
            operations: busy.counts.operations as u64,
            transfers: busy.transfers as u64,
            commands: busy.commands as u64,
            messages: busy.counts.messages,
            messages_per_second: one_digit(messages_per_second),
            resident_bytes: facts.resident_bytes,
        },
        truncated: false,
    }
}

/// The file systems.
pub fn disks(disks: Vec<Disk>) -> Vec<info::Disk> {
    disks.into_iter().map(disk_of).collect()
}

fn disk_of(disk: Disk) -> info::Disk {
    use std::os::unix::ffi::OsStrExt as _;
    let text = |bytes: &[u8]| escape_bytes(bytes).into_owned();
    let known = info::Disk {
        path: text(disk.path.as_os_str().as_bytes()),
        device: text(disk.device.as_bytes()),
        r#type: text(disk.kind.as_bytes()),
        ..info::Disk::default()
    };
    match disk.space {
        Answer::Space(Space { total_bytes, free_bytes, available_bytes }) => {
            let used_bytes = total_bytes.saturating_sub(free_bytes);
            let used_percent = percent(used_bytes, used_bytes.saturating_add(available_bytes));
            info::Disk { total_bytes, used_bytes, available_bytes, used_percent, ..known }
        }
        Answer::None => {
            info::Disk { error: Some("it has not answered in time".to_owned()), ..known }
        }
        Answer::Error(error) => info::Disk { error: Some(error), ..known },
    }
}

fn address_of(address: &Address) -> info::Address {
    info::Address {
        interface: address.interface.clone(),
        family: if address.ip.is_ipv6() { "IPv6" } else { "IPv4" }.to_owned(),
        address: address.literal(),
    }
}

fn memory_of(memory: &host::Memory) -> info::Memory {
    let host::Memory { total_bytes, available_bytes, swap_total_bytes, swap_free_bytes } = *memory;
    let used_bytes = total_bytes.saturating_sub(available_bytes);
    info::Memory {
        total_bytes,
        available_bytes,
        used_bytes,
        used_percent: percent(used_bytes, total_bytes),
        swap_total_bytes,
        swap_used_bytes: swap_total_bytes.saturating_sub(swap_free_bytes),
    }
}

fn system_of(system: host::System) -> (String, info::System) {
    let host::System { name, kernel, release, machine, distribution } = system;
    (name, info::System { kernel, release, machine, distribution })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_does_not_answer_is_listed_with_the_reason() {
        let disk = |space| Disk {
            path: "/mnt/x\ny".into(),
            device: "host:/x".into(),
            kind: "nfs4".into(),
            space,
        };
        let space = Space { total_bytes: 1000, free_bytes: 400, available_bytes: 200 };
        let listed = disks(vec![disk(Answer::Space(space)), disk(Answer::None)]);
        assert_eq!((listed[0].used_bytes, listed[0].used_percent), (600, 75.0));
        assert_eq!((listed[0].path.as_str(), listed[0].error.as_deref()), ("/mnt/x\\ny", None));
        assert!(listed[1].error.as_deref().is_some_and(|why| why.contains("not answered")));
    }
}
