//! Signals to the server, and what becomes of its sessions and commands when it ends.

mod process;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Stdio,
    time::{Duration, Instant},
};

use process::{Canary, FAMILIES, News, Server, await_true, is_running, noise};
use rustix::process::Signal;

#[test]
fn sigterm_and_sigint_end_an_idle_server_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start();
        let [v6, v4] = FAMILIES;
        let mut line = server.user(v6, "line");
        let mut framed = server.framed(v4, "framed");
        let mut nameless = server.line(v6);
        nameless.send("echo here");
        assert_eq!(nameless.next(), "here");
        let silent = server.line(v4);
        server.signal(signal);
        assert!(line.next().starts_with("error shutting-down: "));
        assert_eq!(line.rest(), b"");
        let News::Goodbye(Some(why)) = framed.next() else { panic!("no goodbye") };
        assert_eq!(why["code"], "shutting-down");
        assert_eq!(framed.next(), News::Closed);
        assert!(nameless.rest_text().starts_with("error shutting-down: "));
        drop((line, framed, nameless, silent));
        let begun = Instant::now();
        assert_eq!(server.wait().code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        for ip in FAMILIES {
            assert!(TcpStream::connect(server.address(ip)).is_err());
        }
        assert!(server.log().contains("stopped"), "{}", server.log());
    }
}

