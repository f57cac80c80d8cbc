//! A tour: a real server and real clients do what the product is for, and every step is checked.
//!
//! `cargo run --release --example tour`. It takes a few seconds, and 512 MiB below the folder for
//! temporary files; all of it is removed, and all processes are ended, however the tour ends.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitCode, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The whole tour may take so long, without the building of the programs.
const WATCHDOG: Duration = Duration::from_secs(60);
/// One answer may take so long.
const PATIENCE: Duration = Duration::from_secs(15);
/// The file to download, and where its pseudo-random bytes begin.
const FILE_BYTES: usize = 256 * 1024 * 1024;
const FILE_SEED: u64 = 64;
const FILE_NAME: &str = "random.bin";
/// Files are made and compared in pieces of this size.
const PIECE_BYTES: usize = 1024 * 1024;
/// The command that has something to say on both outputs and in its exit code.
const COMMAND: [&str; 5] = ["run", "--", "sh", "-c", "echo out; echo err >&2; exit 7"];

/// Prints a line. Where nobody reads any more, the tour goes on to its end, which clears away.
macro_rules! say {
    ($($part:tt)*) => {{
        let _ = writeln!(io::stdout(), $($part)*);
    }};
}

fn main() -> ExitCode {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&interrupted)) {
            eprintln!("tour: signals cannot be handled: {error}");
            return ExitCode::FAILURE;
        }
    }
    let stage = match programs().and_then(Stage::new) {
        Ok(stage) => Arc::new(stage),
        Err(why) => {
            eprintln!("tour: {why}");
            return ExitCode::FAILURE;
        }
    };
    let (done, report) = mpsc::channel();
    let guided = Arc::clone(&stage);
    thread::spawn(move || {
        let mut guide = Guide::new(guided);
        // Where a step fails on which others build, the guide has said so; the rest is left out.
        let _ = guide.tour();
        let _ = done.send(guide.finish());
    });
    let passed = watch(&report, &interrupted).unwrap_or_else(|why| {
        say!("  FAILED: {why}");
        false
    });
    stage.clear();
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Waits for the end of the tour, the end of patience, or Ctrl-C.
fn watch(report: &mpsc::Receiver<bool>, interrupted: &AtomicBool) -> Result<bool, String> {
    let until = Instant::now() + WATCHDOG;
    loop {
        match report.recv_timeout(Duration::from_millis(50)) {
            Ok(passed) => return Ok(passed),
            Err(RecvTimeoutError::Disconnected) => return Err("the tour itself broke".to_owned()),
            Err(RecvTimeoutError::Timeout) if interrupted.load(Ordering::Relaxed) => {
                return Err("interrupted".to_owned());
            }
            Err(RecvTimeoutError::Timeout) if Instant::now() > until => {
                return Err(format!("not done after {WATCHDOG:?}"));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// The folder with the `server` and the `client` to show: the one above this program's own. They
/// are built where they are missing or older than their sources, as `cargo run` does not do it.
fn programs() -> Result<PathBuf, String> {
    let exe = std::env::current_exe().map_err(|error| format!("where am I? {error}"))?;
    let folder = exe.parent().and_then(Path::parent).ok_or("this program has no folder")?;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let newest = ["src", "Cargo.toml", "Cargo.lock"].iter().map(|it| modified(&sources.join(it)));
    let newest = newest.max().flatten();
    let is_stale = |name: &str| match (modified(&folder.join(name)), newest) {
        (None, _) => true,
        // Without sources there is nothing newer to build.
        (Some(built), newest) => newest.is_some_and(|newest| newest > built),
    };
    if !["server", "client"].into_iter().any(is_stale) {
        return Ok(folder.to_owned());
    }
    say!("server and client are missing or older than their sources: building them first");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--bins"]).current_dir(sources);
    if folder.file_name().is_some_and(|name| name == "release") {
        build.arg("--release");
    }
    build.arg("--target-dir").arg(folder.parent().unwrap_or(folder));
    match build.status() {
        Ok(status) if status.success() => Ok(folder.to_owned()),
        Ok(status) => Err(format!("`cargo build --bins` failed ({status})")),
        Err(error) => Err(format!("cargo cannot be started ({error}); build with --bins first")),
    }
}

/// When a file, or the newest file below a folder, was changed.
fn modified(path: &Path) -> Option<SystemTime> {
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().filter_map(|entry| modified(&entry.path())).max(),
        Err(_) => fs::metadata(path).and_then(|data| data.modified()).ok(),
    }
}

/// What has to be cleared away at the end, whoever comes to that end: folders and processes.
struct Stage {
    programs: PathBuf,
    folder: Mutex<Option<TempDir>>,
    children: Mutex<Vec<Child>>,
    root: PathBuf,
    state: PathBuf,
    downloads: PathBuf,
}

impl Stage {
    fn new(programs: PathBuf) -> Result<Stage, String> {
        let context = |error: io::Error| format!("no folder for temporary files: {error}");
        let folder = tempfile::Builder::new().prefix("sixfour-tour-").tempdir().map_err(context)?;
        let (root, downloads) = (folder.path().join("shared"), folder.path().join("fetched"));
        fs::create_dir(&root).and_then(|()| fs::create_dir(&downloads)).map_err(context)?;
        let state = folder.path().join("state");
        let (folder, children) = (Mutex::new(Some(folder)), Mutex::new(Vec::new()));
        Ok(Stage { programs, folder, children, root, state, downloads })
    }

    fn children(&self) -> MutexGuard<'_, Vec<Child>> {
        // A thread that broke while it held them leaves them as they are: to be ended.
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts one of the two programs, its input and outputs in our hands.
    fn start(&self, name: &str, arguments: &[&str]) -> Result<Program, String> {
        let mut command = Command::new(self.programs.join(name));
        command.args(arguments).current_dir(&self.downloads).env_remove("RUST_LOG");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{name} cannot start: {error}"))?;
        let (sender, lines) = mpsc::channel();
        follow(Output::Out, child.stdout.take().expect("it is a pipe"), sender.clone());
        follow(Output::Err, child.stderr.take().expect("it is a pipe"), sender);
        let (stdin, pid) = (child.stdin.take(), Pid::from_child(&child));
        self.children().push(child);
        Ok(Program { pid, stdin, lines })
    }

    /// Waits for the end of a process that was started here.
    fn wait(&self, pid: Pid) -> Result<ExitStatus, String> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let mut children = self.children();
            let child = children.iter_mut().find(|child| Pid::from_child(child) == pid);
            let child = child.ok_or("it was cleared away meanwhile")?;
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => {}
                Err(error) => return Err(error.to_string()),
            }
            drop(children);
            thread::sleep(Duration::from_millis(1));
        }
        Err(format!("it has not ended after {PATIENCE:?}"))
    }

    /// Ends what still runs and removes the folder.
    fn clear(&self) {
        for child in self.children().iter_mut() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        let folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(error)) = folder.map(TempDir::close) {
            eprintln!("tour: the temporary folder could not be removed: {error}");
        }
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Output {
    Out,
    Err,
}

/// Sends each line of a pipe until its end.
fn follow(output: Output, pipe: impl Read + Send + 'static, lines: mpsc::Sender<(Output, String)>) {
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line).into_owned();
            if lines.send((output, text)).is_err() {
                return;
            }
            line.clear();
        }
    });
}

