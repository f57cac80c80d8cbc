//! A wire-tap: what goes between clients and a server is passed on, and kept.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// Listens on a port of its own for as long as the test runs.
pub struct Tap {
    pub port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    /// Between clients at `host` and the server at `port`.
    pub fn start(host: IpAddr, port: u16) -> Tap {
        let listener = TcpListener::bind((host, 0)).expect("a free port");
        let own = listener.local_addr().expect("it is bound").port();
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        let all = heard.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("a connection");
                let server = TcpStream::connect(SocketAddr::new(host, port)).expect("the server");
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone(), to.try_clone());
                    let ends = (from.expect("a socket"), to.expect("a socket"));
                    let all = all.clone();
                    thread::spawn(move || pass(ends, &all));
                }
            }
        });
        Tap { port: own, heard }
    }

    /// So much went by.
    pub fn heard_bytes(&self) -> usize {
        self.heard.lock().expect("nobody panics with it").len()
    }

    /// Whether these bytes went by, in either direction of any connection.
    pub fn has_heard(&self, bytes: &[u8]) -> bool {
        let heard = self.heard.lock().expect("nobody panics with it");
        memchr::memmem::find(&heard, bytes).is_some()
    }
}

fn pass((mut from, mut to): (TcpStream, TcpStream), heard: &Mutex<Vec<u8>>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        heard.lock().expect("nobody panics with it").extend_from_slice(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
