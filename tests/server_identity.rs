//! Who is let in, by the real server: owners of connections asked of the kernel, passwords,
//! lockout, rights, takeover, and the credentials file while all goes on.

mod process;

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use process::{
    FAMILIES, Framed, Line, News, PATIENCE, Server, await_true, folder,
    identity::{Guarded, as_nobody, hashed},
    run_server,
};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit};
use sixfour::wire::frame::{self, client};
use tempfile::TempDir;

const WRONG: &str = "error login-failed: Invalid Password. Please try again\n";
const NOW_BLOCKED: &str = "error blocked: Invalid Password. Your account has been blocked. Please \
                           try again later\n";
const BLOCKED: &str = "error blocked: Your account is blocked due to multiple authentication \
                       failures. Please try again later\n";

/// Says `bytes` and half closes; all that comes back.
fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(bytes).expect("it takes it");
    stream.shutdown(std::net::Shutdown::Write).expect("a half that can be closed");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the end in time");
    answer
}

fn assert_denied(answer: &[u8]) {
    let text = String::from_utf8_lossy(answer);
    assert!(text.starts_with("error denied: ") && text.lines().count() == 1, "{text}");
    assert!(text.contains("--credentials FILE") && text.contains("--open"), "{text}");
}

#[test]
fn in_protected_mode_another_account_of_this_machine_is_told_what_to_do() {
    // By the quick way to find owners, and by the slow one.
    for way in [&[][..], &["--no-sock-diag"]] {
        let server = Server::start_with(way);
        for ip in FAMILIES {
            let address = server.address(ip);
            assert_eq!(exchange(address, b"run echo mine\n"), b"mine\n[exit 0]\n", "{way:?}");
            let heard = as_nobody(|| {
                let line = exchange(address, b"user eve\nrun touch never\nhelp\n");
                let mut hello = frame::MAGIC.to_vec();
                let body = br#"{"version": 1, "user": "eve"}"#;
                frame::put(&mut hello, client::HELLO, 0, body);
                (line, exchange(address, &hello), exchange(address, b"GET / HTTP/1.1\r\n\r\n"))
            });
            let Some((line, frames, http)) = heard else { return };
            assert_denied(&line);
            let said = frame::decode_said(&frames).expect("a frame").expect("a whole one").0;
            let frame::Said::Goodbye(Some(why)) = said else { panic!("{said:?}") };
            assert_denied(format!("error {}: {}", why.code, why.text).as_bytes());
            assert!(http.starts_with(b"HTTP/1.1 421 "));
        }
        assert!(!server.path("never").exists());
    }
}

#[test]
fn a_mapped_address_is_the_address_that_it_maps() {
    let server = Server::start();
    let mapped: IpAddr = Ipv4Addr::LOCALHOST.to_ipv6_mapped().into();
    let address = SocketAddr::new(mapped, server.port);
    assert_eq!(exchange(address, b"echo mine\n"), b"mine\n");
    if let Some(heard) = as_nobody(|| exchange(address, b"run touch never\n")) {
        assert_denied(&heard);
    }
    assert!(!server.path("never").exists());
}

/// A socket that its process has closed is nobody's, and some kernels call it root's: to send and
/// to hang up at once must not make anybody root.
#[test]
fn who_hangs_up_before_being_looked_at_is_nobody() {
    for way in [&[][..], &["--no-sock-diag"]] {
        let server = Server::start_with(way);
        let send = || {
            for ip in FAMILIES {
                let mut stream = TcpStream::connect(server.address(ip)).expect("it listens");
                stream.write_all(b"run touch never\n").expect("it takes it");
            }
        };
        server.signal(Signal::STOP);
        await_true("it stands still", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid()));
            stat.is_ok_and(|stat| stat.contains(") T "))
        });
        send();
        let _ = as_nobody(send);
        server.signal(Signal::CONT);
        // Connections are taken in in their order.
        for ip in FAMILIES {
            assert_eq!(exchange(server.address(ip), b"run echo mine\n"), b"mine\n[exit 0]\n");
        }
        assert!(!server.path("never").exists(), "{way:?}");
    }
}

