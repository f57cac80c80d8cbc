//! From bytes to requests.

use zeroize::Zeroize as _;

use super::{
    CloseReason, Connection, Effect, Hub, Phase, SessionId,
    rights::Right,
    voice::{
        Voice,
        json::JsonVoice,
        line::{RawBytes, is_blank, more_than_announced},
    },
};
use crate::wire::{
    Dialect, ErrorCode, Event, Item, Refusal, Request,
    dialect::{self, Sniffed},
    json::{self, Label, scan::Place},
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
pub(super) enum Passed {
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

impl Hub {
    pub(super) fn on_bytes(&mut self, id: SessionId, bytes: &[u8]) {
        let now = self.now;
        let Some(session) = self.session_mut(id) else { return };
        if !bytes.is_empty() {
            session.connection.heard = now;
            if session.connection.pinged.take().is_some() {
                self.arm(id);
            }
        }
        let Some(session) = self.session_mut(id) else { return };
        if session.connection.is_closing() {
            return;
        }
        if session.connection.json().is_some_and(JsonVoice::has_met_nonsense) {
            return self.close_if_finished(id);
        }
        if session.connection.input.rest.is_empty() {
            let used = self.consume(id, bytes);
            self.keep(id, &bytes[used..]);
        } else {
            self.complete_rest(id, bytes);
        }
        self.note_cut_input(id);
        self.close_if_finished(id);
    }

    /// Joins the rest with just so much of the news as makes it a request, and goes on with what
    /// follows where it lies: most of a large portion is not copied.
    fn complete_rest(&mut self, id: SessionId, mut bytes: &[u8]) {
        let mut joined = std::mem::take(&mut self.joined);
        joined.clear();
        let Some(session) = self.session_mut(id) else { return };
        let rest = &mut session.connection.input.rest;
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
                let voice = session.connection.served_voice()?;
                // What is no request is taken as it comes, and is never put together.
                match voice.is_loose() {
                    true => Some(0),
                    false => {
                        voice.dialect().missing(&joined, bytes, session.connection.input.place)
                    }
                }
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
        let is_new =
            matches!(session.connection.phase, Phase::Sniffing { .. } | Phase::Closing { .. });
        assert!(
            is_new && session.connection.input.rest.is_empty(),
            "TLS begins with the first byte"
        );
        session.connection.secured = true;
    }

    pub(super) fn on_end_of_input(&mut self, id: SessionId) {
        let Some(session) = self.session_mut(id) else { return };
        session.connection.input.ended = true;
        if session.connection.is_closing() {
            return;
        }
        let raw_left = match &session.connection.voice {
            // Frames have a goodbye. A peer that leaves without it did not mean to.
            Some(Voice::Frame(_)) => return self.remove(id, CloseReason::PeerGone),
            Some(Voice::Json(_)) => return self.on_bytes(id, b""),
            Some(Voice::Line(line)) => line.raw().map_or(0, RawBytes::left),
            // A few bytes that could still have become another dialect are a line after all.
            None => 0,
        };
        let rest = &session.connection.input.rest;
        let is_in_line = rest.len() as u64 > raw_left && rest.last() != Some(&b'\n');
        self.on_bytes(id, if is_in_line { b"\n" } else { b"" });
    }

    pub(super) fn on_cut_off(&mut self, id: SessionId) {
        let Some(session) = self.session_mut(id) else { return };
        if session.connection.dialect() == Some(Dialect::Frame) {
            return self.on_end_of_input(id);
        }
        // A peer that speaks lines gets the answers to the whole ones. Half of a command could be
        // quite another command.
        session.connection.input.ended = true;
        self.on_bytes(id, b"");
    }

    /// Goes on where the session had to wait, if it may.
    pub(super) fn resume(&mut self, id: SessionId) {
        let limits = self.limits;
        let Some(session) = self.session_mut(id) else { return };
        if session.connection.input.paused && !session.must_pause(&limits) {
            session.connection.input.paused = false;
            self.on_bytes(id, b"");
            let is_on = |it: &&Connection| !it.input.paused && !it.is_closing();
            if let Some(connection) = self.connection(id).filter(is_on).map(|it| it.id) {
                self.effects.push_back(Effect::Resume { connection });
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
            let is_greeting = matches!(session.connection.phase, Phase::Greeting { .. });
            let (dialect, is_passed) = match &session.connection.voice {
                _ if session.connection.is_closing() => return bytes.len(),
                Some(voice) => (voice.dialect(), voice.may_pass_on(is_greeting)),
                None => match self.sniff(id, rest) {
                    Some(skipped) => {
                        used += skipped;
                        continue;
                    }
                    None => return used,
                },
            };
            match self.may_go_on(id, rest) {
                GoesOn::Yes => {}
                GoesOn::Later => return used,
                GoesOn::Never => return bytes.len(),
            }
            let passed = if is_passed { self.pass_on(id, rest) } else { Passed::Request };
            match passed {
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
            let mut place = std::mem::take(&mut session.connection.input.place);
            let max = session.connection.request_max_bytes();
            let is_last = session.connection.input.ended && session.connection.is_json();
            // Without the right the long way is taken, at whose end it is denied.
            let may_post = !is_greeting && session.rights.has(Right::Message);
            if may_post && let Some(post) = dialect.post(rest, place, max) {
                used += post.consumed;
                self.on_message(id, post.tag, post.to, post.text);
                continue;
            }
            match dialect.decode(rest, &mut place, max, scratch) {
                Ok(None) if is_last && !rest.is_empty() => {
                    self.on_labelled(id, is_greeting, &Label::NONE, Err(json::broken_off()));
                    return bytes.len();
                }
                Ok(None) => {
                    session.connection.input.place = place;
                    return used;
                }
                Ok(Some(Item { request, consumed, label })) => {
                    if label.is_some() && self.awaits_slot(id, &request) {
                        return used;
                    }
                    used += consumed;
                    self.note_what_follows(id, place, &request);
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
        // This is on the way of each message, and the limits are too large to be copied there.
        let Hub { sessions, limits, .. } = self;
        let session = sessions.get_mut(id.slot()).filter(|session| session.id == id);
        let Some(session) = session else { return GoesOn::Never };
        let operations = session.operations.len();
        let is_answer_due = match &mut session.connection.voice {
            Some(Voice::Line(line)) => line.awaits_answer(operations),
            _ => false,
        };
        if is_answer_due && !is_blank(rest) {
            self.on_nonsense(id, more_than_announced());
            return GoesOn::Never;
        }
        if session.must_pause(limits) {
            session.connection.input.paused = true;
            return GoesOn::Later;
        }
        if is_answer_due { GoesOn::Never } else { GoesOn::Yes }
    }

    /// Takes no more of a session after bytes that cannot be understood. The JSON requests before
    /// them were good: each has its reply before the connection ends.
    pub(super) fn on_nonsense(&mut self, id: SessionId, refusal: Refusal) {
        let Some(session) = self.session_mut(id) else { return };
        let has_work = session.has_work();
        match session.connection.json_mut().filter(|_| has_work) {
            Some(json) => {
                json.keep_nonsense(refusal);
                session.connection.input.ended = true;
            }
            None => self.close(id, CloseReason::Protocol, Some(&refusal)),
        }
    }

    /// Notes what is to be known of the bytes of a request before it is executed.
    #[inline]
    fn note_what_follows(
        &mut self,
        id: SessionId,
        place: Place,
        request: &Result<Request<'_>, Refusal>,
    ) {
        if !place.is_fresh()
            && let Some(connection) = self.connection_mut(id)
        {
            connection.input.place = place;
        }
        let raw = request.as_ref().ok().and_then(Request::raw_bytes);
        if let Some(left) = raw
            && let Some(line) = self.line_mut(id)
        {
            line.begin_raw(left);
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
            Ok(request) if is_greeting => self.on_first(id, request),
            Ok(request) => self.on_request(id, request),
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
    fn pass_on(&mut self, id: SessionId, rest: &[u8]) -> Passed {
        match self.connection(id).and_then(|connection| connection.voice.as_ref()) {
            Some(Voice::Line(_)) => self.consume_raw(id, rest),
            Some(Voice::Frame(_)) => self.pass_data_on(id, rest),
            Some(Voice::Json(_)) | None => Passed::Request,
        }
    }

    /// Decides the dialect, if the bytes suffice, and returns how many introduced it.
    fn sniff(&mut self, id: SessionId, bytes: &[u8]) -> Option<usize> {
        let session = self.session_mut(id)?;
        let Phase::Sniffing { deadline } = session.connection.phase else {
            unreachable!("the caller has looked")
        };
        let sniffed = match dialect::sniff(bytes) {
            Sniffed::Undecided if session.connection.input.ended && !bytes.is_empty() => {
                Sniffed::Speaks(Dialect::Line, 0)
            }
            Sniffed::Undecided => return None,
            Sniffed::Blank(count) => return Some(count),
            sniffed => sniffed,
        };
        let (origin, secured) = (session.connection.origin, session.connection.secured);
        let admitted = match dialect::unserved(sniffed) {
            Some(refusal) => Err((CloseReason::NotServed, refusal)),
            None => self
                .policy
                .admit(&origin, secured)
                .map_err(|refusal| (CloseReason::NotAdmitted, refusal)),
        };
        let (reason, refusal) = match (sniffed, admitted) {
            (Sniffed::Speaks(dialect, skipped), Ok(())) => {
                let session = self.session_mut(id)?;
                session.connection.voice = Some(Voice::new(dialect));
                session.connection.phase = Phase::Greeting { deadline };
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
        match self.session_mut(id).filter(|session| !session.connection.is_closing()) {
            Some(session) if joined.len() > LARGE_REST_BYTES => {
                session.connection.input.rest = std::mem::take(joined);
                let bytes = session.connection.input.rest.len();
                self.bound_unfinished(id, bytes);
            }
            _ => self.keep(id, joined),
        }
    }

    fn keep(&mut self, id: SessionId, rest: &[u8]) {
        let Some(session) = self.session_mut(id) else { return };
        if session.connection.is_closing() || rest.is_empty() {
            // An idle session owns no buffer.
            session.connection.input.rest = Vec::new();
        } else {
            session.connection.input.rest = rest.to_vec();
        }
        let bytes = session.connection.input.rest.len();
        self.bound_unfinished(id, bytes);
    }
}
