//! One connection: where its conversation stands, its half-read input, its unsent output.
//!
//! A session knows nothing of other sessions; the [`Hub`](super::Hub) carries news between them.

use std::collections::VecDeque;

use super::{
    CloseReason, Held, OperationId, Outbox, Replies, SessionId, Time,
    admission::{Origin, Policy},
    pipe::OpenOffer,
    rights::Rights,
};
use crate::{
    limits::{
        LINE_FIRST_MAX_BYTES, LINE_MAX_BYTES, Limits, OBJECT_FIRST_MAX_BYTES, OBJECT_MAX_BYTES,
    },
    wire::{Dialect, Name, Refusal, Tag, json::scan::Place},
};

/// One connection.
#[derive(Debug)]
pub struct Session {
    /// Its own id.
    pub(super) id: SessionId,
    /// Where the conversation stands.
    pub(super) phase: Phase,
    /// Where the peer is.
    pub(super) origin: Origin,
    /// Whether TLS protects it.
    pub(super) secured: bool,
    /// What it may do.
    pub(super) rights: Rights,
    /// Until when it must have logged in; `None` where that is not asked, or done.
    pub(super) login_by: Option<Time>,
    /// What was read and is not yet a request.
    pub(super) input: Inbound,
    /// What waits for the socket.
    pub(super) outbox: Outbox,
    /// Its operations, oldest first.
    pub(super) operations: Vec<OperationId>,
    /// Those of them that have something to say and must wait, in the order of their turns: see
    /// [`Hub::block`](super::Hub).
    pub(super) waiting: VecDeque<OperationId>,
    /// Lines and JSON: where the output stands, and what must not come in between.
    pub(super) column: Column,
    /// Messages that came while the output stood elsewhere than at a line's start.
    pub(super) held: Option<Box<Held>>,
    /// JSON alone: what it is owed for its requests.
    pub(super) replies: Option<Box<Replies>>,
    /// Frames alone: messages whose acknowledgement somebody waits for.
    pub(super) awaiting: Option<Box<Awaiting>>,
    /// What it was offered and has not answered, oldest first.
    pub(super) offers: Vec<OpenOffer>,
    /// The number of the last offer.
    pub(super) offers_made: u32,
    /// Where it takes files straight from others.
    pub(super) udp_port: Option<u16>,
    /// To whom it wrote last.
    pub(super) last_target: SessionId,
    /// When the last byte came, or the socket last took more of a backlog.
    pub(super) heard: Time,
    /// Since when the socket has taken nothing of what waits; `None` where nothing waits or the
    /// socket was not asked yet.
    pub(super) stalled: Option<Time>,
    /// Whether a message was refused because the outbox was full, since it was last empty.
    pub(super) overflowed: bool,
    /// Since when a ping is unanswered.
    pub(super) pinged: Option<Time>,
    /// Logins of it that have failed.
    pub(super) login_failures: u8,
    /// When it is looked at again, while something is held for it.
    pub(super) watched: Option<Time>,
    /// Somebody wants its name: until then it is looked at, whatever is held for it.
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
        /// What it speaks.
        dialect: Dialect,
        /// Until when a valid request is due.
        deadline: Time,
    },
    /// The password that it has given is being checked; its next requests wait.
    Verifying {
        /// What it speaks.
        dialect: Dialect,
    },
    /// Requests are served.
    Ready {
        /// What it speaks.
        dialect: Dialect,
        /// Who it is; somebody with lines may ask without a name.
        name: Option<Name>,
    },
    /// The last bytes are on their way; nothing is read any more.
    Closing {
        /// Why.
        reason: CloseReason,
        /// Who it was, and what it spoke.
        was: Option<(Name, Dialect)>,
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
    /// Frames alone: the data frame that has begun, and how many bytes of it are still to come.
    /// They are passed on as they come, and never put together.
    pub(super) data: Option<(Tag, usize)>,
    /// Lines alone: so many bytes that come are no requests but a file's, for the operation under
    /// way or, where that was refused, for nobody.
    pub(super) raw: Option<Raw>,
    /// Lines alone: all bytes of a file have come, and until its operation is answered no request
    /// may: what comes is taken for more of the file.
    pub(super) answer_due: bool,
    /// The peer has said that no more requests come.
    pub(super) ended: bool,
    /// Reading was put off until there is room.
    pub(super) paused: bool,
    /// JSON alone: the next request waits for the end of an operation.
    pub(super) awaits_slot: bool,
    /// JSON alone: bytes have come that are no request, nothing is taken after them, and this is
    /// said once all is answered.
    pub(super) nonsense: Option<Box<Refusal>>,
}

