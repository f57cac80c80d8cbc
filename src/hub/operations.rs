//! Starting operations, letting them speak when there is room, and ending them.

use super::{
    Chunk, CloseReason, Column, Effect, Hub, OperationId, OperationState, Session, SessionId, Time,
    host,
    operation::{self, Operation, Work},
    outbox::FilePiece,
    pipe::End,
    rights::{Right, Rights, need_of_call},
    session::Raw,
    timers::Alarm,
};
use crate::wire::{
    Call, Dialect, Event, Outcome, Stream, Tag,
    error::{ErrorCode::*, Refusal},
    event::Ended,
    frame,
};

impl Hub {
    /// Starts what `call` asks for, or says why not.
    pub(super) fn on_start(&mut self, id: SessionId, tag: Tag, call: Call<'_>) {
        let raw_bytes = self.raw_bytes_of(id, &call);
        if let Err(refusal) = self.may_start(id, tag) {
            return self.refuse_call(id, &call, refusal);
        }
        let session = self.session(id).expect("its request is at hand");
        let verified = session.dialect() != Some(Dialect::Line);
        let right = need_of_call(&call).right();
        let limits = self.limits;
        let store_window = limits.store_window_bytes.max(limits.input_window_bytes);
        let mut window = limits.input_window_bytes;
        let (work, takes_input, timeout_ms) = match call {
            Call::Download { path } => (Work::Download { path, verified }, false, 0),
            Call::List { path } => (Work::List { path }, false, 0),
            Call::Fetch { paths } => (Work::Fetch { paths }, true, 0),
            Call::Store { into } => {
                window = store_window;
                (Work::Store { into }, true, 0)
            }
            Call::Upload { path, size } => {
                window = store_window;
                (Work::Upload { path, size }, true, 0)
            }
            Call::Run { command, stdin, timeout_ms } => {
                (Work::Run { command: command.into_owned(), stdin }, stdin, timeout_ms)
            }
            Call::Edge(call) => {
                let plain = session.dialect() == Some(Dialect::Line);
                let takes_input = call.takes_input();
                (Work::Edge { device: session.name(), call, plain }, takes_input, 0)
            }
            Call::Host(call) => host::work_of(call),
            other => unreachable!("{other:?} is answered at once, or goes between users"),
        };
        let deadline = (timeout_ms > 0).then(|| Time(self.now.0.saturating_add(timeout_ms)));
        // Whoever is sent to may be silent for long.
        let is_upload =
            matches!(work, Work::Store { .. } | Work::Upload { .. } | Work::Edge { .. });
        let (window_bytes, moved) = (window as usize, self.now);
        let input = takes_input.then(|| {
            let window = window_bytes;
            Box::new(operation::Input { window, is_upload, moved, ..Default::default() })
        });
        let operation = self.add_operation(id, tag, input, None);
        self.operation_mut(operation).expect("it was just added").right = right;
        if let Some(deadline) = deadline {
            self.set_alarm(deadline, Alarm::Operation(operation));
        }
        self.bound_upload(operation);
        let session = self.session_mut(id).expect("its request is at hand");
        session.input.raw = raw_bytes.map(|left| Raw { left, refusal: None });
        self.effects.push_back(Effect::Start { operation, session: id, work });
        // Everybody knows of the smaller window; the rest of a larger one is granted at once.
        self.grant(id, tag, (window - limits.input_window_bytes) as usize);
    }

    /// Takes in an operation of the session, which may begin to speak.
    pub(super) fn add_operation(
        &mut self,
        id: SessionId,
        tag: Tag,
        input: Option<Box<operation::Input>>,
        end: Option<Box<End>>,
    ) -> OperationId {
        let session = self.session(id).expect("its request is at hand");
        let window_bytes = match session.dialect() {
            Some(Dialect::Frame) => u64::from(self.limits.output_window_bytes),
            // Lines have no credit; the connection itself holds them back. Replies have a bound.
            _ => u64::MAX,
        };
        let serial = self.next_serial();
        let entry = self.operations.vacant_entry();
        let operation = OperationId::new(entry.key(), serial);
        entry.insert(Operation {
            id: operation,
            owner: id,
            tag,
            state: OperationState::Running { blocked: false },
            window_bytes,
            file_pieces: 0,
            announced: false,
            has_spoken: false,
            input,
            because: None,
            right: None,
            verdict: None,
            end,
        });
        self.session_mut(id).expect("its request is at hand").operations.push(operation);
        self.watch(id);
        operation
    }

