//! A hub among hostile peers: dice choose who says what and when, and what becomes of operations.
//!
//! Two honest peers, with frames and with lines, are served beside them; what they ask for has the
//! right answer whatever the others do. After every step the hub checks itself.

#![allow(dead_code, reason = "every user takes what it needs")]

#[path = "small.rs"]
mod small;
#[path = "witness.rs"]
mod witness;

use std::{collections::BTreeMap, time::Duration};

use sixfour::{
    hub::{
        Chunk, CloseReason, Effect, Hub, Input, OperationId, Piece, SessionId, Time, Verdict, Work,
        admission::{Mode, Origin, Owner, Policy},
        rights::{Right, Rights},
    },
    limits::Limits,
    wire::{
        Dialect, ErrorCode, Name, Outcome, Refusal, Stream,
        event::{Entry, EntryKind},
    },
};

use small::SMALL;

use crate::words::{self, Dice, HOSTILE};

/// What is to be served whatever the others do.
const HONEST: [&str; 2] = ["alice", "bob"];

/// Small, so that every bound is met; with more peers, who have as much time as in earnest.
const LIMITS: Limits = Limits {
    sessions_max: 400,
    strangers_by_source_max: 256,
    operations_max: 4,
    inputs_session_max_bytes: 300,
    inputs_total_max_bytes: 500,
    receipts_max: 4,
    upload_idle_timeout: Duration::from_millis(50),
    first_request_timeout: Limits::USUAL.first_request_timeout,
    login_timeout: Limits::USUAL.login_timeout,
    lockout_time: Limits::USUAL.lockout_time,
    half_open_after: Limits::USUAL.half_open_after,
    closing_timeout: Limits::USUAL.closing_timeout,
    watch_every: Limits::USUAL.watch_every,
    ping_after: Limits::USUAL.ping_after,
    gone_after: Limits::USUAL.gone_after,
    stall_timeout: Limits::USUAL.stall_timeout,
    slow_consumer_timeout: Limits::USUAL.slow_consumer_timeout,
    shutdown_timeout: Limits::USUAL.shutdown_timeout,
    ..SMALL
};

/// A peer that means no good.
struct Hostile {
    id: SessionId,
    dialect: Dialect,
    has_greeted: bool,
    has_ended: bool,
    to_write: bool,
}

/// An operation as the shell has it.
struct Job {
    id: OperationId,
    session: SessionId,
    work: Work,
    is_open: bool,
    /// Bytes that were taken and not yet dealt with.
    taken: usize,
    size: usize,
    over: bool,
}

pub struct Riot<D> {
    dice: D,
    hub: Hub,
    now: u64,
    hostile: Vec<Hostile>,
    jobs: Vec<Job>,
    checks: Vec<(SessionId, Name)>,
    honest: witness::Witnesses,
    stopped: bool,
    /// How often what has occurred.
    pub seen: BTreeMap<String, u64>,
}

impl<D: Dice> Riot<D> {
    pub fn new(mut dice: D) -> Riot<D> {
        let limits = if dice.one_in(4) { Limits::default() } else { LIMITS };
        let may_end_all = dice.one_in(4);
        let mut rights = Rights::ALL;
        if !may_end_all {
            rights = rights.without(Right::Admin);
        }
        let (mode, has_passwords) = match dice.below(3) {
            0 => (Mode::Open { rights }, false),
            1 if may_end_all => (Mode::Protected, false),
            _ => (Mode::Credentials { grant: Rights::NONE, attempts: 2 }, true),
        };
        let mut riot = Riot {
            hub: Hub::new(limits, [1, 2], Policy { mode, plaintext: true }),
            dice,
            now: 0,
            hostile: Vec::new(),
            jobs: Vec::new(),
            checks: Vec::new(),
            honest: witness::Witnesses::default(),
            stopped: false,
            seen: BTreeMap::new(),
        };
        if has_passwords {
            riot.set_accounts(rights);
        }
        if !may_end_all {
            riot.greet_honest(has_passwords);
        }
        riot
    }

    /// One thing happens; false where nothing more will.
    pub fn step(&mut self) -> bool {
        match self.dice.below(16) {
            0 | 1 => self.open(),
            2..=7 => self.speak(),
            8 | 9 => self.write(),
            10 | 11 => self.work(),
            12 => self.pass_time(),
            13 => self.hang_up(),
            14 => self.check_or_change(),
            _ => self.be_honest(),
        }
        self.hub.check_invariants();
        assert_eq!(self.jobs.len(), self.hub.operations_count(), "every start has one end");
        !self.hub.is_finished() && !self.dice.is_over()
    }

