//! What people and programs see: every line that the client shows, as text or as JSON.
//!
//! Pure: what is to be shown in, bytes for one of the two outputs out. All foreign text passes
//! through [`crate::wire::escape`] here, but for the output of `run` where that is wanted byte
//! for byte, which does not come this way.

pub mod lines;
mod objects;
pub mod passing;
pub mod tame;

use std::borrow::Cow;

use serde_json::Value;

use super::{
    brain::{Folders, Trips},
    core::order::Route,
    facts,
    progress::{Rate, Size},
};
use crate::{
    sys::clock::local_minutes,
    wire::{
        EdgeAnswer, ErrorCode, Name, Stream,
        control::OutcomeBody,
        escape::{escape, escape_bytes},
        event::{Ended, Entry, EntryKind, Object, Witness},
        info::Info,
    },
};
use passing::Passing;

/// One thing to show.
#[derive(Clone, Debug, PartialEq)]
pub enum Shown {
    /// We are in, as this user.
    Welcome {
        /// Our name.
        user: Name,
        /// Name and version of the server program.
        server: String,
    },
    /// Somebody wrote.
    Message {
        /// Who.
        from: Name,
        /// What.
        text: String,
    },
    /// The server has queued our message for everybody named.
    Sent {
        /// The recipients, or the one.
        to: String,
    },
    /// Our message has arrived.
    Delivered {
        /// The recipients, or the one.
        to: Name,
        /// Who vouches for it.
        by: Witness,
    },
    /// Some of the users that are here.
    Users(Vec<Name>),
    /// The same, each with the UDP port where it takes files straight.
    Roster(Vec<(Name, Option<u16>)>),
    /// Some of a folder's entries.
    Entries(Vec<Entry>),
    /// The end of a list.
    Counted {
        /// How many.
        count: u64,
        /// Of what, in the plural.
        what: &'static str,
    },
    /// An answer in lines.
    Text(String),
    /// What became of the request of a device.
    Edge(EdgeAnswer),
    /// Facts about the server and its host.
    Info(Object),
    /// The server has answered after so many microseconds.
    Pong {
        /// In its words.
        text: String,
        /// From the question to the answer.
        us: u64,
    },
    /// A ping has come back.
    RoundTrip {
        /// By this way.
        route: Route,
        /// After so many microseconds.
        us: u64,
    },
    /// All pings by one way have come back.
    RoundTrips {
        /// The way.
        route: Route,
        /// What they took.
        trips: Trips,
    },
    /// Output of a command: whole lines for people, bytes as they came for programs.
    Output {
        /// Which of the two.
        stream: Stream,
        /// As they are.
        bytes: Vec<u8>,
    },
    /// A command is over.
    Ended(Ending),
    /// Where the next commands run. For programs: the command itself has said it to people.
    Directory(Vec<u8>),
    /// A download has begun.
    File {
        /// As it was asked for.
        path: Vec<u8>,
        /// Bytes of the whole.
        size: u64,
    },
    /// So much of it is here.
    Progress {
        /// As it was asked for.
        path: Vec<u8>,
        /// Bytes so far.
        received: u64,
        /// Bytes of the whole.
        size: u64,
        /// Bytes, lately.
        per_second: u64,
    },
    /// It is here as a whole, and verified.
    Saved {
        /// As it was asked for.
        path: Vec<u8>,
        /// The file; `None` for standard output.
        target: Option<Vec<u8>>,
        /// Bytes of the whole.
        size: u64,
        /// BLAKE3 in hexadecimal.
        hash: String,
        /// How long it took.
        seconds: f64,
        /// Bytes of this transfer that moved in a second, where it took long enough to tell.
        per_second: Option<u64>,
        /// It is on the server, not here.
        is_upload: bool,
        /// It was there already, and proved to be the same.
        was_there: bool,
    },
    /// A folder that was named is there, with nothing in it yet.
    Folder {
        /// As it was asked for.
        path: Vec<u8>,
        /// Where it is.
        target: Option<Vec<u8>>,
    },
    /// Folders with the files within them are in their places, and verified.
    SavedFolder {
        /// Which.
        folders: Folders,
        /// They are on the server, not here.
        is_upload: bool,
        /// See [`Shown::Saved`].
        per_second: Option<u64>,
    },
    /// Something about files between users.
    Passing(Passing),
    /// Something failed.
    Error {
        /// The name of the error.
        code: &'static str,
        /// What.
        text: String,
    },
    /// Something about the connection.
    Notice(String),
    /// An empty screen.
    Clear,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// By itself.
    Exit(u8),
    /// By a signal, which the server sent for this reason, if it did.
    Signal(i32, Option<Ended>),
}

