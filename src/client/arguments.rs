//! The client's command line.

mod passing;
mod quoting;
mod watching;
mod whole;

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _, path::PathBuf, time::Duration};

use quoting::{quote, quote_shown};

use clap::{Args, CommandFactory as _, Parser, Subcommand, error::ErrorKind};

use super::{
    brain::Watch,
    core::{
        order::{Local, Order, Target, refuse_same_names, refuse_same_targets, trim_slash},
        rules::Rules,
    },
    device::options::{self, Device, DeviceVerb},
};
use whole::CommandLine;

use crate::{
    limits::{
        COMMAND_MAX_BYTES, DIRECT_PORT_MIN, INFO_INTERVAL_MS, RECIPIENTS_MAX_BYTES, TEXT_MAX_BYTES,
    },
    manual::Manual,
    sys::{connect::Host, known_servers::ServerKey},
    wire::{
        Call, HostCall, Name, SharePath,
        host::{PingHost, Question},
        name::NAME_RULE,
    },
};

/// What the client was asked to do, checked.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// Who we are, where no password is asked for.
    pub user: Name,
    /// Who we are where one is; `None` where nobody has said so.
    pub account: Option<Name>,
    /// The file whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// Connecting may take so long.
    pub connect_timeout: Duration,
    /// How the connection is to be protected.
    pub protection: Protection,
    /// The state folder, if it was named.
    pub state: Option<PathBuf>,
    /// Forget the key of this server, and do nothing else.
    pub forget: Option<ServerKey>,
    /// One JSON object a line instead of text.
    pub json: bool,
    /// Only answers and errors.
    pub quiet: bool,
    /// More talk.
    pub verbose: bool,
    /// What commands print goes to terminals as it is.
    pub raw: bool,
    /// The text of the message is on standard input.
    pub text_from_input: bool,
    /// Whose offers are taken without a question.
    pub accept: Rules,
    /// Where other clients may send files straight to this one: 0 is any port; `None`: nowhere,
    /// and files go through the server.
    pub udp_port: Option<u16>,
    /// The orders of a verb; `None`: from the prompt or from standard input.
    pub orders: Option<Vec<Order>>,
    /// To be an edge device instead.
    pub device: Option<Device>,
    /// Watch the server.
    pub watch: Option<Watch>,
    /// Measure round trips by each family.
    pub pings: Option<Pings>,
}

/// Which round trips to measure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pings {
    /// How many by each family.
    pub count: u32,
    /// Between the answer to one and the next, in milliseconds.
    pub interval_ms: u64,
}

/// What is to protect the connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Protection {
    /// TLS off the machine and where the server's key is known, else nothing.
    Usual,
    /// TLS, and the key is known or is met for the first time.
    Tls,
    /// TLS, with a certificate from one of the authorities in this file.
    Authorities(PathBuf),
    /// Nothing, also off the machine.
    Plaintext,
}

impl Plan {
    /// The exit code of any failure of our own, where the verb has only one: that of `run`.
    pub fn own_failure(&self) -> Option<u8> {
        let runs = matches!(self.orders.as_deref(), Some([Order::Run { .. }, ..]));
        runs.then_some(super::exit::RUN_FAILED)
    }

    /// The server, for people.
    pub fn server(&self) -> String {
        format!("{} port {}", self.host, self.port)
    }
}

