//! A poor line between two network namespaces: two TUN interfaces, and a thread that moves packets
//! from one to the other late, and not all of them. What runs over it is the kernel's own TCP, or
//! the direct channel, both with the kernel's own IP and an MTU of 1500 bytes.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::OFlags,
    ioctl::{Opcode, Setter, ioctl, opcode},
    thread::{UnshareFlags, unshare_unsafe},
};
use socket2::SockRef;

use crate::direct::{self, Meeting};

/// Packets that vanish, in a thousand, each way.
pub const LOST_PER_MILLE: u64 = 10;

/// Time that a packet takes, each way.
pub const DELAY: Duration = Duration::from_millis(10);

/// What is sent over the line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// One direct channel.
    Direct,
    /// One connection of TCP with CUBIC.
    Cubic,
}

impl Way {
    /// In the order of the table.
    pub const ALL: [Way; 2] = [Way::Direct, Way::Cubic];

    /// The name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Way::Direct => "sixfour-direct",
            Way::Cubic => "tcp-cubic",
        }
    }
}

const ADDRESSES: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
const TCP_PORT: u16 = 4000;

/// Sends for so long, and tells how many bytes arrived in a second.
pub fn measure(way: Way, seconds: f64) -> Result<f64, String> {
    let (line, ends) = Line::make()?;
    let duration = Duration::from_secs_f64(seconds);
    let received = Arc::new(AtomicU64::new(0));
    let addresses = ADDRESSES.map(|text| text.parse::<IpAddr>().expect("an address"));
    let [sender, receiver] = ends;
    let counter = Counter(received.clone());
    let (told, asked) = mpsc::channel();
    match way {
        Way::Direct => {
            let [first, second] = Meeting::at(addresses);
            let source = Endless { until: None, duration };
            sender.run(Box::new(move || direct::send(&first, &mut { source })), told.clone());
            receiver.run(Box::new(move || direct::receive(&second, &mut { counter })), told);
        }
        Way::Cubic => {
            let (ready, is_ready) = mpsc::channel();
            let at = SocketAddr::from((addresses[1], TCP_PORT));
            let source = Endless { until: None, duration };
            let send = move || send_tcp(at, &is_ready, source).map_err(|error| error.to_string());
            let receive =
                move || receive_tcp(at, &ready, counter).map_err(|error| error.to_string());
            sender.run(Box::new(send), told.clone());
            receiver.run(Box::new(receive), told);
        }
    }
    let begin = Instant::now();
    for _ in 0..2 {
        asked.recv().map_err(|_| "an end of the line panicked".to_owned())??;
    }
    let taken = begin.elapsed().as_secs_f64();
    drop(line);
    Ok(received.load(Ordering::Relaxed) as f64 / taken)
}

/// Bytes for a while.
#[derive(Clone, Copy)]
struct Endless {
    until: Option<Instant>,
    duration: Duration,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let until = *self.until.get_or_insert_with(|| Instant::now() + self.duration);
        // A little at a time, or the buffers would be most of what is sent.
        let count = buffer.len().min(16 * 1024);
        Ok(if Instant::now() < until { count } else { 0 })
    }
}

#[derive(Clone)]
struct Counter(Arc<AtomicU64>);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn send_tcp(at: SocketAddr, ready: &mpsc::Receiver<()>, mut source: Endless) -> io::Result<()> {
    ready.recv().map_err(io::Error::other)?;
    let socket = socket2::Socket::new(
        socket2::Domain::IPV4,
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    socket.set_tcp_congestion(b"cubic")?;
    socket.connect(&at.into())?;
    let mut stream = TcpStream::from(socket);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match source.read(&mut buffer)? {
            0 => return stream.shutdown(std::net::Shutdown::Write),
            count => stream.write_all(&buffer[..count])?,
        }
    }
}

fn receive_tcp(at: SocketAddr, ready: &mpsc::Sender<()>, mut sink: Counter) -> io::Result<()> {
    let listener = TcpListener::bind(at)?;
    SockRef::from(&listener).set_tcp_congestion(b"cubic")?;
    ready.send(()).map_err(io::Error::other)?;
    let (mut stream, _) = listener.accept()?;
    io::copy(&mut stream, &mut sink).map(drop)
}

type Job = Box<dyn FnOnce() -> Result<(), String> + Send>;

/// A thread in a network namespace of its own.
struct End(mpsc::Sender<(Job, mpsc::Sender<Result<(), String>>)>);

