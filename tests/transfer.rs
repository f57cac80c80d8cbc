//! The conversation of a transfer, both ends over a channel in memory: every portioning, faults of
//! the disk, and partners that lie.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    io,
    ops::Range,
    rc::Rc,
};

use proptest::prelude::*;
use sixfour::{
    limits::{TRANSFER_HOLE_MAX_BYTES, TRANSFER_OPEN_MAX},
    transfer::{
        ContentChange, Entry, EntryKind, Fault, Found, Part, Receiver, Report, SIZE_UNKNOWN,
        Segment, Sender, Sink, Source, SourceFile, Stored, Upcoming,
        message::{self, Decoder, Message, NO_NUMBER, Side, VERSION},
    },
    wire::ErrorCode,
};

type Files = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Default)]
struct MemorySource {
    entries: VecDeque<(Entry, Vec<u8>)>,
    /// The file of this number changes while it is read, in this way.
    changes: Option<(usize, ContentChange)>,
    /// Then it has other bytes as well.
    is_rewritten: bool,
    /// Blocks of zeros are holes.
    has_holes: bool,
    skipped: Option<(u32, Vec<u8>)>,
    opened: usize,
    /// What is remembered of every file.
    known: Option<[u8; 32]>,
    /// What was to be remembered.
    noted: Rc<RefCell<Vec<[u8; 32]>>>,
}

struct MemoryFile {
    bytes: Vec<u8>,
    change: ContentChange,
    is_rewritten: bool,
    has_holes: bool,
    /// How often it was read from its beginning.
    readings: Cell<usize>,
    known: Option<[u8; 32]>,
    noted: Rc<RefCell<Vec<[u8; 32]>>>,
}

const BLOCK: usize = 4096;

impl Source for MemorySource {
    type File = MemoryFile;
    type Place = Vec<u8>;

    fn next(&mut self, _: &mut usize) -> Upcoming<Vec<u8>> {
        match self.entries.pop_front() {
            Some((entry, bytes)) => Upcoming::Entry(entry, bytes),
            None => Upcoming::End,
        }
    }

    fn open(&mut self, _: &Entry, bytes: &Vec<u8>) -> Result<MemoryFile, Fault> {
        self.opened += 1;
        let change = self.changes.filter(|(number, _)| *number == self.opened - 1);
        Ok(MemoryFile {
            bytes: bytes.clone(),
            change: change.map_or(ContentChange::None, |(_, change)| change),
            is_rewritten: self.is_rewritten && change.is_some(),
            has_holes: self.has_holes,
            readings: Cell::new(0),
            known: self.known,
            noted: self.noted.clone(),
        })
    }

    fn follow(&mut self, link: Entry, _: Vec<u8>) -> Upcoming<Vec<u8>> {
        Upcoming::Entry(Entry { kind: EntryKind::File, size: 2, ..link }, b"it".to_vec())
    }

    fn take_skipped(&mut self) -> Option<(u32, Vec<u8>)> {
        self.skipped.take()
    }
}

impl SourceFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = &self.bytes[self.bytes.len().min(offset as usize)..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.readings.set(self.readings.get() + usize::from(offset == 0));
        if self.is_rewritten && self.readings.get() > 1 && offset == 0 {
            buffer[0] ^= 1;
        }
        Ok(count)
    }

    fn change(&self, _: u64) -> ContentChange {
        self.change
    }

    fn known_hash(&self) -> Option<[u8; 32]> {
        self.known
    }

    fn note_hash(&self, hash: [u8; 32]) {
        self.noted.borrow_mut().push(hash);
    }

    fn data_at(&self, offset: u64, end: u64) -> Range<u64> {
        if !self.has_holes {
            return offset..end;
        }
        let is_data = |at: &usize| self.bytes[*at..].iter().take(BLOCK).any(|byte| *byte != 0);
        let blocks = |from: usize| (from..end as usize).step_by(BLOCK);
        let start = blocks(offset as usize).find(is_data).unwrap_or(end as usize);
        let until = blocks(start).find(|at| !is_data(at)).unwrap_or(end as usize);
        start as u64..until as u64
    }
}

