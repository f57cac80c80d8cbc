//! Lines: where their output stands, and the bytes of files among their requests.

use super::{
    super::{Hub, OperationKind, SessionId, inbound::Passed},
    Voice,
    held::Held,
};
use crate::wire::{ErrorCode, Event, Outcome, Refusal};

/// What only a peer needs that speaks lines.
#[derive(Debug, Default)]
pub(in crate::hub) struct LineVoice {
    column: Column,
    /// Words that came while the output stood elsewhere than at a line's start.
    held: Option<Box<Held>>,
    coming: NextBytes,
}

/// Where the output stands.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Column {
    /// At the start of a line: anything may follow.
    #[default]
    LineStart,
    /// Within a line of a command's output.
    MidLine,
    /// Among the bytes of a file.
    InFile,
}

/// What the next bytes are.
#[derive(Debug, Default)]
enum NextBytes {
    #[default]
    Requests,
    /// Bytes of a file, for the operation under way or, where that was refused, for nobody.
    Raw(RawBytes),
    /// All bytes of a file have come, and until its operation is answered no request may: what
    /// comes is taken for more of the file.
    Answer,
}

/// Bytes of a file among lines.
#[derive(Debug)]
pub(in crate::hub) struct RawBytes {
    /// Bytes still to come.
    left: u64,
    /// What is said after them, where nobody takes them and it was not said at once.
    refusal: Option<Box<Refusal>>,
}

impl LineVoice {
    #[inline]
    pub(in crate::hub) fn is_at_start(&self) -> bool {
        self.column == Column::LineStart
    }

    pub(in crate::hub) fn is_in_file(&self) -> bool {
        self.column == Column::InFile
    }

    /// The bytes of a file are next.
    pub(in crate::hub) fn begin_file(&mut self) {
        self.column = Column::InFile;
    }

    /// The output of a command is next. This is what the column tells of; it need not wait for the
    /// start of a line.
    pub(in crate::hub) fn begin_output(&mut self) {
        self.column = Column::LineStart;
    }

    /// Output was written whose last byte is this.
    pub(in crate::hub) fn end_output(&mut self, last: u8) {
        self.column = if last == b'\n' { Column::LineStart } else { Column::MidLine };
    }

    /// Whatever it was within is over; whether a line end is due.
    pub(super) fn finish(&mut self) -> bool {
        let was_within = self.column == Column::MidLine;
        self.column = Column::LineStart;
        was_within
    }

    #[inline]
    pub(super) fn held(&self) -> Option<&Held> {
        self.held.as_deref()
    }

    pub(super) fn held_mut(&mut self) -> &mut Option<Box<Held>> {
        &mut self.held
    }

    #[inline]
    pub(in crate::hub) fn raw(&self) -> Option<&RawBytes> {
        match &self.coming {
            NextBytes::Raw(raw) => Some(raw),
            NextBytes::Requests | NextBytes::Answer => None,
        }
    }

    fn raw_mut(&mut self) -> Option<&mut RawBytes> {
        match &mut self.coming {
            NextBytes::Raw(raw) => Some(raw),
            NextBytes::Requests | NextBytes::Answer => None,
        }
    }

    /// So many bytes are next that are no requests.
    pub(in crate::hub) fn begin_raw(&mut self, left: u64) {
        self.coming = NextBytes::Raw(RawBytes { left, refusal: None });
    }

    /// Keeps an answer until the bytes of the file have come that nobody takes; gives it back
    /// where none come.
    pub(in crate::hub) fn refuse_behind(&mut self, refusal: Refusal) -> Result<(), Refusal> {
        match self.raw_mut() {
            Some(raw) => {
                raw.refusal = Some(Box::new(refusal));
                Ok(())
            }
            None => Err(refusal),
        }
    }

    /// The file has come or never will; what is next then.
    fn end_raw(&mut self, coming: NextBytes) -> Option<RawBytes> {
        match std::mem::replace(&mut self.coming, coming) {
            NextBytes::Raw(raw) => Some(raw),
            NextBytes::Requests | NextBytes::Answer => None,
        }
    }

    /// Whether all of a file has come that is not answered yet.
    #[inline]
    pub(super) fn is_answer_due(&self) -> bool {
        matches!(self.coming, NextBytes::Answer)
    }

    /// The same, looked at with what is under way: with nothing, it was answered.
    #[inline]
    pub(in crate::hub) fn awaits_answer(&mut self, operations: usize) -> bool {
        if operations == 0 && self.is_answer_due() {
            self.coming = NextBytes::Requests;
        }
        self.is_answer_due()
    }
}

impl RawBytes {
    /// Bytes still to come.
    pub(in crate::hub) fn left(&self) -> u64 {
        self.left
    }
}

