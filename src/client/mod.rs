//! The client: its own pure brain, and the glue between that, the network and the terminal.
//!
//! [`brain`], [`link`], [`order`] and [`screen`] are pure; [`session`] is the loop, and the other
//! modules are the threads beside it.

pub mod arguments;
pub mod backoff;
pub mod blocks;
pub mod brain;
pub mod exit;
pub mod input;
pub mod link;
pub mod order;
pub mod outlet;
pub mod post;
pub mod progress;
pub mod prompt;
pub mod screen;
pub mod secure;
pub mod session;
pub mod writer;

use std::io::Write as _;

use crate::sys::{
    known_servers::{KnownServers, ServerKey},
    state,
    terminal::TerminalState,
};
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
    if let Some(server) = &plan.forget {
        return forget(plan, server);
    }
    let connected = match secure::connect(&plan.wish()) {
        Ok(connected) => connected,
        Err(failure) => return fail(plan, failure.code, &failure.text, failure.exit),
    };
    for notice in connected.notices {
        show(plan, &Shown::Notice(notice));
    }
    // Put back on the way out, however that is: line editing changes the terminal's modes.
    let terminal = TerminalState::save();
    if let Some(terminal) = &terminal {
        terminal.note_bracketed_paste();
    }
    let ended = Session::new(plan, connected.transport)
        .and_then(|session| session.run().map_err(|error| error.to_string()));
    drop(terminal);
    ended.unwrap_or_else(|why| fail(plan, "failed", &why, exit::FAILED))
}

/// `client forget`.
fn forget(plan: &Plan, server: &ServerKey) -> u8 {
    let folder = match state::of_client(plan.state.as_deref()) {
        Ok(folder) => folder,
        Err(why) => return fail(plan, "failed", &why, exit::FAILED),
    };
    let servers = KnownServers::in_folder(&folder);
    let path = servers.path().display();
    match servers.forget(server) {
        Ok(0) => {
            let text = format!("there is no key of {server} in {path}");
            fail(plan, "not-known", &text, exit::NOT_FOUND)
        }
        Ok(_) => {
            show(plan, &Shown::Notice(format!("the key of {server} is forgotten")));
            exit::DONE
        }
        Err(error) => fail(plan, "failed", &format!("{path}: {error}"), exit::FAILED),
    }
}

/// Says what failed before there was a session, or beneath it.
fn fail(plan: &Plan, code: &'static str, text: &str, exit_code: u8) -> u8 {
    show(plan, &Shown::Error { code, text: text.to_owned() });
    plan.own_failure().unwrap_or(exit_code)
}

/// Shows something without a session.
fn show(plan: &Plan, shown: &Shown) {
    let screen = Screen { json: plan.json, quiet: plan.quiet, ..Screen::default() };
    if let Some((place, bytes)) = screen.render(shown) {
        print(place, &bytes);
    }
}

/// Nobody can be told where this fails.
fn print(place: Where, bytes: &[u8]) {
    match place {
        Where::Out => drop(crate::sys::terminal::write_stdout(bytes)),
        Where::Err => drop(std::io::stderr().write_all(bytes)),
    }
}
