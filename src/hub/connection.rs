//! One connection: where its conversation stands, its half-read input, its unsent output, and the
//! deadlines of its socket. Who is at the other end is the affair of its
//! [`Session`](super::Session).

use super::{
    CloseReason, ConnectionId, Outbox, Time,
    admission::{Origin, Policy},
    voice::{PeerStage, Voice, json::JsonVoice},
};
use crate::{
    limits::{LINE_FIRST_MAX_BYTES, Limits},
    wire::{Dialect, json::scan::Place},
};

/// One connection.
#[derive(Debug)]
pub struct Connection {
    /// Its own id.
    pub(super) id: ConnectionId,
    /// Where the conversation stands.
    pub(super) phase: Phase,
    /// Where the peer is.
    pub(super) origin: Origin,
    /// Whether TLS protects it.
    pub(super) secured: bool,
    /// Until when somebody must have logged in; `None` where that is not asked, or done.
    pub(super) login_by: Option<Time>,
    /// Logins of it that have failed.
    pub(super) login_failures: u8,
    /// What was read and is not yet a request.
    pub(super) input: Inbound,
    /// What waits for the socket.
    pub(super) outbox: Outbox,
    /// What its dialect needs; `None` until that is known.
    pub(super) voice: Option<Voice>,
    /// When the last byte came, or the socket last took more of a backlog.
    pub(super) heard: Time,
    /// Since when the socket has taken nothing of what waits; `None` where nothing waits or the
    /// socket was not asked yet.
    pub(super) stalled: Option<Time>,
    /// Whether a message was refused because the outbox was full, since it was last empty.
    pub(super) overflowed: bool,
    /// Since when a ping is unanswered.
    pub(super) pinged: Option<Time>,
    /// When it is looked at again, while something is held for it.
    pub(super) watched: Option<Time>,
    /// Somebody wants the name of its user: until then it is looked at, whatever is held for it.
    pub(super) doubted_until: Time,
    /// For when the earliest valid alarm is set.
    pub(super) armed: Time,
}

/// Where the conversation stands. Each state carries what only it needs.
///
/// ```text
///   Sniffing --first bytes--> Greeting --a good request--> Ready <--right, or lines--+
///       \                         \  \                       |  \                     |
///        \                         \  `---a password---------|---`---> Verifying -----+
///         \_________________________\________________________v_____________/ wrong
///                                                         Closing --outbox empty--> gone
/// ```
#[derive(Debug)]
pub enum Phase {
    /// The dialect is not known yet.
    Sniffing {
        /// Until when a valid request is due.
        deadline: Time,
    },
    /// The dialect is known, and nothing valid was said in it.
    Greeting {
        /// Until when a valid request is due.
        deadline: Time,
    },
    /// The password that it has given is being checked; its next requests wait.
    Verifying,
    /// Requests are served.
    Ready,
    /// The last bytes are on their way; nothing is read any more.
    Closing {
        /// Why.
        reason: CloseReason,
        /// Until when they may take.
        deadline: Time,
    },
}

/// What was read and is not yet a request.
#[derive(Debug, Default)]
pub struct Inbound {
    /// The bytes. Less than one request, unless the session is paused.
    pub(super) rest: Vec<u8>,
    /// How far they were searched for the end of the request.
    pub(super) place: Place,
    /// The peer has said that no more requests come.
    pub(super) ended: bool,
    /// Reading was put off until there is room.
    pub(super) paused: bool,
}

impl Connection {
    pub(super) fn new(
        id: ConnectionId,
        now: Time,
        origin: Origin,
        policy: &Policy,
        limits: &Limits,
    ) -> Connection {
        Connection {
            id,
            phase: Phase::Sniffing { deadline: now + limits.first_request_timeout },
            origin,
            secured: false,
            login_by: policy.asks_for_passwords().then_some(now + limits.login_timeout),
            login_failures: 0,
            input: Inbound::default(),
            outbox: Outbox::default(),
            voice: None,
            heard: now,
            stalled: None,
            overflowed: false,
            pinged: None,
            watched: None,
            doubted_until: Time(0),
            armed: Time::NEVER,
        }
    }

    /// Where it comes from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Where the conversation stands.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// What waits for the socket.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The language it speaks, once that is known and while it is served.
    pub fn dialect(&self) -> Option<Dialect> {
        self.served_voice().map(Voice::dialect)
    }

    /// The same with what it needs.
    #[inline]
    pub(super) fn served_voice(&self) -> Option<&Voice> {
        self.voice.as_ref().filter(|_| !self.is_closing())
    }

