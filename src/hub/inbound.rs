//! From bytes to requests.

use super::{CloseReason, Hub, Phase, SessionId};
use crate::wire::{
    Dialect, Event, Item,
    dialect::{self, Sniffed},
    error::{ErrorCode, Refusal},
    json::{self, Label},
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
        self.close_if_finished(id);
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
            let missing = session.and_then(|session| {
                session.dialect()?.missing(&joined, bytes, session.input.place)
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
            Phase::Greeting { dialect: Dialect::Json, .. }
            | Phase::Ready { dialect: Dialect::Json, .. } => self.on_bytes(id, b""),
            Phase::Sniffing { .. } | Phase::Greeting { .. } | Phase::Ready { .. } => {
                match session.input.rest.last() {
                    None | Some(b'\n') => self.on_bytes(id, b""),
                    Some(_) => self.on_bytes(id, b"\n"),
                }
            }
        }
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
        let mut scratch = std::mem::take(&mut self.scratch);
        let used = self.consume_with(id, bytes, &mut scratch);
        self.scratch = scratch;
        used
    }

    fn consume_with(&mut self, id: SessionId, bytes: &[u8], scratch: &mut Vec<u8>) -> usize {
        let limits = self.limits;
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
                Phase::Ready { dialect, .. } => (dialect, false),
            };
            if session.must_pause(&limits) {
                session.input.paused = true;
                return used;
            }
            let mut place = std::mem::take(&mut session.input.place);
            let max = session.request_max_bytes();
            if !is_greeting && let Some(post) = dialect.post(rest, place, max) {
                used += post.consumed;
                self.on_message(id, post.tag, post.to, post.text);
                continue;
            }
            match dialect.decode(rest, &mut place, max, scratch) {
                Ok(None) if session.input.ended && session.is_json() && !rest.is_empty() => {
                    let refusal = json::broken_off();
                    self.on_labelled(id, is_greeting, &Label::NONE, Err(refusal));
                    return bytes.len();
                }
                Ok(None) => {
                    session.input.place = place;
                    return used;
                }
                Ok(Some(Item { request, consumed, label: Some(label) })) => {
                    if self.awaits_slot(id, &request) {
                        return used;
                    }
                    used += consumed;
                    self.on_labelled(id, is_greeting, &label, request);
                }
                Ok(Some(Item { request, consumed, label: None })) => {
                    used += consumed;
                    match request {
                        Ok(request) if is_greeting => self.on_first(id, dialect, request),
                        Ok(request) => self.on_request(id, dialect, request),
                        Err(_) if is_greeting && dialect == Dialect::Frame => {
                            let refusal = super::requests::hello_first();
                            self.close(id, CloseReason::Protocol, Some(&refusal));
                        }
                        Err(refusal) => self.say(id, &Event::Error(&refusal)),
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
