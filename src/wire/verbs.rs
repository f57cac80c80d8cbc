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
    /// `upload size file`
    Upload,
    /// `run command`
    Run,
    /// `ls folder`
    Ls,
    /// `send 13 plan.txt bob`
    Send,
    /// `accept 1`
    Accept,
    /// `refuse 1 no room`
    Refuse,
    /// `who`
    Who,
    /// `echo text`
    Echo,
    /// `ip`
    Ip,
    /// `name`
    Name,
    /// `ram`
    Ram,
    /// `os`
    Os,
    /// `cpu`
    Cpu,
    /// `info`
    Info,
    /// `ping`, and `ping host`
    Ping,
    /// `python --version`
    Python,
    /// `Linux:command`
    Linux,
    /// `DOS:command`
    Dos,
    /// `PowerShell:command`
    PowerShell,
    /// `clear`
    Clear,
    /// `disconnect`
    Disconnect,
    /// `reset`
    Reset,
    /// `kill`
    Kill,
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
        verb: Verb::Upload,
        word: "upload",
        usage: "upload SIZE FILE",
        about: "put a file on the server: its SIZE bytes follow the line as they are",
    },
    Entry {
        verb: Verb::Run,
        word: "run",
        usage: "run COMMAND",
        about: "run a command on the server; `run cd DIR` sets the folder for the next ones",
    },
    Entry { verb: Verb::Ls, word: "ls", usage: "ls [DIR]", about: "list a folder of the server" },
    Entry {
        verb: Verb::Send,
        word: "send",
        usage: "send SIZE NAME USER",
        about: "offer a file to a user; its SIZE bytes follow the line as they are",
    },
    Entry {
        verb: Verb::Accept,
        word: "accept",
        usage: "accept NUMBER",
        about: "take what a user has offered under this number",
    },
    Entry {
        verb: Verb::Refuse,
        word: "refuse",
        usage: "refuse NUMBER [REASON]",
        about: "do not take it",
    },
    Entry { verb: Verb::Who, word: "who", usage: "who", about: "list the users that are here" },
    Entry { verb: Verb::Echo, word: "echo", usage: "echo TEXT", about: "get the same text back" },
    Entry {
        verb: Verb::Ip,
        word: "ip",
        usage: "ip",
        about: "list the addresses of the server's host",
    },
    Entry { verb: Verb::Name, word: "name", usage: "name", about: "tell the name of the host" },
    Entry { verb: Verb::Ram, word: "ram", usage: "ram", about: "tell how full its memory is" },
    Entry { verb: Verb::Os, word: "os", usage: "os", about: "tell its operating system" },
    Entry { verb: Verb::Cpu, word: "cpu", usage: "cpu", about: "tell how busy its processors are" },
    Entry {
        verb: Verb::Info,
        word: "info",
        usage: "info",
        about: "tell all that of the host and the server at once",
    },
    Entry {
        verb: Verb::Ping,
        word: "ping",
        usage: "ping [HOST]",
        about: "ask whether the server is there, or let it ping a host",
    },
    Entry {
        verb: Verb::Python,
        word: "python",
        usage: "python --version",
        about: "tell which Python the host has",
    },
    Entry {
        verb: Verb::Linux,
        word: "linux:",
        usage: "Linux:COMMAND",
        about: "run a command under /bin/sh, as `run` does",
    },
    Entry {
        verb: Verb::Dos,
        word: "dos:",
        usage: "DOS:COMMAND",
        about: "run a command under cmd.exe or Wine",
    },
    Entry {
        verb: Verb::PowerShell,
        word: "powershell:",
        usage: "PowerShell:COMMAND",
        about: "run a command under PowerShell",
    },
    Entry { verb: Verb::Clear, word: "clear", usage: "clear", about: "clear your screen" },
    Entry { verb: Verb::Disconnect, word: "disconnect", usage: "disconnect", about: "leave" },
    Entry {
        verb: Verb::Reset,
        word: "reset",
        usage: "reset",
        about: "end all sessions and listen again",
    },
    Entry { verb: Verb::Kill, word: "kill", usage: "kill", about: "stop the server" },
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

