//! The direct channel between two clients by itself: two endpoints with a thread and sockets each.
//!
//! What is around it in the product (introduction by the server, the prompt, verification) has
//! rows of its own.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use sixfour::{
    direct::{Ended, Endpoint, Event, driver::Runner},
    wire::{Candidates, Fingerprint, Introduction, OneTimeToken},
};

const BUFFER_BYTES: usize = 256 * 1024;

/// How long an end may hear nothing at all.
const PATIENCE: Duration = Duration::from_secs(20);

/// One end: whom it expects, and at which address it is told to be itself.
pub struct Meeting {
    own: IpAddr,
    tell: mpsc::Sender<(Fingerprint, SocketAddr)>,
    hear: mpsc::Receiver<(Fingerprint, SocketAddr)>,
}

impl Meeting {
    /// Both ends, to be given to two threads.
    pub fn at(addresses: [IpAddr; 2]) -> [Meeting; 2] {
        let (tell_first, hear_second) = mpsc::channel();
        let (tell_second, hear_first) = mpsc::channel();
        [
            Meeting { own: addresses[0], tell: tell_first, hear: hear_first },
            Meeting { own: addresses[1], tell: tell_second, hear: hear_second },
        ]
    }

    /// Sockets of our own, and the introduction to the other end.
    fn begin(&self) -> Result<(Runner, Introduction), String> {
        let runner = Runner::new().map_err(|error| error.to_string())?;
        let place = SocketAddr::from((self.own, runner.driver.port()));
        let gone = |_| "the other end did not start".to_owned();
        self.tell.send((runner.driver.endpoint.fingerprint(), place)).map_err(|_| gone(()))?;
        let (fingerprint, place) = self.hear.recv().map_err(|_| gone(()))?;
        let candidates = Candidates::new([place])?;
        Ok((runner, Introduction { fingerprint, token: OneTimeToken([9; 32]), candidates }))
    }
}

/// Sends what `source` gives until it gives nothing.
pub fn send(meeting: &Meeting, source: &mut dyn Read) -> Result<(), String> {
    let (mut buffer, mut from, mut until) = (vec![0; BUFFER_BYTES], 0, 0);
    let mut is_over = false;
    run(meeting, &mut |endpoint, channel| {
        while !is_over {
            if from == until {
                (from, until) = (0, source.read(&mut buffer)?);
                is_over = until == 0;
            }
            match is_over {
                true => endpoint.finish(channel)?,
                false => from += endpoint.write(channel, &buffer[from..until])?,
            }
        }
        endpoint.read(channel, &mut [0; 1]).map(drop)
    })
}

/// Writes what comes to `sink`.
pub fn receive(meeting: &Meeting, sink: &mut dyn Write) -> Result<(), String> {
    let mut buffer = vec![0; BUFFER_BYTES];
    run(meeting, &mut |endpoint, channel| {
        endpoint.finish(channel)?;
        loop {
            match endpoint.read(channel, &mut buffer)? {
                0 => return Ok(()),
                count => sink.write_all(&buffer[..count])?,
            }
        }
    })
}

type Work<'a> = dyn FnMut(&mut Endpoint, sixfour::direct::ChannelId) -> io::Result<()> + 'a;

/// Calls `work` after each turn of an open channel until all is said; `WouldBlock` is no error.
fn run(meeting: &Meeting, work: &mut Work<'_>) -> Result<(), String> {
    let (mut runner, introduction) = meeting.begin()?;
    let opened = runner.driver.endpoint.open(&introduction, true, Instant::now());
    let channel = opened.map_err(|error| error.to_string())?;
    let (mut is_open, mut ended, mut fault) = (false, None, None);
    while ended.is_none() && fault.is_none() {
        let turned = runner.turn(PATIENCE, &mut |endpoint, event| match event {
            Some(Event::Opened { .. }) => is_open = true,
            Some(Event::Closed(_, why)) => ended = Some(why),
            Some(_) => {}
            None if is_open && ended.is_none() => match work(endpoint, channel) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => fault = Some(error),
                _ => {}
            },
            None => {}
        });
        turned.map_err(|error| error.to_string())?;
    }
    // What counts has been said; that it was is what the other end may miss.
    runner.leave(PATIENCE).map_err(|error| error.to_string())?;
    match (fault, ended) {
        (Some(error), _) => Err(error.to_string()),
        (None, Some(Ended::Done)) => Ok(()),
        (None, ended) => Err(ended.map_or(String::new(), |ended| ended.to_string())),
    }
}

/// Sends a file to another one over 127.0.0.1; the time from the introduction to the last byte.
pub fn copy(source: &Path, target: &Path) -> Result<Duration, String> {
    let text = |error: io::Error| error.to_string();
    let mut from = File::open(source).map_err(text)?;
    let mut to = File::create(target).map_err(text)?;
    let [first, second] = Meeting::at([[127, 0, 0, 1].into(); 2]);
    let begin = Instant::now();
    thread::scope(|scope| {
        let sender = scope.spawn(move || send(&first, &mut from));
        receive(&second, &mut to)?;
        let taken = begin.elapsed();
        sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(taken)
    })
}
