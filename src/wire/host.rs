//! The host commands: questions about the server's machine, and orders to the server itself.

use std::{borrow::Cow, fmt};

use core::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    Call, Refusal,
    check::{self, Borrowed},
    error::ErrorCode::BadArguments,
};
use crate::limits::{INFO_INTERVAL_MAX_MS, INFO_INTERVAL_MIN_MS, INFO_INTERVAL_MS};

/// What can be asked of the host and of the server on it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(remote = "Self", tag = "op", rename_all = "kebab-case")]
pub enum HostCall<'a> {
    /// Let the host ping another one, a few times.
    Ping {
        /// Which.
        host: PingHost,
    },
    /// Which Python the host has.
    PythonVersion,
    /// Run a command under another interpreter than `/bin/sh`.
    #[serde(rename = "run", serialize_with = "put_script", skip_deserializing)]
    Script {
        /// Which.
        interpreter: Interpreter,
        /// As the interpreter gets it.
        command: Cow<'a, str>,
        /// Standard input follows in input requests; else it is empty.
        stdin: bool,
        /// The command may take so long, in milliseconds; 0 is no limit.
        timeout_ms: u64,
    },
    /// What clears a terminal.
    Clear,
    /// End this session.
    Disconnect,
    /// End every session, and listen again.
    Reset,
    /// Stop the server.
    Kill,
    /// A question, answered by a text or by an object. It has an op of its own.
    #[serde(skip)]
    Ask(Question),
}

impl Serialize for HostCall<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            HostCall::Ask(question) => question.serialize(serializer),
            own => HostCall::serialize(own, serializer),
        }
    }
}

impl HostCall<'_> {
    /// The same, borrowed from nothing.
    pub fn into_owned(self) -> HostCall<'static> {
        match self {
            HostCall::Script { interpreter, command, stdin, timeout_ms } => {
                let command = Cow::Owned(command.into_owned());
                HostCall::Script { interpreter, command, stdin, timeout_ms }
            }
            HostCall::Ask(question) => HostCall::Ask(question),
            HostCall::Ping { host } => HostCall::Ping { host },
            HostCall::PythonVersion => HostCall::PythonVersion,
            HostCall::Clear => HostCall::Clear,
            HostCall::Disconnect => HostCall::Disconnect,
            HostCall::Reset => HostCall::Reset,
            HostCall::Kill => HostCall::Kill,
        }
    }
}

/// A question about the host.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Question {
    /// The addresses of its interfaces, both families.
    #[serde(rename = "ip")]
    Addresses,
    /// Its name.
    Name,
    /// Its memory.
    #[serde(rename = "ram")]
    Memory,
    /// Its operating system.
    #[serde(rename = "os")]
    System,
    /// How busy its processors are.
    #[serde(rename = "cpu")]
    Processor,
    /// Whether the server is there.
    #[serde(rename = "ping")]
    Pong,
    /// All of it: see [`super::info::Info`].
    Info {
        /// What is a rate is measured for so long, in milliseconds: [`INFO_INTERVAL_MIN_MS`] to
        /// [`INFO_INTERVAL_MAX_MS`].
        #[serde(default = "usual_interval_ms", deserialize_with = "read_interval")]
        interval_ms: u32,
    },
}

/// What runs a command.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpreter {
    /// `/bin/sh`, as `run` has it.
    Linux,
    /// The command interpreter of Windows, here or by way of Wine.
    Dos,
    /// PowerShell.
    PowerShell,
}

/// The host of a ping: an address of either family or a host name, never an option.
#[derive(Clone, Eq, PartialEq)]
pub struct PingHost(String);

/// The longest host name (RFC 1123, section 2.1), and the longest part of one.
const HOST_MAX_BYTES: usize = 253;
const LABEL_MAX_BYTES: usize = 63;
/// The longest name of a network interface (`IFNAMSIZ` less the NUL, netdevice(7)).
const ZONE_MAX_BYTES: usize = 15;

impl PingHost {
    /// Reads an IPv4 or IPv6 literal, `[v6]`, `fe80::1%eth0`, or a host name of letters, digits,
    /// hyphens, underscores and dots; `None` where it is none of these.
    pub fn parse(text: &str) -> Option<PingHost> {
        let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_good = match inner {
            Some(inner) => is_v6(inner),
            None => is_v6(text) || text.parse::<Ipv4Addr>().is_ok() || is_name(text),
        };
        is_good.then(|| PingHost(inner.unwrap_or(text).to_owned()))
    }

    /// The same for a peer that has named it.
    ///
    /// # Errors
    /// It is none.
    pub fn check(text: &str) -> Result<PingHost, Refusal> {
        PingHost::parse(text).ok_or_else(|| {
            let text = "a host is an IPv4 or IPv6 address, fe80::1%eth0, or a host name of \
                        letters, digits, hyphens, underscores and dots; write `ping HOST`";
            Refusal::new(0, BadArguments, text)
        })
    }

    /// As a program gets it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is an IPv6 literal.
    pub fn is_v6(&self) -> bool {
        self.0.contains(':')
    }
}

impl Serialize for PingHost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PingHost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PingHost, D::Error> {
        let Borrowed(text) = Borrowed::deserialize(deserializer)?;
        PingHost::check(&text).map_err(check::carried)
    }
}

impl fmt::Debug for PingHost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

