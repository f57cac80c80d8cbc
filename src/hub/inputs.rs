//! Input that JSON requests bring with them: all of it is there at once, so its bytes are bounded.
//!
//! Lines and frames hand input in as there is room for it. A JSON request has it in itself, as the
//! standard input of a command, the content of a file, or what is offered to somebody.

use super::{Effect, Hub, Operation, Session, SessionId};
use crate::wire::{Call, Refusal, Request, Tag, error::ErrorCode::Busy};

impl Hub {
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
        let of_json = |it: &&Operation| self.session(it.owner).is_some_and(Session::is_json);
        let operations = self.operations.iter().map(|(_, operation)| operation);
        let held = operations.filter(|it| it.held_input_bytes() > 0 && meant(it.owner));
        held.filter(of_json).map(Operation::held_input_bytes).sum()
    }

    /// Takes in all of an operation's input at once.
    pub(super) fn on_whole_input(&mut self, id: SessionId, tag: Tag, bytes: &[u8]) {
        let Some(operation) = self.operation_of(id, tag) else { return };
        let (operation_id, bytes) = (operation.id, bytes.to_vec());
        if let Some(input) = operation.input.as_mut() {
            (input.bytes, input.ended) = (bytes, true);
            self.effects.push_back(Effect::Feed { operation: operation_id });
        }
    }
}

impl Operation {
    fn held_input_bytes(&self) -> usize {
        let input = self.input.as_ref().map_or(0, |input| input.bytes.len());
        input + self.end.as_ref().map_or(0, |end| end.held.length())
    }
}
