//! The machine under the bench: cores, processor time, memory, descriptors.

use std::{fs, io, time::Duration};

use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// Ticks of /proc in a second: `USER_HZ`, which is the same on all machines we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Which core serves and which one loads.
pub struct Cores {
    all: CpuSet,
    /// Where every server under test runs.
    pub server: usize,
    /// Where the load runs; the same one on a machine of one core.
    pub load: usize,
}

impl Cores {
    /// The first core that we may use for the load, the last one for the servers: interrupts
    /// gather on the first.
    pub fn find() -> Result<Cores, String> {
        let all = sched_getaffinity(None).map_err(|error| format!("no list of cores: {error}"))?;
        let usable = || (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core));
        match (usable().next(), usable().next_back()) {
            (Some(load), Some(server)) => Ok(Cores { all, server, load }),
            _ => Err("the list of cores is empty".to_owned()),
        }
    }

    /// One line for the head of the output.
    pub fn describe(&self) -> String {
        if self.server == self.load {
            return format!(
                "one core only (core {}): servers and load share it, rates mean little",
                self.server
            );
        }
        format!("servers on core {}, load on core {}", self.server, self.load)
    }

    /// Keeps this thread, and what it starts from now on, on the server's core.
    pub fn take_server_core(&self) {
        self.take(&single(self.server));
    }

    /// Keeps this thread, and what it starts from now on, on the core of the load.
    pub fn take_load_core(&self) {
        self.take(&single(self.load));
    }

    /// Lets this thread, and what it starts from now on, run anywhere.
    pub fn take_any_core(&self) {
        self.take(&self.all);
    }

    fn take(&self, set: &CpuSet) {
        sched_setaffinity(None, set).expect("a subset of our own cores is allowed");
    }
}

fn single(core: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(core);
    set
}

/// Time that the process and its threads have computed, user and system together: fields 14 and
/// 15 of `/proc/PID/stat` (proc(5)), in ticks of 10 ms.
pub fn cpu_time(pid: u32) -> Result<Duration, String> {
    let stat = read_of(pid, "stat")?;
    // The name in parentheses may hold anything; the fields begin after the last one.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = fields.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    match (fields.next(), fields.next()) {
        (Some(Ok(user)), Some(Ok(system))) => {
            Ok(Duration::from_secs_f64((user + system) as f64 / TICKS_PER_SECOND))
        }
        _ => Err(format!("/proc/{pid}/stat has no times")),
    }
}

/// Resident memory of the process in bytes: `VmRSS` of `/proc/PID/status`.
pub fn resident_bytes(pid: u32) -> Result<u64, String> {
    let status = read_of(pid, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    kibibytes.map(|it: u64| it * 1024).ok_or_else(|| format!("/proc/{pid}/status has no VmRSS"))
}

fn read_of(pid: u32, file: &str) -> Result<String, String> {
    fs::read_to_string(format!("/proc/{pid}/{file}"))
        .map_err(|error| format!("the server is gone (/proc/{pid}/{file}: {error})"))
}

/// Raises our limit of descriptors as far as it goes and gives it; children inherit it.
pub fn raise_descriptors() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// Processor time of this process.
pub fn own_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Time that this thread was ready to run while something else had its core: the second field of
/// `/proc/thread-self/schedstat` (Documentation/scheduler/sched-stats.rst), in nanoseconds. Zero
/// where the kernel does not count it.
pub fn own_wait() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split_ascii_whitespace().nth(1).and_then(|field| field.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}
