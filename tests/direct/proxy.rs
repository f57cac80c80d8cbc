//! A poor line in user space: a UDP socket for each end, and a thread between them that loses,
//! delays and reorders what one seed tells it to.

use std::{
    collections::BinaryHeap,
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::rng::Rng;

/// The line; it is cut when this is dropped.
pub struct Proxy {
    /// Where the first end finds the second, and the second the first.
    pub places: [SocketAddr; 2],
    lost: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Flying {
    at: Instant,
    to: usize,
    bytes: Vec<u8>,
}

/// The earliest is the greatest, for the heap.
impl Ord for Flying {
    fn cmp(&self, other: &Flying) -> std::cmp::Ordering {
        other.at.cmp(&self.at)
    }
}

impl PartialOrd for Flying {
    fn partial_cmp(&self, other: &Flying) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for Flying {}

impl PartialEq for Flying {
    fn eq(&self, other: &Flying) -> bool {
        self.at == other.at
    }
}

impl Proxy {
    /// Two sockets on this host, not yet joined.
    pub fn sockets(host: std::net::IpAddr) -> [UdpSocket; 2] {
        [0, 1].map(|_| UdpSocket::bind((host, 0)).expect("a free port"))
    }

    /// Joins the ends, of which the second is at `ends[1]`: what comes to the socket `n` is from
    /// the end `n`, and goes to the other end from the other socket. Chances are in a thousand.
    pub fn start(sockets: [UdpSocket; 2], ends: [SocketAddr; 2], lost: usize, seed: u64) -> Proxy {
        let places = [0, 1].map(|at: usize| sockets[at].local_addr().expect("it is bound"));
        let (is_over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (over, counted) = (is_over.clone(), count.clone());
        let thread = thread::spawn(move || forward(&sockets, ends, lost, seed, &over, &counted));
        Proxy { places, lost: count, is_over, thread: Some(thread) }
    }

    pub fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(Err(panic)) = self.thread.take().map(thread::JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
    }
}

fn forward(
    sockets: &[UdpSocket; 2],
    ends: [SocketAddr; 2],
    lost: usize,
    seed: u64,
    is_over: &AtomicBool,
    counted: &AtomicUsize,
) {
    let mut rng = Rng(seed);
    let mut flying: BinaryHeap<Flying> = BinaryHeap::new();
    let mut buffer = vec![0; 65_536];
    sockets.iter().for_each(|it| it.set_nonblocking(true).expect("a socket can be that"));
    while !is_over.load(Ordering::Relaxed) {
        let mut is_quiet = true;
        for (at, socket) in sockets.iter().enumerate() {
            for _ in 0..64 {
                let count = match socket.recv(&mut buffer) {
                    Ok(count) => count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => continue,
                };
                is_quiet = false;
                if rng.range(0, 999) < lost {
                    counted.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                // A millisecond there, another back; a tenth takes longer.
                let late = if rng.range(0, 9) == 0 { rng.range(0, 3000) } else { 0 };
                let delay = Duration::from_micros(1000 + late as u64);
                let bytes = buffer[..count].to_vec();
                flying.push(Flying { at: Instant::now() + delay, to: 1 - at, bytes });
            }
        }
        let now = Instant::now();
        while flying.peek().is_some_and(|it| it.at <= now) {
            let Flying { to, bytes, .. } = flying.pop().expect("it was seen just now");
            // What does not fit in the queue is lost, as on any line.
            let _ = sockets[to].send_to(&bytes, ends[to]);
        }
        if is_quiet {
            thread::sleep(Duration::from_micros(200));
        }
    }
}
