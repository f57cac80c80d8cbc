//! Files and folders on their way to a disk, or to a pipe.
//!
//! The names are those of a stranger. Each part is checked as text, the folder is opened by the
//! kernel below the root through no link but one that the user of this machine has chosen, and the
//! file is written in that very folder.

mod existing;
mod find;
mod folders;
mod naming;
mod pipe;

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt as _,
            fs::{FileExt as _, MetadataExt as _},
        },
    },
    sync::Arc,
};

use rustix::fs::AtFlags;

use self::{folders::Folders, naming::GivenNames};
use super::{
    Entry, Fault, MODE_UNKNOWN, SIZE_UNKNOWN,
    receiver::{Found, Sink, Stored},
};
use crate::{
    limits::{TRANSFER_SMALL_MAX_BYTES, WRITTEN_MAX},
    sys::{
        descriptors,
        files::{FileError, Hidden},
        stage::{self, Stage, attributes},
    },
    wire::ErrorCode,
};

pub use existing::Existing;
pub use naming::{Asked, Naming, name_from, numbered};
pub use pipe::PipeSink;

/// Finished files that wait for each other to be made durable together.
const FINISHED_MAX: usize = 256;

/// From so many files on, the whole file system is synced instead of each.
const SYNC_ALL_FROM: usize = 8;

/// See the head of this file.
#[derive(Debug)]
pub struct FolderSink {
    names: GivenNames,
    existing: Existing,
    /// Whether a stored file has to survive a loss of power.
    is_durable: bool,
    /// Nothing is gone on with later, so that several may write one name at the same time.
    in_one_go: bool,
    folders: Folders,
    finished: Vec<Finished>,
    stored: Vec<Stored>,
    /// What got another name than the one that was found for it.
    renamed: HashMap<u32, Vec<u8>>,
    /// Device and inode of what this transfer has written: nothing of it is replaced by a file
    /// whose name only looks different (a disk may take `A` for `a`).
    written: HashSet<(u64, u64)>,
}

/// A file that is being written, or one that is there already.
#[derive(Debug)]
pub enum Place {
    /// Being written.
    Stage(Stage),
    /// There, under its final name.
    Whole(File),
    /// There, but shorter: it is copied while it is proved, as the beginning of what comes.
    Shorter(File, Stage),
}

#[derive(Debug)]
struct Finished {
    number: u32,
    stage: Stage,
    /// Of the folder, below the root.
    folder: Vec<u8>,
    is_executable: Option<bool>,
}

impl FolderSink {
    /// A sink below the folder `root`.
    pub fn new(root: OwnedFd, naming: Naming, is_durable: bool) -> FolderSink {
        let existing = match naming {
            Naming::Within(_) | Naming::Asked(_) => Existing::Replace,
            Naming::From(_) => Existing::Keep,
        };
        FolderSink {
            names: GivenNames::new(naming),
            existing,
            is_durable,
            in_one_go: false,
            folders: Folders::new(root),
            finished: Vec::new(),
            stored: Vec::new(),
            renamed: HashMap::new(),
            written: HashSet::new(),
        }
    }

    /// The same that touches nothing that is hidden.
    #[must_use]
    pub fn hiding(self, hidden: Arc<Hidden>) -> FolderSink {
        FolderSink { folders: self.folders.hiding(hidden), ..self }
    }

    /// The same that makes so many folders and links at most, those on the way to a file included.
    #[must_use]
    pub fn bounded(self, most: usize) -> FolderSink {
        FolderSink { folders: self.folders.bounded(most), ..self }
    }

    /// The same for files that nobody goes on with where they are broken off. Of several that are
    /// written for one name at once, the one that is finished last stays.
    #[must_use]
    pub fn in_one_go(self) -> FolderSink {
        FolderSink { in_one_go: true, ..self }
    }

    /// The same with this rule for what is there already.
    #[must_use]
    pub fn treating(self, existing: Existing) -> FolderSink {
        FolderSink { existing, ..self }
    }

    fn open_folder(&mut self, path: &[u8], mode: u16) -> Result<Arc<OwnedFd>, Fault> {
        self.folders.open(&self.names, path, mode)
    }

