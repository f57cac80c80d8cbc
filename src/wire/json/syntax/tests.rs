//! What is an object and what is none, and what strings say.

use super::*;

fn read(text: &str) -> Result<usize, Fault> {
    object(&mut Members::of(text.as_bytes()))
}

#[test]
fn good_objects_are_read_to_their_end_and_no_further() {
    for text in [
        "{}",
        "{ }",
        r#"{"a":1}"#,
        "{ \"a\" : [ ] ,\r\n\"b\":\t[1,2 , {}]}",
        r#"{"":"","\u0000":"\ud83d\ude00\n\/"}"#,
        r#"{"a":-0.5e+10,"b":0,"c":1E400,"d":123456789012345678901234567890,"e":-0}"#,
        r#"{"a":true,"b":false,"c":null}"#,
    ] {
        assert_eq!(read(text), Ok(text.len()), "{text}");
        assert_eq!(read(&format!("{text}}}{{")), Ok(text.len()));
        assert!(serde_json::from_str::<serde_json::Value>(text).is_ok() || text.contains("400"));
        for cut in 1..text.len() {
            assert_eq!(read(&text[..cut]), Err(Fault::Incomplete));
        }
    }
}

#[test]
fn whatever_breaks_the_grammar_is_found_where_it_is() {
    for (text, at) in [
        ("{a}", 1),
        ("{,}", 1),
        (r#"{"a"}"#, 4),
        (r#"{"a":}"#, 5),
        (r#"{"a":1,}"#, 7),
        (r#"{"a":1 "b":2}"#, 7),
        (r#"{"a":01}"#, 6),
        (r#"{"a":+1}"#, 5),
        (r#"{"a":.5}"#, 5),
        (r#"{"a":1.}"#, 7),
        (r#"{"a":1e}"#, 7),
        (r#"{"a":-}"#, 6),
        (r#"{"a":NaN}"#, 5),
        (r#"{"a":nul}"#, 5),
        (r#"{"a":True}"#, 5),
        (r#"{"a":'b'}"#, 5),
        (r#"{"a":[1,]}"#, 8),
        (r#"{"a":[1}"#, 7),
        (r#"{"a":"\x"}"#, 6),
        (r#"{"a":"\u12g4"}"#, 6),
        (r#"{"a":"\ud800"}"#, 6),
        (r#"{"a":"\ud800\u0041"}"#, 6),
        (r#"{"a":"\udc00\ud800"}"#, 6),
        ("{\"a\":\"x\ny\"}", 7),
        ("{\"a\":\"\0\"}", 6),
        ("{\u{a0}}", 1),
        (r#"{"a":1,"a":2}"#, 0),
        (r#"{"a":1,"\u0061":2}"#, 0),
        (r#"{"b":{"a":1,"b":2,"a":3}}"#, 5),
        (r#"{"1":0,"2":0,"3":0,"4":0,"5":0,"6":0,"7":0,"8":0,"9":0,"1":0}"#, 0),
    ] {
        let Err(Fault::Broken(found, _)) = read(text) else { panic!("{text} is taken") };
        assert_eq!(found, at, "{text}");
    }
    for bytes in [&b"{\"a\":\"\xff\"}"[..], b"{\"a\":\"\xc0\xaf\"}", b"{\"a\":\"\xed\xa0\x80\"}"] {
        let fault = Fault::Broken(6, "no UTF-8");
        assert_eq!(object(&mut Members::of(bytes)), Err(fault));
    }
    let nested = format!("{{\"a\":{}{}}}", "[".repeat(32), "]".repeat(32));
    assert!(matches!(read(&nested), Err(Fault::Broken(..))));
    assert_eq!(read(&nested.replacen("[", "", 1).replacen("]", "", 1)), Ok(nested.len() - 2));
}

#[test]
fn strings_say_what_serde_reads_in_them() {
    for raw in [
        r#""plain""#,
        r#""""#,
        "\"gr\u{fc}n \u{1f600}\"",
        r#""\"\\\/\b\f\n\r\t""#,
        r#""\u0041\u00e9\u20AC\ud83d\ude00x""#,
        r#""sixteen bytes and then\n more than that""#,
    ] {
        let text = format!("{{\"a\":{raw}}}");
        let mut members = Members::of(text.as_bytes());
        object(&mut members).expect("good");
        let value = members.get("a").expect("it is there");
        let wanted: String = serde_json::from_str(raw).expect("good");
        let string = value.string().expect("a string");
        assert_eq!((string.text().as_ref(), value.raw()), (wanted.as_str(), raw));
        assert!(string.is(&wanted) && !string.is("something else"));
    }
}

#[test]
fn members_are_found_by_name_however_many_there_are() {
    let many: Vec<String> = (0..20).map(|number| format!("\"k{number}\":{number}")).collect();
    let text = format!("{{{},\"\\u006f\\u0070\":\"x\"}}", many.join(","));
    let mut members = Members::of(text.as_bytes());
    object(&mut members).expect("good");
    assert_eq!(members.iter().count(), 21);
    assert_eq!(members.get("k19").map(|value| value.raw()), Some("19"));
    assert!(members.get("op").is_some() && members.get("k20").is_none());
    let mut members = Members::of(br#"{"a":[1,"b",[2],{"c":3}],"d":{}}"#);
    object(&mut members).expect("good");
    let elements = members.get("a").expect("it is there").elements();
    let raw: Vec<&str> = elements.iter().map(|value| value.raw()).collect();
    assert_eq!(raw, ["1", "\"b\"", "[2]", "{\"c\":3}"]);
    assert!(members.get("d").is_some_and(|it| it.elements().is_empty() && !it.is_scalar()));
}
