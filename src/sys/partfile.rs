//! A file being received: written under a temporary name beside its place, then put there whole.
//!
//! The final name never holds partial bytes. What is to be resumed has a [`super::stage::Stage`]
//! instead, whose name is found again.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, Timespec,
    Timestamps, UTIME_OMIT,
};
use rustix::io::Errno;

use super::stage::{attributes, space::DiskRoom};
use super::{descriptors, stage_name};

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
    space: DiskRoom,
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
            let part = stage_name::random(name);
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
        let (part, target) = (Some(part), target.to_owned());
        let space = DiskRoom::default();
        let mut begun = Self { file, folder, part, target, mode: 0, written: 0, space };
        // The kernel applied the umask to 0666, and asking it any other way would change it for
        // all threads. So the mode is taken from the file while that is still empty.
        begun.mode = begun.file.metadata()?.permissions().mode() & 0o777;
        begun.set_mode(0o600)?;
        Ok(begun)
    }

    /// So many bytes it is to have: a disk that has no room for them shows before anything is
    /// sent. The room is taken little by little, as they come.
    ///
    /// # Errors
    /// `StorageFull` or `FileTooLarge`.
    pub fn expect(&mut self, size_bytes: u64) -> io::Result<()> {
        self.space = DiskRoom::of(&self.file, self.written, size_bytes)?;
        Ok(())
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// What write(2) said; the file is then worthless and is best dropped.
    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.written + bytes.len() as u64;
        self.space.reserve(&self.file, self.written, end);
        self.file.write_all(bytes)?;
        self.written = end;
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
        // What is replaced keeps its permissions and its owner.
        attributes::take_over(&self.file, &self.folder, &self.target, None);
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

/// Refuses a target that must not be replaced: a folder, whatever is or links to a device, pipe or
/// socket (`/dev/null`), which root could destroy for the whole machine, and a link of the system
/// or to what a process has open (`/dev/stdout`), even where that is a file.
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
            Ok(_) if is_of_the_system(folder, name) => return Err(not_replaced(name, "link")),
            Ok(stat) => FileType::from_raw_mode(stat.st_mode),
            // It leads nowhere.
            Err(_) => return Ok(()),
        },
        other => other,
    };
    match kind {
        FileType::RegularFile | FileType::Directory => check_not_fixed(folder, name),
        _ => Err(not_replaced(name, "device, pipe or socket")),
    }
}

