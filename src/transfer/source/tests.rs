use std::fs;

use super::{
    file::{HASH_AGE_SECONDS, Identity, identity_of},
    *,
};
use crate::transfer::{
    Receiver, Report, Segment, Sender,
    sink::{FolderSink, Naming},
};

fn faults(items: Vec<Item>, hashes: &Hashes, to: &Path) -> Vec<ErrorCode> {
    let mut sender = Sender::new(DiskSource::new(items, hashes.clone()));
    sender.send_copies();
    let root = File::open(to).expect("a folder");
    let sink = FolderSink::new(root.into(), Naming::Within(Vec::new()), false);
    let mut receiver = Receiver::new(sink);
    while sender.outcome().is_none() || receiver.outcome().is_none() {
        sender.produce(1 << 20);
        for segment in sender.take_segments() {
            let Segment::Bytes(bytes) = segment else { panic!("copies were asked for") };
            receiver.handle(&bytes);
        }
        while receiver.prove(1 << 20) {}
        receiver.settle();
        sender.handle(&receiver.take_bytes());
    }
    let code = |report| match report {
        Report::Failed { fault, .. } => Some(fault.code),
        _ => None,
    };
    receiver.take_reports().into_iter().filter_map(code).collect()
}

#[test]
fn a_hash_that_is_remembered_proves_nothing_and_is_forgotten_where_it_is_wrong() {
    let folder = || tempfile::tempdir().expect("a folder");
    let (from, to) = (folder(), folder());
    let (new, old) = ([b'n'; 100_000], [b'o'; 100_000]);
    fs::write(from.path().join("f"), new).expect("a file");
    let hashes = Hashes::default();
    let root: Arc<OwnedFd> = Arc::new(File::open(from.path()).expect("a folder").into());
    let run = || faults(vec![Item::below(root.clone(), b"f")], &hashes, to.path());
    // As if it had been written through a mapping since: that changes no times.
    let remember = || {
        let metadata = fs::metadata(from.path().join("f")).expect("it is there");
        let hash = *blake3::hash(&old).as_bytes();
        hashes.insert(identity_of(&metadata), hash, clock::wall_clock());
    };
    remember();
    assert_eq!(run(), [ErrorCode::NotVerified]);
    assert_eq!(run(), [], "one retry does it");
    assert!(fs::read(to.path().join("f")).expect("it is there") == new);
    // What is there has the bytes whose hash is remembered; the source has others.
    fs::write(to.path().join("f"), old).expect("a file");
    remember();
    assert_eq!(run(), []);
    assert!(fs::read(to.path().join("f")).expect("it is there") == new);
}

#[test]
fn a_hash_is_remembered_for_a_short_time() {
    let (hashes, hash) = (Hashes::default(), [1; 32]);
    let (modified, changed) = ((1, 2), (3, 4));
    let identity = Identity { device: 1, inode: 2, size: 3, modified, changed };
    hashes.insert(identity, hash, 1000);
    assert_eq!(hashes.get(&identity, 1000 + HASH_AGE_SECONDS - 1), Some(hash));
    for other in [1000 + HASH_AGE_SECONDS, 999] {
        assert_eq!(hashes.get(&identity, other), None, "at {other}");
    }
    hashes.forget(&identity);
    assert_eq!(hashes.get(&identity, 1000), None);
}

#[test]
fn many_names_are_looked_at_in_turns() {
    let folder = tempfile::tempdir().expect("a folder");
    for number in 0..50 {
        fs::create_dir_all(folder.path().join(format!("d/{number}"))).expect("a folder");
    }
    let root: Arc<OwnedFd> = Arc::new(File::open(folder.path()).expect("a folder").into());
    for path in ["*/*/*", "d", "*b*"] {
        let items = vec![Item::below(root.clone(), path.as_bytes())];
        let mut source = DiskSource::new(items, Hashes::default());
        let (mut turns, mut found) = (0, 0);
        loop {
            let mut budget = 5;
            match source.next(&mut budget) {
                Upcoming::End => break,
                Upcoming::Later => turns += 1,
                Upcoming::Entry(..) | Upcoming::Missing(..) => found += 1,
            }
            assert!(turns < 1000, "{path} does not come to an end");
        }
        let (least, expected) = match path {
            "*/*/*" => (10, 1),
            "d" => (20, 51),
            _ => (0, 1),
        };
        assert!(turns >= least && found == expected, "{path}: {turns} {found}");
    }
}