impl Ending {
    /// The ending that the outcome of a `run` tells, if it is one.
    pub fn of(outcome: &OutcomeBody<'_>) -> Option<Ending> {
        match *outcome {
            OutcomeBody::Exit { code, .. } => Some(Ending::Exit(code)),
            OutcomeBody::Signal { number, because } => Some(Ending::Signal(number, because)),
            _ => None,
        }
    }
}

impl Shown {
    /// An error that the server has named.
    pub fn refusal(code: ErrorCode, text: &str) -> Shown {
        Shown::Error { code: code.as_str(), text: text.to_owned() }
    }

    /// An error of our own.
    pub fn failure(text: impl Into<String>) -> Shown {
        Shown::Error { code: "failed", text: text.into() }
    }
}

/// Which of the two outputs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Where {
    /// File descriptor 1, or the prompt's own printer.
    Out,
    /// File descriptor 2.
    Err,
}

/// How to show things.
#[derive(Clone, Copy, Debug, Default)]
pub struct Screen {
    /// One JSON object a line, all on standard output.
    pub json: bool,
    /// There is a prompt below: everything goes above it, with a little more talk.
    pub prompt: bool,
    /// Only what was asked for, and errors.
    pub quiet: bool,
    /// Also what is usually taken for granted.
    pub verbose: bool,
    /// The time, in seconds since 1970, for objects that tell when something came.
    pub time: Option<i64>,
    /// Colours are welcome on standard output.
    pub colour_out: bool,
    /// Colours are welcome on standard error.
    pub colour_err: bool,
}

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const CYAN: &str = "\x1b[36m";
const PLAIN: &str = "\x1b[0m";

/// Before lines that belong to the one above.
const SET_IN: &str = "    ";

impl Screen {
    /// The bytes for it, whole lines; `None` where it is not to be shown.
    pub fn render(&self, shown: &Shown) -> Option<(Where, Vec<u8>)> {
        if self.json {
            let wanted = self.verbose || !matches!(shown, Shown::Welcome { .. });
            return objects::to_json(shown, self.time)
                .filter(|_| wanted)
                .map(|lines| (Where::Out, lines));
        }
        let (place, text) = self.text_of(shown)?;
        Some((if self.prompt { Where::Out } else { place }, text.into_bytes()))
    }