pub(in crate::hub) fn is_blank(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().is_empty()
}

/// What is said where the file is longer than its announcement: it has grown since it was measured,
/// and what has been added could read like a request.
pub(in crate::hub) fn more_than_announced() -> Refusal {
    let text = "more bytes came than were announced; the next request goes behind the answer";
    Refusal::new(0, ErrorCode::Protocol, text)
}

impl Hub {
    pub(in crate::hub) fn line_mut(&mut self, id: SessionId) -> Option<&mut LineVoice> {
        match &mut self.connection_mut(id)?.voice {
            Some(Voice::Line(line)) => Some(line),
            _ => None,
        }
    }

    /// Sees to it that nobody waits for raw bytes that cannot come any more.
    pub(in crate::hub) fn note_cut_input(&mut self, id: SessionId) {
        let Some(session) = self.session_mut(id).filter(|session| session.connection.input.ended)
        else {
            return;
        };
        let rest = session.connection.input.rest.len() as u64;
        let Some(Voice::Line(line)) = &mut session.connection.voice else { return };
        if line.raw().is_none_or(|raw| raw.left <= rest) {
            return;
        }
        let Some(raw) = line.end_raw(NextBytes::Requests) else { return };
        (session.connection.input.rest, session.connection.input.paused) = (Vec::new(), false);
        let taker = session.operations.first().copied();
        self.unfinished.set(id, 0);
        let taker = taker.and_then(|taker| self.operation(taker));
        match taker.map(|taker| (taker.id(), &taker.kind)) {
            Some((offer, OperationKind::Offer(_))) => self.on_offer_cut(offer),
            Some((end, OperationKind::Pipe(_))) => self.on_pipe_cut(end),
            // Whatever writes it finds that out.
            Some((_, OperationKind::Shell(_))) | None => self.answer_raw(id, raw),
        }
    }

    /// Takes bytes of a file that come among lines, as many as there is room for.
    pub(in crate::hub) fn consume_raw(&mut self, id: SessionId, bytes: &[u8]) -> Passed {
        let window = self.limits.input_window_bytes;
        let taker = self.operation_of(id, 0);
        let has_taker = taker.is_some();
        let room = taker.and_then(|operation| operation.input_room(window)).unwrap_or(usize::MAX);
        let Some(raw) = self.line_mut(id).and_then(LineVoice::raw_mut) else {
            return Passed::Request;
        };
        let is_wanted = raw.refusal.is_none();
        let room = if is_wanted { room } else { usize::MAX };
        let left = usize::try_from(raw.left).unwrap_or(usize::MAX);
        let count = bytes.len().min(left).min(room);
        raw.left -= count as u64;
        let is_end = raw.left == 0;
        if count == 0 && !is_end {
            if let Some(session) = self.session_mut(id) {
                session.connection.input.paused = !bytes.is_empty();
            }
            return Passed::Wait;
        }
        if !is_end {
            if is_wanted {
                self.on_input(id, 0, &bytes[..count]);
            }
            return Passed::Some(count);
        }
        let is_taken = is_wanted && has_taker;
        let coming = if is_taken { NextBytes::Answer } else { NextBytes::Requests };
        let raw = self.line_mut(id).and_then(|line| line.end_raw(coming));
        if is_taken && !is_blank(&bytes[count..]) {
            self.on_nonsense(id, more_than_announced());
            return Passed::Some(bytes.len());
        }
        if is_wanted && count > 0 {
            self.on_input(id, 0, &bytes[..count]);
        }
        if let Some(raw) = raw {
            self.answer_raw(id, raw);
        }
        Passed::Some(count)
    }

    /// Nothing more comes of a file among lines.
    fn answer_raw(&mut self, id: SessionId, raw: RawBytes) {
        match raw.refusal {
            Some(refusal) => {
                let outcome = Outcome::Failed(*refusal);
                self.say(id, &Event::End { tag: 0, outcome: &outcome });
            }
            None => self.on_input_end(id, 0, None),
        }
    }

    /// Brings the output of a line session to the start of a line. An object ends by itself.
    pub(in crate::hub) fn finish_line(&mut self, id: SessionId) {
        let session = self.session_mut(id);
        let voice = session.and_then(|session| session.connection.voice.as_mut());
        if voice.is_some_and(Voice::finish_line) {
            self.put(id, |out| out.push(b'\n'));
        }
    }

    /// Lets go what was held back until the start of a line or the end of an object.
    pub(in crate::hub) fn release_held(&mut self, id: SessionId) {
        let voice = self.connection_mut(id).and_then(|connection| connection.voice.as_mut());
        if let Some(held) = voice.and_then(Voice::release) {
            self.put_with(id, |connection, pool| held.release(&mut connection.outbox, pool));
        }
    }
}
