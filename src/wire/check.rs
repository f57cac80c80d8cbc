//! What more than one dialect checks, in the same words.

use std::borrow::Cow;

use super::{Recipients, Refusal, Request, SharePath, Text, error::ErrorCode::*};
use crate::limits::{COMMAND_MAX_BYTES, RECIPIENTS_MAX_BYTES, TEXT_MAX_BYTES};

/// A text for these users; `usage` says how one is written.
pub fn message<'a>(
    to: &'a [u8],
    text: Text<'a>,
    usage: std::fmt::Arguments<'_>,
) -> Result<Request<'a>, Refusal> {
    let wrong = |what: &str| Err(Refusal::new(0, BadArguments, format!("{what}; {usage}")));
    if to.is_empty() {
        return wrong("nobody is named");
    }
    if to.len() > RECIPIENTS_MAX_BYTES {
        return Err(Refusal::new(0, TooMany, "the list of recipients is too long"));
    }
    if text.is_empty() {
        return wrong("the text is empty");
    }
    if text.len() > TEXT_MAX_BYTES {
        let text = format!("a text may have {TEXT_MAX_BYTES} bytes; this one has {}", text.len());
        return Err(Refusal::new(0, TextTooLong, text));
    }
    Ok(Request::Message { tag: 0, to: Recipients(to), text })
}

/// A path below the root.
pub fn path(bytes: &[u8]) -> Result<SharePath, Refusal> {
    SharePath::parse(bytes).map_err(|fault| Refusal::new(0, BadPath, fault.to_string()))
}

/// A folder below the root: nothing, `.` and `/` are the root itself.
pub fn folder(bytes: &[u8]) -> Result<Option<SharePath>, Refusal> {
    match bytes.strip_suffix(b"/").unwrap_or(bytes) {
        b"" | b"." => Ok(None),
        trimmed => path(trimmed).map(Some),
    }
}

/// What `/bin/sh -c` can take as one argument.
pub fn command(command: Cow<'_, str>) -> Result<Cow<'_, str>, Refusal> {
    if command.len() > COMMAND_MAX_BYTES {
        let text = format!("a command may have {COMMAND_MAX_BYTES} bytes");
        return Err(Refusal::new(0, TextTooLong, text));
    }
    if command.contains('\0') {
        return Err(Refusal::new(0, BadText, "a command may not hold a NUL byte"));
    }
    Ok(command)
}
