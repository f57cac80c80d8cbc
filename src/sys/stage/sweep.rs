//! What dead transfers have left goes after a while.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

use crate::sys::stage_name;

/// 2025-01-01: this program is younger. A clock before that was never set, and times before it
/// tell nothing.
const CLOCK_IS_SET_FROM: i64 = 1_735_689_600;

/// Removes what dead transfers of this account left in the folder, where nothing was done with it
/// for `age` and nobody writes it. `now` is since 1970.
///
/// The time is the one that the kernel keeps of the last change of anything (`ctime`): no program
/// sets it back.
///
/// # Errors
/// The folder cannot be read.
pub fn sweep(folder: impl AsFd, age: Duration) -> io::Result<()> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    sweep_at(folder, now, age)
}

/// The same at a time since the epoch.
pub(super) fn sweep_at(folder: impl AsFd, now: Duration, age: Duration) -> io::Result<()> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < CLOCK_IS_SET_FROM {
        return Ok(());
    }
    let oldest = now.saturating_sub(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(&folder, ".", flags, Mode::empty())?;
    for found in Dir::read_from(&opened)? {
        let found = found?;
        let name = found.file_name();
        if !stage_name::is_stage_name(name.to_bytes()) {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let Ok(file) = rustix::fs::openat(&folder, name, flags, Mode::empty()) else { continue };
        let Ok(stat) = rustix::fs::fstat(&file) else { continue };
        if !stage_name::is_ours(&stat) || !is_free(&file) {
            continue;
        }
        if stat.st_ctime < CLOCK_IS_SET_FROM {
            // It was written while the clock was not set. Its time begins now.
            let at = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
            let now = Timestamps { last_access: at, last_modification: at };
            let _ = rustix::fs::futimens(&file, &now);
        } else if stat.st_ctime < oldest {
            let _ = rustix::fs::unlinkat(&folder, name, AtFlags::empty());
        }
    }
    Ok(())
}

fn is_free(file: impl AsFd) -> bool {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => true,
        // Whoever writes it has changed it lately.
        Err(errno) => errno != Errno::WOULDBLOCK,
    }
}
