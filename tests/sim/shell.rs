//! What `src/server` does around the hub, against fakes.

use std::hash::{DefaultHasher, Hash, Hasher};

use sixfour::{
    hub::{
        Chunk, CloseReason, Effect, FilePiece, Input, OperationId, Phase, Piece, SessionId, Time,
        Verdict,
    },
    wire::{
        Dialect, ErrorCode, Outcome, Refusal, Stream,
        event::{Entry, EntryKind},
    },
};

use crate::{
    LIMITS, World,
    jobs::{Job, TURN_BYTES, What, exit_of, fact, file_byte, output_byte, output_stream},
    peer::Peer,
};

/// What the kernel takes for a peer that does not read.
const KERNEL_BYTES: usize = 600;

impl World {
    /// Any portion of what a peer has sent, down to single bytes.
    pub fn read(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        let Some(session) = peer.session else { return };
        if peer.parked || peer.end_read || (peer.to_hub.is_empty() && !peer.half_closed) {
            return;
        }
        if !self.hub.wants_input(session) {
            peer.parked = true;
            return;
        }
        if peer.to_hub.is_empty() {
            peer.end_read = true;
            return self.input(Input::EndOfInput { session });
        }
        let count = self.rng.portion(peer.to_hub.len());
        let bytes: Vec<u8> = peer.to_hub.drain(..count).collect();
        (peer.heard, peer.pings) = (self.now, 0);
        if count == 1 {
            self.saw("single byte");
        }
        self.input(Input::Bytes { session, bytes: &bytes });
    }

    /// Offers the kernel what waits for a peer.
    pub fn write(&mut self, at: usize) {
        for _ in 0..self.rng.range(1, 20) {
            let peer = &mut self.peers[at];
            let Some(session) = peer.session else { return };
            if !peer.to_write {
                return;
            }
            let Some(piece) = self.hub.piece(session) else {
                peer.to_write = false;
                return;
            };
            let room = KERNEL_BYTES.saturating_sub(peer.to_peer.len());
            let (length, file) = match piece {
                Piece::Bytes { bytes, .. } => (bytes.len(), None),
                Piece::File(piece) => (piece.length, Some(piece)),
            };
            let count = self.rng.portion(length.min(room));
            if count == 0 {
                (peer.to_write, peer.kernel_full, peer.refused) = (false, true, self.now);
                self.saw("kernel full");
                return self.input(Input::Sent { session, count });
            }
            match (file, piece) {
                (None, Piece::Bytes { bytes, .. }) => peer.to_peer.extend(&bytes[..count]),
                (Some(piece), _) => {
                    if !self.send_file(at, piece, count) {
                        continue;
                    }
                }
                _ => unreachable!("it is one or the other"),
            }
            self.peers[at].taken = self.now;
            self.input(Input::Sent { session, count });
        }
    }

    /// False where the file turned out to be shorter than it was.
    fn send_file(&mut self, at: usize, piece: FilePiece, count: usize) -> bool {
        let job = self.jobs.iter_mut().find(|job| job.id == piece.operation);
        let job = job.expect("files stay open until they are sent");
        let (size, shrinks) = match job.what {
            What::File { size, shrinks } => (size, shrinks),
            What::Fetch { size } => (size, false),
            other => panic!("{other:?} has no pieces"),
        };
        let offset = piece.offset as usize;
        if shrinks && !job.shrunk && offset + count > size / 2 {
            job.shrunk = true;
            self.saw("shrunk file");
            self.end(piece.operation, failed(ErrorCode::FileChanged));
            return false;
        }
        let is_shrunk = job.shrunk;
        let byte = |at: usize| if is_shrunk { 0 } else { file_byte(size, at) };
        self.peers[at].to_peer.extend((offset..offset + count).map(byte));
        true
    }

