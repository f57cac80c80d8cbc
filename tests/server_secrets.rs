//! A password that the test makes up is used in every way that there is, and then searched for
//! wherever it must not be: outputs, logs, arguments and environments of processes.

mod process;

use std::{
    collections::hash_map::RandomState,
    fs,
    hash::BuildHasher as _,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use process::{
    FAMILIES, Framed, News, Server, await_true, folder,
    identity::{Guarded, hashed},
    run_server,
};
use rustix::process::Signal;
use sixfour::wire::frame::client;
use tempfile::TempDir;

fn new_secret() -> String {
    format!("S3cr3t-{:016x}", RandomState::new().hash_one(0))
}

fn assert_absent(secret: &str, place: &str, text: impl AsRef<[u8]>) {
    let text = String::from_utf8_lossy(text.as_ref());
    assert!(!text.contains(secret), "the password is in {place}:\n{text}");
}

/// Runs a client that finds its password in a file or in the environment.
fn client(site: &Guarded, by_file: bool, password: &str, arguments: &[&str]) -> Output {
    let folder = TempDir::new().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
    command.args(["--port", &site.server.port.to_string()]).env("USER", "alice");
    match by_file {
        true => {
            fs::write(folder.path().join("password"), format!("{password}\n")).expect("a file");
            command.arg("--password-file").arg(folder.path().join("password"));
        }
        false => drop(command.env("SIXFOUR_PASSWORD", password)),
    }
    command.args(arguments).current_dir(folder.path()).stdin(Stdio::null());
    command.output().expect("the client starts")
}

/// Where all processes of the machine show something of themselves.
fn assert_absent_in_processes(secret: &str, but: u32) {
    for entry in fs::read_dir("/proc").expect("proc is mounted").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == but.to_string() || name.parse::<u32>().is_err() {
            continue;
        }
        for what in ["cmdline", "environ"] {
            // Processes come and go.
            if let Ok(bytes) = fs::read(entry.path().join(what)) {
                assert_absent(secret, &format!("/proc/{name}/{what}"), bytes);
            }
        }
    }
}

