//! Requests of programs and their answers, over one connection and over several.
//!
//! Requests and answers all have one length and are known beforehand: to ask is to write a piece
//! of a ring, and every byte that comes back is compared with the ring of the answers.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token};
use sixfour::sys::transport::Transport;

use crate::{
    client,
    machine::{cpu_time, own_cpu_time},
    peers::{self, Kind, Peer, Place},
    pingpong::{Trips, nanos},
};

/// Time before the measurement begins.
const WARM_UP: Duration = Duration::from_millis(500);
/// Silence that means that an answer is lost.
const STALL: Duration = Duration::from_secs(3);
/// Requests in a ring, each with an id of its own.
const RING: usize = 1000;
const SCRATCH_BYTES: usize = 256 * 1024;
const TEXT_BYTES: usize = 64;

/// What is asked for, and of whom.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ask {
    /// `{"op": "echo"}` of our server.
    Echo,
    /// `PING` with a text of Redis, which says it back.
    Ping,
    /// `{"method": "true"}` of our server.
    True,
}

impl Ask {
    /// Who answers, by the name in the table.
    pub fn peer(self) -> &'static str {
        match self {
            Ask::Echo | Ask::True => "sixfour-json",
            Ask::Ping => "redis",
        }
    }

    /// Starts who answers.
    pub fn start(self, place: &Place) -> Result<Peer, String> {
        peers::start(if self == Ask::Ping { Kind::Redis } else { Kind::Line }, place)
    }

    /// The request number `id`, and all of its answer.
    fn words(self, id: usize) -> (String, String) {
        let id = 1000 + id;
        let text: String = (0..TEXT_BYTES).map(|at| char::from(b'a' + (at % 26) as u8)).collect();
        match self {
            Ask::Echo => (
                format!(r#"{{"op":"echo","text":"{text}","id":{id}}}"#),
                format!(
                    "{{\"id\":{id},\"result\":null,\"stdout\":\"\",\"stderr\":\"\",\
                     \"errorcode\":0,\"text\":\"{text}\"}}\n"
                ),
            ),
            Ask::True => (
                format!(r#"{{"method":"true","id":{id}}}"#),
                format!(
                    "{{\"id\":{id},\"result\":0,\"stdout\":\"\",\"stderr\":\"\",\
                     \"errorcode\":0}}\n"
                ),
            ),
            Ask::Ping => (
                format!("*2\r\n$4\r\nPING\r\n${TEXT_BYTES}\r\n{text}\r\n"),
                format!("${TEXT_BYTES}\r\n{text}\r\n"),
            ),
        }
    }
}

/// How many ask, and how many requests of each are under way.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Connections; the families take turns.
    pub connections: usize,
    /// Requests of one connection that are not answered yet.
    pub depth: usize,
}

/// What a run has shown.
pub struct Asked {
    /// Answers in the measured time, and how long that was.
    pub answers: u64,
    /// See above.
    pub wall: Duration,
    /// Processor time of the server in it, that of its children not counted.
    pub server_cpu: Duration,
    /// Processor time of the load.
    pub load_cpu: Duration,
    /// Times from a request to its answer, where one at a time was asked.
    pub trips: Trips,
}

/// Asks for so many seconds.
pub fn run(peer: &Peer, ask: Ask, shape: Shape, seconds: f64) -> Result<Asked, String> {
    let mut load = Load::connect(peer, ask, shape)?;
    load.work_until(Instant::now() + WARM_UP)?;
    load.answers = 0;
    load.times.clear();
    let (begin, cpu, own) = (Instant::now(), cpu_time(peer.daemon.pid())?, own_cpu_time());
    load.work_until(begin + Duration::from_secs_f64(seconds))?;
    let (wall, load_cpu) = (begin.elapsed(), own_cpu_time() - own);
    let server_cpu = cpu_time(peer.daemon.pid())? - cpu;
    let trips = Trips::new(load.times, wall);
    Ok(Asked { answers: load.answers, wall, server_cpu, load_cpu, trips })
}

struct Load {
    poll: Poll,
    callers: Vec<Caller>,
    requests: Ring,
    replies: Ring,
    depth: usize,
    scratch: Vec<u8>,
    answers: u64,
    times: Vec<u32>,
}

/// All of equal length, one after the other, and twice, so that a piece never has to wrap.
struct Ring {
    bytes: Vec<u8>,
    each: usize,
}

