//! Files from client to client by way of a real server: content, folders, rules, refusals, going
//! on after an interruption, and clients that stand still.

mod process;

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _},
    },
    thread,
    time::Duration,
};

use process::{
    Canary, FAMILIES, Server, await_true, noise,
    place::{Place, await_bytes, await_gone, end_of, names_in, signal, unfinished},
};
use rustix::process::Signal;
use serde_json::Value;

const MIB: usize = 1024 * 1024;

#[test]
fn files_of_every_size_go_between_the_families() {
    let server = Server::start();
    let sizes = [0, 1, 65_535, 65_536, 65_537, 3 * MIB];
    for (ip, other) in [(FAMILIES[0], FAMILIES[1]), (FAMILIES[1], FAMILIES[0])] {
        let (alice, bob) = (Place::new("alice", ip), Place::new("bob", other));
        let names: Vec<_> = sizes.iter().map(|size| format!("f{size}")).collect();
        for (name, size) in names.iter().zip(sizes) {
            alice.put(name, &noise(size as u64, size));
        }
        let receiver = bob.start(&server, &["--accept", "alice", "receive", "--count", "1"]);
        let mut words = vec!["send"];
        words.extend(names.iter().map(String::as_str));
        words.push("bob");
        let sent = alice.run(&server, &words);
        sent.assert_code(0);
        let received = end_of(receiver);
        received.assert_code(0);
        for (name, size) in names.iter().zip(sizes) {
            let saved = format!("alice_{name}");
            assert!(bob.read(&saved) == noise(size as u64, size), "{size} bytes");
            assert!(sent.stderr.contains(&format!("sent {name} to bob (")), "{}", sent.stderr);
            let told = format!("saved {saved} from alice (");
            assert!(received.stderr.contains(&told), "{}", received.stderr);
            let time = |place: &Place, name: &str| {
                let data = fs::metadata(place.path(name)).expect(name);
                (data.mtime(), data.mtime_nsec())
            };
            assert_eq!(time(&alice, name), time(&bob, &saved), "the time is kept");
        }
        assert_eq!(names_in(bob.folder.path()).len(), sizes.len());
        await_gone(&server, "bob");
    }
}

#[test]
fn a_folder_arrives_as_it_is_under_a_name_of_the_receivers() {
    let server = Server::start();
    let (alice, bob) = (Place::new("alice", FAMILIES[0]), Place::new("bob", FAMILIES[1]));
    fs::create_dir_all(alice.path("docs/deep/empty")).expect("folders");
    alice.put("docs/run me", b"#!/bin/sh\n");
    let executable = fs::Permissions::from_mode(0o4755);
    fs::set_permissions(alice.path("docs/run me"), executable).expect("a mode");
    let odd = OsStr::from_bytes(b"docs/deep/esc\x1b[2J\xff");
    alice.put(odd, b"odd");
    for number in 0..300 {
        alice.put(format!("docs/deep/{number}"), format!("file {number}").as_bytes());
    }
    let receiver = bob.start(&server, &["--accept", "all", "receive", "--count", "2"]);
    let sent = alice.run(&server, &["send", "docs/", "bob"]);
    sent.assert_code(0);
    assert!(sent.stderr.contains("offering docs/ (302 files, "), "{}", sent.stderr);
    assert!(sent.stderr.contains("sent 302 files in docs/ to bob ("), "{}", sent.stderr);
    // The same again finds all of it there.
    let again = alice.run(&server, &["send", "docs", "bob"]);
    again.assert_code(0);
    assert!(again.stderr.contains("302 unchanged"), "{}", again.stderr);
    end_of(receiver).assert_code(0);
    assert_eq!(names_in(bob.folder.path()), ["alice_docs"]);
    assert_eq!(bob.read("alice_docs/deep/299"), b"file 299");
    let odd = OsStr::from_bytes(b"alice_docs/deep/esc\x1b[2J\xff");
    assert_eq!(fs::read(bob.path(odd)).expect("the odd one"), b"odd");
    assert!(bob.path("alice_docs/deep/empty").is_dir());
    let mode = fs::metadata(bob.path("alice_docs/run me")).expect("it").permissions().mode();
    assert_eq!(mode & 0o7111, 0o111, "executable, and setuid never");
}

