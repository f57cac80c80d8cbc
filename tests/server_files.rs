//! Downloads from a real server: byte-exact, below the root, side by side with everything else.

mod process;

use std::{
    fs::{self, File, OpenOptions},
    io::Read as _,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    time::{Duration, Instant},
};

use process::{Canary, FAMILIES, Framed, Line, News, Server, noise};
use serde_json::json;

const MIB: usize = 1024 * 1024;

#[test]
fn every_size_arrives_as_it_is() {
    let server = Server::start();
    let sizes = [0, 1, 65_535, 65_536, 65_537, 5 * MIB];
    for size in sizes {
        server.put(&format!("file {size}"), &noise(size as u64, size));
    }
    for ip in FAMILIES {
        let mut line = server.line(ip);
        let mut framed = server.framed(ip, "reader");
        for (tag, size) in (1..).zip(sizes) {
            let name = format!("file {size}");
            let content = noise(size as u64, size);
            line.send(&format!("download {name}"));
            assert_eq!(line.next(), format!("file {size} {name}"));
            assert!(line.exactly(size) == content, "{size} by lines");

            framed.download(tag, &name);
            let answer = framed.answer(tag);
            assert!(answer.stdout == content, "{size} by frames");
            let detail = &answer.details[0];
            assert_eq!(detail["event"], "file");
            assert_eq!((&detail["name"], &detail["size"]), (&json!(name), &json!(size)));
            assert!(detail["modified"].as_i64().is_some_and(|seconds| seconds > 1_600_000_000));
            let hash = blake3::hash(&content).to_hex().to_string();
            assert_eq!(answer.outcome, json!({"outcome": "sent", "hash": hash}));
        }
        line.send("echo still here");
        assert_eq!(line.next(), "still here");
        framed.send(sixfour::wire::frame::client::GOODBYE, 0, b"");
        assert_eq!(framed.next(), News::Goodbye(None));
    }
}

#[test]
fn a_sparse_file_beyond_4_gib_arrives_whole() {
    let server = Server::start();
    let size = (4 << 30) + 1u64;
    let file = File::create(server.path("sparse")).expect("a file");
    file.set_len(size).expect("room for holes");
    let mut v6 = server.line(FAMILIES[0]);
    v6.send("download sparse\necho behind");
    assert_eq!(v6.next(), format!("file {size} sparse"));
    let (mut buffer, holes) = (vec![0u8; MIB], vec![0u8; MIB]);
    let mut left = size;
    while left > 0 {
        let most = buffer.len().min(left.try_into().unwrap_or(usize::MAX));
        let count = v6.reader().read(&mut buffer[..most]).expect("bytes in time");
        assert!(count > 0, "{left} bytes are missing");
        assert!(buffer[..count] == holes[..count]);
        left -= count as u64;
    }
    assert_eq!(v6.next(), "behind");
    let mut v4 = server.framed(FAMILIES[1], "reader");
    v4.download(1, "sparse");
    let News::Detail(1, detail) = v4.next() else { panic!("no announcement") };
    assert_eq!(detail["size"], size);
    v4.cancel(1);
    loop {
        match v4.next() {
            News::Stdout(1, _) => {}
            News::End(1, outcome) => break assert_eq!(outcome["code"], "cancelled"),
            other => panic!("unexpected: {other:?}"),
        }
    }
}

/// To hash the large ones takes minutes, and a small one is not to wait for that.
#[test]
fn many_large_files_of_one_session_do_not_hold_a_small_one_of_another() {
    let server = Server::start();
    let large = File::create(server.path("large")).expect("a file");
    large.set_len(64 << 30).expect("room for holes");
    server.put("small", b"hello");
    for (number, ip) in FAMILIES.into_iter().enumerate() {
        let mut greedy = server.framed(ip, &format!("greedy{number}"));
        (1..=32).for_each(|tag| greedy.download(tag, "large"));
        let mut announced = 0;
        while announced < 32 {
            announced += usize::from(matches!(greedy.next(), News::Detail(..)));
        }
        let mut modest = server.framed(ip, &format!("modest{number}"));
        modest.download(1, "small");
        let answer = modest.answer(1);
        assert_eq!(answer.text(), "hello");
        let hash = blake3::hash(b"hello").to_hex().to_string();
        assert_eq!(answer.outcome, json!({"outcome": "sent", "hash": hash}));
    }
}

