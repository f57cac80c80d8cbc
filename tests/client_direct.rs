//! Which way files go between two real clients: straight where that can be, else through the
//! server, which then cannot read them; and what both say of it.

mod process;

use std::{fs, net::IpAddr};

use process::{
    FAMILIES, Server, await_true, noise,
    place::{
        Left, Place, await_bytes, await_gone, await_user, end_of, names_in, signal, unfinished,
    },
    tap::Tap,
};
use rustix::process::Signal;
use serde_json::Value;

const MIB: usize = 1024 * 1024;

/// Text that nothing else says, often enough to be found wherever it is cut.
const SECRET: &[u8] = b"the secret of alice, which nobody but bob may read; ";

fn secret() -> Vec<u8> {
    SECRET.repeat(40_000)
}

const RECEIVE: [&str; 6] = ["-v", "--accept", "all", "receive", "--count", "1"];

/// Sends `file` from one to the other, each with its own options: what both said.
fn send(server: &Server, ips: [IpAddr; 2], options: [&[&str]; 2], content: &[u8]) -> [Left; 2] {
    let (alice, bob) = (Place::new("alice", ips[0]), Place::new("bob", ips[1]));
    alice.put("plan", content);
    let receiver = bob.start(server, &[options[1], &RECEIVE].concat());
    let sent = alice.run(server, &[options[0], &["send", "plan", "bob"]].concat());
    sent.assert_code(0);
    let received = end_of(receiver);
    received.assert_code(0);
    assert!(bob.read("alice_plan") == content, "{} bytes are others", content.len());
    await_gone(server, "alice");
    await_gone(server, "bob");
    [sent, received]
}

#[track_caller]
fn assert_says(left: &Left, parts: &[&str]) {
    for part in parts {
        assert!(left.stderr.contains(part), "no {part:?} in {}", left.stderr);
    }
}

#[test]
fn files_go_straight_and_both_ends_say_so() {
    let server = Server::start();
    let [v6, v4] = FAMILIES;
    for ips in [[v6, v6], [v4, v4], [v6, v4], [v4, v6]] {
        for size in [0, 1, 3 * MIB] {
            let [sent, received] = send(&server, ips, [&[], &[]], &noise(1, size));
            assert_says(&sent, &["bob takes it, direct [", "sent plan to bob (", ", direct, "]);
            let said = ["taking what alice sends, direct [", "saved alice_plan from alice ("];
            assert_says(&received, &said);
        }
    }
}

#[test]
fn where_one_end_wants_no_direct_path_the_server_passes_it_on() {
    let server = Server::start();
    let ips = FAMILIES;
    let (none, off): (&[&str], &[&str]) = (&[], &["--no-direct"]);
    for options in [[off, none], [none, off], [off, off]] {
        for size in [0, 1, 3 * MIB] {
            let [sent, received] = send(&server, ips, options, &noise(2, size));
            let way = "relayed by the server, which cannot read it";
            assert_says(&sent, &[&format!("bob takes it, {way}"), ", relayed, verified)"]);
            assert_says(&received, &[&format!("taking what alice sends, {way}")]);
        }
    }
}

#[test]
fn the_server_passes_on_what_it_cannot_read() {
    let server = Server::start();
    for ip in FAMILIES {
        let (alice, bob) = (Place::new("alice", ip), Place::new("bob", ip));
        for way in [&["--no-direct"][..], &[]] {
            let tap = Tap::start(ip, server.port);
            alice.put("plan", &secret());
            let receiver = bob.start_by(tap.port, &RECEIVE);
            await_user(&server, "bob");
            let sent = end_of(alice.start_by(tap.port, &[way, &["send", "plan", "bob"]].concat()));
            sent.assert_code(0);
            end_of(receiver).assert_code(0);
            assert!(bob.read("alice_plan") == secret());
            assert!(tap.has_heard(b"\"name\":\"plan\""), "the tap hears nothing");
            assert!(!tap.has_heard(&SECRET[..20]), "it went in clear, {way:?}");
            await_gone(&server, "bob");
            await_gone(&server, "alice");
        }
        // Somebody with lines has no key: the same tap hears it.
        let tap = Tap::start(ip, server.port);
        let mut nina = server.user(ip, "nina");
        let sender = alice.start_by(tap.port, &["send", "plan", "nina"]);
        let offer = format!("offer 1 alice {} plan", secret().len());
        assert_eq!(nina.next(), offer);
        nina.send("accept 1");
        assert_eq!(nina.next(), format!("file {} plan", secret().len()));
        assert!(nina.exactly(secret().len()) == secret());
        let sent = end_of(sender);
        sent.assert_code(0);
        assert_says(&sent, &["nina takes it, relayed by the server\n"]);
        assert!(tap.has_heard(&SECRET[..20]));
        nina.send("quit");
        assert_eq!(nina.rest_text(), "goodbye\n");
        await_gone(&server, "nina");
    }
}

