//! The endpoint: all connections of a client to others, and which of them carries which channel.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    ops::Bound,
    sync::Arc,
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ConnectionHandle, DatagramEvent, Dir, EcnCodepoint, EndpointConfig, EndpointEvent, Incoming,
    NoneTokenStore, ServerConfig, StreamEvent, StreamId, Transmit, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::pki_types::CertificateDer;

use super::{
    ChannelId, Ended, Event, OpenError, PROTOCOL, SessionKey,
    channel::{Channel, Open, Race, State, read_stream},
    code,
    key::{self, Peers},
    race::Dials,
    random::Random,
    transport::{self, Transports},
};
use crate::{
    limits::{
        DIRECT_CHANNELS_MAX, DIRECT_PENDING_MAX, DIRECT_RACE_TIMEOUT, DIRECT_RETRY_FROM,
    },
    wire::{Fingerprint, Introduction},
};

/// The byte by which an end takes a connection for its channel.
const TAKEN: u8 = 1;

/// Of the pending handshakes those that only a candidate's host may have: a stranger's flood must
/// not keep out who is awaited.
const PENDING_RESERVED: usize = DIRECT_PENDING_MAX / 4;

pub(super) struct Connection {
    pub(super) quic: quinn_proto::Connection,
    phase: Phase,
    is_touched: bool,
    /// The endpoint knows it no more.
    is_drained: bool,
}

enum Phase {
    /// We dialled; the handshake runs.
    Dialling { channel: ChannelId, address: SocketAddr, tries: u32 },
    /// Somebody dialled us, and is nobody until the token is checked.
    Pending { until: Instant, visitor: Visitor },
    /// The other end is who it should be; whether this one will carry the channel is open.
    Ready { channel: ChannelId, stream: StreamId },
    /// Carries the channel.
    Carrying { channel: ChannelId },
    /// Of no use any more; only farewells are exchanged.
    Over,
}

/// What a pending connection has shown so far.
#[derive(Default)]
struct Visitor {
    fingerprint: Option<Fingerprint>,
    stream: Option<StreamId>,
    token: Vec<u8>,
}

/// All connections of one client to others, without I/O.
///
/// Feed it with [`Endpoint::handle_datagram`] and [`Endpoint::handle_timeout`]; then take
/// [`Endpoint::poll_event`], read and write, and take [`Endpoint::poll_transmit`], each until
/// there is nothing left; sleep until [`Endpoint::poll_timeout`]. The times may be any, as long as
/// they do not go back.
pub struct Endpoint {
    key: SessionKey,
    quic: quinn_proto::Endpoint,
    listening: Arc<ServerConfig>,
    awaited: Peers,
    transports: Transports,
    random: Random,
    pub(super) connections: BTreeMap<ConnectionHandle, Connection>,
    pub(super) channels: BTreeMap<ChannelId, Channel>,
    next_channel: u64,
    pub(super) events: VecDeque<Event>,
    /// Connections of which there is news, and those that are to be closed with a code.
    touched: VecDeque<ConnectionHandle>,
    pub(super) to_close: Vec<(ConnectionHandle, u32)>,
    /// Datagrams of no connection.
    answers: VecDeque<(Transmit, Vec<u8>)>,
    /// Who has sent last; the next one is the one behind it.
    last_sender: ConnectionHandle,
    scratch: Vec<u8>,
}

impl Endpoint {
    /// An endpoint that is silent until it is introduced to somebody. What is random in it comes
    /// from the seed, but for the keys of connections. `fragments` tells that the sockets cannot
    /// keep the system from fragmenting datagrams; then larger ones are not tried.
    pub fn new(key: SessionKey, seed: &[u8; 32], fragments: bool) -> Endpoint {
        let awaited = Peers::default();
        let crypto = key.server_config(awaited.clone(), PROTOCOL);
        let crypto = QuicServerConfig::try_from(crypto).expect("the provider has AES-128-GCM");
        let mut listening = ServerConfig::with_crypto(Arc::new(crypto));
        listening
            .max_incoming(DIRECT_PENDING_MAX)
            .incoming_buffer_size(transport::INCOMING_BUFFER_BYTES)
            .incoming_buffer_size_total(transport::INCOMING_BUFFERS_BYTES);
        let mut config = EndpointConfig::default();
        let mut random = Random::new(seed, "endpoint");
        let ids = random.bytes::<32>();
        config
            .rng_seed(Some(random.bytes()))
            .supported_versions(vec![transport::VERSION])
            .cid_generator(move || Box::new(Random::new(&ids, "connection ids")))
            .max_udp_payload_size(transport::DATAGRAM_MAX_BYTES)
            .expect("the size is one of UDP");
        Endpoint {
            quic: quinn_proto::Endpoint::new(Arc::new(config), None, !fragments, None),
            key,
            listening: Arc::new(listening),
            awaited,
            transports: Transports::new(),
            random,
            connections: BTreeMap::new(),
            channels: BTreeMap::new(),
            next_channel: 0,
            events: VecDeque::new(),
            touched: VecDeque::new(),
            to_close: Vec::new(),
            answers: VecDeque::new(),
            last_sender: ConnectionHandle(0),
            scratch: Vec::new(),
        }
    }

