//! From bytes to requests.

use super::{CloseReason, Hub, Phase, Session, SessionId, session::Inbound};
use crate::wire::{
    Dialect, Event, Request,
    dialect::{self, Sniffed},
    error::{ErrorCode, Refusal},
};

impl Hub {
    pub(super) fn on_bytes(&mut self, id: SessionId, bytes: &[u8]) {
        let now = self.now;
        let Some(session) = self.session_mut(id) else { return };
        if !bytes.is_empty() {
            session.heard = now;
            if std::mem::take(&mut session.pinged) {
                self.arm(id);
            }
        }
        let Some(session) = self.session_mut(id) else { return };
        if session.is_closing() {
            return;
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
        if !input.ended || input.raw_left <= input.rest.len() as u64 {
            return;
        }
        (input.raw_left, input.rest) = (0, Vec::new());
        input.paused = false;
        let Some(&taker) = session.operations.first() else { return };
        match self.operation_mut(taker).is_some_and(|operation| operation.end.is_some()) {
            true => self.on_end_input_cut(taker),
            false => self.on_input_end(id, 0, None),
        }
    }

    /// Joins the rest with just so much of the news as makes it a request, and goes on with what
    /// follows where it lies: most of a large portion is not copied.
    fn complete_rest(&mut self, id: SessionId, mut bytes: &[u8]) {
        let mut joined = std::mem::take(&mut self.joined);
        joined.clear();
        let session = self.session_mut(id).expect("the caller has it");
        joined.append(&mut session.input.rest);
        loop {
            let session = self.session(id);
            let missing = match session {
                // What is no line needs no end of one.
                Some(session) if session.input.raw_left > 0 => Some(0),
                _ => session
                    .and_then(Session::dialect)
                    .and_then(|dialect| dialect.missing(&joined, bytes)),
            };
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
                self.keep(id, &joined);
                break;
            }
        }
        self.joined = joined;
    }

    pub(super) fn on_end_of_input(&mut self, id: SessionId) {
        let Some(session) = self.session_mut(id) else { return };
        session.input.ended = true;
        match session.phase {
            Phase::Closing { .. } => {}
            // Frames have a goodbye. Whoever leaves without it did not mean to.
            Phase::Greeting { dialect: Dialect::Frame, .. }
            | Phase::Ready { dialect: Dialect::Frame, .. } => {
                self.remove(id, CloseReason::PeerGone);
            }
            // A few bytes that could still have become another dialect are a line after all.
            Phase::Sniffing { .. } | Phase::Greeting { .. } | Phase::Ready { .. } => {
                let Inbound { rest, raw_left, .. } = &session.input;
                let is_in_line = rest.len() as u64 > *raw_left && rest.last() != Some(&b'\n');
                self.on_bytes(id, if is_in_line { b"\n" } else { b"" });
            }
        }
    }

    /// Goes on where the session had to wait, if it may.
    pub(super) fn resume(&mut self, id: SessionId) {
        let Some(session) = self.session(id) else { return };
        if session.input.paused && !self.must_pause(session) {
            self.session_mut(id).expect("it was there").input.paused = false;
            self.on_bytes(id, b"");
            let still_on = self.session(id).is_some_and(|it| !it.input.paused && !it.is_closing());
            if still_on {
                self.effects.push_back(super::Effect::Resume { session: id });
            }
        } else {
            self.close_if_finished(id);
        }
    }

    /// Whether nothing of what the session says can be dealt with now.
    pub(super) fn must_pause(&self, session: &Session) -> bool {
        match session.input.raw_left {
            0 => session.must_wait(&self.limits),
            // Bytes that are no requests have no answers that could fill its queue.
            _ => self.raw_room(session) == 0,
        }
    }

    /// How many of the raw bytes that are due can be taken now.
    fn raw_room(&self, session: &Session) -> usize {
        let Some(taker) = session.operations.first() else { return usize::MAX };
        let window = self.limits.input_window_bytes;
        let taker = &self.operations[taker.slot()];
        match (&taker.end, &taker.input) {
            (Some(end), _) => end.room(window),
            (None, Some(input)) if !input.closed => window as usize - input.bytes.len(),
            _ => usize::MAX,
        }
    }

