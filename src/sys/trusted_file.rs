//! Files whose content decides who may do what: read only where nobody else can have written
//! them, and replaced as a whole.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::geteuid;
use zeroize::Zeroizing;

use super::held_place::HeldPlace;
use super::stage_name;

/// So much of a name is compared with that of what was being written for it.
const NAME_COMPARED_BYTES: usize = 100;

/// Write permission of the group or of others (inode(7)).
const OTHERS_WRITE: u32 = 0o022;
/// Read permission of everybody.
const EVERYBODY_READS: u32 = 0o004;

/// What such a file holds.
#[derive(Debug)]
pub struct Trusted {
    /// All of it; overwritten when dropped.
    pub bytes: Zeroizing<Vec<u8>>,
    /// Whether every account of the machine may read it.
    pub everybody_reads: bool,
    metadata: Metadata,
}

/// Reads a regular file of at most `max_bytes` that belongs to our account or root and that nobody
/// else may write. Never waits for a FIFO's writer.
///
/// # Errors
/// One sentence with the path: what is wrong, and what to do about it. `NotFound` where there is
/// none.
pub fn read(path: &Path, max_bytes: usize) -> io::Result<Trusted> {
    let place = HeldPlace::of(path).map_err(|error| {
        io::Error::new(error.kind(), format!("{path:?} cannot be read: {error}"))
    })?;
    read_at(&place, max_bytes)
}