#[test]
fn whoever_is_killed_goes_on_with_the_same_line() {
    let server = Server::start();
    let (alice, bob) = (Place::new("alice", FAMILIES[1]), Place::new("bob", FAMILIES[0]));
    let content = noise(7, 24 * MIB);
    alice.put("big", &content);
    let part = unfinished(&bob, "alice_big");
    let receive = ["--accept", "all", "receive", "--count", "2"];
    let receiver = bob.start(&server, &receive);
    let slow = ["send", "--limit", "20M", "big", "bob"];
    // The sender dies.
    let sender = alice.start(&server, &slow);
    await_bytes(&part, 4 * MIB as u64);
    signal(&sender, Signal::KILL);
    end_of(sender);
    await_gone(&server, "alice");
    assert!(!bob.path("alice_big").exists());
    let kept = fs::metadata(&part).expect("a part").len();
    // The receiver dies, and the sender hears of it.
    let sender = alice.start(&server, &slow);
    await_bytes(&part, kept + 4 * MIB as u64);
    signal(&receiver, Signal::KILL);
    end_of(receiver);
    let told = end_of(sender);
    told.assert_code(1);
    assert!(told.stderr.contains("going on at "), "{}", told.stderr);
    assert!(told.stderr.contains("error peer-gone: bob has gone"), "{}", told.stderr);
    await_gone(&server, "bob");
    let receiver = bob.start(&server, &["--accept", "all", "receive", "--count", "1"]);
    let sent = alice.run(&server, &["send", "big", "bob"]);
    sent.assert_code(0);
    assert!(sent.stderr.contains("going on at "), "{}", sent.stderr);
    let received = end_of(receiver);
    received.assert_code(0);
    assert!(bob.read("alice_big") == content);
    assert_eq!(names_in(bob.folder.path()), ["alice_big"]);
}

#[test]
fn a_source_that_has_changed_starts_over_and_says_so() {
    let server = Server::start();
    let (alice, bob) = (Place::new("alice", FAMILIES[0]), Place::new("bob", FAMILIES[0]));
    alice.put("big", &noise(1, 16 * MIB));
    let receiver = bob.start(&server, &["--accept", "all", "receive", "--count", "2"]);
    let sender = alice.start(&server, &["send", "--limit", "20M", "big", "bob"]);
    await_bytes(&unfinished(&bob, "alice_big"), 2 * MIB as u64);
    signal(&sender, Signal::INT);
    let told = end_of(sender);
    told.assert_code(130);
    assert!(told.stderr.contains("go on with: client "), "{}", told.stderr);
    await_gone(&server, "alice");
    let other = noise(2, 16 * MIB);
    alice.put("big", &other);
    let sent = alice.run(&server, &["send", "big", "bob"]);
    sent.assert_code(0);
    assert!(sent.stderr.contains("starting over"), "{}", sent.stderr);
    let received = end_of(receiver);
    // The first of the two has failed.
    received.assert_code(1);
    let told = "error cancelled: alice has cancelled it";
    assert!(received.stderr.contains(told), "{}", received.stderr);
    assert!(bob.read("alice_big") == other);
}

#[test]
fn rules_and_refusals_are_exit_codes_at_once() {
    let server = Server::start();
    let (alice, bob) = (Place::new("alice", FAMILIES[0]), Place::new("bob", FAMILIES[1]));
    alice.put("small", b"hello");
    alice.put("large", &[b'x'; 2000]);
    let mut receiver = bob.start(&server, &["--accept", "alice:1k", "receive"]);
    alice.run(&server, &["send", "small", "bob"]).assert_code(0);
    for (file, to, code, part) in [
        ("large", "bob", 4, "error refused: bob does not want large: more than 1000 bytes"),
        ("small", "nobody", 5, "error no-such-user: nobody called `nobody` is here"),
        ("small", "alice", 2, "that is your own name"),
        ("none", "bob", 5, "error no-such-file: none: "),
    ] {
        let sent = alice.run(&server, &["send", file, to]);
        sent.assert_code(code);
        assert!(sent.stderr.contains(part), "{}", sent.stderr);
    }
    let carol = Place::new("carol", FAMILIES[0]);
    carol.put("small", b"hello");
    let sent = carol.run(&server, &["send", "small", "bob"]);
    sent.assert_code(4);
    assert!(sent.stderr.contains("nothing is taken from carol"), "{}", sent.stderr);
    // Who runs something takes nothing; nor does somebody with rules of none.
    let busy = carol.start(&server, &["run", "sleep 60"]);
    let sent = alice.run(&server, &["send", "small", "carol"]);
    sent.assert_code(4);
    assert!(sent.stderr.contains("busy with something else"), "{}", sent.stderr);
    signal(&busy, Signal::TERM);
    end_of(busy);
    assert!(receiver.try_wait().expect("our child").is_none(), "it stays for the next");
    signal(&receiver, Signal::INT);
    end_of(receiver).assert_code(130);
    assert_eq!(names_in(bob.folder.path()), ["alice_small"]);
}