    fn text_of(&self, shown: &Shown) -> Option<(Where, String)> {
        use Where::{Err, Out};
        let talks = self.prompt || self.verbose;
        Some(match shown {
            Shown::Welcome { user, server } if talks && !self.quiet => {
                let server = escape(server);
                let help = if self.prompt { "; `help` lists the commands" } else { "" };
                (Err, self.line(Err, DIM, &format!("welcome, {user}: this is {server}{help}")))
            }
            Shown::Message { from, text } if !self.quiet || self.prompt => {
                let from = self.paint(Err, CYAN, from.as_str());
                (Err, message(&from, text))
            }
            Shown::Delivered { to, by } if !self.quiet => {
                let by = if *by == Witness::Client { "" } else { " (its connection took it)" };
                (Err, self.line(Err, DIM, &format!("delivered to {to}{by}")))
            }
            Shown::Sent { to } if self.verbose => {
                (Err, self.line(Err, DIM, &format!("sent to {}", escape(to))))
            }
            Shown::Users(names) => (Out, names.iter().map(|name| format!("{name}\n")).collect()),
            Shown::Roster(users) => (Out, users.iter().map(roster_line).collect()),
            Shown::Entries(entries) => {
                (Out, entries.iter().map(|entry| self.entry(entry)).collect())
            }
            Shown::Counted { count, what } if talks => {
                (Err, self.line(Err, DIM, &format!("[{}]", counted(*count, what))))
            }
            Shown::Edge(answer) => (Out, sentences(&answer.text())),
            Shown::Text(text) => (Out, sentences(text)),
            Shown::Info(object) => (Out, table_of(object)),
            Shown::Pong { text, us } => {
                (Out, format!("{}, round trip {}\n", escape(text), Milliseconds(*us)))
            }
            Shown::RoundTrip { .. } if !self.verbose => return None,
            Shown::RoundTrip { route, us } => (Err, self.line(Err, DIM, &round_trip(route, *us))),
            Shown::RoundTrips { route, trips } => (Out, round_trips(route, trips)),
            Shown::Output { stream, bytes } => {
                let place = if *stream == Stream::Stdout { Out } else { Err };
                (place, escape_lines(bytes))
            }
            Shown::Ended(ending) => (Err, self.ending(*ending)?),
            Shown::Progress { path, received, size, per_second } if self.prompt => {
                let percent = received.saturating_mul(100).checked_div(*size).unwrap_or(100);
                let (path, rate) = (escape_bytes(path), Rate(*per_second));
                (Err, self.line(Err, DIM, &format!("{path}: {percent} % {rate}")))
            }
            Shown::Saved {
                target: Some(target), size, per_second, is_upload, was_there, ..
            } if !self.quiet => {
                let name = self.paint(Err, GREEN, &escape_bytes(target)).into_owned();
                let more = if *was_there { ", unchanged" } else { "" };
                (Err, saved(*is_upload, &name, *size, *per_second, more))
            }
            Shown::SavedFolder { folders, is_upload, per_second } if !self.quiet => {
                let (name, more) = self.folders(folders);
                (Err, saved(*is_upload, &name, folders.size, *per_second, &more))
            }
            Shown::Passing(passing) => self.passing(passing)?,
            Shown::Error { code, text } => {
                let head = match *code {
                    "failed" => "error".to_owned(),
                    code => format!("error {code}"),
                };
                (Err, format!("{}: {}\n", self.paint(Err, RED, &head), escape(text)))
            }
            Shown::Notice(text) if !self.quiet => (Err, self.line(Err, BOLD, &escape(text))),
            Shown::Clear if self.prompt => (Out, "\x1b[H\x1b[2J\x1b[3J".to_owned()),
            _ => return None,
        })
    }

    fn ending(&self, ending: Ending) -> Option<String> {
        Some(match ending {
            // A verb tells the code as its own.
            Ending::Exit(_) if !self.prompt => return None,
            Ending::Exit(code) => {
                let style = if code == 0 { DIM } else { RED };
                self.line(Where::Err, style, &format!("[exit {code}]"))
            }
            Ending::Signal(..) if self.quiet => return None,
            Ending::Signal(number, because) => {
                let because = match because {
                    None => "",
                    Some(Ended::Cancelled) => ": cancelled",
                    Some(Ended::TimedOut) => ": its time was over",
                    Some(Ended::OutputLimit) => ": too much output",
                };
                self.line(Where::Err, RED, &format!("[signal {number}{because}]"))
            }
        })
    }

    fn entry(&self, entry: &Entry) -> String {
        let time = local_minutes(entry.modified);
        let name = escape_bytes(&entry.name);
        match entry.kind {
            EntryKind::Folder => {
                let name = self.paint(Where::Out, CYAN, &name);
                format!("{:>9}  {time}  {name}/\n", "-")
            }
            EntryKind::File => format!("{:>9}  {time}  {name}\n", Size(entry.size).to_string()),
            EntryKind::Other => format!("{:>9}  {time}  {name}\n", "?"),
        }
    }

