//! Many peers that do anything at any time, and leave as they like; afterwards all must be as it
//! was before. `CHAOS_SEED` and `CHAOS_SECONDS` repeat and prolong it.

mod process;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use process::{Canary, FAMILIES, Server, await_true, noise, reset_on_close};
use serde_json::json;
use sixfour::wire::frame::{self, client};

/// A number of the environment, or this one.
fn setting(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(default, |value| value.parse().expect("a number"))
}

/// splitmix64: enough for tests, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) % sides as u64) as usize
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.roll(choices.len())]
    }
}

const COMMANDS: [&str; 12] = [
    "true",
    "yes",
    "cat",
    "head -c 300000 /dev/zero",
    "sleep 1000",
    "sleep 1000 & echo $!",
    "head -c 10; exit 3",
    "kill -9 $$",
    "cd folder",
    "trap '' TERM; sleep 0.3",
    "echo a; sleep 0.01; echo b >&2; sleep 0.01; echo c",
    "exec >&- 2>&-; sleep 0.05",
];
const FILES: [&str; 5] = ["big", "small", "empty", "folder", "none"];
const NAMES: [&str; 7] = ["p0", "p1", "p2", "p3", "*", "p1,p2", "canary-0"];

/// One request in lines.
fn line_request(dice: &mut Dice) -> Vec<u8> {
    let text = match dice.roll(10) {
        0 => format!("user {}", dice.pick(&NAMES)),
        1 | 2 => format!("{}|{}", "x".repeat(1 + dice.roll(3000)), dice.pick(&NAMES)),
        3 | 4 => format!("download {}", dice.pick(&FILES)),
        5 | 6 => format!("run {}", dice.pick(&COMMANDS)),
        7 => "ls".to_owned(),
        8 => dice.pick(&["who", "help", "echo x", "nonsense", "quit"]).to_owned(),
        _ => return noise(dice.roll(1 << 20) as u64, dice.roll(200)),
    };
    (text + "\n").into_bytes()
}

