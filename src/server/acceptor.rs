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
/// How long to wait before trying again to listen where a listener has failed, in milliseconds:
/// somebody else may have taken the port meanwhile.
const REOPEN_MS: u64 = 100;

/// The listeners and whether they are being listened to.
pub struct Acceptor {
    v6: Listener,
    v4: Listener,
    port: u16,
    /// When to open again what has failed.
    reopen_at: Option<u64>,
    /// Until when nothing is accepted: there are no descriptors.
    paused_until: Option<u64>,
}

struct Listener {
    socket: Option<TcpListener>,
    /// Whether there has been one, so that one that has failed is opened again.
    wanted: bool,
    /// Whether connections may be waiting.
    ready: bool,
}

impl Acceptor {
    /// Watches the listeners.
    pub fn new(listeners: Listeners, registry: &Registry) -> io::Result<Acceptor> {
        let port = listeners.port;
        let Listeners { v6, v4, .. } = listeners;
        let mut acceptor = Acceptor {
            v6: Listener { wanted: v6.is_some(), socket: v6, ready: false },
            v4: Listener { wanted: v4.is_some(), socket: v4, ready: false },
            port,
            reopen_at: None,
            paused_until: None,
        };
        acceptor.v6.watch(Source::ListenerV6, registry)?;
        acceptor.v4.watch(Source::ListenerV4, registry)?;
        Ok(acceptor)
    }

    /// Forgets pauses, and opens again what has failed; what listens goes on, so that nobody else
    /// can take the port. Where that fails it is tried until it succeeds.
    pub fn open_again(&mut self, now: u64, registry: &Registry) {
        (self.paused_until, self.reopen_at) = (None, None);
        for (listener, source, families) in [
            (&mut self.v6, Source::ListenerV6, Families::V6Only),
            (&mut self.v4, Source::ListenerV4, Families::V4Only),
        ] {
            if let Err(why) = listener.open_again(self.port, families, source, registry) {
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
            if listener.wanted && listener.socket.is_none() {
                self.reopen_at.get_or_insert(now + REOPEN_MS);
            }
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
            *listener = Listener { socket: None, wanted: false, ready: false };
        }
        (self.paused_until, self.reopen_at) = (None, None);
    }
}

impl Listener {
    fn watch(&mut self, source: Source, registry: &Registry) -> io::Result<()> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        registry.register(socket, source.token(), Interest::READABLE)
    }

    fn open_again(
        &mut self,
        port: u16,
        families: Families,
        source: Source,
        registry: &Registry,
    ) -> Result<(), String> {
        if !self.wanted || self.socket.is_some() {
            return Ok(());
        }
        let Listeners { v6, v4, .. } =
            listen::listen(port, families).map_err(|error| error.to_string())?;
        self.socket = v6.or(v4);
        self.watch(source, registry).map_err(|error| {
            self.socket = None;
            error.to_string()
        })
    }

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
                        (self.socket, self.ready) = (None, false);
                        return Ok(());
                    }
                },
            }
        }
        Ok(())
    }
}
