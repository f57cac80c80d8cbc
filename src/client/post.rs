//! News for the loop from the client's other threads: a channel, and a waker beside it.

use std::{sync::Arc, sync::mpsc};

use mio::Waker;

use super::{
    brain::After,
    channel::Way,
    device::JobNews,
    secure::{Connected, Failure},
    weigh::Weight,
};
use crate::{
    sys::terminal::StdoutError,
    transfer::{Fault, Report, Segment, source::DiskFile},
    wire::{Secret, Tag},
};

/// What other threads tell the loop.
#[derive(Debug)]
pub enum News {
    /// A line was typed, or read.
    Line(String),
    /// Ctrl-C at the prompt.
    Interrupted,
    /// No more lines will come; why, if that is worth saying.
    LinesEnd(Option<String>),
    /// A key that means: it is enough.
    Enough,
    /// A block of standard input, empty at its end.
    Input(Vec<u8>),
    /// Something was shown, or taken by a writer.
    After(After),
    /// There is room on the outputs again.
    Drained,
    /// Standard output takes nothing any more.
    OutputFailed(StdoutError),
    /// An output has written all that it was given.
    OutputDone,
    /// The transfer has something to say to the server.
    Said(Tag, Vec<Segment<DiskFile>>),
    /// This has happened to its files.
    Reports(Tag, Vec<Report>),
    /// What is to be sent was looked at, under the number of the question.
    Weighed(u64, Result<Weight, Fault>),
    /// The hash of a file that was sent as it is.
    Hashed(Tag, [u8; 32]),
    /// What another user gets, or sends, goes this way from now on.
    Way(Tag, Way),
    /// Our half of the transfer is over.
    Moved(Tag, Result<(), Fault>),
    /// The user has typed a password; `None` where that was not to be.
    Password(Option<Secret<'static>>),
    /// There is a connection again.
    Connected(Connected),
    /// There is still none.
    Unreachable(Failure),
    /// Something about the files of a device.
    Device(JobNews),
}

/// One end of the channel; cheap to clone.
#[derive(Clone, Debug)]
pub struct Post {
    sender: mpsc::Sender<News>,
    waker: Arc<Waker>,
}

impl Post {
    /// A channel whose receiver is woken by `waker`.
    pub fn new(waker: Waker) -> (Post, mpsc::Receiver<News>) {
        let (sender, receiver) = mpsc::channel();
        (Post { sender, waker: Arc::new(waker) }, receiver)
    }

    /// Sends the news; false when the loop has ended.
    pub fn send(&self, news: News) -> bool {
        // A waker fails only without its poll, and then nobody is left to be woken.
        self.sender.send(news).is_ok() && self.waker.wake().is_ok()
    }
}
