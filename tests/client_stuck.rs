//! A client whose output nobody takes ends all the same when a signal asks for it.

mod process;

use std::{
    io::pipe,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use process::{FAMILIES, Server, await_true, folder};
use rustix::process::{Pid, Signal, kill_process};

/// Less than a pipe holds, and more than one that is not full yet has for long.
const NEARLY_FULL_BYTES: u64 = 60_000;

fn ends_of(
    server: &Server,
    at: usize,
    arguments: &[&str],
    signal: Signal,
) -> (Option<i32>, Duration) {
    let (reader, writer) = pipe().expect("a pipe");
    let place = folder();
    let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
    command.args(["--ip", &FAMILIES[at % 2].to_string(), "--port", &server.port.to_string()]);
    command.args(arguments).current_dir(place.path()).env("XDG_STATE_HOME", place.path());
    command.stdin(Stdio::null()).stdout(writer.try_clone().expect("its copy")).stderr(writer);
    let mut client = command.spawn().expect("it starts");
    // It has its own copies of the end that writes.
    drop(command);
    await_true("nobody takes anything any more", || {
        rustix::io::ioctl_fionread(&reader).expect("a pipe") > NEARLY_FULL_BYTES
    });
    let begun = Instant::now();
    kill_process(Pid::from_child(&client), signal).expect("it runs");
    let code = client.wait().expect("it ends").code();
    (code, begun.elapsed())
}

#[test]
fn a_signal_ends_a_client_whose_output_nobody_takes() {
    let server = Server::start();
    server.put("big", &[7; 1_000_000]);
    let cases: [&[&str]; 4] = [
        &["run", "yes"],
        &["run", "yes >&2"],
        &["--json", "run", "yes"],
        &["download", "-o", "-", "big"],
    ];
    thread::scope(|scope| {
        for (at, arguments) in cases.into_iter().enumerate() {
            for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
                let server = &server;
                scope.spawn(move || {
                    let (ended, time) = ends_of(server, at, arguments, signal);
                    assert_eq!(ended, Some(code), "{arguments:?}");
                    // 2 s are promised; tests share their processors.
                    assert!(time < Duration::from_secs(10), "{arguments:?}: {time:?}");
                });
            }
        }
    });
}
