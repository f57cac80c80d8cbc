//! The client: its own pure brain, and the glue between that, the network and the terminal.
//!
//! [`brain`], [`link`], [`order`] and [`screen`] are pure; [`session`] is the loop, and the other
//! modules are the threads beside it.

pub mod arguments;
pub mod backoff;
pub mod blocks;
pub mod brain;
pub mod device;
pub mod exit;
pub mod input;
pub mod link;
pub mod order;
pub mod outlet;
pub mod post;
pub mod progress;
pub mod prompt;
pub mod screen;
pub mod session;
pub mod writer;

use std::io::Write as _;

use crate::sys::{connect::connect, terminal::TerminalState};
use arguments::{Plan, Told};
use screen::{Screen, Shown, Where};
use session::Session;

/// Does what the arguments say and returns the exit code.
pub fn run(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> u8 {
    let login_name = std::env::var("USER").ok();
    match arguments::parse(arguments, login_name.as_deref(), session::random()) {
        Ok(plan) => run_plan(&plan),
        Err(Told::Asked(text)) => {
            print(Where::Out, text.as_bytes());
            exit::DONE
        }
        Err(Told::Wrong(line)) => {
            print(Where::Err, format!("client: {line}\n").as_bytes());
            exit::BAD_ARGUMENTS
        }
    }
}

fn run_plan(plan: &Plan) -> u8 {
    if let Some(device) = &plan.device {
        return device::run(plan, device)
            .unwrap_or_else(|why| fail(plan, "failed", &why, exit::FAILED));
    }
    let stream = match connect(&plan.host, plan.port, plan.connect_timeout) {
        Ok(stream) => stream,
        Err(error) => {
            return fail(plan, "cannot-connect", &error.to_string(), exit::CANNOT_CONNECT);
        }
    };
    // Put back on the way out, however that is: line editing changes the terminal's modes.
    let terminal = TerminalState::save();
    if let Some(terminal) = &terminal {
        terminal.note_bracketed_paste();
    }
    let ended = Session::new(plan, stream)
        .and_then(|session| session.run().map_err(|error| error.to_string()));
    drop(terminal);
    ended.unwrap_or_else(|why| fail(plan, "failed", &why, exit::FAILED))
}

/// Says what failed before there was a session, or beneath it.
fn fail(plan: &Plan, code: &'static str, text: &str, exit_code: u8) -> u8 {
    let screen = Screen { json: plan.json, ..Screen::default() };
    let shown = Shown::Error { code, text: text.to_owned() };
    if let Some((place, bytes)) = screen.render(&shown) {
        print(place, &bytes);
    }
    plan.own_failure().unwrap_or(exit_code)
}

/// Nobody can be told where this fails.
fn print(place: Where, bytes: &[u8]) {
    match place {
        Where::Out => drop(crate::sys::terminal::write_stdout(bytes)),
        Where::Err => drop(std::io::stderr().write_all(bytes)),
    }
}
