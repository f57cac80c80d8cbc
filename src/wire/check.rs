//! What more than one dialect checks, in the same words.
//!
//! The types of requests check themselves while serde reads them. What it takes for an error is a
//! text; so a refusal goes through it as one, see [`carried`], and is a refusal again behind it.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, de};

use super::{
    Blob, ErrorCode, Name, Recipients, Refusal, Request, SharePath, Text, error::ErrorCode::*,
    name::NAME_RULE,
};
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

/// A text that is to be said back.
pub fn text(text: Cow<'_, str>) -> Result<Cow<'_, str>, Refusal> {
    match text.len() > TEXT_MAX_BYTES {
        true => {
            let text = format!("a text may have {TEXT_MAX_BYTES} bytes");
            Err(Refusal::new(0, TextTooLong, text))
        }
        false => Ok(text),
    }
}

/// Begins and ends what is carried. No error of serde begins so.
const MARK: char = '\u{1}';

/// The refusal as an error of a reader; its tag is not told.
pub fn carried<E: de::Error>(refusal: Refusal) -> E {
    E::custom(format_args!("{MARK}{}{MARK}{}{MARK}", refusal.code, refusal.text))
}

/// The refusal that an error of a reader carries, if it is one.
pub fn refusal_of(error: &str) -> Option<Refusal> {
    let (code, text) = error.strip_prefix(MARK)?.split_once(MARK)?;
    // The reader may have added where it was.
    let (text, _) = text.rsplit_once(MARK)?;
    Some(Refusal::new(0, ErrorCode::parse(code.as_bytes())?, text.to_owned()))
}

/// A text that is borrowed where it stands in the body as it is.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct Borrowed<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// Reads a text of the length that a message may have.
pub fn read_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, str>, D::Error> {
    let Borrowed(said) = Borrowed::deserialize(deserializer)?;
    text(said).map_err(carried)
}

/// Reads the name of a user.
pub fn read_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
    let Borrowed(name) = Borrowed::deserialize(deserializer)?;
    Name::parse(&name).ok_or_else(|| carried(Refusal::new(0, BadName, NAME_RULE)))
}

/// Reads a folder, which is the root where it is absent.
pub fn read_folder<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SharePath>, D::Error> {
    let path = Option::<Blob<'_>>::deserialize(deserializer)?;
    folder(path.as_ref().map_or(b"", |path| &path.0)).map_err(carried)
}

/// Reads one path or several.
pub fn read_paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SharePath>, D::Error> {
    let paths = Vec::<SharePath>::deserialize(deserializer)?;
    if paths.is_empty() {
        return Err(carried(Refusal::new(0, BadArguments, "no file is named")));
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_comes_through_a_reader_as_it_was() {
        for text in ["no", "quotes \" and \u{1} and at line 1 column 2", ""] {
            let refusal = Refusal::new(0, BadPath, text);
            let error: serde_json::Error = carried(refusal.clone());
            assert_eq!(refusal_of(&error.to_string()), Some(refusal.clone()));
            assert_eq!(refusal_of(&format!("{error} at line 1 column 20")), Some(refusal));
        }
        for other in ["", "missing field `op`", "unknown variant `\u{1}busy\u{1}x\u{1}`"] {
            assert_eq!(refusal_of(other), None);
        }
    }
}
