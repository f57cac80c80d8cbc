//! Files from one user to another: what a sender proposes, and what the receiver is told.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    Blob, Name, Refusal, SharePath, Tag,
    check::{self, Borrowed},
    error::ErrorCode::*,
    event::Object,
};
use crate::limits::{INTRODUCTION_MAX_BYTES, REASON_MAX_BYTES};

/// What goes through the pipe between the two ends of a transfer.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// The bytes of one file as they are, from the sender to the receiver.
    #[default]
    Raw,
    /// Bytes both ways, of which the server understands nothing. Frames alone.
    Conversation,
}

/// What a sender has for somebody.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Parcel {
    /// One part of a path, for people: the receiver decides the name that it writes.
    pub name: Blob<'static>,
    /// Bytes in all, where the sender knows that: it does where they go as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Seconds since 1970 of the last change, where the sender tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<i64>,
    /// How many files.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub files: u64,
    /// Whether the name is that of a folder.
    #[serde(default, skip_serializing_if = "is_false")]
    pub folder: bool,
    /// The most that the sender can speak.
    #[serde(default, skip_serializing_if = "is_raw")]
    pub form: Form,
    /// Words of the sender's client for the receiver's: as JSON at most
    /// [`INTRODUCTION_MAX_BYTES`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub introduction: Option<Object>,
}

/// A request to send something to another user.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(remote = "Self")]
pub struct Proposal {
    /// To whom.
    #[serde(deserialize_with = "check::read_name")]
    pub to: Name,
    /// What.
    #[serde(flatten)]
    pub parcel: Parcel,
    /// The whole content, where it came with the request and does not follow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Blob<'static>>,
}

impl Parcel {
    /// One file, as it is.
    pub fn file(name: &[u8], size: u64) -> Parcel {
        Parcel {
            name: Blob::borrowed(name).into_owned(),
            size: Some(size),
            modified: None,
            files: 1,
            folder: false,
            form: Form::Raw,
            introduction: None,
        }
    }

    /// Whether it can go as the bytes of one file.
    pub fn can_be_raw(&self) -> bool {
        self.files == 1 && !self.folder && self.size.is_some()
    }
}

impl Proposal {
    /// Checks what only looks like a good proposal so far.
    ///
    /// # Errors
    /// A name that is no part of a path, an introduction that is too long, data of another size,
    /// several files in the form of one.
    pub fn check(self, tag: Tag) -> Result<Proposal, Refusal> {
        let wrong = |text: &'static str| Err(Refusal::new(tag, BadArguments, text));
        let parcel = &self.parcel;
        if parcel.name.0.contains(&b'/') {
            let text = "the name of what is sent is one part of a path, without /";
            return Err(Refusal::new(tag, BadPath, text));
        }
        if let Err(fault) = SharePath::parse(&parcel.name.0) {
            return Err(Refusal::new(tag, BadPath, fault.to_string()));
        }
        check_introduction(tag, parcel.introduction.as_ref())?;
        match parcel.size {
            Some(size) if size > i64::MAX as u64 => {
                return wrong("no file is so large; a size has 63 bits");
            }
            None if parcel.form == Form::Raw => return wrong("`size` or `data` is missing"),
            _ => {}
        }
        if parcel.form == Form::Raw && !parcel.can_be_raw() {
            return wrong("folders and several files need the form `conversation`");
        }
        match &self.data {
            Some(_) if parcel.form != Form::Raw => wrong("`data` goes with the form `raw` alone"),
            Some(data) if Some(data.0.len() as u64) != parcel.size => {
                wrong("`size` is not that of `data`; leave it out")
            }
            _ => Ok(self),
        }
    }
}

impl Serialize for Proposal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Proposal::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Proposal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Proposal, D::Error> {
        let mut proposal = Proposal::deserialize(deserializer)?;
        let size = proposal.data.as_ref().map(|data| data.0.len() as u64);
        proposal.parcel.size = proposal.parcel.size.or(size);
        proposal.check(0).map_err(check::carried)
    }
}

pub(super) fn one() -> u64 {
    1
}

pub(super) fn is_one(count: &u64) -> bool {
    *count == 1
}

pub(super) fn is_false(it: &bool) -> bool {
    !it
}

pub(super) fn is_raw(form: &Form) -> bool {
    *form == Form::Raw
}

pub(super) fn read_introduction<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Box<Object>>, D::Error> {
    let introduction = Option::<Box<Object>>::deserialize(deserializer)?;
    check_introduction(0, introduction.as_deref()).map_err(check::carried)?;
    Ok(introduction)
}

