//! Files on their way out, and listings: opened, read and hashed by workers, sent by the loop.

use std::{
    collections::HashMap, ffi::OsString, fs::File, os::unix::ffi::OsStringExt as _, sync::Arc,
};

use crate::{
    hub::OperationId,
    sys::{
        clock,
        files::{self, FileError, Listing, NOTHING_SHARED, OpenedFile, Share},
        workers::{Cancelled, Workers},
    },
    wire::{
        ErrorCode, Outcome, Refusal, SharePath,
        event::{Entry, EntryKind},
    },
};

/// Entries of one listing at most; more are said to be there and not shown.
const LISTING_MAX: usize = 1_000_000;
/// Hashes that are remembered.
const HASHES_MAX: usize = 1024;
/// What is not in the page cache is read ahead by so many bytes.
const READ_AHEAD_BYTES: u64 = 8 * 1024 * 1024;
/// A file that changed less than so many seconds ago may change again within the same tick of the
/// file system's clock; its hash is not remembered.
const SETTLED_SECONDS: i64 = 2;

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
    hashes: HashMap<Identity, [u8; 32]>,
}

/// What a worker has done.
pub enum Done {
    /// A file is open, or could not be.
    Opened(OperationId, Result<OpenedFile, FileError>),
    /// A folder is listed, or could not be.
    Listed(OperationId, Result<Listed, FileError>),
    /// A file is hashed, or could not be.
    Hashed(OperationId, Result<[u8; 32], std::io::Error>),
    /// A part of a file was read; where that failed, who sends it sees so too.
    Read(OperationId),
}

enum Transfer {
    /// A worker is at it.
    Opening(Kind),
    /// A file on its way.
    File(Outgoing),
    /// A listing on its way.
    Listing(Listed),
}

/// A folder's entries, given away a few at a time: to turn a hundred thousand of them into what
/// is said, or to free them, takes longer than the loop has.
pub struct Listed {
    left: std::vec::IntoIter<Entry>,
    /// Those that are being said.
    some: Vec<Entry>,
    count: usize,
    truncated: bool,
}

enum Kind {
    Download { path: SharePath, verified: bool },
    Listing,
}

struct Outgoing {
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
}

enum Hash {
    NotWanted,
    Pending(Cancelled, Identity, i64),
    Known([u8; 32]),
    Failed(String),
}

