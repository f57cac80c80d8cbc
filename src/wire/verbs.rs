//! The one table of verbs: it feeds the parsers, the rights, `help` here and at the prompt,
//! completion, and the documents.

mod entry;

pub use entry::{Dialects, Entry, Prompt, Shape, Takes};
use entry::{EVERYWHERE, FRAMES, LINES, NO_FRAME};

use super::{
    Call, EdgeCall, HostCall, Need, Right,
    host::{Interpreter, Question},
};
use crate::limits::INFO_INTERVAL_MS;

/// A verb, in the order in which an error of JSON names them all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verb {
    /// `run command`
    Run,
    /// `user alice`
    User,
    /// `msg bob text`
    Msg,
    /// `who`
    Who,
    /// `ls folder`
    Ls,
    /// `download file`
    Download,
    /// `upload size file`
    Upload,
    /// `echo text`
    Echo,
    /// `help`
    Help,
    /// `ping`, and `ping host`
    Ping,
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
    /// `python --version`
    Python,
    /// `clear`
    Clear,
    /// `reset`
    Reset,
    /// `kill`
    Kill,
    /// `send 13 plan.txt bob`
    Send,
    /// `accept 1`
    Accept,
    /// `refuse 1 no room`
    Refuse,
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
    /// A request that is under way, in JSON.
    Cancel,
    /// `quit`
    Quit,
    /// `disconnect`
    Disconnect,
    /// `Linux:command`
    Linux,
    /// `DOS:command`
    Dos,
    /// `PowerShell:command`
    PowerShell,
    /// The conversation by which a client gets files, in frames.
    Fetch,
    /// The conversation by which it puts them, in frames.
    Store,
    /// Where a client takes files straight from others, in frames.
    Announce,
}

/// What most rows have; the verb, its word and what is said about it are never these.
const ROW: Entry = Entry {
    verb: Verb::Run,
    word: "",
    usage: "",
    about: "",
    prompt: Prompt::Same,
    op: None,
    dialects: EVERYWHERE,
    shape: Shape::Own,
    need: Need::Login,
    in_any_case: false,
    has_no_bar: false,
    takes: Takes::Arguments,
};
/// About the server's host, or an order to the server.
const OF_HOST: Entry = Entry { shape: Shape::Question, in_any_case: true, has_no_bar: true, ..ROW };
/// A command under an interpreter, which programs name in another member.
const SCRIPT: Entry =
    Entry { dialects: LINES, need: Need::Right(Right::Run), in_any_case: true, ..ROW };
const OF_DEVICE: Entry = Entry { shape: Shape::Edge, need: Need::Right(Right::Edge), ..ROW };

