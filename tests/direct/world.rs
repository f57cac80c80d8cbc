//! A world of endpoints on a virtual clock, and a network between them that one seed decides.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::{IpAddr, SocketAddr},
    sync::OnceLock,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use sixfour::{
    direct::{ChannelId, EcnCodepoint, Ended, Endpoint, Event, SessionKey},
    wire::{Candidates, Fingerprint, Introduction, OneTimeToken},
};

use super::rng::Rng;

/// What the network does to datagrams, each way. Chances are in a thousand.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub lost: usize,
    pub doubled: usize,
    /// These come later than those sent after them.
    pub reordered: usize,
    /// A byte of these is another one.
    pub corrupted: usize,
    pub delay: Duration,
    /// Larger datagrams vanish.
    pub mtu: usize,
    /// Bytes in a second, and how many may wait for their turn.
    pub rate: Option<(u64, u64)>,
}

impl Link {
    pub const GOOD: Link = Link {
        lost: 0,
        doubled: 0,
        reordered: 0,
        corrupted: 0,
        delay: Duration::from_millis(10),
        mtu: 1500,
        rate: None,
    };
}

/// A datagram on its way. The earliest is the greatest, for the heap.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Flying {
    at: Reverse<Instant>,
    number: Reverse<u64>,
    from: SocketAddr,
    to: SocketAddr,
    ecn: u8,
    bytes: Vec<u8>,
}

/// What the application at an end does with the channel it has.
#[derive(Clone, Debug, Default)]
pub struct Talk {
    pub channel: Option<ChannelId>,
    /// So much of its own pattern is to be said, and was.
    pub to_say: u64,
    pub said: u64,
    /// So much of the other's pattern was heard, each byte compared.
    pub heard: u64,
    pub opened: Option<(Duration, SocketAddr)>,
    pub heard_end: Option<Duration>,
    pub closed: Option<(Duration, Ended)>,
    pub is_finished: bool,
    /// Reads nothing.
    pub is_deaf: bool,
    /// Of the other end's pattern.
    pub other_seed: u64,
}

/// One machine.
pub struct End {
    pub endpoint: Endpoint,
    /// One of each family, of which the first may be dialled.
    pub addresses: Vec<SocketAddr>,
    pub talks: Vec<Talk>,
    /// It has stopped: nothing goes in or out.
    pub is_dead: bool,
    /// It stops as soon as its talks are over and their farewells are said.
    pub leaves: bool,
    pub sent: u64,
}

pub struct World {
    seed: u64,
    pub begin: Instant,
    pub now: Instant,
    pub ends: Vec<End>,
    pub rng: Rng,
    pub link: Link,
    /// What the network swallows whole, by source and target.
    pub blocked: Vec<(IpAddr, IpAddr)>,
    /// Hosts that only small datagrams reach.
    pub half_deaf: Vec<IpAddr>,
    flying: BinaryHeap<Flying>,
    sent: u64,
    /// When the line of each end is free again.
    busy_until: Vec<Instant>,
    /// The end that is tapped, if any, and what it has sent to whom.
    pub tapped: Option<usize>,
    pub letters: Vec<(SocketAddr, Vec<u8>)>,
    /// Hash of all sizes, times and places: the same for the same seed.
    pub trace: u64,
    pub counts: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub lost: u64,
    pub doubled: u64,
    pub reordered: u64,
    pub corrupted: u64,
    pub too_large: u64,
    pub overflown: u64,
    pub delivered: u64,
}

/// What talkers say, over and over: so many bytes that no power of two divides them.
const PATTERN_BYTES: usize = 65_521;

/// What the talker with this seed says from `offset` on, at most `max` bytes of it.
fn pattern(seed: u64, offset: u64, max: usize) -> &'static [u8] {
    static PATTERNS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let make = |seed: u64| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        let mut bytes = vec![0; PATTERN_BYTES];
        hasher.finalize_xof().fill(&mut bytes);
        bytes
    };
    let all = PATTERNS.get_or_init(|| (0..256).map(make).collect());
    let from = (offset % PATTERN_BYTES as u64) as usize;
    &all[seed as usize][from..(from + max).min(PATTERN_BYTES)]
}

