//! The thread of one transfer: it reads or writes the files, hashes them, and shows the bars.
//!
//! The loop gives it what the server says and sends what it has to say; see
//! [`crate::transfer`].

use std::{
    fs::File,
    io::{self, Write},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

pub mod peer;

use super::{
    blocks::Chunk,
    brain::{After, Opening},
    order::{Local, Target},
    post::{News, Post},
    progress::{Bars, Meter},
};
use crate::{
    sys::terminal::{self, StdoutError},
    transfer::{
        Fault, Receiver, Report, Segment, Sender, Sink,
        pace::Pace,
        sink::{Asked, FolderSink, Naming, PipeSink},
        source::{DiskFile, DiskSource, Hashes, Item},
    },
    wire::{ErrorCode, Form, Tag},
};

/// Bytes that are read ahead of the connection.
const AHEAD_BYTES: usize = 1024 * 1024;

/// Bytes that are hashed in one go to prove what is there.
const PROOF_BYTES: u64 = 8 * 1024 * 1024;

enum Work {
    Chunk(Chunk),
    /// The connection has taken so many bytes of what we had to say.
    Taken(usize),
    /// All of a file that comes as it is has come; this is its hash, where the sender has told it.
    Verify(Option<[u8; 32]>),
    /// The server has ended the operation.
    End,
}

/// The near end of the thread. Dropped, the thread ends, and keeps what may be gone on with.
pub struct Mover(mpsc::Sender<Work>);

impl Mover {
    /// Starts the thread, which reports to `post` under `tag`.
    pub fn start(tag: Tag, opening: Opening, bars: Bars, post: Post) -> Mover {
        let (sender, work) = mpsc::channel();
        thread::spawn(move || {
            let limit = opening.limit();
            let began = Instant::now();
            let pace = limit.map(|bytes| Pace::new(bytes, 0));
            let meter = Meter::new(bars);
            let mut end = End { tag, post, meter, pace, began };
            let outcome = match opening {
                Opening::Fetch { paths, target, credit_step_bytes, .. } => {
                    end.fetch(&work, &paths, &target, credit_step_bytes)
                }
                Opening::Store { paths, .. } => end.store(&work, &paths),
                Opening::Give { paths, form: Form::Raw, .. } => end.give_raw(&work, &paths),
                Opening::Give { paths, .. } => end.store(&work, &paths),
                Opening::Take { taking, credit_step_bytes } => {
                    end.take(&work, &taking, credit_step_bytes)
                }
            };
            if let Some(outcome) = outcome {
                end.meter.clear();
                end.post.send(News::Moved(tag, outcome));
            }
        });
        Mover(sender)
    }

    /// The next bytes of the server. The output window bounds how many wait.
    pub fn chunk(&self, chunk: Chunk) {
        // A thread that has failed says so itself.
        let _ = self.0.send(Work::Chunk(chunk));
    }

    /// The connection has taken so many bytes.
    pub fn taken(&self, bytes: usize) {
        let _ = self.0.send(Work::Taken(bytes));
    }

    /// All of a file that comes as it is has come, with this hash.
    pub fn verify(&self, hash: Option<[u8; 32]>) {
        let _ = self.0.send(Work::Verify(hash));
    }

    /// The server has ended the operation: nothing follows.
    pub fn end(&self) {
        let _ = self.0.send(Work::End);
    }
}

/// `None` where the transfer is not wanted any more.
type Outcome = Option<Result<(), Fault>>;

struct End {
    tag: Tag,
    post: Post,
    meter: Meter,
    pace: Option<Pace>,
    began: Instant,
}

impl End {
    fn fetch(
        &mut self,
        work: &mpsc::Receiver<Work>,
        paths: &[Vec<u8>],
        target: &Target,
        step: u32,
    ) -> Outcome {
        let (folder, rename) = match target {
            Target::Stdout => {
                return self.receive(work, Receiver::new(PipeSink::new(Stdout)), step);
            }
            Target::Beside => (Path::new("."), None),
            Target::File(path) => match path.file_name() {
                Some(name) => (parent_of(path), Some(name.as_bytes().to_vec())),
                None => return Some(Err(failure("the output has no name of its own"))),
            },
        };
        let root = match File::open(folder) {
            Ok(root) => root,
            Err(error) => {
                let text = format!("cannot open the folder {}: {error}", folder.display());
                return Some(Err(failure(text)));
            }
        };
        let asked = paths.iter().map(|path| Asked {
            pattern: path.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec(),
            prefix: b"client_".to_vec(),
            rename: rename.clone(),
        });
        let naming = Naming::Asked(asked.collect());
        let sink = FolderSink::new(root.into(), naming, false);
        self.receive(work, Receiver::new(sink), step)
    }

    fn receive<K: Sink>(
        &mut self,
        work: &mpsc::Receiver<Work>,
        mut receiver: Receiver<K>,
        step: u32,
    ) -> Outcome {
        let mut unreported = 0;
        loop {
            let is_proving = receiver.prove(PROOF_BYTES);
            receiver.settle();
            self.tell(receiver.take_reports());
            let bytes = receiver.take_bytes();
            if !bytes.is_empty() && !self.say(vec![Segment::Bytes(bytes)]) {
                return None;
            }
            if let Some(outcome) = receiver.outcome() {
                return Some(outcome.clone());
            }
            let next = match is_proving {
                true => work.try_recv().ok(),
                false => Some(work.recv().ok()?),
            };
            match next {
                Some(Work::Chunk(chunk)) => {
                    for bytes in chunk.slices() {
                        receiver.handle(bytes);
                        self.wait(bytes.len());
                    }
                    unreported += chunk.length() as u32;
                    if unreported >= step {
                        let bytes = std::mem::take(&mut unreported);
                        self.post.send(News::After(After::Consumed(self.tag, bytes)));
                    }
                }
                Some(Work::End) => return Some(Err(stopped())),
                Some(Work::Taken(_) | Work::Verify(_)) | None => {}
            }
        }
    }

    fn store(&mut self, work: &mpsc::Receiver<Work>, paths: &[Local]) -> Outcome {
        let mut items = Vec::new();
        for path in paths {
            let (item, name) = match path {
                Local::Path(path) => (Item::local(path), path.as_os_str().as_bytes().to_vec()),
                Local::Input(name) => (Item::pipe(name.clone()), name.clone()),
            };
            match item {
                Ok(item) => items.push(item),
                Err(error) => {
                    self.tell(vec![Report::Failed { name, fault: Fault::of_io(&error) }]);
                }
            }
        }
        let mut sender = Sender::new(DiskSource::new(items, Hashes::default()));
        let mut ahead = 0;
        loop {
            let mut goes_on = false;
            if ahead < AHEAD_BYTES {
                let budget = if self.pace.is_some() { 1 } else { AHEAD_BYTES / 4 };
                goes_on = sender.produce(budget);
            }
            let segments = sender.take_segments();
            let length: usize = segments.iter().map(Segment::length).sum();
            self.tell(sender.take_reports());
            if length > 0 {
                ahead += length;
                if !self.say(segments) {
                    return None;
                }
                self.wait(length);
            }
            if let Some(outcome) = sender.outcome() {
                return Some(outcome.clone());
            }
            let mut next = match goes_on {
                true => work.try_recv().ok(),
                false => Some(work.recv().ok()?),
            };
            while let Some(one) = next {
                match one {
                    Work::Chunk(chunk) => {
                        chunk.slices().for_each(|bytes| sender.handle(bytes));
                        let count = chunk.length() as u32;
                        self.post.send(News::After(After::Consumed(self.tag, count)));
                    }
                    Work::Taken(count) => ahead = ahead.saturating_sub(count),
                    Work::End if sender.outcome().is_none() => return Some(Err(stopped())),
                    Work::End | Work::Verify(_) => {}
                }
                next = work.try_recv().ok();
            }
        }
    }

    fn say(&self, segments: Vec<Segment<DiskFile>>) -> bool {
        self.post.send(News::Said(self.tag, segments))
    }

    fn tell(&mut self, reports: Vec<Report>) {
        if reports.is_empty() {
            return;
        }
        reports.iter().for_each(|report| self.meter.note(report));
        self.post.send(News::Reports(self.tag, reports));
    }

    fn wait(&mut self, bytes: usize) {
        let Some(pace) = &mut self.pace else { return };
        let now = self.began.elapsed().as_nanos() as u64;
        let pause = Duration::from_nanos(pace.take(bytes as u64, now));
        if pause > Duration::from_millis(1) {
            thread::sleep(pause);
        }
    }
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn failure(text: impl Into<String>) -> Fault {
    Fault::new(ErrorCode::SystemError, text)
}

fn stopped() -> Fault {
    Fault::new(ErrorCode::Protocol, "the server ended the transfer in the middle")
}

/// Standard output, byte for byte.
struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match terminal::write_stdout(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(StdoutError::Closed) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(StdoutError::Failed(error)) => Err(error),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
