//! What to run and for how long.

use clap::Parser;

use crate::{connect, download::Way, peers::Kind, poor, requests::Ask};

/// The works, by the names that filters find.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Work {
    /// Routed messages of 64 bytes between pairs.
    Pairs64,
    /// The same with a kibibyte.
    Pairs1k,
    /// Everybody to everybody.
    Spread64,
    /// One message to and fro.
    PingPong,
    /// A large file.
    Download,
    /// The large file to the server.
    Upload,
    /// Many small files from the server.
    ManyDown,
    /// The same to the server.
    ManyUp,
    /// A download that goes on at 60 %.
    Resume,
    /// A large file from user to user.
    Direct,
    /// As many bytes as pass over a poor line.
    Poor,
    /// `run true`.
    Run,
    /// `{"op": "echo"}` over one connection.
    Echo1,
    /// The same over sixteen.
    Echo16,
    /// `{"method": "true"}` over one connection.
    True1,
    /// The same over sixteen.
    True16,
    /// `run true` from nothing: a process, a connection, a login, a command.
    Connect,
    /// Idle sessions.
    Memory,
    /// Chat under load.
    Mixed,
    /// Chat while a file that is not in memory is fetched.
    Cold,
    /// Chat while many log in.
    Logins,
    /// A sum over many samples of a device.
    EdgeSum,
    /// Many devices that come, upload and go.
    EdgeDevices,
}

impl Work {
    /// All, in the order of the table.
    pub const ALL: [Work; 23] = [
        Work::Pairs64,
        Work::Pairs1k,
        Work::Spread64,
        Work::PingPong,
        Work::Run,
        Work::Echo1,
        Work::Echo16,
        Work::True1,
        Work::True16,
        Work::Connect,
        Work::Memory,
        Work::Mixed,
        Work::Cold,
        Work::Logins,
        Work::Download,
        Work::Upload,
        Work::ManyDown,
        Work::ManyUp,
        Work::Resume,
        Work::Direct,
        Work::Poor,
        Work::EdgeSum,
        Work::EdgeDevices,
    ];

    /// The name in the table and for filters.
    pub fn name(self) -> &'static str {
        match self {
            Work::Pairs64 => "pairs-64",
            Work::Pairs1k => "pairs-1k",
            Work::Spread64 => "spread-64",
            Work::PingPong => "ping-pong",
            Work::Download => "download",
            Work::Upload => "upload",
            Work::ManyDown => "many-down",
            Work::ManyUp => "many-up",
            Work::Resume => "resume",
            Work::Direct => "user-to-user",
            Work::Poor => "poor-line",
            Work::Run => "run-true",
            Work::Echo1 => "json-echo-1",
            Work::Echo16 => "json-echo-16",
            Work::True1 => "json-true-1",
            Work::True16 => "json-true-16",
            Work::Connect => "connect-run-true",
            Work::Memory => "memory",
            Work::Mixed => "chat-under-load",
            Work::Cold => "chat-while-cold",
            Work::Logins => "chat-during-logins",
            Work::EdgeSum => "edge-sum",
            Work::EdgeDevices => "edge-devices",
        }
    }

    /// What its rows are called: times have a row for the median and one for the tail.
    pub fn labels(self) -> Vec<String> {
        match self {
            Work::PingPong
            | Work::Run
            | Work::True1
            | Work::True16
            | Work::Connect
            | Work::Mixed
            | Work::Cold
            | Work::Logins => ["p50", "p99"].map(|it| format!("{} {it}", self.name())).to_vec(),
            _ => vec![self.name().to_owned()],
        }
    }

    /// Who takes part.
    pub fn peers(self) -> Vec<&'static str> {
        use Kind::*;
        let kinds: &[Kind] = match self {
            Work::Pairs64 | Work::Pairs1k | Work::PingPong => {
                &[Line, Frame, LineTls, FrameTls, Relay, Nats, Redis, Mosquitto]
            }
            Work::Spread64 | Work::Memory => {
                &[Line, Frame, LineTls, FrameTls, Nats, Redis, Mosquitto]
            }
            Work::Connect => return connect::WAYS.to_vec(),
            Work::Download => return Way::DOWNLOADS.map(Way::name).to_vec(),
            Work::Upload | Work::ManyDown | Work::ManyUp => return vec!["sixfour", "rsync"],
            Work::Resume | Work::EdgeDevices => return vec!["sixfour"],
            Work::EdgeSum => return vec!["sixfour", "awk"],
            Work::Direct => return Way::SENDS.map(Way::name).to_vec(),
            Work::Poor => return poor::Way::ALL.map(poor::Way::name).to_vec(),
            Work::Run => return vec![Line.name(), Frame.name(), "sh", "sh-with-pipes"],
            Work::Echo1 | Work::Echo16 => return [Ask::Echo, Ask::Ping].map(Ask::peer).to_vec(),
            Work::True1 | Work::True16 => return vec![Ask::True.peer()],
            Work::Mixed | Work::Cold => return vec![Line.name(), Frame.name()],
            Work::Logins => return vec![Line.name()],
        };
        kinds.iter().map(|kind| kind.name()).collect()
    }
}

/// Compares sixfour with its peers on this machine.
#[derive(Debug, Parser)]
#[command(name = "peers")]
pub struct Options {
    /// Parts of names of works (pairs-64, pairs-1k, spread-64, ping-pong, run-true,
    /// json-echo-1, json-echo-16, json-true-1, json-true-16, memory,
    /// chat-under-load, chat-while-cold, chat-during-logins, download, upload, many-down,
    /// many-up, resume,
    /// user-to-user, poor-line, edge-sum, edge-devices) or of peers (sixfour-line, nats ...); all
    /// without any
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,

    /// How long each row is measured; chat-under-load takes twice as long
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    pub seconds: f64,

    /// One JSON object a row instead of the table
    #[arg(long)]
    pub json: bool,

    /// Size of the file to download; memory for it twice is needed
    #[arg(long, default_value_t = 2048, value_name = "MIB",
          value_parser = clap::value_parser!(u64).range(1..=65536))]
    pub file_mib: u64,

    /// Rounds of the downloads, of which the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=99))]
    pub rounds: u64,

    /// Idle sessions of the work `memory`
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=60000))]
    pub sessions: u64,

    /// cargo says so to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("give a number of seconds from 0.1 to 3600".to_owned()),
    }
}

impl Options {
    /// What passes the filters: works with the names of their peers.
    pub fn selection(&self) -> Result<Vec<(Work, Vec<&'static str>)>, String> {
        let is_work = |filter: &&String| Work::ALL.iter().any(|it| it.name().contains(&***filter));
        let (works, peers): (Vec<_>, Vec<_>) = self.filters.iter().partition(is_work);
        for filter in &peers {
            if !Work::ALL.iter().any(|work| work.peers().iter().any(|it| it.contains(&***filter))) {
                let works = Work::ALL.map(Work::name).join(", ");
                return Err(format!("`{filter}` is no part of a work or a peer; works: {works}"));
            }
        }
        let passes = |name: &str, filters: &[&String]| {
            filters.is_empty() || filters.iter().any(|filter| name.contains(&***filter))
        };
        let works = Work::ALL.into_iter().filter(|work| passes(work.name(), &works));
        let works = works.map(|work| {
            let names = work.peers().into_iter().filter(|name| passes(name, &peers));
            (work, names.collect())
        });
        Ok(works.filter(|(_, names): &(_, Vec<_>)| !names.is_empty()).collect())
    }
}
