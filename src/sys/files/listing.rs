//! A folder as it is listed: sorted, however large it is, in memory that is bounded.
//!
//! ```text
//!   folder ── all names ─▶ window: the first that fit, sorted ── a few at a time ─▶ entries
//!      ▲                                                                 │
//!      └────────── again, for those behind the last one, if any ◀────────┘
//! ```
//!
//! Only names are held, packed; what they stand for is asked when their turn comes.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, OFlags};
use rustix::io::Errno;

use super::{
    FileError, Hidden, Identity, OpenedFile, Share, is_own_stage, modified_of_stat, size_of_stat,
};

/// Names read in one go: some ten milliseconds from memory.
const NAMES_PER_GO: usize = 16 * 1024;

/// What a name in a folder stands for, links followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Directory,
    /// A device, FIFO or socket, or a link that leads nowhere or out of the share.
    Other,
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name as it is on disk, any bytes but `/` and NUL.
    pub name: OsString,
    /// What it stands for.
    pub kind: EntryKind,
    /// Length in bytes of a file; 0 for all others.
    pub size: u64,
    /// Seconds since 1970 and nanoseconds, as in [`OpenedFile`].
    pub modified: (i64, u32),
}

/// What [`Lister::go_on`] has come to.
#[derive(Debug)]
pub enum Listed {
    /// It is to be called again.
    NotYet,
    /// These are next; more may follow.
    Entries(Vec<Entry>),
    /// There are no more.
    All,
}

/// A listing under way: all but `.`, `..`, what is hidden, and files still being received, sorted
/// by the bytes of the names. Each call blocks on the disk, so it belongs on a worker.
pub struct Lister {
    share: Arc<Share>,
    subject: Subject,
}

enum Subject {
    /// A file, as long as it is to be told of.
    One(Option<Entry>),
    Folder(Box<FolderLister>),
}

struct FolderLister {
    relative: OsString,
    folder: OwnedFd,
    hidden: Vec<Identity>,
    dir: Dir,
    window: Window,
    /// Whether the window has seen all names.
    is_read: bool,
}

/// The names that come first, of those behind `after`.
#[derive(Default)]
struct Window {
    names: PackedNames,
    max_bytes: usize,
    /// What is told of already: this one, and all before it.
    after: Option<Vec<u8>>,
    /// This one had no room, nor has anything behind it.
    beyond: Option<Vec<u8>>,
    /// So many of the names are told of.
    told: usize,
}

/// Many names in two pieces of memory.
#[derive(Default)]
struct PackedNames {
    bytes: Vec<u8>,
    /// Where each begins, and its length.
    places: Vec<(u32, u32)>,
}

impl Lister {
    /// Opens a folder, or a file to tell of that alone; an empty name is the shared folder itself.
    /// About `window_bytes` are used for names; what has no room there costs another look at the
    /// folder.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn open(
        share: Arc<Share>,
        relative: &OsStr,
        window_bytes: usize,
    ) -> Result<Lister, FileError> {
        let relative = if relative.is_empty() { OsStr::new(".") } else { relative };
        let folder = match share.resolve(relative, OFlags::DIRECTORY) {
            Ok(folder) => folder,
            // Not found as a folder; it may still be a file, of which ls tells as well.
            Err(FileError::NotFound) => {
                let subject = Subject::One(Some(file(&share, relative)?));
                return Ok(Lister { share, subject });
            }
            Err(error) => return Err(error),
        };
        share.hidden.check(&folder)?;
        let folder = FolderLister {
            relative: relative.to_owned(),
            hidden: share.hidden.identities(),
            dir: Dir::read_from(&folder)?,
            folder,
            window: Window { max_bytes: window_bytes.min(u32::MAX as usize), ..Window::default() },
            is_read: false,
        };
        Ok(Lister { share, subject: Subject::Folder(Box::new(folder)) })
    }

    /// Finds out what comes next, at most `most` entries, in a time that is bounded.
    ///
    /// # Errors
    /// [`FileError`]. An entry that vanishes meanwhile is left out.
    pub fn go_on(&mut self, most: usize) -> Result<Listed, FileError> {
        match &mut self.subject {
            Subject::One(entry) => {
                Ok(entry.take().map_or(Listed::All, |entry| Listed::Entries(vec![entry])))
            }
            Subject::Folder(folder) => folder.go_on(&self.share, most),
        }
    }

    /// Whether there is nothing more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match &self.subject {
            Subject::One(entry) => entry.is_none(),
            Subject::Folder(folder) => folder.is_read && folder.window.is_over(),
        }
    }
}

