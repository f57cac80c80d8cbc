//! The end that has the files.

use std::{collections::VecDeque, io, sync::Arc};

use super::{
    Entry, EntryKind, Fault, Report, SIZE_UNKNOWN,
    message::{self, Decoder, Message, NO_NUMBER, Side, VERSION, broken, feature},
};
use crate::{
    limits::{TRANSFER_OPEN_BYTES_MAX, TRANSFER_OPEN_MAX, TRANSFER_SMALL_MAX_BYTES},
    wire::ErrorCode,
};

/// Bytes of a large file in one DATA message, and read at a time.
const DATA_BYTES: usize = 256 * 1024;

/// Bytes of one read: they stay in the cache of the core while they are hashed.
const READ_BYTES: usize = 64 * 1024;

/// Bytes that one call of [`Sender::produce`] hashes at most to check what a receiver claims.
const CHECK_BYTES: u64 = 32 * 1024 * 1024;

/// What is there to be sent.
pub trait Source {
    /// An opened file.
    type File: SourceFile;
    /// Where the file of an entry is found.
    type Place;

    /// The next entry, folders before what is in them; or how something is called that cannot be
    /// sent, and why.
    fn next(&mut self) -> Option<Next<Self::Place>>;

    /// Opens the file of an entry, in the state in which it was announced.
    ///
    /// # Errors
    /// [`ErrorCode::FileChanged`] where it is another one by now; whatever the system says.
    fn open(&mut self, entry: &Entry, place: &Self::Place) -> Result<Self::File, Fault>;
}

/// An entry and where it is found; or the name of what cannot be sent, and why.
pub type Next<P> = Result<(Entry, P), (Vec<u8>, Fault)>;

/// An opened file of a [`Source`].
pub trait SourceFile {
    /// Reads at `offset`; 0 is the end.
    ///
    /// # Errors
    /// What the system said.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Whether it is as it was when it was opened.
    fn is_unchanged(&self) -> bool;

    /// Whether it can be read twice, and so be sent from where it lies.
    fn is_regular(&self) -> bool {
        true
    }

    /// The hash of the whole, where it is known from before.
    fn known_hash(&self) -> Option<[u8; 32]> {
        None
    }

    /// The hash of the whole was computed.
    fn note_hash(&self, _hash: [u8; 32]) {}
}

/// Something to be put on the channel.
#[derive(Debug)]
pub enum Segment<F> {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A part of a file, which was read just now. Where the file has lost it since, zeros take
    /// its place: the receiver sees by the hash.
    File {
        /// Whose.
        file: Arc<F>,
        /// Where it begins.
        offset: u64,
        /// Bytes, not 0.
        length: usize,
    },
}

impl<F> Segment<F> {
    /// Bytes of it.
    pub fn length(&self) -> usize {
        match self {
            Segment::Bytes(bytes) => bytes.len(),
            Segment::File { length, .. } => *length,
        }
    }
}

/// The sender's half of a conversation. See the head of `transfer`.
#[derive(Debug)]
pub struct Sender<S: Source> {
    source: S,
    decoder: Decoder,
    has_greeted: bool,
    /// What the receiver knows, once it has greeted.
    greeted: Option<u8>,
    /// What is announced and not finished, from the number `base` on.
    slots: VecDeque<Option<Slot<S::Place>>>,
    base: u32,
    open: usize,
    open_bytes: usize,
    /// No more entries come, and that is said.
    has_ended: bool,
    wants: VecDeque<Want>,
    current: Option<Current<S::File>>,
    out: Vec<Segment<S::File>>,
    out_bytes: usize,
    buffer: Vec<u8>,
    reports: Vec<Report>,
    over: Option<Result<(), Fault>>,
    /// All goes as bytes: parts of files are of no use to the channel.
    copies: bool,
}

#[derive(Debug)]
struct Slot<P> {
    entry: Entry,
    place: P,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Announced,
    Wanted,
    /// All of it; whether that was nothing, and its hash.
    Sent(bool, [u8; 32]),
}

#[derive(Clone, Copy, Debug)]
struct Want {
    number: u32,
    from: u64,
    hash: [u8; 32],
}

/// The file at hand.
#[derive(Debug)]
struct Current<F> {
    want: Want,
    size: u64,
    file: Arc<F>,
    /// So much of it is hashed, and sent unless it is what the receiver has.
    offset: u64,
    hasher: blake3::Hasher,
    known: Option<[u8; 32]>,
    /// What the receiver has is looked at first.
    is_checking: bool,
}

