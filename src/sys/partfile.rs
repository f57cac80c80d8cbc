//! A file being received: written under a temporary name beside its place, then put there whole.
//!
//! The final name never holds partial bytes. What is to be resumed has a [`super::stage::Stage`]
//! instead, whose name is found again.

use std::collections::hash_map::RandomState;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT,
};
use rustix::io::Errno;

/// What the names of unfinished files start with; listings leave such names out.
pub const PART_PREFIX: &str = ".part-";

/// The type of a file system that lies in memory (statfs(2)).
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// The longest name of a file that Linux file systems take, in bytes (`NAME_MAX`).
const NAME_MAX_BYTES: usize = 255;

/// How often another random name is tried if one is taken.
const NAME_ATTEMPTS: usize = 8;

/// An unfinished file. Dropped before [`PartFile::finish`], it is removed.
#[derive(Debug)]
pub struct PartFile {
    file: File,
    /// The folder of both names, held open: renaming it meanwhile changes nothing.
    folder: OwnedFd,
    /// The temporary name, as long as it exists.
    part: Option<OsString>,
    target: OsString,
    /// The mode that the file gets in the end: 0666 less the umask.
    mode: u32,
    written: u64,
}

impl PartFile {
    /// Starts a file that is to become `target`, in the same folder.
    ///
    /// # Errors
    /// `IsADirectory` for a folder, `InvalidInput` for a name that is none or that stands for a
    /// device, pipe or socket, `InvalidFilename` for one too long, else what openat(2) said. A
    /// link as target is no error: it is replaced in the end, and not followed.
    pub fn create(target: &Path) -> io::Result<Self> {
        let bytes = target.as_os_str().as_bytes();
        let name = match target.file_name() {
            Some(name) if !bytes.ends_with(b"/") && !bytes.ends_with(b"/.") => name,
            _ => return Err(names_no_file(target.as_os_str())),
        };
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(CWD, parent, flags, Mode::empty())
            .map_err(|errno| with_context("cannot open the folder", parent.as_os_str(), errno))?;
        Self::create_in(folder, name)
    }

    /// Starts a file that is to become `name` in an opened folder, such as one of
    /// [`super::files::Share::open_folder`].
    ///
    /// # Errors
    /// As [`PartFile::create`]; `InvalidInput` also if `name` holds a `/`.
    pub fn create_in(folder: OwnedFd, name: &OsStr) -> io::Result<Self> {
        let bytes = name.as_bytes();
        if matches!(bytes, b"" | b"." | b"..") || bytes.iter().any(|&b| b == b'/' || b == 0) {
            return Err(names_no_file(name));
        }
        check_replaceable(&folder, name)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for _ in 0..NAME_ATTEMPTS {
            let part = part_name(name);
            let mode = Mode::from_raw_mode(0o666);
            match rustix::fs::openat(&folder, &part, flags | OFlags::RDWR, mode) {
                Ok(opened) => return Self::begin(File::from(opened), folder, part, name),
                Err(Errno::EXIST | Errno::INTR) => {}
                Err(errno) => return Err(with_context("cannot write", name, errno)),
            }
        }
        Err(with_context("cannot find a temporary name for", name, Errno::EXIST))
    }

    fn begin(file: File, folder: OwnedFd, part: OsString, target: &OsStr) -> io::Result<Self> {
        let mut begun =
            Self { file, folder, part: Some(part), target: target.to_owned(), mode: 0, written: 0 };
        // The kernel applied the umask to 0666, and asking it any other way would change it for
        // all threads. So the mode is taken from the file while that is still empty.
        begun.mode = begun.file.metadata()?.permissions().mode() & 0o777;
        begun.set_mode(0o600)?;
        Ok(begun)
    }

