//! Hostile, broken and clumsy peers against a real server.

mod process;

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::TcpStream,
    process::{ChildStdout, Stdio},
    thread,
    time::{Duration, Instant},
};

use process::{
    Canary, FAMILIES, Framed, Line, News, Server, await_true, noise, place::Place, reset_on_close,
};
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use serde_json::json;
use sixfour::wire::frame::{self, client, server as said};

#[test]
fn http_gets_a_page_and_its_body_runs_nothing() {
    let mut server = Server::start();
    for ip in FAMILIES {
        for request in [
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "PUT ",
            "OPTIONS * HTTP/1.1\n",
        ] {
            let mut line = server.line(ip);
            line.send_bytes(request.as_bytes());
            line.send_bytes(b"user mallory\nrun touch never\nrun touch never\n");
            let answer = line.rest_text();
            assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        }
    }
    assert!(!server.path("never").exists());
    server.assert_alive();
}

#[test]
fn dialects_that_are_not_served_get_an_answer_in_their_own_terms() {
    let mut server = Server::start();
    for ip in FAMILIES {
        let mut tls = server.line(ip);
        tls.send_bytes(&[&[0x16, 3, 1, 0, 200, 1, 0, 0, 196][..], &noise(1, 196)].concat());
        // A hello of which nothing makes sense. A fatal alert: decode_error.
        assert_eq!(tls.rest(), [0x15, 3, 3, 0, 2, 2, 50]);

        let mut old = Framed::begin(server.connect(ip));
        old.send(client::HELLO, 0, br#"{"version": 99, "user": "old"}"#);
        let (News::Error(0, why) | News::Goodbye(Some(why))) = old.next() else {
            panic!("no reason")
        };
        assert_eq!(why["code"], "not-supported", "{why}");
    }
    assert!(!server.path("never").exists());
    server.assert_alive();
}

#[test]
fn frames_that_make_no_sense_end_their_connection_alone() {
    let mut server = Server::start();
    let canary = Canary::start(&server);
    for ip in FAMILIES {
        let frames: Vec<Vec<u8>> = {
            let frame = |kind, body: &[u8]| {
                let mut bytes = Vec::new();
                frame::put(&mut bytes, kind, 1, body);
                bytes
            };
            let mut huge = frame(client::REQUEST, b"");
            huge[1..4].copy_from_slice(&[0xff; 3]);
            vec![
                frame(said::WELCOME, b"{}"),
                frame(said::DELIVERED, b"{}"),
                frame(said::DATA, b"x"),
                frame(0, b""),
                frame(0xff, b""),
                frame(client::MESSAGE, b"\xff"),
                frame(client::CREDIT, b"1"),
                frame(client::PING, b"1"),
                huge,
            ]
        };
        for bytes in &frames {
            let mut logged_in = server.framed(ip, "peer");
            logged_in.stream().write_all(bytes).expect("it is taken");
            let News::Goodbye(Some(why)) = logged_in.next() else { panic!("no goodbye") };
            assert_eq!(why["code"], "protocol", "{why}");
            assert_eq!(logged_in.next(), News::Closed);

            let mut first = Framed::begin(server.connect(ip));
            first.stream().write_all(bytes).expect("it is taken");
            let News::Goodbye(Some(why)) = first.next() else { panic!("no goodbye") };
            assert_eq!(why["code"], "protocol", "{why}");
            assert_eq!(first.next(), News::Closed);
        }
        let mut eager = Framed::begin(server.connect(ip));
        eager.run(1, "touch never");
        let News::Goodbye(Some(_)) = eager.next() else { panic!("no goodbye") };
    }
    assert!(!server.path("never").exists());
    canary.stop();
    server.assert_alive();
}

#[test]
fn an_endless_first_line_ends_at_4_kib() {
    let mut server = Server::start();
    let before = server.resident_kib();
    for ip in FAMILIES {
        let mut line = server.line(ip);
        let sent = line.stream().write(&vec![b'a'; 8 * 1024 * 1024]);
        assert!(sent.is_ok());
        assert!(line.next().starts_with("error line-too-long: "));
        assert_eq!(line.rest_until_broken(), b"");
    }
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 1024, "{grown} KiB more");
    server.assert_alive();
}

#[test]
fn the_last_words_arrive_although_the_peer_still_sends() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut line = server.line(ip);
        line.send("echo one\nGET / HTTP/1.1");
        for _ in 0..100 {
            // Far more than the kernel would keep unread.
            if line.stream().write_all(&[b'x'; 64 * 1024]).is_err() {
                break;
            }
        }
        assert_eq!(line.next(), "one");
        assert!(line.next().starts_with("error protocol: "));
    }
}

