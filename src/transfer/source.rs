//! Files and folders of a disk, on their way out.

use std::{
    collections::{HashMap, VecDeque},
    ffi::OsStr,
    fs::File,
    io::{self, Read as _},
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt as _,
            fs::{FileExt as _, MetadataExt as _},
        },
    },
    path::Path,
    sync::{Arc, Mutex},
};

use rustix::fs::{AtFlags, Dir, FileType, OFlags, ResolveFlags, Stat};

use super::{Entry, EntryKind, Fault, SIZE_UNKNOWN, Source, SourceFile, glob};
use crate::{
    limits::TRANSFER_SMALL_MAX_BYTES,
    sys::{
        clock,
        files::{self, FileError, Hidden},
        partfile::PART_PREFIX,
    },
    wire::ErrorCode,
};

/// Folders within each other, at most: each is open while what is in it is sent.
const DEPTH_MAX: usize = 128;

/// Names that one pattern may stand for.
const NAMES_MAX: usize = 100_000;

/// Hashes that are remembered.
const HASHES_MAX: usize = 4096;

/// A file that changed less than so many seconds ago may change again within the same tick of the
/// file system's clock; its hash is not remembered.
const SETTLED_SECONDS: i64 = 2;

/// Something that was asked for.
#[derive(Debug)]
pub struct Item {
    /// Nothing outside of this folder is sent.
    folder: Arc<OwnedFd>,
    /// Where in it, parts with `/` between them; its last parts may be patterns.
    path: Vec<u8>,
    /// How it is called, where that is not the last part of the path.
    name: Option<Vec<u8>>,
    is_pattern: bool,
    /// Standard input in place of all that.
    is_pipe: bool,
    /// What of it is not to be sent.
    hidden: Arc<Hidden>,
}

/// What tells one content of a file from another.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The hashes of files that have not changed since.
#[derive(Clone, Debug, Default)]
pub struct Hashes(Arc<Mutex<HashMap<Identity, [u8; 32]>>>);

/// See the head of this file.
#[derive(Debug)]
pub struct DiskSource {
    items: Vec<Item>,
    next_item: usize,
    /// What the patterns of the item at hand stand for.
    found: VecDeque<Vec<u8>>,
    /// Folders that are open, each within the one before.
    stack: Vec<Level>,
    hashes: Hashes,
}

/// Where an entry is found again.
#[derive(Clone, Debug)]
pub struct Place {
    item: usize,
    /// The path of the file or folder itself that the item, or one of its patterns, stood for.
    top: Arc<[u8]>,
}

#[derive(Debug)]
struct Level {
    place: Place,
    dir: Dir,
    folder: OwnedFd,
    /// Below the item's folder.
    path: Vec<u8>,
    /// As the receiver knows it.
    name: Vec<u8>,
    /// What is not to be sent of what is in it.
    hidden: Vec<files::Identity>,
}

/// An opened file.
#[derive(Debug)]
pub struct DiskFile {
    file: File,
    identity: Identity,
    is_file: bool,
    opened_at: i64,
    is_pipe: bool,
    hashes: Hashes,
}

type Missing = (Vec<u8>, Fault);

type Next = Result<(Entry, Place), Missing>;

impl Item {
    /// `path`, below `folder` and by way of nothing outside of it. Names in it may be patterns.
    pub fn below(folder: Arc<OwnedFd>, path: &[u8]) -> Item {
        let is_pattern = glob::is_pattern(path);
        let (path, hidden) = (path.to_vec(), Arc::default());
        Item { folder, path, name: None, is_pattern, is_pipe: false, hidden }
    }

    /// The same without what is hidden: that is not there.
    #[must_use]
    pub fn hiding(self, hidden: Arc<Hidden>) -> Item {
        Item { hidden, ..self }
    }

    /// Something that the user of this machine has named: links in its path are followed, those
    /// in what it holds only to files beneath it.
    ///
    /// # Errors
    /// There is no such thing, or it has no name of its own (`/`).
    pub fn local(path: &Path) -> io::Result<Item> {
        let real = path.canonicalize()?;
        let (Some(parent), Some(real_name)) = (real.parent(), real.file_name()) else {
            return Err(io::Error::other("the root folder has no name; name what is in it"));
        };
        let folder = File::open(parent)?.into();
        let name = path.file_name().unwrap_or(real_name).as_bytes().to_vec();
        let path = real_name.as_bytes().to_vec();
        let folder = Arc::new(folder);
        let (name, hidden) = (Some(name), Arc::default());
        Ok(Item { folder, path, name, is_pattern: false, is_pipe: false, hidden })
    }

