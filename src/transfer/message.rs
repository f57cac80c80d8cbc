//! The messages of a transfer, as bytes.
//!
//! ```text
//!   0        1                 4
//!   +--------+-----------------+---------- - - -
//!   |  kind  |  length of body |  body
//!   +--------+-----------------+---------- - - -
//!      u8        u24              length bytes
//! ```
//!
//! Numbers are big-endian. Kinds below 0x40 come from the sender of the files, the others from
//! their receiver. The body of DATA is handed out in whatever portions it comes; all others are
//! small and read whole. PROTOCOL.md, "Transfers".

use super::{Entry, EntryKind, Fault};
use crate::{
    limits::{
        CHUNK_MAX_BYTES, PATH_MAX_BYTES, REFUSAL_TEXT_MAX_BYTES, TRANSFER_DATA_MAX_BYTES,
        TRANSFER_HOLE_MAX_BYTES,
    },
    wire::ErrorCode,
};

/// The version of the conversation that this code speaks.
pub const VERSION: u8 = 1;

/// What an end of version 1 may know beside that version, as bits behind it in its HELLO. An end
/// that says none of them is one from before there were any.
pub mod feature {
    /// Of a sender: the flags of an ENTRY are permissions.
    pub const PERMISSIONS: u8 = 1;
    /// Of a receiver: it takes entries that are links.
    pub const LINKS: u8 = 2;
    /// Of a receiver: it takes HOLE.
    pub const HOLES: u8 = 4;
    /// Of a receiver: it takes SKIPPED and GROWN.
    pub const NOTES: u8 = 8;
}

/// Bytes before the body.
pub const HEADER_BYTES: usize = 4;

/// The largest body of anything but DATA: an error with the longest path and text.
pub const BODY_MAX_BYTES: usize = 64 + PATH_MAX_BYTES + REFUSAL_TEXT_MAX_BYTES;

/// The number of an entry that was never announced.
pub const NO_NUMBER: u32 = u32::MAX;

/// Kinds that the sender sends.
pub mod sender {
    #![allow(missing_docs)]
    pub const HELLO: u8 = 0x01;
    pub const ENTRY: u8 = 0x02;
    pub const FAILED: u8 = 0x03;
    pub const FILE: u8 = 0x04;
    pub const DATA: u8 = 0x05;
    pub const HASH: u8 = 0x06;
    pub const END: u8 = 0x07;
    pub const HOLE: u8 = 0x08;
    pub const SKIPPED: u8 = 0x09;
    pub const GROWN: u8 = 0x0a;
    pub const ABORT: u8 = 0x0f;
}

/// Kinds that the receiver sends.
pub mod receiver {
    #![allow(missing_docs)]
    pub const HELLO: u8 = 0x41;
    pub const WANT: u8 = 0x42;
    pub const STORED: u8 = 0x43;
    pub const FAILED: u8 = 0x44;
    pub const DONE: u8 = 0x45;
    pub const ABORT: u8 = 0x4f;
}

/// One message, or a portion of one that carries data.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Message<'a> {
    /// The first of either side.
    Hello {
        /// [`VERSION`].
        version: u8,
        /// What it knows beside that, of [`feature`].
        features: u8,
    },
    /// One more thing to be sent. Entries are numbered from 0 in their order.
    Entry(Entry),
    /// This entry is not sent, or not to its end; or it is not stored.
    Failed {
        /// Of the entry; [`NO_NUMBER`] where it was never announced.
        number: u32,
        /// Of what was never announced: how the sender calls it. Else empty.
        path: Vec<u8>,
        /// Why.
        fault: Fault,
    },
    /// The bytes of this file follow.
    File {
        /// Of its entry.
        number: u32,
        /// What the receiver claims to have is not the beginning of it: all is sent.
        starts_over: bool,
        /// Where the bytes begin.
        from: u64,
    },
    /// Bytes of that file; not empty.
    Data(&'a [u8]),
    /// So many zeros of that file, which are not sent: 1 to [`TRANSFER_HOLE_MAX_BYTES`].
    Hole(u64),
    /// That file has grown to so many bytes since it was announced. What is sent is its beginning.
    Grown(u64),
    /// The end of that file.
    Hash([u8; 32]),
    /// So many things are neither files, folders nor links that can be carried; they are left out.
    Skipped {
        /// Not 0.
        count: u32,
        /// How the sender calls the first of them.
        path: Vec<u8>,
    },
    /// There are no more entries.
    End {
        /// How many there were.
        entries: u32,
    },
    /// The receiver wants this file.
    Want {
        /// Of its entry.
        number: u32,
        /// It has so many bytes of it already.
        from: u64,
        /// The hash of these bytes; zeros where there are none.
        hash: [u8; 32],
    },
    /// This entry is in its place, and will stay there.
    Stored {
        /// Which.
        number: u32,
    },
    /// All is dealt with; nothing follows.
    Done,
    /// Nothing follows, and for this reason.
    Abort(Fault),
}

