//! Output of commands as lines.

/// Bytes of one output cut into whole lines, for a screen that others write to as well.
#[derive(Debug, Default)]
pub struct LineBuffer {
    rest: Vec<u8>,
    /// The line that goes on has its beginning on the screen.
    has_shown: bool,
}

/// A line longer than this is shown in pieces.
pub(super) const LINE_PIECE_BYTES: usize = 8192;

impl LineBuffer {
    /// Adds bytes and gives back all lines that are whole now.
    pub fn push(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let has_shown = std::mem::take(&mut self.has_shown);
        // The end of a line that is shown already makes no empty one.
        let bytes = bytes.strip_prefix(b"\n").filter(|_| has_shown).unwrap_or(bytes);
        self.rest.extend_from_slice(bytes);
        let end = match memchr::memrchr(b'\n', &self.rest) {
            Some(at) => at + 1,
            None if self.rest.len() > LINE_PIECE_BYTES => self.rest.len(),
            None => return None,
        };
        let rest = self.rest.split_off(end);
        Some(std::mem::replace(&mut self.rest, rest))
    }

    /// Whether a line has begun that has no end.
    pub fn has_part(&self) -> bool {
        !self.rest.is_empty()
    }

    /// What has come of the line that has no end yet: a question, or how far something is. A
    /// character that is not whole stays.
    pub fn part(&mut self) -> Option<Vec<u8>> {
        let whole = match std::str::from_utf8(&self.rest) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.rest.len(),
        };
        let rest = self.rest.split_off(whole);
        let part = std::mem::replace(&mut self.rest, rest);
        self.has_shown |= !part.is_empty();
        Some(part).filter(|part| !part.is_empty())
    }

    /// What is left when nothing follows.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        Some(std::mem::take(&mut self.rest)).filter(|rest| !rest.is_empty())
    }
}

/// What a terminal would have of a line in the end: a CR begins it again.
pub(super) fn last_writing(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    memchr::memrchr(b'\r', line).map_or(line, |at| &line[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_line_is_given_without_its_half_character() {
        let mut lines = LineBuffer::default();
        assert_eq!(lines.push("a\nName? gr\u{fc}".as_bytes()), Some(b"a\n".to_vec()));
        assert!(lines.has_part());
        assert_eq!(lines.part(), Some("Name? gr\u{fc}".into()));
        assert_eq!((lines.part(), lines.has_part()), (None, false));
        assert_eq!(lines.push(b"\nnext\n"), Some(b"next\n".to_vec()));
        assert_eq!(lines.push(b"x\xe6\x97"), None);
        assert_eq!((lines.part(), lines.has_part()), (Some(b"x".to_vec()), true));
        assert_eq!(lines.push(b"\xa5\n"), Some("\u{65e5}\n".into()));
        assert_eq!(lines.push(b"\xff"), None);
        assert_eq!(lines.part(), Some(b"\xff".to_vec()), "this will be no character ever");
    }

    #[test]
    fn a_carriage_return_begins_the_line_again() {
        for (line, last) in [
            (&b"\r10 %\r20 %"[..], &b"20 %"[..]),
            (b"10 %\r20 %\r", b"20 %"),
            (b"plain", b"plain"),
            (b"dos\r", b"dos"),
            (b"\r", b""),
        ] {
            assert_eq!(last_writing(line), last);
        }
    }
}
