//! What the user wants: from a typed line, or from the arguments.

use std::{collections::HashSet, os::unix::ffi::OsStrExt as _, path::PathBuf};

use crate::{
    limits::LINE_MAX_BYTES,
    wire::{
        Call, ErrorCode, HostCall, Name, Refusal, Request, line, name::NAME_RULE, verbs::VERBS,
    },
};

/// One thing to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Order {
    /// Send a text.
    Message {
        /// Names as the server takes them: `bob`, `bob,carol`, `*`.
        to: String,
        /// Not empty, at most 64 KiB.
        text: String,
        /// Wait for the deliveries, at most so many milliseconds.
        receipt_ms: Option<u64>,
    },
    /// Fetch files and folders.
    Download {
        /// Relative to the server's root; the names may be patterns.
        paths: Vec<Vec<u8>>,
        /// Where they go.
        target: Target,
        /// Bytes a second, at most.
        limit: Option<u64>,
        /// The line that goes on with it after an interruption.
        again: String,
    },
    /// Send files and folders to the server.
    Upload {
        /// Which.
        paths: Vec<Local>,
        /// The folder there; `None` is the root.
        into: Option<Vec<u8>>,
        /// Bytes a second, at most.
        limit: Option<u64>,
        /// As in [`Order::Download`].
        again: String,
    },
    /// Send files and folders to another user.
    Send {
        /// Which.
        paths: Vec<Local>,
        /// To whom.
        to: Name,
        /// Bytes a second, at most.
        limit: Option<u64>,
        /// As in [`Order::Download`].
        again: String,
    },
    /// Take what was offered.
    Accept {
        /// The number of the offer; `None`: the only one.
        offer: Option<u32>,
    },
    /// Do not take it.
    Refuse {
        /// As in [`Order::Accept`].
        offer: Option<u32>,
        /// For the sender.
        reason: Option<String>,
    },
    /// Wait for what others send.
    Receive {
        /// So many times; `None`: for ever.
        count: Option<u64>,
    },
    /// Run a command.
    Run {
        /// For the shell.
        command: String,
        /// Forward standard input.
        stdin: bool,
        /// Milliseconds; 0 is no limit.
        timeout_ms: u64,
    },
    /// List a folder; `None` is the root.
    List {
        /// Relative to the server's root.
        path: Option<Vec<u8>>,
    },
    /// Who is here.
    Who {
        /// Also where they take files.
        long: bool,
    },
    /// Ask the server for something that needs no more from us than to show the answer. Samples
    /// that are not named come from standard input.
    Call(Call<'static>),
    /// What one can do.
    Help,
    /// Measure round trips to the server.
    Probe {
        /// By which way we are connected.
        route: Route,
        /// How many.
        count: u32,
        /// Between the answer to one and the next, in milliseconds.
        interval_ms: u64,
    },
    /// Clear the screen.
    Clear,
    /// Leave.
    Quit,
}

/// The way to a server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// `IPv6` or `IPv4`.
    pub family: String,
    /// The address of the server.
    pub address: String,
}

/// Where a download goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// `client_<name>` in the current folder. The name is the last part of the path that we asked
    /// for: what the server calls it does not matter.
    Beside,
    /// This file or folder.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

/// How standard output is called.
const STDOUT_NAMES: [&str; 4] = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];

impl Target {
    /// What a user means by this name.
    pub fn named(output: PathBuf) -> Target {
        match STDOUT_NAMES.iter().any(|name| output.as_os_str() == *name) {
            true => Target::Stdout,
            false => Target::File(output),
        }
    }
}

/// Something to be uploaded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Local {
    /// A file or a folder.
    Path(PathBuf),
    /// Standard input, under this name.
    Input(Vec<u8>),
}

/// Refuses things of one name: one of them would replace the other where they arrive.
///
/// # Errors
/// A sentence for the user.
pub fn refuse_same_names<'a>(paths: &'a [Local]) -> Result<(), String> {
    let name_of = |path: &'a Local| match path {
        Local::Path(path) => path.file_name(),
        Local::Input(_) => None,
    };
    let mut names = HashSet::new();
    for name in paths.iter().filter_map(name_of) {
        if !names.insert(name) {
            let name = crate::wire::escape::escape_bytes(name.as_bytes()).into_owned();
            return Err(format!(
                "two of them are called {name}; send them one after the other, or \
                                in folders of different names"
            ));
        }
    }
    Ok(())
}

