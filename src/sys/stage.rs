//! A file being received that may be gone on with later: its temporary name is always the same.
//!
//! Who writes it holds a lock (flock(2)), which the kernel drops with the process, however that
//! ends. The final name never holds partial bytes. Small files are not worth going on with: they
//! get a random name and no lock. Where a file system knows no locks, no file is gone on with.

pub mod attributes;
pub(super) mod space;
mod sweep;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT,
};
use rustix::io::Errno;

use self::space::Space;
use super::partfile::{self, tolerate, with_context};
use super::stage_name;
use crate::limits::{RESERVE_MIN_BYTES, TRANSFER_SMALL_MAX_BYTES};
pub use sweep::sweep;

/// How often a name is tried again that somebody else takes or frees at the same time.
const ATTEMPTS: usize = 8;

/// An unfinished file, open for reading and writing. Dropped, it is kept if it may be gone on with
/// and holds something; what it has beyond that is given back.
#[derive(Debug)]
pub struct Stage {
    file: File,
    folder: Arc<OwnedFd>,
    /// The temporary name, as long as it exists.
    part: Option<OsString>,
    target: OsString,
    length: u64,
    is_kept: bool,
    space: Space,
    /// Where the disk has no room for all of it: so many bytes may come before a hole shows that it
    /// needs less.
    doubt: Option<Doubt>,
    /// The file may be longer than `length`, or have room beyond it.
    has_more: bool,
}

/// See [`Stage::expect`].
#[derive(Debug)]
struct Doubt {
    until: u64,
    /// Bytes that were there before: those are worth keeping.
    since: u64,
}