struct Caller {
    stream: Transport,
    /// Where in the rings it stands.
    asked: usize,
    heard: usize,
    /// What the depth lets it send yet.
    allowed_bytes: usize,
    is_writable: bool,
    since: Instant,
}

impl Ring {
    fn of(words: impl Iterator<Item = String>) -> Ring {
        let words: Vec<String> = words.collect();
        let each = words[0].len();
        assert!(words.iter().all(|it| it.len() == each), "all have one length");
        Ring { bytes: words.concat().repeat(2).into_bytes(), each }
    }

    fn piece(&self, at: usize, length: usize) -> &[u8] {
        &self.bytes[at..][..length.min(self.bytes.len() / 2)]
    }

    fn after(&self, at: usize, count: usize) -> usize {
        (at + count) % (self.bytes.len() / 2)
    }
}

impl Load {
    fn connect(peer: &Peer, ask: Ask, shape: Shape) -> Result<Load, String> {
        let poll = Poll::new().map_err(|error| format!("epoll: {error}"))?;
        let requests = Ring::of((0..RING).map(|id| ask.words(id).0));
        let replies = Ring::of((0..RING).map(|id| ask.words(id).1));
        let mut callers = Vec::new();
        for index in 0..shape.connections {
            let stream = client::open(peer, index)?;
            stream.set_nonblocking(true).map_err(|error| format!("cannot be polled: {error}"))?;
            let mut stream = Transport::plain(mio::net::TcpStream::from_std(stream));
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry()
                .register(&mut stream, Token(index), both)
                .map_err(|error| format!("cannot poll: {error}"))?;
            callers.push(Caller {
                stream,
                asked: 0,
                heard: 0,
                allowed_bytes: shape.depth * requests.each,
                is_writable: true,
                since: Instant::now(),
            });
        }
        let (scratch, times) = (vec![0; SCRATCH_BYTES], Vec::new());
        Ok(Load {
            poll,
            callers,
            requests,
            replies,
            depth: shape.depth,
            scratch,
            answers: 0,
            times,
        })
    }

    fn work_until(&mut self, end: Instant) -> Result<(), String> {
        let mut events = Events::with_capacity(64);
        for caller in &mut self.callers {
            caller.ask(&self.requests)?;
        }
        while Instant::now() < end {
            match self.poll.poll(&mut events, Some(STALL)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("poll: {error}")),
                Ok(()) if events.is_empty() => {
                    let count = self.answers;
                    return Err(format!("stalled: nothing came for {STALL:?} after {count}"));
                }
                Ok(()) => {}
            }
            for event in &events {
                let at = event.token().0;
                self.callers[at].is_writable |= event.is_writable();
                if event.is_readable() {
                    self.hear(at)?;
                }
                self.callers[at].ask(&self.requests)?;
            }
        }
        Ok(())
    }

    fn hear(&mut self, at: usize) -> Result<(), String> {
        let Load { callers, requests, replies, scratch, .. } = self;
        let caller = &mut callers[at];
        loop {
            let count = match caller.stream.read(scratch) {
                Ok(0) => return Err("the server closed the connection".to_owned()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("cannot read: {error}")),
            };
            let said = &scratch[..count];
            if said != replies.piece(caller.heard, count) {
                let head = &said[..count.min(200)];
                return Err(format!("the server said {:?}", String::from_utf8_lossy(head)));
            }
            let whole = (caller.heard % replies.each + count) / replies.each;
            caller.heard = replies.after(caller.heard, count);
            caller.allowed_bytes += whole * requests.each;
            self.answers += whole as u64;
            if self.depth == 1 && whole == 1 {
                self.times.push(nanos(caller.since.elapsed()));
            }
            if caller.stream.has_drained(count, scratch.len()) {
                return Ok(());
            }
        }
    }
}

impl Caller {
    fn ask(&mut self, requests: &Ring) -> Result<(), String> {
        while self.is_writable && self.allowed_bytes > 0 {
            let piece = requests.piece(self.asked, self.allowed_bytes);
            self.since = Instant::now();
            match self.stream.write(piece, false) {
                Ok(count) => {
                    self.is_writable = count == piece.len();
                    self.asked = requests.after(self.asked, count);
                    self.allowed_bytes -= count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("cannot send: {error}")),
            }
        }
        Ok(())
    }
}
