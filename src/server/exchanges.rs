//! Transfers by their conversation: workers read, write and hash, the loop carries the bytes.
//!
//! ```text
//!   bytes of the client --> [party on a worker] --> segments --> the loop, as there is room
//! ```
//!
//! A party, which is one end of a conversation with its disk, is either at home here or away on a
//! worker with all that has come for it until then. So nothing is locked, and whatever gathers in
//! the meantime is dealt with in one go.

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::OwnedFd,
    sync::Arc,
};

use super::{
    budget::{Budget, Holder},
    pieces,
    upload::Upload,
};
use crate::{
    hub::{FilePiece, OperationId, SessionId},
    limits::{EXCHANGES_OF_ONE_MAX_BYTES, EXCHANGES_TOTAL_MAX_BYTES, STORE_FOLDERS_MAX},
    sys::{
        files::{Hidden, Share},
        transport::Transport,
        workers::{Behalf, Cancelled, Workers},
    },
    transfer::{
        Fault, Receiver, Segment, Sender,
        sink::{FolderSink, Naming},
        source::{DiskFile, DiskSource, Hashes, Item},
    },
    wire::{ErrorCode, Outcome, Refusal, SharePath},
};

/// Threads that read, write and hash.
const WORKERS: usize = 3;
/// Jobs that may wait: one for each operation, and its end.
const QUEUE_MAX: usize = 4096;
/// Bytes that a party says in one go, and below which of them it goes on.
const AHEAD_BYTES: usize = 1024 * 1024;
/// The same where the session, or all of them, hold much already.
const AHEAD_LEAST_BYTES: usize = 64 * 1024;
/// Bytes that are hashed in one go to prove what is there.
const PROOF_BYTES: u64 = 32 * 1024 * 1024;

/// One end of a conversation, with its disk.
pub enum Party {
    /// Of a `fetch`.
    Sender(Box<Sender<DiskSource>>),
    /// Of a `store`.
    Receiver(Box<Receiver<FolderSink>>),
    /// Of an `upload`, which has no conversation.
    Upload(Box<Upload>),
}

/// All conversations under way.
pub struct Exchanges {
    root: Arc<OwnedFd>,
    hidden: Arc<Hidden>,
    workers: Workers<Worked>,
    running: HashMap<OperationId, Exchange>,
    hashes: Hashes,
    /// By [`Role`]: what is read ahead is not to keep out what comes in.
    memory: [Budget; 2],
}

/// What a worker has done.
pub struct Worked {
    id: OperationId,
    party: Option<Party>,
    segments: Vec<Segment<DiskFile>>,
    /// Bytes of the client that are dealt with.
    taken: usize,
    /// The buffer in which they were.
    spare: Vec<u8>,
    goes_on: bool,
    /// Memory of the party.
    held: usize,
}

/// What a party does.
#[derive(Clone, Copy)]
enum Role {
    Sends,
    Receives,
}

/// Memory that a party may use.
#[derive(Clone, Copy)]
struct Allowance {
    /// Bytes that it says in one go.
    ahead: usize,
    /// Bytes that it may hold for good.
    most: usize,
}

struct Exchange {
    holder: Holder,
    role: Role,
    /// `None` while it is away.
    party: Option<Party>,
    out: VecDeque<Segment<DiskFile>>,
    out_bytes: usize,
    /// Files of which pieces are on their way, with their numbers.
    files: VecDeque<(u32, Arc<DiskFile>)>,
    next_file: u32,
    /// The file of this number is shorter than it was.
    shrunk: Option<u32>,
    /// The party has more to do than to wait for the client.
    goes_on: bool,
    /// A buffer of the client's bytes that is empty again.
    spare: Vec<u8>,
    /// Its end, once all is said.
    over: Option<Outcome>,
    cancelled: Cancelled,
    /// Bytes that the party says in one go, and below which of them it goes on.
    ahead: usize,
    /// Memory that is counted for it.
    held: usize,
}

/// What a conversation has to say.
pub enum Produced {
    /// These bytes.
    Bytes(Vec<u8>),
    /// This line.
    Text(String),
    /// This part of a file.
    Piece {
        /// Which.
        file: u32,
        /// Where it begins.
        offset: u64,
        /// Bytes.
        length: usize,
    },
    /// Nothing for now.
    Nothing,
    /// It is over.
    Over(Outcome),
}

