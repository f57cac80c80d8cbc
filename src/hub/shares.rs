//! Shares: nobody takes all of what there is for all, neither with many connections nor with few.

use std::collections::{BTreeMap, HashMap};

use super::{
    CloseReason, Hub, OperationId, OperationState, Session, SessionId, SourceNet, Time,
    admission::Mode, operation::Operation, timers::Alarm,
};
use crate::{
    limits::{Limits, OBJECT_MAX_BYTES, SOURCE_PART},
    wire::{ErrorCode, Name, Refusal, event::Ended},
};

/// Time between two looks for sessions that may go where too much waits: each looks at all.
const SHED_STEP_MS: u64 = 100;

/// Whose something is, so that several connections of one count as one.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum HubSource {
    /// Whoever has shown this name's password.
    User(Name),
    /// Whoever comes from there: a name that nobody has to prove says nothing.
    Network(SourceNet),
}

impl HubSource {
    /// What it may hold of a memory of which all may hold `total` and one session `of_one`. The
    /// programs of this machine are many users: they leave a part to others, no more.
    pub fn part_of(self, total: usize, of_one: usize) -> usize {
        let part = match self {
            HubSource::Network(SourceNet::Loopback) => total - total / SOURCE_PART,
            _ => total / SOURCE_PART,
        };
        part.max(of_one).min(total)
    }
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

    /// The largest of those that are `meant`, and how much these are together.
    fn largest(&self, meant: impl Fn(SessionId) -> bool) -> (Option<SessionId>, usize) {
        let those = || self.by_session.iter().filter(|(id, _)| meant(**id));
        let largest = those().max_by_key(|(_, bytes)| **bytes).map(|(id, _)| *id);
        (largest, those().map(|(_, bytes)| bytes).sum())
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
            _ => Some(HubSource::Network(session.origin.source())),
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
            let owner = self.session(operation.owner);
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
            let is_running = matches!(operation.state, OperationState::Running { .. });
            is_running && operation.waits_since().is_some_and(|since| since + limit <= now)
        };
        let idle = self.operations.iter().filter(|(_, operation)| is_idle(operation));
        let idle: Vec<_> = idle.map(|(_, operation)| operation.id).collect();
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
        let Some(operation) = self.operation_mut(id) else { return };
        let since = operation.waits_since();
        let is_upload = operation.input.as_ref().is_some_and(|input| input.is_upload);
        let owner = operation.owner;
        let source = self.session(owner).and_then(|session| self.source_of(session));
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

    /// Where too much waits for all together, or for one source, whoever takes nothing goes: of
    /// the source that holds most, and there whoever holds most.
    pub(super) fn shed(&mut self) {
        let most = self.limits.waiting_total_max_bytes;
        let total = self.pool.waiting_bytes() + self.replies_bytes;
        let is_too_much = total > most;
        let from = &mut self.shed_from[usize::from(is_too_much)];
        if total <= most / SOURCE_PART || self.now < *from {
            return;
        }
        *from = Time(self.now.0.saturating_add(SHED_STEP_MS));
        let mut by_source = HashMap::<Option<HubSource>, usize>::new();
        for (_, session) in &self.sessions {
            *by_source.entry(self.source_of(session)).or_default() += session.memory_bytes();
        }
        let (now, limits) = (self.now, self.limits);
        let idle = self.sessions.iter().filter(|(_, it)| it.takes_nothing(now, &limits));
        let of = |it: &Session| (it.memory_bytes(), it.id, self.source_of(it));
        let mut idle: Vec<_> = idle.map(|(_, session)| of(session)).collect();
        idle.sort_unstable_by_key(|(bytes, id, _)| (*bytes, *id));
        let doomed = choose(idle, by_source, total, &limits);
        self.doomed.extend(doomed.into_iter().map(|id| (id, CloseReason::SlowConsumer)));
    }

