//! Who is at the other end of a connection, and what belongs to them.
//!
//! A session knows nothing of other sessions; the [`Hub`](super::Hub) carries news between them.

use std::collections::VecDeque;

use super::{
    Connection, ConnectionId, OperationId, Outbox, Phase, SessionId, admission::Origin,
    pipe::OpenOffer, rights::Rights, voice::json::JsonVoice,
};
use crate::{limits::Limits, wire::Name};

/// Somebody who is connected: what they may do, and what they have under way.
#[derive(Debug)]
pub struct Session {
    /// Its own id.
    pub(super) id: SessionId,
    /// Through which it is heard and answered. A session ends with its connection: see
    /// [`Hub::remove`](super::Hub).
    pub(super) connection: Connection,
    /// Who it is, once it has said so; somebody with lines may ask without a name.
    pub(super) name: Option<Name>,
    /// What it may do.
    pub(super) rights: Rights,
    /// Its operations, oldest first.
    pub(super) operations: Vec<OperationId>,
    /// Those of them that have something to say and must wait, in the order of their turns: see
    /// [`Hub::block`](super::Hub).
    pub(super) waiting: VecDeque<OperationId>,
    /// What it was offered and has not answered, oldest first.
    pub(super) offers: Vec<OpenOffer>,
    /// The number of the last offer.
    pub(super) offers_made: u32,
    /// Where it takes files straight from others.
    pub(super) udp_port: Option<u16>,
    /// To whom it wrote last.
    pub(super) last_target: SessionId,
}

impl Session {
    pub(super) fn new(id: SessionId, connection: Connection, rights: Rights) -> Session {
        Session {
            id,
            connection,
            name: None,
            rights,
            operations: Vec::new(),
            waiting: VecDeque::new(),
            offers: Vec::new(),
            offers_made: 0,
            udp_port: None,
            last_target: SessionId::NOBODY,
        }
    }

    /// Its own id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Through which it is heard and answered.
    pub fn connection(&self) -> ConnectionId {
        self.connection.id
    }

    /// Where it comes from.
    pub fn origin(&self) -> &Origin {
        self.connection.origin()
    }

    /// Where the conversation stands.
    pub fn phase(&self) -> &Phase {
        self.connection.phase()
    }

    /// What waits for the socket.
    pub fn outbox(&self) -> &Outbox {
        self.connection.outbox()
    }

    /// Who it is, once it has said so and while it is served.
    #[inline]
    pub fn name(&self) -> Option<Name> {
        self.name.filter(|_| !self.connection.is_closing())
    }

    /// Whether that is its name.
    #[inline]
    pub(super) fn is_named(&self, name: &[u8]) -> bool {
        let is_it = self.name.as_ref().is_some_and(|own| own.as_bytes() == name);
        is_it && !self.connection.is_closing()
    }

    /// Who reads what is sent to it.
    pub(super) fn reader(&self) -> Option<Name> {
        self.name
    }

    /// Whether something is under way for it, or waits to be said.
    pub(super) fn has_work(&self) -> bool {
        let is_owed = self.connection.json().is_some_and(JsonVoice::is_owed);
        !self.operations.is_empty() || is_owed
    }

    /// Whether its next request must wait.
    #[inline]
    pub(super) fn must_pause(&self, limits: &Limits) -> bool {
        self.connection.must_pause(self.operations.len(), limits)
    }
}