/// Bytes of a file among lines.
#[derive(Debug)]
pub struct Raw {
    /// Bytes still to come.
    pub(super) left: u64,
    /// What is said after them, where nobody takes them and it was not said at once.
    pub(super) refusal: Option<Box<Refusal>>,
}

/// Where the output of a session stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Column {
    /// At the start of a line or of an object: anything may follow.
    LineStart,
    /// Within a line of a command's output.
    MidLine,
    /// Among the bytes of a file.
    InFile,
    /// Within a JSON object.
    InObject,
}

/// Messages whose acknowledgement somebody waits for.
#[derive(Debug, Default)]
pub struct Awaiting {
    /// In the order in which they were sent.
    pub(super) receipts: VecDeque<Receipt>,
    /// Of the message sent last; never 0.
    pub(super) serial: u32,
}

/// One promise to tell a sender.
#[derive(Clone, Copy, Debug)]
pub struct Receipt {
    pub(super) serial: u32,
    pub(super) sender: SessionId,
    pub(super) tag: Tag,
}

impl Session {
    pub(super) fn new(
        id: SessionId,
        now: Time,
        origin: Origin,
        policy: &Policy,
        limits: &Limits,
    ) -> Session {
        Session {
            id,
            phase: Phase::Sniffing { deadline: now + limits.first_request_timeout },
            origin,
            secured: false,
            rights: policy.rights_of_anybody(),
            login_by: policy.asks_for_passwords().then_some(now + limits.login_timeout),
            input: Inbound::default(),
            outbox: Outbox::default(),
            operations: Vec::new(),
            waiting: VecDeque::new(),
            column: Column::LineStart,
            held: None,
            replies: None,
            awaiting: None,
            offers: Vec::new(),
            offers_made: 0,
            udp_port: None,
            last_target: SessionId::NOBODY,
            heard: now,
            stalled: None,
            overflowed: false,
            pinged: None,
            login_failures: 0,
            watched: None,
            doubted_until: Time(0),
            armed: Time::NEVER,
        }
    }

    /// Its own id.
    pub fn id(&self) -> SessionId {
        self.id
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
        match self.phase {
            Phase::Greeting { dialect, .. }
            | Phase::Verifying { dialect }
            | Phase::Ready { dialect, .. } => Some(dialect),
            Phase::Sniffing { .. } | Phase::Closing { .. } => None,
        }
    }

