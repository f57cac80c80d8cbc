//! Files and folders of a disk, on their way out.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::FileTypeExt as _},
    },
    path::Path,
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, Dir, FileType, OFlags, ResolveFlags, Stat},
    io::Errno,
};

use super::{
    Entry, EntryKind, Fault, MODE_UNKNOWN, SIZE_UNKNOWN, Source, Upcoming, glob,
    walk::{DEPTH_MAX, Expansion, FolderSurvey, KnownFolders, link_stays_within},
};
use crate::{
    sys::{
        clock, descriptors,
        files::{self, FileError, Hidden},
        stage_name::{is_own_stage, is_stage_name},
    },
    wire::ErrorCode,
};

mod file;

pub use file::{DiskFile, Hashes};

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

/// See the head of this file.
#[derive(Debug)]
pub struct DiskSource {
    items: Vec<Item>,
    next_item: usize,
    /// What the patterns of the item at hand stand for.
    found: VecDeque<Vec<u8>>,
    ahead: Option<Ahead>,
    /// The folders of the tree at hand, when it was begun with.
    folders: KnownFolders,
    /// Folders that are open, each within the one before.
    stack: Vec<Level>,
    /// How many things are left out, and the first of them.
    skipped: Option<(u32, Vec<u8>)>,
    hashes: Hashes,
}

/// What has to be looked at before the next thing that was asked for can be announced.
#[derive(Debug)]
enum Ahead {
    Expanding(Expansion),
    Surveying(Vec<u8>, FolderSurvey),
    Ready(Upcoming<Place>),
}

/// Where an entry is found again.
#[derive(Clone, Debug)]
pub struct Place {
    item: usize,
    /// The path of the file or folder itself that the item, or one of its patterns, stood for.
    top: Arc<[u8]>,
    /// Device and inode of the file that was listed, so that another one of its name is noticed.
    listed: Option<(u64, u64)>,
}

#[derive(Debug)]
struct Level {
    place: Place,
    dir: Dir,
    /// Below the item's folder.
    path: Vec<u8>,
    /// As the receiver knows it.
    name: Vec<u8>,
    /// What is not to be sent of what is in it.
    hidden: Vec<files::Identity>,
}

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
        let is_pipe = path.metadata()?.file_type().is_fifo();
        if is_pipe {
            let text = "that is a pipe; give it as standard input, whose name is `-`";
            return Err(io::Error::other(text));
        }
        let real = match path.canonicalize() {
            Err(error) if error.kind() == io::ErrorKind::InvalidFilename => {
                return Item::in_long_folder(path);
            }
            other => other?,
        };
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

    /// The same where the folder's own path is longer than the kernel tells one: what is named is
    /// there, but where links lead cannot be said.
    fn in_long_folder(path: &Path) -> io::Result<Item> {
        let name = path.file_name().filter(|_| !path.is_symlink()).ok_or_else(|| {
            io::Error::other(
                "the path of this folder has more than 4095 bytes; go to one with a shorter path, \
                 or name what is in it and is no link",
            )
        })?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = Arc::new(File::open(parent.unwrap_or(Path::new(".")))?.into());
        let (path, hidden) = (name.as_bytes().to_vec(), Arc::default());
        let name = Some(path.clone());
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

    pub(super) fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, FileError> {
        self.hidden.check_shared()?;
        let links = ResolveFlags::empty();
        let opened = files::open_beneath(&self.folder, OsStr::from_bytes(path), flags, links)?;
        self.hidden.check(&opened)?;
        Ok(opened)
    }
}

impl DiskSource {
    /// All of `items`, in their order.
    pub fn new(items: Vec<Item>, hashes: Hashes) -> DiskSource {
        DiskSource {
            items,
            next_item: 0,
            found: VecDeque::new(),
            ahead: None,
            folders: KnownFolders::default(),
            stack: Vec::new(),
            skipped: None,
            hashes,
        }
    }

    /// What comes after all that is in the folders at hand.
    fn next_of_item(&mut self, budget: &mut usize) -> Upcoming<Place> {
        loop {
            let at = self.next_item.wrapping_sub(1);
            match self.ahead.take() {
                Some(Ahead::Ready(upcoming)) => return upcoming,
                Some(waiting) if *budget == 0 => {
                    self.ahead = Some(waiting);
                    return Upcoming::Later;
                }
                Some(Ahead::Expanding(expansion)) => self.expand(at, expansion, budget),
                Some(Ahead::Surveying(path, survey)) => self.survey(at, path, survey, budget),
                None => match self.found.pop_front() {
                    Some(path) => self.ahead = Some(self.look_at(at, path)),
                    None if self.next_item >= self.items.len() => return Upcoming::End,
                    None => {
                        self.next_item += 1;
                        self.begin_item(self.next_item - 1);
                    }
                },
            }
        }
    }

