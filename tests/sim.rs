//! Simulates the whole server from one seed: hostile network, slow readers, vanishing peers.
//!
//! The real [`Hub`] stands between scripted peers and a fake world of files and commands. Each
//! step draws one thing that could happen next and lets it happen; the shell in here does what
//! `src/server` does. After each step the hub checks its own invariants, every peer judges what it
//! hears, and at the end faults stop and all that is still owed must arrive (liveness). A failure
//! prints its seed: `SIM_SEED=7` replays it, `SIM_RUNS=10000` tries more of them.

#[path = "sim/call.rs"]
mod call;
#[path = "sim/chance.rs"]
mod chance;
#[path = "sim/jobs.rs"]
mod jobs;
#[path = "sim/json.rs"]
mod json;
#[path = "sim/parcels.rs"]
mod parcels;
#[path = "sim/peer.rs"]
mod peer;
#[path = "sim/post.rs"]
mod post;
#[path = "direct/rng.rs"]
mod rng;
#[path = "sim/shell.rs"]
mod shell;
#[path = "hub/small.rs"]
mod small;
#[path = "sim/vault.rs"]
mod vault;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
    time::Duration,
};

use call::Asked;
use jobs::Job;
use peer::Peer;
use post::Office;
use rng::Rng;
use sixfour::{
    hub::{
        Hub, Input, OperationId, Phase, SessionId, Time,
        admission::{Mode, Origin, Owner, Policy},
        rights::Rights,
    },
    wire::Dialect,
};
use vault::{ATTEMPTS, Vault};

/// Small, so that every bound is hit.
pub use small::SMALL as LIMITS;

/// Steps with faults, and steps within which all that is owed must arrive.
const STEPS: usize = 3000;
const LAST_STEPS: usize = 40_000;
/// Seeds of a usual run.
const SEEDS: u64 = 200;

type Seen = BTreeMap<String, u64>;

#[test]
fn whatever_happens_nothing_is_lost_in_silence() {
    match std::env::var("SIM_SEED") {
        Ok(seed) => drop(World::run(seed.parse().expect("SIM_SEED is a number"), false)),
        Err(_) => drop(all_seeds()),
    }
}

#[test]
fn same_seed_same_trace() {
    assert_eq!(World::run(7, true).trace, World::run(7, true).trace);
}

/// Faults have to happen, or the simulation proves nothing.
#[test]
fn every_kind_of_fault_effect_and_ending_occurs() {
    let seen = all_seeds();
    let kinds = "reset, half close, stall, nonsense, stranger, far, full house, ghost session, \
         ghost operation, away with input, input done, end of who gets, late result, \
         stop, time passes, single byte, kernel full, letter, call, \
         go on, ping, offer, accept, refuse, delivered, talked, refused, peer gone, too late, \
         cancelled, nobody there, no such offer, too many offers, cut input, \
         truncated reply, content ahead, shrunk file, input closed, failed start, long pause, \
         reconnect, other password, Right, Wrong, Unchecked, check of a ghost, login-required, \
         login-failed, blocked, busy login, end all, ListenAgain, Quit, \
         Verify, Flush, Resume, Close, Start, Pull, Feed, Terminate, Stop, Release, \
         close PeerLeft, close PeerGone, close Protocol, close NotServed, close NotAdmitted, \
         close NameTaken, close NotLoggedIn, close Replaced, close LoginTimeout, \
         close FirstRequestTimeout, close Silent, close Stalled, \
         close SlowConsumer, close BrokenFile, close ShuttingDown, close Reset";
    let missing: Vec<_> = kinds.split(", ").filter(|kind| !seen.contains_key(*kind)).collect();
    assert!(missing.is_empty(), "{missing:?} did not occur among {seen:#?}");
}

