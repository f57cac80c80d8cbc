//! `run true` over an open session, and the shell started by hand.

use std::{
    io::Write,
    net::TcpStream,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use sixfour::wire::{
    control::OutcomeBody,
    frame::{self, Said, client},
};

use crate::{
    client::{Client, read_more},
    peers::Peer,
    pingpong::{Trips, nanos},
    protocol::{Frame, Line, Role},
};

const WARM_UP_ROUNDS: usize = 50;

/// One command after the other over a session of lines.
pub fn over_line(peer: &Peer, seconds: f64) -> Result<Trips, String> {
    let mut stream = Client::<Line>::connect(peer, 0, "runner", Role::Both)?.into_stream();
    let mut inbox = Vec::new();
    repeat(seconds, || {
        write(&mut stream, b"run true\n")?;
        inbox.clear();
        while !inbox.ends_with(b"\n") {
            read_more(&mut stream, &mut inbox)?;
        }
        match inbox == b"[exit 0]\n" {
            true => Ok(()),
            false => Err(format!("`run true`: {:?}", String::from_utf8_lossy(&inbox))),
        }
    })
}

/// The same over frames.
pub fn over_frame(peer: &Peer, seconds: f64) -> Result<Trips, String> {
    let mut stream = Client::<Frame>::connect(peer, 1, "runner", Role::Both)?.into_stream();
    let mut request = Vec::new();
    let body = serde_json::json!({ "op": "run", "command": "true" });
    frame::put_json(&mut request, client::REQUEST, 1, &body);
    let mut inbox = Vec::new();
    repeat(seconds, || {
        write(&mut stream, &request)?;
        loop {
            let said = frame::decode_said(&inbox).map_err(|refusal| refusal.text.to_string())?;
            let Some((said, used)) = said else {
                read_more(&mut stream, &mut inbox)?;
                continue;
            };
            match said {
                Said::End(1, OutcomeBody::Exit { code: 0, .. }) => {
                    inbox.drain(..used);
                    return Ok(());
                }
                Said::Detail(..) | Said::Credit(..) | Said::Ping(_) => drop(inbox.drain(..used)),
                other => return Err(format!("`run true`: {other:?}")),
            }
        }
    })
}

/// `/bin/sh -c true` in a loop, its output going nowhere.
pub fn by_hand(seconds: f64) -> Result<Trips, String> {
    repeat(seconds, || {
        let status = shell().stdin(Stdio::null()).stdout(Stdio::null()).status();
        status.map(drop).map_err(|error| format!("/bin/sh: {error}"))
    })
}

/// The same, its output collected from two pipes.
pub fn by_hand_with_pipes(seconds: f64) -> Result<Trips, String> {
    repeat(seconds, || {
        let output = shell().stdin(Stdio::null()).output();
        output.map(drop).map_err(|error| format!("/bin/sh: {error}"))
    })
}

fn shell() -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "true"]);
    command
}

fn write(stream: &mut TcpStream, bytes: &[u8]) -> Result<(), String> {
    stream.write_all(bytes).map_err(|error| format!("cannot send: {error}"))
}

fn repeat(seconds: f64, mut once: impl FnMut() -> Result<(), String>) -> Result<Trips, String> {
    for _ in 0..WARM_UP_ROUNDS {
        once()?;
    }
    let (begin, length) = (Instant::now(), Duration::from_secs_f64(seconds));
    let (mut times, mut last) = (Vec::new(), begin);
    while last - begin < length {
        once()?;
        let now = Instant::now();
        times.push(nanos(now - last));
        last = now;
    }
    Ok(Trips::new(times, last - begin))
}
