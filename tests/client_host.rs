//! The client's `info`, `ping` and `top`, and the host commands at its prompt.

mod process;
mod terminal;

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use process::{FAMILIES, Server, await_true};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use terminal::{COLUMNS, Terminal};

fn command(port: u16, ip: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
    command.args(["--ip", ip, "--port", &port.to_string()]).args(arguments);
    command.env("USER", "tester").stdin(Stdio::null());
    command
}

/// A client that is killed where its test has no more use for it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn code(&mut self) -> Option<i32> {
        let mut status = None;
        await_true("the end of the client", || {
            status = self.0.try_wait().expect("it is our child");
            status.is_some()
        });
        status.expect("it was awaited").code()
    }
}

/// Runs it to its end: code, output, error output.
fn run(port: u16, ip: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let folder = TempDir::new().expect("a folder");
    let [out, err] = ["out", "err"].map(|name| folder.path().join(name));
    let mut command = command(port, ip, arguments);
    command.stdout(File::create(&out).expect("a file"));
    command.stderr(File::create(&err).expect("a file"));
    let code = Running(command.spawn().expect("the client starts")).code();
    let text = |path| std::fs::read_to_string(path).expect("text");
    (code, text(out), text(err))
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

#[test]
fn info_is_a_table_for_people_and_an_object_for_programs() {
    let server = Server::start();
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("it has a name");
    for ip in FAMILIES {
        let (code, out, err) = run(server.port, &ip.to_string(), &["info"]);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        let line = |about: &str| {
            let line = out.lines().find(|line| line.starts_with(&format!("{about:<9} ")));
            line.unwrap_or_else(|| panic!("no {about} in {out}"))
        };
        assert!(line("host").contains(hostname.trim()));
        assert!(line("server").contains(concat!("sixfour ", env!("CARGO_PKG_VERSION"))));
        assert!(line("cpu").contains(" % of "));
        assert!(line("sessions").ends_with("1, users 1"));
        for about in ["load", "memory", "disk", "messages"] {
            assert!(line(about).len() > 10);
        }
        for ip in FAMILIES {
            assert!(out.contains(&format!("address   lo {ip}\n")), "{out}");
        }
        let (code, out, _) = run(server.port, &ip.to_string(), &["--json", "info"]);
        let [info] = &objects(&out)[..] else { panic!("one object, and not {out}") };
        assert_eq!((code, info["event"].as_str()), (Some(0), Some("info")));
        assert_eq!(info["name"], hostname.trim());
    }
}

#[test]
fn single_facts_and_orders_are_verbs_too() {
    let server = Server::start();
    for (verb, part) in
        [("ip", "lo ::1\n"), ("ram", " MiB used ("), ("os", "Linux "), ("cpu", " % of ")]
    {
        let (code, out, err) = run(server.port, "::1", &[verb]);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{verb}");
        assert!(out.contains(part), "{verb}: {out}");
    }
    let mut bob = server.user(FAMILIES[1], "bob");
    assert_eq!(run(server.port, "127.0.0.1", &["--user", "alice", "reset"]).0, Some(0));
    assert_eq!(bob.rest_text(), "error reset: all sessions were ended by alice; connect again\n");
    let mut server = server;
    assert_eq!(run(server.port, "::1", &["kill"]).0, Some(0));
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn ping_measures_each_family() {
    let server = Server::start();
    for (family, ip) in ["IPv6", "IPv4"].into_iter().zip(FAMILIES) {
        let arguments = ["--json", "ping", "-c", "3", "-i", "1ms"];
        let (code, out, err) = run(server.port, &ip.to_string(), &arguments);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        let told = objects(&out);
        assert_eq!(told.len(), 4, "{out}");
        assert!(told.iter().all(|it| it["family"] == family && it["address"] == ip.to_string()));
        let times: Vec<u64> =
            told[..3].iter().map(|it| it["microseconds"].as_u64().expect("a time")).collect();
        let [min, avg, max] =
            ["min", "avg", "max"].map(|it| told[3][format!("{it}_microseconds")].as_u64());
        assert_eq!((min, max), (times.iter().min().copied(), times.iter().max().copied()));
        assert_eq!(avg, Some(times.iter().sum::<u64>() / 3));
    }
    let (code, out, _) = run(server.port, "localhost", &["ping", "-c", "2", "-i", "1ms"]);
    assert_eq!(code, Some(0));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 2, "{out}");
    for (line, start) in lines.iter().zip(["IPv6 ::1: ", "IPv4 127.0.0.1: "]) {
        let times = line.strip_prefix(start).and_then(|it| it.strip_prefix("2 round trips, min "));
        let least = times.and_then(|it| it.split_once(' ')).map_or("", |(least, _)| least);
        // On a busy machine it may be more than a millisecond.
        assert!(least.parse::<f64>().is_ok_and(|it| it > 0.0), "{out}");
    }
}

#[test]
fn ping_says_with_3_that_nobody_is_there_and_with_0_that_somebody_is() {
    let v4_alone = Server::start_with(&["--ipv4-only"]);
    let (code, out, err) = run(v4_alone.port, "localhost", &["ping", "-c", "1"]);
    assert_eq!(code, Some(0));
    assert!(out.starts_with("IPv4 127.0.0.1: 1 round trips, "), "{out}");
    assert!(err.starts_with("error cannot-connect: ") && err.contains("::1"), "{err}");
    let (code, out, err) = run(v4_alone.port, "::1", &["ping"]);
    assert_eq!((code, out.as_str()), (Some(3), ""));
    assert!(err.contains("refused"), "{err}");
    let (code, ..) = run(v4_alone.port, "no-such-host.invalid", &["ping"]);
    assert_eq!(code, Some(3));
}

#[test]
fn top_off_a_terminal_is_one_object_a_line_until_it_is_enough() {
    let server = Server::start();
    for ip in FAMILIES {
        let arguments = ["top", "--count", "3", "--interval", "100ms"];
        let (code, out, err) = run(server.port, &ip.to_string(), &arguments);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        let told = objects(&out);
        assert_eq!(told.len(), 3, "{out}");
        assert!(told.iter().all(|it| it["event"] == "info" && it["server"]["users"] == 1));
    }
    let mut command = command(server.port, "::1", &["--json", "top", "-i", "100ms"]);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut top = Running(command.spawn().expect("the client starts"));
    let mut lines = BufReader::new(top.0.stdout.take().expect("a pipe")).lines();
    (0..2).for_each(|_| drop(lines.next().expect("one more").expect("text")));
    kill_process(Pid::from_child(&top.0), Signal::INT).expect("it runs");
    assert_eq!(top.code(), Some(0), "Ctrl-C is the way out");
}

#[test]
fn top_finds_a_lost_server_again() {
    let mut server = Server::start();
    let port = server.port;
    let mut command = command(port, "::1", &["top", "-i", "100ms"]);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut top = Running(command.spawn().expect("the client starts"));
    let lines = BufReader::new(top.0.stdout.take().expect("a pipe")).lines();
    let mut events = lines.map(|line| objects(&line.expect("text")).remove(0));
    let mut await_event = |event: &str| {
        let found = events.find(|it| it["event"] == event);
        found.unwrap_or_else(|| panic!("top ended before {event}"))
    };
    await_event("info");
    server.signal(Signal::KILL);
    server.wait();
    let notice = await_event("notice");
    let text = notice["text"].as_str().expect("text");
    assert!(text.starts_with("connection lost: "), "{text}");
    let again = Server::start_on(port, &[]);
    await_event("info");
    drop(again);
}

#[test]
fn top_paints_in_place_on_a_second_screen_and_gives_the_first_one_back() {
    let server = Server::start();
    let mut bob = server.user(FAMILIES[1], "bob");
    for ip in FAMILIES {
        let mut top = Terminal::start_with(&server, ip, &["top", "-i", "100ms"]);
        top.await_screen("the facts", |lines| {
            lines.len() > 5 && lines[1].starts_with("host ") && lines[3].starts_with("cpu ")
        });
        let head = format!("{ip} port {}   q leaves", server.port);
        assert_eq!(top.lines()[0], head);
        assert!(top.screen.screen().alternate_screen() && top.screen.screen().hide_cursor());
        assert!(!top.is_cooked());
        let _carol = server.user(ip, "carol");
        bob.send("hello|carol");
        top.await_screen("a third user and a message", |lines| {
            let has = |text: &str| lines.iter().any(|line| line.starts_with(text));
            has("sessions  3, users 3") && (has("messages  1, ") || has("messages  2, "))
        });
        // What is larger than the window is cut, not wrapped.
        top.resize(30, 4);
        top.await_screen("a small picture", |lines| {
            lines.len() == 3 && lines.iter().all(|line| line.chars().count() <= 30)
        });
        top.resize(COLUMNS, 20);
        top.await_screen("a larger one", |lines| lines.iter().any(|it| it.starts_with("disk ")));
        top.write("x");
        top.write("q");
        top.await_end(0);
        let screen = top.screen.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor());
        assert_eq!(top.lines().concat(), "", "nothing is left on the first screen");
        assert!(top.is_cooked());
    }
}

