//! Room on a disk for a file that comes: looked for in whole, taken little by little.
//!
//! Were it taken in whole, somebody who announces much and sends one byte would have the disk.

use std::fs::File;
use std::io;

use rustix::fs::{FallocateFlags, StatFs};
use rustix::io::Errno;

use crate::limits::{RESERVE_MAX_BYTES, RESERVE_MIN_BYTES};

/// The type of a file system that lies in memory (statfs(2)).
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// What a file has reserved.
#[derive(Debug, Default)]
pub(in crate::sys) struct Space {
    /// Bytes of the whole file; 0 where nothing is reserved.
    size: u64,
    /// Up to there it has room.
    reserved: u64,
}

impl Space {
    /// For a file that has `length` bytes and is to have `size`; and the bytes that are free, where
    /// those are too few for it.
    ///
    /// # Errors
    /// `FileTooLarge`.
    pub fn look(file: &File, length: u64, size: u64) -> io::Result<(Space, Option<u64>)> {
        // More is no size of a file for any system call.
        if i64::try_from(size).is_err() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
        if limit.is_some_and(|limit| size > limit) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let disk = rustix::fs::fstatfs(file)?;
        let too_few = free_of(&disk).filter(|free| size.saturating_sub(length) > *free);
        // In memory, to take the space costs as much as to fill it.
        let size = if disk.f_type == TMPFS_MAGIC { 0 } else { size };
        Ok((Space { size, reserved: length }, too_few))
    }

    /// The same for a file that has no holes.
    ///
    /// # Errors
    /// `StorageFull` where the disk has no room for it now, `FileTooLarge`.
    pub fn of(file: &File, length: u64, size: u64) -> io::Result<Space> {
        match Space::look(file, length, size)? {
            (space, None) => Ok(space),
            (_, Some(_)) => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    /// Takes room for what is written now and some more; true where it did.
    pub fn reserve(&mut self, file: &File, length: u64, end: u64) -> bool {
        if end <= self.reserved || self.reserved >= self.size {
            return false;
        }
        // As much again as is there: so a large file is in few pieces.
        let ahead = end.clamp(RESERVE_MIN_BYTES, RESERVE_MAX_BYTES);
        let until = end.saturating_add(ahead).min(self.size).max(end);
        loop {
            let flags = FallocateFlags::KEEP_SIZE;
            match rustix::fs::fallocate(file, flags, length, until - length) {
                Err(Errno::INTR) => {}
                Ok(()) => {
                    self.reserved = until;
                    return true;
                }
                // The write itself says whether there is no room, or does without.
                Err(_) => {
                    self.size = 0;
                    return true;
                }
            }
        }
    }

    /// `count` bytes from `from` on are a hole.
    pub fn give_back(&mut self, file: &File, from: u64, count: u64) {
        if from < self.reserved {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // Where that cannot be, the room is filled with zeros, which is as good.
            let _ = rustix::fs::fallocate(file, flags, from, count);
        }
        self.reserved = self.reserved.max(from + count);
    }
}

/// Bytes that this process can still write; `None` where the file system does not tell.
fn free_of(disk: &StatFs) -> Option<u64> {
    // What is kept back for root is there for root.
    let is_root = rustix::process::geteuid().is_root();
    let blocks = if is_root { disk.f_bfree } else { disk.f_bavail };
    (disk.f_blocks > 0).then(|| blocks.saturating_mul(disk.f_bsize.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_size_beyond_all_disks_fails_early() {
        let file = tempfile::tempfile().expect("a file");
        for size in [1 << 62, u64::MAX - 1] {
            let error = Space::of(&file, 0, size).expect_err("no disk is so large");
            let early = [io::ErrorKind::StorageFull, io::ErrorKind::FileTooLarge];
            assert!(early.contains(&error.kind()), "{error}");
        }
    }

    #[test]
    fn one_byte_of_a_large_file_reserves_little() {
        let file = tempfile::tempfile().expect("a file");
        let Ok(mut space) = Space::of(&file, 0, 1 << 28) else {
            println!("skipped: the disk has no 256 MiB");
            return;
        };
        space.reserve(&file, 0, 1);
        let taken = file.metadata().expect("its facts").blocks() * 512;
        assert!(taken <= 2 * RESERVE_MIN_BYTES, "{taken} bytes");
        assert!(space.reserved == space.size.min(1 + RESERVE_MIN_BYTES) || space.size == 0);
    }
}
