//! What is shown of files that go from user to user.

use serde_json::{Value, json};

use super::{CYAN, DIM, GREEN, Screen, Where};
use crate::{
    client::{brain::Folders, channel::Way, progress::Size},
    transfer::sink::Existing,
    wire::{
        Blob, Name,
        escape::{escape, escape_bytes},
    },
};

/// One thing to show.
#[derive(Clone, Debug, PartialEq)]
pub enum Passing {
    /// Somebody wants to send us something, and we are asked.
    Offer {
        /// For the answer.
        number: u32,
        /// Who.
        from: Name,
        /// What.
        what: What,
        /// What becomes of a file of the name that it would get.
        existing: Existing,
        /// The same in words, where there is one.
        here: Option<String>,
    },
    /// That is not to be had any more.
    Withdrawn {
        /// As it was asked about.
        number: u32,
        /// Why.
        text: String,
    },
    /// An offer was refused by the rules.
    Refused {
        /// Who.
        from: Name,
        /// What.
        what: What,
        /// As the sender is told.
        reason: String,
    },
    /// Our offer is out.
    Asked {
        /// Who is asked.
        to: Name,
        /// What it is.
        what: What,
    },
    /// The other end takes part.
    Joined {
        /// Who.
        with: Name,
        /// Whether what goes is ours.
        is_sent: bool,
        /// Which way the bytes go.
        way: Way,
    },
    /// The bytes go another way from now on, from where they stood.
    Rerouted {
        /// Who is at the other end.
        with: Name,
        /// Which way.
        way: Way,
    },
    /// A file is there.
    Passed(Passed),
    /// Folders with the files within them are there.
    Folders {
        /// To or from whom.
        with: Name,
        /// Whether they are ours.
        is_sent: bool,
        /// Which.
        folders: Folders,
        /// Bytes that moved in a second, where it took long enough to tell.
        per_second: Option<u64>,
        /// Which way they went at last.
        way: Option<Way>,
    },
}

/// What is offered.
#[derive(Clone, Debug, PartialEq)]
pub struct What {
    /// Of the first thing.
    pub name: Vec<u8>,
    /// Bytes, if that is known.
    pub size: Option<u64>,
    /// How many files.
    pub files: u64,
    /// Whether it is one folder.
    pub folder: bool,
}

/// A file that has arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Passed {
    /// To or from whom.
    pub with: Name,
    /// Whether it is ours.
    pub is_sent: bool,
    /// As its sender calls it.
    pub path: Vec<u8>,
    /// As it is saved here.
    pub target: Option<Vec<u8>>,
    /// Bytes.
    pub size: u64,
    /// BLAKE3 in hexadecimal; `None` where nobody could verify it.
    pub hash: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// Bytes that moved in a second, where it took long enough to tell.
    pub per_second: Option<u64>,
    /// Nothing had to be sent: it was there already.
    pub was_there: bool,
    /// Which way it went at last, where that is known.
    pub way: Option<Way>,
}

impl What {
    /// `plan.txt (13 B)`, `docs/ (3 files, 4 kB)`, `a.txt and more (3 files, 1 MB)`.
    fn text(&self) -> String {
        let name = escape_bytes(&self.name);
        let size = match self.size {
            Some(size) => Size(size).to_string(),
            None => "size unknown".to_owned(),
        };
        match (self.folder, self.files) {
            (true, 1) => format!("{name}/ (1 file, {size})"),
            (true, files) => format!("{name}/ ({files} files, {size})"),
            (false, 0 | 1) => format!("{name} ({size})"),
            (false, files) => format!("{name} and more ({files} files, {size})"),
        }
    }

    fn json(&self) -> Value {
        json!({
            "name": Blob::borrowed(&self.name), "size": self.size, "files": self.files,
            "folder": self.folder,
        })
    }
}