    /// How it says who it is.
    pub(super) fn name_usage(&self) -> &'static str {
        self.dialect().map_or("", Dialect::name_usage)
    }

    /// How it logs in with a password.
    pub(super) fn login_usage(&self) -> &'static str {
        self.dialect().map_or("", Dialect::login_usage)
    }

    /// Whether its first request decides who it is: there is nothing that a nameless client with
    /// frames could do.
    pub(super) fn has_one_login(&self) -> bool {
        matches!(self.served_voice(), Some(Voice::Frame(_)))
    }

    /// What it needs for JSON, while that is what it speaks.
    pub(super) fn json(&self) -> Option<&JsonVoice> {
        match self.served_voice() {
            Some(Voice::Json(json)) => Some(json),
            _ => None,
        }
    }

    pub(super) fn json_mut(&mut self) -> Option<&mut JsonVoice> {
        let is_closing = self.is_closing();
        match &mut self.voice {
            Some(Voice::Json(json)) if !is_closing => Some(json),
            _ => None,
        }
    }

    pub(super) fn is_json(&self) -> bool {
        self.json().is_some()
    }

    /// Whether it can take part in the conversation of transfers.
    pub(super) fn can_converse(&self) -> bool {
        matches!(self.served_voice(), Some(Voice::Frame(_)))
    }

    /// Whether a person reads what it gets, so that answers are lines of text.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.served_voice(), Some(Voice::Line(_)))
    }

    /// Bytes that wait for the socket or for the start of a line.
    #[inline]
    pub(super) fn waiting_bytes(&self) -> usize {
        let held = self.voice.as_ref().and_then(Voice::held);
        self.outbox.unsent_bytes() + held.map_or(0, |held| held.bytes.len())
    }

    #[inline]
    pub(super) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. })
    }

    /// Whether it has not said anything valid, or has to log in before it may do anything.
    #[inline]
    pub(super) fn is_nobody(&self) -> bool {
        match self.phase {
            Phase::Ready => self.login_by.is_some(),
            Phase::Sniffing { .. } | Phase::Greeting { .. } | Phase::Verifying => true,
            Phase::Closing { .. } => false,
        }
    }

    /// The longest request that it may send: a line, an object, or the body of a frame.
    #[inline]
    pub(super) fn request_max_bytes(&self) -> usize {
        let standing = match self.phase {
            Phase::Greeting { .. } if self.login_by.is_none() => PeerStage::New,
            Phase::Ready if self.login_by.is_none() => PeerStage::Served,
            _ => PeerStage::Untrusted,
        };
        let voice = self.served_voice();
        voice.map_or(LINE_FIRST_MAX_BYTES, |voice| voice.request_max_bytes(standing))
    }

    /// Whether its next request must wait: for its answers to leave, for its password to be
    /// checked, or for what its dialect lets it wait while so many operations are under way.
    #[inline]
    pub(super) fn must_pause(&self, operations: usize, limits: &Limits) -> bool {
        // Bytes that are no requests have no answers that could fill its queue, and as many are
        // taken as there is room for.
        if self.voice.as_ref().is_some_and(Voice::takes_raw) {
            return false;
        }
        let is_checked = matches!(self.phase, Phase::Verifying);
        if is_checked || self.outbox.unsent_bytes() >= self.pause_bytes(limits) {
            return true;
        }
        let voice = self.served_voice();
        voice.is_some_and(|voice| voice.must_wait(operations, limits))
    }

    /// Bytes waiting for it from which on its next request waits.
    #[inline]
    pub(super) fn pause_bytes(&self, limits: &Limits) -> usize {
        match self.is_nobody() {
            true => limits.outbox_nobody_bytes.min(limits.outbox_pause_bytes),
            false => limits.outbox_pause_bytes,
        }
    }

    /// When something has to be done about it if nothing happens.
    pub(super) fn due(&self, limits: &Limits) -> Time {
        match self.phase {
            Phase::Sniffing { deadline } | Phase::Greeting { deadline, .. } => return deadline,
            Phase::Closing { deadline, .. } => return deadline,
            // A check takes its time, and is always answered.
            Phase::Verifying => return Time::NEVER,
            Phase::Ready => {}
        }
        let stalled = self.stalled.map_or(Time::NEVER, |since| since + self.patience(limits));
        let silent = match (&self.voice, self.pinged) {
            (Some(Voice::Frame(_)), Some(_)) => self.heard + limits.gone_after,
            (Some(Voice::Frame(_)), None) => self.heard + limits.ping_after,
            // There the kernel alone asks.
            _ => Time::NEVER,
        };
        let watched = self.watched.unwrap_or(Time::NEVER);
        stalled.min(silent).min(watched).min(self.login_by.unwrap_or(Time::NEVER))
    }

    /// How long the socket may take nothing.
    pub(super) fn patience(&self, limits: &Limits) -> std::time::Duration {
        match self.overflowed {
            true => limits.slow_consumer_timeout,
            false => limits.stall_timeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            admission::{Mode, Owner},
            rights::Rights,
        },
        *,
    };
    use crate::limits::{LINE_MAX_BYTES, OBJECT_FIRST_MAX_BYTES, OBJECT_MAX_BYTES};

    #[test]
    fn who_has_to_log_in_may_send_little_before() {
        let origin = Origin::new("[::1]:9".parse().expect("an address"), Owner::Ours);
        let credentials = Mode::Credentials { grant: Rights::NONE, attempts: 3 };
        for (dialect, first, trusted, later) in [
            (Dialect::Line, LINE_FIRST_MAX_BYTES, LINE_FIRST_MAX_BYTES, LINE_MAX_BYTES),
            (Dialect::Frame, LINE_FIRST_MAX_BYTES, LINE_FIRST_MAX_BYTES, LINE_MAX_BYTES),
            (Dialect::Json, OBJECT_FIRST_MAX_BYTES, OBJECT_MAX_BYTES, OBJECT_MAX_BYTES),
        ] {
            for (mode, begin, ready) in
                [(credentials, first, first), (Mode::Protected, trusted, later)]
            {
                let policy = Policy { mode, plaintext: false };
                let (id, now) = (ConnectionId::new(0, 1), Time(0));
                let mut connection = Connection::new(id, now, origin, &policy, &Limits::default());
                connection.voice = Some(Voice::new(dialect));
                connection.phase = Phase::Greeting { deadline: now };
                assert_eq!(connection.request_max_bytes(), begin, "{dialect:?}");
                connection.phase = Phase::Ready;
                assert_eq!(connection.request_max_bytes(), ready, "{dialect:?}");
                connection.login_by = None;
                assert_eq!(connection.request_max_bytes(), later, "{dialect:?}");
            }
        }
    }
}
