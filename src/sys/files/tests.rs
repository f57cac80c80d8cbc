//! Attempts to escape, kinds of files, listings, sending and hashing.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::*;

/// The kind of a file system that lives in memory (statfs(2), `TMPFS_MAGIC`).
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// A folder with a secret beside the shared folder `share`.
fn shared() -> (TempDir, Share) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret"), "secret").unwrap();
    fs::create_dir_all(folder.path().join("share/sub")).unwrap();
    fs::write(folder.path().join("share/sub/in.txt"), "inside").unwrap();
    let share = Share::open(&folder.path().join("share")).unwrap();
    (folder, share)
}

fn open(share: &Share, name: &str) -> Result<OpenedFile, FileError> {
    share.open_file(OsStr::new(name))
}

impl Share {
    /// All that a listing tells of.
    pub(super) fn list(&self, relative: &OsStr) -> Result<Vec<Entry>, FileError> {
        let share = Share { root: self.try_clone_root()?, hidden: self.hidden() };
        let mut lister = Lister::open(Arc::new(share), relative, 1 << 20)?;
        let mut entries = Vec::new();
        loop {
            match lister.go_on(100)? {
                Listed::NotYet => {}
                Listed::Entries(some) => entries.extend(some),
                Listed::All => return Ok(entries),
            }
        }
    }
}

