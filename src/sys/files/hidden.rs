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

/// A device and an inode.
type Identity = (u64, u64);

/// The files and folders that are not served.
#[derive(Debug, Default)]
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
        self.paths.push(std::path::absolute(path)?);
        Ok(())
    }

    /// What is hidden now, for several questions in a row.
    pub fn identities(&self) -> Vec<Identity> {
        self.paths.iter().filter_map(|path| std::fs::metadata(path).ok()).map(identity).collect()
    }

    /// Refuses an opened file or folder that is hidden, or lies in a hidden folder.
    ///
    /// # Errors
    /// `NotFound`: peers need not know that it is there.
    pub fn check(&self, opened: impl AsFd) -> Result<(), FileError> {
        if self.paths.is_empty() {
            return Ok(());
        }
        let stat = rustix::fs::fstat(&opened)?;
        if self.identities().contains(&identity_of_stat(&stat)) {
            return Err(FileError::NotFound);
        }
        let folders = self.paths.iter().filter(|path| path.is_dir());
        let folders: Vec<PathBuf> = folders.filter_map(|path| path.canonicalize().ok()).collect();
        if folders.is_empty() {
            return Ok(());
        }
        // proc_pid_fd(5): where it is now, whatever it was opened by. Without /proc nobody knows.
        let link = format!("/proc/self/fd/{}", opened.as_fd().as_raw_fd());
        match std::fs::read_link(link) {
            Ok(path) if !folders.iter().any(|folder| path.starts_with(folder)) => Ok(()),
            _ => Err(FileError::NotFound),
        }
    }

    /// Refuses to put a file of this name into this folder, where that is the place of a hidden
    /// one, be there any or not.
    ///
    /// # Errors
    /// `Denied`.
    pub fn check_place(&self, folder: impl AsFd, name: &OsStr) -> Result<(), FileError> {
        let named = self.paths.iter().filter(|path| path.file_name() == Some(name));
        let parents = named.filter_map(|path| std::fs::metadata(path.parent()?).ok());
        let identities: Vec<Identity> = parents.map(identity).collect();
        if identities.is_empty() {
            return Ok(());
        }
        match identities.contains(&identity_of_stat(&rustix::fs::fstat(folder)?)) {
            true => Err(FileError::Denied),
            false => Ok(()),
        }
    }
}

fn identity(metadata: Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// The device and inode of a stat(2).
pub fn identity_of_stat(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::Share;
    use super::*;

    fn names(share: &Share, folder: &str) -> Vec<String> {
        let listing = share.list(OsStr::new(folder), 100).unwrap();
        listing.entries.iter().map(|it| it.name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_hidden_file_is_not_there_by_any_name_and_what_replaces_it_neither() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let mut share = Share::open(root.path()).unwrap();
        share.hide(&at("secret")).unwrap();
        // There is nothing yet, and yet nobody may put it there.
        let folder = || share.open_folder(OsStr::new("")).unwrap();
        let place = |name: &str| share.check_place(folder(), OsStr::new(name));
        assert!(matches!(place("secret"), Err(FileError::Denied)));
        assert!(place("other").is_ok());
        fs::create_dir(at("folder")).unwrap();
        let inner = share.open_folder(OsStr::new("folder")).unwrap();
        assert!(share.check_place(inner, OsStr::new("secret")).is_ok());

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
                    share.list(OsStr::new(name), 9).map(drop).unwrap_err(),
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
            assert!(share.list(OsStr::new(name), 9).is_err(), "{name}");
        }
        assert!(share.open_folder(OsStr::new("state/inner")).is_err());
        assert!(share.open_file(OsStr::new("stately")).is_ok());
        // That a link leads there is no secret.
        assert_eq!(names(&share, ""), ["stately", "way"]);
    }
}
