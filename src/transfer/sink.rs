//! Files and folders on their way to a disk, or to a pipe.
//!
//! The names are those of a stranger. Each part is checked as text, the folder is opened by the
//! kernel below the root through no link at all, and the file is written in that very folder.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{
            ffi::OsStrExt as _,
            fs::{FileExt as _, MetadataExt as _},
        },
    },
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::{
    Entry, EntryKind, Fault, SIZE_UNKNOWN, glob,
    receiver::{Found, Part, Sink, Stored},
    source::fault_of,
};
use crate::{
    limits::TRANSFER_SMALL_MAX_BYTES,
    sys::{
        files::{self, FileError, Hidden},
        partfile::PART_PREFIX,
        stage::{self, Stage},
    },
    wire::{ErrorCode, SharePath},
};

/// Folders that are held open for the files to come.
const FOLDERS_MAX: usize = 16;

/// Finished files that wait for each other to be made durable together.
const FINISHED_MAX: usize = 256;

/// From so many files on, the whole file system is synced instead of each.
const SYNC_ALL_FROM: usize = 8;

/// What a dead transfer has left is kept for so long.
const LEFTOVER_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Names of different files that one transfer may put side by side at its top.
const TOPS_MAX: usize = 100_000;

/// Which name a thing gets.
#[derive(Clone, Debug)]
pub enum Naming {
    /// As the sender calls it, within this folder below the root (empty: the root itself). No part
    /// may begin with a dot.
    Within(Vec<u8>),
    /// Only what was asked for, as it is called here.
    Asked(Vec<Asked>),
    /// As the sender calls it, with this in front.
    Prefixed(Vec<u8>),
}

/// One thing that was asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The last part of its path, perhaps a pattern.
    pub pattern: Vec<u8>,
    /// What stands before the names that a pattern stands for.
    pub prefix: Vec<u8>,
    /// The name itself, where it is not to be the prefix and the pattern.
    pub rename: Option<Vec<u8>>,
}

/// See the head of this file.
#[derive(Debug)]
pub struct FolderSink {
    root: Arc<OwnedFd>,
    naming: Naming,
    /// Whether a stored file has to survive a loss of power.
    is_durable: bool,
    folders: Vec<(Vec<u8>, Arc<OwnedFd>)>,
    finished: Vec<Finished>,
    stored: Vec<Stored>,
    /// The names at the top so far, by the item that they belong to.
    tops: HashSet<(u32, Vec<u8>)>,
    has_swept: bool,
    /// What is neither replaced nor looked into.
    hidden: Arc<Hidden>,
}

/// A file that is being written, or one that is there already.
#[derive(Debug)]
pub enum Place {
    /// Being written.
    Stage(Stage),
    /// There, under its final name.
    Whole(File),
}

#[derive(Debug)]
struct Finished {
    number: u32,
    stage: Stage,
}

impl FolderSink {
    /// A sink below the folder `root`.
    pub fn new(root: OwnedFd, naming: Naming, is_durable: bool) -> FolderSink {
        FolderSink {
            root: Arc::new(root),
            naming,
            is_durable,
            folders: Vec::new(),
            finished: Vec::new(),
            stored: Vec::new(),
            tops: HashSet::new(),
            has_swept: false,
            hidden: Arc::default(),
        }
    }

    /// The same that touches nothing that is hidden.
    #[must_use]
    pub fn hiding(self, hidden: Arc<Hidden>) -> FolderSink {
        FolderSink { hidden, ..self }
    }