    /// Where all requests that have begun are too large together, or those of one source, the
    /// largest of them goes.
    pub(super) fn bound_unfinished(&mut self, id: SessionId, bytes: usize) {
        self.unfinished.set(id, bytes);
        let most = self.limits.unfinished_total_max_bytes;
        if self.unfinished.total_bytes <= most / SOURCE_PART {
            return;
        }
        if let Some(source) = self.source(id) {
            let part = source.part_of(most, OBJECT_MAX_BYTES);
            self.bound_unfinished_of(part, "of yours", |hub, id| hub.source(id) == Some(source));
        }
        self.bound_unfinished_of(most, "", |_, _| true);
    }

    fn bound_unfinished_of(
        &mut self,
        most: usize,
        whose: &str,
        meant: impl Fn(&Hub, SessionId) -> bool,
    ) {
        while let (Some(largest), total) = self.unfinished.largest(|id| meant(self, id))
            && total > most
        {
            self.unfinished.set(largest, 0);
            let text = match whose {
                "" => "too much of unfinished requests waits here; try again later".to_string(),
                _ => format!("too much of unfinished requests {whose} waits here"),
            };
            let refusal = Refusal::new(0, ErrorCode::Busy, text);
            self.close(largest, CloseReason::Unfinished, Some(&refusal));
        }
    }

    /// Bytes that a reply of the session may yet grow by, as far as others are concerned.
    pub(super) fn replies_room(&self, id: SessionId) -> usize {
        let limits = &self.limits;
        let most = limits.replies_total_max_bytes;
        let room = most.saturating_sub(self.replies_bytes);
        // As long as all hold little nobody has to be counted.
        let is_little = self.replies_bytes + limits.chunk_max_bytes <= most / SOURCE_PART;
        let Some(source) = self.source(id).filter(|_| !is_little) else { return room };
        let own = self.sessions().filter(|session| self.source_of(session) == Some(source));
        let held: usize = own.map(Session::replies_bytes).sum();
        room.min(source.part_of(most, limits.replies_session_max_bytes).saturating_sub(held))
    }
}

/// Those of `idle`, sorted by what they hold, who go for what all or their sources hold too much.
fn choose(
    mut idle: Vec<(usize, SessionId, Option<HubSource>)>,
    mut by_source: HashMap<Option<HubSource>, usize>,
    mut total: usize,
    limits: &Limits,
) -> Vec<SessionId> {
    let (most, of_one) = (limits.waiting_total_max_bytes, limits.outbox_max_bytes);
    let mut chosen = Vec::new();
    loop {
        let held = |source: &Option<HubSource>| by_source.get(source).copied().unwrap_or(0);
        let has_too_much = |source: &Option<HubSource>| {
            source.is_some_and(|it| held(source) > it.part_of(most, of_one))
        };
        let goes = |(_, (bytes, id, source)): &(usize, &(usize, SessionId, Option<HubSource>))| {
            (has_too_much(source), held(source), *bytes, *id)
        };
        let next = idle.iter().enumerate().max_by_key(goes).map(|(at, _)| at);
        let Some((bytes, id, source)) = next.map(|at| idle.swap_remove(at)) else { break };
        if total <= most && !has_too_much(&source) {
            break;
        }
        chosen.push(id);
        total = total.saturating_sub(bytes);
        let left = held(&source).saturating_sub(bytes);
        by_source.insert(source, left);
    }
    chosen
}

impl Session {
    /// Whether something waits of which the socket has taken nothing for a moment.
    fn takes_nothing(&self, now: Time, limits: &Limits) -> bool {
        self.stalled.is_some_and(|since| since + limits.waiting_patience <= now)
    }

    /// What it holds of the memory of all.
    fn memory_bytes(&self) -> usize {
        self.outbox.memory_bytes() + self.replies_bytes()
    }

    fn replies_bytes(&self) -> usize {
        self.replies.as_ref().map_or(0, |it| it.held_bytes())
    }
}
