//! MQTT 3.1.1 with QoS 0 (OASIS standard, sections 2 and 3).

use super::{Incoming, Next, Protocol, Role, unexpected};

/// `PUBLISH` to the receiver's topic.
pub struct Mqtt;

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;

impl Protocol for Mqtt {
    fn greet(out: &mut Vec<u8>, name: &str, role: Role) {
        // Protocol level 4, clean session, no keep-alive.
        let mut body = b"\x00\x04MQTT\x04\x02\x00\x00".to_vec();
        put_string(&mut body, name);
        put_packet(out, CONNECT, &body);
        if role != Role::Sender {
            let mut body = vec![0, 1];
            put_string(&mut body, name);
            body.push(0);
            put_packet(out, SUBSCRIBE, &body);
        }
    }

    fn is_greeted(bytes: &[u8], role: Role) -> Result<bool, String> {
        let wanted: &[u8] = match role {
            Role::Sender => &[CONNACK, 2, 0, 0],
            Role::Receiver | Role::Both => &[CONNACK, 2, 0, 0, SUBACK, 3, 0, 1, 0],
        };
        match wanted.starts_with(bytes) {
            true => Ok(bytes.len() == wanted.len()),
            false => unexpected(bytes),
        }
    }

    fn put_message(out: &mut Vec<u8>, to: &str, text: &str) {
        let mut body = Vec::with_capacity(2 + to.len() + text.len());
        put_string(&mut body, to);
        body.extend_from_slice(text.as_bytes());
        put_packet(out, PUBLISH, &body);
    }

    fn next(bytes: &[u8]) -> Next<'_> {
        let Some((kind, rest)) = bytes.split_first() else { return Ok(None) };
        let Some((length, used)) = remaining_length(rest) else { return Ok(None) };
        let Some(body) = rest.get(used..used + length) else { return Ok(None) };
        let incoming = match (*kind, body) {
            (PUBLISH, [a, b, body @ ..]) => {
                match body.get(u16::from_be_bytes([*a, *b]) as usize..) {
                    Some(text) => Incoming::Text(text),
                    None => return unexpected(bytes),
                }
            }
            _ => Incoming::Other,
        };
        Ok(Some((incoming, 1 + used + length)))
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_packet(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.push(kind);
    let mut left = body.len();
    while left >= 128 {
        out.push((left % 128) as u8 | 128);
        left /= 128;
    }
    out.push(left as u8);
    out.extend_from_slice(body);
}

/// Seven bits a byte, the lowest first; the top bit says that more follow (section 2.2.3).
fn remaining_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for (at, byte) in bytes.iter().enumerate().take(4) {
        length |= (*byte as usize & 127) << (7 * at);
        if byte & 128 == 0 {
            return Some((length, at + 1));
        }
    }
    None
}
