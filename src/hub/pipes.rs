//! Pipes: what one user says in an operation is what another one gets in theirs.
//!
//! The server holds at most one window of bytes for each direction. What can be given on at once
//! is; the rest waits, and the one who sent it is granted no more credit, or is not read any more,
//! until the other has room. Bytes that wait have their turn with the other operations of the
//! session that is to get them: see [`Hub::pull`].

use super::{
    CloseReason, Connection, Hub, OperationId, Session, SessionId, Time,
    offers::{self, NOT_ACCEPTED},
    operation::Operation,
    pipe::{Flow, FlowState, PipeEnd, Role},
    timers::Alarm,
};
use crate::wire::{
    Dialect, Event, Name, Outcome, Refusal, Tag,
    error::{ErrorCode, ErrorCode::*},
    event::Witness,
};

impl Hub {
    fn pipe_end(&self, id: OperationId) -> Option<&PipeEnd> {
        self.operation(id)?.pipe()
    }

    /// What the owner of this end says to the other.
    fn flow_mut(&mut self, id: OperationId) -> Option<&mut Flow> {
        self.operation_mut(id)?.pipe_mut()?.flow_mut()
    }

    /// The other end, and what the owner of this one does.
    fn joint(&self, id: OperationId) -> Option<(OperationId, Role)> {
        let end = self.pipe_end(id)?;
        Some((end.other(), end.role()))
    }

    /// Whether an end gets a file of which all is on its way, or has gone.
    fn is_over(&self, id: OperationId) -> bool {
        self.operation(id).is_none_or(Operation::is_draining)
    }

    /// Begins to pass on what the sender has handed in with its offer.
    pub(super) fn begin_to_pass(&mut self, sender: OperationId) {
        let Some(end) = self.pipe_end(sender) else { return };
        let receiver = end.other();
        if end.flow().is_some_and(|flow| flow.held_bytes() > 0) {
            self.wait_for_room(receiver);
            if let Some((owner, _)) = self.listener(receiver) {
                self.pull(owner);
            }
        }
        self.finish(sender);
    }

    /// Bytes of the owner of an end.
    pub(super) fn on_pipe_input(&mut self, id: SessionId, operation: OperationId, bytes: &[u8]) {
        let (window, now) = (self.limits.input_window_bytes, self.now);
        let Some(end) = self.pipe_end(operation) else { return };
        let (other, role, room) = (end.other(), end.role(), end.room(window));
        let Some(flow) = self.flow_mut(operation) else {
            return self.break_off(id, NOT_ACCEPTED);
        };
        if flow.is_ended() || bytes.len() > room {
            let text =
                format!("at most {window} bytes may be on their way, and none after the end");
            return self.break_off(id, text);
        }
        if let Role::Sends { size } = role
            && size - flow.came() < bytes.len() as u64
        {
            let text = format!("more than the {size} bytes that were announced came");
            return self.part(operation, BadArguments, text.clone(), text);
        }
        flow.note_came(bytes.len());
        let count = match flow.held_bytes() {
            0 => self.room_of_end(other).min(bytes.len()),
            _ => 0,
        };
        if count > 0 {
            self.put_data(other, &bytes[..count]);
        }
        let Some(flow) = self.flow_mut(operation) else { return };
        if count > 0 {
            flow.note_gone(count, now);
        }
        if count < bytes.len() && flow.hold(&bytes[count..], now) {
            self.wait_for_room(other);
        }
        self.grant_owed(operation);
    }

    /// The owner of an end has no more to say.
    pub(super) fn on_pipe_input_end(&mut self, operation: OperationId, hash: Option<[u8; 32]>) {
        if let Some((other, Role::Gets)) = self.joint(operation) {
            return self.on_getter_end(operation, other);
        }
        if self.flow_mut(operation).is_some_and(|flow| flow.end(hash)) {
            self.finish(operation);
        }
    }

    /// The side that gets a file has nothing to say, and so no end of it. Clients have said this
    /// when they could not store what came: it is the end of the file, and of nothing else.
    fn on_getter_end(&mut self, id: OperationId, other: OperationId) {
        // All of the file is on its way: that it arrives will be told.
        if self.is_over(id) {
            return;
        }
        let own = "whoever gets a file does not end its input; the file was given up".to_owned();
        let others = format!("{} has given it up", self.owner_name(id));
        self.end_end(id, Protocol, own);
        self.end_end(other, Cancelled, others);
    }

    /// The user on whose behalf an operation runs.
    pub(super) fn owner_name(&self, id: OperationId) -> String {
        let owner = self.listener(id).and_then(|(owner, _)| self.session(owner));
        let name = owner.and_then(Session::name);
        name.map_or("the other user".to_owned(), |name| name.to_string())
    }