/// Reads a typed line: the language of the line dialect, with what only a client can do.
///
/// An empty line is no order; a line may be several.
///
/// # Errors
/// A sentence for the user, with the name of the error.
pub fn parse(typed: &str) -> Result<Vec<Order>, Refusal> {
    let typed = typed.trim();
    if typed.contains(['\n', '\r']) {
        let text = "an order is one line; nothing was done of these";
        return Err(Refusal::new(0, ErrorCode::BadArguments, text));
    }
    let (word, rest) = typed.split_once(' ').unwrap_or((typed, ""));
    match word {
        "" => return Ok(Vec::new()),
        "exit" if rest.is_empty() => return Ok(vec![Order::Quit]),
        "download" => return parse_download(rest, typed),
        "upload" => return parse_upload(rest, typed),
        "send" => match parse_send(rest, typed) {
            // A text that begins with that word.
            Err(refusal) if refusal.code == ErrorCode::BadName && typed.contains('|') => {}
            orders => return orders,
        },
        "who" if rest.trim() == "--long" => return Ok(vec![Order::Who { long: true }]),
        "accept" if rest.is_empty() => return Ok(vec![Order::Accept { offer: None }]),
        "refuse" if rest.is_empty() => {
            return Ok(vec![Order::Refuse { offer: None, reason: None }]);
        }
        _ => {}
    }
    let bytes = format!("{typed}\n").into_bytes();
    let item = line::decode(&bytes, 0, LINE_MAX_BYTES)?;
    let item = item.expect("a line with its end is whole, and this one is not empty");
    let request = item.request.map_err(|refusal| match refusal.code {
        ErrorCode::UnknownCommand => unknown_command(word),
        _ => refusal,
    })?;
    Ok(vec![order_of(request)?])
}

/// What is said of a word that is no command: the one that may be meant, and how to send a text.
fn unknown_command(word: &str) -> Refusal {
    let known = VERBS.iter().map(|entry| entry.word).chain(["exit"]);
    let nearest = known.map(|verb| (distance(word, verb), verb)).min();
    let meant = match nearest {
        // Half of a short word is another word.
        Some((slips, verb)) if slips <= 2 && slips * 3 <= verb.len() => {
            format!("; did you mean `{verb}`?")
        }
        _ => String::new(),
    };
    let shown: String = word.chars().take(40).collect();
    let text = format!(
        "there is no command `{shown}`{meant}; `help` lists the commands, and `TEXT|NAME` sends a \
         text"
    );
    Refusal::new(0, ErrorCode::UnknownCommand, text)
}

