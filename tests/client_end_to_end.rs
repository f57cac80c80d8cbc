//! The client's verbs and its piped lines, against a real server: outputs byte for byte, files,
//! and the exit codes that scripts test for.

mod process;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::IpAddr,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use process::{FAMILIES, PATIENCE, Server, await_true, noise};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A client of `server`, in a folder of its own.
struct Client {
    command: Command,
    folder: TempDir,
}

/// What a client has left behind.
struct Left {
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
    folder: TempDir,
}

impl Client {
    fn new(server: &Server, ip: IpAddr, arguments: &[&str]) -> Client {
        let folder = TempDir::new().expect("a folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
        command.args(["--ip", &ip.to_string(), "--port", &server.port.to_string()]);
        command.args(arguments).current_dir(folder.path());
        command.env("USER", "tester").env("XDG_STATE_HOME", folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Client { command, folder }
    }

    fn start(&mut self) -> Child {
        self.command.spawn().expect("the client starts")
    }

    fn run(self) -> Left {
        self.run_with(b"")
    }

    /// Runs it to its end with this as standard input.
    fn run_with(mut self, input: &[u8]) -> Left {
        self.command.stdin(Stdio::piped());
        let mut child = self.start();
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = input.to_vec();
        // A client that has enough closes the pipe.
        let writer = thread::spawn(move || drop(stdin.write_all(&input)));
        let output = wait(child);
        writer.join().expect("it wrote");
        Left {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).expect("text"),
            folder: self.folder,
        }
    }
}

impl Left {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("text")
    }

    fn assert_code(&self, code: i32) -> &Left {
        assert_eq!(self.code, Some(code), "{}{}", self.text(), self.stderr);
        self
    }

    fn file(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(name)).expect("the file")
    }

    fn file_names(&self) -> Vec<String> {
        names_in(self.folder.path())
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("one"));
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