/// A running `server` or `client`.
struct Program {
    pid: Pid,
    stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<(Output, String)>,
}

impl Program {
    /// The next line of either output, without its end.
    fn line(&self) -> Result<String, String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok((_, line)) => Ok(line.trim_end_matches('\n').to_owned()),
            Err(RecvTimeoutError::Timeout) => Err(format!("nothing came within {PATIENCE:?}")),
            Err(RecvTimeoutError::Disconnected) => Err("it has closed its outputs".to_owned()),
        }
    }

    fn type_line(&mut self, line: &str) -> Result<(), String> {
        let stdin = self.stdin.as_mut().ok_or("its input is closed already")?;
        writeln!(stdin, "{line}").map_err(|error| format!("it takes no input: {error}"))
    }

    /// All that came and comes, by output. For a program that has ended.
    fn rest(&self) -> (String, String) {
        let (mut out, mut err) = (String::new(), String::new());
        while let Ok((output, line)) = self.lines.recv_timeout(PATIENCE) {
            if output == Output::Out { out += &line } else { err += &line }
        }
        (out, err)
    }
}

/// A step has failed on which others build.
struct Cut;

/// Leads from step to step, and keeps count.
struct Guide {
    stage: Arc<Stage>,
    began: Instant,
    checks: usize,
    failures: usize,
    server: Option<Program>,
    port: String,
}

