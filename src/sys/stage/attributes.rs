//! What a file has beside its content: permissions, owner, access lists, who has sent it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::sync::OnceLock;

use rustix::fs::{Gid, Mode, OFlags, Uid, XattrFlags};

use crate::sys::partfile::tolerate;

/// The longest value of an attribute that is carried over, in bytes: Linux has none longer.
const VALUE_MAX_BYTES: usize = 64 * 1024;

/// Who has sent a file.
const SENDER: &str = "user.sixfour.sender";

/// Sets these permissions; never setuid.
///
/// # Errors
/// What fchmod(2) said; a file system without modes is no error.
pub fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    tolerate(rustix::fs::fchmod(file, Mode::from_raw_mode(mode & 0o777)))
}

/// These permissions with the right to execute it, for whoever may read it, or without.
#[must_use]
pub fn with_execution(mode: u32, is_executable: bool) -> u32 {
    let mode = mode & 0o777;
    if is_executable { mode | (mode & 0o444) >> 2 } else { mode & !0o111 }
}

/// Gives `file`, which is to replace the one of that name, what that one has: its permissions, its
/// owner, its access list and its attributes, as far as this process can. `is_executable` where
/// that is known of the new content.
pub fn take_over(file: &File, folder: &OwnedFd, name: &OsStr, is_executable: Option<bool>) {
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    let Ok(old) = rustix::fs::statat(folder, name, flags) else { return };
    if rustix::fs::FileType::from_raw_mode(old.st_mode) != rustix::fs::FileType::RegularFile {
        return;
    }
    let mut mode = match is_executable {
        Some(is_executable) => with_execution(old.st_mode, is_executable),
        None => old.st_mode & 0o777,
    };
    let Ok(new) = file.metadata() else { return };
    if (new.uid(), new.gid()) != (old.st_uid, old.st_gid) {
        // Nobody may read it in between: the mode comes last.
        let _ = set_mode(file, 0o600);
        let (uid, gid) = (Uid::from_raw(old.st_uid), Gid::from_raw(old.st_gid));
        let owned = rustix::fs::fchown(file, Some(uid), Some(gid));
        if owned.is_err() && rustix::fs::fchown(file, None, Some(gid)).is_err() {
            // A group that cannot be given gets no more than all others have.
            mode = mode & 0o707 | (mode & 0o7) << 3 & mode;
        }
    }
    let _ = set_mode(file, mode);
    copy_attributes(file, folder, name);
}

fn copy_attributes(file: &File, folder: &OwnedFd, name: &OsStr) {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let Ok(old) = rustix::fs::openat(folder, name, flags, Mode::empty()) else { return };
    let mut names = vec![0; VALUE_MAX_BYTES];
    let Ok(count) = rustix::fs::flistxattr(&old, &mut names[..]) else { return };
    if count == 0 {
        return;
    }
    let mut value = vec![0; VALUE_MAX_BYTES];
    for name in names[..count].split(|byte| *byte == 0) {
        let is_carried = name.starts_with(b"user.") || name == b"system.posix_acl_access";
        if !is_carried || name == SENDER.as_bytes() {
            continue;
        }
        if let Ok(length) = rustix::fs::fgetxattr(&old, name, &mut value[..]) {
            let _ = rustix::fs::fsetxattr(file, name, &value[..length], XattrFlags::empty());
        }
    }
}

/// Notes who has sent the file. A file system without attributes is no error: then it counts as
/// the file of somebody else.
pub fn set_sender(file: &File, sender: &[u8]) {
    let _ = rustix::fs::fsetxattr(file, SENDER, sender, XattrFlags::empty());
}

/// Who has sent the file of that name, where that was noted.
#[must_use]
pub fn sender_of(folder: &OwnedFd, name: &OsStr) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let old = rustix::fs::openat(folder, name, flags, Mode::empty()).ok()?;
    let mut value = [0; 256];
    let length = rustix::fs::fgetxattr(&old, SENDER, &mut value[..]).ok()?;
    Some(value[..length].to_vec())
}

/// What new files of this process are not permitted (umask(2)). Asking the kernel by the call
/// would change it for all threads; proc(5) tells as well.
#[must_use]
pub fn umask() -> u32 {
    static UMASK: OnceLock<u32> = OnceLock::new();
    *UMASK.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        line.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o022)
    })
}