impl Screen {
    pub(super) fn passing(&self, passing: &Passing) -> Option<(Where, String)> {
        let text = match passing {
            Passing::Offer { number, from, what, here, .. } => {
                let from = self.paint(Where::Err, CYAN, from.as_str());
                let answer = format!("`accept {number}` or `refuse {number}`");
                let here = here.as_ref().map_or_else(String::new, |here| format!(" ({here})"));
                format!("{from} offers {}: {answer}{here}\n", what.text())
            }
            Passing::Withdrawn { number, text } => {
                let text = format!("offer {number} is off: {}", escape(text));
                self.line(Where::Err, DIM, &text)
            }
            _ if self.quiet => return None,
            Passing::Refused { from, what, reason } => {
                let text = format!("refused {} of {from}: {}", what.text(), escape(reason));
                self.line(Where::Err, DIM, &text)
            }
            Passing::Asked { to, what } => {
                let text = format!("offering {} to {to}", what.text());
                self.line(Where::Err, DIM, &text)
            }
            Passing::Joined { with, is_sent: true, way } => {
                self.line(Where::Err, DIM, &format!("{with} takes it, {way}"))
            }
            Passing::Joined { with, way, .. } if self.verbose => {
                self.line(Where::Err, DIM, &format!("taking what {with} sends, {way}"))
            }
            Passing::Joined { .. } => return None,
            Passing::Rerouted { with, way } => {
                let text = format!("the direct path to {with} is gone; going on {way}");
                self.line(Where::Err, DIM, &text)
            }
            Passing::Passed(passed) => self.passed(passed),
            Passing::Folders { with, is_sent, folders, per_second, way } => {
                let (name, unchanged) = self.folders(folders);
                let end = format!("{}{unchanged}, verified", word(*way));
                told(*is_sent, *with, &name, folders.size, *per_second, &end)
            }
        };
        Some((Where::Err, text))
    }

    fn passed(&self, passed: &Passed) -> String {
        let Passed { with, is_sent, path, target, size, hash, per_second, was_there, way, .. } =
            passed;
        let name = escape_bytes(target.as_deref().unwrap_or(path));
        let name = self.paint(Where::Err, GREEN, &name).into_owned();
        let unchanged = if *was_there { ", unchanged" } else { "" };
        let verified = if hash.is_some() { ", verified" } else { ", not verified" };
        let end = format!("{}{unchanged}{verified}", word(*way));
        told(*is_sent, *with, &name, *size, *per_second, &end)
    }
}

/// Which way it went, where that is worth a word.
fn word(way: Option<Way>) -> &'static str {
    match way {
        Some(Way::Direct(_)) => ", direct",
        Some(Way::Sealed) => ", relayed",
        Some(Way::Relayed) | None => "",
    }
}

fn told(
    is_sent: bool,
    with: Name,
    name: &str,
    size: u64,
    per_second: Option<u64>,
    end: &str,
) -> String {
    let (verb, word) = if is_sent { ("sent", "to") } else { ("saved", "from") };
    // What was there has no rate.
    let rate = super::rate(per_second.filter(|_| !end.contains("unchanged")));
    format!("{verb} {name} {word} {with} ({}{rate}{end})\n", Size(size))
}

pub(super) fn to_json(passing: &Passing) -> Option<Value> {
    let blob = |bytes: &[u8]| json!(Blob::borrowed(bytes));
    let with_what = |mut one: Value, what: &What| {
        if let (Value::Object(members), Value::Object(more)) = (&mut one, what.json()) {
            members.extend(more);
        }
        one
    };
    Some(match passing {
        Passing::Offer { number, from, what, .. } => {
            with_what(json!({"event": "offer", "offer": number, "from": from}), what)
        }
        Passing::Withdrawn { number, text } => {
            json!({"event": "offer-withdrawn", "offer": number, "text": text})
        }
        Passing::Refused { from, what, reason } => {
            with_what(json!({"event": "offer-refused", "from": from, "reason": reason}), what)
        }
        Passing::Asked { to, what } => with_what(json!({"event": "asked", "to": to}), what),
        Passing::Joined { with, way, .. } => with_way("joined", *with, *way),
        Passing::Rerouted { with, way } => with_way("rerouted", *with, *way),
        Passing::Passed(passed) if passed.is_sent => json!({
            "event": "sent", "to": passed.with, "path": blob(&passed.path), "size": passed.size,
            "blake3": passed.hash, "seconds": passed.seconds, "unchanged": passed.was_there,
            "way": passed.way.map(Way::word),
        }),
        Passing::Passed(passed) => json!({
            "event": "saved", "from": passed.with, "path": blob(&passed.path),
            "file": passed.target.as_deref().map(blob), "size": passed.size,
            "blake3": passed.hash, "seconds": passed.seconds, "unchanged": passed.was_there,
            "way": passed.way.map(Way::word),
        }),
        // Each of them is told.
        Passing::Folders { .. } => return None,
    })
}