    /// Where the entry goes, below the root.
    fn path_of(&mut self, entry: &Entry) -> Result<Vec<u8>, Fault> {
        let path = &entry.path;
        if let Err(fault) = SharePath::parse(path) {
            return Err(Fault::new(ErrorCode::BadPath, fault.to_string()));
        }
        let cut = path.iter().position(|byte| *byte == b'/').unwrap_or(path.len());
        let (top, rest) = path.split_at(cut);
        let mut parts = path.split(|byte| *byte == b'/');
        if parts.any(|part| part.starts_with(PART_PREFIX.as_bytes())) {
            let text = format!("names that begin with {PART_PREFIX} are those of unfinished files");
            return Err(Fault::new(ErrorCode::BadPath, text));
        }
        match &self.naming {
            Naming::Within(folder) => {
                if path.split(|byte| *byte == b'/').any(|part| part.starts_with(b".")) {
                    let text = "names that begin with a dot are not taken";
                    return Err(Fault::new(ErrorCode::BadPath, text));
                }
                Ok(match folder.is_empty() {
                    true => path.clone(),
                    false => [folder, &b"/"[..], path].concat(),
                })
            }
            Naming::Prefixed(prefix) => Ok([&prefix[..], path].concat()),
            Naming::Asked(asked) => {
                let one = asked.get(entry.item as usize).filter(|one| one.allows(top));
                let one = one.ok_or_else(|| {
                    let text = "nobody asked for a file of this name";
                    Fault::new(ErrorCode::Protocol, text)
                })?;
                let name = one.name(top);
                let is_new = rest.is_empty();
                if is_new && self.tops.iter().any(|(_, other)| *other == name) {
                    let text = "another file of this transfer is saved under the same name";
                    return Err(Fault::new(ErrorCode::BadPath, text));
                }
                if is_new {
                    if self.tops.len() >= TOPS_MAX {
                        let text = format!("more than {TOPS_MAX} names at once");
                        return Err(Fault::new(ErrorCode::TooMany, text));
                    }
                    self.tops.insert((entry.item, name.clone()));
                } else if !self.tops.contains(&(entry.item, name.clone())) {
                    let text = "a file in a folder that was not announced";
                    return Err(Fault::new(ErrorCode::Protocol, text));
                }
                Ok([&name, rest].concat())
            }
        }
    }

    /// The folder at `path`, opened; made, where it is not there.
    fn open_folder(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>, Fault> {
        if let Some((_, folder)) = self.folders.iter().rev().find(|(own, _)| own == path) {
            return Ok(folder.clone());
        }
        let opened = match self.open_at(path) {
            Err(FileError::NotFound) if !path.is_empty() => {
                let (parent, name) = split(path);
                let parent = self.open_folder(parent)?;
                self.hidden.check_place(&parent, OsStr::from_bytes(name)).map_err(not_here)?;
                make_folder(&parent, name)?;
                self.open_at(path)
            }
            other => other,
        };
        let folder = Arc::new(opened.map_err(|error| match error {
            FileError::NotFound | FileError::NotRegular => {
                Fault::new(ErrorCode::NotAFolder, "a part of the path is no folder")
            }
            other => fault_of(other),
        })?);
        if !std::mem::replace(&mut self.has_swept, true) {
            // What cannot be swept now may be so the next time.
            let _ = stage::sweep(folder.as_fd(), LEFTOVER_AGE);
        }
        if self.folders.len() >= FOLDERS_MAX {
            self.folders.remove(0);
        }
        self.folders.push((path.to_vec(), folder.clone()));
        Ok(folder)
    }

    fn open_at(&self, path: &[u8]) -> Result<OwnedFd, FileError> {
        let path = if path.is_empty() { &b"."[..] } else { path };
        let links = ResolveFlags::NO_SYMLINKS;
        let path = OsStr::from_bytes(path);
        self.hidden.check_shared()?;
        let folder = files::open_beneath(&self.root, path, OFlags::DIRECTORY, links)?;
        self.hidden.check(&folder).map_err(|error| match error {
            FileError::NothingShared => error,
            _ => FileError::Denied,
        })?;
        Ok(folder)
    }

    fn settle_all(&mut self) {
        let finished = std::mem::take(&mut self.finished);
        if finished.is_empty() {
            return;
        }
        let synced = match &finished[..] {
            _ if !self.is_durable => Ok(()),
            [first, ..] if finished.len() >= SYNC_ALL_FROM => first.stage.sync_all(),
            some => some.iter().try_for_each(|one| one.stage.sync()),
        };
        let mut folders: Vec<Arc<OwnedFd>> = Vec::new();
        let first = self.stored.len();
        for Finished { number, stage } in finished {
            if let Err(error) = &synced {
                // What is on the disk now is not known: nothing of it may get its name.
                stage.discard();
                self.stored.push((number, Err(Fault::of_io(error))));
                continue;
            }
            if self.is_durable && !folders.iter().any(|own| Arc::ptr_eq(own, stage.folder())) {
                folders.push(stage.folder().clone());
            }
            self.stored.push((number, stage.finish().map_err(Fault::from)));
        }
        if let Some(Err(errno)) = folders.iter().map(rustix::fs::fsync).find(Result::is_err) {
            let fault = Fault::of_io(&errno.into());
            let done = self.stored[first..].iter_mut().filter(|(_, result)| result.is_ok());
            done.for_each(|(_, result)| *result = Err(fault.clone()));
        }
    }

    fn is_small(entry: &Entry) -> bool {
        entry.size <= TRANSFER_SMALL_MAX_BYTES as u64
    }
}

impl Asked {
    fn allows(&self, top: &[u8]) -> bool {
        top == self.pattern || glob::is_pattern(&self.pattern) && glob::matches(&self.pattern, top)
    }