    fn begin_item(&mut self, at: usize) {
        let item = &self.items[at];
        if item.is_pipe {
            let path = item.name.clone().expect("a pipe has a name");
            let (size, modified) = (SIZE_UNKNOWN, (clock::wall_clock(), 0));
            let (kind, mode, target) = (EntryKind::File, MODE_UNKNOWN, Vec::new());
            let entry = Entry { item: at as u32, kind, mode, size, modified, path, target };
            let place = Place { item: at, top: Arc::from(&b""[..]), listed: None };
            self.ahead = Some(Ahead::Ready(Upcoming::Entry(entry, place)));
        } else if !item.is_pattern || item.open(&item.path, OFlags::PATH).is_ok() {
            self.found.push_back(item.path.clone());
        } else {
            self.ahead = Some(Ahead::Expanding(Expansion::of(&item.path)));
        }
    }

    fn expand(&mut self, at: usize, mut expansion: Expansion, budget: &mut usize) {
        let item = &self.items[at];
        let fault = match expansion.go_on(item, budget) {
            Ok(None) => return self.ahead = Some(Ahead::Expanding(expansion)),
            Ok(Some(paths)) if paths.is_empty() => {
                Fault::new(ErrorCode::NoSuchFile, "nothing there has a name like that")
            }
            Ok(Some(paths)) => return self.found = paths.into(),
            Err(fault) => fault,
        };
        let missing = Upcoming::Missing(item.path.clone(), fault);
        self.ahead = Some(Ahead::Ready(missing));
    }

    fn survey(&mut self, at: usize, path: Vec<u8>, mut survey: FolderSurvey, budget: &mut usize) {
        self.ahead = Some(match survey.go_on(budget) {
            Ok(false) => Ahead::Surveying(path, survey),
            Ok(true) => {
                self.folders = survey.into_known();
                Ahead::Ready(self.top(at, path))
            }
            Err(fault) => Ahead::Ready(Upcoming::Missing(path, fault)),
        });
    }

    /// Of a folder all folders in it are found first.
    fn look_at(&mut self, at: usize, path: Vec<u8>) -> Ahead {
        let open = || self.items[at].open(&path, OFlags::DIRECTORY);
        match descriptors::patiently(FileError::lacks_descriptors, open) {
            Ok(folder) => match FolderSurvey::of(folder) {
                Ok(survey) => Ahead::Surveying(path, survey),
                Err(fault) => Ahead::Ready(Upcoming::Missing(path, fault)),
            },
            Err(_) => Ahead::Ready(self.top(at, path)),
        }
    }