    fn saw(&mut self, what: impl Into<String>) {
        *self.seen.entry(what.into()).or_default() += 1;
    }

    fn open(&mut self) {
        let address = self.dice.pick(&["127.0.0.1:7", "[::1]:7", "[2001:db8::1]:7", "10.0.0.1:7"]);
        let owner = self.dice.pick(&[Owner::Ours, Owner::Ours, Owner::Other, Owner::Unknown]);
        let origin = Origin::new(address.parse().expect("an address"), owner);
        let Ok(id) = self.hub.open(Time(self.now), origin) else { return self.saw("full") };
        // Somebody may have had to make room.
        self.take_effects();
        let dialect = self.dice.pick(&[Dialect::Frame, Dialect::Line, Dialect::Json]);
        let (has_greeted, has_ended, to_write) = (false, false, false);
        self.hostile.push(Hostile { id, dialect, has_greeted, has_ended, to_write });
        if self.dice.one_in(8) {
            self.input(Input::Secured { session: id });
        }
    }

    fn any_hostile(&mut self) -> Option<usize> {
        (!self.hostile.is_empty()).then(|| self.dice.below(self.hostile.len()))
    }

    fn speak(&mut self) {
        let Some(at) = self.any_hostile() else { return };
        let Hostile { id, dialect, has_greeted, has_ended, .. } = self.hostile[at];
        if has_ended || !self.hub.wants_input(id) {
            return;
        }
        let bytes = if has_greeted || self.dice.one_in(12) {
            let mut said = words::say(&mut self.dice, dialect);
            while self.dice.one_in(3) {
                said.extend(words::say(&mut self.dice, dialect));
            }
            said
        } else {
            self.hostile[at].has_greeted = true;
            words::greet(&mut self.dice, dialect)
        };
        self.saw(format!("said {dialect:?}"));
        // Whoever is read in portions may be told meanwhile to wait, or be gone.
        let cut = if self.dice.one_in(4) { self.dice.below(bytes.len() + 1) } else { bytes.len() };
        let (head, tail) = bytes.split_at(cut);
        self.input(Input::Bytes { session: id, bytes: head });
        if self.hub.wants_input(id) && !tail.is_empty() {
            self.input(Input::Bytes { session: id, bytes: tail });
        }
    }

    fn hang_up(&mut self) {
        let Some(at) = self.any_hostile() else { return };
        let id = self.hostile[at].id;
        match self.dice.below(6) {
            0 => self.input(Input::Gone { session: id }),
            1 if !self.hostile[at].has_ended => {
                self.hostile[at].has_ended = true;
                self.input(Input::EndOfInput { session: id });
            }
            2 if !self.hostile[at].has_ended => {
                self.hostile[at].has_ended = true;
                self.input(Input::CutOff { session: id });
            }
            3 if self.dice.one_in(32) => {
                self.saw("stop");
                self.stopped = true;
                self.input(Input::Stop);
            }
            _ => {}
        }
    }

    /// The socket of a hostile peer takes something, or nothing.
    fn write(&mut self) {
        let Some(at) = self.any_hostile() else { return };
        let Hostile { id, to_write, .. } = self.hostile[at];
        for _ in 0..1 + self.dice.below(4) {
            let length = match self.hub.piece(id) {
                None => return assert!(!to_write || self.hub.unsent_bytes(id) == 0),
                Some(Piece::Bytes { bytes, .. }) => bytes.len(),
                Some(Piece::File(piece)) => piece.length,
            };
            let count = match self.dice.below(4) {
                0 => 0,
                1 => self.dice.below(length + 1),
                _ => length,
            };
            self.input(Input::Sent { session: id, count });
        }
    }

    fn pass_time(&mut self) {
        let most = self.dice.pick(&[2, 50, 700, 100_000]);
        let later = self.now + self.dice.below(256) as u64 * most / 256;
        // The honest are never late, whatever else is.
        while let Some(due) = self.hub.poll_timeout().filter(|due| due.0 <= later) {
            self.now = self.now.max(due.0);
            self.input(Input::Tick);
            self.say_that_honest_are_there();
        }
        // Now and then a clock is set back.
        if self.dice.one_in(16) {
            self.saw("time went back");
            return self.now = self.now.saturating_sub(50);
        }
        self.now = self.now.max(later);
        self.say_that_honest_are_there();
    }

