//! The client protocol of NATS (docs.nats.io, "Client Protocol").

use memchr::memchr;

use super::{Incoming, Next, Protocol, Role, number_line, unexpected};

/// `PUB` to the receiver's subject, without acknowledgements.
pub struct Nats;

impl Protocol for Nats {
    fn greet(out: &mut Vec<u8>, name: &str, role: Role) {
        let options = r#"{"verbose":false,"pedantic":false,"echo":false,"lang":"bench"}"#;
        let subscription = match role {
            Role::Sender => String::new(),
            Role::Receiver | Role::Both => format!("SUB {name} 1\r\n"),
        };
        out.extend_from_slice(format!("CONNECT {options}\r\n{subscription}PING\r\n").as_bytes());
    }

    fn is_greeted(bytes: &[u8], _: Role) -> Result<bool, String> {
        match bytes {
            _ if bytes.starts_with(b"-ERR") => unexpected(bytes),
            _ => Ok(bytes.ends_with(b"PONG\r\n")),
        }
    }

    fn put_message(out: &mut Vec<u8>, to: &str, text: &str) {
        out.extend_from_slice(format!("PUB {to} {}\r\n{text}\r\n", text.len()).as_bytes());
    }

    fn next(bytes: &[u8]) -> Next<'_> {
        if !bytes.starts_with(b"MSG ") {
            return other(bytes);
        }
        // `MSG subject sid length`: the subject ends at the second space, the one-digit sid two
        // bytes after it.
        let Some(space) = memchr(b' ', &bytes[4..]) else { return Ok(None) };
        let length_at = 4 + space + 3;
        let Some(rest) = bytes.get(length_at..) else { return Ok(None) };
        let Some((length, used)) = number_line(rest) else { return Ok(None) };
        let text = rest.get(used..used + length + 2);
        Ok(text.map(|text| (Incoming::Text(&text[..length]), length_at + used + length + 2)))
    }
}

fn other(bytes: &[u8]) -> Next<'_> {
    let Some(end) = memchr(b'\n', bytes) else { return Ok(None) };
    match &bytes[..end] {
        b"PING\r" => Ok(Some((Incoming::Question(b"PONG\r\n"), end + 1))),
        line if line.starts_with(b"-ERR") => unexpected(line),
        _ => Ok(Some((Incoming::Other, end + 1))),
    }
}