    /// What has arrived in folders, in words, and what is to be said of what was there.
    fn folders(&self, folders: &Folders) -> (String, String) {
        let first = self.paint(Where::Err, GREEN, &escape_bytes(&folders.first)).into_owned();
        let place = match folders.count {
            0 => "folders".to_owned(),
            1 => format!("{first}/"),
            2 => format!("{first}/ and 1 more folder"),
            count => format!("{first}/ and {} more folders", count - 1),
        };
        let unchanged = match folders.was_there {
            0 => String::new(),
            some => format!(", {some} unchanged"),
        };
        (format!("{} in {place}", counted(folders.files, "files")), unchanged)
    }

    fn line(&self, place: Where, style: &str, text: &str) -> String {
        format!("{}\n", self.paint(place, style, text))
    }

    fn paint<'a>(&self, place: Where, style: &str, text: &'a str) -> Cow<'a, str> {
        let place = if self.prompt { Where::Out } else { place };
        match place {
            Where::Out if self.colour_out => format!("{style}{text}{PLAIN}").into(),
            Where::Err if self.colour_err => format!("{style}{text}{PLAIN}").into(),
            _ => text.into(),
        }
    }
}

/// A message, the lines of which after the first are set in: none of them looks like another one.
fn message(from: &str, text: &str) -> String {
    let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let mut shown = format!("{from}: {}\n", escape(lines.next().unwrap_or_default()));
    lines.for_each(|line| shown.push_str(&format!("{SET_IN}{}\n", escape(line))));
    shown
}

/// `1 entry`, `2 entries`.
fn counted(count: u64, what: &str) -> String {
    match (count, what.strip_suffix("ies"), what.strip_suffix('s')) {
        (1, Some(stem), _) => format!("1 {stem}y"),
        (1, None, Some(one)) => format!("1 {one}"),
        _ => format!("{count} {what}"),
    }
}

/// The lines of a text, each harmless.
fn sentences(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", escape(line))).collect()
}

/// Microseconds as people read them: `0.081 ms`.
struct Milliseconds(u64);

impl std::fmt::Display for Milliseconds {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{:03} ms", self.0 / 1000, self.0 % 1000)
    }
}

fn round_trip(Route { family, address }: &Route, us: u64) -> String {
    format!("{family} {address}: {}", Milliseconds(us))
}

fn round_trips(Route { family, address }: &Route, trips: &Trips) -> String {
    let average = Milliseconds(trips.average_us());
    let (count, min, max) = (trips.count, Milliseconds(trips.min_us), Milliseconds(trips.max_us));
    format!("{family} {address}: {count} round trips, min {min}, avg {average}, max {max}\n")
}

/// Facts that are of another form than we know are shown as they came.
fn table_of(object: &Object) -> String {
    let lines = match Info::of(object) {
        Some(info) => facts::table(&info),
        None => vec![escape(&Value::Object(object.clone()).to_string()).into_owned()],
    };
    lines.into_iter().map(|line| format!("{line}\n")).collect()
}

fn saved(is_upload: bool, name: &str, size: u64, per_second: Option<u64>, more: &str) -> String {
    let verb = if is_upload { "stored" } else { "saved" };
    // What was there has no rate.
    let per_second = per_second.filter(|_| more.is_empty());
    format!("{verb} {name} ({}{}{more}, verified)\n", Size(size), rate(per_second))
}

/// `, 12.3 MB/s`, where there is something to be told.
fn rate(per_second: Option<u64>) -> String {
    per_second.map_or_else(String::new, |bytes| format!(", {}", Rate(bytes)))
}

/// Lines of a command's output, each harmless.
fn escape_lines(bytes: &[u8]) -> String {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let mut text = String::with_capacity(bytes.len() + 1);
    for line in body.split(|byte| *byte == b'\n') {
        text.push_str(&escape_bytes(lines::last_writing(line)));
        text.push('\n');
    }
    text
}

/// `alice 40000`, or `bob -` where that one takes nothing straight.
fn roster_line((name, port): &(Name, Option<u16>)) -> String {
    port.map_or_else(|| format!("{name} -\n"), |port| format!("{name} {port}\n"))
}

#[cfg(test)]
mod tests;
