//! The plain relay: what is sent is what arrives.

use memchr::memchr;

use super::{Incoming, Line, Next, Protocol, Role};

/// Lines as our own dialect has them, which nobody reads on the way. The relay says one byte when
/// it has taken the connection, so that they are numbered as they were opened.
pub struct Relay;

impl Protocol for Relay {
    fn greet(_: &mut Vec<u8>, _: &str, _: Role) {}

    fn is_greeted(bytes: &[u8], _: Role) -> Result<bool, String> {
        Ok(!bytes.is_empty())
    }

    fn put_message(out: &mut Vec<u8>, to: &str, text: &str) {
        Line::put_message(out, to, text);
    }

    fn next(bytes: &[u8]) -> Next<'_> {
        let end = memchr(b'\n', bytes);
        Ok(end.map(|end| (Incoming::Text(&bytes[..end]), end + 1)))
    }
}