/// On a file system in memory this shows the same of pages that are there.
#[test]
fn a_file_that_is_not_in_memory_arrives_whole_and_chat_goes_on() {
    let server = Server::start();
    let content = noise(7, 20 * MIB + 3);
    server.put("cold", &content);
    for ip in FAMILIES {
        for verified in [false, true] {
            let file = File::open(server.path("cold")).expect("it is there");
            file.sync_all().expect("a disk");
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("a file");
            let mut other = server.line(ip);
            let mut line = server.line(ip);
            if verified {
                let mut framed = server.framed(ip, "reader");
                framed.download(1, "cold");
                assert!(framed.answer(1).stdout == content, "by frames");
                framed.send(sixfour::wire::frame::client::GOODBYE, 0, b"");
                assert_eq!(framed.next(), News::Goodbye(None));
            } else {
                line.send("download cold");
                other.send("echo meanwhile");
                assert_eq!(other.next(), "meanwhile");
                assert_eq!(line.next(), format!("file {} cold", content.len()));
                assert!(line.exactly(content.len()) == content, "by lines");
            }
        }
    }
}

#[test]
fn names_are_data() {
    let server = Server::start();
    let names: [(&[u8], &str); 5] = [
        (b" two  spaces ", " two  spaces "),
        (b"C:x\\..", "C:x\\.."),
        (b"-rf", "-rf"),
        (b"esc\x1b[31m", "esc\\x1b[31m"),
        (b"no utf-8 \xff", "no utf-8 \\xff"),
    ];
    for (name, _) in names {
        let path = server.root().join(std::ffi::OsStr::from_bytes(name));
        fs::write(path, name).expect("a file");
    }
    fs::create_dir(server.path("folder")).expect("a folder");
    server.put("folder/inner", b"inner");
    for ip in FAMILIES {
        let mut framed = server.framed(ip, "reader");
        for (tag, (name, _)) in (1..).zip(names) {
            let path = serde_json::to_value(sixfour::wire::Blob::borrowed(name)).expect("JSON");
            framed.request(tag, json!({"op": "download", "path": path}));
            let answer = framed.answer(tag);
            assert_eq!(answer.stdout, name, "{answer:?}");
            assert_eq!(answer.details[0]["name"], path);
        }
        let mut line = server.line(ip);
        for (request, shown, content) in [
            ("-rf", "-rf", "-rf"),
            ("C:x\\..", "C:x\\..", "C:x\\.."),
            ("folder/inner", "inner", "inner"),
        ] {
            line.send(&format!("download {request}"));
            assert_eq!(line.next(), format!("file {} {shown}", content.len()));
            assert_eq!(line.exactly(content.len()), content.as_bytes());
        }
        line.send("ls");
        let listing = line.lines(names.len() + 2);
        for (_, shown) in names {
            assert!(listing.iter().any(|it| it.ends_with(&format!("Z {shown}"))), "{listing:?}");
        }
        framed.reset();
    }
}