#[test]
fn random_bytes_harm_nobody() {
    let mut server = Server::start();
    let canary = Canary::start(&server);
    let before = server.descriptors();
    let heads: [&[u8]; 5] = [b"", &frame::MAGIC, b"{", b"user x\n", b"\x16\x03\x01"];
    for number in 0..200 {
        let mut stream = server.connect(FAMILIES[number % 2]);
        let bytes = [heads[number % heads.len()], &noise(number as u64, 64 * 1024)].concat();
        // Whether all of it is taken is the server's affair.
        let _ = stream.write_all(&bytes);
        if number % 3 == 0 {
            reset_on_close(&stream);
        } else if number % 3 == 1 {
            let _ = stream.shutdown(std::net::Shutdown::Write);
            drain(&mut stream);
        }
    }
    canary.stop();
    server.assert_alive();
    await_true("all descriptors are closed", || server.descriptors() <= before);
    assert!(!server.log().contains("panic"), "{}", server.log());
}

fn drain(stream: &mut TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            Err(error) => panic!("neither an end nor a reset: {error}"),
        }
    }
}

#[test]
fn a_reset_in_any_state_frees_everything() {
    let mut server = Server::start();
    server.put("big", &noise(2, 16 * 1024 * 1024));
    let canary = Canary::start(&server);
    let before = server.descriptors();
    for ip in FAMILIES {
        for request in ["", "u", "user a\n", "user a\necho", "download big\n", "run yes\n", "ls\n"]
        {
            for has_heard in [true, false] {
                let mut line = server.line(ip);
                line.send_bytes(request.as_bytes());
                if has_heard && request.ends_with('\n') {
                    line.next();
                }
                line.reset();
            }
        }
        for magic in 0..frame::MAGIC.len() {
            let stream = server.connect(ip);
            (&stream).write_all(&frame::MAGIC[..magic]).expect("it is taken");
            reset_on_close(&stream);
        }
        for busy in [false, true] {
            let mut framed = server.framed(ip, "framed");
            if busy {
                framed.run(1, "yes");
                framed.download(2, "big");
                framed.request(3, json!({"op": "run", "command": "cat", "stdin": true}));
                framed.send(client::DATA, 3, b"input");
                framed.next();
            }
            framed.reset();
            await_true("the name is free", || {
                let mut line = server.line(ip);
                line.send("msg framed x\nuser test\nmsg framed x");
                let lines = line.lines(3);
                lines[2].starts_with("error no-such-user")
            });
        }
    }
    canary.stop();
    await_true("all descriptors are closed", || server.descriptors() <= before);
    await_true("no zombies are left", || server.zombies() == 0);
    await_true("no commands are left", || server.children().len() == 1);
    server.assert_alive();
}

#[test]
fn two_thousand_connections_come_and_go() {
    let mut server = Server::start();
    let before = server.descriptors();
    let canary = Canary::start(&server);
    for number in 0..2000 {
        let stream = server.connect(FAMILIES[number % 2]);
        match number % 4 {
            0 => {}
            1 => reset_on_close(&stream),
            2 => drop((&stream).write_all(b"user somebody\n")),
            _ => drop((&stream).write_all(b"wh")),
        }
    }
    canary.stop();
    await_true("all descriptors are closed", || server.descriptors() <= before);
    server.assert_alive();
}

#[test]
fn a_flood_of_strangers_takes_no_descriptor_from_those_who_are_in() {
    let mut server = Server::start_after("ulimit -n 64");
    server.put("file", b"content");
    let [v6, v4] = FAMILIES;
    let mut early = server.user(v6, "early");
    let mut objects = server.json(v6);
    objects.login("objects");
    let flood: Vec<Line> = (0..300).map(|number| server.line(FAMILIES[number % 2])).collect();
    // Somebody comes in among them, and is served as all who are in.
    let mut late = server.user(v4, "late");
    for (name, user, other) in [("early", &mut early, "late"), ("late", &mut late, "early")] {
        user.send(&format!("run echo {name}"));
        assert_eq!(user.lines(2), [name, "[exit 0]"]);
        user.send("ls");
        assert!(user.lines(2)[0].ends_with(" file"), "{other}");
        user.send("download file");
        assert_eq!(user.next(), "file 7 file");
        assert_eq!(user.exactly(7), b"content");
    }
    early.send("hello|late");
    assert_eq!(late.next(), "early|hello");
    let reply = objects.ask(&json!({"method": "echo yes", "id": 1}));
    assert_eq!(reply["stdout"], "yes\n", "{reply}");
    let ticks = server.processor_ticks();
    thread::sleep(Duration::from_millis(600));
    let used = server.processor_ticks() - ticks;
    assert!(used < 20, "{used} ticks of 10 ms while it only waits");
    drop(flood);
    server.assert_alive();
}

