//! The threads of what goes to another user or comes from one.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::File,
    io::{self, Read as _},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    sync::mpsc,
};

use super::{End, Outcome, Work, failure, stopped};
use crate::{
    client::{core::order::Local, post::News},
    limits::{OFFER_FOLDERS_A_FILE, OFFER_FOLDERS_MIN},
    sys::clock,
    transfer::{
        Begun, Entry, EntryKind, Fault, Found, MODE_UNKNOWN, Receiver, Report, SIZE_UNKNOWN,
        Segment, Sink, Stored,
        sink::{Existing, FolderSink, Naming, Place},
    },
    wire::{ErrorCode, Form, Name},
};

/// Bytes of a file that goes as it is, read in one go.
const READ_BYTES: usize = 256 * 1024;

/// So much of it is read ahead of the connection.
const AHEAD_BYTES: usize = 1024 * 1024;

/// What somebody has offered and we take.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Taking {
    /// Who sends: what is saved begins with it.
    pub from: Name,
    /// As the sender calls it.
    pub name: Vec<u8>,
    /// Bytes in all, where the sender has told that. More are not taken.
    pub size: Option<u64>,
    /// How many files. More are not taken.
    pub files: u64,
    /// Seconds since 1970, where the sender has told that.
    pub modified: Option<i64>,
    /// What goes through.
    pub form: Form,
    /// What becomes of a file that has the name already.
    pub existing: Existing,
}

impl End {
    /// Takes what another user sends.
    pub(super) fn take(
        &mut self,
        work: &mpsc::Receiver<Work>,
        taking: &Taking,
        step: u32,
    ) -> Outcome {
        let root = match File::open(".") {
            Ok(root) => root,
            Err(error) => return Some(Err(failure(format!("cannot open this folder: {error}")))),
        };
        let naming = Naming::From(taking.from.as_bytes().to_vec());
        let sink = FolderSink::new(root.into(), naming, false).treating(taking.existing);
        match taking.form {
            Form::Conversation => {
                self.receive(work, Receiver::new(Bounded::new(sink, taking)), step)
            }
            Form::Raw => self.take_raw(work, sink, taking, step),
        }
    }

    fn take_raw(
        &mut self,
        work: &mpsc::Receiver<Work>,
        mut sink: FolderSink,
        taking: &Taking,
        step: u32,
    ) -> Outcome {
        let entry = Entry {
            item: 0,
            kind: EntryKind::File,
            mode: MODE_UNKNOWN,
            size: taking.size.unwrap_or(0),
            modified: (taking.modified.unwrap_or_else(clock::wall_clock), 0),
            path: taking.name.clone(),
            target: Vec::new(),
        };
        // What is there of it proves nothing: the sender cannot be asked.
        let begun = sink.find(&entry).map(|found| found.name);
        let begun = begun.and_then(|name| Ok((name, sink.begin(&entry, None, 0)?)));
        let (name, mut stage) = match begun {
            Ok(begun) => begun,
            Err(fault) => return Some(Err(fault)),
        };
        let (from, starts_over) = (0, false);
        let begun = Report::Begun { name: name.clone(), size: entry.size, from, starts_over };
        self.tell(vec![Report::Found(entry.size), begun]);
        let hash = match self.fill(work, &mut sink, &mut stage, entry.size, step) {
            Some(Ok(hash)) => hash,
            Some(Err(fault)) => {
                sink.discard(stage);
                return Some(Err(fault));
            }
            None => {
                sink.discard(stage);
                return None;
            }
        };
        sink.finish(0, stage, &entry);
        let stored = sink.settle().pop().map_or(Ok(()), |(_, stored)| stored);
        sink.close();
        if stored.is_ok() {
            let name = sink.placed_as(0).unwrap_or(name);
            let (size, was_there) = (entry.size, false);
            self.tell(vec![Report::Stored { name, size, hash, was_there }]);
        }
        Some(stored)
    }