/// Takes messages apart.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of a message that is not all there.
    rest: Vec<u8>,
    /// So many bytes of a DATA body are still to come.
    data_left: usize,
}

impl Decoder {
    /// The memory of what is not all there.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.rest.capacity()
    }

    /// The next message at the head of `bytes`, which moves on; `None` where more bytes are
    /// needed, and then all are taken.
    ///
    /// # Errors
    /// Bytes that are no message: the conversation cannot go on.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Message<'a>>, Fault> {
        loop {
            if self.data_left > 0 {
                let (data, rest) = bytes.split_at(bytes.len().min(self.data_left));
                *bytes = rest;
                self.data_left -= data.len();
                return Ok((!data.is_empty()).then_some(Message::Data(data)));
            }
            if self.rest.is_empty()
                && let Some((kind, length)) = header(bytes)?
            {
                let body = &bytes[HEADER_BYTES..];
                if kind == sender::DATA {
                    self.data_left = length;
                    *bytes = body;
                    continue;
                }
                if let Some((body, rest)) = body.split_at_checked(length) {
                    *bytes = rest;
                    return parse(kind, body).map(Some);
                }
            }
            if bytes.is_empty() {
                return Ok(None);
            }
            if let Some(message) = self.complete(bytes)? {
                return Ok(Some(message));
            }
        }
    }

    /// Adds so much to the rest as makes it a header, or a message.
    fn complete<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Message<'a>>, Fault> {
        let known = header(&self.rest)?;
        let whole = known.map_or(HEADER_BYTES, |(_, length)| HEADER_BYTES + length);
        let (more, rest) = bytes.split_at(bytes.len().min(whole - self.rest.len()));
        self.rest.extend_from_slice(more);
        *bytes = rest;
        let Some((kind, length)) = header(&self.rest)? else { return Ok(None) };
        if kind == sender::DATA {
            self.rest.clear();
            self.data_left = length;
        } else if self.rest.len() == HEADER_BYTES + length {
            let message = parse(kind, &self.rest[HEADER_BYTES..]);
            self.rest.clear();
            return message.map(Some);
        }
        Ok(None)
    }

    /// True where no message has begun.
    pub fn is_between(&self) -> bool {
        self.rest.is_empty() && self.data_left == 0
    }
}

fn header(bytes: &[u8]) -> Result<Option<(u8, usize)>, Fault> {
    let Some(&[kind, a, b, c]) = bytes.first_chunk() else { return Ok(None) };
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    let (least, most) = match kind {
        sender::DATA => (1, TRANSFER_DATA_MAX_BYTES),
        sender::HELLO | receiver::HELLO => (1, 64),
        // A link has its path and the one to which it leads.
        sender::ENTRY => (ENTRY_FIXED_BYTES + 1, ENTRY_FIXED_BYTES + 2 * PATH_MAX_BYTES),
        sender::HOLE | sender::GROWN => (8, 8),
        sender::SKIPPED => (5, 4 + PATH_MAX_BYTES),
        sender::FILE => (13, 13),
        sender::HASH => (32, 32),
        sender::END | receiver::STORED => (4, 4),
        receiver::WANT => (12, 44),
        receiver::DONE => (0, 0),
        sender::FAILED | receiver::FAILED | sender::ABORT | receiver::ABORT => (4, BODY_MAX_BYTES),
        _ => return Err(broken(format!("a message of the unknown kind {kind:#04x}"))),
    };
    if !(least..=most).contains(&length) {
        return Err(broken(format!("a message of kind {kind:#04x} with {length} bytes")));
    }
    Ok(Some((kind, length)))
}

fn parse<'a>(kind: u8, body: &[u8]) -> Result<Message<'a>, Fault> {
    let mut body = Body(body);
    let short = || broken(format!("a message of kind {kind:#04x} ends too early"));
    let message = match kind {
        sender::HELLO | receiver::HELLO => {
            // A newer peer may say more behind it.
            let version = body.u8().ok_or_else(short)?;
            return Ok(Message::Hello { version, features: body.u8().unwrap_or(0) });
        }
        sender::ENTRY => body.entry().map(Message::Entry),
        sender::FAILED | receiver::FAILED => body.failed(),
        sender::FILE => body.file(),
        sender::HASH => body.array().map(Message::Hash),
        sender::HOLE => body.hole(),
        sender::GROWN => body.u64().map(Message::Grown),
        sender::SKIPPED => body.skipped(),
        sender::END => body.u32().map(|entries| Message::End { entries }),
        receiver::WANT => body.want(),
        receiver::STORED => body.u32().map(|number| Message::Stored { number }),
        receiver::DONE => Some(Message::Done),
        sender::ABORT | receiver::ABORT => body.fault().map(Message::Abort),
        _ => None,
    };
    message.filter(|_| body.0.is_empty()).ok_or_else(short)
}

