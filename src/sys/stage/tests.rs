//! Stages on real disks: what is found again, kept, swept, and never touched.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::sweep::sweep_at;
use super::*;

fn folder_of(path: &Path) -> Arc<OwnedFd> {
    Arc::new(File::open(path).expect("a folder").into())
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).expect("a folder");
    let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let mut names: Vec<_> = entries.map(|it| name(it).into_string().expect("text")).collect();
    names.sort();
    names
}

fn part_of(name: &str) -> String {
    stage_name::stable(OsStr::new(name)).into_string().expect("text")
}

fn named(mut stage: Stage, mode: u32) {
    stage.dress((1_000_000_000, 5), mode).expect("a mode");
    let target = stage.target().to_owned();
    stage.place(&target, true).expect("a name");
}

#[test]
fn what_was_written_is_found_again_and_gone_on_with() {
    let temporary = tempfile::tempdir().expect("a folder");
    let (folder, name) = (folder_of(temporary.path()), OsStr::new("a"));
    let mut stage = Stage::create(&folder, name).expect("a stage");
    stage.write_all(b"he").expect("room");
    assert_eq!(Stage::create(&folder, name).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    drop(stage);
    assert_eq!(names(temporary.path()), [part_of("a")]);
    let mut stage = Stage::find(&folder, name).expect("no error").expect("it is there");
    assert_eq!(stage.length(), 2);
    stage.write_all(b"llo").expect("room");
    named(stage, 0o777);
    assert_eq!(names(temporary.path()), ["a"]);
    let path = temporary.path().join("a");
    assert_eq!(fs::read(&path).expect("the file"), b"hello");
    let metadata = fs::metadata(&path).expect("the file");
    assert_eq!(metadata.mtime(), 1_000_000_000);
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o777 & !attributes::umask());
}

#[test]
fn what_is_empty_discarded_or_small_leaves_nothing() {
    let temporary = tempfile::tempdir().expect("a folder");
    let (folder, name) = (folder_of(temporary.path()), OsStr::new("a"));
    drop(Stage::create(&folder, name).expect("a stage"));
    for small in [false, true] {
        let mut stage = match small {
            true => Stage::create_small(&folder, name, 0o666),
            false => Stage::create(&folder, name),
        }
        .expect("a stage");
        stage.write_all(b"x").expect("room");
        match small {
            true => drop(stage),
            false => stage.discard(),
        }
    }
    assert_eq!(names(temporary.path()), [""; 0]);
}

#[test]
fn a_stage_that_others_can_change_is_not_written_to_and_stays() {
    let temporary = tempfile::tempdir().expect("a folder");
    let (folder, name) = (folder_of(temporary.path()), OsStr::new("a"));
    let (precious, part) = (temporary.path().join("precious"), temporary.path().join(part_of("a")));
    fs::write(&precious, b"precious").expect("a file");
    let plant: [&dyn Fn(); 4] = [
        &|| symlink(&precious, &part).expect("a link"),
        &|| fs::hard_link(&precious, &part).expect("a link"),
        &|| {
            fs::write(&part, b"planted").expect("a file");
            fs::set_permissions(&part, PermissionsExt::from_mode(0o602)).expect("a mode");
        },
        &|| fs::create_dir(&part).expect("a folder"),
    ];
    for (at, plant) in plant.iter().enumerate() {
        plant();
        assert!(Stage::find(&folder, name).expect("no error").is_none(), "{at}");
        let mut stage = Stage::create(&folder, name).expect("a stage");
        stage.write_all(b"new").expect("room");
        named(stage, 0o640);
        let mode = fs::metadata(temporary.path().join("a")).expect("it is there").mode();
        assert_eq!(mode & 0o777, 0o640 & !attributes::umask());
        assert_eq!(fs::read(&precious).expect("the file"), b"precious");
        assert!(fs::symlink_metadata(&part).is_ok(), "{at}: what somebody else made is removed");
        let _ = fs::remove_file(&part);
    }
}

#[test]
fn what_is_reserved_and_half_written_is_given_back() {
    let temporary = tempfile::tempdir().expect("a folder");
    let (folder, name) = (folder_of(temporary.path()), OsStr::new("a"));
    let mut stage = Stage::create(&folder, name).expect("a stage");
    stage.expect(64 << 20).expect("there is room for it");
    stage.write_all(b"x").expect("room");
    // As a write that fails in its middle leaves it.
    stage.copy_at(b"half", 1).expect("room");
    stage.has_more = true;
    drop(stage);
    let metadata = fs::metadata(temporary.path().join(part_of("a"))).expect("it is kept");
    assert_eq!(metadata.len(), 1);
    assert!(metadata.blocks() * 512 <= 64 * 1024, "{} blocks", metadata.blocks());
}

#[test]
fn holes_take_no_room() {
    let temporary = tempfile::tempdir().expect("a folder");
    let (folder, name) = (folder_of(temporary.path()), OsStr::new("a"));
    let mut stage = Stage::create(&folder, name).expect("a stage");
    // More than any disk has: only the holes make it fit.
    stage.expect(1 << 42).expect("it may have holes");
    stage.write_all(b"x").expect("room");
    stage.skip((1 << 42) - 2).expect("a hole");
    stage.write_all(b"y").expect("room");
    let metadata = stage.file().metadata().expect("its facts");
    assert!(metadata.blocks() * 512 < 8 << 20, "{} blocks", metadata.blocks());
    let mut end = [9; 2];
    assert_eq!(stage.read_at(&mut end, (1 << 42) - 2).expect("it is there"), 2);
    assert_eq!(&end, b"\0y");
}