    /// Writes what comes until all is there and good: the hash of it. `None` where it is not
    /// wanted any more.
    fn fill(
        &mut self,
        work: &mpsc::Receiver<Work>,
        sink: &mut FolderSink,
        stage: &mut Place,
        size: u64,
        step: u32,
    ) -> Option<Result<[u8; 32], Fault>> {
        let (mut hasher, mut received, mut unreported) = (blake3::Hasher::new(), 0, 0);
        loop {
            match work.recv().ok()? {
                Work::Chunk(chunk) => {
                    for bytes in chunk.slices() {
                        received += bytes.len() as u64;
                        hasher.update(bytes);
                        let written = match received > size {
                            true => Err(too_much(size)),
                            false => sink.write(stage, bytes),
                        };
                        if let Err(fault) = written {
                            return Some(Err(fault));
                        }
                    }
                    let count = chunk.length();
                    self.tell(vec![Report::Moved(count as u64)]);
                    unreported += count as u32;
                    if unreported >= step {
                        self.consumed(std::mem::take(&mut unreported));
                    }
                }
                Work::Verify(hash) => {
                    let own = *hasher.finalize().as_bytes();
                    let is_good = received == size && hash.is_none_or(|hash| own == hash);
                    return Some(if is_good { Ok(own) } else { Err(not_verified()) });
                }
                Work::End => return Some(Err(stopped())),
                Work::Taken(_) => {}
            }
        }
    }

    /// Sends one file as it is, and then its hash.
    pub(super) fn give_raw(&mut self, work: &mpsc::Receiver<Work>, paths: &[Local]) -> Outcome {
        let [Local::Path(path)] = paths else {
            return Some(Err(failure("only one file goes as it is")));
        };
        match self.pour(work, path) {
            Ok(None) => None,
            Ok(Some(hash)) => {
                self.post.send(News::Hashed(self.tag, hash));
                Some(Ok(()))
            }
            Err(error) => {
                let Fault { code, text } = Fault::of_io(&error);
                Some(Err(Fault::new(code, format!("{}: {text}", path.display()))))
            }
        }
    }

    fn pour(&mut self, work: &mpsc::Receiver<Work>, path: &Path) -> io::Result<Option<[u8; 32]>> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let name = path.file_name().map(OsStr::as_bytes).unwrap_or_default().to_vec();
        let begun = Report::Begun { name, size, from: 0, starts_over: false };
        self.tell(vec![Report::Found(size), begun]);
        let (mut hasher, mut ahead) = (blake3::Hasher::new(), 0);
        loop {
            while ahead >= AHEAD_BYTES {
                match work.recv() {
                    Ok(Work::Taken(count)) => ahead = ahead.saturating_sub(count),
                    Ok(_) => {}
                    Err(_) => return Ok(None),
                }
            }
            let mut bytes = vec![0; READ_BYTES];
            let count = file.read(&mut bytes)?;
            if count == 0 {
                return Ok(Some(*hasher.finalize().as_bytes()));
            }
            bytes.truncate(count);
            hasher.update(&bytes);
            ahead += count;
            if !self.say(vec![Segment::Bytes(bytes)]) {
                return Ok(None);
            }
            self.tell(vec![Report::Moved(count as u64)]);
            self.wait(count);
        }
    }
}

fn not_verified() -> Fault {
    let text = "the bytes that came are not those that were sent; ask for it again";
    Fault::new(ErrorCode::NotVerified, text)
}

fn too_much(size: u64) -> Fault {
    let text = format!("more comes than the {size} bytes that were offered");
    Fault::new(ErrorCode::FileTooLarge, text)
}

/// A sink that takes no more than was offered.
struct Bounded<K> {
    sink: K,
    size_left: Option<u64>,
    files_left: u64,
    /// Folders and links. An offer does not tell their number.
    things_left: u64,
    /// The folders so far, as hashes: those that are only named in a path are made as well.
    folders: HashSet<[u8; 16]>,
}

impl<K> Bounded<K> {
    fn new(sink: K, taking: &Taking) -> Bounded<K> {
        let more = taking.files.saturating_mul(OFFER_FOLDERS_A_FILE);
        let things_left = OFFER_FOLDERS_MIN.saturating_add(more);
        let (size_left, files_left) = (taking.size, taking.files);
        Bounded { sink, size_left, files_left, things_left, folders: HashSet::new() }
    }

    fn count_thing(&mut self) -> Result<(), Fault> {
        self.things_left = self.things_left.checked_sub(1).ok_or_else(too_many)?;
        Ok(())
    }

    /// Counts the folders of a path that nothing has named before.
    fn count_above(&mut self, path: &[u8]) -> Result<(), Fault> {
        for at in memchr::memrchr_iter(b'/', path) {
            // With a known folder all above it are known.
            if !self.folders.insert(folder_key(&path[..at])) {
                break;
            }
            self.count_thing()?;
        }
        Ok(())
    }
}