/// Refuses a file that cannot be given up: renaming another one to its name would fail, after all
/// bytes had come. A kernel that does not tell of such things is no error.
fn check_not_fixed(folder: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let asked = rustix::fs::statx(folder, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS);
    let Ok(stat) = asked else { return Ok(()) };
    let is = |what| stat.stx_attributes.intersects(what);
    let why = match () {
        () if is(StatxAttributes::MOUNT_ROOT) => "is mounted there by itself (a bind mount)",
        () if is(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND) => {
            "is immutable or may only grow (chattr)"
        }
        () => return Ok(()),
    };
    let text = format!("{name:?} {why} and cannot be replaced; choose another name");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

/// The file that is written where somebody names `path`: behind a link to a regular file it is that
/// file, as for a shell. Links of the system are left to be refused.
#[must_use]
pub fn behind_link(path: &Path) -> PathBuf {
    let is_link = path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    let is_file = path.metadata().is_ok_and(|metadata| metadata.is_file());
    if !is_link || !is_file {
        return path.to_owned();
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = File::open(parent.unwrap_or(Path::new("."))).map(OwnedFd::from);
    match (folder, path.file_name()) {
        (Ok(folder), Some(name)) if !is_of_the_system(&folder, name) => {
            path.canonicalize().unwrap_or_else(|_| path.to_owned())
        }
        _ => path.to_owned(),
    }
}

fn not_replaced(name: &OsStr, what: &str) -> io::Error {
    let text = match what {
        "link" => format!(
            "{name:?} is a link of the system or to what a process has open, and not replaced; \
             choose another name, or - for standard output"
        ),
        _ => format!("{name:?} is a {what} and not replaced; choose another name"),
    };
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// Whether a link lies in `/dev` or `/proc`, or leads through what a process has open.
fn is_of_the_system(folder: &OwnedFd, name: &OsStr) -> bool {
    let same = |path: &str| {
        let own = rustix::fs::fstat(folder);
        let other = rustix::fs::statat(CWD, path, AtFlags::empty());
        matches!((own, other), (Ok(own), Ok(other))
            if (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino))
    };
    let is_proc = rustix::fs::fstatfs(folder).is_ok_and(|disk| disk.f_type == PROC_MAGIC);
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let plain = ResolveFlags::NO_MAGICLINKS;
    let opened = rustix::fs::openat2(folder, name, flags, Mode::empty(), plain);
    is_proc || same("/dev") || opened.is_err_and(|errno| errno == Errno::LOOP)
}

/// The type of the file system of processes (statfs(2)).
const PROC_MAGIC: rustix::fs::FsWord = 0x9fa0;

/// Takes for done what a file system cannot do (FAT has no modes, others no such time) and what no
/// content hangs on.
pub(super) fn tolerate(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => Ok(()),
        other => Ok(other?),
    }
}

pub(super) fn names_no_file(name: &OsStr) -> io::Error {
    let text = format!("{name:?} names no file; give a file name");
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// The error with the name it is about, escaped since it may come from anybody; its kind stays.
/// That too many files are open has nothing to do with the name.
pub(super) fn with_context(what: &str, name: &OsStr, errno: Errno) -> io::Error {
    let error = io::Error::from(errno);
    if descriptors::are_used_up(&error) {
        return error;
    }
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
        part.expect(1 << 20).unwrap();
        part.write_all(b"hello ").unwrap();
        part.write_all(b"world").unwrap();
        assert_eq!(part.written(), 11);
        let mut start = [0; 5];
        part.file().read_exact_at(&mut start, 0).unwrap();
        assert_eq!(&start, b"hello");
        let during = names(folder.path());
        assert_eq!(during.len(), 2);
        assert!(during[0].starts_with(".client_a.txt."), "{during:?}");
        assert!(stage_name::is_stage_name(during[0].as_bytes()), "{during:?}");
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
            let mut part = PartFile::create(&target).unwrap();
            part.expect(0).unwrap();
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
    fn a_file_that_cannot_be_given_up_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("fixed");
        fs::write(&target, "old").unwrap();
        let file = File::open(&target).unwrap();
        if rustix::fs::ioctl_setflags(&file, rustix::fs::IFlags::IMMUTABLE).is_err() {
            println!("skipped: files cannot be made immutable here");
            return;
        }
        let error = PartFile::create(&target).map(drop);
        rustix::fs::ioctl_setflags(&file, rustix::fs::IFlags::empty()).unwrap();
        let error = error.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("immutable"), "{error}");
        assert_eq!(names(folder.path()), ["fixed"]);
        PartFile::create(&target).unwrap();
    }

    #[test]
    fn the_longest_names_work() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["n".repeat(255), "ü".repeat(127), "\u{1f600}".repeat(63)] {
            let mut part = PartFile::create(&folder.path().join(&name)).unwrap();
            part.write_all(b"x").unwrap();
            part.finish(None, false).unwrap();
        }
        assert_eq!(names(folder.path()).len(), 3);
    }

    #[test]
    fn a_size_beyond_all_disks_fails_early() {
        let folder = tempfile::tempdir().unwrap();
        let mut part = PartFile::create(&folder.path().join("a")).unwrap();
        let error = part.expect(1 << 62).unwrap_err();
        let early = [io::ErrorKind::StorageFull, io::ErrorKind::FileTooLarge];
        assert!(early.contains(&error.kind()), "{error}");
    }

    #[test]
    fn in_memory_the_space_is_looked_for_and_not_taken() {
        let Ok(folder) = tempfile::tempdir_in("/dev/shm") else {
            println!("skipped: this host has no /dev/shm to write to");
            return;
        };
        let mut part = PartFile::create(&folder.path().join("big")).unwrap();
        part.expect(1 << 20).unwrap();
        assert_eq!(part.file().metadata().unwrap().blocks(), 0);
        let error = part.expect(1 << 60).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_file_is_written_behind_a_link_but_not_behind_one_of_the_system() {
        let folder = tempfile::tempdir().unwrap();
        let inside = |name: &str| folder.path().join(name);
        fs::write(inside("real"), "old").unwrap();
        symlink("real", inside("link")).unwrap();
        symlink("none", inside("dangling")).unwrap();
        let real = inside("real").canonicalize().unwrap();
        assert_eq!(behind_link(&inside("link")), real);
        for name in ["real", "dangling", "missing"] {
            assert_eq!(behind_link(&inside(name)), inside(name));
        }
        let open = File::open(inside("real")).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&open);
        symlink(format!("/proc/self/fd/{fd}"), inside("magic")).unwrap();
        assert_eq!(behind_link(&inside("magic")), inside("magic"));
    }

    #[test]
    fn what_is_replaced_keeps_its_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        fs::write(&target, "old").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
        let mut part = PartFile::create(&target).unwrap();
        part.write_all(b"new").unwrap();
        part.finish(None, false).unwrap();
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o7777, 0o600);
    }
}
