//! Words as shells take them.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

/// The word as any shell takes it.
pub(super) fn quote(word: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "_@%+=:,./-".contains(char);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// The word to be typed again: one that cannot be shown as it is in the form of bash and zsh,
/// $'...'.
pub(super) fn quote_shown(word: &OsStr) -> String {
    if let Some(word) = word.to_str().filter(|word| !word.contains(char::is_control)) {
        return quote(word);
    }
    let quoted = word.as_bytes().iter().map(|byte| match byte {
        b'\'' | b'\\' => format!("\\{}", char::from(*byte)),
        b' '..=b'~' => char::from(*byte).to_string(),
        other => format!("\\x{other:02x}"),
    });
    format!("$'{}'", quoted.collect::<String>())
}