fn folder_key(path: &[u8]) -> [u8; 16] {
    let hash = *blake3::hash(path).as_bytes();
    *hash.first_chunk().expect("a hash has 32 bytes")
}

fn too_many() -> Fault {
    let text = "more folders and links come than so many files need; offer them in parts";
    Fault::new(ErrorCode::TooMany, text)
}

impl<K: Sink> Sink for Bounded<K> {
    type Stage = K::Stage;

    fn folder(&mut self, entry: &Entry) -> Result<(), Fault> {
        self.count_above(&entry.path)?;
        self.count_thing()?;
        self.folders.insert(folder_key(&entry.path));
        self.sink.folder(entry)
    }

    fn find(&mut self, entry: &Entry) -> Result<Found<K::Stage>, Fault> {
        let text = "more comes than was offered; it may have grown, offer it again";
        let too_much = || Fault::new(ErrorCode::FileTooLarge, text);
        self.files_left = self.files_left.checked_sub(1).ok_or_else(too_much)?;
        if let Some(left) = self.size_left {
            // A pipe has no size: what it is offered with has none either.
            let size = Some(entry.size).filter(|size| *size != SIZE_UNKNOWN);
            self.size_left =
                Some(size.and_then(|size| left.checked_sub(size)).ok_or_else(too_much)?);
        }
        self.count_above(&entry.path)?;
        self.sink.find(entry)
    }

    fn begin(&mut self, entry: &Entry, stage: Option<K::Stage>, from: u64) -> Begun<Self> {
        self.sink.begin(entry, stage, from)
    }

    fn read_at(&mut self, stage: &K::Stage, out: &mut [u8], offset: u64) -> io::Result<usize> {
        self.sink.read_at(stage, out, offset)
    }

    fn write(&mut self, stage: &mut K::Stage, bytes: &[u8]) -> Result<(), Fault> {
        self.sink.write(stage, bytes)
    }

    fn finish(&mut self, number: u32, stage: K::Stage, entry: &Entry) {
        self.sink.finish(number, stage, entry);
    }

    fn discard(&mut self, stage: K::Stage) {
        self.sink.discard(stage);
    }

    fn folder_name(&self, entry: &Entry) -> Vec<u8> {
        self.sink.folder_name(entry)
    }

    fn takes_links(&self) -> bool {
        self.sink.takes_links()
    }

    fn link(&mut self, entry: &Entry) -> Result<(), Fault> {
        self.count_above(&entry.path)?;
        self.count_thing()?;
        self.sink.link(entry)
    }

    fn skip(&mut self, stage: &mut K::Stage, length: usize) -> Result<(), Fault> {
        self.sink.skip(stage, length)
    }

    fn settle(&mut self) -> Vec<Stored> {
        self.sink.settle()
    }

    fn placed_as(&mut self, number: u32) -> Option<Vec<u8>> {
        self.sink.placed_as(number)
    }