    fn check_or_change(&mut self) {
        if !self.checks.is_empty() {
            let (session, name) = self.checks.remove(self.dice.below(self.checks.len()));
            let is_honest = HONEST.contains(&name.as_str());
            let verdict = match self.dice.below(4) {
                _ if is_honest => Verdict::Unchecked,
                0 => Verdict::Wrong,
                1 => Verdict::Unchecked,
                _ => Verdict::Right,
            };
            self.saw(format!("{verdict:?}"));
            self.input(Input::Verified { session, verdict });
        } else if self.honest.have_passwords() && self.dice.one_in(2) {
            let rights = [Rights::NONE, Rights::USUAL, Rights::ALL.without(Right::Admin)];
            let rights = self.dice.pick(&rights);
            self.saw("other rights");
            self.set_accounts(rights);
        }
    }

    /// The hostile have these rights from now on, those that there are; the honest all but one.
    fn set_accounts(&mut self, rights: Rights) {
        let name = |text: &str| Name::parse(text).expect("a name");
        let hostile = HOSTILE.iter().filter(|_| !self.dice.one_in(4));
        let mut accounts: Vec<_> = hostile.map(|text| (name(text), rights)).collect();
        let honest = HONEST.iter().map(|text| (name(text), Rights::ALL.without(Right::Admin)));
        accounts.extend(honest);
        let changed: Vec<_> = accounts[..accounts.len() - HONEST.len()]
            .iter()
            .map(|(name, _)| *name)
            .filter(|_| self.dice.one_in(4))
            .collect();
        self.input(Input::Accounts { accounts: &accounts, changed: &changed });
    }

    pub fn input(&mut self, input: Input<'_>) {
        self.hub.handle(Time(self.now), input);
        self.take_effects();
    }

    fn take_effects(&mut self) {
        while let Some(effect) = self.hub.poll_effect() {
            match effect {
                Effect::Flush { session } => match self.honest.has(session) {
                    true => self.honest.to_write.push(session),
                    false => self.peer(session).to_write = true,
                },
                Effect::Resume { .. } | Effect::ListenAgain | Effect::Feed { .. } => {}
                // Peers here are not sockets: nobody vanishes without a word.
                Effect::Watch { .. } => {}
                Effect::Close { session, reason } => self.close(session, reason),
                Effect::Verify { session, name, .. } => self.checks.push((session, name)),
                Effect::Start { operation: id, session, work } => {
                    self.saw(format!("start {}", kind_of(&work)));
                    let (is_open, taken, size, over) = (false, 0, 0, false);
                    self.jobs.push(Job { id, session, work, is_open, taken, size, over });
                }
                Effect::Pull { operation } | Effect::Terminate { operation } => {
                    assert!(self.jobs.iter().any(|job| job.id == operation));
                }
                Effect::Stop { operation } | Effect::Release { operation } => {
                    let before = self.jobs.len();
                    self.jobs.retain(|job| job.id != operation);
                    assert_eq!(self.jobs.len() + 1, before, "what ends was started");
                }
                Effect::Quit => self.stopped = true,
            }
        }
        self.hear_honest();
    }

    fn peer(&mut self, id: SessionId) -> &mut Hostile {
        self.hostile.iter_mut().find(|it| it.id == id).expect("effects name live sessions")
    }

    fn close(&mut self, id: SessionId, reason: CloseReason) {
        self.saw(format!("close {reason:?}"));
        assert!(self.jobs.iter().all(|job| job.session != id), "a job has no owner left");
        if self.honest.has(id) {
            assert!(self.stopped, "an honest peer was closed: {reason:?}");
            return self.honest.forget(id);
        }
        let before = self.hostile.len();
        self.hostile.retain(|it| it.id != id);
        assert_eq!(self.hostile.len() + 1, before, "closed twice");
    }

