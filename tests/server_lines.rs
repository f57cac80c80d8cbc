//! The line dialect of a real server, as people with `nc` meet it.

mod process;

use std::time::Duration;

use process::{FAMILIES, Server};

const MOMENT: Duration = Duration::from_millis(100);

#[test]
fn every_verb_is_answered_before_a_half_closed_connection_ends() {
    let server = Server::start();
    server.put("readme.txt", b"read me\nto the end");
    std::fs::create_dir(server.path("folder")).expect("a folder");
    for ip in FAMILIES {
        for (request, answer) in [
            ("echo hello  there", "hello  there\n"),
            ("run echo out", "out\n[exit 0]\n"),
            ("run printf x; exit 7", "x\n[exit 7]\n"),
            ("run kill -9 $$", "[signal 9]\n"),
            ("run echo a b | tr a-z A-Z", "A B\n[exit 0]\n"),
            ("download readme.txt", "file 18 readme.txt\nread me\nto the end"),
            ("user alice\nwho", "welcome alice\nalice\n[1 users]\n"),
            ("user alice secret\nquit", "welcome alice\ngoodbye\n"),
            ("quit\nrun echo never", "goodbye\n"),
            ("ls folder", "[0 entries]\n"),
        ] {
            let mut line = server.line(ip);
            line.send(request);
            line.half_close();
            assert_eq!(line.rest_text(), answer, "{request}");
        }
        let mut line = server.line(ip);
        line.send("ls");
        line.half_close();
        let listing = line.rest_text();
        let lines: Vec<_> = listing.lines().collect();
        assert!(lines[0].starts_with("0 20") && lines[0].ends_with("Z folder/"), "{listing}");
        assert!(lines[1].starts_with("18 20") && lines[1].ends_with("Z readme.txt"), "{listing}");
        assert_eq!(lines[2..], ["[2 entries]"]);
        let mut line = server.line(ip);
        line.send("help");
        line.half_close();
        let help = line.rest_text();
        for verb in ["user", "msg", "download", "run", "ls", "who", "echo", "help", "quit"] {
            assert!(help.lines().any(|line| line.starts_with(verb)), "{verb} in {help}");
        }
    }
}

#[test]
fn the_last_line_needs_no_end_and_a_request_may_end_in_cr_lf() {
    let server = Server::start();
    for ip in FAMILIES {
        for (request, answer) in [
            (&b"run echo x"[..], "x\n[exit 0]\n"),
            (b"echo one\r\necho two\r\n", "one\ntwo\n"),
            (b"\r\n\n  \necho three\r\n", "three\n"),
            (b"who", "[0 users]\n"),
            (b"P", "error unknown-command: "),
            (b"", ""),
        ] {
            let mut line = server.line(ip);
            line.send_bytes(request);
            line.half_close();
            let said = line.rest_text();
            let is_it =
                if answer.ends_with(' ') { said.starts_with(answer) } else { said == answer };
            assert!(is_it, "{said:?} for {:?}", String::from_utf8_lossy(request));
        }
    }
}

#[test]
fn a_request_may_come_byte_by_byte_and_many_at_once() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut line = server.line(ip);
        for byte in b"echo slowly\r\n" {
            line.send_bytes(&[*byte]);
        }
        assert_eq!(line.next(), "slowly");
        let many: String = (0..1000).map(|number| format!("echo {number}\n")).collect();
        line.send_bytes(many.as_bytes());
        for number in 0..1000 {
            assert_eq!(line.next(), number.to_string());
        }
    }
}

#[test]
fn requests_behind_a_command_wait_for_its_end() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut line = server.line(ip);
        line.send("run sleep 0.1; echo first\necho second\nrun echo third\necho fourth");
        line.half_close();
        assert_eq!(line.rest_text(), "first\n[exit 0]\nsecond\nthird\n[exit 0]\nfourth\n");
    }
}

