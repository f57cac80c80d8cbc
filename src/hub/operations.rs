//! Starting operations, letting them speak when there is room, and ending them.

use super::{
    Chunk, CloseReason, Effect, Hub, OperationId, OperationKind, OperationOwner, Session,
    SessionId, Time, host,
    operation::{Intake, Operation, ShellOperation, Work},
    outbox::FilePiece,
    rights::{Right, Rights, need_of_call},
    timers::Alarm,
    voice::Voice,
};
use crate::wire::{
    Call, Event, Outcome, Stream, Tag,
    error::{ErrorCode::*, Refusal},
    event::Ended,
    frame,
};

impl Hub {
    /// Starts what `call` asks for, or says why not.
    pub(super) fn on_start(&mut self, id: SessionId, tag: Tag, call: Call<'_>) {
        if let Err(refusal) = self.may_start(id, tag) {
            return self.refuse_call(id, &call, refusal);
        }
        let Some(session) = self.session(id) else { return };
        let plain = session.connection.is_plain();
        let verified = !plain;
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
        let intake = takes_input.then(|| Intake::new(window as usize, is_upload, self.now));
        let kind = OperationKind::Shell(ShellOperation::new(intake));
        let operation = self.add_operation(id, tag, right, kind);
        if let Some(deadline) = deadline {
            self.set_alarm(deadline, Alarm::Operation(operation));
        }
        self.bound_upload(operation);
        self.effects.push_back(Effect::Start { operation, session: id, work });
        // Everybody knows of the smaller window; the rest of a larger one is granted at once.
        self.grant(id, tag, (window - limits.input_window_bytes) as usize);
    }

    /// Takes in an operation of the session, which may begin to speak.
    pub(super) fn add_operation(
        &mut self,
        id: SessionId,
        tag: Tag,
        right: Option<Right>,
        kind: OperationKind,
    ) -> OperationId {
        let session = self.session(id).expect("its request is at hand");
        let voice = session.connection.voice.as_ref();
        let window_bytes = voice.map_or(0, |voice| voice.output_window_bytes(&self.limits));
        let serial = self.next_serial();
        let entry = self.operations.vacant_entry();
        let operation = OperationId::new(entry.key(), serial);
        let owner = OperationOwner::Session(id);
        entry.insert(Operation::new(operation, owner, tag, right, window_bytes, kind));
        self.session_mut(id).expect("its request is at hand").operations.push(operation);
        self.watch(id);
        operation
    }

