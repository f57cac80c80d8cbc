//! Chat while the server is kept busy: four downloads at full rate, a `run yes` that nobody reads
//! and a client that never reads although it is written to.
//!
//! All in one thread: what the load adds to a round trip is one turn of its loop, which a budget
//! for each download bounds.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream as Blocking,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};
use rustix::net::{RecvFlags, recv};
use sixfour::wire::frame::{self, client, server};

use crate::{
    client::Client,
    download::SOURCE,
    machine::resident_bytes,
    peers::Peer,
    pingpong::{Trips, nanos},
    protocol::{Frame, Incoming, Line, Protocol, Role},
};

const WARM_UP: Duration = Duration::from_secs(1);

/// Bytes that one download may discard in a turn.
const TURN_BYTES: usize = 256 * 1024;

/// Output that a framed download lets come after so much was read.
const CREDIT_STEP_BYTES: u32 = 1024 * 1024;

/// The client that never reads is sent a kibibyte so often.
const SHOUT_EVERY: Duration = Duration::from_millis(1);

const DOWNLOADS: usize = 4;

/// Time that a disk may take for a file.
const COLD_PATIENCE: Duration = Duration::from_secs(120);

/// What a run has shown.
pub struct Mixed {
    /// Round trips of two clients with lines.
    pub line: Trips,
    /// Round trips of two clients with frames.
    pub frame: Trips,
    /// Bytes of the downloads in a second.
    pub bulk_rate: f64,
    /// Resident bytes of the server, once everything runs.
    pub before: u64,
    /// Resident bytes at the end.
    pub after: u64,
}

/// Chats while one file of so many bytes, of which none are in memory, is fetched by lines once.
pub fn run_cold(peer: &Peer, bytes: u64) -> Result<Mixed, String> {
    let mut load = Load::chat(peer)?;
    let before = resident_bytes(peer.daemon.pid())?;
    let begin = Instant::now();
    load.bulk.push(Download::open(peer, &load.poll, 0)?);
    while load.bulk_bytes() < bytes {
        if begin.elapsed() > COLD_PATIENCE {
            return Err(format!("the file was not there after {COLD_PATIENCE:?}"));
        }
        load.work_until(Instant::now() + Duration::from_millis(1))?;
    }
    let wall = begin.elapsed();
    Ok(Mixed {
        bulk_rate: bytes as f64 / wall.as_secs_f64(),
        before,
        after: resident_bytes(peer.daemon.pid())?,
        line: Trips::new(load.line.trips, wall),
        frame: Trips::new(load.frame.trips, wall),
    })
}

/// Runs it for so many seconds.
pub fn run(peer: &Peer, seconds: f64) -> Result<Mixed, String> {
    let mut load = Load::start(peer)?;
    load.work_until(Instant::now() + WARM_UP)?;
    load.line.trips.clear();
    load.frame.trips.clear();
    let bulk_before = load.bulk_bytes();
    let before = resident_bytes(peer.daemon.pid())?;
    let begin = Instant::now();
    load.work_until(begin + Duration::from_secs_f64(seconds))?;
    let wall = begin.elapsed();
    Ok(Mixed {
        bulk_rate: (load.bulk_bytes() - bulk_before) as f64 / wall.as_secs_f64(),
        before,
        after: resident_bytes(peer.daemon.pid())?,
        line: Trips::new(load.line.trips, wall),
        frame: Trips::new(load.frame.trips, wall),
    })
}

struct Load {
    poll: Poll,
    line: Pair,
    frame: Pair,
    bulk: Vec<Download>,
    /// Who writes to one that never reads.
    shouter: Option<Blocking>,
    /// Connections that live and are never looked at.
    _deaf: Vec<Blocking>,
    next_shout: Instant,
    scratch: Vec<u8>,
}