    /// What has failed because too many files are open is tried again with fewer, and then until
    /// others have closed some of theirs.
    fn with_room<T>(
        &mut self,
        mut step: impl FnMut(&mut FolderSink) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        match step(self) {
            Err(fault) if fault.lacks_descriptors() => {
                descriptors::patiently(Fault::lacks_descriptors, || {
                    self.settle_all();
                    self.folders.close_all();
                    step(self)
                })
            }
            other => other,
        }
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
        for one in finished {
            let number = one.number;
            if let Err(error) = &synced {
                // What is on the disk now is not known: nothing of it may get its name.
                one.stage.discard();
                self.stored.push((number, Err(Fault::of_io(error))));
                continue;
            }
            if self.is_durable && !folders.iter().any(|own| Arc::ptr_eq(own, one.stage.folder())) {
                folders.push(one.stage.folder().clone());
            }
            let placed = self.place(one);
            self.stored.push((number, placed));
        }
        let synced = folders.iter().map(sync_folder);
        if let Some(Err(error)) = synced.into_iter().find(Result::is_err) {
            let fault = Fault::of_io(&error);
            let done = self.stored[first..].iter_mut().filter(|(_, result)| result.is_ok());
            done.for_each(|(_, result)| *result = Err(fault.clone()));
        }
    }

    /// Gives a finished file its name.
    fn place(&mut self, one: Finished) -> Result<(), Fault> {
        let Finished { number, mut stage, folder, is_executable } = one;
        let sender = self.names.naming.sender();
        if let Some(sender) = sender {
            attributes::set_sender(stage.file(), sender);
        }
        let name = stage.target().to_owned();
        match stage.place(&name, false) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.check_replaceable(stage.folder(), &name)?;
                let got = existing::place(&mut stage, self.existing, sender, is_executable)?;
                if got != name {
                    self.renamed.insert(number, joined(&folder, got.as_bytes()));
                }
            }
            Err(error) => return Err(error.into()),
        }
        if self.written.len() >= WRITTEN_MAX {
            self.written.clear();
        }
        if let Ok(metadata) = stage.file().metadata() {
            self.written.insert((metadata.dev(), metadata.ino()));
        }
        Ok(())
    }

    /// Whether what has this name may go: this transfer has not put it there, it is not hidden, and
    /// it is what a download may bring up to date.
    fn check_replaceable(&self, folder: &OwnedFd, name: &OsStr) -> Result<(), Fault> {
        let Ok(stat) = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else {
            return Ok(());
        };
        if self.written.contains(&(stat.st_dev, stat.st_ino)) {
            return Err(naming::same_name());
        }
        if Hidden::has(&self.folders.hidden.identities(), &stat) {
            return Err(not_here(FileError::Denied));
        }
        if self.names.chose_the_prefix()
            && let Some(sender) = attributes::sender_of(folder, name)
        {
            let (name, sender) = (name.to_string_lossy(), String::from_utf8_lossy(&sender));
            let text = format!("{name:?} is what {sender:?} has sent; rename it, or use -o");
            return Err(Fault::new(ErrorCode::BadPath, text));
        }
        Ok(())
    }

    fn is_small(entry: &Entry) -> bool {
        entry.size <= TRANSFER_SMALL_MAX_BYTES as u64
    }

    fn create(&mut self, entry: &Entry) -> Result<Stage, Fault> {
        let path = self.names.path_of(entry);
        let (parent, name) = split(&path);
        let (folder, name) = (self.open_folder(parent, FOLDER_MODE)?, OsStr::from_bytes(name));
        Ok(match self.in_one_go || FolderSink::is_small(entry) {
            true => {
                stage::check_target(&folder, name)?;
                let mode = self.permitted(&folder, name, entry);
                Stage::create_small(&folder, name, mode)?
            }
            false => Stage::create(&folder, name)?,
        })
    }

    /// The permissions of a stage until it is placed: no more than those of the file that it is to
    /// replace, since that may be private.
    fn permitted(&self, folder: &OwnedFd, name: &OsStr, entry: &Entry) -> u32 {
        let sender = self.names.naming.sender();
        let mode = u32::from(entry.mode);
        match existing::mode_of_replaced(folder, name, self.existing, sender) {
            Some(old) => mode & old,
            None => mode,
        }
    }
}

/// The permissions of folders that nobody has announced, before the umask.
const FOLDER_MODE: u16 = 0o777;

impl Sink for FolderSink {
    type Stage = Place;

    fn folder(&mut self, entry: &Entry) -> Result<(), Fault> {
        let path = self.names.admit(entry)?;
        self.with_room(|sink| sink.open_folder(&path, entry.mode).map(drop))?;
        self.folders.note(path, entry);
        Ok(())
    }

    fn folder_name(&self, entry: &Entry) -> Vec<u8> {
        self.names.path_of(entry)
    }

    fn takes_links(&self) -> bool {
        true
    }

    fn link(&mut self, entry: &Entry) -> Result<(), Fault> {
        let path = self.names.admit(entry)?;
        self.with_room(|sink| sink.folders.link(&sink.names, &path, entry))
    }

    fn find(&mut self, entry: &Entry) -> Result<Found<Place>, Fault> {
        let path = self.names.admit(entry)?;
        self.with_room(|sink| sink.find_at(entry, path.clone()))
    }

