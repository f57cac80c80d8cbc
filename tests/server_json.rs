//! The JSON dialect of a real server, as programs meet it. Every object that the server sends is
//! held against the schema.

mod process;
#[path = "process/schema.rs"]
mod schema;

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonschema::Validator;
use process::{
    Canary, FAMILIES, Framed, Json, News, Server, await_true, is_running, noise, reset_on_close,
};
use rustix::process::Signal;
use schema::{assert_valid, schema};
use serde_json::{Value, json};

const MIB: usize = 1024 * 1024;
const MOMENT: Duration = Duration::from_millis(100);

/// A client whose every object is held against the schema.
fn client(server: &Server, ip: IpAddr) -> Json {
    static ANSWERS: OnceLock<Validator> = OnceLock::new();
    let mut json = server.json(ip);
    json.check = |object| {
        assert_valid(ANSWERS.get_or_init(|| schema("answer")), object, "an answer");
    };
    json
}

fn named(server: &Server, ip: IpAddr, name: &str) -> Json {
    let mut json = client(server, ip);
    json.login(name);
    json
}

fn bytes_of(value: &Value) -> Vec<u8> {
    match (value.as_str(), value["base64"].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(text)) => STANDARD.decode(text).expect("base64"),
        (None, None) => panic!("neither text nor bytes: {value}"),
    }
}

#[test]
fn one_object_without_a_newline_is_answered_by_one_object_in_one_read() {
    let server = Server::start();
    for ip in FAMILIES {
        for (request, reply) in [
            (r#"{"method":"echo hi","id":1}"#, r#"{"id":1,"result":0,"stdout":"hi\n","#),
            (r#"{"command":"exit 9","id":"x"}"#, r#"{"id":"x","result":9,"#),
            (r#"{"op":"echo","text":"t","id":null}"#, r#"{"id":null,"result":null,"#),
            (r#"{"id":5}"#, r#"{"id":5,"result":null,"stdout":"","stderr":"","errorcode":2,"#),
            (r#"{nonsense}"#, r#"{"id":null,"result":null,"stdout":"","stderr":"","errorcode":1,"#),
        ] {
            for half_close in [false, true] {
                let mut stream = server.connect(ip);
                stream.write_all(request.as_bytes()).expect("the server takes it");
                if half_close {
                    stream.shutdown(Shutdown::Write).expect("a half that can be closed");
                }
                let mut buffer = [0; 4096];
                let count = stream.read(&mut buffer).expect("a reply in time");
                let said = std::str::from_utf8(&buffer[..count]).expect("text");
                assert!(said.starts_with(reply) && said.ends_with("}\n"), "{request}: {said}");
                serde_json::from_str::<Value>(said).expect("exactly one object");
                if half_close {
                    assert_eq!(stream.read(&mut buffer).expect("the end"), 0, "and no more");
                }
            }
        }
    }
}

#[test]
fn a_short_python_script_gets_its_object() {
    let script = "import json, socket, sys\n\
        with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as s:\n    \
            s.sendall(json.dumps({'method': 'echo hi; exit 3', 'id': 'py'}).encode())\n    \
            reply = json.loads(s.recv(65536))\n\
        print(reply['id'], reply['result'], repr(reply['stdout']), reply['errorcode'])\n";
    let server = Server::start();
    for ip in FAMILIES {
        let mut python = std::process::Command::new("python3");
        python.args(["-c", script, &ip.to_string(), &server.port.to_string()]);
        let Ok(output) = python.output() else {
            return eprintln!("not tried, as this host has no python3");
        };
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(printed, "py 3 'hi\\n' 0\n", "{output:?}");
    }
}

#[test]
fn a_hundred_pipelined_commands_run_at_once_and_are_answered_once_each() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut user = client(&server, ip);
        let begun = Instant::now();
        let request = |id: usize| json!({"method": format!("sleep 0.3; echo {id}"), "id": id});
        let all: String = (0..100).map(|id| request(id).to_string()).collect();
        user.send_bytes(all.as_bytes());
        let mut ids = BTreeSet::new();
        for _ in 0..100 {
            let reply = user.next();
            let id = reply["id"].as_u64().expect("a number");
            assert_eq!(reply["stdout"], format!("{id}\n"));
            assert!(ids.insert(id), "{id} is answered twice");
        }
        assert!(begun.elapsed() < Duration::from_secs(12), "one by one it takes 30 s");
        assert_eq!(user.ask(&json!({"op": "ping", "id": "after"}))["id"], "after");
        // As many as may be at once, and the next request waits for one of them.
        let wait = json!({"method": "until [ -e go ]; do sleep 0.05; done", "id": 0}).to_string();
        user.send_bytes(format!("{}{}", wait.repeat(64), json!({"op": "who", "id": 1})).as_bytes());
        await_true("64 commands run", || server.children().len() == 65);
        user.assert_silent(MOMENT);
        server.put("go", b"");
        let replies: Vec<Value> = (0..65).map(|_| user.next()).collect();
        assert_eq!(replies.iter().filter(|reply| reply["id"] == 1).count(), 1);
        fs::remove_file(server.path("go")).expect("it is there");
    }
}

#[test]
fn objects_may_come_byte_by_byte_and_many_at_once() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut user = client(&server, ip);
        for byte in br#"{"op": "echo", "text": "}{\"\\", "id": "slow\"}"}"# {
            user.send_bytes(&[*byte]);
        }
        assert_eq!(user.next()["text"], "}{\"\\");
        let many: String = (0..1000)
            .map(|id| format!("{{\"op\":\"echo\",\"text\":\"{id}\",\"id\":{id}}}\n "))
            .collect();
        user.send_bytes(many.as_bytes());
        for id in 0..1000 {
            let reply = user.next();
            assert_eq!((&reply["id"], &reply["text"]), (&json!(id), &json!(id.to_string())));
        }
        // One of nearly a mebibyte is in many segments.
        let input = "x".repeat(MIB - 100);
        let reply = user.ask(&json!({"method": "wc -c", "stdin": input, "id": 1}));
        assert_eq!(reply["stdout"].as_str().map(str::trim), Some((MIB - 100).to_string().as_str()));
        // The first of a connection may be as large.
        let mut user = client(&server, ip);
        let reply = user.ask(&json!({"method": "wc -c", "stdin": input, "id": 1}));
        assert_eq!(reply["errorcode"], 0);
    }
}