    /// Of our key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.key.fingerprint()
    }

    /// Begins a channel to who was introduced: its candidates are dialled from now on, and its
    /// dials are answered. The other end has to do the same with the introduction that it got.
    /// `same_host` tells that we reach the server by loopback; see
    /// [`crate::wire::introduction::Candidates::usable`].
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        &mut self,
        introduction: &Introduction,
        same_host: bool,
        now: Instant,
    ) -> Result<ChannelId, OpenError> {
        let peer = introduction.fingerprint;
        if peer == self.fingerprint() {
            return Err(OpenError::Oneself);
        }
        if self.channels.len() >= DIRECT_CHANNELS_MAX {
            return Err(OpenError::TooMany);
        }
        let config = self.key.client_config(peer, PROTOCOL);
        let config = QuicClientConfig::try_from(config).expect("the provider has AES-128-GCM");
        let candidates = introduction.candidates.usable(same_host);
        let race = Race {
            hosts: introduction.candidates.usable(same_host).map(|it| it.ip()).collect(),
            dials: Dials::new(candidates, now),
            config: Arc::new(config),
            until: now + DIRECT_RACE_TIMEOUT,
            chosen: None,
        };
        let channel = ChannelId(self.next_channel);
        self.next_channel += 1;
        self.channels.insert(
            channel,
            Channel {
                peer,
                token: introduction.token,
                we_choose: self.fingerprint() < peer,
                state: State::Racing(race),
            },
        );
        self.await_peers();
        self.race(channel, now);
        Ok(channel)
    }

    /// Ends a channel, whatever is under way in it; nothing more is told of it. The other end
    /// hears of it.
    pub fn close(&mut self, channel: ChannelId, now: Instant) {
        self.forsake(channel, None, code::CANCELLED, now);
        self.channels.remove(&channel);
        self.events.retain(|event| match event {
            Event::Opened { channel: of, .. }
            | Event::Readable(of)
            | Event::Writable(of)
            | Event::Closed(of, _) => *of != channel,
        });
        self.await_peers();
    }

    /// Whether anything is under way: a channel, or the farewells of one.
    pub fn is_idle(&self) -> bool {
        self.channels.is_empty() && self.connections.is_empty()
    }
}

/// What goes in.
impl Endpoint {
    /// A datagram has come from `remote` to our address `local`, marked with `ecn`.
    pub fn handle_datagram(
        &mut self,
        remote: SocketAddr,
        local: Option<IpAddr>,
        ecn: Option<EcnCodepoint>,
        bytes: BytesMut,
        now: Instant,
    ) {
        self.scratch.clear();
        match self.quic.handle(now, remote, local, ecn, bytes, &mut self.scratch) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(connection) = self.connections.get_mut(&handle) {
                    connection.quic.handle_event(event);
                    self.touch(handle);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.handle_incoming(incoming, now),
            // To whom no connection belongs, nothing is said: no resets, no other versions.
            Some(DatagramEvent::Response(_)) | None => {}
        }
    }

    /// The time has come that [`Endpoint::poll_timeout`] named. Datagrams that are there already
    /// should be handled before.
    pub fn handle_timeout(&mut self, now: Instant) {
        let mut rude = Vec::new();
        for (handle, connection) in &mut self.connections {
            if connection.quic.poll_timeout().is_some_and(|at| at <= now) {
                connection.quic.handle_timeout(now);
                touch(&mut self.touched, *handle, connection);
            }
            if matches!(&connection.phase, Phase::Pending { until, .. } if *until <= now) {
                rude.push(*handle);
            }
        }
        for handle in rude {
            self.drop_pending(handle, now);
        }
        let racing: Vec<ChannelId> = self.racing().map(|(channel, _)| channel).collect();
        for channel in racing {
            self.race(channel, now);
        }
    }