#[test]
fn nothing_outside_the_root_and_no_device_is_served() {
    let server = Server::start();
    let outside = tempfile::tempdir().expect("a folder");
    fs::write(outside.path().join("secret"), "secret").expect("a file");
    fs::create_dir(server.path("in")).expect("a folder");
    server.put("in/file", b"x");
    symlink(outside.path().join("secret"), server.path("leaf")).expect("a link");
    symlink(outside.path(), server.path("parent")).expect("a link");
    symlink("../../../../../../etc/passwd", server.path("in/relative")).expect("a link");
    symlink("nowhere", server.path("dangling")).expect("a link");
    symlink("loop", server.path("loop")).expect("a link");
    symlink("/proc/self/environ", server.path("environ")).expect("a link");
    symlink("in/file", server.path("inside")).expect("a link");
    server.fifo("fifo");
    std::os::unix::net::UnixListener::bind(server.path("socket")).expect("a socket");
    let long = "a".repeat(256);
    let cases = [
        ("../x", "bad-path"),
        ("/etc/passwd", "bad-path"),
        ("in/../../x", "bad-path"),
        (".", "bad-path"),
        ("in/", "bad-path"),
        (long.as_str(), "bad-path"),
        ("..%2fx", "no-such-file"),
        ("..\\x", "no-such-file"),
        ("leaf", "no-such-file"),
        ("parent/secret", "no-such-file"),
        ("in/relative", "no-such-file"),
        ("dangling", "no-such-file"),
        ("loop", "no-such-file"),
        ("environ", "no-such-file"),
        ("in/file/x", "no-such-file"),
        ("in", "not-a-file"),
        ("fifo", "not-a-file"),
        ("socket", "not-a-file"),
    ];
    for ip in FAMILIES {
        let mut line = server.line(ip);
        let mut framed = server.framed(ip, "reader");
        for (tag, (path, code)) in (1..).zip(cases) {
            let begun = Instant::now();
            line.send(&format!("download {path}"));
            let said = line.next();
            assert!(said.starts_with(&format!("error {code}: ")), "{said} for {path}");
            framed.download(tag, path);
            assert_eq!(refusal(&mut framed, tag), code, "{path}");
            assert!(begun.elapsed() < Duration::from_secs(1), "{path} took long");
        }
        for (path, code) in [("..", "bad-path"), ("/etc", "bad-path"), ("parent", "no-such-file")] {
            line.send(&format!("ls {path}"));
            let said = line.next();
            assert!(said.starts_with(&format!("error {code}: ")), "{said} for ls {path}");
        }
        line.send("download inside");
        assert_eq!(line.next(), "file 1 inside");
        assert_eq!(line.exactly(1), b"x");
        framed.reset();
    }
}

/// Why a request was refused, by an error or by its end.
fn refusal(framed: &mut Framed, tag: u32) -> String {
    match framed.next() {
        News::Error(number, why) | News::End(number, why) if number == tag => {
            why["code"].as_str().expect("a code").to_owned()
        }
        other => panic!("no refusal but {other:?}"),
    }
}

#[test]
fn chat_passes_a_framed_download() {
    let server = Server::start();
    let size = 64 * MIB;
    server.put("big", &noise(3, size));
    for (ip, other) in [(FAMILIES[0], FAMILIES[1]), (FAMILIES[1], FAMILIES[0])] {
        let mut reader = server.framed(ip, "reader");
        let mut writer = server.user(other, "writer");
        reader.download(1, "big");
        assert!(matches!(reader.next(), News::Detail(1, _)));
        let mut taken = 0;
        for round in 0..20 {
            writer.send(&format!("round {round}|reader"));
            let before = taken;
            loop {
                match reader.next() {
                    News::Stdout(1, bytes) => {
                        taken += bytes.len();
                        reader.credit(1, bytes.len() as u32);
                    }
                    News::Message { text, .. } => {
                        assert_eq!(text, format!("round {round}"));
                        break;
                    }
                    other => panic!("unexpected: {other:?}"),
                }
            }
            // What the kernel holds already, and no more.
            assert!(taken - before <= 16 * MIB, "it waited for {} bytes", taken - before);
        }
        assert!(taken < size, "chat came only after the file");
        reader.reset();
        writer.send("quit");
        assert_eq!(writer.rest_text(), "goodbye\n");
        process::await_true("the reader is gone", || {
            let mut line = server.line(ip);
            line.send("who");
            line.next() == "[0 users]"
        });
    }
}

#[test]
fn downloads_run_side_by_side_over_one_connection() {
    let server = Server::start();
    let sizes = [9 * MIB, 7 * MIB + 1, 0];
    for (number, size) in sizes.iter().enumerate() {
        server.put(&format!("file{number}"), &noise(number as u64, *size));
    }
    for ip in FAMILIES {
        let mut reader = server.framed(ip, "reader");
        for tag in 0..sizes.len() as u32 {
            reader.download(tag + 1, &format!("file{tag}"));
        }
        let mut contents = vec![Vec::new(); sizes.len()];
        let (mut ends, mut last, mut changes) = (0, 0, 0);
        while ends < sizes.len() {
            match reader.next() {
                News::Detail(..) => {}
                News::Stdout(tag, bytes) => {
                    changes += usize::from(std::mem::replace(&mut last, tag) != tag);
                    reader.credit(tag, bytes.len() as u32);
                    contents[tag as usize - 1].extend(bytes);
                }
                News::End(tag, outcome) => {
                    ends += 1;
                    let hash = blake3::hash(&contents[tag as usize - 1]).to_hex().to_string();
                    assert_eq!(outcome, json!({"outcome": "sent", "hash": hash}));
                }
                other => panic!("unexpected: {other:?}"),
            }
        }
        for (number, content) in contents.iter().enumerate() {
            assert!(*content == noise(number as u64, sizes[number]), "file {number} differs");
        }
        assert!(changes > 20, "they took {changes} turns only");
        reader.reset();
        process::await_true("the reader is gone", || {
            let mut line = server.line(ip);
            line.send("who");
            line.next() == "[0 users]"
        });
    }
}

