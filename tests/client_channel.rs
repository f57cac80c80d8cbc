//! The way between two clients without the processes around it: a direct path that breaks, is
//! missing, or is given up by one end alone, and the pipe through the server that takes its place.

#[allow(dead_code, reason = "the line alone is of use here")]
#[path = "direct/proxy.rs"]
mod proxy;
#[path = "direct/rng.rs"]
mod rng;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::mpsc,
    time::{Duration, Instant},
};

use mio::{Poll, Token, Waker};
use proxy::Proxy;
use sixfour::{
    client::{
        blocks::Chunk,
        channel::{self, Channels, Meeting, Ticket, Way},
        mover::Work,
        post::{News, Post},
    },
    transfer::Segment,
    wire::{Candidates, Contact, Introduction, OneTimeToken},
};

const TAG: u32 = 7;
const MIB: usize = 1024 * 1024;
const FAMILIES: [IpAddr; 2] = [IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)];

/// A client that says bytes, and hears those of the other one.
struct End {
    channels: Channels,
    contact: Contact,
    _poll: Poll,
    news: mpsc::Receiver<News>,
    work: Option<(Ticket, mpsc::Receiver<Work>)>,
    to_say: Vec<u8>,
    /// Bytes that the channel has not taken.
    ahead: usize,
    heard: Vec<u8>,
    to_hear: usize,
    has_said_over: bool,
    ways: Vec<Way>,
    is_over: bool,
    has_ended_pipe: bool,
}

impl End {
    fn new(udp_port: Option<u16>, to_say: Vec<u8>) -> End {
        let poll = Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), Token(0)).expect("a waker");
        let (post, news) = Post::new(waker);
        let (started, _) = channel::open(udp_port, &post).expect("a thread");
        End {
            channels: started.channels,
            contact: started.contact,
            _poll: poll,
            news,
            work: None,
            to_say,
            ahead: 0,
            heard: Vec::new(),
            to_hear: 0,
            has_said_over: false,
            ways: Vec::new(),
            is_over: false,
            has_ended_pipe: false,
        }
    }

    fn port(&self) -> u16 {
        self.contact.direct.as_ref().map_or(0, |place| place.port)
    }

    fn meet(&mut self, other: &Contact, places: &[SocketAddr]) {
        let candidates = Candidates::new(places.iter().copied()).expect("good places");
        let (fingerprint, token) = (other.fingerprint, OneTimeToken([9; 32]));
        let introduction = Introduction { fingerprint, token, candidates };
        let is_direct = self.contact.direct.is_some() && other.direct.is_some();
        let meeting = Meeting { introduction, is_direct, same_host: true };
        let (sender, work) = mpsc::channel();
        self.work = Some((self.channels.open(TAG, meeting, sender), work));
    }

    /// Does what is to be done; what it says to the server.
    fn turn(&mut self, pace: usize) -> Vec<u8> {
        let (ticket, work) = self.work.as_ref().expect("they have met");
        for work in work.try_iter() {
            match work {
                Work::Chunk(chunk) => {
                    chunk.slices().for_each(|bytes| self.heard.extend_from_slice(bytes));
                    self.channels.consumed(TAG, chunk.length());
                }
                Work::Taken(count) => self.ahead -= count,
                Work::Verify(_) | Work::End => panic!("nobody has said that"),
            }
        }
        let count = pace.min(self.to_say.len());
        if self.ahead < MIB && count > 0 {
            let bytes: Vec<u8> = self.to_say.drain(..count).collect();
            self.ahead += count;
            assert!(self.channels.say(TAG, bytes));
        }
        let has_all = self.to_say.is_empty() && self.heard.len() == self.to_hear;
        if has_all && !std::mem::replace(&mut self.has_said_over, true) {
            self.channels.over(TAG, Ok(()));
        }
        let mut pipe = Vec::new();
        for news in self.news.try_iter() {
            match news {
                News::Said(TAG, segments) => {
                    for segment in segments {
                        let Segment::Bytes(bytes) = segment else { panic!("a part of a file") };
                        ticket.taken(bytes.len());
                        pipe.extend(bytes);
                    }
                }
                News::Way(TAG, way) => self.ways.push(way),
                News::Moved(TAG, outcome) => {
                    outcome.expect("it succeeds");
                    self.is_over = true;
                }
                News::After(_) => {}
                other => panic!("{other:?}"),
            }
        }
        pipe
    }
}

