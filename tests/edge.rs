//! The edge network on a real server: devices over both families, logs byte for byte, full disks,
//! servers that are killed, and a thousand devices at once.

mod process;

use std::{net::IpAddr, path::PathBuf};

use process::{FAMILIES, Framed, Line, News, Server, await_true, run_server};
use rustix::process::Signal;
use serde_json::{Value, json};
use sixfour::wire::frame::client;
use tempfile::TempDir;

/// A server with a data folder of its own.
struct Edge {
    server: Server,
    data: TempDir,
}

impl Edge {
    fn start() -> Edge {
        Edge::start_in(TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("a folder"))
    }

    fn start_in(data: TempDir) -> Edge {
        let path = data.path().to_str().expect("a path of the test").to_owned();
        Edge { server: Server::start_with(&["--data", &path]), data }
    }

    /// Kills the server and starts another one on the same folder.
    fn kill_and_restart(mut self) -> Edge {
        self.server.signal(Signal::KILL);
        self.server.wait();
        Edge::start_in(self.data)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.data.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect(name)
    }

    /// The log of devices with its times left out, once it is so.
    #[track_caller]
    fn await_devices(&self, lines: &[&str]) {
        await_true("the log of devices", || {
            let log = self.read("edge-device-log.txt");
            log.lines().map(|line| without_time(line, 1)).eq(lines.iter().copied())
        });
    }

    fn log(&self, name: &str) -> Vec<String> {
        self.read(name).lines().map(|line| without_time(line, 1)).collect()
    }
}

/// The line without the field that is its time, after a look at that.
fn without_time(line: &str, at: usize) -> String {
    let mut fields: Vec<&str> = line.split("; ").collect();
    let time = fields.remove(at);
    let words: Vec<&str> = time.split(' ').collect();
    let [day, month, year, clock] = words[..] else { panic!("no time: {line}") };
    let number = |text: &str| text.parse::<u32>().is_ok();
    assert!(number(day) && !day.starts_with('0') && number(year) && year.len() == 4, "{line}");
    assert!(month.chars().all(char::is_alphabetic) && clock.split(':').all(number), "{line}");
    assert_eq!((clock.len(), clock.split(':').count()), (8, 3), "{line}");
    fields.join("; ")
}

fn ask(framed: &mut Framed, tag: u32, body: Value) -> (Vec<Value>, Value) {
    framed.request(tag, body);
    let answer = framed.answer(tag);
    let objects = answer.details.into_iter().map(|mut detail| detail["object"].take());
    (objects.collect(), answer.outcome)
}

/// What was asked for is done; its object.
#[track_caller]
fn done(framed: &mut Framed, tag: u32, body: Value) -> Value {
    let (objects, outcome) = ask(framed, tag, body);
    assert_eq!(outcome["outcome"], "done", "{outcome}");
    objects.into_iter().next().expect("an object")
}

/// What was asked for has failed; the name of the error and its sentence.
#[track_caller]
fn failed(framed: &mut Framed, tag: u32, body: Value) -> (String, String) {
    let (objects, outcome) = ask(framed, tag, body);
    assert!(objects.is_empty(), "{objects:?}");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    (text(&outcome["code"]), text(&outcome["text"]))
}

/// Uploads as input, within its window.
fn stream(framed: &mut Framed, tag: u32, mut request: Value, content: &[u8]) -> News {
    request["op"] = "edge.upload".into();
    framed.request(tag, request);
    let mut window = 256 * 1024;
    let mut rest = content;
    loop {
        while window > 0 && !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(window).min(64 * 1024));
            framed.send(client::DATA, tag, now);
            (window, rest) = (window - now.len(), later);
        }
        if rest.is_empty() {
            framed.send(client::END, tag, b"");
            window = usize::MAX;
        }
        loop {
            match framed.next() {
                News::Credit(_, bytes) if !rest.is_empty() => {
                    window += bytes as usize;
                    break;
                }
                News::Credit(..) => {}
                other => return other,
            }
        }
    }
}

