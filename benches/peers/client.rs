//! A client that waits: for logins, round trips and idle sessions.

use std::{
    io::{Read, Write},
    marker::PhantomData,
    net::TcpStream,
    time::Duration,
};

use crate::{
    peers::Peer,
    protocol::{Incoming, Protocol, Role},
};

/// Nothing that is asked for takes so long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that is logged in.
pub struct Client<P> {
    stream: TcpStream,
    inbox: Vec<u8>,
    taken: usize,
    outbox: Vec<u8>,
    protocol: PhantomData<P>,
}

impl<P: Protocol> Client<P> {
    /// Connects and logs in; `index` chooses the address family.
    pub fn connect(peer: &Peer, index: usize, name: &str, role: Role) -> Result<Self, String> {
        let stream = open(peer, index)?;
        let mut greeting = Vec::new();
        P::greet(&mut greeting, name, role);
        let mut client = Client {
            stream,
            inbox: Vec::new(),
            taken: 0,
            outbox: Vec::new(),
            protocol: PhantomData,
        };
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

    /// The connection alone; what it has received must have been taken.
    pub fn into_stream(self) -> TcpStream {
        assert!(self.inbox.len() == self.taken, "something came that nobody has asked for");
        self.stream
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).map_err(|error| format!("cannot send: {error}"))
    }

    fn fill(&mut self) -> Result<(), String> {
        read_more(&mut self.stream, &mut self.inbox)
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
