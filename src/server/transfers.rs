//! Files on their way out, and listings: opened, read and hashed by workers, sent by the loop.

use std::{collections::HashMap, ffi::OsString, fs::File, ops::ControlFlow, sync::Arc};

use super::{
    budget::Holder,
    listings::{self, Listing, Listings},
};
use crate::{
    hub::{OperationId, SessionId},
    sys::{
        files::{self, FileError, FileHash, NOTHING_SHARED, OpenedFile, Share},
        workers::{Behalf, Cancelled, NotTaken, Workers},
    },
    wire::{ErrorCode, Outcome, Refusal, SharePath, event::Entry},
};

/// Jobs that may wait in each pool: more than there can be operations.
const QUEUE_MAX: usize = 4096;
/// Bytes that are hashed in one turn of a worker.
const HASHED_PER_TURN_BYTES: u64 = 32 * 1024 * 1024;
/// What is not in the page cache is read ahead by so many bytes.
const READ_AHEAD_BYTES: u64 = 8 * 1024 * 1024;

/// All transfers under way.
pub struct Transfers {
    share: Arc<Share>,
    /// Opens and lists: short jobs that never wait behind the long ones.
    openers: Workers<Done>,
    /// Hashes whole files.
    hashers: Workers<Done>,
    /// Reads what is not in the page cache, so that the loop does not wait for the disk.
    readers: Workers<Done>,
    running: HashMap<OperationId, Transfer>,
    listings: Listings,
}

/// What a worker has done.
pub enum Done {
    /// A file is open, or could not be.
    Opened(OperationId, Result<OpenedFile, FileError>),
    /// A part of a folder is listed, or could not be.
    Listed(OperationId, Result<Box<listings::Part>, FileError>),
    /// A file is hashed, or could not be.
    Hashed(OperationId, Result<[u8; 32], std::io::Error>),
    /// A part of a file was read; where that failed, who sends it sees so too.
    Read(OperationId),
}

enum Transfer {
    /// A worker opens the file.
    Opening(Opening),
    /// A file on its way.
    File(Outgoing),
    /// A listing on its way.
    Listing(Listing),
}

struct Opening {
    session: SessionId,
    path: SharePath,
    verified: bool,
    cancelled: Cancelled,
}

struct Outgoing {
    session: SessionId,
    file: Arc<File>,
    size: u64,
    /// So much is handed to the hub.
    offset: u64,
    /// What comes before this was read just now.
    read_until: u64,
    /// A worker reads on.
    is_reading: bool,
    hash: Hash,
    /// It turned out shorter than it was: what is owed is filled with zeros, and it fails.
    shrunk: bool,
    cancelled: Cancelled,
}

enum Hash {
    NotWanted,
    Pending,
    Known([u8; 32]),
    Failed(String),
}

/// What is said of a file before its bytes.
pub struct Announcement {
    /// Without folders.
    pub name: Vec<u8>,
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub modified: i64,
}

/// What a transfer has to say.
pub enum Produced<'a> {
    /// This part of its file.
    Piece {
        /// Where it begins.
        offset: u64,
        /// Bytes.
        length: usize,
    },
    /// These entries.
    Entries(&'a [Entry]),
    /// Nothing for now.
    Nothing,
    /// It is over.
    Over(Outcome),
}

impl Transfers {
    /// None so far, all from `share`.
    pub fn new(share: Share, waker: Arc<mio::Waker>) -> Transfers {
        Transfers {
            share: Arc::new(share),
            openers: Workers::new(2, QUEUE_MAX, Arc::clone(&waker)),
            hashers: Workers::in_background(2, QUEUE_MAX, Arc::clone(&waker)),
            readers: Workers::new(2, QUEUE_MAX, waker),
            running: HashMap::new(),
            listings: Listings::default(),
        }
    }

    /// Starts sending a file.
    pub fn start_download(
        &mut self,
        id: OperationId,
        session: SessionId,
        path: SharePath,
        verified: bool,
    ) -> Result<(), Refusal> {
        let (share, name) = (Arc::clone(&self.share), path.as_path().as_os_str().to_owned());
        let cancelled = Cancelled::default();
        let flag = cancelled.clone();
        let job = move || {
            let opened = if flag.is_set() { Err(gone()) } else { share.open_file(&name) };
            Done::Opened(id, opened)
        };
        let on_panic = Done::Opened(id, Err(FileError::Io(fault())));
        self.openers.submit(session.into(), job, on_panic).map_err(busy)?;
        let opening = Opening { session, path, verified, cancelled };
        self.running.insert(id, Transfer::Opening(opening));
        Ok(())
    }

