//! Pipes: what one user says in an operation is what another one gets in theirs.
//!
//! The server holds at most one window of bytes for each direction. What can be given on at once
//! is; the rest waits, and the one who sent it is granted no more credit, or is not read any more,
//! until the other has room. Bytes that wait have their turn with the other operations of the
//! session that is to get them: see [`Hub::pull`].

use super::{
    CloseReason, Effect, Hub, OperationId, OperationState, SessionId, Time, offers,
    pipe::{End, Role},
    timers::Alarm,
};
use crate::wire::{
    Dialect, Event, Name, Outcome, Refusal, Tag,
    error::{ErrorCode, ErrorCode::*},
    event::Witness,
};

impl Hub {
    fn end_mut(&mut self, id: OperationId) -> Option<&mut End> {
        self.operation_mut(id)?.end.as_deref_mut()
    }

    /// The other end, and what the owner of this one does.
    fn joint(&self, id: OperationId) -> Option<(OperationId, Role)> {
        let operation = self.operations.get(id.slot()).filter(|it| it.id == id)?;
        operation.end.as_deref()?.joint()
    }

    /// Begins to pass on what the sender has handed in with its offer.
    pub(super) fn begin_to_pass(&mut self, sender: OperationId) {
        let Some((receiver, _)) = self.joint(sender) else { return };
        let end = self.end_mut(sender).expect("it is joined");
        if !end.held.is_empty() {
            self.wait_for_room(receiver);
            let owner = self.operations[receiver.slot()].owner;
            self.pull(owner);
        }
        self.finish(sender);
    }

    /// Bytes of the owner of an end.
    pub(super) fn on_end_input(&mut self, id: SessionId, operation: OperationId, bytes: &[u8]) {
        let (window, now) = (self.limits.input_window_bytes, self.now);
        let end = self.end_mut(operation).expect("the caller has looked");
        let Some((other, role)) = end.joint().filter(|(_, role)| *role != Role::Gets) else {
            let text = "nothing may be sent before the other user has accepted, \
                        nor by who gets a file";
            return self.break_off(id, text);
        };
        if end.ended || bytes.len() > end.room(window) {
            let text =
                format!("at most {window} bytes may be on their way, and none after the end");
            return self.break_off(id, text);
        }
        if let Role::Sends { size } = role
            && size - end.came < bytes.len() as u64
        {
            let text = format!("more than the {size} bytes that were announced came");
            return self.part(operation, BadArguments, text.clone(), text);
        }
        end.came += bytes.len() as u64;
        let count = if end.held.is_empty() { self.room_of_end(other).min(bytes.len()) } else { 0 };
        if count > 0 {
            self.put_data(other, &bytes[..count]);
            self.end_mut(operation).expect("it was there").note_gone(count, now);
        }
        if count < bytes.len() {
            let end = self.end_mut(operation).expect("it was there");
            let waits_already = !end.held.is_empty();
            end.hold(&bytes[count..], now);
            if !waits_already {
                self.wait_for_room(other);
            }
        }
        self.grant_owed(operation);
    }

    fn break_off(&mut self, id: SessionId, text: impl Into<std::borrow::Cow<'static, str>>) {
        let refusal = Refusal::new(0, Protocol, text);
        self.close(id, CloseReason::Protocol, Some(&refusal));
    }

    /// The owner of an end has no more to say.
    pub(super) fn on_end_input_end(&mut self, operation: OperationId, hash: Option<[u8; 32]>) {
        if let Some((other, Role::Gets)) = self.joint(operation) {
            return self.on_getter_end(operation, other);
        }
        let end = self.end_mut(operation).expect("the caller has looked");
        if end.ended {
            return;
        }
        (end.ended, end.hash) = (true, hash);
        self.finish(operation);
    }