#[test]
fn an_open_server_serves_anybody_without_what_was_not_granted() {
    let server = Server::start_with(&["--open"]);
    server.put("file", b"content");
    let granting = Server::start_with(&["--open", "--grant", "run"]);
    for ip in FAMILIES {
        let (open, granted) = (server.address(ip), granting.address(ip));
        let ask = move || {
            let refused = exchange(open, b"user eve\nrun touch never\ndownload file\n");
            (refused, exchange(granted, b"run id -u\n"))
        };
        let (refused, ran) = as_nobody(ask).unwrap_or_else(ask);
        let refused = String::from_utf8(refused).expect("text");
        let denial = "error denied: run is not enabled for you; whoever runs the server can allow \
                      it: `run` among your rights in its credentials file, or --grant run";
        assert_eq!(refused, format!("welcome eve\n{denial}\nfile 7 file\ncontent"));
        assert!(ran.ends_with(b"\n[exit 0]\n"));
    }
    assert!(!server.path("never").exists());
}

#[test]
fn the_bytes_of_a_denied_upload_are_no_requests() {
    let server = Server::start_with(&["--open", "--grant", "run"]);
    for ip in FAMILIES {
        let said = b"upload 15 x\nrun touch never\necho after\n";
        let heard = exchange(server.address(ip), said);
        let heard = String::from_utf8_lossy(&heard);
        assert!(heard.starts_with("error denied: upload is not enabled for you"), "{heard}");
        assert!(heard.ends_with("\nafter\n") && heard.lines().count() == 2, "{heard}");
    }
    assert!(!server.path("never").exists());
}

#[test]
fn users_log_in_with_plain_and_hashed_passwords_in_both_dialects_and_families() {
    let hash = hashed("two words");
    let site =
        Guarded::start(&format!("# users\nalice old-password\nbob {hash} message,run\n"), &[]);
    for ip in FAMILIES {
        let heard =
            site.say(ip, "who\nuser alice nonsense\nuser alice old-password\nrun id\nwho\n");
        let lines: Vec<_> = heard.lines().collect();
        assert!(lines[0].starts_with("error login-required: "), "{heard}");
        assert_eq!(format!("{}\n", lines[1]), WRONG);
        assert_eq!(lines[2], "welcome alice");
        assert!(lines[3].starts_with("error denied: run is not enabled for you"), "{heard}");
        assert_eq!(lines[4..], ["alice", "[1 users]"]);
        let (mut bob, welcome) = site.framed(ip, "bob", "two words");
        assert!(matches!(welcome, News::Welcome(_)), "{welcome:?}");
        assert_eq!(bob.run_to_end(1, "echo ran").text(), "ran\n");
        bob.download(2, "x");
        assert_eq!(bob.answer(2).outcome["code"], "denied");
        let (mut other, refused) = site.framed(ip, "bob", "two  words");
        let News::Goodbye(Some(why)) = refused else { panic!("{refused:?}") };
        assert_eq!(why["code"], "login-failed");
        assert_eq!(other.next(), News::Closed);
    }
}

#[test]
fn failures_add_up_over_families_dialects_and_sessions_and_block_the_name() {
    let hash = hashed("secret");
    for (who, credentials) in [
        ("alice", "alice secret\n".to_owned()),
        ("bob", format!("alice x\nbob {hash}\n")),
        ("nobody-at-all", format!("alice x\nbob {hash}\n")),
    ] {
        let site = Guarded::start(&credentials, &["--attempts", "4"]);
        let [v6, v4] = FAMILIES;
        assert_eq!(site.say(v6, &format!("user {who} 1\nuser {who} 2\n")), WRONG.repeat(2));
        let (_, refused) = site.framed(v4, who, "3");
        assert!(format!("{refused:?}").contains("Please try again"), "{refused:?}");
        assert_eq!(site.say(v4, &format!("user {who} 4\n")), NOW_BLOCKED);
        // The right password does not help, nor does it prolong anything.
        assert_eq!(site.say(v6, &format!("user {who} secret\n")), BLOCKED);
        let (_, refused) = site.framed(v6, who, "secret");
        assert!(format!("{refused:?}").contains("multiple authentication failures"));
        assert!(!site.server.log().contains("secret"), "{}", site.server.log());
    }
}

