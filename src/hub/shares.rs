//! Shares: nobody takes all of what there is for all, neither with many connections nor with few.

use std::collections::BTreeMap;

use super::{
    CloseReason, Connection, Hub, OperationId, Session, SessionId, SourceNet, Time,
    admission::Mode,
    operation::{Intake, Operation},
    timers::Alarm,
};
use crate::{
    limits::Limits,
    wire::{ErrorCode, Name, Refusal, event::Ended},
};

/// Time between two looks for sessions that may go where too much waits: each looks at all.
const SHED_STEP_MS: u64 = 100;

/// Whose something is, so that several connections of one count as one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HubSource {
    /// Whoever has shown this name's password.
    User(Name),
    /// Whoever comes from there: a name that nobody has to prove says nothing.
    Network(SourceNet),
}

/// Large requests that have begun and not ended.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    by_session: BTreeMap<SessionId, usize>,
    total_bytes: usize,
}

/// Smaller ones are not counted: a session costs that much anyway.
const UNFINISHED_FROM_BYTES: usize = 16 * 1024;

impl Unfinished {
    /// So many bytes of the session wait for the rest of their request.
    pub(super) fn set(&mut self, id: SessionId, bytes: usize) {
        let before = match bytes >= UNFINISHED_FROM_BYTES {
            true => self.by_session.insert(id, bytes),
            false if self.by_session.is_empty() => return,
            false => self.by_session.remove(&id),
        };
        let counted = if bytes >= UNFINISHED_FROM_BYTES { bytes } else { 0 };
        self.total_bytes = self.total_bytes - before.unwrap_or(0) + counted;
    }

    /// What is noted of a session; 0 where that is little.
    pub(super) fn of(&self, id: SessionId) -> usize {
        self.by_session.get(&id).copied().unwrap_or(0)
    }

    /// Panics where the total is not that of its parts.
    pub(super) fn check(&self) {
        assert_eq!(self.by_session.values().sum::<usize>(), self.total_bytes);
    }

    fn largest(&self) -> Option<SessionId> {
        self.by_session.iter().max_by_key(|(_, bytes)| **bytes).map(|(id, _)| *id)
    }
}

impl Hub {
    /// Whose a session is, where that is to be counted.
    pub fn source(&self, id: SessionId) -> Option<HubSource> {
        self.session(id).and_then(|session| self.source_of(session))
    }

    /// Whose a session is; nobody shares where all belong to the server's own account.
    fn source_of(&self, session: &Session) -> Option<HubSource> {
        match (self.policy.mode, session.name()) {
            (Mode::Protected, _) => None,
            (Mode::Credentials { .. }, Some(name)) => Some(HubSource::User(name)),
            _ => Some(HubSource::Network(session.connection.origin.source())),
        }
    }

    /// Whether two sessions count as one sender. Programs of this machine do not: they are many.
    pub(super) fn are_of_one(&self, one: SessionId, other: SessionId) -> bool {
        let source = |id| self.session(id).and_then(|session| self.source_of(session));
        let is_shared = |it: &HubSource| *it != HubSource::Network(SourceNet::Loopback);
        one == other || source(one).filter(is_shared).is_some_and(|it| source(other) == Some(it))
    }

    /// Whether its source may have one more operation under way.
    pub(super) fn check_share(&self, session: &Session) -> Result<(), String> {
        let most = self.limits.operations_source_max;
        let Some(source) = self.source_of(session).filter(|_| self.operations.len() >= most) else {
            return Ok(());
        };
        let is_own = |operation: &Operation| {
            let owner = self.session_of(operation.owner()).and_then(|id| self.session(id));
            owner.is_some_and(|owner| self.source_of(owner) == Some(source))
        };
        let own = self.operations.iter().filter(|(_, operation)| is_own(operation)).count();
        match own < most {
            true => Ok(()),
            false => Err(format!("your connections have {own} operations under way; wait for one")),
        }
    }

    /// Ends uploads that have waited for their owners all the time: others need their places.
    pub(super) fn end_idle_uploads(&mut self) {
        let (now, limit) = (self.now, self.limits.upload_idle_timeout);
        let is_idle = |operation: &Operation| {
            operation.waits_since().is_some_and(|since| since + limit <= now)
        };
        let idle = self.operations.iter().filter(|(_, operation)| is_idle(operation));
        let idle: Vec<_> = idle.map(|(_, operation)| operation.id()).collect();
        let text = format!("nothing has come for {} s, and others need its place", limit.as_secs());
        for id in idle {
            let refusal = Refusal::new(0, ErrorCode::TimedOut, text.clone());
            self.terminate_with(id, Ended::TimedOut, refusal);
        }
    }

    /// Sees to it that an upload ends which waits for an owner without a password: of those there
    /// may be many, and nobody can be asked why.
    pub(super) fn bound_upload(&mut self, id: OperationId) {
        let (now, limit) = (self.now, self.limits.upload_idle_timeout);
        let Some(operation) = self.operation(id) else { return };
        let since = operation.waits_since();
        let is_upload = operation.intake().is_some_and(Intake::is_upload);
        let owner = self.session_of(operation.owner());
        let source = owner.and_then(|owner| self.source(owner));
        if !is_upload || !matches!(source, Some(HubSource::Network(_))) {
            return;
        }
        let due = since.unwrap_or(now) + limit;
        if due > now {
            return self.set_alarm(due, Alarm::Operation(id));
        }
        let text = format!("nothing has come for {} s", limit.as_secs());
        let refusal = Refusal::new(0, ErrorCode::TimedOut, text);
        self.terminate_with(id, Ended::TimedOut, refusal);
    }

    /// Where too much waits for all together, whoever takes nothing goes, who holds most first.
    pub(super) fn shed(&mut self) {
        let most = self.limits.waiting_total_max_bytes;
        let mut total = self.pool.waiting_bytes() + self.replies_bytes;
        if total <= most || self.now < self.shed_from {
            return;
        }
        self.shed_from = Time(self.now.0.saturating_add(SHED_STEP_MS));
        let (now, limits) = (self.now, self.limits);
        let mut idle: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.connection.takes_nothing(now, &limits))
            .map(|(_, session)| (session.connection.memory_bytes(), session.id))
            .collect();
        idle.sort_unstable();
        while let Some((bytes, id)) = idle.pop().filter(|_| total > most) {
            self.doomed.push((id, CloseReason::SlowConsumer));
            total = total.saturating_sub(bytes);
        }
    }

    /// Where all requests that have begun are too large together, the largest goes.
    pub(super) fn bound_unfinished(&mut self, id: SessionId, bytes: usize) {
        self.unfinished.set(id, bytes);
        while self.unfinished.total_bytes > self.limits.unfinished_total_max_bytes
            && let Some(largest) = self.unfinished.largest()
        {
            self.unfinished.set(largest, 0);
            let text = "too much of unfinished requests waits here; try again later";
            let refusal = Refusal::new(0, ErrorCode::Busy, text);
            self.close(largest, CloseReason::Unfinished, Some(&refusal));
        }
    }
}

impl Connection {
    /// Whether something waits of which the socket has taken nothing for a moment.
    fn takes_nothing(&self, now: Time, limits: &Limits) -> bool {
        self.stalled.is_some_and(|since| since + limits.waiting_patience <= now)
    }

    /// What it holds of the memory of all.
    fn memory_bytes(&self) -> usize {
        self.outbox.memory_bytes() + self.replies().map_or(0, |it| it.held_bytes())
    }
}