    /// Bytes that follow the call and are no requests.
    fn raw_bytes_of(&self, id: SessionId, call: &Call<'_>) -> Option<u64> {
        let is_line = self.session(id).and_then(Session::dialect) == Some(Dialect::Line);
        match *call {
            Call::Upload { size, .. } if is_line => Some(size),
            _ => None,
        }
    }

    /// Answers a call that is not to start with its end. Bytes that follow it all the same are
    /// taken first: none of them is a request.
    pub(super) fn refuse_call(&mut self, id: SessionId, call: &Call<'_>, refusal: Refusal) {
        if let Some(left) = self.raw_bytes_of(id, call) {
            let session = self.session_mut(id).expect("its request is at hand");
            session.input.raw = Some(Raw { left, refusal: Some(Box::new(refusal)) });
            return;
        }
        let tag = refusal.tag;
        self.say(id, &Event::End { tag, outcome: &Outcome::Failed(refusal) });
    }

    pub(super) fn may_start(&mut self, id: SessionId, tag: Tag) -> Result<(), Refusal> {
        let session = self.session(id).expect("its request is at hand");
        let refuse = |code, text: String| Err(Refusal::new(tag, code, text));
        if self.stopping.is_some() {
            return refuse(ShuttingDown, "the server is stopping".into());
        }
        if session.operations.len() >= self.limits.operations_max {
            let text = format!(
                "{} operations are under way, and no more may be; wait for one",
                session.operations.len()
            );
            return refuse(TooMany, text);
        }
        if self.operations.len() >= self.limits.operations_total_max {
            self.end_idle_uploads();
            return refuse(Busy, "the server has too much under way; try again later".into());
        }
        let session = self.session(id).expect("its request is at hand");
        if let Err(text) = self.check_share(session) {
            self.end_idle_uploads();
            return refuse(Busy, text);
        }
        Ok(())
    }

    fn find_operation(&self, session: &Session, tag: Tag) -> Option<OperationId> {
        let has_tag = |id: &&OperationId| self.operations[id.slot()].tag == tag;
        session.operations.iter().find(has_tag).copied()
    }

    /// The session's operation of this number; the dead are asked for in good faith.
    pub(super) fn operation_of(&mut self, id: SessionId, tag: Tag) -> Option<&mut Operation> {
        let operation = self.find_operation(self.session(id)?, tag)?;
        self.operation_mut(operation)
    }

    /// Bytes that the operation may hand in now, at most one chunk. Where it is 0, an
    /// [`Effect::Pull`] follows when that changes.
    pub fn room(&mut self, id: OperationId) -> usize {
        let limits = self.limits;
        let Some(operation) = self.operation_mut(id) else { return 0 };
        let OperationState::Running { blocked } = &mut operation.state else { return 0 };
        if *blocked {
            return 0;
        }
        let owner = operation.owner;
        let window = operation.window_bytes.min(limits.chunk_max_bytes as u64) as usize;
        if self.has_room(id) {
            return window;
        }
        self.block(owner, id);
        0
    }

    /// Whether there is room for a piece of the operation's output.
    pub(super) fn has_room(&self, id: OperationId) -> bool {
        let operation = &self.operations[id.slot()];
        let session = self.session(operation.owner).expect("operations have owners");
        let is_low = session.outbox.unsent_bytes() < self.limits.outbox_low_bytes;
        let is_free = match &session.replies {
            Some(replies) => replies.has_room(operation.tag, is_low, &self.limits),
            None => is_low,
        };
        is_free && operation.window_bytes > 0
    }

