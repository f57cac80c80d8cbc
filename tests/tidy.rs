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
        except: &[
            "std::net::SocketAddr",
            "std::net::IpAddr",
            "std::net::Ipv4Addr",
            "std::net::Ipv6Addr",
        ],
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
    Rule {
        layer: "src/direct",
        banned: &[
            "crate::hub",
            "crate::server",
            "crate::client",
            "std::fs",
            "std::process",
            "std::thread",
            "SystemTime",
            "UdpSocket",
            "serde",
            "serde_json",
            "println!",
            "eprintln!",
            "dbg!",
        ],
        except: &[],
    },
    Rule {
        layer: "src/edge",
        banned: &[
            "crate::hub",
            "crate::sys",
            "crate::server",
            "crate::client",
            "TcpStream",
            "UdpSocket",
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
    Rule {
        layer: "src/client/core",
        banned: &[
            "crate::client",
            // It leads to the rest of the client.
            "super::super",
            "crate::sys",
            "crate::direct",
            "crate::edge",
            "crate::server",
            "std::env",
            "std::fs",
            "std::io",
            "std::net",
            "std::os::fd",
            "std::process",
            "std::sync",
            "std::thread",
            "Instant",
            "SystemTime",
            "TcpStream",
            "UdpSocket",
            "clap",
            "mio",
            "socket2",
            "rustix",
            "println!",
            "eprintln!",
            "dbg!",
        ],
        except: &["crate::client::core", "std::net::SocketAddr", "std::net::IpAddr"],
    },
    Rule {
        layer: "src/stream",
        banned: &[
            "std::fs",
            "std::net",
            "std::os::fd",
            "std::process",
            "std::sync",
            "std::thread",
            "Instant",
            "SystemTime",
            "println!",
            "eprintln!",
            "dbg!",
        ],
        except: &[],
    },
];

/// The rooms of the crate, and which others each may name, as ARCHITECTURE.md has it.
const ROOMS: &[(&str, &[&str])] = &[
    ("wire", &["limits"]),
    ("hub", &["wire", "limits"]),
    ("sys", &["limits"]),
    ("transfer", &["wire", "sys", "limits"]),
    ("direct", &["wire", "sys", "limits"]),
    ("edge", &["wire", "limits"]),
    ("server", &["wire", "hub", "sys", "transfer", "edge", "stream", "limits", "manual"]),
    ("client", &["wire", "sys", "transfer", "direct", "edge", "stream", "limits", "manual"]),
    ("stream", &[]),
    ("tour", &[]),
    ("limits", &[]),
    ("manual", &["sys", "limits"]),
];

/// What of a room that may not be named is no more than a number.
const PLAIN_IDS: &[(&str, &str)] = &[("sys", "crate::hub::ids")];

/// What of the direct path only its driver may name: a simulation runs the rest.
const DIRECT_DRIVER: &str = "src/direct/driver.rs";
/// See [`DIRECT_DRIVER`].
const DIRECT_DRIVER_ALONE: &[&str] =
    &["crate::sys", "mio", "socket2", "rustix", "quinn_udp", "getrandom", "Instant::now"];

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
    // Nothing of the rest of the client: what both need lies here.
    (
        "src/client/core",
        &[
            "std",
            "self",
            "crate::client::core",
            "crate::limits",
            "crate::transfer::sink::Existing",
            "crate::wire",
        ],
    ),
    ("src/stream", &["std", "bytes"]),
];

/// What no source file may hold outside its tests, and what to write instead.
const NEVER_IN_SOURCES: &[(&str, &str)] = &[
    (".unwrap()", "expect(\"the invariant that holds\")"),
    ("::unwrap)", "expect(\"the invariant that holds\")"),
    (".unwrap_err()", "expect_err(\"the invariant that holds\")"),
    // Behind these the checks would not see who imports whom, or what is code.
    ("crate as ", "the path itself"),
    ("super as ", "the path itself"),
    ("self::super", "super"),
    ("self::crate", "super"),
    ("crate::*", "what is imported, by its name"),
    ("/*", "// in every line"),
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

    /// The numbered lines of code that is not for tests, without comments and string contents.
    fn code(&self) -> Vec<(usize, String)> {
        // A file of tests has no code of its own.
        if self
            .path
            .components()
            .any(|it| matches!(it.as_os_str().to_str(), Some("tests" | "tests.rs")))
        {
            return Vec::new();
        }
        let (mut within, mut skipped) = (None, None);
        let mut found = Vec::new();
        for (index, line) in self.text.lines().enumerate() {
            let code = without_words(line, &mut within);
            let indent = line.len() - line.trim_start().len();
            match skipped {
                None if code.trim() == "#[cfg(test)]" => skipped = Some(Skipped::Attributes),
                None => found.push((index + 1, code)),
                // Whatever the attribute stands before, to its end.
                Some(Skipped::Attributes) if code.starts_with("#[") => {}
                Some(Skipped::Attributes) if code.trim_end().ends_with([';', '}']) => {
                    skipped = None
                }
                Some(Skipped::Attributes) => skipped = Some(Skipped::Body(indent)),
                Some(Skipped::Body(outer)) => {
                    if indent == outer && code.starts_with('}') {
                        skipped = None;
                    }
                }
            }
        }
        found
    }

    /// The room that it lies in, and the names of the modules that lead to it.
    fn module(&self) -> Vec<String> {
        let path = self.path.strip_prefix("src").unwrap_or(&self.path).with_extension("");
        let parts = path.iter().map(|part| part.to_string_lossy().into_owned());
        parts.filter(|part| part != "mod").collect()
    }

    /// The code with `crate::` for as many `super::` as lead out of the room.
    fn resolved(&self, code: &str) -> String {
        let supers = "super::".repeat(self.module().len());
        code.replace(&supers, "crate::")
    }

    /// What it names of the crate's rooms, inline or in a `use`: each by its path.
    fn named_rooms(&self, code: &str) -> Vec<String> {
        let code = self.resolved(code);
        let is_word = |char: char| char.is_alphanumeric() || char == '_' || char == ':';
        let paths = code.match_indices("crate::").filter(|(at, _)| !code[..*at].ends_with(is_word));
        paths
            .map(|(at, _)| code[at..].split(|char| !is_word(char)).next().unwrap_or("").to_owned())
            .collect()
    }

    fn says(&self, number: usize, what: &str) -> String {
        format!("{}:{number}: {what}", self.path.display())
    }
}

