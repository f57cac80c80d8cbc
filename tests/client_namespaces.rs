//! Two clients and a server on three machines, played by network namespaces: which way a file goes
//! where the clients reach each other by one family, not at all, or not any more.
//!
//! Needs root and `ip` (iproute2); without them the tests say so and pass.

mod process;

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use process::{
    Server,
    network::{End, Machines},
    noise,
    place::{Place, await_bytes, end_of, unfinished},
};

const MIB: usize = 1024 * 1024;

/// The server's addresses as alice and as bob reach it, IPv6 first.
const SERVER: [[&str; 2]; 2] = [["2001:db8:a::1", "192.0.2.1"], ["2001:db8:b::1", "198.51.100.1"]];

/// A server between two clients, each with a line to it; gone when dropped.
struct Network {
    machines: Machines,
}

impl Network {
    /// `None`, with the reason printed, where this host does not allow it.
    fn new(purpose: &str) -> Option<Network> {
        let machines = Machines::new(purpose, &['s', 'a', 'b'])?;
        for (client, line, [v6, v4]) in [('a', "to-a", SERVER[0]), ('b', "to-b", SERVER[1])] {
            let other = |address: &str| address.strip_suffix('1').map(|it| format!("{it}2"));
            let (own6, own4) = (other(v6).expect("it ends so"), other(v4).expect("it ends so"));
            machines.join([
                End { machine: 's', interface: line, v6, v4 },
                End { machine: client, interface: "out", v6: &own6, v4: &own4 },
            ])?;
            machines.set(client, &["-6", "route", "add", "default", "via", v6]);
            machines.set(client, &["route", "add", "default", "via", v4]);
        }
        Some(Network { machines })
    }

    /// Lets the clients reach each other by these families: IPv6, IPv4.
    fn forward(&self, families: [bool; 2]) {
        let [v6, v4] = families.map(u8::from);
        let script = format!(
            "echo {v6} > /proc/sys/net/ipv6/conf/all/forwarding && \
             echo {v4} > /proc/sys/net/ipv4/ip_forward"
        );
        let status = self.machines.command('s', "sh").args(["-c", &script]).status();
        assert!(status.expect("a shell").success(), "settings of our own");
    }

    /// The server's machine drops the UDP of others.
    fn block_udp(&self) {
        for family in ["-6", "-4"] {
            let rule = ["rule", "add", "pref", "10", "ipproto", "udp", "blackhole"];
            self.machines.set('s', &[&[family], &rule[..]].concat());
        }
    }

    fn server(&self) -> Server {
        let mut command = self.machines.command('s', env!("CARGO_BIN_EXE_server"));
        command.args(["--port", "0", "--open"]);
        Server::start_command(command)
    }

    /// A client in its namespace, which reaches the server by this family.
    fn client(&self, server: &Server, place: &Place, family: usize, words: &[&str]) -> Child {
        let at = if place.user == "alice" { 0 } else { 1 };
        let mut command = self.machines.command(['a', 'b'][at], env!("CARGO_BIN_EXE_client"));
        command.args(["--user", place.user]);
        command.args(["--ip", SERVER[at][family], "--port", &server.port.to_string()]);
        command.args(words).current_dir(place.folder.path());
        command.env("XDG_STATE_HOME", place.folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the client starts")
    }
}

/// Waits until the client is in, and reads on, so that it can say what it has to say.
fn await_welcome(child: &mut Child) {
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe"));
    loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).expect("text") > 0, "it was not let in");
        if line.starts_with("welcome, ") {
            break;
        }
    }
    thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
}

/// Sends a file from alice to bob, who reach the server by these families. What alice says, and
/// how long it took.
fn send(
    network: &Network,
    families: [usize; 2],
    options: &[&str],
    size: usize,
    meanwhile: impl FnOnce(&Path),
) -> (String, Duration) {
    let server = network.server();
    let any = process::FAMILIES[0];
    let (alice, bob) = (Place::new("alice", any), Place::new("bob", any));
    let content = noise(size as u64, size);
    alice.put("plan", &content);
    let receive = ["-v", "--accept", "all", "receive", "--count", "1"];
    let mut receiver = network.client(&server, &bob, families[1], &receive);
    await_welcome(&mut receiver);
    let begin = Instant::now();
    let words = [&["send"], options, &["plan", "bob"]].concat();
    let sender = network.client(&server, &alice, families[0], &words);
    meanwhile(&unfinished(&bob, "alice_plan"));
    let sent = end_of(sender);
    sent.assert_code(0);
    assert_eq!(end_of(receiver).code, Some(0));
    assert!(bob.read("alice_plan") == content, "other bytes came");
    (sent.stderr, begin.elapsed())
}

