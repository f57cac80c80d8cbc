//! How people log in: asked at a terminal, from a file, from the environment; and exit codes.

mod process;

use std::{
    io::Write as _,
    net::IpAddr,
    process::{Command, Output, Stdio},
};

use expectrl::{Expect as _, Session, process::unix::WaitStatus, session::OsSession};
use process::{
    FAMILIES, await_true,
    identity::{Guarded, hashed},
};
use tempfile::TempDir;

const WRONG: &str = "Invalid Password. Please try again";

fn site() -> Guarded {
    Guarded::start(&format!("alice {} message,run\nbob b\n", hashed("secret")), &[])
}

fn command(site: &Guarded, ip: IpAddr, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
    command.args(["--ip", &ip.to_string(), "--port", &site.server.port.to_string()]);
    command.args(arguments).current_dir(site.folder.path());
    command.env("XDG_STATE_HOME", site.folder.path()).env("USER", "alice");
    command.env("TERM", "xterm").env_remove("SIXFOUR_PASSWORD");
    command
}

/// Runs a client without a terminal: with setsid(1), it has none to ask at either.
fn left(site: &Guarded, arguments: &[&str], password: Option<&str>) -> (Option<i32>, String) {
    let inner = command(site, FAMILIES[0], arguments);
    let mut outer = Command::new("setsid");
    outer.arg("--wait").arg(inner.get_program()).args(inner.get_args());
    outer.current_dir(site.folder.path()).env("USER", "alice").env_remove("SIXFOUR_PASSWORD");
    outer.stdin(Stdio::null());
    if let Some(password) = password {
        outer.env("SIXFOUR_PASSWORD", password);
    }
    let Output { status, stdout, stderr } = outer.output().expect("setsid (util-linux) is here");
    (status.code(), String::from_utf8([stdout, stderr].concat()).expect("text"))
}

/// The same at a pseudo-terminal.
fn at_terminal(command: Command) -> OsSession {
    let mut session = Session::spawn(command).expect("it starts");
    session.set_expect_timeout(Some(process::PATIENCE));
    session
}

fn code_of(session: &mut OsSession) -> i32 {
    let mut code = None;
    await_true("its end", || match session.get_process().status().expect("our child") {
        WaitStatus::StillAlive => false,
        WaitStatus::Exited(_, exited) => {
            code = Some(exited);
            true
        }
        other => panic!("{other:?}"),
    });
    code.expect("it was awaited")
}

