//! The end that has the files.

use std::collections::VecDeque;

mod current;

use current::{Current, CurrentStep};

use super::{
    Entry, EntryKind, Fault, Report, Segment, Source, SourceFile, Upcoming,
    message::{self, Decoder, Message, NO_NUMBER, Side, VERSION, broken, feature},
};
use crate::{
    limits::{TRANSFER_OPEN_BYTES_MAX, TRANSFER_OPEN_MAX},
    wire::ErrorCode,
};

/// Bytes that one call of [`Sender::produce`] hashes at most beside those that it says: to check
/// what a receiver claims, to compare what was sent, in holes.
const CHECK_BYTES: u64 = 32 * 1024 * 1024;

/// Names that one call of [`Sender::produce`] looks at, at most.
const NAMES_AT_ONCE: usize = 16 * 1024;

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
    /// A link that waits until the receiver has said whether it takes links.
    held: Option<(Entry, S::Place)>,
    /// Nothing is left but to say what was left out, once the receiver has greeted.
    waits_to_end: bool,
    /// How many things those are, and the first of them.
    skipped: Option<(u32, Vec<u8>)>,
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
            held: None,
            waits_to_end: false,
            skipped: None,
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
            let Some(current) = &self.current else {
                let Some(want) = self.wants.pop_front() else { break };
                self.begin(want);
                continue;
            };
            if checked >= CHECK_BYTES {
                return true;
            }
            checked += match current.step {
                CurrentStep::Checking | CurrentStep::Comparing(..) => self.read_again(),
                CurrentStep::Sending => self.send_some(),
            };
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
                if slot.entry.is_named_folder() {
                    self.reports.push(Report::Folder { name: slot.entry.path });
                } else if let Some((was_there, hash)) = was_there {
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
                if fault.code == ErrorCode::NotVerified
                    && let Ok(file) = self.source.open(&slot.entry, &slot.place)
                {
                    // Whatever was known of it does not hold.
                    file.forget_hash();
                }
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
        let waits = self.greeted.is_none() && (self.held.is_some() || self.waits_to_end);
        !self.has_ended && !is_full && !waits
    }

    fn knows(&self, feature: u8) -> bool {
        self.greeted.is_some_and(|features| features & feature != 0)
    }

    fn announce(&mut self) {
        let mut budget = NAMES_AT_ONCE;
        while self.may_announce() {
            let upcoming = match self.held.take() {
                Some((link, place)) if self.knows(feature::LINKS) => {
                    self.announce_entry(link, place);
                    continue;
                }
                Some((link, place)) => self.source.follow(link, place),
                None if self.waits_to_end => Upcoming::End,
                None => self.source.next(&mut budget),
            };
            match upcoming {
                Upcoming::Entry(link, place) if link.kind == EntryKind::Link => {
                    self.held = Some((link, place));
                }
                Upcoming::Entry(entry, place) => self.announce_entry(entry, place),
                Upcoming::Missing(path, fault) => {
                    let report = Report::Failed { name: path.clone(), fault: fault.clone() };
                    self.reports.push(report);
                    self.say(&Message::Failed { number: NO_NUMBER, path, fault });
                }
                Upcoming::Later => return,
                Upcoming::End => self.say_end(),
            }
        }
    }

    fn announce_entry(&mut self, entry: Entry, place: S::Place) {
        self.open += 1;
        self.open_bytes += entry.weight();
        if entry.kind == EntryKind::File {
            self.reports.push(Report::Found(entry.size));
        }
        self.say(&Message::Entry(entry.clone()));
        self.slots.push_back(Some(Slot { entry, place, state: State::Announced }));
    }

    fn say_end(&mut self) {
        self.waits_to_end = true;
        if self.greeted.is_none() {
            // It decides in which way is told what was left out. At once where that is nothing.
            if let Some((count, name)) = self.source.take_skipped() {
                self.skipped = Some((count, name));
                return;
            }
        }
        let skipped = self.skipped.take().or_else(|| self.source.take_skipped());
        if let Some((count, name)) = skipped {
            match self.knows(feature::NOTES) {
                true => self.say(&Message::Skipped { count, path: name.clone() }),
                false => {
                    let text = format!("{count} things are neither files nor folders");
                    let fault = Fault::new(ErrorCode::NotAFile, text);
                    let path = name.clone();
                    self.say(&Message::Failed { number: NO_NUMBER, path, fault });
                }
            }
            self.reports.push(Report::Skipped { name, count });
        }
        self.has_ended = true;
        let entries = self.base + self.slots.len() as u32;
        self.say(&Message::End { entries });
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

pub(super) fn check_version(version: u8) -> Result<(), Fault> {
    match version {
        VERSION => Ok(()),
        other => {
            let text = format!("the other end speaks version {other} of transfers, not {VERSION}");
            Err(Fault::new(ErrorCode::NotSupported, text))
        }
    }
}
