//! A name in a folder that is held open: the same place also when the folder is moved, or when a
//! link that led to it leads elsewhere.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat};
use rustix::io::Errno;

/// See the head of this file. There may be nothing there.
#[derive(Clone, Debug)]
pub struct HeldPlace {
    folder: Arc<OwnedFd>,
    /// Below the folder; `.` for the folder itself.
    name: PathBuf,
    /// As the operator has named it.
    shown: PathBuf,
}

impl HeldPlace {
    /// The place that `path` names now: links on the way to it are followed now and not again, the
    /// last name is looked up each time.
    ///
    /// # Errors
    /// What open(2) says of the folder that it is in.
    pub fn of(path: &Path) -> io::Result<HeldPlace> {
        let opened = |folder: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::openat(CWD, folder, flags, Mode::empty())
        };
        let place = |folder: OwnedFd, name: &Path| {
            let (name, shown) = (name.to_owned(), path.to_owned());
            HeldPlace { folder: Arc::new(folder), name, shown }
        };
        if path.file_name().is_none() {
            // `/`, `.` and `..` are folders that are there.
            return Ok(place(opened(path)?, Path::new(".")));
        }
        for above in path.ancestors().skip(1) {
            let folder = if above.as_os_str().is_empty() { Path::new(".") } else { above };
            match opened(folder) {
                // It is made later: so much more is below the first folder that is there.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
                Ok(folder) => return Ok(place(folder, path.strip_prefix(above).unwrap_or(path))),
            }
        }
        Err(Errno::NOENT.into())
    }

    /// What is called so in this place, where that is a folder.
    #[must_use]
    pub fn below(&self, name: &str) -> HeldPlace {
        let folder = Arc::clone(&self.folder);
        let own = if self.name == Path::new(".") { PathBuf::new() } else { self.name.clone() };
        HeldPlace { folder, name: own.join(name), shown: self.shown.join(name) }
    }

    /// The path as the operator has named it.
    #[must_use]
    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// The folder that is held.
    #[must_use]
    pub fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Where the place is below [`HeldPlace::folder`].
    #[must_use]
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// The name, where the place is directly in [`HeldPlace::folder`] and not that folder itself.
    #[must_use]
    pub fn only_name(&self) -> Option<&OsStr> {
        let mut parts = self.name.components();
        match (parts.next(), parts.next()) {
            (Some(Component::Normal(name)), None) => Some(name),
            _ => None,
        }
    }

    /// What is there now; a link is followed.
    ///
    /// # Errors
    /// What stat(2) says.
    pub fn look(&self) -> io::Result<Stat> {
        Ok(rustix::fs::statat(&self.folder, &self.name, AtFlags::empty())?)
    }

    /// What is there now, be it a link.
    ///
    /// # Errors
    /// What lstat(2) says.
    pub fn look_at_link(&self) -> io::Result<Stat> {
        Ok(rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Opens what is there now; a link is followed.
    ///
    /// # Errors
    /// What open(2) says.
    pub fn open(&self, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.folder, &self.name, flags, Mode::empty())?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_place_stays_the_same_when_its_folder_is_moved_or_a_link_to_it_is_switched() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["one", "two"] {
            fs::create_dir(at(folder)).unwrap();
            fs::write(at(folder).join("file"), folder).unwrap();
        }
        symlink("one", at("current")).unwrap();
        let place = HeldPlace::of(&at("current/file")).unwrap();
        assert_eq!(place.only_name(), Some(OsStr::new("file")));
        let inode = place.look().unwrap().st_ino;
        fs::remove_file(at("current")).unwrap();
        symlink("two", at("current")).unwrap();
        fs::rename(at("one"), at("three")).unwrap();
        assert_eq!(place.look().unwrap().st_ino, inode);
        fs::rename(at("two/file"), at("three/file")).unwrap();
        assert_ne!(place.look().unwrap().st_ino, inode, "the name is looked up each time");
    }

    #[test]
    fn a_place_may_be_empty_and_its_folder_still_to_be_made() {
        let root = tempfile::tempdir().unwrap();
        let place = HeldPlace::of(&root.path().join("a/b")).unwrap();
        assert_eq!(place.look().unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!((place.name(), place.only_name()), (Path::new("a/b"), None));
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::write(root.path().join("a/b/c"), "x").unwrap();
        assert!(place.below("c").open(OFlags::RDONLY).is_ok());
        for path in [Path::new("."), Path::new("/"), root.path(), Path::new("Cargo.toml")] {
            assert!(HeldPlace::of(path).unwrap().look().is_ok(), "{path:?}");
        }
        let itself = HeldPlace::of(Path::new(".")).unwrap();
        assert_eq!(itself.only_name(), None);
        assert_eq!(itself.below("Cargo.toml").only_name(), Some(OsStr::new("Cargo.toml")));
        assert!(HeldPlace::of(Path::new("Cargo.toml/x")).is_err());
    }
}
