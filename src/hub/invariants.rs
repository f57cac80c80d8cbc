//! What must hold between the tables of the hub after every input, for tests and simulations.

use super::{
    Hub, Operation, OperationId, OperationKind, Phase, Session, Time,
    pipe::{Flow, Offer, OpenOffer, PipeEnd, Role},
    receipts::Receipt,
    timers::Alarm,
    voice::Voice,
};
use crate::limits::{OBJECT_MAX_BYTES, REQUEST_BODY_MAX_BYTES};

impl Hub {
    /// Panics where two tables disagree or a bound is passed: a fault of ours. It looks at
    /// everything once, so a simulation can afford it after every step.
    pub fn check_invariants(&self) {
        assert!(self.later.is_empty(), "what is due for others is done within the same input");
        assert!(self.asked.is_none(), "a request is executed within the same input");
        self.check_names();
        self.check_logins();
        self.check_operations();
        assert_eq!(self.attached.len(), self.sessions.len(), "each connection has a session");
        for (slot, session) in &self.sessions {
            let connection = session.connection.id;
            assert_eq!(
                self.session_at(connection),
                Some(session.id),
                "{connection:?} is another's"
            );
            assert_eq!(session.id.slot(), slot, "a session knows where it lies");
            self.check_state(session);
            self.check_queues(session);
            self.check_promises(session);
            let source = session.connection.origin.source();
            let is_stranger = self.strangers.check(session.id, source);
            assert!(!is_stranger || session.name().is_none(), "{:?} has a name", session.id);
            let is_unproven = self.unproven.check(session.id, source);
            assert!(!(is_stranger && is_unproven), "{:?} is counted twice", session.id);
        }
        let waiting: usize =
            self.sessions().map(|session| session.connection.outbox.memory_bytes()).sum();
        assert_eq!(waiting, self.pool.waiting_bytes(), "what waits is counted");
        self.check_unfinished();
        self.check_replies();
        self.check_alarms();
    }

    fn check_names(&self) {
        for (name, id) in self.directory.sessions() {
            let session = self.session(id).expect("a taken name belongs to a session");
            assert_eq!(session.name(), Some(*name), "{id:?} has another name than the index");
        }
        let named = self.sessions().filter(|session| session.name().is_some()).count();
        assert_eq!(named, self.directory.users_count(), "every named session is in the index");
    }

    fn check_logins(&self) {
        let (paced, waiting, running) = self.logins.counts(self.limits.unknown_names_max);
        assert!(waiting <= self.limits.logins_waiting_max);
        assert!(running <= self.limits.verifications_max);
        let checked = |session: &&Session| matches!(session.connection.phase, Phase::Verifying);
        for session in self.sessions().filter(checked) {
            assert!(self.logins.has(session.id), "{:?} waits for no check", session.id);
        }
        // The checks of those who have gone go on; nobody else waits for one.
        let here = self.sessions().filter(checked).count();
        let known = paced + waiting;
        assert!((known..=known + running).contains(&here), "{here} are checked");
    }

    fn check_operations(&self) {
        for (slot, operation) in &self.operations {
            let id = operation.id();
            assert_eq!(id.slot(), slot, "an operation knows where it lies");
            let owner = self.session_of(operation.owner()).and_then(|id| self.session(id));
            let owner = owner.expect("the session of an operation is there");
            let entries = owner.operations.iter().filter(|other| **other == id).count();
            assert_eq!(entries, 1, "{id:?} is listed once with its owner");
            let replies = owner.connection.replies();
            let queued =
                owner.connection.outbox.file_pieces(id) + replies.map_or(0, |it| it.marks(id));
            assert_eq!(operation.file_pieces(), queued, "{id:?} counts its pieces of files");
            assert!(!owner.connection.is_closing() || operation.is_draining());
            self.check_turn(operation, owner);
            let whole = if owner.connection.is_json() { OBJECT_MAX_BYTES } else { 0 };
            match &operation.kind {
                OperationKind::Shell(shell) => {
                    let is_named = shell.may_send_files();
                    assert!(queued == 0 || is_named, "{id:?} sends a file without a name");
                    shell.intake().inspect(|intake| intake.check(whole));
                }
                OperationKind::Offer(offer) => self.check_offer(operation, owner, offer),
                OperationKind::Pipe(end) => self.check_end(operation, owner, end),
            }
            if let Some(flow) = operation.flow() {
                self.check_flow(id, owner, flow);
            }
        }
        let offers: usize = self.sessions().map(|session| session.offers.len()).sum();
        assert_eq!(offers, self.offers_count, "offers are counted");
        assert!(offers <= self.limits.offers_total_max);
        let listed: usize = self.sessions().map(|session| session.operations.len()).sum();
        assert_eq!(listed, self.operations.len(), "every listed operation is there");
        assert!(listed <= self.limits.operations_total_max);
    }

