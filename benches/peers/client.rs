//! A client that waits: for logins, round trips and idle sessions.

use std::{
    io::{ErrorKind, Read, Write},
    marker::PhantomData,
    net::{IpAddr, Ipv4Addr, TcpStream},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use rustls::pki_types::ServerName;
use sixfour::sys::{
    tls::{self, Trust},
    transport::Transport,
};

use crate::{
    peers::Peer,
    protocol::{Incoming, Protocol, Role},
};

/// Nothing that is asked for takes so long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that waits for what it is told to do.
enum Link {
    Clear(TcpStream),
    Secured(Box<Transport>),
}

/// A connection that is logged in.
pub struct Client<P> {
    link: Link,
    inbox: Vec<u8>,
    taken: usize,
    outbox: Vec<u8>,
    protocol: PhantomData<P>,
}

impl<P: Protocol> Client<P> {
    /// Connects and logs in; `index` chooses the address family.
    pub fn connect(peer: &Peer, index: usize, name: &str, role: Role) -> Result<Self, String> {
        let stream = open(peer, index)?;
        let link = match peer.is_secured {
            false => Link::Clear(stream),
            true => Link::Secured(Box::new(secure(stream)?)),
        };
        let mut greeting = Vec::new();
        P::greet(&mut greeting, name, role);
        let mut client =
            Client { link, inbox: Vec::new(), taken: 0, outbox: Vec::new(), protocol: PhantomData };
        client.write(&greeting)?;
        while !P::is_greeted(&client.inbox, role)? {
            client.fill()?;
        }
        client.inbox = Vec::new();
        Ok(client)
    }

    /// Sends a message.
    pub fn send(&mut self, to: &str, text: &str) -> Result<(), String> {
        self.outbox.clear();
        P::put_message(&mut self.outbox, to, text);
        let outbox = std::mem::take(&mut self.outbox);
        let written = self.write(&outbox);
        self.outbox = outbox;
        written
    }

    /// Waits for a message and gives the length of its text.
    pub fn receive(&mut self) -> Result<usize, String> {
        loop {
            while let Some((incoming, used)) = P::next(&self.inbox[self.taken..])? {
                self.taken += used;
                match incoming {
                    Incoming::Text(text) => return Ok(text.len()),
                    Incoming::Question(answer) => self.write(answer)?,
                    Incoming::Other => {}
                }
            }
            self.inbox.drain(..self.taken);
            self.taken = 0;
            self.fill()?;
        }
    }

    /// The connection alone, in clear; what it has received must have been taken.
    pub fn into_stream(self) -> TcpStream {
        self.assert_taken();
        match self.link {
            Link::Clear(stream) => stream,
            Link::Secured(_) => panic!("the caller is for connections in clear"),
        }
    }

    /// The connection alone, without blocking; what it has received must have been taken.
    pub fn into_transport(self) -> Result<Transport, String> {
        self.assert_taken();
        match self.link {
            Link::Secured(transport) => Ok(*transport),
            Link::Clear(stream) => {
                stream
                    .set_nonblocking(true)
                    .map_err(|error| format!("cannot be polled: {error}"))?;
                Ok(Transport::plain(mio::net::TcpStream::from_std(stream)))
            }
        }
    }

    fn assert_taken(&self) {
        assert!(self.inbox.len() == self.taken, "something came that nobody has asked for");
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        let text = |error| format!("cannot send: {error}");
        match &mut self.link {
            Link::Clear(stream) => stream.write_all(bytes).map_err(text),
            Link::Secured(transport) => {
                let mut left = bytes;
                while !left.is_empty() {
                    match transport.write(left, false) {
                        Ok(count) => left = &left[count..],
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            wait(transport, PollFlags::OUT)?;
                        }
                        Err(error) => return Err(text(error)),
                    }
                }
                Ok(())
            }
        }
    }

    fn fill(&mut self) -> Result<(), String> {
        match &mut self.link {
            Link::Clear(stream) => read_more(stream, &mut self.inbox),
            Link::Secured(transport) => {
                wait(transport, PollFlags::IN)?;
                let mut buffer = [0; 4096];
                match transport.read(&mut buffer) {
                    Ok(0) => Err("the server closed the connection".to_owned()),
                    Ok(count) => {
                        self.inbox.extend_from_slice(&buffer[..count]);
                        Ok(())
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
                    Err(error) => Err(format!("no answer: {error}")),
                }
            }
        }
    }
}

/// Does the handshake, with whatever key the server shows.
fn secure(stream: TcpStream) -> Result<Transport, String> {
    let text = |error: rustls::Error| format!("cannot be secured: {error}");
    let (config, _) = tls::client_config(Trust::Pins(Vec::new())).map_err(text)?;
    let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
    Transport::secure(stream, config, name, ANSWER_TIMEOUT).map_err(|error| error.to_string())
}

fn wait(transport: &Transport, flags: PollFlags) -> Result<(), String> {
    let patience = Timespec::try_from(ANSWER_TIMEOUT).expect("ten seconds fit");
    match poll(&mut [PollFd::new(transport.stream(), flags)], Some(&patience)) {
        Ok(0) => Err("no answer in time".to_owned()),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(format!("cannot wait: {errno}")),
    }
}

/// Connects without a word; `index` chooses the address family.
pub fn open(peer: &Peer, index: usize) -> Result<TcpStream, String> {
    let address = peer.address(index);
    let text = |error| format!("cannot connect to {address}: {error}");
    let stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT).map_err(text)?;
    stream.set_nodelay(true).map_err(text)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(text)?;
    Ok(stream)
}

/// Appends what comes next.
pub fn read_more(stream: &mut TcpStream, inbox: &mut Vec<u8>) -> Result<(), String> {
    let mut buffer = [0; 4096];
    match stream.read(&mut buffer) {
        Ok(0) => Err("the server closed the connection".to_owned()),
        Ok(count) => {
            inbox.extend_from_slice(&buffer[..count]);
            Ok(())
        }
        Err(error) => Err(format!("no answer: {error}")),
    }
}