#[test]
fn an_interrupt_at_either_end_ends_both() {
    let server = Server::start();
    let receive = ["--accept", "all", "receive", "--count", "1"];
    let slow = ["send", "--limit", "10M", "big", "bob"];
    for ends in ["sender", "receiver"] {
        let (alice, bob) = (Place::new("alice", FAMILIES[0]), Place::new("bob", FAMILIES[1]));
        alice.put("big", &noise(3, 16 * MIB));
        let receiver = bob.start(&server, &receive);
        let sender = alice.start(&server, &slow);
        await_bytes(&unfinished(&bob, "alice_big"), MIB as u64);
        let first = if ends == "sender" { &sender } else { &receiver };
        signal(first, Signal::INT);
        let (sender, receiver) = (end_of(sender), end_of(receiver));
        let (first, second, name) = match ends {
            "sender" => (sender, receiver, "alice"),
            _ => (receiver, sender, "bob"),
        };
        first.assert_code(130);
        assert!(first.stderr.contains("broken off"), "{}", first.stderr);
        second.assert_code(1);
        let told = format!("error cancelled: {name} has cancelled it");
        assert!(second.stderr.contains(&told), "{}", second.stderr);
        assert!(!bob.path("alice_big").exists());
        await_gone(&server, "alice");
        await_gone(&server, "bob");
    }
}

#[test]
fn a_stopped_receiver_costs_no_memory_and_goes_on_where_it_stood() {
    let server = Server::start();
    let canary = Canary::start(&server);
    let (alice, bob) = (Place::new("alice", FAMILIES[0]), Place::new("bob", FAMILIES[1]));
    let content = noise(4, 160 * MIB);
    alice.put("big", &content);
    let receiver = bob.start(&server, &["--accept", "all", "receive", "--count", "1"]);
    let before = server.resident_kib();
    let sender = alice.start(&server, &["send", "big", "bob"]);
    await_bytes(&unfinished(&bob, "alice_big"), MIB as u64);
    signal(&receiver, Signal::STOP);
    // All buffers on the way fill, and then nothing moves.
    let read = || {
        let io = fs::read_to_string(format!("/proc/{}/io", sender.id())).expect("it runs");
        io.lines().find_map(|line| line.strip_prefix("wchar: ").map(str::to_owned))
    };
    let mut last = read();
    await_true("nothing moves any more", || {
        thread::sleep(Duration::from_millis(100));
        std::mem::replace(&mut last, read()) == last
    });
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 4096, "{grown} KiB for somebody who stands still");
    let status = fs::read_to_string(format!("/proc/{}/status", sender.id())).expect("it runs");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("memory");
    let resident: u64 = resident.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(resident < 64 * 1024, "the sender has {resident} KiB");
    canary.stop();
    signal(&receiver, Signal::CONT);
    end_of(sender).assert_code(0);
    end_of(receiver).assert_code(0);
    assert!(bob.read("alice_big") == content);
}

#[test]
fn lines_and_clients_send_to_each_other() {
    let server = Server::start();
    let content = noise(5, 2 * MIB);
    for ip in FAMILIES {
        // From lines to a client.
        let bob = Place::new("bob", ip);
        let receiver = bob.start(&server, &["--accept", "nina", "receive", "--count", "1"]);
        let mut nina = server.user(ip, "nina");
        nina.send(&format!("send {} my file bob", content.len()));
        nina.send_bytes(&content);
        assert_eq!(nina.lines(2), ["accepted bob", "delivered"]);
        let received = end_of(receiver);
        received.assert_code(0);
        let told = "saved nina_my file from nina (2.10 MB, not verified)";
        assert!(received.stderr.contains(told), "{}", received.stderr);
        assert!(bob.read("nina_my file") == content);
        // And back; a folder does not go that way.
        let alice = Place::new("alice", ip);
        alice.put("back", &content);
        fs::create_dir(alice.path("docs")).expect("a folder");
        let sender = alice.start(&server, &["send", "back", "nina"]);
        assert_eq!(nina.next(), format!("offer 1 alice {} back", content.len()));
        nina.send("accept 1");
        assert_eq!(nina.next(), format!("file {} back", content.len()));
        assert!(nina.exactly(content.len()) == content);
        let sent = end_of(sender);
        sent.assert_code(0);
        assert!(sent.stderr.contains("sent back to nina (2.10 MB"), "{}", sent.stderr);
        let sent = alice.run(&server, &["send", "docs", "nina"]);
        sent.assert_code(4);
        assert!(sent.stderr.contains("takes single files"), "{}", sent.stderr);
        nina.send("quit");
        assert_eq!(nina.rest_text(), "goodbye\n");
        await_gone(&server, "nina");
        await_gone(&server, "bob");
    }
}