    fn check_turn(&self, operation: &Operation, owner: &Session) {
        let id = operation.id();
        let turns = owner.waiting.iter().filter(|other| **other == id).count();
        if operation.is_draining() {
            assert!(operation.file_pieces() > 0, "{id:?} has nothing left to send");
            assert_eq!(turns, 0, "{id:?} is over and waits to speak");
        }
        let is_blocked = operation.is_blocked();
        assert_eq!(turns, is_blocked as usize, "{id:?} waits exactly while it is blocked");
        // An operation that is given its bytes by the hub has another turn when the outbox moves.
        let has_turn = operation.shell().is_none() && !owner.connection.outbox.is_empty();
        let may_speak = self.has_room(id) && !has_turn;
        assert!(!(is_blocked && may_speak), "{id:?} is blocked although there is room");
        let tag = operation.tag();
        let others = owner.operations.iter().filter_map(|other| self.operation(*other));
        let count = others.filter(|other| tag != 0 && other.tag() == tag).count();
        assert!(count <= 1, "tags are unique");
    }

    /// What came is what went and what waits.
    fn check_flow(&self, id: OperationId, owner: &Session, flow: &Flow) {
        assert_eq!(flow.came(), flow.went() + flow.held_bytes() as u64, "{id:?} has lost bytes");
        let whole =
            if owner.connection.is_json() { OBJECT_MAX_BYTES } else { REQUEST_BODY_MAX_BYTES };
        let most = whole.max(self.limits.input_window_bytes as usize);
        assert!(flow.held_bytes() <= most, "{id:?} holds too much");
        assert!(flow.owed() <= self.limits.input_window_bytes, "{id:?} keeps its credit back");
    }

    /// Each offer stands in the list of its receiver.
    fn check_offer(&self, operation: &Operation, owner: &Session, offer: &Offer) {
        let id = operation.id();
        let receiver = self.session(offer.to()).expect("offers are made to somebody");
        assert!(receiver.name().is_some() && receiver.id != owner.id);
        let is_it = |it: &&OpenOffer| (it.number, it.offer) == (offer.number(), id);
        assert_eq!(receiver.offers.iter().filter(is_it).count(), 1, "{id:?} is listed");
        assert!(!operation.is_blocked(), "{id:?} has nothing to wait for");
        assert_eq!(offer.flow().went(), 0);
    }

    /// Each end has another one that is alive and knows it.
    fn check_end(&self, operation: &Operation, owner: &Session, end: &PipeEnd) {
        let (id, role) = (operation.id(), end.role());
        let is_last = operation.is_draining();
        let Some(other) = self.operation(end.other()) else {
            return assert!(is_last && role == Role::Gets, "{id:?} has no other end");
        };
        assert_ne!(self.session_of(other.owner()), Some(owner.id), "{id:?} leads to its owner");
        let others = other.pipe().expect("both are joined");
        assert_eq!(others.other(), id, "{id:?} leads to somebody else's");
        assert_ne!(end.watches(), others.watches(), "one of them has the alarm");
        match role {
            Role::Sends { size } => {
                assert_eq!(others.role(), Role::Gets);
                assert!(end.flow().is_some_and(|flow| flow.came() <= size));
            }
            Role::Gets => assert!(matches!(others.role(), Role::Sends { .. })),
            Role::Talks => assert_eq!(others.role(), Role::Talks),
        }
        let waits = others.flow().is_some_and(|flow| flow.held_bytes() > 0);
        let is_told = others.flow().is_some_and(Flow::is_told);
        let is_right = if is_last { is_told } else { operation.is_blocked() == waits };
        assert!(is_right, "{id:?} waits exactly while something is there for it");
        let said_all = |flow: &Flow| flow.is_ended() && flow.held_bytes() == 0;
        let has_said = end.flow().is_none_or(|flow| !said_all(flow) || flow.is_told());
        assert!(has_said, "{id:?} has said all");
    }

    fn check_state(&self, session: &Session) {
        let id = session.id;
        let operations = session.operations.len();
        assert!(operations <= self.limits.operations_max);
        assert!(session.offers.len() <= self.limits.offers_max);
        assert!(session.offers.is_empty() || session.name().is_some(), "{id:?} has a name");
        for waiting in &session.offers {
            let offer = self.operation(waiting.offer);
            assert!(offer.is_some(), "{id:?} was offered something that is gone");
        }
        match session.connection.phase {
            Phase::Sniffing { .. } | Phase::Greeting { .. } | Phase::Verifying => {
                assert_eq!(operations, 0, "{id:?} has said nothing valid and started something");
            }
            Phase::Ready if session.name.is_none() && session.connection.login_by.is_some() => {
                assert_eq!(operations, 0, "{id:?} has not logged in and started something");
            }
            Phase::Ready => match session.connection.voice {
                Some(Voice::Line(_)) => {
                    assert!(operations <= 1, "lines wait for the operation before");
                }
                Some(Voice::Json(_)) => {}
                Some(Voice::Frame(_)) => {
                    assert!(session.name.is_some(), "frames begin with a name");
                    assert!(session.connection.login_by.is_none(), "{id:?} is in without a login");
                }
                None => panic!("{id:?} is served and has not shown its dialect"),
            },
            Phase::Closing { .. } => {
                assert!(!session.connection.outbox.is_empty(), "{id:?} has nothing to wait for");
                assert!(
                    session.connection.input.rest.is_empty(),
                    "nothing is read of {id:?} any more"
                );
            }
        }
        let is_sniffing = matches!(session.connection.phase, Phase::Sniffing { .. });
        assert!(!is_sniffing || session.connection.voice.is_none(), "{id:?} has shown its dialect");
        if let Some(Voice::Line(line)) = session.connection.served_voice()
            && !line.is_at_start()
        {
            assert_eq!(operations, 1, "{id:?} is within the output of nothing");
        }
    }

