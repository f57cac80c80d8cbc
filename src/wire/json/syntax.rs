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
pub(super) enum Kind {
    /// A string without escapes.
    Plain,
    /// A string with escapes.
    Escaped,
    Scalar,
    Array,
    Object,
}

/// Where a value stands, with its quotes where it is a string: small enough for two registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    begin: u32,
    end: u32,
    pub(super) kind: Kind,
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
    /// What the spans are places in.
    bytes: &'a [u8],
    /// Name and value.
    few: [(Span, Span); FEW],
    /// Of `few`.
    count: usize,
    more: Vec<(Span, Span)>,
}

/// Reads the object that the bytes of `members` begin with into them, and tells how long it is.
pub fn object(members: &mut Members<'_>) -> Result<usize, Fault> {
    let mut walker = Walker::of(members.bytes);
    match walker.object(1, members) {
        Ok(()) => Ok(walker.at),
        Err(Stopped) => Err(walker.fault),
    }
}

impl<'a> Str<'a> {
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
    /// As it was written.
    pub fn raw(&self) -> &'a str {
        utf8(self.raw)
    }

    /// Where it is a string.
    pub fn string(&self) -> Option<Str<'a>> {
        let has_escapes = match self.kind {
            Kind::Plain => false,
            Kind::Escaped => true,
            Kind::Scalar | Kind::Array | Kind::Object => return None,
        };
        Some(Str { raw: &self.raw[1..self.raw.len() - 1], has_escapes })
    }

    /// Whether it is a string, a number, true, false or null.
    pub fn is_scalar(&self) -> bool {
        matches!(self.kind, Kind::Plain | Kind::Escaped | Kind::Scalar)
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
            let bytes = self.raw;
            let mut walker = Walker::of(bytes);
            let read = walker.array(1, &mut |span| elements.push(span.value(bytes)));
            assert!(read.is_ok(), "it was read before");
        }
        elements
    }
}

impl Span {
    const NONE: Span = Span { begin: 0, end: 0, kind: Kind::Scalar };

    #[inline]
    pub(super) fn raw(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.begin as usize..self.end as usize]
    }

    fn value(self, bytes: &[u8]) -> Value<'_> {
        Value { raw: self.raw(bytes), kind: self.kind }
    }

    /// The name that stands here.
    fn key(self, bytes: &[u8]) -> Str<'_> {
        let raw = self.raw(bytes);
        Str { raw: &raw[1..raw.len() - 1], has_escapes: self.kind == Kind::Escaped }
    }
}

impl<'a> Members<'a> {
    /// Of the object that `bytes` begin with, and which is yet to be read.
    pub fn of(bytes: &'a [u8]) -> Members<'a> {
        Members { bytes, few: [(Span::NONE, Span::NONE); FEW], count: 0, more: Vec::new() }
    }

    fn push(&mut self, key: Span, value: Span) {
        match self.few.get_mut(self.count) {
            Some(place) => {
                *place = (key, value);
                self.count += 1;
            }
            None => self.more.push((key, value)),
        }
    }

    fn spans(&self) -> impl Iterator<Item = &(Span, Span)> {
        self.few[..self.count].iter().chain(&self.more)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Member<'a>> {
        let bytes = self.bytes;
        self.spans()
            .map(move |(key, value)| Member { key: key.key(bytes), value: value.value(bytes) })
    }

    /// The value of this name.
    #[inline]
    pub fn get(&self, name: &str) -> Option<Value<'a>> {
        let mut spans = self.spans();
        let found = spans.find(|(key, _)| key.key(self.bytes).is(name));
        found.map(|(_, value)| value.value(self.bytes))
    }

    /// Whether two have the same name.
    fn has_twins(&self) -> bool {
        let few = &self.few[..self.count];
        let is_simple = |(key, _): &(Span, Span)| key.kind == Kind::Plain;
        if self.more.is_empty() && few.iter().all(is_simple) {
            let name = |at: usize| few[at].0.raw(self.bytes);
            return (1..few.len()).any(|at| (0..at).any(|other| name(other) == name(at)));
        }
        let mut names: Vec<Cow<'_, str>> = self.iter().map(|it| it.key.text()).collect();
        names.sort_unstable();
        names.windows(2).any(|pair| pair[0] == pair[1])
    }
}

pub(super) struct Walker<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
    /// Why it has stopped, where it has.
    fault: Fault,
}

/// The walker has a fault.
pub(super) struct Stopped;

type Step<T> = Result<T, Stopped>;