/// Messages, files and commands: the client.
///
/// Without a verb it gives a prompt, or takes lines from standard input. `client SERVER PORT
/// UDP_PORT` is an edge device at a prompt. Exit codes: 0 done,
/// 1 failed, 2 bad arguments, 3 cannot connect, 4 refused, 5 no such user or file, 6 timed out.
/// `run` has the command's own code, 128+n for signal n, and 255 for any other failure.
#[derive(Debug, Parser)]
#[command(name = "client", version, disable_help_subcommand = true)]
struct Arguments {
    /// The server: an IPv4 or IPv6 address, fe80::1%eth0, or a host name.
    #[arg(long, value_name = "HOST", default_value = "localhost", global = true,
          value_parser = Host::parse)]
    ip: Host,
    /// Its port.
    #[arg(long, default_value_t = 5000, global = true,
          value_parser = options::port)]
    port: u16,
    /// The name that others know you by: 1 to 32 of A-Z a-z 0-9 _ . -.
    ///
    /// Default: $USER at the prompt; for a verb, a passing name like alice-3f9a1c, so that it
    /// does not collide with your prompt.
    #[arg(long, value_name = "NAME", global = true, value_parser = parse_name)]
    user: Option<Name>,
    /// The first line of this file is the password, where the server asks for one.
    ///
    /// Without it the variable SIXFOUR_PASSWORD is looked at, and then you are asked at the
    /// terminal. A password is never an argument: others could read it there.
    #[arg(long, value_name = "FILE", global = true)]
    password_file: Option<PathBuf>,
    /// Print one JSON object a line.
    #[arg(long, global = true)]
    json: bool,
    /// Print answers and errors only.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more.
    #[arg(short, long, global = true)]
    verbose: bool,
    /// Connecting may take so long, as in 5s or 500ms.
    #[arg(long, value_name = "TIME", default_value = "10s", global = true,
          value_parser = parse_time)]
    connect_timeout: Duration,
    /// Use TLS also on this machine.
    #[arg(long, global = true, conflicts_with = "plaintext")]
    tls: bool,
    /// Do without TLS also off this machine; the server has to allow it too, and everybody on the
    /// way can read all.
    #[arg(long, global = true)]
    plaintext: bool,
    /// Use TLS, and take the server for the right one by its certificate for that name, from one
    /// of the authorities in this file (PEM), instead of by its known key.
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "plaintext")]
    ca: Option<PathBuf>,
    /// The folder of the known servers [default: sixfour in $XDG_STATE_HOME or ~/.local/state].
    #[arg(long, value_name = "DIR", global = true)]
    state: Option<PathBuf>,
    /// What others send is taken without a question: all, none, ask, or names, each perhaps with
    /// a size, as in alice,bob:5M. It is saved here as SENDER_NAME.
    ///
    /// Default: ask at the prompt. What is not taken by this is asked about there, and refused
    /// elsewhere.
    #[arg(long, value_name = "RULES", global = true, value_parser = Rules::parse)]
    accept: Option<Rules>,
    #[command(flatten)]
    replacing: passing::Replacing,
    /// The UDP port, of both families, for files straight from client to client [default: any].
    #[arg(id = "direct_port", long = "udp-port", value_name = "PORT", global = true,
          value_parser = clap::value_parser!(u16).range(i64::from(DIRECT_PORT_MIN)..))]
    udp_port: Option<u16>,
    /// Let files between users go through the server, which cannot read them.
    #[arg(long, global = true, conflicts_with = "direct_port")]
    no_direct: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Send a text to a user, to several (bob,carol), or to everybody else (*).
    Msg(Msg),
    /// Fetch files and folders of the server; each is saved as client_NAME. The same line again
    /// goes on where it was broken off.
    Download(Download),
    /// Send files and folders to the server. The same line again goes on where it was broken off.
    Upload(Upload),
    /// Send files and folders to another user, who is asked first. The same line again goes on
    /// where it was broken off.
    Send(passing::Send),
    /// Take what others send, as --accept says, until Ctrl-C. It is saved here as SENDER_NAME.
    Receive(passing::Receive),
    /// Run a command on the server, with its input, outputs and exit code here.
    Run(Run),
    /// List the users that are here.
    Who(passing::Who),
    /// List a folder of the server.
    Ls {
        /// The folder, relative to what the server shares.
        #[arg(value_name = "DIR")]
        path: Option<OsString>,
    },
    /// Get the same text back.
    Echo {
        /// Any text.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        text: Vec<String>,
    },
    /// Show what the programs do: a server and clients on this machine, each step checked. Stands
    /// alone: `client tour`.
    Tour,
    /// Be an edge device: measure by a command and upload it, or ask for one thing.
    #[command(subcommand)]
    Device(DeviceVerb),
    /// Tell how the server and its host do: name, system, load, memory, disks, addresses, sessions.
    Info,
    /// Watch the server: one screen of facts, painted again and again; q or Ctrl-C ends it.
    ///
    /// With --json, or where standard output is no terminal, it is one object a line.
    Top(watching::Top),
    /// Measure round trips to the server by each family that its host has, or let it ping HOST.
    Ping(watching::Ping),
    /// List the addresses of the server's host.
    Ip,
    /// Tell the name of the server's host.
    Name,
    /// Tell how full the memory of the server's host is.
    Ram,
    /// Tell the operating system of the server's host.
    Os,
    /// Tell how busy the processors of the server's host are.
    Cpu,
    /// End all sessions of the server, and let it listen again.
    Reset,
    /// Stop the server.
    Kill,
    /// Forget the key of a server: the next connection takes the one that it then has.
    Forget {
        /// HOST:PORT, or [IPV6]:PORT; without a port it is that of --port.
        #[arg(value_name = "SERVER")]
        server: String,
    },
    #[command(flatten)]
    Manual(Manual),
}