fn object(news: News) -> Value {
    match news {
        News::Detail(_, mut detail) => detail["object"].take(),
        other => panic!("no object but {other:?}"),
    }
}

#[test]
fn devices_join_compute_and_leave_over_both_families() {
    for ip in FAMILIES {
        let edge = Edge::start();
        let mut watch = edge.server.framed(ip, "supersmartwatch");
        let mut nina = edge.server.user(ip, "nina");
        assert_eq!(
            ask(&mut watch, 1, json!({"op": "edge.list"})).0,
            [json!({
                "edge": "devices", "devices": [],
            })]
        );
        let joined = done(&mut watch, 1, json!({"op": "edge.join", "udp_port": 5432}));
        assert_eq!(
            (&joined["device"], &joined["udp_port"]),
            (&json!("supersmartwatch"), &json!(5432))
        );
        nina.send("edge.join 6000");
        assert!(nina.next().starts_with("nina is active since "));
        edge.await_devices(&[
            &format!("1; supersmartwatch; {ip}; 5432"),
            &format!("2; nina; {ip}; 6000"),
        ]);
        nina.send("edge.list");
        let since = joined["since"].as_str().expect("a time");
        let line = format!("supersmartwatch, active since {since}, IP address {ip}, UDP port 5432");
        assert_eq!(nina.lines(2), [&line, "[1 devices]"]);

        let uploaded = done(
            &mut watch,
            2,
            json!({"op": "edge.upload", "file_id": 1, "samples": [5, -3, i64::MAX, i64::MAX]}),
        );
        assert_eq!((&uploaded["samples"], &uploaded["repeated"]), (&json!(4), &json!(false)));
        assert_eq!(edge.read("supersmartwatch-1.txt").lines().count(), 4);
        for (operation, result) in [
            ("SUM", "18446744073709551616"),
            ("AVERAGE", "4611686018427387904.000000"),
            ("MAX", "9223372036854775807"),
            ("MIN", "-3"),
        ] {
            let body = json!({"op": "edge.compute", "file_id": 1, "operation": operation});
            assert_eq!(done(&mut watch, 3, body)["result"], result, "{operation}");
        }
        nina.send("edge.compute 1 SUM");
        assert_eq!(nina.next(), "error no-such-data: the file does not exist at the server side");
        let deleted = done(&mut watch, 4, json!({"op": "edge.delete", "file_id": 1}));
        assert_eq!(deleted["samples"], 4);
        assert!(!edge.path("supersmartwatch-1.txt").exists());
        assert_eq!(edge.log("upload-log.txt"), ["supersmartwatch; 1; 4"]);
        assert_eq!(edge.log("deletion-log.txt"), ["supersmartwatch; 1; 4"]);
        done(&mut watch, 5, json!({"op": "edge.leave"}));
        edge.await_devices(&[&format!("1; nina; {ip}; 6000")]);
        nina.send("quit");
        edge.await_devices(&[]);
    }
}

#[test]
fn whoever_vanishes_is_removed_and_the_rest_renumbered() {
    let edge = Edge::start();
    let mut devices: Vec<Framed> =
        (0..4).map(|at| edge.server.framed(FAMILIES[at % 2], &format!("d{at}"))).collect();
    for framed in &mut devices {
        done(framed, 1, json!({"op": "edge.join", "udp_port": 1}));
    }
    edge.await_devices(&[
        "1; d0; ::1; 1",
        "2; d1; 127.0.0.1; 1",
        "3; d2; ::1; 1",
        "4; d3; 127.0.0.1; 1",
    ]);
    devices.remove(2).reset();
    drop(devices.remove(0));
    edge.await_devices(&["1; d1; 127.0.0.1; 1", "2; d3; 127.0.0.1; 1"]);
    // One that comes back stands at the end.
    let mut again = edge.server.framed(FAMILIES[0], "d0");
    done(&mut again, 1, json!({"op": "edge.join", "udp_port": 2}));
    done(&mut devices[0], 2, json!({"op": "edge.join", "udp_port": 3}));
    edge.await_devices(&["1; d1; 127.0.0.1; 3", "2; d3; 127.0.0.1; 1", "3; d0; ::1; 2"]);
    let (list, outcome) = ask(&mut again, 2, json!({"op": "edge.list"}));
    let names: Vec<_> = list[0]["devices"].as_array().expect("a list").iter().collect();
    assert_eq!((names[0]["device"].as_str(), names.len()), (Some("d1"), 2));
    assert_eq!(outcome["count"], 2);
}

