//! The facts that answer `info`: about the server's host, and about the server itself.
//!
//! One type for both directions of travel. As JSON it is one object; PROTOCOL.md, "Facts". Sizes
//! are bytes, times are seconds, shares are percent, each said in the member's name.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::event::Object;
use crate::limits::CHUNK_MAX_BYTES;

/// All of it. What an older peer does not know is ignored, and what it does not say is empty.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Info {
    /// The wall clock of the host, in seconds since 1970.
    pub time: i64,
    /// The name of the host.
    pub name: String,
    /// Its operating system.
    pub os: System,
    /// How long it has been running, in seconds.
    pub uptime_seconds: u64,
    /// Processes that ran or waited to, on the average of 1, 5 and 15 minutes (proc_loadavg(5)).
    pub load: [f64; 3],
    /// Its processors.
    pub cpu: Processor,
    /// Its memory.
    pub memory: Memory,
    /// Its file systems, but for those in memory.
    pub disks: Vec<Disk>,
    /// The addresses of its interfaces.
    pub addresses: Vec<Address>,
    /// The server.
    pub server: Server,
    /// Whether disks or addresses were left out, because all would not fit an answer.
    #[serde(skip_serializing_if = "is_false")]
    pub truncated: bool,
}

/// An operating system.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct System {
    /// The kernel, as in `Linux`.
    pub kernel: String,
    /// Its release, as in `6.18.0`.
    pub release: String,
    /// What it runs on, as in `x86_64`.
    pub machine: String,
    /// The distribution, as in `Debian GNU/Linux 12 (bookworm)` (os-release(5)).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distribution: Option<String>,
}

/// How busy the processors are.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Processor {
    /// How many there are.
    pub count: u32,
    /// The share of their time that was used, 0 to 100 for all of them together.
    pub used_percent: f64,
    /// For so long it was measured.
    pub measured_seconds: f64,
}

/// How full the memory is.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Memory {
    /// All of it.
    pub total_bytes: u64,
    /// What programs could still have without swapping (proc_meminfo(5), `MemAvailable`).
    pub available_bytes: u64,
    /// The rest.
    pub used_bytes: u64,
    /// The share of the rest.
    pub used_percent: f64,
    /// Swap space.
    pub swap_total_bytes: u64,
    /// What of it is used.
    pub swap_used_bytes: u64,
}

/// A file system.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Disk {
    /// Where it is mounted.
    pub path: String,
    /// What is mounted there.
    pub device: String,
    /// Its type, as in `ext4`.
    pub r#type: String,
    /// All of it.
    pub total_bytes: u64,
    /// What is used.
    pub used_bytes: u64,
    /// What users without privileges may still have.
    pub available_bytes: u64,
    /// The share of what is used of what users may have, as df(1) counts it.
    pub used_percent: f64,
    /// Why nothing is known of it: a dead network file system does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// An address of the host.
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(default)]
pub struct Address {
    /// The name of its interface.
    pub interface: String,
    /// `IPv6` or `IPv4`.
    pub family: String,
    /// The address; one of a link with its interface, as in `fe80::1%eth0`.
    pub address: String,
}

/// The server program.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Server {
    /// Its version.
    pub version: String,
    /// How long it has been running.
    pub uptime_seconds: u64,
    /// Connections, named or not.
    pub sessions: u64,
    /// Users.
    pub users: u64,
    /// Whatever runs for them: transfers, commands, listings, questions such as this one.
    pub operations: u64,
    /// Files under way.
    pub transfers: u64,
    /// Commands under way.
    pub commands: u64,
    /// Messages that were handed to somebody since the start.
    pub messages: u64,
    /// The same in a second, lately.
    pub messages_per_second: f64,
    /// Its resident memory.
    pub resident_bytes: u64,
}

impl Info {
    /// As one JSON object that fits a frame. What would not is left out, the last of the longer
    /// list first, and that is said.
    pub fn into_object(mut self) -> Object {
        loop {
            let value = serde_json::to_value(&self).expect("facts are JSON");
            let fits = value.to_string().len() <= CHUNK_MAX_BYTES;
            match value {
                serde_json::Value::Object(object) if fits => return object,
                _ => self.leave_out(),
            }
        }
    }

    fn leave_out(&mut self) {
        self.truncated = true;
        let (disks, addresses) = (self.disks.len(), self.addresses.len());
        if disks + addresses == 0 {
            // Nothing else is a list, and the system bounds it; only a fault of ours gets here.
            *self = Info { truncated: true, ..Info::default() };
        } else if disks >= addresses {
            self.disks.truncate(disks - disks.div_ceil(8));
        } else {
            self.addresses.truncate(addresses - addresses.div_ceil(8));
        }
    }

    /// The facts of an object, if it holds such.
    pub fn of(object: &Object) -> Option<Info> {
        serde_json::from_value(serde_json::Value::Object(object.clone())).ok()
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

/// A share in percent with one digit behind the point; 0 of nothing.
pub fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    one_digit(part as f64 * 100.0 / whole as f64)
}

/// A number with one digit behind the point: more would only seem to be known.
pub fn one_digit(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

impl fmt::Display for System {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let System { kernel, release, machine, distribution } = self;
        write!(formatter, "{kernel} {release} {machine}")?;
        match distribution {
            Some(distribution) => write!(formatter, ", {distribution}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Processor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Processor { count, used_percent, measured_seconds } = self;
        let plural = if *count == 1 { "" } else { "s" };
        write!(formatter, "{used_percent:.1} % of {count} processor{plural}")?;
        write!(formatter, " over {measured_seconds:.1} s")
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes / (1024 * 1024);
        let Memory { total_bytes, available_bytes, used_bytes, used_percent, .. } = *self;
        let (used, total, available) = (mib(used_bytes), mib(total_bytes), mib(available_bytes));
        write!(formatter, "{used} of {total} MiB used ({used_percent:.1} %)")?;
        write!(formatter, ", {available} MiB available")?;
        match self.swap_total_bytes {
            0 => Ok(()),
            swap => {
                let used = mib(self.swap_used_bytes);
                write!(formatter, "; {used} of {} MiB of swap used", mib(swap))
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.interface, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_survive_the_way_and_new_members_do_no_harm() {
        let disk = Disk { path: "/".into(), used_bytes: 7, ..Disk::default() };
        let info = Info { load: [0.5, 1.0, 2.25], disks: vec![disk], ..Info::default() };
        let mut object = info.clone().into_object();
        assert_eq!(object.get("truncated"), None);
        object.insert("phase_of_the_moon".into(), "full".into());
        assert_eq!(Info::of(&object), Some(info));
        assert_eq!(Info::of(&Object::new()), Some(Info::default()));
        object.insert("load".into(), "heavy".into());
        assert_eq!(Info::of(&object), None);
    }

    #[test]
    fn more_than_fits_a_frame_is_left_out_and_that_is_said() {
        let disk = Disk { path: "\u{1}".repeat(4000), ..Disk::default() };
        let address = Address { interface: "eth0".into(), ..Address::default() };
        let (disks, addresses) = (vec![disk; 60], vec![address; 3000]);
        let object = Info { disks, addresses, ..Info::default() }.into_object();
        assert!(serde_json::to_string(&object).expect("JSON").len() <= CHUNK_MAX_BYTES);
        let info = Info::of(&object).expect("facts");
        assert!(info.truncated && !info.addresses.is_empty());
    }

    #[test]
    fn shares_have_one_digit_and_nothing_has_none() {
        assert_eq!((percent(1, 3), percent(0, 0), percent(5, 5)), (33.3, 0.0, 100.0));
    }
}