/// How many letters have to be put in, left out, changed or swapped with the next one to make one
/// word of the other. Long words are no slips of short ones.
fn distance(word: &str, verb: &str) -> usize {
    let (word, verb) = (word.as_bytes(), verb.as_bytes());
    if word.len() > verb.len() + 2 {
        return usize::MAX;
    }
    let mut rows = vec![(0..=verb.len()).collect::<Vec<usize>>()];
    for (at, letter) in word.iter().enumerate() {
        let mut row = vec![at + 1];
        for (place, other) in verb.iter().enumerate() {
            let is_same = letter.eq_ignore_ascii_case(other);
            let changed = rows[at][place] + usize::from(!is_same);
            let mut least = changed.min(rows[at][place + 1] + 1).min(row[place] + 1);
            let is_swapped =
                at > 0 && place > 0 && *letter == verb[place - 1] && word[at - 1] == *other;
            if is_swapped {
                least = least.min(rows[at - 1][place - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[word.len()][verb.len()]
}

fn order_of(request: Request<'_>) -> Result<Order, Refusal> {
    let call = match request {
        Request::Message { to, text, .. } => {
            let to = String::from_utf8_lossy(to.0).into_owned();
            return Ok(Order::Message { to, text: text.as_str().to_owned(), receipt_ms: None });
        }
        Request::Goodbye => return Ok(Order::Quit),
        Request::Call { call, .. } => call,
        _ => {
            let text = "you have a name already; leave and come back with --user NAME";
            return Err(Refusal::new(0, ErrorCode::AlreadyNamed, text));
        }
    };
    Ok(match call {
        Call::Run { command, .. } => {
            Order::Run { command: command.into_owned(), stdin: false, timeout_ms: 0 }
        }
        Call::List { path } => Order::List { path: path.map(|path| path.as_bytes().to_vec()) },
        Call::Who => Order::Who { long: false },
        Call::Help => Order::Help,
        Call::Accept { offer, .. } => Order::Accept { offer: Some(offer) },
        Call::Refuse { offer, reason } => Order::Refuse { offer: Some(offer), reason },
        Call::Host(HostCall::Clear) => Order::Clear,
        Call::Host(HostCall::Disconnect) => Order::Quit,
        Call::Refused(refusal) => return Err(refusal),
        Call::Download { .. }
        | Call::Fetch { .. }
        | Call::Store { .. }
        | Call::Upload { .. }
        | Call::Announce { .. }
        | Call::Send(_) => {
            unreachable!("transfers are told by their first word")
        }
        call => Order::Call(call.into_owned()),
    })
}

fn parse_download(rest: &str, typed: &str) -> Result<Vec<Order>, Refusal> {
    let paths = words_of(rest, "no file is named; write `download FILE [FILE...]`")?;
    let paths = paths.into_iter().map(|word| {
        let path = crate::wire::SharePath::parse(trim_slash(word.as_bytes()));
        path.map(|path| path.as_bytes().to_vec())
            .map_err(|fault| Refusal::new(0, ErrorCode::BadPath, fault.to_string()))
    });
    let paths: Vec<_> = paths.collect::<Result<_, _>>()?;
    refuse_same_targets(&paths).map_err(|text| Refusal::new(0, ErrorCode::BadArguments, text))?;
    let (target, again) = (Target::Beside, typed.to_owned());
    Ok(vec![Order::Download { paths, target, limit: None, again }])
}

/// What is fetched is named by the last part of its path: none may replace another.
pub(crate) fn refuse_same_targets(paths: &[Vec<u8>]) -> Result<(), String> {
    let mut names = HashSet::new();
    let last = |path: &Vec<u8>| path.rsplit(|byte| *byte == b'/').next().map(<[u8]>::to_vec);
    match paths.iter().find(|path| !names.insert(last(path))) {
        None => Ok(()),
        Some(path) => {
            let shown = crate::wire::escape::escape_bytes(path);
            Err(format!("FILE {shown}: another one would be saved under the same name"))
        }
    }
}

fn check_names(paths: &[Local]) -> Result<(), Refusal> {
    refuse_same_names(paths).map_err(|text| Refusal::new(0, ErrorCode::BadArguments, text))
}

fn parse_send(rest: &str, typed: &str) -> Result<Vec<Order>, Refusal> {
    let usage = "write `send FILE [FILE...] USER`";
    let mut words = words_of(rest, "no file is named; write `send FILE [FILE...] USER`")?;
    let to = words.pop().expect("there is a word");
    if words.is_empty() {
        let text = format!("the file or the user is missing; {usage}");
        return Err(Refusal::new(0, ErrorCode::BadArguments, text));
    }
    let to = Name::parse(&to).ok_or_else(|| {
        let text = format!("the last word is no user; {usage}; {NAME_RULE}");
        Refusal::new(0, ErrorCode::BadName, text)
    })?;
    let paths: Vec<_> = words.into_iter().map(|word| Local::Path(PathBuf::from(word))).collect();
    check_names(&paths)?;
    Ok(vec![Order::Send { paths, to, limit: None, again: typed.to_owned() }])
}

fn parse_upload(rest: &str, typed: &str) -> Result<Vec<Order>, Refusal> {
    let words = words_of(rest, "no file is named; write `upload FILE [FILE...] [--to DIR]`")?;
    let (mut paths, mut into) = (Vec::new(), None);
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word != "--to" {
            paths.push(Local::Path(PathBuf::from(word)));
            continue;
        }
        let folder = words.next().unwrap_or_default();
        let folder = crate::wire::SharePath::parse(trim_slash(folder.as_bytes()));
        let folder = folder.map_err(|fault| {
            Refusal::new(0, ErrorCode::BadPath, format!("the folder after --to: {fault}"))
        })?;
        into = Some(folder.as_bytes().to_vec());
    }
    check_names(&paths)?;
    if paths.is_empty() {
        return Err(Refusal::new(0, ErrorCode::BadArguments, "no file is named before --to"));
    }
    Ok(vec![Order::Upload { paths, into, limit: None, again: typed.to_owned() }])
}

fn words_of(rest: &str, nothing: &'static str) -> Result<Vec<String>, Refusal> {
    let bad = |text: &'static str| Refusal::new(0, ErrorCode::BadArguments, text);
    let words = split_words(rest).ok_or_else(|| bad("a quote is not closed"))?;
    if words.is_empty() { Err(bad(nothing)) } else { Ok(words) }
}

/// A folder may be named with a `/` at its end.
pub(crate) fn trim_slash(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"/").filter(|path| !path.is_empty()).unwrap_or(path)
}

/// Words as a shell splits them: at spaces, but for those after a backslash or within quotes.
/// `None` where a quote has no end.
fn split_words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|char| *char == ' ' || *char == '\t').is_some() {}
        if chars.peek().is_none() {
            return Some(words);
        }
        let mut word = String::new();
        let mut quote = None;
        loop {
            match (chars.next(), quote) {
                (None, Some(_)) => return None,
                (None | Some(' ' | '\t'), None) => break,
                (Some(end), Some(open)) if end == open => quote = None,
                (Some(open @ ('"' | '\'')), None) => quote = Some(open),
                (Some('\\'), None | Some('"')) => word.push(chars.next().unwrap_or('\\')),
                (Some(char), _) => word.push(char),
            }
        }
        words.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{
        host::{PingHost, Question},
        verbs::{self, Verb},
    };

    fn message(to: &str, text: &str) -> Vec<Order> {
        vec![Order::Message { to: to.into(), text: text.into(), receipt_ms: None }]
    }

    fn files(typed: &str, paths: &[&str]) -> Vec<Order> {
        let paths = paths.iter().map(|path| path.as_bytes().to_vec()).collect();
        let (target, again) = (Target::Beside, typed.to_owned());
        vec![Order::Download { paths, target, limit: None, again }]
    }

    #[test]
    fn lines_mean_what_they_mean_with_nc() {
        assert_eq!(parse("hello there|bob"), Ok(message("bob", "hello there")));
        assert_eq!(parse("  a|b|bob,carol "), Ok(message("bob,carol", "a|b")));
        assert_eq!(parse("msg bob run away"), Ok(message("bob", "run away")));
        let run =
            |command: &str| Order::Run { command: command.into(), stdin: false, timeout_ms: 0 };
        assert_eq!(parse("run ps aux | grep ssh"), Ok(vec![run("ps aux | grep ssh")]));
        assert_eq!(parse("run cd /tmp"), Ok(vec![run("cd /tmp")]));
        assert_eq!(parse("ls a/b/"), Ok(vec![Order::List { path: Some(b"a/b".to_vec()) }]));
        assert_eq!(parse("who"), Ok(vec![Order::Who { long: false }]));
        for quit in ["quit", "exit", " quit "] {
            assert_eq!(parse(quit), Ok(vec![Order::Quit]));
        }
        assert_eq!(parse("   "), Ok(vec![]));
    }

    #[test]
    fn host_commands_are_known_in_any_case_and_some_are_our_own() {
        let ask = |question| Ok(vec![Order::Call(Call::Host(HostCall::Ask(question)))]);
        assert_eq!(parse("IP"), ask(Question::Addresses));
        assert_eq!(parse(" Ram "), ask(Question::Memory));
        let host = PingHost::parse("::1").expect("a host");
        assert_eq!(parse("PING ::1"), Ok(vec![Order::Call(Call::Host(HostCall::Ping { host }))]));
        assert_eq!(parse("Clear"), Ok(vec![Order::Clear]));
        assert_eq!(parse("DISCONNECT"), Ok(vec![Order::Quit]));
        assert_eq!(parse("name your price|bob"), Ok(message("bob", "name your price")));
        let run =
            |command: &str| Order::Run { command: command.into(), stdin: false, timeout_ms: 0 };
        assert_eq!(parse("Linux:ls | wc"), Ok(vec![run("ls | wc")]));
    }

    #[test]
    fn what_is_helped_with_can_be_typed() {
        let text = verbs::help_at_prompt();
        assert!(!text.contains("SIZE") && !text.contains("user NAME"), "{text}");
        for entry in VERBS.iter().filter(|entry| entry.verb != Verb::User) {
            let word = entry.usage.split([' ', '[', ':']).next().expect("a word");
            assert!(text.lines().any(|line| line.starts_with(word)), "{word}");
        }
        for typed in ["upload a b --to c", "send a b bob", "accept", "accept 1", "refuse 1 no"] {
            assert!(parse(typed).is_ok(), "{typed}");
        }
    }

    #[test]
    fn several_files_are_one_transfer() {
        for typed in [
            "download a.txt 'b/c d.txt'",
            r#"download  a.txt  b/c\ d.txt"#,
            r#"download a.txt b/"c d".txt"#,
        ] {
            assert_eq!(parse(typed), Ok(files(typed, &["a.txt", "b/c d.txt"])));
        }
        assert_eq!(parse("download docs/ "), Ok(files("download docs/", &["docs"])));
        let typed = "upload a 'b c' --to d/e/";
        let paths = ["a", "b c"].map(|path| Local::Path(path.into())).to_vec();
        let (into, again) = (Some(b"d/e".to_vec()), typed.to_owned());
        assert_eq!(parse(typed), Ok(vec![Order::Upload { paths, into, limit: None, again }]));
    }

    #[test]
    fn files_that_would_get_one_name_are_refused_before_anything_moves() {
        for typed in ["download a/x b/x", "download x/ a/x", "upload a/x b/x", "send a/x b/x bob"] {
            assert_eq!(parse(typed).expect_err(typed).code, ErrorCode::BadArguments, "{typed}");
        }
    }

    #[test]
    fn a_slip_is_told_with_the_command_that_is_meant_and_without_the_list_of_all() {
        for (typed, meant) in [
            ("donwload x", "`download`"),
            ("uplod x", "`upload`"),
            ("hlep", "`help`"),
            ("Runn x", "`run`"),
        ] {
            let refusal = parse(typed).expect_err(typed);
            assert!(refusal.text.contains(&format!("did you mean {meant}?")), "{}", refusal.text);
            assert!(refusal.text.len() < 160, "{}", refusal.text);
        }
        for typed in ["hello", "xyz", "q", &"download".repeat(1000)] {
            let text = parse(typed).expect_err(typed).text;
            assert!(!text.contains("mean") && text.len() < 200, "{text}");
        }
    }

    #[test]
    fn nothing_is_left_of_several_lines_without_a_word() {
        for typed in ["one|bob\ntwo|bob", "download f1\ndownload f2", "run x\rrun y", "who\nwho"] {
            assert_eq!(parse(typed).expect_err(typed).code, ErrorCode::BadArguments, "{typed:?}");
        }
        assert_eq!(parse("who\r\n"), Ok(vec![Order::Who { long: false }]));
    }

    #[test]
    fn mistakes_are_named() {
        for (typed, code) in [
            ("hello", ErrorCode::UnknownCommand),
            ("hello|", ErrorCode::BadArguments),
            ("|bob", ErrorCode::BadArguments),
            ("msg bob", ErrorCode::BadArguments),
            ("run", ErrorCode::BadArguments),
            ("who is it", ErrorCode::BadArguments),
            ("user bob", ErrorCode::AlreadyNamed),
            ("download", ErrorCode::BadArguments),
            ("download 'a", ErrorCode::BadArguments),
            ("download ../x", ErrorCode::BadPath),
            ("download a//", ErrorCode::BadPath),
            ("upload", ErrorCode::BadArguments),
            ("upload --to x", ErrorCode::BadArguments),
            ("upload a --to ../x", ErrorCode::BadPath),
            ("upload a --to", ErrorCode::BadPath),
            ("ls /etc", ErrorCode::BadPath),
        ] {
            assert_eq!(parse(typed).expect_err(typed).code, code, "{typed}");
        }
        let long = format!("{}|bob", "x".repeat(66_000));
        assert_eq!(parse(&long).expect_err("long").code, ErrorCode::TextTooLong);
    }
}
