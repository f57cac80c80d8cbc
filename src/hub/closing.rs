//! How sessions end, and what time does.

use super::{
    Connection, Effect, Hub, OperationKind, Phase, Session, SessionId, Time,
    ids::OperationId,
    outbox::Pool,
    receipts::Receipt,
    timers::Alarm,
    voice::{Voice, json::JsonVoice},
};
use crate::{
    limits::Limits,
    wire::{
        ErrorCode, Event, Name, Refusal,
        dialect::{self, Sniffed},
    },
};

/// Why a session is over.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum CloseReason {
    /// It said goodbye, or had no more requests.
    PeerLeft,
    /// Its connection broke.
    PeerGone,
    /// It sent what its dialect does not allow.
    Protocol,
    /// It speaks a dialect that is not served.
    NotServed,
    /// It comes from where nobody is served.
    NotAdmitted,
    /// Its name belongs to somebody else.
    NameTaken,
    /// It has no password, a wrong one, or one that holds no more.
    NotLoggedIn,
    /// Somebody else has logged in under its name.
    Replaced,
    /// It said nothing valid in time.
    FirstRequestTimeout,
    /// It did not log in in time.
    LoginTimeout,
    /// It was silent, and did not answer the ping.
    Silent,
    /// It took nothing of what waited for it.
    Stalled,
    /// The same, and messages to it were refused because of that.
    SlowConsumer,
    /// The file that it was promised changed meanwhile.
    BrokenFile,
    /// It had not said who it is, and somebody else came for whom there was no other room.
    MadeRoom,
    /// The server stops.
    ShuttingDown,
    /// Somebody has ended all sessions; the server goes on.
    Reset,
    /// It had begun the largest of too many requests that did not end.
    Unfinished,
    /// Its input has met a fault of ours.
    Fault,
}