fn is_v6(text: &str) -> bool {
    let (literal, zone) = text.split_once('%').map_or((text, None), |(a, b)| (a, Some(b)));
    let is_word = |zone: &str| {
        (1..=ZONE_MAX_BYTES).contains(&zone.len())
            && zone.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    literal.parse::<Ipv6Addr>().is_ok() && zone.is_none_or(is_word)
}

/// A name that ends in a number is none: it is a mistyped address, or one in a form that nobody
/// means today.
fn is_name(text: &str) -> bool {
    let bare = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=LABEL_MAX_BYTES).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let last = bare.rsplit('.').next().unwrap_or(bare);
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    bare.len() <= HOST_MAX_BYTES && bare.split('.').all(is_label) && !is_number
}

/// A command as programs name it: in JSON and in frames.
#[derive(Deserialize, Serialize)]
pub(super) struct Run<'a> {
    /// As the interpreter gets it.
    #[serde(borrow)]
    pub command: Cow<'a, str>,
    #[serde(default)]
    stdin: bool,
    #[serde(default)]
    timeout_ms: u64,
    /// Absent for `/bin/sh`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<Interpreter>,
}

impl<'a> Run<'a> {
    /// The call for it, if the command can be one.
    pub fn check(self) -> Result<Call<'a>, Refusal> {
        let Run { command, stdin, timeout_ms, interpreter } = self;
        if command.trim().is_empty() {
            return Err(Refusal::new(0, BadArguments, "the command is empty"));
        }
        let interpreter = interpreter.unwrap_or(Interpreter::Linux);
        Ok(script(interpreter, check::command(command)?, stdin, timeout_ms))
    }
}

fn put_script<S: Serializer>(
    interpreter: &Interpreter,
    command: &str,
    stdin: &bool,
    timeout_ms: &u64,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let (command, interpreter) = (Cow::Borrowed(command), Some(*interpreter));
    Run { command, stdin: *stdin, timeout_ms: *timeout_ms, interpreter }.serialize(serializer)
}

/// The call for a command under an interpreter. What `/bin/sh` runs is a `run` like any other.
pub(super) fn script(
    interpreter: Interpreter,
    command: Cow<'_, str>,
    stdin: bool,
    timeout_ms: u64,
) -> Call<'_> {
    match interpreter {
        Interpreter::Linux => Call::Run { command, stdin, timeout_ms },
        Interpreter::Dos | Interpreter::PowerShell => {
            Call::Host(HostCall::Script { interpreter, command, stdin, timeout_ms })
        }
    }
}

/// The interpreter that a command names by its prefix, as in `PowerShell:Get-Date`, and what is
/// left for it; `None` where it names none.
pub fn split_interpreter(command: &str) -> Option<(Interpreter, &str)> {
    let (word, rest) = command.trim_ascii_start().split_once(':')?;
    let interpreter = match word {
        _ if word.eq_ignore_ascii_case("linux") => Interpreter::Linux,
        _ if word.eq_ignore_ascii_case("dos") => Interpreter::Dos,
        _ if word.eq_ignore_ascii_case("powershell") => Interpreter::PowerShell,
        _ => return None,
    };
    Some((interpreter, rest.trim_ascii_start()))
}

fn usual_interval_ms() -> u32 {
    INFO_INTERVAL_MS
}

fn read_interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let interval_ms = u32::deserialize(deserializer)?;
    if !(INFO_INTERVAL_MIN_MS..=INFO_INTERVAL_MAX_MS).contains(&interval_ms) {
        let text =
            format!("an interval is {INFO_INTERVAL_MIN_MS} to {INFO_INTERVAL_MAX_MS} milliseconds");
        return Err(check::carried(Refusal::new(0, BadArguments, text)));
    }
    Ok(interval_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_or_a_name_and_never_an_option() {
        for good in [
            "127.0.0.1",
            "::1",
            "2001:db8::7",
            "fe80::1%eth0",
            "localhost",
            "my_host-1.example.org.",
            "3com.example",
            "xn--bcher-kva.example",
        ] {
            assert_eq!(PingHost::parse(good).expect(good).as_str(), good);
        }
        assert_eq!(PingHost::parse("[::1]").expect("brackets").as_str(), "::1");
        let (long, label) = ("a.".repeat(127), "a".repeat(64));
        for bad in [
            "",
            " ",
            "-c",
            "--help",
            "-1.example",
            "a b",
            "a;b",
            "$(id)",
            "`id`",
            "a|b",
            "a\nb",
            "..",
            ".",
            "a..b",
            "a-.b",
            "127.1",
            "300.1.1.1",
            "0x7f000001",
            "[127.0.0.1]",
            "[::1",
            "::1%",
            "::1%a b",
            "::1%-;",
            "::1%0123456789abcdef",
            "127.0.0.1%lo",
            "1::2::3",
            "m\u{fc}ller",
            "a/b",
            "a:80",
            &format!("{long}bcd"),
            &label,
        ] {
            assert_eq!(PingHost::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_interpreter_is_named_in_any_case() {
        for (command, interpreter, rest) in [
            ("Linux:ls | wc", Interpreter::Linux, "ls | wc"),
            ("DOS: dir", Interpreter::Dos, "dir"),
            (" powershell:Get-Date", Interpreter::PowerShell, "Get-Date"),
        ] {
            assert_eq!(split_interpreter(command), Some((interpreter, rest)));
        }
        for none in ["ls", "echo Linux:ls", "windows:dir", "linux ls", ""] {
            assert_eq!(split_interpreter(none), None, "{none:?}");
        }
    }
}
