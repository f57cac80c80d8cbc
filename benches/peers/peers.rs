//! The servers that route messages, each started the same way and on the same core.

use std::{
    env,
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    children::{Daemon, Folder},
    machine::Cores,
};

/// The hidden first argument with which this program becomes the plain relay.
pub const RELAY_ARGUMENT: &str = "--serve-as-plain-relay";

/// Who routes messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Our server, spoken to in lines.
    Line,
    /// Our server, spoken to in frames.
    Frame,
    /// Our server, spoken to in lines inside TLS.
    LineTls,
    /// Our server, spoken to in frames inside TLS.
    FrameTls,
    /// nats-server.
    Nats,
    /// redis-server.
    Redis,
    /// mosquitto.
    Mosquitto,
    /// A byte relay that looks at nothing.
    Relay,
}

impl Kind {
    /// The name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Line => "sixfour-line",
            Kind::Frame => "sixfour-frame",
            Kind::LineTls => "sixfour-line-tls",
            Kind::FrameTls => "sixfour-frame-tls",
            Kind::Nats => "nats",
            Kind::Redis => "redis",
            Kind::Mosquitto => "mosquitto",
            Kind::Relay => "relay",
        }
    }
}

/// Where servers are started: folders, cores, families.
pub struct Place {
    /// Configurations and logs.
    pub folder: Folder,
    /// Keys.
    state: Folder,
    /// Who runs where.
    pub cores: Cores,
    /// Whether `::1` can be bound.
    pub has_ipv6: bool,
}

impl Place {
    /// Looks at the machine and makes the folder.
    pub fn prepare() -> Result<Place, String> {
        let has_ipv6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        let folder = Folder::below(&env::temp_dir())?;
        let state = Folder::below(&env::temp_dir())?;
        Ok(Place { folder, state, cores: Cores::find()?, has_ipv6 })
    }

    /// Where our server keeps its key, and our client those of servers: apart from what is served.
    pub fn state_folder(&self) -> PathBuf {
        self.state.path().to_owned()
    }

    /// A port that is free in both families.
    pub fn free_port(&self) -> Result<u16, String> {
        for _ in 0..100 {
            let Ok(held) = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)) else { continue };
            let Ok(address) = held.local_addr() else { continue };
            let port = address.port();
            if !self.has_ipv6 || TcpListener::bind((Ipv6Addr::LOCALHOST, port)).is_ok() {
                return Ok(port);
            }
        }
        Err("no port of 127.0.0.1 is free".to_owned())
    }

    /// Writes a configuration.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf, String> {
        let path = self.folder.path().join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }
}

/// A running server and where it listens.
pub struct Peer {
    /// The process.
    pub daemon: Daemon,
    /// On `::1` and 127.0.0.1 alike.
    pub port: u16,
    /// Whether its clients speak to it inside TLS.
    pub is_secured: bool,
    has_ipv6: bool,
}

impl Peer {
    /// Where the client number `index` connects: the families take turns.
    pub fn address(&self, index: usize) -> SocketAddr {
        let ip: IpAddr = match index % 2 {
            0 if self.has_ipv6 => Ipv6Addr::LOCALHOST.into(),
            _ => Ipv4Addr::LOCALHOST.into(),
        };
        SocketAddr::new(ip, self.port)
    }
}

/// Starts the server and waits until it takes connections.
pub fn start(kind: Kind, place: &Place) -> Result<Peer, String> {
    match kind {
        Kind::Line | Kind::Frame => start_ours(place, place.folder.path()),
        Kind::LineTls | Kind::FrameTls => {
            let peer = start_ours(place, place.folder.path())?;
            Ok(Peer { is_secured: true, ..peer })
        }
        Kind::Nats => start_nats(place),
        Kind::Redis => start_redis(place),
        Kind::Mosquitto => start_mosquitto(place),
        Kind::Relay => start_relay(place),
    }
}

/// Starts our server with `root` as the shared folder.
pub fn start_ours(place: &Place, root: &Path) -> Result<Peer, String> {
    let mut command = ours(place, root);
    await_ours(Daemon::start(&mut command, place.folder.path(), &place.cores)?, place)
}

/// The same on any core.
pub fn start_ours_unpinned(place: &Place, root: &Path) -> Result<Peer, String> {
    await_ours(Daemon::start_here(&mut ours(place, root), place.folder.path())?, place)
}

fn ours(place: &Place, root: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(["--port", "0", "--root"]).arg(root);
    command.arg("--state").arg(place.state_folder());
    command
}

fn await_ours(mut daemon: Daemon, place: &Place) -> Result<Peer, String> {
    let port = daemon.wait(|log| {
        let line = log.split_inclusive('\n').find(|line| line.contains("listening on"))?;
        // A line without its end may lack digits of the port.
        line.strip_suffix('\n')?.rsplit_once(':')?.1.parse().ok()
    })?;
    Ok(Peer { daemon, port, is_secured: false, has_ipv6: place.has_ipv6 })
}

fn start_nats(place: &Place) -> Result<Peer, String> {
    let program = find("nats-server", "nats-server")?;
    let port = place.free_port()?;
    let host = if place.has_ipv6 { "::" } else { "127.0.0.1" };
    let text = format!("host: \"{host}\"\nport: {port}\nmax_connections: 20000\n");
    let config = place.write("nats.conf", &text)?;
    launch(place, Command::new(program).arg("--config").arg(config), port)
}

fn start_redis(place: &Place) -> Result<Peer, String> {
    let program = find("redis-server", "redis-server")?;
    let port = place.free_port()?;
    let ipv6 = if place.has_ipv6 { " ::1" } else { "" };
    let text = format!(
        "bind 127.0.0.1{ipv6}\nport {port}\nsave \"\"\nappendonly no\nmaxclients 15000\n\
         tcp-backlog 1024\ndir {}\n",
        place.folder.path().display()
    );
    let config = place.write("redis.conf", &text)?;
    launch(place, Command::new(program).arg(config), port)
}

fn start_mosquitto(place: &Place) -> Result<Peer, String> {
    let program = find("mosquitto", "mosquitto")?;
    let port = place.free_port()?;
    let mut text = format!("listener {port} 127.0.0.1\n");
    if place.has_ipv6 {
        writeln!(text, "listener {port} ::1").expect("a String takes it");
    }
    text.push_str("allow_anonymous true\nset_tcp_nodelay true\nlog_type error\n");
    let config = place.write("mosquitto.conf", &text)?;
    launch(place, Command::new(program).arg("-c").arg(config), port)
}

fn start_relay(place: &Place) -> Result<Peer, String> {
    let program = env::current_exe().map_err(|error| format!("where are we: {error}"))?;
    let port = place.free_port()?;
    let mut command = Command::new(program);
    command.arg(RELAY_ARGUMENT).arg(port.to_string());
    let mut daemon = Daemon::start(&mut command, place.folder.path(), &place.cores)?;
    // No trial connection: it would count as the first one.
    daemon.wait(|log| log.contains("relaying").then_some(()))?;
    Ok(Peer { daemon, port, is_secured: false, has_ipv6: place.has_ipv6 })
}

fn launch(place: &Place, command: &mut Command, port: u16) -> Result<Peer, String> {
    let mut daemon = Daemon::start(command, place.folder.path(), &place.cores)?;
    daemon.wait_for_port(port)?;
    Ok(Peer { daemon, port, is_secured: false, has_ipv6: place.has_ipv6 })
}

/// Finds an installed program; servers are often outside of a user's `PATH`.
pub fn find(program: &str, package: &str) -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(more)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .ok_or_else(|| format!("not installed; on Debian: apt-get install {package}"))
}