/// Bit `n` is set where the verb in row `n` may begin with this byte: most words of most messages
/// are no verbs, and that is to be seen at once.
const ROWS_BY_FIRST_BYTE: [u64; 256] = rows_by_first_byte();

const fn rows_by_first_byte() -> [u64; 256] {
    assert!(VERBS.len() <= 64, "a row is a bit");
    let mut rows = [0; 256];
    let mut row = 0;
    while row < VERBS.len() {
        let first = VERBS[row].word.as_bytes()[0];
        rows[first as usize] |= 1 << row;
        if VERBS[row].verb.counts_in_any_case() {
            rows[first.to_ascii_uppercase() as usize] |= 1 << row;
        }
        row += 1;
    }
    rows
}

impl Verb {
    /// Whether it is about the server's host, or an order to the server.
    const fn is_host_command(self) -> bool {
        use Verb::*;
        matches!(self, Ip | Name | Ram | Os | Cpu | Info | Ping | Python | Clear)
            || matches!(self, Disconnect | Reset | Kill | Linux | Dos | PowerShell)
    }

    /// Whether its word may be written in upper case too.
    const fn counts_in_any_case(self) -> bool {
        self.is_host_command() || matches!(self, Verb::Help)
    }

    /// Whether nothing that it takes can hold a `|`. A line that has one is a text then, which
    /// begins with that word by chance: `name your price|bob`.
    pub(super) const fn has_no_bar(self) -> bool {
        match self {
            Verb::Linux | Verb::Dos | Verb::PowerShell => false,
            Verb::Who | Verb::Help | Verb::Quit => true,
            other => other.is_host_command(),
        }
    }
}

/// The verb that this word is, if it is one. An interpreter's word ends with its colon.
pub fn find(word: &[u8]) -> Option<Verb> {
    let mut rows = ROWS_BY_FIRST_BYTE[usize::from(*word.first()?)];
    while rows != 0 {
        let entry = &VERBS[rows.trailing_zeros() as usize];
        let own = entry.word.as_bytes();
        let in_any_case = entry.verb.counts_in_any_case() && own.eq_ignore_ascii_case(word);
        if own == word || in_any_case {
            return Some(entry.verb);
        }
        rows &= rows - 1;
    }
    None
}

/// The row of a verb.
pub fn entry(verb: Verb) -> &'static Entry {
    VERBS.iter().find(|entry| entry.verb == verb).expect("every verb has a row")
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
            let usage = entry.usage.to_ascii_lowercase();
            assert!(usage.starts_with(entry.word) && entry.word.len() <= WORD_MAX_BYTES);
            assert!(help.contains(entry.usage) && help.contains(entry.about));
            assert_eq!(super::entry(entry.verb).word, entry.word);
        }
    }

    #[test]
    fn the_words_of_host_commands_and_help_count_in_any_case_and_the_others_do_not() {
        for (words, verb) in [
            ("ip IP Ip iP", Verb::Ip),
            ("RAM Ram", Verb::Ram),
            ("PING Ping", Verb::Ping),
            ("HELP Help", Verb::Help),
            ("Kill KILL", Verb::Kill),
            ("Linux: LINUX: linux:", Verb::Linux),
            ("DOS: dos: Dos:", Verb::Dos),
            ("PowerShell: POWERSHELL: powershell:", Verb::PowerShell),
        ] {
            words.split(' ').for_each(|word| assert_eq!(find(word.as_bytes()), Some(verb)));
        }
        for word in
            ["RUN", "Who", "QUIT", "Msg", "linux", "dos", "ip:", "pings", "", "k", "\u{130}p"]
        {
            assert_eq!(find(word.as_bytes()), None, "{word}");
        }
    }
}
