//! The thread of one transfer: it reads or writes the files, hashes them, and shows the bars.
//!
//! The loop gives it what the server says and sends what it has to say; see
//! [`crate::transfer`].

use std::{
    fs::File,
    io::{self, Write},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

pub mod peer;

use super::{
    blocks::Chunk,
    brain::{After, Opening},
    channel::{Channels, Ticket},
    core::order::{Local, Target},
    post::{News, Post},
    progress::{Bars, Meter},
};
use crate::{
    sys::{
        partfile,
        terminal::{self, StdoutError},
    },
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

/// Bytes that have moved are told so often.
const TELL_EVERY: Duration = Duration::from_millis(50);

/// Bytes that are hashed in one go to prove what is there.
const PROOF_BYTES: u64 = 8 * 1024 * 1024;

/// What the thread is told.
#[derive(Debug)]
pub enum Work {
    /// The next bytes of the other end.
    Chunk(Chunk),
    /// The connection has taken so many bytes of what we had to say.
    Taken(usize),
    /// All of a file that comes as it is has come; this is its hash, where the sender has told it.
    Verify(Option<[u8; 32]>),
    /// The server has ended the operation.
    End,
}

/// The near end of the thread. Dropped, the thread ends, and keeps what may be gone on with.
pub enum Mover {
    /// What it says goes to the server.
    Server(mpsc::Sender<Work>),
    /// It goes to another client; what comes by way of the server is sealed.
    Peer(Ticket),
}

impl Mover {
    /// Starts the thread, which reports to `post` under `tag`. Where the opening has a meeting,
    /// what it says goes by way of `channels`.
    pub fn start(
        tag: Tag,
        mut opening: Opening,
        bars: Bars,
        post: Post,
        channels: Option<&Channels>,
    ) -> Mover {
        let (sender, work) = mpsc::channel();
        let channels = channels.zip(opening.take_meeting());
        let (channels, mover) = match channels {
            Some((channels, meeting)) => {
                let ticket = channels.open(tag, meeting, sender);
                (Some(channels.clone()), Mover::Peer(ticket))
            }
            None => (None, Mover::Server(sender)),
        };
        let failed = post.clone();
        let spawned = thread::Builder::new().name("transfer".into()).spawn(move || {
            let limit = opening.limit();
            let began = Instant::now();
            let pace = limit.map(|bytes| Pace::new(bytes, 0));
            let meter = Meter::new(bars);
            let told = Told::default();
            let mut end = End { tag, post, channels, meter, pace, began, told };
            let outcome = match opening {
                Opening::Fetch { paths, target, credit_step_bytes, .. } => {
                    end.fetch(&work, &paths, &target, credit_step_bytes)
                }
                Opening::Store { paths, .. } => end.store(&work, &paths),
                Opening::Give { paths, form: Form::Raw, .. } => end.give_raw(&work, &paths),
                Opening::Give { paths, .. } => end.store(&work, &paths),
                Opening::Take { taking, credit_step_bytes, .. } => {
                    end.take(&work, &taking, credit_step_bytes)
                }
            };
            if let Some(outcome) = outcome {
                end.finish(outcome);
            }
        });
        if let Err(error) = spawned {
            let fault = failure(format!("no thread can be had for the transfer: {error}"));
            failed.send(News::Moved(tag, Err(fault)));
        }
        mover
    }

    /// The next bytes of the server. The output window bounds how many wait.
    pub fn chunk(&self, chunk: Chunk) {
        match self {
            // A thread that has failed says so itself.
            Mover::Server(sender) => drop(sender.send(Work::Chunk(chunk))),
            Mover::Peer(ticket) => ticket.chunk(chunk),
        }
    }

    /// The connection has taken so many bytes.
    pub fn taken(&self, bytes: usize) {
        match self {
            Mover::Server(sender) => drop(sender.send(Work::Taken(bytes))),
            Mover::Peer(ticket) => ticket.taken(bytes),
        }
    }

    /// All of a file that comes as it is has come, with this hash.
    pub fn verify(&self, hash: Option<[u8; 32]>) {
        if let Mover::Server(sender) = self {
            let _ = sender.send(Work::Verify(hash));
        }
    }

    /// The other user says no more.
    pub fn peer_ended(&self) {
        if let Mover::Peer(ticket) = self {
            ticket.peer_ended();
        }
    }

    /// The server has ended the operation: nothing follows.
    pub fn end(&self) {
        match self {
            Mover::Server(sender) => drop(sender.send(Work::End)),
            Mover::Peer(ticket) => ticket.end(),
        }
    }
}

/// `None` where the transfer is not wanted any more.
type Outcome = Option<Result<(), Fault>>;

struct End {
    tag: Tag,
    post: Post,
    /// By these it talks to another client.
    channels: Option<Channels>,
    meter: Meter,
    pace: Option<Pace>,
    began: Instant,
    told: Told,
}

/// Reports that wait: each wakes the loop, and those of bytes alone are many.
#[derive(Default)]
struct Told {
    bytes: u64,
    at: Option<Instant>,
}

impl End {
    fn fetch(
        &mut self,
        work: &mpsc::Receiver<Work>,
        paths: &[Vec<u8>],
        target: &Target,
        step: u32,
    ) -> Outcome {
        let behind = match target {
            Target::File(path) => partfile::behind_link(path),
            Target::Stdout | Target::Beside => PathBuf::new(),
        };
        let (folder, rename) = match target {
            Target::Stdout => {
                let stdout = Stdout { post: self.post.clone() };
                return self.receive(work, Receiver::new(PipeSink::new(stdout)), step);
            }
            Target::Beside => (Path::new("."), None),
            Target::File(_) => match behind.file_name() {
                Some(name) => (parent_of(&behind), Some(name.as_bytes().to_vec())),
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
                    // Nothing more is read while some of it has to wait.
                    while receiver.waiting_bytes() > 0 {
                        receiver.prove(PROOF_BYTES);
                        self.tell(receiver.take_reports());
                    }
                    unreported += chunk.length() as u32;
                    if unreported >= step {
                        self.consumed(std::mem::take(&mut unreported));
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
        if self.channels.is_some() {
            sender.send_copies();
        }
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
                        self.consumed(chunk.length() as u32);
                    }
                    Work::Taken(count) => ahead = ahead.saturating_sub(count),
                    Work::End if sender.outcome().is_none() => return Some(Err(stopped())),
                    Work::End | Work::Verify(_) => {}
                }
                next = work.try_recv().ok();
            }
        }
    }

    /// False where nobody listens any more.
    fn say(&self, segments: Vec<Segment<DiskFile>>) -> bool {
        let Some(channels) = &self.channels else {
            return self.post.send(News::Said(self.tag, segments));
        };
        segments.into_iter().all(|segment| match segment {
            Segment::Bytes(bytes) => channels.say(self.tag, bytes),
            Segment::File { .. } => unreachable!("copies were asked for"),
        })
    }

    /// So many bytes of the other end are dealt with.
    fn consumed(&self, bytes: u32) {
        match &self.channels {
            None => drop(self.post.send(News::After(After::Consumed(self.tag, bytes)))),
            Some(channels) => channels.consumed(self.tag, bytes as usize),
        }
    }

    fn finish(&mut self, outcome: Result<(), Fault>) {
        self.tell_moved();
        self.meter.clear();
        match &self.channels {
            None => drop(self.post.send(News::Moved(self.tag, outcome))),
            // What it has said last has to arrive; then that is told.
            Some(channels) => channels.over(self.tag, outcome),
        }
    }

    fn tell(&mut self, mut reports: Vec<Report>) {
        if reports.is_empty() {
            return;
        }
        reports.iter().for_each(|report| self.meter.note(report));
        if let Some(moved) = moved_alone(&reports) {
            self.told.bytes += moved;
            if self.told.at.is_some_and(|at| at.elapsed() < TELL_EVERY) {
                return;
            }
            return self.tell_moved();
        }
        if self.told.bytes > 0 {
            reports.insert(0, Report::Moved(std::mem::take(&mut self.told.bytes)));
        }
        self.post.send(News::Reports(self.tag, reports));
    }

    fn tell_moved(&mut self) {
        let bytes = std::mem::take(&mut self.told.bytes);
        if bytes > 0 {
            self.told.at = Some(Instant::now());
            self.post.send(News::Reports(self.tag, vec![Report::Moved(bytes)]));
        }
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

/// The bytes of reports that tell of nothing else.
fn moved_alone(reports: &[Report]) -> Option<u64> {
    reports.iter().try_fold(0, |sum, report| match report {
        Report::Moved(bytes) => Some(sum + bytes),
        _ => None,
    })
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

/// Standard output, byte for byte. Where nobody reads it any more, the loop hears that first.
struct Stdout {
    post: Post,
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match terminal::write_stdout(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(StdoutError::Closed) => {
                self.post.send(News::OutputFailed(StdoutError::Closed));
                Err(io::ErrorKind::BrokenPipe.into())
            }
            Err(StdoutError::Failed(error)) => Err(error),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