    /// Standard input, under a name.
    ///
    /// # Errors
    /// The current folder is gone.
    pub fn pipe(name: Vec<u8>) -> io::Result<Item> {
        let folder = Arc::new(File::open(".")?.into());
        let path = Vec::new();
        let (name, hidden) = (Some(name), Arc::default());
        Ok(Item { folder, path, name, is_pattern: false, is_pipe: true, hidden })
    }
}

impl Hashes {
    fn get(&self, identity: &Identity) -> Option<[u8; 32]> {
        self.0.lock().expect("nobody panics with the hashes").get(identity).copied()
    }

    fn insert(&self, identity: Identity, hash: [u8; 32]) {
        let mut hashes = self.0.lock().expect("nobody panics with the hashes");
        if hashes.len() >= HASHES_MAX {
            hashes.clear();
        }
        hashes.insert(identity, hash);
    }
}

impl DiskSource {
    /// All of `items`, in their order.
    pub fn new(items: Vec<Item>, hashes: Hashes) -> DiskSource {
        DiskSource { items, next_item: 0, found: VecDeque::new(), stack: Vec::new(), hashes }
    }

    fn next_of_item(&mut self) -> Option<Next> {
        loop {
            if let Some(path) = self.found.pop_front() {
                return Some(self.top(self.next_item - 1, path));
            }
            let item = self.items.get(self.next_item)?;
            self.next_item += 1;
            if item.is_pipe {
                let path = item.name.clone().expect("a pipe has a name");
                let item = (self.next_item - 1) as u32;
                let (size, modified) = (SIZE_UNKNOWN, (clock::wall_clock(), 0));
                let (kind, is_executable) = (EntryKind::File, false);
                let entry = Entry { item, kind, is_executable, size, modified, path };
                let place = Place { item: self.next_item - 1, top: Arc::from(&b""[..]) };
                return Some(Ok((entry, place)));
            }
            let is_there = |path: &[u8]| open(item, path, OFlags::PATH).is_ok();
            if !item.is_pattern || is_there(&item.path) {
                self.found.push_back(item.path.clone());
                continue;
            }
            match expand(item) {
                Ok(paths) if paths.is_empty() => {
                    let text = "nothing there has a name like that";
                    let fault = Fault::new(ErrorCode::NoSuchFile, text);
                    return Some(Err((item.path.clone(), fault)));
                }
                Ok(paths) => self.found = paths.into(),
                Err(fault) => return Some(Err((item.path.clone(), fault))),
            }
        }
    }

