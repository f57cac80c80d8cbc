//! A real server process, and clients that speak lines, JSON and frames to it.
//!
//! Every wait has a limit, so that a fault fails a test and never hangs it.

#![allow(dead_code, unused_imports, reason = "every test takes what it needs")]

pub mod canary;
pub mod framed;
pub mod identity;
pub mod json;
pub mod lines;
pub mod network;
pub mod place;
pub mod secured;
pub mod tap;

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

pub use canary::Canary;
pub use framed::{Framed, News};
pub use json::Json;
pub use lines::Line;
use rustix::process::{Pid, Signal, kill_process};
pub use secured::Secured;
use tempfile::TempDir;

/// How long anything may take before it counts as never happening.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// The loopback address of each family.
pub const FAMILIES: [IpAddr; 2] =
    [IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)];

/// A server process with a folder of its own. Dropping it kills it.
pub struct Server {
    child: Child,
    pub port: u16,
    /// What it has printed to say where it listens.
    pub greeting: String,
    root: TempDir,
    state: TempDir,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    text: Mutex<String>,
    grown: Condvar,
}

impl Server {
    /// A server on a free port of both families.
    pub fn start() -> Server {
        Server::start_with(&[])
    }

    /// The same with further arguments.
    pub fn start_with(arguments: &[&str]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
        command.args(arguments).args(["--port", "0"]);
        Server::start_command(command)
    }

    /// The same on a port of the test's choice.
    pub fn start_on(port: u16, arguments: &[&str]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
        command.args(arguments).args(["--port", &port.to_string()]);
        Server::start_command(command)
    }

    /// The same by way of a program that starts others: `ip netns exec NAME`, for instance.
    pub fn start_inside(prefix: &[String]) -> Server {
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]).args([env!("CARGO_BIN_EXE_server"), "--port", "0"]);
        Server::start_command(command)
    }

    /// The same by way of a shell that has done `before`: `ulimit -n 64`, for instance.
    pub fn start_after(before: &str) -> Server {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(format!("{before} && exec \"$0\" \"$@\""));
        command.args([env!("CARGO_BIN_EXE_server"), "--port", "0"]);
        Server::start_command(command)
    }

    /// Kills it, and starts another one on the same folder.
    pub fn kill_and_restart(mut self) -> Server {
        self.signal(Signal::KILL);
        self.wait();
        let root = std::mem::replace(&mut self.root, folder());
        let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
        command.args(["--port", "0"]);
        Server::start_sharing(root, command)
    }

    /// The same from a command that lacks the shared folder alone.
    pub fn start_command(command: Command) -> Server {
        Server::start_sharing(folder(), command)
    }

    /// The same, sharing this folder.
    pub fn start_sharing(root: TempDir, mut command: Command) -> Server {
        if command.get_current_dir().is_none() {
            // Where devices have their files, unless the test says otherwise.
            command.current_dir(root.path());
        }
        let state = folder();
        command.arg("--root").arg(root.path()).env_remove("RUST_LOG");
        command.arg("--state").arg(state.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server starts");
        let log = Log::follow(child.stderr.take().expect("its error output is a pipe"));
        let mut greeting = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        stdout.read_line(&mut greeting).expect("it says where it listens");
        let port = greeting.trim_end().rsplit(':').next().and_then(|port| port.parse().ok());
        let Some(port) = port else { panic!("no port in {greeting:?}; the log: {}", log.text()) };
        Server { child, port, greeting, root, state, log }
    }

    /// The state folder, with the server's key.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// The shared folder.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// A path below the shared folder.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.path().join(relative)
    }

    /// Puts a file into the shared folder.
    pub fn put(&self, relative: &str, content: &[u8]) {
        std::fs::write(self.path(relative), content).expect("a file of the test");
    }

    /// Makes a FIFO in the shared folder: a command that reads it waits for the test.
    pub fn fifo(&self, relative: &str) {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, self.path(relative), mode).expect("a FIFO");
    }

    /// Where a client of this family connects to.
    pub fn address(&self, ip: IpAddr) -> SocketAddr {
        (ip, self.port).into()
    }

    /// A plain connection.
    pub fn connect(&self, ip: IpAddr) -> TcpStream {
        let stream = TcpStream::connect_timeout(&self.address(ip), PATIENCE).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        stream
    }

    /// A client that speaks lines and has no name yet.
    pub fn line(&self, ip: IpAddr) -> Line {
        Line::new(self.connect(ip))
    }

    /// A client that speaks lines and is called `name`.
    pub fn user(&self, ip: IpAddr, name: &str) -> Line {
        let mut line = self.line(ip);
        line.send(&format!("user {name}"));
        assert_eq!(line.next(), format!("welcome {name}"));
        line
    }

    /// A client that speaks JSON and has no name yet.
    pub fn json(&self, ip: IpAddr) -> Json {
        Json::new(self.connect(ip))
    }

    /// A client that speaks lines inside TLS.
    pub fn secured(&self, ip: IpAddr) -> Secured {
        Secured::new(self.connect(ip))
    }

    /// The fingerprint of its key, from another process.
    pub fn fingerprint(&self) -> String {
        let (state, start) = (self.state.path().to_string_lossy(), "SHA256:");
        let (code, out, err) = run_server(&["fingerprint", "--state", &state]);
        assert!(code == Some(0) && out.starts_with(start), "{out}{err}");
        out.trim_end().to_owned()
    }

    /// A client that speaks frames and is called `name`.
    pub fn framed(&self, ip: IpAddr, name: &str) -> Framed {
        Framed::hello(self.connect(ip), name)
    }

    /// The process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal to the server.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the server is there");
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        await_true("the end of the server", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.expect("it was awaited")
    }

    /// Asserts that it runs and serves both families.
    pub fn assert_alive(&mut self) {
        let status = self.child.try_wait().expect("it is our child");
        assert_eq!(status, None, "the server has ended; its log: {}", self.log());
        for ip in FAMILIES {
            let mut line = self.line(ip);
            line.send("echo alive");
            assert_eq!(line.next(), "alive");
        }
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Waits until it has logged this.
    pub fn await_log(&self, part: &str) {
        self.log.wait_for(part);
    }

    /// Its open descriptors.
    pub fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(folder).expect("it runs").count()
    }

    /// Its resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
        line.split_whitespace().nth(1).and_then(|count| count.parse().ok()).expect("a number")
    }

    /// The time that it has used a processor, in clock ticks (10 ms).
    pub fn processor_ticks(&self) -> u64 {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(path).expect("it runs");
        let rest = stat.rsplit(") ").next().expect("a name in brackets");
        let field = |at: usize| rest.split(' ').nth(at).and_then(|it| it.parse::<u64>().ok());
        field(11).expect("utime") + field(12).expect("stime")
    }

    /// The numbers of its child processes, the guard among them.
    pub fn children(&self) -> Vec<String> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let paths = threads.expect("it runs").flatten().map(|it| it.path().join("children"));
        let children = paths.flat_map(std::fs::read_to_string).collect::<Vec<_>>().join(" ");
        children.split_whitespace().map(str::to_owned).collect()
    }

    /// Its children that have ended and were not collected.
    pub fn zombies(&self) -> usize {
        self.children().iter().filter(|pid| state_of(pid) == Some('Z')).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A stopped one could not be killed before it goes on.
        let _ = kill_process(self.pid(), Signal::CONT);
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the server's log ---\n{}", self.log());
        }
    }
}