impl Exchanges {
    /// None so far, all from `share`.
    ///
    /// # Errors
    /// No more threads or descriptors.
    pub fn new(share: &Share, waker: Arc<mio::Waker>) -> io::Result<Exchanges> {
        Ok(Exchanges {
            root: Arc::new(share.try_clone_root()?),
            hidden: share.hidden(),
            workers: Workers::new(WORKERS, QUEUE_MAX, waker),
            running: HashMap::new(),
            hashes: Hashes::default(),
            memory: [(); 2]
                .map(|()| Budget::new(EXCHANGES_OF_ONE_MAX_BYTES, EXCHANGES_TOTAL_MAX_BYTES)),
        })
    }

    /// Whether there is anything to share.
    pub fn is_sharing(&self) -> bool {
        self.hidden.check_shared().is_ok()
    }

    /// Begins to send.
    pub fn start_fetch(
        &mut self,
        id: OperationId,
        holder: Holder,
        paths: &[SharePath],
    ) -> Result<(), Refusal> {
        let item = |path: &SharePath| {
            Item::below(self.root.clone(), path.as_bytes()).hiding(self.hidden.clone())
        };
        let items = paths.iter().map(item).collect();
        let sender = Sender::new(DiskSource::new(items, self.hashes.clone()));
        self.start(id, holder, Party::Sender(Box::new(sender)))
    }

    /// Begins to receive.
    pub fn start_store(
        &mut self,
        id: OperationId,
        holder: Holder,
        into: Option<&SharePath>,
    ) -> Result<(), Refusal> {
        let root = self.root.try_clone().map_err(|error| {
            Refusal::new(0, ErrorCode::Busy, format!("no more files can be opened: {error}"))
        })?;
        let folder = into.map(|path| path.as_bytes().to_vec()).unwrap_or_default();
        let sink = FolderSink::new(root, Naming::Within(folder), true).bounded(STORE_FOLDERS_MAX);
        let receiver = Receiver::new(sink.hiding(self.hidden.clone()));
        self.start(id, holder, Party::Receiver(Box::new(receiver)))
    }

    /// Begins to receive one file as it is.
    pub fn start_upload(
        &mut self,
        id: OperationId,
        holder: Holder,
        path: Result<SharePath, Refusal>,
        size: u64,
    ) -> Result<(), Refusal> {
        let upload = Upload::new(self.root.clone(), self.hidden.clone(), path, size);
        self.start(id, holder, Party::Upload(Box::new(upload)))
    }

    fn start(&mut self, id: OperationId, holder: Holder, party: Party) -> Result<(), Refusal> {
        let role = match &party {
            Party::Sender(_) => Role::Sends,
            Party::Receiver(_) | Party::Upload(_) => Role::Receives,
        };
        let exchange = Exchange {
            holder,
            role,
            party: Some(party),
            out: VecDeque::new(),
            out_bytes: 0,
            files: VecDeque::new(),
            next_file: 0,
            shrunk: None,
            goes_on: true,
            spare: Vec::new(),
            over: None,
            cancelled: Cancelled::default(),
            ahead: AHEAD_BYTES,
            held: 0,
        };
        self.running.insert(id, exchange);
        if let Err(refusal) = self.go_on(id, Vec::new(), false) {
            self.drop_exchange(id);
            return Err(refusal);
        }
        Ok(())
    }

    /// True where the operation is a conversation that is under way.
    pub fn has(&self, id: OperationId) -> bool {
        self.running.contains_key(&id)
    }

    /// On whose behalf it is.
    pub fn session(&self, id: OperationId) -> Option<SessionId> {
        self.running.get(&id).map(|it| it.holder.session)
    }

    /// Whether the party is here and can take in what has come for it.
    pub fn is_at_home(&self, id: OperationId) -> bool {
        self.running.get(&id).is_some_and(|it| it.party.is_some() && it.over.is_none())
    }

    /// Sends the party to a worker with what has come for it.
    ///
    /// # Errors
    /// No worker takes it, so the conversation is over: to be said by its owner, as nothing more
    /// will come of it.
    pub fn go_on(&mut self, id: OperationId, bytes: Vec<u8>, ended: bool) -> Result<(), Refusal> {
        let Some(exchange) = self.running.get_mut(&id) else { return Ok(()) };
        let Some(party) = exchange.party.take() else {
            unreachable!("bytes are taken only for who is at home")
        };
        exchange.goes_on = false;
        let memory = &mut self.memory[exchange.role as usize];
        let room = memory.room(exchange.holder);
        exchange.ahead = if room >= AHEAD_BYTES { AHEAD_BYTES } else { AHEAD_LEAST_BYTES };
        let allowance = Allowance { ahead: exchange.ahead, most: exchange.held + room };
        if let Role::Sends = exchange.role {
            // What comes home may be so much more.
            let expected = exchange.held + exchange.ahead;
            memory.change(exchange.holder, &mut exchange.held, expected);
        }
        let cancelled = exchange.cancelled.clone();
        // Nobody waits for one that is forgotten; its files are closed, and that is all.
        let job = move || match cancelled.is_set() {
            true => Worked::nothing(id),
            false => work(id, party, bytes, ended, allowance),
        };
        let lost = Worked::nothing(id);
        self.workers.submit(exchange.holder.session.into(), job, lost).map_err(|why| {
            let text = format!("no transfer can go on now: {why}; try again later");
            Refusal::new(0, ErrorCode::Busy, text)
        })
    }