    /// Something becomes of an operation.
    fn work(&mut self) {
        if self.jobs.is_empty() {
            return;
        }
        let at = self.dice.below(self.jobs.len());
        let (id, over) = (self.jobs[at].id, self.jobs[at].over);
        if over {
            return;
        }
        match self.dice.below(8) {
            0 => self.end(at),
            1 | 2 => self.take_input(at),
            3 if self.jobs[at].taken > 0 => {
                let count = 1 + self.dice.below(self.jobs[at].taken);
                self.jobs[at].taken -= count;
                self.saw("input done");
                self.input(Input::InputDone { operation: id, count });
            }
            4 if matches!(self.jobs[at].work, Work::Run { .. } | Work::Program { .. }) => {
                self.input(Input::InputClosed { operation: id });
            }
            _ => self.produce(at),
        }
    }

    fn end(&mut self, at: usize) {
        let operation = self.jobs[at].id;
        self.jobs[at].over = true;
        let outcome = match self.dice.below(4) {
            0 => Outcome::Failed(Refusal::new(0, ErrorCode::NoSuchFile, "it failed")),
            _ => match self.jobs[at].work {
                Work::Download { .. } => Outcome::Sent { hash: [7; 32] },
                Work::Run { .. } if self.dice.one_in(2) => {
                    Outcome::Signal { number: 15, because: None }
                }
                Work::Run { .. } | Work::Program { .. } => {
                    Outcome::Exit { code: 0, directory: None }
                }
                Work::List { .. } => Outcome::Counted { count: 1, noun: "entries" },
                _ => Outcome::Done,
            },
        };
        self.input(Input::Ended { operation, outcome });
    }

    fn take_input(&mut self, at: usize) {
        let job = &self.jobs[at];
        let id = job.id;
        if matches!(job.work, Work::Run { .. } | Work::Program { .. }) {
            let Some((bytes, _)) = self.hub.standard_input(id) else { return };
            let count = self.dice.below(bytes.len() + 1);
            return self.input(Input::InputTaken { operation: id, count });
        }
        if job.taken == 0
            && let Some((bytes, _)) = self.hub.take_input(id, Vec::new())
        {
            self.jobs[at].taken += bytes.len();
        }
    }

    fn produce(&mut self, at: usize) {
        let operation = self.jobs[at].id;
        let is_download = matches!(self.jobs[at].work, Work::Download { .. });
        if is_download && !self.jobs[at].is_open {
            let size = self.dice.below(256) * 10;
            (self.jobs[at].is_open, self.jobs[at].size) = (true, size);
            let (name, size) = (&b"b"[..], size as u64);
            return self.input(Input::Opened { operation, name, size, modified: -1 });
        }
        let room = self.hub.room(operation);
        if room == 0 {
            return;
        }
        let length = 1 + self.dice.below(room.min(256));
        let bytes = vec![b"x\n"[length % 2]; length];
        let stream = if length.is_multiple_of(3) { Stream::Stderr } else { Stream::Stdout };
        let entries = [Entry { name: bytes.clone(), kind: EntryKind::File, size: 1, modified: 0 }];
        let object = [("fact".to_string(), "f".into())].into_iter().collect();
        let chunk = match &self.jobs[at].work {
            Work::Download { .. } => {
                let length = length.min(self.jobs[at].size);
                if length == 0 {
                    return;
                }
                self.jobs[at].size -= length;
                match self.hub.wants_content(operation) {
                    true => Chunk::Output { stream: Stream::Stdout, bytes: &bytes[..length] },
                    false => Chunk::File { file: 0, offset: 0, length },
                }
            }
            Work::Fetch { .. } if self.dice.one_in(2) => Chunk::File { file: 3, offset: 9, length },
            Work::List { .. } => Chunk::Entries(&entries),
            Work::Ask(_) | Work::Edge { .. } => match self.dice.one_in(2) {
                true => Chunk::Object(&object),
                false => Chunk::Text("some text"),
            },
            _ => Chunk::Output { stream, bytes: &bytes },
        };
        self.input(Input::Chunk { operation, chunk });
    }
}

fn kind_of(work: &Work) -> &'static str {
    match work {
        Work::Download { .. } => "download",
        Work::Fetch { .. } => "fetch",
        Work::Store { .. } => "store",
        Work::Upload { .. } => "upload",
        Work::Run { .. } => "run",
        Work::List { .. } => "list",
        Work::Edge { .. } => "edge",
        Work::Ask(_) => "question",
        Work::Program { .. } => "program",
    }
}
