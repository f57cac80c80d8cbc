//! The steps of a tour.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream},
    sync::Arc,
    time::Instant,
};

use rustix::process::{Signal, kill_process};

use super::{
    PATIENCE,
    bytes::{self, FILE_BYTES, FILE_SEED, first_difference},
    say,
    stage::{Output, Part, Program, Stage},
};

/// The file that is fetched.
const FILE_NAME: &str = "random.bin";
/// The command that has something to say on both outputs and in its exit code.
const COMMAND: [&str; 5] = ["run", "--", "sh", "-c", "echo out; echo err >&2; exit 7"];

/// A step has failed on which others build.
pub(super) struct Cut;

/// Leads from step to step, and keeps count.
pub(super) struct Guide {
    stage: Arc<Stage>,
    began: Instant,
    checks: usize,
    failures: usize,
    server: Option<Program>,
    port: String,
}

impl Guide {
    pub(super) fn new(stage: Arc<Stage>) -> Guide {
        let (checks, failures, server, port) = (0, 0, None, String::new());
        Guide { stage, began: Instant::now(), checks, failures, server, port }
    }

    /// Does one step, and prints its line: what it is, what came of it, how long it took.
    fn step<T>(
        &mut self,
        what: &str,
        action: impl FnOnce(&mut Guide) -> Result<(T, String), String>,
    ) -> Result<T, Cut> {
        let began = Instant::now();
        let result = action(self);
        let milliseconds = began.elapsed().as_secs_f64() * 1000.0;
        self.checks += 1;
        match result {
            Ok((value, note)) => {
                say(&format!("  \u{2713} {milliseconds:9.1} ms  {what}{note}"));
                Ok(value)
            }
            Err(why) => {
                self.failures += 1;
                say(&format!("  \u{2717} {milliseconds:9.1} ms  {what}\n    FAILED: {why}"));
                Err(Cut)
            }
        }
    }

    pub(super) fn tour(&mut self) -> Result<(), Cut> {
        say("A tour of sixfour");
        let families = self.start_server()?;
        let mut alice = self.join("alice", families.0)?;
        let mut bob = self.join("bob", families.1)?;
        // What follows stands side by side: a failure of one says nothing of the others.
        let _ = self.chat("alice", &mut alice, "bob", &bob, "good morning, bob");
        let _ = self.chat("bob", &mut bob, "alice", &alice, "good morning, alice | how are you?");
        let _ = self.speak_lines(families, &mut alice);
        if self.make_file().is_ok() && self.download(families.0).is_ok() {
            let _ = self.compare();
        }
        let _ = self.run(families.1);
        let _ = self.leave("alice", &mut alice);
        let _ = self.leave("bob", &mut bob);
        self.stop_server()
    }

