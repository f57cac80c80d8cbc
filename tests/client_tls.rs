//! How the client knows its servers: keys that it pins, keys that change, certificates, and servers
//! that should speak TLS and do not.

mod process;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
};

use process::{FAMILIES, Server, await_true, noise};
use tempfile::TempDir;

/// A user with a folder for state and one to work in.
struct User {
    home: TempDir,
}

/// How a client ended.
struct Left {
    code: Option<i32>,
    out: String,
    err: String,
}

impl User {
    fn new() -> User {
        let home = TempDir::new().expect("a folder");
        fs::create_dir(home.path().join("work")).expect("a folder");
        User { home }
    }

    fn command(&self, ip: &str, port: u16, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
        command.args(["--ip", ip, "--port", &port.to_string()]).args(arguments);
        command.current_dir(self.home.path().join("work"));
        command.env("USER", "tester").env("XDG_STATE_HOME", self.home.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, server: &Server, ip: IpAddr, arguments: &[&str]) -> Left {
        self.run_on(&ip.to_string(), server.port, arguments)
    }

    fn run_on(&self, ip: &str, port: u16, arguments: &[&str]) -> Left {
        left(self.command(ip, port, arguments).spawn().expect("the client starts"))
    }

    fn known_servers(&self) -> PathBuf {
        self.home.path().join("sixfour").join("known_servers")
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.known_servers()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

fn left(mut child: Child) -> Left {
    await_true("the end of the client", || child.try_wait().expect("our child").is_some());
    let Output { status, stdout, stderr } = child.wait_with_output().expect("its output");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Left { code: status.code(), out: text(stdout), err: text(stderr) }
}

impl Left {
    fn assert(&self, code: i32, out: &str) -> &Left {
        assert_eq!((self.code, self.out.as_str()), (Some(code), out), "{}", self.err);
        self
    }

    /// Asserts that one line was said to people, and that it holds all of these.
    fn assert_says(&self, parts: &[&str]) -> &Left {
        assert_eq!(self.err.lines().count(), 1, "{}", self.err);
        for part in parts {
            assert!(self.err.contains(part), "{part:?} is not in {}", self.err);
        }
        self
    }
}

fn place(server: &Server, ip: IpAddr) -> String {
    server.address(ip).to_string()
}

/// A server that answers with these bytes and gives back what it was told. It reads nothing before
/// it has answered, and ends with the client.
fn stranger(ip: IpAddr, answer: &'static [u8]) -> (u16, thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind((ip, 0)).expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let told = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut told = vec![0; 4096];
        let count = stream.read(&mut told).expect("bytes");
        told.truncate(count);
        let _ = stream.write_all(answer);
        let _ = stream.read_to_end(&mut told);
        told
    });
    (port, told)
}

/// Whether that is a ClientHello, perhaps an alert behind it, and nothing else.
fn is_handshake_alone(told: &[u8]) -> bool {
    let length = 5 + usize::from(u16::from_be_bytes([told[3], told[4]]));
    told[..2] == [0x16, 3] && (told.len() == length || told[length] == 0x15)
}

#[test]
fn on_this_machine_nothing_is_encrypted_unless_it_is_asked_for() {
    let server = Server::start();
    let user = User::new();
    for ip in FAMILIES {
        user.run(&server, ip, &["echo", "plain"]).assert(0, "plain\n");
        assert!(user.lines().is_empty());
    }
    for ip in FAMILIES {
        let (key, place) = (server.fingerprint(), place(&server, ip));
        let first = user.run(&server, ip, &["--tls", "echo", "first"]);
        first.assert(0, "first\n").assert_says(&[&place, &key, "is new here", "known_servers"]);
        assert_eq!(user.lines().last(), Some(&format!("{place} {key}")));
        let second = user.run(&server, ip, &["--tls", "echo", "second"]);
        assert_eq!(second.assert(0, "second\n").err, "", "it is known now");
        // Whoever is known to speak TLS is spoken to by TLS.
        assert_eq!(user.run(&server, ip, &["echo", "third"]).assert(0, "third\n").err, "");
    }
    assert_eq!(user.lines().len(), 2);
    let quiet = User::new().run(&server, FAMILIES[0], &["--tls", "-q", "echo", "quiet"]);
    assert_eq!(quiet.assert(0, "quiet\n").err, "");
    let json = User::new().run(&server, FAMILIES[0], &["--tls", "--json", "echo", "x"]);
    assert!(json.err.is_empty() && json.out.lines().count() == 2, "{}", json.out);
    assert!(json.out.starts_with("{\"event\":\"notice\","), "{}", json.out);
}

#[test]
fn names_are_pinned_as_they_are_typed() {
    let (server, user) = (Server::start(), User::new());
    let port = server.port;
    user.run_on("LocalHost", port, &["--tls", "echo", "x"]).assert(0, "x\n");
    assert_eq!(user.lines()[0], format!("localhost:{port} {}", server.fingerprint()));
    assert_eq!(user.run_on("localhost", port, &["echo", "y"]).assert(0, "y\n").err, "");
}

#[test]
fn a_changed_key_is_refused_before_anything_is_sent() {
    let user = User::new();
    for ip in FAMILIES {
        let old = Server::start();
        user.run(&old, ip, &["--tls", "echo", "x"]).assert(0, "x\n");
        let (port, place, before) = (old.port, place(&old, ip), old.fingerprint());
        drop(old);
        let new = Server::start_on(port, &["-v"]);
        let after = new.fingerprint();
        assert_ne!(before, after);
        let forget = format!("client forget {place}");
        let parts = [&place, &before, &after, &forget, "known_servers:1", "nothing was sent"];
        user.run(&new, ip, &["run", "touch", "never"]).assert(255, "").assert_says(&parts);
        for arguments in [&["who"][..], &["--tls", "-q", "msg", "bob", "hi"], &["download", "x"]] {
            user.run(&new, ip, arguments).assert(4, "").assert_says(&parts);
        }
        // Lines from a pipe, and a prompt.
        user.run(&new, ip, &[]).assert(4, "");
        new.await_log("AccessDenied");
        assert!(!new.path("never").exists());

        let mut forget = user.command("::1", port, &["forget", &place]);
        let forgotten = left(forget.spawn().expect("the client starts"));
        forgotten.assert(0, "").assert_says(&[&place, "forgotten"]);
        let again = left(forget.spawn().expect("the client starts"));
        again.assert(5, "").assert_says(&["there is no key of"]);
        user.run(&new, ip, &["--tls", "echo", "x"]).assert(0, "x\n").assert_says(&[&after]);
        user.run(&new, ip, &["forget", &place]).assert(0, "");
    }
}

#[test]
fn a_known_server_that_answers_in_clear_is_refused() {
    let user = User::new();
    for (ip, answer) in [
        (FAMILIES[0], &b"welcome tester\n"[..]),
        (FAMILIES[1], b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        (FAMILIES[0], &[0x41, 0, 0, 2, 0, 0, 0, 0, b'{', b'}']),
    ] {
        let (port, told) = stranger(ip, answer);
        let server = Server::start();
        let place = std::net::SocketAddr::new(ip, port).to_string();
        let pin = format!("{place} {}\n", server.fingerprint());
        fs::create_dir_all(user.known_servers().parent().expect("a folder")).expect("a folder");
        fs::write(user.known_servers(), pin).expect("a file");
        let refused = user.run_on(&ip.to_string(), port, &["msg", "bob", "a secret"]);
        let (key, forget) = (server.fingerprint(), format!("client forget {place}"));
        refused.assert(4, "").assert_says(&[&place, &key, &forget, "does not speak TLS"]);
        assert!(is_handshake_alone(&told.join().expect("it has ended")));
        let clear = user.run_on(&ip.to_string(), port, &["--plaintext", "who"]);
        clear.assert(4, "").assert_says(&[&place, &forget, "--plaintext"]);
    }
}

#[test]
fn an_unknown_server_that_answers_in_clear_is_no_connection() {
    for ip in FAMILIES {
        let (port, told) = stranger(ip, b"220 mail.example ESMTP\r\n");
        let user = User::new();
        let refused = user.run_on(&ip.to_string(), port, &["--tls", "who"]);
        refused.assert(3, "").assert_says(&["does not speak TLS", "--plaintext"]);
        assert!(is_handshake_alone(&told.join().expect("it has ended")));
        assert!(user.lines().is_empty());
    }
}

#[test]
fn a_file_of_known_servers_that_cannot_be_written_is_a_warning() {
    let (server, user) = (Server::start(), User::new());
    fs::create_dir(user.home.path().join("sixfour")).expect("a folder");
    fs::write(user.known_servers(), "# mine\n").expect("a file");
    let set_mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our own");
    };
    set_mode(&user.known_servers(), 0o666);
    let first = user.run(&server, FAMILIES[0], &["--tls", "echo", "x"]);
    first.assert(0, "x\n").assert_says(&["warning", "NOT", "others may write", "any key"]);
    assert_eq!(user.lines(), ["# mine"]);
    set_mode(&user.known_servers(), 0o600);
    set_mode(&user.home.path().join("sixfour"), 0o777);
    let first = user.run(&server, FAMILIES[0], &["--tls", "echo", "x"]);
    first.assert(0, "x\n").assert_says(&["warning", "NOT", "is not safe"]);
    // Nobody can tell whether a server is known where the file cannot be read.
    fs::remove_file(user.known_servers()).expect("a file");
    fs::create_dir(user.known_servers()).expect("a folder");
    let refused = user.run(&server, FAMILIES[0], &["--tls", "echo", "x"]);
    refused.assert(4, "").assert_says(&["nobody can tell", "known_servers"]);
}

#[test]
fn damaged_lines_are_told_and_a_damaged_pin_is_not_trusted() {
    let (server, user) = (Server::start(), User::new());
    let [v6, v4] = FAMILIES;
    fs::create_dir(user.home.path().join("sixfour")).expect("a folder");
    let pin = server.fingerprint();
    let half = format!(
        "elsewhere:5000 nonsense\r\n{} {pin}\r\n{} {}",
        place(&server, v4),
        place(&server, v6),
        &pin[..30]
    );
    fs::write(user.known_servers(), half).expect("a file");
    let known = user.run(&server, v4, &["echo", "x"]);
    assert_eq!(known.err.lines().count(), 2, "{}", known.err);
    assert!(known.err.contains("known_servers:1 is not a pin"), "{}", known.err);
    known.assert(0, "x\n");
    let cut = user.run(&server, v6, &["--tls", "echo", "x"]);
    cut.assert(4, "").assert_says(&["line 3", "holds no key", "client forget"]);
}

#[test]
fn clients_that_pin_at_once_lose_no_line() {
    let (server, user) = (Server::start(), User::new());
    let hosts: Vec<String> = (1..=20).map(|number| format!("127.0.0.{number}")).collect();
    let start = |host: &String| {
        user.command(host, server.port, &["--tls", "echo", "x"]).spawn().expect("it starts")
    };
    let children: Vec<Child> = hosts.iter().map(start).collect();
    for child in children {
        left(child).assert(0, "x\n").assert_says(&["is new here"]);
    }
    let mut lines = user.lines();
    lines.sort();
    let key = server.fingerprint();
    let mut wanted: Vec<String> =
        hosts.iter().map(|host| format!("{host}:{} {key}", server.port)).collect();
    wanted.sort();
    assert_eq!(lines, wanted);
}

/// An authority, and a server's certificate from it for these names: the files of the authority,
/// of the chain and of the key.
fn authority(folder: &Path, names: &[&str]) -> [String; 3] {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "an authority");
    let key = rcgen::KeyPair::generate().expect("a key");
    let root = rcgen::CertifiedIssuer::self_signed(params, key).expect("a certificate");
    let own_key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(names).expect("good names");
    let own = params.signed_by(&own_key, &root).expect("a certificate");
    let files = ["ca.pem", "chain.pem", "key.pem"].map(|name| folder.join(name));
    let texts = [root.pem(), own.pem(), own_key.serialize_pem()];
    for (file, text) in files.iter().zip(texts) {
        fs::write(file, text).expect("a file");
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("our own");
    }
    files.map(|file| file.to_string_lossy().into_owned())
}

