//! Peers that are looked at while something is held for them, so that a dead one keeps nothing.
//!
//! The shell asks the kernel whether the peer's host is there ([`Effect::Watch`]). That says
//! nothing of a program which has closed its connection when it had no more requests: to the
//! host that looks like one which still reads. JSON has white space for it: a space between two
//! objects means nothing to a program that reads, and brings back a reset where none does.

use super::{Effect, Hub, Phase, Session, SessionId, Time, voice::Voice};

impl Hub {
    /// Something is held for the session from now on: it is looked at soon, and again and again.
    pub(super) fn watch(&mut self, id: SessionId) {
        let next = self.now + self.limits.watch_every;
        let Some(session) = self.session_mut(id) else { return };
        if session.connection.watched.is_none() && matches!(session.connection.phase, Phase::Ready)
        {
            session.connection.watched = Some(next);
            self.arm(id);
        }
    }

    /// Has the shell look at it, for the last time where nothing is held any more.
    pub(super) fn look_at(&mut self, id: SessionId) {
        let (now, next) = (self.now, self.now + self.limits.watch_every);
        let Some(session) = self.session_mut(id) else { return };
        let holds = session.holds_something(now);
        session.connection.watched = holds.then_some(next);
        let is_between = session.connection.json().is_some_and(|json| !json.is_within_object());
        let may_have_closed =
            session.connection.input.ended && is_between && session.connection.outbox.is_empty();
        let connection = session.connection.id;
        self.effects.push_back(Effect::Watch { connection, holds });
        if holds && may_have_closed {
            self.put_words(id, |out| out.push(b' '));
        }
    }
}

impl Session {
    fn holds_something(&self, now: Time) -> bool {
        let voice = &self.connection.voice;
        let is_awaited = matches!(voice, Some(Voice::Frame(it)) if it.promises().next().is_some());
        let waits_for_it = !self.offers.is_empty() || is_awaited;
        self.has_work()
            || waits_for_it
            || !self.connection.outbox.is_empty()
            || now < self.connection.doubted_until
    }
}