impl<'a> Walker<'a> {
    /// At the first of these bytes; those beyond 4 GiB are not there.
    pub(super) fn of(bytes: &'a [u8]) -> Walker<'a> {
        let bytes = &bytes[..bytes.len().min(u32::MAX as usize)];
        Walker { bytes, at: 0, fault: Fault::Incomplete }
    }

    #[cold]
    fn broken<T>(&mut self, what: &'static str) -> Step<T> {
        self.broken_at(self.at, what)
    }

    #[cold]
    fn broken_at<T>(&mut self, at: usize, what: &'static str) -> Step<T> {
        self.fault = Fault::Broken(at, what);
        Err(Stopped)
    }

    /// The bytes are not all there.
    #[cold]
    fn incomplete<T>(&mut self) -> Step<T> {
        self.fault = Fault::Incomplete;
        Err(Stopped)
    }

    #[inline]
    fn peek(&mut self) -> Step<u8> {
        match self.bytes.get(self.at) {
            Some(byte) => Ok(*byte),
            None => self.incomplete(),
        }
    }

    /// The next byte that is no white space.
    #[inline]
    pub(super) fn skip(&mut self) -> Step<u8> {
        loop {
            match self.peek()? {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                byte => return Ok(byte),
            }
        }
    }

    fn span(&self, begin: usize, kind: Kind) -> Span {
        Span { begin: begin as u32, end: self.at as u32, kind }
    }

    fn object(&mut self, depth: usize, members: &mut Members<'_>) -> Step<()> {
        if depth > OBJECT_DEPTH_MAX {
            return self.broken("nested too deeply");
        }
        let begin = self.at;
        self.at += 1;
        if self.skip()? == b'}' {
            self.at += 1;
            return Ok(());
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
            members.push(key, value);
            match self.skip()? {
                b',' => self.at += 1,
                b'}' => break,
                _ => return self.broken("a comma or the end of the object was expected"),
            }
        }
        self.at += 1;
        match members.has_twins() {
            true => self.broken_at(begin, "a name stands twice in the object that begins here"),
            false => Ok(()),
        }
    }

    fn array(&mut self, depth: usize, take: &mut dyn FnMut(Span)) -> Step<()> {
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
    pub(super) fn value(&mut self, depth: usize) -> Step<Span> {
        let first = self.skip()?;
        let begin = self.at;
        let kind = match first {
            b'"' => return self.string(),
            b'{' => {
                let mut members = Members::of(self.bytes);
                self.object(depth + 1, &mut members)?;
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
        Ok(self.span(begin, kind))
    }

    fn literal(&mut self, word: &[u8]) -> Step<Kind> {
        let rest = &self.bytes[self.at..];
        if rest.starts_with(word) {
            self.at += word.len();
            return Ok(Kind::Scalar);
        }
        match word.starts_with(rest) {
            true => self.incomplete(),
            false => self.broken("a value was expected"),
        }
    }

    /// RFC 8259, section 6. How large it is does not matter here.
    fn number(&mut self) -> Step<Kind> {
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

    fn digits(&mut self) -> Step<()> {
        if !self.peek()?.is_ascii_digit() {
            return self.broken("a digit was expected");
        }
        while self.peek()?.is_ascii_digit() {
            self.at += 1;
        }
        Ok(())
    }

    /// From its quote on.
    #[inline]
    pub(super) fn string(&mut self) -> Step<Span> {
        let quote = self.at;
        self.at += 1;
        let (mut kind, mut is_ascii) = (Kind::Plain, true);
        loop {
            self.at += plain_length(&self.bytes[self.at..]);
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    kind = Kind::Escaped;
                    self.escape()?;
                }
                0..=0x1f => return self.broken("a control character in a string"),
                _ => {
                    is_ascii = false;
                    self.at += 1;
                }
            }
        }
        let begin = quote + 1;
        if !is_ascii && let Err(error) = std::str::from_utf8(&self.bytes[begin..self.at]) {
            return self.broken_at(begin + error.valid_up_to(), "no UTF-8");
        }
        self.at += 1;
        Ok(self.span(quote, kind))
    }

    fn escape(&mut self) -> Step<()> {
        let rest = &self.bytes[self.at..];
        let Some(byte) = rest.get(1) else { return self.incomplete() };
        match *byte {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 2,
            b'u' => {
                let first = self.four_digits(0)?;
                let is_pair = match first {
                    0xd800..0xdc00 => {
                        let second = match rest.get(6..8) {
                            None => return self.incomplete(),
                            Some(b"\\u") => self.four_digits(6)?,
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

    /// Of the escape that begins so many bytes further on.
    fn four_digits(&mut self, further: usize) -> Step<u32> {
        let begin = self.at + further + 2;
        let Some(digits) = self.bytes.get(begin..begin + 4) else { return self.incomplete() };
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

/// How many bytes at the head mean nothing but themselves in a string, and are ASCII, but for DEL,
/// which is not to be written as it is. In portions
/// without a branch inside, so that the compiler can look at many bytes at a time.
pub(super) fn plain_length(bytes: &[u8]) -> usize {
    const PORTION_BYTES: usize = 16;
    // As a signed number, everything beyond ASCII is below the space too.
    let odd =
        |byte: &u8| ((*byte as i8) < 0x20) | (*byte == b'"') | (*byte == b'\\') | (*byte == 0x7f);
    let has_odd = |portion: &[u8]| portion.iter().fold(false, |found, byte| found | odd(byte));
    let plain = bytes.chunks_exact(PORTION_BYTES).take_while(|portion| !has_odd(portion)).count();
    let start = plain * PORTION_BYTES;
    start + bytes[start..].iter().position(odd).unwrap_or(bytes.len() - start)
}

#[cfg(test)]
mod tests;