    /// How it says who it is.
    pub(super) fn name_usage(&self) -> &'static str {
        self.dialect().map_or("", Dialect::name_usage)
    }

    /// Who it is, once it has said so.
    pub fn name(&self) -> Option<Name> {
        match self.phase {
            Phase::Ready { name, .. } => name,
            _ => None,
        }
    }

    /// Whether that is its name.
    pub(super) fn is_named(&self, name: &[u8]) -> bool {
        matches!(&self.phase, Phase::Ready { name: Some(own), .. } if own.as_bytes() == name)
    }

    /// Who reads what is sent to it, and in which language.
    pub(super) fn reader(&self) -> Option<(Name, Dialect)> {
        match self.phase {
            Phase::Ready { dialect, name } => name.map(|name| (name, dialect)),
            Phase::Closing { was, .. } => was,
            _ => None,
        }
    }

    /// Bytes that wait for the socket or for the start of a line.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.outbox.unsent_bytes() + self.held.as_ref().map_or(0, |held| held.bytes.len())
    }

    pub(super) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. })
    }

    /// Whether it has not said anything valid, or has to log in before it may do anything.
    pub(super) fn is_nobody(&self) -> bool {
        match self.phase {
            Phase::Ready { .. } => self.login_by.is_some(),
            Phase::Sniffing { .. } | Phase::Greeting { .. } | Phase::Verifying { .. } => true,
            Phase::Closing { .. } => false,
        }
    }

    /// The longest request that it may send: a line, an object, or the body of a frame.
    pub(super) fn request_max_bytes(&self) -> usize {
        match self.phase {
            // Who needs no login may do anything at once, and cost as much.
            Phase::Greeting { dialect: Dialect::Json, .. }
            | Phase::Ready { dialect: Dialect::Json, .. }
                if self.login_by.is_none() =>
            {
                OBJECT_MAX_BYTES
            }
            Phase::Ready { .. } if self.login_by.is_none() => LINE_MAX_BYTES,
            _ if self.is_json() => OBJECT_FIRST_MAX_BYTES,
            _ => LINE_FIRST_MAX_BYTES,
        }
    }

    /// Whether its next request must wait: for its answers to leave; for its password to be
    /// checked; with lines, for the end of the request before; with JSON, for one operation to end
    /// where no more may be under way.
    pub(super) fn must_pause(&self, limits: &Limits) -> bool {
        // Bytes that are no requests have no answers that could fill its queue, and as many are
        // taken as there is room for.
        if self.input.raw.is_some() {
            return false;
        }
        let is_checked = matches!(self.phase, Phase::Verifying { .. });
        if is_checked || self.outbox.unsent_bytes() >= self.pause_bytes(limits) {
            return true;
        }
        match self.dialect() {
            Some(Dialect::Line) => !self.operations.is_empty() && !self.input.answer_due,
            Some(Dialect::Json) => {
                let is_full = self.operations.len() >= limits.operations_max;
                let is_backed_up = self.replies.as_ref().is_some_and(|it| it.is_backed_up());
                is_backed_up || is_full && self.input.awaits_slot
            }
            _ => false,
        }
    }

    /// Bytes waiting for it from which on its next request waits.
    pub(super) fn pause_bytes(&self, limits: &Limits) -> usize {
        match self.is_nobody() {
            true => limits.outbox_nobody_bytes.min(limits.outbox_pause_bytes),
            false => limits.outbox_pause_bytes,
        }
    }

    /// When something has to be done about it if nothing happens.
    pub(super) fn due(&self, limits: &Limits) -> Time {
        let dialect = match self.phase {
            Phase::Sniffing { deadline } | Phase::Greeting { deadline, .. } => return deadline,
            Phase::Closing { deadline, .. } => return deadline,
            // A check takes its time, and is always answered.
            Phase::Verifying { .. } => return Time::NEVER,
            Phase::Ready { dialect, .. } => dialect,
        };
        let stalled = self.stalled.map_or(Time::NEVER, |since| since + self.patience(limits));
        let silent = match dialect {
            // There the kernel alone asks.
            Dialect::Line | Dialect::Json => Time::NEVER,
            Dialect::Frame if self.pinged.is_some() => self.heard + limits.gone_after,
            Dialect::Frame => self.heard + limits.ping_after,
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
        super::admission::{Mode, Owner},
        *,
    };

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
                let (id, now) = (SessionId::new(0, 1), Time(0));
                let mut session = Session::new(id, now, origin, &policy, &Limits::default());
                session.phase = Phase::Greeting { dialect, deadline: now };
                assert_eq!(session.request_max_bytes(), begin, "{dialect:?}");
                session.phase = Phase::Ready { dialect, name: None };
                assert_eq!(session.request_max_bytes(), ready, "{dialect:?}");
                session.login_by = None;
                assert_eq!(session.request_max_bytes(), later, "{dialect:?}");
            }
        }
    }
}