#[test]
fn a_file_is_opened_with_its_facts() {
    let (folder, share) = shared();
    let path = folder.path().join("share/sub/in.txt");
    let when = SystemTime::UNIX_EPOCH + Duration::new(1_600_000_000, 123_000_000);
    File::options().write(true).open(&path).unwrap().set_modified(when).unwrap();
    let opened = open(&share, "sub/in.txt").unwrap();
    assert_eq!((opened.size, opened.modified), (6, (1_600_000_000, 123_000_000)));
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((opened.device, opened.inode), (metadata.dev(), metadata.ino()));
    assert_eq!(open(&share, "sub/../sub/./in.txt").unwrap().inode, opened.inode);
    let flags = rustix::io::fcntl_getfd(&opened.file).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn nothing_outside_is_found_however_it_is_named() {
    let (folder, share) = shared();
    let root = folder.path().join("share");
    symlink("../secret", root.join("out")).unwrap();
    symlink(folder.path().join("secret"), root.join("out-absolute")).unwrap();
    symlink("..", root.join("up")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    symlink("circle", root.join("circle")).unwrap();
    // An absolute link is refused even where it leads back inside.
    symlink(root.join("sub/in.txt"), root.join("back")).unwrap();
    for name in [
        "../secret",
        "sub/../../secret",
        "/etc/passwd",
        "//etc/passwd",
        "out",
        "out-absolute",
        "up/secret",
        "dangling",
        "circle",
        "back",
        "..",
        "/",
        "",
        "none",
        "sub/in.txt/",
        "sub/in.txt/..",
        "../share/sub/in.txt",
        "..%2fsecret",
        "..\\secret",
        "sub\0/in.txt",
    ] {
        let result = open(&share, name);
        assert!(matches!(result, Err(FileError::NotFound)), "{name:?}: {result:?}");
    }
    assert!(matches!(open(&share, &"n".repeat(256)), Err(FileError::TooLong)));
    assert!(matches!(open(&share, &"n/".repeat(2100)), Err(FileError::TooLong)));
}

#[test]
fn a_link_that_stays_inside_is_followed() {
    let (folder, share) = shared();
    symlink("sub/in.txt", folder.path().join("share/link")).unwrap();
    symlink("../sub", folder.path().join("share/sub/again")).unwrap();
    assert_eq!(open(&share, "link").unwrap().size, 6);
    assert_eq!(open(&share, "sub/again/in.txt").unwrap().size, 6);
}

#[test]
fn magic_links_of_proc_are_not_followed() {
    let share = Share::open(Path::new("/proc/self")).unwrap();
    for name in ["exe", "cwd/Cargo.toml", "root/etc/passwd", "fd/0", "task/../cwd/Cargo.toml"] {
        let result = open(&share, name);
        assert!(matches!(result, Err(FileError::NotFound)), "{name}: {result:?}");
    }
}

#[test]
fn only_regular_files_open_and_nothing_hangs() {
    let (folder, share) = shared();
    let root = folder.path().join("share");
    let status = std::process::Command::new("mkfifo").arg(root.join("fifo")).status().unwrap();
    assert!(status.success());
    let _socket = UnixListener::bind(root.join("socket")).unwrap();
    for name in ["fifo", "socket", "sub", "sub/", "."] {
        let result = open(&share, name);
        assert!(matches!(result, Err(FileError::NotRegular)), "{name}: {result:?}");
    }
    let devices = Share::open(Path::new("/dev")).unwrap();
    assert!(matches!(open(&devices, "null"), Err(FileError::NotRegular)));
}

#[test]
fn an_unreadable_file_is_denied() {
    if rustix::process::geteuid().is_root() {
        println!("skipped: root reads everything");
        return;
    }
    let (folder, share) = shared();
    let path = folder.path().join("share/shut");
    fs::write(&path, "x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    assert!(matches!(open(&share, "shut"), Err(FileError::Denied)));
}

#[test]
fn sizes_from_nothing_to_beyond_4_gib() {
    let (folder, share) = shared();
    let large = File::create(folder.path().join("share/large")).unwrap();
    large.set_len((4 << 30) + 1).unwrap();
    File::create(folder.path().join("share/empty")).unwrap();
    assert_eq!(open(&share, "large").unwrap().size, 4_294_967_297);
    assert_eq!(open(&share, "empty").unwrap().size, 0);
    let listing = share.list(OsStr::new("")).unwrap();
    let size = |name: &str| listing.iter().find(|e| e.name == name).unwrap().size;
    assert_eq!((size("large"), size("empty")), (4_294_967_297, 0));
}

#[test]
fn a_listing_is_sorted_and_says_what_links_stand_for() {
    let (folder, share) = shared();
    let root = folder.path().join("share");
    fs::write(root.join("b"), "bb").unwrap();
    fs::write(root.join(OsStr::from_bytes(b"\xff\n")), "").unwrap();
    fs::write(root.join(".hidden"), "").unwrap();
    fs::write(root.join(".part-b-0123"), "").unwrap();
    fs::write(root.join(crate::sys::stage_name::stable(OsStr::new("b"))), "").unwrap();
    symlink("b", root.join("a-link")).unwrap();
    symlink("sub", root.join("c-link")).unwrap();
    symlink("../secret", root.join("d-out")).unwrap();
    let listing = share.list(OsStr::new("")).unwrap();
    let shown: Vec<_> =
        listing.iter().map(|entry| (entry.name.as_bytes(), entry.kind, entry.size)).collect();
    assert_eq!(
        shown,
        [
            (&b".hidden"[..], EntryKind::File, 0),
            // Only the name of an unfinished file of ours is left out, not what looks like one.
            (b".part-b-0123", EntryKind::File, 0),
            (b"a-link", EntryKind::File, 2),
            (b"b", EntryKind::File, 2),
            (b"c-link", EntryKind::Directory, 0),
            (b"d-out", EntryKind::Other, 0),
            (b"sub", EntryKind::Directory, 0),
            (b"\xff\n", EntryKind::File, 0),
        ]
    );
    assert_eq!(share.list(OsStr::new(".")).unwrap(), listing);
}

#[test]
fn a_listing_tells_of_one_file_and_of_nothing_outside() {
    let (folder, share) = shared();
    symlink("..", folder.path().join("share/up")).unwrap();
    let listing = share.list(OsStr::new("sub/in.txt")).unwrap();
    assert_eq!(listing[0].name, "in.txt");
    assert_eq!(listing[0].size, 6);
    for name in ["..", "/", "up", "none", "sub/in.txt/"] {
        let result = share.list(OsStr::new(name));
        assert!(matches!(result, Err(FileError::NotFound)), "{name}: {result:?}");
    }
}

#[test]
fn what_somebody_is_just_sending_is_nobody_elses() {
    let (folder, share) = shared();
    let name = crate::sys::stage_name::stable(OsStr::new("plan.txt"));
    for place in ["share", "share/sub"] {
        fs::write(folder.path().join(place).join(&name), "half of").unwrap();
    }
    let name = name.to_str().unwrap();
    for name in [name, &format!("sub/{name}"), &format!("sub/../{name}")] {
        assert!(matches!(open(&share, name), Err(FileError::NotFound)), "{name}");
        let listed = share.list(OsStr::new(name));
        assert!(matches!(listed, Err(FileError::NotFound)), "{name}: {listed:?}");
    }
    assert_eq!(share.list(OsStr::new("sub")).unwrap().len(), 1);
}

#[test]
fn this_system_keeps_peers_within_the_folder() {
    let (_folder, share) = shared();
    assert_eq!(share.check_system(), Ok(()));
}

#[test]
fn folders_for_uploads_are_reached_through_no_link() {
    let (folder, share) = shared();
    symlink("sub", folder.path().join("share/link")).unwrap();
    for name in ["", ".", "sub"] {
        share.open_folder(OsStr::new(name)).unwrap();
    }
    for name in ["link", "..", "/", "sub/in.txt", "none"] {
        let result = share.open_folder(OsStr::new(name));
        assert!(matches!(result, Err(FileError::NotFound)), "{name}: {result:?}");
    }
}

#[test]
fn a_share_stays_the_folder_it_was() {
    let (folder, share) = shared();
    fs::rename(folder.path().join("share"), folder.path().join("moved")).unwrap();
    symlink("/", folder.path().join("share")).unwrap();
    assert_eq!(open(&share, "sub/in.txt").unwrap().size, 6);
    let error = Share::open(&folder.path().join("secret")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
}

#[test]
fn a_file_is_sent_from_any_offset_and_its_end_is_noticed() {
    let (_folder, share) = shared();
    let opened = open(&share, "sub/in.txt").unwrap();
    let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut offset = 2;
    assert_eq!(send_file(&one, &opened.file, &mut offset, 3).unwrap(), 3);
    assert_eq!(offset, 5);
    assert_eq!(send_file(&one, &opened.file, &mut offset, 100).unwrap(), 1);
    assert_eq!(send_file(&one, &opened.file, &mut offset, 100).unwrap(), 0);
    drop(one);
    assert_eq!(io::read_to_string(other).unwrap(), "side");
}

#[test]
fn hashing_covers_the_whole_file_and_notices_changes() {
    let (folder, share) = shared();
    let path = folder.path().join("share/data");
    let data: Vec<u8> = (0..READ_BYTES * 2 + 7).map(|i| (i % 251) as u8).collect();
    fs::write(&path, &data).unwrap();
    let opened = open(&share, "data").unwrap();
    let file = Arc::new(opened.file);
    let hash = |size| {
        let mut hash = FileHash::new(Arc::clone(&file), size);
        loop {
            // What does not fit into one go is gone on with.
            if let Some(hash) = hash.go_on(READ_BYTES as u64 + 1)? {
                return Ok::<_, io::Error>(hash);
            }
        }
    };
    assert_eq!(hash(opened.size).unwrap(), blake3::hash(&data));
    assert_eq!(hash(opened.size - 1).unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!(hash(opened.size + 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    fs::write(&path, "").unwrap();
    assert_eq!(hash(0).unwrap(), blake3::hash(b""));
}

/// False where the file system of the tests cannot tell what is in memory.
fn tells_what_is_cached(file: &File) -> bool {
    let mut byte = [0];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    let asked = rustix::io::preadv2(file, &mut buffers, 0, ReadWriteFlags::NOWAIT);
    if asked == Err(Errno::OPNOTSUPP) {
        println!("skipped: this file system cannot tell what is in memory");
        assert!(!page_is_cached(file, 0));
    }
    asked != Err(Errno::OPNOTSUPP)
}

#[test]
fn pages_are_known_to_be_in_memory_or_not() {
    let (folder, _share) = shared();
    let path = folder.path().join("share/pages");
    fs::write(&path, vec![1; 64 * 1024]).unwrap();
    let file = File::open(path).unwrap();
    if !tells_what_is_cached(&file) {
        return;
    }
    assert!(page_is_cached(&file, 0));
    assert!(page_is_cached(&file, 65_535));
    assert!(page_is_cached(&file, 1 << 40), "the end of the file needs no disk");
    if rustix::fs::fstatfs(&file).unwrap().f_type == TMPFS_MAGIC {
        println!("skipped for cold pages: a tmpfs has none");
        return;
    }
    file.sync_all().unwrap();
    // It is advice: a page that the kernel is about to do something with stays for now.
    let begun = std::time::Instant::now();
    while page_is_cached(&file, 0) {
        assert!(begun.elapsed().as_secs() < 10, "the page was given up");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
    file.read_at(&mut [0], 0).unwrap();
    assert!(page_is_cached(&file, 0));
}

#[test]
fn swapping_folders_and_links_meanwhile_lets_nothing_out() {
    let (folder, share) = shared();
    let root = folder.path().join("share");
    // `flip` is by turns a folder with a harmless `secret` and a link to where the real one is.
    fs::create_dir(root.join("flip")).unwrap();
    fs::write(root.join("flip/secret"), "harmless").unwrap();
    symlink("..", root.join("flop")).unwrap();
    let over = AtomicBool::new(false);
    let (mut found, mut refused, mut escaped) = (0, 0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (flip, flop) = (root.join("flip"), root.join("flop"));
            while !over.load(Ordering::Relaxed) {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(CWD, &flip, CWD, &flop, exchange).unwrap();
            }
        });
        for _ in 0..20_000 {
            match open(&share, "flip/secret") {
                Ok(opened) if opened.size == 8 => found += 1,
                Ok(_) => escaped += 1,
                Err(_) => refused += 1,
            }
            // There is no such file in the share itself.
            escaped += usize::from(open(&share, "flip/../secret").is_ok());
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(escaped, 0, "found {found}, refused {refused}");
    assert!(found > 0 && refused > 0, "both states were met");
}
