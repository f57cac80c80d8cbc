//! The folders of a transfer: opened, made, and in the end given their times.

use std::{
    collections::HashSet,
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::{FOLDER_MODE, naming::GivenNames, not_here, split};
use crate::{
    limits::FOLDERS_NOTED_MAX,
    sys::{
        files::{self, FileError, Hidden},
        stage,
    },
    transfer::{Entry, Fault, link_stays_within, source::fault_of},
    wire::ErrorCode,
};

/// Folders that are held open for the files to come.
const OPEN_MAX: usize = 16;

/// What a dead transfer has left is kept for so long.
const LEFTOVER_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Folders {
    root: Arc<OwnedFd>,
    /// What is neither replaced nor looked into.
    pub hidden: Arc<Hidden>,
    open: Vec<(Vec<u8>, Arc<OwnedFd>)>,
    /// Those that this transfer has made.
    made: HashSet<Vec<u8>>,
    noted: Vec<Noted>,
    /// Device and inode of those that were swept.
    swept: HashSet<(u64, u64)>,
    /// Folders and links that may be made, and how many more.
    most: usize,
    left: usize,
}

/// What a folder gets once all is in it.
#[derive(Debug)]
struct Noted {
    path: Vec<u8>,
    modified: (i64, u32),
    /// Where it was made here, and must not have had this yet.
    mode: Option<u16>,
}

impl Folders {
    pub fn new(root: OwnedFd) -> Folders {
        Folders {
            root: Arc::new(root),
            hidden: Arc::default(),
            open: Vec::new(),
            made: HashSet::new(),
            noted: Vec::new(),
            swept: HashSet::new(),
            most: usize::MAX,
            left: usize::MAX,
        }
    }

    pub fn bounded(self, most: usize) -> Folders {
        Folders { most, left: most, ..self }
    }

    fn check_left(&self) -> Result<(), Fault> {
        let text = || format!("one transfer makes at most {} folders and links here", self.most);
        match self.left {
            0 => Err(Fault::new(ErrorCode::TooMany, text())),
            _ => Ok(()),
        }
    }

    pub fn hiding(self, hidden: Arc<Hidden>) -> Folders {
        Folders { hidden, ..self }
    }

    pub fn close_all(&mut self) {
        self.open.clear();
    }

    /// The folder at `path`, opened; made with this mode less the umask, where it is not there.
    pub fn open(
        &mut self,
        names: &GivenNames,
        path: &[u8],
        mode: u16,
    ) -> Result<Arc<OwnedFd>, Fault> {
        if let Some((_, folder)) = self.open.iter().rev().find(|(own, _)| own == path) {
            return Ok(folder.clone());
        }
        let opened = match self.open_at(names, path) {
            Err(FileError::NotFound) if !path.is_empty() => {
                let (parent, name) = split(path);
                let parent = self.open(names, parent, FOLDER_MODE)?;
                let name = OsStr::from_bytes(name);
                self.hidden.check_place(&parent, name).map_err(not_here)?;
                self.make(&parent, name, path, mode)?;
                self.open_at(names, path)
            }
            other => other,
        };
        let folder = Arc::new(opened.map_err(|error| match error {
            FileError::NotFound | FileError::NotRegular => no_folder(),
            other => fault_of(other),
        })?);
        if self.open.len() >= OPEN_MAX {
            self.open.remove(0);
        }
        self.sweep(&folder);
        self.open.push((path.to_vec(), folder.clone()));
        Ok(folder)
    }

    fn open_at(&self, names: &GivenNames, path: &[u8]) -> Result<OwnedFd, FileError> {
        let (chosen, rest) = names.chosen(path);
        let here = |path: &[u8]| if path.is_empty() { b".".to_vec() } else { path.to_vec() };
        let (chosen, rest) = (here(chosen), here(rest));
        let base = match names.is_local() {
            true => open_chosen(&self.root, OsStr::from_bytes(&chosen))?,
            false => {
                let follow = ResolveFlags::empty();
                let path = OsStr::from_bytes(&chosen);
                files::open_beneath(&self.root, path, OFlags::DIRECTORY, follow)?
            }
        };
        self.hidden.check_shared()?;
        let links = ResolveFlags::NO_SYMLINKS;
        let folder = match &rest[..] {
            b"." => base,
            rest => {
                let rest = OsStr::from_bytes(rest);
                files::open_beneath(&base, rest, OFlags::DIRECTORY, links)?
            }
        };
        self.hidden.check(&folder).map_err(|error| match error {
            FileError::NothingShared => error,
            _ => FileError::Denied,
        })?;
        Ok(folder)
    }

    fn make(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        path: &[u8],
        mode: u16,
    ) -> Result<(), Fault> {
        // Until all is in it, we have to be able to write there.
        let mode = Mode::from_raw_mode(u32::from(mode) | 0o700);
        self.check_left()?;
        match rustix::fs::mkdirat(parent, name, mode) {
            Ok(()) => {
                self.left -= 1;
                if self.made.len() < FOLDERS_NOTED_MAX {
                    self.made.insert(path.to_vec());
                }
                Ok(())
            }
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
                let is_link = stat
                    .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
                let name = name.to_string_lossy();
                let text = format!("{name:?} is a link, which is not followed here");
                if is_link { Err(Fault::new(ErrorCode::NotAFolder, text)) } else { Ok(()) }
            }
            Err(errno) => Err(io::Error::from(errno).into()),
        }
    }

    /// A folder that was announced gets its time when all is in it.
    pub fn note(&mut self, path: Vec<u8>, entry: &Entry) {
        if self.noted.len() < FOLDERS_NOTED_MAX {
            let is_new = self.made.remove(&path);
            let mode = Some(entry.mode).filter(|mode| is_new && mode & 0o700 != 0o700);
            self.noted.push(Noted { path, modified: entry.modified, mode });
        }
    }

    /// Makes a link below a folder that was announced.
    pub fn link(&mut self, names: &GivenNames, path: &[u8], entry: &Entry) -> Result<(), Fault> {
        check_link(entry)?;
        let (parent, name) = split(path);
        let (folder, name) = (self.open(names, parent, FOLDER_MODE)?, OsStr::from_bytes(name));
        self.hidden.check_place(&folder, name).map_err(not_here)?;
        self.check_left()?;
        self.left -= 1;
        stage::make_link(&folder, name, OsStr::from_bytes(&entry.target))?;
        Ok(stage::set_modified_at(&folder, name, entry.modified)?)
    }

    /// All is in its place. What cannot be done for a folder is no fault of what is in it.
    pub fn finish(&mut self, names: &GivenNames) {
        self.open.clear();
        // What is in a folder comes after it, and does not change it any more.
        while let Some(Noted { path, modified, mode }) = self.noted.pop() {
            let Ok(folder) = self.open_at(names, &path) else { continue };
            if let Some(mode) = mode {
                let mode = u32::from(mode) & !stage::attributes::umask();
                let _ = rustix::fs::fchmod(&folder, Mode::from_raw_mode(mode));
            }
            let _ = stage::set_modified_at(&folder, OsStr::new("."), modified);
        }
    }

    /// Removes what was left in the folder by transfers that are long over.
    fn sweep(&mut self, folder: &OwnedFd) {
        let Ok(stat) = rustix::fs::fstat(folder) else { return };
        if self.swept.len() < FOLDERS_NOTED_MAX && self.swept.insert((stat.st_dev, stat.st_ino)) {
            // What cannot be swept now may be so the next time.
            let _ = stage::sweep(folder.as_fd(), LEFTOVER_AGE);
        }
    }
}

