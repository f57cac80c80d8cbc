//! The server binary: see `server --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sixfour::server::run(std::env::args_os())
}