/// What tells one content of a file from another.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, u32),
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
    pub fn new(share: Share, waker: Arc<mio::Waker>) -> std::io::Result<Transfers> {
        Ok(Transfers {
            share: Arc::new(share),
            openers: Workers::new(2, 1024, Arc::clone(&waker))?,
            hashers: Workers::in_background(2, 1024, Arc::clone(&waker))?,
            readers: Workers::new(2, 1024, waker)?,
            running: HashMap::new(),
            hashes: HashMap::new(),
        })
    }

    /// Starts sending a file.
    pub fn start_download(
        &mut self,
        id: OperationId,
        path: SharePath,
        verified: bool,
    ) -> Result<(), Refusal> {
        let (share, name) = (Arc::clone(&self.share), path.as_path().as_os_str().to_owned());
        let job = move || Done::Opened(id, share.open_file(&name));
        let on_panic =
            Done::Opened(id, Err(FileError::Io(std::io::Error::other("a fault of ours"))));
        self.openers.submit(job, on_panic).map_err(|_| busy())?;
        self.running.insert(id, Transfer::Opening(Kind::Download { path, verified }));
        Ok(())
    }

    /// Starts listing a folder.
    pub fn start_listing(
        &mut self,
        id: OperationId,
        path: Option<SharePath>,
    ) -> Result<(), Refusal> {
        let share = Arc::clone(&self.share);
        let name = path.map_or(OsString::new(), |path| path.as_path().as_os_str().to_owned());
        let job = move || Done::Listed(id, share.list(&name, LISTING_MAX).map(Listed::from));
        let on_panic =
            Done::Listed(id, Err(FileError::Io(std::io::Error::other("a fault of ours"))));
        self.openers.submit(job, on_panic).map_err(|_| busy())?;
        self.running.insert(id, Transfer::Opening(Kind::Listing));
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
        let Some(Transfer::Opening(Kind::Download { path, verified })) = self.running.get(&id)
        else {
            return None;
        };
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => return Some(Err(refusal_of(error, "file"))),
        };
        let OpenedFile { file, size, modified, device, inode } = opened;
        let name = path.file_name().to_vec();
        let identity = Identity { device, inode, size, modified };
        let file = Arc::new(file);
        let hash = match self.hashes.get(&identity) {
            _ if !verified => Hash::NotWanted,
            Some(hash) => Hash::Known(*hash),
            None => match self.hash(id, &file, identity) {
                Ok(hash) => hash,
                Err(refusal) => return Some(Err(refusal)),
            },
        };
        let outgoing = Outgoing {
            file,
            size,
            offset: 0,
            read_until: 0,
            is_reading: false,
            hash,
            shrunk: false,
        };
        self.running.insert(id, Transfer::File(outgoing));
        Some(Ok(Announcement { name, size, modified: modified.0 }))
    }

    fn hash(
        &mut self,
        id: OperationId,
        file: &Arc<File>,
        identity: Identity,
    ) -> Result<Hash, Refusal> {
        let (cancelled, file) = (Cancelled::default(), Arc::clone(file));
        let flag = cancelled.clone();
        let job = move || {
            let hash = files::hash_file(&file, identity.size, flag.as_flag());
            Done::Hashed(id, hash.map(|hash| *hash.as_bytes()))
        };
        let on_panic = Done::Hashed(id, Err(std::io::Error::other("a fault of ours")));
        self.hashers.submit(job, on_panic).map_err(|_| busy())?;
        Ok(Hash::Pending(cancelled, identity, clock::wall_clock()))
    }

    /// Takes in the hash of a file; true where its transfer may have waited for it.
    pub fn on_hashed(&mut self, id: OperationId, hashed: Result<[u8; 32], std::io::Error>) -> bool {
        let Some(Transfer::File(outgoing)) = self.running.get_mut(&id) else { return false };
        let Hash::Pending(_, identity, begun) = &outgoing.hash else { return false };
        match hashed {
            Ok(hash) => {
                if begun - identity.modified.0 >= SETTLED_SECONDS {
                    if self.hashes.len() >= HASHES_MAX {
                        self.hashes.clear();
                    }
                    self.hashes.insert(*identity, hash);
                }
                outgoing.hash = Hash::Known(hash);
            }
            Err(error) => outgoing.hash = Hash::Failed(error.to_string()),
        }
        true
    }

    /// Takes in a listed folder; true where it may speak now, else the failure.
    pub fn on_listed(
        &mut self,
        id: OperationId,
        listed: Result<Listed, FileError>,
    ) -> Option<Result<(), Refusal>> {
        let Some(Transfer::Opening(Kind::Listing)) = self.running.get(&id) else { return None };
        Some(match listed {
            Ok(listed) => {
                self.running.insert(id, Transfer::Listing(listed));
                Ok(())
            }
            Err(error) => Err(refusal_of(error, "folder")),
        })
    }

    /// What the transfer has to say next, in at most `room` bytes; without room only its end.
    pub fn produce(&mut self, id: OperationId, room: usize) -> Produced<'_> {
        match self.running.get_mut(&id) {
            None | Some(Transfer::Opening(_)) => Produced::Nothing,
            Some(Transfer::Listing(listed)) => listed.produce(room),
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

    /// Forgets a transfer.
    pub fn drop_transfer(&mut self, id: OperationId) {
        if let Some(Transfer::File(outgoing)) = self.running.remove(&id)
            && let Hash::Pending(cancelled, ..) = outgoing.hash
        {
            cancelled.set();
        }
    }

    /// How many files are under way.
    pub fn count(&self) -> usize {
        let is_file = |transfer: &&Transfer| {
            matches!(transfer, Transfer::File(_) | Transfer::Opening(Kind::Download { .. }))
        };
        self.running.values().filter(is_file).count()
    }

    /// True where the operation is a transfer that is under way.
    pub fn has(&self, id: OperationId) -> bool {
        self.running.contains_key(&id)
    }
}

impl From<Listing> for Listed {
    fn from(Listing { entries, truncated }: Listing) -> Listed {
        let entries: Vec<Entry> = entries.into_iter().map(entry_of).collect();
        let count = entries.len();
        Listed { left: entries.into_iter(), some: Vec::new(), count, truncated }
    }
}

impl Listed {
    fn produce(&mut self, room: usize) -> Produced<'_> {
        if self.left.len() == 0 {
            return Produced::Over(counted(self.count, self.truncated));
        }
        if room == 0 {
            return Produced::Nothing;
        }
        self.some.clear();
        self.some.extend(self.left.by_ref().take(crate::hub::ENTRIES_MAX));
        Produced::Entries(&self.some)
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
        let job = move || {
            files::read_through(&file, start..end);
            Done::Read(id)
        };
        self.read_until = end;
        self.is_reading = true;
        if readers.submit(job, Done::Read(id)).is_err() {
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
            Hash::Pending(..) => Produced::Nothing,
            Hash::Failed(why) => {
                let text = format!("the file could not be read again to be verified: {why}");
                Produced::Over(Outcome::Failed(Refusal::new(0, ErrorCode::FileChanged, text)))
            }
        }
    }
}

fn counted(count: usize, truncated: bool) -> Outcome {
    match truncated {
        false => Outcome::Counted { count: count as u64, noun: "entries" },
        true => {
            let text =
                format!("the folder has more than {LISTING_MAX} entries; not all are listed");
            Outcome::Failed(Refusal::new(0, ErrorCode::TooMany, text))
        }
    }
}

fn busy() -> Refusal {
    Refusal::new(0, ErrorCode::Busy, "too many files are being opened; try again")
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

fn entry_of(entry: files::Entry) -> Entry {
    let files::Entry { name, kind, size, modified } = entry;
    let kind = match kind {
        files::EntryKind::File => EntryKind::File,
        files::EntryKind::Directory => EntryKind::Folder,
        files::EntryKind::Other => EntryKind::Other,
    };
    Entry { name: name.into_vec(), kind, size, modified: modified.0 }
}