    /// The system says that nothing can be sent to this address from here.
    pub fn handle_unreachable(&mut self, remote: SocketAddr, now: Instant) {
        let is_dial = |connection: &Connection| match connection.phase {
            Phase::Dialling { channel, address, .. } if address == remote => Some(channel),
            _ => None,
        };
        let dials = self.connections.iter();
        let dials: Vec<_> =
            dials.filter_map(|(handle, it)| Some((*handle, is_dial(it)?))).collect();
        for (handle, channel) in dials {
            self.remove(handle);
            if let Some(race) = self.race_of(channel) {
                race.dials.handle_unreachable(now);
            }
            self.race(channel, now);
        }
    }
}

/// What comes out.
impl Endpoint {
    /// The next piece of news.
    pub fn poll_event(&mut self, now: Instant) -> Option<Event> {
        self.settle(now);
        self.events.pop_front()
    }

    /// What to send next: one datagram, or up to `segments_max` of the same size one behind the
    /// other (`segment_size`), written into `buffer`.
    pub fn poll_transmit(
        &mut self,
        segments_max: usize,
        buffer: &mut Vec<u8>,
        now: Instant,
    ) -> Option<Transmit> {
        self.settle(now);
        buffer.clear();
        if let Some((transmit, bytes)) = self.answers.pop_front() {
            buffer.extend_from_slice(&bytes);
            return Some(transmit);
        }
        let last = self.last_sender;
        let behind = (Bound::Excluded(last), Bound::Unbounded);
        let before = (Bound::Unbounded, Bound::Included(last));
        for range in [behind, before] {
            for (handle, connection) in self.connections.range_mut(range) {
                let mtu = usize::from(connection.quic.current_mtu());
                let segments = transport::segments(mtu).min(segments_max).max(1);
                if let Some(transmit) = connection.quic.poll_transmit(now, segments, buffer) {
                    self.last_sender = *handle;
                    touch(&mut self.touched, *handle, connection);
                    return Some(transmit);
                }
            }
        }
        None
    }

    /// When [`Endpoint::handle_timeout`] is due, if ever.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let of_connection = |connection: &mut Connection| {
            let until = match connection.phase {
                Phase::Pending { until, .. } => Some(until),
                _ => None,
            };
            connection.quic.poll_timeout().into_iter().chain(until).min()
        };
        let connections = self.connections.values_mut().filter_map(of_connection).min();
        let races = self.racing().filter_map(|(_, race)| {
            race.dials.poll_timeout().into_iter().chain([race.until]).min()
        });
        connections.into_iter().chain(races).min()
    }
}

/// The race.
impl Endpoint {
    fn racing(&self) -> impl Iterator<Item = (ChannelId, &Race)> {
        self.channels.iter().filter_map(|(channel, it)| match &it.state {
            State::Racing(race) => Some((*channel, race)),
            State::Open(_) => None,
        })
    }

    fn race_of(&mut self, channel: ChannelId) -> Option<&mut Race> {
        match &mut self.channels.get_mut(&channel)?.state {
            State::Racing(race) => Some(race),
            State::Open(_) => None,
        }
    }

    /// Opens the ear for those who are awaited, and for nobody else.
    fn await_peers(&mut self) {
        let peers = self.channels.values().filter(|it| matches!(it.state, State::Racing(_)));
        let peers: Vec<Fingerprint> = peers.map(|it| it.peer).collect();
        let is_anybody_awaited = !peers.is_empty();
        self.awaited.set(peers);
        self.quic.set_server_config(is_anybody_awaited.then(|| self.listening.clone()));
    }

    /// Dials what is due, or gives up.
    fn race(&mut self, channel: ChannelId, now: Instant) {
        loop {
            let Some(race) = self.race_of(channel) else { return };
            if race.until <= now {
                self.forsake(channel, None, code::NO_PATH, now);
                return self.end(channel, Ended::NoPath);
            }
            let config = race.config.clone();
            let Some((address, tries)) = race.dials.poll(now) else { return };
            self.dial(channel, config, address, tries, now);
        }
    }

