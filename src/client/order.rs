//! What the user wants: from a typed line, or from the arguments.

use std::path::PathBuf;

use crate::{
    limits::LINE_MAX_BYTES,
    wire::{Call, EdgeCall, ErrorCode, HostCall, Refusal, Request, line},
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
    /// Fetch a file.
    Download {
        /// Relative to the server's root.
        path: Vec<u8>,
        /// Where it goes.
        target: Target,
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
    Who,
    /// The same text back.
    Echo {
        /// Any text.
        text: String,
    },
    /// What a device can ask; samples that are not named come from standard input.
    Edge(EdgeCall),
    /// What one can do.
    Help,
    /// Something about the server's host, or the server itself.
    Host(HostCall<'static>),
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
    /// A file; written under a temporary name first.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

impl Target {
    /// `client_<name>` in the current folder. The name is the last part of the path that we asked
    /// for: what the server calls the file does not matter.
    pub fn beside(path: &[u8]) -> Target {
        use std::os::unix::ffi::OsStringExt as _;
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let name = [b"client_", name].concat();
        Target::File(PathBuf::from(std::ffi::OsString::from_vec(name)))
    }
}

/// Reads a typed line: the language of the line dialect, with what only a client can do.
///
/// An empty line is no order; a line may be several.
///
/// # Errors
/// A sentence for the user, with the name of the error.
pub fn parse(typed: &str) -> Result<Vec<Order>, Refusal> {
    let typed = typed.trim();
    let (word, rest) = typed.split_once(' ').unwrap_or((typed, ""));
    match word {
        "" => return Ok(Vec::new()),
        "exit" if rest.is_empty() => return Ok(vec![Order::Quit]),
        "download" => return parse_download(rest),
        _ => {}
    }
    let bytes = format!("{typed}\n").into_bytes();
    let item = line::decode(&bytes, 0, LINE_MAX_BYTES)?;
    let item = item.expect("a line with its end is whole, and this one is not empty");
    Ok(vec![order_of(item.request?)?])
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
        Call::Download { path } => download(path.as_bytes().to_vec()),
        Call::Run { command, .. } => {
            Order::Run { command: command.into_owned(), stdin: false, timeout_ms: 0 }
        }
        Call::List { path } => Order::List { path: path.map(|path| path.as_bytes().to_vec()) },
        Call::Who => Order::Who,
        Call::Echo { text } => Order::Echo { text: text.into_owned() },
        Call::Help => Order::Help,
        Call::Edge(call) => Order::Edge(call),
        Call::Host(HostCall::Clear) => Order::Clear,
        Call::Host(HostCall::Disconnect) => Order::Quit,
        Call::Host(call) => Order::Host(call.into_owned()),
        Call::Refused(refusal) => return Err(refusal),
    })
}

fn download(path: Vec<u8>) -> Order {
    let target = Target::beside(&path);
    Order::Download { path, target }
}

fn parse_download(rest: &str) -> Result<Vec<Order>, Refusal> {
    let bad = |text: &'static str| Refusal::new(0, ErrorCode::BadArguments, text);
    let words = split_words(rest).ok_or_else(|| bad("a quote is not closed"))?;
    if words.is_empty() {
        return Err(bad("no file is named; write `download FILE [FILE...]`"));
    }
    let check = |word: String| {
        let path = crate::wire::SharePath::parse(word.as_bytes());
        path.map(|path| download(path.as_bytes().to_vec()))
            .map_err(|fault| Refusal::new(0, ErrorCode::BadPath, fault.to_string()))
    };
    words.into_iter().map(check).collect()
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
    use crate::wire::host::{PingHost, Question};

    fn message(to: &str, text: &str) -> Vec<Order> {
        vec![Order::Message { to: to.into(), text: text.into(), receipt_ms: None }]
    }

    fn file(path: &str, target: &str) -> Order {
        Order::Download { path: path.into(), target: Target::File(target.into()) }
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
        assert_eq!(parse("who"), Ok(vec![Order::Who]));
        for quit in ["quit", "exit", " quit "] {
            assert_eq!(parse(quit), Ok(vec![Order::Quit]));
        }
        assert_eq!(parse("   "), Ok(vec![]));
    }

    #[test]
    fn host_commands_are_known_in_any_case_and_some_are_our_own() {
        let ask = |question| Ok(vec![Order::Host(HostCall::Ask(question))]);
        assert_eq!(parse("IP"), ask(Question::Addresses));
        assert_eq!(parse(" Ram "), ask(Question::Memory));
        let host = PingHost::parse("::1").expect("a host");
        assert_eq!(parse("PING ::1"), Ok(vec![Order::Host(HostCall::Ping { host })]));
        assert_eq!(parse("Clear"), Ok(vec![Order::Clear]));
        assert_eq!(parse("DISCONNECT"), Ok(vec![Order::Quit]));
        assert_eq!(parse("name your price|bob"), Ok(message("bob", "name your price")));
        let run =
            |command: &str| Order::Run { command: command.into(), stdin: false, timeout_ms: 0 };
        assert_eq!(parse("Linux:ls | wc"), Ok(vec![run("ls | wc")]));
    }

    #[test]
    fn several_files_are_several_downloads_saved_under_their_last_part() {
        let two = vec![file("a.txt", "client_a.txt"), file("b/c d.txt", "client_c d.txt")];
        assert_eq!(parse("download a.txt 'b/c d.txt'"), Ok(two.clone()));
        assert_eq!(parse(r#"download  a.txt  b/c\ d.txt "#), Ok(two.clone()));
        assert_eq!(parse(r#"download a.txt b/"c d".txt"#), Ok(two));
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
            ("download a/", ErrorCode::BadPath),
            ("ls /etc", ErrorCode::BadPath),
        ] {
            assert_eq!(parse(typed).expect_err(typed).code, code, "{typed}");
        }
        let long = format!("{}|bob", "x".repeat(66_000));
        assert_eq!(parse(&long).expect_err("long").code, ErrorCode::TextTooLong);
    }
}