#[test]
fn what_is_no_object_is_answered_and_the_connection_lives_where_its_end_is_known() {
    let mut server = Server::start();
    let canary = Canary::start(&server);
    let deep = [b"{\"a\":", &b"[".repeat(100_000)[..]].concat();
    let long = [b"{\"op\":\"echo\",\"id\":1,\"text\":\"", &b"x".repeat(10 * MIB)[..]].concat();
    for ip in FAMILIES {
        let mut user = client(&server, ip);
        for broken in [
            &b"{\"a\":}"[..],
            b"{\"id\":1,\"id\":2}",
            b"{\"id\":\"\\ud800\"}",
            b"{\"id\":\"\xff\"}",
            b"{\"id\":\"a\0b\"}",
            b"{\"a\":[1,2}",
        ] {
            user.send_bytes(broken);
            let reply = user.next();
            assert_eq!((&reply["id"], &reply["errorcode"]), (&json!(null), &json!(1)));
            assert_eq!(user.ask(&json!({"op": "ping", "id": 1}))["errorcode"], 0);
        }
        for fatal in [&deep[..], &long, b"}", b"[]", b"\xef\xbb{}", b"\0", b"GET / HTTP/1.1"] {
            let mut user = client(&server, ip);
            user.send(&json!({"op": "ping", "id": 1}));
            // The server may close before it has taken all of it.
            let _ = user.stream().write_all(fatal);
            let _ = user.stream().write_all(br#"{"method":"touch never","id":2}"#);
            assert_eq!(user.next()["id"], 1);
            let last = user.next();
            assert_eq!((&last["event"], &last["errorcode"]), (&json!("goodbye"), &json!(1)));
        }
        let mut user = client(&server, ip);
        user.send_bytes(b"{\"method\":\"ls\",\"id\":1");
        user.half_close();
        let rest = user.rest();
        assert_eq!((rest.len(), &rest[0]["errorcode"]), (1, &json!(1)));
    }
    assert!(!server.path("never").exists());
    canary.stop();
    server.assert_alive();
}

#[test]
fn a_dialect_is_never_changed() {
    let mut server = Server::start();
    for ip in FAMILIES {
        for foreign in
            ["run touch never\n", "POST / HTTP/1.1\r\n\r\n", "\x16\x03\x01\0", "\x06\x04sf"]
        {
            let mut user = client(&server, ip);
            assert_eq!(user.ask(&json!({"op": "ping", "id": 1}))["id"], 1);
            user.send_bytes(format!("{foreign}{{\"method\":\"touch never\",\"id\":1}}").as_bytes());
            let rest = user.rest();
            assert_eq!((rest.len(), &rest[0]["error"]["code"]), (1, &json!("protocol")));
        }
        let mut line = server.line(ip);
        line.send("echo lines\n{\"method\":\"touch never\",\"id\":1}\nrun touch never");
        assert_eq!(line.next(), "lines");
        assert!(line.next().starts_with("error protocol: "));
        let mut framed = server.framed(ip, "framed");
        (framed.stream()).write_all(b"{\"method\":\"touch never\",\"id\":1}").expect("it is taken");
        assert!(matches!(framed.next(), News::Goodbye(Some(why)) if why["code"] == "protocol"));
    }
    assert!(!server.path("never").exists());
    server.assert_alive();
}

#[test]
fn every_end_of_a_command_has_its_form() {
    let server = Server::start();
    server.put("plain", b"no program");
    for ip in FAMILIES {
        let mut user = client(&server, ip);
        for (command, result, errorcode) in [
            ("true", 0, 0),
            ("exit 255", 255, 0),
            ("exit 127", 127, 0),
            ("sh -c 'echo oops >&2; exit 127'", 127, 0),
            ("no-such-program-here", 127, 3),
            ("no/such/program -x", 127, 3),
            ("echo a; no-such-program-here", 127, 3),
            ("no-such-program-here; true", 0, 0),
            ("./plain", 126, 3),
            ("/", 126, 3),
            ("kill -9 $$", 137, 0),
            ("kill -TERM $$", 143, 0),
        ] {
            let reply = user.ask(&json!({"method": command, "id": command}));
            let told = (reply["result"].as_u64(), reply["errorcode"].as_u64());
            assert_eq!(told, (Some(result), Some(errorcode)), "{reply}");
            let signal = reply.get("signal").and_then(Value::as_u64);
            assert_eq!(signal, (command.starts_with("kill")).then(|| result - 128));
        }
        let reply = user.ask(&json!({"method": "printf 'a\\377'; printf ok >&2", "id": 1}));
        assert_eq!(bytes_of(&reply["stdout"]), b"a\xff");
        assert_eq!(reply["stderr"], "ok");
        let reply = user.ask(&json!({"method": "printf '\\0\\1\"'", "id": 1}));
        assert_eq!(reply["stdout"], "\0\u{1}\"");
        let reply = user.ask(&json!({"method": "cat", "stdin": {"base64": "/wAK"}, "id": 1}));
        assert_eq!(bytes_of(&reply["stdout"]), b"\xff\0\n");
        let begun = Instant::now();
        let slow = json!({"method": "echo a; sleep 1000", "timeout_ms": 100, "id": 1});
        let reply = user.ask(&slow);
        assert_eq!((&reply["stdout"], &reply["because"]), (&json!("a\n"), &json!("timed-out")));
        assert!(begun.elapsed() < Duration::from_secs(5));
        // A child in the background does not hold the reply.
        let reply = user.ask(&json!({"method": "sleep 1000 & echo $!", "id": 1}));
        let pid = reply["stdout"].as_str().expect("a number").trim().to_owned();
        assert!(is_running(&pid));
        user.ask(&json!({"method": format!("kill {pid}"), "id": 1}));
        await_true("the child is gone", || !is_running(&pid));
        // A folder that is gone: nothing can be started there.
        fs::create_dir(server.path("gone")).expect("a folder");
        assert!(user.ask(&json!({"method": "cd gone", "id": 1}))["directory"].is_string());
        fs::remove_dir(server.path("gone")).expect("it is there");
        let reply = user.ask(&json!({"method": "pwd", "id": 1}));
        assert_eq!((&reply["result"], &reply["errorcode"]), (&json!(null), &json!(4)));
        assert_eq!(reply["error"]["code"], "cannot-start");
    }
}

#[test]
fn endless_output_is_cut_off_and_its_group_ended() {
    let mut server = Server::start();
    let canary = Canary::start(&server);
    let text = "0123456789abcde".repeat(64);
    for ip in FAMILIES {
        // Eight megabytes are too much to be looked at closely in a test.
        let mut user = server.json(ip);
        let before = server.resident_kib();
        user.send(&json!({"method": format!("echo $$; exec yes {text} >&2"), "id": 1}));
        let reply = user.next_text();
        let end = r#","errorcode":4,"signal":15,"truncated":true,"because":"output-limit"}"#;
        assert!(reply.ends_with(end), "{}", &reply[reply.len() - 100..]);
        let (head, rest) = reply.split_once(r#"\n","stderr":""#).expect("both outputs");
        let pid = head.strip_prefix(r#"{"id":1,"result":143,"stdout":""#).expect("a number");
        assert!(!is_running(pid), "its group is ended");
        let lines = rest.matches(r#"\n"#).count();
        let output = pid.len() + 1 + rest.len() - end.len() - 1 - lines;
        assert_eq!(output, 8 * MIB, "the escape of a line end is a byte longer than that");
        // What the reply held, and a little for the allocator's sake.
        let grown = server.resident_kib().saturating_sub(before);
        assert!(grown < 40 * 1024, "{grown} KiB");
        // Exactly as much as fits is whole.
        let exact = format!("yes {text} | head -c {}", 8 * MIB);
        user.send(&json!({"method": exact, "id": 2}));
        assert!(user.next_text().ends_with(r#","errorcode":0}"#));
    }
    canary.stop();
    server.assert_alive();
}

#[test]
fn who_does_not_read_its_replies_holds_up_nobody_and_costs_little() {
    let mut server = Server::start();
    let canary = Canary::start(&server);
    let before = server.resident_kib();
    let mut lazy: Vec<Json> = FAMILIES.map(|ip| client(&server, ip)).into();
    let text = "0123456789abcdef".repeat(64);
    let large = format!("yes {text} | head -c 4000000");
    let large = json!({"method": large, "id": 1}).to_string();
    for user in &mut lazy {
        user.send_bytes(large.repeat(24).as_bytes());
    }
    for ip in FAMILIES {
        let mut user = client(&server, ip);
        for id in 0..20 {
            let reply = user.ask(&json!({"method": "echo x", "id": id}));
            assert_eq!(reply["stdout"], "x\n", "{reply}");
        }
    }
    // Two sessions of 24 MiB at most, and what the allocator keeps of it.
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 80 * 1024, "{grown} KiB");
    for user in &mut lazy {
        user.check = |_| {};
        for _ in 0..24 {
            let reply = user.next_text();
            assert!(reply.len() > 4_000_000 && reply.ends_with(r#","errorcode":0}"#));
        }
    }
    canary.stop();
    server.assert_alive();
}

#[test]
fn commands_are_cancelled_by_id_and_end_with_their_session() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut user = client(&server, ip);
        user.send(&json!({"method": "echo so far; exec sleep 1000", "id": {"a": 1}}));
        assert_eq!(user.next()["errorcode"], 2);
        for id in [json!("x"), json!(1.5), json!(null), json!(true)] {
            server.fifo("ready");
            user.send(&json!({"method": "echo so far; echo > ready; exec sleep 1000", "id": id}));
            fs::read(server.path("ready")).expect("it has written");
            fs::remove_file(server.path("ready")).expect("it is there");
            user.send(&json!({"op": "cancel", "target": id, "id": "c"}));
            let mut objects = [user.next(), user.next()];
            objects.sort_by_key(|object| object.get("because").is_some());
            assert_eq!(objects[0]["cancelled"], 1);
            assert_eq!(objects[1]["id"], id);
            assert_eq!(objects[1]["stdout"], "so far\n");
            assert_eq!((&objects[1]["signal"], &objects[1]["errorcode"]), (&json!(15), &json!(0)));
        }
        for in_order in [true, false] {
            let mut user = client(&server, ip);
            server.fifo("pid");
            user.send(&json!({"method": "echo $$ > pid; exec sleep 1000", "id": 1}));
            let pid = fs::read_to_string(server.path("pid")).expect("it has written");
            fs::remove_file(server.path("pid")).expect("it is there");
            match in_order {
                true => user.send(&json!({"op": "quit", "id": 2})),
                false => reset_on_close(user.stream()),
            }
            if in_order {
                assert_eq!(user.rest().len(), 1);
            }
            drop(user);
            await_true("the command is gone", || !is_running(pid.trim()));
        }
    }
}

#[test]
fn files_come_whole_in_the_reply_or_ahead_of_it() {
    let server = Server::start();
    let files = [
        ("empty", vec![]),
        ("text", "gr\u{fc}\u{df}e\n".into()),
        ("noise", noise(1, 70_000)),
        ("most", noise(2, MIB)),
        ("more", noise(3, MIB + 1)),
        ("large", noise(4, 5 * MIB + 12_345)),
    ];
    files.iter().for_each(|(name, content)| server.put(name, content));
    for ip in FAMILIES {
        let mut user = client(&server, ip);
        for (name, content) in &files {
            if content.len() == MIB {
                // So much is too much to be looked at closely in a test.
                user.check = |_| {};
            }
            user.send(&json!({"op": "download", "path": name, "id": name}));
            let mut got = Vec::new();
            let reply = loop {
                let object = user.next();
                assert_eq!(object["id"], *name);
                if object.get("event").is_none() {
                    break object;
                }
                assert_eq!(object["offset"], got.len());
                got.extend(bytes_of(&object["content"]));
            };
            assert_eq!(got.is_empty(), content.len() <= MIB, "{name}");
            got.extend(reply.get("content").map(bytes_of).unwrap_or_default());
            assert!(got == *content, "{name} is another");
            assert_eq!((&reply["name"], &reply["size"]), (&json!(name), &json!(content.len())));
            assert_eq!(reply["hash"], blake3::hash(content).to_string());
        }
        for (path, code) in [
            ("../x", "bad-path"),
            ("/etc/passwd", "bad-path"),
            ("nothing", "no-such-file"),
            (".", "bad-path"),
        ] {
            let reply = user.ask(&json!({"op": "download", "path": path, "id": 1}));
            assert_eq!((&reply["error"]["code"], &reply["errorcode"]), (&json!(code), &json!(2)));
        }
        let listing = user.ask(&json!({"op": "ls", "id": 1}));
        let names: Vec<&Value> =
            listing["entries"].as_array().expect("a list").iter().map(|it| &it["name"]).collect();
        assert_eq!(names, ["empty", "large", "more", "most", "noise", "text"]);
    }
}

#[test]
fn messages_come_as_objects_beside_the_replies() {
    let server = Server::start();
    let [v6, v4] = FAMILIES;
    for (ip, other) in [(v6, v4), (v4, v6)] {
        let mut alice = named(&server, ip, "alice");
        let mut bob = named(&server, other, "bob");
        let (mut carol, mut dave) = (server.user(ip, "carol"), server.framed(other, "dave"));
        let text = "one\ntwo \u{1f600} \u{202e}\\";
        let reply = alice.ask(&json!({"op": "message", "to": ["bob", "carol", "dave"],
            "text": text, "id": "m", "receipt": true}));
        assert_eq!((&reply["id"], &reply["errorcode"]), (&json!("m"), &json!(0)));
        let message = json!({"event": "message", "from": "alice", "text": text});
        assert_eq!(bob.next(), message);
        assert_eq!(carol.next(), "alice|one\\ntwo \u{1f600} \\u{202e}\\");
        let News::Message { serial, .. } = dave.next() else { panic!("no message") };
        dave.acknowledge(serial);
        let mut by: Vec<Value> = (0..3).map(|_| alice.next()).collect();
        by.sort_by_key(|event| event["to"].to_string());
        let delivered =
            |to: &str, by: &str| json!({"event": "delivered", "id": "m", "to": to, "by": by});
        assert_eq!(
            by,
            [
                delivered("bob", "connection"),
                delivered("carol", "connection"),
                delivered("dave", "client")
            ]
        );
        carol.send("hello|alice");
        dave.message(5, "alice", "framed");
        let mut texts = [alice.next(), alice.next()].map(|it| it["text"].clone());
        texts.sort_by_key(|text| text.to_string());
        assert_eq!(texts, ["framed", "hello"]);
        assert!(matches!(dave.next(), News::Delivered(5, by) if by["by"] == "connection"));
        // A message while a command runs does not wait for its reply.
        server.fifo("go");
        alice.send(&json!({"method": "cat go", "id": 1}));
        carol.send("meanwhile|alice");
        assert_eq!(alice.next()["text"], "meanwhile");
        fs::write(server.path("go"), "done").expect("the command reads it");
        assert_eq!(alice.next()["stdout"], "done");
        fs::remove_file(server.path("go")).expect("it is there");
        let nobody = json!({"op": "message", "to": "nobody", "text": "x", "id": 9});
        assert_eq!(alice.ask(&nobody)["error"]["code"], "no-such-user");
        for user in [&mut alice, &mut bob] {
            assert_eq!(user.ask(&json!({"op": "quit", "id": 0}))["errorcode"], 0);
        }
        drop((carol, dave));
        let mut last = client(&server, ip);
        await_true("everybody has left", || {
            last.ask(&json!({"op": "who", "id": 0}))["users"] == json!([])
        });
    }
}

#[test]
fn the_end_of_the_server_is_told_in_an_object() {
    let mut server = Server::start();
    let mut users: Vec<Json> = FAMILIES.map(|ip| client(&server, ip)).into();
    server.fifo("go");
    users[0].send(&json!({"method": "cat go", "id": 1}));
    assert_eq!(users[1].ask(&json!({"op": "ping", "id": 2}))["id"], 2);
    await_true("the command runs", || server.children().len() == 2);
    server.signal(Signal::TERM);
    let last = users[1].rest();
    assert_eq!((last.len(), &last[0]["error"]["code"]), (1, &json!("shutting-down")));
    assert_eq!(users[0].next()["event"], "error");
    fs::write(server.path("go"), "done").expect("the command reads it");
    assert_eq!(users[0].next()["stdout"], "done");
    assert_eq!(users[0].rest()[0]["event"], "goodbye");
    drop(users);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn thousands_of_half_sent_objects_are_forgotten_with_their_peers() {
    let mut server = Server::start();
    let canary = Canary::start(&server);
    let before = server.descriptors();
    thread::scope(|scope| {
        for ip in FAMILIES {
            let server = &server;
            scope.spawn(move || {
                for round in 0..400 {
                    let mut stream = server.connect(ip);
                    let bytes =
                        [&b"{\"method\":\"true\",\"id\":1}{\"x\":\""[..], &noise(round, 900)];
                    stream.write_all(&bytes.concat()).expect("the server takes it");
                    if round % 2 == 0 {
                        reset_on_close(&stream);
                    }
                }
            });
        }
    });
    await_true("all descriptors are closed", || server.descriptors() <= before + 2);
    canary.stop();
    server.assert_alive();
}

/// Frames and JSON say the same of the same command.
#[test]
fn what_frames_say_of_a_command_json_says_too() {
    let server = Server::start();
    for ip in FAMILIES {
        let name = if ip.is_ipv6() { "framed6" } else { "framed4" };
        let (mut framed, mut user) = (server.framed(ip, name), client(&server, ip));
        for (tag, command) in (1..).zip([
            "echo a; echo b >&2; exit 5",
            "kill -7 $$",
            "printf '\\377\\n'",
            "nothing-here",
        ]) {
            let answer = Framed::run_to_end(&mut framed, tag, command);
            let reply = user.ask(&json!({"method": command, "id": tag}));
            assert_eq!(bytes_of(&reply["stdout"]), answer.stdout);
            assert_eq!(bytes_of(&reply["stderr"]), answer.stderr);
            match answer.outcome["outcome"].as_str() {
                Some("exit") => assert_eq!(reply["result"], answer.outcome["code"]),
                _ => assert_eq!(reply["signal"], answer.outcome["number"]),
            }
        }
    }
}

#[test]
fn the_command_of_a_program_that_has_closed_is_ended_and_that_of_one_that_reads_is_not() {
    let server = Server::start();
    for ip in FAMILIES {
        let begin = |stream: &mut std::net::TcpStream, file: &str| {
            let command = format!("echo $$ >{file}; exec sleep 1000");
            let request = json!({"method": command, "id": 1}).to_string();
            stream.write_all(request.as_bytes()).expect("the server takes it");
            let read = || fs::read_to_string(server.path(file)).unwrap_or_default();
            await_true("the command runs", || read().ends_with('\n'));
            read().trim().to_owned()
        };
        let (mut gone, mut reads) = (server.connect(ip), server.connect(ip));
        let (of_gone, of_reads) = (begin(&mut gone, "gone"), begin(&mut reads, "reads"));
        reads.shutdown(Shutdown::Write).expect("a half that can be closed");
        drop(gone);
        await_true("the command ends", || !is_running(&of_gone));
        assert!(is_running(&of_reads), "{ip}: its program waits for the answer");
        let _ = fs::remove_file(server.path("gone"));
        let _ = fs::remove_file(server.path("reads"));
    }
}
