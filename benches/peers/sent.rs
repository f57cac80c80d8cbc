//! A file from one user to another, straight or through our server: the processes that users start.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    download::{Way, our_client},
    peers::{Peer, Place},
};

const RECEIVER: &str = "receiver";

/// How long the receiver may take to log in.
const PATIENCE: Duration = Duration::from_secs(10);

/// A process that does not outlive its use.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Sends `source` to who receives it in `target`: from the start of the sender to the ends of both.
/// Whether it went the way that is measured is what the sender says.
pub fn copy(
    peer: &Peer,
    place: &Place,
    (source, target): (&Path, &Path),
    way: Way,
) -> Result<Duration, String> {
    let word = if way == Way::Direct { "direct" } else { "relayed" };
    let as_user = |user: &str, arguments: &[&str]| {
        let mut command = our_client(peer, place);
        command.args(["--user", user]).args(arguments).current_dir(target);
        if way != Way::Direct {
            command.arg("--no-direct");
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    };
    let mut receive = as_user(RECEIVER, &["--accept", "all", "receive", "--count", "1"]);
    let receiver = receive.stdout(Stdio::null()).spawn();
    let mut receiver = Guarded(receiver.map_err(|error| format!("did not start: {error}"))?);
    await_user(|| as_user("watcher", &["who"]))?;
    let mut send = as_user("sender", &["send"]);
    send.arg(source).arg(RECEIVER).stderr(Stdio::piped());
    let begin = Instant::now();
    let sent = send.output().map_err(|error| format!("did not start: {error}"))?;
    if !sent.status.success() {
        let said = String::from_utf8_lossy(&sent.stderr);
        return Err(format!("failed ({}): {}", sent.status, said.trim()));
    }
    let said = [&sent.stdout[..], &sent.stderr].concat();
    if !String::from_utf8_lossy(&said).contains(word) {
        return Err(format!("it was not {word}: {}", String::from_utf8_lossy(&said).trim()));
    }
    let received = receiver.0.wait().map_err(|error| error.to_string())?;
    let taken = begin.elapsed();
    match received.success() {
        true => Ok(taken),
        false => Err(format!("the receiver failed ({received})")),
    }
}

fn await_user(who: impl Fn() -> Command) -> Result<(), String> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        let output = who().output().map_err(|error| format!("did not start: {error}"))?;
        if String::from_utf8_lossy(&output.stdout).contains(RECEIVER) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err(format!("the receiver was not there after {PATIENCE:?}"))
}
