//! The grammar of JSON (RFC 8259), strictly, over bytes that are all there.
//!
//! An object becomes its members, each still as it was written: nothing is copied, and what
//! nobody asks for is not looked at again. A name that stands twice is a fault at any depth, as
//! is half of a surrogate pair: two readers could take them for different things.

use std::borrow::Cow;

use crate::limits::OBJECT_DEPTH_MAX;

/// Why bytes are no object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// They end too early.
    Incomplete,
    /// Something is wrong at this byte, counted from 0.
    Broken(usize, &'static str),
}

/// A string as it was written, without its quotes.
#[derive(Clone, Copy, Debug)]
pub struct Str<'a> {
    /// UTF-8, and every escape is good.
    raw: &'a [u8],
    has_escapes: bool,
}

/// A value as it was written.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    /// All of it, with the quotes of a string.
    raw: &'a [u8],
    kind: Kind,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    String { has_escapes: bool },
    Scalar,
    Array,
    Object,
}

/// A name and its value.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// The name.
    pub key: Str<'a>,
    /// The value.
    pub value: Value<'a>,
}

/// So many members need no memory of their own.
const FEW: usize = 8;

/// The members of an object, in the order in which they were written; no two have one name.
#[derive(Debug)]
pub struct Members<'a> {
    few: [Member<'a>; FEW],
    /// Of `few`.
    count: usize,
    more: Vec<Member<'a>>,
}

/// Reads the object that `bytes` begin with, and how many bytes it has.
pub fn object(bytes: &[u8]) -> Result<(Members<'_>, usize), Fault> {
    let mut walker = Walker { bytes, at: 0 };
    let members = walker.object(1)?;
    Ok((members, walker.at))
}

impl<'a> Str<'a> {
    const EMPTY: Str<'static> = Str { raw: b"", has_escapes: false };

    /// Whether it says `text`.
    pub fn is(&self, text: &str) -> bool {
        match self.has_escapes {
            false => self.raw == text.as_bytes(),
            true => self.text() == text,
        }
    }

    /// What it says.
    pub fn text(&self) -> Cow<'a, str> {
        match self.plain() {
            Some(bytes) => Cow::Borrowed(utf8(bytes)),
            None => {
                let mut bytes = Vec::with_capacity(self.raw.len());
                self.put(&mut bytes);
                Cow::Owned(String::from_utf8(bytes).expect("good escapes make good characters"))
            }
        }
    }

    /// The bytes of what it says, where they stand in it as they are.
    pub fn plain(&self) -> Option<&'a [u8]> {
        (!self.has_escapes).then_some(self.raw)
    }

    /// Appends what it says.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mut rest = self.raw;
        while let Some(at) = memchr::memchr(b'\\', rest) {
            out.extend_from_slice(&rest[..at]);
            let (char, used) = unescape(&rest[at..]);
            out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
            rest = &rest[at + used..];
        }
        out.extend_from_slice(rest);
    }
}

impl<'a> Value<'a> {
    const NULL: Value<'static> = Value { raw: b"null", kind: Kind::Scalar };

    /// As it was written.
    pub fn raw(&self) -> &'a str {
        utf8(self.raw)
    }

    /// Where it is a string.
    pub fn string(&self) -> Option<Str<'a>> {
        let Kind::String { has_escapes } = self.kind else { return None };
        Some(Str { raw: &self.raw[1..self.raw.len() - 1], has_escapes })
    }

    /// Whether it is a string, a number, true, false or null.
    pub fn is_scalar(&self) -> bool {
        matches!(self.kind, Kind::String { .. } | Kind::Scalar)
    }

    /// Whether it is an array.
    pub fn is_array(&self) -> bool {
        self.kind == Kind::Array
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        self.raw == b"null"
    }

    /// Where it is true or false.
    pub fn boolean(&self) -> Option<bool> {
        match self.raw {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        }
    }

    /// The elements of an array; of anything else none.
    pub fn elements(&self) -> Vec<Value<'a>> {
        let mut elements = Vec::new();
        if self.kind == Kind::Array {
            let mut walker = Walker { bytes: self.raw, at: 0 };
            walker.array(1, &mut |value| elements.push(value)).expect("it was read before");
        }
        elements
    }
}