impl Load {
    /// The two pairs alone.
    fn chat(peer: &Peer) -> Result<Load, String> {
        let poll = Poll::new().map_err(|error| format!("no poll: {error}"))?;
        let line = Pair::open::<Line>(peer, &poll, "line", 0)?;
        let frame = Pair::open::<Frame>(peer, &poll, "frame", 2)?;
        let (next_shout, scratch) = (Instant::now(), vec![0; TURN_BYTES]);
        let (bulk, shouter, _deaf) = (Vec::new(), None, Vec::new());
        let mut load = Load { poll, line, frame, bulk, shouter, _deaf, next_shout, scratch };
        load.line.serve::<Line>(0)?;
        load.frame.serve::<Frame>(0)?;
        Ok(load)
    }

    fn start(peer: &Peer) -> Result<Load, String> {
        let mut load = Load::chat(peer)?;
        for index in 0..DOWNLOADS {
            load.bulk.push(Download::open(peer, &load.poll, index)?);
        }
        let deaf = Client::<Line>::connect(peer, 0, "deaf", Role::Both)?.into_stream();
        let mut yes = Client::<Line>::connect(peer, 1, "yes", Role::Both)?.into_stream();
        let text = |error| format!("cannot send: {error}");
        yes.write_all(b"run yes\n").map_err(text)?;
        let shouter = Client::<Line>::connect(peer, 1, "shouter", Role::Both)?.into_stream();
        shouter.set_nonblocking(true).map_err(text)?;
        load._deaf = vec![deaf, yes];
        load.shouter = Some(shouter);
        Ok(load)
    }

    fn bulk_bytes(&self) -> u64 {
        self.bulk.iter().map(|download| download.bytes).sum()
    }

    fn work_until(&mut self, end: Instant) -> Result<(), String> {
        let mut events = Events::with_capacity(64);
        while Instant::now() < end {
            let is_ready = self.bulk.iter().any(|download| download.is_ready);
            let wait = if is_ready { Duration::ZERO } else { SHOUT_EVERY };
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other.map_err(|error| format!("poll: {error}"))?,
            }
            // Chat first: it is what is measured.
            for event in &events {
                match event.token().0 {
                    side @ 0..2 => self.line.receive::<Line>(side, &mut self.scratch)?,
                    side @ 2..4 => self.frame.receive::<Frame>(side - 2, &mut self.scratch)?,
                    other => self.bulk[other - 4].is_ready = true,
                }
            }
            for download in &mut self.bulk {
                if download.is_ready {
                    download.discard(&mut self.scratch)?;
                }
            }
            self.shout()?;
        }
        for (pair, dialect) in [(&self.line, "lines"), (&self.frame, "frames")] {
            if pair.since.elapsed() > Duration::from_secs(5) {
                return Err(format!("a message of the chat with {dialect} never arrived"));
            }
        }
        Ok(())
    }

    /// Writes to the one that does not read; refusals come back and are thrown away.
    fn shout(&mut self) -> Result<(), String> {
        let Some(shouter) = &mut self.shouter else { return Ok(()) };
        if Instant::now() < self.next_shout {
            return Ok(());
        }
        self.next_shout = Instant::now() + SHOUT_EVERY;
        let mut line = vec![b'!'; 1024];
        line.extend_from_slice(b"|deaf\n");
        for result in [shouter.write(&line), shouter.read(&mut self.scratch)] {
            match result {
                Ok(0) => return Err("the server cut the shouter off".to_owned()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(format!("the shouter: {error}")),
            }
        }
        Ok(())
    }
}

/// Two clients that play one message to and fro.
struct Pair {
    names: [String; 2],
    streams: [TcpStream; 2],
    rests: [Vec<u8>; 2],
    since: Instant,
    trips: Vec<u32>,
}

