//! What is said of files between users: frames there and back, lines that nothing breaks out of.

mod common;

use std::borrow::Cow;

use common::{encode_request, encode_said};
use proptest::prelude::*;
use sixfour::{
    limits::{FRAME_BODY_MAX_BYTES, LINE_MAX_BYTES},
    wire::{
        Blob, Call, Dialect, ErrorCode, Event, Form, Name, Outcome, Parcel, Proposal, Refusal,
        Request,
        control::{DetailBody, OutcomeBody},
        event::{Object, Witness},
        frame::{self, HEADER_BYTES, Said, client},
        line,
    },
};

fn any_name() -> impl Strategy<Value = Name> {
    "[A-Za-z0-9][A-Za-z0-9_.-]{0,31}".prop_map(|text| Name::parse(&text).expect("by the rule"))
}

fn any_introduction() -> impl Strategy<Value = Option<Object>> {
    let object = proptest::collection::btree_map(".{0,10}", ".{0,10}", 0..5);
    let object = object.prop_map(|members| {
        members.into_iter().map(|(key, value)| (key, value.into())).collect::<Object>()
    });
    proptest::option::of(object)
}

fn any_parcel() -> impl Strategy<Value = Parcel> {
    let name = proptest::collection::vec(any::<u8>(), 1..60);
    let name = name.prop_filter("no part of a path", |name| {
        !name.contains(&b'/') && sixfour::wire::SharePath::parse(name).is_ok()
    });
    let numbers = (proptest::option::of(0..=i64::MAX as u64), any::<u64>(), any::<bool>());
    (name, numbers, proptest::option::of(any::<i64>()), any_introduction()).prop_map(
        |(name, (size, files, folder), modified, introduction)| {
            let mut parcel = Parcel::file(&name, 0);
            (parcel.size, parcel.modified) = (size, modified);
            parcel.introduction = introduction;
            if files % 2 == 0 || size.is_none() {
                (parcel.files, parcel.folder) = (files, folder);
                parcel.form = Form::Conversation;
            }
            parcel
        },
    )
}

fn any_call() -> impl Strategy<Value = Call<'static>> {
    let data = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..60));
    let form = prop_oneof![Just(Form::Raw), Just(Form::Conversation)];
    let reason = proptest::option::of("[^\\s].{0,30}[^\\s]");
    prop_oneof![
        (any_name(), any_parcel(), data).prop_map(|(to, mut parcel, data)| {
            let data = data.filter(|_| parcel.form == Form::Raw);
            if let Some(data) = &data {
                parcel.size = Some(data.len() as u64);
            }
            let data = data.map(|data| Blob(Cow::Owned(data)));
            Call::Send(Box::new(Proposal { to, parcel, data }))
        }),
        (any::<u32>(), form, any_introduction()).prop_map(|(offer, form, introduction)| {
            Call::Accept { offer, form, introduction: introduction.map(Box::new) }
        }),
        (any::<u32>(), reason).prop_map(|(offer, reason)| Call::Refuse { offer, reason }),
    ]
}

/// The event comes out of its frame as `expected`, which makes the same frame again.
fn assert_said(event: &Event<'_>, expected: &Said<'_>) {
    let mut bytes = Vec::new();
    frame::encode(event, &mut bytes);
    assert!(bytes.len() <= HEADER_BYTES + FRAME_BODY_MAX_BYTES);
    let (said, length) = frame::decode_said(&bytes).expect("a frame").expect("a whole one");
    assert_eq!(format!("{said:?}"), format!("{expected:?}"));
    assert_eq!((length, encode_said(&said)), (bytes.len(), bytes));
}

fn offer_body<'a>(
    number: u32,
    from: Name,
    parcel: &'a Parcel,
    address: Option<&'a str>,
) -> DetailBody<'a> {
    DetailBody::Offer {
        offer: number,
        from,
        name: Blob::borrowed(&parcel.name.0),
        size: parcel.size,
        modified: parcel.modified,
        files: parcel.files,
        folder: parcel.folder,
        form: parcel.form,
        introduction: parcel.introduction.as_ref().map(Cow::Borrowed),
        address: address.map(Cow::Borrowed),
    }
}