    /// The file or folder itself that an item names.
    fn top(&mut self, at: usize, path: Vec<u8>) -> Upcoming<Place> {
        let item = &self.items[at];
        let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let name = item.name.clone().unwrap_or_else(|| last.to_vec());
        let shown = |fault: Fault| Upcoming::Missing(path.clone(), fault);
        // What somebody is just sending is nobody else's to read; the user's own files are.
        if item.name.is_none() && is_stage_name(last) {
            return shown(fault_of(FileError::NotFound));
        }
        let open = || item.open(&path, OFlags::PATH);
        let opened = match descriptors::patiently(FileError::lacks_descriptors, open) {
            Ok(opened) => opened,
            Err(error) => return shown(fault_of(error)),
        };
        let stat = match rustix::fs::fstat(&opened) {
            Ok(stat) => stat,
            Err(errno) => return shown(io::Error::from(errno).into()),
        };
        let place = Place { item: at, top: path.clone().into(), listed: None };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                Upcoming::Entry(entry_of(at, &stat, name, &opened), place.of(&stat))
            }
            FileType::Directory => match self.enter(place, path.clone(), name, &stat) {
                Ok((entry, place)) => Upcoming::Entry(entry, place),
                Err(fault) => shown(fault),
            },
            _ => shown(not_regular()),
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
        let open = || self.items[item].open(&path, OFlags::DIRECTORY);
        let folder =
            descriptors::patiently(FileError::lacks_descriptors, open).map_err(fault_of)?;
        let entry = bare_entry(item, stat, name.clone());
        let dir = Dir::new(folder).map_err(io::Error::from)?;
        let hidden = self.items[item].hidden.identities();
        self.stack.push(Level { place: place.clone(), dir, path, name, hidden });
        Ok((Entry { kind: EntryKind::Folder, size: 0, ..entry }, place))
    }

    /// The next of what is in the folders at hand; `None` where they are at their end.
    fn next_below(&mut self, budget: &mut usize) -> Option<Upcoming<Place>> {
        loop {
            let level = self.stack.last_mut()?;
            if *budget == 0 {
                return Some(Upcoming::Later);
            }
            *budget -= 1;
            let found = match level.dir.read() {
                None => {
                    self.stack.pop();
                    continue;
                }
                Some(Err(errno)) => {
                    let name = std::mem::take(&mut level.name);
                    self.stack.pop();
                    return Some(Upcoming::Missing(name, io::Error::from(errno).into()));
                }
                Some(Ok(found)) => found,
            };
            let own = found.file_name().to_bytes();
            let is_own = || level.dir.fd().is_ok_and(|folder| is_own_stage(folder, own));
            if matches!(own, b"." | b"..") || is_own() {
                continue;
            }
            let path = [&level.path[..], b"/", own].concat();
            let name = [&level.name[..], b"/", own].concat();
            let place = level.place.clone();
            let looked = level.dir.fd().and_then(|folder| {
                rustix::fs::statat(folder, found.file_name(), AtFlags::SYMLINK_NOFOLLOW)
            });
            let stat = match looked {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Some(Upcoming::Missing(name, io::Error::from(errno).into())),
            };
            if Hidden::has(&level.hidden, &stat) {
                continue;
            }
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => {
                    let entry = match level.dir.fd() {
                        Ok(folder) if may_be_made_up(&stat) => {
                            entry_of(place.item, &stat, name, folder)
                        }
                        _ => bare_entry(place.item, &stat, name),
                    };
                    return Some(Upcoming::Entry(entry, place.of(&stat)));
                }
                // It came to be since this began: perhaps it is where all this goes.
                FileType::Directory if !self.folders.has(stat.st_dev, stat.st_ino) => {}
                FileType::Directory => {
                    return Some(match self.enter(place, path, name.clone(), &stat) {
                        Ok((entry, place)) => Upcoming::Entry(entry, place),
                        Err(fault) => Upcoming::Missing(name, fault),
                    });
                }
                FileType::Symlink => {
                    let target = level.dir.fd().and_then(|folder| {
                        rustix::fs::readlinkat(folder, found.file_name(), Vec::new())
                    });
                    let target = target.map(|target| target.into_bytes()).unwrap_or_default();
                    let link = Entry { target, ..bare_entry(place.item, &stat, name) };
                    if let Some(upcoming) = self.link(link, place, &path) {
                        return Some(upcoming);
                    }
                }
                _ => self.skip(name),
            }
        }
    }

    /// A link below a folder: it goes as such where it stays there, else as the file to which it
    /// leads; `None` where it is left out.
    fn link(&mut self, link: Entry, place: Place, path: &[u8]) -> Option<Upcoming<Place>> {
        if link_stays_within(&link.path, &link.target) {
            let (kind, size) = (EntryKind::Link, link.target.len() as u64);
            return Some(Upcoming::Entry(Entry { kind, size, ..link }, place));
        }
        match self.followed(place, path, link.path) {
            Ok((entry, place)) => Some(Upcoming::Entry(entry, place)),
            Err((name, _)) => {
                self.skip(name);
                None
            }
        }
    }

    fn skip(&mut self, name: Vec<u8>) {
        let (count, _) = self.skipped.get_or_insert((0, name));
        *count = count.saturating_add(1);
    }

    /// A link below a folder that leads to a file which may be sent as well: it stands for that.
    fn followed(
        &self,
        place: Place,
        path: &[u8],
        name: Vec<u8>,
    ) -> Result<(Entry, Place), (Vec<u8>, Fault)> {
        let opened = self.items[place.item].open(path, OFlags::PATH).ok();
        let stat = opened.as_ref().and_then(|opened| rustix::fs::fstat(opened).ok());
        match (opened, stat) {
            (Some(opened), Some(stat))
                if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile =>
            {
                let place = place.of(&stat);
                Ok((entry_of(place.item, &stat, name, opened), place))
            }
            _ => {
                let text = "a link that leads to no file in there; links to folders are not \
                            followed";
                Err((name, Fault::new(ErrorCode::NotAFile, text)))
            }
        }
    }
}

