//! One connection, from the handshake to the farewell, and the news of it.
//!
//! ```text
//!  we dial ─▶ Dialling ─ the key is right, our token is said ─┐
//!                                                            ├─▶ Ready ─ chosen ─▶ Carrying
//!  dialled ─▶ Pending ── key and token are right ─────────────┘
//!
//!  Carrying ─ all is said and read ─▶ Lingering ─ silence ─▶ Over
//!
//!  from each of them, by an error or a close: Over, and then drained
//! ```

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn_proto::{ConnectionHandle, Dir, StreamEvent, StreamId, VarInt};

use super::{
    ChannelId, Ended, Endpoint, Event,
    channel::{Channel, Open, State, read_stream},
    code,
    congestion::Gate,
    visitor::{Checked, Visitor},
};
use crate::limits::DIRECT_IDLE_TIMEOUT;

/// The byte by which an end takes a connection for its channel.
const TAKEN: u8 = 1;

/// So many probe time-outs (RFC 9002, section 6.2) of silence tell that the other end has our last
/// acknowledgement: else it would have asked again, after one of them, two more and four more.
const LINGER_PROBES: u32 = 8;
/// Bounds of that silence; a connection that is asked to live on comes every 5 s.
const LINGER_MIN: Duration = Duration::from_millis(250);
/// See [`LINGER_MIN`].
const LINGER_MAX: Duration = Duration::from_secs(4);
/// The other end may need as long to acknowledge (`max_ack_delay`, RFC 9000, section 18.2).
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_millis(25);

pub(super) struct Connection {
    pub(super) quic: quinn_proto::Connection,
    gate: Gate,
    pub(super) phase: Phase,
    is_touched: bool,
    /// We have begun it.
    is_dial: bool,
    /// To an address of which the other end alone tells.
    is_claimed: bool,
    /// The endpoint knows it no more.
    pub(super) is_drained: bool,
}

pub(super) enum Phase {
    /// We dialled; the handshake runs.
    Dialling { channel: ChannelId, address: SocketAddr, tries: u32 },
    /// Somebody dialled us, and is nobody until the token is checked.
    Pending { until: Instant, visitor: Visitor },
    /// The other end is who it should be; whether this one will carry the channel is open.
    Ready { channel: ChannelId, stream: StreamId },
    /// Carries the channel.
    Carrying { channel: ChannelId },
    /// All is said and read; the other end may still miss our word for it.
    /// Nothing is waited for beyond `at_most`, whatever it says.
    Lingering { until: Instant, at_most: Instant },
    /// Of no use any more; only farewells are exchanged.
    Over,
}

impl Connection {
    pub(super) fn new(quic: quinn_proto::Connection, gate: Gate, phase: Phase) -> Connection {
        let is_dial = matches!(phase, Phase::Dialling { .. });
        let (is_touched, is_claimed, is_drained) = (false, false, false);
        Connection { quic, gate, phase, is_touched, is_dial, is_claimed, is_drained }
    }

    /// The same to an address of which the other end alone tells, or not.
    pub(super) fn claimed(self, is_claimed: bool) -> Connection {
        Connection { is_claimed, ..self }
    }

    pub(super) fn is_claimed(&self) -> bool {
        self.is_claimed
    }

    /// The address that we dial, as long as nothing that is meant for us has come from there.
    pub(super) fn unanswered(&self) -> Option<IpAddr> {
        match &self.phase {
            Phase::Dialling { address, .. } if !self.has_answered() => Some(address.ip()),
            // The farewell of a dial that was given up.
            Phase::Over if self.is_dial && !self.has_answered() => {
                Some(self.quic.remote_address().ip())
            }
            _ => None,
        }
    }

    fn has_answered(&self) -> bool {
        self.quic.stats().frame_rx.crypto > 0
    }

    /// All is said and read: from now on only acknowledges.
    fn begin_to_linger(&mut self, now: Instant) {
        let at_most = now + DIRECT_IDLE_TIMEOUT;
        self.phase = Phase::Lingering { until: now + self.silence(), at_most };
    }

    /// Who says something again misses our acknowledgement.
    pub(super) fn linger_on(&mut self, now: Instant) {
        let later = now + self.silence();
        if let Phase::Lingering { until, at_most } = &mut self.phase {
            *until = later.min(*at_most);
        }
    }

    /// The round trip may vary by half, of which four times are waited for.
    fn silence(&self) -> Duration {
        let probe = 3 * self.quic.rtt() + ACKNOWLEDGED_WITHIN;
        (LINGER_PROBES * probe).clamp(LINGER_MIN, LINGER_MAX)
    }
}

/// News of connections.
impl Endpoint {
    pub(super) fn touch(&mut self, handle: ConnectionHandle) {
        if let Some(connection) = self.connections.get_mut(&handle) {
            touch(&mut self.touched, handle, connection);
        }
    }

    /// Looks at all of which there is news, until there is none.
    pub(super) fn settle(&mut self, now: Instant) {
        loop {
            while let Some(handle) = self.done.pop() {
                if let Some(connection) = self.connections.get_mut(&handle) {
                    connection.begin_to_linger(now);
                }
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
                visitor.handle_connected(&connection.quic);
            }
            (Quic::Stream(StreamEvent::Opened { dir }), Phase::Pending { visitor, .. }) => {
                visitor.handle_opened(&mut connection.quic, dir);
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
            match visitor.check(&mut connection.quic, &self.channels) {
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
        let quic = &mut connection.quic;
        let mut is_said = true;
        if *we_choose && race.chosen.is_none() {
            race.chosen = Some(handle);
            is_said = say_taken(quic, stream);
        }
        let is_taken = match read_stream(quic, stream, 1) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && is_said => return,
            Ok(Some(bytes)) if bytes[..] != [TAKEN] => false,
            Ok(Some(_)) if *we_choose => is_said && race.chosen == Some(handle),
            Ok(Some(_)) => say_taken(quic, stream),
            Ok(None) | Err(_) => false,
        };
        if is_taken {
            return self.carry(handle, channel, stream, now);
        }
        self.close_connection(handle, code::PROTOCOL, now);
        self.forget_choice(handle, channel);
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
            Phase::Pending { .. } | Phase::Lingering { .. } | Phase::Over => {}
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
    pub(super) fn forsake(
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
            Phase::Pending { .. } | Phase::Lingering { .. } | Phase::Over => false,
        };
        let others =
            self.connections.iter().filter(|(handle, it)| is_of(it) && Some(**handle) != but);
        let others: Vec<ConnectionHandle> = others.map(|(handle, _)| *handle).collect();
        for handle in others {
            self.close_connection(handle, code, now);
        }
    }

    pub(super) fn close_connection(&mut self, handle: ConnectionHandle, code: u32, now: Instant) {
        if let Some(connection) = self.connections.get_mut(&handle) {
            connection.phase = Phase::Over;
            connection.gate.open();
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
}

pub(super) fn touch(
    touched: &mut VecDeque<ConnectionHandle>,
    handle: ConnectionHandle,
    connection: &mut Connection,
) {
    if !std::mem::replace(&mut connection.is_touched, true) {
        touched.push_back(handle);
    }
}

fn say_taken(quic: &mut quinn_proto::Connection, stream: StreamId) -> bool {
    matches!(quic.send_stream(stream).write(&[TAKEN]), Ok(1))
}