proptest! {
    #[test]
    fn requests_come_back_from_their_frames(
        tag in 1..=u32::MAX,
        call in any_call(),
        hash in proptest::option::of(any::<[u8; 32]>()),
    ) {
        for request in [Request::Call { tag, call }, Request::InputEnd { tag, hash }] {
            let bytes = encode_request(&request, 0);
            let item = frame::decode(&bytes).expect("a frame").expect("a whole one");
            prop_assert_eq!(item.request.as_ref(), Ok(&request));
            prop_assert_eq!(item.consumed, bytes.len());
            for length in 0..bytes.len() {
                prop_assert_eq!(frame::decode(&bytes[..length]), Ok(None));
            }
        }
    }

    #[test]
    fn events_come_back_from_their_frames(
        (tag, number) in any::<(u32, u32)>(),
        from in any_name(),
        parcel in any_parcel(),
        address in proptest::option::of("[0-9.:]{1,40}"),
        text in ".{0,300}",
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let address = address.as_deref();
        let refusal = Refusal::new(0, ErrorCode::PeerGone, text);
        let introduction = parcel.introduction.as_ref();
        let offer = Event::Offer { number, from, parcel: &parcel, address };
        assert_said(&offer, &Said::Detail(0, offer_body(number, from, &parcel, address)));
        let text = Cow::Borrowed(&*refusal.text);
        let withdrawn = DetailBody::OfferWithdrawn { offer: number, code: refusal.code, text };
        assert_said(
            &Event::OfferWithdrawn { number, refusal: &refusal },
            &Said::Detail(0, withdrawn),
        );
        let form = parcel.form;
        let accepted = DetailBody::Accepted {
            by: from,
            form,
            introduction: introduction.map(Cow::Borrowed),
            address: address.map(Cow::Borrowed),
        };
        assert_said(
            &Event::Accepted { tag, by: from, form, introduction, address },
            &Said::Detail(tag, accepted),
        );
        let stdout = sixfour::wire::Stream::Stdout;
        assert_said(&Event::Data { tag, bytes: &bytes }, &Said::Data(tag, stdout, &bytes));
        assert_said(&Event::DataEnd { tag }, &Said::Detail(tag, DetailBody::DataEnd));
        let outcome = Outcome::Delivered { by: Witness::Connection };
        assert_said(
            &Event::End { tag, outcome: &outcome },
            &Said::End(tag, OutcomeBody::from(&outcome)),
        );
    }

    #[test]
    fn news_of_an_offer_is_one_harmless_line_whatever_its_name(
        from in any_name(),
        parcel in any_parcel(),
        reason in any::<String>(),
    ) {
        let refusal = Refusal::new(0, ErrorCode::Cancelled, reason);
        for (event, head) in [
            (Event::Offer { number: 3, from, parcel: &parcel, address: None }, "offer 3 "),
            (Event::OfferWithdrawn { number: 3, refusal: &refusal }, "offer-withdrawn 3 "),
        ] {
            let mut out = Vec::new();
            Dialect::Line.encode(&event, &mut out);
            let said = String::from_utf8(out).expect("lines are UTF-8");
            let said = said.strip_suffix('\n').expect("a line has an end");
            prop_assert!(said.starts_with(head));
            prop_assert!(!said.chars().any(|char| char.is_control() && char != '\t'), "{said:?}");
        }
    }

    /// Whatever is wrong with a line: where its size can be read, so many bytes follow.
    #[test]
    fn the_bytes_behind_a_line_are_known_wherever_its_size_is(
        size in 0..=i64::MAX as u64,
        rest in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut text = format!("send {size} ").into_bytes();
        text.extend(rest.into_iter().filter(|byte| *byte != b'\n'));
        text.push(b'\n');
        match line::decode(&text, 0, LINE_MAX_BYTES) {
            Ok(Some(item)) => {
                let request = item.request.expect("what follows is passed over at least");
                prop_assert_eq!(request.raw_bytes(), Some(size));
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

#[test]
fn the_largest_offer_fits_a_frame() {
    let mut parcel = Parcel::file(&[1; 255], u64::MAX);
    parcel.modified = Some(i64::MIN);
    let mut introduction = Object::new();
    introduction.insert("k".into(), "\u{1}".repeat(300).into());
    parcel.introduction = Some(introduction);
    let from = Name::parse(&"a".repeat(32)).expect("a name");
    let offer = Event::Offer { number: u32::MAX, from, parcel: &parcel, address: Some("[::1]:9") };
    let mut bytes = Vec::new();
    frame::encode(&offer, &mut bytes);
    assert!(bytes.len() < 512 + 6 * 255 + 2048, "{} bytes", bytes.len());
}

#[test]
fn the_end_of_a_file_has_a_hash_or_nothing() {
    for length in [1, 4, 31] {
        let mut bytes = Vec::new();
        frame::put(&mut bytes, client::END, 1, &vec![7; length]);
        assert_eq!(frame::decode(&bytes).expect_err("no hash").code, ErrorCode::Protocol);
    }
}

#[test]
fn nothing_follows_what_has_no_size() {
    for text in ["send\n", "send a bob\n", "send -1 a bob\n", "send 1.5 a bob\n", "send +1 a bob\n"]
    {
        let item = line::decode(text.as_bytes(), 0, LINE_MAX_BYTES).expect("goes on");
        let request = item.expect("a line").request;
        assert_eq!(request.expect_err(text).code, ErrorCode::BadArguments);
    }
    for text in ["send 9223372036854775808 a bob\n", "send 99999999999999999999999 a\n"] {
        let refusal = line::decode(text.as_bytes(), 0, LINE_MAX_BYTES).expect_err("it ends");
        assert_eq!(refusal.code, ErrorCode::Protocol);
    }
}

#[test]
fn the_bytes_behind_an_upload_are_known_also_where_its_place_is_none() {
    for text in ["upload 13 plan.txt\n", "upload 13 ../plan.txt\n", "upload 13\n"] {
        match line::decode(text.as_bytes(), 0, LINE_MAX_BYTES) {
            Ok(Some(item)) => {
                let request = item.request.expect("what follows is known");
                assert_eq!(request.raw_bytes(), Some(13), "{text}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}
