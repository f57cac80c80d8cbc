//! Our line dialect.

use memchr::memchr;

use super::{Incoming, Next, Protocol, Role, unexpected};

/// `TEXT|NAME` out, `SENDER|TEXT` in.
pub struct Line;

impl Protocol for Line {
    fn greet(out: &mut Vec<u8>, name: &str, _: Role) {
        out.extend_from_slice(format!("user {name}\n").as_bytes());
    }

    fn is_greeted(bytes: &[u8], _: Role) -> Result<bool, String> {
        match bytes.ends_with(b"\n") {
            true if bytes.starts_with(b"welcome ") => Ok(true),
            true => unexpected(bytes),
            false => Ok(false),
        }
    }

    fn put_message(out: &mut Vec<u8>, to: &str, text: &str) {
        for part in [text, "|", to, "\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }

    fn next(bytes: &[u8]) -> Next<'_> {
        let Some(end) = memchr(b'\n', bytes) else { return Ok(None) };
        let line = &bytes[..end];
        match memchr(b'|', line) {
            Some(bar) if !line.starts_with(b"error ") => {
                Ok(Some((Incoming::Text(&line[bar + 1..]), end + 1)))
            }
            _ => unexpected(line),
        }
    }
}