    fn begin(&mut self, entry: &Entry, place: Option<Place>, from: u64) -> Result<Place, Fault> {
        let mut stage = match place {
            Some(Place::Whole(file)) if from > 0 || entry.size == 0 => {
                return Ok(Place::Whole(file));
            }
            // What it is to replace may have become something that cannot be.
            Some(Place::Stage(stage)) if from > 0 => {
                stage::check_target(stage.folder(), stage.target())?;
                stage
            }
            Some(Place::Shorter(_, mut stage)) if from > 0 => {
                stage::check_target(stage.folder(), stage.target())?;
                stage.adopt(from);
                stage
            }
            // The lock of what is dropped here is taken again below.
            other => {
                drop(other);
                self.with_room(|sink| sink.create(entry))?
            }
        };
        if !FolderSink::is_small(entry)
            && entry.size != SIZE_UNKNOWN
            && let Err(error) = stage.expect(entry.size)
        {
            if from == 0 {
                stage.discard();
            }
            return Err(error.into());
        }
        Ok(Place::Stage(stage))
    }

    fn read_at(&mut self, place: &Place, out: &mut [u8], offset: u64) -> io::Result<usize> {
        match place {
            Place::Stage(stage) => stage.read_at(out, offset),
            Place::Whole(file) => file.read_at(out, offset),
            Place::Shorter(file, stage) => {
                let count = file.read_at(out, offset)?;
                // What is proved is what was written, whatever the file becomes meanwhile.
                stage.copy_at(&out[..count], offset)?;
                Ok(count)
            }
        }
    }

    fn write(&mut self, place: &mut Place, bytes: &[u8]) -> Result<(), Fault> {
        match place {
            Place::Stage(stage) => Ok(stage.write_all(bytes)?),
            _ => Err(Fault::new(ErrorCode::Protocol, "bytes of a whole file")),
        }
    }

    fn skip(&mut self, place: &mut Place, length: usize) -> Result<(), Fault> {
        match place {
            Place::Stage(stage) => Ok(stage.skip(length as u64)?),
            _ => Err(Fault::new(ErrorCode::Protocol, "a hole in a whole file")),
        }
    }

    fn finish(&mut self, number: u32, place: Place, entry: &Entry) {
        let mut stage = match place {
            Place::Whole(file) => {
                let result = dress(&file, entry).map_err(Fault::from);
                return self.stored.push((number, result));
            }
            Place::Stage(stage) | Place::Shorter(_, stage) => stage,
        };
        let mode = self.permitted(stage.folder(), stage.target(), entry);
        match stage.dress(entry.modified, mode) {
            Ok(()) => {
                let folder = split(&self.names.path_of(entry)).0.to_vec();
                let is_executable = is_executable(entry);
                self.finished.push(Finished { number, stage, folder, is_executable });
            }
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

    fn placed_as(&mut self, number: u32) -> Option<Vec<u8>> {
        self.renamed.remove(&number)
    }

    fn close(&mut self) {
        self.folders.finish(&self.names);
    }
}

/// What is known of it: a pipe and a line of nc tell nothing.
fn is_executable(entry: &Entry) -> Option<bool> {
    (entry.mode != MODE_UNKNOWN).then(|| entry.is_executable())
}

fn not_here(error: FileError) -> Fault {
    match error {
        FileError::NothingShared => super::source::fault_of(error),
        _ => Fault::new(ErrorCode::PermissionDenied, "nothing may be put there"),
    }
}

/// Gives a file that was there already what may have changed beside its content.
fn dress(file: &File, entry: &Entry) -> io::Result<()> {
    let metadata = file.metadata()?;
    if let Some(is_executable) = is_executable(entry)
        && (metadata.mode() & 0o100 != 0) != is_executable
    {
        attributes::set_mode(file, attributes::with_execution(metadata.mode(), is_executable))?;
    }
    if (metadata.mtime(), metadata.mtime_nsec()) != (entry.modified.0, entry.modified.1.into()) {
        stage::set_modified(file, entry.modified)?;
    }
    Ok(())
}

fn sync_folder(folder: &Arc<OwnedFd>) -> io::Result<()> {
    match rustix::fs::fsync(folder) {
        // Some file systems have nothing to sync in a folder, and say so in this way.
        Err(rustix::io::Errno::INVAL) => Ok(()),
        other => Ok(other?),
    }
}

/// The folder of a path, empty for the root, and the name in it.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memrchr(b'/', path) {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn joined(folder: &[u8], name: &[u8]) -> Vec<u8> {
    match folder.is_empty() {
        true => name.to_vec(),
        false => [folder, b"/", name].concat(),
    }
}
