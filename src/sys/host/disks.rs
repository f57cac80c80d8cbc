//! What the file systems hold.
//!
//! statvfs(3) of a network file system whose server is dead may never return. So a [`Survey`] is
//! made by a worker, local file systems first, and whoever waits for it can take what is known
//! so far and go on.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

/// Types that live in memory or are no place for files; `/` is asked whatever it is.
const NO_DISKS: &[&str] =
    &["autofs", "binfmt_misc", "devtmpfs", "efivarfs", "proc", "ramfs", "squashfs", "tmpfs"];

/// Types whose answer comes from another machine or program, and so perhaps never.
const REMOTE: &[&str] =
    &["9p", "afs", "ceph", "cifs", "fuse", "glusterfs", "lustre", "nfs", "nfs4", "smb3", "smbfs"];

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Where it is mounted.
    pub path: PathBuf,
    /// What is mounted there.
    pub device: OsString,
    /// Its type, as in `ext4`.
    pub kind: String,
    /// What is known of its space.
    pub space: Answer,
}

/// What a file system has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing so far.
    None,
    /// This.
    Space(Space),
    /// That it cannot tell.
    Error(String),
}

/// The space of a file system in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total_bytes: u64,
    /// What is not used.
    pub free_bytes: u64,
    /// What of it users without privileges may have.
    pub available_bytes: u64,
}

/// A look at all file systems, shared by who makes it and who waits for it.
#[derive(Clone, Debug, Default)]
pub struct Survey(Arc<Mutex<Found>>);

#[derive(Debug, Default)]
struct Found {
    disks: Vec<Disk>,
    finished: bool,
}

impl Survey {
    /// Asks them all, one after the other. Blocks for as long as the slowest.
    pub fn run(&self) {
        let mountinfo = fs::read("/proc/self/mountinfo").unwrap_or_else(|error| {
            log::warn!("the file systems are not known: /proc/self/mountinfo: {error}");
            Vec::new()
        });
        let disks = mounted(&mountinfo);
        let paths: Vec<PathBuf> = disks.iter().map(|disk| disk.path.clone()).collect();
        self.lock().disks = disks;
        for (index, path) in paths.iter().enumerate() {
            // Not under the lock: that is what may take for ever.
            let answer = ask(path);
            self.lock().disks[index].space = answer;
        }
        self.lock().finished = true;
    }

    /// Whether all have answered.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.lock().finished
    }

    /// What is known so far, in the order of the paths. What has no blocks is left out: it holds
    /// no files, but is a view of the kernel upon itself.
    #[must_use]
    pub fn known(&self) -> Vec<Disk> {
        let mut disks = self.lock().disks.clone();
        disks.retain(|disk| !matches!(&disk.space, Answer::Space(it) if it.total_bytes == 0));
        disks.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        disks
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        // Each change is one assignment: what a panic has left is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ask(path: &Path) -> Answer {
    match rustix::fs::statvfs(path) {
        Ok(stat) => {
            let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
            Answer::Space(Space {
                total_bytes: bytes(stat.f_blocks),
                free_bytes: bytes(stat.f_bfree),
                available_bytes: bytes(stat.f_bavail),
            })
        }
        // Of somebody else's (FUSE), or hidden below another: as if it were not there.
        Err(Errno::ACCESS | Errno::PERM | Errno::NOENT | Errno::NOTDIR) => {
            Answer::Space(Space { total_bytes: 0, free_bytes: 0, available_bytes: 0 })
        }
        Err(errno) => Answer::Error(io::Error::from(errno).to_string()),
    }
}