impl<S: Source> Sender<S> {
    /// A sender of all that `source` has.
    pub fn new(source: S) -> Sender<S> {
        Sender {
            source,
            decoder: Decoder::default(),
            has_greeted: false,
            greeted: None,
            slots: VecDeque::new(),
            base: 0,
            open: 0,
            open_bytes: 0,
            has_ended: false,
            wants: VecDeque::new(),
            current: None,
            out: Vec::new(),
            out_bytes: 0,
            buffer: Vec::new(),
            reports: Vec::new(),
            over: None,
            copies: false,
        }
    }

    /// From now on no [`Segment::File`] is said.
    pub fn send_copies(&mut self) {
        self.copies = true;
    }

    /// Takes in bytes of the receiver, in any portions. Does not block.
    pub fn handle(&mut self, mut bytes: &[u8]) {
        while self.over.is_none() {
            match self.decoder.next(&mut bytes) {
                Ok(None) => return,
                Ok(Some(message)) => {
                    if let Err(fault) = self.handle_message(message) {
                        self.abort(fault);
                    }
                }
                Err(fault) => self.abort(fault),
            }
        }
    }

    /// Reads and says the next things, about `budget` bytes of them; true where it could go on at
    /// once. Where it is false, the receiver has to say something. Blocks on the disk.
    pub fn produce(&mut self, budget: usize) -> bool {
        if self.over.is_some() {
            return false;
        }
        if !std::mem::replace(&mut self.has_greeted, true) {
            self.say(&Message::Hello { version: VERSION, features: feature::PERMISSIONS });
        }
        self.announce();
        let mut checked = 0;
        while self.out_bytes < budget {
            if self.current.is_none() {
                let Some(want) = self.wants.pop_front() else { break };
                self.begin(want);
                continue;
            }
            if self.current.as_ref().is_some_and(|current| current.is_checking) {
                if checked >= CHECK_BYTES {
                    return true;
                }
                checked += self.check();
            } else {
                self.send_data();
            }
        }
        self.current.is_some() || !self.wants.is_empty() || self.may_announce()
    }

    /// What is to be put on the channel, in order.
    pub fn take_segments(&mut self) -> Vec<Segment<S::File>> {
        self.out_bytes = 0;
        std::mem::take(&mut self.out)
    }

    /// What has happened since this was last asked.
    pub fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    /// The end, once it has come: in order, with whatever failed told before, or for a reason.
    pub fn outcome(&self) -> Option<&Result<(), Fault>> {
        self.over.as_ref()
    }

    /// Gives up, and says so to the receiver.
    pub fn abort(&mut self, fault: Fault) {
        if self.over.is_none() {
            self.say(&Message::Abort(fault.clone()));
            self.end(Err(fault));
        }
    }

    fn end(&mut self, result: Result<(), Fault>) {
        self.over = Some(result);
        self.current = None;
        self.wants.clear();
        self.slots.clear();
    }

    fn handle_message(&mut self, message: Message<'_>) -> Result<(), Fault> {
        match message {
            Message::Hello { version, features } => {
                self.greeted = Some(features);
                return check_version(version);
            }
            _ if self.greeted.is_none() => return Err(broken("the receiver has not said hello")),
            Message::Want { number, from, hash } => {
                let slot = self.slot(number)?;
                if slot.state != State::Announced || slot.entry.kind != EntryKind::File {
                    return Err(broken(format!("the entry {number} is wanted out of turn")));
                }
                slot.state = State::Wanted;
                self.wants.push_back(Want { number, from, hash });
            }
            Message::Stored { number } => {
                let slot = self.slot(number)?;
                let was_there = match (slot.state, slot.entry.kind) {
                    (State::Sent(was_there, hash), _) => Some((was_there, hash)),
                    (_, EntryKind::Folder | EntryKind::Link) => None,
                    _ => return Err(broken(format!("the entry {number} cannot be stored yet"))),
                };
                let Some(slot) = self.finish(number) else { return Ok(()) };
                if let Some((was_there, hash)) = was_there {
                    let Entry { path: name, size, .. } = slot.entry;
                    self.reports.push(Report::Stored { name, size, hash, was_there });
                }
            }
            Message::Failed { number, fault, .. } => {
                self.slot(number)?;
                self.wants.retain(|want| want.number != number);
                if self.current.as_ref().is_some_and(|current| current.want.number == number) {
                    self.current = None;
                    // The receiver throws away what is still on its way up to here.
                    self.say_failed(number, &Fault::new(ErrorCode::Cancelled, ""));
                }
                let Some(slot) = self.finish(number) else { return Ok(()) };
                self.reports.push(Report::Failed { name: slot.entry.path, fault });
            }
            Message::Done if self.has_ended && self.open == 0 => self.end(Ok(())),
            Message::Abort(fault) => self.end(Err(fault)),
            other => return Err(broken(format!("the receiver may not say {other:?} now"))),
        }
        Ok(())
    }