/// Sets how many descriptors the server may have open.
fn set_descriptors(server: &Server, current: Option<u64>) {
    let limit = Rlimit { current, ..getrlimit(Resource::Nofile) };
    prlimit(Some(server.pid()), Resource::Nofile, limit).expect("our own child");
}

#[test]
fn want_of_descriptors_is_said_once_and_its_end_as_well() {
    let server = Server::start();
    let usual = getrlimit(Resource::Nofile).current;
    for (at, ip) in FAMILIES.into_iter().enumerate() {
        let mut user = server.user(ip, "user");
        // The limit concerns the number of a descriptor: none below the lowest free one is left.
        let is_open = |number: &u64| {
            let path = format!("/proc/{}/fd/{number}", server.pid());
            std::path::Path::new(&path).is_symlink()
        };
        set_descriptors(&server, (0..).find(|number| !is_open(number)));
        let mut waiting = server.line(ip);
        waiting.send("echo at last");
        let count = |text: &str| server.log().matches(text).count();
        await_true("it is said", || count("no new connections for now") == at + 1);
        // It tries again and again, which is nothing new to anybody.
        let since = Instant::now();
        while since.elapsed() < Duration::from_millis(700) {
            user.send("echo served");
            assert_eq!(user.next(), "served");
        }
        assert_eq!(count("no new connections for now"), at + 1);
        assert_eq!(count("new connections are accepted again"), at);
        set_descriptors(&server, usual);
        assert_eq!(waiting.next(), "at last");
        await_true("its end is said", || count("new connections are accepted again") == at + 1);
        user.send("quit");
        assert_eq!(user.rest_text(), "goodbye\n");
    }
}

/// What a hostile peer of this kind says and then leaves.
fn hostile_beginning(kind: usize) -> Vec<u8> {
    match kind % 8 {
        0 => Vec::new(),
        1 => b"user keep".to_vec(),
        2 => b"user nobody wrong\n".to_vec(),
        3 => [&[0x16, 3, 1, 0, 200, 1, 0, 0, 196][..], &noise(1, 90)].concat(),
        4 => br#"{"method": "login", "params": {"#.to_vec(),
        5 => [b"GET /".to_vec(), vec![b'a'; 3000]].concat(),
        6 => noise(kind as u64, 500),
        _ => b"upload 1000000 x\n".to_vec(),
    }
}

#[test]
fn those_who_are_in_are_served_amid_hostile_sockets_and_the_credentials_change() {
    let folder = process::folder();
    let put = |text: &str| {
        let path = folder.path().join("credentials.txt");
        std::fs::write(&path, text).expect("a file of the test");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(path, private).expect("our own file");
    };
    put("keeper k message,files,upload,run\n");
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", "ulimit -n 4096 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_server")]);
    command.args(["--port", "0"]).current_dir(folder.path());
    let mut server = Server::start_command(command);
    let login = |ip, name: &str, password: &str| {
        let mut line = server.line(ip);
        line.send(&format!("user {name} {password}"));
        assert_eq!(line.next(), format!("welcome {name}"));
        line
    };
    let [v6, v4] = FAMILIES;
    let mut keeper = login(v6, "keeper", "k");
    // Half of an upload goes before them, half amid them.
    let content = noise(64, 1 << 20);
    let (first, second) = content.split_at(content.len() / 2);
    keeper.send(&format!("upload {} big", content.len()));
    keeper.send_bytes(first);
    let ours = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = usize::try_from(ours / 2).unwrap_or(usize::MAX).min(1600);
    let flood: Vec<TcpStream> = (0..count)
        .map(|number| {
            let mut stream = server.connect(FAMILIES[number % 2]);
            drop(stream.write_all(&hostile_beginning(number / 2)));
            stream
        })
        .collect();
    keeper.send_bytes(second);
    assert_eq!(keeper.next(), "stored big");
    assert!(std::fs::read(server.path("big")).expect("it is there") == content);
    // Nobody among them, and nothing that they leave open, keeps the file from being read again.
    put("keeper k message,files,upload,run\nnewcomer n message\n");
    server.signal(rustix::process::Signal::HUP);
    server.await_log("2 users of credentials.txt are served");
    let mut newcomer = login(v4, "newcomer", "n");
    newcomer.send("hello|keeper");
    assert_eq!(keeper.next(), "newcomer|hello");
    keeper.send("run echo ran");
    assert_eq!(keeper.lines(2), ["ran", "[exit 0]"]);
    keeper.send("download big");
    assert_eq!(keeper.next(), format!("file {} big", content.len()));
    assert!(keeper.exactly(content.len()) == content);
    drop(flood);
    server.assert_alive();
}