    pub fn peer_reads(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        if peer.session.is_none() || peer.stalled {
            return;
        }
        let count = self.rng.portion(peer.to_peer.len());
        peer.hear(count, &mut self.office, false);
        peer.go_on_logging_in(&mut self.rng);
        let refused = std::mem::take(&mut peer.refused_logins);
        refused.into_iter().for_each(|code| self.saw(code));
        let peer = &mut self.peers[at];
        if peer.kernel_full && peer.to_peer.len() < KERNEL_BYTES {
            // Now it is writable again.
            (peer.to_write, peer.kernel_full) = (true, false);
        }
    }

    /// Some operation has something to tell, or wants to.
    pub fn work(&mut self) {
        if self.rng.percent(8) {
            self.end_check();
        }
        if self.jobs.is_empty() {
            return;
        }
        let at = self.rng.range(0, self.jobs.len() - 1);
        if self.jobs[at].what.is_away_with_input() && self.rng.percent(50) {
            return self.move_party(at);
        }
        let job = &mut self.jobs[at];
        if job.over || (job.blocked && !self.rng.percent(10)) {
            return;
        }
        if !job.opened {
            return self.open_job(at);
        }
        let (id, blocked) = (job.id, job.blocked);
        self.produce(id, blocked);
    }

    fn open_job(&mut self, at: usize) {
        let job = &mut self.jobs[at];
        job.opened = true;
        let (operation, what, words) = (job.id, job.what, job.what.words());
        match what {
            What::Failure => {
                self.saw("failed start");
                self.end(operation, failed(ErrorCode::NoSuchFile));
            }
            What::File { size, .. } => {
                let (name, size) = (words.as_bytes(), size as u64);
                self.input(Input::Opened { operation, name, size, modified: 7 });
            }
            _ => {}
        }
    }

    fn produce(&mut self, id: OperationId, blocked: bool) {
        for _ in 0..self.rng.range(1, 6) {
            let Some(at) = self.jobs.iter().position(|job| job.id == id) else { return };
            if self.jobs[at].over {
                return;
            }
            let room = self.hub.room(id);
            assert!(room <= LIMITS.chunk_max_bytes);
            if room == 0 {
                self.jobs[at].blocked = true;
                // What a command that was ended has still to say needs no room.
                if self.jobs[at].terminated && self.jobs[at].what.is_command() {
                    self.end(id, Outcome::Signal { number: 15, because: None });
                }
                return;
            }
            assert!(!blocked, "there is room, and nobody said so");
            if !self.produce_some(at, room) {
                return;
            }
        }
    }

    /// Hands in one chunk, or the end; false where there is nothing to tell.
    fn produce_some(&mut self, at: usize, room: usize) -> bool {
        let job = &self.jobs[at];
        let (operation, from) = (job.id, job.at);
        match job.what {
            What::File { size, .. } if from == size => {
                self.end(operation, Outcome::Sent { hash: [7; 32] });
            }
            What::File { size, .. } => {
                let length = self.rng.range(1, room.min(size - from));
                if self.hub.wants_content(operation) {
                    return self.hand_in_content(at, length);
                }
                self.jobs[at].at += length;
                let chunk = Chunk::File { file: 0, offset: from as u64, length };
                self.input(Input::Chunk { operation, chunk });
            }
            What::Folder { entries } if from == entries => {
                let outcome = Outcome::Counted { count: entries as u64, noun: "entries" };
                self.end(operation, outcome);
            }
            What::Folder { entries } => {
                let count = self.rng.range(1, (entries - from).min(4));
                self.jobs[at].at += count;
                let entries: Vec<Entry> = (from..from + count).map(entry).collect();
                self.input(Input::Chunk { operation, chunk: Chunk::Entries(&entries) });
            }
            What::Output { total, seed } if from == total => {
                self.end(
                    operation,
                    match exit_of(seed) {
                        Ok(code) => Outcome::Exit { code, directory: None },
                        Err(number) => Outcome::Signal { number, because: None },
                    },
                );
            }
            What::Output { total, seed } => {
                if job.terminated && self.rng.percent(30) {
                    self.end(operation, Outcome::Signal { number: 15, because: None });
                    return true;
                }
                let most = (TURN_BYTES - from % TURN_BYTES).min(room).min(total - from);
                let count = self.rng.range(1, most);
                self.jobs[at].at += count;
                let bytes: Vec<u8> = (from..from + count).map(|at| output_byte(seed, at)).collect();
                let chunk = Chunk::Output { stream: output_stream(from), bytes: &bytes };
                self.input(Input::Chunk { operation, chunk });
            }
            What::Repeat => return self.repeat(at, room),
            What::Talk | What::Keep => return self.converse(at, room),
            What::Fetch { size } if from == size => self.end(operation, Outcome::Done),
            What::Fetch { size } => self.fetch(at, size, room),
            What::Sleep if job.terminated => {
                self.end(operation, Outcome::Signal { number: 15, because: None });
            }
            What::Sleep => return false,
            What::Question { pieces } if from == pieces => self.end(operation, Outcome::Done),
            What::Question { .. } => {
                self.jobs[at].at += 1;
                let text = fact(from);
                let object = [("fact".to_string(), text.clone().into())].into_iter().collect();
                let chunk = match from % 2 {
                    0 => Chunk::Text(&text),
                    _ => Chunk::Object(&object),
                };
                self.input(Input::Chunk { operation, chunk });
            }
            What::Failure => unreachable!("it never starts"),
        }
        true
    }

