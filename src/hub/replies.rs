//! The replies of JSON sessions: one object for each request, collected until it is done.
//!
//! ```text
//!   request --> asked --answered at once---------------------------> outbox
//!                 |                                                     ^
//!                 '--> open --its end--> ready, if large or no room is -'
//! ```
//!
//! Lines and frames pass on what an operation says. For a JSON session it is kept here, under the
//! number that the hub gives to each request, until the operation has ended. A reply that is larger
//! than a chunk, or finds no room, is written a portion at a time as the socket takes it, and
//! nothing else comes in between.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
};

use super::{Column, Effect, Hub, OperationId, Session, SessionId};
use crate::{
    limits::Limits,
    wire::{
        Dialect, Event, Outcome, Refusal, Request, Tag,
        error::ErrorCode::TooMany,
        event::Ended,
        json::{self, Label, Reply},
    },
};

/// What a JSON session is owed.
#[derive(Debug, Default)]
pub struct Replies {
    /// The number of the request that was read last.
    last_tag: Tag,
    /// Of requests under way, in the order in which they came.
    open: Vec<OpenReply>,
    /// These wait for the socket. Invariant: part of the first is written exactly while the column
    /// of the session says so.
    ready: VecDeque<Ready>,
    /// Messages whose delivery is to be told, by their numbers.
    receipts: BTreeMap<Tag, Expected>,
    /// Bytes that all of `open` and `ready` hold.
    held_bytes: usize,
}

#[derive(Debug)]
struct OpenReply {
    tag: Tag,
    answered_by: AnsweredBy,
    reply: Reply,
}

/// A reply that waits for the socket.
#[derive(Debug)]
struct Ready {
    reply: Reply,
    /// Files of other users that are there as a whole when it is: these get a mark behind it.
    passed: Vec<OperationId>,
}

/// Receipts that are still to come for one message.
#[derive(Debug)]
struct Expected {
    id: Box<str>,
    count: usize,
}

/// The request of a JSON session that is executed right now; its reply is in [`Hub::reply`].
#[derive(Debug)]
pub struct Asked {
    session: SessionId,
    tag: Tag,
    answered_by: AnsweredBy,
    /// Recipients whose receipts are to come.
    receipts: usize,
}

/// What completes the reply to a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum AnsweredBy {
    /// That it was executed.
    Itself,
    /// [`Event::End`] with its number.
    End,
    /// The next welcome or error, which have no number.
    Login,
    /// It is complete.
    Nothing,
}

impl Replies {
    fn next_tag(&mut self) -> Tag {
        self.last_tag = self.last_tag.checked_add(1).unwrap_or(1);
        self.last_tag
    }

    /// Whether nothing is owed but what comes unasked, and the answer to a login.
    pub(super) fn is_empty(&self) -> bool {
        let is_login = |open: &OpenReply| open.answered_by == AnsweredBy::Login;
        self.open.iter().all(is_login) && self.ready.is_empty()
    }

