//! TLS on the port of the server: every dialect inside it, both families, and what goes wrong.

mod process;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::Shutdown,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use process::{
    Canary, FAMILIES, PATIENCE, Secured, Server, await_true, is_running, noise, reset_on_close,
    run_server, secured::trusting,
};
use rustix::process::Signal;
use serde_json::json;
use sixfour::wire::frame::{self, client};
use tempfile::TempDir;

#[test]
fn every_dialect_is_spoken_inside() {
    let mut server = Server::start();
    let (key, hello) = (server.fingerprint(), json!({"version": 1, "user": "framed"}).to_string());
    assert!(key.len() > 40);
    for ip in FAMILIES {
        let mut lines = server.secured(ip);
        lines.send("user alice\necho hello");
        assert_eq!((lines.next(), lines.next()), ("welcome alice".into(), "hello".into()));
        lines.send("quit");
        assert_eq!(lines.rest_text(), "goodbye\n");

        let mut http = server.secured(ip);
        http.send_bytes(b"GET / HTTP/1.1\r\n\r\n");
        assert!(http.rest_text().starts_with("HTTP/1.1 421 "));

        let mut framed = server.secured(ip);
        let mut bytes = frame::MAGIC.to_vec();
        frame::put(&mut bytes, client::HELLO, 0, hello.as_bytes());
        framed.send_bytes(&bytes);
        assert_eq!(framed.exactly(1), [frame::server::WELCOME]);

        // Once it was TLS, and within that it is not again.
        let mut twice = server.secured(ip);
        twice.send_bytes(&[0x16, 3, 1, 0, 200, 1, 0, 0, 196]);
        assert_eq!(twice.rest(), [0x15, 3, 3, 0, 2, 2, 40]);
    }
    server.assert_alive();
}

#[test]
fn a_half_closed_session_gets_all_of_its_answer() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut lines = server.secured(ip);
        lines.send_bytes(b"run sleep 0.2; echo late; exit 3");
        lines.half_close();
        assert_eq!(lines.rest_text(), "late\n[exit 3]\n");
    }
}

#[test]
fn what_was_cut_off_is_not_done_and_what_was_whole_is() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut lines = server.secured(ip);
        lines.send_bytes(b"run sleep 0.2; echo late\nrun touch half");
        // The end of TCP alone: as `ncat --ssl` ends, and as anybody on the way can do.
        lines.stream().shutdown(Shutdown::Write).expect("a half that can be closed");
        assert_eq!(lines.rest_text(), "late\n[exit 0]\n");
        assert!(!server.path("half").exists());
    }
}

#[test]
fn frames_that_are_cut_off_end_what_they_asked_for() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut framed = server.secured(ip);
        let mut bytes = frame::MAGIC.to_vec();
        frame::put(&mut bytes, client::HELLO, 0, br#"{"version": 1, "user": "framed"}"#);
        let run = json!({"op": "run", "command": "echo $$ >pid; exec sleep 1000"});
        frame::put(&mut bytes, client::REQUEST, 1, run.to_string().as_bytes());
        server.fifo("pid");
        framed.send_bytes(&bytes);
        let pid = fs::read_to_string(server.path("pid")).expect("text");
        assert!(is_running(pid.trim()));
        framed.stream().shutdown(Shutdown::Write).expect("a half that can be closed");
        await_true("the command is ended", || !is_running(pid.trim()));
        fs::remove_file(server.path("pid")).expect("a file of the test");
    }
}

#[test]
fn a_reset_ends_what_it_asked_for() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut lines = server.secured(ip);
        lines.send("run echo $$; exec sleep 1000");
        let pid = lines.next();
        assert!(is_running(&pid));
        reset_on_close(lines.stream());
        drop(lines);
        await_true("the command is ended", || !is_running(&pid));
    }
}