    /// Answers a call that is not to start with its end: at once, but to an upload behind the bytes
    /// that follow it all the same, where its client looks for the answer.
    pub(super) fn refuse_call(&mut self, id: SessionId, call: &Call<'_>, refusal: Refusal) {
        let line = self.line_mut(id).filter(|_| matches!(call, Call::Upload { .. }));
        let refusal = match line {
            Some(line) => match line.refuse_behind(refusal) {
                Ok(()) => return,
                Err(refusal) => refusal,
            },
            None => refusal,
        };
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

    pub(super) fn operation(&self, id: OperationId) -> Option<&Operation> {
        self.operations.get(id.slot()).filter(|operation| operation.id() == id)
    }

    pub(super) fn operation_mut(&mut self, id: OperationId) -> Option<&mut Operation> {
        self.operations.get_mut(id.slot()).filter(|operation| operation.id() == id)
    }

    /// The session that hears of an operation with this owner, and whose credit, room and share
    /// it has. An owner that need not have a session is an arm here.
    pub(super) fn session_of(&self, owner: OperationOwner) -> Option<SessionId> {
        match owner {
            OperationOwner::Session(id) => self.session(id).map(|session| session.id),
        }
    }

    /// Whoever hears what an operation says, and the number under which they know it.
    pub(super) fn listener(&self, id: OperationId) -> Option<(SessionId, Tag)> {
        let operation = self.operation(id)?;
        Some((self.session_of(operation.owner())?, operation.tag()))
    }

    fn find_operation(&self, session: &Session, tag: Tag) -> Option<OperationId> {
        let has_tag = |id: &&OperationId| {
            self.operation(**id).is_some_and(|operation| operation.tag() == tag)
        };
        session.operations.iter().find(has_tag).copied()
    }

    /// The session's operation of this number. That of one which has ended meanwhile may be asked
    /// for by a client that does not know it yet.
    pub(super) fn operation_of(&mut self, id: SessionId, tag: Tag) -> Option<&mut Operation> {
        let operation = self.find_operation(self.session(id)?, tag)?;
        self.operation_mut(operation)
    }

    /// Bytes that the operation may hand in now, at most one chunk. Where it is 0, an
    /// [`Effect::Pull`] follows when that changes.
    pub fn room(&mut self, id: OperationId) -> usize {
        let limits = self.limits;
        let Some(operation) = self.operation_mut(id) else { return 0 };
        if operation.is_draining() || operation.is_blocked() {
            return 0;
        }
        let window = operation.window_bytes().min(limits.chunk_max_bytes as u64) as usize;
        if self.has_room(id) {
            return window;
        }
        self.block(id);
        0
    }

    /// Whether there is room for a piece of the operation's output.
    pub(super) fn has_room(&self, id: OperationId) -> bool {
        let Some(operation) = self.operation(id) else { return false };
        let owner = self.session_of(operation.owner());
        let Some(session) = owner.and_then(|owner| self.session(owner)) else { return false };
        let is_low = session.connection.outbox.unsent_bytes() < self.limits.outbox_low_bytes;
        let is_free = match session.connection.replies() {
            Some(replies) => replies.has_room(operation.tag(), is_low, &self.limits),
            None => is_low,
        };
        is_free && operation.window_bytes() > 0
    }

    /// Makes an operation wait. One that was woken and had no turn before the room was gone keeps
    /// its place before those that had theirs; else the first would always be first.
    pub(super) fn block(&mut self, id: OperationId) {
        let Some((owner, _)) = self.listener(id) else { return };
        let Hub { operations, sessions, .. } = self;
        let Some(session) = sessions.get_mut(owner.slot()) else { return };
        operations[id.slot()].block();
        let has_spoken = |id: &OperationId| operations[id.slot()].has_spoken();
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
        let is_json = session.connection.replies().is_some();
        let is_full = session.connection.outbox.unsent_bytes() >= low && !is_json;
        if session.waiting.is_empty() || is_full {
            return;
        }
        let mut waiting = std::mem::take(&mut session.waiting);
        // Those who are woken speak later: their chunks are counted, or who can be given
        // something at once would always be first.
        let (mut promised, mut given) = (0, Vec::new());
        waiting.retain(|waiting_id| {
            let Some(operation) = self.operation_mut(*waiting_id) else { return false };
            if operation.window_bytes() == 0 {
                return true;
            }
            if operation.shell().is_none() {
                let waits = self.connection(id).map_or(0, |it| it.outbox.unsent_bytes());
                let gets = waits + promised < low && self.give(*waiting_id);
                given.extend(gets.then_some(*waiting_id));
                return !gets;
            }
            if is_json && !self.has_room(*waiting_id) {
                return true;
            }
            if let Some(operation) = self.operation_mut(*waiting_id) {
                operation.wake();
                self.effects.push_back(Effect::Pull { operation: *waiting_id });
                promised += self.limits.chunk_max_bytes;
            }
            false
        });
        // Whoever was given something and waits for more has its next turn after the others.
        let is_blocked =
            |id: &&OperationId| self.operation(**id).is_some_and(Operation::is_blocked);
        waiting.extend(given.iter().filter(is_blocked));
        self.session_mut(id).expect("it was there").waiting = waiting;
        given.into_iter().for_each(|id| self.after_giving(id));
    }

    pub(super) fn on_opened(&mut self, id: OperationId, name: &[u8], size: u64, modified: i64) {
        let shell = self.operation_mut(id).and_then(Operation::shell_mut);
        let Some(shell) = shell else { return };
        shell.note_announced();
        self.announce_file(id, name, size, modified);
    }

    /// Tells whoever hears of an operation which file comes now.
    pub(super) fn announce_file(&mut self, id: OperationId, name: &[u8], size: u64, modified: i64) {
        let Some((owner, tag)) = self.listener(id) else { return };
        self.say(owner, &Event::File { tag, name, size, modified });
        if let Some(line) = self.line_mut(owner) {
            line.begin_file();
        }
    }

    pub(super) fn on_chunk(&mut self, id: OperationId, chunk: Chunk<'_>) {
        // A chunk may cross a `Stop` on its way: then there is nobody to give it to.
        let Some((owner, tag)) = self.listener(id) else { return };
        let length = match &chunk {
            Chunk::Output { bytes, .. } => bytes.len(),
            Chunk::File { length, .. } => *length,
            Chunk::Entries(_) | Chunk::Text(_) | Chunk::Object(_) => 0,
        };
        let Some(operation) = self.operation_mut(id) else { return };
        operation.spend(length);
        operation.note_spoken();
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
        if let Some(line) = self.line_mut(owner) {
            line.begin_output();
        }
        self.say(owner, &Event::Output { tag, stream, bytes });
        if let Some(line) = self.line_mut(owner) {
            line.end_output(last);
        }
        let voice = self.session(owner).and_then(|session| session.connection.voice.as_ref());
        if voice.is_some_and(Voice::is_at_start) {
            self.release_held(owner);
        }
    }

    fn put_file(&mut self, id: OperationId, file: u32, offset: u64, length: usize) {
        assert!(length > 0, "a piece of a file has bytes");
        let Some((owner, tag)) = self.listener(id) else { return };
        let shell = self.operation_mut(id).and_then(Operation::shell_mut);
        let Some(shell) = shell else { return };
        shell.note_piece();
        self.put_with(owner, |connection, pool| {
            assert!(!connection.is_json(), "it wants the content");
            if matches!(connection.voice, Some(Voice::Frame(_))) {
                let header = |out: &mut Vec<u8>| {
                    frame::put_header(out, frame::server::DATA, tag, length);
                };
                connection.outbox.write(pool, header);
            }
            let piece = FilePiece { operation: id, file, offset, length };
            connection.outbox.put_file(pool, piece);
        });
    }

    /// A piece of its file is sent, or a mark is reached.
    pub(super) fn on_file_sent(&mut self, id: OperationId) {
        let Some(operation) = self.operation_mut(id) else { return };
        match &mut operation.kind {
            OperationKind::Shell(shell) => {
                if shell.note_piece_sent() {
                    self.release(id);
                }
            }
            OperationKind::Offer(_) => {}
            OperationKind::Pipe(_) => self.on_file_passed(id),
        }
    }

    /// Takes an operation out of the table and of the lists of its session.
    pub(super) fn take_operation(&mut self, id: OperationId) -> Option<Operation> {
        let owner = self.operation(id)?.owner();
        let operation = self.operations.remove(id.slot());
        if let Some(session) = self.session_of(owner).and_then(|owner| self.session_mut(owner)) {
            session.operations.retain(|other| *other != id);
            session.waiting.retain(|other| *other != id);
        }
        Some(operation)
    }

    fn release(&mut self, id: OperationId) {
        self.take_operation(id);
        self.effects.push_back(Effect::Release { operation: id });
    }

    pub(super) fn on_ended(&mut self, id: OperationId, outcome: Outcome) {
        let Some((owner, tag)) = self.listener(id) else { return };
        let Some(operation) = self.operation_mut(id) else { return };
        let Some(shell) = operation.shell_mut() else { return };
        if shell.is_draining() {
            return self.on_late_failure(owner, &outcome);
        }
        let is_sent = shell.file_pieces() == 0;
        let Some(end) = shell.end(tag, outcome) else { return };
        operation.unblock();
        if is_sent {
            self.release(id);
        }
        let Some(session) = self.session_mut(owner) else { return };
        session.waiting.retain(|other| *other != id);
        if end.owes_bytes && session.connection.is_plain() {
            // Its size was announced, and nothing but the end can say that it does not come.
            return self.remove(owner, CloseReason::BrokenFile);
        }
        if session.connection.is_json() {
            self.end_reply(owner, tag, &end.outcome, end.because);
        } else {
            self.finish_line(owner);
            self.say(owner, &Event::End { tag, outcome: &end.outcome });
            self.release_held(owner);
        }
        self.close_if_stopping(owner);
        self.resume(owner);
    }

    /// All was handed in, and then it turned out that what is queued of a file is not there. With
    /// frames the hash has told or will tell; with lines nothing but the end of all can.
    fn on_late_failure(&mut self, owner: SessionId, outcome: &Outcome) {
        let Some(session) = self.session(owner) else { return };
        let can_tell = matches!(session.connection.voice, Some(Voice::Frame(_)));
        if matches!(outcome, Outcome::Failed(_)) && !can_tell {
            self.remove(owner, CloseReason::BrokenFile);
        }
    }

    pub(super) fn on_credit(&mut self, id: SessionId, tag: Tag, bytes: u32) {
        let Some(operation) = self.operation_of(id, tag) else { return };
        operation.add_credit(bytes);
        self.pull(id);
    }

    pub(super) fn on_cancel(&mut self, id: SessionId, tag: Tag) {
        let Some(operation) = self.operation_of(id, tag) else { return };
        let id = operation.id();
        match operation.kind {
            OperationKind::Shell(_) => self.terminate(id, Ended::Cancelled),
            OperationKind::Offer(_) => self.on_offer_cancel(id),
            OperationKind::Pipe(_) => self.on_pipe_cancel(id),
        }
    }

    /// The time of an operation is over.
    pub(super) fn on_operation_alarm(&mut self, id: OperationId) {
        let Some(operation) = self.operation(id) else { return };
        match &operation.kind {
            OperationKind::Shell(shell) if shell.intake().is_some_and(Intake::is_upload) => {
                self.bound_upload(id);
            }
            OperationKind::Shell(_) => self.terminate(id, Ended::TimedOut),
            OperationKind::Offer(_) => self.on_offer_late(id),
            OperationKind::Pipe(_) => self.on_pipe_alarm(id),
        }
    }

    /// Ends an operation of the shell before its time; how it ends is told by the shell.
    pub(super) fn terminate(&mut self, id: OperationId, because: Ended) {
        self.stop_shell(id, because, None);
    }

    /// The same where the owner is to hear this, however it ends.
    pub(super) fn terminate_with(&mut self, id: OperationId, because: Ended, verdict: Refusal) {
        self.stop_shell(id, because, Some(verdict));
    }

    fn stop_shell(&mut self, id: OperationId, because: Ended, verdict: Option<Refusal>) {
        let shell = self.operation_mut(id).and_then(Operation::shell_mut);
        if shell.is_some_and(|shell| shell.stop(because, verdict)) {
            self.effects.push_back(Effect::Terminate { operation: id });
        }
    }

    /// The session has these rights from now on: what runs by another one is ended.
    pub(super) fn set_rights(&mut self, id: SessionId, rights: Rights) {
        let Some(session) = self.session_mut(id) else { return };
        session.rights = rights;
        for operation_id in session.operations.clone() {
            let Some(operation) = self.operation(operation_id) else { continue };
            let is_running = !operation.is_draining();
            let missing = operation.right().filter(|right| is_running && !rights.has(*right));
            let Some(right) = missing else { continue };
            match operation.kind {
                OperationKind::Shell(_) => {
                    let refusal = Refusal::new(0, Denied, revoked(right));
                    self.terminate_with(operation_id, Ended::Cancelled, refusal);
                }
                OperationKind::Offer(_) => self.on_offer_revoked(operation_id, revoked(right)),
                OperationKind::Pipe(_) => self.on_pipe_revoked(operation_id, revoked(right)),
            }
        }
    }
}

fn revoked(right: Right) -> String {
    format!("{right} was taken away from you meanwhile, and what ran by it is ended")
}
