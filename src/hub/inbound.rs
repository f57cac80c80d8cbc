//! From bytes to requests.

use zeroize::Zeroize as _;

use super::{
    CloseReason, Hub, OperationKind, Phase, SessionId,
    rights::Right,
    session::{Inbound, Raw},
};
use crate::wire::{
    Dialect, ErrorCode, Event, Item, Outcome, Refusal, Request,
    dialect::{self, Sniffed},
    frame,
    json::{self, Label},
};

/// A rest of more bytes than this is not copied for every portion that follows it; a smaller one
/// takes no more memory than it needs.
const LARGE_REST_BYTES: usize = 32 * 1024;

/// Whether a session's next bytes are looked at.
enum GoesOn {
    Yes,
    /// When there is room again.
    Later,
    /// They are done with.
    Never,
}

/// What became of bytes that may be no request.
enum Passed {
    /// They are one, or its beginning.
    Request,
    /// So many of them are passed on.
    Some(usize),
    /// More are needed, or room for them.
    Wait,
}

/// Whether a first line with this fault is that of somebody who speaks no dialect of ours.
fn is_foreign(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::UnknownCommand | ErrorCode::BadText)
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().is_empty()
}

/// What is said where the file is longer than its announcement: it has grown since it was measured,
/// and what has been added could read like a request.
fn more_than_announced() -> Refusal {
    let text = "more bytes came than were announced; the next request goes behind the answer";
    Refusal::new(0, ErrorCode::Protocol, text)
}

impl Hub {
    pub(super) fn on_bytes(&mut self, id: SessionId, bytes: &[u8]) {
        let now = self.now;
        let Some(session) = self.session_mut(id) else { return };
        if !bytes.is_empty() {
            session.heard = now;
            if session.pinged.take().is_some() {
                self.arm(id);
            }
        }
        let Some(session) = self.session_mut(id) else { return };
        if session.is_closing() {
            return;
        }
        if session.input.nonsense.is_some() {
            return self.close_if_finished(id);
        }
        if session.input.rest.is_empty() {
            let used = self.consume(id, bytes);
            self.keep(id, &bytes[used..]);
        } else {
            self.complete_rest(id, bytes);
        }
        self.note_cut_input(id);
        self.close_if_finished(id);
    }

    /// Sees to it that nobody waits for raw bytes that cannot come any more.
    fn note_cut_input(&mut self, id: SessionId) {
        let Some(session) = self.session_mut(id) else { return };
        let input = &mut session.input;
        let rest = input.rest.len() as u64;
        let is_cut = |raw: &mut Raw| raw.left > rest;
        if !input.ended {
            return;
        }
        let Some(raw) = input.raw.take_if(is_cut) else { return };
        (input.rest, input.paused) = (Vec::new(), false);
        self.unfinished.set(id, 0);
        let Some(session) = self.session_mut(id) else { return };
        let taker = session.operations.first().copied();
        let taker = taker.and_then(|taker| self.operation(taker));
        match taker.map(|taker| (taker.id(), &taker.kind)) {
            Some((offer, OperationKind::Offer(_))) => self.on_offer_cut(offer),
            Some((end, OperationKind::Pipe(_))) => self.on_pipe_cut(end),
            // Whoever writes it finds that out.
            Some((_, OperationKind::Shell(_))) | None => self.end_raw(id, raw),
        }
    }

    /// Joins the rest with just so much of the news as makes it a request, and goes on with what
    /// follows where it lies: most of a large portion is not copied.
    fn complete_rest(&mut self, id: SessionId, mut bytes: &[u8]) {
        let mut joined = std::mem::take(&mut self.joined);
        joined.clear();
        let session = self.session_mut(id).expect("the caller has it");
        let rest = &mut session.input.rest;
        let is_large = rest.len() > LARGE_REST_BYTES;
        if is_large {
            std::mem::swap(&mut joined, rest);
        }
        let mut spare = std::mem::take(rest);
        if !is_large {
            joined.append(&mut spare);
        }
        loop {
            let missing = self.session(id).and_then(|session| {
                let input = &session.input;
                // What is no request is taken as it comes, and is never put together.
                let is_loose = input.raw.is_some() || input.data.is_some();
                let dialect = session.dialect().filter(|_| !is_loose);
                let missing =
                    dialect.and_then(|dialect| dialect.missing(&joined, bytes, input.place));
                missing.or(is_loose.then_some(0))
            });
            let (head, tail) = bytes.split_at(missing.unwrap_or(bytes.len()));
            joined.extend_from_slice(head);
            let used = self.consume(id, &joined);
            joined.drain(..used);
            bytes = tail;
            if joined.is_empty() {
                let used = self.consume(id, bytes);
                self.keep(id, &bytes[used..]);
                break;
            }
            // Nothing was made of it: either it is not all there, or it must wait.
            if bytes.is_empty() || used + head.len() == 0 {
                joined.extend_from_slice(bytes);
                self.keep_joined(id, &mut joined);
                break;
            }
        }
        if self.heard_secret {
            joined.zeroize();
        }
        self.joined = if is_large { spare } else { joined };
    }

