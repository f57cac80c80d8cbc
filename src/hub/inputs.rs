//! Input of operations: as there is room for it, or all at once.
//!
//! Lines and frames hand input in as there is room for it. A JSON request has it in itself, as the
//! standard input of a command, the content of a file, or what is offered to somebody; so the bytes
//! of all such requests are bounded.

use std::borrow::Cow;

use super::{
    CloseReason, Connection, Effect, Hub, Operation, OperationId, OperationKind, SessionId,
    operation::{Intake, Taken},
    pipe::Flow,
};
use crate::wire::{
    Call, Event, Refusal, Request, Tag,
    error::ErrorCode::{Busy, Protocol},
};

impl Hub {
    /// Bytes of the client for an operation.
    pub(super) fn on_input(&mut self, id: SessionId, tag: Tag, bytes: &[u8]) {
        let now = self.now;
        // The command may have ended while this was on its way.
        let Some(operation) = self.operation_of(id, tag) else { return };
        let operation_id = operation.id();
        let shell = match &mut operation.kind {
            OperationKind::Shell(shell) if shell.is_draining() => return,
            OperationKind::Shell(shell) => shell,
            OperationKind::Offer(_) => return self.on_early_input(id),
            OperationKind::Pipe(_) => return self.on_pipe_input(id, operation_id, bytes),
        };
        match shell.intake_mut().map(|intake| intake.add(bytes, now)) {
            None => self.break_off(id, format!("the operation {tag} takes no input")),
            Some(Taken::Kept) => self.effects.push_back(Effect::Feed { operation: operation_id }),
            Some(Taken::Dropped) => self.grant(id, tag, bytes.len()),
            Some(Taken::TooMany { window }) => {
                let text = format!(
                    "at most {window} bytes of input may be on their way, and none \
                     after its end"
                );
                self.break_off(id, text);
            }
        }
    }

    /// Ends a session that has sent what it may not.
    pub(super) fn break_off(&mut self, id: SessionId, text: impl Into<Cow<'static, str>>) {
        let refusal = Refusal::new(0, Protocol, text);
        self.close(id, CloseReason::Protocol, Some(&refusal));
    }

    /// The end of an operation's input; `hash` is that of the file that it was, where the sender
    /// tells it.
    pub(super) fn on_input_end(&mut self, id: SessionId, tag: Tag, hash: Option<[u8; 32]>) {
        let Some(operation) = self.operation_of(id, tag) else { return };
        let operation_id = operation.id();
        match &mut operation.kind {
            OperationKind::Shell(shell) => {
                let Some(intake) = shell.intake_mut() else { return };
                intake.end();
                self.effects.push_back(Effect::Feed { operation: operation_id });
            }
            OperationKind::Offer(offer) => {
                offer.flow_mut().end(hash);
            }
            OperationKind::Pipe(_) => self.on_pipe_input_end(operation_id, hash),
        }
    }

    /// What the command's standard input is to get next, and whether nothing comes after it.
    pub fn standard_input(&self, id: OperationId) -> Option<(&[u8], bool)> {
        Some(self.operation(id)?.intake()?.next())
    }

    /// The same, to be kept by the shell, which says when it has dealt with it
    /// ([`super::Input::InputDone`]).
    ///
    /// `spare` is an empty buffer in which what comes next gathers: the one that was taken before.
    pub fn take_input(&mut self, id: OperationId, spare: Vec<u8>) -> Option<(Vec<u8>, bool)> {
        Some(self.operation_mut(id)?.intake_mut()?.take(spare))
    }

    pub(super) fn on_input_done(&mut self, id: OperationId, count: usize) {
        let Some((owner, tag)) = self.listener(id) else { return };
        // Behind its end nothing more is said of an operation, though its file is still on its way.
        if let Some(intake) = self.operation_mut(id).and_then(Operation::intake_mut) {
            intake.note_done(count);
            self.grant(owner, tag, count);
        }
        self.resume(owner);
    }

