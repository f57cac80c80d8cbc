//! One channel: first a race of connections, then the stream that one of them carries.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use quinn_proto::{
    ConnectionError, ConnectionHandle, ReadError, ReadableError, StreamId, WriteError,
    crypto::rustls::QuicClientConfig,
};

use super::{ChannelId, Ended, Endpoint, Event, code, connection::Connection, race::Dials};
use crate::wire::{Fingerprint, OneTimeToken};

/// A channel from its introduction to its end.
pub(super) struct Channel {
    pub(super) peer: Fingerprint,
    pub(super) token: OneTimeToken,
    /// We choose the connection: our fingerprint is the lower one.
    pub(super) we_choose: bool,
    pub(super) state: State,
}

pub(super) enum State {
    Racing(Race),
    Open(Open),
}

pub(super) struct Race {
    pub(super) dials: Dials,
    pub(super) hosts: Vec<IpAddr>,
    /// Those of the hosts of which the other end alone tells.
    pub(super) claimed: Vec<IpAddr>,
    pub(super) config: Arc<QuicClientConfig>,
    pub(super) until: Instant,
    /// Which one we have chosen; the other end has yet to say yes.
    pub(super) chosen: Option<ConnectionHandle>,
}

pub(super) struct Open {
    pub(super) carrier: Carrier,
    /// Until a read would block, nobody has to be told again.
    is_readable_told: bool,
    /// We say no more.
    is_finished: bool,
    /// The other end has all that we said.
    is_acknowledged: bool,
    /// We have read all that the other end said.
    is_read: bool,
}

pub(super) enum Carrier {
    Live(ConnectionHandle, StreamId),
    /// The other end has all it wanted and has closed; this is what we have not read yet.
    Rest(VecDeque<Bytes>, SocketAddr),
}

impl Open {
    pub(super) fn new(connection: ConnectionHandle, stream: StreamId) -> Open {
        Open {
            carrier: Carrier::Live(connection, stream),
            is_readable_told: false,
            is_finished: false,
            is_acknowledged: false,
            is_read: false,
        }
    }
}

/// A chunk of the stream, the end of it, or why there is none.
pub(super) fn read_stream(
    quic: &mut quinn_proto::Connection,
    stream: StreamId,
    max_bytes: usize,
) -> io::Result<Option<Bytes>> {
    let mut stream = quic.recv_stream(stream);
    let mut chunks = match stream.read(true) {
        Ok(chunks) => chunks,
        // It was read to its end.
        Err(ReadableError::ClosedStream) => return Ok(None),
        Err(ReadableError::IllegalOrderedRead) => return Err(ErrorKind::Unsupported.into()),
    };
    let read = match chunks.next(max_bytes) {
        Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
        Err(ReadError::Blocked) => Err(ErrorKind::WouldBlock.into()),
        Err(ReadError::Reset(_)) => Err(ErrorKind::ConnectionReset.into()),
    };
    // Whether new credit is to be sent is found out by the next poll for transmits.
    let _ = chunks.finalize();
    read
}

/// Reading and writing.
impl Endpoint {
    /// Reads into `buffer`; 0 is the end of what the other end says.
    ///
    /// # Errors
    /// `WouldBlock` where there is nothing yet, `NotConnected` where the channel is not open,
    /// `ConnectionReset` where the other end broke off.
    pub fn read(&mut self, channel: ChannelId, buffer: &mut [u8]) -> io::Result<usize> {
        let chunk = self.read_chunk(channel, buffer.len())?.unwrap_or_default();
        buffer[..chunk.len()].copy_from_slice(&chunk);
        Ok(chunk.len())
    }

    /// The same without a copy; nothing is the end.
    ///
    /// # Errors
    /// As [`Endpoint::read`].
    pub fn read_chunk(
        &mut self,
        channel: ChannelId,
        max_bytes: usize,
    ) -> io::Result<Option<Bytes>> {
        let (open, connections) = self.open_channel(channel)?;
        let read = match &mut open.carrier {
            _ if open.is_read => Ok(None),
            Carrier::Live(handle, stream) => match connections.get_mut(handle) {
                Some(connection) => read_stream(&mut connection.quic, *stream, max_bytes),
                None => Err(ErrorKind::NotConnected.into()),
            },
            Carrier::Rest(chunks, _) => Ok(chunks.pop_front().map(|mut chunk| {
                let first = chunk.split_to(max_bytes.min(chunk.len()));
                if !chunk.is_empty() {
                    chunks.push_front(chunk);
                }
                first
            })),
        };
        match &read {
            Ok(Some(_)) => {}
            Ok(None) => {
                open.is_read = true;
                self.check_done(channel);
            }
            Err(_) => open.is_readable_told = false,
        }
        read
    }

    /// Takes the start of `bytes` and tells how much of it.
    ///
    /// # Errors
    /// `WouldBlock` where there is no room, `NotConnected` where the channel is not open,
    /// `BrokenPipe` after [`Endpoint::finish`] or where the other end wants no more.
    pub fn write(&mut self, channel: ChannelId, bytes: &[u8]) -> io::Result<usize> {
        self.write_with(channel, |stream| stream.write(bytes))
    }

    /// The same without a copy: takes from the front of `bytes`, and leaves there what it did not
    /// take.
    ///
    /// # Errors
    /// As [`Endpoint::write`].
    pub fn write_chunk(&mut self, channel: ChannelId, bytes: &mut Bytes) -> io::Result<usize> {
        self.write_with(channel, |stream| {
            stream.write_chunks(std::slice::from_mut(bytes)).map(|written| written.bytes)
        })
    }