/// All verbs of lines, in the order in which `help` shows them.
pub const VERBS: &[Entry] = &[
    Entry {
        verb: Verb::User,
        word: "user",
        usage: "user NAME [PASSWORD]",
        about: "say who you are, so that others can write to you",
        op: Some("login"),
        need: Need::Nothing,
        prompt: Prompt::Nothing,
        dialects: NO_FRAME,
        ..ROW
    },
    Entry {
        verb: Verb::Msg,
        word: "msg",
        usage: "msg NAME[,NAME...] TEXT",
        about: "send a text; `TEXT|NAME` does the same, and the name * is everybody else",
        op: Some("message"),
        need: Need::Right(Right::Message),
        dialects: NO_FRAME,
        ..ROW
    },
    Entry {
        verb: Verb::Download,
        word: "download",
        usage: "download FILE",
        about: "fetch a file of the server",
        need: Need::Right(Right::Files),
        prompt: Prompt::Own("download FILE...", "fetch files and folders of the server"),
        ..ROW
    },
    Entry {
        verb: Verb::Upload,
        word: "upload",
        usage: "upload SIZE FILE",
        about: "put a file on the server: its SIZE bytes follow the line as they are",
        need: Need::Right(Right::Upload),
        prompt: Prompt::Own("upload FILE... [--to DIR]", "put files and folders on the server"),
        dialects: NO_FRAME,
        ..ROW
    },
    Entry {
        verb: Verb::Run,
        word: "run",
        usage: "run COMMAND",
        about: "run a command on the server; `run cd DIR` sets the folder for the next ones",
        need: Need::Right(Right::Run),
        shape: Shape::Command,
        ..ROW
    },
    Entry {
        verb: Verb::Ls,
        word: "ls",
        usage: "ls [DIR]",
        about: "list a folder of the server",
        need: Need::Right(Right::Files),
        ..ROW
    },
    Entry {
        verb: Verb::Send,
        word: "send",
        usage: "send SIZE NAME USER",
        about: "offer a file to a user; its SIZE bytes follow the line as they are",
        need: Need::Right(Right::Message),
        prompt: Prompt::Own("send FILE... USER", "offer files and folders to a user"),
        ..ROW
    },
    Entry {
        verb: Verb::Accept,
        word: "accept",
        usage: "accept NUMBER",
        about: "take what a user has offered under this number",
        prompt: Prompt::Own("accept [NUMBER]", "take what a user offers, saved as USER_NAME"),
        ..ROW
    },
    Entry {
        verb: Verb::Refuse,
        word: "refuse",
        usage: "refuse NUMBER [REASON]",
        about: "do not take it",
        prompt: Prompt::Own("refuse [NUMBER [REASON]]", "do not take it"),
        ..ROW
    },
    Entry {
        verb: Verb::Who,
        word: "who",
        usage: "who",
        about: "list the users that are here",
        has_no_bar: true,
        takes: Takes::Nothing(|| Call::Who),
        ..ROW
    },
    Entry {
        verb: Verb::Echo,
        word: "echo",
        usage: "echo TEXT",
        about: "get the same text back",
        need: Need::Nothing,
        takes: Takes::Text(|text| Call::Echo { text }),
        ..ROW
    },
    Entry {
        verb: Verb::Ip,
        word: "ip",
        usage: "ip",
        about: "list the addresses of the server's host",
        takes: Takes::Question(|| ask(Question::Addresses)),
        ..OF_HOST
    },
    Entry {
        verb: Verb::Name,
        word: "name",
        usage: "name",
        about: "tell the name of the host",
        takes: Takes::Question(|| ask(Question::Name)),
        ..OF_HOST
    },
    Entry {
        verb: Verb::Ram,
        word: "ram",
        usage: "ram",
        about: "tell how full its memory is",
        takes: Takes::Question(|| ask(Question::Memory)),
        ..OF_HOST
    },
    Entry {
        verb: Verb::Os,
        word: "os",
        usage: "os",
        about: "tell its operating system",
        takes: Takes::Question(|| ask(Question::System)),
        ..OF_HOST
    },
    Entry {
        verb: Verb::Cpu,
        word: "cpu",
        usage: "cpu",
        about: "tell how busy its processors are",
        takes: Takes::Question(|| ask(Question::Processor)),
        ..OF_HOST
    },
    Entry {
        verb: Verb::Info,
        word: "info",
        usage: "info",
        about: "tell all that of the host and the server at once",
        takes: Takes::Question(|| ask(Question::Info { interval_ms: INFO_INTERVAL_MS })),
        ..OF_HOST
    },
    Entry {
        verb: Verb::Ping,
        word: "ping",
        usage: "ping [HOST]",
        about: "ask whether the server is there, or let it ping a host",
        shape: Shape::Ping,
        ..OF_HOST
    },
    Entry {
        verb: Verb::Python,
        word: "python",
        usage: "python --version",
        about: "tell which Python the host has",
        op: Some("python-version"),
        shape: Shape::Host,
        ..OF_HOST
    },
    Entry {
        verb: Verb::Linux,
        word: "linux:",
        usage: "Linux:COMMAND",
        about: "run a command under /bin/sh, as `run` does",
        ..SCRIPT
    },
    Entry {
        verb: Verb::Dos,
        word: "dos:",
        usage: "DOS:COMMAND",
        about: "run a command under cmd.exe or Wine",
        ..SCRIPT
    },
    Entry {
        verb: Verb::PowerShell,
        word: "powershell:",
        usage: "PowerShell:COMMAND",
        about: "run a command under PowerShell",
        ..SCRIPT
    },
    Entry {
        verb: Verb::Clear,
        word: "clear",
        usage: "clear",
        about: "clear your screen",
        need: Need::Nothing,
        takes: Takes::Question(|| Call::Host(HostCall::Clear)),
        shape: Shape::Host,
        ..OF_HOST
    },
    Entry {
        verb: Verb::Disconnect,
        word: "disconnect",
        usage: "disconnect",
        about: "leave",
        need: Need::Nothing,
        takes: Takes::Question(|| Call::Host(HostCall::Disconnect)),
        shape: Shape::Host,
        ..OF_HOST
    },
    Entry {
        verb: Verb::Reset,
        word: "reset",
        usage: "reset",
        about: "end all sessions and listen again",
        need: Need::Right(Right::Admin),
        takes: Takes::Question(|| Call::Host(HostCall::Reset)),
        shape: Shape::Host,
        ..OF_HOST
    },
    Entry {
        verb: Verb::Kill,
        word: "kill",
        usage: "kill",
        about: "stop the server",
        need: Need::Right(Right::Admin),
        takes: Takes::Question(|| Call::Host(HostCall::Kill)),
        shape: Shape::Host,
        ..OF_HOST
    },
    Entry {
        verb: Verb::Help,
        word: "help",
        usage: "help",
        about: "show this list",
        need: Need::Nothing,
        in_any_case: true,
        has_no_bar: true,
        takes: Takes::Nothing(|| Call::Help),
        ..ROW
    },
    Entry {
        verb: Verb::EdgeJoin,
        word: "edge.join",
        usage: "edge.join UDP_PORT",
        about: "become an active device",
        ..OF_DEVICE
    },
    Entry {
        verb: Verb::EdgeUpload,
        word: "edge.upload",
        usage: "edge.upload FILE_ID SAMPLE...",
        about: "store samples as a file of this device",
        ..OF_DEVICE
    },
    Entry {
        verb: Verb::EdgeCompute,
        word: "edge.compute",
        usage: "edge.compute FILE_ID OPERATION",
        about: "SUM, AVERAGE, MAX or MIN over a file of this device",
        ..OF_DEVICE
    },
    Entry {
        verb: Verb::EdgeDelete,
        word: "edge.delete",
        usage: "edge.delete FILE_ID",
        about: "delete a file of this device",
        ..OF_DEVICE
    },
    Entry {
        verb: Verb::EdgeList,
        word: "edge.list",
        usage: "edge.list",
        about: "list the other active devices",
        ..OF_DEVICE
    },
    Entry {
        verb: Verb::EdgeLeave,
        word: "edge.leave",
        usage: "edge.leave",
        about: "be no active device any more",
        ..OF_DEVICE
    },
    Entry {
        verb: Verb::Quit,
        word: "quit",
        usage: "quit",
        about: "leave",
        need: Need::Nothing,
        has_no_bar: true,
        dialects: NO_FRAME,
        ..ROW
    },
];