/// What is passed over for now.
#[derive(Clone, Copy)]
enum Skipped {
    /// Attributes before the thing itself.
    Attributes,
    /// A body that ends with a brace at this indent.
    Body(usize),
}

/// A string literal that has begun.
#[derive(Clone, Copy)]
enum Literal {
    Plain,
    /// It ends with a quote and as many `#` as this.
    Raw(usize),
}

/// The line without its comment and without what stands in string literals: prose may speak of
/// anything. A literal may go on from line to line: `within` remembers that.
fn without_words(line: &str, within: &mut Option<Literal>) -> String {
    let mut code = String::new();
    let mut chars = line.trim_start().chars();
    while let Some(char) = chars.next() {
        let rest = chars.as_str();
        match (char, *within) {
            ('\\', Some(Literal::Plain)) => drop(chars.next()),
            ('"', None) => *within = Some(literal_behind(&code)),
            ('"', Some(Literal::Plain)) => *within = None,
            ('"', Some(Literal::Raw(hashes))) if rest.starts_with(&"#".repeat(hashes)) => {
                *within = None;
                chars = rest[hashes..].chars();
            }
            ('\'', None) if rest.starts_with('"') => drop(chars.next()),
            ('/', None) if rest.starts_with('/') => break,
            (_, Some(_)) => {}
            (char, None) => code.push(char),
        }
    }
    code
}

/// What a quote opens behind this code.
fn literal_behind(code: &str) -> Literal {
    let bare = code.trim_end_matches('#');
    let word = bare.rsplit(|char: char| !char.is_alphanumeric() && char != '_').next();
    match word {
        Some("r" | "br" | "cr") => Literal::Raw(code.len() - bare.len()),
        _ => Literal::Plain,
    }
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
        let entries = fs::read_dir(&folder);
        for entry in entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
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
                let code = source.resolved(&code);
                for banned in rule.banned.iter().filter(|it| names(&code, it, rule.except)) {
                    faults.push(source.says(number, &format!("`{banned}` in {}", rule.layer)));
                }
            }
        }
    }
    fail_on(faults);
}

#[test]
fn rooms_name_only_those_that_they_may() {
    let mut faults = Vec::new();
    for source in sources("src") {
        let module = source.module();
        let Some((room, may)) = ROOMS.iter().find(|(room, _)| module[0] == *room) else {
            // What is no room puts them together.
            let is_top = matches!(&*module[0], "lib" | "bin");
            assert!(is_top, "{}: a room that ROOMS does not have", source.path.display());
            continue;
        };
        for (number, code) in use_paths(&source).into_iter().chain(source.code()) {
            for path in source.named_rooms(&code) {
                let head = path.split("::").nth(1).unwrap_or("");
                let is_plain =
                    PLAIN_IDS.iter().any(|(of, ids)| of == room && path.starts_with(ids));
                // `use crate::{...}` is told by its parts.
                if head.is_empty() || head == *room || may.contains(&head) || is_plain {
                    continue;
                }
                faults.push(source.says(number, &format!("`{path}` named in {room}")));
            }
        }
    }
    fail_on(faults);
}