    fn start_server(&mut self) -> Result<(IpAddr, IpAddr), Cut> {
        let greeting = self.step("server --port 0", |guide| {
            let root = guide.stage.root.to_string_lossy().into_owned();
            let state = guide.stage.state.to_string_lossy().into_owned();
            let arguments = ["--port", "0", "--root", &root, "--state", &state];
            let server = guide.stage.start(Part::Server, &arguments)?;
            let server = guide.server.insert(server);
            let greeting = loop {
                match server.lines.recv_timeout(PATIENCE) {
                    Ok((Output::Out, line)) => break line,
                    // Its log, which may come earlier.
                    Ok((Output::Err, _)) => {}
                    Err(error) => return Err(format!("it does not say where it listens: {error}")),
                }
            };
            let port = greeting.trim_end().rsplit(':').next().unwrap_or_default();
            port.parse::<u16>().map_err(|_| format!("there is no port in {greeting:?}"))?;
            guide.port = port.to_owned();
            let note = format!(": {}", greeting.trim_end());
            Ok((greeting, note))
        })?;
        let (v6, v4) = (IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST));
        // A server may well listen for a family of which the host has no address just now.
        let has = |ip: IpAddr, shown: &str| {
            greeting.contains(shown) && std::net::TcpListener::bind((ip, 0)).is_ok()
        };
        Ok(match (has(v6, "[::]:"), has(v4, "0.0.0.0:")) {
            (true, true) => (v6, v4),
            (true, false) => {
                say("  -               this host has no IPv4: all of it goes over ::1");
                (v6, v6)
            }
            _ => {
                say("  -               this host has no IPv6: all of it goes over 127.0.0.1");
                (v4, v4)
            }
        })
    }

    fn client(&self, ip: IpAddr, arguments: &[&str]) -> Result<Program, String> {
        let ip = ip.to_string();
        let place = ["--ip", &ip, "--port", &self.port];
        self.stage.start(Part::Client, &[&place, arguments].concat())
    }

    fn join(&mut self, name: &str, ip: IpAddr) -> Result<Program, Cut> {
        self.step(&format!("{name} joins over {ip}"), |guide| {
            let client = guide.client(ip, &["--user", name, "--verbose"])?;
            // The greeting is output, the way that won is told beside it: either may come first.
            let (mut greeting, mut way) = (None, None);
            while greeting.is_none() || way.is_none() {
                let line = client.line()?;
                let place = match () {
                    () if line.starts_with(&format!("welcome, {name}")) => &mut greeting,
                    () if line.starts_with("connected to ") => &mut way,
                    () => return Err(format!("instead of a welcome came {line:?}")),
                };
                *place = Some(line);
            }
            Ok((client, format!(": {}", greeting.unwrap_or_default())))
        })
    }

    fn chat(
        &mut self,
        from: &str,
        sender: &mut Program,
        to: &str,
        receiver: &Program,
        text: &str,
    ) -> Result<(), Cut> {
        self.step(&format!("{from} writes to {to}"), |_| {
            sender.type_line(&format!("{text}|{to}"))?;
            // What the sender is told, with --verbose, once the server has taken the message.
            let sent = sender.line()?;
            differs("the sender's line", &sent, &format!("sent to {to}"))?;
            let line = receiver.line()?;
            differs("the receiver's line", &line, &format!("{from}: {text}"))?;
            Ok(((), format!(", who reads `{line}`")))
        })
    }

    /// Somebody joins who has no client, only a way to send bytes.
    fn speak_lines(&mut self, families: (IpAddr, IpAddr), alice: &mut Program) -> Result<(), Cut> {
        let ip = families.1;
        self.step(&format!("nina joins over {ip} with plain lines, as with nc"), |guide| {
            let context = |error: io::Error| format!("her connection: {error}");
            let port = guide.port.parse().expect("it was checked");
            let stream = TcpStream::connect_timeout(&(ip, port).into(), PATIENCE);
            let mut stream = stream.map_err(context)?;
            stream.set_read_timeout(Some(PATIENCE)).map_err(context)?;
            let mut answers = BufReader::new(stream.try_clone().map_err(context)?);
            let mut answer = |what: &str, wanted: &str| {
                let mut line = String::new();
                answers.read_line(&mut line).map_err(context)?;
                differs(what, line.trim_end_matches('\n'), wanted)
            };
            stream.write_all(b"user nina\n").map_err(context)?;
            answer("her greeting", "welcome nina")?;
            stream.write_all(b"hello from nc|alice\n").map_err(context)?;
            differs("what alice reads", &alice.line()?, "nina: hello from nc")?;
            alice.type_line("hello nina|nina")?;
            differs("alice's line", &alice.line()?, "sent to nina")?;
            answer("what nina reads", "alice|hello nina")?;
            stream.write_all(b"run echo $((6*4)); exit 4\nquit\n").map_err(context)?;
            answer("the output of her command", "24")?;
            answer("the end of her command", "[exit 4]")?;
            answer("her farewell", "goodbye")?;
            Ok(((), ", chats with alice, runs a command and leaves".to_owned()))
        })
    }

    fn make_file(&mut self) -> Result<(), Cut> {
        let what = format!("a file of 256 MiB is made, pseudo-random with seed {FILE_SEED}");
        self.step(&what, |guide| {
            let path = guide.stage.root.join(FILE_NAME);
            bytes::write_random(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok(((), String::new()))
        })
    }

    fn download(&mut self, ip: IpAddr) -> Result<(), Cut> {
        self.step(&format!("client download {FILE_NAME} over {ip}"), |guide| {
            let began = Instant::now();
            let client = guide.client(ip, &["download", FILE_NAME])?;
            let status = guide.stage.wait(client.pid)?;
            let seconds = began.elapsed().as_secs_f64();
            let (out, err) = client.rest();
            if status.code() != Some(0) {
                return Err(format!("it ended with {status}; it said {out:?} and {err:?}"));
            }
            let rate = FILE_BYTES as f64 / seconds / 1e6;
            Ok(((), format!(": {} ({rate:.0} MB/s from start to exit)", err.trim_end())))
        })
    }

    fn compare(&mut self) -> Result<(), Cut> {
        self.step("both files are the same, byte by byte", |guide| {
            let (ours, theirs) = (
                guide.stage.root.join(FILE_NAME),
                guide.stage.downloads.join(format!("client_{FILE_NAME}")),
            );
            first_difference(&ours, &theirs)?;
            let entries =
                fs::read_dir(&guide.stage.downloads).map_err(|error| error.to_string())?;
            let count = entries.count();
            match count {
                1 => Ok(((), ", and nothing else was left behind".to_owned())),
                _ => Err(format!("there are {count} files where one was fetched")),
            }
        })
    }

    fn run(&mut self, ip: IpAddr) -> Result<(), Cut> {
        self.step(&format!("client run -- sh -c '{}' over {ip}", COMMAND[4]), |guide| {
            let mut client = guide.client(ip, &COMMAND)?;
            client.stdin = None;
            let status = guide.stage.wait(client.pid)?;
            let (out, err) = client.rest();
            differs("standard output", &out, "out\n")?;
            differs("standard error", &err, "err\n")?;
            differs("the exit code", &format!("{:?}", status.code()), "Some(7)")?;
            Ok(((), ": `out`, `err` and exit code 7".to_owned()))
        })
    }

    fn leave(&mut self, name: &str, client: &mut Program) -> Result<(), Cut> {
        self.step(&format!("{name} leaves"), |guide| {
            client.type_line("quit")?;
            client.stdin = None;
            let status = guide.stage.wait(client.pid)?;
            let (out, err) = client.rest();
            differs("the exit code", &format!("{:?}", status.code()), "Some(0)")?;
            differs("what was still to be read", &(out + &err), "")?;
            Ok(((), ": exit code 0".to_owned()))
        })
    }

    fn stop_server(&mut self) -> Result<(), Cut> {
        self.step("SIGTERM ends the server", |guide| {
            let pid = guide.server.as_ref().ok_or("there is none")?.pid;
            kill_process(pid, Signal::TERM).map_err(|error| error.to_string())?;
            let status = guide.stage.wait(pid)?;
            differs("the exit code", &format!("{:?}", status.code()), "Some(0)")?;
            Ok(((), ": exit code 0".to_owned()))
        })
    }

    /// Sums up; whether all went well.
    pub(super) fn finish(&mut self) -> bool {
        let seconds = self.began.elapsed().as_secs_f64();
        if self.failures == 0 {
            say(&format!("All {} steps went as they should, in {seconds:.1} s.", self.checks));
            return true;
        }
        say(&format!("{} of {} steps FAILED.", self.failures, self.checks));
        if let Some(server) = &self.server {
            let _ = kill_process(server.pid, Signal::TERM);
            say(&format!("The server has logged:\n{}", server.rest().1));
        }
        false
    }
}

/// An error that shows both where they are not the same.
fn differs(what: &str, found: &str, wanted: &str) -> Result<(), String> {
    match found == wanted {
        true => Ok(()),
        false => Err(format!("{what} is {found:?}; it should be {wanted:?}")),
    }
}
