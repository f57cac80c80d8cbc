//! What is wrong with a request, in the words of the protocol and not in those of its reader.

use std::borrow::Cow;

use serde::de::DeserializeOwned;

use super::request::Raw;
use crate::wire::{Blob, Form, event::Object, host::Interpreter, verbs, verbs::Entry};

const BYTES: &str = "is a string or {\"base64\": \"...\"}";
const FILE_NUMBER: &str = "is a whole number from 0 to 4294967295";
const COUNT: &str = "is a whole number that is not negative";
const STRING: &str = "is a string";

/// A member, what it is, and whether a value is that.
type Rule = (&'static str, &'static str, fn(&str) -> bool);

const RULES: [Rule; 24] = [
    ("path", BYTES, is_or_null::<Blob<'static>>),
    ("into", BYTES, is_or_null::<Blob<'static>>),
    ("name", BYTES, is::<Blob<'static>>),
    ("data", BYTES, is_or_null::<Blob<'static>>),
    ("command", STRING, is::<String>),
    ("text", STRING, is::<String>),
    ("to", STRING, is::<String>),
    ("host", STRING, is_or_null::<String>),
    ("reason", STRING, is_or_null::<String>),
    ("hash", STRING, is_or_null::<String>),
    ("request_id", STRING, is_or_null::<String>),
    ("operation", STRING, is::<String>),
    ("udp_port", "is a whole number from 0 to 65535", is::<u16>),
    ("offer", "is the number of an offer", is::<u32>),
    ("file_id", FILE_NUMBER, is::<u32>),
    ("interval_ms", FILE_NUMBER, is::<u32>),
    ("timeout_ms", "is a whole number of milliseconds, 0 for no limit", is::<u64>),
    ("size", COUNT, is_or_null::<u64>),
    ("files", COUNT, is::<u64>),
    ("modified", "is a whole number of seconds since 1970", is_or_null::<i64>),
    ("samples", "is an array of whole numbers of 64 bits", is_or_null::<Vec<i64>>),
    ("folder", "is true or false", is::<bool>),
    ("interpreter", "is `linux`, `dos` or `powershell`", is_or_null::<Interpreter>),
    ("form", "is `raw` or `conversation`", is::<Form>),
];

fn is<T: DeserializeOwned>(raw: &str) -> bool {
    serde_json::from_str::<T>(raw).is_ok()
}

fn is_or_null<T: DeserializeOwned>(raw: &str) -> bool {
    is::<Option<T>>(raw)
}

/// Why these members make no request; `said` is what their reader says of it.
pub fn of_fault(members: &[(Cow<'_, str>, Raw<'_>)], said: &str) -> String {
    let is_missing = said.strip_prefix("missing field `").and_then(|it| it.split('`').next());
    if let Some(name) = is_missing {
        return format!("the request has no `{name}`");
    }
    let op = members.iter().find(|(key, _)| key == "op").map_or("", |(_, value)| value.0);
    let entry = op_of(op).filter(|entry| entry.dialects.json);
    let op = entry.map_or_else(|| op.to_owned(), |entry| format!("\"{}\"", entry.op()));
    if said.starts_with("unknown variant") && entry.is_none() {
        return format!("there is no `op` {op}; there are {}", verbs::ops());
    }
    let wrong = members.iter().find_map(|(key, value)| {
        let (name, what, is_good) = RULES.iter().find(|(name, ..)| key == name)?;
        (!is_good(value.0)).then(|| format!("`{name}` {what}"))
    });
    let introduction = |(key, value): &(Cow<'_, str>, Raw<'_>)| {
        key == "introduction" && !is_or_null::<Object>(value.0)
    };
    match wrong {
        Some(text) => text,
        None if members.iter().any(introduction) => "`introduction` is an object".to_owned(),
        None => format!("the members are not what the `op` {op} takes"),
    }
}

/// The verb that is written so in JSON.
pub fn op_of(raw: &str) -> Option<&'static Entry> {
    let inner = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match inner.filter(|inner| !inner.contains('\\')) {
        Some(plain) => verbs::find_op(plain.as_bytes()),
        None => verbs::find_op(serde_json::from_str::<String>(raw).ok()?.as_bytes()),
    }
}
