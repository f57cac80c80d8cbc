//! The files a server shares: opened below one folder by the kernel, listed, sent and hashed.
//!
//! Names come from peers, so no path is ever checked as text: openat2(2) resolves them below the
//! folder and refuses everything that leads out of it, symbolic links and races included.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::{Errno, ReadWriteFlags};

use super::descriptors;
use super::held_place::HeldPlace;
use super::stage_name::{is_own_stage, is_stage_name};

mod hashing;
mod hidden;
mod listing;

pub use hashing::FileHash;
pub use hidden::{Hidden, Identity};
pub use listing::{Entry, EntryKind, Listed, Lister};

/// Bytes read at a time where files are read as a whole; BLAKE3 is at full speed from 64 KiB on.
const READ_BYTES: usize = 256 * 1024;

/// What a peer hears of a server whose folder is not for others.
pub const NOTHING_SHARED: &str = "this server shares no folder: the one it works in holds the \
                                  files and logs of devices, which are never served; its \
                                  operator can name another one by --root";

/// How often a resolution is repeated that another process disturbed by renaming (`EAGAIN`).
const RESOLVE_ATTEMPTS: usize = 16;

/// A shared folder, held open: it stays the same one when its name is given to another.
#[derive(Debug)]
pub struct Share {
    root: OwnedFd,
    /// What is below it and not shared.
    hidden: Arc<Hidden>,
}

/// A regular file of a [`Share`], open for reading, and what it was at that moment.
#[derive(Debug)]
pub struct OpenedFile {
    /// The file; read it by position, so that several may share it.
    pub file: File,
    /// Its length in bytes.
    pub size: u64,
    /// When its content last changed: seconds since 1970 (negative before) and nanoseconds.
    pub modified: (i64, u32),
    /// The file system it is on; with `inode` this tells whether two names are one file.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

/// Why a name could not be served.
#[derive(Debug)]
pub enum FileError {
    /// There is no such file, or the name leads out of the share: peers need not know which.
    NotFound,
    /// It is there but no regular file.
    NotRegular,
    /// The server's account may not read it.
    Denied,
    /// The shared folder is one that is never served, such as that of the devices.
    NothingShared,
    /// The name is longer than the file system allows.
    TooLong,
    /// Anything else the system said.
    Io(io::Error),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("no such file"),
            Self::NotRegular => f.write_str("not a regular file"),
            Self::Denied => f.write_str("the server may not read this file"),
            Self::NothingShared => f.write_str(NOTHING_SHARED),
            Self::TooLong => f.write_str("the name is too long"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl FileError {
    /// Whether it is that too many files are open: it may be gone in a moment.
    pub fn lacks_descriptors(&self) -> bool {
        matches!(self, Self::Io(error) if descriptors::are_used_up(error))
    }
}

impl std::error::Error for FileError {}

impl From<Errno> for FileError {
    fn from(errno: Errno) -> Self {
        match errno {
            // EXDEV: the name leads out of the folder. ELOOP: a link in circles or a magic link.
            Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::LOOP => Self::NotFound,
            // Sockets cannot be opened at all, and some devices are not there.
            Errno::NXIO | Errno::NODEV | Errno::ISDIR => Self::NotRegular,
            Errno::ACCESS | Errno::PERM => Self::Denied,
            Errno::NAMETOOLONG => Self::TooLong,
            other => Self::Io(other.into()),
        }
    }
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(errno) => errno.into(),
            None => Self::Io(error),
        }
    }
}

impl Share {
    /// Opens the folder to be shared; a link given here is the operator's and is followed.
    ///
    /// # Errors
    /// What open(2) said, such as `NotFound` or `NotADirectory`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        let hidden = Arc::new(Hidden::below(&rustix::fs::fstat(&root)?));
        Ok(Self { root, hidden })
    }

    /// Never serves this file, or this folder and what is in it, by whatever name; nor lets
    /// anybody put a file in its place. There may be nothing there yet. To be said before
    /// anything is served.
    ///
    /// # Errors
    /// The folder that it is in cannot be looked at, or [`Share::hidden`] was given away before.
    pub fn hide(&mut self, place: HeldPlace) -> io::Result<()> {
        let hidden = Arc::get_mut(&mut self.hidden);
        hidden.ok_or_else(|| io::Error::other("the folder is served already"))?.add(place)
    }

    /// Finds out whether this system can keep peers within the folder.
    ///
    /// # Errors
    /// A sentence for the operator: no file can be served.
    pub fn check_system(&self) -> Result<(), String> {
        let opened = open_beneath(&self.root, OsStr::new("."), OFlags::PATH, ResolveFlags::empty());
        let error = match opened {
            Ok(_) => return Ok(()),
            Err(FileError::Io(error)) => error,
            Err(FileError::Denied) => Errno::PERM.into(),
            Err(other) => return Err(format!("the shared folder cannot be opened: {other}")),
        };
        Err(format!(
            "no files can be served: this system refuses openat2(2), which keeps peers within the \
             shared folder ({error}); it takes Linux 5.6 and, in a container, a seccomp profile \
             that knows it"
        ))
    }

    /// What is hidden, for who opens below the folder by other means.
    #[must_use]
    pub fn hidden(&self) -> Arc<Hidden> {
        Arc::clone(&self.hidden)
    }