impl Source for DiskSource {
    type File = DiskFile;
    type Place = Place;

    fn next(&mut self, budget: &mut usize) -> Upcoming<Place> {
        let below = self.next_below(budget);
        below.unwrap_or_else(|| self.next_of_item(budget))
    }

    fn follow(&mut self, link: Entry, place: Place) -> Upcoming<Place> {
        let path = place.path_of(&link);
        match self.followed(place, &path, link.path) {
            Ok((entry, place)) => Upcoming::Entry(entry, place),
            Err((name, fault)) => Upcoming::Missing(name, fault),
        }
    }

    fn take_skipped(&mut self) -> Option<(u32, Vec<u8>)> {
        self.skipped.take()
    }

    fn open(&mut self, entry: &Entry, place: &Place) -> Result<DiskFile, Fault> {
        descriptors::patiently(Fault::lacks_descriptors, || self.open_now(entry, place))
    }
}

impl DiskSource {
    fn open_now(&self, entry: &Entry, place: &Place) -> Result<DiskFile, Fault> {
        let item = &self.items[place.item];
        if item.is_pipe {
            let input = rustix::io::dup(rustix::stdio::stdin()).map_err(io::Error::from)?;
            return DiskFile::new(input.into(), true, self.hashes.clone()).map_err(Fault::from);
        }
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = item.open(&place.path_of(entry), flags).map_err(fault_of)?;
        let mut file = DiskFile::new(opened.into(), false, self.hashes.clone())?;
        if !file.is_file {
            return Err(not_regular());
        }
        file.is_made_up = entry.size == SIZE_UNKNOWN;
        // The beginning of another file of that name would be neither the one nor the other.
        let identity = &file.identity;
        let is_other = place.listed.is_some_and(|it| it != (identity.device, identity.inode));
        if is_other && identity.size != entry.size && !file.is_made_up {
            let text = "another file took its name after it was listed; try again";
            return Err(Fault::new(ErrorCode::FileChanged, text));
        }
        // It is sent as it is now; but more of it than there is cannot be.
        if file.identity.size < entry.size && !file.is_made_up {
            let text = "the file became shorter after it was listed; try again";
            return Err(Fault::new(ErrorCode::FileChanged, text));
        }
        Ok(file)
    }
}

impl Place {
    /// The same for this file.
    fn of(self, stat: &Stat) -> Place {
        Place { listed: Some((stat.st_dev, stat.st_ino)), ..self }
    }

    /// Where the entry is, below the item's folder.
    fn path_of(&self, entry: &Entry) -> Vec<u8> {
        let below = entry.path.iter().position(|byte| *byte == b'/').unwrap_or(entry.path.len());
        [&self.top, &entry.path[below..]].concat()
    }
}

/// What there is of a file, opened or in an opened folder. One that the kernel makes while it is
/// read has a size that is not known.
fn entry_of(item: usize, stat: &Stat, path: Vec<u8>, opened: impl AsFd) -> Entry {
    let entry = bare_entry(item, stat, path);
    match may_be_made_up(stat) && is_made_up(opened) {
        true => Entry { size: SIZE_UNKNOWN, ..entry },
        false => entry,
    }
}

fn bare_entry(item: usize, stat: &Stat, path: Vec<u8>) -> Entry {
    Entry {
        item: item as u32,
        kind: EntryKind::File,
        mode: (stat.st_mode & 0o777) as u16,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        modified: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        path,
        target: Vec::new(),
    }
}

/// No other file takes no room on its disk, but for small, empty and sparse ones.
fn may_be_made_up(stat: &Stat) -> bool {
    stat.st_blocks == 0
}

/// Whether the kernel makes the files of this file system up: their sizes tell nothing (proc(5),
/// sysfs(5), statfs(2)).
fn is_made_up(opened: impl AsFd) -> bool {
    const KINDS: [u64; 8] = [
        0x9fa0,      // proc
        0x6265_6572, // sysfs
        0x6367_7270, // cgroup2
        0x0027_e0eb, // cgroup
        0x6462_6720, // debugfs
        0x7472_6163, // tracefs
        0x7363_6673, // securityfs
        0x6265_6570, // configfs
    ];
    let system = rustix::fs::fstatfs(opened);
    system.is_ok_and(|system| KINDS.contains(&(system.f_type as u64)))
}

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

#[cfg(test)]
mod tests;