    /// Makes an operation wait. Who was woken and had no turn before the room was gone keeps its
    /// place before those who had theirs; else the first would always be first.
    pub(super) fn block(&mut self, owner: SessionId, id: OperationId) {
        let operations = &mut self.operations;
        operations[id.slot()].state = OperationState::Running { blocked: true };
        let session = self.sessions.get_mut(owner.slot()).expect("operations have owners");
        let has_spoken = |id: &OperationId| operations[id.slot()].has_spoken;
        let place = match has_spoken(&id) {
            true => None,
            false => session.waiting.iter().position(has_spoken),
        };
        session.waiting.insert(place.unwrap_or(session.waiting.len()), id);
    }

    /// Lets those speak who had to wait, each in its turn.
    pub(super) fn pull(&mut self, id: SessionId) {
        let low = self.limits.outbox_low_bytes;
        let Some(session) = self.session_mut(id) else { return };
        let is_json = session.replies.is_some();
        let is_full = session.outbox.unsent_bytes() >= low && !is_json;
        if session.waiting.is_empty() || is_full {
            return;
        }
        let mut waiting = std::mem::take(&mut session.waiting);
        // Those who are woken speak later: their chunks are counted, or who can be given
        // something at once would always be first.
        let (mut promised, mut given) = (0, Vec::new());
        waiting.retain(|waiting_id| {
            let Some(operation) = self.operation_mut(*waiting_id) else { return false };
            if operation.window_bytes == 0 {
                return true;
            }
            if operation.end.is_some() {
                let gets = self.unsent_bytes(id) + promised < low && self.give(*waiting_id);
                given.extend(gets.then_some(*waiting_id));
                return !gets;
            }
            if is_json && !self.has_room(*waiting_id) {
                return true;
            }
            let Some(operation) = self.operation_mut(*waiting_id) else { return false };
            if let OperationState::Running { blocked } = &mut operation.state {
                *blocked = false;
                operation.has_spoken = false;
                self.effects.push_back(Effect::Pull { operation: *waiting_id });
                promised += self.limits.chunk_max_bytes;
            }
            false
        });
        // Whoever was given something and waits for more has its next turn after the others.
        let is_blocked = |id: &&OperationId| {
            self.operations[id.slot()].state == OperationState::Running { blocked: true }
        };
        waiting.extend(given.iter().filter(is_blocked));
        self.session_mut(id).expect("it was there").waiting = waiting;
        given.into_iter().for_each(|id| self.after_giving(id));
    }

    pub(super) fn on_opened(&mut self, id: OperationId, name: &[u8], size: u64, modified: i64) {
        let Some(operation) = self.operation_mut(id) else { return };
        operation.announced = true;
        let (owner, tag) = (operation.owner, operation.tag);
        self.say(owner, &Event::File { tag, name, size, modified });
        let session = self.session_mut(owner).expect("operations have owners");
        if session.dialect() == Some(Dialect::Line) {
            session.column = Column::InFile;
        }
    }

    pub(super) fn on_chunk(&mut self, id: OperationId, chunk: Chunk<'_>) {
        // A chunk may cross a `Stop` on its way: then there is nobody to give it to.
        let Some(operation) = self.operation_mut(id) else { return };
        let (owner, tag) = (operation.owner, operation.tag);
        let length = match &chunk {
            Chunk::Output { bytes, .. } => bytes.len(),
            Chunk::File { length, .. } => *length,
            Chunk::Entries(_) | Chunk::Text(_) | Chunk::Object(_) => 0,
        };
        assert!(length as u64 <= operation.window_bytes, "more than there was room for");
        operation.window_bytes -= length as u64;
        operation.has_spoken = true;
        match chunk {
            Chunk::Output { stream, bytes } => self.put_output(owner, tag, stream, bytes),
            Chunk::File { file, offset, length } => self.put_file(id, file, offset, length),
            Chunk::Entries(entries) => self.say(owner, &Event::Entries { tag, entries }),
            Chunk::Text(text) => self.say(owner, &Event::Text { tag, text }),
            Chunk::Object(object) => self.say(owner, &Event::Object { tag, object }),
        }
    }

