//! The prompt: line editing, history and completion, in a thread of its own.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use rustyline::{
    CompletionType, Config, Context, Editor, Helper, completion::Completer, error::ReadlineError,
    highlight::Highlighter, hint::Hinter, history::FileHistory, validate::Validator,
};

use super::{
    outlet::Printer,
    post::{News, Post},
};
use crate::{
    sys::terminal,
    wire::{
        Name,
        verbs::{Entry, VERBS, Verb},
    },
};

/// Lines that the history keeps.
const HISTORY_MAX_LINES: usize = 2000;

/// Rows of a terminal that does not know its size.
const USUAL_ROWS: usize = 24;

/// Words that completion shows at most; more would be asked about.
const COMPLETIONS_MAX: usize = 90;

/// The names that completion offers.
pub type Names = Arc<Mutex<BTreeSet<Name>>>;

/// The near end of a prompt.
pub struct Prompt {
    /// Asks for one more line; dropped, the prompt ends.
    pub go: mpsc::Sender<()>,
    /// Prints above the line being typed.
    pub printer: Printer,
}

/// Whether the terminal can move its cursor; on others, lines are read as they are.
pub fn can_edit() -> bool {
    std::env::var("TERM").is_ok_and(|term| !["dumb", "cons25", "emacs"].contains(&&term[..]))
}

/// Starts the thread. It begins to read when it is asked to.
///
/// # Errors
/// The terminal is none that a prompt works on.
pub fn start(user: Name, names: Names, post: Post) -> Result<Prompt, String> {
    let (go, asked) = mpsc::channel();
    let (ready, is_ready) = mpsc::channel();
    let spawned = thread::Builder::new().name("prompt".into()).spawn(move || {
        // Line editing gives the terminal back, stops, and takes it again in this order.
        terminal::take_stops(true);
        match open(names) {
            Ok((mut editor, printer)) => {
                if ready.send(Ok(printer)).is_ok() {
                    read_lines(&mut editor, user, &asked, &post);
                }
            }
            Err(error) => drop(ready.send(Err(error.to_string()))),
        }
    });
    spawned.map_err(|error| format!("no thread can be had for the prompt: {error}"))?;
    let printer = is_ready.recv().map_err(|error| error.to_string())??;
    Ok(Prompt { go, printer })
}

type LineEditor = Editor<Completion, FileHistory>;

fn open(names: Names) -> rustyline::Result<(LineEditor, Printer)> {
    let config = Config::builder()
        .max_history_size(HISTORY_MAX_LINES)?
        .history_ignore_dups(true)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .auto_add_history(false)
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(Completion { names, typed: Arc::default() }));
    let printer = editor.create_external_printer()?;
    Ok((editor, Box::new(printer)))
}

fn read_lines(editor: &mut LineEditor, user: Name, asked: &mpsc::Receiver<()>, post: &Post) {
    let history = history_path();
    if let Some(path) = &history {
        // A missing file is an empty history.
        let _ = editor.load_history(path);
    }
    let prompt = format!("{user}> ");
    let typed = editor.helper().map(|helper| helper.typed.clone()).unwrap_or_default();
    for () in asked {
        typed.store(false, Ordering::Relaxed);
        let news = match editor.readline(&prompt) {
            Ok(lines) => {
                // What was pasted comes as several lines; each is one of its own.
                for line in lines.lines() {
                    // A password may be typed in the belief that this is how one logs in.
                    let is_kept =
                        !line.trim().is_empty() && !line.trim_start().starts_with("user ");
                    if is_kept && matches!(editor.add_history_entry(line), Ok(true)) {
                        append_history(editor, history.as_deref());
                    }
                }
                News::Line(lines)
            }
            // As in shells, what is typed goes first; then what runs.
            Err(ReadlineError::Interrupted) if typed.load(Ordering::Relaxed) => {
                News::Line(String::new())
            }
            Err(ReadlineError::Interrupted) => News::Interrupted,
            Err(ReadlineError::Eof) => News::LinesEnd(None),
            Err(error) => News::LinesEnd(Some(format!("cannot read the terminal: {error}"))),
        };
        if !post.send(news) {
            return;
        }
    }
}

/// `$XDG_STATE_HOME/sixfour/history`, or below `~/.local/state` (XDG Base Directory
/// Specification 0.8). `None` without a home, or where the folder cannot be made.
fn history_path() -> Option<PathBuf> {
    let folder = |variable: &str| {
        let value = std::env::var_os(variable).map(PathBuf::from);
        value.filter(|path| path.is_absolute())
    };
    let state = folder("XDG_STATE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".local").join("state")))?
        .join("sixfour");
    std::fs::create_dir_all(&state).ok()?;
    Some(state.join("history"))
}

/// Written line by line: nobody can tell how the process will end. What was typed is nobody
/// else's business.
fn append_history(editor: &mut LineEditor, path: Option<&Path>) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let Some(path) = path else { return };
    let mut options = std::fs::OpenOptions::new();
    let made = options.append(true).create(true).mode(0o600).open(path);
    // A history that cannot be kept is no reason to stop.
    if made.is_ok() {
        let _ = editor.append_history(path);
    }
}

struct Completion {
    names: Names,
    /// Something stands on the line. Line editing tells that to whoever gives hints.
    typed: Arc<AtomicBool>,
}

impl Helper for Completion {}
impl Highlighter for Completion {}
impl Validator for Completion {}
impl Hinter for Completion {
    type Hint = String;