impl<'a> Members<'a> {
    fn new() -> Members<'a> {
        let nothing = Member { key: Str::EMPTY, value: Value::NULL };
        Members { few: [nothing; FEW], count: 0, more: Vec::new() }
    }

    fn push(&mut self, member: Member<'a>) {
        match self.few.get_mut(self.count) {
            Some(place) => {
                *place = member;
                self.count += 1;
            }
            None => self.more.push(member),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Member<'a>> {
        self.few[..self.count].iter().chain(&self.more)
    }

    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<Value<'a>> {
        self.iter().find(|member| member.key.is(name)).map(|member| member.value)
    }

    /// Whether two have the same name.
    fn has_twins(&self) -> bool {
        let is_simple = self.more.is_empty() && self.iter().all(|it| !it.key.has_escapes);
        if is_simple {
            let few = &self.few[..self.count];
            let is_twin = |at: usize| few[..at].iter().any(|it| it.key.raw == few[at].key.raw);
            return (1..few.len()).any(is_twin);
        }
        let mut names: Vec<Cow<'_, str>> = self.iter().map(|it| it.key.text()).collect();
        names.sort_unstable();
        names.windows(2).any(|pair| pair[0] == pair[1])
    }
}

struct Walker<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walker<'a> {
    fn broken<T>(&self, what: &'static str) -> Result<T, Fault> {
        Err(Fault::Broken(self.at, what))
    }

    #[inline]
    fn peek(&self) -> Result<u8, Fault> {
        self.bytes.get(self.at).copied().ok_or(Fault::Incomplete)
    }

    /// The next byte that is no white space.
    #[inline]
    fn skip(&mut self) -> Result<u8, Fault> {
        loop {
            match self.peek()? {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                byte => return Ok(byte),
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Members<'a>, Fault> {
        if depth > OBJECT_DEPTH_MAX {
            return self.broken("nested too deeply");
        }
        let mut members = Members::new();
        let begin = self.at;
        self.at += 1;
        if self.skip()? == b'}' {
            self.at += 1;
            return Ok(members);
        }
        loop {
            if self.skip()? != b'"' {
                return self.broken("a name in quotes was expected");
            }
            let key = self.string()?;
            if self.skip()? != b':' {
                return self.broken("a colon was expected");
            }
            self.at += 1;
            let value = self.value(depth)?;
            members.push(Member { key, value });
            match self.skip()? {
                b',' => self.at += 1,
                b'}' => break,
                _ => return self.broken("a comma or the end of the object was expected"),
            }
        }
        self.at += 1;
        match members.has_twins() {
            true => Err(Fault::Broken(begin, "a name stands twice in the object that begins here")),
            false => Ok(members),
        }
    }

    fn array(&mut self, depth: usize, take: &mut dyn FnMut(Value<'a>)) -> Result<(), Fault> {
        if depth > OBJECT_DEPTH_MAX {
            return self.broken("nested too deeply");
        }
        self.at += 1;
        if self.skip()? == b']' {
            self.at += 1;
            return Ok(());
        }
        loop {
            take(self.value(depth)?);
            match self.skip()? {
                b',' => self.at += 1,
                b']' => break,
                _ => return self.broken("a comma or the end of the array was expected"),
            }
        }
        self.at += 1;
        Ok(())
    }

    /// A value within `depth` others.
    fn value(&mut self, depth: usize) -> Result<Value<'a>, Fault> {
        let first = self.skip()?;
        let begin = self.at;
        let kind = match first {
            b'"' => Kind::String { has_escapes: self.string()?.has_escapes },
            b'{' => {
                self.object(depth + 1)?;
                Kind::Object
            }
            b'[' => {
                self.array(depth + 1, &mut drop)?;
                Kind::Array
            }
            b'-' | b'0'..=b'9' => self.number()?,
            b't' => self.literal(b"true")?,
            b'f' => self.literal(b"false")?,
            b'n' => self.literal(b"null")?,
            _ => return self.broken("a value was expected"),
        };
        Ok(Value { raw: &self.bytes[begin..self.at], kind })
    }

    fn literal(&mut self, word: &[u8]) -> Result<Kind, Fault> {
        let rest = &self.bytes[self.at..];
        if rest.starts_with(word) {
            self.at += word.len();
            return Ok(Kind::Scalar);
        }
        match word.starts_with(rest) {
            true => Err(Fault::Incomplete),
            false => self.broken("a value was expected"),
        }
    }

    /// RFC 8259, section 6. How large it is does not matter here.
    fn number(&mut self) -> Result<Kind, Fault> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        match self.peek()? {
            b'0' => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek()? == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek()?, b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek()?, b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Kind::Scalar)
    }

    fn digits(&mut self) -> Result<(), Fault> {
        if !self.peek()?.is_ascii_digit() {
            return self.broken("a digit was expected");
        }
        while self.peek()?.is_ascii_digit() {
            self.at += 1;
        }
        Ok(())
    }

    /// From its quote on.
    fn string(&mut self) -> Result<Str<'a>, Fault> {
        self.at += 1;
        let begin = self.at;
        let (mut has_escapes, mut is_ascii) = (false, true);
        loop {
            self.at += plain_length(&self.bytes[self.at..]);
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    has_escapes = true;
                    self.escape()?;
                }
                0..=0x1f => return self.broken("a control character in a string"),
                _ => {
                    is_ascii = false;
                    self.at += 1;
                }
            }
        }
        let raw = &self.bytes[begin..self.at];
        if !is_ascii && let Err(error) = std::str::from_utf8(raw) {
            return Err(Fault::Broken(begin + error.valid_up_to(), "no UTF-8"));
        }
        self.at += 1;
        Ok(Str { raw, has_escapes })
    }

    fn escape(&mut self) -> Result<(), Fault> {
        let rest = &self.bytes[self.at..];
        match *rest.get(1).ok_or(Fault::Incomplete)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 2,
            b'u' => {
                let first = self.four_digits(rest)?;
                let is_pair = match first {
                    0xd800..0xdc00 => {
                        let second = match rest.get(6..8) {
                            None => return Err(Fault::Incomplete),
                            Some(b"\\u") => self.four_digits(&rest[6..])?,
                            Some(_) => 0,
                        };
                        if !(0xdc00..0xe000).contains(&second) {
                            return self.broken("half of a surrogate pair");
                        }
                        true
                    }
                    0xdc00..0xe000 => return self.broken("half of a surrogate pair"),
                    _ => false,
                };
                self.at += if is_pair { 12 } else { 6 };
            }
            _ => return self.broken("an escape that there is not"),
        }
        Ok(())
    }

    fn four_digits(&self, escape: &[u8]) -> Result<u32, Fault> {
        let digits = escape.get(2..6).ok_or(Fault::Incomplete)?;
        match digits.iter().all(u8::is_ascii_hexdigit) {
            true => Ok(hex(digits)),
            false => self.broken("an escape that there is not"),
        }
    }
}

