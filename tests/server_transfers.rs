//! Downloads and uploads by the real client and the real server: content, names, times, folders,
//! going on after an interruption, and what may not be written or read.

mod process;

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Write as _,
    net::IpAddr,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use process::{FAMILIES, PATIENCE, Server, await_true, noise};
use rustix::process::{Pid, Signal, kill_process};
use sixfour::sys::{stage, stage_name};
use tempfile::TempDir;

const MIB: usize = 1024 * 1024;

/// A folder in which clients run.
struct Place {
    folder: TempDir,
}

/// The unfinished file that is to become `name`.
fn unfinished(place: &Place, name: &str) -> PathBuf {
    place.folder.path().join(stage_name::stable(OsStr::new(name)))
}

/// How a client ended.
struct Left {
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

impl Place {
    fn new() -> Place {
        Place { folder: TempDir::new().expect("a folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).expect("a file of the test");
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect(name)
    }

    fn start(&self, server: &Server, ip: IpAddr, arguments: &[&OsStr]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
        command.args(["--ip", &ip.to_string(), "--port", &server.port.to_string()]);
        command.args(arguments).current_dir(self.folder.path()).env("USER", "tester");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the client starts")
    }

    fn run_at(&self, server: &Server, ip: IpAddr, arguments: &[&str]) -> Left {
        let arguments: Vec<_> = arguments.iter().map(OsStr::new).collect();
        let output = self.start(server, ip, &arguments).wait_with_output().expect("our child");
        let stderr = String::from_utf8(output.stderr).expect("text");
        Left { code: output.status.code(), stdout: output.stdout, stderr }
    }

    /// By a shell that has done `before`.
    fn run_after(&self, before: &str, server: &Server, arguments: &[&str]) -> Left {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(format!("{before} && exec \"$0\" \"$@\""));
        command.args([env!("CARGO_BIN_EXE_client"), "--ip", "::1"]);
        command.args(["--port", &server.port.to_string()]).args(arguments);
        command.current_dir(self.folder.path()).env("USER", "tester").stdin(Stdio::null());
        let output = command.output().expect("the client starts");
        let stderr = String::from_utf8(output.stderr).expect("text");
        Left { code: output.status.code(), stdout: output.stdout, stderr }
    }

    fn run(&self, server: &Server, arguments: &[&str]) -> Left {
        self.run_at(server, FAMILIES[0], arguments)
    }
}

impl Left {
    fn assert_code(&self, code: i32) -> &Left {
        let text = String::from_utf8_lossy(&self.stdout);
        assert_eq!(self.code, Some(code), "{text}{}", self.stderr);
        self
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("one"));
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Waits until so many bytes of an unfinished file are there.
fn await_bytes(path: &Path, bytes: u64) {
    await_true("a part of the file", || fs::metadata(path).is_ok_and(|it| it.len() >= bytes));
}

fn kill(child: Child, signal: Signal) -> Left {
    kill_process(Pid::from_child(&child), signal).expect("our child");
    let output = child.wait_with_output().expect("our child");
    let stderr = String::from_utf8(output.stderr).expect("text");
    Left { code: output.status.code(), stdout: output.stdout, stderr }
}

#[test]
fn every_size_goes_both_ways_over_both_families() {
    let server = Server::start();
    let sizes = [0, 1, 65_535, 65_536, 65_537, 3 * MIB];
    for ip in FAMILIES {
        let place = Place::new();
        for size in sizes {
            place.put(&format!("f{size}"), &noise(size as u64, size));
        }
        let names: Vec<_> = sizes.iter().map(|size| format!("f{size}")).collect();
        let mut upload = vec!["upload", "--to", "in/deep"];
        upload.extend(names.iter().map(String::as_str));
        place.run_at(&server, ip, &upload).assert_code(0);
        let there: Vec<_> = names.iter().map(|name| format!("in/deep/{name}")).collect();
        let mut download = vec!["download"];
        download.extend(there.iter().map(String::as_str));
        let left = place.run_at(&server, ip, &download);
        left.assert_code(0);
        for (name, size) in names.iter().zip(sizes) {
            let content = noise(size as u64, size);
            assert!(fs::read(server.path(&format!("in/deep/{name}"))).expect("it") == content);
            assert!(place.read(&format!("client_{name}")) == content, "{name}");
        }
        fs::remove_dir_all(server.path("in")).expect("it is there");
    }
}

#[test]
fn a_folder_keeps_names_times_and_the_executable_bit_and_is_not_sent_twice() {
    let server = Server::start();
    let place = Place::new();
    fs::create_dir_all(place.path("tree/a/b")).expect("folders");
    fs::create_dir_all(place.path("tree/empty")).expect("folders");
    for number in 0..2000 {
        place.put(&format!("tree/a/f{number}"), &noise(number, number as usize % 5000));
    }
    place.put("tree/a/b/program", b"#!/bin/sh\n");
    let program = place.path("tree/a/b/program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).expect("a mode");
    let odd = place.path("tree").join(OsStr::from_bytes(b"odd\x1b[2J\n\xff"));
    fs::write(&odd, b"odd").expect("a file");
    let file = File::open(&program).expect("it");
    stage::set_modified(&file, (1_234_567_890, 123_456_789)).expect("a time");

    place.run(&server, &["upload", "tree"]).assert_code(0);
    let left = place.run_at(&server, FAMILIES[1], &["download", "tree/"]);
    left.assert_code(0);
    assert!(left.stderr.contains("2002 files"), "{}", left.stderr);
    for root in [server.path("tree"), place.path("client_tree")] {
        assert_eq!(names_in(&root.join("a")).len(), 2001);
        assert!(root.join("empty").is_dir());
        assert_eq!(fs::read(root.join(odd.file_name().expect("a name"))).expect("it"), b"odd");
        let metadata = fs::metadata(root.join("a/b/program")).expect("it");
        assert_eq!(metadata.mode() & 0o7100, 0o100, "executable, and never setuid");
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_234_567_890, 123_456_789));
        for number in (0..2000).step_by(97) {
            let content = fs::read(root.join(format!("a/f{number}"))).expect("it");
            assert!(content == noise(number, number as usize % 5000));
        }
    }
    // That an empty one is there is known to its receiver alone: there is no hash to claim.
    for (verb, told) in [("upload", ", 2001 unchanged"), ("download", ", 2002 unchanged")] {
        let left = place.run(&server, &[verb, "tree"]);
        assert!(left.assert_code(0).stderr.contains(told), "{}", left.stderr);
    }
}

#[test]
fn patterns_pipes_and_other_names() {
    let server = Server::start();
    for name in ["a.csv", "b.csv", "c.txt", ".hidden.csv"] {
        server.put(name, name.as_bytes());
    }
    let place = Place::new();
    place.run(&server, &["download", "*.csv"]).assert_code(0);
    assert_eq!(names_in(place.folder.path()), ["client_a.csv", "client_b.csv"]);
    assert!(place.run(&server, &["download", "*.none"]).assert_code(5).stderr.contains("*.none"));
    let left = place.run(&server, &["-q", "download", "c.txt", "-o", "-"]);
    assert_eq!((&left.assert_code(0).stdout[..], &left.stderr[..]), (&b"c.txt"[..], ""));
    place.run(&server, &["download", "c.txt", "-o", "own"]).assert_code(0);
    assert_eq!(place.read("own"), b"c.txt");

    let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
    command.args(["--port", &server.port.to_string(), "--ip", "::1"]);
    command.args(["upload", "-", "--to", "x/piped"]).stdin(Stdio::piped());
    let mut child = command.stderr(Stdio::null()).spawn().expect("the client starts");
    let content = noise(5, 700_000);
    child.stdin.take().expect("a pipe").write_all(&content).expect("it reads");
    assert!(child.wait().expect("our child").success());
    assert!(fs::read(server.path("x/piped")).expect("it") == content);
}

#[test]
fn killed_at_either_end_the_same_line_goes_on_and_names_are_only_whole() {
    let mut server = Server::start();
    let content = noise(9, 6 * MIB);
    for round in 0..4 {
        let place = Place::new();
        let is_upload = round % 2 == 0;
        let (verb, source, target) = match is_upload {
            true => ("upload", place.path("big"), server.path("big")),
            false => ("download", server.path("big"), place.path("client_big")),
        };
        fs::write(&source, &content).expect("room");
        let part = stage_name::stable(target.file_name().expect("a name"));
        let part = target.with_file_name(part);
        let slow = [verb, "--limit", "4M", "big"].map(OsStr::new);
        let child = place.start(&server, FAMILIES[round / 2], &slow);
        await_bytes(&part, 1_000_000);
        if round < 2 {
            kill(child, Signal::KILL);
        } else {
            server = server.kill_and_restart();
            let left = child.wait_with_output().expect("our child");
            assert_eq!(left.status.code(), Some(1));
            let text = String::from_utf8_lossy(&left.stderr).into_owned();
            assert!(text.contains("go on with: client"), "{text}");
        }
        assert!(!target.exists(), "round {round}");
        let there = fs::metadata(&part).expect("it is kept").len();
        // The server notices that its client is gone before the next one comes.
        let mut left = place.run(&server, &["--json", verb, "big"]);
        let until = Instant::now() + PATIENCE;
        while left.code != Some(0) && Instant::now() < until {
            left = place.run(&server, &["--json", verb, "big"]);
        }
        let text = String::from_utf8_lossy(&left.assert_code(0).stdout).into_owned();
        assert!(text.contains("going on at"), "{there} bytes were there: {text}");
        assert!(fs::read(&target).expect("it is whole") == content, "round {round}");
        assert!(!part.exists());
        fs::remove_file(server.path("big")).expect("it is there");
    }
}

#[test]
fn an_interrupted_download_says_how_to_go_on_and_a_changed_source_starts_over() {
    let server = Server::start();
    server.put("big", &noise(1, 6 * MIB));
    let place = Place::new();
    let slow = ["download", "--limit", "4M", "big"].map(OsStr::new);
    let child = place.start(&server, FAMILIES[1], &slow);
    await_bytes(&unfinished(&place, "client_big"), 500_000);
    let left = kill(child, Signal::INT);
    left.assert_code(130);
    let line = format!("go on with: client --ip 127.0.0.1 --port {} download", server.port);
    assert!(left.stderr.contains(&line), "{}", left.stderr);
    let other = noise(2, 6 * MIB);
    server.put("big", &other);
    let left = place.run(&server, &["download", "big"]);
    assert!(left.assert_code(0).stderr.contains("starting over"), "{}", left.stderr);
    assert!(place.read("client_big") == other);
}

#[test]
fn a_limit_is_kept() {
    let server = Server::start();
    let place = Place::new();
    place.put("f", &noise(1, 2 * MIB));
    for arguments in [["upload", "--limit", "2M", "f"], ["download", "--limit", "2M", "f"]] {
        let began = Instant::now();
        place.run(&server, &arguments).assert_code(0);
        let seconds = began.elapsed().as_secs_f64();
        // 1.05 s at that rate; what is above it is the start of a process on a busy machine.
        assert!((0.9..3.0).contains(&seconds), "{arguments:?}: {seconds} s");
    }
}

#[test]
fn nothing_is_written_where_it_may_not_be_and_the_rest_goes_on() {
    let server = Server::start();
    let outside = Place::new();
    outside.put("secret", b"secret");
    symlink(outside.folder.path(), server.path("out")).expect("a link");
    symlink(outside.path("secret"), server.path("leaf")).expect("a link");
    fs::create_dir(server.path("folder")).expect("a folder");
    server.fifo("fifo");
    let place = Place::new();
    place.put(".bashrc", b"x");
    for name in ["good", "leaf", "folder", "fifo"] {
        place.put(name, b"new");
    }
    for (arguments, part) in [
        (&["upload", ".bashrc", "good"][..], "bad-path"),
        (&["upload", "good", "--to", "out"], "not-a-folder"),
        (&["upload", "folder"], "not-a-file"),
        (&["upload", "fifo"], "fifo"),
        (&["upload", "none", "good"], "no-such-file"),
        (&["download", "leaf", "good"], "no-such-file"),
        (&["download", "fifo"], "not-a-file"),
        (&["download", "out/secret"], "no-such-file"),
    ] {
        let left = place.run(&server, arguments);
        assert!(left.code.is_some_and(|code| code > 0), "{arguments:?}");
        assert!(left.stderr.contains(part), "{arguments:?}: {}", left.stderr);
    }
    // A link that stands where the file goes is replaced, and not written through.
    place.run(&server, &["upload", "leaf"]).assert_code(0);
    assert!(fs::symlink_metadata(server.path("leaf")).expect("it").is_file());
    assert_eq!(names_in(outside.folder.path()), ["secret"]);
    assert_eq!(fs::read(outside.path("secret")).expect("it"), b"secret");
    assert_eq!(fs::read(server.path("good")).expect("it"), b"new");
    assert!(names_in(server.root()).iter().all(|name| !name.starts_with('.')));
}

#[test]
fn lines_upload_bytes_as_they_are_and_go_on_behind_them() {
    let server = Server::start();
    let content = noise(3, 3 * MIB);
    for ip in FAMILIES {
        let mut line = server.line(ip);
        line.send(&format!("upload {} big", content.len()));
        line.send_bytes(&content);
        assert_eq!(line.next(), "stored big");
        line.send("echo behind");
        assert_eq!(line.next(), "behind");
        assert!(fs::read(server.path("big")).expect("it") == content);
        line.send_bytes(b"upload 0 empty\n");
        assert_eq!(line.next(), "stored empty");
        line.send_bytes(b"upload 5 a/b\nhello\r\n");
        assert_eq!(line.next(), "stored a/b");
        line.send_bytes(b"upload 5 .ssh\nevil\n");
        assert!(line.next().starts_with("error bad-path: "));
        line.send_bytes(b"echo still");
        line.send_bytes(b" here\n");
        assert_eq!(line.next(), "still here");
        assert_eq!(fs::read(server.path("a/b")).expect("it"), b"hello");
        // What would be a request is none, whether its file is wanted or not.
        line.send_bytes(b"upload 14 ../x\nrun touch gone\n");
        assert!(line.next().starts_with("error bad-path: "));
        line.send_bytes(b"echo after\n");
        assert_eq!(line.next(), "after");
        assert!(!server.path("gone").exists());
        line.send_bytes(b"upload many x\nrun touch gone\n");
        assert!(line.next().starts_with("error bad-arguments: "));
        assert!(line.rest().is_empty(), "the connection ends");

        // A file that has grown since it was measured.
        let mut line = server.line(ip);
        line.send_bytes(b"upload 5 grown\nhellorun touch gone\n");
        assert!(line.next().starts_with("error protocol: "));
        assert!(line.rest().is_empty(), "the connection ends");
        assert!(!server.path("grown").exists() && !server.path("gone").exists());

        let mut line = server.line(ip);
        line.send_bytes(b"upload 10 short\nhello");
        line.half_close();
        assert!(line.next().starts_with("error cancelled: "));
        assert!(line.rest().is_empty());
        assert_eq!(names_in(server.root()), ["a", "big", "empty"]);
        fs::remove_dir_all(server.path("a")).expect("it is there");
    }
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_and_no_end_of_the_server() {
    let mut server = Server::start_after("ulimit -f 200");
    let place = Place::new();
    place.put("large", &noise(1, 3 * MIB));
    place.put("small", b"small");
    let left = place.run(&server, &["upload", "large", "small"]);
    assert!(left.assert_code(1).stderr.contains("file-too-large"), "{}", left.stderr);
    assert_eq!(names_in(server.root()), ["small"]);
    server.assert_alive();
}

#[test]
fn a_sparse_file_beyond_4_gib_goes_on_where_it_was() {
    let server = Server::start();
    let size = (4 << 30) + 1u64;
    File::create(server.path("sparse")).and_then(|it| it.set_len(size)).expect("holes");
    let place = Place { folder: TempDir::new_in("/dev/shm").expect("memory") };
    // Nearly all of it is there already, as holes too.
    let part = unfinished(&place, "client_sparse");
    File::create(&part).and_then(|it| it.set_len(size - 1000)).expect("holes");
    let left = place.run(&server, &["download", "sparse"]);
    assert!(left.assert_code(0).stderr.contains("going on at"), "{}", left.stderr);
    assert_eq!(fs::metadata(place.path("client_sparse")).expect("it").len(), size);
}

#[test]
fn few_descriptors_are_enough_for_many_files_in_either_direction() {
    const FILES: usize = 700;
    let server = Server::start_after("ulimit -n 160");
    let place = Place::new();
    fs::create_dir(place.path("many")).expect("a folder");
    for number in 0..FILES {
        place.put(&format!("many/{number}"), format!("file {number}").as_bytes());
    }
    let all = |folder: &Path| fs::read_dir(folder).map_or(0, Iterator::count);
    let left = place.run(&server, &["upload", "many"]);
    left.assert_code(0);
    assert_eq!(all(&server.path("many")), FILES);
    // All of them are looked at where they are.
    let left = place.run(&server, &["upload", "many"]);
    let told = format!("stored {FILES} files in many/ (");
    assert!(left.assert_code(0).stderr.contains(&told), "{}", left.stderr);
    assert!(left.stderr.contains(&format!(", {FILES} unchanged, ")), "{}", left.stderr);
    for _ in 0..2 {
        place.run_after("ulimit -n 100", &server, &["download", "many"]).assert_code(0);
        assert_eq!(all(&place.path("client_many")), FILES);
    }
}

#[test]
fn what_cannot_be_replaced_is_told_before_the_rest_of_a_file_is_sent() {
    let may = Command::new("unshare").args(["-m", "true"]).stderr(Stdio::null()).status();
    if !may.is_ok_and(|status| status.success()) {
        println!("skipped: a mount namespace of one's own takes root");
        return;
    }
    let root = process::folder();
    let target = root.path().join("app.conf");
    fs::write(&target, b"of the container").expect("a file");
    let place = Place::new();
    let content = noise(1, 3 * MIB);
    place.put("app.conf", &content);
    let part = root.path().join(stage_name::stable(OsStr::new("app.conf")));
    fs::write(&part, &content[..MIB]).expect("the beginning");
    fs::set_permissions(&part, fs::Permissions::from_mode(0o600)).expect("its mode");
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "/bin/sh", "-c"]);
    command.arg("mount --bind \"$0\" \"$0\" && exec \"$@\"").arg(&target);
    command.args([env!("CARGO_BIN_EXE_server"), "--port", "0"]);
    let server = Server::start_sharing(root, command);
    let left = place.run(&server, &["upload", "--limit", "1M", "app.conf"]);
    left.assert_code(4);
    assert_eq!(fs::metadata(&part).expect("it is kept").len(), MIB as u64, "{}", left.stderr);
    assert_eq!(fs::read(server.path("app.conf")).expect("it stays"), b"of the container");
}