#[test]
fn several_go_at_once_and_folders_too() {
    let server = Server::start();
    let [v6, v4] = FAMILIES;
    let (alice, carol, bob) =
        (Place::new("alice", v6), Place::new("carol", v4), Place::new("bob", v6));
    for (place, seed) in [(&alice, 3), (&carol, 4)] {
        fs::create_dir_all(place.path("docs/deep")).expect("folders");
        for number in 0..100 {
            place.put(format!("docs/deep/{number}"), &noise(seed + number, number as usize * 100));
        }
        place.put("docs/large", &noise(seed, 5 * MIB));
    }
    let receive = ["-v", "--accept", "all", "receive", "--count", "2"];
    let receiver = bob.start(&server, &receive);
    let senders = [&alice, &carol].map(|place| place.start(&server, &["send", "docs", "bob"]));
    for sent in senders.map(end_of) {
        sent.assert_code(0);
        assert_says(&sent, &["bob takes it, direct [", "sent 101 files in docs/ to bob ("]);
    }
    let received = end_of(receiver);
    received.assert_code(0);
    for (user, seed) in [("alice", 3), ("carol", 4)] {
        let docs = format!("{user}_docs");
        assert_says(&received, &[&format!("taking what {user} sends, direct [")]);
        assert!(bob.read(&format!("{docs}/large")) == noise(seed, 5 * MIB));
        assert!(bob.read(&format!("{docs}/deep/99")) == noise(seed + 99, 9900));
        assert_eq!(names_in(&bob.path(format!("{docs}/deep"))).len(), 100);
    }
}

#[test]
fn who_lists_where_files_are_taken() {
    let server = Server::start();
    let free = std::net::UdpSocket::bind((FAMILIES[0], 0)).expect("a free port");
    let port = free.local_addr().expect("it is bound").port();
    drop(free);
    let (alice, bob) = (Place::new("alice", FAMILIES[0]), Place::new("bob", FAMILIES[1]));
    let (number, receive) = (port.to_string(), ["--accept", "all", "receive"]);
    let receiver = bob.start(&server, &[&["--udp-port", &number][..], &receive].concat());
    let mut deaf =
        Place::new("carol", FAMILIES[0]).start(&server, &[&["--no-direct"][..], &receive].concat());
    let long = ["who", "--long"];
    // It tells its port a moment after it is in.
    let listed = format!("alice -\nbob {port}\ncarol -\n");
    await_true("bob has told his port", || alice.run(&server, &long).stdout == listed);
    let told = alice.run(&server, &[&["--json"][..], &long].concat());
    let told: Vec<Value> =
        told.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(told[1], serde_json::json!({"event": "user", "name": "bob", "udp_port": port}));
    assert_eq!(alice.run(&server, &["who"]).stdout, "alice\nbob\ncarol\n");
    let reply = server.json(FAMILIES[1]).ask(&serde_json::json!({"op": "who", "id": 1}));
    assert_eq!(reply["users"], serde_json::json!(["bob", "carol"]));
    assert_eq!(reply["udp_ports"], serde_json::json!([{"user": "bob", "port": port}]));
    signal(&receiver, Signal::INT);
    end_of(receiver).assert_code(130);
    deaf.kill().expect("our child");
    end_of(deaf);
}

#[test]
fn what_was_broken_off_goes_on_by_another_way() {
    let server = Server::start();
    let (alice, bob) = (Place::new("alice", FAMILIES[1]), Place::new("bob", FAMILIES[0]));
    let content = noise(5, 12 * MIB);
    alice.put("big", &content);
    let receiver = bob.start(&server, &["--accept", "all", "receive", "--count", "2"]);
    let slow = ["send", "--limit", "20M", "big", "bob"];
    let mut sender = alice.start(&server, &slow);
    await_bytes(&unfinished(&bob, "alice_big"), 2 * MIB as u64);
    sender.kill().expect("our child");
    end_of(sender);
    await_gone(&server, "alice");
    let sent = alice.run(&server, &["--no-direct", "send", "big", "bob"]);
    sent.assert_code(0);
    assert_says(&sent, &["going on at ", ", relayed, verified)"]);
    // The first of the two has failed.
    end_of(receiver).assert_code(1);
    assert!(bob.read("alice_big") == content);
}

#[test]
fn programs_are_told_the_way_and_a_busy_port_is_named() {
    let server = Server::start();
    let taken = [FAMILIES[0], FAMILIES[1]].map(|ip| std::net::UdpSocket::bind((ip, 0)));
    let taken = taken.map(|socket| socket.expect("a free port"));
    let port = taken[0].local_addr().expect("it is bound").port().to_string();
    let [sent, _] = send(&server, FAMILIES, [&["--udp-port", &port], &[]], b"hello");
    let complaint = format!("files go through the server: UDP port {port} is busy on IPv6");
    assert_says(&sent, &[&complaint, "relayed by the server, which cannot read it"]);
    for (option, way, member) in
        [(&["--json"][..], "direct", "address"), (&["--json", "--no-direct"], "relayed", "sealed")]
    {
        let [sent, _] = send(&server, FAMILIES, [option, &[]], b"hello");
        let events = sent.stdout.lines().map(|line| serde_json::from_str(line).expect(line));
        let events: Vec<Value> = events.collect();
        let of = |name: &str| events.iter().find(|it| it["event"] == name).expect(name);
        assert_eq!((&of("joined")["way"], &of("sent")["way"]), (&way.into(), &way.into()));
        assert!(of("joined")[member] == true || of("joined")[member].is_string());
    }
}
