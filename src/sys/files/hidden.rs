//! What lies below a shared folder and is never served: passwords, keys, logs, files of devices.
//!
//! Such a file is known by its device and inode, so that no link leads to it, and by its place: the
//! folder that it is in, held open, and its name there. So nobody can put another one there, and
//! neither a folder that is renamed nor a link that is switched uncovers anything. It is looked at
//! each time: a file that is replaced has another inode. The one before stays hidden as long as
//! another name leads to it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};

use super::FileError;
use crate::limits::HIDDEN_KNOWN_MAX;
use crate::sys::held_place::HeldPlace;

/// What is hidden at the moment: its device and inode, and whether it is a folder.
pub type Identity = (u64, u64, bool);

/// How often the folder of a file is looked for that another process moves about meanwhile.
const FIND_ATTEMPTS: usize = 16;

/// What the kernel says of the name of a file that has none any more (proc_pid_fd(5)).
const DELETED: &[u8] = b" (deleted)";

/// The files and folders that are not served.
#[derive(Debug, Default)]
pub struct Hidden {
    places: Vec<Covered>,
    /// The shared folder: what lies above it is of no interest.
    root: Option<(u64, u64)>,
    /// The shared folder is itself hidden, and all that is in it.
    is_all: bool,
    /// What was found in the places so far, and may still have a name somewhere.
    known: Mutex<Vec<Known>>,
}

/// A place whose content is hidden.
#[derive(Debug)]
struct Covered {
    place: HeldPlace,
    /// The folder that is held.
    folder: (u64, u64),
}

/// Something hidden, held so that the system gives its number to nothing else.
#[derive(Clone, Debug)]
struct Known {
    identity: Identity,
    held: Arc<OwnedFd>,
}

impl Hidden {
    /// Nothing is hidden so far below the folder of this stat(2).
    pub(super) fn below(root: &Stat) -> Hidden {
        Hidden { root: Some((root.st_dev, root.st_ino)), ..Hidden::default() }
    }

    /// Hides a file, or a folder with all in it; where the place is a link, also what that leads
    /// to now.
    ///
    /// # Errors
    /// What stat(2) says of the folder that holds it.
    pub(super) fn add(&mut self, place: HeldPlace) -> io::Result<()> {
        let is_link = |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        if place.look_at_link().is_ok_and(is_link)
            && let Ok(target) = place.open(OFlags::PATH).and_then(|it| path_of(&it))
        {
            self.cover(HeldPlace::of(&target)?)?;
        }
        self.cover(place)?;
        let identities = self.identities();
        self.is_all = self.root.is_some_and(|root| has(&identities, root));
        Ok(())
    }

    fn cover(&mut self, place: HeldPlace) -> io::Result<()> {
        let folder = key_of(&rustix::fs::fstat(place.folder())?);
        self.places.push(Covered { place, folder });
        Ok(())
    }

    /// What is hidden now, for several questions in a row.
    #[must_use]
    pub fn identities(&self) -> Vec<Identity> {
        let mut now: Vec<Identity> = Vec::new();
        for Covered { place, .. } in &self.places {
            let Ok(stat) = place.look() else { continue };
            let identity = identity_of(&stat);
            if !now.contains(&identity) {
                self.note(place, identity);
                now.push(identity);
            }
        }
        let past = self.past(&now);
        now.extend(past);
        now
    }

    /// Holds what is found in a place for the first time.
    fn note(&self, place: &HeldPlace, identity: Identity) {
        let is_known = |known: &[Known]| known.iter().any(|it| it.identity == identity);
        if is_known(&self.known.lock().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        // Where it was replaced just now, the other one is found the next time.
        let Ok(held) = place.open(OFlags::PATH) else { return };
        let Ok(stat) = rustix::fs::fstat(&held) else { return };
        let (identity, held) = (identity_of(&stat), Arc::new(held));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= HIDDEN_KNOWN_MAX {
            known.remove(0);
        }
        known.push(Known { identity, held });
    }

    /// What was in one of the places before and still has another name.
    fn past(&self, now: &[Identity]) -> Vec<Identity> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let past: Vec<Known> =
            known.iter().filter(|it| !now.contains(&it.identity)).cloned().collect();
        // A disk may take its time to answer.
        drop(known);
        let is_gone = |it: &Known| rustix::fs::fstat(&it.held).is_ok_and(|it| it.st_nlink == 0);
        let (gone, past): (Vec<Known>, Vec<Known>) = past.into_iter().partition(is_gone);
        if !gone.is_empty() {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.retain(|it| !gone.iter().any(|gone| Arc::ptr_eq(&gone.held, &it.held)));
        }
        past.into_iter().map(|it| it.identity).collect()
    }

    /// Whether the file or folder of this stat(2) is one of those.
    #[must_use]
    pub fn has(identities: &[Identity], stat: &Stat) -> bool {
        has(identities, key_of(stat))
    }

