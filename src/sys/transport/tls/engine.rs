//! rustls' state machine, of either side, behind one door.

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
    WriteTraffic,
};

/// Either side of a session.
pub(super) enum Engine {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// What to do once all that came is dealt with.
#[derive(Clone, Copy)]
pub(super) enum Work<'a> {
    /// Nothing.
    Read,
    /// Encrypt these bytes, be it none.
    Write(&'a [u8]),
    /// Say that nothing more comes.
    Close,
}

/// How far it went.
pub(super) struct Driven {
    /// So many of the incoming bytes are of no more use.
    pub(super) used: usize,
    /// The peer has said that it sends no more.
    pub(super) peer_closed: bool,
    /// Why it went no further.
    pub(super) halt: Result<Halt, rustls::Error>,
}

/// Where it stands, for want of more bytes.
pub(super) enum Halt {
    /// In the handshake.
    Handshake,
    /// After it; the work is done.
    Open,
    /// Both sides have said that they send no more.
    Closed,
}

/// Encrypted bytes. The memory behind them is kept.
#[derive(Default)]
pub(super) struct Outgoing {
    buffer: Vec<u8>,
    used: usize,
}

impl Outgoing {
    pub(super) fn clear(&mut self) {
        self.used = 0;
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.used]
    }

    /// Appends what `encode` writes, with as much room as it asks for.
    fn put(&mut self, mut encode: impl FnMut(&mut [u8]) -> Result<usize, TooSmall>) -> Option<()> {
        loop {
            match encode(&mut self.buffer[self.used..]) {
                Ok(count) => {
                    self.used += count;
                    return Some(());
                }
                Err(TooSmall(Some(needed))) if self.buffer.len() < self.used + needed => {
                    self.buffer.resize(self.used + needed, 0);
                }
                Err(TooSmall(_)) => return None,
            }
        }
    }
}

/// The room that was lacking; `None`: something else was.
struct TooSmall(Option<usize>);

impl From<EncodeError> for TooSmall {
    fn from(error: EncodeError) -> TooSmall {
        match error {
            EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => {
                TooSmall(Some(required_size))
            }
            EncodeError::AlreadyEncoded => TooSmall(None),
        }
    }
}

impl From<EncryptError> for TooSmall {
    fn from(error: EncryptError) -> TooSmall {
        match error {
            EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => {
                TooSmall(Some(required_size))
            }
            EncryptError::EncryptExhausted => TooSmall(None),
        }
    }
}

/// What both sides of rustls have in common, and no trait of theirs says.
trait Records {
    type Side;

    /// Whether the next call of [`Records::process`] gives something to be sent.
    fn has_output(&self) -> bool;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Side>;
}

impl Records for UnbufferedServerConnection {
    type Side = ServerConnectionData;

    fn has_output(&self) -> bool {
        self.wants_write()
    }

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Side> {
        self.process_tls_records(incoming)
    }
}

impl Records for UnbufferedClientConnection {
    type Side = ClientConnectionData;

    fn has_output(&self) -> bool {
        self.wants_write()
    }

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Side> {
        self.process_tls_records(incoming)
    }
}

impl Engine {
    pub(super) fn is_client(&self) -> bool {
        matches!(self, Engine::Client(_))
    }

    pub(super) fn protocol(&self) -> Option<&[u8]> {
        match self {
            Engine::Server(connection) => connection.alpn_protocol(),
            Engine::Client(connection) => connection.alpn_protocol(),
        }
    }

    /// Deals with all that came. `incoming` has to begin with what the call before did not use,
    /// as it was left: it may hold the head of a message. Decrypted bytes go to `take`, a record
    /// at a time; what is to be sent is appended to `outgoing`, an alert after an error included.
    pub(super) fn drive(
        &mut self,
        incoming: &mut [u8],
        work: Work<'_>,
        take: &mut dyn FnMut(&[u8]),
        outgoing: &mut Outgoing,
    ) -> Driven {
        match self {
            Engine::Server(connection) => drive(connection, incoming, work, take, outgoing),
            Engine::Client(connection) => drive(connection, incoming, work, take, outgoing),
        }
    }
}

fn drive<R: Records>(
    records: &mut R,
    incoming: &mut [u8],
    work: Work<'_>,
    take: &mut dyn FnMut(&[u8]),
    outgoing: &mut Outgoing,
) -> Driven {
    let (mut used, mut peer_closed) = (0, false);
    let halt = loop {
        let UnbufferedStatus { discard, state } = records.process(&mut incoming[used..]);
        used += discard;
        match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    match record {
                        Ok(record) => {
                            used += record.discard;
                            take(record.payload);
                        }
                        Err(error) => return Driven { used, peer_closed, halt: Err(error) },
                    }
                }
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                if outgoing.put(|room| Ok(data.encode(room)?)).is_none() {
                    break Err(rustls::Error::General("a message is encoded twice".into()));
                }
            }
            // It is as good as sent: what is in `outgoing` goes before all that follows.
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => peer_closed = true,
            Ok(ConnectionState::BlockedHandshake) => break Ok(Halt::Handshake),
            Ok(ConnectionState::WriteTraffic(traffic)) => break perform(work, traffic, outgoing),
            Ok(ConnectionState::Closed) => break Ok(Halt::Closed),
            // Early data is not allowed by our configuration.
            Ok(_) => break Err(rustls::Error::General("something that rustls never does".into())),
            Err(error) => {
                collect_alert(records, outgoing);
                break Err(error);
            }
        }
    };
    Driven { used, peer_closed, halt }
}

fn perform<Side>(
    work: Work<'_>,
    mut traffic: WriteTraffic<'_, Side>,
    outgoing: &mut Outgoing,
) -> Result<Halt, rustls::Error> {
    let done = match work {
        Work::Read | Work::Write([]) => Some(()),
        Work::Write(bytes) => outgoing.put(|room| Ok(traffic.encrypt(bytes, room)?)),
        Work::Close => outgoing.put(|room| Ok(traffic.queue_close_notify(room)?)),
    };
    done.map(|()| Halt::Open).ok_or(rustls::Error::EncryptError)
}

/// After an error: the alert that tells the peer. The bytes that came must not be looked at again.
fn collect_alert<R: Records>(records: &mut R, outgoing: &mut Outgoing) {
    while records.has_output() {
        let Ok(ConnectionState::EncodeTlsData(mut data)) = records.process(&mut []).state else {
            return;
        };
        if outgoing.put(|room| Ok(data.encode(room)?)).is_none() {
            return;
        }
    }
}