#[test]
fn every_rule_is_of_a_place_that_is_there() {
    let all = sources("src");
    let layers = RULES.iter().map(|rule| rule.layer).chain(MAY_IMPORT.iter().map(|it| it.0));
    for layer in layers {
        assert!(all.iter().any(|source| source.is_in(layer)), "{layer}: there is no such layer");
    }
    for (room, _) in ROOMS {
        assert!(all.iter().any(|source| source.module()[0] == *room), "{room}: no such room");
    }
    assert!(all.iter().any(|source| source.path == Path::new(DIRECT_DRIVER)));
    // The table of ARCHITECTURE.md says the same.
    let text = fs::read_to_string("ARCHITECTURE.md").expect("ARCHITECTURE.md is there");
    let table = text.split("## Who may import whom").nth(1).expect("its table");
    let table = table.split("\n## ").next().expect("its table");
    for (room, may) in ROOMS.iter().filter(|(room, _)| !["limits", "manual"].contains(room)) {
        let row = table.lines().find(|line| line.starts_with(&format!("| `{room}` |")));
        let row = row.unwrap_or_else(|| panic!("ARCHITECTURE.md: no row for {room}"));
        for other in may.iter().filter(|it| **it != "manual") {
            assert!(row.contains(&format!("`{other}`")), "{room} may name {other}: {row}");
        }
        let named = ROOMS.iter().filter(|(other, _)| {
            *other != *room
                && row.split('|').nth(2).is_some_and(|it| it.contains(&format!("`{other}`")))
        });
        for (other, _) in named {
            let is_plain = PLAIN_IDS.iter().any(|(of, _)| of == room) && *other == "hub";
            assert!(may.contains(other) || is_plain, "{row}: {other} is not in ROOMS");
        }
    }
}

#[test]
fn the_direct_path_meets_the_world_in_its_driver_alone() {
    let mut faults = Vec::new();
    for source in sources("src/direct").iter().filter(|it| it.path != Path::new(DIRECT_DRIVER)) {
        for (number, code) in use_paths(source).into_iter().chain(source.code()) {
            for banned in DIRECT_DRIVER_ALONE.iter().filter(|it| names(&code, it, &[])) {
                faults.push(source.says(number, &format!("`{banned}` outside of the driver")));
            }
        }
    }
    fail_on(faults);
}

#[test]
fn files_leave_the_server_by_one_road() {
    let mut users = Vec::new();
    for source in sources("src/server") {
        if source.code().iter().any(|(_, line)| line.contains(".send_file(")) {
            users.push(source.path.display().to_string());
        }
    }
    assert!(users.len() == 1 && users[0].ends_with("src/server/pieces.rs"), "{users:?}");
}

#[test]
fn sources_hold_nothing_unfinished() {
    let mut faults = Vec::new();
    for source in sources("src") {
        for (number, code) in source.code() {
            let code = source.resolved(&code);
            for (never, instead) in NEVER_IN_SOURCES.iter().filter(|it| code.contains(it.0)) {
                faults.push(source.says(number, &format!("`{never}`: write {instead}")));
            }
            if code.contains("allow(unsafe_code") && !source.is_in("src/sys") {
                faults.push(source.says(number, "`unsafe` outside of sys"));
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
    for folder in ["src", "tests", "benches", "fuzz"] {
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
    let readme = fs::read_to_string("README.md").expect("README.md is there").to_lowercase();
    let missing =
        |entry: &&sixfour::wire::verbs::Entry| !readme.contains(&format!("`{}", entry.word));
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
    let mut within = None;
    for (line, code) in [
        ("let x = \"std::fs\"; // mio", "let x = ; "),
        ("f(\"one \\", "f("),
        ("mio\").await", ").await"),
        ("f(r#\"a \" mio\"#, '\"'); x", "f(r#, '); x"),
        ("f(br\"mio\\\"); x", "f(br); x"),
        ("f(r##\"mio \"# mio", "f(r##"),
        ("mio\"##); x", "); x"),
    ] {
        assert_eq!(without_words(line, &mut within), code, "{line}");
    }
    assert!(is_function("pub fn run() {") && !is_function("fn run();"));
}

#[test]
fn the_checks_are_not_blind_behind_tests_and_see_ways_round() {
    let text = "//! x\n#[cfg(test)]\nmod tests;\nfn a() { x.unwrap() }\n#[cfg(test)]\n\
                #[allow(dead_code)]\nmod more {\n    fn b() {\n        mio();\n    }\n}\n\
                impl X {\n    #[cfg(test)]\n    fn c() -> u8 {\n        1\n    }\n    \
                fn d() {}\n}\n";
    let source = Source { path: "src/hub/deep/x.rs".into(), text: text.to_string() };
    let code: Vec<String> = source.code().into_iter().map(|it| it.1).collect();
    assert_eq!(code, ["", "fn a() { x.unwrap() }", "impl X {", "fn d() {}", "}"]);
    assert_eq!(source.module(), ["hub", "deep", "x"]);
    let rooms = |code: &str| source.named_rooms(code);
    assert_eq!(rooms("super::super::super::sys::files::open()"), ["crate::sys::files::open"]);
    assert_eq!(rooms("super::super::Hub"), [""; 0]);
    assert_eq!(rooms("f(crate::sys::a, crate::edge::b)"), ["crate::sys::a", "crate::edge::b"]);
    assert_eq!(rooms("mycrate::x"), [""; 0]);
    let tests = Source { path: "src/hub/tests/x.rs".into(), text: text.to_string() };
    assert!(tests.code().is_empty());
}
