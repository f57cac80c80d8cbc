//! The conversation of a transfer, both ends over a channel in memory: every portioning, faults of
//! the disk, and partners that lie.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
};

use proptest::prelude::*;
use sixfour::{
    limits::TRANSFER_OPEN_MAX,
    transfer::{
        Entry, EntryKind, Fault, Found, Part, Receiver, Report, SIZE_UNKNOWN, Segment, Sender,
        Sink, Source, SourceFile, Stored,
        message::{self, Decoder, Message, NO_NUMBER, Side, VERSION},
    },
    wire::ErrorCode,
};

type Files = BTreeMap<Vec<u8>, Vec<u8>>;

struct MemorySource {
    entries: VecDeque<(Entry, Vec<u8>)>,
    /// The file of this number changes while it is read.
    changes: Option<usize>,
    opened: usize,
}

struct MemoryFile {
    bytes: Vec<u8>,
    is_changed: bool,
}

impl Source for MemorySource {
    type File = MemoryFile;
    type Place = Vec<u8>;

    fn next(&mut self) -> Option<Result<(Entry, Vec<u8>), (Vec<u8>, Fault)>> {
        self.entries.pop_front().map(Ok)
    }

    fn open(&mut self, _: &Entry, bytes: &Vec<u8>) -> Result<MemoryFile, Fault> {
        self.opened += 1;
        let is_changed = self.changes == Some(self.opened - 1);
        Ok(MemoryFile { bytes: bytes.clone(), is_changed })
    }
}

impl SourceFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = &self.bytes[self.bytes.len().min(offset as usize)..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn is_unchanged(&self) -> bool {
        !self.is_changed
    }
}

#[derive(Default)]
struct MemorySink {
    files: Files,
    folders: Vec<Vec<u8>>,
    stages: Files,
    finished: Vec<(u32, Vec<u8>, Vec<u8>)>,
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
    MemorySource { entries: files.iter().map(of).collect(), changes: None, opened: 0 }
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
        let it = MemorySource { entries, changes: None, opened: 0 };
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
        assert!(sink.stages.is_empty(), "what failed is not kept");
    }
}

#[test]
fn a_source_that_changes_fails_its_file_alone() {
    let files = names_of(&[("a", 100_000), ("b", 100_000), ("c", 10)]);
    let mut sink = MemorySink::default();
    let it = MemorySource { changes: Some(1), ..source(&files) };
    let ran = run(it, &mut sink, 1000, usize::MAX);
    assert_eq!(ran.outcome, Ok(()));
    assert!(!sink.files.contains_key(&b"b"[..]) && sink.files.len() == 2);
    let is_it = |report: &Report| {
        matches!(report,
        Report::Failed { fault, .. } if fault.code == ErrorCode::FileChanged)
    };
    assert!(ran.received.iter().any(is_it) && ran.sent.iter().any(is_it));
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
