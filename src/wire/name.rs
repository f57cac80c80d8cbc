//! A user name that has been checked.

use std::{borrow::Borrow, fmt};

use crate::limits::NAME_MAX_BYTES;

/// A user name: 1 to 32 of `A-Z a-z 0-9 _ . -`, the first a letter or a digit; case matters.
///
/// The only way to make one is [`Name::parse`]. It lies inline, so that ten thousand sessions
/// need no allocation for their names.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub struct Name {
    /// Zero beyond `length`, so that comparing the whole compares the name.
    bytes: [u8; NAME_MAX_BYTES],
    length: u8,
}

/// Why a text is no user name.
pub const NAME_RULE: &str =
    "a name is 1 to 32 of A-Z a-z 0-9 _ . - and begins with a letter or a digit";

impl Name {
    /// `None` where the text breaks [`NAME_RULE`].
    pub fn parse(text: &str) -> Option<Name> {
        let source = text.as_bytes();
        let first = source.first()?;
        let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
        if source.len() > NAME_MAX_BYTES || !first.is_ascii_alphanumeric() {
            return None;
        }
        if !source.iter().all(good) {
            return None;
        }
        let mut bytes = [0; NAME_MAX_BYTES];
        bytes[..source.len()].copy_from_slice(source);
        Some(Name { bytes, length: source.len() as u8 })
    }

    /// The name as bytes, all of them ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length as usize]
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("a name is ASCII")
    }
}

/// Look-ups go by the bytes of the name, so that a request need not be copied into a `Name`.
impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// As `[u8]` hashes, which [`Borrow`] demands.
impl std::hash::Hash for Name {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

impl serde::Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Name::parse(&text).ok_or_else(|| serde::de::Error::custom(NAME_RULE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_the_rule_allows() {
        let long = "a".repeat(32);
        for good in ["a", "0", "alice", "Alice.B-2_x", long.as_str()] {
            assert_eq!(Name::parse(good).expect(good).as_str(), good);
        }
    }

    #[test]
    fn refuses_what_could_deceive_or_break_out() {
        let long = "a".repeat(33);
        let bad = [
            "",
            " ",
            "admin ",
            "a b",
            "..",
            ".a",
            "-rf",
            "_a",
            "*",
            "a|b",
            "a,b",
            "a\0",
            "a\n",
            "\u{430}lice",
            "al\u{200b}ice",
            "\u{202e}a",
            "../x",
            "a/b",
            long.as_str(),
        ];
        for bad in bad {
            assert_eq!(Name::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn case_matters() {
        assert_ne!(Name::parse("Alice"), Name::parse("alice"));
    }
}
