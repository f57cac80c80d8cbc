//! The edge network: a sum over ten million samples beside awk, and a thousand devices at once.

use std::{
    fs,
    io::{BufRead, BufReader, BufWriter, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use sixfour::edge::samples;

use crate::{
    client,
    machine::{cpu_time, resident_bytes},
    peers::{self, Peer, Place},
};

/// Samples of the file that is summed.
pub const SAMPLES: u64 = 10_000_000;

/// Sums in a row: processor time has steps of 10 ms.
const SUMS: u32 = 10;

/// Devices that are there at once.
pub const DEVICES: usize = 1000;

/// Samples that each of them uploads.
const UPLOADED: usize = 100;

/// What one sum took.
pub struct Sum {
    /// Processor time: of the server, or of the process.
    pub cpu: Duration,
    /// From the question to the answer.
    pub wall: Duration,
    /// Resident memory of the server before the first sum and after the last; `None` for awk.
    pub resident: Option<(u64, u64)>,
}

/// Sums the same file by our server, or by awk.
pub fn sum(name: &str, place: &Place) -> Result<Sum, String> {
    let data = data_folder(place, "edge-sum")?;
    let path = data.join("meter-1.txt");
    let wanted = match fs::read_to_string(data.join("sum")) {
        Ok(known) => known,
        Err(_) => make_file(&path, &data.join("sum"))?,
    };
    match name {
        "awk" => by_awk(&path, &wanted),
        _ => by_server(place, &data, &wanted),
    }
}

fn data_folder(place: &Place, name: &str) -> Result<PathBuf, String> {
    let data = place.folder.path().join(name);
    fs::create_dir_all(&data).map_err(|error| format!("no data folder: {error}"))?;
    Ok(data)
}

/// Writes the file of samples, and beside it their sum.
fn make_file(path: &Path, beside: &Path) -> Result<String, String> {
    let written = fs::File::create(path).and_then(|file| {
        let mut file = BufWriter::new(file);
        let mut scanner = samples::Scanner::default();
        samples::generate(SAMPLES, 7, |block| {
            scanner.feed(block).expect("what is generated are samples");
            file.write_all(block)
        })?;
        file.flush()?;
        let sum = scanner.finish().expect("what is generated are samples").sum.to_string();
        fs::write(beside, &sum)?;
        Ok(sum)
    });
    written.map_err(|error| format!("no file of samples: {error}"))
}

fn by_server(place: &Place, data: &Path, wanted: &str) -> Result<Sum, String> {
    let peer = peers::start_ours_with(place, &["--data".as_ref(), data.as_os_str()])?;
    let mut meter = Lines::connect(&peer, 0, "meter")?;
    meter.send("edge.compute 1 SUM\n")?;
    expect(&meter.receive()?, wanted)?;
    let pid = peer.daemon.pid();
    let (before, resident, begin) = (cpu_time(pid)?, resident_bytes(pid)?, Instant::now());
    for _ in 0..SUMS {
        meter.send("edge.compute 1 SUM\n")?;
        expect(&meter.receive()?, wanted)?;
    }
    Ok(Sum {
        wall: begin.elapsed() / SUMS,
        cpu: (cpu_time(pid)? - before) / SUMS,
        resident: Some((resident, resident_bytes(pid)?)),
    })
}

fn by_awk(path: &Path, wanted: &str) -> Result<Sum, String> {
    let mut command = Command::new(peers::find("awk", "mawk")?);
    command.args(["{ s += $1 } END { printf \"sum: %.0f\\n\", s }".as_ref(), path.as_os_str()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let (mut cpu, begin) = (Duration::ZERO, Instant::now());
    for _ in 0..SUMS {
        let child = command.spawn().map_err(|error| format!("did not start: {error}"))?;
        let pid = Pid::from_child(&child);
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), ended).map_err(|error| format!("is not awaited: {error}"))?;
        // Until it is collected, the kernel keeps its times.
        cpu += cpu_time(child.id())?;
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        expect(&String::from_utf8_lossy(&output.stdout), wanted)?;
    }
    Ok(Sum { cpu: cpu / SUMS, wall: begin.elapsed() / SUMS, resident: None })
}

fn expect(answer: &str, wanted: &str) -> Result<(), String> {
    match answer.trim_end().rsplit_once(": ") {
        Some((_, sum)) if sum == wanted => Ok(()),
        _ => Err(format!("{answer:?} instead of {wanted}")),
    }
}

/// What a thousand devices took.
pub struct Visit {
    /// Processor time of the server.
    pub cpu: Duration,
    /// From the first connection to the last goodbye.
    pub wall: Duration,
    /// Largest resident memory of the server that was seen, in bytes.
    pub resident: u64,
}

/// A thousand devices join, upload, ask for a sum and leave, each step by all of them at once.
pub fn visit(place: &Place) -> Result<Visit, String> {
    let data = data_folder(place, "edge-devices")?;
    let peer = peers::start_ours_with(place, &["--data".as_ref(), data.as_os_str()])?;
    let pid = peer.daemon.pid();
    let (before, begin) = (cpu_time(pid)?, Instant::now());
    let mut devices = (0..DEVICES)
        .map(|at| Lines::connect(&peer, at, &format!("d{at}")))
        .collect::<Result<Vec<_>, _>>()?;
    all(&mut devices, |at| format!("edge.join {}\n", 10_000 + at), |_| "is active since ".into())?;
    check_devices(&data)?;
    let upload = |at| format!("edge.upload 1{}\n", text_of(at));
    all(&mut devices, upload, |_| format!("uploaded to the central server, {UPLOADED} samples"))?;
    let wanted = |at| format!("is: {}", sample(at, 0, UPLOADED));
    all(&mut devices, |_| "edge.compute 1 SUM\n".into(), wanted)?;
    let resident = resident_bytes(pid)?;
    all(&mut devices, |_| "edge.leave\n".into(), |at| format!("goodbye, d{at}"))?;
    let visit = Visit { wall: begin.elapsed(), cpu: cpu_time(pid)? - before, resident };
    check_uploads(&data)?;
    Ok(visit)
}

/// The sum of the samples `from..to` of a device; they are its number, and one more each.
fn sample(at: usize, from: usize, to: usize) -> usize {
    (from..to).map(|sample| at + sample).sum()
}

fn text_of(at: usize) -> String {
    (0..UPLOADED).map(|from| format!(" {}", sample(at, from, from + 1))).collect()
}

/// Every device says something, and then every answer is looked at.
fn all(
    devices: &mut [Lines],
    request: impl Fn(usize) -> String,
    wanted: impl Fn(usize) -> String,
) -> Result<(), String> {
    for (at, device) in devices.iter_mut().enumerate() {
        device.send(&request(at))?;
    }
    for (at, device) in devices.iter_mut().enumerate() {
        let (answer, wanted) = (device.receive()?, wanted(at));
        if !answer.contains(&wanted) {
            return Err(format!("device {at} was told {answer:?} instead of {wanted:?}"));
        }
    }
    Ok(())
}

fn read(data: &Path, name: &str) -> Result<String, String> {
    fs::read_to_string(data.join(name)).map_err(|error| format!("{name}: {error}"))
}

/// All devices stand in their log, numbered from 1.
fn check_devices(data: &Path) -> Result<(), String> {
    let log = read(data, "edge-device-log.txt")?;
    let mut names: Vec<_> = log.lines().filter_map(|line| line.split("; ").nth(2)).collect();
    let numbered = (1..).zip(log.lines()).all(|(n, line)| line.starts_with(&format!("{n}; ")));
    names.sort_unstable();
    names.dedup();
    match names.len() == DEVICES && log.lines().count() == DEVICES && numbered {
        true => Ok(()),
        false => Err(format!("the log of devices has {} names", names.len())),
    }
}

/// Nobody is active, and every upload has its line and its file.
fn check_uploads(data: &Path) -> Result<(), String> {
    if !read(data, "edge-device-log.txt")?.is_empty() {
        return Err("devices that have left stand in the log".to_owned());
    }
    let log = read(data, "upload-log.txt")?;
    let mut lines: Vec<_> = log.lines().map(|line| line.split("; ").collect()).collect();
    lines.sort_unstable_by_key(|fields: &Vec<_>| fields[0].to_owned());
    lines.dedup_by_key(|fields| fields[0]);
    let is_good = |fields: &Vec<_>| fields[2..] == ["1", &UPLOADED.to_string()];
    if lines.len() != DEVICES || log.lines().count() != DEVICES || !lines.iter().all(is_good) {
        return Err(format!("the log of uploads has {} good lines", lines.len()));
    }
    for at in 0..DEVICES {
        if read(data, &format!("d{at}-1.txt"))?
            .split_whitespace()
            .ne(text_of(at).split_whitespace())
        {
            return Err(format!("the file of device {at} is another one"));
        }
    }
    Ok(())
}

/// A session in lines, that waits for each answer.
struct Lines(BufReader<TcpStream>);

impl Lines {
    fn connect(peer: &Peer, index: usize, name: &str) -> Result<Lines, String> {
        let mut lines = Lines(BufReader::with_capacity(1024, client::open(peer, index)?));
        lines.send(&format!("user {name}\n"))?;
        match lines.receive()? {
            answer if answer.starts_with("welcome ") => Ok(lines),
            other => Err(other),
        }
    }

    fn send(&mut self, text: &str) -> Result<(), String> {
        self.0.get_mut().write_all(text.as_bytes()).map_err(|error| format!("cannot send: {error}"))
    }

    fn receive(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(0) => Err("the server closed a connection".to_owned()),
            Ok(_) if line.starts_with("error ") => Err(line),
            Ok(_) => Ok(line),
            Err(error) => Err(format!("no answer: {error}")),
        }
    }
}
