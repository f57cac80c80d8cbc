//! A file being received that may be gone on with later: its temporary name is always the same.
//!
//! Who writes it holds a lock (flock(2)), which the kernel drops with the process, however that
//! ends. The final name never holds partial bytes. Small files are not worth going on with: they
//! get a random name and no lock.

use std::collections::hash_map::RandomState;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT,
};
use rustix::io::Errno;

use super::partfile::{self, PART_PREFIX, tolerate, with_context};
use crate::limits::RESERVE_AHEAD_MAX_BYTES;

/// The longest name of a file that Linux file systems take, in bytes (`NAME_MAX`).
const NAME_MAX_BYTES: usize = 255;

/// How often a name is tried again that somebody else takes or frees at the same time.
const ATTEMPTS: usize = 8;

/// An unfinished file, open for reading and writing. Dropped, it is kept if it may be gone on with
/// and holds something.
#[derive(Debug)]
pub struct Stage {
    file: File,
    folder: Arc<OwnedFd>,
    /// The temporary name, as long as it exists.
    part: Option<OsString>,
    target: OsString,
    length: u64,
    is_kept: bool,
    /// How long it is to become, where that is known.
    expected: u64,
    /// The disk keeps room for so many bytes of it; beyond its length that is given back.
    reserved: u64,
}

