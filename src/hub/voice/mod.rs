//! What only one dialect needs, of a peer that has shown which one it speaks.
//!
//! A peer whose first bytes have not told its dialect has no voice. What all dialects share, such
//! as the outbox and the bytes that are no request yet, is not in here.

pub(super) mod frame;
pub(super) mod held;
pub(super) mod json;
pub(super) mod line;
pub(super) mod replies;

use frame::FrameVoice;
use held::Held;
use json::JsonVoice;
use line::LineVoice;

use crate::{
    limits::{
        LINE_FIRST_MAX_BYTES, LINE_MAX_BYTES, Limits, OBJECT_FIRST_MAX_BYTES, OBJECT_MAX_BYTES,
    },
    wire::Dialect,
};

/// The dialect of a peer, with what that alone needs.
#[derive(Debug)]
pub(super) enum Voice {
    Line(LineVoice),
    Json(JsonVoice),
    Frame(FrameVoice),
}

/// How far a peer has come that wants to send a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum PeerStage {
    /// It has to log in yet, or its login is being looked at.
    Untrusted,
    /// It need not log in, and has said nothing valid yet.
    New,
    /// It is served.
    Served,
}

impl Voice {
    pub(super) fn new(dialect: Dialect) -> Voice {
        match dialect {
            Dialect::Line => Voice::Line(LineVoice::default()),
            Dialect::Json => Voice::Json(JsonVoice::default()),
            Dialect::Frame => Voice::Frame(FrameVoice::default()),
        }
    }

    #[inline]
    pub(super) fn dialect(&self) -> Dialect {
        match self {
            Voice::Line(_) => Dialect::Line,
            Voice::Json(_) => Dialect::Json,
            Voice::Frame(_) => Dialect::Frame,
        }
    }

    /// The longest request that it may send: a line, an object, or the body of a frame. A peer
    /// that needs no login may do anything at once, and cost as much.
    #[inline]
    pub(super) fn request_max_bytes(&self, standing: PeerStage) -> usize {
        match (self, standing) {
            (Voice::Json(_), PeerStage::Untrusted) => OBJECT_FIRST_MAX_BYTES,
            (Voice::Json(_), PeerStage::New | PeerStage::Served) => OBJECT_MAX_BYTES,
            (Voice::Line(_) | Voice::Frame(_), PeerStage::Served) => LINE_MAX_BYTES,
            (Voice::Line(_) | Voice::Frame(_), _) => LINE_FIRST_MAX_BYTES,
        }
    }

    /// Whether its next request must wait while so many operations are under way: with lines, for
    /// the end of the request before; with JSON, for its replies to leave, or for one operation to
    /// end where no more may be under way.
    #[inline]
    pub(super) fn must_wait(&self, operations: usize, limits: &Limits) -> bool {
        match self {
            Voice::Line(line) => operations > 0 && !line.is_answer_due(),
            Voice::Json(json) => {
                let is_full = operations >= limits.operations_max;
                json.is_backed_up() || is_full && json.awaits_slot()
            }
            Voice::Frame(_) => false,
        }
    }

    /// Whether bytes are on their way that are no requests.
    #[inline]
    pub(super) fn takes_raw(&self) -> bool {
        matches!(self, Voice::Line(line) if line.raw().is_some())
    }

    /// Whether the next bytes may be no request, but such as are passed on: raw ones, or data
    /// behind the greeting.
    #[inline]
    pub(super) fn may_pass_on(&self, is_greeting: bool) -> bool {
        match self {
            Voice::Line(line) => line.raw().is_some(),
            Voice::Json(_) => false,
            Voice::Frame(_) => !is_greeting,
        }
    }

    /// Whether the next bytes are passed on as they come, and never put together.
    pub(super) fn is_loose(&self) -> bool {
        match self {
            Voice::Line(line) => line.raw().is_some(),
            Voice::Json(_) => false,
            Voice::Frame(frame) => frame.has_data_begun(),
        }
    }

