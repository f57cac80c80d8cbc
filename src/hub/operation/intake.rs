//! Standard input on its way to what the shell does.

use super::super::Time;

/// Bytes that the client has sent and the shell has not dealt with.
#[derive(Debug)]
pub(in crate::hub) struct Intake {
    bytes: Vec<u8>,
    /// Bytes that the shell has taken and not dealt with.
    taken: usize,
    /// Bytes that may wait.
    window: usize,
    /// Whether it is bytes for a disk, which somebody is expected to send.
    is_upload: bool,
    /// When some of it came last.
    moved: Time,
    /// The client has said that no more comes.
    ended: bool,
    /// The command has closed its end: what comes is dropped.
    closed: bool,
}

/// What became of bytes that came.
pub(in crate::hub) enum Taken {
    /// They wait for the shell.
    Kept,
    /// Nobody takes them any more.
    Dropped,
    /// More than so many may not be on their way, and none after the end.
    TooMany {
        /// Bytes.
        window: usize,
    },
}

impl Intake {
    pub(in crate::hub) fn new(window: usize, is_upload: bool, now: Time) -> Intake {
        let (bytes, taken, ended, closed) = (Vec::new(), 0, false, false);
        Intake { bytes, taken, window, is_upload, moved: now, ended, closed }
    }

    pub(in crate::hub) fn is_upload(&self) -> bool {
        self.is_upload
    }

    /// Bytes that wait for the shell.
    pub(in crate::hub) fn held_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes that may come; `None` where none is taken any more.
    pub(in crate::hub) fn room(&self) -> Option<usize> {
        let room = self.window.saturating_sub(self.bytes.len() + self.taken);
        (!self.closed).then_some(room)
    }

    /// Since when an upload waits for its owner, if it does.
    pub(in crate::hub) fn waits_since(&self) -> Option<Time> {
        let is_fed = !self.bytes.is_empty() || self.taken > 0;
        (self.is_upload && !self.ended && !is_fed).then_some(self.moved)
    }

    /// Takes in bytes of the client.
    pub(in crate::hub) fn add(&mut self, bytes: &[u8], now: Time) -> Taken {
        if self.closed {
            return Taken::Dropped;
        }
        let window = self.window;
        if self.ended || self.bytes.len() + self.taken + bytes.len() > window {
            return Taken::TooMany { window };
        }
        self.bytes.extend_from_slice(bytes);
        self.moved = now;
        Taken::Kept
    }

    /// Takes in all of it at once, whatever the window.
    pub(in crate::hub) fn set_whole(&mut self, bytes: Vec<u8>) {
        (self.bytes, self.ended) = (bytes, true);
    }

    /// The client has said that no more comes.
    pub(in crate::hub) fn end(&mut self) {
        self.ended = true;
    }

    /// What is next for the shell, and whether nothing comes after it.
    pub(in crate::hub) fn next(&self) -> (&[u8], bool) {
        (&self.bytes, self.ended)
    }

    /// The same, to be kept by the shell; what comes next gathers in `spare`.
    pub(in crate::hub) fn take(&mut self, spare: Vec<u8>) -> (Vec<u8>, bool) {
        let bytes = std::mem::replace(&mut self.bytes, spare);
        self.taken += bytes.len();
        (bytes, self.ended)
    }

    /// The shell has dealt with so many bytes that it had taken.
    pub(in crate::hub) fn note_done(&mut self, count: usize) {
        self.taken -= count;
    }

    /// The shell has used so many bytes of what is next.
    pub(in crate::hub) fn consume(&mut self, count: usize) {
        self.bytes.drain(..count);
    }

    /// The command has closed its end; how many bytes are dropped by that.
    pub(in crate::hub) fn close(&mut self) -> usize {
        self.closed = true;
        std::mem::take(&mut self.bytes).len()
    }

    /// Panics where it keeps more than it may: `whole` bytes can have come at once.
    pub(in crate::hub) fn check(&self, whole: usize) {
        assert!(self.bytes.len() <= whole.max(self.window), "too much input is held");
        assert!(self.bytes.is_empty() || !self.closed, "what nobody takes is kept");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_what_waits_and_what_is_taken_and_not_dealt_with() {
        let mut intake = Intake::new(10, true, Time(1));
        assert_eq!(intake.waits_since(), Some(Time(1)));
        assert!(matches!(intake.add(b"123456", Time(2)), Taken::Kept));
        assert_eq!(intake.take(Vec::new()), (b"123456".to_vec(), false));
        assert_eq!((intake.room(), intake.waits_since()), (Some(4), None));
        assert!(matches!(intake.add(b"12345", Time(3)), Taken::TooMany { window: 10 }));
        intake.note_done(6);
        assert_eq!((intake.room(), intake.waits_since()), (Some(10), Some(Time(2))));
        intake.end();
        assert!(matches!(intake.add(b"1", Time(3)), Taken::TooMany { .. }), "it was the end");
        assert_eq!(intake.close(), 0);
        assert!(matches!(intake.add(b"1", Time(3)), Taken::Dropped));
        assert_eq!(intake.room(), None);
    }
}