pub(super) fn read_reason<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let reason = Option::<Borrowed<'_>>::deserialize(deserializer)?;
    let reason = reason.as_ref().map_or("", |Borrowed(reason)| reason);
    check_reason(0, reason).map_err(check::carried)
}

/// Refuses an introduction that is too long.
pub(super) fn check_introduction(tag: Tag, introduction: Option<&Object>) -> Result<(), Refusal> {
    let Some(introduction) = introduction else { return Ok(()) };
    let json = serde_json::to_string(introduction).expect("members of JSON are JSON");
    match json.len() > INTRODUCTION_MAX_BYTES {
        false => Ok(()),
        true => {
            let text = format!("an introduction may have {INTRODUCTION_MAX_BYTES} bytes as JSON");
            Err(Refusal::new(tag, TextTooLong, text))
        }
    }
}

/// The reason of somebody who refuses an offer: nothing, or one short text.
pub(super) fn check_reason(tag: Tag, reason: &str) -> Result<Option<String>, Refusal> {
    let reason = reason.trim();
    if reason.len() > REASON_MAX_BYTES {
        let text = format!("a reason may have {REASON_MAX_BYTES} bytes");
        return Err(Refusal::new(tag, TextTooLong, text));
    }
    Ok((!reason.is_empty()).then(|| reason.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ErrorCode;

    fn proposal(name: &[u8]) -> Proposal {
        let to = Name::parse("bob").expect("a name");
        Proposal { to, parcel: Parcel::file(name, 5), data: None }
    }

    fn code(proposal: Proposal) -> Option<ErrorCode> {
        proposal.check(7).err().map(|refusal| {
            assert_eq!(refusal.tag, 7);
            refusal.code
        })
    }

    #[test]
    fn a_name_is_one_part_of_a_path() {
        for good in [&b"a"[..], b"a b.txt", b"\xff", b".hidden", b"\x1b[2J"] {
            assert_eq!(code(proposal(good)), None);
        }
        let long = [b'a'; 256];
        for bad in [&b""[..], b".", b"..", b"a/b", b"/a", b"a/", b"a\0", &long] {
            assert_eq!(code(proposal(bad)), Some(BadPath), "{bad:?}");
        }
    }

    #[test]
    fn only_a_conversation_carries_folders_and_several_files() {
        for (files, folder) in [(2, false), (1, true), (0, true)] {
            let mut several = proposal(b"a");
            (several.parcel.files, several.parcel.folder) = (files, folder);
            assert_eq!(code(several.clone()), Some(BadArguments));
            several.parcel.form = Form::Conversation;
            assert_eq!(code(several), None);
        }
    }

    #[test]
    fn only_a_conversation_may_not_know_its_size() {
        let mut unknown = proposal(b"a");
        unknown.parcel.size = None;
        assert_eq!(code(unknown.clone()), Some(BadArguments));
        unknown.parcel.form = Form::Conversation;
        assert_eq!(code(unknown), None);
        let mut huge = proposal(b"a");
        huge.parcel.size = Some(1 << 63);
        assert_eq!(code(huge), Some(BadArguments));
    }

    #[test]
    fn data_has_the_size_that_was_said() {
        let with = |data: &[u8]| Proposal {
            data: Some(Blob::borrowed(data).into_owned()),
            ..proposal(b"a")
        };
        assert_eq!(code(with(b"hello")), None);
        assert_eq!(code(with(b"hello!")), Some(BadArguments));
        let mut talks = with(b"hello");
        talks.parcel.form = Form::Conversation;
        assert_eq!(code(talks), Some(BadArguments));
    }

    #[test]
    fn introductions_and_reasons_are_short() {
        let with = |count: usize| {
            let mut introduction = Object::new();
            introduction.insert("k".into(), "x".repeat(count).into());
            let mut proposal = proposal(b"a");
            proposal.parcel.introduction = Some(introduction);
            proposal
        };
        let around = r#"{"k":""}"#.len();
        assert_eq!(code(with(INTRODUCTION_MAX_BYTES - around)), None);
        assert_eq!(code(with(INTRODUCTION_MAX_BYTES - around + 1)), Some(TextTooLong));
        assert_eq!(check_reason(0, "  "), Ok(None));
        assert_eq!(check_reason(0, " no room "), Ok(Some("no room".into())));
        assert!(check_reason(0, &"x".repeat(REASON_MAX_BYTES + 1)).is_err());
    }
}
