//! How many descriptors the process may have, and what is done where there are none left.

use std::{io, sync::OnceLock, thread, time::Duration};

use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// What others hold is closed soon, or not: so often is it looked for, for 640 ms in all.
const PAUSES_MS: [u64; 6] = [10, 20, 40, 80, 160, 330];

/// More than this is of no use to us, and children that close all numbers there are get slow.
const ENOUGH: u64 = 32_768;

/// Whether that failed because too many files are open, in this process or in all. It can be tried
/// again.
#[must_use]
pub fn are_used_up(error: &io::Error) -> bool {
    let codes = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
    codes.contains(&error.raw_os_error())
}

/// Does the step again after pauses, as long as it `lacks` descriptors. Blocks.
///
/// # Errors
/// Those of the step.
pub fn patiently<T, E>(
    lacks: impl Fn(&E) -> bool,
    mut step: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    for pause_ms in PAUSES_MS {
        match step() {
            Err(error) if lacks(&error) => thread::sleep(Duration::from_millis(pause_ms)),
            other => return other,
        }
    }
    step()
}

/// What held before [`raise_limit`]: the limit is of the whole process, and so is this.
static BEFORE: OnceLock<Rlimit> = OnceLock::new();

/// What the programs that we start are to get, where the kernel would hand on something else.
pub fn limit_of_children() -> Option<Rlimit> {
    BEFORE.get().copied()
}

/// Raises the soft limit to the hard one, as far as that is of use, and tells what holds. Programs
/// that we start get what held before: some close all numbers that there may be, and `select(2)`
/// goes no further than 1,024.
pub fn raise_limit() -> u64 {
    let before = getrlimit(Resource::Nofile);
    let Rlimit { current, maximum } = before;
    let (current, maximum) = (current.unwrap_or(u64::MAX), maximum.unwrap_or(u64::MAX));
    let wanted = maximum.min(ENOUGH);
    if current >= wanted {
        return current;
    }
    let limit =
        Rlimit { current: Some(wanted), maximum: Some(maximum).filter(|it| *it < u64::MAX) };
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => {
            let _ = BEFORE.set(before);
            wanted
        }
        Err(error) => {
            log::warn!("the limit of open files stays at {current}: {error}");
            current
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lacks_descriptors_is_tried_again_and_not_for_ever() {
        let mut count = 0;
        let mut fail = |errno: Errno| {
            count = 0;
            let step = || {
                count += 1;
                if count < 3 { Err(io::Error::from(errno)) } else { Ok(()) }
            };
            let result = patiently(are_used_up, step);
            (result.is_ok(), count)
        };
        assert_eq!(fail(Errno::MFILE), (true, 3));
        assert_eq!(fail(Errno::NFILE), (true, 3));
        assert_eq!(fail(Errno::NOENT), (false, 1));
        let never: Result<(), io::Error> = patiently(are_used_up, || Err(Errno::MFILE.into()));
        assert!(never.is_err());
    }
}