#[test]
fn bad_handshakes_cost_nothing_and_leave_nothing() {
    let mut server = Server::start_with(&["-v"]);
    let canary = Canary::start(&server);
    let before = server.descriptors();
    let hello = [&[0x16, 3, 1, 0, 200, 1, 0, 0, 196][..], &noise(1, 196)].concat();
    for number in 0..200 {
        let mut stream = server.connect(FAMILIES[number % 2]);
        match number % 5 {
            0 => stream.write_all(&hello).expect("it takes that"),
            1 => stream.write_all(&hello[..number]).expect("it takes that"),
            2 => stream.write_all(&[0x16]).expect("it takes that"),
            3 => stream.write_all(&[0x16, 3, 1, 0xff, 0xff, 9]).expect("it takes that"),
            _ => stream.write_all(&[0x16, 3, 3, 0, 1, 1, 0x15, 3, 3, 0, 2, 1, 0]).expect("so"),
        }
        if number % 3 == 0 {
            reset_on_close(&stream);
        }
        if number % 2 == 0 {
            stream.shutdown(Shutdown::Write).expect("a half that can be closed");
            let _ = stream.read_to_end(&mut Vec::new());
        }
    }
    await_true("all of them are gone", || server.descriptors() <= before);
    let (ticks, begun) = (server.processor_ticks(), Instant::now());
    canary.stop();
    assert!(server.processor_ticks() - ticks <= 5 + begun.elapsed().as_millis() as u64 / 100);
    server.await_log("TLS failed");
    server.assert_alive();
}

#[test]
fn files_and_messages_share_a_session_fairly() {
    let server = Server::start();
    let content = noise(7, 48 * 1024 * 1024);
    server.put("large.bin", &content);
    let canary = Canary::start(&server);
    for ip in FAMILIES {
        let (mut fetcher, mut bob) = (server.secured(ip), server.secured(ip));
        bob.send("user bob");
        assert_eq!(bob.next(), "welcome bob");
        fetcher.send("user fetcher\ndownload large.bin\nhello|bob");
        assert_eq!(fetcher.next(), "welcome fetcher");
        assert_eq!(fetcher.next(), format!("file {} large.bin", content.len()));
        assert!(fetcher.exactly(content.len()) == content);
        assert_eq!(bob.next(), "fetcher|hello");
        fetcher.send("quit");
        bob.send("quit");
        assert_eq!(fetcher.rest_text() + &bob.rest_text(), "goodbye\ngoodbye\n");
    }
    canary.stop();
}

#[test]
fn six_megabytes_of_messages_arrive_in_order() {
    let server = Server::start();
    let text = "x".repeat(60_000);
    for ip in FAMILIES {
        let (mut alice, mut bob) = (server.secured(ip), server.secured(ip));
        for (user, name) in [(&mut alice, "alice"), (&mut bob, "bob")] {
            user.send(&format!("user {name}"));
            assert_eq!(user.next(), format!("welcome {name}"));
        }
        for number in 0..100 {
            alice.send(&format!("{number} {text}|bob"));
            assert_eq!(bob.next(), format!("alice|{number} {text}"));
        }
        // And all that one segment may hold at once.
        let many: String = (0..2000).map(|number| format!("m{number}|bob\n")).collect();
        alice.send_bytes(many.as_bytes());
        for number in 0..2000 {
            assert_eq!(bob.next(), format!("alice|m{number}"));
        }
        alice.send("quit");
        bob.send("quit");
        assert_eq!(alice.rest_text() + &bob.rest_text(), "goodbye\ngoodbye\n");
    }
}

#[test]
fn a_peer_that_does_not_read_holds_up_nobody() {
    let server = Server::start();
    server.put("large.bin", &noise(8, 24 * 1024 * 1024));
    let canary = Canary::start(&server);
    let before = server.resident_kib();
    let mut stuck: Vec<Secured> = FAMILIES.into_iter().map(|ip| server.secured(ip)).collect();
    for lines in &mut stuck {
        lines.send("download large.bin");
        assert!(lines.next().starts_with("file "));
    }
    let longest = canary.stop();
    assert!(longest < PATIENCE / 10, "{longest:?}");
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB");
}

