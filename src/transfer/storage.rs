//! What the receiving end asks of the place where files go.

use std::io;

use super::{Entry, Fault};
use crate::wire::ErrorCode;

/// What a hole reads as, a piece at a time.
pub(super) static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Where files go.
pub trait Sink {
    /// A file that is being written, or is there as a whole.
    type Stage;

    /// Makes a folder, or finds it there.
    ///
    /// # Errors
    /// Its name may not be written, or the system refused.
    fn folder(&mut self, entry: &Entry) -> Result<(), Fault>;

    /// Whether [`Sink::link`] makes links. Where it does not, none are announced.
    fn takes_links(&self) -> bool {
        false
    }

    /// Where a folder is that was made, for people.
    fn folder_name(&self, entry: &Entry) -> Vec<u8> {
        entry.path.clone()
    }

    /// Makes a link, or finds it there.
    ///
    /// # Errors
    /// Its name or its target may not be written, or the system refused.
    fn link(&mut self, _entry: &Entry) -> Result<(), Fault> {
        Err(Fault::new(ErrorCode::NotSupported, "links are not taken here"))
    }

    /// Decides where the file goes and looks for what is there of it.
    ///
    /// # Errors
    /// Its name may not be written, or the system refused.
    fn find(&mut self, entry: &Entry) -> Result<Found<Self::Stage>, Fault>;

    /// Opens the file for writing at `from`: in `stage`, where `from` is not 0.
    ///
    /// # Errors
    /// What the system said.
    fn begin(&mut self, entry: &Entry, stage: Option<Self::Stage>, from: u64) -> Begun<Self>;

    /// Reads at `offset` of what was found.
    ///
    /// # Errors
    /// What the system said.
    fn read_at(&mut self, stage: &Self::Stage, out: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Appends bytes.
    ///
    /// # Errors
    /// What the system said; what was written before stays good, and may be gone on with.
    fn write(&mut self, stage: &mut Self::Stage, bytes: &[u8]) -> Result<(), Fault>;

    /// Appends at most 64 KiB of zeros, which need no room on a disk that can do without them.
    ///
    /// # Errors
    /// As those of [`Sink::write`].
    fn skip(&mut self, stage: &mut Self::Stage, length: usize) -> Result<(), Fault> {
        self.write(stage, &ZEROS[..length])
    }

    /// All is written and good: the file is to get its name, by the next [`Sink::settle`].
    fn finish(&mut self, number: u32, stage: Self::Stage, entry: &Entry);

    /// Throws away what was written.
    fn discard(&mut self, stage: Self::Stage);

    /// Gives what is finished its name, and makes that durable where it is wanted.
    fn settle(&mut self) -> Vec<Stored>;

    /// The name that a file got which [`Sink::settle`] has told of, where it is another than the
    /// one that was found for it.
    fn placed_as(&mut self, _number: u32) -> Option<Vec<u8>> {
        None
    }

    /// All is in its place, and nothing follows.
    fn close(&mut self) {}
}

/// A file that can be written, or why not.
pub type Begun<K> = Result<<K as Sink>::Stage, Fault>;

/// What came of a finished file, by its number.
pub type Stored = (u32, Result<(), Fault>);

/// What a [`Sink`] has found.
#[derive(Debug)]
pub struct Found<S> {
    /// Where the file goes, for people.
    pub name: Vec<u8>,
    /// What is there of it.
    pub part: Option<Part<S>>,
}

/// A beginning of a file, or something that may be the file itself.
#[derive(Debug)]
pub struct Part<S> {
    /// To be read, and perhaps to go on with.
    pub stage: S,
    /// Bytes.
    pub length: u64,
    /// It stands under its final name.
    pub is_whole: bool,
}
