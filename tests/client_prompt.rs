//! The client at a terminal: a pseudo-terminal with the screen that it paints.

mod process;
mod terminal;

use std::os::unix::fs::PermissionsExt as _;

use process::{FAMILIES, Server, await_true};
use rustix::process::{Signal, kill_process, kill_process_group};
use terminal::Terminal;

#[test]
fn a_message_appears_above_the_line_being_typed() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut alice = Terminal::start(&server, ip, "alice");
        let mut bob = server.user(ip, "bob");
        alice.write("half a li");
        alice.await_last("alice> half a li");
        bob.send("hi \u{fc} there|alice");
        bob.send("and \u{1b}[2J again|alice");
        alice.await_line("bob: and \\x1b[2J again");
        alice.await_last("alice> half a li");
        let lines = alice.lines();
        let at = |line: &str| lines.iter().position(|it| it == line).expect(line);
        assert!(at("bob: hi \u{fc} there") < at("bob: and \\x1b[2J again"));
        alice.write("ne|bob\r");
        assert_eq!(bob.next(), "alice|half a line");
        alice.await_last("alice>");
        assert!(!alice.is_cooked());
        alice.write("quit\r");
        assert_eq!(alice.code(), 0);
        assert!(alice.is_cooked());
    }
}

#[test]
fn orders_run_beside_the_prompt_and_an_interrupt_ends_the_newest_command() {
    let server = Server::start();
    server.put("a.txt", &[b'x'; 1234]);
    let mut alice = Terminal::start(&server, FAMILIES[0], "alice");
    alice.write("run echo one; echo two >&2; exit 3\r");
    // Which of the two outputs comes first is open; the end comes last, and then the prompt.
    alice.await_screen("both outputs, the end, the prompt", |lines| {
        let ends = |tail: [&str; 4]| lines.ends_with(&tail.map(str::to_owned));
        ends(["one", "two", "[exit 3]", "alice>"]) || ends(["two", "one", "[exit 3]", "alice>"])
    });
    alice.write("run sleep 60\r");
    alice.write("download a.txt\r");
    alice.await_line("saved client_a.txt (1.23 kB, verified)");
    assert_eq!(std::fs::read(alice.folder.path().join("client_a.txt")).expect("it").len(), 1234);
    alice.write("\u{3}");
    alice.await_line("[signal 15: cancelled]");
    alice.write("nonsense\r");
    alice.await_screen("an error", |lines| {
        lines.iter().any(|line| line.starts_with("error unknown-command: "))
    });
    // Between two prompts the key would be the terminal's, not ours.
    alice.await_last("alice>");
    alice.write("\u{4}");
    assert_eq!(alice.code(), 0);
}

#[test]
fn verbs_and_names_complete_and_history_is_kept_for_its_owner_alone() {
    let server = Server::start();
    let _bob = server.user(FAMILIES[1], "bob");
    let mut alice = Terminal::start(&server, FAMILIES[0], "alice");
    alice.write("wh\t");
    alice.await_last("alice> who");
    alice.write("\r");
    alice.await_line("[2 users]");
    alice.write("hello|b\t");
    alice.await_last("alice> hello|bob");
    alice.write("\u{15}\u{1b}[A");
    alice.await_last("alice> who");
    let history = alice.folder.path().join("sixfour/history");
    let mode = std::fs::metadata(&history).expect("a history").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(std::fs::read_to_string(&history).expect("text").contains("who"));
    alice.write("\u{15}quit\r");
    assert_eq!(alice.code(), 0);
}

#[test]
fn a_lost_server_is_said_and_found_again() {
    let mut server = Server::start();
    let mut alice = Terminal::start(&server, FAMILIES[0], "alice");
    let port = server.port;
    server.signal(Signal::KILL);
    server.wait();
    alice.await_screen("the loss", |lines| {
        lines.iter().any(|line| line.starts_with("connection lost: "))
    });
    alice.write("who\r");
    alice.await_screen("the error", |lines| {
        lines.iter().any(|line| line.starts_with("error not-connected: "))
    });
    alice.write("half");
    alice.await_last("alice> half");
    let _again = Server::start_on(port, &[]);
    alice.await_line("connected again");
    alice.await_last("alice> half");
    alice.write("\u{15}who\r");
    alice.await_line("[1 user]");
}

