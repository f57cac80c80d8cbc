//! The end that gets the files.

use std::collections::VecDeque;

mod claims;

use super::storage::ZEROS;
pub use super::storage::{Begun, Found, Part, Sink, Stored};
use super::{
    Entry, EntryKind, Fault, MODE_UNKNOWN, Report, SIZE_UNKNOWN,
    message::{self, Decoder, Message, NO_NUMBER, Side, VERSION, broken, feature},
    sender::check_version,
};
use crate::{
    limits::{
        TRANSFER_ENTRIES_MAX, TRANSFER_HOLE_MAX_BYTES, TRANSFER_OPEN_BYTES_MAX, TRANSFER_OPEN_MAX,
    },
    wire::ErrorCode,
};

/// Bytes read at a time to prove what is there.
const READ_BYTES: usize = 64 * 1024;

/// Bytes of holes that one call of [`Receiver::handle`] hashes at most: a few bytes of the sender
/// stand for many.
const HOLES_AT_ONCE_BYTES: u64 = 2 * TRANSFER_HOLE_MAX_BYTES;

/// The receiver's half of a conversation. See the head of `transfer`.
#[derive(Debug)]
pub struct Receiver<K: Sink> {
    sink: K,
    decoder: Decoder,
    /// Bytes that are still to be handled, after others that took long.
    waiting: Vec<u8>,
    /// Bytes of holes that may be hashed before somebody else has a turn.
    hole_room: u64,
    /// What the sender knows, once it has greeted.
    greeted: Option<u8>,
    /// What is announced and not finished, from the number `base` on.
    slots: VecDeque<Option<Slot<K::Stage>>>,
    base: u32,
    open: usize,
    open_bytes: usize,
    has_ended: bool,
    /// Files that nobody has looked for yet, as enough of others are open; in order.
    unseen: VecDeque<u32>,
    /// Entries whose beginning is being hashed, in order.
    claims: VecDeque<u32>,
    /// So many are open, as they are hashed or the sender has not said what becomes of them.
    held: usize,
    current: Current<K::Stage>,
    out: Vec<u8>,
    buffer: Vec<u8>,
    reports: Vec<Report>,
    over: Option<Result<(), Fault>>,
}

#[derive(Debug)]
struct Slot<S> {
    entry: Entry,
    name: Vec<u8>,
    state: State<S>,
}

#[derive(Debug)]
enum State<S> {
    /// Not looked for.
    Unseen,
    /// Being hashed, so far up to there.
    Claiming(Part<S>, Box<blake3::Hasher>, u64),
    Wanted(Option<(Part<S>, Box<blake3::Hasher>)>),
    /// Its bytes come.
    UnderWay,
    /// It waits for its name; its hash, and whether it was there already.
    Finished([u8; 32], bool),
}

/// The file whose bytes come.
#[derive(Debug)]
enum Current<S> {
    None,
    Writing {
        number: u32,
        stage: S,
        hasher: Box<blake3::Hasher>,
        received: u64,
        size: u64,
        was_there: bool,
    },
    /// It failed here; its bytes are thrown away up to its end.
    Ignoring,
}

impl<K: Sink> Receiver<K> {
    /// A receiver that gives all to `sink`.
    pub fn new(sink: K) -> Receiver<K> {
        let mut receiver = Receiver {
            sink,
            decoder: Decoder::default(),
            waiting: Vec::new(),
            hole_room: 0,
            greeted: None,
            slots: VecDeque::new(),
            base: 0,
            open: 0,
            open_bytes: 0,
            has_ended: false,
            unseen: VecDeque::new(),
            claims: VecDeque::new(),
            held: 0,
            current: Current::None,
            out: Vec::new(),
            buffer: Vec::new(),
            reports: Vec::new(),
            over: None,
        };
        let links = if receiver.sink.takes_links() { feature::LINKS } else { 0 };
        let features = feature::HOLES | feature::NOTES | links;
        receiver.say(&Message::Hello { version: VERSION, features });
        receiver
    }

    /// Takes in bytes of the sender, in any portions. Blocks on the disk. [`Receiver::settle`] is
    /// to be called when no more are at hand. What takes too long waits for [`Receiver::prove`].
    pub fn handle(&mut self, bytes: &[u8]) {
        self.hole_room = HOLES_AT_ONCE_BYTES;
        if self.waiting.is_empty() {
            let used = self.handle_some(bytes);
            self.waiting.extend_from_slice(&bytes[used..]);
        } else {
            self.waiting.extend_from_slice(bytes);
            self.handle_waiting();
        }
    }