    /// Opens a regular file for reading. Never waits for a FIFO's writer or a slow device.
    ///
    /// # Errors
    /// [`FileError`]. Links that stay inside are followed, those that leave are not found.
    pub fn open_file(&self, relative: &OsStr) -> Result<OpenedFile, FileError> {
        // What somebody is just sending is nobody else's to read.
        if Path::new(relative).file_name().is_some_and(|name| is_stage_name(name.as_bytes())) {
            return Err(FileError::NotFound);
        }
        let file = File::from(self.resolve(relative, OFlags::NONBLOCK | OFlags::NOCTTY)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(FileError::NotRegular);
        }
        self.hidden.check(&file)?;
        Ok(OpenedFile {
            size: metadata.len(),
            modified: (metadata.mtime(), nanoseconds(metadata.mtime_nsec())),
            device: metadata.dev(),
            inode: metadata.ino(),
            file,
        })
    }

    /// Opens a folder in which an upload may be written, through no symbolic link at all. An empty
    /// name is the shared folder itself. For [`super::partfile::PartFile::create_in`].
    ///
    /// # Errors
    /// [`FileError`].
    pub fn open_folder(&self, relative: &OsStr) -> Result<OwnedFd, FileError> {
        let relative = if relative.is_empty() { OsStr::new(".") } else { relative };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let folder = self.resolve_with(relative, flags, ResolveFlags::NO_SYMLINKS)?;
        self.hidden.check(&folder)?;
        Ok(folder)
    }

    fn resolve(&self, relative: &OsStr, flags: OFlags) -> Result<OwnedFd, FileError> {
        self.resolve_with(relative, flags, ResolveFlags::empty())
    }

    fn resolve_with(
        &self,
        relative: &OsStr,
        flags: OFlags,
        further: ResolveFlags,
    ) -> Result<OwnedFd, FileError> {
        self.hidden.check_shared()?;
        open_beneath(&self.root, relative, flags, further)
    }

    /// The folder itself, to open below it by [`open_beneath`].
    ///
    /// # Errors
    /// No more descriptors.
    pub fn try_clone_root(&self) -> io::Result<OwnedFd> {
        self.root.try_clone()
    }
}

/// Opens `relative` for reading below the folder `root`, by way of nothing that leads out of it
/// (openat2(2), `RESOLVE_BENEATH`), nor of what `further` forbids.
///
/// # Errors
/// [`FileError`].
pub fn open_beneath(
    root: impl AsFd,
    relative: &OsStr,
    flags: OFlags,
    further: ResolveFlags,
) -> Result<OwnedFd, FileError> {
    if relative.as_bytes().contains(&0) {
        return Err(FileError::NotFound);
    }
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | further;
    for _ in 0..RESOLVE_ATTEMPTS {
        match rustix::fs::openat2(&root, relative, flags, Mode::empty(), resolve) {
            // The kernel could not rule out that `..` met a rename just now (openat2(2)).
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(opened) => return Ok(opened),
        }
    }
    Err(FileError::Io(Errno::AGAIN.into()))
}

fn nanoseconds(nanoseconds: impl TryInto<u32>) -> u32 {
    nanoseconds.try_into().ok().filter(|&some| some < 1_000_000_000).unwrap_or(0)
}

fn size_of_stat(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn modified_of_stat(stat: &Stat) -> (i64, u32) {
    (stat.st_mtime, nanoseconds(stat.st_mtime_nsec))
}

/// Sends up to `count` bytes of `file` from `offset` on without copying them through this process,
/// and moves `offset` on (sendfile(2)). The file's own position stays as it is.
///
/// 0 bytes for a `count` above 0 mean the end of the file: one that became shorter meanwhile.
///
/// # Errors
/// `WouldBlock` when the socket takes nothing now; else what sendfile(2) said. It also waits for
/// the disk, see [`page_is_cached`].
pub fn send_file(
    socket: impl AsFd,
    file: impl AsFd,
    offset: &mut u64,
    count: usize,
) -> io::Result<usize> {
    Ok(rustix::fs::sendfile(socket, file, Some(offset), count)?)
}

/// True if the byte at `offset` is in the page cache (or there is none), so that reading it does
/// not wait for the disk: preadv2(2) with `RWF_NOWAIT`. False also where the file system cannot
/// tell; a worker then reads, and meets whatever error there is.
///
/// Asks for one byte: a chunk of several pages may still wait for its later ones.
#[must_use]
pub fn page_is_cached(file: impl AsFd, offset: u64) -> bool {
    let mut byte = [0];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    rustix::io::preadv2(file, &mut buffers, offset, ReadWriteFlags::NOWAIT).is_ok()
}

/// Reads these bytes of a file into the page cache, as far as they can be read. Blocks on the disk.
pub fn read_through(file: &File, bytes: Range<u64>) {
    let mut buffer = vec![0; READ_BYTES];
    let mut offset = bytes.start;
    while offset < bytes.end {
        let left = usize::try_from(bytes.end - offset).unwrap_or(READ_BYTES).min(READ_BYTES);
        match file.read_at(&mut buffer[..left], offset) {
            Ok(count) if count > 0 => offset += count as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests;
