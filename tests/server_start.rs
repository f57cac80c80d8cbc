//! How the server starts: arguments, ports, families, and outputs that are closed or full.

mod process;

use std::{
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use process::{FAMILIES, Line, Server, await_true, run_server};
use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};

#[test]
fn it_says_where_it_listens_in_one_line() {
    let server = Server::start();
    let port = server.port;
    let expected = format!("sixfour server listening on [::]:{port} and 0.0.0.0:{port}\n");
    assert_eq!(server.greeting, expected);
}

#[test]
fn bad_arguments_are_one_line_and_exit_2() {
    for (arguments, named) in [
        (&["--port", "65536"][..], "--port"),
        (&["--port", "x"], "--port"),
        (&["--port", "-1"], "-1"),
        (&["--port"], "--port"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["70000"], "70000"),
        (&["5000", "--port", "5000"], "--port"),
        (&["--ipv4-only", "--ipv6-only"], "--ipv6-only"),
        (&["-q", "-v"], "-"),
        (&["5000", "3", "7000"], "7000"),
        (&["5000", "6"], "attempts: 6. The valid value of argument number is an integer"),
        (&["--attempts", "2.5"], "attempts: 2.5. The valid value of argument number is"),
        (&["--open", "--credentials", "x"], "--open"),
        (&["--grant", "fly"], "--grant"),
    ] {
        let (code, out, err) = run_server(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {err}");
        assert_eq!((out.as_str(), err.lines().count()), ("", 1), "{arguments:?}: {out}{err}");
        assert!(err.starts_with("server: ") && err.contains(named), "{arguments:?}: {err}");
    }
    let (code, out, err) = run_server(&["--help"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("--port") && out.contains("--root"), "{out}");
    let (code, out, _) = run_server(&["--version"]);
    assert_eq!(code, Some(0));
    assert!(out.ends_with(concat!(env!("CARGO_PKG_VERSION"), "\n")), "{out}");
}

#[test]
fn a_root_that_is_none_is_named() {
    for root in ["/no/such/folder", "/etc/passwd"] {
        let (code, out, err) = run_server(&["--port", "0", "--root", root]);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        assert!(err.contains(root), "{err}");
    }
}

#[test]
fn one_family_is_served_where_that_is_wanted() {
    let [v6, v4] = FAMILIES;
    for (argument, wanted, other) in [("--ipv4-only", v4, v6), ("--ipv6-only", v6, v4)] {
        let server = Server::start_with(&[argument]);
        assert!(!server.greeting.contains(" and "), "{}", server.greeting);
        let mut line = server.line(wanted);
        line.send("echo here");
        assert_eq!(line.next(), "here");
        assert!(TcpStream::connect(server.address(other)).is_err(), "{argument}");
    }
}

#[test]
fn a_port_that_is_busy_in_one_family_is_named_with_it() {
    for (domain, name, other) in
        [(Domain::IPV6, "IPv6", "--ipv4-only"), (Domain::IPV4, "IPv4", "--ipv6-only")]
    {
        let socket = Socket::new(domain, Type::STREAM, None).expect("a socket");
        if domain == Domain::IPV6 {
            socket.set_only_v6(true).expect("IPv6 alone");
        }
        let [v6, v4] = FAMILIES;
        let ip = if domain == Domain::IPV6 { v6 } else { v4 };
        socket.bind(&std::net::SocketAddr::from((ip, 0)).into()).expect("a free port");
        socket.listen(1).expect("it listens");
        let listener = TcpListener::from(socket);
        let port = listener.local_addr().expect("it is bound").port().to_string();
        let (code, out, err) = run_server(&["--port", &port]);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        assert!(err.contains(name) && err.contains(&port), "{err}");
        assert!(!err.contains(if name == "IPv4" { "IPv6 " } else { "IPv4 " }), "{err}");
        let server = Server::start_on(port.parse().expect("a number"), &[other]);
        assert_eq!(server.port.to_string(), port);
    }
    let server = Server::start();
    let (code, _, err) = run_server(&["--port", &server.port.to_string()]);
    assert_eq!(code, Some(1), "a second server on the same port: {err}");
}

#[test]
fn the_port_is_free_again_at_once_after_a_kill() {
    let mut server = Server::start();
    let port = server.port;
    // Connections that the server closes first leave TIME_WAIT on its side.
    let mut lines: Vec<Line> = (0..50).map(|number| server.line(FAMILIES[number % 2])).collect();
    for line in &mut lines {
        line.send("quit");
        assert_eq!(line.rest_text(), "goodbye\n");
    }
    let held = server.user(FAMILIES[0], "held");
    server.signal(Signal::KILL);
    server.wait();
    let begun = Instant::now();
    let mut again = Server::start_on(port, &[]);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(again.port, port);
    again.assert_alive();
    drop(held);
}

#[test]
fn outputs_that_are_closed_are_no_reason_not_to_serve() {
    for closed in ["<&- >&- 2>&-", ">&-", "2>&-"] {
        let [root, state] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        let port = free_port();
        let script = format!("exec \"$0\" --port {port} --root \"$1\" {closed}");
        let mut child = Command::new("/bin/sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_server")])
            .arg(root.path())
            .env("XDG_STATE_HOME", state.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        for ip in FAMILIES {
            let mut stream = None;
            await_true("it listens", || {
                stream = TcpStream::connect((ip, port)).ok();
                stream.is_some()
            });
            let stream = stream.expect("it was awaited");
            stream.set_read_timeout(Some(process::PATIENCE)).expect("a timeout");
            let mut line = Line::new(stream);
            line.send("run echo out; echo err >&2; exec 0<&1; exit 3\nwho");
            let mut said = line.lines(4);
            said[..2].sort();
            assert_eq!(said, ["err", "out", "[exit 3]", "[0 users]"], "{closed}");
        }
        kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
        assert_eq!(child.wait().expect("it ends").code(), Some(0), "{closed}");
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("[::]:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

#[test]
fn error_output_that_nobody_reads_stalls_nobody() {
    let [root, state] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let port = free_port();
    let mut child = Command::new(env!("CARGO_BIN_EXE_server"))
        .args(["-vv", "--port", &port.to_string(), "--root"])
        .arg(root.path())
        .env("XDG_STATE_HOME", state.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let mut greeting = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    std::io::BufRead::read_line(&mut greeting, &mut String::new()).expect("it listens");
    // Every session is logged: far more than a pipe and the queue before it hold.
    for number in 0..6000 {
        let ip = FAMILIES[number % 2];
        let stream = TcpStream::connect((ip, port)).expect("it listens");
        if number % 1000 == 0 {
            stream.set_read_timeout(Some(process::PATIENCE)).expect("a timeout");
            let mut line = Line::new(stream);
            line.send("echo here");
            assert_eq!(line.next(), "here");
        }
    }
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
    await_true("it ends although nobody reads its log", || {
        child.try_wait().expect("our child").is_some()
    });
    assert_eq!(child.wait().expect("it has ended").code(), Some(0));
}
