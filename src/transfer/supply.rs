//! What a sender needs of the place where the files are, and what it hands to the channel.

use std::{io, ops::Range, sync::Arc};

use super::{Entry, Fault};
use crate::wire::ErrorCode;

/// What is there to be sent.
pub trait Source {
    /// An opened file.
    type File: SourceFile;
    /// Where the file of an entry is found.
    type Place;

    /// The next entry, folders before what is in them. Looks at `budget` names at most, and takes
    /// them off.
    fn next(&mut self, budget: &mut usize) -> Upcoming<Self::Place>;

    /// What a link stands for, where the receiver takes no links.
    fn follow(&mut self, link: Entry, _place: Self::Place) -> Upcoming<Self::Place> {
        Upcoming::Missing(link.path, Fault::new(ErrorCode::NotAFile, "that is a link"))
    }

    /// How many things were left out since this was last asked, and how the first is called: they
    /// are neither files, folders nor links that can be carried.
    fn take_skipped(&mut self) -> Option<(u32, Vec<u8>)> {
        None
    }

    /// Opens the file of an entry as it is now.
    ///
    /// # Errors
    /// [`ErrorCode::FileChanged`] where it is shorter by now; whatever the system says.
    fn open(&mut self, entry: &Entry, place: &Self::Place) -> Result<Self::File, Fault>;
}

/// What a [`Source`] has next.
#[derive(Debug)]
pub enum Upcoming<P> {
    /// An entry and where it is found.
    Entry(Entry, P),
    /// The name of what cannot be sent, and why.
    Missing(Vec<u8>, Fault),
    /// The budget is used up; it goes on later.
    Later,
    /// There is no more.
    End,
}

/// What has become of a file since it was opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ContentChange {
    /// Nothing, as far as can be seen.
    None,
    /// It was written to, or only touched; it has so many bytes now, not less than were sent.
    Perhaps(u64),
    /// Some of what was sent is no more.
    Shorter,
}

/// An opened file of a [`Source`].
pub trait SourceFile {
    /// Reads at `offset`; 0 is the end.
    ///
    /// # Errors
    /// What the system said.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// What has become of it, of which `sent` bytes were sent.
    fn change(&self, sent: u64) -> ContentChange;

    /// Where the next bytes are that may be others than zeros, from `offset` on and before `end`.
    fn data_at(&self, offset: u64, end: u64) -> Range<u64> {
        offset..end
    }

    /// Whether it can be read twice, and so be sent from where it lies.
    fn is_regular(&self) -> bool {
        true
    }

    /// The hash of the whole, where it is known from before.
    fn known_hash(&self) -> Option<[u8; 32]> {
        None
    }

    /// The hash of the whole was computed.
    fn note_hash(&self, _hash: [u8; 32]) {}

    /// The hash that was known is not that of what was sent.
    fn forget_hash(&self) {}
}

/// Something to be put on the channel.
#[derive(Debug)]
pub enum Segment<F> {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A part of a file, which was read just now. Where the file has lost it since, zeros take
    /// its place: the receiver sees by the hash.
    File {
        /// Whose.
        file: Arc<F>,
        /// Where it begins.
        offset: u64,
        /// Bytes, not 0.
        length: usize,
    },
}

impl<F> Segment<F> {
    /// Bytes of it.
    pub fn length(&self) -> usize {
        match self {
            Segment::Bytes(bytes) => bytes.len(),
            Segment::File { length, .. } => *length,
        }
    }
}
