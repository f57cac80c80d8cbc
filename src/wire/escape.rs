//! Foreign text made harmless for terminals, logs and lines.

use std::borrow::Cow;

/// True where every byte is printable ASCII or a tab: such text is harmless as it stands.
pub fn is_plain(bytes: &[u8]) -> bool {
    plain_length(bytes) == bytes.len()
}

/// How many bytes at the head are printable ASCII or tabs.
///
/// In portions without a branch inside, so that the compiler can look at many bytes at a time.
pub fn plain_length(bytes: &[u8]) -> usize {
    const PORTION_BYTES: usize = 32;
    // As a signed number, everything beyond ASCII is below the space too.
    let odd = |byte: &u8| ((*byte as i8) < 0x20) & (*byte != b'\t') | (*byte == 0x7f);
    let has_odd = |portion: &[u8]| portion.iter().fold(false, |found, byte| found | odd(byte));
    let plain = bytes.chunks_exact(PORTION_BYTES).take_while(|portion| !has_odd(portion)).count();
    let start = plain * PORTION_BYTES;
    start + bytes[start..].iter().position(odd).unwrap_or(bytes.len() - start)
}

/// Text with every character that could move a cursor, hide or reorder other text written as
/// `\n`, `\x1b` or `\u{202e}`: C0 but for the tab, DEL, C1, line and paragraph separators,
/// the bidirectional controls and what has no width. The joiners that Persian, Hindi and emoji are
/// written with stay where they join something.
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_by(text, spell)
}

/// The same for JSON that is written already: what could deceive is spelled as `\u202e`, which
/// means the same to whoever reads it. Nothing of that kind stands outside of its strings.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    escape_by(json, spell_json)
}

/// Writes a character as JSON does within a string.
pub fn spell_json(char: char, safe: &mut String) {
    for unit in char.encode_utf16(&mut [0; 2]) {
        safe.push_str(&format!("\\u{unit:04x}"));
    }
}

fn escape_by(text: &str, spell: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if is_plain(text.as_bytes()) || !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    let (mut before, mut chars) = (None, text.chars().peekable());
    while let Some(char) = chars.next() {
        match harmful_at(before, char, chars.peek().copied()) {
            true => spell(char, &mut safe),
            false => safe.push(char),
        }
        before = Some(char);
    }
    Cow::Owned(safe)
}

/// Writes a character as text that does nothing.
pub fn spell(char: char, safe: &mut String) {
    match char {
        '\n' => safe.push_str("\\n"),
        '\r' => safe.push_str("\\r"),
        _ if (char as u32) < 0x100 => safe.push_str(&format!("\\x{:02x}", char as u32)),
        _ => safe.push_str(&format!("\\u{{{:x}}}", char as u32)),
    }
}

/// Whether the character does harm between these two. The joiners U+200C and U+200D do none within
/// scripts and emoji that need them, all of which come after U+0600; between Latin letters they
/// could only make two texts look alike.
pub fn harmful_at(before: Option<char>, char: char, after: Option<char>) -> bool {
    let is_joined = |char: Option<char>| {
        char.is_some_and(|char| char >= '\u{600}' && !char.is_whitespace() && !is_harmful(char))
    };
    let is_joiner = matches!(char, '\u{200c}' | '\u{200d}');
    is_harmful(char) && !(is_joiner && is_joined(before) && is_joined(after))
}

/// The same for bytes that should be text; bytes that are none become `\xff`.
pub fn escape_bytes(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return escape(text);
    }
    let mut safe = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        safe.push_str(&escape(chunk.valid()));
        for byte in chunk.invalid() {
            safe.push_str(&format!("\\x{byte:02x}"));
        }
    }
    Cow::Owned(safe)
}

/// Whether the character could move a cursor, hide or reorder other text, whatever is beside it.
pub fn is_harmful(char: char) -> bool {
    match char {
        '\t' => false,
        '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' => true,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}' => true,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_text_is_not_touched() {
        for text in ["", "hello\tyou", "gr\u{fc}\u{df}e \u{65e5}\u{672c} \u{1f600}"] {
            assert!(matches!(escape(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn what_could_deceive_is_spelled_out() {
        assert_eq!(escape("x\n[server] hi\r"), "x\\n[server] hi\\r");
        assert_eq!(escape("\x1b]52;c;\x07\u{9b}2J\u{7f}\0"), "\\x1b]52;c;\\x07\\x9b2J\\x7f\\x00");
        assert_eq!(escape("a\u{202e}b\u{200b}\u{2028}"), "a\\u{202e}b\\u{200b}\\u{2028}");
        assert_eq!(escape_bytes(b"a\xff\n"), "a\\xff\\n");
    }

    #[test]
    fn joiners_stay_where_they_join() {
        for text in [
            "\u{6cc}\u{645}\u{6cc}\u{200c}\u{62e}\u{648}\u{627}\u{647}\u{645}",
            "\u{915}\u{94d}\u{200d}\u{937}",
            "\u{1f469}\u{200d}\u{2764}\u{fe0f}\u{200d}\u{1f468}",
        ] {
            assert_eq!(escape(text), text);
        }
        for (text, spelled) in [
            ("bo\u{200d}b", "bo\\u{200d}b"),
            ("\u{200d}\u{1f469}", "\\u{200d}\u{1f469}"),
            ("\u{1f469}\u{200d}", "\u{1f469}\\u{200d}"),
            ("\u{915}\u{200d}\u{200d}\u{937}", "\u{915}\\u{200d}\\u{200d}\u{937}"),
            ("\u{915}\u{200d} x", "\u{915}\\u{200d} x"),
        ] {
            assert_eq!(escape(text), spelled);
        }
    }

    #[test]
    fn json_is_spelled_so_that_it_means_the_same() {
        let json = "{\"a\":\"\u{9b}\u{7f}\u{202e}\u{e0041}\u{fc}\"}";
        let spelled = r#"{"a":"\u009b\u007f\u202e\udb40\udc41"#.to_owned() + "\u{fc}\"}";
        assert_eq!(escape_json(json), spelled);
    }

    #[test]
    fn the_plain_head_ends_at_the_first_odd_byte_wherever_that_is() {
        for length in 0..100 {
            let mut bytes = vec![b'x'; 100];
            assert_eq!(plain_length(&bytes[..length]), length);
            for odd in [b'\n', 0, 0x1f, 0x7f, 0x80, 0xff] {
                bytes[length] = odd;
                assert_eq!(plain_length(&bytes), length);
                assert!(!is_plain(&bytes));
            }
        }
        assert!(is_plain(b" ~\tA"));
    }

    #[test]
    fn no_control_byte_survives() {
        for byte in 0..=255u8 {
            let safe = escape_bytes(&[byte]).into_owned();
            assert!(!safe.chars().any(is_harmful), "{byte:#x} gave {safe:?}");
        }
    }
}
