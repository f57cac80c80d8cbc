//! The server binary: arguments, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use sixfour::{
    server::{self, arguments},
    sys::guard,
};

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(guard::ARGUMENTS[0]) {
        return guard::run_guard();
    }
    match arguments::Arguments::try_parse().and_then(arguments::Arguments::checked) {
        Ok(arguments) => server::main(&arguments),
        Err(error) if error.use_stderr() => {
            eprintln!("server: {}", arguments::one_line(&error));
            ExitCode::from(2)
        }
        Err(help) => {
            let _ = help.print();
            ExitCode::SUCCESS
        }
    }
}
