//! Output of a command on its way to a terminal: colours, erasing and moving the cursor pass, and
//! all else that a terminal would obey is spelled out. A command's output may be anybody's text:
//! it must not set titles, fill the clipboard, or make the terminal answer as if the user typed.

use crate::wire::escape::{harmful_at, spell};

/// A longer control sequence is none that we know.
const SEQUENCE_MAX_BYTES: usize = 64;

const ESCAPE: u8 = 0x1b;

/// One output. Sequences and characters may come in pieces.
#[derive(Debug, Default)]
pub struct Tame {
    held: Vec<u8>,
    /// The last character of the text so far: what joins two needs both.
    before: Option<char>,
}

/// What begins with ESC.
enum Sequence {
    /// So many bytes that do no harm.
    Harmless(usize),
    /// The rest has to be seen.
    Unfinished,
    Other,
}

impl Tame {
    /// What may be written of the held bytes and these.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.held);
        all.extend_from_slice(bytes);
        let (mut out, mut at) = (Vec::with_capacity(all.len()), 0);
        while at < all.len() {
            let rest = &all[at..];
            if rest[0] != ESCAPE {
                let end = memchr::memchr(ESCAPE, rest).unwrap_or(rest.len());
                let whole = if end == rest.len() { whole_characters(rest) } else { end };
                self.put_text(&mut out, &rest[..whole]);
                at += whole;
                if whole < end {
                    break;
                }
                continue;
            }
            at += match sequence(rest) {
                Sequence::Harmless(length) => {
                    out.extend_from_slice(&rest[..length]);
                    length
                }
                Sequence::Unfinished => break,
                Sequence::Other => {
                    out.extend_from_slice(b"\\x1b");
                    1
                }
            };
        }
        self.held = all.split_off(at);
        out
    }

    /// What is held when nothing follows.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let held = std::mem::take(&mut self.held);
        self.put_text(&mut out, &held);
        out
    }

    fn put_text(&mut self, out: &mut Vec<u8>, bytes: &[u8]) {
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            let mut chars = chunk.valid().chars().peekable();
            while let Some(char) = chars.next() {
                let moves_on = matches!(char, '\n' | '\r' | '\t' | '\u{8}' | '\u{7}');
                match !moves_on && harmful_at(self.before, char, chars.peek().copied()) {
                    true => spell(char, &mut text),
                    false => text.push(char),
                }
                self.before = Some(char);
            }
            for byte in chunk.invalid() {
                text.push_str(&format!("\\x{byte:02x}"));
                self.before = None;
            }
        }
        out.extend_from_slice(text.as_bytes());
    }
}

/// ECMA-48, 5.4: parameters, then one final byte. Those with a mark before their parameters are
/// private, and those with bytes between the two ask for more than we know.
fn sequence(bytes: &[u8]) -> Sequence {
    match bytes.get(1) {
        None => return Sequence::Unfinished,
        Some(b'[') => {}
        Some(_) => return Sequence::Other,
    }
    let is_parameter = |byte: &u8| matches!(byte, b'0'..=b'9' | b';' | b':');
    let count = bytes[2..].iter().take_while(|byte| is_parameter(byte)).count();
    match bytes.get(2 + count) {
        None if bytes.len() < SEQUENCE_MAX_BYTES => Sequence::Unfinished,
        // Colours; erasing; the cursor up, down, right, left, to a line, to a column, to both.
        Some(b'm' | b'K' | b'J' | b'A'..=b'H' | b'f' | b'd') => Sequence::Harmless(count + 3),
        _ => Sequence::Other,
    }
}

/// Bytes before a character that is not whole yet, or that joins the next one.
fn whole_characters(bytes: &[u8]) -> usize {
    // No character has more than four bytes.
    let tail = bytes.len().saturating_sub(3);
    let start = (tail..bytes.len()).find(|at| bytes[*at] >= 0xc0);
    let whole = match start.map(|at| (at, std::str::from_utf8(&bytes[at..]))) {
        Some((at, Err(error))) if error.error_len().is_none() => at + error.valid_up_to(),
        _ => bytes.len(),
    };
    let is_joining = |joiner: &[u8]| bytes[..whole].ends_with(joiner);
    match is_joining(b"\xe2\x80\x8c") || is_joining(b"\xe2\x80\x8d") {
        true => whole - 3,
        false => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tamed(pieces: &[&[u8]]) -> String {
        let mut tame = Tame::default();
        let mut all: Vec<u8> = pieces.iter().flat_map(|piece| tame.push(piece)).collect();
        all.extend(tame.finish());
        String::from_utf8(all).expect("text")
    }

    #[test]
    fn colours_progress_and_text_of_all_languages_pass() {
        for text in [
            "\x1b[1;31mred\x1b[0m\n",
            "\r\x1b[K50 %\x1b[2A\x1b[10;20H\x1b[J",
            "\tgr\u{fc}\u{df}e \u{65e5}\u{672c} \u{1f469}\u{200d}\u{1f467}\u{8}\u{7}\n",
        ] {
            assert_eq!(tamed(&[text.as_bytes()]), text);
            // In any pieces.
            for cut in 0..text.len() {
                let (head, tail) = text.as_bytes().split_at(cut);
                assert_eq!(tamed(&[head, tail]), text, "cut at {cut}");
            }
        }
    }

    #[test]
    fn what_a_terminal_would_obey_is_spelled_out_wherever_it_is_cut() {
        for (text, spelled) in [
            (&b"\x1b]52;c;eA==\x07"[..], "\\x1b]52;c;eA==\u{7}"),
            (b"\x1b]0;title\x1b\\", "\\x1b]0;title\\x1b\\"),
            (b"\x1b[?1049h\x1b[6n\x1b[21t\x1bc", "\\x1b[?1049h\\x1b[6n\\x1b[21t\\x1bc"),
            (b"\x1bP+q\x1b\\", "\\x1bP+q\\x1b\\"),
            ("\u{9b}31m\u{202e}x".as_bytes(), "\\x9b31m\\u{202e}x"),
            (b"\x9b31m\xff\0\x7f", "\\x9b31m\\xff\\x00\\x7f"),
            (b"\x1b[1", "\\x1b[1"),
            (b"\xe6\x97", "\\xe6\\x97"),
        ] {
            assert_eq!(tamed(&[text]), spelled);
            for cut in 0..text.len() {
                let (head, tail) = text.split_at(cut);
                assert_eq!(tamed(&[head, tail]), spelled, "cut at {cut}");
            }
        }
    }

    #[test]
    fn no_more_is_held_than_a_sequence_may_have() {
        let mut tame = Tame::default();
        tame.push(b"\x1b[");
        for _ in 0..1000 {
            tame.push(b"1;");
            assert!(tame.held.len() < SEQUENCE_MAX_BYTES);
        }
    }
}