    /// The side that gets a file has nothing to say, and so no end of it. Clients have said this
    /// when they could not store what came: it is the end of the file, and of nothing else.
    fn on_getter_end(&mut self, id: OperationId, other: OperationId) {
        let operation = self.operation_mut(id).expect("the caller has looked");
        let owner = operation.owner;
        // All of the file is on its way: that it arrives will be told.
        if operation.state == OperationState::Ending {
            return;
        }
        let own = "whoever gets a file does not end its input; the file was given up".to_owned();
        let others = format!("{} has given it up", self.who(owner));
        self.end_end(id, Protocol, own);
        self.end_end(other, Cancelled, others);
    }

    fn who(&self, id: SessionId) -> String {
        let name = self.session(id).and_then(super::Session::name);
        name.map_or("the other user".to_owned(), |name| name.to_string())
    }

    /// The input of a line session has ended within the bytes of a file.
    pub(super) fn on_end_input_cut(&mut self, operation: OperationId) {
        let text = "the input ended before all bytes that were announced had come".to_owned();
        let is_offer = self.joint(operation).is_none();
        match is_offer {
            true => self.withdraw(operation, BadArguments, text.clone(), text),
            false => self.part(operation, BadArguments, text.clone(), text),
        }
    }

    /// Bytes that an end may be given now, at most one chunk.
    fn room_of_end(&self, id: OperationId) -> usize {
        let window = self.operations[id.slot()].window_bytes;
        match self.has_room(id) {
            true => window.min(self.limits.chunk_max_bytes as u64) as usize,
            false => 0,
        }
    }

    /// Puts an end in line for room: there is something for it.
    fn wait_for_room(&mut self, id: OperationId) {
        let operation = self.operation_mut(id).expect("joined ends are there");
        operation.has_spoken = true;
        let owner = operation.owner;
        self.block(owner, id);
    }

    /// Gives an end one chunk of what waits for it, as far as there is room; true where there
    /// was. Where nothing waits any more, it is not in line any more either.
    pub(super) fn give(&mut self, id: OperationId) -> bool {
        let (now, room) = (self.now, self.room_of_end(id));
        let (other, _) = self.joint(id).expect("only joined ends wait");
        if room == 0 {
            return false;
        }
        let end = self.end_mut(other).expect("who has handed it in is there");
        let mut held = std::mem::take(&mut end.held);
        let bytes = held.front(room);
        let count = bytes.len();
        self.put_data(id, bytes);
        held.consume(count);
        let is_empty = held.is_empty();
        let end = self.end_mut(other).expect("it was there");
        end.held = held;
        end.note_gone(count, now);
        if is_empty {
            let operation = self.operation_mut(id).expect("it was there");
            operation.state = OperationState::Running { blocked: false };
        }
        true
    }

    /// What follows when an end was given something: more of it may come.
    pub(super) fn after_giving(&mut self, id: OperationId) {
        let Some((other, _)) = self.joint(id) else { return };
        self.grant_owed(other);
        let Some(operation) = self.operation_mut(other) else { return };
        let owner = operation.owner;
        self.freed.push(owner);
        self.finish(other);
    }

    /// The bytes as they are, behind whatever waits for the session: they do not wait for the
    /// start of a line.
    fn put_data(&mut self, id: OperationId, bytes: &[u8]) {
        let operation = self.operations.get_mut(id.slot()).expect("joined ends are there");
        operation.window_bytes -= bytes.len() as u64;
        let (owner, tag) = (operation.owner, operation.tag);
        let session = self.sessions.get_mut(owner.slot()).expect("operations have owners");
        let dialect = session.dialect().expect("whoever gets something is served");
        if dialect == Dialect::Json {
            // It was asked whether there is room, so nothing stands in between.
            return self.say(owner, &Event::Data { tag, bytes });
        }
        let was_empty = session.outbox.is_empty();
        let event = Event::Data { tag, bytes };
        session.outbox.write(&mut self.pool, |out| dialect.encode(&event, out));
        if was_empty {
            self.effects.push_back(Effect::Flush { session: owner });
        }
    }