impl Stage {
    /// What an earlier attempt has left of `target`, locked; `None` if there is nothing.
    ///
    /// # Errors
    /// `ResourceBusy` while somebody else writes it, else what the system said.
    pub fn find(folder: &Arc<OwnedFd>, target: &OsStr) -> io::Result<Option<Stage>> {
        let part = stable_name(target);
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match rustix::fs::openat(folder, &part, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            // What is no file of ours is no part of ours.
            Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR | Errno::ACCESS) => return Ok(None),
            Err(errno) => return Err(with_context("cannot write", target, errno)),
        };
        let metadata = file.metadata()?;
        let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
        if !metadata.is_file() || metadata.nlink() != 1 || !is_ours {
            return Ok(None);
        }
        Stage::lock(&file, target)?;
        if !is_still_there(folder, &part, &file)? {
            return Ok(None);
        }
        let (folder, target) = (folder.clone(), target.to_owned());
        let length = file.metadata()?.len();
        let (part, is_kept) = (Some(part), true);
        let (expected, reserved) = (0, length);
        Ok(Some(Stage { file, folder, part, target, length, is_kept, expected, reserved }))
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
        let part = stable_name(target);
        for _ in 0..ATTEMPTS {
            match open_new(folder, &part, 0o600) {
                Ok(file) => {
                    Stage::lock(&file, target)?;
                    if is_still_there(folder, &part, &file)? {
                        return Ok(Stage::new(file, folder, part, target, true));
                    }
                }
                Err(Errno::EXIST) => {
                    // Whatever it is, it is not what an attempt of ours has left.
                    let removed = rustix::fs::unlinkat(folder, &part, AtFlags::empty());
                    removed.map_err(|errno| with_context("cannot write", target, errno))?;
                }
                Err(errno) => return Err(with_context("cannot write", target, errno)),
            }
        }
        Err(busy(target))
    }

    /// An empty file that is to become `target` soon, under a name that nobody can guess.
    ///
    /// # Errors
    /// As [`Stage::create`].
    pub fn create_small(
        folder: &Arc<OwnedFd>,
        target: &OsStr,
        is_executable: bool,
    ) -> io::Result<Stage> {
        for _ in 0..ATTEMPTS {
            let part = name_with(target, RandomState::new().build_hasher().finish());
            // The kernel takes away what the umask forbids.
            let mode = if is_executable { 0o777 } else { 0o666 };
            match open_new(folder, &part, mode) {
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
        let part = Some(part);
        let (length, expected, reserved) = (0, 0, 0);
        Stage { file, folder, part, target, length, is_kept, expected, reserved }
    }

    fn lock(file: &File, target: &OsStr) -> io::Result<()> {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Err(busy(target)),
            other => Ok(other?),
        }
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

    /// Looks whether the disk has room for so many bytes, so that a full one shows early. Room is
    /// taken as the bytes come, some ahead of them: who only announces a file holds nothing.
    ///
    /// # Errors
    /// `StorageFull`.
    pub fn preallocate(&mut self, size_bytes: u64) -> io::Result<()> {
        self.expected = size_bytes;
        partfile::check_room(&self.file, size_bytes.saturating_sub(self.length))
    }

    /// Takes room for what comes next: for as much as has come already, within bounds.
    fn reserve(&mut self, end: u64) {
        if end <= self.reserved || self.expected <= end {
            return;
        }
        self.reserved = self.expected.min(end + end.min(RESERVE_AHEAD_MAX_BYTES));
        // Where there is no more room, the bytes themselves may still fit.
        if let Err(error) = partfile::preallocate(&self.file, self.reserved) {
            log::debug!("no room is taken ahead: {error}");
        }
    }

    fn give_back(&mut self) -> io::Result<()> {
        if self.reserved > self.length {
            self.reserved = self.length;
            self.file.set_len(self.length)?;
        }
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
    /// What write(2) said.
    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reserve(self.length + bytes.len() as u64);
        if self.length == 0 || !self.is_kept {
            self.file.write_all(bytes)?;
        } else {
            self.file.write_all_at(bytes, self.length)?;
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn truncate(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        (self.length, self.reserved) = (0, 0);
        Ok(())
    }

    /// Makes the content durable.
    ///
    /// # Errors
    /// What fdatasync(2) said; it is final.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Makes all that its file system holds durable: less than many [`Stage::sync`].
    ///
    /// # Errors
    /// What syncfs(2) said; it is final.
    pub fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.file)?)
    }

    /// Gives the file its mode and its time (seconds since 1970, nanoseconds).
    ///
    /// # Errors
    /// What the system said.
    pub fn dress(&mut self, modified: (i64, u32), is_executable: bool) -> io::Result<()> {
        self.give_back()?;
        if self.is_kept {
            set_mode(&self.file, is_executable)?;
        }
        set_modified(&self.file, modified)
    }

    /// Gives the file its name, in place of whatever file had it.
    ///
    /// # Errors
    /// What renameat(2) said; nothing is left then.
    pub fn finish(mut self) -> io::Result<()> {
        let part = self.part.take().expect("the temporary name exists until then");
        match rustix::fs::renameat(&self.folder, &part, &self.folder, &self.target) {
            Ok(()) => Ok(()),
            Err(errno) => {
                let _ = rustix::fs::unlinkat(&self.folder, &part, AtFlags::empty());
                Err(with_context("cannot write", &self.target, errno))
            }
        }
    }

    /// Removes it.
    pub fn discard(mut self) {
        self.is_kept = false;
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let is_worthless = !self.is_kept || self.length == 0;
        if let Some(part) = self.part.take().filter(|_| is_worthless) {
            // Nobody is left to hear of an error, and the name says what the file was.
            let _ = rustix::fs::unlinkat(&self.folder, &part, AtFlags::empty());
        } else {
            // The one that goes on with it asks for room again.
            let _ = self.give_back();
        }
    }
}

/// Refuses a name that must not be replaced: a folder, and what is or links to a device, pipe or
/// socket.
///
/// # Errors
/// `IsADirectory` or `InvalidInput`.
pub fn check_target(folder: &OwnedFd, target: &OsStr) -> io::Result<()> {
    partfile::check_replaceable(folder, target)
}

/// Gives a file the mode of a new one, with or without the right to execute it; never setuid.
///
/// # Errors
/// What fchmod(2) said; a file system without modes is no error.
pub fn set_mode(file: &File, is_executable: bool) -> io::Result<()> {
    let mode = if is_executable { 0o777 } else { 0o666 } & !umask();
    tolerate(rustix::fs::fchmod(file, Mode::from_raw_mode(mode)))
}