    /// The input of a line session has ended within the bytes of a file.
    pub(super) fn on_pipe_cut(&mut self, operation: OperationId) {
        let text = "the input ended before all bytes that were announced had come".to_owned();
        self.part(operation, BadArguments, text.clone(), text);
    }

    /// Bytes that an end may be given now, at most one chunk.
    fn room_of_end(&self, id: OperationId) -> usize {
        let window = self.operation(id).map_or(0, Operation::window_bytes);
        match self.has_room(id) {
            true => window.min(self.limits.chunk_max_bytes as u64) as usize,
            false => 0,
        }
    }

    /// Puts an end in line for room: there is something for it.
    fn wait_for_room(&mut self, id: OperationId) {
        if let Some(operation) = self.operation_mut(id) {
            operation.note_spoken();
            self.block(id);
        }
    }

    /// Gives an end one chunk of what waits for it, as far as there is room; true where there
    /// was. Where nothing waits any more, it is not in line any more either.
    pub(super) fn give(&mut self, id: OperationId) -> bool {
        let (now, room) = (self.now, self.room_of_end(id));
        let Some((other, _)) = self.joint(id).filter(|_| room > 0) else { return false };
        let Some(mut held) = self.flow_mut(other).map(Flow::lend_held) else { return false };
        let bytes = held.front(room);
        let count = bytes.len();
        self.put_data(id, bytes);
        held.consume(count);
        let is_empty = held.is_empty();
        if let Some(flow) = self.flow_mut(other) {
            flow.give_back(held);
            flow.note_gone(count, now);
        }
        if is_empty && let Some(operation) = self.operation_mut(id) {
            operation.unblock();
        }
        true
    }

    /// What follows when an end was given something: more of it may come.
    pub(super) fn after_giving(&mut self, id: OperationId) {
        let Some((other, _)) = self.joint(id) else { return };
        self.grant_owed(other);
        if let Some((owner, _)) = self.listener(other) {
            self.later.go_on(owner);
            self.finish(other);
        }
    }

    /// The bytes as they are, behind whatever waits for the session: they do not wait for the
    /// start of a line.
    fn put_data(&mut self, id: OperationId, bytes: &[u8]) {
        let Some((owner, tag)) = self.listener(id) else { return };
        let Some(operation) = self.operation_mut(id) else { return };
        operation.spend(bytes.len());
        let event = Event::Data { tag, bytes };
        match self.connection(owner).and_then(Connection::dialect) {
            // It was asked whether there is room, so nothing stands in between.
            None | Some(Dialect::Json) => self.say(owner, &event),
            Some(dialect) => self.put(owner, |out| dialect.encode(&event, out)),
        }
    }

    /// Grants the owner of an end what the other has got, in steps that are worth it. A step is
    /// less than the window, so what is not granted yet stops nobody.
    fn grant_owed(&mut self, id: OperationId) {
        let step = (self.limits.input_window_bytes / 4).max(1);
        let Some((owner, tag)) = self.listener(id) else { return };
        if let Some(bytes) = self.flow_mut(id).and_then(|flow| flow.take_owed(step)) {
            self.say(owner, &Event::Credit { tag, bytes });
        }
    }

    /// Does what is due when the owner of the end has said all and the other has got it.
    fn finish(&mut self, id: OperationId) {
        let Some((other, role)) = self.joint(id) else { return };
        // The end of a side that only gets is refused where it comes.
        let Some(flow) = self.flow_mut(id) else { return };
        let FlowState::Ended { hash } = flow.state() else { return };
        let came = flow.came();
        if let Role::Sends { size } = role
            && came < size
        {
            let text = format!("only {came} of the {size} bytes that were announced came");
            return self.part(id, BadArguments, text.clone(), text);
        }
        if flow.held_bytes() > 0 {
            return;
        }
        flow.note_told();
        if matches!(role, Role::Sends { .. }) {
            return self.end_file(other, hash);
        }
        if let Some((owner, tag)) = self.listener(other) {
            self.say(owner, &Event::DataEnd { tag });
        }
        if self.flow_mut(other).is_some_and(|flow| flow.is_told()) {
            self.end_with(id, &Outcome::Done);
            self.end_with(other, &Outcome::Done);
        }
    }