/// Waits for the end, and kills what does not end in time.
fn wait(child: Child) -> Output {
    let pid = Pid::from_child(&child);
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let watch = thread::spawn(move || {
        if is_done.recv_timeout(PATIENCE).is_err() {
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    let output = child.wait_with_output().expect("it is our child");
    let _ = done.send(());
    watch.join().expect("nothing can fail");
    output
}

fn left(server: &Server, arguments: &[&str]) -> Left {
    Client::new(server, FAMILIES[0], arguments).run()
}

#[test]
fn verbs_answer_over_both_families() {
    let server = Server::start();
    server.put("a.txt", b"hello");
    for ip in FAMILIES {
        let client = |arguments: &[&str]| Client::new(&server, ip, arguments).run();
        let who = client(&["--user", "alice", "who"]);
        assert_eq!(who.assert_code(0).text(), "alice\n");
        let ls = client(&["ls"]);
        assert!(ls.assert_code(0).text().ends_with("a.txt\n"), "{}", ls.text());
        assert_eq!(client(&["echo", "a", "b"]).assert_code(0).text(), "a b\n");
        let run = client(&["run", "printf out; printf err >&2; exit 7"]);
        run.assert_code(7);
        assert_eq!((run.text(), &run.stderr[..]), ("out", "err"));
        let download = client(&["-q", "download", "a.txt"]);
        assert_eq!(download.assert_code(0).file("client_a.txt"), b"hello");
        assert_eq!((download.text(), &download.stderr[..]), ("", ""));
    }
}

#[test]
fn each_failure_has_its_exit_code_and_one_line() {
    let mut server = Server::start();
    let _bob = server.user(FAMILIES[1], "bob");
    server.put("file", b"x");
    for (arguments, code, part) in [
        (&["--port", "x", "who"][..], 2, "--port"),
        (&["download", "../x"], 2, "FILE"),
        (&["--user", "bob", "who"], 4, "name-taken"),
        (&["msg", "nobody", "hi"], 5, "no-such-user"),
        (&["msg", "bob,nobody", "hi"], 5, "nobody"),
        (&["download", "none"], 5, "no-such-file"),
        (&["ls", "none"], 5, "no-such-file"),
        (&["download", "file", "-o", "no/such/folder"], 1, "folder"),
        (&["run", "kill -9 $$"], 137, "signal 9"),
        (&["run", "exit 255"], 255, ""),
    ] {
        // Given twice, the port would be the mistake.
        let mut client = Client::new(&server, FAMILIES[0], &[]);
        if arguments[0] == "--port" {
            client.command = Command::new(env!("CARGO_BIN_EXE_client"));
            client.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        client.command.args(arguments);
        let left = client.run();
        left.assert_code(code);
        assert!(left.stderr.contains(part), "{arguments:?}: {}", left.stderr);
        assert!(left.stderr.lines().count() <= 1, "{arguments:?}: {}", left.stderr);
    }
    server.signal(Signal::TERM);
    server.wait();
    left(&server, &["who"]).assert_code(3);
    left(&server, &["run", "true"]).assert_code(255);
}

#[test]
fn several_words_of_run_are_a_program_and_its_arguments() {
    let server = Server::start();
    left(&server, &["run", "--", "sh", "-c", "exit 7"]).assert_code(7);
    let run = left(&server, &["run", "printf", "%s|", "a b", "$HOME", "it's", ""]);
    assert_eq!(run.assert_code(0).text(), "a b|$HOME|it's||");
    assert_eq!(left(&server, &["run", "echo a | tr a b"]).assert_code(0).text(), "b\n");
}

#[test]
fn input_and_output_of_run_pass_byte_for_byte() {
    let server = Server::start();
    let bytes = noise(1, 20_000_000);
    for ip in FAMILIES {
        let run = Client::new(&server, ip, &["run", "cat"]).run_with(&bytes);
        run.assert_code(0);
        assert!(run.stdout == bytes, "{} bytes of {}", run.stdout.len(), bytes.len());
    }
    let run = Client::new(&server, FAMILIES[0], &["run", "head -c 3"]).run_with(&bytes);
    assert_eq!(run.assert_code(0).stdout, bytes[..3]);
    let run = Client::new(&server, FAMILIES[0], &["run", "-n", "wc -c"]).run_with(&bytes);
    assert_eq!(run.assert_code(0).text().trim(), "0");
}

#[test]
fn a_time_limit_and_an_interrupt_end_the_command_and_keep_its_output() {
    let server = Server::start();
    let run = left(&server, &["run", "--timeout", "300ms", "echo kept; sleep 60"]);
    assert_eq!(run.assert_code(143).text(), "kept\n");
    for signal in [Signal::INT, Signal::TERM] {
        let mut client = Client::new(
            &server,
            FAMILIES[0],
            &[
                "run",
                "trap 'echo caught; exit 9' TERM; echo up; \
                                                        while :; do sleep 0.05; done",
            ],
        );
        let mut child = client.start();
        let mut head = [0; 3];
        child.stdout.as_mut().expect("a pipe").read_exact(&mut head).expect("it is up");
        kill_process(Pid::from_child(&child), signal).expect("it runs");
        let output = wait(child);
        assert_eq!(output.status.code(), Some(9));
        assert_eq!(output.stdout, b"caught\n");
    }
}

#[test]
fn a_second_interrupt_leaves_at_once() {
    let server = Server::start();
    let mut client = Client::new(
        &server,
        FAMILIES[0],
        &["run", "trap 'echo caught' TERM; echo up; while :; do sleep 0.05; done"],
    );
    let mut child = client.start();
    let stdout = child.stdout.take().expect("a pipe");
    let mut lines = BufReader::new(stdout).lines().map(|line| line.expect("text"));
    assert_eq!(lines.next().as_deref(), Some("up"));
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::INT).expect("it runs");
    // Two signals that are not parted by anything become one.
    assert_eq!(lines.next().as_deref(), Some("caught"));
    kill_process(pid, Signal::INT).expect("it runs");
    assert_eq!(wait(child).status.code(), Some(130));
}

#[test]
fn a_reader_that_has_enough_ends_it_quietly() {
    let server = Server::start();
    let mut client = Client::new(&server, FAMILIES[0], &["run", "yes"]);
    let mut child = client.start();
    let mut head = [0; 2];
    let mut stdout = child.stdout.take().expect("a pipe");
    stdout.read_exact(&mut head).expect("output");
    drop(stdout);
    let output = wait(child);
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(141), &b""[..]));
    await_true("the end of the command", || server.children().len() <= 1);
}

#[test]
fn a_blocked_output_stops_neither_the_command_line_nor_memory() {
    let server = Server::start();
    let mut client = Client::new(&server, FAMILIES[0], &["--user", "alice", "run", "yes"]);
    let mut child = client.start();
    let mut head = [0; 2];
    child.stdout.as_mut().expect("a pipe").read_exact(&mut head).expect("output");
    // Nobody reads on, and yet a message to it is shown and acknowledged.
    let receipt = ["--user", "bob", "msg", "--receipt", "alice", "are you there?"];
    left(&server, &receipt).assert_code(0);
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    let output = wait(child);
    assert_eq!(output.status.code(), Some(143));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("bob: are you there?"), "{stderr}");
    assert!(output.stdout.len() < 32 << 20, "{} bytes were waiting", output.stdout.len());
}