    /// Bytes that all of them hold.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Whether a reply waits for the socket.
    pub(super) fn is_backed_up(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether more can be kept for the request `tag`. Where all of them hold too much, the
    /// largest goes on, so that one at least comes to its end; then the peer has to take it.
    pub(super) fn has_room(&self, tag: Tag, is_low: bool, limits: &Limits) -> bool {
        let Some(open) = self.open.iter().find(|open| open.tag == tag) else { return false };
        if open.reply.is_truncated() {
            return false;
        }
        if open.reply.goes_ahead() {
            return is_low && self.ready.is_empty();
        }
        let size = |open: &OpenReply| (open.reply.held_bytes(), Reverse(open.tag));
        let is_largest = || self.open.iter().all(|other| size(other) <= size(open));
        self.held_bytes < limits.replies_session_max_bytes || self.ready.is_empty() && is_largest()
    }

    /// Keeps a complete reply until the socket takes it.
    fn keep_ready(&mut self, reply: Reply) {
        self.ready.push_back(Ready { reply, passed: Vec::new() });
    }

    /// Puts a mark behind the last reply that waits; false where none does.
    pub(super) fn mark_last(&mut self, operation: OperationId) -> bool {
        let last = self.ready.back_mut();
        last.map(|last| last.passed.push(operation)).is_some()
    }

    /// Marks for this operation.
    pub(super) fn marks(&self, operation: OperationId) -> usize {
        let marks = self.ready.iter().flat_map(|ready| &ready.passed);
        marks.filter(|id| **id == operation).count()
    }

    fn take_open(&mut self, at: usize) -> Reply {
        let open = self.open.remove(at);
        if self.open.is_empty() {
            // An idle session owns no memory.
            self.open = Vec::new();
        }
        open.reply
    }

    /// Panics where the count of what is held is not that of its parts; the numbers of the
    /// operations for which it keeps something, and the count.
    pub(super) fn check(&self) -> (impl Iterator<Item = Tag>, usize) {
        let ready = self.ready.iter().map(|ready| &ready.reply);
        let held = self.open.iter().map(|open| &open.reply).chain(ready);
        assert_eq!(held.map(Reply::held_bytes).sum::<usize>(), self.held_bytes);
        let is_operation = |open: &&OpenReply| open.answered_by == AnsweredBy::End;
        (self.open.iter().filter(is_operation).map(|open| open.tag), self.held_bytes)
    }
}

impl Hub {
    /// Executes a request of a JSON session, or tells why it is none.
    pub(super) fn on_labelled(
        &mut self,
        id: SessionId,
        is_greeting: bool,
        label: &Label<'_>,
        mut request: Result<Request<'_>, Refusal>,
    ) {
        let limits = self.limits;
        let session = self.session_mut(id).expect("its request is at hand");
        let replies = session.replies.get_or_insert_default();
        let tag = replies.next_tag();
        // In its place, as requests are large.
        match &mut request {
            Ok(Request::Message { tag: 1.., .. })
                if replies.receipts.len() >= limits.receipts_max =>
            {
                let text = format!("{} receipts are still to come", limits.receipts_max);
                request = Err(Refusal::new(tag, TooMany, text));
            }
            Ok(Request::Message { tag: own @ 1.., .. } | Request::Call { tag: own, .. }) => {
                *own = tag;
            }
            _ => {}
        }
        if let Ok(asked) = &request
            && let Err(refusal) = self.check_whole_input(id, tag, asked, label.input.as_deref())
        {
            request = Err(refusal);
        }
        let answered_by = match &request {
            Ok(Request::Call { .. }) => AnsweredBy::End,
            Ok(Request::Login { .. }) => AnsweredBy::Login,
            _ => AnsweredBy::Itself,
        };
        self.asked = Some(Asked { session: id, tag, answered_by, receipts: 0 });
        self.reply.begin(label.id);
        match request {
            Ok(request) if is_greeting => self.on_first(id, Dialect::Json, request),
            Ok(request) => self.on_request(id, Dialect::Json, request),
            Err(refusal) => self.reply.fail(refusal),
        }
        if let Some(input) = &label.input {
            self.on_whole_input(id, tag, input);
        }
        if let Some(target) = label.target {
            let count = self.cancel_all(id, target);
            self.reply.put_count("cancelled", count);
        }
        self.after_asked(label.id);
    }

    /// Answers the requests at the head of `bytes` that need nothing but their own bytes, as many
    /// as there is room for; how many bytes they had.
    pub(super) fn answer_quickly(&mut self, id: SessionId, bytes: &[u8]) -> usize {
        let Hub { sessions, limits, pool, effects, .. } = self;
        let session = sessions.get_mut(id.slot()).expect("the caller has it");
        let is_full = session.operations.len() >= limits.operations_max;
        if is_full || !session.input.place.is_fresh() || session.column != Column::LineStart {
            return 0;
        }
        let object_max = session.request_max_bytes();
        let Some(mut quick) = json::quick(bytes, object_max) else { return 0 };
        let waiting = session.outbox.unsent_bytes();
        let room = session.pause_bytes(limits).saturating_sub(waiting);
        let mut used = 0;
        session.outbox.write(pool, |out| {
            let most = out.len() + room;
            loop {
                used += quick.consumed;
                quick.put_reply(out);
                if out.len() >= most {
                    break;
                }
                let Some(next) = json::quick(&bytes[used..], object_max) else { break };
                quick = next;
            }
        });
        if waiting == 0 {
            effects.push_back(Effect::Flush { session: id });
        }
        used
    }

    /// What is not answered yet is answered now, or once it has ended.
    fn after_asked(&mut self, label: &str) {
        let asked = self.asked.take().expect("a request is at hand");
        let id = asked.session;
        if asked.answered_by == AnsweredBy::Itself {
            self.reply.finish(&Outcome::Done, None);
            self.send_asked(id);
        }
        let Some(session) = self.sessions.get_mut(id.slot()).filter(|it| it.id == id) else {
            return;
        };
        let Some(replies) = session.replies.as_mut() else { return };
        if asked.receipts > 0 {
            let expected = Expected { id: label.into(), count: asked.receipts };
            replies.receipts.insert(asked.tag, expected);
        }
        if matches!(asked.answered_by, AnsweredBy::End | AnsweredBy::Login) {
            let reply = std::mem::take(&mut self.reply);
            replies.held_bytes += reply.held_bytes();
            self.replies_bytes += reply.held_bytes();
            let Asked { tag, answered_by, .. } = asked;
            replies.open.push(OpenReply { tag, answered_by, reply });
            // What somebody else has for it may have come first.
            self.pull(id);
        }
    }

