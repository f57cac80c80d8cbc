//! Files from user to user through a real server: every mix of dialects and families, chat that
//! passes, receivers that do not read.

mod process;

use std::{
    io::{Read as _, Write as _},
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use process::{Canary, FAMILIES, Framed, Line, News, Server, await_true, noise};
use serde_json::{Value, json};
use sixfour::{limits::INPUT_WINDOW_BYTES, wire::frame::client};

const MIB: usize = 1024 * 1024;

/// What is answered at once comes within this.
const AT_ONCE: Duration = Duration::from_secs(2);

/// A user of either dialect.
enum User {
    Line(Line),
    Framed(Framed),
}

impl User {
    fn new(server: &Server, is_line: bool, ip: IpAddr, name: &str) -> User {
        match is_line {
            true => User::Line(server.user(ip, name)),
            false => User::Framed(server.framed(ip, name)),
        }
    }

    /// Offers the content and sends it when it is accepted; returns the answer.
    fn send(&mut self, tag: u32, name: &str, to: &str, content: &[u8]) -> String {
        match self {
            User::Line(line) => {
                line.send(&format!("send {} {name} {to}", content.len()));
                line.send_bytes(content);
                assert_eq!(line.next(), format!("accepted {to}"));
                line.next()
            }
            User::Framed(framed) => {
                let size = content.len();
                framed.request(tag, json!({"op": "send", "to": to, "name": name, "size": size}));
                let News::Detail(_, accepted) = framed.next() else { panic!("not accepted") };
                assert_eq!(accepted, json!({"event": "accepted", "by": to, "form": "raw"}));
                pour(framed, tag, content);
                framed.send(client::END, tag, blake3::hash(content).as_bytes());
                end_of(framed, tag)["outcome"].as_str().expect("an outcome").to_owned()
            }
        }
    }

    /// Accepts what is offered next and gives back its name and content.
    fn take(&mut self, tag: u32) -> (String, Vec<u8>) {
        match self {
            User::Line(line) => {
                let offer = line.next();
                let words: Vec<&str> = offer.splitn(5, ' ').collect();
                let ["offer", number, _, size, name] = words[..] else { panic!("{offer}") };
                line.send(&format!("accept {number}"));
                assert_eq!(line.next(), format!("file {size} {name}"));
                (name.to_owned(), line.exactly(size.parse().expect("a size")))
            }
            User::Framed(framed) => {
                let (number, name) = offer_to(framed);
                framed.request(tag, json!({"op": "accept", "offer": number}));
                let answer = framed.answer(tag);
                assert_eq!(answer.details[0]["event"], "file");
                if answer.outcome["outcome"] == "sent" {
                    let hash = blake3::hash(&answer.stdout).to_string();
                    assert_eq!(answer.outcome["hash"], hash);
                } else {
                    assert_eq!(answer.outcome, json!({"outcome": "done"}));
                }
                (name, answer.stdout)
            }
        }
    }
}

/// The number and the name of the offer that comes next.
fn offer_to(framed: &mut Framed) -> (u64, String) {
    let News::Detail(0, offer) = framed.next() else { panic!("no offer") };
    assert_eq!(offer["event"], "offer");
    let name = offer["name"].as_str().expect("a name").to_owned();
    (offer["offer"].as_u64().expect("a number"), name)
}

/// Sends all of it within the window.
fn pour(framed: &mut Framed, tag: u32, mut content: &[u8]) {
    let mut window = INPUT_WINDOW_BYTES as usize;
    while !content.is_empty() {
        let (now, later) = content.split_at(content.len().min(window).min(64 * 1024));
        if now.is_empty() {
            match framed.next() {
                News::Credit(_, bytes) => window += bytes as usize,
                other => panic!("no credit but {other:?}"),
            }
            continue;
        }
        framed.send(client::DATA, tag, now);
        (window, content) = (window - now.len(), later);
    }
}

/// How the operation ends; credit on the way is dropped.
fn end_of(framed: &mut Framed, tag: u32) -> Value {
    loop {
        match framed.next() {
            News::Credit(..) => {}
            News::End(number, outcome) if number == tag => return outcome,
            other => panic!("no end but {other:?}"),
        }
    }
}

#[test]
fn anybody_sends_to_anybody_whatever_the_dialect_and_the_family() {
    let server = Server::start();
    let sizes = [0, 1, 65_535, 65_536, 65_537, 3 * MIB];
    for (mix, (from, to)) in
        [(true, true), (true, false), (false, true), (false, false)].into_iter().enumerate()
    {
        for (ip, other) in [(FAMILIES[0], FAMILIES[1]), (FAMILIES[1], FAMILIES[0])] {
            let (alice, bob) = (format!("alice{mix}{}", ip.is_ipv6()), format!("bob{mix}"));
            let mut sender = User::new(&server, from, ip, &alice);
            let mut receiver = User::new(&server, to, other, &bob);
            let sending = thread::spawn(move || {
                for (tag, size) in (1..).zip(sizes) {
                    let name = format!("file {size}");
                    let answer = sender.send(tag, &name, &bob, &noise(size as u64, size));
                    assert_eq!(answer, "delivered");
                }
            });
            for (tag, size) in (1..).zip(sizes) {
                let (name, content) = receiver.take(tag);
                assert_eq!(name, format!("file {size}"));
                assert!(content == noise(size as u64, size), "{size} bytes are not the same");
            }
            sending.join().expect("all was sent");
            if let User::Line(mut line) = receiver {
                line.send("quit");
                assert_eq!(line.rest_text(), "goodbye\n");
            } else if let User::Framed(mut framed) = receiver {
                framed.send(client::GOODBYE, 0, b"");
                while framed.next() != News::Closed {}
            }
        }
    }
}

#[test]
fn a_conversation_carries_bytes_both_ways_at_once() {
    let server = Server::start();
    let (there, back) = (noise(1, 5 * MIB), noise(2, 4 * MIB));
    let mut alice = server.framed(FAMILIES[0], "alice");
    let mut bob = server.framed(FAMILIES[1], "bob");
    let offer = json!({"op": "send", "to": "bob", "name": "x", "form": "conversation"});
    alice.request(1, offer);
    let (number, _) = offer_to(&mut bob);
    bob.request(1, json!({"op": "accept", "offer": number, "form": "conversation"}));
    // Each says all that it has, and reads the other meanwhile.
    let talk = |mut framed: Framed, content: Vec<u8>| {
        thread::spawn(move || {
            let News::Detail(1, accepted) = framed.next() else { panic!("not accepted") };
            assert_eq!(accepted["event"], "accepted");
            let (mut rest, mut window, mut ended) =
                (&content[..], INPUT_WINDOW_BYTES as usize, false);
            let mut heard = Vec::new();
            loop {
                while window > 0 && !rest.is_empty() {
                    let (now, later) = rest.split_at(rest.len().min(window).min(64 * 1024));
                    framed.send(client::DATA, 1, now);
                    (window, rest) = (window - now.len(), later);
                }
                if rest.is_empty() && !std::mem::replace(&mut ended, true) {
                    framed.send(client::END, 1, b"");
                }
                match framed.next() {
                    News::Credit(1, bytes) => window += bytes as usize,
                    News::Stdout(1, bytes) => {
                        framed.credit(1, bytes.len() as u32);
                        heard.extend(bytes);
                    }
                    News::Detail(1, detail) => assert_eq!(detail, json!({"event": "data-end"})),
                    News::End(1, outcome) => {
                        assert_eq!(outcome, json!({"outcome": "done"}));
                        return heard;
                    }
                    other => panic!("unexpected: {other:?}"),
                }
            }
        })
    };
    let (alice, bob) = (talk(alice, there.clone()), talk(bob, back.clone()));
    assert!(alice.join().expect("it talks to the end") == back);
    assert!(bob.join().expect("it talks to the end") == there);
}

#[test]
fn a_refusal_and_an_absent_user_are_known_at_once() {
    let server = Server::start();
    for (is_line, ip) in [(true, FAMILIES[0]), (false, FAMILIES[1])] {
        let mut alice = server.user(ip, "alice");
        let mut bob = User::new(&server, is_line, ip, "bob");
        let begun = Instant::now();
        alice.send("send 5 a carol");
        alice.send_bytes(b"quit\n");
        assert!(alice.next().starts_with("error no-such-user: nobody called `carol` is here"));
        // More than all buffers on the way hold: it is read and passed over.
        let size = 40 * MIB;
        alice.send(&format!("send {size} big bob"));
        match &mut bob {
            User::Line(line) => {
                assert!(line.next().starts_with("offer 1 alice "));
                line.send("refuse 1 no room here");
            }
            User::Framed(framed) => {
                offer_to(framed);
                framed.request(1, json!({"op": "refuse", "offer": 1, "reason": "no room here"}));
            }
        }
        assert_eq!(alice.next(), "error refused: bob does not want big: no room here");
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
        alice.send_bytes(&vec![b'\n'; size]);
        alice.send("echo on");
        assert_eq!(alice.next(), "on");
        alice.send("quit");
        assert_eq!(alice.next(), "goodbye");
        bob_leaves(bob);
    }
}

fn bob_leaves(bob: User) {
    match bob {
        User::Line(mut line) => {
            line.send("quit");
            assert_eq!(line.rest_text(), "goodbye\n");
        }
        User::Framed(mut framed) => {
            framed.send(client::GOODBYE, 0, b"");
            while framed.next() != News::Closed {}
        }
    }
}

/// Sends all of it, with a note to bob now and then, to which answers come; how many of each.
fn pour_with_notes(alice: &mut Framed, content: &[u8]) -> (usize, usize) {
    let (mut rest, mut window) = (content, INPUT_WINDOW_BYTES as usize);
    let (mut asked, mut heard, mut ended) = (0, 0, false);
    loop {
        let (now, later) = rest.split_at(rest.len().min(window).min(64 * 1024));
        if !now.is_empty() {
            alice.send(client::DATA, 1, now);
            if later.len() / (8 * MIB) != rest.len() / (8 * MIB) {
                alice.message(0, "bob", &format!("note {asked}"));
                asked += 1;
            }
            (window, rest) = (window - now.len(), later);
            continue;
        }
        if rest.is_empty() && !std::mem::replace(&mut ended, true) {
            alice.send(client::END, 1, blake3::hash(content).as_bytes());
        }
        match alice.next() {
            News::Credit(_, bytes) => window += bytes as usize,
            News::Message { text, .. } => {
                assert_eq!(text, format!("answer {heard}"));
                heard += 1;
            }
            News::End(1, outcome) => {
                assert_eq!(outcome["outcome"], "delivered");
                return (asked, heard);
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
}

#[test]
fn chat_passes_a_file_in_both_directions() {
    let server = Server::start();
    let canary = Canary::start(&server);
    let content = noise(3, 64 * MIB);
    for ip in FAMILIES {
        let mut alice = server.framed(ip, "alice");
        let mut bob = server.framed(ip, "bob");
        alice.request(1, json!({"op": "send", "to": "bob", "name": "big", "size": content.len()}));
        let (number, _) = offer_to(&mut bob);
        bob.request(1, json!({"op": "accept", "offer": number}));
        let all = content.clone();
        let sending = thread::spawn(move || {
            assert!(matches!(alice.next(), News::Detail(1, _)));
            pour_with_notes(&mut alice, &all)
        });
        // The notes are heard between the bytes, and answered at once.
        let (mut hasher, mut got, mut notes) = (blake3::Hasher::new(), 0, Vec::new());
        let outcome = loop {
            match bob.next() {
                News::Detail(1, file) => assert_eq!(file["size"], content.len()),
                News::Stdout(1, bytes) => {
                    bob.credit(1, bytes.len() as u32);
                    hasher.update(&bytes);
                    got += bytes.len();
                }
                News::Message { text, .. } => {
                    let number = notes.len();
                    assert_eq!(text, format!("note {number}"));
                    notes.push(got);
                    bob.message(0, "alice", &format!("answer {number}"));
                }
                News::End(1, outcome) => break outcome,
                other => panic!("unexpected: {other:?}"),
            }
        };
        assert_eq!(outcome["hash"], hasher.finalize().to_string());
        let (asked, heard) = sending.join().expect("it was sent");
        assert!(asked >= 7 && notes.len() == asked && heard >= asked - 1, "{asked} {heard}");
        // What was said before the file was half through was heard before it was all there.
        assert!(notes[0] < content.len() / 4, "the first note came after {} bytes", notes[0]);
        bob_leaves(User::Framed(bob));
    }
    canary.stop();
}

#[test]
fn a_receiver_that_does_not_read_costs_no_memory_and_stops_its_sender_alone() {
    let server = Server::start();
    let canary = Canary::start(&server);
    let (mut alice, mut carol) =
        (server.user(FAMILIES[0], "alice"), server.framed(FAMILIES[1], "carol"));
    let (mut deaf, mut ears) =
        (server.user(FAMILIES[1], "deaf"), server.framed(FAMILIES[0], "ears"));
    let before = server.resident_kib();
    let size = 64 * MIB;
    alice.send(&format!("send {size} big deaf"));
    assert!(deaf.next().starts_with("offer 1 alice "));
    deaf.send("accept 1");
    assert_eq!(alice.next(), "accepted deaf");
    // Push until nothing is taken any more: the buffers of the system are full then.
    let content = noise(4, size);
    alice.stream().set_nonblocking(true).expect("a mode");
    let (mut sent, mut full_since) = (0, Instant::now());
    while full_since.elapsed() < Duration::from_millis(300) {
        match alice.stream().write(&content[sent..]) {
            Ok(count) => (sent, full_since) = (sent + count, Instant::now()),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
    assert!(sent < size / 2, "{sent} bytes went to nobody");
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 2048, "{grown} KiB for somebody who does not read");
    // Others send meanwhile.
    carol.request(1, json!({"op": "send", "to": "ears", "name": "small", "data": "hello"}));
    let (number, _) = offer_to(&mut ears);
    ears.request(1, json!({"op": "accept", "offer": number}));
    assert_eq!(ears.answer(1).stdout, b"hello");
    canary.stop();
    // It reads again, and all of it comes.
    alice.stream().set_nonblocking(false).expect("a mode");
    let rest = content[sent..].to_vec();
    let sending = thread::spawn(move || {
        alice.send_bytes(&rest);
        assert_eq!(alice.next(), "delivered");
    });
    assert_eq!(deaf.next(), format!("file {size} big"));
    assert_eq!(deaf.hash_of(size as u64), blake3::hash(&content));
    sending.join().expect("it was sent");
}

#[test]
fn whoever_hangs_up_within_a_file_is_told_to_the_other() {
    let server = Server::start();
    for ip in FAMILIES {
        // The sender goes: lines are cut off, frames are told.
        let mut bob = server.user(ip, "bob");
        let mut alice = server.framed(ip, "alice");
        alice.request(1, json!({"op": "send", "to": "bob", "name": "a", "size": 100_000}));
        assert_eq!(bob.next(), "offer 1 alice 100000 a");
        bob.send("accept 1");
        assert!(matches!(alice.next(), News::Detail(1, _)));
        alice.send(client::DATA, 1, &[b'x'; 1000]);
        assert_eq!(bob.next(), "file 100000 a");
        assert_eq!(bob.exactly(1000), [b'x'; 1000]);
        alice.reset();
        assert_eq!(bob.rest(), b"");

        let mut bob = server.framed(ip, "bob2");
        let mut alice = server.user(ip, "alice2");
        alice.send("send 100000 a bob2");
        alice.send_bytes(b"begun");
        let (number, _) = offer_to(&mut bob);
        bob.request(7, json!({"op": "accept", "offer": number}));
        assert!(matches!(bob.next(), News::Detail(7, _)));
        assert_eq!(bob.next(), News::Stdout(7, b"begun".to_vec()));
        alice.half_close();
        let News::End(7, outcome) = bob.next() else { panic!("no end") };
        assert_eq!(outcome["code"], "bad-arguments");
        assert!(alice.rest_text().starts_with("accepted bob2\nerror bad-arguments: the input"));

        // The receiver goes.
        let mut alice = server.user(ip, "alice3");
        alice.send("send 100000 a bob2");
        let (number, _) = offer_to(&mut bob);
        bob.request(8, json!({"op": "accept", "offer": number}));
        assert_eq!(alice.next(), "accepted bob2");
        bob.reset();
        assert_eq!(alice.next(), "error peer-gone: bob2 has gone");
        alice.send_bytes(&vec![b'\n'; 100_000]);
        alice.send("echo on");
        assert_eq!(alice.next(), "on");
    }
}

#[test]
fn a_file_and_a_download_share_the_connection_of_their_receiver() {
    let server = Server::start();
    let content = noise(5, 8 * MIB);
    server.put("file", &content);
    let mut bob = server.framed(FAMILIES[0], "bob");
    let mut alice = server.user(FAMILIES[1], "alice");
    let all = content.clone();
    let sending = thread::spawn(move || {
        alice.send(&format!("send {} mine bob", all.len()));
        alice.send_bytes(&all);
        assert_eq!(alice.lines(2), ["accepted bob", "delivered"]);
    });
    let (number, _) = offer_to(&mut bob);
    bob.request(1, json!({"op": "accept", "offer": number}));
    bob.download(2, "file");
    let (mut one, mut two, mut ends, mut turns, mut last) = (vec![], vec![], 0, 0, 0);
    while ends < 2 {
        match bob.next() {
            News::Stdout(tag, bytes) => {
                bob.credit(tag, bytes.len() as u32);
                turns += usize::from(tag != last);
                last = tag;
                if tag == 1 { one.extend(bytes) } else { two.extend(bytes) }
            }
            News::Detail(..) => {}
            News::End(..) => ends += 1,
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert!(one == content && two == content);
    assert!(turns > 20, "they took {turns} turns only");
    sending.join().expect("it was sent");
}

/// Somebody with `nc` and a shell: the request and the bytes from a pipe, then the end of input.
#[test]
fn a_shell_sends_and_receives_by_nc() {
    let server = Server::start();
    let has_nc = std::process::Command::new("nc").arg("-h").output();
    if !has_nc.is_ok_and(|output| String::from_utf8_lossy(&output.stderr).contains("-N")) {
        println!("skipped: no nc with the option -N");
        return;
    }
    let content = noise(6, MIB);
    server.put("plan.bin", &content);
    for ip in FAMILIES {
        let (port, folder) = (server.port, server.root().display().to_string());
        let shell = |script: String| {
            std::process::Command::new("sh")
                .args(["-c", &script])
                .current_dir(&folder)
                .stdout(std::process::Stdio::piped())
                .spawn()
                .expect("a shell")
        };
        let mut bob = server.user(ip, "bob");
        let mut alice = shell(format!(
            "(echo user alice; echo send $(wc -c <plan.bin) plan.bin bob; cat plan.bin) \
             | nc -N {ip} {port}"
        ));
        assert_eq!(bob.next(), format!("offer 1 alice {MIB} plan.bin"));
        bob.send("accept 1");
        assert_eq!(bob.next(), format!("file {MIB} plan.bin"));
        assert!(bob.exactly(MIB) == content);
        let mut said = String::new();
        alice.stdout.take().expect("a pipe").read_to_string(&mut said).expect("text");
        assert_eq!(said, "welcome alice\naccepted bob\ndelivered\n");
        await_true("the end of nc", || alice.try_wait().expect("a child").is_some());
    }
}
