//! The hash of a file, computed in pieces.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use super::READ_BYTES;

/// The hash of the first bytes of a file, which is read by position, so that others may use it
/// meanwhile. Takes about a quarter of a second a GiB and waits for the disk, so it belongs on a
/// worker.
#[derive(Debug)]
pub struct FileHash {
    file: Arc<File>,
    size: u64,
    offset: u64,
    hasher: blake3::Hasher,
}

impl FileHash {
    /// Of the first `size` bytes, which are all.
    #[must_use]
    pub fn new(file: Arc<File>, size: u64) -> FileHash {
        FileHash { file, size, offset: 0, hasher: blake3::Hasher::new() }
    }

    /// Reads at most so many bytes more; the hash, once all are read.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file is shorter than it was said to be, `InvalidData` if it is
    /// longer, else what pread(2) said.
    pub fn go_on(&mut self, most_bytes: u64) -> io::Result<Option<blake3::Hash>> {
        let mut buffer = vec![0; READ_BYTES];
        let end = self.size.min(self.offset.saturating_add(most_bytes));
        while self.offset < end {
            let left = usize::try_from(end - self.offset).unwrap_or(READ_BYTES).min(READ_BYTES);
            match self.file.read_at(&mut buffer[..left], self.offset) {
                Ok(0) => {
                    let text = "the file became shorter while it was read";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
                }
                Ok(count) => {
                    self.hasher.update(&buffer[..count]);
                    self.offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.offset < self.size {
            return Ok(None);
        }
        if self.file.metadata()?.len() != self.size {
            let text = "the file changed its length while it was read";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(Some(self.hasher.finalize()))
    }
}