    /// Whether the request has to wait until one of the session's operations has ended.
    pub(super) fn awaits_slot(
        &mut self,
        id: SessionId,
        request: &Result<Request<'_>, Refusal>,
    ) -> bool {
        let max = self.limits.operations_max;
        let session = self.session_mut(id).expect("its request is at hand");
        let is_full = session.operations.len() >= max;
        session.input.awaits_slot = is_full && matches!(request, Ok(Request::Call { .. }));
        session.input.paused |= session.input.awaits_slot;
        session.input.awaits_slot
    }

    /// Keeps what is said to a JSON session until its request is answered, or writes it in a form
    /// of its own; false where it is to be encoded as it is.
    pub(super) fn answer(&mut self, id: SessionId, event: &Event<'_>) -> bool {
        match event {
            Event::Message { .. } | Event::Ping { .. } | Event::Goodbye(Some(_)) => return false,
            Event::Offer { .. } | Event::OfferWithdrawn { .. } => return false,
            Event::Credit { .. } => return true,
            Event::Delivered { tag, .. } => {
                if let Some(label) = self.use_receipt(id, *tag) {
                    self.put_words(id, |out| json::put_news(&label, event, out));
                }
                return true;
            }
            _ => {}
        }
        if self.asked.as_ref().is_some_and(|asked| asked.session == id && asked.is_meant(event)) {
            self.answer_asked(id, event);
            return true;
        }
        let Some(session) = self.session(id) else { return true };
        let is_meant = |open: &OpenReply| is_meant(open.tag, open.answered_by, event);
        let mut open = session.replies.iter().flat_map(|replies| &replies.open);
        match (open.position(is_meant), event) {
            (Some(at), _) => self.answer_open(id, at, event),
            (None, Event::Error(refusal)) => {
                let label = self.use_receipt(id, refusal.tag);
                let write = |out: &mut Vec<u8>| json::put_failure(label.as_deref(), refusal, out);
                self.put_words(id, write);
            }
            (None, _) => return false,
        }
        true
    }

    fn answer_asked(&mut self, id: SessionId, event: &Event<'_>) {
        let asked = self.asked.as_mut().expect("the caller has looked");
        let is_complete = match event {
            Event::End { outcome, .. } => {
                self.reply.finish(outcome, None);
                true
            }
            // Only what comes from another user is there so soon.
            Event::File { name, size, modified, .. } => {
                self.reply.begin_file(name, *size, *modified, 0);
                false
            }
            _ => {
                self.reply.take_in(event);
                asked.answered_by == AnsweredBy::Login || matches!(event, Event::Goodbye(None))
            }
        };
        if is_complete {
            asked.answered_by = AnsweredBy::Nothing;
            if !matches!(event, Event::End { .. }) {
                self.reply.finish(&Outcome::Done, None);
            }
            self.send_asked(id);
        }
    }

    fn answer_open(&mut self, id: SessionId, at: usize, event: &Event<'_>) {
        let (limits, room) = (self.limits, self.replies_room(id));
        let session = self.sessions.get_mut(id.slot()).expect("the caller has it");
        let replies = session.replies.as_mut().expect("the caller has looked");
        let OpenReply { tag, answered_by, reply } = &mut replies.open[at];
        let (tag, before) = (*tag, reply.held_bytes());
        match event {
            Event::End { outcome, .. } => return self.end_reply(id, tag, outcome, None),
            Event::Output { .. } | Event::Entries { .. } if reply.is_truncated() => return,
            Event::Accepted { .. } => {
                let label = reply.id().to_owned();
                return self.put_words(id, |out| json::put_news(&label, event, out));
            }
            Event::Output { bytes, .. } | Event::Data { bytes, .. } if reply.goes_ahead() => {
                // It was asked whether there is room, so nothing stands in between.
                let write = |out: &mut Vec<u8>| reply.put_ahead(bytes, out);
                let was_empty = session.outbox.is_empty();
                session.outbox.write(&mut self.pool, write);
                if was_empty {
                    self.effects.push_back(Effect::Flush { session: id });
                }
                return;
            }
            Event::Output { stream, bytes, .. } => {
                let most = limits.reply_max_bytes.saturating_sub(before).min(room);
                let kept = &bytes[..bytes.len().min(most)];
                reply.take_in(&Event::Output { tag, stream: *stream, bytes: kept });
                if kept.len() < bytes.len() {
                    reply.truncate();
                }
            }
            Event::File { name, size, modified, .. } => {
                reply.begin_file(name, *size, *modified, limits.content_max_bytes);
            }
            _ => reply.take_in(event),
        }
        let grown = reply.held_bytes() - before;
        let is_login = *answered_by == AnsweredBy::Login;
        replies.held_bytes += grown;
        self.replies_bytes += grown;
        if reply.held_bytes() > limits.reply_max_bytes
            || grown > room
            || self.replies_bytes > limits.replies_total_max_bytes
        {
            reply.truncate();
        }
        if is_login {
            self.end_reply(id, tag, &Outcome::Done, None);
        } else if reply.is_truncated() {
            self.cut_off(id, tag);
        }
    }