#[derive(Debug, Args)]
struct Msg {
    /// Wait until it is delivered, and say so.
    #[arg(long)]
    receipt: bool,
    /// Wait for that at most so long, as in 5s or 500ms.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    timeout: Duration,
    /// The users, with commas between them; * is everybody else.
    to: String,
    /// The text; several words are put together with spaces. - alone is standard input. Behind --
    /// all is text, also what looks like an option.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    text: Vec<String>,
}

#[derive(Debug, Args)]
struct Download {
    /// Save it under this name; - is standard output.
    #[arg(short, long, value_name = "NAME")]
    output: Option<PathBuf>,
    /// At most so many bytes a second, as in 500k, 5M or 1G.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    limit: Option<u64>,
    /// Take FILE as it is: *, ? and [ stand for themselves. Without it a name that is there is
    /// taken first.
    #[arg(long)]
    literal: bool,
    /// The files and folders, relative to what the server shares; quoted, '*.txt' is looked up
    /// there.
    #[arg(required = true, value_name = "FILE")]
    paths: Vec<OsString>,
}

#[derive(Debug, Args)]
struct Upload {
    /// The folder on the server, relative to what it shares; made if it is not there. For
    /// standard input, the name of the file.
    #[arg(long, value_name = "DIR")]
    to: Option<OsString>,
    /// At most so many bytes a second, as in 500k, 5M or 1G.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    limit: Option<u64>,
    /// The files and folders; - is standard input, whose name is that after --to.
    #[arg(required = true, value_name = "FILE")]
    paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct Run {
    /// End the command after so long, as in 5s or 2m.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    timeout: Option<Duration>,
    /// Leave standard input alone; the command finds its own empty.
    #[arg(short = 'n', long)]
    no_input: bool,
    /// Print to a terminal whatever comes. Without it, what is more than colours and moving the
    /// cursor is spelled out there; files and pipes get every byte in any case.
    #[arg(long)]
    raw: bool,
    /// The command. One word is a line for the shell, as in 'ls | wc -l'; several are a program
    /// and its arguments, which it gets exactly as they are here.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Reads the arguments.
///
/// # Errors
/// What to print and whether that was asked for (`--help`, `--version`) or is a complaint in one
/// line.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    login_name: Option<&str>,
    random: u64,
) -> Result<Plan, Told> {
    let arguments = options::unfold(arguments.into_iter().collect(), &Arguments::command());
    let parsed = Arguments::try_parse_from(&arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            Told::Asked(error.render().to_string())
        }
        _ => Told::Wrong(whole::one_line(&error, &Arguments::command())),
    })?;
    if let Some(Verb::Manual(manual)) = &parsed.verb {
        return Err(manual.print(Arguments::command()).map_or_else(Told::Wrong, Told::Asked));
    }
    let words = arguments.iter().skip(1).map(|word| quote_shown(word));
    let again = ["client".to_owned()].into_iter().chain(words);
    let again = again.collect::<Vec<_>>().join(" ");
    let is_plain = !arguments.iter().any(|word| word == "--");
    let is_dash = matches!(&parsed.verb, Some(Verb::Msg(msg)) if msg.text == ["-"]);
    let is_raw = matches!(&parsed.verb, Some(Verb::Run(run)) if run.raw);
    let text_is_input = is_dash && is_plain;
    let line = CommandLine { again, is_plain, is_raw, text_is_input };
    plan(parsed, login_name, random, &line).map_err(Told::Wrong)
}