#[test]
fn idle_sessions_are_small() {
    const SESSIONS: usize = 300;
    let server = Server::start();
    let open = |number: usize| {
        let mut lines = server.secured(FAMILIES[number % 2]);
        lines.send(&format!("echo {number}"));
        assert_eq!(lines.next(), number.to_string());
        lines
    };
    // What all of them share, and what the first of them take from the system for others too.
    let _first: Vec<Secured> = (0..50).map(open).collect();
    let before = server.resident_kib();
    let _idle: Vec<Secured> = (0..SESSIONS).map(open).collect();
    let each = (server.resident_kib() - before) * 1024 / SESSIONS as u64;
    println!("{each} bytes for each idle session");
    assert!(each < 16 * 1024, "{each} bytes for each idle session");
}

#[test]
fn other_protocols_are_refused_and_none_is_fine() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut config = trusting();
        config.alpn_protocols = Vec::new();
        let mut lines = Secured::with(server.connect(ip), config.clone());
        lines.send("echo fine");
        assert_eq!(lines.next(), "fine");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let told = Secured::with(server.connect(ip), config).handshake().expect_err("no");
        assert!(told.to_string().contains("NoApplicationProtocol"), "{told}");
    }
}

#[test]
fn servers_that_start_at_once_have_one_key() {
    let state = TempDir::new().expect("a folder");
    let path = state.path().to_string_lossy().into_owned();
    let start = || {
        Command::new(env!("CARGO_BIN_EXE_server"))
            .args(["fingerprint", "--state", &path])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts")
    };
    let children: Vec<_> = (0..8).map(|_| start()).collect();
    let said: Vec<_> = children
        .into_iter()
        .map(|child| child.wait_with_output().expect("it ends").stdout)
        .collect();
    assert!(said[0].starts_with(b"SHA256:") && said.iter().all(|it| *it == said[0]), "{said:?}");
}

#[test]
fn the_state_folder_is_never_served() {
    let root = TempDir::new().expect("a folder");
    let path = |name: &str| root.path().join(name).to_string_lossy().into_owned();
    let (inside, whole) = (path("state"), path(""));
    for (state, root) in [(&inside, &whole), (&whole, &whole)] {
        let (code, out, err) = run_server(&["--port", "0", "--state", state, "--root", root]);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        assert!(err.contains("lies inside the folder that is served"), "{err}");
        assert!(err.contains("--root") && err.contains("--state"), "{err}");
    }
}

