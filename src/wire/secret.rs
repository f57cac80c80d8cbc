//! A password on its way, which nobody gets to see by accident.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

/// A password. Printed for debugging it shows nothing of itself; memory of its own is overwritten
/// when it is dropped.
///
/// Comparing two takes a time that tells where they differ: that is for tests. Passwords are
/// checked elsewhere.
#[derive(Clone)]
pub struct Secret<'a>(Text<'a>);

#[derive(Clone)]
enum Text<'a> {
    Borrowed(&'a str),
    Owned(Zeroizing<String>),
}

impl Secret<'_> {
    /// The password itself, for whoever checks it or sends it.
    pub fn reveal(&self) -> &str {
        match &self.0 {
            Text::Borrowed(text) => text,
            Text::Owned(text) => text,
        }
    }

    /// The same, borrowed.
    pub fn borrowed(&self) -> Secret<'_> {
        Secret(Text::Borrowed(self.reveal()))
    }

    /// The same with memory of its own.
    pub fn into_owned(self) -> Secret<'static> {
        Secret(Text::Owned(match self.0 {
            Text::Borrowed(text) => Zeroizing::new(text.to_owned()),
            Text::Owned(text) => text,
        }))
    }
}

impl<'a> From<&'a str> for Secret<'a> {
    fn from(text: &'a str) -> Secret<'a> {
        Secret(Text::Borrowed(text))
    }
}

impl From<String> for Secret<'_> {
    fn from(text: String) -> Self {
        Secret(Text::Owned(Zeroizing::new(text)))
    }
}

impl<'a> From<Cow<'a, str>> for Secret<'a> {
    fn from(text: Cow<'a, str>) -> Secret<'a> {
        match text {
            Cow::Borrowed(text) => text.into(),
            Cow::Owned(text) => text.into(),
        }
    }
}

impl PartialEq for Secret<'_> {
    fn eq(&self, other: &Secret<'_>) -> bool {
        self.reveal() == other.reveal()
    }
}

impl Eq for Secret<'_> {}

impl fmt::Debug for Secret<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

impl Serialize for Secret<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.reveal())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Secret<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret<'a>, D::Error> {
        deserializer.deserialize_str(Visitor)
    }
}

struct Visitor;

impl<'de> de::Visitor<'de> for Visitor {
    type Value = Secret<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Secret<'de>, E> {
        Ok(text.into())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret<'de>, E> {
        Ok(text.to_owned().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shows_nothing_of_itself_and_is_sent_as_it_is() {
        for text in ["S3cr3t", "S3cr3t \" \\ \n\0\u{fc}"] {
            let secret = Secret::from(text);
            let printed = format!("{secret:?} {:#?}", Some(secret.borrowed().into_owned()));
            assert!(!printed.contains("S3"), "{printed}");
            let json = serde_json::to_string(&secret).expect("a string");
            let back: Secret<'_> = serde_json::from_str(&json).expect("a string");
            assert_eq!(back, secret);
            assert_eq!(back.into_owned().reveal(), text);
        }
        assert!(serde_json::from_str::<Secret<'_>>("7").is_err());
    }
}
