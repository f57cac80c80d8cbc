//! Finds where an object ends, in bytes that come in any portions.
//!
//! Nothing is built and nothing is looked at twice: what is known of the bytes so far is a few
//! numbers. Only braces, brackets and strings matter here; whether the object is good is asked
//! once it is all there.

use crate::limits::OBJECT_DEPTH_MAX;

/// Where the search for the end of a request stands. The line dialect uses the first number alone.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Place {
    /// So many bytes were looked at, and the end is not among them.
    pub at: usize,
    /// Braces that are open.
    braces: u16,
    /// Brackets that are open.
    brackets: u16,
    in_string: bool,
    /// The last byte was a backslash within a string.
    escaped: bool,
}

/// What a look at some bytes gave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Found {
    /// The object ends behind so many of them.
    End(usize),
    /// It goes on.
    Open,
    /// It nests deeper than [`OBJECT_DEPTH_MAX`].
    TooDeep,
}

impl Place {
    /// Looks at `bytes`, which follow those that were looked at before; the very first one is the
    /// brace that opens the object. It is over where as many braces were closed as opened.
    pub fn look(&mut self, bytes: &[u8]) -> Found {
        let mut at = 0;
        while at < bytes.len() {
            if self.escaped {
                self.escaped = false;
                at += 1;
                continue;
            }
            if self.in_string {
                let Some(found) = memchr::memchr2(b'"', b'\\', &bytes[at..]) else { break };
                self.escaped = bytes[at + found] == b'\\';
                self.in_string = self.escaped;
                at += found + 1;
                continue;
            }
            match bytes[at] {
                b'"' => self.in_string = true,
                b'{' => self.braces += 1,
                b'[' => self.brackets += 1,
                b']' => self.brackets = self.brackets.saturating_sub(1),
                b'}' => self.braces -= 1,
                _ => {}
            }
            at += 1;
            if self.braces == 0 {
                self.at += at;
                return Found::End(at);
            }
            if usize::from(self.braces + self.brackets) > OBJECT_DEPTH_MAX {
                return Found::TooDeep;
            }
        }
        self.at += bytes.len();
        Found::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(bytes: &[u8]) -> Found {
        Place::default().look(bytes)
    }

    #[test]
    fn an_object_ends_with_its_brace_and_not_with_one_in_a_string() {
        for (bytes, end) in [
            (&b"{}"[..], 2),
            (b"{}{}", 2),
            (br#"{"a":{"b":[{}]}} {"#, 16),
            (br#"{"}":"}{\"}\\"}}"#, 15),
            (br#"{"\\":"\\\""}"#, 13),
            (b"{[}", 3),
            (b"{]]]}", 5),
            (b"{\xff\"\xff}\"}", 7),
        ] {
            assert_eq!(look(bytes), Found::End(end), "{}", String::from_utf8_lossy(bytes));
            for cut in 0..end {
                let mut place = Place::default();
                assert_eq!(place.look(&bytes[..cut]), Found::Open);
                assert_eq!(place.at, cut);
                assert_eq!(place.look(&bytes[cut..]), Found::End(end - cut));
            }
        }
        for open in [&b"{"[..], b"{\"}", b"{\"\\\"}", b"{{}", b"{\"a\\"] {
            assert_eq!(look(open), Found::Open);
        }
    }

    #[test]
    fn too_deep_is_seen_at_the_first_level_too_many() {
        let nested = [&b"{\"a\":"[..], &b"[".repeat(100_000)].concat();
        assert_eq!(look(&nested), Found::TooDeep);
        assert_eq!(look(&nested[..5 + 31]), Found::Open);
        assert_eq!(look(&nested[..5 + 32]), Found::TooDeep);
        assert_eq!(look(&b"{\"a\":".repeat(33)), Found::TooDeep);
        assert_eq!(look(&[b"{\"", &b"[{".repeat(1000)[..], b"\"}"].concat()), Found::End(2004));
    }
}