#[test]
fn every_way_out_restores_the_terminal() {
    for signal in [Signal::TERM, Signal::HUP] {
        let server = Server::start();
        let mut alice = Terminal::start(&server, FAMILIES[0], "alice");
        assert!(!alice.is_cooked());
        kill_process(alice.pid(), signal).expect("it runs");
        assert_eq!(alice.code(), 128 + signal.as_raw());
        assert!(alice.is_cooked());
    }
}

#[test]
fn an_offer_is_answered_at_the_prompt_and_what_is_typed_stays() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut bob = Terminal::start(&server, ip, "bob");
        let mut alice = Terminal::start(&server, ip, "alice");
        std::fs::write(alice.folder.path().join("my plan.txt"), "Hello, world\n").expect("a file");
        bob.write("half a li");
        bob.await_last("bob> half a li");
        alice.write("send 'my plan.txt' bob\r");
        alice.await_line("offering my plan.txt (13 B) to bob");
        bob.await_line("alice offers my plan.txt (13 B): `accept 1` or `refuse 1`");
        bob.await_last("bob> half a li");
        bob.write("\u{15}refuse 1 not now\r");
        alice.await_line("error refused: bob does not want my plan.txt: not now");
        alice.write("send my\\ plan.txt bob\r");
        bob.await_line("alice offers my plan.txt (13 B): `accept 2` or `refuse 2`");
        // The only one needs no number.
        bob.write("accept\r");
        bob.await_line("saved alice_my plan.txt from alice (13 B, direct, verified)");
        alice.await_start("bob takes it, direct ");
        alice.await_line("sent my plan.txt to bob (13 B, direct, verified)");
        let saved = std::fs::read(bob.folder.path().join("alice_my plan.txt")).expect("it");
        assert_eq!(saved, b"Hello, world\n");
        // What is offered may be taken back.
        alice.write("send 'my plan.txt' bob\r");
        bob.await_start(
            "alice offers my plan.txt (13 B): `accept 3` or `refuse 3` (alice_my plan.txt is here",
        );
        alice.await_last("alice>");
        alice.write("\u{3}");
        bob.await_line("offer 3 is off: alice has cancelled it");
        bob.write("accept 3\r");
        bob.await_line("error no-such-offer: nothing is offered under the number 3");
        for terminal in [&mut alice, &mut bob] {
            terminal.write("\u{15}quit\r");
            assert_eq!(terminal.code(), 0);
        }
    }
}

#[test]
fn each_pasted_line_is_an_order() {
    let server = Server::start();
    let mut bob = server.user(FAMILIES[0], "bob");
    let mut alice = Terminal::start(&server, FAMILIES[0], "alice");
    alice.write("\u{1b}[200~one|bob\r\ntwo|bob\rrun echo four\u{1b}[201~");
    alice.await_screen("all that was pasted", |lines| {
        lines.iter().any(|line| line.contains("run echo four"))
    });
    alice.write("\r");
    assert_eq!((bob.next(), bob.next()), ("alice|one".to_owned(), "alice|two".to_owned()));
    alice.await_line("four");
    alice.await_last("alice>");
    let history = alice.folder.path().join("sixfour/history");
    let history = std::fs::read_to_string(history).expect("a history");
    assert_eq!(history.lines().filter(|line| line.ends_with("|bob")).count(), 2, "{history}");
}

#[test]
fn an_interrupt_first_takes_what_is_typed_and_then_what_runs() {
    let server = Server::start();
    let mut alice = Terminal::start(&server, FAMILIES[0], "alice");
    alice.write("run echo begun; sleep 60\r");
    alice.await_line("begun");
    alice.write("half a li");
    alice.await_last("alice> half a li");
    alice.write("\u{3}");
    alice.await_last("alice>");
    alice.write("who\r");
    alice.await_line("[1 user]");
    alice.await_last("alice>");
    assert!(!alice.lines().iter().any(|line| line.starts_with("[signal")), "it runs on");
    alice.write("\u{3}");
    alice.await_line("[signal 15: cancelled]");
}