    fn write_with(
        &mut self,
        channel: ChannelId,
        write: impl FnOnce(&mut quinn_proto::SendStream<'_>) -> Result<usize, WriteError>,
    ) -> io::Result<usize> {
        let (open, connections) = self.open_channel(channel)?;
        let Carrier::Live(handle, stream) = open.carrier else {
            return Err(ErrorKind::BrokenPipe.into());
        };
        let connection = connections.get_mut(&handle).ok_or(ErrorKind::NotConnected)?;
        write(&mut connection.quic.send_stream(stream)).map_err(|error| match error {
            WriteError::Blocked => ErrorKind::WouldBlock.into(),
            WriteError::Stopped(_) | WriteError::ClosedStream => ErrorKind::BrokenPipe.into(),
        })
    }

    /// We say no more; the other end reads the end after all that was written. Fine to repeat.
    ///
    /// # Errors
    /// `NotConnected` where the channel is not open.
    pub fn finish(&mut self, channel: ChannelId) -> io::Result<()> {
        let (open, connections) = self.open_channel(channel)?;
        if let Carrier::Live(handle, stream) = open.carrier
            && !std::mem::replace(&mut open.is_finished, true)
        {
            let connection = connections.get_mut(&handle).ok_or(ErrorKind::NotConnected)?;
            // Only a stream that the other end has stopped cannot be finished; that is told.
            let _ = connection.quic.send_stream(stream).finish();
        }
        Ok(())
    }

    /// Where the other end is now; it may move. Nothing where the channel is not open.
    pub fn path(&self, channel: ChannelId) -> Option<SocketAddr> {
        match &self.channels.get(&channel)?.state {
            State::Racing(_) => None,
            State::Open(open) => match &open.carrier {
                Carrier::Live(handle, _) => {
                    Some(self.connections.get(handle)?.quic.remote_address())
                }
                Carrier::Rest(_, remote) => Some(*remote),
            },
        }
    }

    /// What the connection below has counted so far: losses, round trips, windows.
    pub fn statistics(&self, channel: ChannelId) -> Option<quinn_proto::ConnectionStats> {
        match &self.channels.get(&channel)?.state {
            State::Open(Open { carrier: Carrier::Live(handle, _), .. }) => {
                Some(self.connections.get(handle)?.quic.stats())
            }
            _ => None,
        }
    }
}

/// What its connection tells of an open channel.
impl Endpoint {
    fn open_channel(
        &mut self,
        channel: ChannelId,
    ) -> io::Result<(&mut Open, &mut BTreeMap<ConnectionHandle, Connection>)> {
        match self.channels.get_mut(&channel) {
            Some(Channel { state: State::Open(open), .. }) => Ok((open, &mut self.connections)),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    pub(super) fn tell_readable(&mut self, channel: ChannelId) {
        if let Some(Channel { state: State::Open(open), .. }) = self.channels.get_mut(&channel)
            && !std::mem::replace(&mut open.is_readable_told, true)
        {
            self.events.push_back(Event::Readable(channel));
        }
    }

    pub(super) fn handle_acknowledged(&mut self, channel: ChannelId) {
        if let Some(Channel { state: State::Open(open), .. }) = self.channels.get_mut(&channel) {
            open.is_acknowledged = true;
            self.check_done(channel);
        }
    }

    /// Ends the channel where nothing is left to be said or read.
    fn check_done(&mut self, channel: ChannelId) {
        let Some(Channel { state: State::Open(open), .. }) = self.channels.get(&channel) else {
            return;
        };
        if open.is_acknowledged && open.is_read {
            if let Carrier::Live(handle, _) = open.carrier {
                self.done.push(handle);
            }
            self.end(channel, Ended::Done);
        }
    }

    /// The carrier of an open channel is gone.
    pub(super) fn handle_carrier_lost(
        &mut self,
        channel: ChannelId,
        handle: ConnectionHandle,
        reason: &ConnectionError,
    ) {
        let Some(Channel { state: State::Open(open), .. }) = self.channels.get_mut(&channel) else {
            return;
        };
        let is_done = matches!(reason, ConnectionError::ApplicationClosed(close)
            if close.error_code == code::DONE.into());
        if is_done
            && open.is_finished
            && let Carrier::Live(_, stream) = open.carrier
            && let Some(connection) = self.connections.get_mut(&handle)
        {
            let mut rest = VecDeque::new();
            let is_whole = loop {
                match read_stream(&mut connection.quic, stream, usize::MAX) {
                    Ok(Some(chunk)) => rest.push_back(chunk),
                    Ok(None) => break true,
                    Err(_) => break false,
                }
            };
            if is_whole {
                open.carrier = Carrier::Rest(rest, connection.quic.remote_address());
                open.is_acknowledged = true;
                self.tell_readable(channel);
                return self.check_done(channel);
            }
        }
        self.end(channel, ended(reason));
    }
}

fn ended(reason: &ConnectionError) -> Ended {
    let closed_with = |close: &quinn_proto::ApplicationClose| close.error_code.into_inner();
    match reason {
        ConnectionError::TimedOut => Ended::Silent,
        ConnectionError::ApplicationClosed(close)
            if closed_with(close) == u64::from(code::CANCELLED) =>
        {
            Ended::Cancelled
        }
        ConnectionError::ApplicationClosed(close) => {
            Ended::Broken(format!("the other end closed with code {}", closed_with(close)))
        }
        other => Ended::Broken(format!("the direct connection broke: {other}")),
    }
}