#[test]
fn an_unknown_name_takes_as_long_as_a_real_one() {
    let names = ["a", "b", "c", "d", "e"];
    let hash = hashed("secret");
    // Plain passwords beside hashed ones must not show either.
    let line = |name: &&str| match *name {
        "a" | "b" => format!("{name} plain-password\n"),
        _ => format!("{name} {hash}\n"),
    };
    let site = Guarded::start(&names.iter().map(line).collect::<String>(), &["--attempts", "5"]);
    let time = |name: &str| {
        let mut line = site.server.line(FAMILIES[0]);
        let begun = Instant::now();
        line.send(&format!("user {name} guess"));
        assert_eq!(format!("{}\n", line.next()), WRONG);
        begun.elapsed()
    };
    let (mut hashed, mut plain, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..4 {
        names[2..].iter().for_each(|name| hashed.push(time(name)));
        names[..2].iter().for_each(|name| plain.push(time(name)));
        (0..3).for_each(|at| unknown.push(time(&format!("x{at}{}", round / 2))));
    }
    // Whatever else the machine does only adds to a time.
    let least = |times: Vec<Duration>| times.into_iter().min().expect("there are some");
    let (hashed, plain, unknown) = (least(hashed), least(plain), least(unknown));
    println!("hashed {hashed:?}, plain {plain:?}, unknown {unknown:?}");
    // Without the care that is taken, the difference is a hundredfold.
    for other in [plain, unknown] {
        assert!(other < hashed * 10 && hashed < other * 10, "{hashed:?} against {other:?}");
    }
}

#[test]
fn many_logins_at_once_take_their_turns_and_hold_up_nobody() {
    let hash = hashed("secret");
    let users: String = (0..200).map(|at| format!("u{at} {hash}\n")).collect();
    let site = Guarded::start(&format!("one x\nother x\n{users}"), &[]);
    let [v6, v4] = FAMILIES;
    let (mut one, mut other) = (site.user(v6, "one", "x"), site.user(v4, "other", "x"));
    let before = site.server.resident_kib();
    let mut lines: Vec<Line> = (0..200).map(|at| site.server.line(FAMILIES[at % 2])).collect();
    let begun = Instant::now();
    for (at, line) in lines.iter_mut().enumerate() {
        line.send(&format!("user u{at} secret"));
    }
    // A chat goes on meanwhile.
    let mut trips = Vec::new();
    while trips.len() < 50 {
        let begun = Instant::now();
        one.send("hello|other");
        assert_eq!(other.next(), "one|hello");
        trips.push(begun.elapsed());
    }
    let answers: Vec<String> = lines.iter_mut().map(Line::next).collect();
    let all = begun.elapsed();
    let is_busy = |it: &&String| it.starts_with("error busy: ");
    let welcome = answers.iter().filter(|it| it.starts_with("welcome u")).count();
    let busy = answers.iter().filter(is_busy).count();
    assert_eq!((welcome + busy, busy > 0), (200, true), "{answers:?}");
    assert!(welcome >= 66, "two are checked and 64 wait: {welcome}");
    trips.sort_unstable();
    let grown = site.server.resident_kib().saturating_sub(before);
    println!("{welcome} logins in {all:?}; chat p50 {:?}, longest {:?}", trips[25], trips[49]);
    assert!(trips[25] < Duration::from_millis(100), "{trips:?}");
    assert!(grown <= 64 * 1024, "{grown} KiB more");
}

#[test]
fn a_check_of_somebody_who_has_left_does_no_harm() {
    let site = Guarded::start(&format!("alice {}\n", hashed("secret")), &["--attempts", "5"]);
    for round in 0..3 {
        for ip in FAMILIES {
            let mut line = site.server.line(ip);
            line.send("user alice guess");
            match round {
                0 => drop(line),
                1 => line.reset(),
                _ => assert_eq!(format!("{}\n", line.next()), WRONG),
            }
        }
        await_true("the name is free again", || {
            let heard = site.say(FAMILIES[0], "user alice secret\n");
            assert!(heard == "welcome alice\n" || heard.starts_with("error busy"), "{heard}");
            heard.starts_with("welcome")
        });
    }
}

#[test]
fn a_second_login_takes_over_and_what_the_first_one_ran_is_ended() {
    let site = Guarded::start("alice x message,run\nbob y\n", &[]);
    let [v6, v4] = FAMILIES;
    let mut bob = site.user(v4, "bob", "y");
    let mut old = site.user(v6, "alice", "x");
    old.send("run echo $$; exec sleep 1000");
    let pid = old.next();
    let mut new = site.user(v4, "alice", "x");
    assert_eq!(old.next(), "error replaced: replaced by a login from 127.0.0.1");
    assert_eq!(old.rest_text(), "");
    await_true("its command has ended", || !process::is_running(&pid));
    bob.send("hello|alice\nwho");
    assert_eq!(new.next(), "bob|hello");
    assert_eq!(bob.lines(3), ["alice", "bob", "[2 users]"]);
    let (mut framed, _) = site.framed(v6, "alice", "x");
    assert_eq!(new.rest_text(), "error replaced: replaced by a login from ::1\n");
    let _newest = site.user(v6, "alice", "x");
    let News::Goodbye(Some(why)) = framed.next() else { panic!("no goodbye") };
    assert_eq!(
        (&why["code"], &why["text"]),
        (&"replaced".into(), &"replaced by a login from ::1".into())
    );
}

#[test]
fn the_file_is_read_again_on_sighup_and_a_bad_one_changes_nothing() {
    let site = Guarded::start("alice a\nbob b\ncarol c\n", &[]);
    let [v6, v4] = FAMILIES;
    let mut alice = site.user(v6, "alice", "a");
    let (mut bob, mut carol) = (site.user(v4, "bob", "b"), site.user(v6, "carol", "c"));
    for (at, bad) in ["alice a\nbob\n", "alice a\nalice b\n", "alice a \u{7}x"].iter().enumerate() {
        site.reload(bad);
        await_true("it is refused", || {
            let log = site.server.log();
            log.matches("the credentials in force are the old ones").count() == at + 1
        });
    }
    assert!(site.server.log().contains("credentials.txt:2: "), "{}", site.server.log());
    std::fs::remove_file(site.path()).expect("it was there");
    site.server.signal(Signal::HUP);
    site.server.await_log("No such file");
    assert_eq!(site.say(v4, "user dave a\nuser bob x\n"), WRONG.repeat(2));
    alice.send("run id");
    assert!(alice.next().starts_with("error denied: run"));
    // Another right, another password, nobody any more, somebody new.
    site.reload("alice a message,run\nbob B\ndave d\n");
    site.server.await_log("3 users of credentials.txt are served");
    let gone = "error login-required: your password was changed or taken away; log in again\n";
    assert_eq!((bob.rest_text(), carol.rest_text()), (gone.to_owned(), gone.to_owned()));
    alice.send("run echo ran");
    assert_eq!(alice.lines(2), ["ran", "[exit 0]"]);
    assert_eq!(site.say(v4, "user bob b\nuser bob B\n"), format!("{WRONG}welcome bob\n"));
    assert_eq!(site.say(v6, "user dave d\n"), "welcome dave\n");
}

#[test]
fn without_a_descriptor_to_spare_the_old_credentials_stay() {
    let site = Guarded::start("alice a\n", &[]);
    let mut alice = site.user(FAMILIES[0], "alice", "a");
    // The hard limit stays: not even root may raise it everywhere.
    let usual = getrlimit(Resource::Nofile);
    let limit = |current| {
        let limit = Rlimit { current, ..usual };
        prlimit(Some(site.server.pid()), Resource::Nofile, limit).expect("our own child");
    };
    // The limit concerns the number of a descriptor: none below the lowest free one is left.
    let folder = format!("/proc/{}/fd", site.server.pid());
    let is_open = |number: &u64| Path::new(&format!("{folder}/{number}")).is_symlink();
    limit((0..).find(|number| !is_open(number)));
    site.reload("");
    site.server.await_log("the credentials in force are the old ones");
    alice.send("echo here");
    assert_eq!(alice.next(), "here");
    limit(usual.current);
    assert_eq!(site.say(FAMILIES[1], "user alice a\n"), "welcome alice\n");
}

#[test]
fn a_file_without_users_lets_nobody_in() {
    for text in ["", "# nobody\n"] {
        let site = Guarded::start(text, &[]);
        for ip in FAMILIES {
            let heard = site.say(ip, "run touch never\nuser root root\n");
            assert!(
                heard.starts_with("error login-required: ") && heard.ends_with(WRONG),
                "{heard}"
            );
        }
        assert!(!site.server.path("never").exists());
    }
}

#[test]
fn a_credentials_file_that_others_could_have_made_stops_the_start() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("users");
    let argument = path.to_str().expect("text");
    let refused = |part: &str| {
        let (code, out, err) = run_server(&["--port", "0", "--credentials", argument]);
        assert_eq!((code, out.as_str(), err.lines().count()), (Some(1), "", 1), "{err}");
        assert!(err.contains(argument) && err.contains(part) && !err.contains("S3cr3t"), "{err}");
    };
    refused("No such file");
    for (text, part) in [
        ("alice S3cr3t\nbob\n", ":2: there is no password"),
        ("alice S3cr3t\n\nalice S3cr3t\n", ":3: the name stands in line 1 already"),
        ("alice S3cr3t fly\n", ":1: the third part"),
        ("al|ce S3cr3t\n", ":1: the name is none"),
    ] {
        std::fs::write(&path, text).expect("a file of the test");
        refused(part);
    }
    std::fs::write(&path, "alice S3cr3t\n").expect("a file of the test");
    for mode in [0o666, 0o620] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("ours");
        refused("may be written by others");
    }
    std::fs::remove_file(&path).expect("it was there");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).expect("a FIFO");
    refused("FIFO");
    std::fs::remove_file(&path).expect("it was there");
    std::fs::create_dir(&path).expect("a folder");
    refused("folder");
}

