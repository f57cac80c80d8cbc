//! What the data folder asks of the disk, few and small steps, and the real one.

use std::{
    fmt,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FlockOperation, Mode, OFlags},
    io::Errno,
};

use super::journal::STAGE_PREFIX;

/// The folder in the data folder that is ours alone: the journal, the lock, what is just being
/// received.
pub const OWN_FOLDER: &str = ".edge";

/// What a file takes at least, and by what it grows.
pub const BLOCK_BYTES: u64 = 4096;

/// The file there whose lock says who works in the data folder.
const LOCK: &str = "lock";

/// The names in one of the two folders, which become durable by themselves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NamesOf {
    /// The data folder, where the files of devices are.
    Files,
    /// [`OWN_FOLDER`] in it.
    Own,
}

/// The folder, with [`OWN_FOLDER`] in it; names there begin with `.edge/`. Clones stand for the
/// same one.
///
/// Every step is done as a whole or not at all, but for what [`DiskFile::write_at`] says. What
/// survives a loss of power is what was synced: bytes by [`DiskFile::sync`], names by
/// [`Disk::sync`].
pub trait Disk: Clone + fmt::Debug {
    /// An open file.
    type File: DiskFile;

    /// Opens a regular file that is there, for reading. A link is not followed.
    ///
    /// # Errors
    /// `NotFound` where there is none, and what the system says.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a regular file for reading and writing, and makes it where it is missing.
    ///
    /// # Errors
    /// What the system says.
    fn open_to_write(&self, name: &str) -> io::Result<Self::File>;

    /// Makes a file that is not there yet.
    ///
    /// # Errors
    /// `AlreadyExists` where it is, and what the system says.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name, in place of what had it.
    ///
    /// # Errors
    /// What the system says; nothing has changed then.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound` where there is none, and what the system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all changes of names in one of the folders durable.
    ///
    /// # Errors
    /// What the system says; what is durable then is not known.
    fn sync_names(&self, of: NamesOf) -> io::Result<()>;

    /// Makes all changes of names durable, in both folders.
    ///
    /// # Errors
    /// As [`Disk::sync_names`].
    fn sync(&self) -> io::Result<()> {
        // What leaves our own folder must be in the other one first: a file that is in neither of
        // them when the power goes is lost.
        self.sync_names(NamesOf::Files)?;
        self.sync_names(NamesOf::Own)
    }

    /// The names in [`OWN_FOLDER`] that begin so.
    ///
    /// # Errors
    /// What the system says.
    fn names(&self, prefix: &str) -> io::Result<Vec<String>>;
}

/// An open file, read and written by position.
pub trait DiskFile: fmt::Debug {
    /// Reads some bytes; 0 at its end.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes some of the bytes, at least one.
    ///
    /// # Errors
    /// What the system says.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Cuts it, or fills it with zeros, to this length.
    ///
    /// # Errors
    /// What the system says.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Makes its bytes and its length durable.
    ///
    /// # Errors
    /// What the system says; what is durable then is not known, and trying again tells nothing
    /// (fsync(2)).
    fn sync(&self) -> io::Result<()>;

    /// What it is now.
    ///
    /// # Errors
    /// What the system says.
    fn identity(&self) -> io::Result<Identity>;

    /// Its length in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn length(&self) -> io::Result<u64> {
        self.identity().map(|identity| identity.length)
    }

    /// Writes all bytes. On an error some may be written.
    ///
    /// # Errors
    /// What the system says.
    fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => (bytes, offset) = (&bytes[count..], offset + count as u64),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads until the buffer is full or the file ends: how many bytes there were.
    ///
    /// # Errors
    /// What the system says.
    fn fill_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// What tells one content of a file from another: every upload makes a new file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The file itself, whatever its name: device and inode.
    pub file: (u64, u64),
    /// Bytes.
    pub length: u64,
    /// Seconds and nanoseconds of the last change.
    pub modified: (i64, i64),
}

/// A folder of the machine, locked: nobody else works in it while a clone of this is alive.
#[derive(Clone, Debug)]
pub struct DataFolder(Arc<Held>);

#[derive(Debug)]
struct Held {
    folder: OwnedFd,
    own: OwnedFd,
    /// Closing it gives the lock back.
    _lock: OwnedFd,
}

impl DataFolder {
    /// Opens and locks a folder that is there.
    ///
    /// # Errors
    /// `WouldBlock` where another server has it, and what the system says.
    pub fn lock(path: &Path) -> io::Result<DataFolder> {
        DataFolder::lock_at(CWD, path)
    }

