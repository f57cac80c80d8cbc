//! The border of the hub: a panic behind it ends the session whose input it was, and no other.

use std::{
    io,
    ops::{Deref, DerefMut},
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::Server;
use crate::hub::{ConnectionId, Hub, Input, Piece, SessionId, Time};

/// The hub, and what became of faults in it.
pub struct Border {
    hub: Hub,
    /// Faults since the start: each has its number in the log.
    faults: u32,
    is_broken: bool,
    /// What the session that broke it is told, which the hub has given up.
    culprit_words: Option<(ConnectionId, Vec<u8>)>,
}

impl Border {
    /// Stands round this hub.
    pub fn new(hub: Hub) -> Border {
        Border { hub, faults: 0, is_broken: false, culprit_words: None }
    }

    /// Tells the hub something, as [`Hub::handle`] does. Where it panics, the session whose input
    /// it was is closed; where the tables do not agree even then, [`Border::is_broken`] says so.
    pub fn handle(&mut self, now: Time, input: Input<'_>) {
        if self.is_broken {
            return;
        }
        let culprit = self.hub.culprit(&input);
        let hub = &mut self.hub;
        if catch_unwind(AssertUnwindSafe(|| hub.handle(now, input))).is_err() {
            self.recover(culprit);
        }
    }

    /// Whether the hub is not to be relied on any more, so that the server has to end.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    #[cold]
    fn recover(&mut self, culprit: Option<SessionId>) {
        self.faults = self.faults.saturating_add(1);
        let number = self.faults;
        let Some(id) = culprit else {
            log::error!("fault {number}: a panic at an input that is of no session");
            return self.is_broken = true;
        };
        // What waits for it may be what is broken; without a word it goes all the same.
        let is_whole = self.give_up(id, true) || {
            let connection = self.hub.connection_of(id);
            let words = match connection.and_then(|connection| self.hub.piece(connection)) {
                Some(Piece::Bytes { bytes, .. }) => bytes.to_vec(),
                _ => Vec::new(),
            };
            self.culprit_words = connection.map(|connection| (connection, words));
            self.give_up(id, false)
        };
        self.is_broken |= !is_whole;
        // Nobody is to act on what it wants any more.
        while self.is_broken && self.hub.poll_effect().is_some() {}
        match is_whole {
            true => log::error!("fault {number}: a panic at the input of {id:?}, which is closed"),
            false => log::error!("fault {number}: a panic at the input of {id:?} has broken all"),
        }
    }

    fn give_up(&mut self, id: SessionId, is_told: bool) -> bool {
        let (hub, number) = (&mut self.hub, self.faults);
        catch_unwind(AssertUnwindSafe(|| hub.give_up(id, number, is_told))).is_ok()
    }

    /// The last words for a connection, after [`Border::say_last_words`].
    pub fn last_words(&self, id: ConnectionId) -> &[u8] {
        match (self.hub.piece(id), &self.culprit_words) {
            (Some(Piece::Bytes { bytes, .. }), _) => bytes,
            (_, Some((culprit, words))) if *culprit == id => words,
            _ => b"",
        }
    }

    /// A panic in the loop itself, or behind the border where it could not be mended: whoever can
    /// be told is, as far as the hub still can. The number is that of the fault.
    pub fn say_last_words(&mut self) -> u32 {
        self.is_broken = true;
        let number = self.faults.max(1);
        let hub = &mut self.hub;
        let ids: Vec<SessionId> = hub.sessions().map(|session| session.id()).collect();
        for id in ids {
            // Whoever cannot be told is cut off.
            let _ = catch_unwind(AssertUnwindSafe(|| hub.say_last_words(id, number)));
        }
        number
    }
}

impl Deref for Border {
    type Target = Hub;

    fn deref(&self) -> &Hub {
        &self.hub
    }
}

impl DerefMut for Border {
    fn deref_mut(&mut self) -> &mut Hub {
        &mut self.hub
    }
}

impl Server {
    /// Ends a server that cannot rely on itself any more, in order: all are told, no command is
    /// left behind.
    pub(super) fn end_broken(&mut self) -> io::Error {
        let number = self.hub.say_last_words();
        for (id, transport) in self.connections.all() {
            let _ = transport.write(self.hub.last_words(id), false);
            // What is left unread would take the last words back.
            let _ = transport.read(&mut self.buffer);
            let _ = transport.shutdown_write();
        }
        self.commands.kill_all();
        io::Error::other(format!("fault {number} of the server itself: all sessions are ended"))
    }
}