#[test]
fn who_has_gone_leaves_the_log_also_where_it_cannot_be_written_for_a_while() {
    let edge = Edge::start();
    let mut left: Line = edge.server.user(FAMILIES[0], "left");
    left.send("edge.join 6000");
    assert!(left.next().starts_with("left is active since"));
    let standing = format!("1; left; {}; 6000", FAMILIES[0]);
    edge.await_devices(&[&standing]);
    // What stands there is no file that the log could be written to.
    std::fs::create_dir(edge.path(".edge/devices.new")).expect("a folder");
    left.send("edge.leave");
    assert_eq!(left.next(), "goodbye, left");
    left.send("edge.join 6001");
    assert!(left.next().starts_with("error system-error: "));
    edge.await_devices(&[&standing]);
    std::fs::remove_dir(edge.path(".edge/devices.new")).expect("it is ours");
    edge.await_devices(&[]);
}

#[test]
fn a_server_that_stops_in_order_leaves_nobody_in_the_log() {
    let mut edge = Edge::start();
    let mut watch = edge.server.framed(FAMILIES[0], "watch");
    done(&mut watch, 1, json!({"op": "edge.join", "udp_port": 1}));
    edge.await_devices(&["1; watch; ::1; 1"]);
    edge.server.signal(Signal::TERM);
    assert_eq!(edge.server.wait().code(), Some(0));
    assert_eq!(edge.read("edge-device-log.txt"), "");
}

#[test]
fn large_files_stream_in_and_are_verified() {
    let edge = Edge::start();
    let mut watch = edge.server.framed(FAMILIES[1], "watch");
    let mut content = String::new();
    (0..300_000_i64).for_each(|number| content += &format!("{}\n", number * 7 - 1_000_000));
    let hash = blake3::hash(content.as_bytes()).to_string();
    let request = json!({"file_id": 1, "hash": hash});
    let uploaded = object(stream(&mut watch, 1, request.clone(), content.as_bytes()));
    assert_eq!((&uploaded["samples"], &uploaded["hash"]), (&json!(300_000), &json!(hash)));
    assert_eq!(edge.read("watch-1.txt"), content);
    assert!(matches!(watch.next(), News::End(1, _)));
    let sum: i64 = (0..300_000).map(|number| number * 7 - 1_000_000).sum();
    let body = json!({"op": "edge.compute", "file_id": 1, "operation": "SUM"});
    assert_eq!(done(&mut watch, 2, body)["result"], sum.to_string());

    // Another content under the announced hash, a bad line far behind, and nothing at all.
    for (bytes, code, text) in [
        (content[7..].to_owned(), "not-verified", "hash"),
        (format!("{content}oops\n1\n"), "bad-samples", "line 300001 is not an integer"),
        (String::new(), "bad-samples", "no samples"),
    ] {
        let News::End(3, outcome) = stream(&mut watch, 3, request.clone(), bytes.as_bytes()) else {
            panic!("it was not refused");
        };
        assert_eq!(outcome["code"], code);
        assert!(outcome["text"].as_str().is_some_and(|it| it.contains(text)), "{outcome}");
    }
    assert_eq!(edge.read("watch-1.txt"), content, "what is refused changes nothing");
    assert_eq!(edge.log("upload-log.txt"), ["watch; 1; 300000"]);
    let is_stage = |name: &str| name.starts_with(".edge/stage.");
    await_true("nothing is left of what was refused", || {
        let names = std::fs::read_dir(edge.data.path()).expect("a folder").flatten();
        !names.into_iter().any(|entry| is_stage(&entry.file_name().to_string_lossy()))
    });
}