/// What only programs have, by their ops.
const OTHERS: &[Entry] = &[
    Entry {
        verb: Verb::Cancel,
        word: "cancel",
        need: Need::Nothing,
        dialects: Dialects { line: false, ..NO_FRAME },
        ..ROW
    },
    Entry {
        verb: Verb::Fetch,
        word: "fetch",
        need: Need::Right(Right::Files),
        dialects: FRAMES,
        ..ROW
    },
    Entry {
        verb: Verb::Store,
        word: "store",
        need: Need::Right(Right::Upload),
        dialects: FRAMES,
        ..ROW
    },
    Entry { verb: Verb::Announce, word: "announce", dialects: FRAMES, ..ROW },
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
        if VERBS[row].in_any_case {
            rows[first.to_ascii_uppercase() as usize] |= 1 << row;
        }
        row += 1;
    }
    rows
}

/// The row of the verb that this word is, if it is one. An interpreter's word ends with its colon.
pub fn find(word: &[u8]) -> Option<&'static Entry> {
    let mut rows = ROWS_BY_FIRST_BYTE[usize::from(*word.first()?)];
    while rows != 0 {
        let entry = &VERBS[rows.trailing_zeros() as usize];
        let own = entry.word.as_bytes();
        if own == word || entry.in_any_case && own.eq_ignore_ascii_case(word) {
            return Some(entry);
        }
        rows &= rows - 1;
    }
    None
}

/// The row of a verb.
pub fn entry(verb: Verb) -> &'static Entry {
    let mut all = VERBS.iter().chain(OTHERS);
    all.find(|entry| entry.verb == verb).expect("every verb has a row")
}