impl Hub {
    pub(super) fn on_sent(&mut self, id: SessionId, count: usize) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(id.slot()).filter(|it| it.id == id) else {
            return;
        };
        let reader = session.reader();
        let (mut files, mut posts) = (Vec::new(), Vec::new());
        let on_post = |receipt: Receipt| {
            if receipt.tag != 0 {
                posts.push(receipt);
            }
        };
        session.connection.outbox.consume(&mut self.pool, count, |file| files.push(file), on_post);
        if session.connection.outbox.is_empty() {
            session.connection.stalled = None;
            session.connection.overflowed = false;
        } else if count > 0 || session.connection.stalled.is_none() {
            session.connection.stalled = Some(now);
            // A socket that takes more of a backlog has a peer that takes it. Its answer to a
            // ping may lie unread meanwhile, since its requests wait for room.
            if count > 0 {
                session.connection.heard = now;
                session.connection.pinged = None;
            }
        }
        if let Some(name) = reader {
            posts.into_iter().for_each(|receipt| self.on_posted(name, receipt));
        }
        files.into_iter().for_each(|file| self.on_file_sent(file));
        self.after_sent(id, count);
    }

    fn after_sent(&mut self, id: SessionId, count: usize) {
        let Some(session) = self.session(id) else { return };
        let is_empty = session.connection.outbox.is_empty();
        if let Phase::Closing { reason, .. } = session.connection.phase {
            if is_empty {
                self.remove(id, reason);
            } else if count > 0 && reason == CloseReason::PeerLeft {
                let later = self.closing_deadline(reason);
                let Some(session) = self.session_mut(id) else { return };
                if let Phase::Closing { deadline, .. } = &mut session.connection.phase {
                    *deadline = later;
                }
            }
            return;
        }
        if !is_empty {
            self.arm(id);
        }
        self.pump(id);
        self.pull(id);
        self.close_if_stopping(id);
        self.resume(id);
    }

    /// Closes a session whose peer has said its last request, once all is answered.
    pub(super) fn close_if_finished(&mut self, id: SessionId) {
        let Some(session) = self.session(id) else { return };
        let input = &session.connection.input;
        let is_checked = matches!(session.connection.phase, Phase::Verifying);
        let is_busy = input.paused || is_checked || session.has_work();
        let is_done = input.ended && !is_busy;
        if !is_done || session.connection.is_closing() {
            return;
        }
        let json = self.connection_mut(id).and_then(Connection::json_mut);
        match json.and_then(JsonVoice::take_nonsense) {
            Some(refusal) => self.close(id, CloseReason::Protocol, Some(&refusal)),
            None => self.shut(id, CloseReason::PeerLeft),
        }
    }

    /// Says goodbye, with the reason if there is one, and removes the session once it has been
    /// told or has had its time.
    pub(super) fn close(&mut self, id: SessionId, reason: CloseReason, why: Option<&Refusal>) {
        let Some(session) = self.session(id) else { return };
        if session.connection.is_closing() {
            return;
        }
        if !session.connection.voice.as_ref().is_some_and(Voice::is_wordless) {
            self.finish_line(id);
            self.release_held(id);
            self.say(id, &Event::Goodbye(why));
        }
        self.shut(id, reason);
    }

    /// The same with last words that are no event.
    pub(super) fn close_with(&mut self, id: SessionId, reason: CloseReason, words: &[u8]) {
        if self.session(id).is_none() {
            return;
        }
        self.put(id, |out| out.extend_from_slice(words));
        self.shut(id, reason);
    }

    /// Removes the session once its outbox is empty.
    fn shut(&mut self, id: SessionId, reason: CloseReason) {
        self.drop_replies(id);
        self.stop_operations(id, Haste::SendQueued);
        self.logins.forget(id);
        self.release_name(id);
        let deadline = self.closing_deadline(reason);
        let Some(session) = self.session_mut(id) else { return };
        session.connection.phase = Phase::Closing { reason, deadline };
        session.connection.input.rest = Vec::new();
        self.unfinished.set(id, 0);
        let Some(session) = self.session(id) else { return };
        if session.connection.outbox.is_empty() {
            self.remove(id, reason);
        } else {
            self.arm(id);
        }
    }

    /// Who has left in order may take as long as anybody to fetch the rest, if only it takes
    /// something. The others get a moment to read why.
    fn closing_deadline(&self, reason: CloseReason) -> Time {
        let deadline = match reason {
            CloseReason::PeerLeft => self.now + self.limits.stall_timeout,
            _ => self.now + self.limits.closing_timeout,
        };
        // A server that stops waits for nobody beyond its own time.
        match self.stopping {
            Some(end) => deadline.min(end + self.limits.closing_timeout),
            None => deadline,
        }
    }

    /// Removes a session at once; what waits for it is lost, and the senders hear of it.
    pub(super) fn remove(&mut self, id: SessionId, reason: CloseReason) {
        if self.session(id).is_none() {
            return;
        }
        self.drop_replies(id);
        self.stop_operations(id, Haste::AtOnce);
        self.logins.forget(id);
        let was = self.release_name(id);
        let mut session = self.sessions.remove(id.slot());
        self.strangers.remove(id, session.connection.origin.source());
        self.unproven.remove(id, session.connection.origin.source());
        self.closes.tell(&session, was, reason);
        self.unfinished.set(id, 0);
        // A session ends with its connection: here alone.
        let connection = session.connection.id;
        self.attached.remove(connection.slot());
        self.effects.push_back(Effect::Forget { session: id });
        self.effects.push_back(Effect::Close { connection, reason });
        let lost = session.connection.abandon(&mut self.pool);
        if let Some(name) = was {
            self.report_lost(name, lost);
        }
    }

    /// Ends what the session has under way. What is queued of files can be sent yet, unless the
    /// session goes at once.
    fn stop_operations(&mut self, id: SessionId, haste: Haste) {
        let Some(session) = self.session_mut(id) else { return };
        session.waiting.clear();
        let who = session.reader();
        let operations = std::mem::take(&mut session.operations);
        self.drop_offers_to(id, who);
        for operation_id in &operations {
            let Some(operation) = self.operation_mut(*operation_id) else { continue };
            if haste == Haste::SendQueued && operation.drain() {
                continue;
            }
            match self.operations.remove(operation_id.slot()).kind {
                OperationKind::Shell(_) => {
                    self.effects.push_back(Effect::Stop { operation: *operation_id });
                }
                OperationKind::Offer(offer) => self.on_offer_lost(*operation_id, &offer, who),
                OperationKind::Pipe(end) => self.on_end_lost(&end, who),
            }
        }
        if haste == Haste::SendQueued {
            let is_left = |id: &OperationId| self.operations.contains(id.slot());
            let left = operations.into_iter().filter(is_left).collect();
            self.session_mut(id).expect("it was there").operations = left;
        }
    }

    /// Makes the name free and says whose session it was.
    fn release_name(&mut self, id: SessionId) -> Option<Name> {
        let session = self.session(id)?;
        let name = session.reader()?;
        if !session.connection.is_closing() {
            self.directory.release(&name);
        }
        Some(name)
    }

    pub(super) fn on_tick(&mut self) {
        while let Some((due, alarm)) = self.timers.pop(self.now) {
            match alarm {
                Alarm::Session(id) => self.on_session_alarm(id, due),
                Alarm::Operation(id) => self.on_operation_alarm(id),
                Alarm::Logins => self.on_paced(),
                Alarm::Shutdown => self.close_all(),
            }
        }
    }

    fn on_session_alarm(&mut self, id: SessionId, due: Time) {
        let (now, limits) = (self.now, self.limits);
        let Some(session) = self.session_mut(id).filter(|session| session.connection.armed == due)
        else {
            return;
        };
        session.connection.armed = Time::NEVER;
        if session.connection.due(&limits) <= now {
            self.on_due(id);
        }
        self.arm(id);
    }

    /// Does what the passing of time demands of a session.
    fn on_due(&mut self, id: SessionId) {
        let (now, limits) = (self.now, self.limits);
        let Some(session) = self.session_mut(id) else { return };
        match session.connection.phase {
            Phase::Sniffing { .. } => {
                let words = dialect::farewell(Sniffed::Undecided, &too_late(&limits));
                self.close_with(id, CloseReason::FirstRequestTimeout, &words);
            }
            Phase::Greeting { .. } => {
                self.close(id, CloseReason::FirstRequestTimeout, Some(&too_late(&limits)));
            }
            Phase::Closing { reason, .. } => self.remove(id, reason),
            Phase::Verifying => {}
            Phase::Ready if session.connection.login_by.is_some_and(|by| by <= now) => {
                self.close(id, CloseReason::LoginTimeout, Some(&no_login(&limits)));
            }
            Phase::Ready if session.connection.watched.is_some_and(|at| at <= now) => {
                self.look_at(id)
            }
            Phase::Ready => {
                let patience = session.connection.patience(&limits);
                if session.connection.stalled.is_some_and(|since| since + patience <= now) {
                    let reason = match session.connection.overflowed {
                        true => CloseReason::SlowConsumer,
                        false => CloseReason::Stalled,
                    };
                    return self.remove(id, reason);
                }
                if session.connection.pinged.is_some() {
                    return self.remove(id, CloseReason::Silent);
                }
                session.connection.pinged = Some(now);
                self.say(id, &Event::Ping { number: now.0 as u32 });
            }
        }
    }

    /// Begins to stop: nobody new, and whoever has nothing under way leaves at once.
    pub(super) fn on_stop(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let deadline = self.now + self.limits.shutdown_timeout;
        self.stopping = Some(deadline);
        self.set_alarm(deadline, Alarm::Shutdown);
        self.withdraw_all();
        let seconds = self.limits.shutdown_timeout.as_secs();
        for id in self.ids() {
            let text = format!("the server stops in {seconds} s; what still runs then is ended");
            self.hasten(id);
            let has_work = self.session(id).is_some_and(Session::has_work);
            if has_work {
                self.refuse(id, 0, ErrorCode::ShuttingDown, text);
            } else {
                self.close_if_stopping(id);
            }
        }
    }

    /// Gives a session that is on its way out no more time than the server has.
    pub(super) fn hasten(&mut self, id: SessionId) {
        let Some(end) = self.stopping else { return };
        let last = end + self.limits.closing_timeout;
        let Some(session) = self.session_mut(id) else { return };
        if let Phase::Closing { deadline, .. } = &mut session.connection.phase {
            *deadline = last.min(*deadline);
            self.arm(id);
        }
    }

    /// Lets a session go that has nothing under way any more.
    pub(super) fn close_if_stopping(&mut self, id: SessionId) {
        let is_idle = self.session(id).is_some_and(|it| !it.has_work());
        if self.stopping.is_some() && is_idle {
            self.close(id, CloseReason::ShuttingDown, Some(&shutting_down()));
        }
    }

    fn close_all(&mut self) {
        for id in self.ids() {
            self.close(id, CloseReason::ShuttingDown, Some(&shutting_down()));
        }
    }

    pub(super) fn ids(&self) -> Vec<SessionId> {
        self.sessions().map(|session| session.id).collect()
    }
}

