//! The command line of the server.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, error::ErrorKind};

use super::{credentials::DEFAULT_PATH, edge::DataChoice};
use crate::{
    hub::rights::{Right, Rights},
    limits::{LOGIN_ATTEMPTS_DEFAULT, LOGIN_ATTEMPTS_MAX, OPEN_QUOTA_DEFAULT_BYTES},
    manual::Manual,
    sys::{identity::Source, listen::Families, state},
    wire::{Name, name::NAME_RULE},
};

/// Serves messages, files and commands between named peers, over IPv6 and IPv4 on one port.
///
/// Two sockets are opened, one on [::] for IPv6 and one on 0.0.0.0 for IPv4; a host that has only
/// one of the two is served on that one. Ctrl-C and SIGTERM stop the server.
///
/// Without a credentials file the server is in protected mode: it serves the account that runs it,
/// and root, from this machine alone. `server passwd NAME` makes the file and adds users to it.
///
/// From other machines TLS is demanded, on the same port. The server makes its key at its first
/// start; clients know it by the fingerprint that the server prints.
#[derive(Debug, Parser)]
#[command(
    name = "server",
    version,
    disable_help_subcommand = true,
    args_conflicts_with_subcommands = true
)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// The TCP port to listen on, 0 for any free one [default: 5000]; `server 5000` says the same
    #[arg(long, short, value_name = "PORT", conflicts_with = "positional_port",
          value_parser = parse_port)]
    port: Option<u16>,

    #[arg(value_name = "PORT", hide = true, value_parser = parse_port)]
    positional_port: Option<u16>,

    /// Failed logins in a row that block a name for 10 s, 1 to 5 [default: 3]; `server 5000 3` says
    /// the same
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "positional_attempts",
        allow_negative_numbers = true
    )]
    attempts: Option<String>,

    #[arg(value_name = "ATTEMPTS", hide = true, allow_negative_numbers = true)]
    positional_attempts: Option<String>,

    /// Serve those whom this file names, with their passwords, from anywhere; a line is
    /// `name password [rights]` [default: credentials.txt, if it is there]
    ///
    /// The password stands there in plain or as `server passwd` writes it. The rights are words
    /// with commas between them: message, files, upload, edge (these four unless any are named),
    /// run, admin. SIGHUP has the file read again.
    #[arg(long, value_name = "FILE")]
    pub credentials: Option<PathBuf>,

    /// Serve anybody, with the rights message, files and edge, but not run, upload and admin
    #[arg(long, conflicts_with = "credentials")]
    pub open: bool,

    /// With --open: bytes that the files of devices may take together; 64M is 64 million
    #[arg(long, value_name = "SIZE", requires = "open", value_parser = parse_size,
          default_value_t = OPEN_QUOTA_DEFAULT_BYTES, hide_default_value = true)]
    pub open_quota: u64,

    /// Give these rights to everybody who is served: run, or upload,run
    #[arg(long, value_name = "RIGHT,...", value_parser = parse_rights)]
    pub grant: Option<Rights>,

    /// Serve other machines without TLS too: everybody on the way can read passwords and all else
    #[arg(long)]
    pub plaintext: bool,

    /// Look owners of connections up in /proc, where the kernel's sock_diag tells nonsense
    #[arg(long, hide = true)]
    pub no_sock_diag: bool,

    /// The folder that is shared, and in which commands begin [default: the working directory]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,

    /// Where the files and the logs of devices lie, which are never shared [default: data in the
    /// working directory, made when a device needs it]
    ///
    /// One server at a time works in it. Without this option the folder is opened only once a
    /// device has something to do, or where devices have left their logs. `server 5000 3` keeps
    /// them in the working directory itself, and then shares nothing of it: --root names another
    /// folder to share.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Let commands have this variable of the server's environment too; may be given several times
    ///
    /// Without it they get HOME, USER, LOGNAME, SHELL, PATH, TZ, LANG, LANGUAGE and LC_* alone.
    #[arg(long, value_name = "NAME", value_parser = parse_variable)]
    pub command_env: Vec<String>,

    /// Listen on IPv6 alone
    #[arg(long, conflicts_with = "ipv4_only")]
    ipv6_only: bool,

    /// Listen on IPv4 alone
    #[arg(long)]
    ipv4_only: bool,

    /// The state folder, where the server's key is made at its first start [default:
    /// $STATE_DIRECTORY, or sixfour in $XDG_STATE_HOME, or ~/.local/state/sixfour]
    #[arg(long, value_name = "DIR", global = true)]
    state: Option<PathBuf>,

    /// A certificate in PEM form for TLS, with those that lead to its authority behind it; SIGHUP
    /// reads it again. Without it the server makes its own key, which clients pin
    #[arg(long, value_name = "FILE", requires = "key", global = true)]
    cert: Option<PathBuf>,

    /// The private key of the certificate, in PEM form
    #[arg(long, value_name = "FILE", requires = "cert", global = true)]
    key: Option<PathBuf>,

    /// Log more to stderr; -vv logs every session
    #[arg(long, short, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Log only what went wrong
    #[arg(long, short, conflicts_with = "verbose")]
    pub quiet: bool,
}