impl Log {
    fn follow(stderr: impl std::io::Read + Send + 'static) -> Arc<Log> {
        let log = Arc::new(Log::default());
        let writer = Arc::clone(&log);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut text = writer.text.lock().expect("nobody panics with it");
                text.push_str(&line);
                text.push('\n');
                writer.grown.notify_all();
            }
        });
        log
    }

    fn text(&self) -> String {
        self.text.lock().expect("nobody panics with it").clone()
    }

    fn wait_for(&self, part: &str) {
        let text = self.text.lock().expect("nobody panics with it");
        let is_missing = |text: &mut String| !text.contains(part);
        let waited = self.grown.wait_timeout_while(text, PATIENCE, is_missing);
        let (text, result) = waited.expect("nobody panics with it");
        assert!(!result.timed_out(), "{part:?} was never logged, but only:\n{text}");
    }
}

/// Runs the server with these arguments to its end: exit code, output, error output.
pub fn run_server(arguments: &[&str]) -> (Option<i32>, String, String) {
    let state = folder();
    let mut child = Command::new(env!("CARGO_BIN_EXE_server"))
        .args(arguments)
        .env_remove("RUST_LOG")
        .env("XDG_STATE_HOME", state.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let mut status = None;
    let begun = Instant::now();
    while status.is_none() && begun.elapsed() < PATIENCE {
        status = child.try_wait().expect("it is our child");
        thread::sleep(Duration::from_millis(2));
    }
    let _ = child.kill();
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().expect("a pipe").read_to_string(&mut out).expect("text");
    child.stderr.take().expect("a pipe").read_to_string(&mut err).expect("text");
    let _ = child.wait();
    (status.and_then(|status| status.code()), out, err)
}

/// A folder in memory where there is such a thing: a sparse file of 4 GiB then costs no page cache.
pub fn folder() -> TempDir {
    let in_memory = TempDir::new_in("/dev/shm");
    in_memory.or_else(|_| TempDir::new()).expect("a folder for the test")
}

/// Looks again and again until it is true: for what cannot be awaited, such as `/proc`.
pub fn await_true(what: &str, mut is_true: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_true() {
        assert!(begun.elapsed() < PATIENCE, "never came true: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process of this number is there and no zombie.
pub fn is_running(pid: &str) -> bool {
    state_of(pid).is_some_and(|state| state != 'Z')
}

fn state_of(pid: &str) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

/// Bytes that look random and are the same every time.
pub fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// Makes the close of this socket a reset.
pub fn reset_on_close(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    socket.set_linger(Some(Duration::ZERO)).expect("linger");
}