    fn put_output(&mut self, owner: SessionId, tag: Tag, stream: Stream, bytes: &[u8]) {
        let Some(&last) = bytes.last() else { return };
        let session = self.session_mut(owner).expect("operations have owners");
        if session.is_json() {
            return self.say(owner, &Event::Output { tag, stream, bytes });
        }
        // This is what the column tells of; it need not wait for the start of a line.
        session.column = Column::LineStart;
        let is_line = session.dialect() == Some(Dialect::Line);
        self.say(owner, &Event::Output { tag, stream, bytes });
        if is_line && last != b'\n' {
            self.session_mut(owner).expect("it was there").column = Column::MidLine;
        } else {
            self.release_held(owner);
        }
    }

    fn put_file(&mut self, id: OperationId, file: u32, offset: u64, length: usize) {
        assert!(length > 0, "a piece of a file has bytes");
        let operation = self.operation_mut(id).expect("the caller has it");
        operation.file_pieces += 1;
        let (owner, tag) = (operation.owner, operation.tag);
        let session = self.sessions.get_mut(owner.slot()).expect("operations have owners");
        assert!(!session.is_json(), "it wants the content");
        let was_empty = session.outbox.is_empty();
        if session.dialect() == Some(Dialect::Frame) {
            let header = |out: &mut Vec<u8>| {
                frame::put_header(out, frame::server::DATA, tag, length);
            };
            session.outbox.write(&mut self.pool, header);
        }
        let piece = FilePiece { operation: id, file, offset, length };
        session.outbox.put_file(&mut self.pool, piece);
        if was_empty {
            self.effects.push_back(Effect::Flush { session: owner });
        }
    }

    /// A piece of its file is sent.
    pub(super) fn on_file_sent(&mut self, id: OperationId) {
        let Some(operation) = self.operation_mut(id) else { return };
        operation.file_pieces -= 1;
        if operation.file_pieces == 0 && operation.state == OperationState::Ending {
            match operation.end.is_some() {
                true => self.on_file_passed(id),
                false => self.release(id),
            }
        }
    }

    fn release(&mut self, id: OperationId) {
        let operation = self.operations.remove(id.slot());
        let session = self.session_mut(operation.owner).expect("operations have owners");
        session.operations.retain(|other| *other != id);
        self.effects.push_back(Effect::Release { operation: id });
    }

    pub(super) fn on_ended(&mut self, id: OperationId, mut outcome: Outcome) {
        let Some(operation) = self.operation_mut(id) else { return };
        if operation.state == OperationState::Ending {
            let owner = operation.owner;
            return self.on_late_failure(owner, &outcome);
        }
        let (owner, tag) = (operation.owner, operation.tag);
        match &mut outcome {
            Outcome::Signal { because, .. } => *because = operation.because,
            Outcome::Failed(refusal) => refusal.tag = tag,
            _ => {}
        }
        if let Some(verdict) = operation.verdict.take() {
            outcome = Outcome::Failed(Refusal { tag, ..*verdict });
        }
        let owes_bytes = operation.announced && matches!(outcome, Outcome::Failed(_));
        let because = operation.because;
        operation.state = OperationState::Ending;
        if operation.file_pieces == 0 {
            self.release(id);
        }
        let session = self.session_mut(owner).expect("operations have owners");
        session.waiting.retain(|other| *other != id);
        if owes_bytes && session.dialect() == Some(Dialect::Line) {
            // Its size was announced, and nothing but the end can say that it does not come.
            return self.remove(owner, CloseReason::BrokenFile);
        }
        if session.is_json() {
            self.end_reply(owner, tag, &outcome, because);
        } else {
            self.finish_line(owner);
            self.say(owner, &Event::End { tag, outcome: &outcome });
            self.release_held(owner);
        }
        self.close_if_stopping(owner);
        self.resume(owner);
    }

    /// All was handed in, and then it turned out that what is queued of a file is not there. With
    /// frames the hash has told or will tell; with lines nothing but the end of all can.
    fn on_late_failure(&mut self, owner: SessionId, outcome: &Outcome) {
        let session = self.session(owner).expect("operations have owners");
        let can_tell = matches!(session.reader(), Some((_, Dialect::Frame)));
        if matches!(outcome, Outcome::Failed(_)) && !can_tell {
            self.remove(owner, CloseReason::BrokenFile);
        }
    }