/// What the program does instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a user to the credentials file, or give one another password.
    ///
    /// Asks for the password twice at a terminal, or takes one line from standard input. It is
    /// kept as an argon2id hash. A new file can be read by its owner alone; the other lines stay
    /// as they are. A running server reads the file again on SIGHUP.
    Passwd(Passwd),
    /// Show the fingerprint of the server's key, by which clients know it.
    Fingerprint,
    #[command(flatten)]
    Manual(Manual),
}

/// Whose password, and where it is kept.
#[derive(Args, Debug)]
pub struct Passwd {
    /// The user: 1 to 32 of A-Z a-z 0-9 _ . -
    #[arg(value_name = "NAME", value_parser = parse_name)]
    pub name: Name,

    /// What the user may do: message, files, upload, edge, run, admin, with commas between them
    /// [default: what the user has; message,files,upload,edge for a new one]
    #[arg(long, value_name = "RIGHT,...", value_parser = parse_rights)]
    pub rights: Option<Rights>,

    /// The credentials file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub credentials: PathBuf,
}

/// The port that clients try too.
pub const PORT_DEFAULT: u16 = 5000;

impl Arguments {
    /// The port to listen on.
    pub fn port(&self) -> u16 {
        self.port.or(self.positional_port).unwrap_or(PORT_DEFAULT)
    }

    /// Checks what stands by itself in no form of its own.
    ///
    /// # Errors
    /// The number of attempts is none.
    pub fn checked(self) -> Result<Arguments, clap::Error> {
        match self.attempts_text() {
            Some(text) if parse_attempts(text).is_none() => {
                let text = format!(
                    "Invalid number of allowed failed consecutive attempts: {text}. The valid \
                     value of argument number is an integer between 1 and {LOGIN_ATTEMPTS_MAX}"
                );
                Err(clap::Error::raw(ErrorKind::ValueValidation, text))
            }
            _ => Ok(self),
        }
    }

    fn attempts_text(&self) -> Option<&str> {
        self.attempts.as_deref().or(self.positional_attempts.as_deref())
    }

    /// Failed logins in a row that block a name.
    pub fn attempts(&self) -> u8 {
        self.attempts_text().and_then(parse_attempts).unwrap_or(LOGIN_ATTEMPTS_DEFAULT)
    }

    /// The address families to listen on.
    pub fn families(&self) -> Families {
        match (self.ipv6_only, self.ipv4_only) {
            (true, _) => Families::V6Only,
            (_, true) => Families::V4Only,
            _ => Families::Both,
        }
    }

    /// The folder that is shared.
    pub fn root(&self) -> &Path {
        self.root.as_deref().unwrap_or(Path::new("."))
    }

    /// Where the files and logs of devices are.
    pub fn data(&self) -> DataChoice<'_> {
        match &self.data {
            Some(folder) => DataChoice::Named(folder),
            None if self.positional_attempts.is_some() => DataChoice::WorkingFolder,
            None => DataChoice::OwnFolder,
        }
    }

    /// Where the server's key is.
    ///
    /// # Errors
    /// There is no place for it; a sentence.
    pub fn key_source(&self) -> Result<Source, String> {
        match (&self.cert, &self.key) {
            (Some(certificates), Some(key)) => {
                Ok(Source::Files { certificates: certificates.clone(), key: key.clone() })
            }
            (Some(_), None) => Err("--cert needs --key FILE, the private key of it".to_owned()),
            (None, _) => state::of_server(self.state.as_deref()).map(Source::State),
        }
    }

    /// How much is logged.
    pub fn log_level(&self) -> log::LevelFilter {
        match (self.quiet, self.verbose) {
            (true, _) => log::LevelFilter::Error,
            (false, 0) => log::LevelFilter::Info,
            (false, 1) => log::LevelFilter::Debug,
            (false, _) => log::LevelFilter::Trace,
        }
    }
}

fn parse_port(text: &str) -> Result<u16, &'static str> {
    text.parse().map_err(|_| "a port is a whole number from 0 to 65535")
}

/// `500k`, `64M`, `2G`: powers of 1000; a number alone is bytes.
fn parse_size(text: &str) -> Result<u64, &'static str> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 1000),
        Some((at, 'M')) => (&text[..at], 1_000_000),
        Some((at, 'G')) => (&text[..at], 1_000_000_000),
        _ => (text, 1),
    };
    let number: Option<u64> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(unit))
        .ok_or("a size is a number such as 500k or 64M")
}

fn parse_attempts(text: &str) -> Option<u8> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_number);
    number.filter(|number| (1..=LOGIN_ATTEMPTS_MAX).contains(number))
}

fn parse_name(text: &str) -> Result<Name, &'static str> {
    Name::parse(text).ok_or(NAME_RULE)
}

fn parse_variable(text: &str) -> Result<String, &'static str> {
    match text {
        "" => Err("a variable has a name"),
        text if text.contains('=') => Err("a variable is given by its name, without a value"),
        text => Ok(text.to_owned()),
    }
}