#[test]
fn top_restores_the_terminal_on_every_way_out_and_tells_why_it_ended() {
    let mut server = Server::start();
    for (signal, code) in [(Signal::INT, 0), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut top = Terminal::start_with(&server, FAMILIES[0], &["top", "-i", "100ms"]);
        top.await_screen("the facts", |lines| lines.len() > 5);
        kill_process(top.pid(), signal).expect("it runs");
        top.await_end(code);
        assert!(!top.screen.screen().alternate_screen() && top.is_cooked());
    }
    let mut top = Terminal::start_with(&server, FAMILIES[1], &["top", "-i", "100ms"]);
    top.await_screen("the facts", |lines| lines.len() > 5);
    top.write("\u{3}");
    top.await_end(0);
    let mut top = Terminal::start_with(&server, FAMILIES[1], &["top", "-i", "100ms"]);
    top.await_screen("the facts", |lines| lines.len() > 5);
    server.signal(Signal::KILL);
    server.wait();
    top.await_screen("the loss", |lines| lines[0].contains(": connection lost: "));
    assert!(top.lines()[3].starts_with("cpu "), "the last facts stay");
    let again = Server::start_on(server.port, &[]);
    top.await_screen("the facts again", |lines| lines[0].ends_with("   q leaves"));
    top.write("Q");
    top.await_end(0);
    let _bob = again.user(FAMILIES[1], "bob");
    let mut top = Terminal::start_with(&again, FAMILIES[0], &["--user", "bob", "top"]);
    top.await_end(4);
    assert!(top.lines()[0].starts_with("error name-taken: "), "{:?}", top.lines());
}

