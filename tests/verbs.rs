//! A verb is added in few places, counted from the code.

use std::{fs, path::Path};

use sixfour::wire::verbs::{Takes, VERBS, Verb, entry};

/// The verbs that are answered by a text.
const WITH_TEXT: [Verb; 7] =
    [Verb::Echo, Verb::Help, Verb::Ip, Verb::Name, Verb::Ram, Verb::Os, Verb::Cpu];

/// So many files under `src` speak of one of them at most.
const FILES_MAX: usize = 5;

/// Shorter ways for what programs send by the million. No verb needs one.
const SHORT_CUTS: [&str; 2] = ["src/wire/json/quick.rs", "src/wire/json/request.rs"];

/// A file of `src` without comments and tests.
struct Code {
    path: String,
    text: String,
}

fn collect(folder: &Path, into: &mut Vec<Code>) {
    for entry in fs::read_dir(folder).expect("a folder of ours") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("tests") {
            collect(&path, into);
        } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).expect("a file of ours");
            let text = text.split("#[cfg(test)]\nmod").next().unwrap_or_default();
            let is_code = |line: &&str| !line.trim_start().starts_with("//");
            let text = text.lines().filter(is_code).collect::<Vec<_>>().join("\n");
            into.push(Code { path: path.to_str().expect("text").to_owned(), text });
        }
    }
}

/// What is counted: the verb (`Verb::Ram`, also that of the client's arguments), the variant of the
/// call that it makes and the `enum` that declares it (`Question::Memory`), its word as a literal
/// (`"ram"`), and the function of the server that puts the answer into words (`fn memory()`); not
/// what below `sys` asks the system for a fact, which knows of no verbs.
fn signs(verb: Verb) -> Vec<String> {
    let call = match entry(verb).takes {
        Takes::Nothing(call) | Takes::Question(call) => format!("{:?}", call()),
        Takes::Text(call) => format!("{:?}", call("".into())),
        Takes::Arguments => panic!("{verb:?} makes more than one call"),
    };
    let (of, variant) = match call.strip_prefix("Host(Ask(") {
        Some(question) => ("Question", question.trim_end_matches(')')),
        None => ("Call", call.split(' ').next().expect("a variant")),
    };
    let mut signs = vec![
        format!("Verb::{verb:?}"),
        format!("{of}::{variant}"),
        format!("pub enum {of} "),
        format!("pub enum {of}<"),
        format!("pub fn {}() -> io::Result<Vec<String>>", variant.to_lowercase()),
    ];
    // These words are those of other things too: members of JSON, rows of a table.
    if !matches!(verb, Verb::Name | Verb::Cpu) {
        signs.push(format!("\"{}\"", entry(verb).word));
    }
    signs
}

/// Whether the sign is there as a whole: `Call::Help`, and not `Call::Helper`.
fn speaks_of(text: &str, sign: &str) -> bool {
    let is_end = |rest: &str| !rest.starts_with(|next: char| next.is_alphanumeric());
    text.match_indices(sign).any(|(at, _)| {
        let own = !text[..at].ends_with(|before: char| before.is_alphanumeric());
        own && (is_end(&text[at + sign.len()..]) || !sign.ends_with(char::is_alphanumeric))
    })
}

#[test]
fn a_verb_with_a_text_for_an_answer_touches_few_files() {
    let mut all = Vec::new();
    collect(Path::new("src"), &mut all);
    assert!(all.len() > 100, "only {} files", all.len());
    all.retain(|code| !SHORT_CUTS.contains(&&*code.path));
    for verb in WITH_TEXT {
        let signs = signs(verb);
        let is_there = |code: &&Code| signs.iter().any(|sign| speaks_of(&code.text, sign));
        let files: Vec<_> = all.iter().filter(is_there).map(|code| &*code.path).collect();
        assert!(files.contains(&"src/wire/verbs.rs"), "{verb:?} has no row in {files:?}");
        assert!(files.len() >= 3, "{verb:?} does nothing: {files:?}");
        assert!(files.len() <= FILES_MAX, "{verb:?} is in {} files: {files:#?}", files.len());
    }
}

/// A new row with nothing or a text behind its word is one of those that are counted.
#[test]
fn no_verb_is_left_out_of_the_count_by_oversight() {
    let other = [Verb::Who, Verb::Info, Verb::Clear, Verb::Disconnect, Verb::Reset, Verb::Kill];
    for entry in VERBS.iter().filter(|entry| !matches!(entry.takes, Takes::Arguments)) {
        let verb = entry.verb;
        assert!(WITH_TEXT.contains(&verb) || other.contains(&verb), "{verb:?} is not counted");
    }
}