/// How much of what a session has under way still matters.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Haste {
    /// What is queued is sent.
    SendQueued,
    /// Nothing is.
    AtOnce,
}

fn shutting_down() -> Refusal {
    Refusal::new(0, ErrorCode::ShuttingDown, "the server stops; connect again later")
}

fn too_late(limits: &Limits) -> Refusal {
    let seconds = limits.first_request_timeout.as_secs();
    let text = format!("no request came within {seconds} s; `help` lists them");
    Refusal::new(0, ErrorCode::TimedOut, text)
}

fn no_login(limits: &Limits) -> Refusal {
    let seconds = limits.login_timeout.as_secs();
    let text = format!("nobody logged in within {seconds} s; connect again, and log in first");
    Refusal::new(0, ErrorCode::TimedOut, text)
}

impl Connection {
    /// Gives up all that waits for it; returns whose messages are lost, and their receipts.
    fn abandon(&mut self, pool: &mut Pool) -> Vec<Receipt> {
        let mut lost = self.outbox.abandon(pool);
        let mut voice = self.voice.take();
        if let Some(held) = voice.as_mut().and_then(Voice::take_held) {
            lost.extend(held.posts.iter().map(|(_, receipt)| receipt));
        }
        if let Some(Voice::Frame(frame)) = &voice {
            lost.extend(frame.promises().map(|(_, receipt)| receipt));
        }
        lost.retain(|receipt| *receipt != Receipt::ELSEWHERE);
        lost
    }
}