    /// Takes the whole space now, so that a full disk shows before anything is sent. The length of
    /// the file stays as it is (fallocate(2)). On a tmpfs the space is only looked for.
    ///
    /// # Errors
    /// `StorageFull` or `FileTooLarge`; a file system that cannot do it is no error.
    pub fn preallocate(&self, size_bytes: u64) -> io::Result<()> {
        preallocate(&self.file, size_bytes)
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// What write(2) said; the file is then worthless and is best dropped.
    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Bytes written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The file, for reading back by position.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its time (seconds since 1970, nanoseconds), its mode and its name, in place
    /// of whatever file had that name. With `sync` both content and name survive a loss of power.
    ///
    /// # Errors
    /// What the system said; then nothing is left, unless the very last step, making the name
    /// itself durable, failed.
    pub fn finish(mut self, modified: Option<(i64, u32)>, sync: bool) -> io::Result<()> {
        // Gives back what was taken beyond the last byte written.
        self.file.set_len(self.written)?;
        self.set_mode(self.mode)?;
        if let Some((seconds, nanoseconds)) = modified {
            self.set_modified(seconds, nanoseconds)?;
        }
        if sync {
            self.file.sync_data()?;
        }
        let part = self.part.take().expect("the temporary name exists until finish or drop");
        if let Err(errno) = rustix::fs::renameat(&self.folder, &part, &self.folder, &self.target) {
            self.part = Some(part);
            return Err(with_context("cannot write", &self.target, errno));
        }
        if sync {
            // The folder was opened as a mere place; syncing it wants a real descriptor.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = rustix::fs::openat(&self.folder, ".", flags, Mode::empty())?;
            rustix::fs::fsync(folder)?;
        }
        Ok(())
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        tolerate(rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode)))
    }

    fn set_modified(&self, seconds: i64, nanoseconds: u32) -> io::Result<()> {
        // Larger numbers would be errors, and two of them have a meaning of their own.
        let nanoseconds = nanoseconds.min(999_999_999);
        tolerate(rustix::fs::futimens(
            &self.file,
            &Timestamps {
                last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
            },
        ))
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            // Nobody is left to hear of an error, and the name says what the file was.
            let _ = rustix::fs::unlinkat(&self.folder, part, AtFlags::empty());
        }
    }
}

/// Looks whether the file system has room for so many bytes more.
///
/// # Errors
/// `StorageFull`.
pub(super) fn check_room(file: &File, size_bytes: u64) -> io::Result<()> {
    let disk = rustix::fs::fstatfs(file)?;
    // Some is kept back for root.
    let is_root = rustix::process::geteuid().is_root();
    let blocks = if is_root { disk.f_bfree } else { disk.f_bavail };
    let free = blocks.saturating_mul(disk.f_bsize.unsigned_abs());
    // One that does not know its size does not know what is free either.
    let fits = disk.f_blocks == 0 || size_bytes <= free;
    if fits { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
}

/// See [`PartFile::preallocate`].
pub(super) fn preallocate(file: &File, size_bytes: u64) -> io::Result<()> {
    if size_bytes == 0 {
        return Ok(());
    }
    let disk = rustix::fs::fstatfs(file)?;
    if disk.f_type == TMPFS_MAGIC {
        // In memory, taking the space costs as much as filling it: half a second for 2 GiB in
        // which nothing is received. To look whether it is there must do.
        let free = disk.f_bavail.saturating_mul(disk.f_bsize.unsigned_abs());
        let fits = disk.f_blocks == 0 || size_bytes <= free;
        return if fits { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) };
    }
    loop {
        let flags = FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(file, flags, 0, size_bytes) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The temporary name for `target`: `.part-<target>-<16 random hex digits>`, cut to 255 bytes.
fn part_name(target: &OsStr) -> OsString {
    // Each state has keys from the system's random source, which makes its hash of nothing a
    // number that others cannot guess.
    let ending = format!("-{:016x}", RandomState::new().build_hasher().finish());
    let room = NAME_MAX_BYTES - PART_PREFIX.len() - ending.len();
    let bytes = target.as_bytes();
    let mut cut = bytes.len().min(room);
    // Not into the middle of a character, where the name is UTF-8.
    while cut < bytes.len() && cut + 3 > room && bytes[cut] & 0xc0 == 0x80 {
        cut -= 1;
    }
    let mut name = Vec::with_capacity(NAME_MAX_BYTES);
    name.extend_from_slice(PART_PREFIX.as_bytes());
    name.extend_from_slice(&bytes[..cut]);
    name.extend_from_slice(ending.as_bytes());
    OsString::from_vec(name)
}

/// Refuses a target that must not be replaced: a folder, and whatever is or links to a device,
/// pipe or socket (`/dev/null`, `/dev/stdout`), which root could destroy for the whole machine.
pub(super) fn check_replaceable(folder: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let look = |flags| rustix::fs::statat(folder, name, flags);
    let kind = match look(AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(with_context("cannot write", name, errno)),
    };
    let kind = match kind {
        FileType::Directory => return Err(with_context("cannot write", name, Errno::ISDIR)),
        FileType::Symlink => match look(AtFlags::empty()) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode),
            // It leads nowhere.
            Err(_) => return Ok(()),
        },
        other => other,
    };
    match kind {
        FileType::RegularFile | FileType::Directory => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name:?} is a device, pipe or socket and not replaced; choose another name"),
        )),
    }
}

