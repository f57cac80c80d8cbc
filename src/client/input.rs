//! Standard input, read by threads: as lines that are orders, or as bytes for a command.

use std::{
    io::{BufRead as _, Read as _},
    sync::mpsc,
    thread,
};

use super::post::{News, Post};
use crate::{
    limits::{CHUNK_MAX_BYTES, INPUT_WINDOW_BYTES, LINE_MAX_BYTES},
    sys::terminal::{self, Stream},
};

/// Reads lines, each when it is asked for through the sender that is returned.
pub fn start_lines(post: Post) -> mpsc::Sender<()> {
    let (go, asked) = mpsc::channel();
    thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        for () in asked {
            if !post.send(read_line(&mut input)) {
                return;
            }
        }
    });
    go
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

/// Reads blocks for a command, at most as many at once as its window holds; each permission sent
/// through the sender that is returned allows one more.
pub fn start_blocks(post: Post) -> mpsc::Sender<()> {
    let (go, allowed) = mpsc::channel();
    for _ in 0..INPUT_WINDOW_BYTES as usize / CHUNK_MAX_BYTES {
        go.send(()).expect("the receiver is in our hands");
    }
    thread::spawn(move || {
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
    go
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