    pub(super) fn on_secured(&mut self, id: SessionId) {
        let Some(session) = self.session_mut(id) else { return };
        let is_new = matches!(session.phase, Phase::Sniffing { .. } | Phase::Closing { .. });
        assert!(is_new && session.input.rest.is_empty(), "TLS begins with the first byte");
        session.secured = true;
    }

    pub(super) fn on_end_of_input(&mut self, id: SessionId) {
        let Some(session) = self.session_mut(id) else { return };
        session.input.ended = true;
        match session.phase {
            Phase::Closing { .. } => {}
            // Frames have a goodbye. Whoever leaves without it did not mean to.
            Phase::Greeting { dialect: Dialect::Frame, .. }
            | Phase::Verifying { dialect: Dialect::Frame }
            | Phase::Ready { dialect: Dialect::Frame, .. } => {
                self.remove(id, CloseReason::PeerGone);
            }
            // A few bytes that could still have become another dialect are a line after all.
            Phase::Greeting { dialect: Dialect::Json, .. }
            | Phase::Verifying { dialect: Dialect::Json }
            | Phase::Ready { dialect: Dialect::Json, .. } => self.on_bytes(id, b""),
            Phase::Sniffing { .. }
            | Phase::Greeting { .. }
            | Phase::Verifying { .. }
            | Phase::Ready { .. } => {
                let Inbound { rest, raw, .. } = &session.input;
                let raw_left = raw.as_ref().map_or(0, |raw| raw.left);
                let is_in_line = rest.len() as u64 > raw_left && rest.last() != Some(&b'\n');
                self.on_bytes(id, if is_in_line { b"\n" } else { b"" });
            }
        }
    }

    pub(super) fn on_cut_off(&mut self, id: SessionId) {
        let Some(session) = self.session_mut(id) else { return };
        if session.dialect() == Some(Dialect::Frame) {
            return self.on_end_of_input(id);
        }
        // Who speaks lines gets the answers to the whole ones. Half of a command could be quite
        // another command.
        session.input.ended = true;
        self.on_bytes(id, b"");
    }

    /// Goes on where the session had to wait, if it may.
    pub(super) fn resume(&mut self, id: SessionId) {
        let limits = self.limits;
        let Some(session) = self.session_mut(id) else { return };
        if session.input.paused && !session.must_pause(&limits) {
            session.input.paused = false;
            self.on_bytes(id, b"");
            let still_on = self.session(id).is_some_and(|it| !it.input.paused && !it.is_closing());
            if still_on {
                self.effects.push_back(super::Effect::Resume { session: id });
            }
        } else {
            self.close_if_finished(id);
        }
    }

    /// Executes the requests in `bytes` and returns how many bytes they had.
    fn consume(&mut self, id: SessionId, bytes: &[u8]) -> usize {
        #[cfg(debug_assertions)]
        self.provoke(bytes);
        let mut scratch = std::mem::take(&mut self.scratch);
        let used = self.consume_with(id, bytes, &mut scratch);
        self.scratch = scratch;
        used
    }

