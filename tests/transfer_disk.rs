//! The disk ends of transfers: races with links, disks that are full or fail at any write.

use std::{
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::fs::symlink},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{CWD, RenameFlags};
use sixfour::{
    sys::stage_name,
    transfer::{
        Entry, Fault, Found, Receiver, Report, Segment, Sender, Sink, SourceFile as _, Stored,
        sink::{FolderSink, Naming, Place},
        source::{DiskFile, DiskSource, Hashes, Item},
    },
    wire::ErrorCode,
};
use tempfile::TempDir;

fn opened(path: &Path) -> OwnedFd {
    File::open(path).expect("a folder").into()
}

fn flatten(segments: Vec<Segment<DiskFile>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for segment in segments {
        match segment {
            Segment::Bytes(more) => bytes.extend(more),
            Segment::File { file, offset, length } => {
                let mut part = vec![0; length];
                file.read_at(&mut part, offset).expect("it was read before");
                bytes.extend(part);
            }
        }
    }
    bytes
}

/// Moves what `paths` name below `from` into `sink`; what the receiver reports.
fn moved<K: Sink>(from: &Path, paths: &[&str], sink: K) -> Vec<Report> {
    let root = Arc::new(opened(from));
    let items = paths.iter().map(|path| Item::below(root.clone(), path.as_bytes())).collect();
    let mut sender = Sender::new(DiskSource::new(items, Hashes::default()));
    let mut receiver = Receiver::new(sink);
    while sender.outcome().is_none() || receiver.outcome().is_none() {
        sender.produce(1 << 20);
        receiver.handle(&flatten(sender.take_segments()));
        while receiver.prove(1 << 20) {}
        receiver.settle();
        sender.handle(&receiver.take_bytes());
    }
    let mut reports = sender.take_reports();
    reports.extend(receiver.take_reports());
    reports
}

fn into(folder: &Path) -> FolderSink {
    FolderSink::new(opened(folder), Naming::Within(Vec::new()), true)
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("one"));
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn folder() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("a folder")
}

#[test]
fn no_race_of_a_folder_and_a_link_leads_out() {
    let (root, outside, other) = (folder(), folder(), folder());
    fs::write(outside.path().join("x"), b"secret").expect("a file");
    fs::create_dir(root.path().join("d")).expect("a folder");
    fs::write(root.path().join("d/x"), b"public").expect("a file");
    symlink(outside.path(), root.path().join("l")).expect("a link");
    fs::create_dir(other.path().join("d")).expect("a folder");
    fs::write(other.path().join("d/x"), b"intrus").expect("a file");
    fs::write(other.path().join("d/new"), vec![b'i'; 100_000]).expect("a file");
    let over = AtomicBool::new(false);
    let (mut sent, mut stored) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let (one, two) = (root.path().join("d"), root.path().join("l"));
            while !over.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE)
                    .expect("both are there");
            }
        });
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            let here = folder();
            moved(root.path(), &["d", "d/x", "l/x"], into(here.path()));
            for path in [here.path().join("d/x"), here.path().join("x")] {
                let content = fs::read(path).unwrap_or_default();
                assert_ne!(content, b"secret", "what lies outside was sent");
                sent += usize::from(!content.is_empty());
            }
            let reports = moved(other.path(), &["d"], into(root.path()));
            let is_stored = |report: &&Report| matches!(report, Report::Stored { .. });
            stored += reports.iter().filter(is_stored).count();
            assert_eq!(names_in(outside.path()), ["x"], "something was written outside");
            let secret = fs::read(outside.path().join("x")).expect("it is there");
            assert_eq!(secret, b"secret", "what lies outside was written to");
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(sent > 0 && stored > 0, "the race was never won: {sent} {stored}");
}

/// A sink whose n-th write fails.
struct Failing {
    sink: FolderSink,
    left: usize,
    fault: Fault,
}

impl Sink for Failing {
    type Stage = Place;