    /// Refuses everything where the shared folder is itself hidden.
    ///
    /// # Errors
    /// `NothingShared`, whatever was asked for.
    pub fn check_shared(&self) -> Result<(), FileError> {
        if self.is_all { Err(FileError::NothingShared) } else { Ok(()) }
    }

    /// Refuses an opened file or folder that is hidden, or lies in a hidden folder.
    ///
    /// # Errors
    /// `NotFound`: peers need not know that it is there.
    pub fn check(&self, opened: impl AsFd) -> Result<(), FileError> {
        self.check_shared()?;
        let identities = self.identities();
        if identities.is_empty() {
            return Ok(());
        }
        let stat = rustix::fs::fstat(&opened)?;
        if Hidden::has(&identities, &stat) {
            return Err(FileError::NotFound);
        }
        if !identities.iter().any(|(_, _, is_folder)| *is_folder) {
            return Ok(());
        }
        let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        match is_folder {
            true => self.check_above(opened.as_fd().try_clone_to_owned()?, &identities),
            false => self.check_above(folder_of(opened, &stat)?, &identities),
        }
    }

    /// Refuses a folder where it or one above it is hidden, up to the shared one.
    fn check_above(&self, folder: OwnedFd, identities: &[Identity]) -> Result<(), FileError> {
        let mut folder = folder;
        let mut own = key_of(&rustix::fs::fstat(&folder)?);
        loop {
            if has(identities, own) {
                return Err(FileError::NotFound);
            }
            if self.root == Some(own) {
                return Ok(());
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            folder = rustix::fs::openat(&folder, "..", flags, Mode::empty())?;
            let above = key_of(&rustix::fs::fstat(&folder)?);
            if above == own {
                // The top of all: it was moved out of the shared folder just now.
                return Err(FileError::NotFound);
            }
            own = above;
        }
    }

    /// Refuses to put anything of this name into this folder, where that is the place of something
    /// hidden, be there any or not.
    ///
    /// # Errors
    /// `Denied`.
    pub fn check_place(&self, folder: impl AsFd, name: &OsStr) -> Result<(), FileError> {
        self.check_shared()?;
        let mut named =
            self.places.iter().filter(|it| it.place.only_name() == Some(name)).peekable();
        if named.peek().is_none() {
            return Ok(());
        }
        let folder = key_of(&rustix::fs::fstat(folder)?);
        match named.any(|it| it.folder == folder) {
            true => Err(FileError::Denied),
            false => Ok(()),
        }
    }
}

fn key_of(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn identity_of(stat: &Stat) -> Identity {
    let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    (stat.st_dev, stat.st_ino, is_folder)
}

fn has(identities: &[Identity], key: (u64, u64)) -> bool {
    identities.iter().any(|(device, inode, _)| (*device, *inode) == key)
}

/// Where an opened file is now, whatever it was opened by (proc_pid_fd(5)).
fn path_of(opened: impl AsFd) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", opened.as_fd().as_raw_fd()))
}

/// The folder that an opened file lies in, or has lain in until it was removed. Without /proc it
/// cannot be told.
fn folder_of(opened: impl AsFd, stat: &Stat) -> Result<OwnedFd, FileError> {
    for _ in 0..FIND_ATTEMPTS {
        let path = path_of(&opened).map_err(|_| FileError::NotFound)?;
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { break };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let links = ResolveFlags::NO_SYMLINKS;
        let folder = rustix::fs::openat2(CWD, above, flags, Mode::empty(), links);
        let Ok(folder) = folder else { continue };
        let found = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW);
        let is_same = found.is_ok_and(|found| key_of(&found) == key_of(stat));
        if is_same || name.as_bytes().ends_with(DELETED) {
            return Ok(folder);
        }
    }
    Err(FileError::NotFound)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::super::Share;
    use super::*;

    fn place(path: &Path) -> HeldPlace {
        HeldPlace::of(path).unwrap()
    }

    fn is_served(share: &Share, name: &str) -> bool {
        match share.open_file(OsStr::new(name)) {
            Ok(_) => true,
            Err(FileError::NotFound) => false,
            Err(error) => panic!("{name}: {error}"),
        }
    }

