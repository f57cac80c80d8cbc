//! Peers for which something is held, looked at until they are dead or it is not held any more.

use std::io;

use super::{Server, connections::Connection};
use crate::{
    hub::{ConnectionId, Input},
    sys::{listen, pulse::Pulse},
};

impl Server {
    /// Looks whether the peer of a session is there, and lets go what is held for a dead one.
    pub(super) fn watch(&mut self, id: ConnectionId, holds: bool) {
        let Some(connection) = self.connections.get(id) else { return };
        connection.ask_often(holds);
        if !holds {
            return;
        }
        let has_ended = connection.ended || connection.read_closed;
        match self.pulse.look(connection.transport.stream(), has_ended) {
            Pulse::Beats => {}
            sign => {
                log::debug!("{id:?}: nobody is at the other end any more: {sign:?}");
                self.input(Input::Gone { connection: id });
            }
        }
    }
}

impl Connection {
    /// Has the kernel ask often whether the peer's host is there, or as rarely as ever.
    pub(super) fn ask_often(&mut self, often: bool) {
        if std::mem::replace(&mut self.asked_often, often) != often {
            let set: io::Result<()> = listen::ask_often(self.transport.stream(), often);
            if let Err(error) = set {
                log::debug!("keepalive could not be set: {error}");
            }
        }
    }
}
