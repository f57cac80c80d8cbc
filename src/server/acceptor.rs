//! Taking connections in, on both families, and pausing where the system has no room.

use std::{io, net::SocketAddr};

use mio::{
    Interest, Registry,
    net::{TcpListener, TcpStream},
};

use super::token::Source;
use crate::sys::listen::{self, AcceptError, Families, Listeners};

/// Connections taken from one listener in one turn, so that a storm of them moves nobody else.
const PER_TURN: usize = 64;
/// How long to wait before trying again where descriptors have run out, in milliseconds.
const PAUSE_MS: u64 = 200;
/// How long to wait before trying again to listen, in milliseconds: somebody else may have taken
/// the port in the moment in which nobody had it.
const REOPEN_MS: u64 = 100;

/// The listeners and whether they are being listened to.
pub struct Acceptor {
    v6: Listener,
    v4: Listener,
    port: u16,
    families: Families,
    /// When to try again to listen, where that has failed.
    reopen_at: Option<u64>,
    /// Until when nothing is accepted: there are no descriptors.
    paused_until: Option<u64>,
}

struct Listener {
    socket: Option<TcpListener>,
    /// Whether connections may be waiting.
    ready: bool,
}

impl Acceptor {
    /// Watches the listeners.
    pub fn new(listeners: Listeners, registry: &Registry) -> io::Result<Acceptor> {
        let (port, families) = (listeners.port, listeners.families);
        let (v6, v4) = watch(listeners, registry)?;
        Ok(Acceptor { v6, v4, port, families, reopen_at: None, paused_until: None })
    }

    /// Closes the listeners and opens them again on the same port. Where that fails it is tried
    /// until it succeeds.
    pub fn open_again(&mut self, now: u64, registry: &Registry) {
        self.close();
        let listeners = listen::listen(self.port, self.families);
        let watched = listeners
            .map_err(|error| error.to_string())
            .and_then(|listeners| watch(listeners, registry).map_err(|error| error.to_string()));
        match watched {
            Ok((v6, v4)) => (self.v6, self.v4) = (v6, v4),
            Err(why) => {
                log::error!("cannot listen again, trying on: {why}");
                self.reopen_at = Some(now + REOPEN_MS);
            }
        }
    }

    /// Tries again to listen, where that is due.
    pub fn tick(&mut self, now: u64, registry: &Registry) {
        if self.reopen_at.is_some_and(|at| at <= now) {
            self.open_again(now, registry);
        }
    }

    /// Notes that connections wait.
    pub fn note(&mut self, source: Source) {
        match source {
            Source::ListenerV6 => self.v6.ready = true,
            Source::ListenerV4 => self.v4.ready = true,
            _ => unreachable!("only listeners are noted here"),
        }
    }

    /// When to accept again: at once where more may wait, later after a pause.
    pub fn next_deadline(&self) -> Option<u64> {
        let accept = match self.paused_until {
            Some(until) => Some(until),
            None => (self.v6.ready || self.v4.ready).then_some(0),
        };
        accept.into_iter().chain(self.reopen_at).min()
    }

    /// Takes in some of the connections that wait; false where the system has no room for them.
    pub fn accept(&mut self, now: u64, mut take: impl FnMut(TcpStream, SocketAddr)) -> bool {
        if self.paused_until.is_some_and(|until| until > now) {
            return true;
        }
        let was_paused = self.paused_until.is_some();
        let mut starved = None;
        for listener in [&mut self.v6, &mut self.v4] {
            starved = listener.accept(&mut take).err().or(starved);
        }
        match &starved {
            Some(error) => {
                if !was_paused {
                    log::error!(
                        "no new connections for now, the system has no room for them ({error}); \
                         raise the limit of open files (ulimit -n) if this lasts"
                    );
                }
                self.paused_until = Some(now + PAUSE_MS);
            }
            None if was_paused => {
                log::info!("new connections are accepted again");
                self.paused_until = None;
            }
            None => {}
        }
        starved.is_none()
    }

    /// Stops listening.
    pub fn close(&mut self) {
        for listener in [&mut self.v6, &mut self.v4] {
            *listener = Listener { socket: None, ready: false };
        }
        (self.paused_until, self.reopen_at) = (None, None);
    }
}

fn watch(listeners: Listeners, registry: &Registry) -> io::Result<(Listener, Listener)> {
    let Listeners { mut v6, mut v4, .. } = listeners;
    for (socket, source) in [(&mut v6, Source::ListenerV6), (&mut v4, Source::ListenerV4)] {
        if let Some(socket) = socket {
            registry.register(socket, source.token(), Interest::READABLE)?;
        }
    }
    let listener = |socket| Listener { socket, ready: false };
    Ok((listener(v6), listener(v4)))
}

impl Listener {
    /// Fails only where the system has no descriptors or memory; what waits then keeps waiting.
    fn accept(&mut self, take: &mut impl FnMut(TcpStream, SocketAddr)) -> io::Result<()> {
        let Some(socket) = self.socket.as_ref().filter(|_| self.ready) else { return Ok(()) };
        for _ in 0..PER_TURN {
            match listen::accept(socket) {
                Ok((stream, peer)) => take(stream, peer),
                Err(error) => match AcceptError::classify(&error) {
                    AcceptError::Transient => {}
                    AcceptError::NoDescriptors => return Err(error),
                    AcceptError::WouldBlock => {
                        self.ready = false;
                        return Ok(());
                    }
                    AcceptError::Fatal => {
                        log::error!("a listener failed and is closed: {error}");
                        *self = Listener { socket: None, ready: false };
                        return Ok(());
                    }
                },
            }
        }
        Ok(())
    }
}