impl Pair {
    fn open<P: Protocol>(
        peer: &Peer,
        poll: &Poll,
        name: &str,
        token: usize,
    ) -> Result<Pair, String> {
        let names = [format!("{name}-0"), format!("{name}-1")];
        let open = |side: usize| {
            let client = Client::<P>::connect(peer, side, &names[side], Role::Both)?;
            register(client.into_stream(), poll, token + side)
        };
        let streams = [open(0)?, open(1)?];
        let rests = [Vec::new(), Vec::new()];
        Ok(Pair { names, streams, rests, since: Instant::now(), trips: Vec::new() })
    }

    fn serve<P: Protocol>(&mut self, side: usize) -> Result<(), String> {
        let mut out = Vec::with_capacity(128);
        P::put_message(&mut out, &self.names[1 - side], &"x".repeat(64));
        write_whole(&mut self.streams[side], &out)
    }

    fn receive<P: Protocol>(&mut self, side: usize, scratch: &mut [u8]) -> Result<(), String> {
        while let Some(count) = read_some(&mut self.streams[side], scratch)? {
            self.rests[side].extend_from_slice(&scratch[..count]);
            while let Some((incoming, used)) = P::next(&self.rests[side])? {
                let is_text = matches!(incoming, Incoming::Text(_));
                self.rests[side].drain(..used);
                if !is_text {
                    continue;
                }
                if side == 0 {
                    let now = Instant::now();
                    self.trips.push(nanos(now - self.since));
                    self.since = now;
                }
                self.serve::<P>(side)?;
            }
        }
        Ok(())
    }
}

enum Progress {
    /// Before the line that tells the size.
    Head(Vec<u8>),
    /// So many bytes are to come.
    Body(u64),
    /// Frames: the incomplete rest, and what was read since the last credit.
    Frames(Vec<u8>, u32),
}

/// A client that fetches the file again and again and discards it.
struct Download {
    stream: TcpStream,
    progress: Progress,
    bytes: u64,
    is_ready: bool,
}

impl Download {
    /// The even ones speak lines, the odd ones frames.
    fn open(peer: &Peer, poll: &Poll, index: usize) -> Result<Download, String> {
        let name = format!("fetcher-{index}");
        let (stream, progress) = if index.is_multiple_of(2) {
            let client = Client::<Line>::connect(peer, index / 2, &name, Role::Both)?;
            (client.into_stream(), Progress::Head(Vec::new()))
        } else {
            let client = Client::<Frame>::connect(peer, index / 2, &name, Role::Both)?;
            (client.into_stream(), Progress::Frames(Vec::new(), 0))
        };
        let stream = register(stream, poll, 4 + index)?;
        let mut download = Download { stream, progress, bytes: 0, is_ready: false };
        download.request()?;
        Ok(download)
    }

    fn request(&mut self) -> Result<(), String> {
        let mut out = Vec::new();
        match self.progress {
            Progress::Frames(..) => {
                let body = serde_json::json!({ "op": "download", "path": SOURCE });
                frame::put_json(&mut out, client::REQUEST, 1, &body);
            }
            _ => out.extend_from_slice(format!("download {SOURCE}\n").as_bytes()),
        }
        write_whole(&mut self.stream, &out)
    }

    /// Takes what is there, at most the budget of a turn.
    fn discard(&mut self, scratch: &mut [u8]) -> Result<(), String> {
        if let Progress::Body(left) = self.progress {
            return self.discard_body(left, scratch);
        }
        // The head of a file is short; whatever follows it in the same read is counted.
        let Some(count) = read_some(&mut self.stream, scratch)? else {
            self.is_ready = false;
            return Ok(());
        };
        match &mut self.progress {
            Progress::Frames(rest, _) => {
                rest.extend_from_slice(&scratch[..count]);
                self.discard_frames()
            }
            Progress::Head(head) => {
                head.extend_from_slice(&scratch[..count]);
                self.discard_head()
            }
            Progress::Body(_) => unreachable!("bodies are discarded above"),
        }
    }

