//! The client: its own pure brain, and the glue between that, the network and the terminal.
//!
//! [`core`](self::core) is pure, and held to it by a test. [`brain`], [`link`], [`screen`] and
//! [`top`] do no I/O either, but still name types of the threads; [`session`] is the loop, and the
//! other modules are the threads beside it.

pub mod arguments;
pub mod blocks;
pub mod brain;
pub mod canvas;
pub mod channel;
pub mod core;
pub mod device;
pub mod facts;
pub mod input;
pub mod link;
pub mod manner;
pub mod meet;
pub mod mover;
pub mod outgoing;
pub mod outlet;
pub mod password;
pub mod post;
pub mod progress;
pub mod prompt;
pub mod screen;
pub mod secure;
pub mod session;
pub mod top;
pub mod weigh;

use std::io::Write as _;

use self::core::{
    exit,
    order::{Order, Route},
};
use crate::{
    sys::{
        connect,
        known_servers::{KnownServers, ServerKey},
        password::PASSWORD_VARIABLE,
        state,
        terminal::TerminalState,
    },
    wire::Secret,
};
use arguments::{Pings, Plan, Told};
use brain::Style;
use screen::{Screen, Shown, Where};
use secure::Connected;
use session::Session;

/// Does what the arguments say and returns the exit code.
pub fn run(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> u8 {
    let login_name = std::env::var("USER").ok();
    match arguments::parse(arguments, login_name.as_deref(), session::random()) {
        Ok(mut plan) => {
            if let Err(line) = input::fill_text(&mut plan, std::io::stdin().lock()) {
                print(Where::Err, format!("client: {line}\n").as_bytes());
                return exit::BAD_ARGUMENTS;
            }
            let variable = std::env::var_os(PASSWORD_VARIABLE);
            match password::find(plan.password_file.as_deref(), variable) {
                Ok((password, warning)) => {
                    if let Some(warning) = warning.filter(|_| !plan.quiet) {
                        print(Where::Err, format!("client: {warning}\n").as_bytes());
                    }
                    match plan.pings {
                        Some(pings) => run_pings(&plan, password, pings),
                        None => run_plan(&plan, password),
                    }
                }
                Err(line) => {
                    print(Where::Err, format!("client: {line}\n").as_bytes());
                    exit::BAD_ARGUMENTS
                }
            }
        }
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

fn run_plan(plan: &Plan, password: Option<Secret<'static>>) -> u8 {
    if let Some(server) = &plan.forget {
        return forget(plan, server);
    }
    if let Some(device) = &plan.device {
        return device::run(plan, device, password)
            .unwrap_or_else(|why| fail(plan, "failed", &why, exit::FAILED));
    }
    match secure::connect(&plan.wish()) {
        Ok(connected) => run_session(plan, password, connected),
        Err(failure) => fail(plan, failure.code, &failure.text, failure.exit),
    }
}

/// A session after the other, by each family that the host has. One that answers is enough for a
/// good end, but for a server that refuses us.
fn run_pings(plan: &Plan, password: Option<Secret<'static>>, pings: Pings) -> u8 {
    let cannot_connect = |text: String| fail(plan, "cannot-connect", &text, exit::CANNOT_CONNECT);
    let families = match connect::families(&plan.host, plan.port, plan.connect_timeout) {
        Ok(families) => families,
        Err(error) => return cannot_connect(error.to_string()),
    };
    let (mut reached, mut code) = (false, exit::DONE);
    for family in families {
        let connected = match secure::connect_by(&plan.wish(), &family) {
            Ok(connected) => connected,
            Err(failure) if failure.exit == exit::CANNOT_CONNECT => {
                cannot_connect(failure.text);
                continue;
            }
            Err(failure) => return fail(plan, failure.code, &failure.text, failure.exit),
        };
        let peer = connected.transport.stream().peer_addr();
        let address = peer.map_or_else(|_| plan.host.to_string(), |peer| peer.ip().to_string());
        let route = Route { family: family.name().to_string(), address };
        let Pings { count, interval_ms } = pings;
        let orders = Some(vec![Order::Probe { route, count, interval_ms }]);
        let ended = run_session(&Plan { orders, ..plan.clone() }, password.clone(), connected);
        reached = true;
        code = if code == exit::DONE { ended } else { code };
    }
    if reached { code } else { exit::CANNOT_CONNECT }
}

fn run_session(plan: &Plan, password: Option<Secret<'static>>, connected: Connected) -> u8 {
    for notice in &connected.notices {
        show(plan, &Shown::Notice(notice.clone()));
    }
    if password.is_some() && plan.account.is_none() {
        let text = "a password needs a name: say who you are with --user NAME";
        print(Where::Err, format!("client: {text}\n").as_bytes());
        return exit::BAD_ARGUMENTS;
    }
    if password.is_some()
        && let Err(why) = password::check_connection(plan, &connected.transport)
    {
        return fail(plan, "not-encrypted", &why, exit::REFUSED);
    }
    // Put back on the way out, however that is: line editing changes the terminal's modes.
    let terminal = TerminalState::save();
    if let Some(terminal) = &terminal {
        match manner::takes_whole_terminal(plan) {
            true => terminal.hand_over_keys(),
            // Line editing switches it on; to nothing else does a terminal have to be told of it.
            false if manner::style_of(plan) == Style::Prompt => terminal.note_bracketed_paste(),
            false => {}
        }
    }
    let ended = Session::new(plan, password, connected)
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
