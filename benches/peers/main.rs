//! sixfour beside its peers: the same work, the same load, the same machine, one table.
//!
//! README.md in the folder above tells what each work means and what is compared with what.

mod children;
mod client;
mod commands;
mod connect;
mod direct;
mod download;
mod edge;
mod load;
mod logins;
mod machine;
mod memory;
mod mixed;
mod moves;
mod options;
mod peers;
mod pingpong;
mod poor;
mod protocol;
mod relay;
mod requests;
mod sent;
mod table;

use std::{
    env,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;

use crate::{
    download::{Files, Sources, Way},
    load::{Measured, Shape},
    moves::{Move, Moved, Movers},
    options::{Options, Work},
    peers::{Kind, Peer, Place},
    pingpong::Trips,
    protocol::{Frame, Line, Mqtt, Nats, Redis, Relay},
    requests::{Ask, Asked},
    table::{Row, Unit},
};

/// The file that is fetched while others chat.
const MIXED_FILE_MEBIBYTES: u64 = 512;

/// Requests that are under way on one connection, of `echo` and of what stands beside it.
const REQUESTS_DEPTH: usize = 64;

/// Share of the time from which on a row says that the load had to wait for its core.
const DISTURBED_PERCENT: f64 = 2.0;

/// Calls a generic function with the protocol of a peer.
macro_rules! with_protocol {
    ($kind:expr, $module:ident::$function:ident, $($argument:expr),*) => {
        match $kind {
            Kind::Line | Kind::LineTls => $module::$function::<Line>($($argument),*),
            Kind::Frame | Kind::FrameTls => $module::$function::<Frame>($($argument),*),
            Kind::Nats => $module::$function::<Nats>($($argument),*),
            Kind::Redis => $module::$function::<Redis>($($argument),*),
            Kind::Mosquitto => $module::$function::<Mqtt>($($argument),*),
            Kind::Relay => $module::$function::<Relay>($($argument),*),
        }
    };
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    if arguments.next().as_deref() == Some(peers::RELAY_ARGUMENT) {
        let port = arguments.next().and_then(|port| port.parse().ok());
        let served = relay::serve(port.expect("the bench gives a port"));
        eprintln!("the relay ended: {served:?}");
        return ExitCode::FAILURE;
    }
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("peers: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let selection = options.selection()?;
    children::watch_signals()?;
    let descriptors =
        machine::raise_descriptors().map_err(|error| format!("the descriptor limit: {error}"))?;
    let place = Place::prepare()?;
    let families = if place.has_ipv6 { "::1 and 127.0.0.1 in turn" } else { "127.0.0.1 only" };
    eprintln!("{}; clients on {families}", place.cores.describe());
    place.cores.take_load_core();
    let mut bench = Bench { options, place, descriptors, rows: Vec::new() };
    for (work, names) in selection {
        bench.work(work, &names);
    }
    if !options.json {
        println!("\n{}; clients on {families}", bench.place.cores.describe());
    }
    table::print(std::mem::take(&mut bench.rows), options.json);
    Ok(())
}

struct Bench<'a> {
    options: &'a Options,
    place: Place,
    descriptors: u64,
    rows: Vec<Row>,
}

impl Bench<'_> {
    fn work(&mut self, work: Work, names: &[&'static str]) {
        match work {
            Work::Download => return self.download(work, &Way::DOWNLOADS, names),
            Work::Direct => return self.download(work, &Way::SENDS, names),
            Work::Connect => return self.connect(names),
            Work::Mixed | Work::Cold => return self.mixed(work),
            Work::Logins => return self.logins(),
            Work::Upload => return self.moves(work, Move::Upload, names),
            Work::ManyDown => return self.moves(work, Move::ManyDown, names),
            Work::ManyUp => return self.moves(work, Move::ManyUp, names),
            Work::Resume => return self.moves(work, Move::Resume, names),
            _ => {}
        }
        for name in names {
            eprint!("{} {name} ... ", work.name());
            let watch = Disturbance::watch();
            match self.measure(work, name) {
                Ok(mut rows) => {
                    watch.note(&mut rows);
                    let said: Vec<_> = rows.iter().map(|row| row.rate.as_str()).collect();
                    eprintln!("{}", said.join(", "));
                    self.rows.extend(rows);
                }
                Err(reason) => self.miss(work, name, reason),
            }
        }
    }

    fn miss(&mut self, work: Work, name: &str, reason: String) {
        eprintln!("{reason}");
        for label in work.labels() {
            self.rows.push(Row::absent(&label, name, reason.clone()));
        }
    }

    fn measure(&self, work: Work, name: &'static str) -> Result<Vec<Row>, String> {
        let seconds = self.options.seconds;
        let shape = |pairs, spread, window, text_bytes| Shape { pairs, spread, window, text_bytes };
        match (work, kind(name)) {
            (Work::Pairs64, Some(kind)) => self.messages(work, kind, shape(16, false, 256, 64)),
            (Work::Pairs1k, Some(kind)) => self.messages(work, kind, shape(16, false, 256, 1024)),
            (Work::Spread64, Some(kind)) => self.messages(work, kind, shape(64, true, 64, 64)),
            (Work::PingPong, Some(kind)) => {
                let peer = self.start(kind)?;
                let trips = with_protocol!(kind, pingpong::run, &peer, seconds)?;
                Ok(trip_rows(work, name, &trips))
            }
            (Work::Echo1, _) => self.requests(work, name, 1),
            (Work::Echo16, _) => self.requests(work, name, 16),
            (Work::True1, _) => self.commands(work, 1),
            (Work::True16, _) => self.commands(work, 16),
            (Work::Memory, Some(kind)) => self.memory(kind).map(|row| vec![row]),
            (Work::Run, kind) => {
                let trips = match (kind, name) {
                    (Some(kind @ Kind::Line), _) => {
                        commands::over_line(&self.start(kind)?, seconds)
                    }
                    (Some(kind), _) => commands::over_frame(&self.start(kind)?, seconds),
                    (None, "sh") => commands::by_hand(seconds),
                    (None, _) => commands::by_hand_with_pipes(seconds),
                };
                Ok(trip_rows(work, name, &trips?))
            }
            (Work::EdgeSum, _) => edge::sum(name, &self.place).map(|sum| vec![sum_row(name, sum)]),
            (Work::EdgeDevices, _) => edge::visit(&self.place).map(|it| vec![visit_row(it)]),
            (Work::Poor, _) => {
                let way = poor::Way::ALL.into_iter().find(|way| way.name() == name);
                let way = way.expect("`peers` of the work names them");
                Ok(vec![poor_row(way, poor::measure(way, seconds)?)])
            }
            _ => unreachable!("`peers` of the work names them"),
        }
    }

    fn start(&self, kind: Kind) -> Result<Peer, String> {
        peers::start(kind, &self.place)
    }

    fn messages(&self, work: Work, kind: Kind, shape: Shape) -> Result<Vec<Row>, String> {
        let peer = self.start(kind)?;
        let measured = with_protocol!(kind, load::run, &peer, shape, self.options.seconds)?;
        Ok(vec![message_row(work, kind, measured)])
    }

    fn requests(&self, work: Work, name: &str, connections: usize) -> Result<Vec<Row>, String> {
        let ask = [Ask::Echo, Ask::Ping].into_iter().find(|ask| ask.peer() == name);
        let ask = ask.expect("`peers` of the work names them");
        let shape = requests::Shape { connections, depth: REQUESTS_DEPTH };
        let asked = requests::run(&ask.start(&self.place)?, ask, shape, self.options.seconds)?;
        Ok(vec![request_row(work, name, &asked)])
    }

    fn commands(&self, work: Work, connections: usize) -> Result<Vec<Row>, String> {
        let (ask, shape) = (Ask::True, requests::Shape { connections, depth: 1 });
        let asked = requests::run(&ask.start(&self.place)?, ask, shape, self.options.seconds)?;
        let each = asked.server_cpu.as_secs_f64() * 1e6 / asked.answers as f64;
        let mut rows = trip_rows(work, ask.peer(), &asked.trips);
        rows.iter_mut().for_each(|row| row.note += &format!("; server {each:.0} us CPU/req"));
        Ok(rows)
    }

    fn memory(&self, kind: Kind) -> Result<Row, String> {
        let peer = self.start(kind)?;
        let (sessions, descriptors) = (self.options.sessions, self.descriptors);
        let taken = with_protocol!(kind, memory::run, &peer, sessions, descriptors)?;
        let each = taken.after.saturating_sub(taken.before) as f64 / taken.sessions as f64;
        Ok(Row {
            work: Work::Memory.name().into(),
            peer: kind.name().into(),
            rate: format!("{} sessions", taken.sessions),
            cost: Some((each, Unit::BytesPerSession)),
            note: format!("RSS {} -> {}", mebibytes(taken.before), mebibytes(taken.after)),
        })
    }

    fn mixed(&mut self, work: Work) {
        eprint!("{} ... ", work.name());
        let watch = Disturbance::watch();
        let mixed = match work {
            Work::Cold => self.chat_while_cold(),
            _ => self.chat_under_load(),
        };
        let mixed = match mixed {
            Ok(mixed) => mixed,
            Err(reason) => return self.miss(work, "sixfour", reason),
        };
        eprintln!("done");
        let load = format!(
            "downloads {:.2} GiB/s, RSS {} -> {}",
            mixed.bulk_rate / f64::from(1 << 30),
            mebibytes(mixed.before),
            mebibytes(mixed.after)
        );
        for (kind, trips) in [(Kind::Line, &mixed.line), (Kind::Frame, &mixed.frame)] {
            let mut rows = trip_rows(work, kind.name(), trips);
            rows.iter_mut().for_each(|row| row.note = format!("{}; {load}", row.note));
            watch.note(&mut rows);
            self.rows.extend(rows);
        }
    }

    fn chat_under_load(&self) -> Result<mixed::Mixed, String> {
        let files = Files::make(MIXED_FILE_MEBIBYTES.min(self.options.file_mib))?;
        let peer = peers::start_ours(&self.place, &files.root())?;
        mixed::run(&peer, self.options.seconds * 2.0)
    }

    fn chat_while_cold(&self) -> Result<mixed::Mixed, String> {
        let (folder, bytes) = download::cold_file(self.options.file_mib)?;
        let peer = peers::start_ours(&self.place, folder.path())?;
        mixed::run_cold(&peer, bytes)
    }

    /// Nobody is pinned: a process that is started anew belongs to no core.
    fn connect(&mut self, names: &[&'static str]) {
        self.place.cores.take_any_core();
        let mut servers = connect::Servers::default();
        for name in names {
            eprint!("{} {name} ... ", Work::Connect.name());
            match servers.repeat(name, &self.place, self.options.seconds) {
                Ok(trips) => {
                    eprintln!("{:.2} ms", trips.micros(0.5) / 1e3);
                    self.rows.extend(trip_rows(Work::Connect, name, &trips));
                }
                Err(reason) => self.miss(Work::Connect, name, reason),
            }
        }
        self.place.cores.take_load_core();
    }

    fn logins(&mut self) {
        eprint!("{} ... ", Work::Logins.name());
        let watch = Disturbance::watch();
        let seconds = self.options.seconds;
        let logins = logins::start(&self.place).and_then(|peer| logins::run(&peer, seconds));
        let logins = match logins {
            Ok(logins) => logins,
            Err(reason) => return self.miss(Work::Logins, "sixfour", reason),
        };
        eprintln!("done");
        let mut rows = trip_rows(Work::Logins, Kind::Line.name(), &logins.trips);
        let (each, resident) = (logins.welcome as f64 / seconds, mebibytes(logins.resident));
        let note = format!("{each:.0} logins/s, {} told busy, RSS {resident}", logins.busy);
        rows.iter_mut().for_each(|row| row.note = format!("{}; {note}", row.note));
        watch.note(&mut rows);
        self.rows.extend(rows);
    }

    fn download(&mut self, work: Work, ways: &[Way], names: &[&'static str]) {
        let ways = ways.iter().copied().filter(|it| names.contains(&it.name()));
        let ways: Vec<_> = ways.collect();
        let files = match Files::make(self.options.file_mib) {
            Ok(files) => files,
            Err(reason) => return self.miss(work, "all", reason),
        };
        self.place.cores.take_any_core();
        let mut sources = Sources::start(&self.place, &files, &ways);
        let mut times: Vec<Result<Vec<Duration>, String>> =
            ways.iter().map(|_| Ok(vec![])).collect();
        for _ in 0..self.options.rounds {
            for (way, times) in ways.iter().zip(&mut times) {
                let Ok(before) = times else { continue };
                eprint!("{} {} ... ", work.name(), way.name());
                match sources.fetch(*way, &self.place, &files) {
                    Ok(time) => {
                        eprintln!("{time:.2?}");
                        before.push(time);
                    }
                    Err(reason) => {
                        eprintln!("{reason}");
                        *times = Err(reason);
                    }
                }
            }
        }
        self.place.cores.take_load_core();
        for (way, times) in ways.into_iter().zip(times) {
            self.rows.push(download_row(work, way, times, self.options.file_mib));
        }
    }
}

impl Bench<'_> {
    fn moves(&mut self, work: Work, what: Move, names: &[&'static str]) {
        let files = match Files::make(self.options.file_mib) {
            Ok(files) => files,
            Err(reason) => return self.miss(work, "all", reason),
        };
        self.place.cores.take_any_core();
        let movers = Movers::start(&self.place, &files);
        let mut all: Vec<Result<Vec<Moved>, String>> = names.iter().map(|_| Ok(vec![])).collect();
        for _ in 0..self.options.rounds {
            for (name, moved) in names.iter().zip(&mut all) {
                let Ok(before) = moved else { continue };
                eprint!("{} {name} ... ", work.name());
                let movers = movers.as_ref().map_err(String::clone);
                match movers.and_then(|movers| movers.run(what, *name != "rsync")) {
                    Ok(one) => {
                        eprintln!("{:.2?}", one.time);
                        before.push(one);
                    }
                    Err(reason) => {
                        eprintln!("{reason}");
                        *moved = Err(reason);
                    }
                }
            }
        }
        self.place.cores.take_load_core();
        for (name, moved) in names.iter().zip(all) {
            self.rows.push(move_row(work, name, moved, self.options.file_mib));
        }
    }
}

/// Tells whether other programs were at work on the core of the load.
struct Disturbance {
    begin: Instant,
    waited: Duration,
}

impl Disturbance {
    fn watch() -> Disturbance {
        Disturbance { begin: Instant::now(), waited: machine::own_wait() }
    }

    fn note(&self, rows: &mut [Row]) {
        let waited = (machine::own_wait() - self.waited).as_secs_f64();
        let share = 100.0 * waited / self.begin.elapsed().as_secs_f64();
        if share >= DISTURBED_PERCENT {
            rows.iter_mut().for_each(|row| row.note += &format!("; disturbed {share:.0} %"));
        }
    }
}

fn kind(name: &str) -> Option<Kind> {
    use Kind::*;
    [Line, Frame, LineTls, FrameTls, Nats, Redis, Mosquitto, Relay]
        .into_iter()
        .find(|kind| kind.name() == name)
}

fn message_row(work: Work, kind: Kind, measured: Measured) -> Row {
    let count = measured.messages as f64;
    let wall = measured.wall.as_secs_f64();
    let share = |time: Duration| 100.0 * time.as_secs_f64() / wall;
    Row {
        work: work.name().into(),
        peer: kind.name().into(),
        rate: format!("{:.0} msg/s", count / wall),
        cost: Some((measured.server_cpu.as_secs_f64() * 1e9 / count, Unit::NanosPerMessage)),
        note: format!(
            "server busy {:.0} %, load busy {:.0} %",
            share(measured.server_cpu),
            share(measured.load_cpu)
        ),
    }
}

fn request_row(work: Work, name: &str, asked: &Asked) -> Row {
    let (count, wall) = (asked.answers as f64, asked.wall.as_secs_f64());
    let share = |time: Duration| 100.0 * time.as_secs_f64() / wall;
    Row {
        work: work.name().into(),
        peer: name.into(),
        rate: format!("{:.0} req/s", count / wall),
        cost: Some((asked.server_cpu.as_secs_f64() * 1e9 / count, Unit::NanosPerRequest)),
        note: format!(
            "server busy {:.0} %, load busy {:.0} %",
            share(asked.server_cpu),
            share(asked.load_cpu)
        ),
    }
}

/// The median and the slowest hundredth are two works: each has its own ratio.
fn trip_rows(work: Work, name: &str, trips: &Trips) -> Vec<Row> {
    let row = |label: String, quantile| Row {
        work: label,
        peer: name.into(),
        rate: format!("{:.0}/s", trips.rate()),
        cost: Some((trips.micros(quantile), Unit::Micros)),
        note: format!("max {:.1} us of {}", trips.micros(1.0), trips.count()),
    };
    work.labels().into_iter().zip([0.5, 0.99]).map(|(label, at)| row(label, at)).collect()
}

fn download_row(work: Work, way: Way, times: Result<Vec<Duration>, String>, mebibytes: u64) -> Row {
    let mut times = match times {
        Ok(times) => times,
        Err(reason) => return Row::absent(work.name(), way.name(), reason),
    };
    times.sort_unstable();
    let median = times[times.len() / 2].as_secs_f64();
    let (least, most) = (times[0].as_secs_f64(), times[times.len() - 1].as_secs_f64());
    Row {
        work: work.name().into(),
        peer: way.name().into(),
        rate: format!("{:.2} GiB/s", mebibytes as f64 / 1024.0 / median),
        cost: Some((median, Unit::Seconds)),
        note: format!("{least:.3} to {most:.3} s; {}", way.verified_by()),
    }
}

fn move_row(work: Work, name: &str, moved: Result<Vec<Moved>, String>, size_mib: u64) -> Row {
    let mut moved = match moved {
        Ok(moved) => moved,
        Err(reason) => return Row::absent(work.name(), name, reason),
    };
    moved.sort_unstable_by_key(|one| one.time);
    let median = moved[moved.len() / 2].time.as_secs_f64();
    let (least, most) = (moved[0].time, moved[moved.len() - 1].time);
    let mut note = format!("{:.3} to {:.3} s", least.as_secs_f64(), most.as_secs_f64());
    let worst = |of: fn(&Moved) -> u64| moved.iter().map(of).max().unwrap_or(0) * 1024;
    if name != "rsync" {
        let (client, server) = (worst(|one| one.client_kib), worst(|one| one.server_kib));
        note += &format!("; RSS client {}, server {}", mebibytes(client), mebibytes(server));
    }
    if work == Work::Resume {
        let missing = (size_mib << 20) - (size_mib << 20) * 6 / 10;
        let sent = moved.iter().map(|one| one.sent_bytes).max().unwrap_or(0);
        note += &format!("; {} bytes beyond what was missing", sent as i64 - missing as i64);
    }
    Row {
        work: work.name().into(),
        peer: name.into(),
        rate: match work {
            Work::ManyDown | Work::ManyUp => format!("{:.0} files/s", 10_000.0 / median),
            _ => format!("{:.2} GiB/s", size_mib as f64 / 1024.0 / median),
        },
        cost: Some((median, Unit::Seconds)),
        note,
    }
}

fn poor_row(way: poor::Way, rate: f64) -> Row {
    let mebibyte = f64::from(1 << 20);
    Row {
        work: Work::Poor.name().into(),
        peer: way.name().into(),
        rate: format!("{:.2} MiB/s", rate / mebibyte),
        cost: Some((mebibyte / rate, Unit::SecondsPerMebibyte)),
        note: format!(
            "{} % lost each way, round trip {} ms",
            poor::LOST_PER_MILLE as f64 / 10.0,
            2 * poor::DELAY.as_millis()
        ),
    }
}

fn sum_row(name: &str, sum: edge::Sum) -> Row {
    let resident = |(before, after)| format!("; RSS {} -> {}", mebibytes(before), mebibytes(after));
    Row {
        work: Work::EdgeSum.name().into(),
        peer: name.into(),
        rate: format!("{:.0} M samples/s", edge::SAMPLES as f64 / 1e6 / sum.wall.as_secs_f64()),
        cost: Some((sum.cpu.as_secs_f64(), Unit::SecondsOfCpu)),
        note: format!(
            "{} samples in {:.3} s{}",
            edge::SAMPLES,
            sum.wall.as_secs_f64(),
            sum.resident.map(resident).unwrap_or_default()
        ),
    }
}

fn visit_row(visit: edge::Visit) -> Row {
    let wall = visit.wall.as_secs_f64();
    Row {
        work: Work::EdgeDevices.name().into(),
        peer: "sixfour".into(),
        rate: format!("{:.0} devices/s", edge::DEVICES as f64 / wall),
        cost: Some((visit.cpu.as_secs_f64(), Unit::SecondsOfCpu)),
        note: format!("{} in {wall:.3} s; RSS {}", edge::DEVICES, mebibytes(visit.resident)),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