#[test]
fn open_beside_a_credentials_file_is_one_or_the_other() {
    let folder = TempDir::new().expect("a folder");
    std::fs::write(folder.path().join("credentials.txt"), "alice x\n").expect("a file");
    let output = Command::new(env!("CARGO_BIN_EXE_server"))
        .args(["--open", "--port", "0"])
        .current_dir(folder.path())
        .output()
        .expect("the server starts");
    let err = String::from_utf8(output.stderr).expect("text");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(err.contains("--open") && err.contains("credentials.txt"), "{err}");
}

/// A server whose shared folder is its working folder, with a credentials file and ways to it.
fn sharing_its_credentials() -> Server {
    let root = folder();
    let at = |name: &str| root.path().join(name);
    std::fs::write(at("credentials.txt"), "alice x\n").expect("a file");
    std::fs::create_dir(at("folder")).expect("a folder");
    for place in ["hard", "folder/hard"] {
        std::fs::hard_link(at("credentials.txt"), at(place)).expect("a link");
    }
    std::os::unix::fs::symlink("credentials.txt", at("soft")).expect("a link");
    std::os::unix::fs::symlink("../credentials.txt", at("folder/soft")).expect("a link");
    for place in ["other", "folder/other"] {
        std::fs::write(at(place), "y").expect("a file");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(["--port", "0"]).current_dir(root.path());
    Server::start_sharing(root, command)
}

/// Runs a client of alice in an empty folder; what it says, and what is in the folder then.
fn alice(server: &Server, folder: &TempDir, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_client"))
        .args(["--user", "alice", "--port", &server.port.to_string()])
        .args(arguments)
        .env("SIXFOUR_PASSWORD", "x")
        .current_dir(folder.path())
        .output()
        .expect("the client starts");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files_below(&path)),
            path => found.push(std::fs::read_to_string(path).expect("text")),
        }
    }
    found
}