    /// The next thing that a worker has done: whose it is, and how many bytes of the client are
    /// dealt with.
    pub fn try_recv(&mut self) -> Option<(OperationId, usize)> {
        let Worked { id, party, segments, taken, spare, goes_on, held } =
            self.workers.try_recv()?;
        let Some(exchange) = self.running.get_mut(&id) else {
            self.workers.dispose(Behalf::SERVER, party);
            return Some((id, taken));
        };
        exchange.out_bytes += segments.iter().map(Segment::length).sum::<usize>();
        exchange.out.extend(segments);
        exchange.goes_on = goes_on;
        exchange.spare = spare;
        let said: usize = exchange.out.iter().map(memory_of).sum();
        self.memory[exchange.role as usize].change(
            exchange.holder,
            &mut exchange.held,
            held + said,
        );
        let outcome = party.as_ref().map(|party| match party {
            Party::Sender(sender) => sender.outcome().cloned(),
            Party::Receiver(receiver) => receiver.outcome().cloned(),
            Party::Upload(upload) => upload.outcome().cloned(),
        });
        exchange.over = match outcome {
            Some(outcome) => outcome.map(outcome_of),
            None => {
                let text = "the transfer met a fault of the server";
                Some(Outcome::Failed(Refusal::new(0, ErrorCode::SystemError, text)))
            }
        };
        exchange.party = party;
        Some((id, taken))
    }

    /// An empty buffer for what comes next, with its memory where there is one.
    pub fn take_spare(&mut self, id: OperationId) -> Vec<u8> {
        self.running.get_mut(&id).map(|it| std::mem::take(&mut it.spare)).unwrap_or_default()
    }

    /// Whether it is worth while to go on without news from the client.
    pub fn wants_to_go_on(&self, id: OperationId) -> bool {
        let ready = |it: &Exchange| it.goes_on && it.over.is_none() && it.party.is_some();
        self.running.get(&id).is_some_and(|it| ready(it) && it.out_bytes < it.ahead)
    }

    /// What the conversation has to say next, in at most `room` bytes; without room only its end.
    pub fn produce(&mut self, id: OperationId, room: usize) -> Produced {
        let Some(exchange) = self.running.get_mut(&id) else { return Produced::Nothing };
        let Some(segment) = exchange.out.front_mut() else {
            if let Some(Party::Upload(upload)) = &mut exchange.party
                && room > 0
                && let Some(text) = upload.take_answer()
            {
                return Produced::Text(text);
            }
            let Some(outcome) = exchange.over.take() else { return Produced::Nothing };
            self.memory[exchange.role as usize].change(exchange.holder, &mut exchange.held, 0);
            let party = exchange.party.take();
            self.workers.dispose(exchange.holder.session.into(), party);
            return Produced::Over(outcome);
        };
        if room == 0 {
            return Produced::Nothing;
        }
        let produced = match segment {
            Segment::Bytes(bytes) if bytes.len() <= room => {
                let bytes = std::mem::take(bytes);
                exchange.out_bytes -= bytes.len();
                exchange.out.pop_front();
                Produced::Bytes(bytes)
            }
            Segment::Bytes(bytes) => {
                let rest = bytes.split_off(room);
                exchange.out_bytes -= room;
                Produced::Bytes(std::mem::replace(bytes, rest))
            }
            Segment::File { file, offset, length } => {
                let part = room.min(*length);
                let start = *offset;
                let is_new = exchange.files.back().is_none_or(|(_, own)| !Arc::ptr_eq(own, file));
                if is_new {
                    exchange.files.push_back((exchange.next_file, file.clone()));
                    exchange.next_file = exchange.next_file.wrapping_add(1);
                }
                *offset += part as u64;
                *length -= part;
                let is_whole = *length == 0;
                exchange.out_bytes -= part;
                if is_whole {
                    exchange.out.pop_front();
                }
                let number = exchange.files.back().expect("it was just put there").0;
                Produced::Piece { file: number, offset: start, length: part }
            }
        };
        if let Produced::Bytes(bytes) = &produced {
            if bytes.is_empty() {
                return self.produce(id, room);
            }
            let left = exchange.held.saturating_sub(bytes.len());
            self.memory[exchange.role as usize].change(exchange.holder, &mut exchange.held, left);
        }
        produced
    }