    /// Bytes of output of an operation that it has room for before it has said so. Lines have no
    /// credit: the connection itself holds them back. Replies have a bound.
    pub(super) fn output_window_bytes(&self, limits: &Limits) -> u64 {
        match self {
            Voice::Frame(_) => u64::from(limits.output_window_bytes),
            Voice::Line(_) | Voice::Json(_) => u64::MAX,
        }
    }

    /// Whether its output stands where anything may follow: at the start of a line, or of an
    /// object.
    #[inline]
    pub(super) fn is_at_start(&self) -> bool {
        match self {
            Voice::Line(line) => line.is_at_start(),
            Voice::Json(json) => !json.is_within_object(),
            Voice::Frame(_) => true,
        }
    }

    /// Whether its output stands where no words have a place: within a file or an object.
    pub(super) fn is_wordless(&self) -> bool {
        match self {
            Voice::Line(line) => line.is_in_file(),
            Voice::Json(json) => json.is_within_object(),
            Voice::Frame(_) => false,
        }
    }

    fn slot(&mut self) -> Option<&mut Option<Box<Held>>> {
        match self {
            Voice::Line(line) => Some(line.held_mut()),
            Voice::Json(json) => Some(json.held_mut()),
            Voice::Frame(_) => None,
        }
    }

    /// Where words wait that must not come now; `None` where they may.
    #[inline]
    pub(super) fn hold(&mut self) -> Option<&mut Held> {
        match self.is_at_start() {
            true => None,
            false => self.slot().map(|held| &mut **held.get_or_insert_default()),
        }
    }

    /// Holds words back that must not come now.
    pub(super) fn hold_words(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(held) = self.slot() else { return };
        write(&mut held.get_or_insert_default().bytes);
        // Lines have no word for some events.
        held.take_if(|held| held.bytes.is_empty());
    }

    #[inline]
    pub(super) fn held(&self) -> Option<&Held> {
        match self {
            Voice::Line(line) => line.held(),
            Voice::Json(json) => json.held(),
            Voice::Frame(_) => None,
        }
    }

    /// What was held back and may go on.
    pub(super) fn release(&mut self) -> Option<Box<Held>> {
        match self {
            Voice::Json(json) if json.is_within_object() => None,
            _ => self.take_held(),
        }
    }

    /// What was held back and is lost.
    pub(super) fn take_held(&mut self) -> Option<Box<Held>> {
        self.slot()?.take()
    }

    /// Its output is brought to the start of a line; whether it takes a line end for that.
    pub(super) fn finish_line(&mut self) -> bool {
        match self {
            Voice::Line(line) => line.finish(),
            Voice::Json(_) | Voice::Frame(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_wait_where_a_line_or_an_object_has_begun() {
        let mut lines = LineVoice::default();
        lines.begin_output();
        lines.end_output(b'x');
        let mut json = JsonVoice::default();
        json.is_within_object = true;
        for mut voice in [Voice::Line(lines), Voice::Json(json)] {
            voice.hold_words(|_| {});
            assert!(voice.held().is_none(), "nothing was said");
            voice.hold_words(|out| out.extend_from_slice(b"late\n"));
            assert_eq!(voice.held().map(|held| held.bytes.len()), Some(5));
            let takes_line_end = voice.finish_line();
            assert_eq!(takes_line_end, voice.dialect() == Dialect::Line);
            let is_over = voice.is_at_start();
            assert_eq!(voice.release().is_some(), is_over, "an object ends by itself");
        }
        let mut frames = Voice::new(Dialect::Frame);
        assert!(frames.is_at_start() && frames.hold().is_none() && !frames.finish_line());
    }

    #[test]
    fn a_voice_is_small_as_every_session_has_one() {
        assert!(size_of::<Option<Voice>>() <= 48, "{}", size_of::<Option<Voice>>());
    }
}