    fn folder(&mut self, entry: &Entry) -> Result<(), Fault> {
        self.sink.folder(entry)
    }
    fn find(&mut self, entry: &Entry) -> Result<Found<Place>, Fault> {
        self.sink.find(entry)
    }
    fn begin(&mut self, entry: &Entry, place: Option<Place>, from: u64) -> Result<Place, Fault> {
        self.sink.begin(entry, place, from)
    }
    fn read_at(&mut self, place: &Place, out: &mut [u8], offset: u64) -> io::Result<usize> {
        self.sink.read_at(place, out, offset)
    }
    fn write(&mut self, place: &mut Place, bytes: &[u8]) -> Result<(), Fault> {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.left = usize::MAX;
            return Err(self.fault.clone());
        }
        self.sink.write(place, bytes)
    }
    fn finish(&mut self, number: u32, place: Place, entry: &Entry) {
        self.sink.finish(number, place, entry);
    }
    fn discard(&mut self, place: Place) {
        self.sink.discard(place);
    }
    fn settle(&mut self) -> Vec<Stored> {
        self.sink.settle()
    }
}

#[test]
fn whichever_write_fails_its_file_is_not_there_and_the_others_are() {
    let from = folder();
    for (name, size) in [("a", 10), ("b", 1_000_000), ("c", 10), ("d", 200_000)] {
        fs::write(from.path().join(name), vec![name.as_bytes()[0]; size]).expect("a file");
    }
    let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    for (kind, code) in kinds.into_iter().zip([ErrorCode::NoSpace, ErrorCode::QuotaExceeded]) {
        for left in 1..=8 {
            let to = folder();
            let fault = Fault::of_io(&kind.into());
            let sink = Failing { sink: into(to.path()), left, fault };
            let reports = moved(from.path(), &["a", "b", "c", "d"], sink);
            let code_of = |report: &Report| match report {
                Report::Failed { fault, .. } => Some(fault.code),
                _ => None,
            };
            let failures = reports.iter().filter(|it| code_of(it) == Some(code)).count();
            // Both ends tell of it, unless there were fewer writes than that.
            assert!(failures == 2 || failures == 0 && left > 7, "write {left}: {reports:?}");
            let is_unfinished = |name: &String| stage_name::is_stage_name(name.as_bytes());
            let (kept, names): (Vec<_>, Vec<_>) =
                names_in(to.path()).into_iter().partition(is_unfinished);
            assert_eq!(names.len(), 4 - failures / 2, "{names:?}");
            // What was there of a large file is for the next time.
            assert!(kept.len() <= failures / 2, "{kept:?}");
            for name in &kept {
                let part = fs::read(to.path().join(name)).expect("it is there");
                let whole = fs::read(from.path().join(&name[1..2])).expect("it is there");
                assert!(!part.is_empty() && whole.starts_with(&part), "{name}");
            }
            for name in names {
                let content = fs::read(to.path().join(&name)).expect("it is there");
                assert!(content == fs::read(from.path().join(name)).expect("it is there"));
            }
        }
    }
}

#[test]
fn a_full_disk_is_named_and_left_as_it_was() {
    let (from, to) = (folder(), folder());
    let mount = ["-t", "tmpfs", "-o", "size=1m,mode=700", "none"];
    let mounted = Command::new("mount").args(mount).arg(to.path()).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        println!("skipped: a small tmpfs can be mounted only by root");
        return;
    }
    struct Mounted<'a>(&'a Path);
    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(self.0).status();
        }
    }
    let _mounted = Mounted(to.path());
    for (name, size) in [("large", 5_000_000), ("small", 1000)] {
        fs::write(from.path().join(name), vec![7; size]).expect("a file");
    }
    let reports = moved(from.path(), &["large", "small"], into(to.path()));
    let is_full = |report: &Report| {
        matches!(report,
        Report::Failed { fault, .. } if fault.code == ErrorCode::NoSpace)
    };
    assert!(reports.iter().any(is_full), "{reports:?}");
    assert_eq!(names_in(to.path()), ["small"]);
}
