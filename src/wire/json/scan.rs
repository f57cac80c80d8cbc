//! Finds where an object ends, in bytes that come in any portions.
//!
//! Nothing is built and nothing is looked at twice: what is known of the bytes so far is a few
//! numbers. Only braces, brackets and strings matter here; whether the object is good is asked
//! once it is all there. Where a quote or a brace is missing it would never be, and all that
//! follows would be lost: so a line end within a string ends it too, and so does a line that
//! begins with a brace where none can stand.

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
    /// The last byte that is no white space, outside of strings.
    last: u8,
    /// Nothing but white space has come since the last line end, outside of strings.
    begins_line: bool,
    /// What lies between this place and the next object is the rest of a broken one.
    remains: Remains,
    /// So many bytes of a byte order mark lie before this place, which it ends in the midst of.
    marked: usize,
}

/// U+FEFF in UTF-8. Some programs begin their output with it, or every piece of it.
pub const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// Whether a broken object has ended with a line, so that more lines of it may follow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Remains {
    #[default]
    None,
    /// They may, and a line begins here.
    LineStart,
    /// This is within one of them.
    InLine,
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
    /// It is broken, and what follows so many of them is none of it.
    Broken(usize),
}

impl Place {
    /// Looks at `bytes`, which follow those that were looked at before; the very first one is the
    /// brace that opens the object. It is over where as many braces were closed as opened.
    pub fn look(&mut self, bytes: &[u8]) -> Found {
        let mut at = 0;
        while at < bytes.len() {
            if self.in_string {
                let byte = match std::mem::take(&mut self.escaped) {
                    true if bytes[at] != b'\n' => {
                        at += 1;
                        continue;
                    }
                    true => b'\n',
                    false => {
                        let rest = &bytes[at..];
                        let Some(found) = memchr::memchr3(b'"', b'\\', b'\n', rest) else { break };
                        at += found;
                        rest[found]
                    }
                };
                at += 1;
                match byte {
                    b'\n' => return self.broken(at, Remains::LineStart),
                    b'\\' => self.escaped = true,
                    _ => self.in_string = false,
                }
                continue;
            }
            if bytes[at] == b'{' && self.begins_line && !matches!(self.last, b'[' | b',' | b':') {
                return self.broken(at, Remains::None);
            }
            match bytes[at] {
                b'\n' => self.begins_line = true,
                b' ' | b'\t' | b'\r' => {}
                byte => (self.last, self.begins_line) = (byte, false),
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

    fn broken(&mut self, count: usize, remains: Remains) -> Found {
        *self = Place { remains, ..Place::default() };
        Found::Broken(count)
    }

    /// Whether nothing is known but that an object may begin here.
    pub fn is_fresh(&self) -> bool {
        self.at == 0 && self.remains == Remains::None && self.marked == 0
    }

    /// How many of `bytes`, which lie between objects, say nothing: white space, and byte order
    /// marks.
    pub fn pass_blanks(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' if self.marked == 0 => {}
                byte if *byte == BYTE_ORDER_MARK[self.marked] => {
                    self.marked = (self.marked + 1) % BYTE_ORDER_MARK.len();
                }
                _ => break,
            }
            at += 1;
        }
        at
    }

    /// How many of `bytes` are the rest of a broken object: all before the next line that begins
    /// with a brace.
    pub fn pass_remains(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() && self.remains != Remains::None {
            if self.remains == Remains::LineStart {
                match bytes[at] {
                    b' ' | b'\t' | b'\n' | b'\r' => at += 1,
                    b'{' => self.remains = Remains::None,
                    _ => self.remains = Remains::InLine,
                }
                continue;
            }
            match memchr::memchr(b'\n', &bytes[at..]) {
                Some(found) => (at, self.remains) = (at + found + 1, Remains::LineStart),
                None => at = bytes.len(),
            }
        }
        at
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

    #[test]
    fn a_line_end_within_a_string_and_a_brace_that_cannot_stand_there_end_a_broken_object() {
        for (bytes, end) in [
            (&b"{\"method\":\"echo it\"s\",\"id\":1}\n{"[..], 30),
            (b"{\"a\":\"\n\"}", 7),
            (b"{\"a\":\"\\\n\"}", 8),
            (b"{\"a\":1\n{\"a\":2}", 7),
            (b"{\"a\":1\r\n \t{\"a\":2}", 10),
            (b"{\"a\":[1\n{", 8),
            (b"{\n{", 2),
        ] {
            let shown = String::from_utf8_lossy(bytes);
            assert_eq!(look(bytes), Found::Broken(end), "{shown}");
            for cut in 1..end {
                let mut place = Place::default();
                assert_eq!(place.look(&bytes[..cut]), Found::Open, "{shown}");
                assert_eq!(place.look(&bytes[cut..]), Found::Broken(end - cut), "{shown}");
            }
        }
        for whole in ["{\n\"a\":\n{\n}\n}", "{\"a\":[\n{},\n{}\n]}", "{\"a\" {}}"] {
            assert_eq!(look(whole.as_bytes()), Found::End(whole.len()), "{whole}");
        }
    }

    #[test]
    fn the_rest_of_a_broken_object_ends_with_a_line_that_begins_with_a_brace() {
        let broken = Place { remains: Remains::LineStart, ..Place::default() };
        for (bytes, count) in
            [(&b"{\"a\":1}"[..], 0), (b" \r\n\t{}", 4), (b"\",\"id\":1} {\"no\":1}\n \n {}", 22)]
        {
            let mut place = broken;
            assert_eq!(place.pass_remains(bytes), count);
            assert!(place.is_fresh());
            let mut place = broken;
            let passed = bytes.chunks(1).map(|byte| place.pass_remains(byte)).sum::<usize>();
            assert_eq!(passed, count);
        }
        let mut place = broken;
        assert_eq!(place.pass_remains(b"no object\nnor this"), 18);
        assert!(!place.is_fresh());
    }
}
