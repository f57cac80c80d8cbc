//! Checks the code as text: who may import whom, the style limits, and that PROTOCOL.md speaks
//! of every verb and every error.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sixfour::wire::verbs::VERBS;

const LINE_MAX_COLUMNS: usize = 100;
const FILE_MAX_LINES: usize = 650;
const FUNCTION_MAX_LINES: usize = 75;
const BINARY_MAX_LINES: usize = 60;

/// What a layer may not name. `except` are paths that begin with a forbidden one and are allowed.
struct Rule {
    layer: &'static str,
    banned: &'static [&'static str],
    except: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule {
        layer: "src/wire",
        banned: &[
            "crate::hub",
            "crate::sys",
            "crate::server",
            "crate::client",
            "std::fs",
            "std::io",
            "std::net",
            "std::os::fd",
            "std::process",
            "std::sync",
            "std::thread",
            "std::time",
            "Instant",
            "SystemTime",
            "TcpStream",
            "UdpSocket",
            "mio",
            "socket2",
            "rustix",
            "println!",
            "eprintln!",
            "dbg!",
        ],
        except: &[],
    },
    Rule {
        layer: "src/hub",
        banned: &[
            "crate::sys",
            "crate::server",
            "crate::client",
            "std::fs",
            "std::io",
            "std::net",
            "std::os::fd",
            "std::process",
            "std::sync",
            "std::thread",
            "Instant",
            "SystemTime",
            "RandomState",
            "TcpStream",
            "UdpSocket",
            "mio",
            "socket2",
            "rustix",
            "serde",
            "serde_json",
            "println!",
            "eprintln!",
            "dbg!",
        ],
        except: &["std::net::SocketAddr", "std::net::IpAddr"],
    },
    Rule {
        layer: "src/sys",
        banned: &[
            "crate::wire",
            "crate::hub",
            "crate::server",
            "crate::client",
            "serde",
            "serde_json",
            "println!",
            "eprintln!",
            "dbg!",
        ],
        except: &["crate::hub::ids"],
    },
    Rule {
        layer: "src/transfer",
        banned: &[
            "crate::hub",
            "crate::server",
            "crate::client",
            "std::net",
            "std::process",
            "std::thread",
            "Instant",
            "SystemTime",
            "mio",
            "socket2",
            "serde",
            "serde_json",
            "println!",
            "eprintln!",
            "dbg!",
        ],
        except: &[],
    },
    Rule { layer: "src/server", banned: &["crate::client", "dbg!"], except: &[] },
    Rule { layer: "src/client", banned: &["crate::server", "dbg!"], except: &[] },
];

/// The only crates of ours and of others that a pure layer may begin a `use` with.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    (
        "src/wire",
        &[
            "std",
            "core",
            "alloc",
            "super",
            "self",
            "crate::limits",
            "crate::wire",
            "base64",
            "blake3",
            "jiff",
            "memchr",
            "serde",
            "serde_json",
            "zeroize",
        ],
    ),
    (
        "src/hub",
        &[
            "std",
            "core",
            "alloc",
            "super",
            "self",
            "crate::limits",
            "crate::wire",
            "crate::hub",
            "slab",
            "log",
            "siphasher",
            "zeroize",
        ],
    ),
];

/// What no source file may hold outside its tests, and what to write instead.
const NEVER_IN_SOURCES: &[(&str, &str)] = &[
    (".unwrap()", "expect(\"the invariant that holds\")"),
    ("todo!", "the thing itself"),
    ("unimplemented!", "the thing itself"),
];

/// Where somebody's machine would show. Written so that this file does not contain them.
const MACHINE_PATHS: &[&str] =
    &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")];

/// A file of the crate, with the rules that its place gives it.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn is_in(&self, layer: &str) -> bool {
        self.path.starts_with(layer) || self.path == Path::new(&format!("{layer}.rs"))
    }

    /// The numbered lines of code before the tests, without comments and string contents.
    fn code(&self) -> impl Iterator<Item = (usize, String)> {
        // A file of tests has no code of its own.
        let is_tests = self.path.file_name().is_some_and(|name| name == "tests.rs");
        let is_code = move |line: &&str| !is_tests && *line != "#[cfg(test)]";
        let mut in_string = false;
        let lines = self.text.lines().take_while(is_code).enumerate();
        lines.map(move |(index, line)| (index + 1, without_words(line, &mut in_string)))
    }

    fn says(&self, number: usize, what: &str) -> String {
        format!("{}:{number}: {what}", self.path.display())
    }
}