    /// The same of a folder below another one.
    ///
    /// # Errors
    /// As [`DataFolder::lock`].
    pub fn lock_at(above: impl AsFd, path: &Path) -> io::Result<DataFolder> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(above, path, flags, Mode::empty())?;
        match rustix::fs::mkdirat(&folder, OWN_FOLDER, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let own = open_at(&folder, OWN_FOLDER, flags)?;
        let lock = open_at(&own, LOCK, OFlags::RDWR | OFlags::CREATE)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            // Some network disks know no locks: there it is for the operator to start one server.
            Ok(()) | Err(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(DataFolder(Arc::new(Held { folder, own, _lock: lock })))
    }

    /// Whether the folder was removed: what is done in it is lost.
    pub fn is_gone(&self) -> bool {
        let Held { folder, own, .. } = &*self.0;
        [folder, own].iter().any(|it| rustix::fs::fstat(it).is_ok_and(|stat| stat.st_nlink == 0))
    }

    /// The room that the files of devices take, those included that are just being received.
    ///
    /// # Errors
    /// What the system says.
    pub fn stored_bytes(&self) -> io::Result<u64> {
        let Held { folder, own, .. } = &*self.0;
        let stages = STAGE_PREFIX.trim_start_matches(OWN_FOLDER).trim_start_matches('/');
        let is_stage = |name: &[u8]| name.starts_with(stages.as_bytes());
        Ok(total_of(folder, is_file_of_device)? + total_of(own, is_stage)?)
    }

    /// In which of the two folders a name is, and the name there.
    fn split<'a>(&self, name: &'a str) -> (&OwnedFd, &'a str) {
        let Held { folder, own, .. } = &*self.0;
        match name.split_once('/') {
            Some((OWN_FOLDER, name)) => (own, name),
            _ => (folder, name),
        }
    }

    fn open_regular(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let (folder, name) = self.split(name);
        let file = File::from(open_at(folder, name, flags)?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(not_regular(name)),
        }
    }
}

/// Whether it looks like a name of [`super::file_name`].
fn is_file_of_device(name: &[u8]) -> bool {
    let stem = name.strip_suffix(b".txt").unwrap_or_default();
    let number = stem.rsplit(|byte| *byte == b'-').next().unwrap_or_default();
    number.len() < stem.len() && !number.is_empty() && number.iter().all(u8::is_ascii_digit)
}

fn total_of(folder: &OwnedFd, counts: impl Fn(&[u8]) -> bool) -> io::Result<u64> {
    let mut total = 0;
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if !counts(entry.file_name().to_bytes()) {
            continue;
        }
        match rustix::fs::statat(folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                total += size.div_ceil(BLOCK_BYTES).max(1) * BLOCK_BYTES;
            }
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(total)
}

fn open_at(folder: &OwnedFd, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
    // Neither a link nor a FIFO that somebody has put there leads us astray.
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mode = Mode::RUSR | Mode::WUSR;
    loop {
        match rustix::fs::openat(folder, name, flags, mode) {
            Err(Errno::INTR) => {}
            // What O_NOFOLLOW says of a link.
            Err(Errno::LOOP) => return Err(not_regular(name)),
            other => return Ok(other?),
        }
    }
}

fn not_regular(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is no regular file"))
}

impl Disk for DataFolder {
    type File = File;

    fn open(&self, name: &str) -> io::Result<File> {
        self.open_regular(name, OFlags::RDONLY)
    }

    fn open_to_write(&self, name: &str) -> io::Result<File> {
        self.open_regular(name, OFlags::RDWR | OFlags::CREATE)
    }

    fn create(&self, name: &str) -> io::Result<File> {
        self.open_regular(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let ((from_folder, from), (to_folder, to)) = (self.split(from), self.split(to));
        Ok(rustix::fs::renameat(from_folder, from, to_folder, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let (folder, name) = self.split(name);
        Ok(rustix::fs::unlinkat(folder, name, AtFlags::empty())?)
    }

    fn sync_names(&self, of: NamesOf) -> io::Result<()> {
        let folder = match of {
            NamesOf::Files => &self.0.folder,
            NamesOf::Own => &self.0.own,
        };
        match rustix::fs::fsync(folder) {
            // Some disks have nothing to sync in a folder, and say so in this way.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn names(&self, prefix: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0.own)? {
            let entry = entry?;
            let name = format!("{OWN_FOLDER}/{}", entry.file_name().to_string_lossy());
            if name.starts_with(prefix) {
                names.push(name);
            }
        }
        Ok(names)
    }
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(self, bytes, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        File::set_len(self, length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn identity(&self) -> io::Result<Identity> {
        let metadata = self.metadata()?;
        Ok(Identity {
            file: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}