    fn discard_head(&mut self) -> Result<(), String> {
        let Progress::Head(head) = &self.progress else { return Ok(()) };
        let Some(end) = memchr::memchr(b'\n', head) else { return Ok(()) };
        let line = String::from_utf8_lossy(&head[..end]);
        let size = line.strip_prefix("file ").and_then(|rest| rest.split(' ').next());
        let Some(size) = size.and_then(|size| size.parse::<u64>().ok()) else {
            return Err(format!("a download: {line}"));
        };
        let come = (head.len() - end - 1) as u64;
        self.finish_or_go_on(size, come)
    }

    /// MSG_TRUNC lets the kernel throw the bytes away without copying them (tcp(7)).
    fn discard_body(&mut self, left: u64, scratch: &mut [u8]) -> Result<(), String> {
        let most = left.min(scratch.len() as u64) as usize;
        match recv(&self.stream, &mut scratch[..most], RecvFlags::TRUNC) {
            Ok((_, 0)) => Err("the server closed a download".to_owned()),
            Ok((_, count)) => self.finish_or_go_on(left, count as u64),
            Err(rustix::io::Errno::AGAIN) => {
                self.is_ready = false;
                Ok(())
            }
            Err(error) => Err(format!("a download: {error}")),
        }
    }

    fn finish_or_go_on(&mut self, left: u64, come: u64) -> Result<(), String> {
        self.bytes += come;
        match left.checked_sub(come) {
            None => Err("more came than the file is long".to_owned()),
            Some(0) => {
                self.progress = Progress::Head(Vec::new());
                self.request()
            }
            Some(left) => {
                self.progress = Progress::Body(left);
                Ok(())
            }
        }
    }

    fn discard_frames(&mut self) -> Result<(), String> {
        let Progress::Frames(rest, owed) = &mut self.progress else { return Ok(()) };
        let (mut used, mut is_over) = (0, false);
        while let Some(frame) =
            frame::Frame::split(&rest[used..]).map_err(|refusal| refusal.text.to_string())?
        {
            used += frame.length();
            match frame.kind {
                server::DATA => {
                    self.bytes += frame.body.len() as u64;
                    *owed += frame.body.len() as u32;
                }
                server::END if frame.body.windows(4).any(|word| word == b"sent") => is_over = true,
                server::END | server::ERROR | server::GOODBYE => {
                    return Err(format!("a download: {}", String::from_utf8_lossy(frame.body)));
                }
                _ => {}
            }
        }
        rest.drain(..used);
        if is_over {
            *owed = 0;
            return self.request();
        }
        if *owed >= CREDIT_STEP_BYTES {
            let mut out = Vec::new();
            frame::put(&mut out, client::CREDIT, 1, &owed.to_be_bytes());
            *owed = 0;
            return write_whole(&mut self.stream, &out);
        }
        Ok(())
    }
}

fn register(stream: Blocking, poll: &Poll, token: usize) -> Result<TcpStream, String> {
    let text = |error| format!("cannot be polled: {error}");
    stream.set_nonblocking(true).map_err(text)?;
    let mut stream = TcpStream::from_std(stream);
    poll.registry().register(&mut stream, Token(token), Interest::READABLE).map_err(text)?;
    Ok(stream)
}

/// Requests are a few bytes and rare: a socket that does not take them is broken.
fn write_whole(stream: &mut TcpStream, bytes: &[u8]) -> Result<(), String> {
    match stream.write(bytes) {
        Ok(count) if count == bytes.len() => Ok(()),
        Ok(_) => Err("a request was cut".to_owned()),
        Err(error) => Err(format!("cannot send: {error}")),
    }
}

/// Bytes read, `None` when there are none now.
fn read_some(stream: &mut TcpStream, scratch: &mut [u8]) -> Result<Option<usize>, String> {
    match stream.read(scratch) {
        Ok(0) => Err("the server closed the connection".to_owned()),
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(format!("cannot read: {error}")),
    }
}
