//! What becomes of a file that has the name already when another one arrives.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
};

use rustix::fs::{AtFlags, FileType, RenameFlags};

use super::naming;
use crate::{
    sys::stage::{self, Stage, attributes},
    transfer::Fault,
    wire::ErrorCode,
};

/// Numbers that are tried for a name.
const NUMBERS_MAX: u32 = 10_000;

/// See the head of this file. Whatever it is, the same content is found and stays.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Existing {
    /// It is brought up to date, as by cp or rsync.
    Replace,
    /// It stays, and what comes gets the next free name: `a-2.txt`.
    #[default]
    Keep,
    /// What the same user has sent before is renamed: `a.txt.~1~`. What did not come from that
    /// user stays.
    Backup,
    /// What the same user has sent before is replaced. What did not come from that user stays.
    Overwrite,
}

/// The permissions of the file that would be replaced under that name; `None` where there is none,
/// or where it would stay.
pub(super) fn mode_of_replaced(
    folder: &OwnedFd,
    name: &OsStr,
    existing: Existing,
    sender: Option<&[u8]>,
) -> Option<u32> {
    let stays = match existing {
        Existing::Replace => false,
        Existing::Keep => true,
        Existing::Backup | Existing::Overwrite => {
            sender.is_none() || attributes::sender_of(folder, name).as_deref() != sender
        }
    };
    if stays {
        return None;
    }
    let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    is_file.then_some(stat.st_mode & 0o777)
}

/// Gives the stage its name, which something has already; returns the name that it got.
pub(super) fn place(
    stage: &mut Stage,
    existing: Existing,
    sender: Option<&[u8]>,
    is_executable: Option<bool>,
) -> Result<OsString, Fault> {
    let (folder, name) = (stage.folder().clone(), stage.target().to_owned());
    stage::check_target(&folder, &name)?;
    let is_senders = sender.is_some() && attributes::sender_of(&folder, &name).as_deref() == sender;
    match existing {
        Existing::Replace => {
            attributes::take_over(stage.file(), &folder, &name, is_executable);
            stage.place(&name, true)?;
            Ok(name)
        }
        Existing::Overwrite if is_senders => {
            attributes::take_over(stage.file(), &folder, &name, is_executable);
            stage.place(&name, true)?;
            Ok(name)
        }
        Existing::Backup if is_senders => {
            attributes::take_over(stage.file(), &folder, &name, is_executable);
            put_aside(&folder, &name)?;
            stage.place(&name, false)?;
            Ok(name)
        }
        Existing::Keep | Existing::Backup | Existing::Overwrite => {
            for number in 2..NUMBERS_MAX {
                let other = numbered(&name, number);
                match stage.place(&other, false) {
                    Ok(()) => return Ok(other),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(too_many())
        }
    }
}

fn put_aside(folder: &OwnedFd, name: &OsStr) -> Result<(), Fault> {
    for number in 1..NUMBERS_MAX {
        let aside = naming::backup(name.as_bytes(), number);
        let aside = OsStr::from_bytes(&aside);
        match rustix::fs::statat(folder, aside, AtFlags::SYMLINK_NOFOLLOW) {
            Err(rustix::io::Errno::NOENT) => {}
            _ => continue,
        }
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(folder, name, folder, aside, flags) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::EXIST) => {}
            // Not every file system can rule out that somebody has just taken the name.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                return Ok(
                    rustix::fs::renameat(folder, name, folder, aside).map_err(io::Error::from)?
                );
            }
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
    }
    Err(too_many())
}

/// See [`naming::numbered`].
pub(super) fn numbered(name: &OsStr, number: u32) -> OsString {
    OsString::from_vec(naming::numbered(name.as_bytes(), number))
}

fn too_many() -> Fault {
    Fault::new(ErrorCode::TooMany, "too many files of this name are there already")
}
