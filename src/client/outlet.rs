//! The outputs: each has a thread of its own, so that a pager or terminal that takes nothing
//! holds up neither the connection nor the other output.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use super::{
    blocks::Chunk,
    brain::After,
    post::{News, Post},
    progress::Bars,
    screen::tame::Tame,
};
use crate::{
    sys::terminal::{self, StdoutError},
    wire::Tag,
};

/// More text than this waiting: the loop reads no more from the server for the time being.
const BACKLOG_MAX_BYTES: usize = 1024 * 1024;

/// What prints above a prompt.
pub type Printer = Box<dyn rustyline::ExternalPrinter + Send>;

/// Where an outlet leads.
pub enum Mouth {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2, between the bars.
    Stderr(Bars),
    /// Above the prompt.
    Prompt(Printer),
}

enum Item {
    Text(Vec<u8>, Option<After>),
    Chunk(Chunk, Tag),
}

/// The near end of an output. Dropped, the thread writes what it has and says
/// [`News::OutputDone`].
pub struct Outlet {
    sender: mpsc::Sender<Item>,
    backlog_bytes: Arc<AtomicUsize>,
    pace: Pace,
}

/// How far an output is, also after its [`Outlet`] was dropped.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    given: Arc<AtomicU64>,
    written: Arc<AtomicU64>,
}

impl Pace {
    /// Pieces that are written.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Whether pieces wait for others to be written, or are being written.
    pub fn is_behind(&self) -> bool {
        self.written() < self.given.load(Ordering::Relaxed)
    }
}

impl Outlet {
    /// Starts the thread. `tame`: what commands print is for a terminal, and made harmless.
    ///
    /// # Errors
    /// The system has no thread for it; a sentence.
    pub fn start(mouth: Mouth, tame: Option<Tame>, post: Post) -> Result<Outlet, String> {
        let (sender, receiver) = mpsc::channel();
        let backlog_bytes = Arc::new(AtomicUsize::new(0));
        let backlog = backlog_bytes.clone();
        let pace = Pace::default();
        let writer = Writer { mouth, tame, post, backlog_bytes: backlog, pace: pace.clone() };
        thread::Builder::new()
            .name("output".into())
            .spawn(move || writer.run(receiver))
            .map_err(|error| format!("no thread can be had for the output: {error}"))?;
        Ok(Outlet { sender, backlog_bytes, pace })
    }

    /// How far it is.
    pub fn pace(&self) -> Pace {
        self.pace.clone()
    }

    /// Writes text, and reports `after` when that is done.
    pub fn text(&self, bytes: Vec<u8>, after: Option<After>) {
        // What has credit to wait for is bounded already; and it must not stop the reading, or
        // an output that takes nothing would stop the pings as well.
        if !matches!(after, Some(After::Consumed(..))) {
            self.backlog_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        }
        self.give(Item::Text(bytes, after));
    }

    /// Writes output of the operation, and reports it as consumed when that is done.
    pub fn chunk(&self, chunk: Chunk, tag: Tag) {
        self.give(Item::Chunk(chunk, tag));
    }

    fn give(&self, item: Item) {
        self.pace.given.fetch_add(1, Ordering::Relaxed);
        // The thread ends only after us.
        let _ = self.sender.send(item);
    }

    /// Whether all text is written that was given.
    pub fn is_idle(&self) -> bool {
        self.backlog_bytes.load(Ordering::Relaxed) == 0
    }

    /// Whether so much text waits that it is better not to ask for more.
    pub fn is_full(&self) -> bool {
        self.backlog_bytes.load(Ordering::Relaxed) > BACKLOG_MAX_BYTES
    }
}

struct Writer {
    mouth: Mouth,
    tame: Option<Tame>,
    post: Post,
    backlog_bytes: Arc<AtomicUsize>,
    pace: Pace,
}

impl Writer {
    fn run(mut self, receiver: mpsc::Receiver<Item>) {
        let mut failed = false;
        for item in receiver {
            // Once it has failed, the rest is thrown away; credit is not granted any more.
            if !failed && let Err(error) = self.write(&item) {
                failed = true;
                self.post.send(News::OutputFailed(error));
            }
            self.account(item, failed);
            self.pace.written.fetch_add(1, Ordering::Relaxed);
        }
        let held = self.tame.as_mut().map(Tame::finish).filter(|_| !failed);
        if let Some(Err(error)) = held.map(|bytes| self.write_bytes(&bytes)) {
            self.post.send(News::OutputFailed(error));
        }
        self.post.send(News::OutputDone);
    }

    fn write(&mut self, item: &Item) -> Result<(), StdoutError> {
        match item {
            Item::Text(bytes, _) => self.write_bytes(bytes),
            Item::Chunk(chunk, _) => chunk.slices().try_for_each(|bytes| {
                match self.tame.as_mut().map(|tame| tame.push(bytes)) {
                    Some(tamed) => self.write_bytes(&tamed),
                    None => self.write_bytes(bytes),
                }
            }),
        }
    }

    fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), StdoutError> {
        match &mut self.mouth {
            Mouth::Stdout => terminal::write_stdout(bytes),
            // Whoever has closed standard error does not want to hear of errors.
            Mouth::Stderr(bars) => {
                bars.suspend(|| drop(std::io::stderr().write_all(bytes)));
                Ok(())
            }
            Mouth::Prompt(printer) => {
                let text = String::from_utf8_lossy(bytes).into_owned();
                let closed = |error| StdoutError::Failed(std::io::Error::other(error));
                printer.print(text).map_err(closed)
            }
        }
    }

    fn account(&self, item: Item, failed: bool) {
        let after = match item {
            Item::Chunk(chunk, tag) => Some(After::Consumed(tag, chunk.length() as u32)),
            Item::Text(_, after @ Some(After::Consumed(..))) => after,
            Item::Text(bytes, after) => {
                let before = self.backlog_bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
                if before > BACKLOG_MAX_BYTES && before - bytes.len() <= BACKLOG_MAX_BYTES {
                    self.post.send(News::Drained);
                }
                after
            }
        };
        if let Some(after) = after.filter(|_| !failed) {
            self.post.send(News::After(after));
        }
    }
}