#[test]
fn a_file_that_the_disk_cannot_hold_fails_early() {
    let temporary = tempfile::tempdir().expect("a folder");
    let (folder, name) = (folder_of(temporary.path()), OsStr::new("a"));
    let mut stage = Stage::create(&folder, name).expect("a stage");
    stage.expect(1 << 50).expect("it may have holes");
    let block = vec![1; 1 << 20];
    let failed = (0..3).find_map(|_| stage.write_all(&block).err()).expect("it has none");
    assert_eq!(failed.kind(), io::ErrorKind::StorageFull);
}

#[test]
fn a_name_that_is_taken_is_told_and_the_stage_is_kept() {
    let temporary = tempfile::tempdir().expect("a folder");
    let folder = folder_of(temporary.path());
    fs::write(temporary.path().join("a"), b"old").expect("a file");
    let mut stage = Stage::create(&folder, OsStr::new("a")).expect("a stage");
    stage.write_all(b"new").expect("room");
    let error = stage.place(OsStr::new("a"), false).expect_err("it is there");
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    drop(stage);
    assert_eq!(fs::read(temporary.path().join("a")).expect("it is there"), b"old");
    let stage = Stage::find(&folder, OsStr::new("a")).expect("no error").expect("it is kept");
    assert_eq!(stage.length(), 3);
}

#[test]
fn only_what_is_ours_old_and_free_is_swept() {
    const WEEK: Duration = Duration::from_secs(7 * 86_400);
    let temporary = tempfile::tempdir().expect("a folder");
    let folder = folder_of(temporary.path());
    let mut held = Stage::create(&folder, OsStr::new("held")).expect("a stage");
    held.write_all(b"x").expect("room");
    let (dead, planted) = (part_of("dead"), part_of("planted"));
    let left = [".part-numbers.csv", ".part-a-0123456789abcdef", "old", &dead, "precious"];
    for name in left {
        let path = temporary.path().join(name);
        fs::write(&path, b"x").expect("a file");
        // What is set back tells nothing.
        set_modified(&File::open(path).expect("a file"), (1_000_000_000, 0)).expect("a time");
    }
    fs::hard_link(temporary.path().join("precious"), temporary.path().join(&planted))
        .expect("a link");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time");
    let all = names(temporary.path());
    sweep_at(&folder, now, WEEK).expect("a folder");
    assert_eq!(names(temporary.path()), all, "nothing is a week old");
    sweep_at(&folder, Duration::from_secs(1000), Duration::ZERO).expect("a folder");
    assert_eq!(names(temporary.path()), all, "a clock that is not set tells nothing");
    sweep_at(&folder, now + WEEK + Duration::from_secs(60), WEEK).expect("a folder");
    let rest: Vec<_> = all.into_iter().filter(|name| *name != dead).collect();
    assert_eq!(names(temporary.path()), rest);
}

#[test]
fn what_is_replaced_hands_on_its_permissions_and_attributes() {
    let temporary = tempfile::tempdir().expect("a folder");
    let (folder, path) = (folder_of(temporary.path()), temporary.path().join("a"));
    for (old, is_executable, new) in [
        (0o600, Some(false), 0o600),
        (0o640, Some(true), 0o750),
        (0o755, Some(false), 0o644),
        (0o755, None, 0o755),
        (0o4700, Some(true), 0o700),
    ] {
        fs::write(&path, b"old").expect("a file");
        fs::set_permissions(&path, PermissionsExt::from_mode(old)).expect("a mode");
        let mut stage = Stage::create_small(&folder, OsStr::new("a"), 0o666).expect("a stage");
        attributes::take_over(stage.file(), &folder, OsStr::new("a"), is_executable);
        stage.place(OsStr::new("a"), true).expect("a name");
        let mode = fs::metadata(&path).expect("it is there").permissions().mode() & 0o7777;
        assert_eq!(mode, new, "{old:o} {is_executable:?}");
        fs::remove_file(&path).expect("it is there");
    }
}

#[test]
fn links_are_made_replaced_and_never_put_in_the_place_of_a_file() {
    let temporary = tempfile::tempdir().expect("a folder");
    let folder = folder_of(temporary.path());
    let to = |path: &str| make_link(&folder, OsStr::new("l"), OsStr::new(path));
    assert!(!to("one").expect("it is new"));
    assert!(to("one").expect("it is there"));
    assert!(!to("other").expect("it is replaced"));
    let path = temporary.path().join("l");
    assert_eq!(fs::read_link(&path).expect("a link"), Path::new("other"));
    fs::remove_file(&path).expect("it is there");
    fs::write(&path, b"file").expect("a file");
    assert_eq!(to("one").expect_err("a file").kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(names(temporary.path()), ["l"]);
}

#[test]
fn a_link_of_the_system_is_not_replaced() {
    let temporary = tempfile::tempdir().expect("a folder");
    let folder = folder_of(temporary.path());
    let open = File::create(temporary.path().join("open")).expect("a file");
    let fd = std::os::fd::AsRawFd::as_raw_fd(&open);
    symlink(format!("/proc/self/fd/{fd}"), temporary.path().join("mine")).expect("a link");
    symlink("open", temporary.path().join("plain")).expect("a link");
    let error = check_target(&folder, OsStr::new("mine")).expect_err("it is open");
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("standard output"), "{error}");
    check_target(&folder, OsStr::new("plain")).expect("a link to a file is replaced");
    let dev = folder_of(Path::new("/dev"));
    for name in ["stdout", "null"] {
        assert!(check_target(&dev, OsStr::new(name)).is_err(), "/dev/{name}");
    }
    let fds = folder_of(Path::new("/proc/self/fd"));
    let name = fd.to_string();
    assert!(check_target(&fds, OsStr::new(&name)).is_err());
}