/// A Retry is smaller, and a handshake larger.
const SMALL_BYTES: usize = 300;

pub fn key(seed: u8) -> SessionKey {
    SessionKey::from_seed(&[seed; 32])
}

pub fn introduction(to: Fingerprint, token: u8, candidates: &[SocketAddr]) -> Introduction {
    let candidates = Candidates::new(candidates.iter().copied()).expect("good candidates");
    Introduction { fingerprint: to, token: OneTimeToken([token; 32]), candidates }
}

impl World {
    pub fn new(seed: u64, link: Link) -> World {
        let begin = Instant::now();
        World {
            seed,
            begin,
            now: begin,
            ends: Vec::new(),
            rng: Rng(seed),
            link,
            blocked: Vec::new(),
            half_deaf: Vec::new(),
            flying: BinaryHeap::new(),
            sent: 0,
            busy_until: Vec::new(),
            tapped: None,
            letters: Vec::new(),
            trace: 0,
            counts: Counts::default(),
        }
    }

    /// Adds a machine with these addresses; its number.
    pub fn add(&mut self, key: SessionKey, addresses: &[&str]) -> usize {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.rng.next().to_le_bytes());
        self.ends.push(End {
            endpoint: Endpoint::new(key, &seed, false),
            addresses: addresses.iter().map(|it| it.parse().expect("an address")).collect(),
            talks: Vec::new(),
            is_dead: false,
            leaves: false,
            sent: 0,
        });
        self.busy_until.push(self.now);
        self.ends.len() - 1
    }

    /// Two machines with a global address of each family.
    pub fn pair(seed: u64, link: Link) -> World {
        let mut world = World::new(seed, link);
        world.add(key(1), &["[2001:db8::1]:4001", "192.0.2.1:4001"]);
        world.add(key(2), &["[2001:db8::2]:4002", "192.0.2.2:4002"]);
        world
    }

    /// Introduces two ends to each other by these candidates, at once; the numbers of their talks.
    pub fn introduce(&mut self, a: usize, b: usize, token: u8) -> (usize, usize) {
        let of_a = self.ends[a].addresses.clone();
        let of_b = self.ends[b].addresses.clone();
        (self.tell(a, b, token, &of_b), self.tell(b, a, token, &of_a))
    }

    /// Tells one end alone of another; the number of its talk.
    pub fn tell(&mut self, end: usize, of: usize, token: u8, at: &[SocketAddr]) -> usize {
        let introduction = introduction(self.ends[of].endpoint.fingerprint(), token, at);
        let channel = self.ends[end].endpoint.open(&introduction, true, self.now);
        let channel = channel.expect("there is room");
        let other_seed = u64::from(introduction.fingerprint.0[0]);
        let talk = Talk { channel: Some(channel), other_seed, ..Talk::default() };
        self.ends[end].talks.push(talk);
        self.ends[end].talks.len() - 1
    }

    pub fn elapsed(&self) -> Duration {
        self.now - self.begin
    }

    /// Lets the world go on until all is as wanted; panics where nothing happens any more, or
    /// where it takes longer than `limit` of virtual time.
    pub fn run_until(&mut self, limit: Duration, mut is_done: impl FnMut(&World) -> bool) {
        let until = self.now + limit;
        loop {
            self.work();
            if is_done(self) {
                return;
            }
            let next = self.next_at();
            let Some(next) = next.filter(|next| *next <= until) else {
                let talks: Vec<_> = self.ends.iter().map(|end| &end.talks).collect();
                panic!("not done after {limit:?}: {talks:#?}, {:?}", self.counts);
            };
            self.now = self.now.max(next);
        }
    }

    /// Lets time pass, whatever happens in it.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            self.work();
            match self.next_at().filter(|next| *next <= until) {
                Some(next) => self.now = self.now.max(next),
                None => break,
            }
        }
        self.now = until;
    }

    fn next_at(&mut self) -> Option<Instant> {
        let flying = self.flying.peek().map(|it| it.at.0);
        let ends = self.ends.iter_mut().filter(|end| !end.is_dead);
        let timeouts = ends.filter_map(|end| end.endpoint.poll_timeout());
        timeouts.chain(flying).min()
    }

    /// All that is due now.
    fn work(&mut self) {
        while self.flying.peek().is_some_and(|it| it.at.0 <= self.now) {
            let flying = self.flying.pop().expect("it was seen just now");
            self.deliver(flying);
        }
        for at in 0..self.ends.len() {
            let end = &mut self.ends[at];
            if end.is_dead {
                continue;
            }
            if end.endpoint.poll_timeout().is_some_and(|due| due <= self.now) {
                end.endpoint.handle_timeout(self.now);
            }
            let elapsed = self.now - self.begin;
            while let Some(event) = end.endpoint.poll_event(self.now) {
                end.hear(&event, elapsed);
            }
            for talk in 0..end.talks.len() {
                end.talk(talk, elapsed);
            }
            while let Some(event) = end.endpoint.poll_event(self.now) {
                end.hear(&event, elapsed);
            }
            self.ends[at].leave_if_done(self.now);
            self.send_all(at);
        }
    }

    fn deliver(&mut self, flying: Flying) {
        let at = self.ends.iter().position(|end| end.addresses.contains(&flying.to));
        if let Some(at) = at.filter(|at| !self.ends[*at].is_dead) {
            self.counts.delivered += 1;
            let ecn = EcnCodepoint::from_bits(flying.ecn);
            let bytes = BytesMut::from(&flying.bytes[..]);
            let local = Some(flying.to.ip());
            self.ends[at].endpoint.handle_datagram(flying.from, local, ecn, bytes, self.now);
        }
    }

    fn send_all(&mut self, at: usize) {
        let mut buffer = Vec::new();
        while let Some(transmit) = self.ends[at].endpoint.poll_transmit(10, &mut buffer, self.now) {
            let to = transmit.destination;
            let mut own = self.ends[at].addresses.iter();
            let Some(from) = own.find(|it| it.is_ipv4() == to.is_ipv4()).copied() else {
                self.ends[at].endpoint.handle_unreachable(to, self.now);
                continue;
            };
            let size = transmit.segment_size.unwrap_or(transmit.size);
            for datagram in buffer[..transmit.size].chunks(size) {
                self.send(at, from, to, transmit.ecn.map_or(0, |ecn| ecn as u8), datagram);
            }
        }
    }

    /// Puts a datagram on the line of the end `at`, whoever it says that it comes from.
    pub fn send(&mut self, at: usize, from: SocketAddr, to: SocketAddr, ecn: u8, bytes: &[u8]) {
        self.ends[at].sent += bytes.len() as u64;
        if self.tapped == Some(at) {
            self.letters.push((to, bytes.to_vec()));
        }
        let since = (self.now - self.begin).as_nanos() as u64;
        self.trace = self.trace.rotate_left(5) ^ since ^ ((bytes.len() as u64) << 40) ^ at as u64;
        let is_too_much = bytes.len() > SMALL_BYTES && self.half_deaf.contains(&to.ip());
        if is_too_much || self.blocked.contains(&(from.ip(), to.ip())) {
            return;
        }
        let link = self.link;
        if bytes.len() + if to.is_ipv6() { 48 } else { 28 } > link.mtu {
            self.counts.too_large += 1;
            return;
        }
        let mut at_time = self.now + link.delay;
        if let Some((rate, queue)) = link.rate {
            let begin = self.busy_until[at].max(self.now);
            let waiting = (begin - self.now).as_secs_f64() * rate as f64;
            if waiting > queue as f64 {
                self.counts.overflown += 1;
                return;
            }
            let sent = begin + Duration::from_secs_f64((bytes.len() + 42) as f64 / rate as f64);
            self.busy_until[at] = sent;
            at_time = sent + link.delay;
        }
        if self.rng.range(0, 999) < link.lost {
            self.counts.lost += 1;
            return;
        }
        if self.rng.range(0, 999) < link.reordered {
            self.counts.reordered += 1;
            at_time += Duration::from_micros(self.rng.range(100, 20_000) as u64);
        }
        let copies = if self.rng.range(0, 999) < link.doubled { 2 } else { 1 };
        self.counts.doubled += copies - 1;
        for _ in 0..copies {
            self.sent += 1;
            let (at, number) = (Reverse(at_time), Reverse(self.sent));
            let mut bytes = bytes.to_vec();
            if self.rng.range(0, 999) < link.corrupted {
                self.counts.corrupted += 1;
                let at = self.rng.range(0, bytes.len() - 1);
                bytes[at] ^= self.rng.range(1, 255) as u8;
            }
            self.flying.push(Flying { at, number, from, to, ecn, bytes });
        }
    }
}

