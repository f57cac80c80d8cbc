//! How many descriptors the process may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More than this is of no use to us, and children that close all numbers there are get slow.
const ENOUGH: u64 = 32_768;

/// Raises the soft limit to the hard one, as far as that is of use, and tells what holds. Commands
/// get the same: the kernel hands limits on.
pub fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let (current, maximum) = (current.unwrap_or(u64::MAX), maximum.unwrap_or(u64::MAX));
    let wanted = maximum.min(ENOUGH);
    if current >= wanted {
        return current;
    }
    let limit =
        Rlimit { current: Some(wanted), maximum: Some(maximum).filter(|it| *it < u64::MAX) };
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => wanted,
        Err(error) => {
            log::warn!("the limit of open files stays at {current}: {error}");
            current
        }
    }
}
