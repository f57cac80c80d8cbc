//! The one table of verbs: it feeds the line parser, `help`, completion and the documents.

/// A verb as people type it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verb {
    /// `user alice`
    User,
    /// `msg bob text`
    Msg,
    /// `download file`
    Download,
    /// `run command`
    Run,
    /// `ls folder`
    Ls,
    /// `who`
    Who,
    /// `echo text`
    Echo,
    /// `help`
    Help,
    /// `quit`
    Quit,
    /// `edge.join port`
    EdgeJoin,
    /// `edge.upload number samples`
    EdgeUpload,
    /// `edge.compute number operation`
    EdgeCompute,
    /// `edge.delete number`
    EdgeDelete,
    /// `edge.list`
    EdgeList,
    /// `edge.leave`
    EdgeLeave,
}

/// A row of the table.
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
}

/// All verbs, in the order in which `help` shows them.
pub const VERBS: &[Entry] = &[
    Entry {
        verb: Verb::User,
        word: "user",
        usage: "user NAME [PASSWORD]",
        about: "say who you are, so that others can write to you",
    },
    Entry {
        verb: Verb::Msg,
        word: "msg",
        usage: "msg NAME[,NAME...] TEXT",
        about: "send a text; `TEXT|NAME` does the same, and the name * is everybody else",
    },
    Entry {
        verb: Verb::Download,
        word: "download",
        usage: "download FILE",
        about: "fetch a file of the server",
    },
    Entry {
        verb: Verb::Run,
        word: "run",
        usage: "run COMMAND",
        about: "run a command on the server; `run cd DIR` sets the folder for the next ones",
    },
    Entry { verb: Verb::Ls, word: "ls", usage: "ls [DIR]", about: "list a folder of the server" },
    Entry { verb: Verb::Who, word: "who", usage: "who", about: "list the users that are here" },
    Entry { verb: Verb::Echo, word: "echo", usage: "echo TEXT", about: "get the same text back" },
    Entry { verb: Verb::Help, word: "help", usage: "help", about: "show this list" },
    Entry {
        verb: Verb::EdgeJoin,
        word: "edge.join",
        usage: "edge.join UDP_PORT",
        about: "become an active device",
    },
    Entry {
        verb: Verb::EdgeUpload,
        word: "edge.upload",
        usage: "edge.upload FILE_ID SAMPLE...",
        about: "store samples as a file of this device",
    },
    Entry {
        verb: Verb::EdgeCompute,
        word: "edge.compute",
        usage: "edge.compute FILE_ID OPERATION",
        about: "SUM, AVERAGE, MAX or MIN over a file of this device",
    },
    Entry {
        verb: Verb::EdgeDelete,
        word: "edge.delete",
        usage: "edge.delete FILE_ID",
        about: "delete a file of this device",
    },
    Entry {
        verb: Verb::EdgeList,
        word: "edge.list",
        usage: "edge.list",
        about: "list the other active devices",
    },
    Entry {
        verb: Verb::EdgeLeave,
        word: "edge.leave",
        usage: "edge.leave",
        about: "be no active device any more",
    },
    Entry { verb: Verb::Quit, word: "quit", usage: "quit", about: "leave" },
];

/// No verb has a longer word.
pub const WORD_MAX_BYTES: usize = 16;

/// The verb that this word is, if it is one.
pub fn find(word: &[u8]) -> Option<Verb> {
    let is_it = |entry: &&Entry| entry.word.as_bytes() == word;
    VERBS.iter().find(is_it).map(|entry| entry.verb)
}

/// The text that answers `help`.
pub fn help() -> String {
    let width = VERBS.iter().map(|entry| entry.usage.len()).max().unwrap_or(0);
    let line = |entry: &Entry| format!("{:width$}  {}", entry.usage, entry.about);
    VERBS.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The words alone, for errors: `user, msg, ...`.
pub fn words() -> String {
    VERBS.iter().map(|entry| entry.word).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_found_by_its_word_and_helped_with() {
        let help = help();
        for entry in VERBS {
            assert_eq!(find(entry.word.as_bytes()), Some(entry.verb));
            assert!(entry.usage.starts_with(entry.word) && entry.word.len() <= WORD_MAX_BYTES);
            assert!(help.contains(entry.usage) && help.contains(entry.about));
        }
        assert_eq!(find(b"RUN"), None);
    }
}