    /// Sends up to `most` bytes of a piece of a file; zeros where the file has lost them. None
    /// where the operation is no conversation.
    pub fn send(
        &mut self,
        piece: FilePiece,
        transport: &mut Transport,
        most: usize,
    ) -> Option<io::Result<usize>> {
        let length = piece.length.min(most);
        let exchange = self.running.get_mut(&piece.operation)?;
        // Pieces are sent in their order: what comes before this one is sent.
        while exchange.files.front().is_some_and(|(number, _)| *number != piece.file) {
            exchange.files.pop_front();
        }
        if exchange.shrunk != Some(piece.file)
            && let Some((_, file)) = exchange.files.front()
        {
            match pieces::send(transport, file.file(), piece.offset, length) {
                Ok(0) => {}
                sent => return Some(sent),
            }
        }
        exchange.shrunk = Some(piece.file);
        Some(pieces::send_zeros(transport, length))
    }

    /// Forgets a conversation. What was received of a file is kept for the next time. Closing a
    /// file may take the disk a while.
    pub fn drop_exchange(&mut self, id: OperationId) {
        if let Some(mut exchange) = self.running.remove(&id) {
            exchange.cancelled.set();
            self.memory[exchange.role as usize].change(exchange.holder, &mut exchange.held, 0);
            self.workers.dispose(exchange.holder.session.into(), exchange);
        }
    }
}

impl Worked {
    fn nothing(id: OperationId) -> Worked {
        let (party, segments, spare) = (None, Vec::new(), Vec::new());
        Worked { id, party, segments, taken: 0, spare, goes_on: false, held: 0 }
    }
}

/// The memory of something that is to be said.
fn memory_of(segment: &Segment<DiskFile>) -> usize {
    match segment {
        Segment::Bytes(bytes) => bytes.len(),
        Segment::File { .. } => 0,
    }
}

fn work(
    id: OperationId,
    mut party: Party,
    mut bytes: Vec<u8>,
    ended: bool,
    allowance: Allowance,
) -> Worked {
    // What a receiver cannot deal with at once waits there; the client is not told to go on.
    let mut taken = bytes.len();
    let stopped = || Fault::new(ErrorCode::Cancelled, "the client has stopped in the middle");
    let (segments, goes_on) = match &mut party {
        Party::Sender(sender) => {
            sender.handle(&bytes);
            if ended && sender.outcome().is_none() {
                sender.abort(stopped());
            }
            let goes_on = sender.produce(allowance.ahead);
            sender.take_reports().iter().for_each(log_report);
            (sender.take_segments(), goes_on)
        }
        Party::Upload(upload) => {
            upload.handle(&bytes, ended);
            (Vec::new(), false)
        }
        Party::Receiver(receiver) => {
            taken += receiver.waiting_bytes();
            receiver.handle(&bytes);
            if ended && receiver.outcome().is_none() {
                receiver.abort(stopped());
            }
            let goes_on = receiver.prove(PROOF_BYTES);
            taken -= receiver.waiting_bytes();
            receiver.settle();
            if receiver.held_bytes() > allowance.most && receiver.outcome().is_none() {
                let text = "the transfers under way announce too many files at once; try again \
                            when some of them are over";
                receiver.abort(Fault::new(ErrorCode::Busy, text));
            }
            receiver.take_reports().iter().for_each(log_report);
            let bytes = receiver.take_bytes();
            (Vec::from_iter((!bytes.is_empty()).then_some(Segment::Bytes(bytes))), goes_on)
        }
    };
    bytes.clear();
    let held = match &party {
        Party::Receiver(receiver) => receiver.held_bytes(),
        Party::Sender(_) | Party::Upload(_) => 0,
    };
    Worked { id, party: Some(party), segments, taken, spare: bytes, goes_on, held }
}

fn log_report(report: &crate::transfer::Report) {
    use crate::{transfer::Report, wire::escape::escape_bytes};
    match report {
        Report::Stored { name, size, was_there: false, .. } => {
            log::debug!("transferred {} ({size} bytes)", escape_bytes(name));
        }
        Report::Failed { name, fault } => {
            log::debug!("{}: {}: {fault}", escape_bytes(name), fault.code);
        }
        _ => {}
    }
}

