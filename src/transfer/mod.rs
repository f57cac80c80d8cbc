//! Moving files: one conversation between a sender and a receiver, whatever carries its bytes.
//!
//! ```text
//!   source ──▶ Sender ──ENTRY, FILE, DATA, HASH──▶ channel ──▶ Receiver ──▶ sink
//!                 ◀──────WANT, STORED, FAILED─────────────────────
//! ```
//!
//! [`Sender`] and [`Receiver`] know no sockets, threads or clocks: bytes in, bytes out. Their disk
//! ends, [`source`] and [`sink`], do block, so both are driven by a worker or a thread of their
//! own. What the sender has to say is [`Segment`]s: bytes, or a part of a file that was just read
//! (and so is in memory) and can be sent from there. PROTOCOL.md, "Transfers".

pub mod glob;
pub mod message;
pub mod pace;
mod receiver;
mod sender;
pub mod sink;
pub mod source;
mod storage;
mod supply;
mod walk;

use std::{fmt, io};

pub use receiver::{Begun, Found, Part, Receiver, Sink, Stored};
pub use sender::Sender;
pub use supply::{ContentChange, Segment, Source, SourceFile, Upcoming};
pub use walk::link_stays_within;

use crate::{sys::descriptors, wire::ErrorCode};

const NO_DESCRIPTORS: &str = "too many files are open; try again";

/// The size of what has none that is known before its end: a pipe.
pub const SIZE_UNKNOWN: u64 = u64::MAX;

/// One thing to be sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Which of the things asked for it belongs to, counted from 0.
    pub item: u32,
    /// What it is.
    pub kind: EntryKind,
    /// Its permissions, of the nine bits 0o777. Its owner may always read it.
    pub mode: u16,
    /// Bytes; 0 for a folder, [`SIZE_UNKNOWN`] for a pipe, of a link those of its target.
    pub size: u64,
    /// When it last changed: seconds since 1970, nanoseconds.
    pub modified: (i64, u32),
    /// As the sender calls it: parts with `/` between them. Not to be trusted.
    pub path: Vec<u8>,
    /// Of a link: where it leads. Not to be trusted.
    pub target: Vec<u8>,
}

/// The permissions of what has none of its own, a pipe: the umask of the receiver takes of them.
pub const MODE_UNKNOWN: u16 = 0o666;

impl Entry {
    /// Whether its owner may execute it.
    #[must_use]
    pub fn is_executable(&self) -> bool {
        self.mode & 0o100 != 0
    }

    /// Whether it is a folder that was asked for itself, and not one within another.
    pub(crate) fn is_named_folder(&self) -> bool {
        self.kind == EntryKind::Folder && !self.path.contains(&b'/')
    }

    /// Bytes of it that are kept while it is open.
    pub(crate) fn weight(&self) -> usize {
        self.path.len() + self.target.len()
    }
}

/// What an entry is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
}

/// Why something could not be moved.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// The name of the error.
    pub code: ErrorCode,
    /// One sentence.
    pub text: String,
}

/// What happens, for whoever watches.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Report {
    /// One more file is known of, with so many bytes.
    Found(u64),
    /// This file is on its way.
    Begun {
        /// Its place at the receiver, its path at the sender.
        name: Vec<u8>,
        /// Bytes.
        size: u64,
        /// So many of them were there already.
        from: u64,
        /// What was there is not the beginning of what the file is now.
        starts_over: bool,
    },
    /// So many bytes more of it.
    Moved(u64),
    /// A folder that was asked for is in its place; those within it are not told of.
    Folder {
        /// As in [`Report::Begun`].
        name: Vec<u8>,
    },
    /// So many things were left out, as they are no files, folders or links that can be carried.
    Skipped {
        /// As in [`Report::Begun`], of the first of them.
        name: Vec<u8>,
        /// Not 0.
        count: u32,
    },
    /// This file has grown since it was announced: what is moved is its beginning, as it was.
    Grown {
        /// As in [`Report::Begun`].
        name: Vec<u8>,
        /// Bytes by now.
        size: u64,
    },
    /// The file is in its place.
    Stored {
        /// As in [`Report::Begun`].
        name: Vec<u8>,
        /// Bytes.
        size: u64,
        /// Of the whole.
        hash: [u8; 32],
        /// Nothing had to be sent: it was there already.
        was_there: bool,
    },
    /// It is not.
    Failed {
        /// As in [`Report::Begun`].
        name: Vec<u8>,
        /// Why.
        fault: Fault,
    },
}

impl Fault {
    /// A fault of this name.
    pub fn new(code: ErrorCode, text: impl Into<String>) -> Fault {
        Fault { code, text: text.into() }
    }

    /// Whether it is that too many files are open: it may be gone in a moment.
    pub(crate) fn lacks_descriptors(&self) -> bool {
        self.text == NO_DESCRIPTORS
    }

    /// What the system said, under the name that it has here.
    pub fn of_io(error: &io::Error) -> Fault {
        use io::ErrorKind::*;
        if descriptors::are_used_up(error) {
            return Fault::new(ErrorCode::SystemError, NO_DESCRIPTORS);
        }
        let (code, text) = match error.kind() {
            StorageFull => (ErrorCode::NoSpace, "there is no space left on the disk"),
            QuotaExceeded => (ErrorCode::QuotaExceeded, "the quota of the disk is used up"),
            ReadOnlyFilesystem => (ErrorCode::ReadOnly, "the file system is read-only"),
            FileTooLarge => {
                (ErrorCode::FileTooLarge, "the file is larger than the system allows here")
            }
            InvalidFilename => (ErrorCode::NameTooLong, "the name or the path is too long here"),
            NotFound => (ErrorCode::NoSuchFile, "there is no such file"),
            PermissionDenied => (ErrorCode::PermissionDenied, "that is not permitted"),
            IsADirectory => (ErrorCode::NotAFile, "there is a folder of that name"),
            NotADirectory => (ErrorCode::NotAFolder, "a part of the path is no folder"),
            ResourceBusy => return Fault::new(ErrorCode::Busy, error.to_string()),
            _ => return Fault::new(ErrorCode::SystemError, error.to_string()),
        };
        Fault::new(code, text)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::of_io(&error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}