    /// The file or folder itself that an item names.
    fn top(&mut self, at: usize, path: Vec<u8>) -> Next {
        let item = &self.items[at];
        let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let name = item.name.clone().unwrap_or_else(|| last.to_vec());
        let shown = |fault: Fault| (path.clone(), fault);
        let opened = open(item, &path, OFlags::PATH).map_err(|error| shown(fault_of(error)))?;
        let stat = rustix::fs::fstat(&opened).map_err(|it| shown(io::Error::from(it).into()))?;
        let place = Place { item: at, top: path.clone().into() };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok((entry_of(at, &stat, name), place)),
            FileType::Directory => self.enter(place, path.clone(), name, &stat).map_err(shown),
            _ => Err(shown(not_regular())),
        }
    }

    fn enter(
        &mut self,
        place: Place,
        path: Vec<u8>,
        name: Vec<u8>,
        stat: &Stat,
    ) -> Result<(Entry, Place), Fault> {
        if self.stack.len() >= DEPTH_MAX {
            let text = format!("more than {DEPTH_MAX} folders within each other");
            return Err(Fault::new(ErrorCode::TooMany, text));
        }
        let item = place.item;
        let folder = open(&self.items[item], &path, OFlags::DIRECTORY).map_err(fault_of)?;
        let dir = Dir::read_from(&folder).map_err(io::Error::from)?;
        let entry = entry_of(item, stat, name.clone());
        let hidden = self.items[item].hidden.identities();
        self.stack.push(Level { place: place.clone(), dir, folder, path, name, hidden });
        Ok((Entry { kind: EntryKind::Folder, size: 0, is_executable: false, ..entry }, place))
    }

    fn next_below(&mut self) -> Option<Next> {
        loop {
            let level = self.stack.last_mut()?;
            let found = match level.dir.read() {
                None => {
                    self.stack.pop();
                    continue;
                }
                Some(Err(errno)) => {
                    let name = std::mem::take(&mut level.name);
                    self.stack.pop();
                    return Some(Err((name, io::Error::from(errno).into())));
                }
                Some(Ok(found)) => found,
            };
            let own = found.file_name().to_bytes();
            if matches!(own, b"." | b"..") || own.starts_with(PART_PREFIX.as_bytes()) {
                continue;
            }
            let path = [&level.path[..], b"/", own].concat();
            let name = [&level.name[..], b"/", own].concat();
            let place = level.place.clone();
            let looked = rustix::fs::statat(&level.folder, found.file_name(), NOFOLLOW);
            let stat = match looked {
                Ok(stat) => stat,
                Err(rustix::io::Errno::NOENT) => continue,
                Err(errno) => return Some(Err((name, io::Error::from(errno).into()))),
            };
            if Hidden::has(&level.hidden, &stat) {
                continue;
            }
            return Some(match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => Ok((entry_of(place.item, &stat, name), place)),
                FileType::Directory => {
                    self.enter(place, path, name.clone(), &stat).map_err(|fault| (name, fault))
                }
                FileType::Symlink => self.linked(place, &path, name),
                _ => Err((name, not_regular())),
            });
        }
    }

    /// A link below a folder: to a file that is there as well, it stands for that file.
    fn linked(&self, place: Place, path: &[u8], name: Vec<u8>) -> Next {
        let target = open(&self.items[place.item], path, OFlags::PATH).ok();
        let stat = target.and_then(|target| rustix::fs::fstat(target).ok());
        match stat.filter(|it| FileType::from_raw_mode(it.st_mode) == FileType::RegularFile) {
            Some(stat) => Ok((entry_of(place.item, &stat, name), place)),
            None => {
                let text = "a link that leads to no file in there; links to folders are not \
                            followed";
                Err((name, Fault::new(ErrorCode::NotAFile, text)))
            }
        }
    }
}

const NOFOLLOW: AtFlags = AtFlags::SYMLINK_NOFOLLOW;

impl Source for DiskSource {
    type File = DiskFile;
    type Place = Place;

    fn next(&mut self) -> Option<Next> {
        self.next_below().or_else(|| self.next_of_item())
    }

    fn open(&mut self, entry: &Entry, place: &Place) -> Result<DiskFile, Fault> {
        let item = &self.items[place.item];
        if item.is_pipe {
            let input = rustix::io::dup(rustix::stdio::stdin()).map_err(io::Error::from)?;
            return DiskFile::new(input.into(), true, self.hashes.clone()).map_err(Fault::from);
        }
        let below = entry.path.iter().position(|byte| *byte == b'/').unwrap_or(entry.path.len());
        let path = [&place.top, &entry.path[below..]].concat();
        let opened = open(item, &path, OFlags::NONBLOCK | OFlags::NOCTTY).map_err(fault_of)?;
        let file = DiskFile::new(opened.into(), false, self.hashes.clone())?;
        if !file.is_file {
            return Err(not_regular());
        }
        let modified = (entry.modified.0, i64::from(entry.modified.1));
        if file.identity.size != entry.size || file.identity.modified != modified {
            let text = "the file changed after it was listed; try again";
            return Err(Fault::new(ErrorCode::FileChanged, text));
        }
        Ok(file)
    }
}

impl DiskFile {
    fn new(file: File, is_pipe: bool, hashes: Hashes) -> io::Result<DiskFile> {
        let (identity, is_file) = identity_of(&file)?;
        let opened_at = clock::wall_clock();
        Ok(DiskFile { file, identity, is_file, opened_at, is_pipe, hashes })
    }