fn with_way(event: &str, with: Name, way: Way) -> Value {
    let mut one = json!({"event": event, "with": with, "way": way.word()});
    match way {
        Way::Direct(place) => one["address"] = json!(place),
        Way::Sealed | Way::Relayed => one["sealed"] = json!(way == Way::Sealed),
    }
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bob() -> Name {
        Name::parse("bob").expect("a name")
    }

    fn what(name: &[u8], size: Option<u64>, files: u64, folder: bool) -> What {
        What { name: name.to_vec(), size, files, folder }
    }

    #[test]
    fn an_offer_says_what_comes_and_how_to_answer() {
        for (what, text) in [
            (what(b"plan.txt", Some(13), 1, false), "plan.txt (13 B)"),
            (what(b"log", None, 1, false), "log (size unknown)"),
            (what(b"docs", Some(4096), 3, true), "docs/ (3 files, 4.10 kB)"),
            (what(b"docs", Some(0), 1, true), "docs/ (1 file, 0 B)"),
            (what(b"a", Some(2), 3, false), "a and more (3 files, 2 B)"),
            (what(b"\x1b[2J\xff", Some(2), 1, false), "\\x1b[2J\\xff (2 B)"),
        ] {
            let (number, existing, here) = (3, Existing::Keep, None);
            let offer = Passing::Offer { number, from: bob(), what, existing, here };
            let (_, shown) = Screen::default().passing(&offer).expect("it is shown");
            assert_eq!(shown, format!("bob offers {text}: `accept 3` or `refuse 3`\n"));
        }
    }

    #[test]
    fn what_is_there_is_told_with_who_vouches() {
        let passed = |is_sent: bool, hash: Option<&str>, per_second, was_there, way| {
            let (path, target) = (b"plan".to_vec(), (!is_sent).then(|| b"bob_plan".to_vec()));
            let (with, hash) = (bob(), hash.map(str::to_owned));
            let (size, seconds) = (12_345_678, 2.0);
            let passed = Passed {
                with,
                is_sent,
                path,
                target,
                size,
                hash,
                seconds,
                per_second,
                was_there,
                way,
            };
            Screen::default().passing(&Passing::Passed(passed)).expect("it is shown").1
        };
        let slow = "sent plan to bob (12.3 MB, 6.17 MB/s, verified)\n";
        assert_eq!(passed(true, Some("h"), Some(6_172_839), false, Some(Way::Relayed)), slow);
        let same = "saved bob_plan from bob (12.3 MB, relayed, unchanged, verified)\n";
        assert_eq!(passed(false, Some("h"), Some(1), true, Some(Way::Sealed)), same);
        let place = "192.0.2.1:40000".parse().expect("a place");
        let straight = "saved bob_plan from bob (12.3 MB, 6.17 MB/s, direct, verified)\n";
        assert_eq!(
            passed(false, Some("h"), Some(6_172_839), false, Some(Way::Direct(place))),
            straight
        );
        let bare = "saved bob_plan from bob (12.3 MB, not verified)\n";
        assert_eq!(passed(false, None, None, false, None), bare);
    }

    #[test]
    fn programs_get_objects() {
        let what = what(b"\xff", None, 2, true);
        let (number, existing, here) = (3, Existing::Keep, None);
        let offer = Passing::Offer { number, from: bob(), what, existing, here };
        let expected = json!({
            "event": "offer", "offer": 3, "from": "bob", "name": {"base64": "/w=="},
            "size": null, "files": 2, "folder": true,
        });
        assert_eq!(to_json(&offer), Some(expected));
    }
}