    /// All bytes of a file are in the outbox of the side that gets it. The sender hears of it when
    /// they have left that.
    fn end_file(&mut self, id: OperationId, hash: Option<[u8; 32]>) {
        let outcome = hash.map_or(Outcome::Done, |hash| Outcome::Sent { hash });
        let Some((owner, tag)) = self.listener(id) else { return };
        if let Some(end) = self.operation_mut(id).and_then(Operation::pipe_mut) {
            end.note_passing();
        }
        self.finish_line(owner);
        self.say(owner, &Event::End { tag, outcome: &outcome });
        let Some(session) = self.sessions.get_mut(owner.slot()) else { return };
        let awaits_reply =
            session.connection.replies_mut().is_some_and(|replies| replies.mark_last(id));
        if session.connection.outbox.is_empty() && !awaits_reply {
            self.on_file_passed(id);
        } else if !awaits_reply {
            session.connection.outbox.put_mark(id);
        }
        self.release_held(owner);
    }

    /// The last byte of a file has left for the side that gets it: both ends are done.
    pub(super) fn on_file_passed(&mut self, id: OperationId) {
        let Some((other, _)) = self.joint(id) else { return };
        self.drop_end(id);
        // The sender need not be there any more.
        self.end_with(other, &Outcome::Delivered { by: Witness::Connection });
    }

    /// Ends an offer or an end of a pipe with an error.
    pub(super) fn end_end(&mut self, id: OperationId, code: ErrorCode, text: String) {
        let Some(operation) = self.operation(id) else { return };
        let refusal = Refusal::new(operation.tag(), code, text);
        self.end_with(id, &Outcome::Failed(refusal));
    }

    /// The same, however it ends: its owner is told, and goes on with what it has to do.
    fn end_with(&mut self, id: OperationId, outcome: &Outcome) {
        let gets = matches!(self.joint(id), Some((_, Role::Gets)));
        let Some((owner, tag)) = self.drop_end(id) else { return };
        if gets && self.connection(owner).is_some_and(Connection::is_plain) {
            // Its size was announced, and nothing but the end can say that it does not come.
            return self.later.close(owner, CloseReason::BrokenFile);
        }
        self.finish_line(owner);
        self.say(owner, &Event::End { tag, outcome });
        self.release_held(owner);
    }

    /// Forgets an offer or an end of a pipe; its owner may go on.
    fn drop_end(&mut self, id: OperationId) -> Option<(SessionId, Tag)> {
        let listener = self.listener(id);
        self.take_operation(id);
        if let Some((owner, _)) = listener {
            self.later.go_on(owner);
        }
        listener
    }

    /// Ends both ends with an error: `own` is for the owner of this one.
    fn part(&mut self, id: OperationId, code: ErrorCode, own: String, others: String) {
        if let Some((other, _)) = self.joint(id) {
            self.end_end(id, code, own);
            self.end_end(other, code, others);
        }
    }

    /// The owner wants no more of it.
    pub(super) fn on_pipe_cancel(&mut self, id: OperationId) {
        let Some(end) = self.pipe_end(id) else { return };
        let is_file = matches!(end.role(), Role::Sends { .. });
        // All of the file is on its way: that it arrives will be told.
        let is_sent = is_file && end.flow().is_some_and(Flow::is_told);
        if is_sent || end.is_passing() {
            return;
        }
        let text = format!("{} has cancelled it", self.owner_name(id));
        self.part(id, Cancelled, "you have cancelled it".to_owned(), text);
    }

    /// Its owner may not send to others any more, for this reason.
    pub(super) fn on_pipe_revoked(&mut self, id: OperationId, own: String) {
        let others = format!("{} may not send any more", self.owner_name(id));
        self.part(id, Denied, own, others);
    }

    /// The session of an end has gone, and the end with it.
    pub(super) fn on_end_lost(&mut self, end: &PipeEnd, who: Option<Name>) {
        if !self.is_over(end.other()) {
            self.end_end(end.other(), PeerGone, offers::gone(who));
        }
    }

    /// Time has passed for a pipe, by way of the end of the side that has accepted.
    pub(super) fn on_pipe_alarm(&mut self, id: OperationId) {
        let (now, limit) = (self.now, self.limits.pipe_stall_timeout);
        let Some(end) = self.pipe_end(id) else { return };
        // What has left the pipe and waits for a socket is that session's affair.
        if end.is_passing() || !end.watches() {
            return;
        }
        let own = end.flow();
        let others = self.pipe_end(end.other()).and_then(PipeEnd::flow);
        let due = match end.role() {
            Role::Gets => others.map(|flow| flow.moved() + limit),
            Role::Sends { .. } => None,
            Role::Talks => {
                let waiting = own.into_iter().chain(others).filter(|flow| flow.held_bytes() > 0);
                let due = waiting.map(|flow| flow.moved() + limit).min();
                Some(due.unwrap_or(now + limit))
            }
        };
        let Some(due): Option<Time> = due else { return };
        if due > now {
            return self.set_alarm(due, Alarm::Operation(id));
        }
        let text = format!("nothing has moved for {} s", limit.as_secs());
        self.part(id, TimedOut, text.clone(), text);
    }
}