#[test]
fn the_credentials_file_is_never_served() {
    let server = sharing_its_credentials();
    let ask = |text: &str| {
        let all = exchange(server.address(FAMILIES[0]), format!("user alice x\n{text}").as_bytes());
        String::from_utf8(all).expect("text").replace("welcome alice\n", "")
    };
    for _ in 0..2 {
        for name in ["credentials.txt", "hard", "soft", "folder/hard", "folder/soft"] {
            for verb in ["download", "ls"] {
                let heard = ask(&format!("{verb} {name}\n"));
                assert!(heard.starts_with("error no-such-file: "), "{verb} {name}: {heard}");
            }
            let folder = TempDir::new().expect("a folder");
            let (code, said) = alice(&server, &folder, &["download", name]);
            assert_eq!((code, files_below(folder.path()).len()), (Some(5), 0), "{name}: {said}");
        }
        let listing = ask("ls\n");
        assert!(listing.ends_with(" other\n[2 entries]\n"), "{listing}");
        for all in ["*", "folder", "folder/*", "*/hard", "[ch]*"] {
            let folder = TempDir::new().expect("a folder");
            let (_, said) = alice(&server, &folder, &["download", all]);
            let got = files_below(folder.path());
            assert!(got.iter().all(|content| content == "y"), "{all}: {got:?} {said}");
        }
        // What takes its place is hidden too, before the server has read it.
        std::fs::write(server.path("new"), "alice x\nbob y\n").expect("a file");
        std::fs::rename(server.path("new"), server.path("credentials.txt")).expect("a file");
        for place in ["hard", "folder/hard"] {
            std::fs::remove_file(server.path(place)).expect("it was there");
            std::fs::hard_link(server.path("credentials.txt"), server.path(place)).expect("a link");
        }
    }
}