#[test]
fn an_upload_whose_connection_ends_is_not_stored() {
    let edge = Edge::start();
    for reset in [false, true] {
        let mut watch = edge.server.framed(FAMILIES[0], "watch");
        watch.request(1, json!({"op": "edge.upload", "file_id": 1}));
        watch.send(client::DATA, 1, b"1\n2\n");
        assert!(matches!(watch.next(), News::Credit(1, 4)));
        if reset {
            watch.reset()
        } else {
            drop(watch)
        }
        await_true("its file is removed", || {
            let names = std::fs::read_dir(edge.data.path()).expect("a folder").flatten();
            names.map(|it| it.file_name()).all(|it| !it.to_string_lossy().contains("stage"))
        });
    }
    assert!(!edge.path("watch-1.txt").exists() && !edge.path("upload-log.txt").exists());
}

#[test]
fn repeats_are_answered_again_also_by_the_next_server() {
    let mut edge = Edge::start();
    let upload = json!({"op": "edge.upload", "file_id": 1, "request_id": "u-1", "samples": [4, 5]});
    let delete = json!({"op": "edge.delete", "file_id": 1, "request_id": "d-1"});
    let ip: IpAddr = FAMILIES[0];
    let mut watch = edge.server.framed(ip, "watch");
    let first = done(&mut watch, 1, upload.clone());
    assert_eq!(first["repeated"], false);
    assert_eq!(done(&mut watch, 1, delete.clone())["repeated"], false);
    for _ in 0..2 {
        let again = done(&mut watch, 1, upload.clone());
        assert_eq!((&again["repeated"], &again["time"]), (&json!(true), &first["time"]));
        assert_eq!(done(&mut watch, 1, delete.clone())["repeated"], true);
        assert!(!edge.path("watch-1.txt").exists(), "a late repeat stores nothing");
        let mut other = upload.clone();
        other["samples"] = json!([6]);
        assert_eq!(failed(&mut watch, 1, other).0, "id-in-use");
        // The same id of another device is another request.
        let mut nina = edge.server.framed(ip, "nina");
        done(&mut nina, 1, upload.clone());
        drop(watch);
        edge = edge.kill_and_restart();
        watch = edge.server.framed(ip, "watch");
    }
    assert_eq!(edge.log("upload-log.txt"), ["watch; 1; 2", "nina; 1; 2"]);
    assert_eq!(edge.log("deletion-log.txt"), ["watch; 1; 2"]);
    assert_eq!(edge.read("edge-device-log.txt"), "");
}