/// Runs both ends until they are done, calling `watch` with what both have heard.
fn run(
    ends: &mut [End; 2],
    pace: usize,
    limit: Duration,
    mut watch: impl FnMut(&[End; 2]),
) -> bool {
    let (begin, mut in_clear) = (Instant::now(), false);
    while !ends.iter().all(|end| end.is_over) {
        assert!(
            begin.elapsed() < limit,
            "not done: {:?}",
            ends.each_ref().map(|it| it.heard.len())
        );
        for at in 0..2 {
            let pipe = ends[at].turn(pace);
            in_clear |= memchr::memmem::find(&pipe, &PATTERN[..16]).is_some();
            let ends_pipe = ends[at].is_over && !ends[at].has_ended_pipe;
            let (ticket, _) = ends[1 - at].work.as_ref().expect("they have met");
            if !pipe.is_empty() {
                ticket.chunk(Chunk::Own(pipe));
            }
            if ends_pipe {
                ticket.peer_ended();
                ends[at].has_ended_pipe = true;
            }
        }
        watch(ends);
        std::thread::sleep(Duration::from_micros(200));
    }
    in_clear
}

const PATTERN: &[u8] = b"what both ends say, again and again: ";

fn said(count: usize) -> Vec<u8> {
    let mut bytes = PATTERN.repeat(count / PATTERN.len() + 1);
    bytes.truncate(count);
    // Not the same everywhere.
    bytes.chunks_mut(1000).enumerate().for_each(|(at, chunk)| {
        let number = (at as u32).to_le_bytes();
        let room = chunk.len().min(4);
        chunk[..room].copy_from_slice(&number[..room]);
    });
    bytes
}

/// Two ends that find each other over this line.
fn introduce(ends: &mut [End; 2], places: [Vec<SocketAddr>; 2]) {
    let contacts = ends.each_ref().map(|end| end.contact.clone());
    let [first, second] = ends;
    (first.to_hear, second.to_hear) = (second.to_say.len(), first.to_say.len());
    ends[0].meet(&contacts[1], &places[0]);
    ends[1].meet(&contacts[0], &places[1]);
}

fn break_midway(host: IpAddr) {
    let texts = [said(6 * MIB), said(300_000)];
    let mut ends = texts.clone().map(|text| End::new(Some(0), text));
    let sockets = Proxy::sockets(host);
    let places = sockets.each_ref().map(|it| it.local_addr().expect("it is bound"));
    let line = Proxy::start(sockets, ends.each_ref().map(|it| (host, it.port()).into()), 0, 1);
    // What comes to the first socket is from the first end.
    introduce(&mut ends, [vec![places[0]], vec![places[1]]]);
    let mut line = Some(line);
    let in_clear = run(&mut ends, 20_000, Duration::from_secs(40), |ends| {
        if ends[1].heard.len() > 2 * MIB {
            line = None;
        }
    });
    assert!(line.is_none(), "the line was cut");
    for (at, end) in ends.iter().enumerate() {
        assert!(end.heard == texts[1 - at], "other bytes came");
        assert!(matches!(end.ways[..], [Way::Direct(_), Way::Sealed]), "{:?}", end.ways);
    }
    assert!(!in_clear, "it went through the pipe in clear");
}

#[test]
fn a_path_that_breaks_midway_gives_way_to_the_pipe_from_where_it_stood() {
    break_midway(FAMILIES[0]);
}

#[test]
fn so_does_one_over_ipv4() {
    break_midway(FAMILIES[1]);
}

#[test]
fn without_a_path_the_pipe_is_taken_after_three_seconds() {
    let silent = UdpSocket::bind((FAMILIES[1], 0)).expect("a free port");
    let nowhere = vec![silent.local_addr().expect("it is bound")];
    let texts = [said(MIB), said(10)];
    let mut ends = texts.clone().map(|text| End::new(Some(0), text));
    introduce(&mut ends, [nowhere.clone(), nowhere]);
    let begin = Instant::now();
    let in_clear = run(&mut ends, MIB, Duration::from_secs(15), |_| {});
    assert!(begin.elapsed() > Duration::from_secs(3) && !in_clear);
    for (at, end) in ends.iter().enumerate() {
        assert!(end.heard == texts[1 - at], "other bytes came");
        assert_eq!(end.ways, [Way::Sealed]);
    }
}

#[test]
fn where_one_end_has_no_sockets_nothing_is_waited_for() {
    for ports in [[Some(0), None], [None, Some(0)], [None, None]] {
        let texts = [said(3 * MIB), said(0)];
        let mut ends = [0, 1].map(|at: usize| End::new(ports[at], texts[at].clone()));
        introduce(&mut ends, [Vec::new(), Vec::new()]);
        let begin = Instant::now();
        assert!(!run(&mut ends, MIB, Duration::from_secs(15), |_| {}));
        assert!(begin.elapsed() < Duration::from_secs(3));
        assert!(ends[1].heard == texts[0] && ends[0].heard.is_empty());
        assert!(ends.iter().all(|end| end.ways == [Way::Sealed]));
    }
}
