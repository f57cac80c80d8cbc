//! The host commands, by a real server on this machine: facts against `/proc`, programs against
//! scripts of the test, and the ends of sessions and of the server.

mod process;

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use process::{Canary, FAMILIES, Framed, Line, News, PATIENCE, Server, await_true, is_running};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What is said by `key` in a file of `/proc` that has a line for each, in KiB, as bytes.
fn kib_of(path: &str, key: &str) -> u64 {
    let text = fs::read_to_string(path).expect("it is there");
    let line = text.lines().find(|line| line.starts_with(key)).expect(key);
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}

/// All facts, asked for by frames.
fn info(framed: &mut Framed, tag: u32, interval_ms: u32) -> Value {
    framed.request(tag, json!({"op": "info", "interval_ms": interval_ms}));
    let answer = framed.answer(tag);
    assert_eq!(answer.outcome, json!({"outcome": "done"}));
    let [detail] = &answer.details[..] else { panic!("one object, and not {answer:?}") };
    assert_eq!(detail["event"], "object");
    detail["object"].clone()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// A folder with these programs, each a script.
fn programs(scripts: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    for (name, script) in scripts {
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    }
    folder
}

/// A server that finds programs in this folder alone.
fn server_with(programs: &Path) -> Server {
    Server::start_after(&format!("export PATH='{}'", programs.display()))
}

#[test]
fn questions_are_answered_in_any_case_by_both_families() {
    let server = Server::start();
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").expect("it has a name");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("it has a release");
    for ip in FAMILIES {
        let mut line = server.line(ip);
        for (word, answer) in [("name", hostname.trim()), ("NAME", hostname.trim())] {
            line.send(word);
            assert_eq!(line.next(), answer);
        }
        line.send("Os");
        let os = line.next();
        assert!(os.starts_with(&format!("Linux {}", release.trim())), "{os}");
        line.send("RAM");
        let ram = line.next();
        let total = kib_of("/proc/meminfo", "MemTotal:") / (1024 * 1024);
        assert!(ram.contains(&format!(" of {total} MiB used (")), "{ram}");
        line.send("PiNg");
        let pong = line.next();
        let time = pong.strip_prefix("pong ").and_then(|it| it.parse::<jiff::Timestamp>().ok());
        let age = time.expect("a time").duration_until(jiff::Timestamp::now());
        assert!(age.abs() < jiff::SignedDuration::from_secs(20), "{pong}");
        line.send("Ip");
        line.send("echo the end");
        let addresses: Vec<String> =
            std::iter::from_fn(|| Some(line.next()).filter(|it| it != "the end")).collect();
        for ip in FAMILIES {
            assert!(addresses.contains(&format!("lo {ip}")), "{addresses:?}");
        }
        line.send("HELP");
        assert!(line.next().starts_with("user "));
    }
}

#[test]
fn info_is_what_proc_says() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut framed = server.framed(ip, "alice");
        let _unnamed = server.line(ip);
        let _bob = server.user(ip, "bob");
        framed.run(9, "sleep 1000");
        let facts = info(&mut framed, 1, 200);
        let meminfo = |key| kib_of("/proc/meminfo", key);
        assert_eq!(facts["memory"]["total_bytes"], meminfo("MemTotal:"));
        assert_eq!(facts["memory"]["swap_total_bytes"], meminfo("SwapTotal:"));
        let (known, now) = (number(&facts["memory"]["available_bytes"]), meminfo("MemAvailable:"));
        assert!(known.abs_diff(now) < 2 << 30, "{known} and {now} bytes are available");
        let stat = fs::read_to_string("/proc/stat").expect("it is there");
        let count =
            stat.lines().filter(|it| it.starts_with("cpu") && !it.starts_with("cpu ")).count();
        assert_eq!(facts["cpu"]["count"], count);
        let measured = facts["cpu"]["measured_seconds"].as_f64().expect("a time");
        assert!((0.19..5.0).contains(&measured), "measured for {measured} s");
        let used = facts["cpu"]["used_percent"].as_f64().expect("a share");
        assert!((0.0..=100.0).contains(&used), "{used} %");
        let uptime = fs::read_to_string("/proc/uptime").expect("it is there");
        let uptime = uptime.split('.').next().and_then(|it| it.parse::<u64>().ok()).expect("time");
        assert!(number(&facts["uptime_seconds"]).abs_diff(uptime) < 20);
        assert_eq!(facts["load"].as_array().map(Vec::len), Some(3));
        let of_server = &facts["server"];
        assert_eq!(of_server["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!((number(&of_server["sessions"]), number(&of_server["users"])), (3, 2));
        assert_eq!((number(&of_server["operations"]), number(&of_server["commands"])), (2, 1));
        let resident = number(&of_server["resident_bytes"]).abs_diff(server.resident_kib() * 1024);
        assert!(resident < 8 << 20, "{resident} bytes beside what the kernel says");
        let stat = rustix::fs::statvfs("/").expect("there is a root");
        let disks = facts["disks"].as_array().expect("a list");
        let root = disks.iter().find(|disk| disk["path"] == "/").expect("the root among them");
        assert_eq!(number(&root["total_bytes"]), stat.f_blocks * stat.f_frsize);
        let addresses = facts["addresses"].as_array().expect("a list");
        for (family, ip) in ["IPv6", "IPv4"].into_iter().zip(FAMILIES) {
            let own = json!({"interface": "lo", "family": family, "address": ip.to_string()});
            assert!(addresses.contains(&own), "{addresses:?}");
        }
        framed.cancel(9);
        framed.answer(9);
    }
}

#[test]
fn info_counts_messages_and_what_they_are_in_a_second() {
    let server = Server::start();
    let mut framed = server.framed(FAMILIES[0], "watcher");
    let (mut alice, mut bob) = (server.user(FAMILIES[0], "alice"), server.user(FAMILIES[1], "bob"));
    let before = number(&info(&mut framed, 1, 100)["server"]["messages"]);
    framed.request(2, json!({"op": "info", "interval_ms": 300}));
    for text in ["one", "two", "three"] {
        alice.send(&format!("{text}|bob,watcher"));
        assert_eq!(bob.next(), format!("alice|{text}"));
    }
    let answer = framed.answer(2);
    assert_eq!(answer.others.len(), 3, "{answer:?}");
    let of_server = &answer.details[0]["object"]["server"];
    assert_eq!(number(&of_server["messages"]), before + 6);
    let rate = of_server["messages_per_second"].as_f64().expect("a rate");
    assert!((0.5..=20.0).contains(&rate), "6 messages in about 0.3 s are {rate} a second");
    let mut line = server.line(FAMILIES[1]);
    line.send("INFO");
    let facts: Value = serde_json::from_str(&line.next()).expect("one object in one line");
    assert_eq!(number(&facts["server"]["messages"]), before + 6);
    line.send("echo the end");
    assert_eq!(line.next(), "the end");
}

#[test]
fn a_wrong_interval_or_host_is_refused() {
    let server = Server::start();
    let mut framed = server.framed(FAMILIES[0], "alice");
    for (tag, body) in [
        (1, json!({"op": "info", "interval_ms": 99})),
        (2, json!({"op": "info", "interval_ms": 60_001})),
        (3, json!({"op": "ping", "host": "-f"})),
        (4, json!({"op": "ping", "host": "a b"})),
        (5, json!({"op": "run", "command": "x", "interpreter": "perl"})),
    ] {
        framed.request(tag, body);
        let answer = framed.answer(tag);
        assert_eq!(answer.outcome["code"], "bad-arguments", "{answer:?}");
    }
}

/// Each has its own two looks, and none of them waits for another.
#[test]
fn the_processors_are_measured_for_many_at_once_while_they_are_busy() {
    let server = Server::start();
    let mut burner = server.framed(FAMILIES[0], "burner");
    burner.run(1, "while :; do :; done");
    let canary = Canary::start(&server);
    let begun = Instant::now();
    let mut lines: Vec<Line> = (0..40).map(|at| server.line(FAMILIES[at % 2])).collect();
    lines.iter_mut().for_each(|line| line.send("cpu"));
    for line in &mut lines {
        let answer = line.next();
        let used = answer.split(' ').next().and_then(|it| it.parse::<f64>().ok()).expect("a share");
        // One of the processors is busy with the command all the time.
        let count = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        assert!((30.0 / count..=100.0).contains(&used), "{answer}");
        assert!(answer.contains(" processor"), "{answer}");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "one after the other would take 20 s");
    canary.stop();
    burner.cancel(1);
    burner.answer(1);
}

#[test]
fn whoever_cancels_a_question_or_goes_away_leaves_nothing_behind() {
    let server = Server::start();
    let mut framed = server.framed(FAMILIES[0], "alice");
    framed.request(1, json!({"op": "info", "interval_ms": 60_000}));
    framed.cancel(1);
    assert_eq!(framed.answer(1).outcome["code"], "cancelled");
    framed.request(2, json!({"op": "info", "interval_ms": 60_000}));
    framed.reset();
    let mut other = server.framed(FAMILIES[1], "bob");
    await_true("the question of who has gone is forgotten", || {
        number(&info(&mut other, 3, 100)["server"]["operations"]) == 1
    });
}

/// A question that waits is no reason to stay.
#[test]
fn a_server_that_stops_answers_at_once() {
    let mut server = Server::start();
    let mut framed = server.framed(FAMILIES[0], "alice");
    framed.request(1, json!({"op": "info", "interval_ms": 60_000}));
    framed.request(2, json!({"op": "echo", "text": "taken in"}));
    framed.answer(2);
    let begun = Instant::now();
    server.signal(rustix::process::Signal::TERM);
    let answer = framed.answer(1);
    assert_eq!((answer.outcome["outcome"].as_str(), answer.details.len()), (Some("done"), 1));
    assert_eq!(server.wait().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(4), "it took {:?}", begun.elapsed());
}

#[test]
fn programs_are_run_without_a_shell() {
    // What no shell touches comes through as it is.
    let show = "for word; do echo \"<$word>\"; done; cat";
    let programs = programs(&[
        ("ping", show),
        ("python3", "echo Python 3.99"),
        ("pwsh", show),
        ("wine", show),
        ("cat", "exec /bin/cat"),
    ]);
    let server = server_with(programs.path());
    for ip in FAMILIES {
        let mut line = server.line(ip);
        for (host, shown) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1"), ("a.test", "a.test")] {
            line.send(&format!("PING {host}"));
            let words = ["<-n>", "<-c>", "<4>", "<-w>", "<10>"];
            assert_eq!(line.lines(5), words);
            assert_eq!(line.lines(2), [format!("<{shown}>"), "[exit 0]".into()]);
        }
        line.send("python --version");
        assert_eq!(line.lines(2), ["Python 3.99", "[exit 0]"]);
        let command = "a 'b c' $(id) | d; e";
        line.send(&format!("powershell: {command}"));
        let words = ["<-NoLogo>", "<-NoProfile>", "<-NonInteractive>", "<-Command>"];
        assert_eq!(line.lines(4), words);
        assert_eq!(line.lines(2), [format!("<{command}>"), "[exit 0]".into()]);
        line.send(&format!("dos:{command}"));
        assert_eq!(line.lines(2), ["<cmd>", "</c>"]);
        assert_eq!(line.lines(2), [format!("<{command}>"), "[exit 0]".into()]);
        line.send("LINUX: echo one | /bin/cat; exit 3");
        assert_eq!(line.lines(2), ["one", "[exit 3]"]);
    }
    let mut framed = server.framed(FAMILIES[0], "alice");
    let run = json!({"op": "run", "command": "x", "interpreter": "dos", "stdin": true});
    framed.request(1, run);
    framed.send(sixfour::wire::frame::client::DATA, 1, b"to standard input\n");
    framed.send(sixfour::wire::frame::client::END, 1, b"");
    let answer = framed.answer(1);
    answer.assert_exit(0);
    assert_eq!(answer.text(), "<cmd>\n</c>\n<x>\nto standard input\n");
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let programs = programs(&[]);
    let server = server_with(programs.path());
    for ip in FAMILIES {
        let mut line = server.line(ip);
        for (request, part) in [
            ("ping ::1", "no program `ping`"),
            ("Python --Version", "neither python3 nor python"),
            ("DOS:dir", "install wine"),
            ("PowerShell:Get-Date", "no PowerShell"),
        ] {
            line.send(request);
            let answer = line.next();
            assert!(answer.starts_with("error no-interpreter: "), "{answer}");
            assert!(answer.contains(part), "{answer}");
        }
    }
}