    fn hint(&self, line: &str, _: usize, _: &Context<'_>) -> Option<String> {
        self.typed.store(!line.is_empty(), Ordering::Relaxed);
        None
    }
}

impl Completer for Completion {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, words) = candidates(&line[..position], names.iter().map(Name::as_str));
        let rows = terminal::size().map_or(USUAL_ROWS, |(_, rows)| rows.into());
        Ok((start, fitting(words, rows)))
    }
}

/// As many of the words as the screen holds at once: line editing would ask for a key between two
/// pages of them, deaf to Ctrl-C, and show nothing else meanwhile. The first and the last are among
/// them, so that all of the words have in common what these have.
fn fitting(mut words: Vec<String>, rows: usize) -> Vec<String> {
    let max = rows.saturating_sub(2).clamp(2, COMPLETIONS_MAX);
    words.sort_unstable();
    if words.len() > max
        && let Some(last) = words.pop()
    {
        words.truncate(max - 1);
        words.push(last);
    }
    words
}

/// What could stand at the end of `line`, and where it begins: a verb as the first word, a name
/// after `|`, after `msg`, and behind the files of `send`.
fn candidates<'a>(line: &str, names: impl Iterator<Item = &'a str>) -> (usize, Vec<String>) {
    let after = |char: char| line.rfind(char).map(|at| at + 1);
    if let Some(bar) = after('|') {
        let start = after(',').filter(|comma| *comma > bar).unwrap_or(bar);
        return (start, beginning(&line[start..], names, ""));
    }
    match line.strip_prefix("msg ") {
        Some(rest) if !rest.contains(' ') => {
            let start = after(',').unwrap_or("msg ".len());
            (start, beginning(&line[start..], names, " "))
        }
        None if line.starts_with("send ") => {
            // The user is the last word, behind a file at least.
            let start = after(' ').unwrap_or(line.len());
            match line["send ".len()..start].trim().is_empty() {
                true => (line.len(), Vec::new()),
                false => (start, beginning(&line[start..], names, " ")),
            }
        }
        None if !line.contains(' ') => {
            let commands = VERBS.iter().filter(|entry| entry.at_prompt().is_some()).map(command);
            let starts = |command: &String| command.to_ascii_lowercase().starts_with(line);
            (0, commands.chain(["exit ".to_owned()]).filter(starts).collect())
        }
        _ => (line.len(), Vec::new()),
    }
}

/// What is typed of a command before its arguments: an interpreter's begin behind its colon.
fn command(entry: &Entry) -> String {
    let head = entry.usage.split_inclusive(':').next().unwrap_or(entry.usage);
    match entry.verb {
        _ if head.ends_with(':') => head.to_owned(),
        Verb::Python => format!("{head} "),
        _ => format!("{} ", entry.word),
    }
}

fn beginning<'a>(head: &str, words: impl Iterator<Item = &'a str>, tail: &str) -> Vec<String> {
    words.filter(|word| word.starts_with(head)).map(|word| format!("{word}{tail}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(line: &str) -> (usize, Vec<String>) {
        candidates(line, ["bob", "bea", "carol"].into_iter())
    }

    #[test]
    fn verbs_complete_where_a_line_begins() {
        assert_eq!(complete("dow"), (0, vec!["download ".to_owned()]));
        assert_eq!(complete("w"), (0, vec!["who ".to_owned()]));
        assert_eq!(complete("run w"), (5, vec![]));
        let all = |words: &[&str]| (0, words.iter().map(|word| (*word).to_owned()).collect());
        assert_eq!(complete("p"), all(&["ping ", "python --version ", "PowerShell:"]));
        assert_eq!(complete("d"), all(&["download ", "DOS:", "disconnect "]));
        assert_eq!(
            complete("e"),
            all(&[
                "echo ",
                "edge.join ",
                "edge.upload ",
                "edge.compute ",
                "edge.delete ",
                "edge.list ",
                "edge.leave ",
                "exit "
            ])
        );
    }

    #[test]
    fn no_more_is_offered_than_the_screen_holds_and_its_common_beginning_is_that_of_all() {
        let words: Vec<_> = (0..200).map(|number| format!("w{number:03}")).collect();
        for rows in [1, 5, 24, 500] {
            let shown = fitting(words.clone(), rows);
            assert!(shown.len() <= rows.saturating_sub(2).clamp(2, COMPLETIONS_MAX), "{rows}");
            assert_eq!((&shown[0], shown.last()), (&words[0], words.last()));
        }
        let few = vec!["b".to_owned(), "a".to_owned()];
        assert_eq!(fitting(few, 24), ["a", "b"]);
    }

    #[test]
    fn names_complete_where_a_name_is_due() {
        assert_eq!(complete("hello there|b"), (12, vec!["bob".to_owned(), "bea".to_owned()]));
        assert_eq!(complete("hi|bob,c"), (7, vec!["carol".to_owned()]));
        assert_eq!(complete("a, b|ca"), (5, vec!["carol".to_owned()]));
        assert_eq!(complete("msg ca"), (4, vec!["carol ".to_owned()]));
        assert_eq!(complete("msg bob,ca"), (8, vec!["carol ".to_owned()]));
        assert_eq!(complete("msg bob b"), (9, vec![]));
        assert_eq!(complete("send b"), (6, vec![]));
        assert_eq!(complete("send a.txt c"), (11, vec!["carol ".to_owned()]));
    }
}