    /// Brings the output of a line session to the start of a line. An object ends by itself.
    pub(super) fn finish_line(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id.slot()).filter(|it| it.id == id) else {
            return;
        };
        if session.column == Column::InObject {
            return;
        }
        if session.column == Column::MidLine {
            let was_empty = session.outbox.is_empty();
            session.outbox.write(&mut self.pool, |out| out.push(b'\n'));
            if was_empty {
                self.effects.push_back(Effect::Flush { session: id });
            }
        }
        session.column = Column::LineStart;
    }

    /// Lets go what was held back until the start of a line.
    pub(super) fn release_held(&mut self, id: SessionId) {
        let session = self.sessions.get_mut(id.slot()).expect("the caller has it");
        if session.column == Column::InObject {
            return;
        }
        let Some(held) = session.held.take() else { return };
        let was_empty = session.outbox.is_empty();
        let mut start = 0;
        for post in &held.posts {
            let bytes = &held.bytes[start..post.end];
            let write = |out: &mut Vec<u8>| out.extend_from_slice(bytes);
            session.outbox.post(&mut self.pool, post.sender, post.receipt, write);
            start = post.end;
        }
        let rest = &held.bytes[start..];
        session.outbox.write(&mut self.pool, |out| out.extend_from_slice(rest));
        if was_empty && !session.outbox.is_empty() {
            self.effects.push_back(Effect::Flush { session: id });
        }
    }

    pub(super) fn on_credit(&mut self, id: SessionId, tag: Tag, bytes: u32) {
        let Some(operation) = self.operation_of(id, tag) else { return };
        operation.window_bytes = operation.window_bytes.saturating_add(u64::from(bytes));
        self.pull(id);
    }

    pub(super) fn on_cancel(&mut self, id: SessionId, tag: Tag) {
        let Some(operation) = self.operation_of(id, tag) else { return };
        let (operation, is_end) = (operation.id, operation.end.is_some());
        match is_end {
            true => self.on_end_cancel(operation),
            false => self.terminate(operation, Ended::Cancelled),
        }
    }

    /// The time of an operation is over.
    pub(super) fn on_operation_alarm(&mut self, id: OperationId) {
        let Some(operation) = self.operation_mut(id) else { return };
        if operation.end.is_some() {
            self.on_end_alarm(id);
        } else if operation.input.as_ref().is_some_and(|input| input.is_upload) {
            self.bound_upload(id);
        } else {
            self.terminate(id, Ended::TimedOut);
        }
    }

    /// Ends an operation before its time; how it ends is told by the shell.
    pub(super) fn terminate(&mut self, id: OperationId, because: Ended) {
        let Some(operation) = self.operation_mut(id) else { return };
        let is_running = matches!(operation.state, OperationState::Running { .. });
        if is_running && operation.because.is_none() {
            operation.because = Some(because);
            self.effects.push_back(Effect::Terminate { operation: id });
        }
    }

    /// The session has these rights from now on: what runs by another one is ended.
    pub(super) fn set_rights(&mut self, id: SessionId, rights: Rights) {
        let session = self.session_mut(id).expect("the caller has it");
        session.rights = rights;
        for operation_id in session.operations.clone() {
            let Some(operation) = self.operation_mut(operation_id) else { continue };
            let is_running = matches!(operation.state, OperationState::Running { .. });
            let missing = operation.right.filter(|right| is_running && !rights.has(*right));
            let Some(right) = missing else { continue };
            if operation.end.is_some() {
                self.on_end_revoked(operation_id, revoked(right));
            } else {
                let refusal = Refusal::new(0, Denied, revoked(right));
                self.terminate_with(operation_id, Ended::Cancelled, refusal);
            }
        }
    }

    /// The same where the owner is to hear this, however it ends.
    pub(super) fn terminate_with(&mut self, id: OperationId, because: Ended, verdict: Refusal) {
        if let Some(operation) = self.operation_mut(id) {
            operation.verdict = Some(Box::new(verdict));
            self.terminate(id, because);
        }
    }

    pub(super) fn on_input(&mut self, id: SessionId, tag: Tag, bytes: &[u8]) {
        let now = self.now;
        // The command may have ended while this was on its way.
        let Some(operation) = self.operation_of(id, tag) else { return };
        let operation_id = operation.id;
        if operation.end.is_some() {
            return self.on_end_input(id, operation_id, bytes);
        }
        let Some(input) = operation.input.as_mut() else {
            let text = format!("the operation {tag} takes no input");
            let refusal = Refusal::new(0, Protocol, text);
            return self.close(id, CloseReason::Protocol, Some(&refusal));
        };
        if input.closed {
            return self.grant(id, tag, bytes.len());
        }
        let window = input.window;
        if input.ended || input.bytes.len() + input.taken + bytes.len() > window {
            let text = format!(
                "at most {window} bytes of input may be on their way, and none \
                                after its end"
            );
            let refusal = Refusal::new(0, Protocol, text);
            return self.close(id, CloseReason::Protocol, Some(&refusal));
        }
        input.bytes.extend_from_slice(bytes);
        input.moved = now;
        self.effects.push_back(Effect::Feed { operation: operation_id });
    }

    /// The end of an operation's input; `hash` is that of the file that it was, where the sender
    /// tells it.
    pub(super) fn on_input_end(&mut self, id: SessionId, tag: Tag, hash: Option<[u8; 32]>) {
        let Some(operation) = self.operation_of(id, tag) else { return };
        let operation_id = operation.id;
        if operation.end.is_some() {
            return self.on_end_input_end(operation_id, hash);
        }
        let Some(input) = operation.input.as_mut() else { return };
        input.ended = true;
        self.effects.push_back(Effect::Feed { operation: operation_id });
    }

    /// What the command's standard input is to get next, and whether nothing comes after it.
    pub fn standard_input(&self, id: OperationId) -> Option<(&[u8], bool)> {
        let operation = self.operations.get(id.slot()).filter(|operation| operation.id == id)?;
        let input: &operation::Input = operation.input.as_ref()?;
        Some((&input.bytes, input.ended))
    }

    /// The same, to be kept by the shell, which says when it has dealt with it
    /// ([`super::Input::InputDone`]).
    ///
    /// `spare` is an empty buffer in which what comes next gathers: the one that was taken before.
    pub fn take_input(&mut self, id: OperationId, spare: Vec<u8>) -> Option<(Vec<u8>, bool)> {
        let input = self.operation_mut(id)?.input.as_mut()?;
        let bytes = std::mem::replace(&mut input.bytes, spare);
        input.taken += bytes.len();
        Some((bytes, input.ended))
    }

    pub(super) fn on_input_done(&mut self, id: OperationId, count: usize) {
        let Some(operation) = self.operation_mut(id) else { return };
        let (owner, tag) = (operation.owner, operation.tag);
        let is_running = matches!(operation.state, OperationState::Running { .. });
        let Some(input) = operation.input.as_mut() else { return };
        input.taken -= count;
        // Behind its end nothing more is said of an operation, though its file is still on its way.
        if is_running {
            self.grant(owner, tag, count);
        }
        self.resume(owner);
    }

    pub(super) fn on_input_taken(&mut self, id: OperationId, count: usize) {
        let Some(operation) = self.operation_mut(id) else { return };
        let (owner, tag) = (operation.owner, operation.tag);
        let Some(input) = operation.input.as_mut() else { return };
        input.bytes.drain(..count);
        self.grant(owner, tag, count);
    }

    pub(super) fn on_input_closed(&mut self, id: OperationId) {
        let Some(operation) = self.operation_mut(id) else { return };
        let (owner, tag) = (operation.owner, operation.tag);
        let Some(input) = operation.input.as_mut() else { return };
        input.closed = true;
        let dropped = std::mem::take(&mut input.bytes).len();
        self.grant(owner, tag, dropped);
    }

    fn grant(&mut self, id: SessionId, tag: Tag, count: usize) {
        if count > 0 {
            self.say(id, &Event::Credit { tag, bytes: count as u32 });
        }
    }
}

fn revoked(right: Right) -> String {
    format!("{right} was taken away from you meanwhile, and what ran by it is ended")
}
