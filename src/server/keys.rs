//! The server's key in use, and how it is read again while serving.

use std::{
    io,
    path::Path,
    sync::{Arc, mpsc},
    thread,
};

use rustls::ServerConfig;

use crate::sys::{
    fingerprint::Fingerprint,
    held_place::HeldPlace,
    identity::{FILE_NAME, Identity, Source},
    state,
};

/// What every new connection is offered.
pub struct Keys {
    source: Source,
    identity: Identity,
    /// What is being read again.
    reload: Option<mpsc::Receiver<Result<Identity, String>>>,
}

impl Keys {
    /// Loads the key.
    ///
    /// # Errors
    /// A sentence.
    pub fn load(source: Source) -> Result<Keys, String> {
        let identity = Identity::load(&source)?;
        Ok(Keys { source, identity, reload: None })
    }

    /// For a new connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.identity.config)
    }

    /// What clients know the server by.
    pub fn fingerprint(&self) -> Fingerprint {
        self.identity.fingerprint
    }

    /// Whether the key was made at this start.
    pub fn is_new(&self) -> bool {
        self.identity.is_new
    }

    /// Checks that the key is not among what is served.
    ///
    /// # Errors
    /// A sentence that says how to part the two.
    pub fn check_not_served(&self, root: &Path) -> Result<(), String> {
        let (place, what, option) = match &self.source {
            Source::State(folder) => (folder, "state folder", "--state"),
            Source::Files { key, .. } => (key, "private key", "--key"),
        };
        match state::is_within(place, root) {
            Ok(false) => Ok(()),
            Ok(true) => Err(format!(
                "the {what} {} lies inside the folder that is served, {}, where others could read \
                 it; share another folder (--root), or keep it elsewhere ({option})",
                place.display(),
                root.display()
            )),
            Err(error) => Err(format!("cannot serve the folder {}: {error}", root.display())),
        }
    }

    /// The file with the private key, to which no link below what is served may lead either, and
    /// the state folder, which nobody may move there.
    ///
    /// # Errors
    /// What open(2) says of the folder that it is in.
    pub fn hidden_places(&self) -> io::Result<Vec<HeldPlace>> {
        match &self.source {
            Source::State(folder) => {
                let folder = HeldPlace::of(folder)?;
                Ok(vec![folder.below(FILE_NAME), folder])
            }
            Source::Files { key, .. } => Ok(vec![HeldPlace::of(key)?]),
        }
    }

    /// Reads the key again, on a thread of its own that calls `waker`. While one does so the next
    /// has to wait, and is of no use.
    pub fn reload(&mut self, waker: Arc<mio::Waker>) {
        let (sender, receiver) = mpsc::channel();
        let source = self.source.clone();
        let started = thread::Builder::new().name("keys".to_owned()).spawn(move || {
            // The server may have ended meanwhile.
            let _ = sender.send(Identity::load(&source));
            let _ = waker.wake();
        });
        match started {
            Ok(_) => self.reload = Some(receiver),
            Err(error) => log::error!("the key cannot be read again now: {error}"),
        }
    }

    /// Takes in what was read. Connections that are there keep what they have.
    pub fn take_reloaded(&mut self) {
        let Some(reload) = self.reload.as_ref().and_then(|reload| reload.try_recv().ok()) else {
            return;
        };
        self.reload = None;
        match reload {
            Ok(identity) => {
                let is_same = identity.fingerprint == self.identity.fingerprint;
                let what = if is_same { "the same key" } else { "another key" };
                log::info!(
                    "the key and its certificate were read again: {what}, {}",
                    identity.fingerprint
                );
                self.identity = identity;
            }
            Err(why) => log::error!("the key stays as it was: {why}"),
        }
    }
}
