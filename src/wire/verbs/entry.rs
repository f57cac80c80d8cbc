//! What a row of the table of verbs tells.

use std::borrow::Cow;

use super::Verb;
use crate::wire::{Call, Need};

/// A row of the table: all that is particular to a verb, but for what it does.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What it is.
    pub verb: Verb,
    /// As it is typed, in lower case.
    pub word: &'static str,
    /// The word with its arguments.
    pub usage: &'static str,
    /// One line on what it does.
    pub about: &'static str,
    /// What is different about both at the prompt of our client.
    pub prompt: Prompt,
    /// How programs call it, where that is not its word.
    pub op: Option<&'static str>,
    /// Where it is.
    pub dialects: Dialects,
    /// Which type has its form in JSON.
    pub shape: Shape,
    /// What it asks of the peer that makes it.
    pub need: Need,
    /// Whether its word may be written in upper case too.
    pub in_any_case: bool,
    /// Whether nothing that it takes can hold a `|`. A line that has one is a text then, which
    /// begins with that word by chance: `name your price|bob`.
    pub has_no_bar: bool,
    /// What stands behind its word in a line.
    pub takes: Takes,
}

/// How a verb is helped with at the prompt of our client.
#[derive(Clone, Copy, Debug)]
pub enum Prompt {
    /// As anywhere.
    Same,
    /// With another usage, and other words about it.
    Own(&'static str, &'static str),
    /// Not at all: it is not for the prompt.
    Nothing,
}

/// Which dialects have a verb.
#[derive(Clone, Copy, Debug)]
pub struct Dialects {
    /// Lines, by its word.
    pub line: bool,
    /// JSON, by its op.
    pub json: bool,
    /// Requests in frames, by its op.
    pub frame: bool,
}

/// Which type has the form of a verb in JSON.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// [`Call`] itself.
    Own,
    /// A question about the host without another form.
    Question,
    /// Another [`HostCall`](crate::wire::HostCall).
    Host,
    /// A request of a device.
    Edge,
    /// A command, whose interpreter tells which call it makes.
    Command,
    /// A ping, which is another call where it has a host.
    Ping,
}

/// What stands behind the word of a verb in a line.
#[derive(Clone, Copy, Debug)]
pub enum Takes {
    /// Nothing: it always makes this call.
    Nothing(fn() -> Call<'static>),
    /// The same, of a word with which people begin texts. They are told how a text is sent.
    Question(fn() -> Call<'static>),
    /// All of it is a text.
    Text(for<'a> fn(Cow<'a, str>) -> Call<'a>),
    /// What the codec of lines reads by itself.
    Arguments,
}

impl Entry {
    /// How programs call it.
    pub fn op(&self) -> &'static str {
        self.op.unwrap_or(self.word)
    }

    /// Its usage at the prompt of our client, and what is said about it there; `None` where there
    /// is no use in it.
    pub fn at_prompt(&self) -> Option<(&'static str, &'static str)> {
        match self.prompt {
            Prompt::Same => Some((self.usage, self.about)),
            Prompt::Own(usage, about) => Some((usage, about)),
            Prompt::Nothing => None,
        }
    }
}

/// In all.
pub const EVERYWHERE: Dialects = Dialects { line: true, json: true, frame: true };
/// In frames it has another form, or something else stands for it.
pub const NO_FRAME: Dialects = Dialects { frame: false, ..EVERYWHERE };
/// In lines alone.
pub const LINES: Dialects = Dialects { line: true, json: false, frame: false };
/// In frames alone.
pub const FRAMES: Dialects = Dialects { line: false, json: false, frame: true };