#[test]
fn real_certificates_are_taken_for_their_names_alone() {
    let folder = TempDir::new().expect("a folder");
    let [ca, chain, key] = authority(folder.path(), &["localhost", "127.0.0.1"]);
    let other = TempDir::new().expect("a folder");
    let [other_ca, ..] = authority(other.path(), &["localhost"]);
    let server = Server::start_with(&["--cert", &chain, "--key", &key]);
    let user = User::new();
    for (host, ca, good) in [
        ("localhost", &ca, true),
        ("127.0.0.1", &ca, true),
        ("::1", &ca, false),
        ("127.0.0.2", &ca, false),
        ("localhost", &other_ca, false),
    ] {
        let told = user.run_on(host, server.port, &["--ca", ca, "echo", "x"]);
        match good {
            true => assert_eq!(told.assert(0, "x\n").err, ""),
            false => {
                told.assert(4, "").assert_says(&["is not accepted", "nothing was sent"]);
            }
        }
    }
    // One that has signed itself, as tools make it that know of nothing but authorities.
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("good names");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let own_key = rcgen::KeyPair::generate().expect("a key");
    let own = params.self_signed(&own_key).expect("a certificate");
    let files = ["self.pem", "self-key.pem"].map(|name| folder.path().join(name));
    for (file, text) in files.iter().zip([own.pem(), own_key.serialize_pem()]) {
        fs::write(file, text).expect("a file");
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("our own");
    }
    let [own, own_key] = files.map(|file| file.to_string_lossy().into_owned());
    let own_server = Server::start_with(&["--cert", &own, "--key", &own_key]);
    let told = user.run_on("localhost", own_server.port, &["--ca", &own, "echo", "x"]);
    let told = told.assert(4, "");
    told.assert_says(&["is not accepted", "basicConstraints=critical,CA:FALSE"]);
    assert!(!told.err.contains("Other"), "{}", told.err);
    assert!(user.lines().is_empty(), "certificates pin nothing");
    for (file, why) in [("missing", "No such file"), (&*key, "no certificate")] {
        let path = folder.path().join(file).to_string_lossy().into_owned();
        let told = user.run_on("localhost", server.port, &["--ca", &path, "echo", "x"]);
        told.assert(2, "").assert_says(&["--ca", &path, why]);
    }
}

