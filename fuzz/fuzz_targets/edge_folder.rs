//! A data folder with any journal and any logs: it is refused with a sentence, or put in order once
//! and for all, and then an upload adds one line and one file.
//!
//! The input has the journal, the two logs and a file behind each other, parted by a byte 0xff. A
//! line of the journal that begins with a space gets its check, which no fuzzer guesses.
#![no_main]

#[path = "../../tests/edge/sim_disk.rs"]
#[allow(dead_code, reason = "a test takes more of it")]
mod sim_disk;

use libfuzzer_sys::fuzz_target;
use sim_disk::{Restart, SimDisk};
use sixfour::{
    edge::{
        Act, Folder, Stage, journal,
        log::{DELETION_LOG, DEVICE_LOG, DeviceLine, UPLOAD_LOG, time_of},
    },
    wire::Name,
};

const TIME: &str = "30 September 2022 10:31:13";

fn with_checks(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let body = line.strip_suffix(b"\n").unwrap_or(line);
        if let Some(entry) = body.strip_prefix(b" ") {
            out.extend_from_slice(&blake3::hash(entry).to_hex().as_bytes()[..16]);
        }
        out.extend_from_slice(line);
    }
    out
}

/// What is read comes back from what is written anew.
fn check_journal(bytes: &[u8]) {
    let Ok(contents) = journal::read(bytes) else { return };
    assert!(contents.good_bytes <= bytes.len());
    assert_eq!(journal::read(&bytes[..contents.good_bytes]).as_ref(), Ok(&contents));
    let mut again = Vec::new();
    contents.records.iter().for_each(|record| record.write(&mut again));
    journal::write_done(contents.done, &mut again);
    let again = journal::read(&again).expect("our own form");
    assert_eq!((again.records, again.done), (contents.records, contents.done));
}

fn check_lines(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    for line in text.split('\n') {
        assert!(time_of(line).is_none_or(|time| line.contains(time)));
        let Some(device) = DeviceLine::parse(line) else { continue };
        let written = device.write();
        let again = written.strip_suffix('\n').and_then(DeviceLine::parse);
        assert_eq!(again.as_ref(), Some(&device));
    }
}

fn contents(disk: &SimDisk) -> Vec<(String, Option<Vec<u8>>)> {
    disk.all().into_iter().map(|name| (name.clone(), disk.content(&name))).collect()
}

fn open(disk: &SimDisk) -> Result<Folder<u32, SimDisk>, String> {
    Folder::open(disk.clone())
}

fn upload(disk: &SimDisk, folder: &mut Folder<u32, SimDisk>) {
    let before = disk.content(UPLOAD_LOG).unwrap_or_default();
    let mut stage = Stage::begin(disk.clone(), 1).expect("there is room");
    stage.write(b"7\n").expect("a sample");
    let staged = stage.finish(None).expect("a sample");
    let device = Name::parse("fuzzer").expect("a name");
    let act = Act::Upload { device, file_id: 1, request: None, staged };
    assert!(folder.perform(vec![act], TIME)[0].is_ok());
    let line = format!("fuzzer; {TIME}; 1; 1\n").into_bytes();
    assert_eq!(disk.content(UPLOAD_LOG), Some([before, line].concat()));
    assert_eq!(disk.content("fuzzer-1.txt").as_deref(), Some(&b"7\n"[..]));
}

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(4, |byte| *byte == 0xff);
    let mut part = || parts.next().unwrap_or_default();
    let (journal, uploads, deletions, file) = (with_checks(part()), part(), part(), part());
    check_journal(&journal);
    check_lines(uploads);
    let disk = SimDisk::new();
    disk.put(journal::JOURNAL, &journal);
    disk.put(UPLOAD_LOG, uploads);
    disk.put(DELETION_LOG, deletions);
    disk.put(DEVICE_LOG, b"left over");
    disk.put(".edge/stage.1", file);
    let Ok(mut folder) = open(&disk) else {
        assert!(journal::read(&journal).is_err(), "a good journal is no reason");
        return;
    };
    for warning in folder.take_warnings() {
        assert!(!warning.contains(|it: char| it.is_control() && it != '\t'), "{warning:?}");
    }
    assert_eq!(disk.content(DEVICE_LOG).as_deref(), Some(&b""[..]));
    for log in [UPLOAD_LOG, DELETION_LOG] {
        let text = disk.content(log).expect("it was there");
        assert!(text.last().is_none_or(|last| *last == b'\n'), "{log} ends with a line");
    }
    let settled = contents(&disk);
    let disk = disk.restart(Restart::Process);
    let mut folder = open(&disk).expect("it was put in order");
    assert_eq!((folder.take_warnings(), contents(&disk)), (vec![], settled));
    upload(&disk, &mut folder);
});
