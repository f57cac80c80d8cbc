//! Our framed dialect.

use sixfour::wire::frame::{self, MAGIC, client, server};

use super::{Incoming, Next, Protocol, Role, unexpected};

/// Message frames of both directions, without receipts.
pub struct Frame;

impl Protocol for Frame {
    fn greet(out: &mut Vec<u8>, name: &str, _: Role) {
        out.extend_from_slice(&MAGIC);
        let hello = serde_json::json!({ "version": 1, "user": name });
        frame::put_json(out, client::HELLO, 0, &hello);
    }

    fn is_greeted(bytes: &[u8], _: Role) -> Result<bool, String> {
        match frame::Frame::split(bytes).map_err(|refusal| refusal.text.to_string())? {
            None => Ok(false),
            Some(frame) if frame.kind == server::WELCOME => Ok(true),
            Some(frame) => unexpected(frame.body),
        }
    }

    fn put_message(out: &mut Vec<u8>, to: &str, text: &str) {
        frame::put_message(out, client::MESSAGE, 0, to.as_bytes(), text);
    }

    fn next(bytes: &[u8]) -> Next<'_> {
        let frame = frame::Frame::split(bytes).map_err(|refusal| refusal.text.to_string())?;
        let Some(frame) = frame else { return Ok(None) };
        let incoming = match (frame.kind, frame.body) {
            (server::MESSAGE, [a, b, body @ ..]) => {
                let names = u16::from_be_bytes([*a, *b]) as usize;
                match body.get(names..) {
                    Some(text) => Incoming::Text(text),
                    None => return unexpected(body),
                }
            }
            // The number of a pong is of no account to the server.
            (server::PING, []) => Incoming::Question(&[client::PONG, 0, 0, 0, 0, 0, 0, 0]),
            (server::ERROR | server::GOODBYE, body) => return unexpected(body),
            _ => Incoming::Other,
        };
        Ok(Some((incoming, frame.length())))
    }
}