    /// A part of a file as bytes; false where the file turned out to be shorter than it was.
    fn hand_in_content(&mut self, at: usize, length: usize) -> bool {
        let job = &mut self.jobs[at];
        let What::File { size, shrinks } = job.what else { panic!("only files have content") };
        let (operation, from) = (job.id, job.at);
        if shrinks && from + length > size / 2 {
            self.end(operation, failed(ErrorCode::FileChanged));
            return false;
        }
        job.at += length;
        let bytes: Vec<u8> = (from..from + length).map(|at| file_byte(size, at)).collect();
        let chunk = Chunk::Output { stream: Stream::Stdout, bytes: &bytes };
        self.input(Input::Chunk { operation, chunk });
        true
    }

    /// A command that repeats its input, until it has had enough.
    fn repeat(&mut self, at: usize, room: usize) -> bool {
        let operation = self.jobs[at].id;
        if self.jobs[at].terminated {
            self.end(operation, Outcome::Signal { number: 15, because: None });
            return true;
        }
        if !self.jobs[at].input_closed && self.rng.percent(2) {
            self.saw("input closed");
            self.jobs[at].input_closed = true;
            self.input(Input::InputClosed { operation });
            return true;
        }
        let job = &mut self.jobs[at];
        let count = room.min(job.input.len());
        let bytes: Vec<u8> = job.input.drain(..count).collect();
        if count > 0 {
            let chunk = Chunk::Output { stream: Stream::Stdout, bytes: &bytes };
            self.input(Input::Chunk { operation, chunk });
        } else if job.input_closed || job.input_ended {
            let code = u8::from(job.input_closed);
            self.end(operation, Outcome::Exit { code, directory: None });
        } else {
            return false;
        }
        true
    }

    /// A party sends some of a file, as bytes or as a part of it.
    fn fetch(&mut self, at: usize, size: usize, room: usize) {
        let Job { id: operation, at: from, .. } = self.jobs[at];
        let length = self.rng.range(1, room.min(size - from));
        self.jobs[at].at += length;
        let bytes: Vec<u8> = (from..from + length).map(|at| file_byte(size, at)).collect();
        let chunk = match length % 2 {
            0 => Chunk::File { file: 0, offset: from as u64, length },
            _ => Chunk::Output { stream: Stream::Stdout, bytes: &bytes },
        };
        self.input(Input::Chunk { operation, chunk });
    }

