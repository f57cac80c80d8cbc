//! The sockets of the sessions, and what is known of their readiness.

use std::{io, net::IpAddr};

use mio::{Interest, net::TcpStream};

use super::{Server, token::Source};
use crate::{
    hub::{ConnectionId, Time, admission::Origin},
    sys::{listen, transport::Transport},
};

/// The socket of one session.
pub struct Connection {
    id: ConnectionId,
    /// The socket.
    pub transport: Transport,
    /// Where it came from.
    pub from: IpAddr,
    /// Whether reading may give something: readiness is told once, so it is noted.
    pub readable: bool,
    /// Whether the peer has shut its writing half: read on until that is seen.
    pub read_closed: bool,
    /// Whether it is broken in both directions; what was sent before that may still be read.
    pub broken: bool,
    /// Whether the end of input was read.
    pub ended: bool,
    /// Whether the hub knows that TLS protects it.
    pub secured: bool,
    /// Whether the kernel asks often whether the peer is there.
    pub asked_often: bool,
    /// Whether it is on the list of those to be read, and of those to be written.
    pub listed_to_read: bool,
    /// See [`Connection::listed_to_read`].
    pub listed_to_write: bool,
}

impl Connection {
    /// Whether the handshake of TLS is complete, and the hub does not know it.
    pub fn is_newly_secured(&self) -> bool {
        !self.secured && self.transport.is_secured()
    }
}

/// The sockets by the slots of their sessions.
#[derive(Default)]
pub struct Connections {
    slots: Vec<Option<Box<Connection>>>,
    /// Those that may give something.
    pub to_read: Vec<ConnectionId>,
    /// Those for which something waits.
    pub to_write: Vec<ConnectionId>,
}

impl Connections {
    /// Takes in the socket of a new session.
    pub fn insert(&mut self, id: ConnectionId, transport: Transport, from: IpAddr) {
        if self.slots.len() <= id.slot() {
            self.slots.resize_with(id.slot() + 1, || None);
        }
        self.slots[id.slot()] = Some(Box::new(Connection {
            id,
            transport,
            from,
            readable: false,
            read_closed: false,
            broken: false,
            ended: false,
            secured: false,
            asked_often: false,
            listed_to_read: false,
            listed_to_write: false,
        }));
    }

    /// The socket of a session that is still there.
    pub fn get(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.slots.get_mut(id.slot())?.as_deref_mut().filter(|connection| connection.id == id)
    }

    /// The sockets of all sessions.
    pub fn all(&mut self) -> impl Iterator<Item = (ConnectionId, &mut Transport)> {
        self.slots.iter_mut().flatten().map(|it| (it.id, &mut it.transport))
    }

    /// Takes the socket out.
    pub fn remove(&mut self, id: ConnectionId) -> Option<Box<Connection>> {
        let slot = self.slots.get_mut(id.slot())?;
        slot.take_if(|connection| connection.id == id)
    }

    /// Puts the session on the list of those to be read, once.
    pub fn list_to_read(&mut self, id: ConnectionId) {
        let Some(connection) = self.get(id) else { return };
        if !std::mem::replace(&mut connection.listed_to_read, true) {
            self.to_read.push(id);
        }
    }

    /// Puts the session on the list of those to be written, once.
    pub fn list_to_write(&mut self, id: ConnectionId) {
        let Some(connection) = self.get(id) else { return };
        if !std::mem::replace(&mut connection.listed_to_write, true) {
            self.to_write.push(id);
        }
    }
}

impl Server {
    /// Takes in a connection that was accepted.
    pub(super) fn take_in(&mut self, stream: TcpStream, origin: Origin) {
        let transport = Transport::accepted(stream, self.keys.config());
        if let Err(error) = self.try_to_take_in(transport, origin) {
            log::warn!("a connection from {} could not be taken in: {error}", origin.address());
        }
    }

    fn try_to_take_in(&mut self, mut transport: Transport, origin: Origin) -> io::Result<()> {
        listen::prepare(transport.stream())?;
        let opened = self.hub.open(Time(self.now), origin);
        // Somebody may have had to make room.
        self.take_effects();
        let Ok(id) = opened else {
            let _ = transport.turn_away(b"error busy: the server has no room for more sessions\n");
            return Ok(());
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = Source::Connection(id).token();
        if let Err(error) = self.poll.registry().register(&mut transport, token, interest) {
            self.input(crate::hub::Input::Gone { connection: id });
            return Err(error);
        }
        self.connections.insert(id, transport, origin.address());
        Ok(())
    }
}
