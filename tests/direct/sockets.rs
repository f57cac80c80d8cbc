//! Two drivers on real sockets, each with a thread, and what they have to say to each other.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use sixfour::{
    direct::{ChannelId, Ended, Endpoint, Event, driver::Runner},
    wire::{Candidates, Fingerprint, Introduction, OneTimeToken},
};

/// What one end did and saw.
#[derive(Debug)]
pub struct Outcome {
    pub opened_after: Option<Duration>,
    pub path: Option<SocketAddr>,
    pub heard: blake3::Hash,
    pub heard_bytes: u64,
    pub took: Duration,
    pub ended: Ended,
    /// How long it stayed for the other to know that it goes.
    pub stayed: Duration,
}

/// The addresses of this host's loopback.
pub fn loopbacks() -> Vec<IpAddr> {
    let all = ["::1", "127.0.0.1"].map(|text| text.parse().expect("an address"));
    let is_there = |host: &IpAddr| {
        let there = UdpSocket::bind((*host, 0)).is_ok();
        if !there {
            println!("skipped for {host}: this host has no such address");
        }
        there
    };
    all.into_iter().filter(is_there).collect()
}

/// Bytes that never repeat within a block.
pub fn block(seed: u64) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    let mut bytes = vec![0; 64 * 1024];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// The hash of what an end with this seed says.
pub fn said(seed: u64, bytes: u64) -> blake3::Hash {
    let block = block(seed);
    let mut hasher = blake3::Hasher::new();
    let mut left = bytes as usize;
    while left > 0 {
        let count = left.min(block.len());
        hasher.update(&block[..count]);
        left -= count;
    }
    hasher.finalize()
}

/// Introduces two new drivers to each other; the places of each are made of its port. Each end
/// says so many bytes, the first with seed 0, the second with seed 1.
pub fn meet(
    says: [u64; 2],
    places: impl Fn(usize, u16) -> Vec<SocketAddr>,
    limit: Duration,
) -> [Outcome; 2] {
    let mut runners = [0, 1].map(|_| Some(Runner::new().expect("sockets")));
    let introductions = [1, 0].map(|of: usize| {
        let driver = &runners[of].as_ref().expect("it is there").driver;
        introduction(driver.endpoint.fingerprint(), &places(of, driver.port()))
    });
    let (sender, outcomes) = mpsc::channel();
    let threads: Vec<_> = (0..2)
        .map(|at| {
            let runner = runners[at].take().expect("each once");
            let (introduction, sender) = (introductions[at].clone(), sender.clone());
            thread::spawn(move || {
                let outcome = talk(runner, &introduction, at as u64, says[at], limit);
                sender.send((at, outcome)).expect("somebody waits");
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no end panics"));
    let mut found: Vec<_> = outcomes.iter().take(2).collect();
    found.sort_by_key(|(at, _)| *at);
    let mut found = found.into_iter().map(|(_, outcome)| outcome);
    std::array::from_fn(|_| found.next().expect("both have told"))
}

fn introduction(fingerprint: Fingerprint, places: &[SocketAddr]) -> Introduction {
    let candidates = Candidates::new(places.iter().copied()).expect("good places");
    Introduction { fingerprint, token: OneTimeToken([9; 32]), candidates }
}

struct Speaker {
    channel: ChannelId,
    block: Vec<u8>,
    to_say: u64,
    said: u64,
    hasher: blake3::Hasher,
    heard: u64,
    is_open: bool,
    is_finished: bool,
    buffer: Vec<u8>,
}

impl Speaker {
    fn work(&mut self, endpoint: &mut Endpoint) {
        while self.is_open && self.said < self.to_say {
            let from = (self.said % self.block.len() as u64) as usize;
            let most = ((self.to_say - self.said) as usize).min(self.block.len() - from);
            match endpoint.write(self.channel, &self.block[from..from + most]) {
                Ok(count) => self.said += count as u64,
                Err(_) => break,
            }
        }
        if self.is_open && self.said == self.to_say && !self.is_finished {
            self.is_finished = endpoint.finish(self.channel).is_ok();
        }
        while let Ok(count @ 1..) = endpoint.read(self.channel, &mut self.buffer) {
            self.hasher.update(&self.buffer[..count]);
            self.heard += count as u64;
        }
    }
}

fn talk(
    mut runner: Runner,
    introduction: &Introduction,
    seed: u64,
    to_say: u64,
    limit: Duration,
) -> Outcome {
    let begin = Instant::now();
    let channel = runner.driver.endpoint.open(introduction, true, begin).expect("there is room");
    let mut speaker = Speaker {
        channel,
        block: block(seed),
        to_say,
        said: 0,
        hasher: blake3::Hasher::new(),
        heard: 0,
        is_open: false,
        is_finished: false,
        buffer: vec![0; 256 * 1024],
    };
    let (mut opened_after, mut path, mut ended) = (None, None, None);
    while ended.is_none() {
        assert!(begin.elapsed() < limit, "not done after {limit:?}: {} heard", speaker.heard);
        let work = &mut |endpoint: &mut Endpoint, event: Option<Event>| {
            match event {
                Some(Event::Opened { remote, .. }) => {
                    (opened_after, path) = (Some(begin.elapsed()), Some(remote));
                    assert_eq!(endpoint.path(channel), Some(remote));
                    speaker.is_open = true;
                }
                Some(Event::Closed(_, why)) => ended = Some(why),
                Some(Event::Readable(_) | Event::Writable(_)) | None => {}
            }
            speaker.work(endpoint);
        };
        runner.turn(Duration::from_millis(200), work).expect("the sockets work");
    }
    let took = begin.elapsed();
    let leaving = Instant::now();
    runner.leave(Duration::from_secs(5)).expect("the sockets work");
    Outcome {
        opened_after,
        path,
        heard: speaker.hasher.finalize(),
        heard_bytes: speaker.heard,
        took,
        ended: ended.expect("the loop has ended"),
        stayed: leaving.elapsed(),
    }
}