#[test]
fn a_folder_that_is_renamed_or_a_copy_of_older_passwords_uncovers_nothing() {
    let above = folder();
    let at = |name: &str| above.path().join(name);
    std::fs::create_dir(at("w")).expect("a folder");
    let root = TempDir::new_in(at("w")).expect("a folder");
    let inner = root.path().file_name().expect("a name").to_owned();
    let credentials = "alice x message,files,upload\n";
    std::fs::write(root.path().join("credentials.txt"), credentials).expect("a file");
    std::fs::write(root.path().join("other"), "y").expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(["--port", "0", "--credentials"]).arg(root.path().join("credentials.txt"));
    let kept = root.path().to_owned();
    let server = Server::start_sharing(root, command);
    let ask = |text: &str| {
        let all = exchange(server.address(FAMILIES[0]), format!("user alice x\n{text}").as_bytes());
        String::from_utf8(all).expect("text").replace("welcome alice\n", "")
    };
    std::fs::hard_link(kept.join("credentials.txt"), kept.join("snapshot")).expect("a link");
    std::fs::rename(at("w"), at("moved")).expect("it is ours");
    let now = at("moved").join(inner);
    let evil = "alice x message,files,upload,run\n";
    let evil = format!("upload {} credentials.txt\n{evil}", evil.len());
    for round in 0..2 {
        for name in ["credentials.txt", "snapshot"] {
            let told = ask(&format!("download {name}\n"));
            assert!(told.starts_with("error no-such-file: "), "{round} {name}: {told}");
        }
        assert!(ask(&evil).starts_with("error permission-denied: "));
        assert!(ask("ls\n").ends_with(" other\n[1 entries]\n"));
        // The same file is read again that is hidden, wherever it is now.
        let next = format!("# {round}\n{credentials}bob y\n");
        std::fs::write(now.join("next"), next).expect("a file");
        std::fs::rename(now.join("next"), now.join("credentials.txt")).expect("a file");
        server.signal(rustix::process::Signal::HUP);
        server.await_log("2 users of ");
    }
    std::fs::rename(at("moved"), at("w")).expect("it is ours");
}

