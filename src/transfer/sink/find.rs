//! What is there of a file that is announced: under its name, or begun.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use super::{Existing, FOLDER_MODE, FolderSink, Place, existing, joined, not_here, split};
use crate::{
    sys::{
        files::{FileError, Hidden},
        stage::{self, Stage},
    },
    transfer::{
        Entry, Fault, SIZE_UNKNOWN,
        receiver::{Found, Part},
    },
    wire::ErrorCode,
};

/// Numbered names that are looked at for the same content.
const NUMBERS_MAX: u32 = 100;

impl FolderSink {
    /// What is there of an entry that goes to this path.
    ///
    /// One thing can be claimed. A file of the same size and time is most likely the file itself.
    /// Else what was begun is younger than the file that has the name: it was begun because that
    /// one is another. A file that is shorter may be the beginning of one that has grown.
    pub(super) fn find_at(&mut self, entry: &Entry, path: Vec<u8>) -> Result<Found<Place>, Fault> {
        let (parent, name) = split(&path);
        let folder = self.open_folder(parent, FOLDER_MODE)?;
        let name = OsStr::from_bytes(name);
        self.folders.hidden.check_place(&folder, name).map_err(not_here)?;
        let there = self.look(&folder, name)?;
        if let Some(stat) = &there
            && is_alike(stat, entry)
            && let Some(part) = whole(&folder, name, entry.size)?
        {
            return Ok(Found { name: path, part: Some(part) });
        }
        if there.is_some() && self.existing != Existing::Replace {
            for number in 2..NUMBERS_MAX {
                let other = existing::numbered(name, number);
                let Some(stat) = self.look(&folder, &other)? else { break };
                if is_alike(&stat, entry)
                    && let Some(part) = whole(&folder, &other, entry.size)?
                {
                    let name = joined(parent, other.as_bytes());
                    return Ok(Found { name, part: Some(part) });
                }
            }
        }
        let is_small = FolderSink::is_small(entry);
        if !is_small
            && let Some(stage) = Stage::find(&folder, name)?.filter(|stage| stage.length() > 0)
        {
            let length = stage.length();
            let part = Part { stage: Place::Stage(stage), length, is_whole: false };
            return Ok(Found { name: path, part: Some(part) });
        }
        let size_there = there.and_then(|stat| u64::try_from(stat.st_size).ok());
        let part = match size_there {
            Some(size) if size == entry.size => whole(&folder, name, size)?,
            Some(size) if !is_small && (1..entry.size).contains(&size) => {
                shorter(&folder, name, entry)?
            }
            _ => None,
        };
        Ok(Found { name: path, part })
    }

    /// The facts of a regular file of that name; anything else must not be in the way.
    fn look(&self, folder: &OwnedFd, name: &OsStr) -> Result<Option<Stat>, Fault> {
        match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            // Under another name it is not looked into either.
            Ok(stat) if Hidden::has(&self.folders.hidden.identities(), &stat) => {
                Err(not_here(FileError::Denied))
            }
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => Ok(Some(stat)),
                FileType::Directory => {
                    let text = "there is a folder of that name";
                    Err(Fault::new(ErrorCode::NotAFile, text))
                }
                _ => {
                    stage::check_target(folder, name)?;
                    Ok(None)
                }
            },
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(io::Error::from(errno).into()),
        }
    }
}

fn is_alike(stat: &Stat, entry: &Entry) -> bool {
    let modified = (entry.modified.0, i64::from(entry.modified.1));
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or(-1);
    u64::try_from(stat.st_size).is_ok_and(|size| size == entry.size)
        && (stat.st_mtime, nanoseconds) == modified
}

/// The file of that name and size, to be compared.
fn whole(folder: &OwnedFd, name: &OsStr, size: u64) -> Result<Option<Part<Place>>, Fault> {
    let Some(file) = open(folder, name)? else { return Ok(None) };
    let is_same = file.metadata()?.len() == size;
    Ok(is_same.then_some(Part { stage: Place::Whole(file), length: size, is_whole: true }))
}

/// The file of that name as the beginning of a longer one.
fn shorter(
    folder: &Arc<OwnedFd>,
    name: &OsStr,
    entry: &Entry,
) -> Result<Option<Part<Place>>, Fault> {
    let Some(file) = open(folder, name)? else { return Ok(None) };
    let length = file.metadata()?.len();
    if length == 0 || length >= entry.size || entry.size == SIZE_UNKNOWN {
        return Ok(None);
    }
    let stage = Stage::create(folder, name)?;
    let stage = Place::Shorter(file, stage);
    Ok(Some(Part { stage, length, is_whole: false }))
}

/// What may not be read is no proof of anything.
fn open(folder: &OwnedFd, name: &OsStr) -> Result<Option<File>, Fault> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let Ok(opened) = rustix::fs::openat(folder, name, flags, Mode::empty()) else {
        return Ok(None);
    };
    let file = File::from(opened);
    let metadata = file.metadata()?;
    Ok(metadata.is_file().then_some(file))
}