/// The row of the verb that makes this call; none of what should have been a call and is none.
pub fn of_call(call: &Call<'_>) -> Option<&'static Entry> {
    let verb = match call {
        Call::Download { .. } => Verb::Download,
        Call::Fetch { .. } => Verb::Fetch,
        Call::Store { .. } => Verb::Store,
        Call::Upload { .. } => Verb::Upload,
        Call::Run { .. } => Verb::Run,
        Call::List { .. } => Verb::Ls,
        Call::Who => Verb::Who,
        Call::Announce { .. } => Verb::Announce,
        Call::Echo { .. } => Verb::Echo,
        Call::Help => Verb::Help,
        Call::Edge(EdgeCall::Join { .. }) => Verb::EdgeJoin,
        Call::Edge(EdgeCall::Upload { .. }) => Verb::EdgeUpload,
        Call::Edge(EdgeCall::Compute { .. }) => Verb::EdgeCompute,
        Call::Edge(EdgeCall::Delete { .. }) => Verb::EdgeDelete,
        Call::Edge(EdgeCall::List) => Verb::EdgeList,
        Call::Edge(EdgeCall::Leave) => Verb::EdgeLeave,
        Call::Send(_) => Verb::Send,
        Call::Accept { .. } => Verb::Accept,
        Call::Refuse { .. } => Verb::Refuse,
        Call::Host(HostCall::Ask(question)) => of_question(*question),
        Call::Host(HostCall::Ping { .. }) => Verb::Ping,
        Call::Host(HostCall::PythonVersion) => Verb::Python,
        Call::Host(HostCall::Script { interpreter, .. }) => match interpreter {
            Interpreter::Linux => Verb::Linux,
            Interpreter::Dos => Verb::Dos,
            Interpreter::PowerShell => Verb::PowerShell,
        },
        Call::Host(HostCall::Clear) => Verb::Clear,
        Call::Host(HostCall::Disconnect) => Verb::Disconnect,
        Call::Host(HostCall::Reset) => Verb::Reset,
        Call::Host(HostCall::Kill) => Verb::Kill,
        Call::Refused(_) => return None,
    };
    Some(entry(verb))
}

fn of_question(question: Question) -> Verb {
    match question {
        Question::Addresses => Verb::Ip,
        Question::Name => Verb::Name,
        Question::Memory => Verb::Ram,
        Question::System => Verb::Os,
        Question::Processor => Verb::Cpu,
        Question::Pong => Verb::Ping,
        Question::Info { .. } => Verb::Info,
    }
}

fn ask(question: Question) -> Call<'static> {
    Call::Host(HostCall::Ask(question))
}

/// What `op` may be in JSON, for errors, in the order of [`Verb`].
pub fn ops() -> String {
    let mut rows: Vec<_> = VERBS.iter().chain(OTHERS).filter(|it| it.dialects.json).collect();
    rows.sort_by_key(|entry| entry.verb as u8);
    rows.into_iter().map(Entry::op).collect::<Vec<_>>().join(", ")
}

/// The rows of requests in frames.
pub fn of_frames() -> impl Iterator<Item = &'static Entry> {
    VERBS.iter().chain(OTHERS).filter(|entry| entry.dialects.frame)
}

/// The row of this `op`, which counts in any case where its word does.
pub fn find_op(op: &[u8]) -> Option<&'static Entry> {
    VERBS.iter().chain(OTHERS).find(|entry| {
        let own = entry.op().as_bytes();
        own == op || entry.in_any_case && own.eq_ignore_ascii_case(op)
    })
}

/// The text that answers `help`.
pub fn help() -> String {
    table(VERBS.iter().map(|entry| (entry.usage, entry.about)))
}

/// The same for the prompt of the client: what can be typed there is a little more.
pub fn help_at_prompt() -> String {
    table(VERBS.iter().filter_map(Entry::at_prompt))
}

fn table(rows: impl Iterator<Item = (&'static str, &'static str)> + Clone) -> String {
    let width = rows.clone().map(|(usage, _)| usage.len()).max().unwrap_or(0);
    let line = |(usage, about)| format!("{usage:width$}  {about}");
    rows.map(line).collect::<Vec<_>>().join("\n")
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
            assert_eq!(find(entry.word.as_bytes()).map(|it| it.verb), Some(entry.verb));
            let usage = entry.usage.to_ascii_lowercase();
            assert!(usage.starts_with(entry.word) && entry.word.len() <= WORD_MAX_BYTES);
            assert!(help.contains(entry.usage) && help.contains(entry.about));
            assert_eq!(super::entry(entry.verb).word, entry.word);
        }
    }

    #[test]
    fn json_names_its_ops_in_the_order_that_it_always_had() {
        let first = "run, login, message, who, ls, download, upload, echo, help, ping, ip, name, \
                     ram, os, cpu, info, python-version, clear, reset, kill, send, accept, \
                     refuse, edge.join, edge.upload, edge.compute, edge.delete, edge.list, \
                     edge.leave, cancel, quit, disconnect";
        assert!(ops().starts_with(first), "{}", ops());
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
            for word in words.split(' ') {
                assert_eq!(find(word.as_bytes()).map(|it| it.verb), Some(verb));
            }
        }
        for word in
            ["RUN", "Who", "QUIT", "Msg", "linux", "dos", "ip:", "pings", "", "k", "\u{130}p"]
        {
            assert!(find(word.as_bytes()).is_none(), "{word}");
        }
    }
}