#[derive(Default)]
struct MemorySink {
    files: Files,
    folders: Vec<Vec<u8>>,
    stages: Files,
    finished: Vec<(u32, Vec<u8>, Vec<u8>)>,
    /// Where it takes them.
    links: Option<Vec<(Vec<u8>, Vec<u8>)>>,
    /// The n-th write fails.
    fails_at: Option<usize>,
    writes: usize,
}

struct MemoryStage {
    path: Vec<u8>,
    bytes: Vec<u8>,
}

impl Sink for MemorySink {
    type Stage = MemoryStage;

    fn folder(&mut self, entry: &Entry) -> Result<(), Fault> {
        self.folders.push(entry.path.clone());
        Ok(())
    }

    fn takes_links(&self) -> bool {
        self.links.is_some()
    }

    fn link(&mut self, entry: &Entry) -> Result<(), Fault> {
        let links = self.links.as_mut().expect("they are taken");
        links.push((entry.path.clone(), entry.target.clone()));
        Ok(())
    }

    fn find(&mut self, entry: &Entry) -> Result<Found<MemoryStage>, Fault> {
        if entry.path.split(|byte| *byte == b'/').any(|part| part == b"..") {
            return Err(Fault::new(ErrorCode::BadPath, "dots"));
        }
        let name = entry.path.clone();
        let whole = self.files.get(&name).filter(|file| file.len() as u64 == entry.size);
        let (bytes, is_whole) = match (whole, self.stages.get(&name)) {
            (Some(bytes), _) => (bytes, true),
            (None, Some(bytes)) => (bytes, false),
            (None, None) => return Ok(Found { name, part: None }),
        };
        let stage = MemoryStage { path: name.clone(), bytes: bytes.clone() };
        let part = Some(Part { stage, length: bytes.len() as u64, is_whole });
        Ok(Found { name, part })
    }

    fn begin(
        &mut self,
        entry: &Entry,
        stage: Option<MemoryStage>,
        from: u64,
    ) -> Result<MemoryStage, Fault> {
        if from == 0 {
            self.stages.insert(entry.path.clone(), Vec::new());
        }
        let new = || MemoryStage { path: entry.path.clone(), bytes: Vec::new() };
        Ok(stage.filter(|_| from > 0).unwrap_or_else(new))
    }

    fn read_at(&mut self, stage: &MemoryStage, out: &mut [u8], at: u64) -> io::Result<usize> {
        let rest = &stage.bytes[at as usize..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write(&mut self, stage: &mut MemoryStage, bytes: &[u8]) -> Result<(), Fault> {
        self.writes += 1;
        if self.fails_at == Some(self.writes) {
            return Err(Fault::new(ErrorCode::NoSpace, "full"));
        }
        self.stages.get_mut(&stage.path).expect("it was begun").extend_from_slice(bytes);
        Ok(())
    }

    fn finish(&mut self, number: u32, stage: MemoryStage, _: &Entry) {
        // What has no stage stands under its name already.
        let bytes = self.stages.remove(&stage.path).unwrap_or(stage.bytes);
        self.finished.push((number, stage.path, bytes));
    }

    fn discard(&mut self, stage: MemoryStage) {
        self.stages.remove(&stage.path);
    }

    fn settle(&mut self) -> Vec<Stored> {
        let place = |(number, path, bytes): (u32, Vec<u8>, Vec<u8>)| {
            self.files.insert(path, bytes);
            (number, Ok(()))
        };
        std::mem::take(&mut self.finished).into_iter().map(place).collect()
    }
}

/// The sink, out of reach of the receiver that owns it.
struct Lent<'a>(&'a mut MemorySink);

impl Sink for Lent<'_> {
    type Stage = MemoryStage;

    fn folder(&mut self, entry: &Entry) -> Result<(), Fault> {
        self.0.folder(entry)
    }
    fn takes_links(&self) -> bool {
        self.0.takes_links()
    }
    fn link(&mut self, entry: &Entry) -> Result<(), Fault> {
        self.0.link(entry)
    }
    fn find(&mut self, entry: &Entry) -> Result<Found<MemoryStage>, Fault> {
        self.0.find(entry)
    }
    fn begin(
        &mut self,
        entry: &Entry,
        stage: Option<MemoryStage>,
        from: u64,
    ) -> Result<MemoryStage, Fault> {
        self.0.begin(entry, stage, from)
    }
    fn read_at(&mut self, stage: &MemoryStage, out: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(stage, out, at)
    }
    fn write(&mut self, stage: &mut MemoryStage, bytes: &[u8]) -> Result<(), Fault> {
        self.0.write(stage, bytes)
    }
    fn finish(&mut self, number: u32, stage: MemoryStage, entry: &Entry) {
        self.0.finish(number, stage, entry);
    }
    fn discard(&mut self, stage: MemoryStage) {
        self.0.discard(stage);
    }
    fn settle(&mut self) -> Vec<Stored> {
        self.0.settle()
    }
}