    /// Starts listing a folder.
    pub fn start_listing(
        &mut self,
        id: OperationId,
        holder: Holder,
        path: Option<SharePath>,
    ) -> Result<(), Refusal> {
        let name = path.map_or(OsString::new(), |path| path.as_path().as_os_str().to_owned());
        let mut listing = self.listings.begin(holder);
        let job = listing.first_job(Arc::clone(&self.share), name, id);
        let on_panic = Done::Listed(id, Err(FileError::Io(fault())));
        if let Err(why) = self.openers.submit_in_slices(holder.session.into(), job, on_panic) {
            self.listings.end(&mut listing);
            return Err(busy(why));
        }
        self.running.insert(id, Transfer::Listing(listing));
        Ok(())
    }

    /// The next thing that a worker has done.
    pub fn try_recv(&mut self) -> Option<Done> {
        let done = self.openers.try_recv().or_else(|| self.readers.try_recv());
        done.or_else(|| self.hashers.try_recv())
    }

    /// Takes in an opened file; what is to be announced of it, or the failure.
    pub fn on_opened(
        &mut self,
        id: OperationId,
        opened: Result<OpenedFile, FileError>,
    ) -> Option<Result<Announcement, Refusal>> {
        let Some(Transfer::Opening(opening)) = self.running.get(&id) else {
            self.openers.dispose(Behalf::SERVER, opened);
            return None;
        };
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => return Some(Err(refusal_of(error, "file"))),
        };
        let OpenedFile { file, size, modified, .. } = opened;
        let name = opening.path.file_name().to_vec();
        let (session, verified) = (opening.session, opening.verified);
        let (file, cancelled) = (Arc::new(file), opening.cancelled.clone());
        let hash = match verified {
            false => Hash::NotWanted,
            true => match self.hash(id, session, FileHash::new(file.clone(), size), &cancelled) {
                Ok(()) => Hash::Pending,
                Err(why) => return Some(Err(busy(why))),
            },
        };
        let outgoing = Outgoing {
            session,
            file,
            size,
            offset: 0,
            read_until: 0,
            is_reading: false,
            hash,
            shrunk: false,
            cancelled,
        };
        self.running.insert(id, Transfer::File(outgoing));
        Some(Ok(Announcement { name, size, modified: modified.0 }))
    }

    fn hash(
        &self,
        id: OperationId,
        session: SessionId,
        mut hash: FileHash,
        cancelled: &Cancelled,
    ) -> Result<(), NotTaken> {
        let flag = cancelled.clone();
        let job = move || {
            let hashed = match flag.is_set() {
                true => Err(std::io::ErrorKind::Interrupted.into()),
                false => hash.go_on(HASHED_PER_TURN_BYTES),
            };
            match hashed.transpose() {
                None => ControlFlow::Continue(()),
                Some(hash) => {
                    ControlFlow::Break(Done::Hashed(id, hash.map(|hash| *hash.as_bytes())))
                }
            }
        };
        self.hashers.submit_in_slices(session.into(), job, Done::Hashed(id, Err(fault())))
    }

    /// Takes in the hash of a file; true where its transfer may have waited for it.
    pub fn on_hashed(&mut self, id: OperationId, hashed: Result<[u8; 32], std::io::Error>) -> bool {
        let Some(Transfer::File(outgoing)) = self.running.get_mut(&id) else { return false };
        outgoing.hash = match hashed {
            Ok(hash) => Hash::Known(hash),
            Err(error) => Hash::Failed(error.to_string()),
        };
        true
    }

    /// Takes in a part of a listed folder; true where it may speak now, else the failure.
    pub fn on_listed(
        &mut self,
        id: OperationId,
        listed: Result<Box<listings::Part>, FileError>,
    ) -> Option<Result<(), Refusal>> {
        let Some(Transfer::Listing(listing)) = self.running.get_mut(&id) else {
            self.openers.dispose(Behalf::SERVER, listed);
            return None;
        };
        Some(match listed {
            Ok(part) => {
                listing.take_in(*part);
                Ok(())
            }
            Err(error) => Err(refusal_of(error, "folder")),
        })
    }

    /// What the transfer has to say next, in at most `room` bytes; without room only its end.
    pub fn produce(&mut self, id: OperationId, room: usize) -> Produced<'_> {
        match self.running.get_mut(&id) {
            None | Some(Transfer::Opening(_)) => Produced::Nothing,
            Some(Transfer::Listing(listing)) => {
                if room > 0
                    && let Some(job) = listing.next_job(id)
                {
                    let session = listing.session();
                    let on_panic = Done::Listed(id, Err(FileError::Io(fault())));
                    if let Err(why) = self.openers.submit_in_slices(session.into(), job, on_panic) {
                        return Produced::Over(Outcome::Failed(busy(why)));
                    }
                }
                listing.produce(room)
            }
            Some(Transfer::File(outgoing)) => {
                if room > 0 && outgoing.is_cold(room) {
                    outgoing.read_on(id, &self.readers);
                    return Produced::Nothing;
                }
                outgoing.produce(room)
            }
        }
    }

    /// Takes in that a part of a file was read.
    pub fn on_read(&mut self, id: OperationId) {
        if let Some(Transfer::File(outgoing)) = self.running.get_mut(&id) {
            outgoing.is_reading = false;
        }
    }

    /// The file of a transfer, from which the loop sends.
    pub fn file(&self, id: OperationId) -> Option<&Arc<File>> {
        match self.running.get(&id)? {
            Transfer::File(outgoing) if !outgoing.shrunk => Some(&outgoing.file),
            _ => None,
        }
    }

    /// Notes that the file is shorter than it was.
    pub fn note_shrunk(&mut self, id: OperationId) {
        if let Some(Transfer::File(outgoing)) = self.running.get_mut(&id) {
            outgoing.shrunk = true;
        }
    }

    /// Forgets a transfer. Closing a file, or a folder, may take the disk a while.
    pub fn drop_transfer(&mut self, id: OperationId) {
        match self.running.remove(&id) {
            None => {}
            Some(Transfer::Opening(opening)) => opening.cancelled.set(),
            Some(Transfer::File(outgoing)) => {
                outgoing.cancelled.set();
                self.openers.dispose(outgoing.session.into(), outgoing);
            }
            Some(Transfer::Listing(mut listing)) => {
                listing.cancel();
                self.listings.end(&mut listing);
                self.openers.dispose(listing.session().into(), listing);
            }
        }
    }

    /// How many files are under way.
    pub fn count(&self) -> usize {
        let is_file =
            |transfer: &&Transfer| matches!(transfer, Transfer::File(_) | Transfer::Opening(_));
        self.running.values().filter(is_file).count()
    }

    /// True where the operation is a transfer that is under way.
    pub fn has(&self, id: OperationId) -> bool {
        self.running.contains_key(&id)
    }
}