#[test]
fn a_second_server_is_refused_the_same_folder() {
    let edge = Edge::start();
    let data = edge.data.path().to_str().expect("a path").to_owned();
    let (code, _, err) = run_server(&["--port", "0", "--data", &data]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("another server uses the data folder") && err.contains("--data"), "{err}");
    let (code, _, err) = run_server(&["--port", "0", "--data", "/nonexistent/folder"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("/nonexistent/folder") && err.contains("No such file"), "{err}");
}

#[test]
fn the_folder_of_the_devices_is_made_by_the_first_request_of_one() {
    let folder = TempDir::new().expect("a folder");
    let before = format!("cd '{}'", folder.path().display());
    let (one, two) = (Server::start_after(&before), Server::start_after(&before));
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    let (mut first, mut second) =
        (one.framed(FAMILIES[0], "watch"), two.framed(FAMILIES[1], "watch"));
    done(&mut first, 1, json!({"op": "edge.upload", "file_id": 1, "samples": [1]}));
    assert!(folder.path().join("data/watch-1.txt").exists());
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
    let (code, text) = failed(&mut second, 1, json!({"op": "edge.join", "udp_port": 1}));
    assert_eq!(code, "system-error");
    assert!(text.contains("another server uses the data folder"), "{text}");
    // Once the other one has gone the folder is free.
    drop(one);
    done(&mut second, 2, json!({"op": "edge.delete", "file_id": 1}));
}

#[test]
fn a_disk_without_room_fails_the_command_and_leaves_no_trace() {
    let data = TempDir::new().expect("a folder");
    let before = format!("ulimit -f 64 && cd '{}'", data.path().display());
    let server = Server::start_after(&before);
    let data = data.path().join("data");
    let read = |name: &str| std::fs::read_to_string(data.join(name)).unwrap_or_default();
    let mut watch = server.framed(FAMILIES[0], "watch");
    done(&mut watch, 1, json!({"op": "edge.upload", "file_id": 1, "samples": [1, 2]}));
    let line = read("upload-log.txt");
    // 32 KiB or 64, as shells count blocks: the file is too large.
    let News::End(2, outcome) =
        stream(&mut watch, 2, json!({"file_id": 1}), &b"1\n".repeat(50_000))
    else {
        panic!("it was not refused");
    };
    assert_eq!(outcome["code"], "no-space", "{outcome}");
    assert_eq!((read("watch-1.txt"), read("upload-log.txt")), ("1\n2\n".into(), line.clone()));
    // The log is as large as it may be.
    let limit = if read_limit(&server) == 65_536 { 65_536 } else { 32_768 };
    let full = format!("{line}{}\n", "x".repeat(limit - line.len() - 2));
    std::fs::write(data.join("upload-log.txt"), &full).expect("a log");
    let upload = json!({"op": "edge.upload", "file_id": 1, "samples": [9]});
    assert_eq!(failed(&mut watch, 3, upload.clone()).0, "no-space");
    assert_eq!((read("watch-1.txt"), read("upload-log.txt")), ("1\n2\n".into(), full));
    // Who makes room goes on.
    std::fs::write(data.join("upload-log.txt"), &line).expect("a log");
    done(&mut watch, 4, upload);
    assert_eq!(read("watch-1.txt"), "9\n");
    assert_eq!(read("upload-log.txt").lines().count(), 2);
}

/// The largest file that the server may write, in bytes.
fn read_limit(server: &Server) -> u64 {
    let path = format!("/proc/{}/limits", server.pid().as_raw_nonzero());
    let limits = std::fs::read_to_string(path).expect("it runs");
    let line = limits.lines().find(|line| line.starts_with("Max file size")).expect("a limit");
    line.split_whitespace().nth(3).and_then(|limit| limit.parse().ok()).expect("a number")
}

#[test]
fn a_folder_that_is_gone_fails_commands_and_chat_goes_on() {
    let edge = Edge::start();
    let mut watch = edge.server.framed(FAMILIES[0], "watch");
    done(&mut watch, 1, json!({"op": "edge.upload", "file_id": 1, "samples": [1]}));
    let path = edge.data.path().to_owned();
    std::fs::remove_dir_all(&path).expect("it is ours");
    let upload = json!({"op": "edge.upload", "file_id": 2, "samples": [1]});
    assert_eq!(failed(&mut watch, 2, upload).0, "system-error");
    assert_eq!(failed(&mut watch, 3, json!({"op": "edge.join", "udp_port": 1})).0, "system-error");
    let mut nina = edge.server.user(FAMILIES[1], "nina");
    nina.send("hello|watch");
    assert!(matches!(watch.next(), News::Message { from, .. } if from == "nina"));
}

#[test]
fn a_folder_that_is_made_anew_is_used_again_with_the_devices_that_are_here() {
    for is_named in [true, false] {
        let folder = TempDir::new().expect("a folder");
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("a folder");
        let before = format!("cd '{}'", folder.path().display());
        let server = match is_named {
            true => Server::start_with(&["--data", data.to_str().expect("a path")]),
            false => Server::start_after(&before),
        };
        let mut watch = server.framed(FAMILIES[0], "watch");
        done(&mut watch, 1, json!({"op": "edge.join", "udp_port": 7000}));
        let mut slow = server.framed(FAMILIES[1], "slow");
        slow.request(1, json!({"op": "edge.upload", "file_id": 1}));
        slow.send(client::DATA, 1, b"1\n");
        await_true("a file is being received", || {
            let own = std::fs::read_dir(data.join(".edge"));
            own.is_ok_and(|it| it.count() > 2)
        });
        std::fs::remove_dir_all(&data).expect("it is ours");
        if is_named {
            std::fs::create_dir(&data).expect("a folder");
        }
        // Named or not, the next request finds it.
        done(&mut watch, 2, json!({"op": "edge.upload", "file_id": 1, "samples": [5]}));
        assert_eq!(std::fs::read_to_string(data.join("watch-1.txt")).expect("a file"), "5\n");
        let answer = slow.answer(1);
        assert_eq!(answer.outcome["code"], "system-error", "{}", answer.outcome);
        await_true("the log of devices", || {
            let log = std::fs::read_to_string(data.join("edge-device-log.txt"));
            log.is_ok_and(|log| {
                let lines = log.lines().map(|line| without_time(line, 1));
                lines.eq([format!("1; watch; {}; 7000", FAMILIES[0])])
            })
        });
        done(&mut slow, 2, json!({"op": "edge.upload", "file_id": 1, "samples": [6]}));
        assert!(server.log().contains("the data folder was removed"), "{}", server.log());
    }
}

/// A device with the name of a shared file has joined, uploaded two files and deleted one.
fn at_work(server: &Server) -> Line {
    let mut line = server.user(FAMILIES[0], "report");
    line.send("edge.join 6000");
    assert!(line.next().starts_with("report is active since "));
    for id in ["2024", "2"] {
        line.send(&format!("edge.upload {id} 5"));
        assert!(line.next().ends_with("1 sample"));
    }
    line.send("edge.delete 2");
    assert!(line.next().starts_with("file with ID of 2 "));
    line
}

/// The folder in which a device was at work can neither be read nor written by others.
#[track_caller]
fn assert_hidden(server: &Server, line: &mut Line, folder: &str, code: &str) {
    let names = [
        "report-2024.txt",
        "edge-device-log.txt",
        "upload-log.txt",
        "deletion-log.txt",
        ".edge/journal",
    ];
    for name in names {
        let path = format!("{folder}{name}");
        assert!(server.path(&path).exists(), "{path}");
        let before = std::fs::read(server.path(&path)).expect("a file");
        line.send(&format!("download {path}"));
        let told = line.next();
        assert!(told.starts_with(&format!("error {code}: ")), "{path}: {told}");
        line.send_bytes(format!("upload 2 {path}\n9\n").as_bytes());
        let told = line.next();
        assert!(told.starts_with("error "), "{path}: {told}");
        assert_eq!(std::fs::read(server.path(&path)).expect("a file"), before, "{path}");
    }
    line.send_bytes(format!("upload 2 {folder}new\n9\n").as_bytes());
    assert!(line.next().starts_with("error "));
    assert!(!server.path(&format!("{folder}new")).exists());
    line.send(&format!("ls {folder}.edge"));
    assert!(line.next().starts_with(&format!("error {code}: ")));
}

#[test]
fn files_of_devices_and_shared_files_never_meet() {
    let server = Server::start();
    server.put("report-2024.txt", b"The annual report\n");
    let mut line = at_work(&server);
    let shared = || std::fs::read_to_string(server.path("report-2024.txt")).expect("it is there");
    assert_eq!(shared(), "The annual report\n");
    line.send("edge.delete 2024");
    assert!(line.next().starts_with("file with ID of 2024 "));
    assert_eq!(shared(), "The annual report\n");
    line.send("edge.upload 2024 5");
    assert!(line.next().ends_with("1 sample"));
    assert_hidden(&server, &mut line, "data/", "no-such-file");
    line.send("ls data");
    assert!(line.next().starts_with("error no-such-file: "));
    line.send("ls");
    assert!(line.next().ends_with(" report-2024.txt"));
    assert_eq!(line.next(), "[1 entries]");
    // Under another name, too.
    std::fs::rename(server.path("data"), server.path("moved")).expect("it is ours");
    line.send("download moved/upload-log.txt");
    assert!(line.next().starts_with("error no-such-file: "));
    line.send("download moved/report-2024.txt");
    assert!(line.next().starts_with("error no-such-file: "));
}

#[test]
fn a_server_whose_working_folder_holds_the_files_of_devices_shares_nothing_of_it() {
    let root = TempDir::new().expect("a folder");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_server"));
    // As in `server 5000 3`.
    command.args(["0", "3"]).current_dir(root.path());
    let server = Server::start_sharing(root, command);
    server.put("mine.txt", b"x");
    let mut line = at_work(&server);
    assert!(server.path("report-2024.txt").exists());
    assert_hidden(&server, &mut line, "", "denied");
    for request in ["ls", "ls .", "download mine.txt", "download missing"] {
        line.send(request);
        let told = line.next();
        assert!(told.starts_with("error denied: this server shares no folder"), "{told}");
        assert!(told.contains("--root"), "{told}");
    }
    let mut framed = server.framed(FAMILIES[1], "nina");
    for body in [json!({"op": "ls"}), json!({"op": "download", "path": "mine.txt"})] {
        assert_eq!(failed(&mut framed, 1, body).0, "denied");
    }
    assert!(server.log().contains("no files"), "{}", server.log());
    // A folder that is named beside it is shared.
    let (root, work) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(["0", "3"]).current_dir(work.path());
    let server = Server::start_sharing(root, command);
    server.put("mine.txt", b"x");
    let mut line = at_work(&server);
    assert!(work.path().join("report-2024.txt").exists());
    line.send("download mine.txt");
    assert_eq!(line.next(), "file 1 mine.txt");
}

#[test]
fn older_files_in_the_working_folder_are_told_at_the_start_and_their_logs_not_served() {
    let root = TempDir::new().expect("a folder");
    std::fs::write(root.path().join("upload-log.txt"), "old\n").expect("a file");
    std::fs::create_dir(root.path().join(".edge")).expect("a folder");
    std::fs::write(root.path().join(".edge/journal"), "").expect("a file");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(["--port", "0"]).current_dir(root.path());
    let server = Server::start_sharing(root, command);
    assert!(server.log().contains("--data . and --root DIR"), "{}", server.log());
    let mut line = server.user(FAMILIES[0], "nina");
    for name in ["upload-log.txt", ".edge/journal"] {
        line.send(&format!("download {name}"));
        assert!(line.next().starts_with("error no-such-file: "), "{name}");
    }
    line.send("edge.upload 1 5");
    assert!(line.next().ends_with("1 sample"));
    assert!(server.path("data/nina-1.txt").exists());
}

#[test]
fn a_disk_that_is_read_only_is_named() {
    let inner = "mount -t tmpfs none \"$0\" && mkdir \"$0/data\" && mount -o remount,ro \"$0\"";
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().to_str().expect("a path").to_owned();
    let script = format!("{inner} && cd \"$0\" && exec \"$@\"");
    let may_mount = std::process::Command::new("unshare").args(["-m", "true"]).status();
    if !may_mount.is_ok_and(|it| it.success()) {
        return println!("skipped: only root may mount");
    }
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "/bin/sh", "-c", &script, &path]);
    command.args([env!("CARGO_BIN_EXE_server"), "--port", "0"]);
    let server = Server::start_command(command);
    let mut watch = server.framed(FAMILIES[0], "watch");
    let (code, text) = failed(&mut watch, 1, json!({"op": "edge.join", "udp_port": 1}));
    assert_eq!(code, "read-only", "{text}");
}