    /// Ends an operation whose reply can hold no more.
    fn cut_off(&mut self, id: SessionId, tag: Tag) {
        if let Some(operation) = self.operation_of(id, tag) {
            let operation = operation.id;
            self.terminate(operation, Ended::OutputLimit);
        }
    }

    /// The request `tag` is done: its reply is written, as far as there is room for it.
    pub(super) fn end_reply(
        &mut self,
        id: SessionId,
        tag: Tag,
        outcome: &Outcome,
        because: Option<Ended>,
    ) {
        let Some(session) = self.sessions.get_mut(id.slot()).filter(|it| it.id == id) else {
            return;
        };
        let Some(replies) = session.replies.as_mut() else { return };
        let Some(at) = replies.open.iter().position(|open| open.tag == tag) else { return };
        let mut reply = replies.take_open(at);
        let before = reply.held_bytes();
        reply.finish(outcome, because);
        let limits = &self.limits;
        let is_low = session.outbox.unsent_bytes() < limits.outbox_low_bytes;
        if is_low && session.takes_whole(&reply, limits) {
            let replies = session.replies.as_mut().expect("it was there");
            replies.held_bytes -= before;
            self.replies_bytes -= before;
            self.put_reply(id, &mut reply);
        } else {
            let after = reply.held_bytes();
            let replies = session.replies.as_mut().expect("it was there");
            replies.held_bytes = replies.held_bytes - before + after;
            self.replies_bytes = self.replies_bytes - before + after;
            replies.keep_ready(reply);
            self.pump(id);
        }
        // What was held back may go on.
        self.pull(id);
    }

    /// The reply at hand is done. There is room for it, since the request was read; a large one is
    /// written in portions nevertheless.
    fn send_asked(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id.slot()).filter(|it| it.id == id) else {
            return;
        };
        let mut reply = std::mem::take(&mut self.reply);
        if session.takes_whole(&reply, &self.limits) {
            self.put_reply(id, &mut reply);
            self.reply = reply;
        } else if let Some(replies) = session.replies.as_mut() {
            replies.held_bytes += reply.held_bytes();
            self.replies_bytes += reply.held_bytes();
            replies.keep_ready(reply);
            self.pump(id);
        }
    }

    fn put_reply(&mut self, id: SessionId, reply: &mut Reply) {
        let session = self.sessions.get_mut(id.slot()).expect("the caller has it");
        let was_empty = session.outbox.is_empty();
        session.outbox.write(&mut self.pool, |out| {
            reply.put(usize::MAX, out);
        });
        if was_empty {
            self.effects.push_back(Effect::Flush { session: id });
        }
    }

    /// Writes of the replies that are ready what there is room for.
    pub(super) fn pump(&mut self, id: SessionId) {
        let limits = self.limits;
        let mut is_freed = false;
        loop {
            let Some(session) = self.sessions.get_mut(id.slot()).filter(|it| it.id == id) else {
                return;
            };
            let Some(replies) = session.replies.as_mut() else { return };
            let is_low = session.outbox.unsent_bytes() < limits.outbox_low_bytes;
            let Some(Ready { reply, .. }) = replies.ready.front_mut().filter(|_| is_low) else {
                break;
            };
            let was_empty = session.outbox.is_empty();
            let mut is_whole = false;
            session.outbox.write(&mut self.pool, |out| {
                is_whole = reply.put(limits.chunk_max_bytes, out);
            });
            if was_empty {
                self.effects.push_back(Effect::Flush { session: id });
            }
            session.column = Column::InObject;
            if is_whole {
                let Ready { reply, passed } = replies.ready.pop_front().expect("it was written");
                passed.into_iter().for_each(|operation| session.outbox.put_mark(operation));
                let held = reply.held_bytes();
                replies.held_bytes -= held;
                self.replies_bytes -= held;
                session.column = Column::LineStart;
                self.release_held(id);
                is_freed = true;
            }
        }
        if is_freed {
            self.pull(id);
        }
    }

