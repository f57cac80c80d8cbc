//! The plain relay: forwards bytes between the connections 2k and 2k+1 and looks at nothing.
//!
//! What a server of this shape cannot do for less: one read and one write for what came in one go.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};

/// Bytes that may wait for one connection before its mate is no longer read.
const PENDING_MAX_BYTES: usize = 1024 * 1024;

const LISTENERS: usize = 2;

struct Connection {
    stream: TcpStream,
    /// What could not be written yet.
    pending: Vec<u8>,
    /// Whether its mate has too much pending to read this one.
    is_paused: bool,
}

struct Relay {
    poll: Poll,
    connections: Vec<Connection>,
    scratch: Vec<u8>,
}

/// Serves until the process is killed.
pub fn serve(port: u16) -> io::Result<()> {
    let poll = Poll::new()?;
    let addresses: [SocketAddr; LISTENERS] =
        [(Ipv6Addr::LOCALHOST, port).into(), (Ipv4Addr::LOCALHOST, port).into()];
    let mut listeners: Vec<_> = addresses.map(TcpListener::bind).into_iter().flatten().collect();
    for (index, listener) in listeners.iter_mut().enumerate() {
        poll.registry().register(listener, Token(index), Interest::READABLE)?;
    }
    println!("relaying on port {port}");
    let mut relay = Relay { poll, connections: Vec::new(), scratch: vec![0; 256 * 1024] };
    let mut events = Events::with_capacity(1024);
    loop {
        match relay.poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            match event.token().0.checked_sub(LISTENERS) {
                None => relay.accept(&listeners[event.token().0])?,
                Some(index) => {
                    if event.is_writable() {
                        relay.flush(index)?;
                    }
                    if event.is_readable() {
                        relay.forward(index)?;
                    }
                }
            }
        }
    }
}

impl Relay {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            stream.write_all(b"\n")?;
            let token = Token(LISTENERS + self.connections.len());
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, token, both)?;
            self.connections.push(Connection { stream, pending: Vec::new(), is_paused: false });
        }
    }

    fn forward(&mut self, index: usize) -> io::Result<()> {
        let mate = index ^ 1;
        if mate >= self.connections.len() {
            return Ok(());
        }
        loop {
            if self.connections[mate].pending.len() > PENDING_MAX_BYTES {
                self.connections[index].is_paused = true;
                return Ok(());
            }
            let count = match self.connections[index].stream.read(&mut self.scratch) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            self.connections[mate].put(&self.scratch[..count])?;
            if count < self.scratch.len() {
                return Ok(());
            }
        }
    }

    fn flush(&mut self, index: usize) -> io::Result<()> {
        let waiting = std::mem::take(&mut self.connections[index].pending);
        if !waiting.is_empty() {
            self.connections[index].put(&waiting)?;
        }
        let mate = index ^ 1;
        let is_low = self.connections[index].pending.len() <= PENDING_MAX_BYTES;
        if is_low && mate < self.connections.len() && self.connections[mate].is_paused {
            self.connections[mate].is_paused = false;
            self.forward(mate)?;
        }
        Ok(())
    }
}

impl Connection {
    /// Writes what the socket takes, after what waits already, and keeps the rest.
    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while self.pending.is_empty() && !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.pending.extend_from_slice(bytes);
        Ok(())
    }
}
