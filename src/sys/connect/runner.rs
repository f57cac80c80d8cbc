//! A race as it runs: sockets, threads and the clock round what [`Race`] decides.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::names::{Answer, Question};
use super::{
    ConnectError, End, Failures, Family, Host, LOOKUP_TIMEOUT, Names, NoWay, Proof, Race, Step,
};
use crate::sys::listen;

/// A proof ends so long before the race does, so that what it found is heard.
const PROOF_MARGIN: Duration = Duration::from_millis(20);

/// A race without a winner.
#[derive(Debug)]
pub(super) enum Lost<F> {
    /// No address led anywhere.
    Out {
        end: End,
        /// Each address that was tried or would have been, with what became of it.
        attempts: Vec<(SocketAddr, io::Error)>,
        /// Why there are no addresses, or none of one family.
        reasons: Vec<String>,
    },
    /// A proof has ended it.
    Final(F),
}

impl<F> Lost<F> {
    /// As users are told; `timeout` is what all of it could take.
    pub(super) fn into_error(self, host: &Host, port: u16, timeout: Duration) -> NoWay<F> {
        let (end, attempts, reasons) = match self {
            Self::Out { end, attempts, reasons } => (end, attempts, reasons),
            Self::Final(why) => return NoWay::Final(why),
        };
        if attempts.is_empty() {
            return NoWay::Unconnected(ConnectError::no_name(host, reasons, timeout));
        }
        let slow = |(_, error): &(_, io::Error)| error.kind() == io::ErrorKind::TimedOut;
        let all_slow = attempts.iter().all(slow);
        let failures = Failures { host: host.to_string(), port, attempts };
        NoWay::Unconnected(match end == End::TimedOut || all_slow {
            true => ConnectError::TimedOut(failures),
            false => ConnectError::Unreachable(failures),
        })
    }
}

/// A race as it runs: what [`Race`] decides, done with sockets.
struct Runner {
    race: Race,
    begun: Instant,
    addresses: Vec<SocketAddr>,
    errors: Vec<Option<io::Error>>,
    running: Vec<(usize, Socket)>,
    /// Connections at their proof.
    proving: Vec<(usize, TcpStream)>,
    /// Rung by whoever has a proof to tell of.
    bell: Arc<OwnedFd>,
    question: Option<Question>,
    reasons: Vec<String>,
}

/// Races the addresses; the sockets of the losers close when this returns.
pub(super) fn run_race<T: Send + 'static, F: Send + 'static>(
    names: Names,
    timeout: Duration,
    prove: impl Fn(TcpStream, Duration) -> Proof<T, F> + Send + Sync + 'static,
) -> Result<T, Lost<F>> {
    let bell = match eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK) {
        Ok(bell) => Arc::new(bell),
        Err(error) => {
            let reasons = vec![format!("cannot wait for answers ({error})")];
            return Err(Lost::Out { end: End::AllFailed, attempts: Vec::new(), reasons });
        }
    };
    let (sender, proofs) = mpsc::channel();
    let court = Court { prove: Arc::new(prove), proofs: sender, bell: Arc::clone(&bell) };
    let mut runner = Runner::new(names, timeout, bell);
    let mut wait = Duration::ZERO;
    loop {
        // Answers are taken before the clock is asked, so that a process that was stopped for a
        // while does not call a connection late that has long been there.
        for (index, stream) in runner.await_answers(wait) {
            let left = timeout.saturating_sub(runner.begun.elapsed() + PROOF_MARGIN);
            match court.try_one(index, stream, left) {
                Ok(stream) => runner.proving.push((index, stream)),
                Err(error) => runner.note_failed(index, error),
            }
        }
        // Quiet again before they are taken: one that comes now rings anew.
        let _ = rustix::io::read(&runner.bell, &mut [0; 8]);
        while let Ok((index, proof)) = proofs.try_recv() {
            runner.proving.retain(|(proving, _)| *proving != index);
            match proof {
                Proof::Good(it) => return Ok(it),
                Proof::Final(why) => return Err(Lost::Final(why)),
                Proof::Bad(error) => runner.note_failed(index, error),
            }
        }
        runner.take_names();
        wait = Duration::ZERO;
        let now = runner.begun.elapsed();
        match runner.race.poll(now) {
            Step::Start(index) => match start(runner.addresses[index]) {
                Ok(socket) => runner.running.push((index, socket)),
                Err(error) => runner.note_failed(index, error),
            },
            Step::Wait(until) => wait = runner.until(until),
            Step::GiveUp(end) => return Err(runner.into_lost(end)),
        }
    }
}

impl Runner {
    fn new(names: Names, timeout: Duration, bell: Arc<OwnedFd>) -> Self {
        let mut runner = Self {
            race: Race::new(timeout),
            begun: Instant::now(),
            addresses: Vec::new(),
            errors: Vec::new(),
            running: Vec::new(),
            proving: Vec::new(),
            bell,
            question: None,
            reasons: Vec::new(),
        };
        match names {
            Names::Asked(question) => runner.question = Some(question),
            Names::Known(addresses) => {
                let (v6, v4): (Vec<_>, Vec<_>) =
                    addresses.into_iter().partition(SocketAddr::is_ipv6);
                runner.note_names(Family::V6, v6);
                runner.note_names(Family::V4, v4);
            }
        }
        runner
    }