    /// A party that has come home says what it has heard, and ends when that is all.
    fn converse(&mut self, at: usize, room: usize) -> bool {
        let job = &mut self.jobs[at];
        let operation = job.id;
        if job.what == What::Keep {
            job.input.clear();
        }
        let count = room.min(job.input.len());
        let bytes: Vec<u8> = job.input.drain(..count).collect();
        if count > 0 {
            let chunk = Chunk::Output { stream: Stream::Stdout, bytes: &bytes };
            self.input(Input::Chunk { operation, chunk });
        } else if job.input_ended && job.away == 0 {
            self.end(operation, Outcome::Done);
        } else {
            return false;
        }
        true
    }

    /// A worker takes away what has come for a party, or has dealt with some of it.
    fn move_party(&mut self, at: usize) {
        let Job { id: operation, away, over, input_ended, .. } = self.jobs[at];
        if away > 0 {
            let count = self.rng.range(1, away);
            self.jobs[at].away -= count;
            self.saw("input done");
            return self.input(Input::InputDone { operation, count });
        }
        if over || input_ended || !self.rng.percent(50) {
            return;
        }
        let taken = self.hub.take_input(operation, Vec::new());
        let Some((bytes, ended)) = taken else { return };
        let job = &mut self.jobs[at];
        (job.away, job.input_ended) = (bytes.len(), ended);
        job.input.extend(bytes);
        self.saw("away with input");
    }

    /// The command takes some of its input.
    fn feed(&mut self, operation: OperationId) {
        let Some(at) = self.jobs.iter().position(|job| job.id == operation) else { return };
        let job = &mut self.jobs[at];
        // A party looks for it when it is at home.
        if job.over || job.input_closed || job.what.is_away_with_input() {
            return;
        }
        let (bytes, ended) = self.hub.standard_input(operation).expect("it takes input");
        job.input.extend(bytes);
        job.input_ended = ended;
        let count = bytes.len();
        if count > 0 {
            self.input(Input::InputTaken { operation, count });
        }
    }

    fn end(&mut self, operation: OperationId, outcome: Outcome) {
        if let Some(job) = self.jobs.iter_mut().find(|job| job.id == operation) {
            job.over = true;
        }
        self.input(Input::Ended { operation, outcome });
    }

    /// News of what is gone may still be on its way. It must do nothing.
    pub fn ghost_speaks(&mut self) {
        let pick = self.rng.range(0, usize::MAX - 1);
        let kind = self.rng.range(0, 8);
        let now = Time(self.now);
        // What is due at any input, such as the end of those that take nothing, is done before.
        self.is_ticking = true;
        self.input(Input::Tick);
        self.is_ticking = false;
        if (kind < 4 || kind == 8) && !self.dead_sessions.is_empty() {
            let session = self.dead_sessions[pick % self.dead_sessions.len()];
            if kind == 8 && self.vault.is_checking(session) {
                return;
            }
            assert!(self.hub.piece(session).is_none() && !self.hub.wants_input(session));
            self.hub.handle(
                now,
                match kind {
                    0 => Input::Bytes { session, bytes: b"user ghost\n" },
                    1 => Input::Sent { session, count: 0 },
                    2 => Input::EndOfInput { session },
                    8 => Input::Verified { session, verdict: Verdict::Right },
                    _ => Input::Gone { session },
                },
            );
            self.saw("ghost session");
        } else if (4..8).contains(&kind) && !self.dead_operations.is_empty() {
            let operation = self.dead_operations[pick % self.dead_operations.len()];
            assert!(self.hub.room(operation) == 0);
            assert!(self.hub.standard_input(operation).is_none());
            let bytes = b"boo";
            self.hub.handle(
                now,
                match kind {
                    4 => Input::Opened { operation, name: b"ghost", size: 1, modified: 0 },
                    5 => {
                        let chunk = Chunk::Output { stream: Stream::Stdout, bytes };
                        Input::Chunk { operation, chunk }
                    }
                    6 => Input::Ended { operation, outcome: failed(ErrorCode::NoSuchFile) },
                    _ => Input::InputTaken { operation, count: 1 },
                },
            );
            self.saw("ghost operation");
        }
        assert_eq!(self.hub.poll_effect(), None);
    }