#[test]
fn a_ping_that_does_not_end_is_ended_with_its_session() {
    let server = server_with(programs(&[("ping", "echo $$; exec /bin/sleep 1000")]).path());
    // The folder is gone, and so is the program: that is told too.
    let mut line = server.line(FAMILIES[0]);
    line.send("ping ::1");
    assert!(line.next().starts_with("error no-interpreter: "));
    let programs = programs(&[("ping", "echo $$; exec /bin/sleep 1000")]);
    let server = server_with(programs.path());
    let mut framed = server.framed(FAMILIES[0], "alice");
    framed.request(1, json!({"op": "ping", "host": "::1"}));
    let News::Stdout(1, pid) = framed.next() else { panic!("its number comes first") };
    let pid = String::from_utf8(pid).expect("a number").trim().to_owned();
    assert!(is_running(&pid));
    framed.reset();
    await_true("the end of the ping", || !is_running(&pid));
}

#[test]
fn clear_and_disconnect_are_answered_in_lines_and_frames() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut line = server.line(ip);
        line.send("CLEAR");
        assert_eq!(line.next(), "\x1b[H\x1b[2J\x1b[3J");
        line.send("disconnect");
        assert_eq!(line.rest_text(), "goodbye\n");
        let mut framed = server.framed(ip, "alice");
        framed.request(1, json!({"op": "clear"}));
        let answer = framed.answer(1);
        assert_eq!(answer.text(), "\x1b[H\x1b[2J\x1b[3J\n");
        framed.request(2, json!({"op": "disconnect"}));
        assert_eq!(framed.next(), News::End(2, json!({"outcome": "done"})));
        assert_eq!(framed.next(), News::Goodbye(None));
        assert_eq!(framed.next(), News::Closed);
    }
}

