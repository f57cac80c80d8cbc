//! The short way of requests that programs send by the million: `echo` and `ping`, plainly written.
//!
//! They are answered from their own bytes, in one look at them. Whatever is not just so goes the
//! long way, whose answer has the same bytes.

use super::syntax::{Kind, Span, Walker};
use crate::{
    limits::{ID_MAX_BYTES, TEXT_MAX_BYTES},
    wire::escape,
};

/// A request that needs nothing but its own bytes to be answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Quick<'a> {
    /// A scalar, as it was written.
    pub id: &'a [u8],
    /// What `echo` says, without escapes; none for `ping`.
    pub text: Option<&'a [u8]>,
    /// Bytes of it, with the white space before it.
    pub consumed: usize,
}

/// The request at the head of `bytes`, if that is plainly what lies there, with at most
/// `object_max` bytes.
pub fn quick(bytes: &[u8], object_max: usize) -> Option<Quick<'_>> {
    let mut walker = Walker::of(bytes);
    if walker.skip().ok()? != b'{' {
        return None;
    }
    let begin = walker.at;
    let (mut op, mut id, mut text) = (None, None, None);
    loop {
        walker.at += 1;
        if walker.skip().ok()? != b'"' {
            return None;
        }
        let key = walker.string().ok()?.raw(bytes);
        let member = match key {
            b"\"op\"" => &mut op,
            b"\"id\"" => &mut id,
            b"\"text\"" => &mut text,
            _ => return None,
        };
        if walker.skip().ok()? != b':' || member.is_some() {
            return None;
        }
        walker.at += 1;
        let value = match walker.skip().ok()? {
            b'"' => walker.string().ok()?,
            b'{' | b'[' => return None,
            _ => walker.value(1).ok()?,
        };
        if key == b"\"op\"" && !matches!(value.raw(bytes), b"\"echo\"" | b"\"ping\"") {
            return None;
        }
        *member = Some(value);
        match walker.skip().ok()? {
            b',' => {}
            b'}' => break,
            _ => return None,
        }
    }
    walker.at += 1;
    let id = id?.raw(bytes);
    let text = match (op?.raw(bytes), text) {
        (b"\"echo\"", Some(text)) => Some(plain(text, bytes)?),
        (b"\"ping\"", None) => None,
        _ => return None,
    };
    let is_small = walker.at - begin <= object_max && id.len() <= ID_MAX_BYTES;
    is_small.then_some(Quick { id, text, consumed: walker.at })
}

/// The inside of a string that means itself.
fn plain(span: Span, bytes: &[u8]) -> Option<&[u8]> {
    let raw = span.raw(bytes);
    let is_plain = span.kind == Kind::Plain && raw.len() - 2 <= TEXT_MAX_BYTES;
    let text = is_plain.then(|| &raw[1..raw.len() - 1])?;
    // What could deceive is spelled out, the long way.
    let is_harmless = escape::is_plain(text)
        || std::str::from_utf8(text).is_ok_and(|text| !text.chars().any(escape::is_harmful));
    is_harmless.then_some(text)
}

impl Quick<'_> {
    /// Appends its reply.
    pub fn put_reply(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":");
        out.extend_from_slice(self.id);
        out.extend_from_slice(b",\"result\":null,\"stdout\":\"\",\"stderr\":\"\",\"errorcode\":0");
        if let Some(text) = self.text {
            out.extend_from_slice(b",\"text\":\"");
            out.extend_from_slice(text);
            out.push(b'"');
        }
        out.extend_from_slice(b"}\n");
    }
}