    fn dial(
        &mut self,
        channel: ChannelId,
        config: Arc<QuicClientConfig>,
        address: SocketAddr,
        tries: u32,
        now: Instant,
    ) {
        let mut config = quinn_proto::ClientConfig::new(config);
        let id = self.random.first_id();
        config
            .transport_config(self.transports.to(address))
            .token_store(Arc::new(NoneTokenStore))
            .initial_dst_cid_provider(Arc::new(move || id));
        match self.quic.connect(now, config, address, key::NAME) {
            Ok((handle, quic)) => {
                let phase = Phase::Dialling { channel, address, tries };
                self.insert(handle, quic, phase);
            }
            Err(error) => log::debug!("cannot dial {address}: {error}"),
        }
    }

    fn insert(&mut self, handle: ConnectionHandle, quic: quinn_proto::Connection, phase: Phase) {
        let connection = Connection { quic, phase, is_touched: false, is_drained: false };
        let before = self.connections.insert(handle, connection);
        assert!(before.is_none(), "a handle is given again only after it was removed");
        self.touch(handle);
    }

    /// Somebody dials us.
    fn handle_incoming(&mut self, incoming: Incoming, now: Instant) {
        let remote = incoming.remote_address();
        let pending = self.connections.values();
        let pending = pending.filter(|it| matches!(it.phase, Phase::Pending { .. })).count();
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
        config.transport_config(self.transports.to(remote));
        match self.quic.accept(incoming, now, &mut self.scratch, Some(Arc::new(config))) {
            Ok((handle, quic)) => {
                let until = now + DIRECT_RACE_TIMEOUT;
                self.insert(handle, quic, Phase::Pending { until, visitor: Visitor::default() });
            }
            Err(error) => log::debug!("no handshake with {remote}: {}", error.cause),
        }
    }

    /// A visitor that has taken too long, or came too late.
    fn drop_pending(&mut self, handle: ConnectionHandle, now: Instant) {
        match self.connections.get(&handle) {
            // An address that has proved nothing is not answered for it.
            Some(connection) if connection.quic.is_handshaking() => self.remove(handle),
            Some(_) => self.close_connection(handle, code::NOT_INTRODUCED, now),
            None => {}
        }
    }

    fn remove(&mut self, handle: ConnectionHandle) {
        if let Some(connection) = self.connections.remove(&handle)
            && !connection.is_drained
        {
            self.quic.handle_event(handle, EndpointEvent::drained());
        }
    }
}

/// News of connections.
impl Endpoint {
    fn touch(&mut self, handle: ConnectionHandle) {
        if let Some(connection) = self.connections.get_mut(&handle) {
            touch(&mut self.touched, handle, connection);
        }
    }

    /// Looks at all of which there is news, until there is none.
    fn settle(&mut self, now: Instant) {
        loop {
            while let Some((handle, code)) = self.to_close.pop() {
                self.close_connection(handle, code, now);
            }
            let Some(handle) = self.touched.pop_front() else { return };
            if let Some(connection) = self.connections.get_mut(&handle) {
                connection.is_touched = false;
                self.settle_connection(handle, now);
            }
        }
    }

    fn settle_connection(&mut self, handle: ConnectionHandle, now: Instant) {
        while let Some(connection) = self.connections.get_mut(&handle) {
            while let Some(event) = connection.quic.poll_endpoint_events() {
                connection.is_drained |= event.is_drained();
                if let Some(event) = self.quic.handle_event(handle, event) {
                    connection.quic.handle_event(event);
                }
            }
            match connection.quic.poll() {
                Some(event) => self.handle_quic_event(handle, event, now),
                None => break,
            }
        }
        self.examine(handle, now);
        let is_gone = |it: &Connection| it.is_drained && matches!(it.phase, Phase::Over);
        if self.connections.get(&handle).is_some_and(is_gone) {
            self.remove(handle);
        }
    }

