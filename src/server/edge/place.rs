//! Where the data folder is, and its opening.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    edge::{DataFolder, Folder, disk::OWN_FOLDER, log::LOGS},
    hub::SessionId,
};

/// The data folder of a server.
pub type DataFolders = Folder<SessionId, DataFolder>;

/// Where the data folder is.
pub struct Place {
    pub(super) path: PathBuf,
    pub(super) opened: Option<Box<DataFolders>>,
}

impl Place {
    /// The folder that was named, opened and locked; or else the working directory, which is opened
    /// only where devices have been at work in it already, and with their first request else.
    ///
    /// # Errors
    /// A sentence: another server has it, or it cannot be opened.
    pub fn find(named: Option<&Path>) -> Result<Place, String> {
        let path = named.unwrap_or(Path::new("."));
        let failed = |error: io::Error| format!("cannot use the data folder {path:?}: {error}");
        let path = path.canonicalize().map_err(failed)?;
        let is_wanted = named.is_some() || DataFolder::is_used(&path);
        let opened = is_wanted.then(|| open(&path)).transpose()?;
        Ok(Place { path, opened })
    }

    /// What of it is never shared: the logs, and what the server needs for itself.
    pub fn hidden_paths(&self) -> impl Iterator<Item = PathBuf> {
        LOGS.into_iter().chain([OWN_FOLDER]).map(|name| self.path.join(name))
    }
}

/// Opens a folder, locks it, and finishes what the last server has left.
pub(super) fn open(path: &Path) -> Result<Box<DataFolders>, String> {
    let disk = DataFolder::lock(path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            format!("another server uses the data folder {path:?}; choose another one by --data")
        }
        _ => format!("cannot use the data folder {path:?}: {error}; choose another one by --data"),
    })?;
    let folder = Folder::open(disk).map_err(|why| {
        format!("cannot use the data folder {path:?}: {why}; or choose another one by --data")
    })?;
    Ok(told(Box::new(folder)))
}

/// Logs what the operator should know.
pub(super) fn told(mut folder: Box<DataFolders>) -> Box<DataFolders> {
    folder.take_warnings().iter().for_each(|warning| log::warn!("data folder: {warning}"));
    folder
}
