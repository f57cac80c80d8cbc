//! The arguments of the client as a device.

use std::{ffi::OsString, time::Duration};

use clap::{Args, Subcommand};

use crate::{
    client::{arguments::parse_time, core::order::Order},
    wire::{
        Call, EdgeCall,
        edge::{BAD_FILE_ID, RequestId, Statistic, parse_integer},
    },
};

/// What the client is asked to do as a device.
#[derive(Debug, Subcommand)]
pub enum DeviceVerb {
    /// Run a command again and again, and upload what it prints: integers, one a line.
    ///
    /// What cannot be uploaded at the moment waits in the state folder, and is uploaded once each
    /// when the server is back; it outlives this program. A command that fails, or prints anything
    /// else, is said, and nothing of it is kept.
    Run(RunDevice),
    /// Upload samples from standard input as a file of this device.
    Upload {
        /// The number of the file at the server; an older one is replaced.
        #[arg(value_parser = file_id)]
        file_id: u32,
    },
    /// SUM, AVERAGE, MAX or MIN over an uploaded file.
    Compute {
        /// The number of the file.
        #[arg(value_parser = file_id)]
        file_id: u32,
        /// SUM, AVERAGE, MAX or MIN.
        #[arg(value_parser = operation)]
        operation: Statistic,
    },
    /// Delete an uploaded file.
    Delete {
        /// The number of the file.
        #[arg(value_parser = file_id)]
        file_id: u32,
    },
    /// List the other active devices.
    List,
    /// `client SERVER PORT UDP_PORT`.
    #[command(hide = true)]
    Prompt {
        /// Where this device takes files from others.
        #[arg(value_parser = port)]
        udp_port: u16,
    },
}

/// `client device run`.
#[derive(Clone, Debug, Args)]
pub struct RunDevice {
    /// From the start of one run to the next, as in 10s or 500ms.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    pub every: Duration,
    /// Run it so often, upload everything, and end.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub times: Option<u64>,
    /// Store every batch as this file, over the one before.
    ///
    /// Without it each batch has a file of its own: 1, 2, 3 and so on, also after a restart.
    #[arg(long, value_name = "FILE_ID", value_parser = file_id)]
    pub file_id: Option<u32>,
    /// Where this device takes files from others, as --udp-port says; 0: nowhere.
    #[arg(skip)]
    pub udp_port: u16,
    /// The command. One word is a line for the shell, as in 'sensor | cut -f2'; several are a
    /// program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// What the client is as a device, apart from single requests.
#[derive(Clone, Debug)]
pub enum Device {
    /// At a prompt.
    Prompt {
        /// Where it takes files from others.
        udp_port: u16,
    },
    /// Measuring by a command.
    Run(RunDevice),
}

impl DeviceVerb {
    /// Whether the device has to be the same each time.
    pub fn needs_user(&self) -> bool {
        !matches!(self, DeviceVerb::List | DeviceVerb::Prompt { .. })
    }

    /// What to be, or what to ask. `random` is any number, `udp_port` that of the options.
    pub fn plan(self, random: u64, udp_port: Option<u16>) -> (Option<Device>, Vec<Order>) {
        let request = || RequestId::parse(&format!("{random:016x}"));
        let call = match self {
            DeviceVerb::Run(run) => {
                let run = RunDevice { udp_port: udp_port.unwrap_or(0), ..run };
                return (Some(Device::Run(run)), Vec::new());
            }
            DeviceVerb::Prompt { udp_port } => {
                return (Some(Device::Prompt { udp_port }), Vec::new());
            }
            DeviceVerb::Upload { file_id } => {
                EdgeCall::Upload { file_id, request: request(), hash: None, samples: None }
            }
            DeviceVerb::Compute { file_id, operation } => EdgeCall::Compute { file_id, operation },
            DeviceVerb::Delete { file_id } => EdgeCall::Delete { file_id, request: request() },
            DeviceVerb::List => EdgeCall::List,
        };
        (None, vec![Order::Call(Call::Edge(call))])
    }
}

/// A port that is not 0.
///
/// # Errors
/// What a port is.
pub fn port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| "a port is a whole number from 1 to 65535".to_owned())
}

fn file_id(text: &str) -> Result<u32, String> {
    parse_integer(text).ok_or_else(|| format!("{BAD_FILE_ID} from 0 to {}", u32::MAX))
}

fn operation(text: &str) -> Result<Statistic, String> {
    Statistic::parse(text).map_err(|refusal| refusal.text.into_owned())
}

/// `client 127.0.0.1 5000 6000` as the words that it stands for; other arguments as they are.
///
/// It is that form where exactly three words follow the options, the first of which is no verb.
pub fn unfold(arguments: Vec<OsString>, command: &clap::Command) -> Vec<OsString> {
    let texts: Vec<_> = arguments.iter().map(|it| it.to_str().unwrap_or_default()).collect();
    let takes_value = |text: &str| {
        let name = text.trim_start_matches('-');
        let has_name = |argument: &&clap::Arg| argument.get_long() == Some(name);
        let found = command.get_arguments().find(has_name);
        found.is_some_and(|argument| argument.get_action().takes_values())
    };
    let mut first = 1;
    while let Some(text) = texts.get(first).filter(|text| text.starts_with('-')) {
        first += if takes_value(text) { 2 } else { 1 };
    }
    let Some([server, port, udp_port]) = texts.get(first..) else { return arguments };
    if command.get_subcommands().any(|verb| verb.get_name() == *server) {
        return arguments;
    }
    let words =
        [&format!("--ip={server}"), &format!("--port={port}"), "device", "prompt", udp_port];
    let head = arguments[..first].iter().cloned();
    head.chain(words.into_iter().map(OsString::from)).collect()
}
