//! What the machine is and how it does: read from `/proc`, uname(2) and statvfs(3).
//!
//! All of it asks the kernel for a few microseconds, but for [`disks`]: a dead network file system
//! may never answer. Whatever comes from here belongs on a worker.

use std::fs;
use std::io;

pub mod addresses;
pub mod disks;
pub mod processor;

/// The operating system, and the name of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// The name of the machine in the network (uname(2), `nodename`).
    pub name: String,
    /// The kernel, as in `Linux`.
    pub kernel: String,
    /// Its release, as in `6.18.0`.
    pub release: String,
    /// The kind of machine, as in `x86_64`.
    pub machine: String,
    /// The distribution, as in `Debian GNU/Linux 12 (bookworm)` (os-release(5)).
    pub distribution: Option<String>,
}

/// How full the memory is, in bytes (proc_meminfo(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// `MemTotal`.
    pub total_bytes: u64,
    /// `MemAvailable`: what programs could still have without swapping.
    pub available_bytes: u64,
    /// `SwapTotal`.
    pub swap_total_bytes: u64,
    /// `SwapFree`.
    pub swap_free_bytes: u64,
}

/// Asks for the system and its name. A distribution that does not tell its name has none.
#[must_use]
pub fn system() -> System {
    let uname = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let release = ["/etc/os-release", "/usr/lib/os-release"];
    let release = release.iter().find_map(|path| fs::read_to_string(path).ok());
    System {
        name: text(uname.nodename()),
        kernel: text(uname.sysname()),
        release: text(uname.release()),
        machine: text(uname.machine()),
        distribution: release.as_deref().and_then(distribution_in),
    }
}

fn distribution_in(release: &str) -> Option<String> {
    let value = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?.trim();
    // A shell would read it; the escapes that os-release(5) allows do not occur in names.
    let unquoted = value.trim_matches(|char| char == '"' || char == '\'');
    Some(unquoted.to_owned()).filter(|name| !name.is_empty())
}

/// Asks how full the memory is.
///
/// # Errors
/// `/proc/meminfo` cannot be read, or lacks a line.
pub fn memory() -> io::Result<Memory> {
    memory_in(&fs::read_to_string("/proc/meminfo")?)
}

fn memory_in(meminfo: &str) -> io::Result<Memory> {
    let bytes = |name: &str| {
        let rest = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = rest.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok());
        let kib: u64 = number.ok_or_else(|| strange("/proc/meminfo", name))?;
        Ok::<_, io::Error>(kib * 1024)
    };
    Ok(Memory {
        total_bytes: bytes("MemTotal")?,
        available_bytes: bytes("MemAvailable")?,
        swap_total_bytes: bytes("SwapTotal")?,
        swap_free_bytes: bytes("SwapFree")?,
    })
}

/// Seconds since the machine was started (proc_uptime(5)).
///
/// # Errors
/// `/proc/uptime` cannot be read or is not as it should be.
pub fn uptime_seconds() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/uptime")?;
    let seconds = text.split_ascii_whitespace().next().and_then(|it| it.parse::<f64>().ok());
    seconds.map(|seconds| seconds as u64).ok_or_else(|| strange("/proc/uptime", "the time"))
}

/// Processes that ran or waited to, on the average of 1, 5 and 15 minutes (proc_loadavg(5)).
///
/// # Errors
/// `/proc/loadavg` cannot be read or is not as it should be.
pub fn load() -> io::Result<[f64; 3]> {
    let text = fs::read_to_string("/proc/loadavg")?;
    let mut numbers = text.split_ascii_whitespace().map(str::parse::<f64>);
    let mut next = || numbers.next()?.ok();
    match (next(), next(), next()) {
        (Some(one), Some(five), Some(fifteen)) => Ok([one, five, fifteen]),
        _ => Err(strange("/proc/loadavg", "a number")),
    }
}

/// The resident memory of this process in bytes (proc_pid_status(5), `VmRSS`).
///
/// # Errors
/// `/proc/self/status` cannot be read or is not as it should be.
pub fn resident_bytes() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| strange("/proc/self/status", "VmRSS"))
}

fn strange(file: &str, what: &str) -> io::Error {
    let text = format!("{file} does not tell {what}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_tells_all_of_it() {
        let system = system();
        assert_eq!(system.kernel, "Linux");
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(system.name, name.trim());
        let memory = memory().unwrap();
        assert!(memory.available_bytes <= memory.total_bytes && memory.total_bytes > 1 << 20);
        assert!(uptime_seconds().unwrap() > 0);
        assert!(load().unwrap().iter().all(|load| *load >= 0.0));
        assert!(resident_bytes().unwrap() > 1 << 16);
    }

    #[test]
    fn the_distribution_is_named_with_and_without_quotes_or_not_at_all() {
        let named = |text: &str| distribution_in(text);
        assert_eq!(named("ID=x\nPRETTY_NAME=\"A B 1\"\n").as_deref(), Some("A B 1"));
        assert_eq!(named("PRETTY_NAME=Arch\n").as_deref(), Some("Arch"));
        assert_eq!(named("PRETTY_NAME=''\nNAME=x\n"), None);
        assert_eq!(named("NAME=x\n"), None);
    }

    #[test]
    fn memory_is_counted_in_bytes_and_what_is_missing_is_named() {
        let text = "MemTotal:  8 kB\nMemFree: 1 kB\nMemAvailable:\t 2 kB\nSwapTotal: 0 kB\n";
        let error = memory_in(text).unwrap_err();
        assert!(error.to_string().contains("SwapFree"), "{error}");
        let memory = memory_in(&format!("{text}SwapFree: 0 kB\n")).unwrap();
        assert_eq!((memory.total_bytes, memory.available_bytes), (8192, 2048));
    }
}
