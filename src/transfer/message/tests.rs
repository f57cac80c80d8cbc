use super::*;

fn samples() -> Vec<(Side, Message<'static>)> {
    use Side::{Receiver, Sender};
    let fault = Fault::new(ErrorCode::NoSpace, "no room");
    let entry = Entry {
        item: 3,
        kind: EntryKind::File,
        mode: 0o741,
        size: 5,
        modified: (-7, 9),
        path: b"a/\xff".to_vec(),
        target: Vec::new(),
    };
    let target = b"../b".to_vec();
    let link = Entry { kind: EntryKind::Link, size: 4, target, ..entry.clone() };
    let failed = Message::Failed { number: 4, path: b"x".to_vec(), fault: fault.clone() };
    vec![
        (Sender, Message::Hello { version: VERSION, features: feature::PERMISSIONS }),
        (Sender, Message::Entry(entry)),
        (Sender, Message::Entry(link)),
        (Sender, failed.clone()),
        (Sender, Message::File { number: 0, starts_over: true, from: 1 << 40 }),
        (Sender, Message::Hole(TRANSFER_HOLE_MAX_BYTES)),
        (Sender, Message::Grown(7)),
        (Sender, Message::Hash([7; 32])),
        (Sender, Message::Skipped { count: 2, path: b"fifo".to_vec() }),
        (Sender, Message::End { entries: 1 }),
        (Sender, Message::Abort(fault)),
        (Receiver, Message::Hello { version: VERSION, features: 0xff }),
        (Receiver, Message::Want { number: 0, from: 0, hash: [0; 32] }),
        (Receiver, Message::Want { number: 1, from: 9, hash: [9; 32] }),
        (Receiver, Message::Stored { number: 0 }),
        (Receiver, failed),
        (Receiver, Message::Done),
    ]
}

#[test]
fn every_message_comes_back_at_every_split() {
    let mut bytes = Vec::new();
    let samples = samples();
    samples.iter().for_each(|(side, message)| put(&mut bytes, *side, message));
    for split in 0..=bytes.len() {
        let mut decoder = Decoder::default();
        let mut found = Vec::new();
        for mut portion in [&bytes[..split], &bytes[split..]] {
            while let Some(message) = decoder.next(&mut portion).expect("good") {
                found.push(message);
            }
            assert!(portion.is_empty());
        }
        assert!(found.iter().eq(samples.iter().map(|(_, message)| message)), "at {split}");
        assert!(decoder.is_between());
    }
}

#[test]
fn a_hello_from_before_there_were_features_has_none() {
    for bytes in [&[sender::HELLO, 0, 0, 1, 1][..], &[sender::HELLO, 0, 0, 3, 1, 0, 9]] {
        let read = Decoder::default().next(&mut &bytes[..]).expect("good");
        assert_eq!(read, Some(Message::Hello { version: 1, features: 0 }));
    }
}

#[test]
fn all_permissions_come_back_but_the_owner_may_always_read() {
    for mode in 0..=0o777 {
        assert_eq!(mode_of(flags_of(mode)), mode | 0o400, "{mode:o}");
    }
    assert_eq!(flags_of(0o100), 1, "the bit that ends of old look at");
}

#[test]
fn bodies_that_cannot_be_are_refused() {
    let fixed = |kind: u8, size: u64| {
        let mut body = vec![0, 0, 0, 0, kind, 0];
        body.extend_from_slice(&size.to_be_bytes());
        body.resize(ENTRY_FIXED_BYTES, 0);
        body
    };
    let long = vec![b'x'; PATH_MAX_BYTES + 1];
    for (why, kind, body) in [
        ("a hole of nothing", sender::HOLE, 0u64.to_be_bytes().to_vec()),
        ("a hole too long", sender::HOLE, (TRANSFER_HOLE_MAX_BYTES + 1).to_be_bytes().into()),
        ("nothing was skipped", sender::SKIPPED, vec![0, 0, 0, 0, b'x']),
        ("a kind that is none", sender::ENTRY, [&fixed(3, 0)[..], b"x"].concat()),
        ("a link to nothing", sender::ENTRY, [&fixed(2, 0)[..], b"x"].concat()),
        ("a link without a name", sender::ENTRY, [&fixed(2, 1)[..], b"x"].concat()),
        ("more of a link than there is", sender::ENTRY, [&fixed(2, 9)[..], b"xy"].concat()),
        ("a link too long", sender::ENTRY, [&fixed(2, 4096)[..], b"x", &long].concat()),
        ("a path too long", sender::ENTRY, [&fixed(0, 0)[..], &long].concat()),
    ] {
        let mut bytes = vec![kind, 0, 0, 0];
        bytes[1..].copy_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
        bytes.extend_from_slice(&body);
        assert!(Decoder::default().next(&mut &bytes[..]).is_err(), "{why}");
    }
}

#[test]
fn data_is_handed_out_as_it_comes() {
    let mut bytes = Vec::new();
    put_data_header(&mut bytes, 5);
    bytes.extend_from_slice(b"hello");
    for split in 0..=bytes.len() {
        let (mut decoder, mut data) = (Decoder::default(), Vec::new());
        for mut portion in [&bytes[..split], &bytes[split..]] {
            while let Some(message) = decoder.next(&mut portion).expect("good") {
                let Message::Data(part) = message else { panic!("{message:?}") };
                data.extend_from_slice(part);
            }
        }
        assert_eq!(data, b"hello");
    }
}

#[test]
fn a_fault_that_is_not_utf8_is_read_no_longer_than_it_can_be_written() {
    let text = [0xff; REFUSAL_TEXT_MAX_BYTES];
    let mut bytes = vec![sender::ABORT, 0, 0, 0, 0];
    bytes.extend_from_slice(&text);
    let length = (bytes.len() - HEADER_BYTES) as u32;
    bytes[1..HEADER_BYTES].copy_from_slice(&length.to_be_bytes()[1..]);
    let read = Decoder::default().next(&mut &bytes[..]).expect("good").expect("whole");
    let Message::Abort(fault) = &read else { panic!("{read:?}") };
    assert!(fault.text.len() <= REFUSAL_TEXT_MAX_BYTES, "{}", fault.text.len());
    let mut again = Vec::new();
    put(&mut again, Side::Sender, &read);
    assert_eq!(Decoder::default().next(&mut &again[..]).expect("good"), Some(read));
}

#[test]
fn lengths_that_cannot_be_are_refused_by_the_header() {
    for bad in [
        [0x02, 0xff, 0xff, 0xff],
        [0x05, 0, 0, 0],
        [0x05, 0xff, 0xff, 0xff],
        [0x06, 0, 0, 31],
        [0x45, 0, 0, 1],
        [0x77, 0, 0, 0],
    ] {
        let mut decoder = Decoder::default();
        assert!(decoder.next(&mut &bad[..]).is_err(), "{bad:?}");
        let mut decoder = Decoder::default();
        assert!(decoder.next(&mut &bad[..2]).expect("too short to tell").is_none());
        assert!(decoder.next(&mut &bad[2..]).is_err(), "{bad:?}");
    }
}