#[test]
fn the_soft_limit_of_descriptors_is_raised_to_the_hard_one() {
    let server = Server::start_after("ulimit -Sn 64");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid().as_raw_nonzero()));
    let limits = limits.expect("it is ours");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|it| it.parse().ok()).collect();
    assert_eq!(numbers[0], numbers[1].min(32_768), "{line}");
}

#[test]
fn a_stopped_server_reads_what_waits_before_it_looks_at_the_clock() {
    let mut server = Server::start();
    for ip in FAMILIES {
        let mut waiting = server.line(ip);
        let mut user = server.framed(ip, "user");
        server.signal(rustix::process::Signal::STOP);
        waiting.send("echo in time");
        user.run(1, "echo in time");
        let begun = Instant::now();
        thread::sleep(Duration::from_millis(200));
        server.signal(rustix::process::Signal::CONT);
        assert_eq!(waiting.next(), "in time");
        assert_eq!(user.answer(1).text(), "in time\n");
        assert!(begun.elapsed() < Duration::from_secs(2));
        user.send(client::GOODBYE, 0, b"");
        assert_eq!(user.next(), News::Goodbye(None));
    }
    server.assert_alive();
}

#[test]
#[ignore = "takes 11 s: cargo test --test server_faults -- --ignored"]
fn a_server_that_was_stopped_beyond_a_deadline_reads_before_it_looks_at_the_clock() {
    let mut server = Server::start();
    let mut lines = FAMILIES.map(|ip| server.line(ip));
    lines.iter_mut().for_each(|line| line.send_bytes(b"echo in "));
    // They have come before these, and so their first requests are due in less than 10 s.
    server.assert_alive();
    server.signal(rustix::process::Signal::STOP);
    lines.iter_mut().for_each(|line| line.send("time"));
    thread::sleep(Duration::from_millis(10_500));
    server.signal(rustix::process::Signal::CONT);
    for line in &mut lines {
        assert_eq!(line.next(), "in time");
    }
    server.assert_alive();
}

#[test]
#[ignore = "takes 11 s: cargo test --test server_faults -- --ignored"]
fn slow_beginners_are_cut_off_after_ten_seconds() {
    let mut server = Server::start();
    let canary = Canary::start(&server);
    let before = server.descriptors();
    let begun = Instant::now();
    let mut slow: Vec<Line> = (0..200).map(|it| server.line(FAMILIES[it % 2])).collect();
    while begun.elapsed() < Duration::from_secs(9) {
        for line in &mut slow {
            line.send_bytes(b"a");
        }
        thread::sleep(Duration::from_secs(1));
    }
    for line in &mut slow {
        assert!(line.next().starts_with("error timed-out: "));
        let after = begun.elapsed().as_millis();
        assert!((9_900..13_000).contains(&after), "{after} ms");
    }
    drop(slow);
    await_true("all descriptors are closed", || server.descriptors() <= before);
    canary.stop();
    server.assert_alive();
}

/// A server whose debug build has a fault to be provoked by a line.
fn start_provoked() -> Server {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(["--port", "0"]).env("SIXFOUR_PROVOKE_FAULTS", "1");
    Server::start_command(command)
}

#[test]
fn a_session_that_meets_a_fault_of_the_server_ends_alone() {
    let mut server = start_provoked();
    for (at, ip) in FAMILIES.into_iter().enumerate() {
        let mut other = server.user(ip, &format!("other{at}"));
        let mut runner = server.framed(ip, &format!("runner{at}"));
        let cat = json!({"op": "run", "command": "cat", "stdin": true});
        runner.send(client::REQUEST, 1, cat.to_string().as_bytes());
        let mut meets = server.user(ip, &format!("meets{at}"));
        meets.send("provoke fault in session");
        let why = meets.rest_text();
        let number = at + 1;
        assert!(why.starts_with("error internal: a fault of the server, number "), "{why}");
        assert!(why.contains(&format!("number {number} in its log")), "{why}");
        server.await_log(&format!("fault {number}: a panic at the input of session"));
        // The name is free again, and whoever had something under way goes on.
        server.user(ip, &format!("meets{at}"));
        other.send("echo still here");
        assert_eq!(other.next(), "still here");
        runner.send(client::DATA, 1, b"fed");
        runner.send(client::END, 1, b"");
        let is_fed = |news: &News| matches!(news, News::Stdout(1, bytes) if bytes == b"fed");
        assert!((0..3).any(|_| is_fed(&runner.next())), "the command goes on");
    }
    server.assert_alive();
}

