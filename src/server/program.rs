//! The program around the loop: what `server` does from its arguments to its exit code.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    process::ExitCode,
    thread,
};

use clap::{CommandFactory as _, Parser as _};

use super::{
    Server,
    admission::Plan,
    arguments::{self, Command},
    commands::CommandSetup,
    edge::Place,
    keys::Keys,
    passwd,
};
use crate::{
    limits::Limits,
    manual::Manual,
    sys::{
        guard::{self, Guard},
        inherited, init,
        listen::{self, Listeners},
        logger,
        process::environment::Environment,
        terminal::{self, StdoutError},
    },
};

/// The whole program: listens, says where, serves until it is told to stop. `arguments` begin with
/// the program's name.
///
/// Exit codes: 0 after a signal to stop, 1 where serving failed, 2 for bad arguments.
#[must_use]
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let all: Vec<OsString> = arguments.collect();
    if all.get(1).is_some_and(|first| first == guard::ARGUMENTS[0]) {
        return guard::run_guard();
    }
    match arguments::Arguments::try_parse_from(all).and_then(arguments::Arguments::checked) {
        Ok(arguments) => main(&arguments),
        Err(error) if error.use_stderr() => {
            // Nobody can be told where this fails.
            let _ = writeln!(io::stderr(), "server: {}", arguments::one_line(&error));
            ExitCode::from(2)
        }
        Err(help) => {
            let _ = help.print();
            ExitCode::SUCCESS
        }
    }
}

fn main(arguments: &arguments::Arguments) -> ExitCode {
    if let Some(Command::Passwd(arguments)) = &arguments.command {
        return passwd::run(arguments);
    }
    if let Some(Command::Manual(manual)) = &arguments.command {
        return print_manual(manual);
    }
    if arguments.command.is_none() && init::is_first_process() {
        return run_below();
    }
    logger::start(arguments.log_level());
    let done = match arguments.command {
        Some(Command::Fingerprint) => show_fingerprint(arguments),
        _ => serve(arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            log::error!("{text}");
            logger::flush();
            ExitCode::FAILURE
        }
    }
}

/// As process 1 of a container: serves in a process below this one.
fn run_below() -> ExitCode {
    match init::run_below() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("server: the server below process 1 cannot be started: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What every process needs and this system lacks, as words behind an error.
fn missing() -> String {
    let is_missing = |path: &&str| !std::path::Path::new(path).exists();
    let paths: Vec<_> = ["/proc/self/exe", "/dev/null"].into_iter().filter(is_missing).collect();
    match paths.is_empty() {
        true => String::new(),
        false => format!(" (this system has no {})", paths.join(" and no ")),
    }
}

fn print_manual(manual: &Manual) -> ExitCode {
    match manual.print(arguments::Arguments::command()) {
        // Who reads it may have read enough.
        Ok(text) => match terminal::write_stdout(text.as_bytes()) {
            Ok(()) | Err(StdoutError::Closed) => ExitCode::SUCCESS,
            Err(StdoutError::Failed(_)) => ExitCode::FAILURE,
        },
        Err(why) => {
            eprintln!("server: {why}");
            ExitCode::from(2)
        }
    }
}

fn serve(arguments: &arguments::Arguments) -> Result<(), String> {
    // Before anything is opened or started.
    inherited::keep_from_commands()
        .map_err(|error| format!("what was left open cannot be closed to commands: {error}"))?;
    let plan = Plan::prepare(arguments)?;
    // The guard before the listeners, which it must not inherit.
    let guard =
        Guard::start().map_err(|error| format!("the guard of commands: {error}{}", missing()))?;
    let environment = Environment::of_commands(&arguments.command_env);
    let setup = CommandSetup { guard, environment };
    let root = arguments.root();
    let keys = Keys::load(arguments.key_source()?)?;
    keys.check_not_served(root)?;
    let data = Place::find(arguments.data())?;
    let listeners = listen::listen(arguments.port(), arguments.families());
    let listeners = listeners.map_err(|error| error.to_string())?;
    listeners.notes.iter().for_each(|note| log::warn!("{note}"));
    let where_to = describe(&listeners);
    let (fingerprint, is_new) = (keys.fingerprint(), keys.is_new());
    let server = Server::new(listeners, root, data, Limits::default(), plan, setup, keys)
        .map_err(|error| format!("cannot serve the folder {}: {error}", root.display()))?;
    // Whoever started us may have closed our output; serving goes on.
    let new = if is_new { ", made just now" } else { "" };
    let greeting =
        format!("sixfour server listening on {where_to}\nits key is {fingerprint}{new}\n");
    say_on_stdout(greeting);
    log::info!("serving {}; {}", server.describe_share(root), server.admission.describe());
    server.run().map_err(|error| format!("the event loop failed: {error}"))?;
    log::info!("stopped");
    logger::flush();
    Ok(())
}

/// Where nobody takes what is said there, a thread waits for that, and the server serves.
fn say_on_stdout(text: String) {
    let say = move || drop(terminal::write_stdout(text.as_bytes()));
    if let Err(error) = thread::Builder::new().name("greeting".into()).spawn(say) {
        log::warn!("where the server listens is not said on standard output: {error}");
    }
}

/// `server fingerprint`: makes the key where there is none, as the first start does.
fn show_fingerprint(arguments: &arguments::Arguments) -> Result<(), String> {
    let keys = Keys::load(arguments.key_source()?)?;
    if keys.is_new() {
        eprintln!("server: there was no key; this one was made just now");
    }
    let line = format!("{}\n", keys.fingerprint());
    match terminal::write_stdout(line.as_bytes()) {
        Err(StdoutError::Failed(error)) => Err(format!("cannot write the fingerprint: {error}")),
        Ok(()) | Err(StdoutError::Closed) => Ok(()),
    }
}

fn describe(listeners: &Listeners) -> String {
    let port = listeners.port;
    let v6 = listeners.v6.as_ref().map(|_| format!("[::]:{port}"));
    let v4 = listeners.v4.as_ref().map(|_| format!("0.0.0.0:{port}"));
    v6.into_iter().chain(v4).collect::<Vec<_>>().join(" and ")
}
