//! `run true` from nothing, as a script does it: a process, a connection, a login, a command.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    download::{Sshd, our_client, start_sshd},
    peers::{self, Peer, Place},
    pingpong::{Trips, nanos},
};

/// Those who are compared.
pub const WAYS: [&str; 3] = ["sixfour-clear", "sixfour-tls", "ssh"];

const WARM_UP_ROUNDS: usize = 5;

/// The servers, as far as they were needed.
#[derive(Default)]
pub struct Servers {
    ours: Option<Peer>,
    sshd: Option<Sshd>,
}

impl Servers {
    /// One process after the other, for so many seconds.
    pub fn repeat(&mut self, way: &str, place: &Place, seconds: f64) -> Result<Trips, String> {
        let mut command = self.command(way, place)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        for _ in 0..WARM_UP_ROUNDS {
            once(&mut command)?;
        }
        let (begin, length) = (Instant::now(), Duration::from_secs_f64(seconds));
        let mut times = Vec::new();
        while begin.elapsed() < length {
            let start = Instant::now();
            once(&mut command)?;
            times.push(nanos(start.elapsed()));
        }
        Ok(Trips::new(times, begin.elapsed()))
    }

    fn command(&mut self, way: &str, place: &Place) -> Result<Command, String> {
        if way == "ssh" {
            if self.sshd.is_none() {
                self.sshd = Some(start_sshd(place)?);
            }
            return self.sshd.as_ref().expect("it was started just now").run_command();
        }
        if self.ours.is_none() {
            self.ours = Some(peers::start_ours_unpinned(place, place.folder.path())?);
        }
        let mut command = our_client(self.ours.as_ref().expect("it was started just now"), place);
        command.arg(if way == "sixfour-tls" { "--tls" } else { "--plaintext" });
        command.args(["-q", "--user", "runner", "run", "-n", "true"]);
        Ok(command)
    }
}

fn once(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("did not start: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("failed ({}): {}", output.status, said.trim()))
        }
    }
}
