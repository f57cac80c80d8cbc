//! What the documents promise: every example of README.md is tried on real programs, every option
//! in it exists, and no link leads nowhere.
//!
//! Blocks marked `console test` are shell sessions: `$ ` before a command, then all that it prints.
//! Blocks marked `python test` are programs, whose last line says in a comment what it prints.
//! A block marked `text session` is one connection in lines: `> ` before what is sent. Blocks
//! marked `sh` are not run, but name only programs and options that are there.

mod process;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use process::{FAMILIES, Server, await_true, run_server};
use sixfour::wire::verbs::{VERBS, Verb};
use tempfile::TempDir;

/// All documents with links.
const DOCUMENTS: [&str; 11] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "PROTOCOL.md",
    "SECURITY.md",
    "benches/README.md",
    "docs/security.md",
    "docs/edge.md",
    "docs/files.md",
    "fuzz/README.md",
];

fn document(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The fenced blocks of README.md with this mark behind the fence.
fn blocks(mark: &str) -> Vec<String> {
    let text = document("README.md");
    let fences = text.split("\n```").skip(1).step_by(2);
    let marked = fences.filter_map(|block| block.strip_prefix(mark)?.strip_prefix('\n'));
    let blocks: Vec<String> = marked.map(str::to_owned).collect();
    assert!(!blocks.is_empty(), "README.md has no block marked {mark}");
    blocks
}

/// The shared folder of the examples.
fn server() -> Server {
    let server = Server::start();
    fs::create_dir(server.path("docs")).expect("a folder of the test");
    server.put("docs/plan.txt", b"Hello, world\n");
    server
}

/// Dates, times, ports and the ends of passing names differ each time: they are told from one
/// another by their form alone.
fn timeless(line: &str) -> String {
    let digits = |text: &str| text.replace(|char: char| char.is_ascii_digit(), "0");
    let same = |word: &str| match digits(word) {
        shape if shape == "0000-00-00" || shape == "00:00" => shape,
        shape if shape == "0000-00-00T00:00:00Z" => shape,
        // Any free port.
        shape if shape == "[::0]:00000" => shape,
        _ => match word.rsplit_once('-') {
            Some((name, end)) if end.len() == 6 && end.bytes().all(|b| b.is_ascii_hexdigit()) => {
                format!("{name}-(random)")
            }
            _ => word.to_owned(),
        },
    };
    // How fast it went is said where it took a while, as on a machine that is busy.
    let is_rate = |part: &&str| {
        let is_number = |text: &str| text.parse::<f64>().is_ok();
        part.strip_suffix("B/s").and_then(|it| it.split_once(' ')).is_some_and(|it| is_number(it.0))
    };
    let line = line.split(", ").filter(|part| !is_rate(part)).collect::<Vec<_>>().join(", ");
    line.split(' ').map(same).collect::<Vec<_>>().join(" ")
}

/// The real client, asked for by the name that people type and without the port of the test.
fn shims(server: &Server) -> TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = TempDir::new().expect("a folder for the test");
    let client = env!("CARGO_BIN_EXE_client");
    let script = format!("#!/bin/sh\nexec '{client}' --port {} \"$@\"\n", server.port);
    let path = folder.path().join("client");
    fs::write(&path, script).expect("a script of the test");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("an executable script");
    folder
}

/// Runs a command as a user would, and gives back what it prints on both outputs.
fn shell(command: &str, folder: &Path, shims: &Path) -> String {
    let output = folder.join(".output");
    let file = fs::File::create(&output).expect("a file of the test");
    let path = format!("{}:{}", shims.display(), std::env::var("PATH").unwrap_or_default());
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .current_dir(folder)
        .env("PATH", path)
        .env("USER", "alice")
        .env("XDG_STATE_HOME", folder)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("a second descriptor"))
        .stderr(file)
        .spawn()
        .expect("a shell");
    await_true(command, || child.try_wait().expect("it is our child").is_some());
    fs::read_to_string(output).expect("text")
}

fn has_nc() -> bool {
    let nc = Command::new("nc").arg("-h").stdin(Stdio::null()).output();
    // The one of OpenBSD alone knows -N.
    nc.is_ok_and(|it| String::from_utf8_lossy(&[it.stdout, it.stderr].concat()).contains("N"))
}

/// bob of the examples: a client that reads, and takes what it is offered, until it is dropped.
struct Bob {
    client: Child,
    _folder: TempDir,
}

impl Bob {
    fn join(server: &Server) -> Bob {
        let folder = TempDir::new().expect("a folder for the test");
        let mut child = Command::new(env!("CARGO_BIN_EXE_client"))
            .args(["--user", "bob", "--verbose", "--accept", "all"])
            .args(["--port", &server.port.to_string()])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the client starts");
        let mut welcome = String::new();
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe"));
        lines.read_line(&mut welcome).expect("text");
        assert!(welcome.starts_with("welcome, bob"), "{welcome:?}");
        // Read on, or its output would be closed.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Bob { client: child, _folder: folder }
    }
}