#[test]
fn downloads_arrive_whole_several_at_once() {
    let server = Server::start();
    let files = [("empty", 0), ("one", 1), ("chunk", 65_536), ("more", 65_537), ("big", 9_000_000)];
    for (seed, (name, size)) in files.into_iter().enumerate() {
        server.put(name, &noise(seed as u64, size));
    }
    let mut arguments = vec!["download"];
    arguments.extend(files.iter().map(|(name, _)| *name));
    for ip in FAMILIES {
        let download = Client::new(&server, ip, &arguments).run();
        download.assert_code(0);
        for (seed, (name, size)) in files.into_iter().enumerate() {
            assert!(download.file(&format!("client_{name}")) == noise(seed as u64, size), "{name}");
            assert!(download.stderr.contains(&format!("saved client_{name} (")));
        }
        assert_eq!(download.file_names().len(), files.len(), "{:?}", download.file_names());
    }
    let to_stdout = left(&server, &["-q", "download", "big", "-o", "-"]);
    assert!(to_stdout.assert_code(0).stdout == noise(4, 9_000_000));
    let some = left(&server, &["download", "one", "none"]);
    assert_eq!(some.assert_code(5).file_names(), ["client_one"]);
}

#[test]
fn json_is_one_object_a_line_for_every_verb() {
    let server = Server::start();
    server.put("a.txt", b"hello");
    for (arguments, events) in [
        (&["who"][..], &["user", "end"][..]),
        (&["ls"], &["entry", "end"]),
        (&["download", "a.txt"], &["file", "saved"]),
        (&["run", "printf x; exit 3"], &["stdout", "exit"]),
        (&["msg", "nobody", "hi"], &["error"]),
        (&["download", "none"], &["error"]),
    ] {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let left = left(&server, &all);
        let values = left.text().lines().map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).expect("an object");
            value["event"].as_str().expect("an event").to_owned()
        });
        assert_eq!(values.collect::<Vec<_>>(), events, "{arguments:?}");
        assert_eq!(left.stderr, "");
    }
}

#[test]
fn receipts_tell_of_the_delivery_or_time_out() {
    let server = Server::start();
    let mut bob = server.user(FAMILIES[1], "bob");
    let sent = left(&server, &["--user", "alice", "msg", "--receipt", "bob", "hello", "you"]);
    sent.assert_code(0);
    assert_eq!(sent.stderr, "delivered to bob (its connection took it)\n");
    assert_eq!(bob.next(), "alice|hello you");
    let mut silent = server.framed(FAMILIES[0], "carol");
    let arguments = ["msg", "--receipt", "--timeout", "200ms", "carol", "hello"];
    left(&server, &arguments).assert_code(6);
    silent.next();
}

#[test]
fn piped_lines_run_in_order_and_the_first_failure_is_the_code() {
    let server = Server::start();
    server.put("a.txt", b"hello");
    let mut bob = server.user(FAMILIES[1], "bob");
    let lines = b"hello there|bob\nrun sleep 0.2; echo one\n\nrun echo two\r\nrun cd /\nrun pwd\n\
                  download a.txt\necho three\nrun exit 9\nnonsense\necho four";
    let piped = Client::new(&server, FAMILIES[0], &["--user", "alice"]).run_with(lines);
    assert_eq!(piped.assert_code(9).text(), "one\ntwo\n/\n/\nthree\nfour\n");
    assert_eq!(piped.file("client_a.txt"), b"hello");
    assert!(piped.stderr.contains("unknown-command"), "{}", piped.stderr);
    assert_eq!(bob.next(), "alice|hello there");
    let quits = Client::new(&server, FAMILIES[0], &["--user", "alice"]);
    assert_eq!(quits.run_with(b"echo a\nquit\necho b\n").assert_code(0).text(), "a\n");
}