impl End {
    /// The thread, and its interface of this address.
    fn make(at: usize) -> Result<(End, File), String> {
        let (jobs, taken) = mpsc::channel::<(Job, mpsc::Sender<Result<(), String>>)>();
        let (told, made) = mpsc::channel();
        thread::spawn(move || {
            let file = make_interface(ADDRESSES[at], ADDRESSES[1 - at]);
            let is_made = file.is_ok();
            if told.send(file).is_err() || !is_made {
                return;
            }
            for (job, told) in taken {
                // Whoever asked has gone only where the bench ends.
                let _ = told.send(job());
            }
        });
        let file = made.recv().map_err(|_| "the thread of a namespace panicked".to_owned())??;
        Ok((End(jobs), file))
    }

    fn run(&self, job: Job, told: mpsc::Sender<Result<(), String>>) {
        self.0.send((job, told)).expect("the thread waits for jobs");
    }
}

/// `struct ifreq` as far as TUNSETIFF reads it (netdevice(7)).
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

/// `TUNSETIFF`, `IFF_TUN` and `IFF_NO_PI` of linux/if_tun.h.
const SET_INTERFACE: Opcode = opcode::write::<i32>(b'T', 202);
const TUN: i16 = 0x0001;
const NO_PACKET_INFORMATION: i16 = 0x1000;

/// Moves this thread to a new namespace, and makes its end of the line there.
fn make_interface(own: &str, other: &str) -> Result<File, String> {
    let cannot = |what: &str, error: io::Error| format!("cannot {what}: {error}");
    // SAFETY: no file descriptors are unshared, which is all that makes this unsafe.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
        .map_err(|error| cannot("make a network namespace (root may)", error.into()))?;
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).open("/dev/net/tun");
    let file = file.map_err(|error| cannot("open /dev/net/tun", error))?;
    let mut name = [0; 16];
    name[..4].copy_from_slice(b"line");
    let flags = TUN | NO_PACKET_INFORMATION;
    let request = InterfaceRequest { name, flags, rest: [0; 22] };
    // SAFETY: TUNSETIFF reads a `struct ifreq`, which this is laid out as.
    unsafe { ioctl(&file, Setter::<SET_INTERFACE, InterfaceRequest>::new(request)) }
        .map_err(|error| cannot("make a TUN interface", error.into()))?;
    for arguments in [
        &["address", "add", own, "peer", other, "dev", "line"][..],
        &["link", "set", "line", "mtu", "1500", "txqueuelen", "1000", "up"],
        &["link", "set", "lo", "up"],
    ] {
        let status = Command::new("ip").args(arguments).status();
        match status {
            Ok(status) if status.success() => {}
            Ok(_) => return Err(format!("ip {} failed", arguments.join(" "))),
            Err(error) => return Err(cannot("run ip (iproute2)", error)),
        }
    }
    rustix::fs::fcntl_setfl(&file, OFlags::NONBLOCK)
        .map_err(|error| cannot("prepare /dev/net/tun", error.into()))?;
    Ok(file)
}

/// The packets on their way; it is cut when this is dropped.
struct Line {
    is_cut: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Line {
    fn make() -> Result<(Line, [End; 2]), String> {
        let (first, first_file) = End::make(0)?;
        let (second, second_file) = End::make(1)?;
        let is_cut = Arc::new(AtomicBool::new(false));
        let cut = is_cut.clone();
        let thread = thread::spawn(move || forward([first_file, second_file], &cut));
        Ok((Line { is_cut, thread: Some(thread) }, [first, second]))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.is_cut.store(true, Ordering::Relaxed);
        let _said_already = self.thread.take().map(thread::JoinHandle::join);
    }
}

fn forward(mut files: [File; 2], is_cut: &AtomicBool) {
    let mut queues: [VecDeque<(Instant, Vec<u8>)>; 2] = Default::default();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut buffer = vec![0; 65_536];
    while !is_cut.load(Ordering::Relaxed) {
        let mut is_quiet = true;
        for at in 0..2 {
            for _ in 0..64 {
                let count = match files[at].read(&mut buffer) {
                    Ok(count) => count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => return,
                };
                is_quiet = false;
                // xorshift64 (Marsaglia 2003).
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                if state % 1000 >= LOST_PER_MILLE {
                    queues[1 - at].push_back((Instant::now() + DELAY, buffer[..count].to_vec()));
                }
            }
            let now = Instant::now();
            while queues[at].front().is_some_and(|(due, _)| *due <= now) {
                let (_, packet) = queues[at].pop_front().expect("it was seen just now");
                // What the interface does not take is lost, as on any line.
                let _ = files[at].write(&packet);
                is_quiet = false;
            }
        }
        if is_quiet {
            thread::sleep(Duration::from_micros(100));
        }
    }
}