    pub fn input(&mut self, input: Input<'_>) {
        self.note(&input);
        self.hub.handle(Time(self.now), input);
        self.perform_effects();
    }

    /// The whole of what a shell must do.
    pub fn perform_effects(&mut self) {
        let (mut fed, mut cancelled) = (Vec::new(), Vec::new());
        while let Some(effect) = self.hub.poll_effect() {
            self.note(&effect);
            match effect {
                Effect::Flush { session } => {
                    self.saw("Flush");
                    self.peer_of(session).to_write = true;
                }
                Effect::Resume { session } => {
                    self.saw("Resume");
                    self.peer_of(session).parked = false;
                }
                Effect::Watch { .. } => self.saw("Watch"),
                Effect::Close { session, reason } => self.close(session, reason),
                Effect::Verify { session, name, password } => {
                    self.saw("Verify");
                    self.begin_check(session, name, password.reveal());
                }
                Effect::Start { operation, session, work } => {
                    self.saw("Start");
                    assert!(self.jobs.iter().all(|job| job.id != operation), "started twice");
                    self.jobs.push(Job::new(operation, session, &work));
                }
                Effect::Pull { operation } => {
                    self.saw("Pull");
                    let job = self.job(operation);
                    assert!(job.blocked, "it never had to wait");
                    job.blocked = false;
                }
                Effect::Feed { operation } => {
                    self.saw("Feed");
                    fed.push(operation);
                }
                Effect::Terminate { operation } => {
                    self.saw("Terminate");
                    self.terminate(operation, &mut cancelled);
                }
                Effect::Stop { operation } => {
                    self.saw("Stop");
                    if !self.job(operation).opened {
                        self.saw("late result");
                    }
                    self.drop_job(operation);
                }
                Effect::ListenAgain => {
                    self.saw("ListenAgain");
                    self.reset = self.peers.iter().filter_map(|peer| peer.session).collect();
                }
                Effect::Quit => {
                    self.saw("Quit");
                    self.stopped.get_or_insert(self.now);
                }
                Effect::Release { operation } => {
                    self.saw("Release");
                    // A session on its way out may fetch what is queued of its files.
                    let job = self.job(operation);
                    assert!(
                        job.over || matches!(job.what, What::File { .. } | What::Fetch { .. }),
                        "not yet over"
                    );
                    self.drop_job(operation);
                }
            }
        }
        self.check_reset();
        for operation in fed {
            self.feed(operation);
        }
        for operation in cancelled {
            if self.jobs.iter().any(|job| job.id == operation && is_cancelled_transfer(job)) {
                self.end(operation, failed(ErrorCode::Cancelled));
            }
        }
    }

    fn check_reset(&self) {
        for session in self.hub.sessions() {
            let must_go = self.reset.contains(&session.id());
            assert!(!must_go || matches!(session.phase(), Phase::Closing { .. }), "it was reset");
        }
    }

    fn terminate(&mut self, operation: OperationId, cancelled: &mut Vec<OperationId>) {
        let job = self.job(operation);
        assert!(!job.terminated, "ended twice");
        job.terminated = true;
        if is_cancelled_transfer(job) {
            cancelled.push(operation);
        }
    }

    fn job(&mut self, id: OperationId) -> &mut Job {
        self.jobs.iter_mut().find(|job| job.id == id).expect("effects name what was started")
    }

    fn drop_job(&mut self, id: OperationId) {
        self.jobs.retain(|job| job.id != id);
        self.dead_operations.push(id);
    }