impl Outgoing {
    /// Whether the disk would have to be waited for to send the next `room` bytes.
    fn is_cold(&self, room: usize) -> bool {
        let end = self.size.min(self.offset + room as u64);
        if self.offset >= end || end <= self.read_until {
            return false;
        }
        let is_cached = |offset| files::page_is_cached(&*self.file, offset);
        self.is_reading || !is_cached(self.offset) || !is_cached(end - 1)
    }

    /// Lets a worker read what comes next. Where none is free the loop reads: late, but not never.
    fn read_on(&mut self, id: OperationId, readers: &Workers<Done>) {
        if self.is_reading {
            return;
        }
        let (file, start) = (Arc::clone(&self.file), self.offset);
        let end = self.size.min(start + READ_AHEAD_BYTES);
        let cancelled = self.cancelled.clone();
        let job = move || {
            if !cancelled.is_set() {
                files::read_through(&file, start..end);
            }
            Done::Read(id)
        };
        self.read_until = end;
        self.is_reading = true;
        if readers.submit(self.session.into(), job, Done::Read(id)).is_err() {
            self.is_reading = false;
        }
    }

    fn produce(&mut self, room: usize) -> Produced<'_> {
        if self.offset < self.size {
            if room == 0 {
                return Produced::Nothing;
            }
            let length = room.min((self.size - self.offset).min(usize::MAX as u64) as usize);
            let offset = self.offset;
            self.offset += length as u64;
            return Produced::Piece { offset, length };
        }
        match &self.hash {
            Hash::NotWanted => Produced::Over(Outcome::Done),
            Hash::Known(hash) => Produced::Over(Outcome::Sent { hash: *hash }),
            Hash::Pending => Produced::Nothing,
            Hash::Failed(why) => {
                let text = format!("the file could not be read again to be verified: {why}");
                Produced::Over(Outcome::Failed(Refusal::new(0, ErrorCode::FileChanged, text)))
            }
        }
    }
}

fn fault() -> std::io::Error {
    std::io::Error::other("a fault of ours")
}

/// Nobody hears of it.
fn gone() -> FileError {
    FileError::Io(std::io::ErrorKind::Interrupted.into())
}

fn busy(why: NotTaken) -> Refusal {
    Refusal::new(0, ErrorCode::Busy, format!("no file can be opened now: {why}; try again"))
}

fn refusal_of(error: FileError, noun: &str) -> Refusal {
    let (code, text) = match error {
        FileError::NotFound => {
            (ErrorCode::NoSuchFile, format!("there is no such {noun}; `ls` lists what there is"))
        }
        FileError::NotRegular if noun == "folder" => {
            (ErrorCode::NotAFolder, "that is no folder".into())
        }
        FileError::NotRegular => (ErrorCode::NotAFile, "that is not a regular file".into()),
        FileError::Denied => (ErrorCode::PermissionDenied, "the server may not read that".into()),
        FileError::NothingShared => (ErrorCode::Denied, NOTHING_SHARED.into()),
        FileError::TooLong => (ErrorCode::BadPath, "the path is too long".into()),
        FileError::Io(error) => {
            (ErrorCode::SystemError, format!("the server's disk says: {error}"))
        }
    };
    Refusal::new(0, code, text)
}
