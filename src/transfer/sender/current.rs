//! The file that a sender has at hand: what of it the receiver has, its bytes, and its end.

use std::{io, ops::Range, sync::Arc};

use super::{Sender, State, Want};
use crate::{
    limits::{TRANSFER_HOLE_MAX_BYTES, TRANSFER_SMALL_MAX_BYTES},
    transfer::{
        ContentChange, Fault, Report, SIZE_UNKNOWN, Segment, Source, SourceFile,
        message::{self, Message, feature},
    },
    wire::ErrorCode,
};

/// Bytes of a large file in one DATA message, and read at a time.
const DATA_BYTES: usize = 256 * 1024;

/// Bytes of one read: they stay in the cache of the core while they are hashed.
const READ_BYTES: usize = 64 * 1024;

/// A shorter run of zeros is sent: a HOLE is not worth while.
const HOLE_MIN_BYTES: u64 = 64 * 1024;

static ZEROS: [u8; READ_BYTES] = [0; READ_BYTES];

/// The file at hand.
#[derive(Debug)]
pub(super) struct Current<F> {
    pub(super) want: Want,
    size: u64,
    file: Arc<F>,
    /// So much of it is hashed, and sent unless it is what the receiver has.
    offset: u64,
    hasher: blake3::Hasher,
    known: Option<[u8; 32]>,
    /// The next bytes that may be others than zeros; those before them are zeros.
    data: Range<u64>,
    pub(super) step: CurrentStep,
}

/// What is being done with the file at hand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum CurrentStep {
    /// What the receiver has is looked at first.
    Checking,
    Sending,
    /// It was written to meanwhile: it is read once more. Bytes that are the same twice were so
    /// all together at the moment between. Its hash as it was sent, and its size by now.
    Comparing([u8; 32], u64),
}