    fn slot(&mut self, number: u32) -> Result<&mut Slot<S::Place>, Fault> {
        let at = number.checked_sub(self.base).map(|at| at as usize);
        let slot = at.and_then(|at| self.slots.get_mut(at)).and_then(Option::as_mut);
        slot.ok_or_else(|| broken(format!("there is no open entry {number}")))
    }

    /// Closes an entry that is at its end.
    fn finish(&mut self, number: u32) -> Option<Slot<S::Place>> {
        let at = number.checked_sub(self.base)? as usize;
        let slot = self.slots.get_mut(at)?.take()?;
        self.open -= 1;
        self.open_bytes -= slot.entry.weight();
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.base += 1;
        }
        Some(slot)
    }

    fn may_announce(&self) -> bool {
        let is_full =
            self.slots.len() >= TRANSFER_OPEN_MAX || self.open_bytes >= TRANSFER_OPEN_BYTES_MAX;
        !self.has_ended && !is_full
    }

    fn announce(&mut self) {
        while self.may_announce() {
            match self.source.next() {
                Some(Ok((entry, place))) => {
                    self.open += 1;
                    self.open_bytes += entry.weight();
                    if entry.kind == EntryKind::File {
                        self.reports.push(Report::Found(entry.size));
                    }
                    self.say(&Message::Entry(entry.clone()));
                    self.slots.push_back(Some(Slot { entry, place, state: State::Announced }));
                }
                Some(Err((path, fault))) => {
                    let report = Report::Failed { name: path.clone(), fault: fault.clone() };
                    self.reports.push(report);
                    self.say(&Message::Failed { number: NO_NUMBER, path, fault });
                }
                None => {
                    self.has_ended = true;
                    let entries = self.base + self.slots.len() as u32;
                    self.say(&Message::End { entries });
                }
            }
        }
    }

    fn begin(&mut self, mut want: Want) {
        let at = (want.number - self.base) as usize;
        let slot = self.slots[at].as_ref().expect("what is wanted is open");
        let size = slot.entry.size;
        match self.source.open(&slot.entry, &slot.place) {
            Ok(file) => {
                let known = file.known_hash();
                let is_checking = want.from > 0 && want.from <= size && size != SIZE_UNKNOWN;
                let starts_over = want.from > 0 && !is_checking;
                if starts_over {
                    want.from = 0;
                }
                let (file, hasher) = (Arc::new(file), blake3::Hasher::new());
                let offset = 0;
                let current = Current { want, size, file, offset, hasher, known, is_checking };
                self.current = Some(current);
                if !is_checking {
                    self.say_file(0, starts_over);
                }
            }
            Err(fault) => self.fail(want.number, fault),
        }
    }

    /// Looks at a part of what the receiver claims to have; returns the bytes read.
    fn check(&mut self) -> u64 {
        let current = self.current.as_mut().expect("the caller has looked");
        let want = current.want;
        if want.from == current.size && current.known == Some(want.hash) {
            current.offset = want.from;
            current.is_checking = false;
            self.say_file(want.from, false);
            return 0;
        }
        if self.buffer.is_empty() {
            self.buffer.resize(READ_BYTES, 0);
        }
        let length = (want.from - current.offset).min(READ_BYTES as u64) as usize;
        match read_some(&*current.file, &mut self.buffer[..length], current.offset) {
            Ok(0) => self.fail_current(changed()),
            Err(error) => self.fail_current(error.into()),
            Ok(count) => {
                current.hasher.update(&self.buffer[..count]);
                current.offset += count as u64;
                if current.offset == want.from {
                    current.is_checking = false;
                    let is_same = *current.hasher.finalize().as_bytes() == want.hash;
                    if !is_same {
                        current.hasher = blake3::Hasher::new();
                        (current.offset, current.want.from) = (0, 0);
                    }
                    let from = current.offset;
                    self.say_file(from, !is_same);
                }
                return count as u64;
            }
        }
        1
    }

    fn say_file(&mut self, from: u64, starts_over: bool) {
        let number = self.current.as_ref().expect("a file is at hand").want.number;
        let entry = &self.slot(number).expect("it is open").entry;
        let (name, size) = (entry.path.clone(), entry.size);
        self.reports.push(Report::Begun { name, size, from, starts_over });
        self.say(&Message::File { number, starts_over, from });
    }

    /// Reads and says some of the file at hand, and its end where that is reached.
    fn send_data(&mut self) {
        if self.buffer.is_empty() {
            self.buffer.resize(READ_BYTES, 0);
        }
        let current = self.current.as_mut().expect("the caller has looked");
        let left = current.size - current.offset;
        let is_large = left > TRANSFER_SMALL_MAX_BYTES as u64;
        let in_place = !self.copies && is_large && current.file.is_regular();
        let most = if in_place { DATA_BYTES } else { READ_BYTES };
        let (start, want) = (current.offset, left.min(most as u64) as usize);
        while current.offset - start < want as u64 {
            let missing = want - (current.offset - start) as usize;
            let room = missing.min(READ_BYTES);
            match read_some(&*current.file, &mut self.buffer[..room], current.offset) {
                Ok(0) if current.size == SIZE_UNKNOWN => current.size = current.offset,
                Ok(0) => return self.fail_current(changed()),
                Err(error) => return self.fail_current(error.into()),
                Ok(count) => {
                    if current.known.is_none() {
                        current.hasher.update(&self.buffer[..count]);
                    }
                    current.offset += count as u64;
                }
            }
            // The size of a pipe is learnt here; and it gives what it has.
            if !in_place || current.size == current.offset {
                break;
            }
        }
        let length = (current.offset - start) as usize;
        let is_end = current.offset == current.size;
        if length > 0 {
            let file = current.file.clone();
            self.reports.push(Report::Moved(length as u64));
            self.put_bytes(|out, _| message::put_data_header(out, length));
            match in_place {
                true => self.out.push(Segment::File { file, offset: start, length }),
                false => self.put_bytes(|out, buffer| {
                    // Not grown again and again, as much follows.
                    if is_large && out.capacity() < DATA_BYTES {
                        out.reserve(DATA_BYTES + READ_BYTES);
                    }
                    out.extend_from_slice(&buffer[..length]);
                }),
            }
            self.out_bytes += length;
        }
        if is_end {
            self.end_file();
        }
    }

    fn end_file(&mut self) {
        let current = self.current.take().expect("the caller has looked");
        let number = current.want.number;
        if !current.file.is_unchanged() {
            return self.fail(number, changed());
        }
        let hash = current.known.unwrap_or_else(|| *current.hasher.finalize().as_bytes());
        if current.known.is_none() {
            current.file.note_hash(hash);
        }
        // Nothing was sent where all of it had been claimed.
        let was_there = current.want.from == current.size && current.size > 0;
        let slot = self.slot(number).expect("it is open");
        slot.state = State::Sent(was_there, hash);
        if slot.entry.size == SIZE_UNKNOWN {
            slot.entry.size = current.size;
        }
        self.say(&Message::Hash(hash));
    }

    fn fail_current(&mut self, fault: Fault) {
        let current = self.current.take().expect("the caller has looked");
        self.fail(current.want.number, fault);
    }

    fn fail(&mut self, number: u32, fault: Fault) {
        self.say_failed(number, &fault);
        if let Some(slot) = self.finish(number) {
            self.reports.push(Report::Failed { name: slot.entry.path, fault });
        }
    }

    fn say_failed(&mut self, number: u32, fault: &Fault) {
        self.say(&Message::Failed { number, path: Vec::new(), fault: fault.clone() });
    }

    fn say(&mut self, message: &Message<'_>) {
        self.put_bytes(|out, _| message::put(out, Side::Sender, message));
    }

    fn put_bytes(&mut self, write: impl FnOnce(&mut Vec<u8>, &[u8])) {
        if !matches!(self.out.last(), Some(Segment::Bytes(_))) {
            self.out.push(Segment::Bytes(Vec::new()));
        }
        let Some(Segment::Bytes(out)) = self.out.last_mut() else { unreachable!("just pushed") };
        let before = out.len();
        write(out, &self.buffer);
        self.out_bytes += out.len() - before;
    }
}

fn changed() -> Fault {
    Fault::new(ErrorCode::FileChanged, "the file changed while it was read; try again")
}

pub(super) fn check_version(version: u8) -> Result<(), Fault> {
    match version {
        VERSION => Ok(()),
        other => {
            let text = format!("the other end speaks version {other} of transfers, not {VERSION}");
            Err(Fault::new(ErrorCode::NotSupported, text))
        }
    }
}

fn read_some(file: &impl SourceFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
