//! The client: see `client --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(sixfour::client::run(std::env::args_os()))
}