    fn name(&self, top: &[u8]) -> Vec<u8> {
        match &self.rename {
            Some(name) => name.clone(),
            None => [&self.prefix, top].concat(),
        }
    }
}

impl Sink for FolderSink {
    type Stage = Place;

    fn folder(&mut self, entry: &Entry) -> Result<(), Fault> {
        let path = self.path_of(entry)?;
        self.open_folder(&path).map(drop)
    }

    fn find(&mut self, entry: &Entry) -> Result<Found<Place>, Fault> {
        let path = self.path_of(entry)?;
        let (parent, name) = split(&path);
        let folder = self.open_folder(parent)?;
        let name = OsStr::from_bytes(name);
        self.hidden.check_place(&folder, name).map_err(not_here)?;
        let part = match rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            // Under another name it is not looked into either.
            Ok(stat) if Hidden::has(&self.hidden.identities(), &stat) => {
                return Err(not_here(FileError::Denied));
            }
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                let text = "there is a folder of that name";
                return Err(Fault::new(ErrorCode::NotAFile, text));
            }
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                let is_same = u64::try_from(stat.st_size).is_ok_and(|size| size == entry.size);
                if is_same { whole(&folder, name, entry.size)? } else { None }
            }
            Ok(_) => {
                stage::check_target(&folder, name)?;
                None
            }
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(io::Error::from(errno).into()),
        };
        let part = match part {
            None if !FolderSink::is_small(entry) => Stage::find(&folder, name)?.map(|stage| {
                let length = stage.length();
                Part { stage: Place::Stage(stage), length, is_whole: false }
            }),
            other => other,
        };
        Ok(Found { name: path, part })
    }

    fn begin(&mut self, entry: &Entry, place: Option<Place>, from: u64) -> Result<Place, Fault> {
        let mut stage = match place {
            Some(place) if from > 0 => match place {
                Place::Whole(_) => return Ok(place),
                Place::Stage(stage) => stage,
            },
            // The lock of what is dropped here is taken again below.
            other => {
                drop(other);
                let path = self.known_path(entry)?;
                let (parent, name) = split(&path);
                let (folder, name) = (self.open_folder(parent)?, OsStr::from_bytes(name));
                match FolderSink::is_small(entry) {
                    true => Stage::create_small(&folder, name, entry.is_executable)?,
                    false => Stage::create(&folder, name)?,
                }
            }
        };
        if !FolderSink::is_small(entry) && entry.size != SIZE_UNKNOWN {
            let more = entry.size.saturating_sub(stage.length());
            if more > 0
                && let Err(error) = stage.preallocate(entry.size)
            {
                if from == 0 {
                    stage.discard();
                }
                return Err(error.into());
            }
        }
        Ok(Place::Stage(stage))
    }

    fn read_at(&mut self, place: &Place, out: &mut [u8], offset: u64) -> io::Result<usize> {
        match place {
            Place::Stage(stage) => stage.read_at(out, offset),
            Place::Whole(file) => file.read_at(out, offset),
        }
    }

    fn write(&mut self, place: &mut Place, bytes: &[u8]) -> Result<(), Fault> {
        match place {
            Place::Stage(stage) => Ok(stage.write_all(bytes)?),
            Place::Whole(_) => Err(Fault::new(ErrorCode::Protocol, "bytes of a whole file")),
        }
    }

    fn finish(&mut self, number: u32, place: Place, entry: &Entry) {
        let dressed = match place {
            Place::Whole(file) => {
                let result = dress(&file, entry).map_err(Fault::from);
                return self.stored.push((number, result));
            }
            Place::Stage(mut stage) => {
                let dressed = stage.dress(entry.modified, entry.is_executable);
                dressed.map(|()| stage)
            }
        };
        match dressed {
            Ok(stage) => self.finished.push(Finished { number, stage }),
            Err(error) => self.stored.push((number, Err(error.into()))),
        }
        if !self.is_durable || self.finished.len() >= FINISHED_MAX {
            self.settle_all();
        }
    }

    fn discard(&mut self, place: Place) {
        if let Place::Stage(stage) = place {
            stage.discard();
        }
    }

    fn settle(&mut self) -> Vec<Stored> {
        self.settle_all();
        std::mem::take(&mut self.stored)
    }
}