    fn close(&mut self) {
        self.sink.close();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::transfer::{
        Sender,
        source::{DiskSource, Hashes, Item},
    };

    fn taking(size: Option<u64>, files: u64) -> Taking {
        let from = Name::parse("alice").expect("a name");
        let (name, modified, form) = (b"x".to_vec(), None, Form::Conversation);
        Taking { from, name, size, files, modified, form, existing: Existing::Keep }
    }

    /// What becomes of a file of 100 bytes and one of 7 where this was offered.
    fn taken(offered: &Taking) -> (Vec<String>, Vec<ErrorCode>) {
        let (here, there) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
        fs::write(here.path().join("a"), [b'a'; 100]).expect("a file");
        fs::write(here.path().join("b"), [b'b'; 7]).expect("a file");
        let items = ["a", "b"].map(|name| Item::local(&here.path().join(name)).expect("there"));
        let mut sender = Sender::new(DiskSource::new(items.into(), Hashes::default()));
        let root = File::open(there.path()).expect("a folder");
        let sink = FolderSink::new(root.into(), Naming::From(b"alice".to_vec()), false);
        let mut receiver = Receiver::new(Bounded::new(sink, offered));
        let mut failed = Vec::new();
        for _ in 0..100 {
            sender.produce(1000);
            for segment in sender.take_segments() {
                match segment {
                    Segment::Bytes(bytes) => receiver.handle(&bytes),
                    Segment::File { file, offset, length } => {
                        let mut bytes = vec![0; length];
                        use crate::transfer::SourceFile as _;
                        file.read_at(&mut bytes, offset).expect("it is read");
                        receiver.handle(&bytes);
                    }
                }
            }
            receiver.prove(1000);
            receiver.settle();
            for report in receiver.take_reports() {
                if let Report::Failed { fault, .. } = report {
                    failed.push(fault.code);
                }
            }
            sender.handle(&receiver.take_bytes());
        }
        assert!(sender.outcome().is_some() && receiver.outcome().is_some(), "both end");
        let names = fs::read_dir(there.path())
            .expect("a folder")
            .map(|entry| entry.expect("one").file_name().into_string().expect("text"));
        let mut names: Vec<_> = names.collect();
        names.sort();
        (names, failed)
    }

    #[test]
    fn no_more_is_taken_than_was_offered() {
        let all = vec!["alice_a".to_owned(), "alice_b".to_owned()];
        assert_eq!(taken(&taking(Some(107), 2)), (all.clone(), vec![]));
        assert_eq!(taken(&taking(None, 2)), (all, vec![]));
        let large = vec![ErrorCode::FileTooLarge];
        assert_eq!(taken(&taking(Some(106), 2)), (vec!["alice_a".to_owned()], large.clone()));
        assert_eq!(taken(&taking(Some(107), 1)), (vec!["alice_a".to_owned()], large));
        let both = vec![ErrorCode::FileTooLarge; 2];
        assert_eq!(taken(&taking(Some(5), 2)), (vec![], both));
    }

    #[test]
    fn folders_and_links_are_counted_as_well() {
        struct Nowhere;
        impl Sink for Nowhere {
            type Stage = ();

            fn folder(&mut self, _: &Entry) -> Result<(), Fault> {
                Ok(())
            }
            fn link(&mut self, _: &Entry) -> Result<(), Fault> {
                Ok(())
            }
            fn find(&mut self, _: &Entry) -> Result<Found<()>, Fault> {
                Ok(Found { name: Vec::new(), part: None })
            }
            fn begin(&mut self, _: &Entry, _: Option<()>, _: u64) -> Begun<Self> {
                Ok(())
            }
            fn read_at(&mut self, (): &(), _: &mut [u8], _: u64) -> io::Result<usize> {
                Ok(0)
            }
            fn write(&mut self, (): &mut (), _: &[u8]) -> Result<(), Fault> {
                Ok(())
            }
            fn finish(&mut self, _: u32, (): (), _: &Entry) {}
            fn discard(&mut self, (): ()) {}
            fn settle(&mut self) -> Vec<Stored> {
                Vec::new()
            }
        }
        let entry = Entry {
            item: 0,
            kind: EntryKind::Folder,
            mode: 0o777,
            size: 0,
            modified: (0, 0),
            path: b"d".to_vec(),
            target: Vec::new(),
        };
        let mut bounded = Bounded::new(Nowhere, &taking(Some(10), 1));
        let most = OFFER_FOLDERS_MIN + OFFER_FOLDERS_A_FILE;
        let taken = (0..2 * most).take_while(|at| match at % 2 {
            0 => bounded.folder(&entry).is_ok(),
            _ => bounded.link(&entry).is_ok(),
        });
        assert_eq!(taken.count() as u64, most);
        assert_eq!(bounded.folder(&entry).expect_err("too many").code, ErrorCode::TooMany);
        // So are those that only the path of a file names, each once.
        let file =
            |path: String| Entry { kind: EntryKind::File, path: path.into(), ..entry.clone() };
        let mut bounded = Bounded::new(Nowhere, &taking(None, 10));
        let most = OFFER_FOLDERS_MIN + 10 * OFFER_FOLDERS_A_FILE;
        let deep = vec!["d"; most as usize].join("/");
        bounded.find(&file(format!("{deep}/a"))).expect("as many as there may be");
        bounded.find(&file(format!("{deep}/b"))).expect("the same folders");
        let error = bounded.find(&file("e/a".into())).map(drop).expect_err("one more");
        assert_eq!(error.code, ErrorCode::TooMany);
    }
}