    /// The most that waits for a session: whatever [`Hub::say`] says may bring it to twice the
    /// outbox before the session is given up, and one piece of a file may follow, since its room
    /// is measured without what is held back. Messages stay below: they are refused at the
    /// outbox's own size, and escaping makes four bytes of one at most.
    fn check_queues(&self, session: &Session) {
        let id = session.id;
        session.connection.outbox.check();
        let most = 2 * self.limits.outbox_max_bytes + self.limits.chunk_max_bytes;
        let waiting = session.connection.waiting_bytes();
        assert!(waiting <= most, "{waiting} bytes wait for {id:?}, more than {most}");
        let voice = session.connection.voice.as_ref();
        if let Some(held) = voice.and_then(Voice::held) {
            assert!(voice.is_some_and(|it| !it.is_at_start()), "{id:?} holds back for nothing");
            assert!(!held.bytes.is_empty());
            held.posts.check(0, held.bytes.len() as u64);
        }
        assert!(
            !session.connection.outbox.is_empty() || session.connection.stalled.is_none(),
            "{id:?} has no stall"
        );
    }

    /// What is kept for JSON sessions belongs to what they have asked, and is bounded: each of
    /// them may have one reply beyond the bound, and one more that the hub gives itself (`who`,
    /// `help`); what is added comes in portions.
    fn check_replies(&self) {
        let (limits, mut total) = (&self.limits, 0);
        let own = (limits.sessions_max * 64).max(4096);
        let beyond = limits.reply_max_bytes + limits.chunk_max_bytes + own;
        for session in self.sessions() {
            let Some(replies) = session.connection.replies() else { continue };
            assert!(session.connection.is_json(), "{:?} has no replies", session.id);
            let (tags, held) = replies.check();
            total += held;
            let (input, inputs) = self.whole_input_bytes(session.id);
            assert!(input <= limits.inputs_session_max_bytes, "{input} bytes of input wait");
            assert!(inputs <= limits.inputs_total_max_bytes, "{inputs} bytes of input wait");
            assert!(held <= limits.replies_session_max_bytes + beyond, "{held} bytes are held");
            let mut tags: Vec<_> = tags.collect();
            let own = session.operations.iter().filter_map(|id| self.operation(*id));
            let open = own.filter(|operation| !operation.is_draining());
            let mut operations: Vec<_> = open.map(Operation::tag).collect();
            tags.sort_unstable();
            operations.sort_unstable();
            assert_eq!(tags, operations, "{:?}: replies and operations", session.id);
            let is_within = session.connection.json().is_some_and(|json| json.is_within_object());
            assert!(!is_within || replies.is_backed_up(), "{:?} is within nothing", session.id);
        }
        assert_eq!(total, self.replies_bytes, "the total is that of all sessions");
        assert!(total <= limits.replies_total_max_bytes + beyond, "{total} bytes are held");
    }

    fn check_promises(&self, session: &Session) {
        let Some(Voice::Frame(frame)) = &session.connection.voice else { return };
        let count = frame.promises().count();
        assert!(count <= self.limits.receipts_max, "{:?} owes too much", session.id);
        let is_good = |(serial, receipt): (u64, Receipt)| serial != 0 && receipt.tag != 0;
        assert!(frame.promises().all(is_good), "receipts have numbers");
        assert!(count == 0 || session.reader().is_some(), "{:?} has no name", session.id);
    }

    /// Every session that is due has an alarm set for no later than that; stale alarms are few.
    fn check_alarms(&self) {
        let is_valid = |due: Time, alarm: Alarm| match alarm {
            Alarm::Session(id) => {
                self.session(id).is_some_and(|session| session.connection.armed == due)
            }
            Alarm::Operation(_) | Alarm::Logins | Alarm::Shutdown => false,
        };
        let valid = self.timers.iter().filter(|(due, alarm)| is_valid(*due, *alarm)).count();
        let armed =
            self.sessions().filter(|session| session.connection.armed != Time::NEVER).count();
        assert!(valid >= armed, "{armed} sessions rely on {valid} alarms");
        for session in self.sessions() {
            let due = session.connection.due(&self.limits);
            assert!(session.connection.armed <= due, "{:?} sleeps beyond {due:?}", session.id);
        }
        let most = self.stale_alarms_max() + 1;
        assert!(self.timers.len() <= most, "{} alarms, more than {most}", self.timers.len());
    }

    fn check_unfinished(&self) {
        for session in self.sessions() {
            let (noted, rest) =
                (self.unfinished.of(session.id), session.connection.input.rest.len());
            assert!(noted == rest || noted == 0, "{:?} has {rest} bytes unfinished", session.id);
        }
        self.unfinished.check();
    }
}