fn nothing(_: &Path) {}

const RELAYED: &str = "bob takes it, relayed by the server, which cannot read it\n";

#[test]
fn clients_that_reach_each_other_by_one_family_take_that() {
    let Some(network) = Network::new("one") else { return };
    for (forwarded, place) in [
        ([true, false], "direct [2001:db8:b::2]:"),
        ([false, true], "direct 198.51.100.2:"),
        ([true, true], "direct [2001:db8:b::2]:"),
    ] {
        network.forward(forwarded);
        // By which they reach the server does not matter.
        for families in [[0, 0], [1, 1], [0, 1]] {
            let (said, took) = send(&network, families, &[], MIB, nothing);
            assert!(said.contains(&format!("bob takes it, {place}")), "{forwarded:?}: {said}");
            assert!(took < Duration::from_secs(5), "{took:?}");
        }
    }
}

#[test]
fn clients_that_do_not_reach_each_other_go_through_the_server() {
    let Some(network) = Network::new("none") else { return };
    network.forward([false, false]);
    let (said, took) = send(&network, [0, 1], &[], MIB, nothing);
    assert!(said.contains(RELAYED), "{said}");
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[test]
fn where_udp_is_blocked_the_server_is_taken_after_three_seconds() {
    let Some(network) = Network::new("udp") else { return };
    network.forward([true, true]);
    network.block_udp();
    let (said, took) = send(&network, [1, 0], &[], MIB, nothing);
    assert!(said.contains(RELAYED), "{said}");
    assert!((Duration::from_secs(3)..Duration::from_secs(8)).contains(&took), "{took:?}");
}

#[test]
fn a_path_that_is_cut_midway_gives_way_to_the_server_without_a_byte_lost() {
    let Some(network) = Network::new("cut") else { return };
    network.forward([true, true]);
    let cut = |part: &Path| {
        await_bytes(part, 2 * MIB as u64);
        network.forward([false, false]);
    };
    let (said, took) = send(&network, [0, 0], &["--limit", "2M"], 6 * MIB, cut);
    assert!(said.contains("bob takes it, direct "), "{said}");
    let rerouted = "the direct path to bob is gone; going on relayed by the server";
    assert!(said.contains(rerouted), "{said}");
    assert!(took < Duration::from_secs(25), "{took:?}");
}

#[test]
fn what_a_sender_that_vanished_had_begun_is_gone_on_with_soon_on_either_way() {
    for (family, way) in [(0, &["--limit", "1M"][..]), (1, &["--no-direct", "--limit", "1M"])] {
        let Some(network) = Network::new("gone") else { return };
        network.forward([true, true]);
        let server = network.server();
        let any = process::FAMILIES[0];
        let (alice, bob) = (Place::new("alice", any), Place::new("bob", any));
        let content = noise(9, 6 * MIB);
        alice.put("plan", &content);
        let receive = ["-v", "--accept", "all", "receive"];
        let mut receiver = network.client(&server, &bob, family, &receive);
        await_welcome(&mut receiver);
        let words = [&["send"], way, &["plan", "bob"]].concat();
        let first = network.client(&server, &alice, family, &words);
        await_bytes(&unfinished(&bob, "alice_plan"), MIB as u64);
        network.machines.set('a', &["link", "set", "out", "down"]);
        let cut = Instant::now();
        // The same user on another machine, that of the server.
        let said = loop {
            let mut command = network.machines.command('s', env!("CARGO_BIN_EXE_client"));
            command.args(["--user", "alice", "--ip", "::1", "--port", &server.port.to_string()]);
            command.args(["send", "plan", "bob"]).current_dir(alice.folder.path());
            command.env("XDG_STATE_HOME", alice.folder.path()).stdin(Stdio::null());
            let output = command.output().expect("the client starts");
            let said = String::from_utf8(output.stderr).expect("text");
            if output.status.success() {
                break said;
            }
            let is_held = ["error busy: ", "error name-taken: "].iter().any(|it| said.contains(it));
            assert!(is_held && cut.elapsed() < Duration::from_secs(15), "{way:?}: {said}");
            thread::sleep(Duration::from_millis(200));
        };
        assert!(said.contains("going on at "), "{way:?}: {said}");
        assert!(bob.read("alice_plan") == content, "other bytes came");
        assert_ne!(end_of(first).code, Some(0));
        receiver.kill().expect("it is ours");
        receiver.wait().expect("it ends");
    }
}
