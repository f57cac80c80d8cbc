//! The client: see `client --help`. `client tour` shows what client and server do, and is both.

use std::process::ExitCode;

use sixfour::{client, server, sys::guard, tour};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    match arguments.nth(1).as_deref().and_then(|first| first.to_str()) {
        Some("tour") if arguments.len() == 0 => tour::run(),
        Some(tour::SERVER_ARGUMENT) => {
            server::run(std::iter::once("server".into()).chain(arguments))
        }
        Some(first) if first == guard::ARGUMENTS[0] => guard::run_guard(),
        _ => ExitCode::from(client::run(std::env::args_os())),
    }
}