#[test]
fn what_is_no_request_is_named_and_the_connection_lives() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut line = server.line(ip);
        line.send("echo first");
        assert_eq!(line.next(), "first");
        for (request, code) in [
            (&b"RUN date"[..], "unknown-command"),
            (b"hello", "unknown-command"),
            (b"hello|bob", "not-named"),
            (b"user ..", "bad-name"),
            (b"user", "bad-name"),
            (b"user admin|x", "bad-name"),
            (b"run", "bad-arguments"),
            (b"msg bob", "bad-arguments"),
            (b"|bob", "bad-arguments"),
            (b"hello|", "bad-arguments"),
            (b"download", "bad-path"),
            (b"download ../x", "bad-path"),
            (b"download nothing", "no-such-file"),
            (b"ls nothing", "no-such-file"),
            (b"who is there", "bad-arguments"),
            (b"echo \xfe\xfe", "bad-text"),
            (b"echo a\0b", "bad-text"),
            (b"echo a\rb", "bad-text"),
            (b"echo \xe2\x80\xa8", "bad-text"),
        ] {
            line.send_bytes(&[request, b"\n"].concat());
            let said = line.next();
            let request = String::from_utf8_lossy(request);
            assert!(said.starts_with(&format!("error {code}: ")), "{said} for {request:?}");
        }
        line.send("user bob\nuser bob\nhello|bob\nhello|nobody\n1|a,b,a");
        let said = line.lines(6);
        let code = |line: &'_ str| line.split([' ', ':']).nth(1).map(str::to_owned);
        let codes: Vec<_> = said.iter().filter_map(|line| code(line)).collect();
        let no_such = "no-such-user";
        assert_eq!(codes, ["bob", "already-named", "bad-arguments", no_such, no_such, no_such]);
        line.send("quit");
        assert_eq!(line.rest_text(), "goodbye\n");
    }
}

#[test]
fn a_name_belongs_to_one_and_is_free_when_its_owner_leaves() {
    let server = Server::start();
    let [v6, v4] = FAMILIES;
    let mut alice = server.user(v6, "alice");
    let mut other = server.line(v4);
    other.send("user alice");
    assert!(other.next().starts_with("error name-taken: "));
    // Case matters, and a refused one may choose again.
    other.send("user Alice");
    assert_eq!(other.next(), "welcome Alice");
    alice.send("quit");
    assert_eq!(alice.rest_text(), "goodbye\n");
    let mut again = server.user(v4, "alice");
    again.send("who");
    assert_eq!(again.lines(3), ["Alice", "alice", "[2 users]"]);
}

#[test]
fn chat_waits_for_the_end_of_a_file_and_of_a_half_line() {
    let server = Server::start();
    server.fifo("go");
    let size = 8 * 1024 * 1024;
    server.put("big", &process::noise(1, size));
    let [v6, v4] = FAMILIES;
    for (ip, other) in [(v6, v4), (v4, v6)] {
        let mut reader = server.user(ip, &format!("reader{}", ip.is_ipv6()));
        let name = format!("writer{}", ip.is_ipv6());
        let mut writer = server.user(other, &name);
        reader.send("download big");
        assert_eq!(reader.next(), format!("file {size} big"));
        writer.send(&format!("now|reader{}\necho taken", ip.is_ipv6()));
        assert_eq!(writer.next(), "taken");
        assert_eq!(reader.hash_of(size as u64), blake3::hash(&process::noise(1, size)));
        assert_eq!(reader.next(), format!("{name}|now"));

        reader.send("run printf half; cat go; echo line");
        assert_eq!(reader.exactly(4), b"half");
        writer.send(&format!("now|reader{}\necho taken", ip.is_ipv6()));
        assert_eq!(writer.next(), "taken");
        reader.assert_silent(MOMENT);
        std::fs::write(server.path("go"), "").expect("the command reads it");
        assert_eq!(reader.next(), "line");
        assert_eq!(reader.next(), format!("{name}|now"));
        assert_eq!(reader.next(), "[exit 0]");
    }
}

#[test]
fn other_dialects_later_on_a_line_end_the_connection() {
    let server = Server::start();
    for ip in FAMILIES {
        for foreign in ["{\"method\": \"id\", \"id\": 1}", "GET / HTTP/1.1", "Host: here"] {
            let mut line = server.line(ip);
            line.send(&format!("echo lines\n{foreign}\nrun touch never"));
            assert_eq!(line.next(), "lines");
            assert!(line.next().starts_with("error protocol: "), "{foreign}");
            assert_eq!(line.rest_text(), "");
        }
    }
    assert!(!server.path("never").exists());
}