/// A folder at the top of what the user of this machine has asked for: it may be a link, if that
/// user has made it, as one to a larger disk.
fn open_chosen(root: &OwnedFd, name: &OsStr) -> Result<OwnedFd, FileError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat(root, name, flags | OFlags::NOFOLLOW, Mode::empty()) {
        Err(Errno::LOOP | Errno::NOTDIR) => {}
        other => return Ok(other?),
    }
    let stat = rustix::fs::statat(root, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    if !is_link || ![0, rustix::process::geteuid().as_raw()].contains(&stat.st_uid) {
        return Err(FileError::NotFound);
    }
    Ok(rustix::fs::openat(root, name, flags, Mode::empty())?)
}

/// A link may lead to what is in the folder that was sent, and nowhere else, whatever other links
/// are on its way: so it may go up first, and then only down.
fn check_link(entry: &Entry) -> Result<(), Fault> {
    match link_stays_within(&entry.path, &entry.target) {
        true => Ok(()),
        false => {
            let text = "a link that leads out of the folder that is sent is not taken";
            Err(Fault::new(ErrorCode::BadPath, text))
        }
    }
}

fn no_folder() -> Fault {
    Fault::new(ErrorCode::NotAFolder, "a part of the path is no folder, or a link out of here")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::{EntryKind, sink::Naming};

    #[test]
    fn every_folder_that_something_is_put_into_is_swept_and_once() {
        let root = tempfile::tempdir().expect("a folder");
        let mut folders = Folders::new(std::fs::File::open(root.path()).expect("a folder").into());
        let names = GivenNames::new(Naming::Within(Vec::new()));
        for (path, swept) in [("a", 2), ("a/b", 3), ("c", 4), ("a", 4)] {
            folders.open(&names, path.as_bytes(), FOLDER_MODE).expect("it is made");
            folders.close_all();
            assert_eq!(folders.swept.len(), swept, "with {path}");
        }
    }

    #[test]
    fn a_link_stays_within_what_is_sent() {
        let entry = |path: &str, target: &str| Entry {
            item: 0,
            kind: EntryKind::Link,
            mode: 0o777,
            size: target.len() as u64,
            modified: (0, 0),
            path: path.into(),
            target: target.into(),
        };
        for (path, target) in [
            ("d/l", "x"),
            ("d/l", "./x/y"),
            ("d/a/l", "../x"),
            ("d/a/b/l", "../../x"),
            ("d/l", "."),
        ] {
            assert!(check_link(&entry(path, target)).is_ok(), "{path} -> {target}");
        }
        for (path, target) in [
            ("l", "x"),
            ("d/l", ".."),
            ("d/l", "../x"),
            ("d/a/l", "../../x"),
            ("d/l", "/x"),
            ("d/l", ""),
            ("d/l", "x/../../y"),
            ("d/a/l", "x/../y"),
            ("d/l", "x\0y"),
        ] {
            assert!(check_link(&entry(path, target)).is_err(), "{path} -> {target}");
        }
    }
}