fn file(share: &Share, relative: &OsStr) -> Result<Entry, FileError> {
    let OpenedFile { size, modified, .. } = share.open_file(relative)?;
    let name = Path::new(relative).file_name().ok_or(FileError::NotFound)?.to_owned();
    Ok(Entry { name, kind: EntryKind::File, size, modified })
}

impl FolderLister {
    fn go_on(&mut self, share: &Share, most: usize) -> Result<Listed, FileError> {
        if !self.is_read {
            self.read()?;
            return Ok(Listed::NotYet);
        }
        let mut entries = Vec::new();
        while entries.len() < most
            && let Some(name) = self.window.next()
        {
            match entry(share, &self.folder, &self.relative, name, &self.hidden) {
                Ok(Some(entry)) => entries.push(entry),
                Ok(None) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        match entries.is_empty() {
            false => Ok(Listed::Entries(entries)),
            true if self.window.advance() => {
                self.dir.rewind();
                self.is_read = false;
                Ok(Listed::NotYet)
            }
            true => Ok(Listed::All),
        }
    }

    /// Reads some more names.
    fn read(&mut self) -> Result<(), FileError> {
        for _ in 0..NAMES_PER_GO {
            let Some(found) = self.dir.read() else {
                self.window.close();
                self.is_read = true;
                return Ok(());
            };
            let found = found?;
            let name = found.file_name().to_bytes();
            if name != b"." && name != b".." && !is_own_stage(&self.folder, name) {
                self.window.offer(name);
            }
        }
        Ok(())
    }
}

impl Window {
    fn offer(&mut self, name: &[u8]) {
        let is_told = self.after.as_deref().is_some_and(|after| name <= after);
        if is_told || self.beyond.as_deref().is_some_and(|beyond| name >= beyond) {
            return;
        }
        self.names.push(name);
        if self.names.bytes() > self.max_bytes {
            self.names.sort();
            self.beyond = self.names.cut(self.max_bytes / 2).or_else(|| self.beyond.take());
        }
    }

    /// All names were offered.
    fn close(&mut self) {
        self.names.sort();
        self.told = 0;
    }

    fn next(&mut self) -> Option<OsString> {
        let name = self.names.get(self.told)?.to_vec();
        self.told += 1;
        Some(OsString::from_vec(name))
    }

    fn is_over(&self) -> bool {
        self.told == self.names.places.len() && self.beyond.is_none()
    }

    /// Makes room for what comes behind these names; false where that is nothing.
    fn advance(&mut self) -> bool {
        if self.beyond.take().is_none() {
            return false;
        }
        if let Some(last) = self.names.places.len().checked_sub(1) {
            self.after = self.names.get(last).map(<[u8]>::to_vec);
        }
        self.names.clear();
        true
    }
}

impl PackedNames {
    /// What they take, about.
    fn bytes(&self) -> usize {
        self.bytes.len() + self.places.len() * size_of::<(u32, u32)>()
    }

    fn push(&mut self, name: &[u8]) {
        self.places.push((self.bytes.len() as u32, name.len() as u32));
        self.bytes.extend_from_slice(name);
    }

    fn get(&self, at: usize) -> Option<&[u8]> {
        let (start, length) = *self.places.get(at)?;
        self.bytes.get(start as usize..(start + length) as usize)
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        let name = |(start, length): &(u32, u32)| {
            &bytes[*start as usize..*start as usize + *length as usize]
        };
        self.places.sort_unstable_by(|one, other| name(one).cmp(name(other)));
        // A folder that changes while it is read may tell of a name twice.
        self.places.dedup_by(|one, other| name(one) == name(other));
    }

    /// Drops all behind the first names that take `most_bytes`, the first of all excepted; returns
    /// the first that was dropped.
    fn cut(&mut self, most_bytes: usize) -> Option<Vec<u8>> {
        let mut kept = PackedNames::default();
        for at in 0..self.places.len() {
            let name = self.get(at).unwrap_or_default();
            if kept.bytes() > most_bytes {
                let first = name.to_vec();
                *self = kept;
                return Some(first);
            }
            kept.push(name);
        }
        None
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.places.clear();
    }
}

/// `None` where it is hidden.
fn entry(
    share: &Share,
    folder: &OwnedFd,
    relative: &OsStr,
    name: OsString,
    hidden: &[Identity],
) -> Result<Option<Entry>, Errno> {
    let mut stat = rustix::fs::statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        // What a link stands for is asked below the share's root, as open_file will do. A link
        // that leads nowhere keeps its own facts and is of kind Other.
        let path = Path::new(relative).join(&name);
        if let Ok(target) = share.resolve(path.as_os_str(), OFlags::PATH) {
            stat = rustix::fs::fstat(&target)?;
        }
    }
    if Hidden::has(hidden, &stat) {
        return Ok(None);
    }
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        _ => EntryKind::Other,
    };
    let size = if kind == EntryKind::File { size_of_stat(&stat) } else { 0 };
    Ok(Some(Entry { name, kind, size, modified: modified_of_stat(&stat) }))
}

