//! Output of commands as lines.

/// Bytes of one output cut into whole lines, for a screen that others write to as well.
#[derive(Debug, Default)]
pub struct LineBuffer {
    rest: Vec<u8>,
}

/// A line longer than this is shown in pieces.
pub(super) const LINE_PIECE_BYTES: usize = 8192;

impl LineBuffer {
    /// Adds bytes and gives back all lines that are whole now.
    pub fn push(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.rest.extend_from_slice(bytes);
        let end = match memchr::memrchr(b'\n', &self.rest) {
            Some(at) => at + 1,
            None if self.rest.len() > LINE_PIECE_BYTES => self.rest.len(),
            None => return None,
        };
        let rest = self.rest.split_off(end);
        Some(std::mem::replace(&mut self.rest, rest))
    }

    /// What is left when nothing follows.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        Some(std::mem::take(&mut self.rest)).filter(|rest| !rest.is_empty())
    }
}