    pub(super) fn on_input_taken(&mut self, id: OperationId, count: usize) {
        let Some((owner, tag)) = self.listener(id) else { return };
        let Some(intake) = self.operation_mut(id).and_then(Operation::intake_mut) else { return };
        intake.consume(count);
        self.grant(owner, tag, count);
    }

    pub(super) fn on_input_closed(&mut self, id: OperationId) {
        let Some((owner, tag)) = self.listener(id) else { return };
        let Some(intake) = self.operation_mut(id).and_then(Operation::intake_mut) else { return };
        let dropped = intake.close();
        self.grant(owner, tag, dropped);
    }

    /// Tells a client that it may hand in so many more bytes.
    pub(super) fn grant(&mut self, id: SessionId, tag: Tag, count: usize) {
        if count > 0 {
            self.say(id, &Event::Credit { tag, bytes: count as u32 });
        }
    }

    /// Whether there is room for the input of a request. Who may not ask for it hears that instead.
    pub(super) fn check_whole_input(
        &self,
        id: SessionId,
        tag: Tag,
        request: &Request<'_>,
        input: Option<&[u8]>,
    ) -> Result<(), Refusal> {
        let data = match request {
            Request::Call { call: Call::Send(proposal), .. } => proposal.data.as_ref(),
            _ => None,
        };
        let bytes = input.or(data.map(|data| &data.0[..])).map_or(0, <[u8]>::len);
        if bytes == 0 || self.may(id, request).is_err() {
            return Ok(());
        }
        let limits = &self.limits;
        let (own, total) = self.whole_input_bytes(id);
        let all_max = limits.inputs_total_max_bytes;
        let refuse = |whose: &str, held: usize, most: usize| {
            let text = format!(
                "{bytes} bytes of input come, {held} of {whose} still wait to be taken, and \
                 {most} may; try again later"
            );
            Err(Refusal::new(tag, Busy, text))
        };
        if own + bytes > limits.inputs_session_max_bytes {
            return refuse("yours", own, limits.inputs_session_max_bytes);
        }
        if let Some(source) = self.source(id) {
            let most = source.part_of(all_max, limits.inputs_session_max_bytes);
            let held = self.whole_input_bytes_of(|owner| self.source(owner) == Some(source));
            if held + bytes > most {
                return refuse("all your connections", held, most);
            }
        }
        if total + bytes > all_max {
            return refuse("all users", total, all_max);
        }
        Ok(())
    }

    /// Bytes of input that wait for the session, and for all that speak JSON.
    pub(super) fn whole_input_bytes(&self, id: SessionId) -> (usize, usize) {
        (self.whole_input_bytes_of(|owner| owner == id), self.whole_input_bytes_of(|_| true))
    }

    /// The same for those whose owners are `meant`.
    fn whole_input_bytes_of(&self, meant: impl Fn(SessionId) -> bool) -> usize {
        let operations = self.operations.iter().map(|(_, operation)| operation);
        let held = operations.filter(|it| it.held_input_bytes() > 0);
        let is_of_json = |id: SessionId| self.connection(id).is_some_and(Connection::is_json);
        let is_meant = |it: &&Operation| {
            self.session_of(it.owner()).is_some_and(|owner| meant(owner) && is_of_json(owner))
        };
        held.filter(is_meant).map(Operation::held_input_bytes).sum()
    }

    /// Takes in all of an operation's input at once.
    pub(super) fn on_whole_input(&mut self, id: SessionId, tag: Tag, bytes: &[u8]) {
        let Some(operation) = self.operation_of(id, tag) else { return };
        let operation_id = operation.id();
        if let Some(intake) = operation.intake_mut() {
            intake.set_whole(bytes.to_vec());
            self.effects.push_back(Effect::Feed { operation: operation_id });
        }
    }
}

impl Operation {
    fn held_input_bytes(&self) -> usize {
        self.intake().map_or(0, Intake::held_bytes) + self.flow().map_or(0, Flow::held_bytes)
    }
}
