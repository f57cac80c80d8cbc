//! One file of a disk that is being sent, and what is remembered of it.

use std::{
    collections::HashMap,
    fs::{File, Metadata},
    io::{self, Read as _},
    ops::Range,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::{fs::SeekFrom, io::Errno};

use crate::{
    limits::TRANSFER_SMALL_MAX_BYTES,
    sys::clock,
    transfer::{ContentChange, SourceFile},
};

/// Hashes that are remembered.
const HASHES_MAX: usize = 4096;

/// A file that changed less than so many seconds ago may change again within the same tick of the
/// file system's clock; its hash is not remembered.
const SETTLED_SECONDS: i64 = 2;

/// For so many seconds is a hash remembered: a file that is written through a mapping may change
/// and keep its times.
pub(super) const HASH_AGE_SECONDS: i64 = 60;

/// What tells one content of a file from another.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Identity {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) modified: (i64, i64),
    pub(super) changed: (i64, i64),
}

/// The hashes of files that have not changed since, as far as their times tell, and when they were
/// computed.
#[derive(Clone, Debug, Default)]
pub struct Hashes(Arc<Mutex<HashMap<Identity, NotedHash>>>);

/// A hash, and when it was computed: seconds since 1970.
type NotedHash = ([u8; 32], i64);

/// An opened file.
#[derive(Debug)]
pub struct DiskFile {
    file: File,
    pub(super) identity: Identity,
    pub(super) is_file: bool,
    opened_at: i64,
    is_pipe: bool,
    /// Its size tells nothing, as it is made while it is read.
    pub(super) is_made_up: bool,
    /// It takes less room on the disk than it has bytes.
    is_sparse: bool,
    hashes: Hashes,
}

impl Hashes {
    pub(super) fn get(&self, identity: &Identity, now: i64) -> Option<[u8; 32]> {
        let hashes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let young = |(_, at): &&NotedHash| (0..HASH_AGE_SECONDS).contains(&now.saturating_sub(*at));
        hashes.get(identity).filter(young).map(|(hash, _)| *hash)
    }

    pub(super) fn insert(&self, identity: Identity, hash: [u8; 32], now: i64) {
        let mut hashes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if hashes.len() >= HASHES_MAX {
            hashes.clear();
        }
        hashes.insert(identity, (hash, now));
    }

    pub(super) fn forget(&self, identity: &Identity) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(identity);
    }
}

impl DiskFile {
    pub(super) fn new(file: File, is_pipe: bool, hashes: Hashes) -> io::Result<DiskFile> {
        let metadata = file.metadata()?;
        Ok(DiskFile {
            identity: identity_of(&metadata),
            is_file: metadata.is_file(),
            opened_at: clock::wall_clock(),
            is_pipe,
            is_made_up: false,
            is_sparse: metadata.blocks() < metadata.len() / 512,
            file,
            hashes,
        })
    }

    /// The file itself, to send from.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl SourceFile for DiskFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.is_pipe {
            true => (&self.file).read(buffer),
            false => self.file.read_at(buffer, offset),
        }
    }

    fn data_at(&self, offset: u64, end: u64) -> Range<u64> {
        if !self.is_sparse {
            return offset..end;
        }
        let start = match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(start) => start.min(end),
            // Up to the end there is none.
            Err(Errno::NXIO) => return end..end,
            Err(_) => return offset..end,
        };
        let until = rustix::fs::seek(&self.file, SeekFrom::Hole(start)).unwrap_or(end);
        start..until.clamp(start, end)
    }

    fn change(&self, sent: u64) -> ContentChange {
        if self.is_pipe || self.is_made_up {
            return ContentChange::None;
        }
        match self.file.metadata() {
            // Its links, its mode and its names are no part of what is sent.
            Ok(now) if now.len() < sent => ContentChange::Shorter,
            Ok(now) => {
                let now = identity_of(&now);
                let is_same =
                    (now.size, now.modified) == (self.identity.size, self.identity.modified);
                // Where it grew before it was opened, that is told as well.
                match is_same && now.size == sent {
                    true => ContentChange::None,
                    false => ContentChange::Perhaps(now.size),
                }
            }
            Err(_) => ContentChange::Shorter,
        }
    }

    fn is_regular(&self) -> bool {
        !self.is_pipe && !self.is_made_up
    }

    fn known_hash(&self) -> Option<[u8; 32]> {
        self.hashes.get(&self.identity, self.opened_at)
    }

    fn note_hash(&self, hash: [u8; 32]) {
        let changed = self.identity.changed.0.max(self.identity.modified.0);
        // Of a small file it costs less to compute it than to remember it.
        let is_worth_it = self.identity.size > TRANSFER_SMALL_MAX_BYTES as u64;
        if is_worth_it
            && self.is_regular()
            && self.opened_at.saturating_sub(changed) >= SETTLED_SECONDS
        {
            self.hashes.insert(self.identity, hash, clock::wall_clock());
        }
    }

    fn forget_hash(&self) {
        self.hashes.forget(&self.identity);
    }
}

pub(super) fn identity_of(metadata: &Metadata) -> Identity {
    Identity {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    }
}