    fn handle_quic_event(
        &mut self,
        handle: ConnectionHandle,
        event: quinn_proto::Event,
        now: Instant,
    ) {
        use quinn_proto::Event as Quic;
        let Some(connection) = self.connections.get_mut(&handle) else { return };
        match (event, &mut connection.phase) {
            (Quic::ConnectionLost { reason }, _) => self.handle_lost(handle, reason, now),
            (Quic::Connected, Phase::Dialling { channel, .. }) => {
                let channel = *channel;
                self.show_token(handle, channel, now);
            }
            (Quic::Connected, Phase::Pending { visitor, .. }) => {
                visitor.fingerprint = peer_of(&connection.quic);
            }
            (Quic::Stream(StreamEvent::Opened { dir }), Phase::Pending { visitor, .. }) => {
                visitor.stream = visitor.stream.or(connection.quic.streams().accept(dir));
            }
            (Quic::Stream(event), Phase::Carrying { channel }) => {
                let channel = *channel;
                match event {
                    StreamEvent::Readable { .. } => self.tell_readable(channel),
                    StreamEvent::Writable { .. } => {
                        self.events.push_back(Event::Writable(channel));
                    }
                    StreamEvent::Finished { .. } => self.handle_acknowledged(channel),
                    StreamEvent::Stopped { .. } => {
                        self.close_connection(handle, code::PROTOCOL, now);
                        self.end(channel, Ended::Broken("the other end wants no more".into()));
                    }
                    StreamEvent::Opened { .. } | StreamEvent::Available { .. } => {}
                }
            }
            _ => {}
        }
    }

    /// Says the token to who answered our dial, and is by its key who it should be.
    fn show_token(&mut self, handle: ConnectionHandle, channel: ChannelId, now: Instant) {
        let token = self.channels.get(&channel).map(|it| it.token);
        let Some((token, connection)) = token.zip(self.connections.get_mut(&handle)) else {
            return self.close_connection(handle, code::NOT_CHOSEN, now);
        };
        let stream = connection.quic.streams().open(Dir::Bi);
        let is_said = stream.filter(|stream| {
            let written = connection.quic.send_stream(*stream).write(&token.0);
            matches!(written, Ok(count) if count == token.0.len())
        });
        match is_said {
            Some(stream) => connection.phase = Phase::Ready { channel, stream },
            None => self.close_connection(handle, code::PROTOCOL, now),
        }
    }

    /// Goes a step on with a connection that carries nothing yet.
    fn examine(&mut self, handle: ConnectionHandle, now: Instant) {
        let Some(connection) = self.connections.get_mut(&handle) else { return };
        if let Phase::Pending { visitor, .. } = &mut connection.phase {
            match check_visitor(&mut connection.quic, visitor, &self.channels) {
                Checked::NotYet => {}
                Checked::Nobody => self.close_connection(handle, code::NOT_INTRODUCED, now),
                Checked::Awaited(channel, stream) => {
                    connection.phase = Phase::Ready { channel, stream };
                }
            }
        }
        let Some(connection) = self.connections.get(&handle) else { return };
        if let Phase::Ready { channel, stream } = connection.phase {
            self.choose(handle, channel, stream, now);
        }
    }