/// The line without its comment and without what stands in string literals: prose may speak of
/// anything. A literal may go on from line to line: `in_string` remembers that.
fn without_words(line: &str, in_string: &mut bool) -> String {
    let mut code = String::new();
    let mut chars = line.trim_start().chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\\' if *in_string => drop(chars.next()),
            '"' => *in_string = !*in_string,
            '\'' if !*in_string && chars.peek() == Some(&'"') => drop(chars.next()),
            '/' if !*in_string && chars.peek() == Some(&'/') => break,
            _ if *in_string => {}
            _ => code.push(char),
        }
    }
    code
}

/// Whether `code` names `path` as a whole word: `mio` is not in `comio`, `std::io` not in
/// `std::iostream`.
fn names(code: &str, path: &str, except: &[&str]) -> bool {
    let is_word = |char: char| char.is_alphanumeric() || char == '_';
    code.match_indices(path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + path.len()..].chars().next();
        let ends = path.ends_with('!') || !after.is_some_and(is_word);
        let begins = !before.is_some_and(|char| is_word(char) || char == '.');
        let excepted = |except: &&str| code[at..].starts_with(*except);
        begins && ends && !except.iter().any(excepted)
    })
}

fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a folder of the crate can be read").path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("sources are UTF-8");
                found.push(Source { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn fail_on(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// `use a::{b, c::d};` over several lines, as the paths `a::b` and `a::c::d`.
fn use_paths(source: &Source) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, code) in source.code() {
        let statement = code.trim_start_matches("pub(super) ").trim_start_matches("pub ");
        match &mut open {
            Some((_, text)) => text.push_str(&code),
            None if statement.starts_with("use ") => {
                open = Some((number, statement["use ".len()..].to_string()));
            }
            None => continue,
        }
        if code.contains(';') {
            let (number, text) = open.take().expect("it was opened above");
            flatten("", text.trim_end_matches(';').trim(), &mut |path| paths.push((number, path)));
        }
    }
    paths
}

fn flatten(prefix: &str, tree: &str, found: &mut dyn FnMut(String)) {
    let Some(brace) = tree.find('{') else {
        return found(format!("{prefix}{}", tree.trim()));
    };
    let inner = tree[brace + 1..].trim_end().strip_suffix('}').unwrap_or(&tree[brace + 1..]);
    let prefix = format!("{prefix}{}", tree[..brace].trim());
    let (mut depth, mut start) = (0, 0);
    for (at, char) in inner.char_indices() {
        match char {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                flatten(&prefix, inner[start..at].trim(), found);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !inner[start..].trim().is_empty() {
        flatten(&prefix, inner[start..].trim(), found);
    }
}

#[test]
fn layers_import_only_what_they_may() {
    let mut faults = Vec::new();
    for source in sources("src") {
        let paths = use_paths(&source);
        for (layer, allowed) in MAY_IMPORT.iter().filter(|(layer, _)| source.is_in(layer)) {
            let is_child = |path: &str| {
                let head = path.split("::").next().unwrap_or(path);
                source.text.contains(&format!("mod {head};"))
                    || head.starts_with(char::is_uppercase)
            };
            let is_allowed = |path: &str| {
                is_child(path)
                    || allowed
                        .iter()
                        .any(|one| path == *one || path.starts_with(&format!("{one}::")))
            };
            for (number, path) in paths.iter().filter(|(_, path)| !is_allowed(path)) {
                faults.push(source.says(*number, &format!("`{path}` imported in {layer}")));
            }
        }
        for rule in RULES.iter().filter(|rule| source.is_in(rule.layer)) {
            let lines = paths.iter().cloned().chain(source.code());
            for (number, code) in lines {
                for banned in rule.banned.iter().filter(|it| names(&code, it, rule.except)) {
                    faults.push(source.says(number, &format!("`{banned}` in {}", rule.layer)));
                }
            }
        }
    }
    fail_on(faults);
}

#[test]
fn sources_hold_nothing_unfinished() {
    let mut faults = Vec::new();
    for source in sources("src") {
        for (number, code) in source.code() {
            for (never, instead) in NEVER_IN_SOURCES.iter().filter(|it| code.contains(it.0)) {
                faults.push(source.says(number, &format!("`{never}`: write {instead}")));
            }
        }
        let lines = source.text.lines().count();
        let max = if source.is_in("src/bin") { BINARY_MAX_LINES } else { FILE_MAX_LINES };
        if lines > max {
            faults.push(source.says(lines, &format!("a file of more than {max} lines")));
        }
    }
    fail_on(faults);
}

#[test]
fn every_file_keeps_the_limits_of_style() {
    let mut faults = Vec::new();
    for folder in ["src", "tests", "benches", "examples", "fuzz"] {
        for source in sources(folder) {
            if !source.text.starts_with("//! ") {
                faults.push(source.says(1, "begins without `//! ` and what it is about"));
            }
            check_lines(&source, &mut faults);
        }
    }
    fail_on(faults);
}

fn check_lines(source: &Source, faults: &mut Vec<String>) {
    let mut function: Option<(usize, usize)> = None;
    for (number, line) in source.text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        if line.chars().count() > LINE_MAX_COLUMNS {
            faults.push(source.says(number, &format!("over {LINE_MAX_COLUMNS} columns")));
        }
        for path in MACHINE_PATHS.iter().filter(|path| line.contains(**path)) {
            faults.push(source.says(number, &format!("a path of one machine: {path}")));
        }
        let indent = line.len() - line.trim_start().len();
        match function {
            Some((start, depth)) if indent == depth && line.trim_end().ends_with('}') => {
                let length = number - start + 1;
                if length > FUNCTION_MAX_LINES {
                    faults.push(source.says(start, &format!("a function of {length} lines")));
                }
                function = None;
            }
            None if is_function(line.trim_start()) => function = Some((number, indent)),
            _ => {}
        }
    }
}

/// Whether a line begins a function whose body goes on below it.
fn is_function(line: &str) -> bool {
    let words =
        ["pub(crate) ", "pub(super) ", "pub ", "const ", "async ", "unsafe ", "extern \"C\" "];
    let bare = words.iter().fold(line, |line, word| line.strip_prefix(word).unwrap_or(line));
    bare.starts_with("fn ") && !line.ends_with('}') && !line.ends_with(';')
}

#[test]
fn the_protocol_speaks_of_every_verb_and_every_error() {
    let protocol = fs::read_to_string("PROTOCOL.md").expect("PROTOCOL.md is there");
    let mut faults = Vec::new();
    for entry in VERBS {
        if !protocol.contains(&format!("`{}`", entry.usage)) {
            faults.push(format!("PROTOCOL.md: `{}` is missing", entry.usage));
        }
    }
    for code in error_codes() {
        if !protocol.contains(&format!("| `{code}` |")) {
            faults.push(format!("PROTOCOL.md: no row for `{code}`"));
        }
    }
    let readme = fs::read_to_string("README.md").unwrap_or_default().to_lowercase();
    let missing = |entry: &&sixfour::wire::verbs::Entry| {
        !readme.is_empty() && !readme.contains(&format!("`{}", entry.word))
    };
    faults.extend(VERBS.iter().filter(missing).map(|it| format!("README.md: no `{}`", it.word)));
    fail_on(faults);
}

/// The names of all errors, out of the `match` that names each: the compiler keeps that whole.
fn error_codes() -> Vec<String> {
    let text = fs::read_to_string("src/wire/error.rs").expect("the errors are there");
    let quoted = |line: &str| Some(line.trim().split_once(" => \"")?.1.split('"').next()?.into());
    let codes: Vec<String> = text.lines().filter_map(quoted).collect();
    assert!(codes.len() >= 29, "found only {} errors", codes.len());
    codes
}

#[test]
fn the_checks_see_what_they_look_for() {
    let text = "//! x\nuse std::{\n    fs,\n    net::{IpAddr, TcpStream},\n};\nuse mio::Poll;\n";
    let source = Source { path: "src/hub/x.rs".into(), text: text.to_string() };
    let paths: Vec<String> = use_paths(&source).into_iter().map(|it| it.1).collect();
    assert_eq!(paths, ["std::fs", "std::net::IpAddr", "std::net::TcpStream", "mio::Poll"]);
    let except = ["std::net::IpAddr"];
    assert!(!names("std::net::IpAddr", "std::net", &except));
    assert!(names("std::net::TcpStream", "std::net", &except));
    assert!(names("let now = Instant::now();", "Instant", &[]));
    assert!(!names("let permission = 1;", "mio", &[]) && !names("a.mio", "mio", &[]));
    let mut in_string = false;
    assert_eq!(without_words("let x = \"std::fs\"; // mio", &mut in_string), "let x = ; ");
    assert_eq!(without_words("f(\"one \\", &mut in_string), "f(");
    assert_eq!(without_words("mio\").await", &mut in_string), ").await");
    assert!(is_function("pub fn run() {") && !is_function("fn run();"));
}
