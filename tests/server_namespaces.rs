//! Peers that are not on this machine, played by a second network namespace.
//!
//! Needs root and `ip` (iproute2); without them the test says so and passes.

mod process;

use std::{
    net::IpAddr,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use process::{
    Server,
    network::{End, Machines},
};
use tempfile::TempDir;

/// A machine for the server and one for a client, joined by a line; gone when dropped.
struct Network {
    machines: Machines,
}

/// The addresses of the server's end of the pair, from the ranges for documentation and local use.
const SERVER: [&str; 2] = ["fd64:6464:6464::1", "192.0.2.1"];

impl Network {
    /// `None`, with the reason printed, where this host does not allow it.
    fn new(purpose: &str) -> Option<Network> {
        let has_perl = Command::new("perl").args(["-MIO::Socket::IP", "-e", "1"]).status();
        if !has_perl.is_ok_and(|status| status.success()) {
            println!("skipped: no perl with IO::Socket::IP here");
            return None;
        }
        let machines = Machines::new(purpose, &['s', 'c'])?;
        machines.join([
            End { machine: 's', interface: "out", v6: SERVER[0], v4: SERVER[1] },
            End { machine: 'c', interface: "out", v6: "fd64:6464:6464::2", v4: "192.0.2.2" },
        ])?;
        Some(Network { machines })
    }

    /// Takes the line between the two away.
    fn cut(&self) {
        self.machines.set('c', &["link", "set", "out", "down"]);
    }

    /// What the server at `address` answers to these bytes, sent from the client's namespace.
    fn ask(&self, address: &str, port: u16, bytes: &[u8]) -> Vec<u8> {
        self.ask_from('c', address, port, bytes)
    }

    /// The same from either end.
    fn ask_from(&self, end: char, address: &str, port: u16, bytes: &[u8]) -> Vec<u8> {
        // Perl's socket module is everywhere; `nc` has many dialects.
        let script = r#"
            use IO::Socket::IP; alarm 10;
            my $s = IO::Socket::IP->new(PeerHost => $ARGV[0], PeerPort => $ARGV[1]) or die $!;
            binmode STDIN; local $/; print $s scalar <STDIN>; $s->flush;
            binmode STDOUT; while (sysread($s, my $b, 65536)) { print $b; }"#;
        let mut child = self
            .machines
            .command(end, "perl")
            .args(["-e", script, address, &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("perl starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        std::io::Write::write_all(&mut stdin, bytes).expect("it reads");
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "the peer could not connect to {address}");
        output.stdout
    }
}

impl Network {
    /// A server in its namespace, with these arguments, and one user.
    fn server(&self, arguments: &[&str]) -> Server {
        let folder = process::folder();
        std::fs::write(folder.path().join("users"), "alice secret\nbob secret\ncarol secret\n")
            .expect("a file");
        let mut command = self.machines.command('s', env!("CARGO_BIN_EXE_server"));
        command.args(["--port", "0"]).args(arguments).current_dir(folder.path());
        Server::start_sharing(folder, command)
    }

    /// A client in the other namespace that knows its password: exit code, what it says.
    fn client(&self, address: &str, port: u16, arguments: &[&str]) -> (Option<i32>, String) {
        self.client_of('c', "alice", address, port, arguments)
    }

    /// The same of any user, from either end.
    fn client_of(
        &self,
        end: char,
        user: &str,
        address: &str,
        port: u16,
        arguments: &[&str],
    ) -> (Option<i32>, String) {
        let home = TempDir::new().expect("a folder");
        let output = self
            .machines
            .command(end, env!("CARGO_BIN_EXE_client"))
            .env("XDG_STATE_HOME", home.path())
            .args(["--user", user, "--ip", address])
            .args(["--port", &port.to_string()])
            .args(arguments)
            .env("SIXFOUR_PASSWORD", "secret")
            .stdin(Stdio::null())
            .output()
            .expect("the client starts");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("text"))
    }
}

#[test]
fn a_peer_from_another_host_is_told_why_it_is_not_served_in_its_own_dialect() {
    let Some(network) = Network::new("far") else { return };
    let server = Server::start_inside(&network.machines.prefix('s'));
    for address in SERVER {
        let address_is_v6 = address.parse::<IpAddr>().expect("an address").is_ipv6();
        for request in ["run touch never\n", "user alice\n", "help\n", "PROXY TCP4 127.0.0.1 "] {
            let said = network.ask(address, server.port, request.as_bytes());
            let said = String::from_utf8(said).expect("text");
            assert!(said.starts_with("error denied: "), "{said} (IPv6: {address_is_v6})");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
        let mut hello = sixfour::wire::frame::MAGIC.to_vec();
        let body = br#"{"version": 1, "user": "alice"}"#;
        sixfour::wire::frame::put(&mut hello, sixfour::wire::frame::client::HELLO, 0, body);
        let said = network.ask(address, server.port, &hello);
        let said = sixfour::wire::frame::decode_said(&said).expect("a frame").expect("a whole one");
        let sixfour::wire::frame::Said::Goodbye(Some(why)) = said.0 else { panic!("{said:?}") };
        assert_eq!(why.code, sixfour::wire::ErrorCode::Denied);
        let said = network.ask(address, server.port, b"{\"method\": \"id\", \"id\": 1}");
        let reply: serde_json::Value = serde_json::from_slice(&said).expect("an object");
        assert_eq!(reply["errorcode"], 2, "{reply}");
        assert_eq!(reply["error"]["code"], "denied", "{reply}");
        let said = network.ask(address, server.port, b"GET / HTTP/1.1\r\n\r\n");
        assert!(said.starts_with(b"HTTP/1.1 421 "));
    }
    assert!(!server.path("never").exists());
}

#[test]
fn a_host_without_ipv6_is_served_on_ipv4_and_told_so() {
    let Some(network) = Network::new("without6") else { return };
    let switch_off = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 && exec \"$0\" \"$@\"";
    let mut prefix = network.machines.prefix('s').to_vec();
    prefix.extend(["sh", "-c", switch_off].map(str::to_owned));
    let server = Server::start_inside(&prefix);
    let said = network.ask("192.0.2.1", server.port, b"help\n");
    assert!(said.starts_with(b"error denied: "), "{}", String::from_utf8_lossy(&said));
    server.await_log("IPv6");
}

#[test]
fn in_protected_mode_the_own_address_of_the_machine_is_not_loopback() {
    let Some(network) = Network::new("own") else { return };
    let server = Server::start_inside(&network.machines.prefix('s'));
    for address in SERVER {
        let said = network.ask_from('s', address, server.port, b"run touch never\n");
        assert!(said.starts_with(b"error denied: "), "{}", String::from_utf8_lossy(&said));
    }
    for address in ["::1", "127.0.0.1", "127.0.0.2"] {
        assert_eq!(
            network.ask_from('s', address, server.port, b"echo near\nquit\n"),
            b"near\ngoodbye\n"
        );
    }
    assert!(!server.path("never").exists());
}

#[test]
fn in_clear_no_password_leaves_the_machine_unless_both_ends_do_without() {
    let Some(network) = Network::new("clear") else { return };
    let (strict, lax) =
        (&["--credentials", "users"][..], ["--credentials", "users", "--plaintext"]);
    let server = network.server(strict);
    for address in SERVER {
        // A server that does not say so refuses whatever is sent.
        let said = network.ask(address, server.port, b"user alice secret\nwho\n");
        let said = String::from_utf8(said).expect("text");
        assert!(said.starts_with("error denied: ") && said.contains("--plaintext"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        let (code, said) = network.client(address, server.port, &["--plaintext", "who"]);
        assert_eq!(code, Some(4), "{said}");
    }
    let server = network.server(&lax);
    for address in SERVER {
        assert_eq!(
            network.client(address, server.port, &["--plaintext", "who"]),
            (Some(0), "alice\n".into())
        );
        // A client that does not say so speaks TLS, in which a password may be sent.
        let (code, said) = network.client(address, server.port, &["-q", "who"]);
        assert_eq!((code, said), (Some(0), "alice\n".into()));
    }
}

#[test]
fn failures_add_up_over_all_addresses_of_both_families() {
    let Some(network) = Network::new("lock") else { return };
    let server = network.server(&["--credentials", "users", "--plaintext", "--attempts", "5"]);
    let [v6, v4] = SERVER;
    let guess = |end: char, address: &str| {
        let said = network.ask_from(end, address, server.port, b"user alice guess\nquit\n");
        String::from_utf8(said).expect("text")
    };
    for (end, address) in [('c', v6), ('c', v4), ('s', "127.0.0.3"), ('s', "::1")] {
        assert!(guess(end, address).contains("Invalid Password. Please try again"), "{address}");
    }
    assert!(guess('c', v4).contains("Your account has been blocked"));
    for (end, address) in [('s', "::1"), ('s', "127.0.0.1"), ('c', v6)] {
        assert!(guess(end, address).contains("multiple authentication failures"), "{address}");
    }
}

#[test]
fn off_the_machine_the_client_speaks_tls_and_pins_the_key() {
    let Some(network) = Network::new("tls") else { return };
    let server = network.server(&["--credentials", "users"]);
    let home = TempDir::new().expect("a folder");
    let who = |address: &str, further: &[&str]| {
        let mut client = network.machines.command('c', env!("CARGO_BIN_EXE_client"));
        let output = client
            .args(["--user", "alice", "--ip", address])
            .args(["--port", &server.port.to_string(), "who"])
            .args(further)
            .env("XDG_STATE_HOME", home.path())
            .env("SIXFOUR_PASSWORD", "secret")
            .stdin(Stdio::null())
            .output()
            .expect("the client starts");
        let [out, err] =
            [output.stdout, output.stderr].map(|it| String::from_utf8(it).expect("text"));
        (output.status.code(), out, err)
    };
    for address in SERVER {
        let place = std::net::SocketAddr::new(address.parse().expect("an address"), server.port);
        let (code, out, err) = who(address, &[]);
        let new = format!("{place} is new here: its key {} is pinned", server.fingerprint());
        assert!((code, out.as_str()) == (Some(0), "alice\n") && err.starts_with(&new), "{err}");
        assert_eq!(who(address, &[]), (Some(0), "alice\n".into(), String::new()));
        // Who is known to speak TLS is not spoken to in clear.
        let (code, out, err) = who(address, &["--plaintext"]);
        assert!((code, out.as_str()) == (Some(4), ""), "{err}");
        assert!(err.contains("is known to speak TLS"), "{err}");
    }
}

#[test]
fn peers_that_vanish_without_a_word_keep_nothing_on_either_side() {
    let Some(network) = Network::new("vanish") else { return };
    let server = network.server(&["--credentials", "users", "--plaintext", "--grant", "run"]);
    let (v6, v4) = (SERVER[0], SERVER[1]);
    let script = r#"
        use IO::Socket::IP;
        my $s = IO::Socket::IP->new(PeerHost => $ARGV[0], PeerPort => $ARGV[1]) or die $!;
        print $s "user bob secret\nrun echo \$\$ >lines; exec sleep 1000\n"; $s->flush;
        sleep 1000"#;
    let mut lines = network
        .machines
        .command('c', "perl")
        .args(["-e", script, v6, &server.port.to_string()])
        .spawn()
        .expect("perl starts");
    let pid_in = |file: &str| {
        let read = || std::fs::read_to_string(server.path(file)).unwrap_or_default();
        process::await_true("the command runs", || read().ends_with('\n'));
        read().trim().to_owned()
    };
    std::thread::scope(|scope| {
        let run = ["--plaintext", "run", "echo $$ >client; exec sleep 1000"];
        let (network, port) = (&network, server.port);
        let client = scope.spawn(move || network.client(v4, port, &run));
        let pids = ["lines", "client"].map(pid_in);
        network.cut();
        let cut = Instant::now();
        let (code, said) = client.join().expect("it ends");
        assert_eq!(code, Some(255), "{said}");
        assert!(said.contains("does not answer"), "{said}");
        let is_over = || !pids.iter().any(|pid| process::is_running(pid));
        process::await_true("no command runs for nobody", is_over);
        assert!(cut.elapsed() < Duration::from_secs(15), "{:?}", cut.elapsed());
    });
    lines.kill().expect("it is ours");
    lines.wait().expect("it ends");
}

#[test]
fn an_upload_goes_on_elsewhere_soon_after_its_first_peer_has_vanished() {
    let Some(network) = Network::new("resume") else { return };
    let server = network.server(&["--credentials", "users", "--plaintext", "--grant", "upload"]);
    let (here, content) = (TempDir::new().expect("a folder"), process::noise(7, 4 << 20));
    let big = here.path().join("big");
    std::fs::write(&big, &content).expect("a file");
    let big = big.to_str().expect("text");
    // What was begun is under another name, and locked.
    let begun = || -> u64 {
        let entries = std::fs::read_dir(server.root()).expect("a folder").flatten();
        let is_stage = |entry: &std::fs::DirEntry| {
            sixfour::sys::stage_name::is_stage_name(entry.file_name().as_encoded_bytes())
        };
        let size = |entry: std::fs::DirEntry| entry.metadata().map_or(0, |it| it.len());
        entries.filter(is_stage).map(size).sum()
    };
    std::thread::scope(|scope| {
        let (network, port) = (&network, server.port);
        let slow = ["--plaintext", "upload", "--limit", "300k", big];
        let first = scope.spawn(move || network.client(SERVER[0], port, &slow));
        process::await_true("some of it is there", || begun() > 0);
        network.cut();
        let cut = Instant::now();
        let again = ["--plaintext", "upload", big];
        let said = loop {
            let (code, said) = network.client_of('s', "carol", "::1", port, &again);
            if code == Some(0) {
                break said;
            }
            assert!(said.contains("error busy: ") && cut.elapsed().as_secs() < 20, "{said}");
            std::thread::sleep(Duration::from_millis(200));
        };
        assert!(std::fs::read(server.path("big")).expect("it is there") == content, "{said}");
        let (code, said) = first.join().expect("it ends");
        assert_ne!(code, Some(0), "{said}");
    });
}