    fn close(&mut self, session: SessionId, reason: CloseReason) {
        self.saw("Close");
        self.saw(&format!("close {reason:?}"));
        assert!(self.closed.insert(session), "closed twice");
        assert!(self.jobs.iter().all(|job| job.session != session), "a job has no owner left");
        self.judge_reason(session, reason);
        let at = self.peers.iter().position(|peer| peer.session == Some(session));
        let peer = &mut self.peers[at.expect("effects name live sessions")];
        peer.end(reason, &mut self.office, !self.is_ticking);
        let dialect = peer.dialect;
        let name = peer.name;
        *peer = Peer::new(name, dialect);
        self.dead_sessions.push(session);
    }

    /// Nobody may be closed without cause.
    fn judge_reason(&mut self, session: SessionId, reason: CloseReason) {
        let (now, is_stopping) = (self.now, self.stopped.is_some());
        let was_reset = self.reset.contains(&session);
        let is_closed = self.vault.is_closed;
        let peer = self.peer_of(session);
        let since = |time: u64, limit: std::time::Duration| time + limit.as_millis() as u64 <= now;
        let is_just = match reason {
            CloseReason::PeerLeft => peer.leaving || peer.half_closed,
            CloseReason::PeerGone | CloseReason::NameTaken | CloseReason::BrokenFile => true,
            CloseReason::Protocol => peer.broken,
            CloseReason::NotLoggedIn => is_closed,
            CloseReason::Replaced => {
                let is_silent = since(peer.heard, LIMITS.half_open_after);
                is_closed || is_silent
            }
            CloseReason::LoginTimeout => {
                is_closed && !peer.welcomed && since(peer.opened, LIMITS.login_timeout)
            }
            CloseReason::NotServed | CloseReason::NotAdmitted => peer.is_stranger,
            CloseReason::FirstRequestTimeout => since(peer.opened, LIMITS.first_request_timeout),
            CloseReason::Silent => {
                peer.dialect == Dialect::Frame && since(peer.heard, LIMITS.gone_after)
            }
            CloseReason::Stalled => since(peer.taken, LIMITS.stall_timeout),
            CloseReason::SlowConsumer => {
                let patience = LIMITS.slow_consumer_timeout.min(LIMITS.waiting_patience);
                since(peer.taken, patience)
            }
            CloseReason::Unfinished | CloseReason::Fault => false,
            CloseReason::ShuttingDown => is_stopping,
            CloseReason::Reset => was_reset,
            CloseReason::MadeRoom => !peer.welcomed,
        };
        assert!(is_just, "{session:?} was closed as {reason:?} without cause");
    }

    fn peer_of(&mut self, session: SessionId) -> &mut Peer {
        let mut peers = self.peers.iter_mut();
        peers.find(|peer| peer.session == Some(session)).expect("effects name live sessions")
    }

    /// What waits is either being written, or the kernel has no room: else nobody writes it ever.
    pub fn check_shell(&self) {
        for peer in &self.peers {
            let Some(session) = peer.session else { continue };
            let waits = self.hub.piece(session).is_some();
            assert!(!waits || peer.to_write || peer.kernel_full, "{session:?} lacks a flush");
        }
        let open = self.peers.iter().filter(|peer| peer.session.is_some()).count();
        assert_eq!(open, self.hub.sessions().count(), "every open has one close");
        assert_eq!(self.jobs.len(), self.hub.operations_count(), "every start has one end");
    }

    fn note(&mut self, event: &impl std::fmt::Debug) {
        if self.is_tracing {
            let mut hasher = DefaultHasher::new();
            (self.trace, self.now, format!("{event:?}")).hash(&mut hasher);
            self.trace = hasher.finish();
        }
    }
}

fn is_cancelled_transfer(job: &Job) -> bool {
    job.terminated && !job.over && !job.what.is_command()
}

fn failed(code: ErrorCode) -> Outcome {
    Outcome::Failed(Refusal::new(0, code, "it failed"))
}

fn entry(at: usize) -> Entry {
    Entry {
        name: format!("e{at}").into_bytes(),
        kind: EntryKind::File,
        size: at as u64,
        modified: 0,
    }
}