impl FolderSink {
    /// The path of an entry that was found already.
    fn known_path(&mut self, entry: &Entry) -> Result<Vec<u8>, Fault> {
        if let Naming::Asked(asked) = &self.naming {
            let cut = entry.path.iter().position(|byte| *byte == b'/');
            let (top, rest) = entry.path.split_at(cut.unwrap_or(entry.path.len()));
            let name = asked[entry.item as usize].name(top);
            return Ok([&name, rest].concat());
        }
        self.path_of(entry)
    }
}

fn not_here(error: FileError) -> Fault {
    match error {
        FileError::NothingShared => fault_of(error),
        _ => Fault::new(ErrorCode::PermissionDenied, "nothing may be put there"),
    }
}

/// The file of that name and size, to be compared.
fn whole(folder: &OwnedFd, name: &OsStr, size: u64) -> Result<Option<Part<Place>>, Fault> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    // What may not be read is no proof of anything.
    let Ok(opened) = rustix::fs::openat(folder, name, flags, Mode::empty()) else {
        return Ok(None);
    };
    let file = File::from(opened);
    let metadata = file.metadata()?;
    let is_same = metadata.is_file() && metadata.len() == size;
    Ok(is_same.then_some(Part { stage: Place::Whole(file), length: size, is_whole: true }))
}

/// Gives a file that was there already what may have changed beside its content.
fn dress(file: &File, entry: &Entry) -> io::Result<()> {
    let metadata = file.metadata()?;
    if (metadata.mode() & 0o100 != 0) != entry.is_executable {
        stage::set_mode(file, entry.is_executable)?;
    }
    if (metadata.mtime(), metadata.mtime_nsec()) != (entry.modified.0, entry.modified.1.into()) {
        stage::set_modified(file, entry.modified)?;
    }
    Ok(())
}

fn make_folder(parent: &OwnedFd, name: &[u8]) -> Result<(), Fault> {
    match rustix::fs::mkdirat(parent, OsStr::from_bytes(name), Mode::from_raw_mode(0o777)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(io::Error::from(errno).into()),
    }
}

/// The folder of a path, empty for the root, and the name in it.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memrchr(b'/', path) {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// One file after the other into a pipe: nothing is found, nothing can be taken back.
#[derive(Debug)]
pub struct PipeSink<W> {
    pipe: W,
    stored: Vec<Stored>,
    files: usize,
}

impl<W: Write> PipeSink<W> {
    /// A sink into `pipe`.
    pub fn new(pipe: W) -> PipeSink<W> {
        PipeSink { pipe, stored: Vec::new(), files: 0 }
    }
}

impl<W: Write> Sink for PipeSink<W> {
    type Stage = ();

    fn folder(&mut self, _: &Entry) -> Result<(), Fault> {
        let text = "a folder does not go to standard output; name a file";
        Err(Fault::new(ErrorCode::NotAFile, text))
    }

    fn find(&mut self, entry: &Entry) -> Result<Found<()>, Fault> {
        if entry.kind == EntryKind::File && self.files > 0 {
            let text = "only one file goes to standard output";
            return Err(Fault::new(ErrorCode::BadArguments, text));
        }
        self.files += 1;
        Ok(Found { name: b"-".to_vec(), part: None })
    }

    fn begin(&mut self, _: &Entry, _: Option<()>, _: u64) -> Result<(), Fault> {
        Ok(())
    }

    fn read_at(&mut self, _: &(), _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }

    fn write(&mut self, (): &mut (), bytes: &[u8]) -> Result<(), Fault> {
        Ok(self.pipe.write_all(bytes)?)
    }

    fn finish(&mut self, number: u32, (): (), _: &Entry) {
        let flushed = self.pipe.flush().map_err(Fault::from);
        self.stored.push((number, flushed));
    }

    fn discard(&mut self, (): ()) {}

    fn settle(&mut self) -> Vec<Stored> {
        std::mem::take(&mut self.stored)
    }
}