impl<S: Source> Sender<S> {
    pub(super) fn begin(&mut self, mut want: Want) {
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
                let step = if is_checking { CurrentStep::Checking } else { CurrentStep::Sending };
                self.current = Some(Current {
                    want,
                    size,
                    file: Arc::new(file),
                    offset: 0,
                    hasher: blake3::Hasher::new(),
                    known,
                    data: 0..0,
                    step,
                });
                if !is_checking {
                    self.say_file(0, starts_over);
                }
            }
            Err(fault) => self.fail(want.number, fault),
        }
    }

    /// Hashes a part of what the receiver claims to have, or of what was sent; returns the bytes.
    pub(super) fn read_again(&mut self) -> u64 {
        if self.buffer.is_empty() {
            self.buffer.resize(READ_BYTES, 0);
        }
        let current = self.current.as_mut().expect("the caller has looked");
        let is_checking = current.step == CurrentStep::Checking;
        let end = if is_checking { current.want.from } else { current.size };
        let mut count = current.hash_hole(end);
        if count == 0 && current.offset < end {
            let length = (end - current.offset).min(READ_BYTES as u64) as usize;
            match read_some(&*current.file, &mut self.buffer[..length], current.offset) {
                Ok(0) => self.fail_current(changed()),
                Err(error) => self.fail_current(error.into()),
                Ok(read) => {
                    current.hasher.update(&self.buffer[..read]);
                    count = read as u64;
                }
            }
        }
        let Some(current) = &mut self.current else { return 1 };
        current.offset += count;
        if current.offset == end {
            match is_checking {
                true => self.end_check(),
                false => self.end_comparison(),
            }
        }
        count
    }

    fn end_check(&mut self) {
        let current = self.current.as_mut().expect("the caller has looked");
        current.step = CurrentStep::Sending;
        let hash = *current.hasher.finalize().as_bytes();
        let is_same = hash == current.want.hash;
        // What was read is nearer than what was remembered.
        if current.want.from == current.size && current.known.is_some_and(|known| known != hash) {
            current.file.forget_hash();
            current.known = None;
        }
        if !is_same {
            current.start_again();
            current.want.from = 0;
        }
        let from = current.offset;
        self.say_file(from, !is_same);
    }

    fn say_file(&mut self, from: u64, starts_over: bool) {
        let number = self.current.as_ref().expect("a file is at hand").want.number;
        let entry = &self.slot(number).expect("it is open").entry;
        let (name, size) = (entry.path.clone(), entry.size);
        self.reports.push(Report::Begun { name, size, from, starts_over });
        self.say(&Message::File { number, starts_over, from });
    }

    /// Reads and says some of the file at hand, and its end where that is reached; returns how many
    /// bytes of a hole it has hashed.
    pub(super) fn send_some(&mut self) -> u64 {
        if self.knows(feature::HOLES) {
            let current = self.current.as_mut().expect("the caller has looked");
            let hole = current.hash_hole(current.size);
            if hole > 0 {
                current.offset += hole;
                let is_end = current.offset == current.size;
                self.reports.push(Report::Moved(hole));
                self.say(&Message::Hole(hole));
                if is_end {
                    self.end_file();
                }
                return hole;
            }
        }
        self.send_data();
        0
    }

    fn send_data(&mut self) {
        if self.buffer.is_empty() {
            self.buffer.resize(READ_BYTES, 0);
        }
        let current = self.current.as_mut().expect("the caller has looked");
        let left = current.size - current.offset;
        let is_large = left > TRANSFER_SMALL_MAX_BYTES as u64;
        let in_place = !self.copies && is_large && current.file.is_regular();
        let most = if in_place { DATA_BYTES } else { READ_BYTES };
        // Not beyond the next hole, where there is one.
        let left = match current.data.contains(&current.offset) {
            true => left.min(current.data.end - current.offset),
            false => left,
        };
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
        let current = self.current.as_mut().expect("the caller has looked");
        let hash = current.known.unwrap_or_else(|| *current.hasher.finalize().as_bytes());
        match current.file.change(current.size) {
            ContentChange::None => {
                if current.known.is_none() {
                    current.file.note_hash(hash);
                }
                self.say_hash(hash);
            }
            ContentChange::Shorter => self.fail_current(changed()),
            ContentChange::Perhaps(size) => {
                current.step = CurrentStep::Comparing(hash, size);
                current.start_again();
                if current.size == 0 {
                    self.end_comparison();
                }
            }
        }
    }

    fn end_comparison(&mut self) {
        let current = self.current.as_ref().expect("the caller has looked");
        let CurrentStep::Comparing(hash, size) = current.step else {
            unreachable!("the caller has looked")
        };
        if *current.hasher.finalize().as_bytes() != hash {
            current.file.forget_hash();
            return self.fail_current(changed());
        }
        if size > current.size {
            let number = current.want.number;
            let name = self.slot(number).expect("it is open").entry.path.clone();
            self.reports.push(Report::Grown { name, size });
            if self.knows(feature::NOTES) {
                self.say(&Message::Grown(size));
            }
        }
        self.say_hash(hash);
    }

    fn say_hash(&mut self, hash: [u8; 32]) {
        let current = self.current.take().expect("the caller has looked");
        // Nothing was sent where all of it had been claimed.
        let was_there = current.want.from == current.size && current.size > 0;
        let slot = self.slot(current.want.number).expect("it is open");
        slot.state = State::Sent(was_there, hash);
        if slot.entry.size == SIZE_UNKNOWN {
            slot.entry.size = current.size;
        }
        self.say(&Message::Hash(hash));
    }
}

impl<F: SourceFile> Current<F> {
    /// Hashes a part of the hole that begins here, if one does, up to `end`; how many bytes.
    fn hash_hole(&mut self, end: u64) -> u64 {
        if self.size == SIZE_UNKNOWN || self.offset >= end {
            return 0;
        }
        if self.offset >= self.data.end {
            self.data = self.file.data_at(self.offset, self.size);
            if self.data.start - self.offset < HOLE_MIN_BYTES {
                self.data.start = self.offset;
            }
        }
        let until = self.data.start.min(end);
        let hole = until.saturating_sub(self.offset).min(TRANSFER_HOLE_MAX_BYTES);
        let mut left = hole;
        while left > 0 {
            let part = left.min(READ_BYTES as u64);
            self.hasher.update(&ZEROS[..part as usize]);
            left -= part;
        }
        hole
    }

    /// Hashes it from its beginning.
    fn start_again(&mut self) {
        (self.offset, self.data) = (0, 0..0);
        self.hasher = blake3::Hasher::new();
    }
}

fn changed() -> Fault {
    Fault::new(ErrorCode::FileChanged, "the file changed while it was read; try again")
}

fn read_some(file: &impl SourceFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
