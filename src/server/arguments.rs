//! The command line of the server.

use std::path::PathBuf;

use clap::{Parser, error::ErrorKind};

use crate::sys::listen::Families;

/// Serves messages, files and commands between named peers, over IPv6 and IPv4 on one port.
///
/// Two sockets are opened, one on [::] for IPv6 and one on 0.0.0.0 for IPv4; a host that has only
/// one of the two is served on that one. Ctrl-C and SIGTERM stop the server.
///
/// Only connections from this machine are served, but from any of its accounts: each may read the
/// shared folder, and run commands as the account that started the server.
#[derive(Debug, Parser)]
#[command(name = "server", version, disable_help_subcommand = true)]
pub struct Arguments {
    /// The TCP port to listen on, 0 for any free one [default: 5000]; `server 5000` says the same
    #[arg(long, short, value_name = "PORT", conflicts_with = "positional_port",
          value_parser = parse_port)]
    port: Option<u16>,

    #[arg(value_name = "PORT", hide = true, value_parser = parse_port)]
    positional_port: Option<u16>,

    /// The folder that is shared, and in which commands begin
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub root: PathBuf,

    /// Where the files and the logs of devices lie [default: the working directory]
    ///
    /// One server at a time works in it. Without this option the folder is opened only once a
    /// device has something to do, or where devices have left their logs.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Listen on IPv6 alone
    #[arg(long, conflicts_with = "ipv4_only")]
    ipv6_only: bool,

    /// Listen on IPv4 alone
    #[arg(long)]
    ipv4_only: bool,

    /// Log more to stderr; -vv logs every session
    #[arg(long, short, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Log only what went wrong
    #[arg(long, short, conflicts_with = "verbose")]
    pub quiet: bool,
}

/// The port that clients try too.
pub const PORT_DEFAULT: u16 = 5000;

impl Arguments {
    /// The port to listen on.
    pub fn port(&self) -> u16 {
        self.port.or(self.positional_port).unwrap_or(PORT_DEFAULT)
    }

    /// The address families to listen on.
    pub fn families(&self) -> Families {
        match (self.ipv6_only, self.ipv4_only) {
            (true, _) => Families::V6Only,
            (_, true) => Families::V4Only,
            _ => Families::Both,
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
        one_line(&Arguments::try_parse_from(words).expect_err(line))
    }

    #[test]
    fn a_bad_argument_is_named_with_what_is_valid() {
        for (line, named) in [
            ("--port x", "invalid value 'x' for '--port <PORT>': a port is a whole number"),
            ("65536", "invalid value '65536' for '[PORT]': a port is a whole number"),
            ("5000 3", "unexpected argument '3' found; `server --help` lists what is valid"),
            ("--bogus", "unexpected argument '--bogus' found; `server --help`"),
            ("--root", "a value is required for '--root <DIR>'"),
            ("--ipv6-only --ipv4-only", "'--ipv6-only' cannot be used with '--ipv4-only'"),
        ] {
            let told = complaint(line);
            assert!(told.contains(named) && !told.contains("tip"), "{line}: {told}");
            assert!(!told.starts_with("error") && !told.contains('\n'), "{line}: {told}");
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