const HELLO: Message<'static> = Message::Hello { version: VERSION, features: 0xff };

fn entry(path: &[u8], kind: EntryKind, size: u64) -> Entry {
    let (path, target) = (path.to_vec(), Vec::new());
    Entry { item: 0, kind, mode: 0o644, size, modified: (1, 2), path, target }
}

fn source(files: &Files) -> MemorySource {
    let of = |(path, bytes): (&Vec<u8>, &Vec<u8>)| {
        (entry(path, EntryKind::File, bytes.len() as u64), bytes.clone())
    };
    MemorySource { entries: files.iter().map(of).collect(), ..MemorySource::default() }
}

fn content(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(31) ^ (at >> 8) as u8 ^ seed).collect()
}

fn flatten(segments: Vec<Segment<MemoryFile>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for segment in segments {
        match segment {
            Segment::Bytes(more) => bytes.extend(more),
            Segment::File { file, offset, length } => {
                bytes.extend_from_slice(&file.bytes[offset as usize..][..length]);
            }
        }
    }
    bytes
}

struct Run {
    outcome: Result<(), Fault>,
    sent: Vec<Report>,
    received: Vec<Report>,
    /// Bytes from the sender to the receiver.
    bytes: usize,
}

/// Runs both ends to their end, or until so many bytes of the sender have arrived.
fn run(source: MemorySource, sink: &mut MemorySink, cut: usize, break_at: usize) -> Run {
    let (mut sender, mut receiver) = (Sender::new(source), Receiver::new(Lent(sink)));
    let (mut sent, mut received, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut turns = 0;
    while sender.outcome().is_none() || receiver.outcome().is_none() {
        turns += 1;
        assert!(turns < 1_000_000, "it does not come to an end");
        sender.produce(100_000);
        let out = flatten(sender.take_segments());
        for portion in out.chunks(cut) {
            bytes += portion.len();
            if bytes > break_at {
                let fault = Fault::new(ErrorCode::Cancelled, "broken off");
                return Run { outcome: Err(fault), sent, received, bytes };
            }
            receiver.handle(portion);
        }
        receiver.settle();
        receiver.prove(70_000);
        for portion in receiver.take_bytes().chunks(cut) {
            sender.handle(portion);
        }
        sent.extend(sender.take_reports());
        received.extend(receiver.take_reports());
    }
    let outcome = receiver.outcome().expect("it has ended").clone();
    assert_eq!(&outcome, sender.outcome().expect("it has ended"));
    Run { outcome, sent, received, bytes }
}

fn stored(reports: &[Report]) -> usize {
    reports.iter().filter(|report| matches!(report, Report::Stored { .. })).count()
}

fn names_of(files: &[(&str, usize)]) -> Files {
    files.iter().map(|(name, size)| (name.as_bytes().to_vec(), content(*size, 1))).collect()
}

#[test]
fn all_sizes_arrive_in_all_portions() {
    let sizes = [("a", 0), ("b", 1), ("c", 65_535), ("d", 65_536), ("e", 65_537), ("f", 600_000)];
    let files = names_of(&sizes);
    for cut in [1, 2, 3, 7, 1000, usize::MAX] {
        let mut sink = MemorySink::default();
        let ran = run(source(&files), &mut sink, cut, usize::MAX);
        assert_eq!(ran.outcome, Ok(()));
        assert!(sink.files == files, "portions of {cut}");
        assert_eq!((stored(&ran.sent), stored(&ran.received)), (files.len(), files.len()));
    }
}

#[test]
fn a_hash_that_was_computed_is_to_be_remembered_and_one_that_was_known_is_not() {
    let files = names_of(&[("a", 100_000)]);
    let hash = *blake3::hash(&files[&b"a"[..]]).as_bytes();
    for (known, noted) in [(None, vec![hash]), (Some(hash), vec![])] {
        let source = MemorySource { known, ..source(&files) };
        let seen = source.noted.clone();
        let ran = run(source, &mut MemorySink::default(), usize::MAX, usize::MAX);
        assert_eq!((ran.outcome, stored(&ran.received)), (Ok(()), 1));
        assert_eq!(*seen.borrow(), noted);
    }
}

#[test]
fn more_files_than_may_be_open_at_once_are_pipelined() {
    let count = 3 * TRANSFER_OPEN_MAX;
    let files: Files =
        (0..count).map(|n| (format!("f/{n}").into_bytes(), content(n % 300, n as u8))).collect();
    let mut sink = MemorySink::default();
    let mut it = source(&files);
    it.entries.push_front((entry(b"f", EntryKind::Folder, 0), Vec::new()));
    let ran = run(it, &mut sink, 4096, usize::MAX);
    assert_eq!(ran.outcome, Ok(()));
    assert!(sink.files == files && sink.folders == [b"f".to_vec()]);
}

#[test]
fn a_pipe_without_a_size_ends_where_it_ends() {
    for length in [0, 1, 65_536, 300_000] {
        let bytes = content(length, 3);
        let entries = [(entry(b"p", EntryKind::File, SIZE_UNKNOWN), bytes.clone())].into();
        let mut sink = MemorySink::default();
        let it = MemorySource { entries, ..MemorySource::default() };
        assert_eq!(run(it, &mut sink, 5000, usize::MAX).outcome, Ok(()));
        assert!(sink.files[&b"p"[..]] == bytes);
    }
}

#[test]
fn what_is_there_is_proved_and_not_sent_again() {
    let files = names_of(&[("whole", 500_000), ("part", 500_000), ("other", 500_000)]);
    let mut sink = MemorySink::default();
    sink.files.insert(b"whole".to_vec(), files[&b"whole"[..]].clone());
    sink.stages.insert(b"part".to_vec(), files[&b"part"[..]][..400_000].to_vec());
    sink.stages.insert(b"other".to_vec(), content(400_000, 99));
    let ran = run(source(&files), &mut sink, usize::MAX, usize::MAX);
    assert_eq!(ran.outcome, Ok(()));
    assert!(sink.files == files);
    assert!((600_000..605_000).contains(&ran.bytes), "{} bytes were sent", ran.bytes);
    for reports in [&ran.sent, &ran.received] {
        let begun: Vec<_> = reports
            .iter()
            .filter_map(|report| match report {
                Report::Begun { name, from, starts_over, .. } => {
                    Some((String::from_utf8_lossy(name).into_owned(), *from, *starts_over))
                }
                _ => None,
            })
            .collect();
        assert!(begun.contains(&("whole".into(), 500_000, false)), "{begun:?}");
        assert!(begun.contains(&("part".into(), 400_000, false)), "{begun:?}");
        assert!(begun.contains(&("other".into(), 0, true)), "{begun:?}");
    }
    let was_there = |report: &Report| matches!(report, Report::Stored { was_there: true, .. });
    assert_eq!(ran.received.iter().filter(|report| was_there(report)).count(), 1);
}

#[test]
fn a_write_that_fails_fails_its_file_alone() {
    let files = names_of(&[("a", 10), ("b", 900_000), ("c", 10)]);
    for fails_at in 1..=8 {
        let mut sink = MemorySink { fails_at: Some(fails_at), ..MemorySink::default() };
        let ran = run(source(&files), &mut sink, 300_000, usize::MAX);
        assert_eq!(ran.outcome, Ok(()), "at {fails_at}");
        let failed = |report: &&Report| matches!(report, Report::Failed { .. });
        let failures = ran.received.iter().filter(failed).count();
        assert_eq!(failures, ran.sent.iter().filter(failed).count());
        assert_eq!(sink.files.len() + failures, files.len());
        assert!(sink.files.iter().all(|(name, bytes)| files[name] == *bytes));
        // What there was room for is the beginning of the file, and is gone on with.
        assert!(sink.stages.iter().all(|(name, bytes)| files[name].starts_with(bytes)));
        sink.fails_at = None;
        assert_eq!(run(source(&files), &mut sink, 300_000, usize::MAX).outcome, Ok(()));
        assert!(sink.files == files && sink.stages.is_empty(), "at {fails_at}");
    }
}

#[test]
fn a_source_that_changes_fails_its_file_alone() {
    let files = names_of(&[("a", 100_000), ("b", 100_000), ("c", 10)]);
    let mut sink = MemorySink::default();
    let it = MemorySource { changes: Some((1, ContentChange::Shorter)), ..source(&files) };
    let ran = run(it, &mut sink, 1000, usize::MAX);
    assert_eq!(ran.outcome, Ok(()));
    assert!(!sink.files.contains_key(&b"b"[..]) && sink.files.len() == 2);
    let is_it = |report: &Report| {
        matches!(report,
        Report::Failed { fault, .. } if fault.code == ErrorCode::FileChanged)
    };
    assert!(ran.received.iter().any(is_it) && ran.sent.iter().any(is_it));
}

#[test]
fn a_file_that_is_written_to_arrives_as_it_was_at_one_moment_or_not_at_all() {
    let files = names_of(&[("a", 10), ("b", 200_000), ("c", 0)]);
    for number in 0..3 {
        let name = files.keys().nth(number).expect("it is there");
        let size = files[name].len() as u64;
        for (is_rewritten, now) in
            [(false, size), (false, size + 7), (true, size), (true, size + 7)]
        {
            let changes = Some((number, ContentChange::Perhaps(now)));
            let it = MemorySource { changes, is_rewritten, ..source(&files) };
            let mut sink = MemorySink::default();
            let ran = run(it, &mut sink, 1000, usize::MAX);
            assert_eq!(ran.outcome, Ok(()));
            let is_torn = is_rewritten && size > 0;
            assert_eq!(sink.files.contains_key(name), !is_torn, "{number}, {is_rewritten}, {now}");
            assert!(sink.files.iter().all(|(name, bytes)| files[name] == *bytes));
            for reports in [&ran.sent, &ran.received] {
                let failed = |report: &&Report| {
                    matches!(report, Report::Failed { fault, .. }
                    if fault.code == ErrorCode::FileChanged)
                };
                assert_eq!(reports.iter().any(|it| failed(&it)), is_torn);
                let grown = Report::Grown { name: name.clone(), size: now };
                assert_eq!(reports.contains(&grown), !is_torn && now > size, "{reports:?}");
            }
        }
    }
}

/// Zeros with some bytes in them.
fn sparse() -> Files {
    let mut bytes = vec![0; 20 << 20];
    bytes[2 << 20] = 1;
    bytes[(2 << 20) + 9000] = 2;
    let all_zeros = vec![0; 3 << 20];
    let ends_with_data = [vec![0; 100 * BLOCK], vec![3; 10]].concat();
    [bytes, all_zeros, ends_with_data].into_iter().zip(0u8..).map(|(it, n)| (vec![n], it)).collect()
}

#[test]
fn holes_are_not_sent() {
    let files = sparse();
    for cut in [7, usize::MAX] {
        let mut sink = MemorySink::default();
        let it = MemorySource { has_holes: true, ..source(&files) };
        let ran = run(it, &mut sink, cut, usize::MAX);
        assert_eq!(ran.outcome, Ok(()));
        assert!(sink.files == files && ran.bytes < 10 * BLOCK, "{} bytes", ran.bytes);
        let moved = |sum, report: &Report| match report {
            Report::Moved(bytes) => sum + bytes,
            _ => sum,
        };
        let size: usize = files.values().map(Vec::len).sum();
        assert_eq!(ran.sent.iter().fold(0, moved), size as u64);
        assert_eq!(ran.received.iter().fold(0, moved), size as u64);
        // What is there is proved by its holes as well.
        let it = MemorySource { has_holes: true, ..source(&files) };
        assert!(run(it, &mut sink, cut, usize::MAX).bytes < 1000);
    }
}

/// What the sender says to a receiver with these features, which wants the first entry.
fn said(it: MemorySource, features: u8) -> (Vec<u8>, Vec<Report>) {
    let mut sender = Sender::new(it);
    sender.produce(1000);
    let mut bytes = flatten(sender.take_segments());
    let mut hello = Vec::new();
    message::put(&mut hello, Side::Receiver, &Message::Hello { version: VERSION, features });
    sender.handle(&hello);
    let mut want = Vec::new();
    let first = Message::Want { number: 0, from: 0, hash: [0; 32] };
    message::put(&mut want, Side::Receiver, &first);
    sender.produce(1000);
    sender.handle(&want);
    while sender.produce(1 << 20) {
        bytes.extend(flatten(sender.take_segments()));
    }
    bytes.extend(flatten(sender.take_segments()));
    (bytes, sender.take_reports())
}

#[test]
fn a_receiver_of_old_hears_nothing_that_it_does_not_know() {
    let files: Files = [(b"z".to_vec(), vec![0; 300_000])].into();
    let link = Entry { target: b"z".to_vec(), ..entry(b"d/l", EntryKind::Link, 1) };
    for features in [0, 0xff] {
        let mut it = MemorySource { has_holes: true, ..source(&files) };
        it.changes = Some((0, ContentChange::Perhaps(300_001)));
        it.skipped = Some((3, b"d/fifo".to_vec()));
        it.entries.push_back((link.clone(), Vec::new()));
        let (bytes, reports) = said(it, features);
        let (mut decoder, mut rest, mut kinds) = (Decoder::default(), &bytes[..], Vec::new());
        while let Some(message) = decoder.next(&mut rest).expect("good messages") {
            kinds.push(match message {
                Message::Entry(entry) if entry.kind == EntryKind::Link => "link",
                Message::Hole(_) => "hole",
                Message::Grown(_) => "grown",
                Message::Skipped { count: 3, .. } => "skipped",
                Message::Failed { number: NO_NUMBER, .. } => "failed",
                _ => continue,
            });
        }
        kinds.sort_unstable();
        let new = ["grown", "hole", "link", "skipped"];
        let expected = if features == 0 { &["failed"][..] } else { &new };
        assert_eq!(kinds, expected);
        assert!(reports.contains(&Report::Skipped { name: b"d/fifo".to_vec(), count: 3 }));
    }
}

#[test]
fn links_go_as_links_where_they_are_taken_and_else_as_what_they_lead_to() {
    let files = names_of(&[("d/f", 10)]);
    for takes_links in [false, true] {
        let mut it = source(&files);
        it.skipped = Some((1, b"d/fifo".to_vec()));
        let link = Entry { target: b"f".to_vec(), ..entry(b"d/l", EntryKind::Link, 1) };
        it.entries.push_front((link, Vec::new()));
        let mut sink = MemorySink { links: takes_links.then(Vec::new), ..MemorySink::default() };
        let ran = run(it, &mut sink, 3, usize::MAX);
        assert_eq!(ran.outcome, Ok(()));
        assert_eq!(sink.files.len(), if takes_links { 1 } else { 2 });
        let links = takes_links.then(|| vec![(b"d/l".to_vec(), b"f".to_vec())]);
        assert_eq!(sink.links, links);
        let skipped = Report::Skipped { name: b"d/fifo".to_vec(), count: 1 };
        assert!(ran.sent.contains(&skipped) && ran.received.contains(&skipped));
    }
}

#[test]
fn a_few_bytes_that_stand_for_many_zeros_take_turns() {
    let (holes, hole) = (8, TRANSFER_HOLE_MAX_BYTES);
    // The first write fails: then they need no room.
    let mut sink = MemorySink { fails_at: Some(1), ..MemorySink::default() };
    let mut receiver = Receiver::new(Lent(&mut sink));
    let mut bytes = Vec::new();
    let all = entry(b"x", EntryKind::File, holes * hole);
    let file = Message::File { number: 0, starts_over: false, from: 0 };
    for message in [HELLO, Message::Entry(all), file] {
        message::put(&mut bytes, Side::Sender, &message);
    }
    (0..holes).for_each(|_| message::put(&mut bytes, Side::Sender, &Message::Hole(hole)));
    receiver.handle(&bytes);
    let mut turns = 0;
    let mut waiting = receiver.waiting_bytes();
    while waiting > 0 {
        turns += 1;
        assert_eq!(receiver.prove(2 * hole), receiver.waiting_bytes() > 0);
        assert!(receiver.waiting_bytes() < waiting, "it goes on");
        waiting = receiver.waiting_bytes();
    }
    assert!(turns >= holes / 2 - 1, "{turns}");
    assert!(receiver.outcome().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn broken_off_anywhere_the_next_run_goes_on(
        sizes in prop::collection::vec(0usize..400_000, 1..6),
        breaks in prop::collection::vec(0usize..900_000, 0..4),
        cut in 1usize..100_000,
    ) {
        let named = |(n, size): (usize, &usize)| (format!("{n}").into_bytes(), content(*size, 7));
        let files: Files = sizes.iter().enumerate().map(named).collect();
        let mut sink = MemorySink::default();
        let mut needed: usize = sizes.iter().sum();
        for break_at in breaks {
            run(source(&files), &mut sink, cut, break_at);
            sink.finished.clear();
            sink.stages.retain(|_, bytes| !bytes.is_empty());
            prop_assert!(sink.files.iter().all(|(name, bytes)| files[name] == *bytes));
            let there: usize = sink.files.values().chain(sink.stages.values()).map(Vec::len).sum();
            needed = sizes.iter().sum::<usize>().saturating_sub(there);
        }
        let ran = run(source(&files), &mut sink, cut, usize::MAX);
        prop_assert_eq!(ran.outcome, Ok(()));
        prop_assert!(sink.files == files && sink.stages.is_empty());
        prop_assert!(ran.bytes <= needed + 1000, "{} bytes for {}", ran.bytes, needed);
    }

    #[test]
    fn no_bytes_break_either_end(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        hello in any::<bool>(),
    ) {
        let mut start = Vec::new();
        let mut sink = MemorySink::default();
        let mut receiver = Receiver::new(Lent(&mut sink));
        let mut sender = Sender::new(source(&names_of(&[("a", 10)])));
        if hello {
            message::put(&mut start, Side::Sender, &HELLO);
        }
        start.extend_from_slice(&bytes);
        receiver.handle(&start);
        receiver.settle();
        sender.produce(1000);
        sender.handle(&start);
    }
}

/// What a receiver says to these messages.
fn answer(messages: &[Message<'_>], sink: &mut MemorySink) -> Option<Result<(), Fault>> {
    let mut bytes = Vec::new();
    message::put(&mut bytes, Side::Sender, &HELLO);
    messages.iter().for_each(|message| message::put(&mut bytes, Side::Sender, message));
    let mut receiver = Receiver::new(Lent(sink));
    receiver.handle(&bytes);
    receiver.settle();
    receiver.outcome().cloned()
}

#[test]
fn a_lying_sender_is_stopped_and_nothing_gets_a_name() {
    let announced = || Message::Entry(entry(b"x", EntryKind::File, 3));
    let file = |number, from| Message::File { number, starts_over: false, from };
    let hash = |bytes: &[u8]| Message::Hash(*blake3::hash(bytes).as_bytes());
    let lies: Vec<(&str, Vec<Message<'_>>)> = vec![
        ("bigger than announced", vec![announced(), file(0, 0), Message::Data(b"four")]),
        ("bytes of no file", vec![announced(), Message::Data(b"abc")]),
        ("a file nobody announced", vec![file(0, 0)]),
        (
            "the same file twice",
            vec![announced(), file(0, 0), Message::Data(b"abc"), hash(b"abc"), file(0, 0)],
        ),
        ("from where nobody is", vec![announced(), file(0, 2)]),
        ("a file within a file", vec![announced(), announced(), file(0, 0), file(1, 0)]),
        ("the end of no file", vec![hash(b"")]),
        ("a hole in no file", vec![announced(), Message::Hole(1)]),
        ("no file has grown", vec![announced(), Message::Grown(9)]),
        ("a hole that is too large", vec![announced(), file(0, 0), Message::Hole(4)]),
        (
            "a hole in a pipe",
            vec![
                Message::Entry(entry(b"p", EntryKind::File, SIZE_UNKNOWN)),
                file(0, 0),
                Message::Hole(1),
            ],
        ),
        ("a wrong count", vec![announced(), Message::End { entries: 2 }]),
        ("an entry after the end", vec![Message::End { entries: 0 }, announced()]),
    ];
    for (lie, messages) in lies {
        let mut sink = MemorySink::default();
        let Some(Err(fault)) = answer(&messages, &mut sink) else { panic!("{lie}: it goes on") };
        assert_eq!(fault.code, ErrorCode::Protocol, "{lie}");
        let good: Files = [(b"x".to_vec(), b"abc".to_vec())].into();
        assert!(sink.files.is_empty() || sink.files == good, "{lie}");
    }
}

#[test]
fn a_wrong_hash_a_short_file_and_a_bad_name_fail_alone() {
    let announced = |path: &[u8]| Message::Entry(entry(path, EntryKind::File, 3));
    let file = |number| Message::File { number, starts_over: false, from: 0 };
    let mut sink = MemorySink::default();
    let messages = [
        announced(b"flipped"),
        announced(b"short"),
        announced(b"../x"),
        announced(b"good"),
        file(0),
        Message::Data(b"abC"),
        Message::Hash(*blake3::hash(b"abc").as_bytes()),
        file(1),
        Message::Data(b"ab"),
        Message::Hash(*blake3::hash(b"ab").as_bytes()),
        file(3),
        Message::Data(b"abc"),
        Message::Hash(*blake3::hash(b"abc").as_bytes()),
        Message::Failed {
            number: NO_NUMBER,
            path: b"fifo".to_vec(),
            fault: Fault::new(ErrorCode::NotAFile, "no file"),
        },
        Message::End { entries: 4 },
    ];
    assert_eq!(answer(&messages, &mut sink), Some(Ok(())));
    assert!(sink.files.keys().eq([b"good"]));
    assert!(sink.stages.is_empty());
}

#[test]
fn a_list_without_an_end_is_not_remembered() {
    let mut bytes = Vec::new();
    message::put(&mut bytes, Side::Sender, &HELLO);
    let mut sink = MemorySink::default();
    let mut receiver = Receiver::new(Lent(&mut sink));
    receiver.handle(&bytes);
    for number in 0..=TRANSFER_OPEN_MAX {
        assert!(receiver.outcome().is_none(), "it ended after {number}");
        bytes.clear();
        let one = Message::Entry(entry(b"x", EntryKind::File, 1));
        message::put(&mut bytes, Side::Sender, &one);
        receiver.handle(&bytes);
    }
    let Some(Err(fault)) = receiver.outcome() else { panic!("it goes on") };
    assert_eq!(fault.code, ErrorCode::Protocol);
}

#[test]
fn a_lying_receiver_is_stopped() {
    let want = |number, from| Message::Want { number, from, hash: [9; 32] };
    let lies: Vec<(&str, Vec<Message<'_>>)> = vec![
        ("wants what is not there", vec![want(7, 0)]),
        ("wants it twice", vec![want(0, 0), want(0, 0)]),
        ("has stored what was not sent", vec![Message::Stored { number: 0 }]),
        ("is done before the end", vec![Message::Done]),
    ];
    for (lie, messages) in lies {
        let mut sender = Sender::new(source(&names_of(&[("a", 10)])));
        sender.produce(1000);
        let mut bytes = Vec::new();
        message::put(&mut bytes, Side::Receiver, &HELLO);
        messages.iter().for_each(|one| message::put(&mut bytes, Side::Receiver, one));
        sender.handle(&bytes);
        let Some(Err(fault)) = sender.outcome() else { panic!("{lie}: it goes on") };
        assert_eq!(fault.code, ErrorCode::Protocol, "{lie}");
        // It says so.
        let said = flatten(sender.take_segments());
        let (mut decoder, mut said, mut aborted) = (Decoder::default(), &said[..], false);
        while let Some(message) = decoder.next(&mut said).expect("good messages") {
            aborted |= matches!(message, Message::Abort(_));
        }
        assert!(aborted, "{lie}");
    }
}

#[test]
fn a_claim_beyond_the_file_starts_over() {
    let files = names_of(&[("a", 100_000)]);
    let mut sender = Sender::new(source(&files));
    sender.produce(1000);
    let mut bytes = Vec::new();
    message::put(&mut bytes, Side::Receiver, &HELLO);
    let want = Message::Want { number: 0, from: 100_001, hash: [0; 32] };
    message::put(&mut bytes, Side::Receiver, &want);
    sender.handle(&bytes);
    sender.produce(1000);
    let starts_over =
        |report: &Report| matches!(report, Report::Begun { from: 0, starts_over: true, .. });
    assert!(sender.take_reports().iter().any(starts_over));
}