/// The devices of the great test.
const DEVICES: usize = 1000;

#[test]
fn a_thousand_devices_join_upload_compute_and_leave() {
    let edge = Edge::start();
    let names: Vec<String> = (0..DEVICES).map(|at| format!("device-{at:04}")).collect();
    let mut devices: Vec<Framed> = names
        .iter()
        .enumerate()
        .map(|(at, name)| edge.server.framed(FAMILIES[at % 2], name))
        .collect();
    // All ask before any answer is read.
    let mut all = |tag: u32, body: &dyn Fn(usize) -> Value| -> Vec<Value> {
        for (at, framed) in devices.iter_mut().enumerate() {
            framed.request(tag, body(at));
        }
        let answers = devices.iter_mut().map(|framed| {
            let answer = framed.answer(tag);
            assert_eq!(answer.outcome["outcome"], "done", "{}", answer.outcome);
            answer.details[0]["object"].clone()
        });
        answers.collect()
    };
    all(1, &|at| json!({"op": "edge.join", "udp_port": 6000 + at}));
    let log = edge.read("edge-device-log.txt");
    let mut listed = vec![false; DEVICES];
    for (at, line) in log.lines().enumerate() {
        let line = without_time(line, 1);
        let fields: Vec<&str> = line.split("; ").collect();
        assert_eq!(fields[0], (at + 1).to_string());
        let device: usize = fields[1][7..].parse().expect("a number");
        assert_eq!(fields[2], FAMILIES[device % 2].to_string());
        assert_eq!(fields[3], (6000 + device).to_string());
        assert!(!std::mem::replace(&mut listed[device], true), "{line} twice");
    }
    assert_eq!(log.lines().count(), DEVICES);

    let samples = |at: usize| (0..100).map(|i| (at * 100 + i) as i64 - 40_000).collect::<Vec<_>>();
    all(2, &|at| {
        let id = format!("r-{at}");
        json!({"op": "edge.upload", "file_id": 1, "request_id": id, "samples": samples(at)})
    });
    let sums = all(3, &|_| json!({"op": "edge.compute", "file_id": 1, "operation": "SUM"}));
    for (at, sum) in sums.iter().enumerate() {
        assert_eq!(sum["result"], samples(at).iter().sum::<i64>().to_string());
    }
    let mut uploads = edge.log("upload-log.txt");
    uploads.sort();
    let wanted: Vec<String> = names.iter().map(|name| format!("{name}; 1; 100")).collect();
    assert_eq!(uploads, wanted);
    all(4, &|_| json!({"op": "edge.leave"}));
    assert_eq!(edge.read("edge-device-log.txt"), "");
}

#[test]
fn lines_take_samples_inline_and_name_what_is_wrong() {
    let edge = Edge::start();
    for ip in FAMILIES {
        let name = if ip.is_ipv6() { "six" } else { "four" };
        let mut line: Line = edge.server.user(ip, name);
        line.send("edge.upload 3 5 -3 8");
        let text = "data file with ID of 3 has been uploaded to the central server, 3 samples";
        assert_eq!(line.next(), text);
        line.send("edge.compute 3 AVERAGE");
        assert_eq!(line.next(), "computation (AVERAGE) result on the file (ID:3) is: 3.333333");
        line.send("edge.delete 3");
        let text = "file with ID of 3 has been successfully removed from the central server";
        assert_eq!(line.next(), text);
        line.send("edge.compute 3 sum");
        assert!(line.next().starts_with("error unknown-operation: "));
        line.send("edge.leave");
        assert!(line.next().starts_with("error not-joined: "));
    }
}