/// Text for the user instead of a plan.
#[derive(Debug, Eq, PartialEq)]
pub enum Told {
    /// What was asked for: for standard output, exit code 0.
    Asked(String),
    /// One line for standard error, exit code 2.
    Wrong(String),
}

fn plan(
    arguments: Arguments,
    login_name: Option<&str>,
    random: u64,
    line: &CommandLine,
) -> Result<Plan, String> {
    let (watch, pings) = match &arguments.verb {
        Some(Verb::Top(top)) => (Some(watching::watch(top)?), None),
        Some(Verb::Ping(watching::Ping { host: None, count, interval })) => {
            let interval_ms = interval.as_millis() as u64;
            (None, Some(Pings { count: *count, interval_ms }))
        }
        _ => (None, None),
    };
    let forget = match &arguments.verb {
        Some(Verb::Forget { server }) => {
            let key = ServerKey::parse(server, arguments.port);
            Some(key.map_err(|why| format!("SERVER: {why}"))?)
        }
        _ => None,
    };
    let protection = match (arguments.ca, arguments.plaintext, arguments.tls) {
        (Some(path), ..) => Protection::Authorities(path),
        (None, true, _) => Protection::Plaintext,
        (None, false, true) => Protection::Tls,
        (None, false, false) => Protection::Usual,
    };
    let has_rules = arguments.accept.is_some();
    let (device, orders) = match arguments.verb {
        Some(Verb::Device(verb)) if verb.needs_user() && arguments.user.is_none() => {
            return Err("--user NAME is needed: a device is known by its name".to_owned());
        }
        Some(Verb::Device(verb)) => {
            let (device, orders) = verb.plan(random, arguments.udp_port);
            (device, Some(orders))
        }
        Some(verb) => (None, Some(orders_of(verb, has_rules, line)?)),
        None => (None, None),
    };
    let random = passing::stable_number(orders.as_deref()).unwrap_or(random);
    let account = arguments.user.or_else(|| login_name.and_then(Name::parse));
    let user = match (arguments.user, &orders) {
        (Some(user), _) => user,
        (None, Some(_)) => passing::passing_name(login_name, random),
        (None, None) => login_name.and_then(Name::parse).ok_or_else(|| {
            format!("--user NAME is needed, since $USER is no user name here; {NAME_RULE}")
        })?,
    };
    let goes_out = |order: &Order| matches!(order, Order::Download { target: Target::Stdout, .. });
    if arguments.json && orders.iter().flatten().any(goes_out) {
        return Err("--json and -o - cannot both have standard output".to_owned());
    }
    Ok(Plan {
        host: arguments.ip,
        port: arguments.port,
        user,
        account,
        password_file: arguments.password_file,
        connect_timeout: arguments.connect_timeout,
        protection,
        state: arguments.state,
        forget,
        json: arguments.json,
        quiet: arguments.quiet,
        verbose: arguments.verbose,
        raw: line.is_raw,
        text_from_input: line.text_is_input,
        accept: arguments.accept.unwrap_or_default().treating(arguments.replacing.existing()),
        udp_port: (!arguments.no_direct).then_some(arguments.udp_port.unwrap_or(0)),
        orders,
        device,
        watch,
        pings,
    })
}