fn outcome_of(outcome: Result<(), Fault>) -> Outcome {
    match outcome {
        Ok(()) => Outcome::Done,
        Err(fault) => Outcome::Failed(Refusal::new(0, fault.code, fault.text)),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, time::Instant};

    use super::*;

    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

    /// What a sender of so many empty files announces before it has an answer.
    fn announcements(count: usize) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Arc::new(OwnedFd::from(File::open(folder.path()).expect("a folder")));
        let items = (0..count).map(|number| {
            let name = format!("{number:04}");
            File::create(folder.path().join(&name)).expect("a file");
            Item::below(root.clone(), name.as_bytes())
        });
        let mut sender = Sender::new(DiskSource::new(items.collect(), Hashes::default()));
        while sender.produce(AHEAD_BYTES) {}
        let bytes = |segment| match segment {
            Segment::Bytes(bytes) => bytes,
            Segment::File { .. } => panic!("nothing is in those files"),
        };
        sender.take_segments().into_iter().flat_map(bytes).collect()
    }

    /// Waits until a worker has done what this conversation asked for.
    fn await_home(exchanges: &mut Exchanges, id: OperationId) {
        let since = Instant::now();
        loop {
            match exchanges.try_recv() {
                Some((done, _)) if done == id => return,
                _ => assert!(since.elapsed() < PATIENCE, "no worker answers"),
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_store_that_announces_more_than_memory_has_room_for_is_refused_and_the_others_are_not() {
        let root = tempfile::tempdir().expect("a folder");
        let share = Share::open(root.path()).expect("a share");
        let poll = mio::Poll::new().expect("a poll");
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
        let mut exchanges = Exchanges::new(&share, Arc::new(waker)).expect("exchanges");
        let many = announcements(500);
        let ask = |exchanges: &mut Exchanges, number: u64, own: u64| {
            let id = OperationId::new(0, number);
            exchanges.start_store(id, SessionId::new(0, own).into(), None).expect("it begins");
            await_home(exchanges, id);
            exchanges.go_on(id, many.clone(), false).expect("a worker takes it");
            await_home(exchanges, id);
            id
        };
        // One fits in any case; what it holds says how much room there is to be for two and a half.
        let first = ask(&mut exchanges, 1, 1);
        let held = exchanges.running[&first].held;
        assert!(held > many.len() && exchanges.is_at_home(first), "{held}");
        exchanges.drop_exchange(first);
        exchanges.memory = [(); 2].map(|()| Budget::new(held * 5 / 4, held * 5 / 2));

        let mine = ask(&mut exchanges, 2, 1);
        let too_much = ask(&mut exchanges, 3, 1);
        let of_another = ask(&mut exchanges, 4, 2);
        let beyond_all = ask(&mut exchanges, 5, 3);
        for refused in [too_much, beyond_all] {
            let over = exchanges.running.get_mut(&refused).and_then(|it| it.over.take());
            let Some(Outcome::Failed(refusal)) = over else { panic!("{over:?}") };
            assert_eq!(refusal.code, ErrorCode::Busy, "{refusal:?}");
            exchanges.drop_exchange(refused);
        }
        assert!([mine, of_another].iter().all(|it| exchanges.is_at_home(*it)));
        // Where one is over there is room again.
        exchanges.drop_exchange(mine);
        let again = ask(&mut exchanges, 6, 1);
        assert!(exchanges.is_at_home(again));
    }

    #[test]
    fn without_a_thread_each_party_is_told_that_the_server_is_busy() {
        let folder = tempfile::tempdir().expect("a folder");
        let share = Share::open(folder.path()).expect("it is there");
        let poll = mio::Poll::new().expect("a poller");
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
        let mut exchanges = Exchanges::new(&share, Arc::new(waker)).expect("descriptors");
        exchanges.workers.give_no_thread();
        let session = SessionId::new(0, 1);
        let path = || SharePath::parse(b"name").expect("a path");
        let id = OperationId::new(0, 1);
        for refused in [
            exchanges.start_fetch(id, session.into(), &[path()]),
            exchanges.start_store(id, session.into(), None),
            exchanges.start_upload(id, session.into(), Ok(path()), 5),
        ] {
            assert_eq!(refused.expect_err("there is no thread").code, ErrorCode::Busy);
            assert!(!exchanges.has(id));
        }
    }
}