    /// The file itself, to send from.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl SourceFile for DiskFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.is_pipe {
            true => (&self.file).read(buffer),
            false => self.file.read_at(buffer, offset),
        }
    }

    fn is_unchanged(&self) -> bool {
        self.is_pipe || identity_of(&self.file).is_ok_and(|(now, _)| now == self.identity)
    }

    fn is_regular(&self) -> bool {
        !self.is_pipe
    }

    fn known_hash(&self) -> Option<[u8; 32]> {
        self.hashes.get(&self.identity)
    }

    fn note_hash(&self, hash: [u8; 32]) {
        let changed = self.identity.changed.0.max(self.identity.modified.0);
        // Of a small file it costs less to compute it than to remember it.
        let is_worth_it = self.identity.size > TRANSFER_SMALL_MAX_BYTES as u64;
        if is_worth_it && !self.is_pipe && self.opened_at - changed >= SETTLED_SECONDS {
            self.hashes.insert(self.identity, hash);
        }
    }
}

fn identity_of(file: &File) -> io::Result<(Identity, bool)> {
    let metadata = file.metadata()?;
    let identity = Identity {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    };
    Ok((identity, metadata.is_file()))
}

fn open(item: &Item, path: &[u8], flags: OFlags) -> Result<OwnedFd, FileError> {
    item.hidden.check_path(OsStr::from_bytes(path))?;
    let links = ResolveFlags::empty();
    let opened = files::open_beneath(&item.folder, OsStr::from_bytes(path), flags, links)?;
    item.hidden.check(&opened)?;
    Ok(opened)
}

fn entry_of(item: usize, stat: &Stat, path: Vec<u8>) -> Entry {
    Entry {
        item: item as u32,
        kind: EntryKind::File,
        is_executable: stat.st_mode & 0o100 != 0,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        modified: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        path,
    }
}

/// The paths that an item's patterns stand for, in the order of their bytes.
fn expand(item: &Item) -> Result<Vec<Vec<u8>>, Fault> {
    let mut paths = vec![Vec::new()];
    for part in item.path.split(|byte| *byte == b'/') {
        let mut next: Vec<Vec<u8>> = Vec::new();
        for path in paths {
            let join = |name: &[u8]| match path.is_empty() {
                true => name.to_vec(),
                false => [&path[..], b"/", name].concat(),
            };
            if !glob::is_pattern(part) {
                next.push(join(part));
                continue;
            }
            let at = if path.is_empty() { &b"."[..] } else { &path };
            // What is no folder has nothing of such a name in it.
            let Ok(folder) = open(item, at, OFlags::DIRECTORY) else { continue };
            for found in Dir::read_from(&folder).map_err(io::Error::from)? {
                let found = found.map_err(io::Error::from)?;
                let name = found.file_name().to_bytes();
                let is_ours = matches!(name, b"." | b"..") || name.starts_with(PART);
                if !is_ours && glob::matches(part, name) {
                    next.push(join(name));
                }
                if next.len() > NAMES_MAX {
                    let text = format!("more than {NAMES_MAX} names are like that");
                    return Err(Fault::new(ErrorCode::TooMany, text));
                }
            }
        }
        paths = next;
    }
    paths.retain(|path| open(item, path, OFlags::PATH).is_ok());
    paths.sort_unstable();
    Ok(paths)
}

const PART: &[u8] = PART_PREFIX.as_bytes();

fn not_regular() -> Fault {
    Fault::new(ErrorCode::NotAFile, "that is neither a regular file nor a folder")
}

/// The name that an error of [`files`] has on the wire.
pub fn fault_of(error: FileError) -> Fault {
    match error {
        FileError::NotFound => Fault::new(ErrorCode::NoSuchFile, "there is no such file"),
        FileError::NotRegular => not_regular(),
        FileError::Denied => Fault::new(ErrorCode::PermissionDenied, "it may not be read"),
        FileError::NothingShared => Fault::new(ErrorCode::Denied, files::NOTHING_SHARED),
        FileError::TooLong => Fault::new(ErrorCode::NameTooLong, "the name is too long"),
        FileError::Io(error) => error.into(),
    }
}
