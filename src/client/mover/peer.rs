//! The threads of what goes to another user or comes from one.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read as _},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    sync::mpsc,
};

use super::{End, Outcome, Work, failure, stopped};
use crate::{
    client::{brain::After, order::Local, post::News},
    sys::clock,
    transfer::{
        Begun, Entry, EntryKind, Fault, Found, Receiver, Report, SIZE_UNKNOWN, Segment, Sink,
        Stored,
        sink::{FolderSink, Naming},
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
        let prefix = [taking.from.as_bytes(), b"_"].concat();
        let sink = FolderSink::new(root.into(), Naming::Prefixed(prefix), false);
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
        let size = taking.size.unwrap_or(0);
        let entry = Entry {
            item: 0,
            kind: EntryKind::File,
            is_executable: false,
            size,
            modified: (taking.modified.unwrap_or_else(clock::wall_clock), 0),
            path: taking.name.clone(),
        };
        // What is there of it proves nothing: the sender cannot be asked.
        let name = match sink.find(&entry) {
            Ok(found) => found.name,
            Err(fault) => return Some(Err(fault)),
        };
        let mut stage = match sink.begin(&entry, None, 0) {
            Ok(stage) => stage,
            Err(fault) => return Some(Err(fault)),
        };
        let (name_told, starts_over) = (name.clone(), false);
        self.tell(vec![
            Report::Found(size),
            Report::Begun { name: name_told, size, from: 0, starts_over },
        ]);
        let (mut hasher, mut received, mut unreported) = (blake3::Hasher::new(), 0, 0);
        let hash = loop {
            match work.recv().ok()? {
                Work::Chunk(chunk) => {
                    for bytes in chunk.slices() {
                        received += bytes.len() as u64;
                        hasher.update(bytes);
                        let written = match received > size {
                            true => Err(too_much(size)),
                            false => sink.write(&mut stage, bytes),
                        };
                        if let Err(fault) = written {
                            sink.discard(stage);
                            return Some(Err(fault));
                        }
                        self.wait(bytes.len());
                    }
                    let count = chunk.length();
                    self.tell(vec![Report::Moved(count as u64)]);
                    unreported += count as u32;
                    if unreported >= step {
                        let bytes = std::mem::take(&mut unreported);
                        self.post.send(News::After(After::Consumed(self.tag, bytes)));
                    }
                }
                Work::Verify(hash) => break hash,
                Work::End => {
                    sink.discard(stage);
                    return Some(Err(stopped()));
                }
                Work::Taken(_) => {}
            }
        };
        let own = hasher.finalize();
        let is_good = received == size && hash.is_none_or(|hash| own == hash);
        if !is_good {
            sink.discard(stage);
            let text = "the bytes that came are not those that were sent; ask for it again";
            return Some(Err(Fault::new(ErrorCode::NotVerified, text)));
        }
        sink.finish(0, stage, &entry);
        Some(self.settle_raw(&mut sink, name, size, own))
    }

    /// Gives the file its name, and says so.
    fn settle_raw(
        &self,
        sink: &mut FolderSink,
        name: Vec<u8>,
        size: u64,
        hash: blake3::Hash,
    ) -> Result<(), Fault> {
        sink.settle().pop().map_or(Ok(()), |(_, stored)| stored)?;
        let hash = *hash.as_bytes();
        self.tell(vec![Report::Stored { name, size, hash, was_there: false }]);
        Ok(())
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

fn too_much(size: u64) -> Fault {
    let text = format!("more comes than the {size} bytes that were offered");
    Fault::new(ErrorCode::FileTooLarge, text)
}

/// A sink that takes no more than was offered.
struct Bounded<K> {
    sink: K,
    size_left: Option<u64>,
    files_left: u64,
}

impl<K> Bounded<K> {
    fn new(sink: K, taking: &Taking) -> Bounded<K> {
        Bounded { sink, size_left: taking.size, files_left: taking.files }
    }
}

impl<K: Sink> Sink for Bounded<K> {
    type Stage = K::Stage;

    fn folder(&mut self, entry: &Entry) -> Result<(), Fault> {
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

    fn settle(&mut self) -> Vec<Stored> {
        self.sink.settle()
    }
}
