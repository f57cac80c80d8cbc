//! Publish and subscribe of Redis (redis.io, "RESP protocol specification").

use memchr::memchr;

use super::{Incoming, Next, Protocol, Role, number_line, unexpected};

/// RESP2, or RESP3 where one connection both publishes and subscribes.
pub struct Redis;

impl Protocol for Redis {
    fn greet(out: &mut Vec<u8>, name: &str, role: Role) {
        let words: &[&[&str]] = match role {
            Role::Sender => &[&["PING"]],
            Role::Receiver => &[&["SUBSCRIBE", name]],
            Role::Both => &[&["HELLO", "3"], &["SUBSCRIBE", name]],
        };
        words.iter().for_each(|words| put_command(out, words));
    }

    fn is_greeted(bytes: &[u8], role: Role) -> Result<bool, String> {
        match role {
            _ if bytes.starts_with(b"-") => unexpected(bytes),
            Role::Sender => Ok(bytes.ends_with(b"+PONG\r\n")),
            // The answer to a subscription ends with the number of subscriptions.
            Role::Receiver | Role::Both => Ok(bytes.ends_with(b"\r\n:1\r\n")),
        }
    }

    fn put_message(out: &mut Vec<u8>, to: &str, text: &str) {
        put_command(out, &["PUBLISH", to, text]);
    }

    fn next(bytes: &[u8]) -> Next<'_> {
        let head = match bytes {
            [b'*' | b'>', rest @ ..] => rest,
            // The number of receivers, which answers PUBLISH.
            [b':', b'1', b'\r', b'\n', ..] => return Ok(Some((Incoming::Other, 4))),
            [b':', ..] if bytes.len() < 4 => return Ok(None),
            [] => return Ok(None),
            _ => return unexpected(bytes),
        };
        if memchr(b'\n', head).is_none() {
            return Ok(None);
        }
        let Some(rest) = head.strip_prefix(b"3\r\n") else { return unexpected(bytes) };
        let Some((_, rest)) = bulk(rest) else { return Ok(None) };
        let Some((_, rest)) = bulk(rest) else { return Ok(None) };
        let Some((text, rest)) = bulk(rest) else { return Ok(None) };
        Ok(Some((Incoming::Text(text), bytes.len() - rest.len())))
    }
}

/// A bulk string and what follows it.
fn bulk(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(b"$")?;
    let (length, used) = number_line(rest)?;
    let text = rest.get(used..used + length)?;
    Some((text, rest.get(used + length + 2..)?))
}

fn put_command(out: &mut Vec<u8>, words: &[&str]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}