    /// The chooser takes the first connection that is ready; the other end takes that one too.
    fn choose(
        &mut self,
        handle: ConnectionHandle,
        channel: ChannelId,
        stream: StreamId,
        now: Instant,
    ) {
        let Some(Channel { we_choose, state: State::Racing(race), .. }) =
            self.channels.get_mut(&channel)
        else {
            return self.close_connection(handle, code::NOT_CHOSEN, now);
        };
        let Some(connection) = self.connections.get_mut(&handle) else { return };
        let mut is_broken = false;
        let mut say_taken = |quic: &mut quinn_proto::Connection| {
            is_broken |= !matches!(quic.send_stream(stream).write(&[TAKEN]), Ok(1));
        };
        if *we_choose && race.chosen.is_none() {
            race.chosen = Some(handle);
            say_taken(&mut connection.quic);
        }
        let is_taken = match read_stream(&mut connection.quic, stream, 1) {
            Ok(Some(bytes)) if bytes[..] == [TAKEN] && *we_choose => race.chosen == Some(handle),
            Ok(Some(bytes)) if bytes[..] == [TAKEN] => {
                say_taken(&mut connection.quic);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => !is_broken && return,
            _ => false,
        };
        match is_taken && !is_broken {
            true => self.carry(handle, channel, stream, now),
            false => {
                self.close_connection(handle, code::PROTOCOL, now);
                self.forget_choice(handle, channel);
            }
        }
    }

    /// From now on this connection is the channel, and the others are not needed.
    fn carry(
        &mut self,
        handle: ConnectionHandle,
        channel: ChannelId,
        stream: StreamId,
        now: Instant,
    ) {
        self.forsake(channel, Some(handle), code::NOT_CHOSEN, now);
        let Some(connection) = self.connections.get_mut(&handle) else { return };
        let Some(of) = self.channels.get_mut(&channel) else { return };
        connection.phase = Phase::Carrying { channel };
        of.state = State::Open(Open::new(handle, stream));
        let remote = connection.quic.remote_address();
        self.events.push_back(Event::Opened { channel, remote });
        self.tell_readable(channel);
        self.await_peers();
    }

    fn handle_lost(
        &mut self,
        handle: ConnectionHandle,
        reason: quinn_proto::ConnectionError,
        now: Instant,
    ) {
        let Some(connection) = self.connections.get_mut(&handle) else { return };
        match std::mem::replace(&mut connection.phase, Phase::Over) {
            Phase::Dialling { channel, address, tries } => {
                log::debug!("no path to {address}: {reason}");
                if let Some(race) = self.race_of(channel) {
                    race.dials.handle_failed(address, tries, now);
                }
                self.race(channel, now);
            }
            Phase::Ready { channel, .. } => self.forget_choice(handle, channel),
            Phase::Carrying { channel } => self.handle_carrier_lost(channel, handle, &reason),
            Phase::Pending { .. } | Phase::Over => {}
        }
    }

    /// Another ready connection has its chance where this one was chosen.
    fn forget_choice(&mut self, handle: ConnectionHandle, channel: ChannelId) {
        let Some(race) = self.race_of(channel) else { return };
        if race.chosen == Some(handle) {
            race.chosen = None;
        }
        for (handle, connection) in &mut self.connections {
            if matches!(connection.phase, Phase::Ready { channel: of, .. } if of == channel) {
                touch(&mut self.touched, *handle, connection);
            }
        }
    }

    /// Closes all connections of a channel but one.
    fn forsake(
        &mut self,
        channel: ChannelId,
        but: Option<ConnectionHandle>,
        code: u32,
        now: Instant,
    ) {
        let is_of = |it: &Connection| match it.phase {
            Phase::Dialling { channel: of, .. }
            | Phase::Ready { channel: of, .. }
            | Phase::Carrying { channel: of } => of == channel,
            Phase::Pending { .. } | Phase::Over => false,
        };
        let others = self.connections.iter().filter(|(handle, it)| is_of(it) && Some(**handle) != but);
        let others: Vec<ConnectionHandle> = others.map(|(handle, _)| *handle).collect();
        for handle in others {
            self.close_connection(handle, code, now);
        }
    }

    pub(super) fn close_connection(&mut self, handle: ConnectionHandle, code: u32, now: Instant) {
        if let Some(connection) = self.connections.get_mut(&handle) {
            connection.phase = Phase::Over;
            connection.quic.close(now, VarInt::from_u32(code), Bytes::new());
            touch(&mut self.touched, handle, connection);
        }
    }

    /// Tells the last of a channel and forgets it.
    pub(super) fn end(&mut self, channel: ChannelId, ended: Ended) {
        if self.channels.remove(&channel).is_some() {
            self.events.push_back(Event::Closed(channel, ended));
            self.await_peers();
        }
    }

    pub(super) fn open_channel(
        &mut self,
        channel: ChannelId,
    ) -> io::Result<(&mut Open, &mut BTreeMap<ConnectionHandle, Connection>)> {
        match self.channels.get_mut(&channel) {
            Some(Channel { state: State::Open(open), .. }) => Ok((open, &mut self.connections)),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

fn touch(
    touched: &mut VecDeque<ConnectionHandle>,
    handle: ConnectionHandle,
    connection: &mut Connection,
) {
    if !std::mem::replace(&mut connection.is_touched, true) {
        touched.push_back(handle);
    }
}

/// Who the other end is by the certificate that the handshake has verified.
fn peer_of(quic: &quinn_proto::Connection) -> Option<Fingerprint> {
    let identity = quic.crypto_session().peer_identity()?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    chain.first().map(key::fingerprint)
}

enum Checked {
    NotYet,
    Nobody,
    Awaited(ChannelId, StreamId),
}

/// The token comes before anything else, on the first stream, and must be of an introduction
/// to this very key.
fn check_visitor(
    quic: &mut quinn_proto::Connection,
    visitor: &mut Visitor,
    channels: &BTreeMap<ChannelId, Channel>,
) -> Checked {
    let Some((stream, fingerprint)) = visitor.stream.zip(visitor.fingerprint) else {
        return Checked::NotYet;
    };
    let token: [u8; 32] = loop {
        if let Ok(token) = visitor.token[..].try_into() {
            break token;
        }
        match read_stream(quic, stream, 32 - visitor.token.len()) {
            Ok(Some(bytes)) => visitor.token.extend_from_slice(&bytes),
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
