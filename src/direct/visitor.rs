//! Those who dial us: let in within bounds, and nobody until they have shown key and token.

use std::{collections::BTreeMap, io, sync::Arc, time::Instant};

use quinn_proto::{ConnectionHandle, Dir, Incoming, ServerConfig, StreamId};
use rustls::pki_types::CertificateDer;

use super::{
    ChannelId, Endpoint,
    channel::{Channel, State, read_stream},
    code,
    connection::{Connection, Phase},
    key, transport,
};
use crate::{
    limits::{DIRECT_PENDING_MAX, DIRECT_RACE_TIMEOUT, DIRECT_RETRY_FROM},
    wire::Fingerprint,
};

/// Of the pending handshakes those that only a candidate's host may have: a stranger's flood must
/// not keep out who is awaited.
const PENDING_RESERVED: usize = DIRECT_PENDING_MAX / 4;

/// What a pending connection has shown so far.
#[derive(Default)]
pub(super) struct Visitor {
    fingerprint: Option<Fingerprint>,
    stream: Option<StreamId>,
    token: Vec<u8>,
}

/// What to think of a visitor.
pub(super) enum Checked {
    NotYet,
    Nobody,
    Awaited(ChannelId, StreamId),
}

impl Visitor {
    /// The handshake is over: its certificate is verified, and one of those that we await.
    pub(super) fn handle_connected(&mut self, quic: &quinn_proto::Connection) {
        let identity = quic.crypto_session().peer_identity();
        let chain = identity.and_then(|it| it.downcast::<Vec<CertificateDer<'static>>>().ok());
        self.fingerprint = chain.and_then(|chain| chain.first().map(key::fingerprint));
    }

    /// It has begun a stream; the first one counts.
    pub(super) fn handle_opened(&mut self, quic: &mut quinn_proto::Connection, dir: Dir) {
        self.stream = self.stream.or_else(|| quic.streams().accept(dir));
    }

    /// The token comes before anything else, on the first stream, and must be of an introduction
    /// to this very key.
    pub(super) fn check(
        &mut self,
        quic: &mut quinn_proto::Connection,
        channels: &BTreeMap<ChannelId, Channel>,
    ) -> Checked {
        let Some((stream, fingerprint)) = self.stream.zip(self.fingerprint) else {
            return Checked::NotYet;
        };
        let token: [u8; 32] = loop {
            if let Ok(token) = self.token[..].try_into() {
                break token;
            }
            match read_stream(quic, stream, 32 - self.token.len()) {
                Ok(Some(bytes)) => self.token.extend_from_slice(&bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Checked::NotYet,
                Ok(None) | Err(_) => return Checked::Nobody,
            }
        };
        let is_awaited = |it: &Channel| {
            let is_racing = matches!(it.state, State::Racing(_));
            is_racing && it.peer == fingerprint && it.token.matches(&token)
        };
        match channels.iter().find(|(_, it)| is_awaited(it)) {
            Some((channel, _)) => Checked::Awaited(*channel, stream),
            None => Checked::Nobody,
        }
    }
}

impl Endpoint {
    /// Somebody dials us.
    pub(super) fn handle_incoming(&mut self, incoming: Incoming, now: Instant) {
        let remote = incoming.remote_address();
        let pending = self.pending();
        let is_candidate = self.racing().any(|(_, race)| race.hosts.contains(&remote.ip()));
        let max = DIRECT_PENDING_MAX - if is_candidate { 0 } else { PENDING_RESERVED };
        if pending >= max {
            return self.quic.ignore(incoming);
        }
        self.scratch.clear();
        if pending >= DIRECT_RETRY_FROM && !incoming.remote_address_validated() {
            match self.quic.retry(incoming, &mut self.scratch) {
                Ok(transmit) => self.answers.push_back((transmit, self.scratch.clone())),
                Err(error) => self.quic.ignore(error.into_incoming()),
            }
            return self.answers.truncate(DIRECT_PENDING_MAX);
        }
        let mut config = ServerConfig::clone(&self.listening);
        let (parameters, gate) = transport::parameters(remote);
        config.transport_config(parameters);
        match self.quic.accept(incoming, now, &mut self.scratch, Some(Arc::new(config))) {
            Ok((handle, quic)) => {
                let until = now + DIRECT_RACE_TIMEOUT;
                let phase = Phase::Pending { until, visitor: Visitor::default() };
                self.insert(handle, Connection::new(quic, gate, phase));
            }
            Err(error) => log::debug!("no handshake with {remote}: {}", error.cause),
        }
    }

    /// A visitor that has taken too long, or came too late.
    pub(super) fn drop_pending(&mut self, handle: ConnectionHandle, now: Instant) {
        match self.connections.get(&handle) {
            // An address that has proved nothing is not answered for it.
            Some(connection) if connection.quic.is_handshaking() => self.remove(handle),
            Some(_) => self.close_connection(handle, code::NOT_INTRODUCED, now),
            None => {}
        }
    }
}