    /// Forgets what a session is owed, before its operations end.
    pub(super) fn drop_replies(&mut self, id: SessionId) {
        let Some(session) = self.session_mut(id) else { return };
        let Some(replies) = session.replies.take() else { return };
        self.replies_bytes -= replies.held_bytes;
        // The files are not there as a whole if the replies that say so are not.
        for operation in replies.ready.into_iter().flat_map(|ready| ready.passed) {
            self.operation_mut(operation).expect("it waits for its mark").file_pieces = 0;
        }
    }

    /// A recipient has got the message of the request at hand; its receipt is to come.
    pub(super) fn note_receipt(&mut self, sender: SessionId) {
        if let Some(asked) = self.asked.as_mut().filter(|asked| asked.session == sender) {
            asked.receipts += 1;
        }
    }

    /// News of the message `tag` have come, one of those that were promised; its id.
    fn use_receipt(&mut self, id: SessionId, tag: Tag) -> Option<Box<str>> {
        let replies = self.session_mut(id)?.replies.as_mut()?;
        let expected = replies.receipts.get_mut(&tag)?;
        expected.count -= 1;
        match expected.count {
            0 => replies.receipts.remove(&tag).map(|expected| expected.id),
            _ => Some(expected.id.clone()),
        }
    }

    /// Cancels all that was asked for with this id; returns how many those were.
    fn cancel_all(&mut self, id: SessionId, target: &str) -> u64 {
        let Some(session) = self.session(id) else { return 0 };
        let open = session.replies.iter().flat_map(|replies| &replies.open);
        let meant = open.filter(|open| open.reply.id() == target).map(|open| open.tag);
        let tags: Vec<Tag> = meant.collect();
        tags.iter().for_each(|tag| self.on_cancel(id, *tag));
        tags.len() as u64
    }

    /// Whether the pieces of the operation's file are to be handed in as bytes, and not as places
    /// in it.
    pub fn wants_content(&self, id: OperationId) -> bool {
        let operation = self.operations.get(id.slot()).filter(|operation| operation.id == id);
        let owner = operation.and_then(|operation| self.session(operation.owner));
        owner.is_some_and(Session::is_json)
    }
}

impl Asked {
    fn is_meant(&self, event: &Event<'_>) -> bool {
        match event {
            _ if self.answered_by == AnsweredBy::Nothing => false,
            Event::Error(refusal) if refusal.tag == 0 => true,
            Event::Pong { .. } | Event::Goodbye(None) => true,
            _ => is_meant(self.tag, self.answered_by, event),
        }
    }
}

/// Whether the event belongs to the answer to the request `tag`.
fn is_meant(tag: Tag, answered_by: AnsweredBy, event: &Event<'_>) -> bool {
    match event {
        Event::File { tag: of, .. }
        | Event::Output { tag: of, .. }
        | Event::Data { tag: of, .. }
        | Event::Accepted { tag: of, .. }
        | Event::Entries { tag: of, .. }
        | Event::Users { tag: of, .. }
        | Event::UdpPorts { tag: of, .. }
        | Event::Text { tag: of, .. }
        | Event::Object { tag: of, .. }
        | Event::End { tag: of, .. } => *of == tag,
        Event::Welcome { .. } => answered_by == AnsweredBy::Login,
        Event::Error(refusal) => match refusal.tag {
            0 => answered_by == AnsweredBy::Login,
            of => of == tag,
        },
        _ => false,
    }
}

impl Session {
    pub(super) fn is_json(&self) -> bool {
        self.dialect() == Some(Dialect::Json)
    }

    /// Whether something is under way for it, or waits to be said.
    pub(super) fn has_work(&self) -> bool {
        let is_owed = self.replies.as_ref().is_some_and(|replies| !replies.is_empty());
        !self.operations.is_empty() || is_owed
    }

    /// Whether a reply can be written at once and as a whole.
    fn takes_whole(&self, reply: &Reply, limits: &Limits) -> bool {
        let is_free = self.replies.as_ref().is_none_or(|replies| !replies.is_backed_up());
        is_free && self.column == Column::LineStart && reply.held_bytes() <= limits.chunk_max_bytes
    }
}