/// The same of a place that is held: the file is looked up there again.
///
/// # Errors
/// As [`read`].
pub fn read_at(place: &HeldPlace, max_bytes: usize) -> io::Result<Trusted> {
    let path = place.shown();
    let fail = |kind, what: String| io::Error::new(kind, format!("{path:?} {what}"));
    let denied = |what: String| fail(io::ErrorKind::PermissionDenied, what);
    let system = |error: io::Error| fail(error.kind(), format!("cannot be read: {error}"));
    // A link that somebody else has put there leads where that somebody wants.
    let link = place.look_at_link().map_err(system)?;
    let is_link = FileType::from_raw_mode(link.st_mode) == FileType::Symlink;
    if is_link && !is_trusted(link.st_uid) {
        return Err(denied(format!(
            "is a symbolic link of another account (user id {}); make it your own",
            link.st_uid
        )));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut file = File::from(place.open(flags).map_err(system)?);
    let metadata = file.metadata().map_err(system)?;
    if !metadata.is_file() {
        let kind = match metadata.file_type() {
            kind if kind.is_dir() => "a folder",
            kind if kind.is_fifo() => "a FIFO",
            _ => "a device or socket",
        };
        return Err(fail(io::ErrorKind::InvalidInput, format!("is {kind} and no regular file")));
    }
    if !is_trusted(metadata.uid()) {
        return Err(denied(format!(
            "belongs to another account (user id {}), which could write anything into it; \
             make it your own: chown {} {path:?}",
            metadata.uid(),
            geteuid().as_raw()
        )));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS_WRITE != 0 {
        return Err(denied(format!(
            "may be written by others (mode {mode:04o}); change that: chmod go-w {path:?}"
        )));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    (&mut file).take(max_bytes as u64 + 1).read_to_end(&mut bytes).map_err(system)?;
    if bytes.len() > max_bytes {
        let what = format!("has more than {max_bytes} bytes; that is more than it may have");
        return Err(fail(io::ErrorKind::FileTooLarge, what));
    }
    Ok(Trusted { bytes, everybody_reads: mode & EVERYBODY_READS != 0, metadata })
}

/// Our own account, and root, who may do anything anyway.
fn is_trusted(owner: u32) -> bool {
    owner == 0 || owner == geteuid().as_raw()
}

/// Replaces a file by what `edit` makes of it; `None` is handed in where there is none so far. It
/// is there whole and lasts when this returns, and keeps its owner and mode; a new one has 0600.
/// Of several that do this at once, each sees what the one before has made.
///
/// # Errors
/// Those of [`read`] and of `edit`; or the file could not be written, and is as it was.
pub fn replace<E: From<io::Error>>(
    path: &Path,
    max_bytes: usize,
    edit: impl FnOnce(Option<&Trusted>) -> Result<Zeroizing<Vec<u8>>, E>,
) -> Result<(), E> {
    let (folder, name) = place_of(path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(CWD, &folder, flags, Mode::empty());
    let opened = opened.map_err(|errno| cannot("open the folder", &folder, errno.into()))?;
    match rustix::fs::flock(&opened, FlockOperation::LockExclusive) {
        Ok(()) => sweep(&opened, &name),
        // Some network disks know no locks.
        Err(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        Err(errno) => return Err(cannot("lock the folder", &folder, errno.into()).into()),
    }
    let target = folder.join(&name);
    let before = match read(&target, max_bytes) {
        Ok(before) => Some(before),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let bytes = edit(before.as_ref())?;
    let written = write(&opened, &name, &bytes, before.as_ref().map(|it| &it.metadata));
    written.map_err(|error| E::from(cannot("write", &target, error)))
}

/// The folder and the name of the file itself: where `path` is a link, of what it leads to.
fn place_of(path: &Path) -> io::Result<(PathBuf, std::ffi::OsString)> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|it| it.is_symlink());
    let path = match is_link {
        true => fs::canonicalize(path).map_err(|error| cannot("follow", path, error))?,
        false => path.to_owned(),
    };
    let Some(name) = path.file_name() else {
        let text = format!("{path:?} names no file; give a file name");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    Ok((folder, name.to_owned()))
}

/// Removes what was written for this file by those who were killed before it had its name: they
/// hold secrets. The folder is locked, so that nobody is writing one.
fn sweep(folder: &OwnedFd, name: &OsStr) {
    let beginning = stage_name::beginning(name.as_bytes(), NAME_COMPARED_BYTES);
    let Ok(entries) = Dir::read_from(folder) else { return };
    for entry in entries.flatten() {
        let found = entry.file_name().to_bytes();
        let is_of_it = found.get(1..).is_some_and(|rest| rest.starts_with(beginning));
        if is_of_it && stage_name::is_own_stage(folder, found) {
            let _ = rustix::fs::unlinkat(folder, entry.file_name(), AtFlags::empty());
        }
    }
}

fn write(
    folder: &impl std::os::fd::AsFd,
    name: &OsStr,
    bytes: &[u8],
    like: Option<&Metadata>,
) -> io::Result<()> {
    // Listings leave such names out, and nobody can guess it.
    let part = &stage_name::random(name);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(folder, part, flags, Mode::RUSR | Mode::WUSR)?);
    let written = (|| {
        if let Some(like) = like {
            // A group that we are no member of cannot be given; its permissions go with it.
            let is_grouped = std::os::unix::fs::fchown(&file, None, Some(like.gid())).is_ok();
            if like.uid() != file.metadata()?.uid() {
                std::os::unix::fs::fchown(&file, Some(like.uid()), None)?;
            }
            let kept = if is_grouped { 0o777 } else { 0o707 };
            let mode = Mode::from_raw_mode(like.mode() & kept & !OTHERS_WRITE);
            rustix::fs::fchmod(&file, mode)?;
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(rustix::fs::renameat(folder, part, folder, name)?)
    })();
    if written.is_err() {
        let _ = rustix::fs::unlinkat(folder, part, AtFlags::empty());
        return written;
    }
    match rustix::fs::fsync(folder) {
        // Some disks have nothing to sync in a folder, and say so in this way.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn cannot(what: &str, path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what} {path:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    const MAX: usize = 1000;

    fn put(path: &Path, mode: u32) {
        fs::write(path, "content").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn complaint(path: &Path) -> String {
        let text = read(path, MAX).expect_err("refused").to_string();
        assert!(text.contains(&format!("{path:?}")) && !text.contains('\n'), "{text}");
        text
    }

    fn append(path: &Path, more: &str) -> io::Result<()> {
        replace(path, MAX, |before| {
            let mut bytes = before.map_or(Vec::new(), |before| before.bytes.to_vec());
            bytes.extend_from_slice(more.as_bytes());
            Ok(Zeroizing::new(bytes))
        })
    }

    #[test]
    fn what_others_may_write_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for (mode, everybody_reads) in [(0o600, false), (0o640, false), (0o644, true)] {
            put(&path, mode);
            let trusted = read(&path, MAX).unwrap();
            assert_eq!(&trusted.bytes[..], b"content");
            assert_eq!(trusted.everybody_reads, everybody_reads, "{mode:o}");
        }
        for mode in [0o620, 0o602, 0o666] {
            put(&path, mode);
            let text = complaint(&path);
            assert!(text.contains(&format!("{mode:04o}")) && text.contains("chmod go-w"), "{text}");
        }
    }

    #[test]
    fn what_is_no_file_is_named_and_does_not_hold_us_up() {
        let folder = tempfile::tempdir().unwrap();
        assert!(complaint(folder.path()).contains("is a folder"));
        let fifo = folder.path().join("fifo");
        rustix::fs::mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
        assert!(complaint(&fifo).contains("is a FIFO"));
        assert!(complaint(Path::new("/dev/null")).contains("is a device"));
        let none = folder.path().join("none");
        assert_eq!(read(&none, MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
        let long = folder.path().join("long");
        fs::write(&long, vec![b'x'; MAX]).unwrap();
        assert!(read(&long, MAX).is_ok());
        fs::write(&long, vec![b'x'; MAX + 1]).unwrap();
        assert!(complaint(&long).contains("1000 bytes"));
        assert!(read(Path::new("/dev/zero"), MAX).is_err());
    }

    #[test]
    fn what_belongs_to_another_account_is_not_read() {
        if !geteuid().is_root() {
            return println!("skipped: only root can give files away");
        }
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("file"), folder.path().join("link"));
        put(&path, 0o600);
        symlink(&path, &link).unwrap();
        assert!(read(&link, MAX).is_ok());
        std::os::unix::fs::lchown(&link, Some(65_534), None).unwrap();
        assert!(complaint(&link).contains("symbolic link of another account (user id 65534)"));
        chown(&path, Some(65_534), None).unwrap();
        assert!(complaint(&path).contains("belongs to another account (user id 65534)"));
    }

    #[test]
    fn a_new_file_is_private_and_an_old_one_keeps_its_mode_and_owner() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("file"), folder.path().join("link"));
        append(&path, "one").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let is_root = geteuid().is_root();
        if is_root {
            chown(&path, None, Some(65_534)).unwrap();
        }
        symlink(&path, &link).unwrap();
        append(&link, " two").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink(), "the link stays one");
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.mode() & 0o777, 0o640);
        assert_eq!(metadata.gid() == 65_534, is_root);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left over");
    }

    #[test]
    fn what_a_killed_one_has_left_is_swept_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let [left, other] = ["file", "other"].map(|name| stage_name::random(OsStr::new(name)));
        for name in [&left, &other, OsStr::new(".file")] {
            fs::write(folder.path().join(name), "secret").unwrap();
        }
        append(&folder.path().join("file"), "one").unwrap();
        assert!(!folder.path().join(&left).exists());
        for name in [&other, OsStr::new(".file"), OsStr::new("file")] {
            assert!(folder.path().join(name).exists(), "{name:?}");
        }
    }

    #[test]
    fn what_cannot_be_replaced_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        put(&path, 0o602);
        assert!(append(&path, "more").is_err());
        put(&path, 0o600);
        let refused = replace(&path, MAX, |_| Err(io::Error::other("no")));
        assert_eq!(refused.unwrap_err().to_string(), "no");
        assert_eq!(fs::read_to_string(&path).unwrap(), "content");
        assert!(append(&folder.path().join("none/file"), "x").is_err());
        assert!(append(Path::new("/"), "x").is_err());
    }

    #[test]
    fn many_writers_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..5).for_each(|_| append(&path, "x").unwrap()));
            }
        });
        assert_eq!(fs::read(&path).unwrap(), vec![b'x'; 40]);
    }
}