#[test]
fn nothing_is_uploaded_to_the_place_of_a_credentials_file() {
    let server = sharing_its_credentials();
    let before = std::fs::metadata(server.path("credentials.txt")).expect("it is there");
    // In protected mode there is none, and the next start would find it.
    let root = folder();
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(["--port", "0"]).current_dir(root.path());
    let fresh = Server::start_sharing(root, command);
    for (server, login) in [(&server, "user alice x\n"), (&fresh, "")] {
        let mut line = server.line(FAMILIES[0]);
        line.send_bytes(format!("{login}upload 6 credentials.txt\neve x\n").as_bytes());
        let heard = std::iter::repeat_with(|| line.next()).find(|it| !it.starts_with("welcome "));
        assert!(heard.is_some_and(|it| it.starts_with("error permission-denied: ")));
        line.send_bytes(b"echo after\n");
        assert_eq!(line.next(), "after");
        let folder = TempDir::new().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("credentials.txt"), "eve x\n").expect("a file");
        let (code, said) = alice(server, &folder, &["upload", "credentials.txt"]);
        assert_ne!(code, Some(0), "{said}");
        // Nor a folder of that name.
        std::fs::remove_file(at("credentials.txt")).expect("it was there");
        std::fs::create_dir(at("credentials.txt")).expect("a folder");
        std::fs::write(at("credentials.txt/x"), "x").expect("a file");
        let (code, said) = alice(server, &folder, &["upload", "credentials.txt"]);
        assert_ne!(code, Some(0), "{said}");
    }
    assert!(!fresh.path("credentials.txt").exists());
    // Elsewhere it is a name like any other; and what is linked to it is not looked into.
    let folder = TempDir::new().expect("a folder");
    std::fs::create_dir(folder.path().join("in")).expect("a folder");
    std::fs::write(folder.path().join("in/credentials.txt"), "z").expect("a file");
    let (code, said) = alice(&server, &folder, &["upload", "in"]);
    assert_eq!(code, Some(0), "{said}");
    std::fs::write(folder.path().join("hard"), "alice x\n").expect("a file");
    let (code, said) = alice(&server, &folder, &["upload", "hard"]);
    assert_ne!(code, Some(0), "{said}");
    let after = std::fs::metadata(server.path("credentials.txt")).expect("it is there");
    assert_eq!(before.modified().expect("a time"), after.modified().expect("a time"));
    assert_eq!(std::fs::read_to_string(server.path("credentials.txt")).expect("text"), "alice x\n");
}

#[test]
fn a_framed_session_cannot_begin_without_its_password() {
    let site = Guarded::start("alice x\n", &[]);
    for ip in FAMILIES {
        let mut framed = Framed::begin(site.server.connect(ip));
        framed.request(1, serde_json::json!({"op": "run", "command": "touch never"}));
        let News::Goodbye(Some(why)) = framed.next() else { panic!("no goodbye") };
        assert_eq!(why["code"], "protocol");
        // Everything at once, behind a wrong password.
        let mut framed = Framed::begin(site.server.connect(ip));
        framed.send(client::HELLO, 0, br#"{"version":1,"user":"alice","password":"y"}"#);
        framed.run(1, "touch never");
        let News::Goodbye(Some(why)) = framed.next() else { panic!("no goodbye") };
        assert_eq!(why["code"], "login-failed");
        assert_eq!(framed.next(), News::Closed);
    }
    assert!(!site.server.path("never").exists());
}

#[test]
fn the_log_names_who_guesses_and_from_where_and_tells_a_block_once() {
    let site = Guarded::start("alice right\n", &["--attempts", "2"]);
    for (ip, others) in FAMILIES.into_iter().zip([0, 2]) {
        site.say(ip, "user nobody x\nuser alice wrong\nuser alice again\nuser alice right\n");
        // What is said to the peer may come before what is logged has been read.
        await_true("all is logged", || {
            let log = site.server.log();
            let failed = log.matches("event=login-failed user=alice ").count();
            failed >= 2 && log.contains("event=login-blocked") && log.contains("no-such-user")
        });
        let log = site.server.log();
        let lines = |part: &str| log.lines().filter(|line| line.contains(part)).count();
        assert_eq!(lines("event=login-blocked user=alice address="), 1, "{log}");
        let failed = "event=login-failed user=alice session=";
        let (first, second) = (" reason=wrong-password failures=1", " failures=2");
        let of_alice = log.lines().filter(|line| line.contains(failed)).collect::<Vec<_>>();
        assert_eq!(of_alice.len(), 2, "{log}");
        assert!(of_alice[0].ends_with(first) && of_alice[1].ends_with(second), "{log}");
        let unknown = log.lines().filter(|line| line.contains("user=? session=")).count();
        assert!(unknown > 0 && !log.contains("nobody"), "{log}");
        if others == 0 {
            let address = match ip {
                IpAddr::V4(_) => "address=127.0.0.1:",
                IpAddr::V6(_) => "address=[::1]:",
            };
            assert!(of_alice.iter().all(|line| line.contains(address)), "{log}");
        }
    }
}