fn parse_rights(text: &str) -> Result<Rights, String> {
    let all = Right::ALL.map(Right::as_str).join(", ");
    Rights::parse(text).ok_or(format!("rights are {all}, with commas between them"))
}

/// The one line that says what is wrong with an argument.
///
/// clap says it in a paragraph; scripts and people who know their way want a line.
pub fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let is_said = |line: &&str| !line.starts_with("Usage:") && !line.starts_with("For more");
    // The tip is to write `-- --bogus`, which makes nothing better here.
    let parts = lines.take_while(is_said).filter(|line| !line.starts_with("tip:"));
    let line = parts.collect::<Vec<_>>().join("; ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    // Any word behind the port may be meant as a subcommand, in the eyes of clap.
    if let Some(word) = line.strip_prefix("the subcommand ").and_then(|it| it.split(' ').next()) {
        return format!("unexpected argument {word} found; `server --help` lists what is valid");
    }
    match error.kind() {
        ErrorKind::UnknownArgument => format!("{line}; `server --help` lists what is valid"),
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(line: &str) -> String {
        let words = ["server"].into_iter().chain(line.split_whitespace());
        one_line(&parsed(words).expect_err(line))
    }

    fn parsed<'a>(words: impl Iterator<Item = &'a str>) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(words).and_then(Arguments::checked)
    }

    #[test]
    fn the_number_of_attempts_is_1_to_5_and_else_refused_in_the_words_that_were_agreed() {
        let words = |line: &'static str| ["server"].into_iter().chain(line.split(' '));
        for (line, attempts) in [("5000", 3), ("5000 1", 1), ("5000 5", 5), ("--attempts 2", 2)] {
            assert_eq!(parsed(words(line)).expect(line).attempts(), attempts, "{line}");
        }
        for bad in ["0", "6", "2.5", "-1", "x", "+3", "300", "3x"] {
            for line in [format!("5000 {bad}"), format!("--port 5000 --attempts {bad}")] {
                let told = complaint(&line);
                let wanted = format!(
                    "Invalid number of allowed failed consecutive attempts: {bad}. The valid \
                     value of argument number is an integer between 1 and 5"
                );
                assert!(told == wanted || bad == "x" && told.contains("'x'"), "{line}: {told}");
            }
        }
    }

    #[test]
    fn a_bad_argument_is_named_with_what_is_valid() {
        for (line, named) in [
            ("--port x", "invalid value 'x' for '--port <PORT>': a port is a whole number"),
            ("65536", "invalid value '65536' for '[PORT]': a port is a whole number"),
            ("5000 3 4", "unexpected argument '4' found; `server --help` lists what is valid"),
            ("--bogus", "unexpected argument '--bogus' found; `server --help`"),
            ("--root", "a value is required for '--root <DIR>'"),
            ("--ipv6-only --ipv4-only", "'--ipv6-only' cannot be used with '--ipv4-only'"),
            ("--open --credentials x", "'--open' cannot be used with '--credentials <FILE>'"),
            ("--grant fly", "invalid value 'fly' for '--grant <RIGHT,...>': rights are message"),
            ("5000 3 --attempts 3", "'[ATTEMPTS]' cannot be used with '--attempts <N>'"),
            ("--command-env A=b", "by its name, without a value"),
            ("passwd", "<NAME>"),
            ("passwd -rf", "-r"),
            ("passwd a|b", "a name is 1 to 32 of"),
            ("passwd alice --rights all", "rights are message, files"),
            ("5000 passwd alice", "unexpected argument 'alice'"),
            ("passwd alice secret", "unexpected argument 'secret'"),
        ] {
            let told = complaint(line);
            assert!(told.contains(named) && !told.contains("tip"), "{line}: {told}");
            assert!(!told.starts_with("error") && !told.contains('\n'), "{line}: {told}");
        }
    }

    #[test]
    fn files_of_devices_have_a_folder_of_their_own_but_for_the_short_form() {
        for (line, data, root) in [
            ("", DataChoice::OwnFolder, "."),
            ("5000", DataChoice::OwnFolder, "."),
            ("--attempts 3", DataChoice::OwnFolder, "."),
            ("5000 3", DataChoice::WorkingFolder, "."),
            ("5000 3 --root x", DataChoice::WorkingFolder, "x"),
            ("5000 3 --data d", DataChoice::Named(Path::new("d")), "."),
            ("--data d --root x", DataChoice::Named(Path::new("d")), "x"),
        ] {
            let words = ["server"].into_iter().chain(line.split_whitespace());
            let parsed = Arguments::try_parse_from(words).expect(line);
            assert_eq!((parsed.data(), parsed.root()), (data, Path::new(root)), "{line}");
        }
    }

    #[test]
    fn the_port_stands_behind_its_option_or_alone() {
        for (line, port) in [("--port 5001", 5001), ("5001", 5001), ("-p 0", 0), ("", 5000)] {
            let words = ["server"].into_iter().chain(line.split_whitespace());
            assert_eq!(Arguments::try_parse_from(words).expect(line).port(), port, "{line}");
        }
    }
}