    fn note_names(&mut self, family: Family, addresses: Vec<SocketAddr>) {
        self.race.handle_names(family, addresses.len(), self.begun.elapsed());
        self.errors.extend(addresses.iter().map(|_| None));
        self.addresses.extend(addresses);
    }

    fn note_failed(&mut self, index: usize, error: io::Error) {
        self.errors[index] = Some(error);
        self.race.handle_failed(index, self.begun.elapsed());
    }

    /// Takes what the resolver has answered; what it has not answered for too long is nothing.
    fn take_names(&mut self) {
        let Some(question) = self.question.take() else { return };
        while let Some(Answer { family, found }) = question.next_answer() {
            let addresses = found.unwrap_or_else(|reason| {
                self.reasons.push(reason);
                Vec::new()
            });
            self.note_names(family, addresses);
        }
        if self.begun.elapsed() < LOOKUP_TIMEOUT {
            self.question = Some(question);
        } else {
            for family in [Family::V6, Family::V4] {
                self.race.close_names(family, LOOKUP_TIMEOUT);
            }
        }
    }

    /// How long to wait for a time of the race, or for the resolver's limit.
    fn until(&self, time: Duration) -> Duration {
        let limit = if self.question.is_some() { time.min(LOOKUP_TIMEOUT) } else { time };
        limit.saturating_sub(self.begun.elapsed())
    }

    /// Waits up to `wait` for a socket to connect or fail, for a proof, or for a name. Those that
    /// have connected are given back; failed attempts are noted.
    fn await_answers(&mut self, wait: Duration) -> Vec<(usize, TcpStream)> {
        // A wait of under a second is within what a Timespec holds; a longer one is asked again.
        let wait = Timespec::try_from(wait.min(Duration::from_secs(1))).expect("a second fits");
        let mut polled: Vec<PollFd<'_>> =
            self.running.iter().map(|(_, socket)| PollFd::new(socket, PollFlags::OUT)).collect();
        polled.push(PollFd::new(&self.bell, PollFlags::IN));
        let names = self.question.as_ref().map(Question::bell);
        polled.extend(names.map(|bell| PollFd::from_borrowed_fd(bell, PollFlags::IN)));
        // An interrupted wait, or one without memory for it, is an empty one.
        if poll(&mut polled, Some(&wait)).unwrap_or(0) == 0 {
            return Vec::new();
        }
        let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut connected = Vec::new();
        // Backwards, so that taking one out does not move those still to be looked at.
        for position in (0..self.running.len()).rev().filter(|&position| ready[position]) {
            let (index, socket) = self.running.remove(position);
            match settle(socket) {
                Ok(stream) => connected.push((index, stream)),
                Err(error) => self.note_failed(index, error),
            }
        }
        connected
    }

    fn into_lost<F>(mut self, end: End) -> Lost<F> {
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        let errors = std::mem::take(&mut self.errors).into_iter();
        let errors = errors.map(|error| error.unwrap_or_else(late));
        let attempts = std::mem::take(&mut self.addresses).into_iter().zip(errors).collect();
        Lost::Out { end, attempts, reasons: std::mem::take(&mut self.reasons) }
    }
}

impl Drop for Runner {
    /// Ends the proofs that nobody waits for any more.
    fn drop(&mut self) {
        for (_, stream) in &self.proving {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Where connections are put to the proof, each on a thread of its own.
struct Court<T, F, P> {
    prove: Arc<P>,
    proofs: mpsc::Sender<(usize, Proof<T, F>)>,
    bell: Arc<OwnedFd>,
}

impl<T, F, P> Court<T, F, P>
where
    T: Send + 'static,
    F: Send + 'static,
    P: Fn(TcpStream, Duration) -> Proof<T, F> + Send + Sync + 'static,
{
    /// Begins with one, and gives back a hold on it, to shut it down. Where no thread can be had,
    /// the proof is made here and now, and the others wait for it.
    fn try_one(&self, index: usize, stream: TcpStream, left: Duration) -> io::Result<TcpStream> {
        let hold = stream.try_clone()?;
        let prove = Arc::clone(&self.prove);
        let (proofs, bell) = (self.proofs.clone(), Arc::clone(&self.bell));
        let started = thread::Builder::new().name("proof".to_owned()).spawn(move || {
            // Nobody waits any more where the race is over.
            let _ = proofs.send((index, prove(stream, left)));
            let _ = rustix::io::write(&bell, &1u64.to_ne_bytes());
        });
        if started.is_err() {
            let _ = self.proofs.send((index, (self.prove)(hold.try_clone()?, left)));
        }
        Ok(hold)
    }
}

/// Starts connecting without waiting for it (connect(2), `EINPROGRESS`).
pub(super) fn start(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Ok(()) => Ok(socket),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// Turns a socket whose attempt ended into a stream, or into the reason why it failed.
pub(super) fn settle(socket: Socket) -> io::Result<TcpStream> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    // Without a server, a port from the range for outgoing connections can be given to this very
    // socket, which then connects to itself (simultaneous open, RFC 9293, section 3.5).
    let (own, peer) = (socket.local_addr()?.as_socket(), socket.peer_addr()?.as_socket());
    if own == peer {
        return Err(Errno::CONNREFUSED.into());
    }
    listen::prepare(&socket)?;
    socket.set_nonblocking(false)?;
    Ok(socket.into())
}
