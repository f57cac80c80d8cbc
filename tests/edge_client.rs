//! The client as an edge device: its dialog word for word, through a pipe and in a terminal, lost
//! servers, and a device that measures by a command.

mod process;

use std::{
    io::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::Instant,
};

use expectrl::Session;
use process::{FAMILIES, PATIENCE, Server, await_true, noise, tap::Tap};
use rustix::{
    process::{Pid, Signal, kill_process},
    termios::{LocalModes, tcgetattr},
};
use tempfile::TempDir;

const PROMPT: &str = "Enter one of the following commands (EDG, UED, SCS, DTE, AED, UVF, OUT): ";

/// A server with a data folder of its own, and folders for devices.
struct Place {
    server: Server,
    data: TempDir,
    home: TempDir,
}

impl Place {
    fn start() -> Place {
        let data = TempDir::new().expect("a folder");
        let home = TempDir::new().expect("a folder");
        Place { server: server_in(&data, 0), data, home }
    }

    fn log(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.data.path().join(name)).unwrap_or_default();
        let fields = |line: &str| -> Vec<String> { line.split("; ").map(str::to_owned).collect() };
        let without_time = |mut fields: Vec<String>| {
            fields.remove(1);
            fields.join("; ")
        };
        text.lines().map(|line| without_time(fields(line))).collect()
    }

    fn kill(&mut self) {
        self.server.signal(Signal::KILL);
        self.server.wait();
    }

    /// Another server on the same port and folder.
    fn start_again(&mut self) {
        self.server = server_in(&self.data, self.server.port);
    }

    /// A device in a folder of its own, with pipes.
    fn device(&self, ip: IpAddr) -> Device {
        self.device_on(ip, self.server.port, 6000)
    }

    fn device_on(&self, ip: IpAddr, port: u16, udp_port: u16) -> Device {
        let folder = TempDir::new().expect("a folder");
        let mut child = Command::new(env!("CARGO_BIN_EXE_client"))
            .args([&ip.to_string(), &port.to_string(), &udp_port.to_string()])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the client starts");
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("a pipe");
        let texts = follow(stdout);
        Device { child, stdin, texts, seen: String::new(), folder }
    }

    fn logged_in(&self, ip: IpAddr, name: &str) -> Device {
        self.device(ip).log_in(name)
    }

    /// `client device run` with its state in our home.
    fn runner(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
        command.args(["--ip", "::1", "--port", &self.server.port.to_string(), "--user", "sensor"]);
        command.args(["device", "run"]).args(arguments).current_dir(self.home.path());
        command.env("XDG_STATE_HOME", self.home.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn spooled(&self) -> Vec<PathBuf> {
        let spools = self.home.path().join("sixfour/spool");
        let Ok(mut folders) = std::fs::read_dir(spools) else { return vec![] };
        let Some(Ok(folder)) = folders.next() else { return vec![] };
        let folder = folder.path();
        let files = std::fs::read_dir(folder).expect("it").flatten().map(|entry| entry.path());
        let mut files: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|it| it == "samples")).collect();
        files.sort();
        files
    }
}

fn server_in(data: &TempDir, port: u16) -> Server {
    let path = data.path().to_str().expect("a path of the test");
    Server::start_on(port, &["--data", path])
}

/// What comes out of it, as it comes.
fn follow(mut reader: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, texts) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        // A terminal that is left by its last program gives an error.
        while let Ok(count @ 1..) = reader.read(&mut buffer)
            && sender.send(String::from_utf8_lossy(&buffer[..count]).into_owned()).is_ok()
        {}
    });
    texts
}

struct Device {
    child: Child,
    stdin: Option<ChildStdin>,
    texts: mpsc::Receiver<String>,
    seen: String,
    folder: TempDir,
}

impl Device {
    fn log_in(mut self, name: &str) -> Device {
        self.expect("Username: ");
        self.say(name);
        self.expect("\nPassword: ");
        self.say("secret");
        self.expect(&format!("\nWelcome!\n{PROMPT}"));
        self
    }

    fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("it is open");
        stdin.write_all(format!("{line}\n").as_bytes()).expect("it reads");
    }

    /// Exactly this comes next.
    #[track_caller]
    fn expect(&mut self, wanted: &str) {
        let begun = Instant::now();
        while self.seen.len() < wanted.len() {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            match self.texts.recv_timeout(left) {
                Ok(text) => self.seen += &text,
                Err(_) => panic!("wanted {wanted:?}, but there is only {:?}", self.seen),
            }
        }
        assert!(self.seen.starts_with(wanted), "wanted {wanted:?}, but got {:?}", self.seen);
        self.seen.drain(..wanted.len());
    }

    /// Something that contains this comes next, up to the end of it.
    #[track_caller]
    fn expect_part(&mut self, part: &str) -> String {
        let begun = Instant::now();
        loop {
            if let Some(at) = self.seen.find(part) {
                return self.seen.drain(..at + part.len()).collect();
            }
            let left = PATIENCE.saturating_sub(begun.elapsed());
            match self.texts.recv_timeout(left) {
                Ok(text) => self.seen += &text,
                Err(_) => panic!("wanted {part:?}, but there is only {:?}", self.seen),
            }
        }
    }

    /// A command, and exactly this answer before the next prompt.
    #[track_caller]
    fn ask(&mut self, command: &str, answer: &str) {
        self.say(command);
        self.expect(&format!("\n{answer}\n{PROMPT}"));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn code(&mut self) -> Option<i32> {
        self.stdin = None;
        let mut status = None;
        await_true("the end of the client", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.expect("it was awaited").code()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn samples(path: &Path) -> Vec<i64> {
    let text = std::fs::read_to_string(path).expect("a file of samples");
    text.lines().map(|line| line.parse().expect("an integer")).collect()
}

#[test]
fn the_dialog_goes_word_for_word_over_both_families() {
    for ip in FAMILIES {
        let place = Place::start();
        let mut watch = place.device(ip);
        watch.expect("Username: ");
        watch.say("../x");
        watch.expect(
            "\na name is 1 to 32 of A-Z a-z 0-9 _ . - and begins with a letter or a digit\n\
             Username: ",
        );
        watch.say("supersmartwatch");
        watch.expect("\nPassword: ");
        watch.say("comp9331");
        watch.expect(&format!("\nWelcome!\n{PROMPT}"));
        assert_eq!(place.log("edge-device-log.txt"), [format!("1; supersmartwatch; {ip}; 6000")]);

        watch.ask("AED", "no other active edge devices");
        watch.ask("UED 1", "the file to be uploaded does not exist");
        watch.ask("EDG 1 10", "data generation done");
        let first = samples(&watch.path("supersmartwatch-1.txt"));
        assert_eq!(first.len(), 10);
        watch.ask("EDG 1 1000", "data generation done");
        let second = samples(&watch.path("supersmartwatch-1.txt"));
        assert!(second.len() == 1000 && second[..10] != first[..], "an older file is replaced");
        watch.ask("SCS 1 SUM", "the file does not exist at the server side");
        watch.ask(
            "UED 1",
            "data file with ID of 1 has been uploaded to the central server, 1000 samples",
        );
        let stored = place.data.path().join("supersmartwatch-1.txt");
        assert_eq!(samples(&stored), second);
        let sum: i64 = second.iter().sum();
        let average = format!("{}.{:03}000", sum / 1000, sum % 1000);
        let (max, min) = (second.iter().max().expect("one"), second.iter().min().expect("one"));
        for (operation, result) in [
            ("SUM", sum.to_string()),
            ("AVERAGE", average),
            ("MAX", max.to_string()),
            ("MIN", min.to_string()),
        ] {
            let answer =
                format!("computation ({operation}) result on the file (ID:1) is: {result}");
            watch.ask(&format!("SCS 1 {operation}"), &answer);
        }
        let text = "file with ID of 1 has been successfully removed from the central server";
        watch.ask("DTE 1", text);
        watch.ask("DTE 1", "the file does not exist at the server side");
        std::fs::write(watch.path("supersmartwatch-2.txt"), "1\n2\nthree\n").expect("a file");
        watch.ask(
            "UED 2",
            "\"supersmartwatch-2.txt\": line 3 is not an integer; write one integer a line",
        );
        let other = place.logged_in(ip, "other");
        watch.say("AED");
        watch.expect("\nother, active since ");
        let rest = watch.expect_part(PROMPT);
        assert!(rest.ends_with(&format!(", IP address {ip}, UDP port 6000\n{PROMPT}")), "{rest}");
        drop(other);

        watch.say("OUT");
        watch.expect("\ngoodbye, supersmartwatch\n");
        assert_eq!(watch.code(), Some(0));
        assert_eq!(place.log("upload-log.txt"), ["supersmartwatch; 1; 1000"]);
        assert_eq!(place.log("deletion-log.txt"), ["supersmartwatch; 1; 1000"]);
        await_true("nobody is active", || place.log("edge-device-log.txt").is_empty());
    }
}

#[test]
fn every_wrong_form_is_answered_and_asked_again() {
    let place = Place::start();
    let mut watch = place.logged_in(FAMILIES[0], "watch");
    let integers = "the fileID or dataAmount are not integers, you need to specify the parameter \
                    as integers";
    let number = "fileID is missing or fileID should be an integer";
    for (command, answer) in [
        ("", "Error. Invalid command!"),
        ("edg 1 10", "Error. Invalid command!"),
        ("EDG  1 10", "Error. Invalid command!"),
        ("HELP", "Error. Invalid command!"),
        ("EDG", "EDG command requires fileID and dataAmount as arguments."),
        ("EDG 1", "EDG command requires fileID and dataAmount as arguments."),
        ("EDG x 10", integers),
        ("EDG 1 ten", integers),
        ("EDG 1 0", "the dataAmount has to be at least 1"),
        ("UED", "fileID is needed to upload the data"),
        ("SCS", number),
        ("SCS x SUM", number),
        ("SCS 1 sum", "the operation is unknown; it is SUM, AVERAGE, MAX or MIN"),
        ("DTE", number),
        ("AED 1", "AED command takes no arguments"),
        ("OUT now", "OUT command takes no arguments"),
    ] {
        watch.ask(command, answer);
    }
    assert!(std::fs::read_dir(watch.folder.path()).expect("a folder").next().is_none());
    // The end of the input is the end of the device.
    watch.stdin = None;
    assert_eq!(watch.code(), Some(0));
    await_true("nobody is active", || place.log("edge-device-log.txt").is_empty());
}

#[test]
fn a_taken_name_is_asked_for_again_and_a_missing_server_is_said() {
    let mut place = Place::start();
    let _nina = place.server.user(FAMILIES[1], "nina");
    let mut watch = place.device(FAMILIES[0]);
    watch.expect("Username: ");
    watch.say("nina");
    watch.expect("\nPassword: ");
    watch.say("");
    watch.expect("\nsomebody called nina is here; choose another name\nUsername: ");
    watch.say("watch");
    watch.expect("\nPassword: ");
    watch.say("");
    watch.expect(&format!("\nWelcome!\n{PROMPT}"));
    place.kill();
    let mut late = place.device(FAMILIES[0]);
    let said = late.expect_part("(is the server running?)");
    assert_eq!(said.matches("cannot connect").count(), 1, "{said}");
    assert_eq!(late.code(), Some(3));
}

#[test]
fn a_lost_server_is_said_at_once_and_joined_again() {
    let mut place = Place::start();
    let mut watch = place.logged_in(FAMILIES[1], "watch");
    watch.ask("EDG 1 5", "data generation done");
    place.kill();
    watch.expect("\nconnection lost: ");
    let said = watch.expect_part(PROMPT);
    assert!(said.ends_with(&format!("; trying to get it back\n{PROMPT}")), "{said}");
    let away = "there is no connection to the server at the moment; try again when it is back";
    watch.ask("UED 1", away);
    watch.ask("EDG 2 5", "data generation done");
    place.start_again();
    watch.expect(&format!("\nconnected again\n{PROMPT}"));
    assert_eq!(place.log("edge-device-log.txt"), ["1; watch; 127.0.0.1; 6000"]);
    let text = "data file with ID of 1 has been uploaded to the central server, 5 samples";
    watch.ask("UED 1", text);
}

#[test]
fn a_command_whose_answer_is_lost_is_asked_again_and_done_once() {
    let mut place = Place::start();
    let mut watch = place.logged_in(FAMILIES[0], "watch");
    watch.ask("EDG 1 200000", "data generation done");
    // It hears nothing until it is killed.
    place.server.signal(Signal::STOP);
    watch.say("UED 1");
    watch.expect("\n");
    place.kill();
    watch.expect("connection lost: ");
    watch.expect_part("\n");
    place.start_again();
    let text = "data file with ID of 1 has been uploaded to the central server, 200000 samples";
    watch.expect(&format!("connected again\n{text}\n{PROMPT}"));
    assert_eq!(place.log("upload-log.txt"), ["watch; 1; 200000"]);
}

#[test]
fn in_a_terminal_the_password_is_not_shown_and_lines_are() {
    let place = Place::start();
    let folder = TempDir::new().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
    command.args(["::1", &place.server.port.to_string(), "6000"]).current_dir(folder.path());
    let mut session = Session::spawn(command).expect("the client starts");
    let mut master = session.get_process().get_raw_handle().expect("our end");
    let texts = follow(master.try_clone().expect("a descriptor"));
    let mut seen = String::new();
    let mut expect = |wanted: &str| {
        while !seen.ends_with(wanted) {
            match texts.recv_timeout(PATIENCE) {
                Ok(text) => seen += &text.replace('\r', ""),
                Err(_) => panic!("wanted {wanted:?}, but there is only {seen:?}"),
            }
        }
        std::mem::take(&mut seen)
    };
    let mut type_line = |line: &str| {
        master.write_all(format!("{line}\n").as_bytes()).expect("it takes keys");
    };
    assert_eq!(expect("Username: "), "Username: ");
    session.get_process_mut().set_echo(true, None).expect("a terminal");
    type_line("watch");
    assert_eq!(expect("Password: "), "watch\nPassword: ");
    let shows = || {
        let raw = session.get_process().get_raw_handle().expect("our end");
        tcgetattr(&raw).expect("a terminal").local_modes.contains(LocalModes::ECHO)
    };
    await_true("what is typed is hidden", || !shows());
    type_line("secret");
    assert_eq!(expect(PROMPT), format!("\nWelcome!\n{PROMPT}"));
    assert!(shows());
    type_line("EDG 1 3");
    assert_eq!(expect(PROMPT), format!("EDG 1 3\ndata generation done\n{PROMPT}"));
    type_line("UED 1");
    expect(&format!("3 samples\n{PROMPT}"));
    type_line("SCS 1");
    let text = "the operation is missing; it is SUM, AVERAGE, MAX or MIN";
    assert_eq!(expect(PROMPT), format!("SCS 1\n{text}\n{PROMPT}"));
    type_line("OUT");
    assert_eq!(expect("goodbye, watch\n"), "OUT\ngoodbye, watch\n");
    let _ = session.get_process_mut().wait();
}

#[test]
fn an_interrupt_at_the_password_gives_the_terminal_back() {
    let place = Place::start();
    let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
    command.args(["127.0.0.1", &place.server.port.to_string(), "6000"]);
    let mut session = Session::spawn(command).expect("the client starts");
    let mut master = session.get_process().get_raw_handle().expect("our end");
    let texts = follow(master.try_clone().expect("a descriptor"));
    let is_hidden = |master: &std::fs::File| {
        !tcgetattr(master).expect("a terminal").local_modes.contains(LocalModes::ECHO)
    };
    assert!(texts.recv_timeout(PATIENCE).expect("a prompt").starts_with("Username"));
    session.get_process_mut().set_echo(true, None).expect("a terminal");
    master.write_all(b"watch\n").expect("it takes keys");
    await_true("what is typed is hidden", || is_hidden(&master));
    let pid = Pid::from_raw(session.get_process().pid().as_raw()).expect("a process");
    kill_process(pid, Signal::TERM).expect("it runs");
    await_true("what is typed is shown", || !is_hidden(&master));
    let _ = session.get_process_mut().wait();
}

#[test]
fn a_file_goes_from_device_to_device_under_the_senders_name() {
    let place = Place::start();
    let [six, four] = FAMILIES;
    for (from, to) in [(six, four), (four, six)] {
        let mut alice = place.logged_in(from, "alice");
        let mut bob = place.logged_in(to, "bob");
        for (name, size) in [("clip.mp4", 3_000_000), ("empty", 0), ("two words", 5)] {
            let content = noise(size as u64, size);
            std::fs::write(alice.path(name), &content).expect("a file");
            alice.ask(&format!("UVF bob {name}"), &format!("a file ({name}) has been sent to bob"));
            bob.expect(&format!("\na file ({name}) has been received from alice\n{PROMPT}"));
            let got = std::fs::read(bob.path(&format!("alice_{name}"))).expect("the file");
            assert!(got == content, "{name} differs");
        }
        // And back, beside a file that is no other device's to replace, while the other one is at
        // its prompt.
        std::fs::write(bob.path("empty"), "not empty any more").expect("a file");
        std::fs::write(alice.path("bob_empty"), "old").expect("a file");
        bob.ask("UVF alice empty", "a file (empty) has been sent to alice");
        alice.expect(&format!(
            "\na file (empty) has been received from bob, and is saved as bob_empty-2\n{PROMPT}"
        ));
        let read = |name: &str| std::fs::read(alice.path(name)).expect("the file");
        assert_eq!(
            (read("bob_empty"), read("bob_empty-2")),
            (b"old".to_vec(), b"not empty any more".to_vec())
        );
        for device in [&mut alice, &mut bob] {
            device.say("OUT");
            device.expect_part("goodbye, ");
            assert_eq!(device.code(), Some(0));
        }
    }
}

#[test]
fn a_file_that_cannot_go_to_a_device_is_said_why() {
    let place = Place::start();
    let mut alice = place.logged_in(FAMILIES[0], "alice");
    alice.ask("UVF bob clip.mp4", "there is no such file: clip.mp4");
    std::fs::write(alice.path("clip.mp4"), "x").expect("a file");
    alice.ask("UVF bob clip.mp4", "bob is offline");
    std::fs::create_dir(alice.path("folder")).expect("a folder");
    alice.ask("UVF bob folder", "\"folder\" is no regular file");
    rustix::fs::mkfifoat(rustix::fs::CWD, alice.path("fifo"), rustix::fs::Mode::RWXU).expect("it");
    alice.ask("UVF bob fifo", "\"fifo\" is no regular file");
    // A device without a person takes nothing, and says so at once.
    let mut sensor = place.runner(&["--every", "1h", "--", "echo", "1"]);
    let mut sensor = sensor.spawn().expect("the client starts");
    await_true("the sensor is active", || place.log("edge-device-log.txt").len() == 2);
    alice.say("UVF sensor clip.mp4");
    let said = alice.expect_part(PROMPT);
    assert!(said.contains("this device takes no files"), "{said}");
    sensor.kill().expect("it runs");
    sensor.wait().expect("it is our child");
}

#[test]
fn a_file_between_devices_goes_straight_or_sealed_and_never_in_clear() {
    let place = Place::start();
    let content = noise(7, 3_000_000);
    for ip in FAMILIES {
        let tap = Tap::start(ip, place.server.port);
        let sockets = [0, 1].map(|_| std::net::UdpSocket::bind((FAMILIES[0], 0)).expect("free"));
        let free = sockets.each_ref().map(|it| it.local_addr().expect("it is bound").port());
        drop(sockets);
        // Ports below 1024 are told as ever, and are no place for files.
        for (ports, passed_on) in [(free, false), ([free[0], 7], true)] {
            let mut alice = place.device_on(ip, tap.port, ports[0]).log_in("alice");
            let mut bob = place.device_on(ip, tap.port, ports[1]).log_in("bob");
            std::fs::write(alice.path("clip"), &content).expect("a file");
            let before = tap.heard_bytes();
            alice.ask("UVF bob clip", "a file (clip) has been sent to bob");
            bob.expect(&format!("\na file (clip) has been received from alice\n{PROMPT}"));
            assert!(std::fs::read(bob.path("alice_clip")).expect("the file") == content);
            assert_eq!(tap.heard_bytes() - before > content.len(), passed_on);
            assert!(!tap.has_heard(&content[1_000_000..1_000_020]), "it went in clear");
            for device in [&mut alice, &mut bob] {
                device.say("OUT");
                device.expect_part("goodbye, ");
                assert_eq!(device.code(), Some(0));
            }
        }
    }
}

#[test]
fn devices_and_other_clients_send_each_other_files() {
    let place = Place::start();
    let mut watch = place.logged_in(FAMILIES[0], "watch");
    let client = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
        command.args(["--port", &place.server.port.to_string(), "--user", "carol"]);
        command.args(arguments).current_dir(place.home.path());
        command.env("XDG_STATE_HOME", place.home.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    std::fs::write(place.home.path().join("plan.txt"), "a plan\n").expect("a file");
    let (code, _, err) = finish(client(&["send", "plan.txt", "watch"]));
    assert_eq!(code, Some(0), "{err}");
    watch.expect(&format!("\na file (plan.txt) has been received from carol\n{PROMPT}"));
    assert_eq!(std::fs::read(watch.path("carol_plan.txt")).expect("the file"), b"a plan\n");
    // A folder is none that a device takes.
    std::fs::create_dir(place.home.path().join("docs")).expect("a folder");
    let (code, _, err) = finish(client(&["send", "docs", "watch"]));
    assert_eq!(code, Some(4), "{err}");
    assert!(err.contains("a device takes single files"), "{err}");
    let receiving = client(&["--accept", "all", "receive", "--count", "1"]).spawn();
    let receiving = receiving.expect("the client starts");
    let mut line = place.server.line(FAMILIES[1]);
    await_true("carol is here", || {
        line.send("who");
        let mut here = false;
        loop {
            let name = line.next();
            here |= name == "carol";
            if name.ends_with("users]") {
                return here;
            }
        }
    });
    std::fs::write(watch.path("reply"), "thanks").expect("a file");
    watch.ask("UVF carol reply", "a file (reply) has been sent to carol");
    let output = receiving.wait_with_output().expect("it is our child");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read(place.home.path().join("watch_reply")).expect("it"), b"thanks");
}

/// A server as people start it, in a folder with a credentials file.
fn server_with_passwords() -> Place {
    let data = TempDir::new().expect("a folder");
    let credentials = data.path().join("credentials.txt");
    std::fs::write(&credentials, "watch comp9331\nsensor secret\nguest pass files\n").expect("it");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&credentials, private).expect("it is ours");
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(["0", "3"]).current_dir(data.path());
    let home = TempDir::new().expect("a folder");
    Place { server: Server::start_command(command), data, home }
}

const WRONG: &str = "Invalid Password. Please try again";

#[test]
fn a_wrong_password_is_asked_for_again_and_blocks_the_name_in_the_end() {
    for ip in FAMILIES {
        let place = server_with_passwords();
        let mut watch = place.device(ip);
        watch.expect("Username: ");
        watch.say("watch");
        for wrong in ["comp", ""] {
            watch.expect("\nPassword: ");
            watch.say(wrong);
            watch.expect(&format!("\n{WRONG}"));
        }
        watch.expect("\nPassword: ");
        watch.say("comp9331");
        watch.expect(&format!("\nWelcome!\n{PROMPT}"));
        watch.ask("EDG 1 4", "data generation done");
        let text = "data file with ID of 1 has been uploaded to the central server, 4 samples";
        watch.ask("UED 1", text);

        let mut thief = place.device(ip);
        thief.expect("Username: ");
        thief.say("sensor");
        for text in [
            WRONG,
            WRONG,
            "Invalid Password. Your account has been blocked. Please try again later",
        ] {
            thief.expect("\nPassword: ");
            thief.say("guess");
            thief.expect(&format!("\n{text}"));
        }
        assert_eq!(thief.code(), Some(4), "after the block message the client ends");
        let mut late = place.device(ip);
        late.expect("Username: ");
        late.say("sensor");
        late.expect("\nPassword: ");
        late.say("secret");
        late.expect(
            "\nYour account is blocked due to multiple authentication failures. Please try again \
             later\n",
        );
        assert_eq!(late.code(), Some(4));
    }
}

#[test]
fn a_second_device_of_a_name_takes_over_and_the_first_ends_without_a_prompt() {
    let place = server_with_passwords();
    let enter = |ip| {
        let mut watch = place.device(ip);
        watch.expect("Username: ");
        watch.say("watch");
        watch.expect("\nPassword: ");
        watch.say("comp9331");
        watch.expect(&format!("\nWelcome!\n{PROMPT}"));
        watch
    };
    let mut first = enter(FAMILIES[0]);
    let mut second = enter(FAMILIES[1]);
    let line = format!("1; watch; {}; 6000", FAMILIES[1]);
    await_true("the newer one alone is active", || place.log("edge-device-log.txt") == [&line[..]]);
    first.expect(&format!("\nreplaced by a login from {}\n", FAMILIES[1]));
    assert_eq!(first.code(), Some(4));
    assert_eq!((first.seen.as_str(), first.texts.try_recv().ok()), ("", None), "nothing follows");
    second.ask("AED", "no other active edge devices");
    second.say("OUT");
    second.expect("\ngoodbye, watch\n");
    assert_eq!(place.log("edge-device-log.txt"), [""; 0]);
}

#[test]
fn devices_need_the_right_to_be_one() {
    let place = server_with_passwords();
    let mut guest = place.device(FAMILIES[0]);
    guest.expect("Username: ");
    guest.say("guest");
    guest.expect("\nPassword: ");
    guest.say("pass");
    guest.expect("\nedge is not enabled for you; ");
    assert_eq!(guest.code(), Some(4));
    assert_eq!(place.log("edge-device-log.txt"), [""; 0]);
}

#[test]
fn a_device_that_measures_gets_its_password_from_a_file_or_the_environment() {
    let place = server_with_passwords();
    let run = |password: Option<&str>| {
        let mut command = place.runner(&["--times", "1", "--", "echo", "1"]);
        password.map(|password| command.env("SIXFOUR_PASSWORD", password));
        finish(command)
    };
    let (code, _, err) = run(None);
    assert_eq!(code, Some(4), "{err}");
    assert!(err.contains("--password-file"), "{err}");
    let (code, _, err) = run(Some("wrong"));
    assert_eq!((code, err.contains(WRONG)), (Some(4), true), "{err}");
    // What was measured meanwhile is not lost.
    let waiting = place.spooled().len();
    let (code, out, err) = run(Some("secret"));
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(out.lines().count(), waiting + 1);
    assert_eq!(place.log("upload-log.txt").len(), waiting + 1);
}

/// Runs it to its end: exit code, output, error output.
fn finish(mut command: Command) -> (Option<i32>, String, String) {
    let output = command.output().expect("the client starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_device_measures_by_a_command_and_uploads_what_it_prints() {
    let place = Place::start();
    let run = place.runner(&["--every", "10ms", "--times", "3", "--", "seq", "1", "4"]);
    let (code, out, err) = finish(run);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let line = |id: u32| {
        format!("data file with ID of {id} has been uploaded to the central server, 4 samples\n")
    };
    assert_eq!(out, (1..=3).map(line).collect::<String>());
    // Numbers go on, and a fixed one replaces.
    for _ in 0..2 {
        let run = place.runner(&["--times", "1", "--file-id", "9", "--", "seq 5; echo 7"]);
        assert_eq!(finish(run).0, Some(0));
    }
    let run = place.runner(&["--times", "1", "--", "echo", "1"]);
    assert_eq!(finish(run).0, Some(0));
    assert_eq!(samples(&place.data.path().join("sensor-9.txt")), [1, 2, 3, 4, 5, 7]);
    let wanted = [
        "sensor; 1; 4",
        "sensor; 2; 4",
        "sensor; 3; 4",
        "sensor; 9; 6",
        "sensor; 9; 6",
        "sensor; 6; 1",
    ];
    assert_eq!(place.log("upload-log.txt"), wanted);
    assert_eq!(place.spooled(), [""; 0].map(PathBuf::from));
}

#[test]
fn what_a_command_should_not_print_is_said_and_not_kept() {
    let place = Place::start();
    for (command, said) in [
        ("echo x", "line 1 is not an integer"),
        ("true", "there are no samples"),
        ("echo 1; exit 3", "failed (exit status: 3)"),
        ("exec yes 1", "printed more than"),
    ] {
        let (code, out, err) = finish(place.runner(&["--times", "1", "--", command]));
        assert_eq!((code, out.as_str()), (Some(1), ""), "{command}");
        assert!(err.contains(said), "{command}: {err}");
    }
    let (code, _, err) = finish(place.runner(&["--times", "1", "--", "/no/such/sensor", "-x"]));
    assert_eq!(code, Some(1));
    assert!(err.contains("/no/such/sensor") && err.contains("cannot be started"), "{err}");
    assert_eq!(place.spooled(), [""; 0].map(PathBuf::from));
    assert_eq!(place.log("upload-log.txt"), [""; 0]);
}

#[test]
fn a_device_without_a_server_keeps_what_it_measures_and_uploads_it_once() {
    let mut place = Place::start();
    place.kill();
    let mut command = place.runner(&["--every", "20ms", "--", "echo", "1"]);
    let mut first = command.spawn().expect("the client starts");
    await_true("some batches wait", || place.spooled().len() >= 4);
    // It is killed, as a device that loses its power.
    first.kill().expect("it runs");
    first.wait().expect("it is our child");
    let waiting = place.spooled().len();
    assert!(waiting >= 4);
    place.start_again();
    let times = "2";
    let run = place.runner(&["--every", "10ms", "--times", times, "--", "seq 2"]);
    let (code, out, err) = finish(run);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("batches wait from earlier"), "{err}");
    assert_eq!(out.lines().count(), waiting + 2);
    let log = place.log("upload-log.txt");
    let ids: Vec<u32> = log
        .iter()
        .map(|line| line.split("; ").nth(1).and_then(|id| id.parse().ok()).expect("a number"))
        .collect();
    assert_eq!(ids.len(), waiting + 2);
    assert!(ids.is_sorted() && ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    assert_eq!(place.spooled(), [""; 0].map(PathBuf::from));
}

#[test]
fn batches_of_a_killed_server_are_stored_once_each() {
    let mut place = Place::start();
    let mut command = place.runner(&["--every", "5ms", "--times", "60", "--", "echo", "5"]);
    let child = command.spawn().expect("the client starts");
    for _ in 0..3 {
        let before = place.log("upload-log.txt").len();
        await_true("some more are stored", || place.log("upload-log.txt").len() > before + 3);
        place.kill();
        place.start_again();
    }
    let output = child.wait_with_output().expect("it is our child");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let wanted: Vec<String> = (1..=60).map(|id| format!("sensor; {id}; 1")).collect();
    assert_eq!(place.log("upload-log.txt"), wanted, "none is missing and none is there twice");
}