impl Drop for Bob {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

#[test]
fn the_shell_sessions_of_the_readme_print_what_it_says() {
    let server = server();
    let _bob = Bob::join(&server);
    let shims = shims(&server);
    let port = server.port.to_string();
    for block in blocks("console test") {
        let folder = TempDir::new().expect("a folder for the test");
        for example in format!("\n{block}").split("\n$ ").skip(1) {
            let (command, wanted) = example.split_once('\n').unwrap_or((example, ""));
            if command.contains("nc ") && !has_nc() {
                eprintln!("not tried, as this host has no nc with -N: {command}");
                continue;
            }
            let printed = shell(&command.replace("5000", &port), folder.path(), shims.path());
            let timeless = |text: &str| text.lines().map(timeless).collect::<Vec<_>>();
            assert_eq!(timeless(&printed), timeless(wanted), "of `{command}`");
        }
    }
}

#[test]
fn the_session_in_lines_goes_as_the_readme_says() {
    for ip in FAMILIES {
        let server = server();
        let _bob = Bob::join(&server);
        let root = server.root().canonicalize().expect("it is there");
        for block in blocks("text session") {
            let mut session = server.line(ip);
            for line in block.replace("/srv/share", &root.to_string_lossy()).lines() {
                match line.strip_prefix("> ") {
                    Some(request) => session.send(request),
                    None => assert_eq!(timeless(&session.next()), timeless(line)),
                }
            }
            assert_eq!(session.rest_text(), "", "nothing more comes");
        }
    }
}

#[test]
fn the_programs_of_the_readme_print_what_it_says() {
    let server = server();
    for block in blocks("python test") {
        for ip in FAMILIES {
            let program = block.replace("5000", &server.port.to_string());
            let program = program.replace("::1", &ip.to_string());
            let Ok(output) = Command::new("python3").args(["-c", &program]).output() else {
                return eprintln!("not tried, as this host has no python3");
            };
            let (_, wanted) = block.trim_end().rsplit_once("  # ").expect("a comment");
            let printed = String::from_utf8_lossy(&output.stdout);
            assert_eq!(printed.trim_end(), wanted, "{output:?}");
        }
    }
}

fn help(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).arg("--help").output().expect("it starts");
    assert!(output.status.success() && output.stderr.is_empty(), "{program} {arguments:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn every_verb_has_its_help_and_its_place_in_the_readme() {
    let (client, readme) = (env!("CARGO_BIN_EXE_client"), document("README.md").to_lowercase());
    let all = help(client, &[]);
    // Who one is, what there is and how to leave need no verb where there are arguments; and what
    // a shell does better has none.
    let without = |verb: &Verb| {
        use Verb::{
            Accept, Clear, Disconnect, Dos, Help, Linux, PowerShell, Python, Quit, Refuse, User,
        };
        use Verb::{EdgeCompute, EdgeDelete, EdgeJoin, EdgeLeave, EdgeList, EdgeUpload};
        let commands = matches!(verb, Python | Linux | Dos | PowerShell | Clear);
        let commands = commands || matches!(verb, Accept | Refuse);
        // `client device` has them together.
        let of_devices =
            matches!(verb, EdgeJoin | EdgeUpload | EdgeCompute | EdgeDelete | EdgeList | EdgeLeave);
        commands || of_devices || matches!(verb, User | Help | Quit | Disconnect)
    };
    for entry in VERBS {
        assert!(readme.contains(&format!("`{}", entry.word)), "{} in README.md", entry.word);
        if !without(&entry.verb) {
            let listed = all.lines().any(|line| line.trim_start().starts_with(entry.word));
            assert!(listed, "`client --help` does not list {}", entry.word);
            assert!(help(client, &[entry.word]).contains(&format!("client {}", entry.word)));
        }
    }
}

#[test]
fn the_commands_of_the_readme_name_only_what_there_is() {
    let server = help(env!("CARGO_BIN_EXE_server"), &[]);
    let client = help(env!("CARGO_BIN_EXE_client"), &[]);
    let manifest = document("Cargo.toml");
    for line in blocks("sh").iter().flat_map(|block| block.lines()) {
        let words: Vec<&str> = line.split(' ').collect();
        let options = || words.iter().filter(|word| word.starts_with("--"));
        match words[..] {
            ["server", verb @ ("passwd" | "fingerprint"), ..] => {
                let of_verb = help(env!("CARGO_BIN_EXE_server"), &[verb]);
                assert!(options().all(|it| of_verb.contains(it)), "{line}");
            }
            ["server", ..] => assert!(options().all(|it| server.contains(it)), "{line}"),
            ["client", ..] => assert!(options().all(|it| client.contains(it)), "{line}"),
            ["cargo", "run", "--release", "--", verb] => {
                assert!(client.contains(&format!("\n  {verb} ")), "{line}");
            }
            ["cargo", "bench", "--bench", name] => {
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{line}");
            }
            ["cargo", "test"] | ["cargo", "install", "--path", "."] => {}
            ["ncat", "--ssl", "host.example", "5000"] => {}
            _ => panic!("README.md, not known here: {line}"),
        }
    }
}

#[test]
fn a_busy_port_is_told_in_the_words_of_the_troubleshooting() {
    let server = Server::start();
    let port = server.port.to_string();
    let (code, _, err) = run_server(&["--port", &port]);
    let told = "port 5000 is busy on IPv6 ([::]:5000)";
    assert!(document("README.md").contains(told));
    assert!(err.contains(&told.replace("5000", &port)), "{err}");
    assert_eq!(code, Some(1));
}

/// The anchor that a heading has, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = |char: &char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_');
    heading.trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

#[test]
fn no_link_of_the_documents_leads_nowhere() {
    for path in DOCUMENTS {
        let text = document(path);
        let folder = Path::new(path).parent().expect("a file has a folder");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (file, section) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.into() } else { folder.join(file) };
            assert!(target.exists(), "{path}: {link}");
            if !section.is_empty() {
                let text = fs::read_to_string(&target).expect("a text");
                let headings = text.lines().filter(|line| line.starts_with('#'));
                let mut anchors = headings.map(|line| anchor(line.trim_start_matches('#')));
                assert!(anchors.any(|it| it == section), "{path}: no section {link}");
            }
        }
    }
}