/// What has failed can be run again.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed is {}", self.seed);
        }
    }
}

impl End {
    fn leave_if_done(&mut self, now: Instant) {
        if self.leaves && self.talks.iter().all(|talk| talk.closed.is_some()) {
            self.endpoint.leave(now);
            self.is_dead = self.endpoint.is_idle();
        }
    }

    fn hear(&mut self, event: &Event, elapsed: Duration) {
        let of = match event {
            Event::Opened { channel, .. } | Event::Closed(channel, _) => *channel,
            Event::Readable(channel) | Event::Writable(channel) => *channel,
        };
        let talk = self.talks.iter_mut().find(|talk| talk.channel == Some(of));
        let talk = talk.expect("events are of channels that were opened");
        assert!(talk.closed.is_none(), "news after the end: {event:?}");
        match event {
            Event::Opened { remote, .. } => {
                assert!(talk.opened.is_none(), "opened twice");
                talk.opened = Some((elapsed, *remote));
            }
            Event::Closed(_, ended) => talk.closed = Some((elapsed, ended.clone())),
            Event::Readable(_) | Event::Writable(_) => assert!(talk.opened.is_some()),
        }
    }

    /// Says and hears what is possible; what is heard is compared at once.
    fn talk(&mut self, number: usize, elapsed: Duration) {
        let own = u64::from(self.endpoint.fingerprint().0[0]);
        let talk = &mut self.talks[number];
        let Some(channel) = talk.channel.filter(|_| talk.opened.is_some()) else { return };
        while talk.said < talk.to_say && talk.closed.is_none() {
            let left = (talk.to_say - talk.said).min(16 * 1024) as usize;
            match self.endpoint.write(channel, pattern(own, talk.said, left)) {
                Ok(count) => talk.said += count as u64,
                Err(_) => break,
            }
        }
        if talk.said == talk.to_say && !talk.is_finished {
            talk.is_finished = self.endpoint.finish(channel).is_ok();
        }
        let mut buffer = [0; 16 * 1024];
        while !talk.is_deaf && talk.heard_end.is_none() {
            match self.endpoint.read(channel, &mut buffer) {
                Ok(0) => talk.heard_end = Some(elapsed),
                Ok(count) => {
                    let mut rest = &buffer[..count];
                    while !rest.is_empty() {
                        let wanted = pattern(talk.other_seed, talk.heard, rest.len());
                        assert!(rest.starts_with(wanted), "other bytes at {}", talk.heard);
                        talk.heard += wanted.len() as u64;
                        rest = &rest[wanted.len()..];
                    }
                }
                Err(_) => break,
            }
        }
    }
}