#[test]
fn host_commands_work_at_the_prompt() {
    let server = Server::start();
    let _bob = server.user(FAMILIES[1], "bob");
    let mut alice = Terminal::start(&server, FAMILIES[0], "alice");
    alice.write("IP\r");
    alice.await_line("lo 127.0.0.1");
    alice.write("Ping\r");
    alice.await_screen("the round trip", |lines| {
        let time = |line: &String| {
            let (_, time) = line.strip_prefix("pong ")?.rsplit_once(", round trip ")?;
            time.strip_suffix(" ms")?.parse::<f64>().ok()
        };
        // On a busy machine it may be more than a millisecond.
        lines.iter().filter_map(time).any(|time| time > 0.0)
    });
    alice.write("cle\t");
    alice.await_last("alice> clear");
    alice.write("\r");
    alice.await_screen("an empty screen", |lines| lines == ["alice>"]);
    alice.write("pyth\t");
    alice.await_last("alice> python --version");
    alice.write("\u{15}PowerShell:Get-Date\r");
    alice.await_screen("an error", |lines| {
        lines.iter().any(|line| line.starts_with("error no-interpreter: "))
    });
    alice.write("info\r");
    alice.await_screen("the table", |lines| {
        lines.iter().any(|line| line.starts_with("sessions  2, users 2"))
    });
    alice.write("Reset\r");
    alice.await_screen("the reset", |lines| {
        let text = "connection lost: all sessions were ended by alice; connect again; trying";
        lines.iter().any(|line| line.starts_with(text))
    });
    alice.await_line("connected again");
    alice.write("DISCONNECT\r");
    assert_eq!(alice.code(), 0);
}