#[test]
fn a_question_without_an_end_of_line_is_shown_above_the_prompt() {
    let server = Server::start();
    let mut alice = Terminal::start(&server, FAMILIES[0], "alice");
    alice.write("run printf 'Your name: '; sleep 60\r");
    alice.await_line("Your name:");
    alice.await_last("alice>");
}

#[test]
fn what_a_command_prints_to_a_terminal_moves_and_colours_and_does_no_more() {
    let server = Server::start();
    let printing = "printf '\\033[31mred\\033[0m \\033]0;title\\007end\\n'";
    let mut client = Terminal::start_with(&server, FAMILIES[0], &["run", printing]);
    client.await_end(0);
    let line = client.lines().remove(0);
    assert_eq!(line, "red \\x1b]0;titleend");
    let mut client = Terminal::start_with(&server, FAMILIES[0], &["run", "--raw", printing]);
    client.await_end(0);
    assert_eq!(client.lines(), ["red end"]);
}

#[test]
fn an_interrupted_download_leaves_no_bar_behind() {
    let server = Server::start();
    server.put("big", &[7; 3_000_000]);
    let arguments = ["download", "--limit", "300k", "big"];
    let mut client = Terminal::start_with(&server, FAMILIES[0], &arguments);
    // Of what has only been announced nothing could be kept.
    client.await_screen("a bar that has moved", |lines| {
        lines.iter().any(|line| line.starts_with("client_big") && !line.contains(" 0 %"))
    });
    client.write("\u{3}");
    client.await_end(130);
    let lines = client.lines();
    let kept = lines.iter().any(|line| line.starts_with("broken off; what is there is kept"));
    assert!(kept, "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("client_big")), "{lines:?}");
}

#[test]
fn a_prompt_that_was_stopped_goes_on_with_its_line_in_front() {
    let server = Server::start();
    let mut bob = server.user(FAMILIES[0], "bob");
    let client = env!("CARGO_BIN_EXE_client");
    let client = format!("{client} --port {} --user alice", server.port);
    // As bash does it, the shell has its own modes back while it is in front.
    let back = "stty icanon echo isig icrnl; echo; echo back";
    let script = format!("{client}; {back}; fg; {back} again; fg; exit $?");
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-m", "-c", &script]);
    let mut terminal = Terminal::start_command(command);
    terminal.await_last("alice>");
    terminal.write("half");
    terminal.await_last("alice> half");
    terminal.write("\u{1a}");
    terminal.await_line("back");
    terminal.await_last("alice> half");
    await_true("line editing", || !terminal.is_cooked());
    terminal.write(" a line");
    terminal.await_last("alice> half a line");
    // Nobody asks line editing before this one.
    kill_process_group(terminal.foreground(), Signal::STOP).expect("it runs");
    terminal.await_line("back again");
    terminal.await_last("alice> half a line");
    await_true("line editing", || !terminal.is_cooked());
    terminal.write("|bob\r");
    assert_eq!(bob.next(), "alice|half a line");
    terminal.await_last("alice>");
    terminal.write("quit\r");
    terminal.await_end(0);
}

#[test]
fn a_command_in_the_background_of_a_shell_ends_by_itself_and_takes_input_in_front() {
    let server = Server::start();
    for ip in FAMILIES {
        let client = env!("CARGO_BIN_EXE_client");
        let client = format!("{client} --ip {ip} --port {} run", server.port);
        let behind = format!("{client} 'echo from behind' & wait; echo waited");
        let script = format!("{behind}; {client} 'tr a-z A-Z' & fg >/dev/null; exit $?");
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-m", "-c", &script]);
        let mut terminal = Terminal::start_command(command);
        terminal.await_line("from behind");
        terminal.await_line("waited");
        terminal.write("typed\n\x04");
        terminal.await_line("TYPED");
        terminal.await_end(0);
    }
}