/// One frame of a client.
fn frame_request(dice: &mut Dice) -> Vec<u8> {
    let mut out = Vec::new();
    let tag = 1 + dice.roll(6) as u32;
    match dice.roll(14) {
        0..3 => {
            let body = json!({
                "op": "run",
                "command": dice.pick(&COMMANDS),
                "stdin": dice.roll(2) == 0,
                "timeout_ms": ([0, 0, 1, 50][dice.roll(4)]),
            });
            frame::put(&mut out, client::REQUEST, tag, body.to_string().as_bytes());
        }
        3..5 => {
            let body = json!({"op": "download", "path": dice.pick(&FILES)});
            frame::put(&mut out, client::REQUEST, tag, body.to_string().as_bytes());
        }
        5 => frame::put(&mut out, client::REQUEST, tag, br#"{"op": "ls"}"#),
        6 | 7 => {
            let text = "x".repeat(1 + dice.roll(3000));
            let names = dice.pick(&NAMES).as_bytes();
            frame::put_message(
                &mut out,
                client::MESSAGE,
                tag * dice.roll(2) as u32,
                names,
                text.as_str(),
            );
        }
        8 => frame::put(&mut out, client::DATA, tag, &vec![b'x'; dice.roll(65_536)]),
        9 => frame::put(&mut out, client::END, tag, b""),
        10 => frame::put(&mut out, client::CREDIT, tag, &(dice.roll(1 << 20) as u32).to_be_bytes()),
        11 | 12 => frame::put(&mut out, client::CANCEL, tag, b""),
        _ => frame::put(&mut out, client::ACKNOWLEDGE, tag, b""),
    }
    out
}

/// One object, good or bad; sometimes a part of one.
fn json_request(dice: &mut Dice) -> Vec<u8> {
    let id = dice.roll(6);
    let object = match dice.roll(12) {
        0 => json!({"op": "login", "user": dice.pick(&NAMES), "id": id}),
        1 | 2 => {
            let (text, to) = ("x".repeat(1 + dice.roll(3000)), dice.pick(&NAMES));
            let receipt = dice.roll(2) == 0;
            json!({"op": "message", "to": to, "text": text, "id": id, "receipt": receipt})
        }
        3 => json!({"op": "download", "path": dice.pick(&FILES), "id": id}),
        4..7 => {
            let (command, timeout) = (dice.pick(&COMMANDS), [0, 0, 1, 50][dice.roll(4)]);
            let input = "x".repeat(dice.roll(100_000));
            json!({"method": command, "id": id, "timeout_ms": timeout, "stdin": input})
        }
        7 => json!({"op": "cancel", "target": id, "id": null}),
        8 => json!({"op": "ls", "id": id}),
        9 => json!({"op": dice.pick(&["who", "help", "ping", "nonsense", "quit"]), "id": id}),
        10 => return b"{nonsense}".to_vec(),
        _ => {
            let mut bytes = noise(dice.roll(1 << 20) as u64, dice.roll(50));
            bytes.insert(0, b'{');
            return bytes;
        }
    };
    object.to_string().into_bytes()
}

/// One peer, from its connection to whatever end it finds.
fn live(stream: TcpStream, dice: &mut Dice) {
    let short = Some(Duration::from_millis(20));
    stream.set_read_timeout(short).expect("a timeout");
    stream.set_write_timeout(short).expect("a timeout");
    let requests = [frame_request, line_request, json_request];
    let speaks = dice.roll(requests.len());
    // The first byte chooses the dialect.
    let mut begin = if speaks == 2 { b"{}".to_vec() } else { Vec::new() };
    if speaks == 0 {
        begin.extend(frame::MAGIC);
        let hello = json!({"version": 1, "user": dice.pick(&NAMES[..4])});
        frame::put(&mut begin, client::HELLO, 0, hello.to_string().as_bytes());
    }
    let mut buffer = vec![0; 64 * 1024];
    let mut is_on = (&stream).write_all(&begin).is_ok();
    for _ in 0..dice.roll(25) {
        if !is_on {
            break;
        }
        is_on = match dice.roll(3) {
            0 => match (&stream).read(&mut buffer) {
                Ok(count) => count > 0,
                Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            },
            _ => {
                let request = requests[speaks](dice);
                // A write that stalls has cut the request; what follows makes no sense any more.
                (&stream).write_all(&request).is_ok()
            }
        };
    }
    match dice.roll(3) {
        0 => reset_on_close(&stream),
        1 => {
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = (&stream).read(&mut buffer);
        }
        _ => {}
    }
}

#[test]
fn whatever_peers_do_all_is_as_before_when_they_are_gone() {
    let seed = setting("CHAOS_SEED", 1);
    let time = Duration::from_secs(setting("CHAOS_SECONDS", 2));
    println!("CHAOS_SEED={seed}");
    let mut server = Server::start();
    server.put("big", &noise(1, 3 * 1024 * 1024));
    server.put("small", b"small");
    server.put("empty", b"");
    std::fs::create_dir(server.path("folder")).expect("a folder");
    let before = server.descriptors();
    let begun = Instant::now();
    thread::scope(|scope| {
        for number in 0..6 {
            let server = &server;
            scope.spawn(move || {
                let mut dice = Dice(seed * 1000 + number);
                while begun.elapsed() < time {
                    live(server.connect(FAMILIES[dice.roll(2)]), &mut dice);
                }
            });
        }
    });
    // Those who only said that no more requests come keep their commands, until the kernel finds
    // that they are gone: these are ended by hand.
    await_true("nobody but the guard is left", || {
        for pid in server.children() {
            let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw).expect("a number");
            let name = std::fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero()));
            if name.is_ok_and(|name| name.trim() != "sixfour-guard") {
                let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
            }
        }
        server.children().len() == 1
    });
    await_true("all descriptors are closed", || server.descriptors() <= before);
    let canary = Canary::start(&server);
    server.assert_alive();
    canary.stop();
    let log = server.log();
    assert!(!log.contains("panic") && !log.contains("ERROR"), "{log}");
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
}
