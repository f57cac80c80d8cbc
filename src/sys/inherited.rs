//! What whoever started us has left us with, and what must not get any further.

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Keeps descriptors that were open before us from our commands, and our memory, with keys and
/// passwords in it, from core files, which would lie in the shared folder. To be called before
/// anything else is started. A command may allow itself core files again (`ulimit -c`).
///
/// # Errors
/// `/proc` is not there, or `setrlimit(2)` refused.
pub fn keep_from_commands() -> io::Result<()> {
    for number in open_descriptors()?.into_iter().filter(|number| *number > 2) {
        close_at_exec(number);
    }
    let maximum = getrlimit(Resource::Core).maximum;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum })?;
    Ok(())
}

fn open_descriptors() -> io::Result<Vec<RawFd>> {
    let entries = fs::read_dir("/proc/self/fd");
    let entries =
        entries.map_err(|error| io::Error::new(error.kind(), format!("/proc/self/fd: {error}")))?;
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    Ok(entries.flatten().filter_map(number).collect())
}

#[allow(unsafe_code, reason = "a descriptor that we did not open has no owner to borrow it from")]
fn close_at_exec(number: RawFd) {
    // SAFETY: it is borrowed for this call alone. The one that has read the list is closed by now,
    // and its number is an error then, as nothing else opens descriptors meanwhile.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    let _ = fcntl_setfd(descriptor, FdFlags::CLOEXEC);
}

#[cfg(test)]
mod tests {
    use super::super::process::testing::{play_role, plays_role, run};
    use super::*;

    #[test]
    fn commands_get_neither_foreign_descriptors_nor_core_files() {
        let role = play_role("as_started_carelessly", "as_started_carelessly");
        let mut shell = std::process::Command::new("/bin/sh");
        shell.args(["-c", "ulimit -S -c 100; exec 9</etc/passwd; exec \"$0\" \"$@\""]);
        shell.arg(role.get_program()).args(role.get_args());
        shell.envs(role.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = shell.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
    }

    #[test]
    #[ignore = "a role that another test starts: descriptors belong to the whole process"]
    fn as_started_carelessly() {
        if !plays_role("as_started_carelessly") {
            return;
        }
        let look = || run("head -n 1 <&9; ulimit -S -c").1;
        assert!(look().starts_with("root:"), "{}", look());
        keep_from_commands().unwrap();
        assert_eq!(look(), "0\n");
    }
}
