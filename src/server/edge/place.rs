//! Where the data folder is, and its opening.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use crate::{
    edge::{DataFolder, Folder, disk::OWN_FOLDER, log::LOGS, stage},
    hub::SessionId,
    sys::held_place::HeldPlace,
    wire::{ErrorCode, Refusal},
};

/// The data folder where none is named.
const DEFAULT_NAME: &str = "data";

/// The data folder of a server.
pub type DataFolders = Folder<SessionId, DataFolder>;

/// What the command line says of the data folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DataChoice<'a> {
    /// This one, which is there.
    Named(&'a Path),
    /// The working folder itself.
    WorkingFolder,
    /// A folder of its own in the working folder.
    OwnFolder,
}

/// Where the data folder is.
pub struct Place {
    pub(super) place: DataPlace,
    pub(super) opened: Option<Box<DataFolders>>,
}

/// The place of a data folder, whether it is there or not.
#[derive(Clone, Debug)]
pub(super) struct DataPlace {
    held: HeldPlace,
    /// For people.
    path: PathBuf,
    /// It is made where it is missing.
    is_made: bool,
}

impl Place {
    /// The folder that was named, opened and locked; any other one is opened only where devices
    /// have been at work in it already, and with their first request else.
    ///
    /// # Errors
    /// A sentence: another server has it, or it cannot be opened.
    pub fn find(choice: DataChoice<'_>) -> Result<Place, String> {
        let (path, is_made) = match choice {
            DataChoice::Named(path) => (path, false),
            DataChoice::WorkingFolder => (Path::new("."), false),
            DataChoice::OwnFolder => (Path::new(DEFAULT_NAME), true),
        };
        let failed = |error: io::Error| format!("cannot use the data folder {path:?}: {error}");
        let held = HeldPlace::of(path).map_err(failed)?;
        let path = match is_made {
            true => std::path::absolute(path).map_err(failed)?,
            false => path.canonicalize().map_err(failed)?,
        };
        let place = DataPlace { held, path, is_made };
        if is_made {
            place.warn_of_older();
        }
        let is_named = matches!(choice, DataChoice::Named(_));
        let opened = (is_named || place.is_used()).then(|| place.open()).transpose();
        Ok(Place { place, opened: opened.map_err(|refusal| refusal.text.into_owned())? })
    }

    /// What of it is never shared: all. The logs are named by themselves, so that no link leads to
    /// them either.
    ///
    /// # Errors
    /// What the system says of the working folder.
    pub fn hidden_places(&self) -> io::Result<Vec<HeldPlace>> {
        let DataPlace { held, is_made, .. } = &self.place;
        let own = |folder: &HeldPlace| LOGS.into_iter().map(|log| folder.below(log)).collect();
        let mut hidden: Vec<HeldPlace> = own(held);
        hidden.push(held.clone());
        if *is_made {
            // What older servers have left there is not served either.
            let working = HeldPlace::of(Path::new("."))?;
            hidden.extend::<Vec<HeldPlace>>(own(&working));
            hidden.push(working.below(OWN_FOLDER));
        }
        Ok(hidden)
    }
}

impl DataPlace {
    /// Whether devices have been at work there.
    fn is_used(&self) -> bool {
        has_traces(&self.held)
    }

    /// The data folder was the working folder once.
    fn warn_of_older(&self) {
        if HeldPlace::of(Path::new(".")).is_ok_and(|folder| has_traces(&folder)) {
            log::warn!(
                "the working folder holds files and logs of devices, which are kept in {:?} now; \
                 to go on with those that are here, move them there ({}, {OWN_FOLDER} and the \
                 files DEVICE-NUMBER.txt), or start with --data . and --root DIR, as what \
                 holds them is not shared",
                self.path,
                LOGS.join(", ")
            );
        }
        if !self.is_used() && self.held.look().is_ok() {
            log::warn!(
                "{:?} is the folder of the devices and is not shared; --data DIR names another one \
                 for them",
                self.path
            );
        }
    }

    /// Opens the folder, locks it, and finishes what the last server has left.
    ///
    /// # Errors
    /// Another server has it, or the disk fails.
    pub(super) fn open(&self) -> Result<Box<DataFolders>, Refusal> {
        let path = &self.path;
        let opened =
            self.make().and_then(|()| DataFolder::lock_at(self.held.folder(), self.held.name()));
        let disk = opened.map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::WouldBlock => {
                    format!("another server uses the data folder {path:?}")
                }
                _ => format!("cannot use the data folder {path:?}: {error}"),
            };
            let code = stage::refusal_of(&error).code;
            Refusal::new(0, code, format!("{why}; choose another one by --data"))
        })?;
        let folder = Folder::open(disk).map_err(|why| {
            let text = format!(
                "cannot use the data folder {path:?}: {why}; or choose another one by --data"
            );
            Refusal::new(0, ErrorCode::SystemError, text)
        })?;
        Ok(told(Box::new(folder)))
    }

    fn make(&self) -> io::Result<()> {
        if !self.is_made {
            return Ok(());
        }
        match rustix::fs::mkdirat(self.held.folder(), self.held.name(), Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            // Where it is there, a disk that cannot be written to is found out later.
            Err(_) if self.held.open(OFlags::PATH | OFlags::DIRECTORY).is_ok() => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn has_traces(folder: &HeldPlace) -> bool {
    let is_there = |name: &str| folder.below(name).look_at_link().is_ok();
    std::iter::once(OWN_FOLDER).chain(LOGS).any(is_there)
}

/// Logs what the operator should know.
pub(super) fn told(mut folder: Box<DataFolders>) -> Box<DataFolders> {
    folder.take_warnings().iter().for_each(|warning| log::warn!("data folder: {warning}"));
    folder
}
