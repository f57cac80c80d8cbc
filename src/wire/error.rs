//! What can be wrong with a request, named once for all dialects.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

use super::Tag;
use crate::limits::REFUSAL_TEXT_MAX_BYTES;

/// The name of an error: kebab-case on the wire, and the same in every dialect.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The first word is no verb and there is no `|`.
    UnknownCommand,
    /// A verb with arguments that it does not take.
    BadArguments,
    /// Bytes that are no text where text is due: NUL, a lone CR, broken UTF-8.
    BadText,
    /// What should be a JSON object is none.
    BadJson,
    /// Not a user name.
    BadName,
    /// Not a path below the root.
    BadPath,
    /// Bytes that the dialect does not allow; the connection ends.
    Protocol,
    /// A dialect or a version that this server does not speak; the connection ends.
    NotSupported,
    /// A message longer than 64 KiB.
    TextTooLong,
    /// A line longer than any request.
    LineTooLong,
    /// Too many at once, or more recipients than one message may have.
    TooMany,
    /// Nobody of that name is here.
    NoSuchUser,
    /// Nothing is offered under that number.
    NoSuchOffer,
    /// The other user does not want it.
    Refused,
    /// The user at the other end has gone.
    PeerGone,
    /// The queue of that user is full.
    PeerBusy,
    /// A message was queued and the user went before it was sent.
    NotDelivered,
    /// The request needs a name, and this session has none yet.
    NotNamed,
    /// Somebody of that name is here already.
    NameTaken,
    /// The server asks for a password, and none was given; or the session has not logged in.
    LoginRequired,
    /// The name or the password is wrong.
    LoginFailed,
    /// Too many logins of that name have failed; nothing is checked for a while.
    Blocked,
    /// Somebody else has logged in under the name of this session; the connection ends.
    Replaced,
    /// This session has a name already.
    AlreadyNamed,
    /// The id of a new operation belongs to one that still runs.
    IdInUse,
    /// No such file or folder below the root.
    NoSuchFile,
    /// There is something of that name, but no regular file.
    NotAFile,
    /// There is something of that name, but no folder.
    NotAFolder,
    /// The server may not read it.
    PermissionDenied,
    /// The file changed while it was read.
    FileChanged,
    /// The bytes that came are not those that were sent.
    NotVerified,
    /// There is no space left where it is to be written.
    NoSpace,
    /// The quota of the disk is used up.
    QuotaExceeded,
    /// The file system is read-only.
    ReadOnly,
    /// The file is larger than it may be there.
    FileTooLarge,
    /// The name is longer than the file system takes.
    NameTooLong,
    /// The system refused; the text says how.
    SystemError,
    /// A fault of the server itself; its log says more under the number that is told.
    Internal,
    /// The command could not be started.
    CannotStart,
    /// The host has not the program that would be needed.
    NoInterpreter,
    /// The server lacks something at the moment; later it may work.
    Busy,
    /// Something took longer than it may.
    TimedOut,
    /// The client wanted no more of it.
    Cancelled,
    /// This peer may not do that.
    Denied,
    /// The server is stopping.
    ShuttingDown,
    /// Somebody has ended all sessions; the server goes on.
    Reset,
    /// The peer took nothing for too long.
    SlowConsumer,
    /// What was uploaded are no integers, one a line, or there are none.
    BadSamples,
    /// The device has no file of that number at the server.
    NoSuchData,
    /// Nothing of that name can be computed.
    UnknownOperation,
    /// The session is no active device.
    NotJoined,
}

impl ErrorCode {
    /// The name as it stands on the wire.
    pub fn as_str(self) -> &'static str {
        use ErrorCode::*;
        match self {
            UnknownCommand => "unknown-command",
            BadArguments => "bad-arguments",
            BadText => "bad-text",
            BadJson => "bad-json",
            BadName => "bad-name",
            BadPath => "bad-path",
            Protocol => "protocol",
            NotSupported => "not-supported",
            TextTooLong => "text-too-long",
            LineTooLong => "line-too-long",
            TooMany => "too-many",
            NoSuchUser => "no-such-user",
            NoSuchOffer => "no-such-offer",
            Refused => "refused",
            PeerGone => "peer-gone",
            PeerBusy => "peer-busy",
            NotDelivered => "not-delivered",
            NotNamed => "not-named",
            NameTaken => "name-taken",
            LoginRequired => "login-required",
            LoginFailed => "login-failed",
            Blocked => "blocked",
            Replaced => "replaced",
            AlreadyNamed => "already-named",
            IdInUse => "id-in-use",
            NoSuchFile => "no-such-file",
            NotAFile => "not-a-file",
            NotAFolder => "not-a-folder",
            PermissionDenied => "permission-denied",
            FileChanged => "file-changed",
            NotVerified => "not-verified",
            NoSpace => "no-space",
            QuotaExceeded => "quota-exceeded",
            ReadOnly => "read-only",
            FileTooLarge => "file-too-large",
            NameTooLong => "name-too-long",
            SystemError => "system-error",
            Internal => "internal",
            CannotStart => "cannot-start",
            NoInterpreter => "no-interpreter",
            Busy => "busy",
            TimedOut => "timed-out",
            Cancelled => "cancelled",
            Denied => "denied",
            ShuttingDown => "shutting-down",
            Reset => "reset",
            SlowConsumer => "slow-consumer",
            BadSamples => "bad-samples",
            NoSuchData => "no-such-data",
            UnknownOperation => "unknown-operation",
            NotJoined => "not-joined",
        }
    }
}

impl ErrorCode {
    /// The error of this name.
    pub fn parse(name: &[u8]) -> Option<ErrorCode> {
        use serde::de::{IntoDeserializer, value};
        let name = std::str::from_utf8(name).ok()?;
        let name: value::StrDeserializer<'_, value::Error> = name.into_deserializer();
        ErrorCode::deserialize(name).ok()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A request that is answered with an error. The sentence says what happened and what to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// The request that it answers; 0 where that cannot be told.
    pub tag: Tag,
    /// The name of the error.
    pub code: ErrorCode,
    /// One sentence for people, without a line end, of at most [`REFUSAL_TEXT_MAX_BYTES`].
    pub text: Cow<'static, str>,
}

impl Refusal {
    /// A refusal of the request `tag`. A text that is too long is cut.
    pub fn new(tag: Tag, code: ErrorCode, text: impl Into<Cow<'static, str>>) -> Refusal {
        let mut text = text.into();
        if text.len() > REFUSAL_TEXT_MAX_BYTES {
            let last = REFUSAL_TEXT_MAX_BYTES - "...".len();
            let end = (0..=last).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text = Cow::Owned(format!("{}...", &text[..end]));
        }
        Refusal { tag, code, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_in_json_is_the_name_in_lines() {
        for code in [ErrorCode::UnknownCommand, ErrorCode::NotAFile, ErrorCode::IdInUse] {
            let json = serde_json::to_string(&code).expect("a string");
            assert_eq!(json, format!("\"{code}\""));
        }
    }

    #[test]
    fn a_sentence_that_quotes_too_much_is_cut_between_characters() {
        for text in ["a".repeat(513), "\u{1f600}".repeat(20_000)] {
            let refusal = Refusal::new(7, ErrorCode::BadArguments, text.clone());
            let kept = refusal.text.strip_suffix("...").expect("the mark of a cut");
            assert!(refusal.text.len() <= 512 && refusal.text.len() > 500);
            assert!(text.starts_with(kept));
        }
        let whole = "a".repeat(512);
        assert_eq!(Refusal::new(0, ErrorCode::Busy, whole.clone()).text, whole);
    }
}