    /// Gives raw bytes at the head of `bytes` to the operation that they belong to, as far as it
    /// takes them; returns how many that were.
    fn take_raw(&mut self, id: SessionId, bytes: &[u8]) -> usize {
        let session = self.session(id).expect("the caller has it");
        let left = usize::try_from(session.input.raw_left).unwrap_or(usize::MAX);
        let count = self.raw_room(session).min(left).min(bytes.len());
        if count == 0 {
            return 0;
        }
        self.on_input(id, 0, &bytes[..count]);
        let Some(session) = self.session_mut(id) else { return bytes.len() };
        session.input.raw_left -= count as u64;
        if session.input.raw_left == 0 {
            self.on_input_end(id, 0, None);
        }
        count
    }

    /// Executes the requests in `bytes` and returns how many bytes they had.
    fn consume(&mut self, id: SessionId, bytes: &[u8]) -> usize {
        let mut used = 0;
        loop {
            let Some(session) = self.session(id) else { return bytes.len() };
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
                Phase::Ready { dialect, .. } => (dialect, false),
            };
            if self.must_pause(session) {
                self.session_mut(id).expect("it was there").input.paused = true;
                return used;
            }
            if session.input.raw_left > 0 {
                match self.take_raw(id, rest) {
                    0 => return used,
                    count => used += count,
                }
                continue;
            }
            let session = self.session_mut(id).expect("it was there");
            let scanned = std::mem::take(&mut session.input.scanned);
            let line_max = session.line_max_bytes();
            if !is_greeting && let Some(post) = dialect.post(rest, scanned, line_max) {
                used += post.consumed;
                self.on_message(id, post.tag, post.to, post.text);
                continue;
            }
            match dialect.decode(rest, scanned, line_max) {
                Ok(None) => {
                    session.input.scanned = rest.len();
                    return used;
                }
                Ok(Some(item)) => {
                    used += item.consumed;
                    let raw = item.request.as_ref().ok().and_then(Request::raw_bytes);
                    let raw = raw.filter(|_| dialect == Dialect::Line);
                    session.input.raw_left = raw.unwrap_or(0);
                    match item.request {
                        Ok(request) if is_greeting => self.on_first(id, dialect, request),
                        Ok(request) => self.on_request(id, dialect, request),
                        Err(_) if is_greeting && dialect == Dialect::Frame => {
                            let refusal = super::requests::hello_first();
                            self.close(id, CloseReason::Protocol, Some(&refusal));
                        }
                        Err(refusal) => self.say(id, &Event::Error(&refusal)),
                    }
                    if raw == Some(0) {
                        self.on_input_end(id, 0, None);
                    }
                }
                Err(refusal) => {
                    self.close(id, CloseReason::Protocol, Some(&refusal));
                    return bytes.len();
                }
            }
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
            sniffed => sniffed,
        };
        let is_local = session.is_local;
        if let Sniffed::Speaks(dialect, skipped) = sniffed
            && is_local
        {
            session.phase = Phase::Greeting { dialect, deadline };
            return Some(skipped);
        }
        let (reason, refusal) = match dialect::unserved(sniffed) {
            Some(refusal) => (CloseReason::NotServed, refusal),
            None => (CloseReason::NotAdmitted, not_local()),
        };
        self.close_with(id, reason, &dialect::farewell(sniffed, &refusal));
        Some(bytes.len())
    }

    fn keep(&mut self, id: SessionId, rest: &[u8]) {
        let Some(session) = self.session_mut(id) else { return };
        if session.is_closing() || rest.is_empty() {
            // An idle session owns no buffer.
            session.input.rest = Vec::new();
        } else {
            session.input.rest = rest.to_vec();
        }
    }
}

/// One line for whoever is not on this machine.
fn not_local() -> Refusal {
    let text = "this server serves connections from its own machine only (::1 and 127.0.0.1); \
                log in there, or forward a port by ssh";
    Refusal::new(0, ErrorCode::Denied, text)
}
