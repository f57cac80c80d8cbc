//! How much devices may store that nobody knows: those of a server that serves anybody.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    edge::{DataFolder, disk::BLOCK_BYTES},
    limits::OPEN_QUOTA_LOOK_AGAIN,
    wire::{ErrorCode, Refusal},
};

/// Bytes that the files of all devices may take together.
pub struct Quota {
    max_bytes: u64,
    known: Mutex<Known>,
}

/// What is known of the folder. What was written since is counted, what was removed is not: that
/// shows at the next look, which is taken when the quota seems to be used up.
#[derive(Default)]
struct Known {
    bytes: u64,
    looked_at: Option<Instant>,
}

impl Quota {
    /// So many bytes, and no more.
    pub fn new(max_bytes: u64) -> Quota {
        Quota { max_bytes, known: Mutex::default() }
    }

    /// Counts a new file, before anything of it is written.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn begin(&self, disk: &DataFolder) -> Result<(), Refusal> {
        self.charge(disk, BLOCK_BYTES, OPEN_QUOTA_LOOK_AGAIN)
    }

    /// Counts bytes that are about to be written.
    ///
    /// # Errors
    /// There is no room for them.
    pub fn write(&self, disk: &DataFolder, bytes: usize) -> Result<(), Refusal> {
        self.charge(disk, bytes as u64, OPEN_QUOTA_LOOK_AGAIN)
    }

    fn charge(&self, disk: &DataFolder, bytes: u64, look_again: Duration) -> Result<(), Refusal> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |known: &Known| known.bytes.saturating_add(bytes) <= self.max_bytes;
        let may_look = known.looked_at.is_none_or(|at| at.elapsed() >= look_again);
        if may_look && (known.looked_at.is_none() || !fits(&known)) {
            let stored = disk.stored_bytes().map_err(|error| {
                let text = format!("the server's data folder cannot be looked through: {error}");
                Refusal::new(0, ErrorCode::SystemError, text)
            })?;
            *known = Known { bytes: stored, looked_at: Some(Instant::now()) };
        }
        if !fits(&known) {
            let text = format!(
                "this server keeps {} bytes of devices without a password, and has them; delete \
                 some, or ask the operator (--open-quota)",
                self.max_bytes
            );
            return Err(Refusal::new(0, ErrorCode::NoSpace, text));
        }
        known.bytes += bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_there_and_what_comes_count_and_what_is_deleted_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("alice-1.txt"), vec![b'1'; 6000]).expect("a file");
        // What is no device's is not counted.
        for name in ["upload-log.txt", "alice-x.txt", "alice-1.png"] {
            fs::write(at(name), vec![b'1'; 60_000]).expect("a file");
        }
        let disk = DataFolder::lock(folder.path()).expect("a data folder");
        fs::write(at(".edge/stage.7"), "1\n").expect("a file");
        assert_eq!(disk.stored_bytes().expect("sizes"), 3 * BLOCK_BYTES);
        let quota = Quota::new(5 * BLOCK_BYTES);
        let charge = |bytes| quota.charge(&disk, bytes, Duration::ZERO);
        charge(BLOCK_BYTES).expect("a fourth");
        charge(BLOCK_BYTES).expect("a fifth");
        // These were not written, so that they show no more at the next look.
        charge(BLOCK_BYTES).expect("a fourth again");
        fs::write(at("bob-2.txt"), vec![b'1'; 8192]).expect("a file");
        quota.begin(&disk).expect("the last of what is counted");
        let error = charge(1).expect_err("the folder is full");
        assert_eq!(error.code, ErrorCode::NoSpace);
        fs::remove_file(at("alice-1.txt")).expect("it is there");
        charge(1).expect("something was deleted");
    }
}