    /// Grants the owner of an end what the other has got, in steps that are worth it. A step is
    /// less than the window, so what is not granted yet stops nobody.
    fn grant_owed(&mut self, id: OperationId) {
        let step = (self.limits.input_window_bytes / 4).max(1);
        let Some(operation) = self.operation_mut(id) else { return };
        let (owner, tag) = (operation.owner, operation.tag);
        let end = operation.end.as_deref_mut().expect("the caller means an end");
        if end.owed >= step {
            let bytes = std::mem::take(&mut end.owed);
            self.say(owner, &Event::Credit { tag, bytes });
        }
    }

    /// Does what is due when the owner of the end has said all and the other has got it.
    fn finish(&mut self, id: OperationId) {
        let Some((other, role)) = self.joint(id) else { return };
        let end = self.end_mut(id).expect("it is joined");
        if !end.ended || end.told {
            return;
        }
        let (came, hash) = (end.came, end.hash);
        match role {
            Role::Sends { size } if came < size => {
                let text = format!("only {came} of the {size} bytes that were announced came");
                self.part(id, BadArguments, text.clone(), text);
            }
            _ if !end.held.is_empty() => {}
            Role::Sends { .. } => {
                end.told = true;
                self.end_file(other, hash);
            }
            Role::Talks => {
                end.told = true;
                let operation = self.operation_mut(other).expect("talkers go together");
                let (owner, tag) = (operation.owner, operation.tag);
                let both = operation.end.as_deref().is_some_and(|end| end.told);
                self.say(owner, &Event::DataEnd { tag });
                if both {
                    self.end_with(id, &Outcome::Done);
                    self.end_with(other, &Outcome::Done);
                }
            }
            // Its end is refused where it comes.
            Role::Gets => {}
        }
    }

    /// All bytes of a file are in the outbox of who gets it. The sender hears of it when they
    /// have left that.
    fn end_file(&mut self, id: OperationId, hash: Option<[u8; 32]>) {
        let outcome = hash.map_or(Outcome::Done, |hash| Outcome::Sent { hash });
        let operation = self.operation_mut(id).expect("joined ends are there");
        operation.state = OperationState::Ending;
        let (owner, tag) = (operation.owner, operation.tag);
        self.finish_line(owner);
        self.say(owner, &Event::End { tag, outcome: &outcome });
        let session = self.sessions.get_mut(owner.slot()).expect("operations have owners");
        let awaits_reply = session.replies.as_mut().is_some_and(|replies| replies.mark_last(id));
        if session.outbox.is_empty() && !awaits_reply {
            self.on_file_passed(id);
        } else {
            if !awaits_reply {
                session.outbox.put_mark(id);
            }
            self.operation_mut(id).expect("it was there").file_pieces = 1;
        }
        self.release_held(owner);
    }

    /// The last byte of a file has left for who gets it: both ends are done.
    pub(super) fn on_file_passed(&mut self, id: OperationId) {
        let (other, _) = self.joint(id).expect("only joined ends get files");
        self.drop_end(id);
        // Who has sent it need not be there any more.
        self.end_with(other, &Outcome::Delivered { by: Witness::Connection });
    }

    /// Ends an end with an error.
    pub(super) fn end_end(&mut self, id: OperationId, code: ErrorCode, text: String) {
        let Some(operation) = self.operation_mut(id) else { return };
        let refusal = Refusal::new(operation.tag, code, text);
        self.end_with(id, &Outcome::Failed(refusal));
    }

    /// Ends an end: its owner is told, and goes on with what it has to do.
    fn end_with(&mut self, id: OperationId, outcome: &Outcome) {
        let Some((owner, tag, announced)) = self.drop_end(id) else { return };
        let session = self.session(owner).expect("operations have owners");
        if announced && session.dialect() == Some(Dialect::Line) {
            // Its size was announced, and nothing but the end can say that it does not come.
            return self.doomed.push((owner, CloseReason::BrokenFile));
        }
        self.finish_line(owner);
        self.say(owner, &Event::End { tag, outcome });
        self.release_held(owner);
    }