    fn consume_with(&mut self, id: SessionId, bytes: &[u8], scratch: &mut Vec<u8>) -> usize {
        let mut used = 0;
        loop {
            let Some(session) = self.session_mut(id) else { return bytes.len() };
            let rest = &bytes[used..];
            let (dialect, is_greeting) = match session.phase {
                Phase::Closing { .. } => return bytes.len(),
                Phase::Sniffing { .. } => match self.sniff(id, rest) {
                    Some(skipped) => {
                        used += skipped;
                        continue;
                    }
                    None => return used,
                },
                Phase::Greeting { dialect, .. } => (dialect, true),
                Phase::Verifying { dialect } | Phase::Ready { dialect, .. } => (dialect, false),
            };
            match self.may_go_on(id, rest) {
                GoesOn::Yes => {}
                GoesOn::Later => return used,
                GoesOn::Never => return bytes.len(),
            }
            match self.pass_on(id, dialect, is_greeting, rest) {
                Passed::Wait => return used,
                Passed::Some(count) => {
                    used += count;
                    continue;
                }
                Passed::Request => {}
            }
            let is_quick = dialect == Dialect::Json && !is_greeting;
            if is_quick && let count @ 1.. = self.answer_quickly(id, rest) {
                used += count;
                continue;
            }
            let Some(session) = self.session_mut(id) else { return bytes.len() };
            let mut place = std::mem::take(&mut session.input.place);
            let max = session.request_max_bytes();
            // Without the right the long way is taken, at whose end it is denied.
            let may_post = !is_greeting && session.rights.has(Right::Message);
            if may_post && let Some(post) = dialect.post(rest, place, max) {
                used += post.consumed;
                self.on_message(id, post.tag, post.to, post.text);
                continue;
            }
            match dialect.decode(rest, &mut place, max, scratch) {
                Ok(None) if session.input.ended && session.is_json() && !rest.is_empty() => {
                    self.on_labelled(id, is_greeting, &Label::NONE, Err(json::broken_off()));
                    return bytes.len();
                }
                Ok(None) => {
                    session.input.place = place;
                    return used;
                }
                Ok(Some(Item { request, consumed, label })) => {
                    if label.is_some() && self.awaits_slot(id, &request) {
                        return used;
                    }
                    used += consumed;
                    if !place.is_fresh() {
                        self.session_mut(id).expect("its request is at hand").input.place = place;
                    }
                    self.note_what_follows(id, dialect, &request);
                    match label {
                        Some(label) => self.on_labelled(id, is_greeting, &label, request),
                        None => self.on_item(id, dialect, is_greeting, request),
                    }
                }
                Err(refusal) => {
                    self.on_nonsense(id, refusal);
                    return bytes.len();
                }
            }
        }
    }

    /// Whether a session's next bytes are looked at. Behind a file of announced size nothing is
    /// taken for a request until that has its answer.
    fn may_go_on(&mut self, id: SessionId, rest: &[u8]) -> GoesOn {
        let limits = self.limits;
        let Some(session) = self.session_mut(id) else { return GoesOn::Never };
        if session.input.answer_due && session.operations.is_empty() {
            session.input.answer_due = false;
        }
        if session.input.answer_due && !is_blank(rest) {
            self.on_nonsense(id, more_than_announced());
            return GoesOn::Never;
        }
        if session.must_pause(&limits) {
            session.input.paused = true;
            return GoesOn::Later;
        }
        if session.input.answer_due { GoesOn::Never } else { GoesOn::Yes }
    }

    /// Takes no more of a session after bytes that cannot be understood. The JSON requests before
    /// them were good: each has its reply before the connection ends.
    fn on_nonsense(&mut self, id: SessionId, refusal: Refusal) {
        let Some(session) = self.session_mut(id) else { return };
        if session.is_json() && session.has_work() {
            session.input.ended = true;
            session.input.nonsense = Some(Box::new(refusal));
        } else {
            self.close(id, CloseReason::Protocol, Some(&refusal));
        }
    }

    /// Notes what is to be known of the bytes of a request before it is executed.
    #[inline]
    fn note_what_follows(
        &mut self,
        id: SessionId,
        dialect: Dialect,
        request: &Result<Request<'_>, Refusal>,
    ) {
        let raw = request.as_ref().ok().and_then(Request::raw_bytes);
        if let Some(left) = raw.filter(|_| dialect == Dialect::Line) {
            let session = self.session_mut(id).expect("its request is at hand");
            session.input.raw = Some(Raw { left, refusal: None });
        }
        if let Ok(Request::Login { password: Some(_), .. }) = request {
            self.heard_secret = true;
        }
    }

    fn on_item(
        &mut self,
        id: SessionId,
        dialect: Dialect,
        is_greeting: bool,
        request: Result<Request<'_>, Refusal>,
    ) {
        match request {
            Ok(request) if is_greeting => self.on_first(id, dialect, request),
            Ok(request) => self.on_request(id, dialect, request),
            Err(_) if is_greeting && dialect == Dialect::Frame => {
                let refusal = super::requests::hello_first();
                self.close(id, CloseReason::Protocol, Some(&refusal));
            }
            // Another protocol: what follows may look like a request and is none.
            Err(refusal) if is_greeting && is_foreign(refusal.code) => {
                self.close(id, CloseReason::Protocol, Some(&refusal));
            }
            Err(refusal) => self.say(id, &Event::Error(&refusal)),
        }
    }

    /// Passes bytes on that are no request, as they come.
    fn pass_on(&mut self, id: SessionId, dialect: Dialect, is_early: bool, rest: &[u8]) -> Passed {
        let session = self.session_mut(id).expect("the caller has it");
        if session.input.raw.is_some() {
            return self.consume_raw(id, rest).map_or(Passed::Wait, Passed::Some);
        }
        if dialect != Dialect::Frame || is_early {
            return Passed::Request;
        }
        if let Some((tag, left)) = session.input.data {
            let part = &rest[..rest.len().min(left)];
            session.input.data = (part.len() < left).then_some((tag, left - part.len()));
            if part.is_empty() {
                return Passed::Wait;
            }
            self.on_input(id, tag, part);
            return Passed::Some(part.len());
        }
        match frame::begun_data(rest) {
            Some(begun) => {
                session.input.data = Some(begun);
                Passed::Some(frame::HEADER_BYTES)
            }
            None => Passed::Request,
        }
    }