#[test]
fn options_that_contradict_each_other_are_bad_arguments() {
    let user = User::new();
    for arguments in [
        &["--tls", "--plaintext", "who"][..],
        &["--ca", "x", "--plaintext", "who"],
        &["forget"],
        &["forget", "[::1"],
    ] {
        user.run_on("::1", 5000, arguments).assert(2, "");
    }
}

#[test]
fn files_commands_and_their_input_go_through_tls_whole() {
    let (server, user) = (Server::start(), User::new());
    let content = noise(3, 20 * 1024 * 1024 + 7);
    server.put("large.bin", &content);
    for ip in FAMILIES {
        let told = user.run(&server, ip, &["--tls", "-q", "download", "large.bin"]);
        assert_eq!(told.assert(0, "").err, "");
        let saved = user.home.path().join("work").join("client_large.bin");
        assert!(fs::read(&saved).expect("it is saved") == content);
        fs::rename(&saved, saved.with_file_name("up.bin")).expect("a file of the test");
        let told = user.run(&server, ip, &["--tls", "-q", "upload", "up.bin"]);
        assert_eq!(told.assert(0, "").err, "");
        assert!(fs::read(server.path("up.bin")).expect("it is stored") == content);
        fs::remove_file(server.path("up.bin")).expect("a file of the test");

        let mut command = user.command(&ip.to_string(), server.port, &["run", "wc -c; exit 7"]);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("the client starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = content.clone();
        let writer = thread::spawn(move || stdin.write_all(&input));
        left(child).assert(7, &format!("{}\n", content.len()));
        writer.join().expect("it wrote").expect("all was read");
    }
}

/// Passes one connection on to the server, and cuts it after so many bytes in either direction.
fn cutter(server: &Server, ip: IpAddr, after: usize) -> u16 {
    let listener = TcpListener::bind((ip, 0)).expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let far = server.connect(ip);
    thread::spawn(move || {
        let (near, _) = listener.accept().expect("a client");
        let pass = move |mut from: TcpStream, mut to: TcpStream| {
            let (mut buffer, mut left) = (vec![0; 64 * 1024], after);
            while left > 0 {
                let most = left.min(buffer.len());
                let Ok(count @ 1..) = from.read(&mut buffer[..most]) else { break };
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
                left -= count;
            }
            // The end of TCP: nobody in between can say the end of TLS.
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        };
        let [near_too, far_too] = [&near, &far].map(|it| it.try_clone().expect("a descriptor"));
        let up = thread::spawn(move || pass(near_too, far_too));
        pass(far, near);
        up.join().expect("it has ended");
    });
    port
}

#[test]
fn what_is_cut_off_on_its_way_gets_no_name_on_either_side() {
    let (server, user) = (Server::start(), User::new());
    let content = noise(4, 8 * 1024 * 1024);
    server.put("down.bin", &content);
    let work = user.home.path().join("work");
    fs::write(work.join("up.bin"), &content).expect("a file");
    for ip in FAMILIES {
        for verb in [["download", "down.bin"], ["upload", "up.bin"]] {
            let port = cutter(&server, ip, 3 * 1024 * 1024);
            let arguments = [&["--tls", "-q"], &verb[..]].concat();
            let told = user.run_on(&ip.to_string(), port, &arguments);
            assert!(told.code == Some(1) && told.err.contains("lost"), "{verb:?}: {}", told.err);
        }
        assert!(!work.join("client_down.bin").exists() && !server.path("up.bin").exists());
    }
}