#[test]
fn a_file_that_shrinks_on_its_way_is_said_to_have_failed() {
    let server = Server::start();
    let canary = Canary::start(&server);
    for ip in FAMILIES {
        let name = format!("shrinks{}", ip.is_ipv6());
        let truncate = || {
            let file = OpenOptions::new().write(true).open(server.path(&name)).expect("a file");
            file.set_len(100).expect("it shrinks");
        };
        server.put(&name, &noise(5, 64 * MIB));
        let mut framed = server.framed(ip, "framed");
        framed.download(1, &name);
        assert!(matches!(framed.next(), News::Detail(1, _)));
        truncate();
        let answer = framed.answer(1);
        assert_eq!(answer.outcome["outcome"], "failed");
        assert_eq!(answer.outcome["code"], "file-changed");
        framed.run_to_end(2, "echo alive").assert_exit(0);

        server.put(&name, &noise(5, 64 * MIB));
        let mut line = server.line(ip);
        line.send(&format!("download {name}"));
        assert_eq!(line.next(), format!("file {} {name}", 64 * MIB));
        truncate();
        let came = line.rest_until_broken();
        assert!(came.len() < 64 * MIB, "all bytes came of a file that has lost them");
        framed.reset();
    }
    canary.stop();
}

#[test]
fn downloads_that_nobody_reads_cost_no_memory_and_disturb_nobody() {
    let server = Server::start();
    server.put("big", &noise(6, 32 * MIB));
    let canary = Canary::start(&server);
    let before = server.resident_kib();
    let mut idle: Vec<Line> = Vec::new();
    for number in 0..20 {
        let mut line = server.line(FAMILIES[number % 2]);
        line.send("download big");
        assert_eq!(line.next(), format!("file {} big", 32 * MIB));
        idle.push(line);
    }
    let mut framed = server.framed(FAMILIES[0], "idle");
    for tag in 1..=20 {
        framed.download(tag, "big");
    }
    // While all of them stand still, somebody else gets the whole file.
    let mut line = server.line(FAMILIES[1]);
    line.send("download big");
    assert_eq!(line.next(), format!("file {} big", 32 * MIB));
    assert_eq!(line.hash_of(32 * MIB as u64), blake3::hash(&noise(6, 32 * MIB)));
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 41 * 320, "{grown} KiB for 41 downloads");
    canary.stop();
}

#[test]
fn a_folder_of_many_entries_is_listed_whole() {
    let server = Server::start();
    for number in 0..3000 {
        server.put(&format!("entry-{number:04}"), b"");
    }
    for ip in FAMILIES {
        let mut framed = server.framed(ip, "reader");
        framed.request(1, json!({"op": "ls"}));
        let answer = framed.answer(1);
        assert_eq!(answer.outcome, json!({"outcome": "counted", "count": 3000}));
        let entries =
            answer.details.iter().flat_map(|it| it["entries"].as_array().expect("a list"));
        let names: Vec<_> = entries.map(|it| it["name"].as_str().expect("text")).collect();
        assert_eq!(names.len(), 3000);
        assert!(names.is_sorted());
        framed.reset();
        let mut line = server.line(ip);
        line.send("ls");
        line.half_close();
        assert_eq!(line.rest_text().lines().count(), 3001);
        process::await_true("the reader is gone", || {
            let mut line = server.line(ip);
            line.send("who");
            line.next() == "[0 users]"
        });
    }
}