impl Guide {
    fn new(stage: Arc<Stage>) -> Guide {
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
                say!("  \u{2713} {milliseconds:9.1} ms  {what}{note}");
                Ok(value)
            }
            Err(why) => {
                self.failures += 1;
                say!("  \u{2717} {milliseconds:9.1} ms  {what}\n    FAILED: {why}");
                Err(Cut)
            }
        }
    }

    fn tour(&mut self) -> Result<(), Cut> {
        say!("A tour of sixfour");
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
            let server = guide.stage.start("server", &arguments)?;
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
                say!("  -               this host has no IPv4: all of it goes over ::1");
                (v6, v6)
            }
            _ => {
                say!("  -               this host has no IPv6: all of it goes over 127.0.0.1");
                (v4, v4)
            }
        })
    }

    fn client(&self, ip: IpAddr, arguments: &[&str]) -> Result<Program, String> {
        let ip = ip.to_string();
        let place = ["--ip", &ip, "--port", &self.port];
        self.stage.start("client", &[&place, arguments].concat())
    }

    fn join(&mut self, name: &str, ip: IpAddr) -> Result<Program, Cut> {
        self.step(&format!("{name} joins over {ip}"), |guide| {
            let client = guide.client(ip, &["--user", name, "--verbose"])?;
            let line = client.line()?;
            match line.starts_with(&format!("welcome, {name}")) {
                true => Ok((client, format!(": {line}"))),
                false => Err(format!("instead of a welcome came {line:?}")),
            }
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
            write_random(&path).map_err(|error| format!("{}: {error}", path.display()))?;
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
    fn finish(&mut self) -> bool {
        let seconds = self.began.elapsed().as_secs_f64();
        if self.failures == 0 {
            say!("All {} steps went as they should, in {seconds:.1} s.", self.checks);
            return true;
        }
        say!("{} of {} steps FAILED.", self.failures, self.checks);
        if let Some(server) = &self.server {
            let _ = kill_process(server.pid, Signal::TERM);
            say!("The server has logged:\n{}", server.rest().1);
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

/// Writes a file that no compression and no cache of a file system can shorten: SplitMix64.
fn write_random(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut state = FILE_SEED;
    let mut piece = vec![0; PIECE_BYTES];
    for _ in 0..FILE_BYTES / PIECE_BYTES {
        for word in piece.chunks_exact_mut(8) {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
        }
        file.write_all(&piece)?;
    }
    Ok(())
}

/// An error that says at which byte two files part.
fn first_difference(ours: &Path, theirs: &Path) -> Result<(), String> {
    let open = |path: &Path| File::open(path).map_err(|error| format!("{path:?}: {error}"));
    let (mut ours, mut theirs) = (open(ours)?, open(theirs)?);
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for at in (0..).step_by(PIECE_BYTES) {
        for (file, piece) in [(&mut ours, &mut left), (&mut theirs, &mut right)] {
            piece.clear();
            let limited = file.take(PIECE_BYTES as u64).read_to_end(piece);
            limited.map_err(|error| format!("it cannot be read: {error}"))?;
        }
        if left != right {
            let same = left.iter().zip(&right).take_while(|(ours, theirs)| ours == theirs).count();
            return Err(format!("they differ from byte {} on", at + same));
        }
        if left.is_empty() {
            let whole = at == FILE_BYTES;
            return if whole { Ok(()) } else { Err(format!("both have {at} bytes only")) };
        }
    }
    unreachable!("a file has an end")
}
