//! The endpoint: all connections of a client to others, and which of them carries which channel.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    ops::Bound,
    sync::Arc,
    time::Instant,
};

use bytes::BytesMut;
use quinn_proto::{
    ConnectionHandle, DatagramEvent, EcnCodepoint, EndpointConfig, EndpointEvent, NoneTokenStore,
    ServerConfig, Transmit,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};

use super::{
    ChannelId, Ended, Event, OpenError, PROTOCOL, SessionKey,
    channel::{Channel, Race, State},
    code,
    connection::{Connection, Phase, touch},
    key::{self, Peers},
    race::Dials,
    random::Random,
    transport,
    unanswered::Unanswered,
};
use crate::{
    limits::{
        DIRECT_CHANNELS_MAX, DIRECT_CLAIMED_ADDRESS_MAX, DIRECT_CLAIMED_MAX, DIRECT_PENDING_MAX,
        DIRECT_RACE_TIMEOUT, DIRECT_UNANSWERED_ADDRESS_MAX, DIRECT_UNANSWERED_MAX,
    },
    wire::{Fingerprint, Introduction},
};

/// All connections of one client to others, without I/O.
///
/// Feed it with [`Endpoint::handle_datagram`] and [`Endpoint::handle_timeout`]; then take
/// [`Endpoint::poll_event`], read and write, and take [`Endpoint::poll_transmit`], each until
/// there is nothing left; sleep until [`Endpoint::poll_timeout`]. The times may be any, as long as
/// they do not go back.
pub struct Endpoint {
    key: SessionKey,
    pub(super) quic: quinn_proto::Endpoint,
    pub(super) listening: Arc<ServerConfig>,
    awaited: Peers,
    random: Random,
    pub(super) connections: BTreeMap<ConnectionHandle, Connection>,
    pub(super) channels: BTreeMap<ChannelId, Channel>,
    next_channel: u64,
    pub(super) events: VecDeque<Event>,
    /// Connections of which there is news, and those that have carried all.
    pub(super) touched: VecDeque<ConnectionHandle>,
    pub(super) done: Vec<ConnectionHandle>,
    /// Datagrams of no connection.
    pub(super) answers: VecDeque<(Transmit, Vec<u8>)>,
    /// What was sent to those whom we dial and who may not be there.
    vouched: Unanswered,
    /// The same for addresses that the other end alone tells of.
    claimed: Unanswered,
    /// Who has sent last; the next one is the one behind it.
    last_sender: ConnectionHandle,
    pub(super) scratch: Vec<u8>,
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
            .incoming_buffer_size_total(transport::INCOMING_BUFFER_BYTES);
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
            random,
            connections: BTreeMap::new(),
            channels: BTreeMap::new(),
            next_channel: 0,
            events: VecDeque::new(),
            touched: VecDeque::new(),
            done: Vec::new(),
            answers: VecDeque::new(),
            vouched: Unanswered::new((DIRECT_UNANSWERED_ADDRESS_MAX, DIRECT_UNANSWERED_MAX)),
            claimed: Unanswered::new((DIRECT_CLAIMED_ADDRESS_MAX, DIRECT_CLAIMED_MAX)),
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
            claimed: introduction
                .candidates
                .usable(same_host)
                .map(|it| it.ip())
                .filter(|it| !introduction.candidates.is_vouched(*it))
                .collect(),
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

    /// Ends all channels, for a process that is about to end. It should stay until
    /// [`Endpoint::is_idle`]: the last acknowledgements and farewells may have been lost, and who
    /// misses them would wait for [`Ended::Silent`].
    pub fn leave(&mut self, now: Instant) {
        let channels: Vec<ChannelId> = self.channels.keys().copied().collect();
        channels.into_iter().for_each(|channel| self.close(channel, now));
        self.settle(now);
    }

    /// Ends everything, for a process that cannot stay, see [`Endpoint::leave`]: what comes out of
    /// [`Endpoint::poll_transmit`] now tells the others, if it is not lost.
    pub fn shut_down(&mut self, now: Instant) {
        self.leave(now);
        let lingering = self.connections.iter();
        let lingering = lingering.filter(|(_, it)| matches!(it.phase, Phase::Lingering { .. }));
        let lingering: Vec<ConnectionHandle> = lingering.map(|(handle, _)| *handle).collect();
        lingering.into_iter().for_each(|it| self.close_connection(it, code::DONE, now));
    }