fn all_seeds() -> &'static Seen {
    static SEEN: OnceLock<Seen> = OnceLock::new();
    SEEN.get_or_init(|| {
        let runs =
            std::env::var("SIM_RUNS").map(|runs| runs.parse().expect("SIM_RUNS is a number"));
        let runs = runs.unwrap_or(SEEDS);
        let half = |first: u64| {
            let mut total = Seen::new();
            for seed in (first..runs).step_by(2) {
                let seen = World::run(seed, false).seen;
                seen.into_iter().for_each(|(kind, count)| *total.entry(kind).or_default() += count);
            }
            total
        };
        let (mut total, other) = std::thread::scope(|scope| {
            let other = scope.spawn(|| half(1));
            (half(0), other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        other.into_iter().for_each(|(kind, count)| *total.entry(kind).or_default() += count);
        total
    })
}

/// Everything there is.
pub struct World {
    rng: Rng,
    now: u64,
    hub: Hub,
    peers: Vec<Peer>,
    jobs: Vec<Job>,
    office: Office,
    vault: Vault,
    /// Ids that are no longer alive: news of them may still be on its way.
    dead_sessions: Vec<SessionId>,
    dead_operations: Vec<OperationId>,
    closed: BTreeSet<SessionId>,
    lives: u32,
    seen: Seen,
    /// Hash of every input and effect, where it is wanted.
    trace: u64,
    is_tracing: bool,
    stopped: Option<u64>,
    /// Whom the last reset has met.
    reset: BTreeSet<SessionId>,
    /// Whoever is closed now is out of time, and cut off.
    is_ticking: bool,
    chances: Chances,
}

/// In percent, drawn for each seed: some runs are calm, some are storms.
pub struct Chances {
    reset: usize,
    stall: usize,
    nonsense: usize,
    stranger: usize,
    imposter: usize,
    stop: usize,
    /// Requests that end all sessions.
    end_all: usize,
    /// Letters that are long.
    long_letters: usize,
    stars: bool,
    /// To whom nearly all write.
    favourite: Option<usize>,
}

impl World {
    fn run(seed: u64, is_tracing: bool) -> World {
        let mut world = World::new(seed, is_tracing);
        let on_panic = PrintSeed(seed);
        world.set_accounts(&[]);
        for _ in 0..STEPS {
            world.step(true);
        }
        world.end_faults();
        world.settle("what is owed must arrive", World::is_settled);
        world.judge();
        for at in 0..world.peers.len() {
            if world.peers[at].session.is_some() && !world.peers[at].leaving {
                world.peers[at].leave();
            }
        }
        world.settle("everybody must be let go", |world| world.hub.sessions().count() == 0);
        world.hub.check_invariants();
        assert_eq!((world.hub.operations_count(), world.jobs.len()), (0, 0));
        assert_eq!(world.hub.ends_count(), 0);
        world.office.judge_receipts();
        std::mem::take(&mut world.office.met).into_iter().for_each(|kind| world.saw(kind));
        world.office.depot.judge();
        for ending in std::mem::take(&mut world.office.depot.endings) {
            world.saw(ending);
        }
        std::mem::forget(on_panic);
        world
    }

    fn new(seed: u64, is_tracing: bool) -> World {
        let mut rng = Rng(seed);
        let chances = Chances {
            reset: rng.range(0, 6),
            stall: rng.range(0, 40),
            nonsense: rng.range(0, 3),
            stranger: rng.range(0, 10),
            imposter: rng.range(0, 10),
            stop: if rng.percent(30) { 4 } else { 0 },
            end_all: if rng.percent(30) { 4 } else { 0 },
            long_letters: rng.range(0, 70),
            stars: rng.percent(50),
            favourite: rng.percent(40).then(|| rng.range(0, 2)),
        };
        let count = rng.range(3, 6);
        let mut limits = LIMITS;
        if seed.is_multiple_of(2) {
            // Nobody may rely on being given up: what can move has to.
            limits.pipe_stall_timeout = Duration::from_secs(1000);
        }
        let dialect = |at: usize| [Dialect::Frame, Dialect::Line, Dialect::Json][at % 3];
        let is_closed = rng.percent(50);
        let mode = match is_closed {
            true => Mode::Credentials { grant: Rights::NONE, attempts: ATTEMPTS },
            false => Mode::Protected,
        };
        World {
            now: 0,
            hub: Hub::new(limits, [seed, 1], Policy { mode, plaintext: false }),
            vault: Vault::new(is_closed, count),
            peers: (0..count).map(|at| Peer::new(at, dialect(at))).collect(),
            jobs: Vec::new(),
            office: Office::default(),
            dead_sessions: Vec::new(),
            dead_operations: Vec::new(),
            closed: BTreeSet::new(),
            lives: 0,
            seen: Seen::new(),
            trace: 0,
            is_tracing,
            stopped: None,
            reset: BTreeSet::new(),
            is_ticking: false,
            chances,
            rng,
        }
    }

    fn saw(&mut self, kind: &str) {
        match self.seen.get_mut(kind) {
            Some(count) => *count += 1,
            None => drop(self.seen.insert(kind.into(), 1)),
        }
    }

    /// One thing happens.
    fn step(&mut self, with_faults: bool) {
        let at = self.rng.range(0, self.peers.len() - 1);
        match self.rng.range(0, 11) {
            0 | 1 if with_faults => self.act(at),
            0 => self.peers[at].go_on(&mut self.rng, true),
            1..=3 => self.read(at),
            4 | 5 => self.write(at),
            6 | 7 => self.peer_reads(at),
            8 | 9 => self.work(),
            10 if with_faults => self.fault(at),
            10 => self.ghost_speaks(),
            _ => self.pass_time(with_faults),
        }
        self.hub.check_invariants();
        self.check_shell();
        self.check_deadlines();
    }

    /// A peer does what peers do.
    fn act(&mut self, at: usize) {
        if self.peers[at].session.is_none() {
            return self.connect(at);
        }
        let names = self.peers.len();
        let peer = &mut self.peers[at];
        if !peer.welcomed || peer.leaving || peer.half_closed || peer.to_hub.len() > 3000 {
            return;
        }
        if peer.awaits_answer() {
            return self.saw("silence behind a file");
        }
        match self.rng.range(0, 13) {
            0..=4 => {
                peer.write_letter(&mut self.rng, &mut self.office, names, &self.chances);
                self.saw("letter");
            }
            5 if self.rng.percent(self.chances.end_all) => {
                let is_last = self.rng.percent(20);
                peer.end_all(if is_last { Asked::Kill } else { Asked::Reset });
                self.saw("end all");
            }
            5 | 6 => {
                peer.call(&mut self.rng);
                self.saw("call");
            }
            7 | 8 => {
                peer.go_on(&mut self.rng, false);
                self.saw("go on");
            }
            9 | 10 => {
                peer.offer(&mut self.rng, &mut self.office.depot, names);
                self.saw("offer");
            }
            11 | 12 => {
                let answer = peer.answer(&mut self.rng);
                self.saw(answer);
            }
            _ => {
                peer.ping();
                self.saw("ping");
            }
        }
    }

    fn connect(&mut self, at: usize) {
        let is_far = self.rng.percent(self.chances.stranger / 2);
        let local = ["127.0.0.1:7", "[::1]:7", "[::ffff:127.0.0.1]:7", "127.8.9.1:7"];
        let address = if is_far { "[::ffff:10.0.0.1]:7" } else { local[self.rng.range(0, 3)] };
        let address = address.parse().expect("an address");
        let owner = if self.vault.is_closed { Owner::Unknown } else { Owner::Ours };
        let opened = self.hub.open(Time(self.now), Origin::new(address, owner));
        self.perform_effects();
        let Ok(session) = opened else {
            self.judge_full(is_far);
            return self.saw("full house");
        };
        self.lives += 1;
        if self.lives as usize > self.peers.len() {
            self.saw("reconnect");
        }
        let name = match self.rng.percent(self.chances.imposter) {
            true => self.rng.range(0, self.peers.len() - 1),
            false => at,
        };
        let mut peer = Peer::new(name, self.peers[at].dialect);
        (peer.life, peer.session) = (self.lives, Some(session));
        (peer.opened, peer.heard, peer.taken) = (self.now, self.now, self.now);
        peer.password = self.vault.password(name);
        peer.guesses = [10, 25, 60][self.rng.range(0, 2)];
        peer.is_stranger = is_far || self.rng.percent(self.chances.stranger);
        peer.rude = self.rng.percent(20);
        peer.stingy = self.rng.percent(20);
        peer.mute = self.rng.percent(10);
        if peer.is_stranger {
            self.saw(if is_far { "far" } else { "stranger" });
        }
        if !self.rng.percent(3) {
            peer.greet(&mut self.rng, is_far);
        }
        self.peers[at] = peer;
    }

    /// Nobody is turned away while there is room, or while somebody from the same place has said
    /// nothing yet and could make room.
    fn judge_full(&self, is_far: bool) {
        let strangers: Vec<_> = self
            .hub
            .sessions()
            .filter(|it| it.name().is_none() && it.origin().is_local() != is_far)
            .collect();
        // As many as may be without a name from this machine, and from an address elsewhere.
        let most = if is_far { LIMITS.sessions_max / 2 } else { LIMITS.sessions_max * 3 / 4 };
        let is_full = self.hub.sessions().count() >= LIMITS.sessions_max;
        let is_right = is_full || strangers.len() >= most.min(LIMITS.strangers_by_source_max);
        assert!(self.stopped.is_some() || is_right, "somebody was turned away, and there was room");
        let says_nothing = |it: &&&sixfour::hub::Session| {
            matches!(it.phase(), Phase::Sniffing { .. } | Phase::Greeting { .. })
        };
        let silent = strangers.iter().filter(says_nothing).count();
        assert!(self.stopped.is_some() || silent == 0, "{silent} could have made room");
    }

    fn fault(&mut self, at: usize) {
        let chances = &self.chances;
        let (reset, stall) = (chances.reset, chances.stall);
        let (nonsense, stop) = (chances.nonsense, chances.stop);
        let Some(session) = self.peers[at].session else { return };
        match self.rng.range(0, 5) {
            0 if self.rng.percent(reset) => {
                self.saw("reset");
                self.input(Input::Gone { session });
            }
            1 if self.rng.percent(reset) && !self.peers[at].is_stranger => {
                self.saw("half close");
                self.peers[at].half_closed = true;
            }
            2 if self.rng.percent(stall) => {
                self.saw("stall");
                self.peers[at].stalled = true;
            }
            2 if self.rng.percent(20) => self.peers[at].stalled = false,
            3 if self.rng.percent(nonsense) && self.peers[at].welcomed => {
                let peer = &mut self.peers[at];
                if !peer.leaving && !peer.half_closed {
                    peer.talk_nonsense();
                    self.saw("nonsense");
                }
            }
            5 if self.vault.is_closed && self.rng.percent(10) => self.change_password(),
            4 if self.stopped.is_none() && self.rng.percent(stop) => {
                self.saw("stop");
                self.stopped = Some(self.now);
                self.input(Input::Stop);
            }
            _ => self.ghost_speaks(),
        }
    }

    fn pass_time(&mut self, with_faults: bool) {
        let milliseconds = match with_faults && self.rng.percent(1) {
            true => {
                self.saw("long pause");
                self.rng.range(100, 1600)
            }
            false => self.rng.range(0, 8),
        };
        self.now += milliseconds as u64;
        if self.hub.poll_timeout().is_some_and(|due| due.0 <= self.now) {
            self.saw("time passes");
            self.is_ticking = true;
            self.input(Input::Tick);
            self.is_ticking = false;
        }
    }

    /// No more faults: whoever held back gives now what is due.
    fn end_faults(&mut self) {
        for peer in &mut self.peers {
            (peer.stalled, peer.mute, peer.stingy) = (false, false, false);
            if peer.session.is_none() {
                continue;
            }
            if std::mem::take(&mut peer.rude) && !peer.leaving && !peer.half_closed {
                // The receipts that it owes are told as lost, or come late.
                match self.rng.percent(50) && peer.welcomed && !peer.awaits_answer() {
                    true => peer.leave(),
                    false => peer.acknowledge(),
                }
            }
        }
    }

    fn settle(&mut self, what: &str, is_done: impl Fn(&World) -> bool) {
        for _ in 0..LAST_STEPS {
            self.step(false);
            if is_done(self) {
                return;
            }
        }
        let owed = |peer: &Peer| format!("{:?} owed {:?}", peer.session, peer.calls);
        let owed: Vec<_> = self.peers.iter().map(owed).collect();
        panic!("{what}, and does not: {owed:#?}, {} jobs", self.jobs.len());
    }

    /// All buffers are empty, all is answered, and nobody is on the way out.
    fn is_settled(&self) -> bool {
        self.jobs.is_empty()
            && self.peers.iter().all(|peer| {
                let Some(session) = peer.session else { return true };
                let is_quiet = peer.to_hub.is_empty() && peer.to_peer.is_empty();
                let is_here = peer.welcomed && !peer.leaving && !peer.half_closed;
                is_here && is_quiet && self.hub.piece(session).is_none() && {
                    assert!(!peer.parked, "{session:?} was told to wait and never to go on");
                    peer.is_content()
                }
            })
    }

    fn judge(&self) {
        for peer in self.peers.iter().filter(|peer| peer.session.is_some()) {
            self.office.judge(peer.life);
        }
    }

    /// No deadline may pass without its consequence.
    fn check_deadlines(&self) {
        for session in self.hub.sessions() {
            if let Phase::Sniffing { deadline }
            | Phase::Greeting { deadline, .. }
            | Phase::Closing { deadline, .. } = session.phase()
            {
                assert!(deadline.0 > self.now, "{session:?} has outlived its deadline");
            }
        }
        let is_ready = |id: SessionId| {
            let mut sessions = self.hub.sessions();
            sessions.any(|it| it.id() == id && matches!(it.phase(), Phase::Ready { .. }))
        };
        let late = |since: u64, limit: Duration| since + limit.as_millis() as u64 <= self.now;
        for peer in &self.peers {
            let Some(session) = peer.session.filter(|session| is_ready(*session)) else { continue };
            if peer.kernel_full {
                assert!(!late(peer.refused, LIMITS.stall_timeout), "{session:?} takes nothing");
            } else if peer.dialect == Dialect::Frame && !peer.to_write {
                let sign = peer.heard.max(peer.taken);
                assert!(!late(sign, LIMITS.gone_after), "{session:?} says nothing");
            }
        }
        if let Some(since) = self.stopped {
            let most = LIMITS.shutdown_timeout + LIMITS.closing_timeout;
            let is_over = since + most.as_millis() as u64 <= self.now;
            assert!(!is_over || self.hub.is_finished(), "the stop takes too long");
        }
    }
}

struct PrintSeed(u64);

impl Drop for PrintSeed {
    fn drop(&mut self) {
        eprintln!("replay with SIM_SEED={}", self.0);
    }
}