impl Stage {
    /// What an earlier attempt has left of `target`, locked; `None` if there is nothing.
    ///
    /// # Errors
    /// `ResourceBusy` while somebody else writes it, else what the system said.
    pub fn find(folder: &Arc<OwnedFd>, target: &OsStr) -> io::Result<Option<Stage>> {
        let part = stage_name::stable(target);
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match rustix::fs::openat(folder, &part, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            // What is no file of ours is no part of ours.
            Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR | Errno::ACCESS | Errno::PERM) => {
                return Ok(None);
            }
            Err(errno) => return Err(with_context("cannot write", target, errno)),
        };
        let stat = rustix::fs::fstat(&file)?;
        // Nobody else may have it open for writing, now or later.
        if !stage_name::is_ours(&stat) || stat.st_mode & 0o022 != 0 {
            return Ok(None);
        }
        if !lock(&file, target)? || !is_still_there(folder, &part, &file)? {
            return Ok(None);
        }
        let mut found = Stage::new(file, folder, part, target, true);
        // What was reserved for the attempt before is not known here.
        (found.length, found.has_more) = (found.file.metadata()?.len(), true);
        Ok(Some(found))
    }

    /// An empty file that is to become `target`, and that can be found again until then.
    ///
    /// # Errors
    /// `ResourceBusy` while somebody else writes it, `IsADirectory` where the target is a folder,
    /// `InvalidInput` where it is a device, pipe or socket, else what the system said.
    pub fn create(folder: &Arc<OwnedFd>, target: &OsStr) -> io::Result<Stage> {
        partfile::check_replaceable(folder, target)?;
        if let Some(mut found) = Stage::find(folder, target)? {
            found.truncate()?;
            return Ok(found);
        }
        let part = stage_name::stable(target);
        for _ in 0..ATTEMPTS {
            match open_new(folder, &part, 0o600) {
                Ok(file) => {
                    let is_locked = lock(&file, target)?;
                    if is_still_there(folder, &part, &file)? {
                        return Ok(Stage::new(file, folder, part, target, is_locked));
                    }
                }
                // Whatever it is, it is not what an attempt of ours has left, and stays.
                Err(Errno::EXIST) => return Stage::create_small(folder, target, 0o600),
                Err(errno) => return Err(with_context("cannot write", target, errno)),
            }
        }
        Err(busy(target))
    }

    /// An empty file that is to become `target` soon, under a name that nobody can guess. It has
    /// this mode, less the umask.
    ///
    /// # Errors
    /// As [`Stage::create`].
    pub fn create_small(folder: &Arc<OwnedFd>, target: &OsStr, mode: u32) -> io::Result<Stage> {
        for _ in 0..ATTEMPTS {
            let part = stage_name::random(target);
            // The kernel takes away what the umask forbids.
            match open_new(folder, &part, mode & 0o777) {
                Ok(file) => return Ok(Stage::new(file, folder, part, target, false)),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(with_context("cannot write", target, errno)),
            }
        }
        Err(busy(target))
    }

    fn new(
        file: File,
        folder: &Arc<OwnedFd>,
        part: OsString,
        target: &OsStr,
        is_kept: bool,
    ) -> Stage {
        let (folder, target) = (folder.clone(), target.to_owned());
        let (part, space) = (Some(part), Space::default());
        let (length, doubt, has_more) = (0, None, false);
        Stage { file, folder, part, target, length, is_kept, space, doubt, has_more }
    }

    /// Bytes written, by this attempt and those before.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The folder in which it is.
    #[must_use]
    pub fn folder(&self) -> &Arc<OwnedFd> {
        &self.folder
    }

    /// The name that it was begun for.
    #[must_use]
    pub fn target(&self) -> &OsStr {
        &self.target
    }

    /// The file itself.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// So many bytes it is to have. Room for them is taken little by little, as they come. Where
    /// the disk has none for all, a few may come: what has holes needs less than its size.
    ///
    /// # Errors
    /// `FileTooLarge`.
    pub fn expect(&mut self, size_bytes: u64) -> io::Result<()> {
        let (space, too_few) = Space::look(&self.file, self.length, size_bytes)?;
        let since = self.length;
        let doubt = |free: u64| Doubt { until: since + (free / 4).min(RESERVE_MIN_BYTES), since };
        self.doubt = too_few.map(doubt);
        self.space = space;
        Ok(())
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// What pread(2) said.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// What write(2) said; what was written before stays good.
    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.length + bytes.len() as u64;
        if self.doubt.as_ref().is_some_and(|doubt| end > doubt.until) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.has_more |= self.space.reserve(&self.file, self.length, end);
        let written = self.file.write_all_at(bytes, self.length);
        match written {
            Ok(()) => self.length = end,
            // A part of them may be there.
            Err(_) => self.has_more = true,
        }
        written
    }

    /// Appends zeros that take no room, where the file system can do without.
    ///
    /// # Errors
    /// What the system said.
    pub fn skip(&mut self, count: u64) -> io::Result<()> {
        self.space.give_back(&self.file, self.length, count);
        self.length += count;
        (self.doubt, self.has_more) = (None, true);
        Ok(())
    }

    /// Writes what is copied from elsewhere and not proved yet: until [`Stage::adopt`] none of it
    /// counts, and none is kept.
    ///
    /// # Errors
    /// What write(2) said.
    pub fn copy_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// The first so many bytes that were copied are proved.
    pub fn adopt(&mut self, length: u64) {
        (self.length, self.has_more) = (length, true);
    }

    fn truncate(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        (self.length, self.has_more) = (0, false);
        Ok(())
    }

    /// Makes the content durable.
    ///
    /// # Errors
    /// What fdatasync(2) said; it is final.
    pub fn sync(&self) -> io::Result<()> {
        match rustix::fs::fdatasync(&self.file) {
            // Some file systems have nothing to sync, and say so in this way.
            Err(Errno::INVAL) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Makes all that its file system holds durable: less than many [`Stage::sync`].
    ///
    /// # Errors
    /// What syncfs(2) said; it is final.
    pub fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.file)?)
    }

    /// Gives the file its length, its mode less the umask, and its time (seconds since 1970,
    /// nanoseconds).
    ///
    /// # Errors
    /// What the system said.
    pub fn dress(&mut self, modified: (i64, u32), mode: u32) -> io::Result<()> {
        if self.has_more {
            self.file.set_len(self.length)?;
            self.has_more = false;
        }
        if self.file_may_be_closed_to_others() {
            attributes::set_mode(&self.file, mode & !attributes::umask())?;
        }
        set_modified(&self.file, modified)
    }

    /// A small file has its mode from the beginning.
    fn file_may_be_closed_to_others(&self) -> bool {
        self.is_kept || self.length > TRANSFER_SMALL_MAX_BYTES as u64
    }

    /// Gives the file a name in its folder: in place of what has it, or only where nothing has it.
    ///
    /// # Errors
    /// `AlreadyExists` for the latter, else what renameat(2) said. It can be tried again; dropped,
    /// it is kept as an unfinished one is.
    pub fn place(&mut self, name: &OsStr, replaces: bool) -> io::Result<()> {
        let Some(part) = &self.part else { return Ok(()) };
        let (from, to) = (&self.folder, &self.folder);
        let placed = match replaces {
            true => rustix::fs::renameat(from, part, to, name),
            false => rename_new(from, part, name),
        };
        placed.map_err(|errno| with_context("cannot write", name, errno))?;
        self.part = None;
        Ok(())
    }

    /// Removes it.
    pub fn discard(mut self) {
        self.is_kept = false;
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What the disk can never hold is not begun.
        let is_hopeless = self.doubt.as_ref().is_some_and(|doubt| doubt.since == 0);
        let is_worthless = !self.is_kept || self.length == 0 || is_hopeless;
        if let Some(part) = self.part.take().filter(|_| is_worthless) {
            // Nobody is left to hear of an error, and the name says what the file was.
            let _ = rustix::fs::unlinkat(&self.folder, &part, AtFlags::empty());
        } else if self.has_more {
            // What was reserved and not filled is for others; a piece of a write is no part of it.
            let _ = self.file.set_len(self.length);
        }
    }
}