#[test]
fn passwords_come_from_a_file_or_the_environment_and_refusals_are_exit_code_4() {
    let site = site();
    let file = |name: &str, text: &str| {
        std::fs::write(site.folder.path().join(name), text).expect("a file");
    };
    file("right", "secret\n");
    file("wrong", "guess\n");
    file("empty", "\n");
    for (arguments, password, code, part) in [
        (&["who"][..], Some("secret"), 0, "alice\n"),
        (&["--password-file", "right", "who"], None, 0, "alice\n"),
        (&["--password-file", "right", "who"], Some("guess"), 0, "alice\n"),
        (&["run", "exit 7"], Some("secret"), 7, ""),
        (&["who"], None, 4, "--password-file FILE or in SIXFOUR_PASSWORD"),
        (&["who"], Some("guess"), 4, WRONG),
        (&["ls"], Some("secret"), 4, "files is not enabled for you"),
        (&["run", "true"], Some("guess"), 255, WRONG),
        (&["who"], Some("guess"), 4, WRONG),
        (&["run", "true"], Some("guess"), 255, "Your account has been blocked"),
        (&["who"], Some("secret"), 4, "blocked due to multiple authentication failures"),
        (&["--user", "bob", "run", "true"], Some("b"), 255, "run is not enabled for you"),
        (&["--user", "eve", "--password-file", "wrong", "who"], None, 4, WRONG),
        (&["--password-file", "empty", "who"], None, 2, "--password-file"),
        (&["--password-file", "none", "who"], None, 2, "--password-file"),
    ] {
        let (left_with, said) = left(&site, arguments, password);
        assert_eq!(left_with, Some(code), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}

#[test]
fn a_password_is_asked_for_at_the_terminal_and_asked_again_when_it_was_wrong() {
    let site = site();
    for ip in FAMILIES {
        let mut session = at_terminal(command(&site, ip, &["run", "echo r''an"]));
        session.expect("Password for alice: ").expect("it asks");
        session.send_line("guess").expect("it reads");
        let before = session.expect("Password for alice: ").expect("it asks again");
        let shown = String::from_utf8_lossy(before.before()).into_owned();
        assert!(shown.contains(WRONG) && !shown.contains("guess"), "{shown}");
        session.send_line("secret").expect("it reads");
        let ran = session.expect("ran").expect("it runs");
        let shown = String::from_utf8_lossy(ran.before()).into_owned();
        assert!(!shown.contains("secret"), "{shown}");
        assert_eq!(code_of(&mut session), 0);
    }
}

#[test]
fn the_prompt_comes_after_the_password_and_a_second_one_takes_over() {
    let site = site();
    let mut session = at_terminal(command(&site, FAMILIES[0], &[]));
    session.expect("Password for alice: ").expect("it asks");
    session.send_line("secret").expect("it reads");
    session.expect("alice> ").expect("a prompt");
    session.send_line("who").expect("it reads");
    session.expect("alice").expect("an answer");
    let _other = site.user(FAMILIES[1], "alice", "secret");
    session.expect("replaced by a login from 127.0.0.1").expect("it is told");
    assert_eq!(code_of(&mut session), 4);
}

#[test]
fn standard_input_stays_the_commands_while_the_terminal_is_asked() {
    let site = site();
    std::fs::write(site.folder.path().join("input"), "two\none\n").expect("a file");
    let inner = command(&site, FAMILIES[0], &["run", "sort"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" \"$@\" < input"]);
    shell.arg(inner.get_program()).args(inner.get_args()).current_dir(site.folder.path());
    shell.env("USER", "alice").env_remove("SIXFOUR_PASSWORD");
    let mut session = at_terminal(shell);
    session.expect("Password for alice: ").expect("it asks");
    session.send_line("secret").expect("it reads");
    session.expect("one").expect("it is sorted");
    session.expect("two").expect("it is sorted");
    assert_eq!(code_of(&mut session), 0);
}

#[test]
fn ctrl_c_and_ctrl_d_at_the_question_leave_a_terminal_that_shows_what_is_typed() {
    let site = site();
    for (key, code) in [("\u{3}", 130), ("\u{4}", 4)] {
        let inner = command(&site, FAMILIES[0], &["who"]);
        let mut shell = Command::new("sh");
        shell.args(["-c", "stty sane; \"$0\" \"$@\"; echo \"left with $?\"; stty -a; echo done"]);
        shell.arg(inner.get_program()).args(inner.get_args()).current_dir(site.folder.path());
        shell.env("USER", "alice").env_remove("SIXFOUR_PASSWORD");
        let mut session = at_terminal(shell);
        session.expect("Password for alice: ").expect("it asks");
        session.send(key).expect("it reads");
        session.expect(format!("left with {code}")).expect("it leaves");
        let modes = session.expect("done").expect("the modes of the terminal");
        let modes = String::from_utf8_lossy(modes.before()).into_owned();
        for mode in ["echo", "icanon", "isig"] {
            assert!(modes.split_whitespace().any(|it| it == mode), "{mode} in {modes}");
        }
    }
}

#[test]
fn passwd_asks_twice_and_takes_only_what_was_typed_twice() {
    let folder = TempDir::new().expect("a folder");
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
        command.args(["passwd", "alice"]).current_dir(folder.path());
        at_terminal(command)
    };
    let path = folder.path().join("credentials.txt");
    for (first, second, code) in [("one", "other", 1), ("secret", "secret", 0)] {
        let mut session = start();
        session.expect("New password for alice: ").expect("it asks");
        session.send_line(first).expect("it reads");
        let again = session.expect("The same again: ").expect("it asks again");
        assert!(!String::from_utf8_lossy(again.before()).contains(first));
        session.send_line(second).expect("it reads");
        session.expect(if code == 0 { "added alice" } else { "differ" }).expect("it says so");
        assert_eq!(code_of(&mut session), code);
        assert_eq!(path.exists(), code == 0);
    }
    let mut session = start();
    session.expect("New password for alice: ").expect("it asks");
    session.send("\u{3}").expect("it reads");
    assert_eq!(code_of(&mut session), 130);
}

#[test]
fn a_line_that_looks_like_a_login_is_not_kept_in_the_history() {
    let site = site();
    let mut session = at_terminal(command(&site, FAMILIES[0], &["--user", "bob"]));
    session.expect("Password for bob: ").expect("it asks");
    session.send_line("b").expect("it reads");
    session.expect("bob> ").expect("a prompt");
    session.send_line("user bob S3cr3t").expect("it reads");
    session.expect("already-named").expect("it refuses");
    session.send_line("echo kept").expect("it reads");
    session.send_line("quit").expect("it reads");
    assert_eq!(code_of(&mut session), 0);
    let history = site.folder.path().join("sixfour").join("history");
    let history = std::fs::read_to_string(history).expect("a history");
    assert!(history.contains("echo kept") && !history.contains("S3cr3t"), "{history}");
}

#[test]
fn lines_from_a_pipe_come_after_the_login() {
    let site = site();
    let mut child = command(&site, FAMILIES[1], &["--user", "bob"])
        .env("SIXFOUR_PASSWORD", "b")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the client starts");
    child.stdin.take().expect("a pipe").write_all(b"who\necho x\n").expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8(output.stdout).expect("text"), "bob\nx\n");
    assert_eq!(output.status.code(), Some(0));
}