/// Connects as soon as that is possible.
fn reconnect(server: &Server, ip: IpAddr) -> Line {
    let begun = Instant::now();
    loop {
        match TcpStream::connect_timeout(&server.address(ip), PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                return Line::new(stream);
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                assert!(begun.elapsed() < Duration::from_secs(1), "nobody listens on {ip}");
            }
            Err(error) => panic!("{ip}: {error}"),
        }
    }
}

#[test]
fn a_reset_tells_everybody_ends_commands_and_listens_again_within_a_second() {
    let mut server = Server::start();
    for ip in FAMILIES {
        let [v6, v4] = FAMILIES;
        let (mut alice, mut bob) = (server.user(ip, "alice"), server.user(v4, "bob"));
        let mut nameless = server.line(v6);
        nameless.send("run echo $$; exec sleep 1000");
        let pid = nameless.next();
        let mut framed = server.framed(v6, "carol");
        framed.run(1, "sleep 1000");
        framed.request(2, json!({"op": "info", "interval_ms": 60_000}));
        let silent = server.connect(v4);
        let before = listening(&server);
        let begun = Instant::now();
        alice.send("Reset");
        let why = "error reset: all sessions were ended by alice; connect again\n";
        assert_eq!(alice.rest_text(), why);
        assert_eq!(bob.rest_text(), why);
        assert!(nameless.rest_text().ends_with(why));
        let News::Goodbye(Some(goodbye)) = framed.next() else { panic!("a goodbye is due") };
        assert_eq!(goodbye["code"], "reset");
        assert_eq!(framed.next(), News::Closed);
        assert_eq!(Line::new(silent).rest_text(), "");
        for ip in FAMILIES {
            let mut again = reconnect(&server, ip);
            let name = if ip == v6 { "alice" } else { "bob" };
            again.send(&format!("user {name}"));
            assert_eq!(again.next(), format!("welcome {name}"));
        }
        assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
        let after = listening(&server);
        assert_eq!((before.len(), after.len()), (2, 2), "a listener of each family");
        assert!(before.iter().all(|socket| !after.contains(socket)), "they are new ones");
        await_true("the end of the command", || !is_running(&pid));
        server.assert_alive();
        await_true("both are gone before the next round", || {
            let mut line = server.line(v6);
            line.send("who");
            line.next() == "[0 users]"
        });
    }
}

