//! The text of a message, known to be UTF-8.

use std::fmt;

use super::escape::is_plain;

/// UTF-8, checked once. From lines it is also known whether all of it is printable ASCII: most
/// texts are, and such a text needs no further look on its way from one session to another.
#[derive(Clone, Copy, Eq)]
pub struct Text<'a> {
    /// Invariant: UTF-8.
    bytes: &'a [u8],
    /// Whether [`is_plain`] is known to hold for the bytes.
    known_plain: bool,
}

impl<'a> Text<'a> {
    /// Checks bytes; an error names the first byte, from 0, that is not part of any character.
    pub fn parse(bytes: &'a [u8]) -> Result<Text<'a>, usize> {
        if !bytes.is_ascii()
            && let Err(error) = std::str::from_utf8(bytes)
        {
            return Err(error.valid_up_to());
        }
        Ok(Text { bytes, known_plain: false })
    }

    /// A part of bytes that were found plain already.
    pub(super) fn plain_part(bytes: &'a [u8]) -> Text<'a> {
        debug_assert!(is_plain(bytes));
        Text { bytes, known_plain: true }
    }

    /// The bytes.
    pub fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The text as the standard library has it.
    pub fn as_str(self) -> &'a str {
        std::str::from_utf8(self.bytes).expect("a text is UTF-8")
    }

    /// Bytes of it.
    pub fn len(self) -> usize {
        self.bytes.len()
    }

    /// Whether there is nothing of it.
    pub fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether it can be shown as it stands; see [`super::escape`].
    pub fn is_plain(self) -> bool {
        self.known_plain || is_plain(self.bytes)
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Text<'a> {
        Text { bytes: text.as_bytes(), known_plain: false }
    }
}

/// What is plain follows from the bytes.
impl PartialEq for Text<'_> {
    fn eq(&self, other: &Text<'_>) -> bool {
        self.bytes == other.bytes
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_utf8_is_a_text_and_nothing_else_is() {
        for (good, plain) in
            [("hello\tyou", true), ("gr\u{fc}n", false), ("a\nb", false), ("", true)]
        {
            let text = Text::parse(good.as_bytes()).expect("UTF-8");
            assert_eq!((text.as_str(), text.is_plain()), (good, plain));
            assert_eq!(text, Text::from(good));
        }
        assert_eq!(Text::parse(b"ab\xff"), Err(2));
        assert_eq!(Text::parse(b"\xc0\xaf"), Err(0));
    }
}