/// Sets when a file last changed: seconds since 1970, nanoseconds.
///
/// # Errors
/// What utimensat(2) said; a file system that cannot do it is no error.
pub fn set_modified(file: &File, (seconds, nanoseconds): (i64, u32)) -> io::Result<()> {
    // Larger numbers would be errors, and two of them have a meaning of their own.
    let nanoseconds = nanoseconds.min(999_999_999);
    tolerate(rustix::fs::futimens(
        file,
        &Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
        },
    ))
}

/// Removes what dead transfers left in the folder more than `age` ago, and nobody writes.
///
/// # Errors
/// The folder cannot be read.
pub fn sweep(folder: impl AsFd, age: Duration) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(&folder, ".", flags, Mode::empty())?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let oldest = now.saturating_sub(age).as_secs();
    for found in Dir::read_from(&opened)? {
        let found = found?;
        let name = found.file_name();
        if !name.to_bytes().starts_with(PART_PREFIX.as_bytes()) {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let Ok(file) = rustix::fs::openat(&folder, name, flags, Mode::empty()) else { continue };
        let Ok(stat) = rustix::fs::fstat(&file) else { continue };
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let is_old = u64::try_from(stat.st_mtime).is_ok_and(|at| at < oldest);
        let is_free = || rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if is_file && is_old && is_free() {
            let _ = rustix::fs::unlinkat(&folder, name, AtFlags::empty());
        }
    }
    Ok(())
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

/// `.part-<target>`, or, where that is too long, `.part-<beginning>-<hash>`.
fn stable_name(target: &OsStr) -> OsString {
    let bytes = target.as_bytes();
    if PART_PREFIX.len() + bytes.len() <= NAME_MAX_BYTES {
        return OsString::from_vec([PART_PREFIX.as_bytes(), bytes].concat());
    }
    let hash = *blake3::hash(bytes).as_bytes();
    let number = u64::from_be_bytes(*hash.first_chunk().expect("a hash has 32 bytes"));
    name_with(target, number)
}

fn name_with(target: &OsStr, number: u64) -> OsString {
    let ending = format!("-{number:016x}");
    let room = NAME_MAX_BYTES - PART_PREFIX.len() - ending.len();
    let bytes = target.as_bytes();
    let beginning = &bytes[..bytes.len().min(room)];
    OsString::from_vec([PART_PREFIX.as_bytes(), beginning, ending.as_bytes()].concat())
}

/// What new files of this process are not permitted (umask(2)). Asking the kernel by the call
/// would change it for all threads; proc(5) tells as well.
fn umask() -> u32 {
    static UMASK: OnceLock<u32> = OnceLock::new();
    *UMASK.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        line.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o022)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use super::*;

    fn folder_of(path: &Path) -> Arc<OwnedFd> {
        Arc::new(File::open(path).expect("a folder").into())
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).expect("a folder");
        let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<_> = entries.map(|it| name(it).into_string().expect("text")).collect();
        names.sort();
        names
    }

    fn allocated(path: &Path) -> u64 {
        fs::metadata(path).expect("a file").blocks() * 512
    }

    #[test]
    fn room_is_taken_as_bytes_come_and_given_back_when_they_end() {
        let temporary = tempfile::tempdir().expect("a folder");
        let (folder, name) = (folder_of(temporary.path()), OsStr::new("a"));
        let part = temporary.path().join(stable_name(name));
        let mut stage = Stage::create(&folder, name).expect("a stage");
        stage.preallocate(8 << 20).expect("room");
        stage.write_all(b"x").expect("room");
        assert!(allocated(&part) < 1 << 20, "one byte takes {}", allocated(&part));
        stage.write_all(&vec![1; 1 << 20]).expect("room");
        assert!(allocated(&part) <= 3 << 20, "{}", allocated(&part));
        drop(stage);
        assert!(allocated(&part) < 3 << 19, "{} are kept", allocated(&part));
        let mut stage = Stage::find(&folder, name).expect("no error").expect("it is there");
        stage.preallocate(8 << 20).expect("room");
        stage.write_all(&vec![2; 7 << 20]).expect("room");
        assert_eq!(stage.length(), (8 << 20) + 1);
        let error = stage.preallocate(1 << 60).expect_err("no disk is that large");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        stage.discard();
        assert!(names(temporary.path()).is_empty());
    }

    #[test]
    fn what_was_written_is_found_again_and_gone_on_with() {
        let temporary = tempfile::tempdir().expect("a folder");
        let (folder, name) = (folder_of(temporary.path()), OsStr::new("a"));
        let mut stage = Stage::create(&folder, name).expect("a stage");
        stage.write_all(b"he").expect("room");
        assert_eq!(Stage::create(&folder, name).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        drop(stage);
        assert_eq!(names(temporary.path()), [".part-a"]);
        let mut stage = Stage::find(&folder, name).expect("no error").expect("it is there");
        assert_eq!(stage.length(), 2);
        stage.write_all(b"llo").expect("room");
        stage.dress((1_000_000_000, 5), true).expect("a mode");
        stage.finish().expect("a name");
        assert_eq!(names(temporary.path()), ["a"]);
        let path = temporary.path().join("a");
        assert_eq!(fs::read(&path).expect("the file"), b"hello");
        let metadata = fs::metadata(&path).expect("the file");
        assert_eq!(metadata.mtime(), 1_000_000_000);
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o777 & !umask());
    }

    #[test]
    fn what_is_empty_discarded_or_small_leaves_nothing() {
        let temporary = tempfile::tempdir().expect("a folder");
        let (folder, name) = (folder_of(temporary.path()), OsStr::new("a"));
        drop(Stage::create(&folder, name).expect("a stage"));
        for small in [false, true] {
            let mut stage = match small {
                true => Stage::create_small(&folder, name, false),
                false => Stage::create(&folder, name),
            }
            .expect("a stage");
            stage.write_all(b"x").expect("room");
            match small {
                true => drop(stage),
                false => stage.discard(),
            }
        }
        assert_eq!(names(temporary.path()), [""; 0]);
    }

    #[test]
    fn a_stage_that_is_a_link_or_a_folder_of_another_is_not_written_through() {
        let temporary = tempfile::tempdir().expect("a folder");
        let (folder, name) = (folder_of(temporary.path()), OsStr::new("a"));
        let precious = temporary.path().join("precious");
        fs::write(&precious, b"precious").expect("a file");
        symlink(&precious, temporary.path().join(".part-a")).expect("a link");
        assert!(Stage::find(&folder, name).expect("no error").is_none());
        let mut stage = Stage::create(&folder, name).expect("a stage");
        stage.write_all(b"new").expect("room");
        drop(stage);
        fs::remove_file(temporary.path().join(".part-a")).expect("it is there");
        fs::hard_link(&precious, temporary.path().join(".part-a")).expect("a link");
        let mut stage = Stage::create(&folder, name).expect("a stage");
        stage.write_all(b"new").expect("room");
        stage.finish().expect("a name");
        assert_eq!(fs::read(&precious).expect("the file"), b"precious");
    }

    #[test]
    fn only_what_is_old_and_free_is_swept() {
        let temporary = tempfile::tempdir().expect("a folder");
        let folder = folder_of(temporary.path());
        let mut held = Stage::create(&folder, OsStr::new("held")).expect("a stage");
        held.write_all(b"x").expect("room");
        for name in [".part-old", ".part-new", "old"] {
            fs::write(temporary.path().join(name), b"x").expect("a file");
        }
        for name in [".part-old", ".part-held", "old"] {
            let file = File::open(temporary.path().join(name)).expect("a file");
            set_modified(&file, (1_000_000_000, 0)).expect("a time");
        }
        sweep(&folder, Duration::from_secs(86_400)).expect("a folder");
        assert_eq!(names(temporary.path()), [".part-held", ".part-new", "old"]);
    }

    #[test]
    fn the_longest_names_have_a_stage_of_their_own() {
        let (one, other) = ("n".repeat(255), format!("{}m", "n".repeat(254)));
        let (one, other) = (stable_name(OsStr::new(&one)), stable_name(OsStr::new(&other)));
        assert!(one.len() <= NAME_MAX_BYTES && other.len() <= NAME_MAX_BYTES);
        assert_ne!(one, other);
    }
}