/// Each way to say a password to the server, in its place and in others.
fn log_in_rightly_and_wrongly(site: &Guarded, secret: &str) {
    for ip in FAMILIES {
        let lines = [
            format!("user alice {secret}\n"),
            format!("user erin {secret}x\nuser dave x{secret}\nuser frank {secret}\n"),
            // In the wrong place.
            format!("user {secret} alice\n"),
            format!("login alice {secret}\n"),
            format!("user alice\t{secret}\n"),
            format!("user alice {secret}\u{0}\n"),
            format!("user alice {secret}{}\n", "x".repeat(1100)),
            format!("user alice {secret}{}\n", "x".repeat(5000)),
            format!("{{\"op\":\"login\",\"password\":\"{secret}\"}}\n"),
            format!("POST / HTTP/1.1\r\n\r\nuser alice {secret}\r\n"),
        ];
        for line in lines {
            let heard = site.say(ip, &line);
            assert_absent(secret, &format!("the answer to {line:?}"), heard);
        }
        for hello in [
            format!(r#"{{"version":1,"user":"alice","password":"{secret}"}}"#),
            format!(r#"{{"version":1,"user":"dave","password":"{secret}?"}}"#),
            format!(r#"{{"version":2,"user":"alice","password":"{secret}"}}"#),
            format!(r#"{{"version":1,"user":"alice","password":["{secret}"]}}"#),
            format!(r#"{{"version":1,"user":"alice","password":"{secret}""#),
            format!(r#"{{"version":1,"user":"al|ice","password":"{secret}"}}"#),
        ] {
            let mut framed = Framed::begin(site.server.connect(ip));
            framed.send(client::HELLO, 0, hello.as_bytes());
            let answer = framed.next();
            assert!(matches!(answer, News::Welcome(_) | News::Goodbye(_)), "{answer:?}");
            assert_absent(secret, &format!("the answer to {hello:?}"), format!("{answer:?}"));
        }
    }
}

#[test]
fn a_password_stays_out_of_outputs_logs_arguments_and_environments() {
    let secret = new_secret();
    let hash = hashed(&secret);
    let credentials = format!(
        "alice {hash} message,run\nbob {secret}\ncarol {secret}\ndave {secret}\nerin {hash}\n"
    );
    // Wrong ones are for dave, erin and frank, who does not exist; the others must not be blocked.
    let site = Guarded::start(&credentials, &["-vv", "--attempts", "5"]);
    let [v6, v4] = FAMILIES;
    log_in_rightly_and_wrongly(&site, &secret);
    for by_file in [true, false] {
        for (password, arguments) in [
            (secret.clone(), &["-v", "run", "env; cat /proc/self/environ /proc/self/cmdline"][..]),
            (secret.clone(), &["--json", "who"]),
            (format!("{secret}x"), &["--json", "-v", "--user", "erin", "who"]),
            (format!("{secret}\u{7}"), &["-v", "--user", "frank", "who"]),
        ] {
            let Output { stdout, stderr, .. } = client(&site, by_file, &password, arguments);
            assert_absent(&secret, &format!("the output of {arguments:?}"), stdout);
            assert_absent(&secret, &format!("the error output of {arguments:?}"), stderr);
        }
    }
    // While a client is connected.
    let folder = TempDir::new().expect("a folder");
    fs::write(folder.path().join("password"), &secret).expect("a file");
    let mut connected = Command::new(env!("CARGO_BIN_EXE_client"))
        .args(["--port", &site.server.port.to_string(), "--user", "bob", "--password-file"])
        .arg(folder.path().join("password"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the client starts");
    await_true("bob is here", || {
        site.say(v6, &format!("user carol {secret}\nwho\n")).contains("bob")
    });
    assert_absent_in_processes(&secret, 0);
    drop(connected.stdin.take());
    assert!(connected.wait().expect("it ends").success());
    for bad in [format!("{secret}\n"), format!("a b {secret}\n"), format!("a {secret}\u{1}\n")] {
        let said = |site: &Guarded| site.server.log().matches("are the old ones").count();
        let before = said(&site);
        site.reload(&bad);
        await_true("it is refused", || said(&site) > before);
    }
    assert!(site.say(v4, &format!("user carol {secret}\n")).starts_with("welcome"));
    let (_, _, told) =
        run_server(&["--port", "0", "--credentials", &site.path().to_string_lossy()]);
    assert_absent(&secret, "the complaint about the file", told);
    let mut site = site;
    site.server.signal(Signal::TERM);
    site.server.wait();
    let log = site.server.log();
    assert!(log.contains("DEBUG") && log.contains("reason=wrong-password"), "{log}");
    assert_absent(&secret, "the log", log);
}

#[test]
fn a_server_keeps_the_clients_variable_from_its_children() {
    let secret = new_secret();
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(["--port", "0"]).env("SIXFOUR_PASSWORD", &secret);
    let server = Server::start_sharing(folder(), command);
    let mut line = server.line(FAMILIES[0]);
    line.send("run env; cat /proc/self/environ; echo; echo it runs; exec sleep 1000");
    // Until a child has its own program it is a picture of the server.
    loop {
        let said = line.next();
        assert!(!said.contains(&secret), "{said}");
        if said == "it runs" {
            break;
        }
    }
    assert_absent_in_processes(&secret, server.pid().as_raw_nonzero().get() as u32);
    line.half_close();
    drop(line);
}

#[test]
fn passwd_takes_a_password_from_a_pipe_and_shows_it_nowhere() {
    let secret = new_secret();
    let folder = TempDir::new().expect("a folder");
    let passwd = |arguments: &[&str], input: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_server"))
            .args(["passwd"])
            .args(arguments)
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input.as_bytes()).expect("it reads");
        assert_absent_in_processes(&secret, 0);
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        assert_absent(&secret, "the output of passwd", &output.stdout);
        assert_absent(&secret, "the error output of passwd", &output.stderr);
        let err = String::from_utf8(output.stderr).expect("text");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"), err)
    };
    let path = folder.path().join("credentials.txt");
    let (code, out, err) = passwd(&["alice"], &format!("{secret}\n"));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let told = "credentials.txt: added alice with the rights message,files,upload,edge; a running \
                server reads the file again on SIGHUP\n";
    assert_eq!(out, told);
    assert_eq!(mode_of(&path), 0o600);
    let (code, ..) = passwd(&["bob", "--rights", "run,message"], &secret);
    assert_eq!(code, Some(0));
    let text = fs::read_to_string(&path).expect("text");
    assert_eq!(text.lines().count(), 2);
    assert!(text.starts_with("alice $argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
    assert!(text.ends_with(" message,run\n"), "{text}");
    assert_absent(&secret, "the file", &text);
    // What is wrong changes nothing.
    for (arguments, input, part) in [
        (&["alice"][..], "\n".to_owned(), "empty"),
        (&["alice"], "x".repeat(1025), "1024 bytes"),
        (&["alice", "--credentials", "no/such/folder/file"], secret.clone(), "no/such/folder"),
    ] {
        let (code, out, err) = passwd(arguments, &input);
        assert_eq!((code, out.as_str(), err.lines().count()), (Some(1), "", 1), "{err}");
        assert!(err.contains(part), "{err}");
    }
    assert_eq!(fs::read_to_string(&path).expect("text"), text);
    let (code, _, err) = run_server(&["passwd", "al|ice"]);
    assert_eq!((code, err.lines().count()), (Some(2), 1), "{err}");
    // And it opens the door.
    let site = Guarded::start(&text, &[]);
    for ip in FAMILIES {
        assert_eq!(site.say(ip, &format!("user alice {secret}\n")), "welcome alice\n");
        let heard = site.say(ip, &format!("user bob {secret}\nrun echo ran\nls\n"));
        assert!(heard.starts_with("welcome bob\nran\n[exit 0]\nerror denied: files"), "{heard}");
    }
}

fn mode_of(path: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).expect("it is there").mode() & 0o777
}

#[test]
fn many_passwd_at_once_lose_nobody() {
    let folder = TempDir::new().expect("a folder");
    let children: Vec<_> = (0..8)
        .map(|at| {
            let mut child = Command::new(env!("CARGO_BIN_EXE_server"))
                .args(["passwd", &format!("u{at}")])
                .current_dir(folder.path())
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .expect("the server starts");
            child.stdin.take().expect("a pipe").write_all(b"x\n").expect("it reads");
            child
        })
        .collect();
    for mut child in children {
        assert!(child.wait().expect("it ends").success());
    }
    let text = fs::read_to_string(folder.path().join("credentials.txt")).expect("text");
    let mut names: Vec<_> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["u0", "u1", "u2", "u3", "u4", "u5", "u6", "u7"]);
}