/// Refuses a name that must not be replaced: a folder, what is or links to a device, pipe or
/// socket, and a link to what a process has open.
///
/// # Errors
/// `IsADirectory` or `InvalidInput`.
pub fn check_target(folder: &OwnedFd, target: &OsStr) -> io::Result<()> {
    partfile::check_replaceable(folder, target)
}

/// Sets when a file last changed: seconds since 1970, nanoseconds.
///
/// # Errors
/// What utimensat(2) said; a file system that cannot do it is no error.
pub fn set_modified(file: &File, modified: (i64, u32)) -> io::Result<()> {
    tolerate(rustix::fs::futimens(file, &times(modified)))
}

/// The same for a link, or a folder that is open as a mere place.
///
/// # Errors
/// As [`set_modified`].
pub fn set_modified_at(folder: &OwnedFd, name: &OsStr, modified: (i64, u32)) -> io::Result<()> {
    let times = times(modified);
    tolerate(rustix::fs::utimensat(folder, name, &times, AtFlags::SYMLINK_NOFOLLOW))
}

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    // Larger numbers would be errors, and two of them have a meaning of their own.
    let nanoseconds = nanoseconds.min(999_999_999);
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
    }
}

/// Puts a link to `leads_to` under that name: in place of another link, or where there is nothing.
/// True where it was there already.
///
/// # Errors
/// `AlreadyExists` where there is something else, else what the system said.
pub fn make_link(folder: &OwnedFd, name: &OsStr, leads_to: &OsStr) -> io::Result<bool> {
    match rustix::fs::symlinkat(leads_to, folder, name) {
        Ok(()) => return Ok(false),
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(with_context("cannot make the link", name, errno)),
    }
    match rustix::fs::readlinkat(folder, name, Vec::new()) {
        Ok(old) if old.to_bytes() == leads_to.as_encoded_bytes() => return Ok(true),
        Ok(_) => partfile::check_replaceable(folder, name)?,
        // It is no link.
        Err(_) => return Err(with_context("cannot make the link", name, Errno::EXIST)),
    }
    let part = stage_name::random(name);
    rustix::fs::symlinkat(leads_to, folder, &part)?;
    rustix::fs::renameat(folder, &part, folder, name).map_err(|errno| {
        let _ = rustix::fs::unlinkat(folder, &part, AtFlags::empty());
        with_context("cannot make the link", name, errno)
    })?;
    Ok(false)
}

/// False where the file system knows no locks.
fn lock(file: &File, target: &OsStr) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Err(busy(target)),
        Err(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn open_new(folder: &OwnedFd, part: &OsStr, mode: u32) -> Result<File, Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        let mode = Mode::from_raw_mode(mode);
        match rustix::fs::openat(folder, part, flags | OFlags::RDWR, mode) {
            Err(Errno::INTR) => {}
            other => return other.map(File::from),
        }
    }
}

/// Renames where nothing has the name yet.
fn rename_new(folder: &OwnedFd, part: &OsStr, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::renameat_with(folder, part, folder, name, RenameFlags::NOREPLACE) {
        // Not every file system can do it in one step.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        other => return other,
    }
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => rustix::fs::renameat(folder, part, folder, name),
        Ok(_) => Err(Errno::EXIST),
        Err(errno) => Err(errno),
    }
}

/// Whether the name still stands for this file: who held the lock before may have renamed it.
fn is_still_there(folder: &OwnedFd, part: &OsStr, file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    match rustix::fs::statat(folder, part, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok((stat.st_dev, stat.st_ino) == (metadata.dev(), metadata.ino())),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn busy(target: &OsStr) -> io::Error {
    let text = format!("{target:?} is being written by another transfer; wait for that");
    io::Error::new(io::ErrorKind::ResourceBusy, text)
}

#[cfg(test)]
mod tests;