/// Bytes of an ENTRY before its path.
const ENTRY_FIXED_BYTES: usize = 4 + 1 + 1 + 8 + 8 + 4;

struct Body<'a>(&'a [u8]);

impl Body<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn bytes(&mut self, length: usize) -> Option<Vec<u8>> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head.to_vec())
    }

    fn entry(&mut self) -> Option<Entry> {
        let item = self.u32()?;
        let kind = match self.u8()? {
            0 => EntryKind::File,
            1 => EntryKind::Folder,
            2 => EntryKind::Link,
            _ => return None,
        };
        let mode = mode_of(self.u8()?);
        let (size, seconds) = (self.u64()?, self.u64()? as i64);
        let nanoseconds = self.u32()?;
        let target_length = match kind {
            EntryKind::Link => usize::try_from(size).ok().filter(|length| *length > 0)?,
            EntryKind::File | EntryKind::Folder => 0,
        };
        let path = self.bytes(self.0.len().checked_sub(target_length)?)?;
        let target = self.bytes(target_length)?;
        let is_bounded = |path: &[u8]| path.len() <= PATH_MAX_BYTES;
        let modified = (seconds, nanoseconds);
        (!path.is_empty() && is_bounded(&path) && is_bounded(&target)).then_some(())?;
        Some(Entry { item, kind, mode, size, modified, path, target })
    }

    fn hole<'a>(&mut self) -> Option<Message<'a>> {
        let length = self.u64()?;
        (1..=TRANSFER_HOLE_MAX_BYTES).contains(&length).then_some(Message::Hole(length))
    }

    fn skipped<'a>(&mut self) -> Option<Message<'a>> {
        let (count, path) = (self.u32()?, self.bytes(self.0.len())?);
        (count > 0).then_some(Message::Skipped { count, path })
    }

    fn failed<'a>(&mut self) -> Option<Message<'a>> {
        let number = self.u32()?;
        let length = u16::from_be_bytes(self.array()?) as usize;
        let path = self.bytes(length)?;
        Some(Message::Failed { number, path, fault: self.fault()? })
    }

    fn file<'a>(&mut self) -> Option<Message<'a>> {
        let (number, flags, from) = (self.u32()?, self.u8()?, self.u64()?);
        Some(Message::File { number, starts_over: flags & STARTS_OVER != 0, from })
    }

    fn want<'a>(&mut self) -> Option<Message<'a>> {
        let (number, from) = (self.u32()?, self.u64()?);
        let hash = if from == 0 { [0; 32] } else { self.array()? };
        Some(Message::Want { number, from, hash })
    }

    fn fault(&mut self) -> Option<Fault> {
        let length = self.u8()? as usize;
        let code = self.bytes(length)?;
        let text = self.bytes(self.0.len())?;
        // A newer peer may have errors that we do not know.
        let code = ErrorCode::parse(&code).unwrap_or(ErrorCode::SystemError);
        Some(Fault::new(code, bounded(&String::from_utf8_lossy(&text))))
    }
}

const STARTS_OVER: u8 = 1;

/// The permissions that each bit of an entry's flags stands for, the lowest first. That is all nine
/// but one: what is sent can be read by its owner.
const PERMISSIONS: [u16; 8] = [0o100, 0o200, 0o040, 0o020, 0o010, 0o004, 0o002, 0o001];

fn mode_of(flags: u8) -> u16 {
    let is_set = |bit: usize| flags >> bit & 1 == 1;
    let set = PERMISSIONS.iter().enumerate().filter(|(bit, _)| is_set(*bit));
    set.fold(0o400, |mode, (_, permission)| mode | permission)
}

fn flags_of(mode: u16) -> u8 {
    let is_set = |permission: &u16| mode & permission != 0;
    let set = PERMISSIONS.iter().enumerate().filter(|(_, permission)| is_set(permission));
    set.fold(0, |flags, (bit, _)| flags | 1 << bit)
}

/// Which side writes: it decides the kinds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// Of the files.
    Sender,
    /// Of the files.
    Receiver,
}

