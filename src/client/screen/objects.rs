//! What is shown, as objects for programs.

use serde_json::{Value, json};

use super::{Ending, Shown, passing};
use crate::{
    transfer::SIZE_UNKNOWN,
    wire::{Blob, Stream, escape::escape_json, event::Entry},
};

/// The objects for it, one a line; `None` where it is not for programs. `time` is the present one.
pub(super) fn to_json(shown: &Shown, time: Option<i64>) -> Option<Vec<u8>> {
    let blob = |bytes: &[u8]| json!(Blob::borrowed(bytes));
    let one = match shown {
        Shown::Roster(users) => {
            let user = |(name, port)| json!({"event": "user", "name": name, "udp_port": port});
            return Some(lines(users.iter().copied().map(user)));
        }
        Shown::Users(names) => {
            return Some(lines(names.iter().map(|n| json!({"event": "user", "name": n}))));
        }
        Shown::Entries(entries) => return Some(lines(entries.iter().map(json_entry))),
        Shown::Welcome { user, server } => {
            json!({"event": "welcome", "user": user, "server": server})
        }
        Shown::Message { from, text } => {
            json!({"event": "message", "from": from, "text": text, "time": time})
        }
        Shown::Sent { to } => json!({"event": "sent", "to": to}),
        Shown::Delivered { to, by } => json!({"event": "delivered", "to": to, "by": by}),
        Shown::Counted { count, what } => json!({"event": "end", "count": count, "of": what}),
        Shown::Edge(answer) => {
            let mut object = answer.to_object();
            object.insert("event".into(), "edge".into());
            Value::Object(object)
        }
        Shown::Text(text) => json!({"event": "text", "text": text}),
        Shown::Info(object) => {
            let mut object = object.clone();
            object.insert("event".to_owned(), "info".into());
            Value::Object(object)
        }
        Shown::Pong { text, us } => json!({"event": "pong", "text": text, "microseconds": us}),
        Shown::RoundTrip { route, us } => json!({
            "event": "round-trip", "family": route.family, "address": route.address,
            "microseconds": us,
        }),
        Shown::RoundTrips { route, trips } => json!({
            "event": "round-trips", "family": route.family, "address": route.address,
            "count": trips.count, "min_microseconds": trips.min_us,
            "avg_microseconds": trips.average_us(), "max_microseconds": trips.max_us,
        }),
        Shown::Output { stream, bytes } => {
            let name = if *stream == Stream::Stdout { "stdout" } else { "stderr" };
            json!({"event": name, "data": blob(bytes)})
        }
        Shown::Ended(Ending::Exit(code)) => json!({"event": "exit", "code": code}),
        Shown::Ended(Ending::Signal(number, because)) => {
            json!({"event": "signal", "number": number, "because": because})
        }
        Shown::Directory(path) => json!({"event": "directory", "path": blob(path)}),
        Shown::File { path, size } => {
            json!({"event": "file", "path": blob(path), "size": known(*size)})
        }
        Shown::Progress { path, received, size, per_second } => json!({
            "event": "progress", "path": blob(path), "bytes": received, "size": known(*size),
            "bytes_per_second": per_second,
        }),
        Shown::Folder { path, target } => json!({
            "event": "folder", "path": blob(path), "file": target.as_deref().map(blob),
        }),
        Shown::Saved { path, target, size, hash, seconds, is_upload, was_there, .. } => json!({
            "event": if *is_upload { "stored" } else { "saved" }, "path": blob(path),
            "file": target.as_deref().map(blob), "size": size, "blake3": hash,
            "seconds": seconds, "unchanged": was_there,
        }),
        Shown::SavedFolder { .. } => return None,
        Shown::Passing(passing) => passing::to_json(passing)?,
        Shown::Error { code, text } => json!({"event": "error", "code": code, "text": text}),
        Shown::Notice(text) => json!({"event": "notice", "text": text}),
        Shown::Clear => return None,
    };
    Some(lines([one]))
}

/// A size, if anybody knows it.
fn known(size: u64) -> Option<u64> {
    Some(size).filter(|size| *size != SIZE_UNKNOWN)
}

fn json_entry(entry: &Entry) -> Value {
    json!({
        "event": "entry", "name": Blob::borrowed(&entry.name), "kind": entry.kind,
        "size": entry.size, "modified": entry.modified,
    })
}

fn lines(values: impl IntoIterator<Item = Value>) -> Vec<u8> {
    let line = |value: Value| format!("{}\n", escape_json(&value.to_string()));
    values.into_iter().map(line).collect::<String>().into_bytes()
}
