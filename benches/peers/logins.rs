//! Chat while 200 users log in at once, with passwords that are costly to check, and again as soon
//! as all of them were answered.
//!
//! One thread: after each round trip of the chat it looks after a few of the logins, so that these
//! add little to the next one.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use sixfour::sys::password::Hash;

use crate::{
    client::{self, Client},
    machine::resident_bytes,
    peers::{self, Peer, Place},
    pingpong::{Trips, nanos},
    protocol::{Line, Role},
};

/// How many log in at once.
const LOGINS: usize = 200;

/// Logins that are looked after between two round trips.
const LOOKS: usize = 4;

const WARM_UP_ROUNDS: usize = 2000;

/// What a run has shown.
pub struct Logins {
    /// Round trips of the chat while logins are under way.
    pub trips: Trips,
    /// Logins that were let in, and that were told to come again.
    pub welcome: usize,
    /// See [`Logins::welcome`].
    pub busy: usize,
    /// Largest resident memory of the server that was seen, in bytes.
    pub resident: u64,
}

/// Starts a server at which everybody has a password.
pub fn start(place: &Place) -> Result<Peer, String> {
    let hash = Hash::of(b"secret").map_err(|error| format!("no hash: {error}"))?;
    let mut users = "left x\nright x\n".to_owned();
    (0..LOGINS).for_each(|at| users.push_str(&format!("u{at} {}\n", hash.as_str())));
    let path = place.write("credentials.txt", &users)?;
    peers::start_ours_with(place, &["--credentials".as_ref(), path.as_os_str()])
}

/// Runs it for so many seconds.
pub fn run(peer: &Peer, seconds: f64) -> Result<Logins, String> {
    // The greeting of lines is `user NAME`; the password is what follows.
    let mut left = Client::<Line>::connect(peer, 0, "left x", Role::Both)?;
    let mut right = Client::<Line>::connect(peer, 1, "right x", Role::Both)?;
    let text = "x".repeat(64);
    let mut round = || {
        left.send("right", &text)?;
        right.receive()?;
        right.send("left", &text)?;
        left.receive().map(drop)
    };
    for _ in 0..WARM_UP_ROUNDS {
        round()?;
    }
    let mut storm = Storm::default();
    let (mut trips, mut resident) = (Vec::with_capacity(1 << 20), 0);
    let (begin, length) = (Instant::now(), Duration::from_secs_f64(seconds));
    while begin.elapsed() < length {
        if storm.waiting.is_empty() {
            resident = resident_bytes(peer.daemon.pid())?.max(resident);
            storm.begin(peer)?;
        }
        let begun = Instant::now();
        round()?;
        trips.push(nanos(begun.elapsed()));
        storm.look()?;
    }
    resident = resident_bytes(peer.daemon.pid())?.max(resident);
    let trips = Trips::new(trips, begin.elapsed());
    Ok(Logins { trips, welcome: storm.welcome, busy: storm.busy, resident })
}

#[derive(Default)]
struct Storm {
    /// Those without an answer.
    waiting: Vec<TcpStream>,
    next: usize,
    welcome: usize,
    busy: usize,
}

impl Storm {
    fn begin(&mut self, peer: &Peer) -> Result<(), String> {
        for at in 0..LOGINS {
            self.waiting.push(client::open(peer, at)?);
        }
        for (at, stream) in self.waiting.iter_mut().enumerate() {
            let text = |error| format!("cannot log in: {error}");
            stream.write_all(format!("user u{at} secret\n").as_bytes()).map_err(text)?;
            stream.set_nonblocking(true).map_err(text)?;
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), String> {
        let mut answer = [0; 256];
        for _ in 0..LOOKS.min(self.waiting.len()) {
            self.next = (self.next + 1) % self.waiting.len();
            match self.waiting[self.next].read(&mut answer) {
                Ok(0) => return Err("the server closed a login".to_owned()),
                Ok(count) => {
                    match &answer[..count] {
                        [b'w', b'e', b'l', ..] => self.welcome += 1,
                        [b'e', b'r', b'r', b'o', b'r', b' ', b'b', b'u', ..] => self.busy += 1,
                        other => return Err(String::from_utf8_lossy(other).into_owned()),
                    }
                    self.waiting.swap_remove(self.next);
                    if self.waiting.is_empty() {
                        return Ok(());
                    }
                    self.next %= self.waiting.len();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(format!("a login: {error}")),
            }
        }
        Ok(())
    }
}