/// Takes for done what a file system cannot do (FAT has no modes) and what no content hangs on.
pub(super) fn tolerate(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(()),
        other => Ok(other?),
    }
}

pub(super) fn names_no_file(name: &OsStr) -> io::Error {
    let text = format!("{name:?} names no file; give a file name");
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// The error with the name it is about, escaped since it may come from anybody; its kind stays.
pub(super) fn with_context(what: &str, name: &OsStr, errno: Errno) -> io::Error {
    let error = io::Error::from(errno);
    io::Error::new(error.kind(), format!("{what} {name:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_whole_with_its_time_and_mode() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("client_a.txt");
        let plain = folder.path().join("plain");
        fs::write(&plain, "").unwrap();
        let usual_mode = fs::metadata(&plain).unwrap().mode();

        let mut part = PartFile::create(&target).unwrap();
        part.preallocate(1 << 20).unwrap();
        part.write_all(b"hello ").unwrap();
        part.write_all(b"world").unwrap();
        assert_eq!(part.written(), 11);
        let mut start = [0; 5];
        part.file().read_exact_at(&mut start, 0).unwrap();
        assert_eq!(&start, b"hello");
        let during = names(folder.path());
        assert_eq!(during.len(), 2);
        assert!(during[0].starts_with(".part-client_a.txt-"), "{during:?}");
        assert_eq!(part.file().metadata().unwrap().mode() & 0o777, 0o600);
        assert!(!target.exists());

        part.finish(Some((1_600_000_000, 500_000_000)), true).unwrap();
        assert_eq!(names(folder.path()), ["client_a.txt", "plain"]);
        assert_eq!(fs::read(&target).unwrap(), b"hello world");
        let metadata = fs::metadata(&target).unwrap();
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_600_000_000, 500_000_000));
        assert_eq!(metadata.mode(), usual_mode);
        assert!(metadata.blocks() * 512 < 1 << 20, "space beyond the end is given back");
    }

    #[test]
    fn an_earlier_file_of_the_name_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        fs::write(&target, "a longer old content").unwrap();
        let mut part = PartFile::create(&target).unwrap();
        part.write_all(b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"a longer old content");
        part.finish(None, false).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
    }

    #[test]
    fn an_empty_file_and_odd_times_are_fine() {
        let folder = tempfile::tempdir().unwrap();
        for (name, modified) in [("old", (-86_400, 7)), ("odd", (0, u32::MAX))] {
            let target = folder.path().join(name);
            let part = PartFile::create(&target).unwrap();
            part.preallocate(0).unwrap();
            part.finish(Some(modified), false).unwrap();
            let metadata = fs::metadata(&target).unwrap();
            assert_eq!((metadata.len(), metadata.mtime()), (0, modified.0));
        }
    }

    #[test]
    fn an_unfinished_file_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        fs::write(&target, "old").unwrap();
        let mut part = PartFile::create(&target).unwrap();
        part.write_all(b"partial").unwrap();
        drop(part);
        assert_eq!(names(folder.path()), ["a"]);
        assert_eq!(fs::read(&target).unwrap(), b"old");
    }

    #[test]
    fn a_name_that_became_a_folder_fails_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        let part = PartFile::create(&target).unwrap();
        fs::create_dir(&target).unwrap();
        let error = part.finish(None, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let precious = folder.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        for (name, points_to) in [("link", "precious"), ("dangling", "none"), ("folder", ".")] {
            let target = folder.path().join(name);
            symlink(points_to, &target).unwrap();
            let mut part = PartFile::create(&target).unwrap();
            part.write_all(b"new").unwrap();
            part.finish(None, false).unwrap();
            assert!(fs::symlink_metadata(&target).unwrap().is_file(), "{name}");
            assert_eq!(fs::read(&target).unwrap(), b"new");
        }
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
    }

    #[test]
    fn folders_devices_and_no_names_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let inside = |name: &str| folder.path().join(name);
        fs::create_dir(inside("sub")).unwrap();
        symlink("/dev/null", inside("null")).unwrap();
        for (target, kind) in [
            (inside("sub"), io::ErrorKind::IsADirectory),
            (inside("sub/"), io::ErrorKind::InvalidInput),
            (inside("new/"), io::ErrorKind::InvalidInput),
            (inside("new/."), io::ErrorKind::InvalidInput),
            (inside(".."), io::ErrorKind::InvalidInput),
            ("/".into(), io::ErrorKind::InvalidInput),
            ("".into(), io::ErrorKind::InvalidInput),
            ("/dev/null".into(), io::ErrorKind::InvalidInput),
            (inside("null"), io::ErrorKind::InvalidInput),
            (inside("none/a"), io::ErrorKind::NotFound),
            (inside(&"n".repeat(256)), io::ErrorKind::InvalidFilename),
        ] {
            let error = PartFile::create(&target).unwrap_err();
            assert_eq!(error.kind(), kind, "{target:?}: {error}");
        }
        let opened: OwnedFd = File::open(folder.path()).unwrap().into();
        let error = PartFile::create_in(opened, OsStr::new("sub/a")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(names(folder.path()), ["null", "sub"]);
    }

    #[test]
    fn the_longest_names_work() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["n".repeat(255), "ü".repeat(127), "\u{1f600}".repeat(63)] {
            let mut part = PartFile::create(&folder.path().join(&name)).unwrap();
            part.write_all(b"x").unwrap();
            let temporary = part_name(OsStr::new(&name));
            assert!(temporary.len() <= NAME_MAX_BYTES);
            assert!(temporary.to_str().is_some(), "no character is cut in two");
            part.finish(None, false).unwrap();
        }
        assert_eq!(names(folder.path()).len(), 3);
        let bytes = [0x80; 255];
        assert!(part_name(OsStr::from_bytes(&bytes)).len() <= NAME_MAX_BYTES);
        assert_ne!(part_name(OsStr::new("a")), part_name(OsStr::new("a")));
    }

    #[test]
    fn a_size_beyond_all_disks_fails_early() {
        let folder = tempfile::tempdir().unwrap();
        let part = PartFile::create(&folder.path().join("a")).unwrap();
        let error = part.preallocate(1 << 62).unwrap_err();
        let early = [io::ErrorKind::StorageFull, io::ErrorKind::FileTooLarge];
        assert!(early.contains(&error.kind()), "{error}");
    }

    #[test]
    fn in_memory_the_space_is_looked_for_and_not_taken() {
        let Ok(folder) = tempfile::tempdir_in("/dev/shm") else {
            println!("skipped: this host has no /dev/shm to write to");
            return;
        };
        let part = PartFile::create(&folder.path().join("big")).unwrap();
        part.preallocate(1 << 20).unwrap();
        assert_eq!(part.file().metadata().unwrap().blocks(), 0);
        let error = part.preallocate(1 << 60).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