/// The inodes of the sockets that listen on the port of the server.
fn listening(server: &Server) -> Vec<String> {
    let port = format!(":{:04X}", server.port);
    let tables = ["/proc/net/tcp6", "/proc/net/tcp"].map(fs::read_to_string);
    let rows: Vec<String> = tables
        .into_iter()
        .flatten()
        .flat_map(|it| it.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let listens = |row: &&String| {
        let words: Vec<&str> = row.split_whitespace().collect();
        words.get(1).is_some_and(|own| own.ends_with(&port)) && words.get(3) == Some(&"0A")
    };
    let inode = |row: &String| row.split_whitespace().nth(9).map(str::to_owned);
    rows.iter().filter(listens).filter_map(inode).collect()
}

#[test]
fn a_kill_tells_everybody_and_ends_the_server_with_0() {
    for ip in FAMILIES {
        let mut server = Server::start();
        let mut framed = server.framed(ip, "alice");
        let mut bob = server.user(FAMILIES[1], "bob");
        let mut nameless = server.line(FAMILIES[0]);
        nameless.send("run echo $$; exec sleep 1000");
        let pid = nameless.next();
        let begun = Instant::now();
        framed.request(1, json!({"op": "kill"}));
        assert_eq!(framed.next(), News::End(1, json!({"outcome": "done"})));
        let News::Goodbye(Some(goodbye)) = framed.next() else { panic!("a goodbye is due") };
        assert_eq!(goodbye["code"], "shutting-down");
        assert_eq!(goodbye["text"], "the server was stopped by alice");
        assert_eq!(bob.rest_text(), "error shutting-down: the server was stopped by alice\n");
        assert!(nameless.rest_text().ends_with("the server was stopped by alice\n"));
        drop((framed, bob, nameless));
        assert_eq!(server.wait().code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
        assert!(!is_running(&pid), "its commands are ended first");
    }
}

#[test]
fn words_that_begin_a_text_do_nothing_but_begin_it() {
    let mut server = Server::start();
    let (mut alice, mut bob) = (server.user(FAMILIES[0], "alice"), server.user(FAMILIES[1], "bob"));
    for text in [
        "kill",
        "kill the lights",
        "reset it, please",
        "name your price",
        "Clear?",
        "clear now",
        "ping me",
        "ping ::1",
        "disconnect the cable",
        "help me",
        "who is there",
        "python --version",
        "info: nothing",
    ] {
        alice.send(&format!("{text}|bob"));
        assert_eq!(bob.next(), format!("alice|{text}"));
    }
    // And nobody was told anything besides.
    for user in [&mut alice, &mut bob] {
        user.send("echo nothing else");
        assert_eq!(user.next(), "nothing else");
    }
    for line in ["kill them all", "Reset it", "ip addr", "python", "quit it"] {
        alice.send(line);
        let answer = alice.next();
        assert!(answer.starts_with("error bad-arguments: "), "{line} gave {answer}");
        let word = line.split(' ').next().expect("a word").to_lowercase();
        assert!(answer.contains(&word), "{line} gave {answer}");
    }
    alice.send("echo nothing else");
    assert_eq!(alice.next(), "nothing else");
    server.assert_alive();
}

#[test]
fn a_folder_of_100_000_entries_stalls_nobody() {
    let server = Server::start();
    fs::create_dir(server.path("many")).expect("a folder");
    for number in 0..100_000 {
        fs::File::create(server.path(&format!("many/entry-{number:06}"))).expect("a file");
    }
    let canary = Canary::start(&server);
    for ip in FAMILIES {
        let mut line = server.line(ip);
        line.send("ls many");
        let lines = line.lines(100_001);
        assert!(lines[0].ends_with(" entry-000000") && lines[99_999].ends_with(" entry-099999"));
        assert_eq!(lines[100_000], "[100000 entries]");
        let reply = server.json(ip).ask(&json!({"op": "ls", "path": "many", "id": 1}));
        assert_eq!(reply["count"], 100_000);
        assert_eq!(reply["entries"][99_999]["name"], "entry-099999");
    }
    canary.stop();
}
