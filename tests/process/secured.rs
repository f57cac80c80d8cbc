//! A client that speaks lines inside TLS, by rustls' own buffered interface.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use sixfour::sys::tls::{Trust, client_config};

pub struct Secured {
    reader: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

/// A configuration that takes any server.
pub fn trusting() -> ClientConfig {
    let (config, _) = client_config(Trust::Pins(Vec::new())).expect("a configuration");
    ClientConfig::clone(&config)
}

impl Secured {
    pub fn new(stream: TcpStream) -> Secured {
        Secured::with(stream, trusting())
    }

    pub fn with(stream: TcpStream, config: ClientConfig) -> Secured {
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
        let stream = StreamOwned::new(connection, stream);
        Secured { reader: BufReader::with_capacity(64 * 1024, stream) }
    }

    /// The connection below.
    pub fn stream(&self) -> &TcpStream {
        &self.reader.get_ref().sock
    }

    /// Completes the handshake.
    pub fn handshake(&mut self) -> io::Result<()> {
        let stream = self.reader.get_mut();
        stream.conn.complete_io(&mut stream.sock).map(drop)
    }

    /// Sends one line.
    pub fn send(&mut self, line: &str) {
        self.send_bytes(format!("{line}\n").as_bytes());
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let stream = self.reader.get_mut();
        stream.write_all(bytes).and_then(|()| stream.flush()).expect("the server takes it");
    }

    /// The next line, without its end.
    pub fn next(&mut self) -> String {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).expect("a line in time");
        assert_eq!(line.pop(), Some(b'\n'), "the connection ended within {line:?}");
        String::from_utf8(line).expect("lines are text")
    }

    /// Exactly so many bytes.
    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).expect("so many bytes");
        bytes
    }

    /// Says that no more requests come: inside TLS alone.
    pub fn half_close(&mut self) {
        let stream = self.reader.get_mut();
        stream.conn.send_close_notify();
        stream.flush().expect("the server takes it");
    }

    /// All that comes until the server says that nothing more comes. An end that it does not say
    /// fails the test.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.reader.read_to_end(&mut bytes).expect("an end that is said, in time");
        bytes
    }

    /// The same as text.
    pub fn rest_text(&mut self) -> String {
        String::from_utf8_lossy(&self.rest()).into_owned()
    }
}