#[test]
fn what_runs_may_finish_and_nothing_new_begins() {
    let mut server = Server::start();
    server.fifo("go");
    server.put("big", &noise(1, 16 * 1024 * 1024));
    let [v6, v4] = FAMILIES;
    let mut line = server.line(v6);
    line.send("run echo begun; cat go; echo finished");
    assert_eq!(line.next(), "begun");
    let mut framed = server.framed(v4, "framed");
    framed.download(1, "big");
    assert!(matches!(framed.next(), News::Detail(1, _)));
    server.signal(Signal::TERM);
    server.await_log("stopping");
    await_true("nobody new is taken in", || TcpStream::connect(server.address(v6)).is_err());
    framed.run(2, "echo never");
    let answer = framed.answer(1);
    assert_eq!(blake3::hash(&answer.stdout), blake3::hash(&noise(1, 16 * 1024 * 1024)));
    assert_eq!(answer.outcome["outcome"], "sent");
    let is_refusal =
        |news: &News| matches!(news, News::End(2, why) if why["code"] == "shutting-down");
    assert!(answer.others.iter().any(is_refusal), "{:?}", answer.others);
    std::fs::write(server.path("go"), "").expect("the command reads it");
    let rest = line.rest_text();
    let lines: Vec<_> = rest.lines().collect();
    assert!(lines[0].starts_with("error shutting-down: "), "{rest}");
    assert_eq!(lines[1..3], ["finished", "[exit 0]"], "{rest}");
    drop((line, framed));
    let begun = Instant::now();
    assert_eq!(server.wait().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

/// A client in a folder of its own, which is the shared one: its downloads have other names.
fn client(server: &Server, ip: std::net::IpAddr, arguments: &[&str]) -> std::process::Child {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_client"));
    command.args(["--ip", &ip.to_string(), "--port", &server.port.to_string()]);
    command.args(arguments).current_dir(server.root()).env("XDG_STATE_HOME", server.state());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the client starts")
}

#[test]
fn a_client_whose_command_ends_while_the_server_stops_has_its_exit_code() {
    for (ip, code) in FAMILIES.into_iter().zip([0, 7]) {
        let mut server = Server::start();
        server.fifo("go");
        let command = format!("echo begun; cat go; exit {code}");
        let mut child = client(&server, ip, &["run", &command]);
        let mut begun = [0; 6];
        child.stdout.as_mut().expect("a pipe").read_exact(&mut begun).expect("output");
        server.signal(Signal::TERM);
        server.await_log("stopping");
        std::fs::write(server.path("go"), "").expect("the command reads it");
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_eq!(server.wait().code(), Some(0));
    }
}

#[test]
fn a_client_whose_files_arrive_while_the_server_stops_has_done_its_work() {
    let mut server = Server::start();
    let content = noise(3, 1_500_000);
    server.put("big", &content);
    server.put("up", &content);
    let [v6, v4] = FAMILIES;
    let download = client(&server, v6, &["download", "--limit", "3M", "big"]);
    let upload = client(&server, v4, &["upload", "--limit", "3M", "up", "--to", "in"]);
    let has_begun = |folder: &str| {
        let entries = std::fs::read_dir(server.path(folder)).into_iter().flatten().flatten();
        let names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        names.iter().any(|name| name.to_string_lossy().starts_with('.'))
    };
    await_true("both have begun", || has_begun(".") && has_begun("in"));
    server.signal(Signal::TERM);
    for child in [download, upload] {
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    for name in ["client_big", "in/up"] {
        assert!(std::fs::read(server.path(name)).expect("it is there") == content, "{name}");
    }
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_device_whose_samples_arrive_while_the_server_stops_has_done_its_work() {
    let mut server = Server::start();
    let mut child = client(&server, FAMILIES[0], &["--user", "sensor", "device", "upload", "7"]);
    let mut samples = child.stdin.take().expect("a pipe");
    samples.write_all(b"1\n2\n").expect("it is read");
    let stages = || std::fs::read_dir(server.path("data/.edge")).into_iter().flatten().flatten();
    let is_stage =
        |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("stage");
    await_true("the upload has begun", || stages().any(is_stage));
    server.signal(Signal::TERM);
    server.await_log("stopping");
    samples.write_all(b"3\n").expect("it is read");
    drop(samples);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let stored = std::fs::read(server.path("data/sensor-7.txt")).expect("it is stored");
    assert_eq!(stored, b"1\n2\n3\n");
    assert_eq!(server.wait().code(), Some(0));
}

/// Takes about 10 s, beside the others.
#[test]
fn what_does_not_end_is_ended_within_ten_seconds() {
    let mut server = Server::start();
    let [v6, v4] = FAMILIES;
    let mut line = server.line(v6);
    line.send("run echo $$; exec sleep 100");
    let pid = line.next();
    let mut stubborn = server.framed(v4, "stubborn");
    stubborn.run(1, "trap '' TERM; echo $$; while :; do sleep 0.1; done");
    let News::Stdout(1, second) = stubborn.next() else { panic!("no output") };
    let second = String::from_utf8(second).expect("a number");
    // And some who read nothing.
    let mut deaf = server.line(v4);
    deaf.send("run yes");
    let mut deaf_frames = server.framed(v6, "deaf");
    deaf_frames.run(1, "yes");
    let begun = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    let took = begun.elapsed();
    assert!((7000..10_500).contains(&took.as_millis()), "{took:?}");
    await_true("all commands are gone", || !is_running(&pid) && !is_running(second.trim()));
    drop((line, stubborn, deaf, deaf_frames));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for ip in FAMILIES {
        let mut server = Server::start();
        let mut line = server.line(ip);
        line.send("run trap '' TERM; echo $$; while :; do sleep 0.1; done");
        let pid = line.next();
        server.signal(Signal::TERM);
        server.await_log("stopping");
        let begun = Instant::now();
        server.signal(Signal::TERM);
        assert_eq!(server.wait().code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        await_true("the command is gone", || !is_running(&pid));
    }
}

#[test]
fn other_signals_do_no_harm() {
    let mut server = Server::start();
    let canary = Canary::start(&server);
    for signal in [Signal::HUP, Signal::PIPE, Signal::CHILD, Signal::WINCH, Signal::XFSZ] {
        for _ in 0..100 {
            server.signal(signal);
        }
    }
    for ip in FAMILIES {
        let mut line = server.line(ip);
        // Commands start with the signals as they always are.
        line.send("run kill -PIPE $$");
        assert_eq!(line.next(), "[signal 13]");
        line.send("run grep -E 'Sig(Ign|Blk)' /proc/self/status");
        let masks = line.lines(2);
        for mask in masks {
            let bits = mask.split('\t').nth(1).and_then(|it| u64::from_str_radix(it, 16).ok());
            // What is beyond 31 is the C library's own, or comes from whoever started us.
            assert_eq!(bits.expect("a mask") & 0x7fff_ffff, 0, "{mask}");
        }
        assert_eq!(line.next(), "[exit 0]");
        line.send("run yes | head -n 1");
        assert_eq!(line.lines(2), ["y", "[exit 0]"]);
    }
    canary.stop();
    server.assert_alive();
}

#[test]
fn a_server_that_is_stopped_for_a_while_loses_nobody() {
    let mut server = Server::start();
    for ip in FAMILIES {
        let mut alice = server.user(ip, "alice");
        let mut bob = server.framed(ip, "bob");
        server.signal(Signal::STOP);
        for number in 0..100 {
            alice.send(&format!("{number}|bob"));
        }
        let late = TcpStream::connect(server.address(ip)).expect("the kernel takes it in");
        std::thread::sleep(Duration::from_millis(300));
        server.signal(Signal::CONT);
        for number in 0..100 {
            let News::Message { text, .. } = bob.next() else { panic!("no message") };
            assert_eq!(text, number.to_string());
        }
        late.set_read_timeout(Some(process::PATIENCE)).expect("a timeout");
        let mut late = process::Line::new(late);
        late.send("echo late");
        assert_eq!(late.next(), "late");
        alice.send("quit");
        assert_eq!(alice.rest_text(), "goodbye\n");
        bob.send(sixfour::wire::frame::client::GOODBYE, 0, b"");
        assert_eq!(bob.next(), News::Goodbye(None));
    }
    server.assert_alive();
}

#[test]
fn killed_with_9_the_server_leaves_no_command_behind() {
    let mut server = Server::start();
    let mut pids = Vec::new();
    let mut clients = Vec::new();
    for number in 0..20 {
        let mut line = server.line(FAMILIES[number % 2]);
        // The last one does not heed TERM.
        let trap = if number == 19 { "trap '' TERM; " } else { "" };
        line.send(&format!("run {trap}echo $$; while :; do sleep 0.2; done"));
        pids.push(line.next());
        clients.push(line);
    }
    assert!(pids.iter().all(|pid| is_running(pid)));
    let begun = Instant::now();
    server.signal(Signal::KILL);
    server.wait();
    await_true("all commands are gone", || !pids.iter().any(|pid| is_running(pid)));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    drop(clients);
}

#[test]
fn a_guard_that_is_killed_is_replaced() {
    let mut server = Server::start();
    let mut line = server.line(FAMILIES[0]);
    line.send("run echo $$; exec sleep 1000");
    let first = line.next();
    let guards: Vec<String> = server.children().into_iter().filter(|pid| *pid != first).collect();
    assert_eq!(guards.len(), 1);
    let guard = guards[0].parse().ok().and_then(rustix::process::Pid::from_raw).expect("a number");
    rustix::process::kill_process(guard, Signal::KILL).expect("it runs");
    let mut other = server.line(FAMILIES[1]);
    // The loss is noticed when there is something to tell it.
    await_true("it is replaced", || {
        other.send("run true");
        assert_eq!(other.next(), "[exit 0]");
        server.log().contains("starting another one")
    });
    other.send("run echo $$; exec sleep 1000");
    let second = other.next();
    server.signal(Signal::KILL);
    server.wait();
    await_true("both commands are gone", || !is_running(&first) && !is_running(&second));
}