/// The file systems in a mountinfo (proc_pid_mountinfo(5)), each device once and at its shortest
/// path, local ones first.
fn mounted(mountinfo: &[u8]) -> Vec<Disk> {
    let mut found: Vec<(Vec<u8>, Disk)> = Vec::new();
    for line in mountinfo.split(|byte| *byte == b'\n') {
        let Some((number, disk)) = parse(line) else { continue };
        // What is mounted later at the same place hides what was there.
        found.retain(|(_, other)| other.path != disk.path);
        found.push((number, disk));
    }
    found
        .retain(|(_, disk)| !NO_DISKS.contains(&disk.kind.as_str()) || disk.path == Path::new("/"));
    found.sort_by_key(|(_, disk)| disk.path.as_os_str().len());
    let mut numbers: Vec<Vec<u8>> = Vec::new();
    let mut disks: Vec<Disk> = Vec::new();
    for (number, disk) in found {
        if !numbers.contains(&number) {
            numbers.push(number);
            disks.push(disk);
        }
    }
    disks.sort_by_key(|disk| is_remote(&disk.kind));
    disks
}

fn is_remote(kind: &str) -> bool {
    REMOTE.contains(&kind) || kind.starts_with("fuse.")
}

fn parse(line: &[u8]) -> Option<(Vec<u8>, Disk)> {
    let mut words = line.split(|byte| *byte == b' ');
    let number = words.nth(2)?.to_vec();
    let path = unescape(words.nth(1)?);
    // Options, then optional fields up to a hyphen.
    let mut words = words.skip_while(|word| *word != b"-").skip(1);
    let kind = String::from_utf8_lossy(words.next()?).into_owned();
    let device = unescape(words.next()?);
    Some((number, Disk { path: path.into(), device, kind, space: Answer::None }))
}

/// Takes back what the kernel does to spaces, tabs, line ends and backslashes: `\040`.
fn unescape(word: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, others)) = rest.split_first() {
        let octal = others.first_chunk::<3>().filter(|_| first == b'\\');
        let code = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(first);
                rest = others;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &[u8] = b"\
22 27 0:21 / /proc rw,relatime - proc proc rw
26 27 254:0 /etc /etc/bound rw,relatime - ext4 /dev/vda rw,discard
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 27 0:50 / /mnt/far rw shared:3 - nfs4 host:/x rw
25 24 0:23 / /dev/shm rw,relatime shared:1 master:2 - tmpfs tmpfs rw
31 27 254:16 / /mnt/old rw - xfs /dev/vdc rw
32 27 254:32 / /mnt/old rw - xfs /dev/vdd rw
28 27 254:0 /sub /bind rw,relatime - ext4 /dev/vda rw,discard
29 27 254:1 / /mnt/a\\040b\\134 rw - ext4 /dev/vdb rw
broken line
";

    #[test]
    fn each_file_system_is_listed_once_and_those_elsewhere_last() {
        let disks = mounted(MOUNTINFO);
        let rows: Vec<_> =
            disks.iter().map(|it| (it.path.as_path(), it.device.as_os_str())).collect();
        let row = |path: &'static str, device: &'static str| (Path::new(path), device.as_ref());
        let expected = [
            row("/", "/dev/vda"),
            row("/mnt/old", "/dev/vdd"),
            row("/mnt/a b\\", "/dev/vdb"),
            row("/mnt/far", "host:/x"),
        ];
        assert_eq!(rows, expected);
        let in_memory = mounted(b"1 0 0:9 / / rw - tmpfs tmpfs rw\n");
        assert_eq!(in_memory.len(), 1, "the root is listed whatever it is");
    }

    #[test]
    fn the_root_of_this_machine_is_as_large_as_statvfs_says() {
        let survey = Survey::default();
        assert_eq!(survey.known(), []);
        survey.run();
        assert!(survey.is_finished());
        let known = survey.known();
        let Some(root) = known.iter().find(|disk| disk.path == Path::new("/")) else {
            panic!("no root among {known:?}");
        };
        let stat = rustix::fs::statvfs("/").unwrap();
        let Answer::Space(space) = &root.space else { panic!("{root:?}") };
        assert_eq!(space.total_bytes, stat.f_blocks * stat.f_frsize);
        assert!(space.available_bytes <= space.free_bytes);
    }

    #[test]
    fn what_has_not_answered_is_known_to_be_there() {
        let survey = Survey::default();
        survey.lock().disks = mounted(MOUNTINFO);
        assert!(!survey.is_finished());
        assert_eq!(survey.known().len(), 4);
        assert!(survey.known().iter().all(|disk| disk.space == Answer::None));
    }
}