    /// Takes bytes of a file that come among lines: how many; `None` where none can be taken now.
    fn consume_raw(&mut self, id: SessionId, bytes: &[u8]) -> Option<usize> {
        let window = self.limits.input_window_bytes;
        let taker = self.operation_of(id, 0);
        let has_taker = taker.is_some();
        let room = taker.and_then(|operation| operation.input_room(window));
        let session = self.session_mut(id).expect("the caller has it");
        let mut raw = session.input.raw.take().expect("the caller has looked");
        let room = if raw.refusal.is_some() { usize::MAX } else { room.unwrap_or(usize::MAX) };
        let left = usize::try_from(raw.left).unwrap_or(usize::MAX);
        let count = bytes.len().min(left).min(room);
        raw.left -= count as u64;
        let is_end = raw.left == 0;
        if count == 0 && !is_end {
            session.input.paused = !bytes.is_empty();
            session.input.raw = Some(raw);
            return None;
        }
        let is_wanted = raw.refusal.is_none();
        let is_taken = is_wanted && has_taker;
        if is_end && is_taken && !is_blank(&bytes[count..]) {
            self.on_nonsense(id, more_than_announced());
            return Some(bytes.len());
        }
        match is_end {
            true => {
                if is_taken {
                    self.session_mut(id).expect("its operation is at hand").input.answer_due = true;
                }
                if is_wanted && count > 0 {
                    self.on_input(id, 0, &bytes[..count]);
                }
                self.end_raw(id, raw);
            }
            false => {
                session.input.raw = Some(raw);
                if is_wanted {
                    self.on_input(id, 0, &bytes[..count]);
                }
            }
        }
        Some(count)
    }

    fn end_raw(&mut self, id: SessionId, raw: Raw) {
        match raw.refusal {
            Some(refusal) => {
                let outcome = Outcome::Failed(*refusal);
                self.say(id, &Event::End { tag: 0, outcome: &outcome });
            }
            None => self.on_input_end(id, 0, None),
        }
    }

    /// Decides the dialect, if the bytes suffice, and returns how many introduced it.
    fn sniff(&mut self, id: SessionId, bytes: &[u8]) -> Option<usize> {
        let session = self.session_mut(id).expect("the caller has it");
        let Phase::Sniffing { deadline } = session.phase else {
            unreachable!("the caller has looked")
        };
        let sniffed = match dialect::sniff(bytes) {
            Sniffed::Undecided if session.input.ended && !bytes.is_empty() => {
                Sniffed::Speaks(Dialect::Line, 0)
            }
            Sniffed::Undecided => return None,
            Sniffed::Blank(count) => return Some(count),
            sniffed => sniffed,
        };
        let (origin, secured) = (session.origin, session.secured);
        let admitted = match dialect::unserved(sniffed) {
            Some(refusal) => Err((CloseReason::NotServed, refusal)),
            None => self
                .policy
                .admit(&origin, secured)
                .map_err(|refusal| (CloseReason::NotAdmitted, refusal)),
        };
        let (reason, refusal) = match (sniffed, admitted) {
            (Sniffed::Speaks(dialect, skipped), Ok(())) => {
                let session = self.session_mut(id).expect("the caller has it");
                session.phase = Phase::Greeting { dialect, deadline };
                return Some(skipped);
            }
            (_, Err(refused)) => refused,
            (_, Ok(())) => unreachable!("what is served is spoken"),
        };
        self.close_with(id, reason, &dialect::farewell(sniffed, &refusal));
        Some(bytes.len())
    }

    /// The same for bytes that have a buffer of their own.
    fn keep_joined(&mut self, id: SessionId, joined: &mut Vec<u8>) {
        match self.session_mut(id).filter(|session| !session.is_closing()) {
            Some(session) if joined.len() > LARGE_REST_BYTES => {
                session.input.rest = std::mem::take(joined);
                let bytes = session.input.rest.len();
                self.bound_unfinished(id, bytes);
            }
            _ => self.keep(id, joined),
        }
    }

    fn keep(&mut self, id: SessionId, rest: &[u8]) {
        let Some(session) = self.session_mut(id) else { return };
        if session.is_closing() || rest.is_empty() {
            // An idle session owns no buffer.
            session.input.rest = Vec::new();
        } else {
            session.input.rest = rest.to_vec();
        }
        let bytes = session.input.rest.len();
        self.bound_unfinished(id, bytes);
    }
}
