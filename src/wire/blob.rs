//! Bytes that are usually text, carried losslessly inside JSON.

use std::{borrow::Cow, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes in JSON: a string where they are UTF-8, else `{"base64": "..."}` (RFC 4648, section 4).
///
/// File names and the output of commands are bytes, not text; neither may be lost or refused
/// because of that.
#[derive(Clone, Eq, PartialEq)]
pub struct Blob<'a>(pub Cow<'a, [u8]>);

impl<'a> Blob<'a> {
    /// The bytes without a copy.
    pub fn borrowed(bytes: &'a [u8]) -> Blob<'a> {
        Blob(Cow::Borrowed(bytes))
    }

    /// The same bytes, owned.
    pub fn into_owned(self) -> Blob<'static> {
        Blob(Cow::Owned(self.0.into_owned()))
    }
}

impl fmt::Debug for Blob<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), formatter)
    }
}

#[derive(Serialize)]
struct Encoded<'a> {
    base64: Cow<'a, str>,
}

impl Serialize for Blob<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Encoded { base64: STANDARD.encode(&self.0).into() }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Blob<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Form).map(|bytes| Blob(Cow::Owned(bytes)))
    }
}

/// Reads the two forms, and no array of members, which a derived reader would take as well.
struct Form;

impl<'de> de::Visitor<'de> for Form {
    type Value = Vec<u8>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string or {\"base64\": \"...\"}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
        Ok(text.as_bytes().to_vec())
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Vec<u8>, A::Error> {
        match map.next_entry::<Cow<str>, Cow<str>>()? {
            Some((key, text)) if key == "base64" && map.next_key::<Cow<str>>()?.is_none() => {
                let error = |error| de::Error::custom(format_args!("bad base64: {error}"));
                STANDARD.decode(text.as_bytes()).map_err(error)
            }
            _ => Err(de::Error::invalid_value(de::Unexpected::Map, &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_a_string_and_other_bytes_come_back_too() {
        for (bytes, json) in [
            (&b"a.txt"[..], r#""a.txt""#),
            ("\u{e9}\n".as_bytes(), "\"\u{e9}\\n\""),
            (b"\xff\0", r#"{"base64":"/wA="}"#),
        ] {
            let written = serde_json::to_string(&Blob::borrowed(bytes)).expect("it is JSON");
            assert_eq!(written, json);
            let read: Blob = serde_json::from_str(&written).expect("our own form");
            assert_eq!(&read.0[..], bytes);
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for bad in [
            "1",
            "null",
            "{}",
            r#"{"base64":"!"}"#,
            r#"{"base64":"AA=="#,
            r#"{"base64":"AA==","x":1}"#,
            r#"{"base64":"AA==","base64":"AA=="}"#,
            r#"{"x":1,"base64":"AA=="}"#,
            r#"["AA=="]"#,
        ] {
            assert!(serde_json::from_str::<Blob>(bad).is_err(), "{bad}");
        }
    }
}