fn hex(digits: &[u8]) -> u32 {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).expect("the caller has looked");
    digits.iter().fold(0, |number, byte| number << 4 | digit(byte))
}

/// The character of a good escape, and how many bytes that has.
fn unescape(escape: &[u8]) -> (char, usize) {
    let char = match escape[1] {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let first = hex(&escape[2..6]);
            if !(0xd800..0xdc00).contains(&first) {
                return (char::from_u32(first).expect("no surrogate"), 6);
            }
            let pair = 0x10000 + ((first - 0xd800) << 10) + (hex(&escape[8..12]) - 0xdc00);
            return (char::from_u32(pair).expect("both halves are there"), 12);
        }
        byte => char::from(byte),
    };
    (char, 2)
}

fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("all that was read is UTF-8")
}

/// How many bytes at the head mean nothing but themselves in a string, and are ASCII. In portions
/// without a branch inside, so that the compiler can look at many bytes at a time.
pub(super) fn plain_length(bytes: &[u8]) -> usize {
    const PORTION_BYTES: usize = 16;
    // As a signed number, everything beyond ASCII is below the space too.
    let odd = |byte: &u8| ((*byte as i8) < 0x20) | (*byte == b'"') | (*byte == b'\\');
    let has_odd = |portion: &[u8]| portion.iter().fold(false, |found, byte| found | odd(byte));
    let plain = bytes.chunks_exact(PORTION_BYTES).take_while(|portion| !has_odd(portion)).count();
    let start = plain * PORTION_BYTES;
    start + bytes[start..].iter().position(odd).unwrap_or(bytes.len() - start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<usize, Fault> {
        object(text.as_bytes()).map(|(_, length)| length)
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
            assert!(
                serde_json::from_str::<serde_json::Value>(text).is_ok() || text.contains("400")
            );
            for cut in 1..text.len() {
                assert_eq!(object(&text.as_bytes()[..cut]).map(drop), Err(Fault::Incomplete));
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
        for bytes in
            [&b"{\"a\":\"\xff\"}"[..], b"{\"a\":\"\xc0\xaf\"}", b"{\"a\":\"\xed\xa0\x80\"}"]
        {
            assert_eq!(object(bytes).map(drop), Err(Fault::Broken(6, "no UTF-8")));
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
            let (members, _) = object(text.as_bytes()).expect("good");
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
        let (members, _) = object(text.as_bytes()).expect("good");
        assert_eq!(members.iter().count(), 21);
        assert_eq!(members.get("k19").map(|value| value.raw()), Some("19"));
        assert!(members.get("op").is_some() && members.get("k20").is_none());
        let (members, _) = object(br#"{"a":[1,"b",[2],{"c":3}],"d":{}}"#).expect("good");
        let elements = members.get("a").expect("it is there").elements();
        let raw: Vec<&str> = elements.iter().map(|value| value.raw()).collect();
        assert_eq!(raw, ["1", "\"b\"", "[2]", "{\"c\":3}"]);
        assert!(members.get("d").is_some_and(|it| it.elements().is_empty() && !it.is_scalar()));
    }
}