impl fmt::Debug for Lister {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Lister").field("share", &self.share).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    /// All entries, and how large the window was at most.
    fn list(lister: &mut Lister) -> (Vec<Entry>, usize) {
        let (mut entries, mut most) = (Vec::new(), 0);
        loop {
            match lister.go_on(7).unwrap() {
                Listed::NotYet => {}
                Listed::All => return (entries, most),
                Listed::Entries(some) => {
                    assert!((1..=7).contains(&some.len()));
                    entries.extend(some);
                }
            }
            if let Subject::Folder(folder) = &lister.subject {
                most = most.max(folder.window.names.bytes());
            }
        }
    }

    #[test]
    fn a_folder_larger_than_its_window_is_listed_whole_and_sorted() {
        let root = tempfile::tempdir().unwrap();
        let mut names: Vec<_> = (0..200).map(|it| format!("{}-{it}", it * 7919 % 199)).collect();
        names.iter().for_each(|name| drop(File::create(root.path().join(name)).unwrap()));
        names.sort();
        let share = Arc::new(Share::open(root.path()).unwrap());
        for window_bytes in [1, 300, 2000, 1 << 20] {
            let mut lister =
                Lister::open(Arc::clone(&share), OsStr::new(""), window_bytes).unwrap();
            let (entries, most) = list(&mut lister);
            assert!(entries.iter().map(|it| &it.name).eq(names.iter().map(OsStr::new)));
            assert!(most <= window_bytes.max(32), "{most} of {window_bytes}");
        }
    }

    #[test]
    fn a_folder_that_changes_between_looks_tells_of_nothing_twice() {
        let root = tempfile::tempdir().unwrap();
        let create = |name: &str| drop(File::create(root.path().join(name)).unwrap());
        ["b", "d", "f", "h"].iter().for_each(|name| create(name));
        let share = Arc::new(Share::open(root.path()).unwrap());
        // Two names have room.
        let mut lister = Lister::open(share, OsStr::new(""), 36).unwrap();
        let mut told = Vec::new();
        loop {
            match lister.go_on(2).unwrap() {
                Listed::NotYet => {}
                Listed::All => break,
                Listed::Entries(some) => {
                    let first = told.is_empty();
                    told.extend(some.into_iter().map(|it| it.name.into_string().unwrap()));
                    if first {
                        ["a", "e"].iter().for_each(|name| create(name));
                        fs::remove_file(root.path().join("h")).unwrap();
                    }
                }
            }
        }
        assert!(told.is_sorted() && !told.contains(&"a".into()), "{told:?}");
        assert!(["b", "d", "f"].iter().all(|name| told.contains(&(*name).into())), "{told:?}");
    }
}