    /// Forgets an end; its owner may go on.
    fn drop_end(&mut self, id: OperationId) -> Option<(SessionId, Tag, bool)> {
        self.operation_mut(id)?;
        let operation = self.operations.remove(id.slot());
        let owner = operation.owner;
        let session = self.session_mut(owner).expect("operations have owners");
        session.operations.retain(|other| *other != id);
        session.waiting.retain(|other| *other != id);
        self.freed.push(owner);
        Some((owner, operation.tag, operation.announced))
    }

    /// Ends both ends with an error: `own` is for the owner of this one.
    fn part(&mut self, id: OperationId, code: ErrorCode, own: String, others: String) {
        if let Some((other, _)) = self.joint(id) {
            self.end_end(id, code, own);
            self.end_end(other, code, others);
        }
    }

    /// The owner wants no more of it.
    pub(super) fn on_end_cancel(&mut self, id: OperationId) {
        let operation = self.operation_mut(id).expect("the caller has looked");
        let owner = operation.owner;
        let is_over = operation.state == OperationState::Ending;
        let end = operation.end.as_deref().expect("the caller has looked");
        let is_offer = end.joint().is_none();
        // All of the file is on its way: that it arrives will be told.
        let is_sent = end.told && matches!(end.joint(), Some((_, Role::Sends { .. })));
        if is_over || is_sent {
            return;
        }
        let who = self.who(owner);
        let (own, others) = ("you have cancelled it".to_owned(), format!("{who} has cancelled it"));
        match is_offer {
            true => self.withdraw(id, Cancelled, own, others),
            false => self.part(id, Cancelled, own, others),
        }
    }

    /// Its owner may not send to others any more, for this reason.
    pub(super) fn on_end_revoked(&mut self, id: OperationId, own: String) {
        let Some(operation) = self.operation_mut(id) else { return };
        let owner = operation.owner;
        let is_offer = self.joint(id).is_none();
        let others = format!("{} may not send any more", self.who(owner));
        match is_offer {
            true => self.withdraw(id, Denied, own, others),
            false => self.part(id, Denied, own, others),
        }
    }

    /// The session of an end has gone, and the end with it.
    pub(super) fn on_end_lost(&mut self, id: OperationId, end: &End, who: Option<Name>) {
        let Some((other, _)) = end.joint() else { return self.on_offer_lost(id, end, who) };
        let is_over = |hub: &mut Hub| {
            hub.operation_mut(other).is_none_or(|it| it.state == OperationState::Ending)
        };
        if !is_over(self) {
            self.end_end(other, PeerGone, offers::gone(who));
        }
    }

    /// Time has passed for an offer, or for a pipe by way of the end of who has accepted.
    pub(super) fn on_end_alarm(&mut self, id: OperationId) {
        let (now, limit) = (self.now, self.limits.pipe_stall_timeout);
        let Some((other, role)) = self.joint(id) else { return self.on_offer_late(id) };
        // What has left the pipe and waits for a socket is that session's affair.
        let is_over = self.operations[id.slot()].state == OperationState::Ending;
        if is_over || !self.end_mut(id).is_some_and(|end| end.watches) {
            return;
        }
        let ends =
            [id, other].map(|id| self.end_mut(id).map(|end| (end.moved, end.held.is_empty())));
        let due = match (role, ends) {
            (Role::Gets, [_, Some((moved, _))]) => moved + limit,
            (Role::Talks, ends) => {
                let waits = |(moved, is_empty): (Time, bool)| (!is_empty).then_some(moved + limit);
                let due = ends.into_iter().flatten().filter_map(waits).min();
                due.unwrap_or(now + limit)
            }
            _ => return,
        };
        if due > now {
            return self.set_alarm(due, Alarm::Operation(id));
        }
        let text = format!("nothing has moved for {} s", limit.as_secs());
        self.part(id, TimedOut, text.clone(), text);
    }
}
