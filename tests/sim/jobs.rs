//! The fake world: files and commands whose bytes are known to who asks for them.

use sixfour::{
    hub::{OperationId, Program, SessionId, Work},
    wire::{Stream, host::Question},
};

/// An operation as the shell has it.
pub struct Job {
    pub id: OperationId,
    pub session: SessionId,
    pub what: What,
    /// Whether the file is open, the folder is listed, or the command runs.
    pub opened: bool,
    /// So much is handed in.
    pub at: usize,
    /// There was no room; a pull must follow.
    pub blocked: bool,
    pub terminated: bool,
    /// The end is told; a release must follow.
    pub over: bool,
    /// The file turned out to be shorter than announced.
    pub shrunk: bool,
    /// Standard input that the command holds.
    pub input: Vec<u8>,
    pub input_ended: bool,
    pub input_closed: bool,
    /// Bytes that its party is away with.
    pub away: usize,
}

/// What is asked for; both sides read it from the request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum What {
    /// A file of so many bytes, whose second half vanishes while it is sent.
    File { size: usize, shrinks: bool },
    /// A folder with so many entries.
    Folder { entries: usize },
    /// A command with so much output.
    Output { total: usize, seed: usize },
    /// A command that repeats its input.
    Repeat,
    /// A command that ends only when it is ended.
    Sleep,
    /// A conversation whose party is away with what has come, and repeats it when it is back.
    Talk,
    /// A party that sends so many bytes of a file, some as a part of it, and hears meanwhile.
    Fetch { size: usize },
    /// A disk that takes what comes, and says nothing.
    Keep,
    /// A question that is answered in so many pieces.
    Question { pieces: usize },
    /// Something that cannot be started.
    Failure,
}

impl What {
    /// The path or the command that asks for it.
    pub fn words(self) -> String {
        match self {
            What::File { size, shrinks: false } => format!("f{size}"),
            What::File { size, shrinks: true } => format!("s{size}"),
            What::Folder { entries } => format!("d{entries}"),
            What::Output { total, seed } => format!("out {total} {seed}"),
            What::Repeat => "cat".into(),
            What::Sleep => "sleep".into(),
            What::Talk => "t".into(),
            What::Fetch { size } => format!("g{size}"),
            What::Keep => "k".into(),
            What::Question { .. } => "info".into(),
            What::Failure => "x".into(),
        }
    }

    pub fn is_command(self) -> bool {
        matches!(self, What::Output { .. } | What::Repeat | What::Sleep)
    }

    pub fn takes_input(self) -> bool {
        self == What::Repeat || self.is_away_with_input()
    }

    /// Whether its input is taken away by the shell, which says when it has dealt with it.
    pub fn is_away_with_input(self) -> bool {
        matches!(self, What::Talk | What::Fetch { .. } | What::Keep)
    }

    fn parse(words: &str) -> What {
        let number = |text: &str| text.parse::<usize>().expect("a number");
        match words.as_bytes()[0] {
            b'f' => What::File { size: number(&words[1..]), shrinks: false },
            b's' if words == "sleep" => What::Sleep,
            b's' => What::File { size: number(&words[1..]), shrinks: true },
            b'd' => What::Folder { entries: number(&words[1..]) },
            b'o' => {
                let (total, seed) = words[4..].split_once(' ').expect("two numbers");
                What::Output { total: number(total), seed: number(seed) }
            }
            b'c' => What::Repeat,
            b't' => What::Talk,
            b'g' => What::Fetch { size: number(&words[1..]) },
            _ => What::Failure,
        }
    }
}

impl Job {
    pub fn new(id: OperationId, session: SessionId, work: &Work) -> Job {
        let path = |path: &sixfour::wire::SharePath| {
            What::parse(std::str::from_utf8(path.as_bytes()).expect("our own names"))
        };
        let what = match work {
            Work::Download { path: it, .. } => path(it),
            Work::List { path: it } => path(it.as_ref().expect("never the root")),
            Work::Store { into } => path(into.as_ref().expect("never the root")),
            Work::Fetch { paths } => path(&paths[0]),
            Work::Edge { .. } => What::Keep,
            Work::Run { command, .. } => What::parse(command),
            Work::Program { program: Program::Script { command, .. }, .. } => What::parse(command),
            Work::Ask(Question::Info { interval_ms }) => {
                What::Question { pieces: pieces_of(*interval_ms) }
            }
            other => panic!("nobody asks for this: {other:?}"),
        };
        Job {
            id,
            session,
            what,
            opened: false,
            at: 0,
            blocked: false,
            terminated: false,
            over: false,
            shrunk: false,
            input: Vec::new(),
            input_ended: false,
            input_closed: false,
            away: 0,
        }
    }
}

/// How many pieces the facts have that are measured for so long.
pub fn pieces_of(interval_ms: u32) -> usize {
    interval_ms as usize % 7
}

/// The text in a piece of an answer; every other one is an object that holds it.
pub fn fact(at: usize) -> String {
    format!("fact {at}")
}

/// The byte at `at` of the file of this size. Never 0: those are what is owed and not there.
pub fn file_byte(size: usize, at: usize) -> u8 {
    ((at * 31 + at / 256 + size) % 255) as u8 + 1
}

/// The byte at `at` of the output of a command: lines that begin with `o`, of a length of their
/// own; both outputs take turns.
pub fn output_byte(seed: usize, at: usize) -> u8 {
    let width = 7 + seed % 90;
    match at % width {
        0 => b'o',
        column if column + 1 == width => b'\n',
        _ => b'a' + ((at * 7 + seed) % 26) as u8,
    }
}

/// Bytes after which the other output has its turn.
pub const TURN_BYTES: usize = 50;

pub fn output_stream(at: usize) -> Stream {
    if (at / TURN_BYTES).is_multiple_of(2) { Stream::Stdout } else { Stream::Stderr }
}

/// How a command of this seed ends: by its code, or by a signal.
pub fn exit_of(seed: usize) -> Result<u8, i32> {
    if seed.is_multiple_of(5) { Err(11) } else { Ok((seed % 256) as u8) }
}

/// The byte at `at` of the standard input that a client sends.
pub fn input_byte(at: usize) -> u8 {
    (at * 13 + at / 200) as u8
}