#[test]
fn a_server_that_cannot_rely_on_itself_tells_everybody_and_ends() {
    for ip in FAMILIES {
        let mut server = start_provoked();
        let (mut one, mut two) = (server.user(ip, "one"), server.user(ip, "two"));
        let mut runner = server.framed(ip, "runner");
        let sleep = json!({"op": "run", "command": "echo $$; exec sleep 1000"});
        runner.send(client::REQUEST, 1, sleep.to_string().as_bytes());
        let News::Stdout(1, pid) = runner.next() else { panic!("the command speaks") };
        let pid = String::from_utf8(pid).expect("a number").trim().to_owned();
        one.send("provoke fault in hub");
        for text in [one.rest_text(), two.rest_text()] {
            assert!(text.starts_with("error internal: a fault of the server"), "{text}");
        }
        assert!(matches!(runner.next(), News::Goodbye(Some(why)) if why["code"] == "internal"));
        assert_eq!(server.wait().code(), Some(1));
        assert!(server.log().contains("fault 1"), "{}", server.log());
        await_true("the command is ended", || !process::is_running(&pid));
    }
}

/// Files that nobody can read while this is alive: whoever tries waits for leave that never comes
/// (fanotify(7)), as on a disk that hangs.
struct Hanging(std::process::Child);

impl Hanging {
    /// `None`, with the reason printed, where this host does not allow it.
    fn start(paths: &[std::path::PathBuf]) -> Option<(Hanging, BufReader<ChildStdout>)> {
        // Each number is that of x86-64. A line is printed for each one that waits.
        let script = r#"
            my $f = syscall(300, 0x4, 0); die "fanotify_init: $!" if $f < 0;
            for my $p (@ARGV) {
                syscall(301, $f, 1, 0x20000, -100, $p) == 0 or die "fanotify_mark: $!";
            }
            $| = 1; print "ready\n"; open(my $h, "<&=", $f) or die $!;
            while (my $n = sysread($h, my $b, 4096)) { print "waits\n" x ($n / 24); }"#;
        let child = std::process::Command::new("perl")
            .args(["-e", script])
            .args(paths)
            .stdout(Stdio::piped())
            .spawn();
        let (true, Ok(mut child)) = (cfg!(target_arch = "x86_64"), child) else {
            println!("skipped: no perl here, or another machine than x86-64");
            return None;
        };
        let mut told = BufReader::new(child.stdout.take().expect("a pipe"));
        let hanging = Hanging(child);
        if await_lines(&mut told, 1) == 0 {
            println!("skipped: only root may keep others from reading, on a kernel that can");
            return None;
        }
        Some((hanging, told))
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads so many lines, or all that there are.
fn await_lines(from: &mut BufReader<ChildStdout>, count: usize) -> usize {
    (0..count).take_while(|_| from.read_line(&mut String::new()).is_ok_and(|it| it > 0)).count()
}

#[test]
fn files_on_a_disk_that_hangs_hold_up_no_other_file() {
    let mut server = Server::start();
    server.put("fine", b"content");
    let names: Vec<String> = (0..4).map(|number| format!("hangs-{number}")).collect();
    names.iter().for_each(|name| server.put(name, b"late"));
    let paths: Vec<_> = names.iter().map(|name| server.path(name)).collect();
    let Some((hanging, mut told)) = Hanging::start(&paths) else { return };
    thread::scope(|scope| {
        let server = &server;
        let users = ["one", "two", "three", "four"];
        let clients: Vec<_> = names
            .iter()
            .zip(users)
            .enumerate()
            .map(|(at, (name, user))| {
                scope.spawn(move || {
                    let place = Place::new(user, FAMILIES[at % 2]);
                    place.run(server, &["download", name]).assert_code(0);
                    place.read(&format!("client_{name}"))
                })
            })
            .collect();
        // More of them wait than there are threads for transfers.
        assert_eq!(await_lines(&mut told, 4), 4);
        for ip in FAMILIES {
            let place = Place::new("five", ip);
            place.run(server, &["download", "fine"]).assert_code(0);
            assert_eq!(place.read("client_fine"), b"content");
            let mut line = server.line(ip);
            line.send("download fine");
            assert_eq!((line.next().as_str(), line.exactly(7)), ("file 7 fine", b"content".into()));
        }
        drop(hanging);
        for client in clients {
            assert_eq!(client.join().expect("it ends"), b"late");
        }
    });
    server.assert_alive();
}
