//! Sockets on their way out.
//!
//! Closing a socket while the peer still sends makes the kernel reset the connection, and the
//! peer may never read the last words. So the writing half is shut first, and what comes in is
//! thrown away for a moment.

use std::{io::ErrorKind, time::Duration};

use mio::{Interest, Registry};
use slab::Slab;

use super::token::Source;
use crate::sys::transport::Transport;

/// How long a peer may take to hang up.
const LINGER: Duration = Duration::from_secs(2);
/// How much it may still send meanwhile.
const LINGER_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Reads of one socket in one turn, so that a fast sender does not hold up the others.
const READS_PER_TURN: usize = 4;

/// The sockets that wait for their peers to hang up.
pub struct Lingering {
    sockets: Slab<Socket>,
    /// The earliest deadline, or that of a socket that has gone before it: so that thousands of
    /// sockets are not looked at in every turn.
    due: Option<u64>,
    /// More than these are closed at once, whatever their peers still send.
    most: usize,
}

struct Socket {
    transport: Transport,
    deadline: u64,
    left_bytes: usize,
}

impl Lingering {
    /// Room for so many.
    pub fn new(most: usize) -> Lingering {
        Lingering { sockets: Slab::new(), due: None, most }
    }

    /// Takes over a socket on which all is said; what TLS still has to say goes out meanwhile.
    pub fn push(&mut self, mut transport: Transport, now: u64, registry: &Registry) {
        match transport.shutdown_write() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => return,
            _ => {}
        }
        if self.sockets.len() >= self.most {
            return;
        }
        let entry = self.sockets.vacant_entry();
        let token = Source::Lingering(entry.key()).token();
        let interest = interest(&transport);
        if registry.reregister(&mut transport, token, interest).is_ok() {
            let deadline = now + LINGER.as_millis() as u64;
            // All may take equally long, so the first deadline is the earliest.
            self.due.get_or_insert(deadline);
            entry.insert(Socket { transport, deadline, left_bytes: LINGER_MAX_BYTES });
        }
    }

    /// Throws away what has come in, a budget of it; drops the socket once its peer has hung up.
    pub fn drain(&mut self, slot: usize, buffer: &mut [u8], registry: &Registry) {
        let Some(socket) = self.sockets.get_mut(slot) else { return };
        if socket.transport.wants_write() {
            match socket.transport.shutdown_write() {
                Err(error) if error.kind() != ErrorKind::WouldBlock => {
                    self.sockets.remove(slot);
                    return;
                }
                _ => {}
            }
        }
        for _ in 0..READS_PER_TURN {
            match socket.transport.discard(buffer) {
                Ok(count) if count > 0 && count <= socket.left_bytes => socket.left_bytes -= count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => {
                    self.sockets.remove(slot);
                    return;
                }
            }
        }
        // There may be more, of which the poller tells again once it is asked again. Where it
        // cannot be asked the deadline comes.
        let token = Source::Lingering(slot).token();
        let interest = interest(&socket.transport);
        let _ = registry.reregister(&mut socket.transport, token, interest);
    }

    /// Drops those that have had their time.
    pub fn expire(&mut self, now: u64) {
        if self.due.is_some_and(|due| due <= now) {
            self.sockets.retain(|_, socket| socket.deadline > now);
            self.due = self.sockets.iter().map(|(_, socket)| socket.deadline).min();
        }
    }

    /// When [`Lingering::expire`] is due.
    pub fn next_deadline(&self) -> Option<u64> {
        self.due
    }

    /// True where none is left.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }
}

fn interest(transport: &Transport) -> Interest {
    match transport.wants_write() {
        true => Interest::READABLE | Interest::WRITABLE,
        false => Interest::READABLE,
    }
}