    fn handle_waiting(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        let used = self.handle_some(&waiting);
        waiting.drain(..used);
        self.waiting = waiting;
    }

    /// Handles bytes as long as there is room for holes; how many.
    fn handle_some(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while self.over.is_none() {
            if self.hole_room == 0 {
                return bytes.len() - rest.len();
            }
            match self.decoder.next(&mut rest) {
                Ok(None) => break,
                Ok(Some(message)) => {
                    if let Err(fault) = self.handle_message(message) {
                        self.abort(fault);
                    }
                }
                Err(fault) => self.abort(fault),
            }
        }
        bytes.len()
    }

    /// The memory that the conversation takes, about: what is announced and not finished, most of
    /// all.
    pub fn held_bytes(&self) -> usize {
        let hashers = self.claims.len() * size_of::<blake3::Hasher>();
        let slots = self.slots.len() * size_of::<Slot<K::Stage>>() + 2 * self.open_bytes;
        let buffers = self.waiting.capacity() + self.buffer.len() + self.out.len();
        slots + hashers + buffers + self.decoder.held_bytes()
    }

    /// Bytes that were taken in and not handled: they are not to become more without a bound.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting.len()
    }

    /// Puts the finished files in their places and tells so.
    pub fn settle(&mut self) {
        for (number, result) in self.sink.settle() {
            match result {
                Ok(()) => {
                    self.say(&Message::Stored { number });
                    let other = self.sink.placed_as(number);
                    let Some(slot) = self.close(number) else { continue };
                    if let State::Finished(hash, was_there) = slot.state {
                        let (name, size) = (other.unwrap_or(slot.name), slot.entry.size);
                        self.reports.push(Report::Stored { name, size, hash, was_there });
                    }
                }
                Err(fault) => self.fail(number, fault),
            }
        }
        self.end_if_done();
    }

    /// What is to be put on the channel.
    pub fn take_bytes(&mut self) -> Vec<u8> {
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

    /// Gives up, and says so to the sender. What was received of a file is kept.
    pub fn abort(&mut self, fault: Fault) {
        if self.over.is_none() {
            self.say(&Message::Abort(fault.clone()));
            self.end(Err(fault));
        }
    }

    fn end(&mut self, result: Result<(), Fault>) {
        self.over = Some(result);
        self.current = Current::None;
        self.unseen.clear();
        self.claims.clear();
        self.slots.clear();
        self.waiting.clear();
    }

    fn end_if_done(&mut self) {
        if self.has_ended && self.open == 0 && self.over.is_none() {
            self.sink.close();
            self.say(&Message::Done);
            self.end(Ok(()));
        }
    }

    fn handle_message(&mut self, message: Message<'_>) -> Result<(), Fault> {
        match message {
            Message::Hello { version, features } => {
                self.greeted = Some(features);
                check_version(version)
            }
            _ if self.greeted.is_none() => Err(broken("the sender has not said hello")),
            Message::Data(bytes) => self.handle_data(bytes),
            Message::Entry(entry) if !self.has_ended => self.handle_entry(entry),
            Message::File { number, starts_over, from } => {
                self.handle_file(number, starts_over, from)
            }
            Message::Hash(hash) => self.handle_hash(hash),
            Message::Hole(length) => self.handle_hole(length),
            Message::Grown(size) => self.handle_grown(size),
            Message::Skipped { count, path: name } => {
                self.reports.push(Report::Skipped { name, count });
                Ok(())
            }
            Message::Failed { number: NO_NUMBER, path, fault } => {
                self.reports.push(Report::Failed { name: path, fault });
                Ok(())
            }
            Message::Failed { number, fault, .. } => self.handle_failed(number, fault),
            Message::End { entries } => {
                if self.has_ended || entries != self.base + self.slots.len() as u32 {
                    return Err(broken("the sender has miscounted its entries"));
                }
                self.has_ended = true;
                Ok(())
            }
            Message::Abort(fault) => {
                self.end(Err(fault));
                Ok(())
            }
            other => Err(broken(format!("the sender may not say {other:?} now"))),
        }
    }

    fn handle_entry(&mut self, mut entry: Entry) -> Result<(), Fault> {
        let number = self.base + self.slots.len() as u32;
        if self.slots.len() >= TRANSFER_OPEN_MAX || self.open_bytes >= TRANSFER_OPEN_BYTES_MAX {
            return Err(broken("the sender announces more than it may at once"));
        }
        if number >= TRANSFER_ENTRIES_MAX {
            let text = format!("more than {TRANSFER_ENTRIES_MAX} files in one transfer");
            return Err(Fault::new(ErrorCode::TooMany, text));
        }
        if self.greeted.is_none_or(|features| features & feature::PERMISSIONS == 0) {
            // It tells only whether the owner may execute it.
            entry.mode = MODE_UNKNOWN | if entry.is_executable() { 0o111 } else { 0 };
        }
        self.open += 1;
        self.open_bytes += entry.weight();
        let slot = Slot { name: entry.path.clone(), entry, state: State::Unseen };
        if slot.entry.kind != EntryKind::File {
            let made = match slot.entry.kind {
                EntryKind::Folder => self.sink.folder(&slot.entry),
                _ => self.sink.link(&slot.entry),
            };
            if made.is_ok() && slot.entry.is_named_folder() {
                self.reports.push(Report::Folder { name: self.sink.folder_name(&slot.entry) });
            }
            self.slots.push_back(Some(slot));
            match made {
                Ok(()) => {
                    self.say(&Message::Stored { number });
                    self.close(number);
                }
                Err(fault) => self.fail(number, fault),
            }
            return Ok(());
        }
        self.reports.push(Report::Found(slot.entry.size));
        self.slots.push_back(Some(slot));
        self.unseen.push_back(number);
        self.find_some();
        Ok(())
    }

    fn handle_file(&mut self, number: u32, over: bool, from: u64) -> Result<(), Fault> {
        if matches!(self.current, Current::Writing { .. }) {
            return Err(broken("a file begins before the end of the last"));
        }
        let at = number.checked_sub(self.base).map(|at| at as usize);
        let slot = at.and_then(|at| self.slots.get_mut(at)).and_then(Option::as_mut);
        let Some(slot) = slot else {
            return Err(broken(format!("there is no open entry {number}")));
        };
        let State::Wanted(claim) = &mut slot.state else {
            return Err(broken(format!("the file {number} comes before it was asked for")));
        };
        let claim = claim.take();
        slot.state = State::UnderWay;
        self.held -= usize::from(claim.is_some());
        let claimed = claim.as_ref().map_or(0, |(part, _)| part.length);
        if from != 0 && from != claimed {
            return Err(broken(format!("the file {number} begins at {from}, not at {claimed}")));
        }
        let is_whole = claim.as_ref().is_some_and(|(part, _)| part.is_whole);
        let starts_over = over && !is_whole;
        let (name, size) = (slot.name.clone(), slot.entry.size);
        let (stage, hasher) = match claim {
            Some((part, hasher)) if from > 0 => (Some(part.stage), hasher),
            other => (other.map(|(part, _)| part.stage), Box::default()),
        };
        let was_there = is_whole && (from > 0 || size == 0);
        self.reports.push(Report::Begun { name, size, from, starts_over });
        match self.sink.begin(&slot.entry, stage, from) {
            Ok(stage) => {
                let received = from;
                self.current =
                    Current::Writing { number, stage, hasher, received, size, was_there };
            }
            Err(fault) => {
                self.current = Current::Ignoring;
                self.fail(number, fault);
            }
        }
        self.find_some();
        Ok(())
    }

    fn handle_data(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let Current::Writing { number, stage, hasher, received, size, .. } = &mut self.current
        else {
            return match self.current {
                Current::Ignoring => Ok(()),
                _ => Err(broken("bytes of no file")),
            };
        };
        if *size != SIZE_UNKNOWN && bytes.len() as u64 > *size - *received {
            return Err(broken(format!("more than the {size} bytes that were announced")));
        }
        hasher.update(bytes);
        *received += bytes.len() as u64;
        let number = *number;
        match self.sink.write(stage, bytes) {
            Ok(()) => self.reports.push(Report::Moved(bytes.len() as u64)),
            Err(fault) => self.fail_current(number, fault),
        }
        Ok(())
    }

    fn handle_hole(&mut self, length: u64) -> Result<(), Fault> {
        self.hole_room = self.hole_room.saturating_sub(length);
        let mut left = length;
        while left > 0 {
            let Current::Writing { number, stage, hasher, received, size, .. } = &mut self.current
            else {
                return match self.current {
                    Current::Ignoring => Ok(()),
                    _ => Err(broken("a hole in no file")),
                };
            };
            if *size == SIZE_UNKNOWN || left > *size - *received {
                return Err(broken(format!("more than the {size} bytes that were announced")));
            }
            let part = left.min(ZEROS.len() as u64) as usize;
            hasher.update(&ZEROS[..part]);
            *received += part as u64;
            left -= part as u64;
            let number = *number;
            if let Err(fault) = self.sink.skip(stage, part) {
                self.fail_current(number, fault);
            }
        }
        self.reports.push(Report::Moved(length));
        Ok(())
    }

    fn handle_grown(&mut self, size: u64) -> Result<(), Fault> {
        match &self.current {
            Current::None => Err(broken("no file at hand has grown")),
            Current::Ignoring => Ok(()),
            Current::Writing { number, .. } => {
                let at = (number - self.base) as usize;
                let slot = self.slots[at].as_ref().expect("it is under way");
                self.reports.push(Report::Grown { name: slot.name.clone(), size });
                Ok(())
            }
        }
    }

    fn handle_hash(&mut self, hash: [u8; 32]) -> Result<(), Fault> {
        match std::mem::replace(&mut self.current, Current::None) {
            Current::None => Err(broken("the end of no file")),
            Current::Ignoring => Ok(()),
            Current::Writing { number, stage, hasher, received, size, was_there } => {
                let is_short = size != SIZE_UNKNOWN && received != size;
                let fault = if is_short {
                    Some(format!("{received} bytes came instead of {size}; try again"))
                } else if *hasher.finalize().as_bytes() != hash {
                    Some("the bytes that came are not those that were sent; try again".to_owned())
                } else {
                    None
                };
                if let Some(text) = fault {
                    self.sink.discard(stage);
                    self.fail(number, Fault::new(ErrorCode::NotVerified, text));
                    return Ok(());
                }
                let at = (number - self.base) as usize;
                let slot = self.slots[at].as_mut().expect("it is under way");
                slot.entry.size = received;
                slot.state = State::Finished(hash, was_there);
                self.sink.finish(number, stage, &slot.entry);
                Ok(())
            }
        }
    }

    fn handle_failed(&mut self, number: u32, fault: Fault) -> Result<(), Fault> {
        match &self.current {
            Current::Writing { number: own, .. } if *own == number => {
                // What came so far is the beginning of something: it is kept for the next time.
                self.current = Current::None;
            }
            // The sender stops what was refused here.
            Current::Ignoring => {
                self.current = Current::None;
            }
            _ => {}
        }
        if let Some(slot) = self.close(number) {
            match slot.state {
                State::Claiming(..) | State::Wanted(Some(_)) => self.held -= 1,
                _ => {}
            }
            self.unseen.retain(|unseen| *unseen != number);
            self.claims.retain(|claim| *claim != number);
            self.reports.push(Report::Failed { name: slot.name, fault });
        }
        self.find_some();
        Ok(())
    }

    /// The file at hand cannot be written on. What is there of it is good: it stays for the next
    /// time, when the disk may have room, unless it can never be there as a whole.
    fn fail_current(&mut self, number: u32, fault: Fault) {
        let current = std::mem::replace(&mut self.current, Current::Ignoring);
        if let Current::Writing { stage, .. } = current
            && fault.code == ErrorCode::FileTooLarge
        {
            self.sink.discard(stage);
        }
        self.fail(number, fault);
    }

    fn fail(&mut self, number: u32, fault: Fault) {
        self.say(&Message::Failed { number, path: Vec::new(), fault: fault.clone() });
        if let Some(slot) = self.close(number) {
            self.reports.push(Report::Failed { name: slot.name, fault });
        }
    }

    fn close(&mut self, number: u32) -> Option<Slot<K::Stage>> {
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

    fn say(&mut self, message: &Message<'_>) {
        message::put(&mut self.out, Side::Receiver, message);
    }
}