/// A certificate for this name, and its key, in files.
fn certificate(folder: &TempDir, name: &str) -> [String; 2] {
    use std::os::unix::fs::PermissionsExt as _;
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new([name.to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    let files = ["cert.pem", "key.pem"].map(|file| folder.path().join(file));
    fs::write(&files[0], certificate.pem()).expect("a file");
    fs::write(&files[1], key.serialize_pem()).expect("a file");
    fs::set_permissions(&files[1], fs::Permissions::from_mode(0o600)).expect("our own file");
    files.map(|file| file.to_string_lossy().into_owned())
}

#[test]
fn a_certificate_of_the_operators_is_used_and_read_again() {
    let folder = TempDir::new().expect("a folder");
    let [cert, key] = certificate(&folder, "one.test");
    let server = Server::start_with(&["--cert", &cert, "--key", &key]);
    let shown = || run_server(&["fingerprint", "--cert", &cert, "--key", &key]).1;
    let seen = || {
        let trust = sixfour::sys::tls::Trust::Pins(Vec::new());
        let (config, seen) = sixfour::sys::tls::client_config(trust).expect("a configuration");
        let config = rustls::ClientConfig::clone(&config);
        let mut lines = Secured::with(server.connect(FAMILIES[0]), config);
        lines.send("echo x");
        assert_eq!(lines.next(), "x");
        format!("{}\n", seen.get().expect("a key"))
    };
    let first = shown();
    assert_eq!(seen(), first);
    let mut old = server.secured(FAMILIES[1]);
    old.send("echo before");
    assert_eq!(old.next(), "before");

    certificate(&folder, "two.test");
    server.signal(Signal::HUP);
    server.await_log("another key");
    assert_ne!(shown(), first);
    assert_eq!(seen(), shown());
    old.send("echo after");
    assert_eq!(old.next(), "after", "who is there keeps what was agreed");

    let good = shown();
    fs::write(&cert, "no certificate").expect("a file");
    server.signal(Signal::HUP);
    server.await_log("the key stays as it was");
    assert_eq!(seen(), good);
}

#[test]
fn a_key_that_cannot_be_used_stops_the_start_with_its_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = TempDir::new().expect("a folder");
    let [cert, key] = certificate(&folder, "one.test");
    let start = |arguments: &[&str]| {
        let (code, _, err) = run_server(&[&["--port", "0"], arguments].concat());
        assert_eq!(err.lines().count(), 1, "{err}");
        (code, err)
    };
    let (code, err) = start(&["--cert", &cert]);
    assert!(code == Some(2) && err.contains("--key"), "{err}");
    let (code, err) = start(&["--cert", &cert, "--key", &cert]);
    assert!(code == Some(1) && err.contains("cert.pem"), "{err}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("our own file");
    let (code, err) = start(&["--cert", &cert, "--key", &key]);
    assert!(code == Some(1) && err.contains("others may read this key"), "{err}");
}

/// What the command prints where its input is this and is then closed; `None` without the program.
fn piped(program: &str, arguments: &[&str], input: &str) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else {
        println!("skipped: there is no {program} here");
        return None;
    };
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    let mut ended = false;
    let begun = Instant::now();
    while !ended && begun.elapsed() < PATIENCE {
        ended = child.try_wait().expect("it is our child").is_some();
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let output = child.wait_with_output().expect("its output");
    assert!(ended, "{program} does not end");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn ncat_and_openssl_are_clients() {
    let server = Server::start();
    let port = server.port.to_string();
    for ip in FAMILIES {
        let address = ip.to_string();
        let said = piped("ncat", &["--ssl", &address, &port], "run sleep 0.1; echo late\n");
        assert_eq!(said.as_deref().unwrap_or("late\n[exit 0]\n"), "late\n[exit 0]\n");
        let place = server.address(ip).to_string();
        let arguments = ["s_client", "-quiet", "-connect", &place];
        let said = piped("openssl", &arguments, "user alice\nwho\nquit\n");
        let whole = "welcome alice\nalice\n[1 users]\ngoodbye\n";
        assert_eq!(said.as_deref().unwrap_or(whole), whole);
    }
}

#[test]
fn openssl_computes_the_same_fingerprint() {
    let server = Server::start();
    let place = server.address(FAMILIES[1]).to_string();
    let script = format!(
        "openssl s_client -connect {place} </dev/null 2>/dev/null | openssl x509 -pubkey -noout | \
         openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | openssl base64"
    );
    if piped("openssl", &["version"], "").is_none() {
        return;
    }
    let computed = piped("/bin/sh", &["-c", &script], "").expect("a shell");
    assert_eq!(server.fingerprint(), format!("SHA256:{}", computed.trim().trim_end_matches('=')));
}

#[test]
#[ignore = "takes 11 s: cargo test --test server_tls -- --ignored"]
fn whoever_begins_a_handshake_and_falls_silent_is_cut_off_after_ten_seconds() {
    let mut server = Server::start();
    let begun = Instant::now();
    let mut silent: Vec<_> = FAMILIES.into_iter().map(|ip| server.connect(ip)).collect();
    for (number, stream) in silent.iter_mut().enumerate() {
        let hello = [0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];
        stream.write_all(&hello[..2 + 9 * number]).expect("it takes that");
    }
    for stream in &mut silent {
        let _ = stream.read_to_end(&mut Vec::new());
        let after = begun.elapsed().as_millis();
        assert!((9_900..11_500).contains(&after), "{after} ms");
    }
    server.assert_alive();
}