    fn names(share: &Share, folder: &str) -> Vec<String> {
        let listing = share.list(OsStr::new(folder)).unwrap();
        listing.iter().map(|it| it.name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_hidden_file_is_not_there_by_any_name_and_what_replaces_it_neither() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let mut share = Share::open(root.path()).unwrap();
        share.hide(place(&at("secret"))).unwrap();
        // There is nothing yet, and yet nobody may put it there.
        let folder = || share.open_folder(OsStr::new("")).unwrap();
        let hidden = share.hidden();
        let put = |name: &str| hidden.check_place(folder(), OsStr::new(name));
        assert!(matches!(put("secret"), Err(FileError::Denied)));
        assert!(put("other").is_ok());
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
        share.hide(place(&at("state"))).unwrap();
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

    #[test]
    fn folders_that_are_renamed_and_links_that_are_switched_uncover_nothing() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for release in ["one", "two"] {
            fs::create_dir(at(release)).unwrap();
            fs::write(at(release).join("secret"), "x").unwrap();
        }
        fs::create_dir(at("one/data")).unwrap();
        fs::write(at("one/data/file"), "x").unwrap();
        symlink("one", at("current")).unwrap();
        let mut share = Share::open(&at("current")).unwrap();
        for name in ["current/secret", "current/data"] {
            share.hide(place(&at(name))).unwrap();
        }
        fs::remove_file(at("current")).unwrap();
        symlink("two", at("current")).unwrap();
        assert!(!is_served(&share, "secret"), "the link leads elsewhere");
        fs::rename(at("one"), at("three")).unwrap();
        assert!(!is_served(&share, "secret"), "the folder has another name");
        let folder = share.open_folder(OsStr::new("")).unwrap();
        let put = share.hidden().check_place(folder, OsStr::new("secret"));
        assert!(matches!(put, Err(FileError::Denied)), "nor is it replaced");
        // A hidden folder goes on being hidden, and so does its place.
        fs::create_dir(at("three/inner")).unwrap();
        fs::rename(at("three/data"), at("three/inner/moved")).unwrap();
        assert!(!is_served(&share, "inner/moved/file"));
        assert!(share.list(OsStr::new("inner/moved")).is_err());
        fs::create_dir(at("three/data")).unwrap();
        fs::write(at("three/data/file"), "x").unwrap();
        assert!(!is_served(&share, "data/file"));
        assert_eq!(names(&share, ""), ["inner"]);
    }

    #[test]
    fn what_was_replaced_stays_hidden_as_long_as_it_has_a_name() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::write(at("secret"), "one").unwrap();
        let mut share = Share::open(root.path()).unwrap();
        share.hide(place(&at("secret"))).unwrap();
        fs::hard_link(at("secret"), at("snapshot")).unwrap();
        let replace = |content: &str| {
            fs::write(at("new"), content).unwrap();
            fs::rename(at("new"), at("secret")).unwrap();
        };
        replace("two");
        for _ in 0..2 {
            assert!(!is_served(&share, "snapshot") && names(&share, "").is_empty());
        }
        fs::remove_file(at("snapshot")).unwrap();
        assert_eq!(share.hidden().identities().len(), 1, "what is gone is forgotten");
        // Its number may be given to another file, which is a file like any other.
        for count in 0..50 {
            replace("three");
            let name = format!("file-{count}");
            fs::write(at(&name), "x").unwrap();
            assert!(is_served(&share, &name));
        }
        assert!(share.hidden().known.lock().unwrap().len() <= 2);
    }

    #[test]
    fn a_link_hides_what_it_leads_to_as_well() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::write(at("real"), "x").unwrap();
        symlink("real", at("secret")).unwrap();
        let mut share = Share::open(root.path()).unwrap();
        share.hide(place(&at("secret"))).unwrap();
        fs::remove_file(at("real")).unwrap();
        let hidden = share.hidden();
        for name in ["real", "secret"] {
            let folder = share.open_folder(OsStr::new("")).unwrap();
            assert!(hidden.check_place(folder, OsStr::new(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn a_shared_folder_that_is_hidden_shares_nothing_and_one_within_it_does() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("inner")).unwrap();
        fs::write(root.path().join("inner/file"), "x").unwrap();
        let mut share = Share::open(root.path()).unwrap();
        share.hide(place(root.path())).unwrap();
        for name in ["inner/file", "missing", "inner"] {
            let refused = share.open_file(OsStr::new(name)).unwrap_err();
            assert!(matches!(refused, FileError::NothingShared), "{name}: {refused}");
        }
        let refused = share.list(OsStr::new("")).unwrap_err();
        assert!(matches!(refused, FileError::NothingShared));
        let folder = fs::File::open(root.path()).unwrap();
        assert!(share.hidden().check_place(folder, OsStr::new("x")).is_err());
        let mut inner = Share::open(&root.path().join("inner")).unwrap();
        inner.hide(place(root.path())).unwrap();
        assert!(is_served(&inner, "file"));
        assert_eq!(names(&inner, ""), ["file"]);
    }

    #[test]
    fn a_file_that_is_replaced_while_it_is_opened_is_served() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("hidden")).unwrap();
        fs::write(at("file"), "x").unwrap();
        let mut share = Share::open(root.path()).unwrap();
        share.hide(place(&at("hidden"))).unwrap();
        let opened = fs::File::open(at("file")).unwrap();
        fs::write(at("new"), "y").unwrap();
        fs::rename(at("new"), at("file")).unwrap();
        share.hidden().check(&opened).unwrap();
        fs::write(at("hidden/file"), "x").unwrap();
        let opened = fs::File::open(at("hidden/file")).unwrap();
        fs::remove_file(at("hidden/file")).unwrap();
        assert!(share.hidden().check(&opened).is_err());
    }
}