#[test]
fn a_full_disk_behind_standard_output_is_a_failure() {
    let server = Server::start();
    for (arguments, code) in [(&["who"][..], 1), (&["run", "echo x"], 255)] {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("a device");
        let mut client = Client::new(&server, FAMILIES[0], arguments);
        client.command.stdout(full);
        let output = wait(client.start());
        assert_eq!(output.status.code(), Some(code));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn a_download_ends_when_nobody_reads_its_output() {
    let server = Server::start();
    server.put("big", &noise(1, 30_000_000));
    for ip in FAMILIES {
        for limit in [&["--limit", "20M"][..], &[]] {
            let arguments = [&["download", "-o", "-", "big"][..], limit].concat();
            let mut client = Client::new(&server, ip, &arguments);
            let mut child = client.start();
            let mut stdout = child.stdout.take().expect("a pipe");
            stdout.read_exact(&mut [0; 1000]).expect("a beginning");
            drop(stdout);
            let output = wait(child);
            assert_eq!(output.status.code(), Some(141));
            assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        }
    }
}

#[test]
fn a_download_to_a_full_disk_ends_with_a_reason() {
    let server = Server::start();
    server.put("big", &noise(1, 30_000_000));
    for ip in FAMILIES {
        let mut client = Client::new(&server, ip, &["download", "-o", "-", "big"]);
        let full = std::fs::File::options().write(true).open("/dev/full").expect("it is there");
        client.command.stdout(full);
        let output = wait(client.start());
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.starts_with("error no-space: ") && stderr.lines().count() == 1, "{stderr}");
    }
}

#[test]
fn a_folder_does_not_go_to_standard_output_not_even_in_part() {
    let server = Server::start();
    std::fs::create_dir(server.path("docs")).expect("a folder");
    server.put("docs/a", b"Hello, world\n");
    let left = left(&server, &["download", "-o", "-", "docs"]);
    assert_eq!((left.code, &left.stdout[..]), (Some(5), &b""[..]));
    assert!(left.stderr.contains("a folder does not go to standard output"), "{}", left.stderr);
}

#[test]
fn a_text_comes_from_standard_input_with_its_lines() {
    let server = Server::start();
    let mut bob = server.user(FAMILIES[0], "bob");
    let left = Client::new(&server, FAMILIES[1], &["--user", "al", "msg", "bob", "-"])
        .run_with(b"Mon 1\nTue 2\n");
    assert_eq!((left.code, &left.stderr[..]), (Some(0), ""));
    assert_eq!(bob.next(), "al|Mon 1\\nTue 2");
}

/// What a client says to a port at which this answers, and its exit code.
fn told_by(greeting: &'static [u8], arguments: &[&str]) -> Output {
    let listener = std::net::TcpListener::bind("[::1]:0").expect("a port");
    let port = listener.local_addr().expect("it").port().to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the client comes");
        let _ = stream.write_all(greeting);
        // Until the client has gone.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
    let state = TempDir::new().expect("a folder");
    command.args(["--ip", "::1", "--port", &port]).args(arguments).args(["who"]);
    command.env("XDG_STATE_HOME", state.path()).stdin(Stdio::null());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let output = wait(child);
    server.join().expect("it has ended");
    output
}

#[test]
fn a_port_that_says_nothing_or_something_else_is_left_in_the_given_time() {
    let begun = std::time::Instant::now();
    let output = told_by(b"", &["--connect-timeout", "300ms"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("no welcome within 0.3 s; is it a sixfour server?"), "{stderr}");
    assert!(begun.elapsed() < Duration::from_secs(8), "not the usual 10 s");
    let output = told_by(b"SSH-2.0-OpenSSH_9.2\r\n", &[]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("is no sixfour server: it says \"SSH-2.0-OpenSSH_9.2\""), "{stderr}");
}

#[test]
fn a_client_that_can_have_no_thread_says_so() {
    let server = Server::start();
    let device = ["device", "--user", "watch", "run", "--every", "1s", "--", "echo", "1"];
    for arguments in [&["who"][..], &["run", "cat"], &["download", "x"], &[], &device] {
        let mut client = Client::new(&server, FAMILIES[0], arguments);
        // No stack of this size fits into memory that can be addressed.
        client.command.env("RUST_MIN_STACK", (1u64 << 47).to_string());
        let output = wait(client.start());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(1 | 255)), "{arguments:?}: {stderr}");
        assert!(stderr.contains("no thread can be had"), "{arguments:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{arguments:?}: {stderr}");
    }
}

#[test]
fn output_that_has_nowhere_to_go_is_an_error() {
    let server = Server::start();
    for ip in FAMILIES {
        for (command, code) in [("echo lost", 255), ("exit 7", 7), ("true", 0)] {
            let inner = Client::new(&server, ip, &["run", command]);
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", "exec \"$0\" \"$@\" >&-"]).arg(inner.command.get_program());
            shell.args(inner.command.get_args()).current_dir(inner.folder.path());
            shell.env("XDG_STATE_HOME", inner.folder.path()).stdin(Stdio::null());
            let output = shell.output().expect("the shell starts");
            assert_eq!(output.status.code(), Some(code), "{command}: {output:?}");
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(text.contains("cannot write to standard output"), code == 255, "{text}");
        }
    }
}
