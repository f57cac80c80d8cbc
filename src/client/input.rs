//! Standard input, read by threads: as lines that are orders, or as bytes for a command.

use std::{
    io::{BufRead as _, Read as _},
    sync::mpsc,
    thread,
};

use super::{
    arguments::Plan,
    core::order::Order,
    post::{News, Post},
};
use crate::{
    limits::{CHUNK_MAX_BYTES, INPUT_WINDOW_BYTES, LINE_MAX_BYTES, TEXT_MAX_BYTES},
    sys::terminal::{self, Stream},
};

/// Reads lines, each when it is asked for through the sender that is returned.
///
/// # Errors
/// The system has no thread for it; a sentence.
pub fn start_lines(post: Post) -> Result<mpsc::Sender<()>, String> {
    let (go, asked) = mpsc::channel();
    let spawned = thread::Builder::new().name("lines".into()).spawn(move || {
        let mut input = std::io::stdin().lock();
        for () in asked {
            if !post.send(read_line(&mut input)) {
                return;
            }
        }
    });
    spawned.map(|_| go).map_err(no_thread)
}

fn no_thread(error: std::io::Error) -> String {
    format!("no thread can be had to read standard input: {error}")
}

fn read_line(input: &mut impl std::io::BufRead) -> News {
    let mut line = Vec::new();
    // One byte more than any good line, so that a longer one is refused and not cut in two.
    let limit = LINE_MAX_BYTES as u64 + 2;
    match input.take(limit).read_until(b'\n', &mut line) {
        Ok(0) => News::LinesEnd(None),
        Err(error) => News::LinesEnd(Some(format!("cannot read standard input: {error}"))),
        Ok(_) if line.len() as u64 == limit && line.last() != Some(&b'\n') => {
            News::LinesEnd(Some(format!("a line has more than {LINE_MAX_BYTES} bytes")))
        }
        Ok(_) => match String::from_utf8(line) {
            Ok(line) => News::Line(line.trim_end_matches(['\n', '\r']).to_owned()),
            Err(error) => {
                let at = error.utf8_error().valid_up_to() + 1;
                News::LinesEnd(Some(format!("no UTF-8 at byte {at} of a line")))
            }
        },
    }
}

/// Reads the text of a message where it is on `input`, to its end.
///
/// # Errors
/// A sentence: it is empty, too long, or no text.
pub fn fill_text(plan: &mut Plan, input: impl std::io::Read) -> Result<(), String> {
    let Some([Order::Message { text, .. }]) = plan.orders.as_deref_mut() else { return Ok(()) };
    if !plan.text_from_input {
        return Ok(());
    }
    let mut bytes = Vec::new();
    input
        .take(TEXT_MAX_BYTES as u64 + 2)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot read the text from standard input: {error}"))?;
    let read = String::from_utf8(bytes).map_err(|_| "standard input is no UTF-8".to_owned())?;
    let read = read.strip_suffix('\n').unwrap_or(&read);
    let read = read.strip_suffix('\r').unwrap_or(read);
    if read.len() > TEXT_MAX_BYTES {
        return Err(format!("standard input has more than the {TEXT_MAX_BYTES} bytes of a text"));
    }
    if read.trim().is_empty() {
        return Err("standard input is empty; a message has at least one character".to_owned());
    }
    *text = read.to_owned();
    Ok(())
}

/// Reads blocks for a command, at most as many at once as its window holds; each permission sent
/// through the sender that is returned allows one more.
///
/// # Errors
/// The system has no thread for it; a sentence.
pub fn start_blocks(post: Post) -> Result<mpsc::Sender<()>, String> {
    let (go, allowed) = mpsc::channel();
    for _ in 0..INPUT_WINDOW_BYTES as usize / CHUNK_MAX_BYTES {
        // The receiver is in our hands.
        let _ = go.send(());
    }
    let spawned = thread::Builder::new().name("input".into()).spawn(move || {
        let is_terminal = terminal::is_terminal(Stream::Stdin);
        let mut input = std::io::stdin().lock();
        let mut buffer = vec![0; CHUNK_MAX_BYTES];
        for () in allowed {
            let count = loop {
                if is_terminal {
                    terminal::await_input();
                }
                match input.read(&mut buffer) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    // What cannot be read ends as if it had ended; ssh does the same.
                    other => break other.unwrap_or(0),
                }
            };
            if !post.send(News::Input(buffer[..count].to_vec())) || count == 0 {
                return;
            }
        }
    });
    spawned.map(|_| go).map_err(no_thread)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(bytes: &[u8]) -> News {
        read_line(&mut &bytes[..])
    }

    #[test]
    fn lines_end_with_lf_crlf_or_the_input() {
        for bytes in [&b"a b\n"[..], b"a b\r\n", b"a b"] {
            assert!(matches!(line(bytes), News::Line(text) if text == "a b"));
        }
        assert!(matches!(line(b""), News::LinesEnd(None)));
    }

    #[test]
    fn what_is_no_line_ends_them_with_a_reason() {
        assert!(matches!(line(b"a\xff\n"), News::LinesEnd(Some(why)) if why.contains("byte 2")));
        let long = vec![b'x'; LINE_MAX_BYTES + 10];
        assert!(matches!(line(&long), News::LinesEnd(Some(why)) if why.contains("bytes")));
    }
}