fn orders_of(verb: Verb, has_rules: bool, line: &CommandLine) -> Result<Vec<Order>, String> {
    let again = &line.again;
    let ask = |question| vec![Order::Call(Call::Host(HostCall::Ask(question)))];
    Ok(match verb {
        Verb::Msg(msg) => vec![message(msg, line)?],
        Verb::Download(it) => vec![download(it, again)?],
        Verb::Upload(it) => vec![upload(it, again)?],
        Verb::Send(it) => vec![passing::send(it, again)?],
        Verb::Receive(it) => vec![passing::receive(it, has_rules)?],
        Verb::Run(run) => vec![command(run)?],
        Verb::Who(it) => vec![Order::Who { long: it.long }],
        Verb::Ls { path } => vec![Order::List { path: folder(path)? }],
        Verb::Echo { text } => {
            line.check_text(&text, &Arguments::command())?;
            vec![Order::Call(Call::Echo { text: limited("TEXT", text.join(" "))?.into() })]
        }
        Verb::Tour => {
            return Err("tour stands alone, without options: `client tour`".to_owned());
        }
        Verb::Device(_) => unreachable!("devices have plans of their own"),
        Verb::Info => ask(Question::Info { interval_ms: INFO_INTERVAL_MS }),
        Verb::Ping(watching::Ping { host: Some(host), .. }) => {
            vec![Order::Call(Call::Host(HostCall::Ping { host }))]
        }
        // These have no orders, but a way of their own.
        Verb::Top(_) | Verb::Ping(_) => Vec::new(),
        Verb::Ip => ask(Question::Addresses),
        Verb::Name => ask(Question::Name),
        Verb::Ram => ask(Question::Memory),
        Verb::Os => ask(Question::System),
        Verb::Cpu => ask(Question::Processor),
        Verb::Reset => vec![Order::Call(Call::Host(HostCall::Reset))],
        Verb::Kill => vec![Order::Call(Call::Host(HostCall::Kill))],
        Verb::Forget { .. } | Verb::Manual(_) => Vec::new(),
    })
}

fn message(msg: Msg, line: &CommandLine) -> Result<Order, String> {
    line.check_text(&msg.text, &Arguments::command())?;
    let text = limited("TEXT", msg.text.join(" "))?;
    if text.trim().is_empty() {
        return Err("TEXT is empty; a message has at least one character".to_owned());
    }
    let everybody = msg.to == "*";
    let good = |name: &str| Name::parse(name.trim()).is_some();
    if msg.to.len() > RECIPIENTS_MAX_BYTES || !everybody && !msg.to.split(',').all(good) {
        let to = crate::wire::escape::escape(&msg.to);
        return Err(format!("TO is {to:?}; it takes a name, names with commas, or *; {NAME_RULE}"));
    }
    if msg.receipt && everybody {
        return Err("--receipt needs named users: nobody knows who * will be".to_owned());
    }
    let receipt_ms = msg.receipt.then_some(msg.timeout.as_millis() as u64);
    Ok(Order::Message { to: msg.to, text, receipt_ms })
}

fn download(download: Download, again: &str) -> Result<Order, String> {
    let is_several = download.paths.len() > 1;
    if download.output.is_some() && is_several {
        return Err("-o NAME goes with one FILE only".to_owned());
    }
    let mut paths: Vec<Vec<u8>> = Vec::new();
    for path in download.paths {
        let path = trim_slash(&path.into_vec()).to_vec();
        let shown = crate::wire::escape::escape_bytes(&path).into_owned();
        SharePath::parse(&path).map_err(|fault| format!("FILE {shown}: {fault}"))?;
        paths.push(path);
    }
    refuse_same_targets(&paths)?;
    if download.literal {
        paths.iter_mut().for_each(|path| *path = crate::transfer::glob::escape(path));
    }
    let target = match download.output {
        None => Target::Beside,
        Some(output) => Target::named(output),
    };
    Ok(Order::Download { paths, target, limit: download.limit, again: again.to_owned() })
}

