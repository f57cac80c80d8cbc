//! The languages of the peers, as far as a message from one client to another needs them.
//!
//! One small trait, so that the same generator loads everybody; generic, so that nothing of it is
//! left at run time.

mod frame;
mod line;
mod mqtt;
mod nats;
mod redis;
mod relay;

pub use self::{frame::Frame, line::Line, mqtt::Mqtt, nats::Nats, redis::Redis, relay::Relay};

/// What a connection is for; some peers want to know that before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Sends only.
    Sender,
    /// Receives under its name only.
    Receiver,
    /// Does both over one connection.
    Both,
}

/// What a server has said.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// The text of a message.
    Text(&'a [u8]),
    /// A question that must be answered so.
    Question(&'static [u8]),
    /// Something that needs no answer.
    Other,
}

/// What to do with the next bytes: an item and its length, `None` while it is not all there.
pub type Next<'a> = Result<Option<(Incoming<'a>, usize)>, String>;

/// The language of a peer.
pub trait Protocol {
    /// Appends what makes the connection known as `name`.
    fn greet(out: &mut Vec<u8>, name: &str, role: Role);

    /// Whether `bytes`, all that came so far, is the whole answer to the greeting.
    fn is_greeted(bytes: &[u8], role: Role) -> Result<bool, String>;

    /// Appends a message.
    fn put_message(out: &mut Vec<u8>, to: &str, text: &str);

    /// Cuts off the next thing that the server has said.
    fn next(bytes: &[u8]) -> Next<'_>;
}

/// Shows what came instead of what should have.
fn unexpected<T>(bytes: &[u8]) -> Result<T, String> {
    let head = &bytes[..bytes.len().min(120)];
    Err(format!("the server said {:?}", String::from_utf8_lossy(head)))
}

/// A decimal number that ends before CR LF, and where the bytes after it begin.
fn number_line(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut number = 0usize;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'0'..=b'9' => number = number.wrapping_mul(10).wrapping_add((byte - b'0') as usize),
            _ => return (bytes.get(at..at + 2)? == b"\r\n").then_some((number, at + 2)),
        }
    }
    None
}
