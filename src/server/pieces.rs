//! The one road by which bytes of a file reach a socket, whatever sends the file.

use std::{fs::File, io};

use crate::sys::transport::Transport;

/// An error of the disk (errno(3)).
const EIO: i32 = rustix::io::Errno::IO.raw_os_error();

/// What fills the place of bytes that a file has lost while it was sent: their number was
/// announced, so the peer waits for them.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Sends up to `length` bytes of `file` from `offset` on; 0 means that the file has lost them.
pub fn send(
    transport: &mut Transport,
    file: &File,
    mut offset: u64,
    length: usize,
) -> io::Result<usize> {
    match transport.send_file(file, &mut offset, length) {
        // The disk failed, not the connection.
        Err(error) if error.raw_os_error() == Some(EIO) => Ok(0),
        sent => sent,
    }
}

/// Sends up to `length` zeros in place of lost bytes.
pub fn send_zeros(transport: &mut Transport, length: usize) -> io::Result<usize> {
    transport.write(&ZEROS[..length.min(ZEROS.len())], false)
}