fn upload(upload: Upload, again: &str) -> Result<Order, String> {
    let mut into = match upload.to {
        None => None,
        Some(to) => folder(Some(to)).map_err(|text| text.replacen("DIR", "--to", 1))?,
    };
    let is_input = |path: &PathBuf| path.as_os_str() == "-";
    let paths = if upload.paths.iter().any(is_input) {
        let name = match (into.take(), &upload.paths[..]) {
            (Some(name), [_]) => name,
            (None, _) => return Err("standard input needs a name: upload - --to NAME".to_owned()),
            _ => return Err("standard input goes alone".to_owned()),
        };
        let cut = memchr::memrchr(b'/', &name);
        into = cut.map(|cut| name[..cut].to_vec());
        vec![Local::Input(name[cut.map_or(0, |cut| cut + 1)..].to_vec())]
    } else {
        upload.paths.into_iter().map(Local::Path).collect()
    };
    refuse_same_names(&paths)?;
    Ok(Order::Upload { paths, into, limit: upload.limit, again: again.to_owned() })
}

fn command(run: Run) -> Result<Order, String> {
    let command = match &run.command[..] {
        [line] => line.clone(),
        words => words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" "),
    };
    if command.trim().is_empty() {
        return Err("COMMAND is empty; name what to run".to_owned());
    }
    if command.len() > COMMAND_MAX_BYTES {
        return Err(format!("COMMAND may have {COMMAND_MAX_BYTES} bytes"));
    }
    let timeout_ms = run.timeout.map_or(0, |timeout| timeout.as_millis() as u64);
    Ok(Order::Run { command, stdin: !run.no_input, timeout_ms })
}

/// The word as the shell has to see it to take it as it is.
fn folder(path: Option<OsString>) -> Result<Option<Vec<u8>>, String> {
    let mut path = path.unwrap_or_default().into_vec();
    if path.len() > 1 && path.ends_with(b"/") {
        path.pop();
    }
    if matches!(&path[..], b"" | b"." | b"/") {
        return Ok(None);
    }
    let shown = crate::wire::escape::escape_bytes(&path).into_owned();
    SharePath::parse(&path).map_err(|fault| format!("DIR {shown}: {fault}"))?;
    Ok(Some(path))
}

fn limited(what: &str, text: String) -> Result<String, String> {
    match text.len() > TEXT_MAX_BYTES {
        true => Err(format!("{what} has {} bytes; it may have {TEXT_MAX_BYTES}", text.len())),
        false => Ok(text),
    }
}

fn parse_ping_host(text: &str) -> Result<PingHost, &'static str> {
    PingHost::parse(text).ok_or("a host is an IPv4 or IPv6 address, fe80::1%eth0, or a host name")
}

fn parse_name(text: &str) -> Result<Name, String> {
    Name::parse(text).ok_or_else(|| NAME_RULE.to_owned())
}

/// `5s`, `500ms`, `1.5m`, `2h`; a number alone is seconds. At least a millisecond.
pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    let rule = || "a time is a number with ms, s, m or h, as in 500ms or 1.5m".to_owned();
    let cut = text.find(|char: char| char.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(cut);
    let number: f64 = number.parse().map_err(|_| rule())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(rule()),
    };
    // A month; what is longer is a slip of the keyboard.
    match (0.001..=2_592_000.0).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err("a time is 1ms to 720h".to_owned()),
    }
}

/// `500k`, `5M`, `1.5G`: powers of 1000; a number alone is bytes. At least 1.
fn parse_rate(text: &str) -> Result<u64, String> {
    let rule = || "a rate is a number of bytes with k, M or G, as in 500k or 1.5M".to_owned();
    let cut = text.find(|char: char| char.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(cut);
    let number: f64 = number.parse().map_err(|_| rule())?;
    let bytes = match unit {
        "" => number,
        "k" | "K" => number * 1e3,
        "M" => number * 1e6,
        "G" => number * 1e9,
        _ => return Err(rule()),
    };
    match (1.0..=1e15).contains(&bytes) {
        true => Ok(bytes as u64),
        false => Err("a rate is at least 1 byte a second".to_owned()),
    }
}

#[cfg(test)]
mod tests;
