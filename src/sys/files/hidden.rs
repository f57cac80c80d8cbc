//! What lies below a shared folder and is never served: passwords, keys, logs.
//!
//! Such a file is known by its device and inode, so that no link leads to it, and by its place, so
//! that nobody can put another one there. It is asked for each time: a file that is replaced has
//! another inode.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Stat;

use super::FileError;

/// What is hidden at the moment: its device and inode, and whether it is a folder.
pub type Identity = (u64, u64, bool);

/// The files and folders that are not served.
#[derive(Clone, Debug, Default)]
pub struct Hidden {
    /// Absolute; there may be nothing there yet.
    paths: Vec<PathBuf>,
}

impl Hidden {
    /// Hides a file, or a folder with all in it.
    ///
    /// # Errors
    /// The path is empty, or the working folder is gone.
    pub fn add(&mut self, path: &Path) -> io::Result<()> {
        let path = std::path::absolute(path)?;
        if !self.paths.contains(&path) {
            self.paths.push(path);
        }
        Ok(())
    }

    /// What is hidden now, for several questions in a row.
    #[must_use]
    pub fn identities(&self) -> Vec<Identity> {
        let found = self.paths.iter().filter_map(|path| std::fs::metadata(path).ok());
        found.map(|it| (it.dev(), it.ino(), it.is_dir())).collect()
    }

    /// Whether the file or folder of this stat(2) is one of those.
    #[must_use]
    pub fn has(identities: &[Identity], stat: &Stat) -> bool {
        let is_it = |(device, inode, _): &Identity| (*device, *inode) == (stat.st_dev, stat.st_ino);
        identities.iter().any(is_it)
    }

    /// Refuses an opened file or folder that is hidden, or lies in a hidden folder.
    ///
    /// # Errors
    /// `NotFound`: peers need not know that it is there.
    pub fn check(&self, opened: impl AsFd) -> Result<(), FileError> {
        let identities = self.identities();
        if identities.is_empty() {
            return Ok(());
        }
        if Hidden::has(&identities, &rustix::fs::fstat(&opened)?) {
            return Err(FileError::NotFound);
        }
        if !identities.iter().any(|(_, _, is_folder)| *is_folder) {
            return Ok(());
        }
        let folders = self.paths.iter().filter(|path| path.is_dir());
        let folders: Vec<PathBuf> = folders.filter_map(|path| path.canonicalize().ok()).collect();
        // proc_pid_fd(5): where it is now, whatever it was opened by. Without /proc nobody knows.
        let link = format!("/proc/self/fd/{}", opened.as_fd().as_raw_fd());
        match std::fs::read_link(link) {
            Ok(path) if !folders.iter().any(|folder| path.starts_with(folder)) => Ok(()),
            _ => Err(FileError::NotFound),
        }
    }

    /// Refuses to put anything of this name into this folder, where that is the place of something
    /// hidden, be there any or not.
    ///
    /// # Errors
    /// `Denied`.
    pub fn check_place(&self, folder: impl AsFd, name: &OsStr) -> Result<(), FileError> {
        let named = self.paths.iter().filter(|path| path.file_name() == Some(name));
        let mut parents = named.filter_map(|path| std::fs::metadata(path.parent()?).ok());
        let Some(first) = parents.next() else { return Ok(()) };
        let stat = rustix::fs::fstat(folder)?;
        let is_it = |parent: Metadata| (parent.dev(), parent.ino()) == (stat.st_dev, stat.st_ino);
        match is_it(first) || parents.any(is_it) {
            true => Err(FileError::Denied),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::Share;
    use super::*;

    fn names(share: &Share, folder: &str) -> Vec<String> {
        let listing = share.list(OsStr::new(folder)).unwrap();
        listing.iter().map(|it| it.name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_hidden_file_is_not_there_by_any_name_and_what_replaces_it_neither() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let mut share = Share::open(root.path()).unwrap();
        share.hide(&at("secret")).unwrap();
        // There is nothing yet, and yet nobody may put it there.
        let folder = || share.open_folder(OsStr::new("")).unwrap();
        let hidden = share.hidden();
        let place = |name: &str| hidden.check_place(folder(), OsStr::new(name));
        assert!(matches!(place("secret"), Err(FileError::Denied)));
        assert!(place("other").is_ok());
        fs::create_dir(at("folder")).unwrap();
        let inner = share.open_folder(OsStr::new("folder")).unwrap();
        assert!(hidden.check_place(inner, OsStr::new("secret")).is_ok());

        fs::write(at("other"), "x").unwrap();
        for _ in 0..2 {
            fs::write(at("new"), "alice secret").unwrap();
            fs::rename(at("new"), at("secret")).unwrap();
            let _ = fs::remove_file(at("hard"));
            fs::hard_link(at("secret"), at("hard")).unwrap();
            let _ = symlink("../secret", at("folder/soft"));
            for name in ["secret", "hard", "folder/soft", "folder/../secret"] {
                for error in [
                    share.open_file(OsStr::new(name)).map(drop).unwrap_err(),
                    share.list(OsStr::new(name)).map(drop).unwrap_err(),
                ] {
                    assert!(matches!(error, FileError::NotFound), "{name}: {error}");
                }
            }
            assert_eq!(names(&share, ""), ["folder", "other"]);
            assert!(names(&share, "folder").is_empty());
            assert!(share.open_file(OsStr::new("other")).is_ok());
        }
    }

    #[test]
    fn a_hidden_folder_hides_all_that_is_in_it() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("state/inner")).unwrap();
        fs::write(at("state/inner/key"), "x").unwrap();
        fs::write(at("stately"), "x").unwrap();
        symlink("state/inner", at("way")).unwrap();
        let mut share = Share::open(root.path()).unwrap();
        share.hide(&at("state")).unwrap();
        for name in ["state/inner/key", "way/key"] {
            let error = share.open_file(OsStr::new(name)).map(drop).unwrap_err();
            assert!(matches!(error, FileError::NotFound), "{name}: {error}");
        }
        for name in ["state", "state/inner", "way"] {
            assert!(share.list(OsStr::new(name)).is_err(), "{name}");
        }
        assert!(share.open_folder(OsStr::new("state/inner")).is_err());
        assert!(share.open_file(OsStr::new("stately")).is_ok());
        // That a link leads there is no secret.
        assert_eq!(names(&share, ""), ["stately", "way"]);
    }
}