#[test]
fn a_file_that_breaks_off_as_it_comes_leaves_nothing() {
    let server = Server::start();
    let bob = Place::new("bob", FAMILIES[0]);
    let receiver = bob.start(&server, &["--accept", "all", "receive", "--count", "1"]);
    let mut nina = server.user(FAMILIES[1], "nina");
    nina.send("send 1000000 big bob");
    nina.send_bytes(&[b'x'; 1000]);
    assert_eq!(nina.next(), "accepted bob");
    nina.reset();
    let received = end_of(receiver);
    received.assert_code(1);
    assert!(received.stderr.contains("error peer-gone: nina has gone"), "{}", received.stderr);
    assert_eq!(names_in(bob.folder.path()), [""; 0]);
}

#[test]
fn standard_input_goes_under_a_name() {
    let server = Server::start();
    let (alice, bob) = (Place::new("alice", FAMILIES[0]), Place::new("bob", FAMILIES[1]));
    let content = noise(6, 3 * MIB);
    let receiver = bob.start(&server, &["--accept", "alice", "receive", "--count", "1"]);
    let mut sender = alice.start(&server, &["send", "-", "bob", "--name", "log"]);
    let mut stdin = sender.stdin.take().expect("a pipe");
    let all = content.clone();
    let writer = thread::spawn(move || stdin.write_all(&all).expect("it is read"));
    end_of(sender).assert_code(0);
    writer.join().expect("it was written");
    end_of(receiver).assert_code(0);
    assert!(bob.read("alice_log") == content);
}

#[test]
fn programs_are_told_in_objects_and_may_answer_in_lines() {
    let server = Server::start();
    let (alice, bob) = (Place::new("alice", FAMILIES[0]), Place::new("bob", FAMILIES[1]));
    alice.put("plan", b"Hello, world\n");
    let events = |text: &str| -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    };
    // Bob is a program that reads offers and writes its answers.
    let mut program = bob.start(&server, &["--json"]);
    let mut stdin = program.stdin.take().expect("a pipe");
    let stdout = program.stdout.take().expect("a pipe");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stdout));
    let mut next = || -> Value {
        let line = lines.next().expect("a line").expect("text");
        serde_json::from_str(&line).expect("an object")
    };
    for answer in ["refuse 1 not now", "accept 2"] {
        let sender = alice.start(&server, &["--json", "send", "plan", "bob"]);
        let offer = next();
        let members = ["event", "from", "name", "size"].map(|member| offer[member].clone());
        assert_eq!(members, [Value::from("offer"), "alice".into(), "plan".into(), 13.into(),]);
        writeln!(stdin, "{answer}").expect("it listens");
        let sent = end_of(sender);
        let told = events(&sent.stdout);
        let names: Vec<_> = told.iter().map(|event| event["event"].clone()).collect();
        match answer {
            "accept 2" => {
                sent.assert_code(0);
                assert_eq!(names, ["asked", "joined", "file", "sent"]);
                assert_eq!(told[3]["blake3"], blake3::hash(b"Hello, world\n").to_string());
            }
            _ => {
                sent.assert_code(4);
                assert_eq!(names, ["asked", "error"]);
                assert_eq!(told[1]["text"], "bob does not want plan: not now");
            }
        }
        await_gone(&server, "alice");
    }
    let rest: Vec<Value> = [next(), next(), next()].into();
    let names: Vec<_> = rest.iter().map(|event| event["event"].clone()).collect();
    assert_eq!(names, ["joined", "file", "saved"]);
    assert_eq!((&rest[2]["file"], &rest[2]["from"]), (&"alice_plan".into(), &"alice".into()));
    drop(stdin);
    end_of(program).assert_code(0);
    assert_eq!(bob.read("alice_plan"), b"Hello, world\n");
}