    /// Handshakes that others have begun, and that have not yet shown a token; see
    /// [`DIRECT_PENDING_MAX`].
    pub fn pending(&self) -> usize {
        self.connections.values().filter(|it| matches!(it.phase, Phase::Pending { .. })).count()
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
                    let dialled = connection.unanswered();
                    connection.quic.handle_event(event);
                    if dialled.is_some() && connection.unanswered().is_none() {
                        self.vouched.note_answer(remote.ip());
                        self.claimed.note_answer(remote.ip());
                    }
                    connection.linger_on(now);
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
        let (mut rude, mut done) = (Vec::new(), Vec::new());
        for (handle, connection) in &mut self.connections {
            if connection.quic.poll_timeout().is_some_and(|at| at <= now) {
                connection.quic.handle_timeout(now);
                touch(&mut self.touched, *handle, connection);
            }
            match connection.phase {
                Phase::Pending { until, .. } if until <= now => rude.push(*handle),
                Phase::Lingering { until, .. } if until <= now => done.push(*handle),
                _ => {}
            }
        }
        rude.into_iter().for_each(|handle| self.drop_pending(handle, now));
        done.into_iter().for_each(|handle| self.close_connection(handle, code::DONE, now));
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
                let mut segments = transport::segments(mtu).min(segments_max).max(1);
                let dialled = connection.unanswered();
                let bound = match connection.is_claimed() {
                    true => &mut self.claimed,
                    false => &mut self.vouched,
                };
                if let Some(address) = dialled {
                    // Later there may be room again; until then it is as if they were lost.
                    if !bound.may(address, now) {
                        continue;
                    }
                    segments = 1;
                }
                if let Some(transmit) = connection.quic.poll_transmit(now, segments, buffer) {
                    if let Some(address) = dialled {
                        bound.note_sent(address, 1);
                    }
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
                Phase::Pending { until, .. } | Phase::Lingering { until, .. } => Some(until),
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
    pub(super) fn racing(&self) -> impl Iterator<Item = (ChannelId, &Race)> {
        self.channels.iter().filter_map(|(channel, it)| match &it.state {
            State::Racing(race) => Some((*channel, race)),
            State::Open(_) => None,
        })
    }

    pub(super) fn race_of(&mut self, channel: ChannelId) -> Option<&mut Race> {
        match &mut self.channels.get_mut(&channel)?.state {
            State::Racing(race) => Some(race),
            State::Open(_) => None,
        }
    }

    /// Opens the ear for those who are awaited, and for nobody else.
    pub(super) fn await_peers(&mut self) {
        let peers = self.channels.values().filter(|it| matches!(it.state, State::Racing(_)));
        let peers: Vec<Fingerprint> = peers.map(|it| it.peer).collect();
        let is_anybody_awaited = !peers.is_empty();
        self.awaited.set(peers);
        self.quic.set_server_config(is_anybody_awaited.then(|| self.listening.clone()));
    }

    /// Dials what is due, or gives up.
    pub(super) fn race(&mut self, channel: ChannelId, now: Instant) {
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
        let (parameters, gate) = transport::parameters(address);
        config
            .transport_config(parameters)
            .token_store(Arc::new(NoneTokenStore))
            .initial_dst_cid_provider(Arc::new(move || id));
        match self.quic.connect(now, config, address, key::NAME) {
            Ok((handle, quic)) => {
                let phase = Phase::Dialling { channel, address, tries };
                let race = self.race_of(channel);
                let is_claimed = race.is_some_and(|it| it.claimed.contains(&address.ip()));
                self.insert(handle, Connection::new(quic, gate, phase).claimed(is_claimed));
            }
            Err(error) => log::debug!("cannot dial {address}: {error}"),
        }
    }

    pub(super) fn insert(&mut self, handle: ConnectionHandle, connection: Connection) {
        let before = self.connections.insert(handle, connection);
        assert!(before.is_none(), "a handle is given again only after it was removed");
        self.touch(handle);
    }

    pub(super) fn remove(&mut self, handle: ConnectionHandle) {
        if let Some(connection) = self.connections.remove(&handle)
            && !connection.is_drained
        {
            self.quic.handle_event(handle, EndpointEvent::drained());
        }
    }
}
