//! Socket options that no crate at hand names.

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd as _},
};

/// Has the poller tell of a readable socket only when `bytes` are there, or its end (socket(7),
/// `SO_RCVLOWAT`; poll(2) and epoll(7) heed it on TCP). Reads give what is there all the same.
///
/// # Errors
/// What setsockopt(2) said.
pub fn set_receive_low_water(socket: impl AsFd, bytes: u32) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let length = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: the descriptor is open while it is borrowed, and the kernel reads `length` bytes at
    // the address of `value`, which lives on. Neither rustix nor socket2 has this option.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const value).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        net::{TcpListener, TcpStream},
    };

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn is_readable(socket: &TcpStream) -> bool {
        let mut polled = [PollFd::new(socket, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut polled, Some(&at_once)).expect("poll") > 0
    }

    #[test]
    fn a_socket_is_readable_when_so_much_is_there_or_its_end() {
        for host in ["[::1]:0", "127.0.0.1:0"] {
            let Ok(listener) = TcpListener::bind(host) else {
                println!("skipped: {host} is not there");
                continue;
            };
            let mut far = TcpStream::connect(listener.local_addr().expect("bound")).expect("up");
            let (near, _) = listener.accept().expect("connected");
            set_receive_low_water(&near, 100_000).expect("an option of TCP");
            far.write_all(&[0; 99_999]).expect("room");
            assert!(!is_readable(&near), "one byte is missing");
            far.write_all(&[0]).expect("room");
            assert!(is_readable(&near));
            set_receive_low_water(&near, 200_000).expect("an option of TCP");
            assert!(!is_readable(&near));
            far.shutdown(std::net::Shutdown::Write).expect("open");
            assert!(is_readable(&near), "the end is there");
        }
    }
}