/// Appends the message as `side` writes it. Of DATA only the header is best written by
/// [`put_data_header`], where the bytes go another way.
pub fn put(out: &mut Vec<u8>, side: Side, message: &Message<'_>) {
    let start = out.len();
    let kind = kind_of(side, message);
    out.extend_from_slice(&[kind, 0, 0, 0]);
    match message {
        Message::Hello { version, features } => out.extend_from_slice(&[*version, *features]),
        Message::Entry(entry) => put_entry(out, entry),
        Message::Failed { number, path, fault } => {
            out.extend_from_slice(&number.to_be_bytes());
            let path = &path[..path.len().min(PATH_MAX_BYTES)];
            out.extend_from_slice(&(path.len() as u16).to_be_bytes());
            out.extend_from_slice(path);
            put_fault(out, fault);
        }
        Message::File { number, starts_over, from } => {
            out.extend_from_slice(&number.to_be_bytes());
            out.push(if *starts_over { STARTS_OVER } else { 0 });
            out.extend_from_slice(&from.to_be_bytes());
        }
        Message::Data(bytes) => out.extend_from_slice(bytes),
        Message::Hash(hash) => out.extend_from_slice(hash),
        Message::Hole(length) | Message::Grown(length) => {
            out.extend_from_slice(&length.to_be_bytes());
        }
        Message::Skipped { count, path } => {
            out.extend_from_slice(&count.to_be_bytes());
            out.extend_from_slice(&path[..path.len().min(PATH_MAX_BYTES)]);
        }
        Message::End { entries: number } | Message::Stored { number } => {
            out.extend_from_slice(&number.to_be_bytes());
        }
        Message::Want { number, from, hash } => {
            out.extend_from_slice(&number.to_be_bytes());
            out.extend_from_slice(&from.to_be_bytes());
            if *from > 0 {
                out.extend_from_slice(hash);
            }
        }
        Message::Done => {}
        Message::Abort(fault) => put_fault(out, fault),
    }
    let length = (out.len() - start - HEADER_BYTES) as u32;
    out[start + 1..start + HEADER_BYTES].copy_from_slice(&length.to_be_bytes()[1..]);
}

/// Appends the header of a DATA message whose `length` bytes the caller sends behind it.
pub fn put_data_header(out: &mut Vec<u8>, length: usize) {
    debug_assert!((1..=TRANSFER_DATA_MAX_BYTES).contains(&length));
    let [_, a, b, c] = (length as u32).to_be_bytes();
    out.extend_from_slice(&[sender::DATA, a, b, c]);
}

fn kind_of(side: Side, message: &Message<'_>) -> u8 {
    let is_sender = side == Side::Sender;
    match message {
        Message::Hello { .. } if is_sender => sender::HELLO,
        Message::Hello { .. } => receiver::HELLO,
        Message::Failed { .. } if is_sender => sender::FAILED,
        Message::Failed { .. } => receiver::FAILED,
        Message::Abort(_) if is_sender => sender::ABORT,
        Message::Abort(_) => receiver::ABORT,
        Message::Entry(_) => sender::ENTRY,
        Message::File { .. } => sender::FILE,
        Message::Data(_) => sender::DATA,
        Message::Hash(_) => sender::HASH,
        Message::Hole(_) => sender::HOLE,
        Message::Grown(_) => sender::GROWN,
        Message::Skipped { .. } => sender::SKIPPED,
        Message::End { .. } => sender::END,
        Message::Want { .. } => receiver::WANT,
        Message::Stored { .. } => receiver::STORED,
        Message::Done => receiver::DONE,
    }
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    out.extend_from_slice(&entry.item.to_be_bytes());
    out.push(match entry.kind {
        EntryKind::File => 0,
        EntryKind::Folder => 1,
        EntryKind::Link => 2,
    });
    out.push(flags_of(entry.mode));
    out.extend_from_slice(&entry.size.to_be_bytes());
    out.extend_from_slice(&entry.modified.0.to_be_bytes());
    out.extend_from_slice(&entry.modified.1.to_be_bytes());
    out.extend_from_slice(&entry.path);
    out.extend_from_slice(&entry.target);
}

fn put_fault(out: &mut Vec<u8>, fault: &Fault) {
    let code = fault.code.as_str().as_bytes();
    out.push(code.len() as u8);
    out.extend_from_slice(code);
    out.extend_from_slice(bounded(&fault.text).as_bytes());
}

/// So much of a fault's text as goes into a message. Bytes that are not UTF-8 become longer as
/// they are read, so that what has been read is bounded too.
fn bounded(text: &str) -> &str {
    let mut end = text.len().min(REFUSAL_TEXT_MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

pub(super) fn broken(text: impl Into<String>) -> Fault {
    Fault::new(ErrorCode::Protocol, text)
}

const _: () =
    assert!(TRANSFER_DATA_MAX_BYTES >= CHUNK_MAX_BYTES && TRANSFER_DATA_MAX_BYTES < 1 << 24);

#[cfg(test)]
mod tests;
