//! From the members of an object to a request.
//!
//! What belongs to a session (login, messages, cancel, ping, quit) is read here, and so is what
//! comes with its input. Everything else is a [`Call`], the same as in frames: a verb that is
//! added there is here too.

use std::borrow::Cow;

use serde::{
    Deserialize, Deserializer,
    de::{IntoDeserializer, Visitor, value::MapDeserializer},
    forward_to_deserialize_any,
};

use super::{
    Label,
    syntax::{Members, Str, Value},
    words,
};
use crate::{
    limits::ID_MAX_BYTES,
    wire::{
        Blob, Call, Name, Refusal, Request, Secret, Text, check,
        error::ErrorCode::*,
        host::{Run, split_interpreter},
        name::NAME_RULE,
    },
};

type Checked<T> = Result<T, Refusal>;

/// The request that the members make, or why they make none; and what JSON alone says about it.
pub(super) fn read<'a>(
    members: &Members<'a>,
    scratch: &'a mut Vec<u8>,
) -> (Label<'a>, Checked<Request<'a>>) {
    let mut label = Label::NONE;
    let request = match id(members) {
        Ok(id) => {
            label.id = id;
            request(members, &mut label, scratch)
        }
        Err(refusal) => Err(refusal),
    };
    (label, request)
}

fn bad<T>(text: impl Into<Cow<'static, str>>) -> Checked<T> {
    Err(Refusal::new(0, BadArguments, text))
}

fn id<'a>(members: &Members<'a>) -> Checked<&'a str> {
    match members.get("id") {
        None => bad("the request has no `id`"),
        Some(id) if !id.is_scalar() => bad("`id` is a string, a number, true, false or null"),
        Some(id) if id.raw().len() > ID_MAX_BYTES => {
            bad(format!("an `id` may have {ID_MAX_BYTES} bytes as it is written"))
        }
        Some(id) => Ok(id.raw()),
    }
}

fn request<'a>(
    members: &Members<'a>,
    label: &mut Label<'a>,
    scratch: &'a mut Vec<u8>,
) -> Checked<Request<'a>> {
    let op = match members.get("op").map(|op| op.string()) {
        None => return run(members, label),
        Some(Some(op)) => op,
        Some(None) => return bad("`op` is a string"),
    };
    // The operation without a look at what its bytes mean, where they mean themselves.
    let owned;
    let name = match op.plain() {
        Some(name) => name,
        None => {
            owned = op.text();
            owned.as_bytes()
        }
    };
    match name {
        b"echo" => echo(members),
        b"message" => message(members, scratch),
        b"run" => run(members, label),
        b"login" => login(members),
        b"upload" => upload(members, label),
        b"cancel" => cancel(members, label),
        _ if name.eq_ignore_ascii_case(b"ping") && members.get("host").is_none() => {
            Ok(Request::Ping { number: 0 })
        }
        b"quit" => Ok(Request::Goodbye),
        b"fetch" | b"store" => bad(format!(
            "`{}` is a conversation in frames; here are `download` and `upload`",
            op.text()
        )),
        _ => call(members.iter().map(|it| (it.key.text(), Raw(it.value.raw())))),
    }
}

/// The string of this name; `None` where there is no such member.
fn string<'a>(members: &Members<'a>, name: &str) -> Checked<Option<Str<'a>>> {
    match members.get(name) {
        None => Ok(None),
        Some(value) => match value.string() {
            Some(string) => Ok(Some(string)),
            None => bad(format!("`{name}` is a string")),
        },
    }
}

fn needed<'a>(members: &Members<'a>, name: &str) -> Checked<Str<'a>> {
    match string(members, name)? {
        Some(string) => Ok(string),
        None => bad(format!("the request has no `{name}`")),
    }
}

/// A command: `method` and `command` are the same.
fn run<'a>(members: &Members<'a>, label: &mut Label<'a>) -> Checked<Request<'a>> {
    let command = match (members.get("method"), members.get("command")) {
        (Some(_), Some(_)) => return bad("`method` and `command` are the same; give one of them"),
        (Some(command), None) | (None, Some(command)) => command,
        (None, None) => return bad("the request has neither `method` nor another `op`"),
    };
    let Some(text) = command.string() else { return bad("the command is a string") };
    label.input = match members.get("stdin") {
        None => None,
        Some(input) => standard_input(input)?,
    };
    let own = ["op", "method", "command", "stdin"];
    let others = members.iter().filter(|it| !own.iter().any(|name| it.key.is(name)));
    let stdin = if label.input.is_some() { "true" } else { "false" };
    let begin = [("op", "\"run\""), ("command", command.raw()), ("stdin", stdin)];
    let begin = begin.into_iter().map(|(key, value)| (Cow::Borrowed(key), Raw(value)));
    let others = others.map(|it| (it.key.text(), Raw(it.value.raw())));
    let mut run: Run<'a> = body(begin.chain(others))?;
    // As in lines, a prefix chooses the interpreter, unless a member does.
    if run.interpreter.is_none()
        && let Some((chosen, rest)) = split_interpreter(&text.text())
    {
        (run.interpreter, run.command) = (Some(chosen), Cow::Owned(rest.to_owned()));
    }
    Ok(Request::Call { tag: 0, call: run.check()? })
}

/// All of a command's standard input; without it, it is empty.
fn standard_input<'a>(input: Value<'a>) -> Checked<Option<Cow<'a, [u8]>>> {
    match input.is_null() || input.boolean() == Some(false) {
        true => Ok(None),
        false => blob(input, "stdin").map(Some),
    }
}

/// The bytes of this member.
fn blob<'a>(value: Value<'a>, name: &str) -> Checked<Cow<'a, [u8]>> {
    if let Some(bytes) = value.string().and_then(|string| string.plain()) {
        return Ok(Cow::Borrowed(bytes));
    }
    match serde_json::from_str::<Blob<'a>>(value.raw()) {
        Ok(blob) => Ok(blob.0),
        Err(_) => bad(format!("`{name}` is a string or {{\"base64\": \"...\"}}")),
    }
}

/// A file, all of which stands in the request.
fn upload<'a>(members: &Members<'a>, label: &mut Label<'a>) -> Checked<Request<'a>> {
    let path = match members.get("path") {
        Some(path) => blob(path, "path")?,
        None => return bad("the request has no `path`"),
    };
    let Some(content) = members.get("content") else {
        return bad("the request has no `content`");
    };
    let content = blob(content, "content")?;
    let size = content.len() as u64;
    label.input = Some(content);
    let path = check::path(&path)?;
    Ok(Request::Call { tag: 0, call: Call::Upload { path: Ok(path), size } })
}

fn echo<'a>(members: &Members<'a>) -> Checked<Request<'a>> {
    let text = check::text(needed(members, "text")?.text())?;
    Ok(Request::Call { tag: 0, call: Call::Echo { text } })
}

/// `to` is a list of names as lines have it, or an array of names.
fn message<'a>(members: &Members<'a>, scratch: &'a mut Vec<u8>) -> Checked<Request<'a>> {
    let text = needed(members, "text")?;
    let to = match members.get("to") {
        Some(to) if to.string().is_some() || to.is_array() => to,
        Some(_) => return bad("`to` is a name, names with commas between them, or an array"),
        None => return bad("the request has no `to`"),
    };
    let tag = match members.get("receipt").map(|receipt| receipt.boolean()) {
        None | Some(Some(false)) => 0,
        // The hub gives it its number.
        Some(Some(true)) => 1,
        Some(None) => return bad("`receipt` is true or false"),
    };
    scratch.clear();
    put_names(to, scratch)?;
    let split = scratch.len();
    if text.plain().is_none() {
        text.put(scratch);
    }
    let (names, unescaped) = scratch.split_at(split);
    let text = Text::parse(text.plain().unwrap_or(unescaped)).expect("strings are UTF-8");
    let usage = format_args!("a message has `to` and `text`");
    match check::message(names, text, usage)? {
        Request::Message { to, text, .. } => Ok(Request::Message { tag, to, text }),
        _ => unreachable!("a message is a message"),
    }
}

fn put_names(to: Value<'_>, scratch: &mut Vec<u8>) -> Checked<()> {
    if let Some(names) = to.string() {
        names.put(scratch);
        return Ok(());
    }
    for element in to.elements() {
        let Some(name) = element.string().map(|name| name.text()) else {
            return bad("`to` holds something that is no name");
        };
        if name.contains(',') {
            return Err(Refusal::new(0, BadName, NAME_RULE));
        }
        if !scratch.is_empty() {
            scratch.push(b',');
        }
        scratch.extend_from_slice(name.as_bytes());
    }
    Ok(())
}

fn login<'a>(members: &Members<'a>) -> Checked<Request<'a>> {
    let user = needed(members, "user")?.text();
    let name = Name::parse(&user).ok_or_else(|| Refusal::new(0, BadName, NAME_RULE))?;
    let password = match members.get("password") {
        Some(password) if password.is_null() => None,
        _ => string(members, "password")?.map(|password| Secret::from(password.text())),
    };
    Ok(Request::Login { name, password })
}

fn cancel<'a>(members: &Members<'a>, label: &mut Label<'a>) -> Checked<Request<'a>> {
    match members.get("target") {
        Some(target) if target.is_scalar() => label.target = Some(target.raw()),
        Some(_) => return bad("`target` is the `id` of a request: a scalar"),
        None => return bad("the request has no `target`: the `id` of what is to be cancelled"),
    }
    Ok(Request::Cancel { tag: 0 })
}

/// Everything else, by the one type that names it.
fn call<'a>(members: impl Iterator<Item = (Cow<'a, str>, Raw<'a>)>) -> Checked<Request<'a>> {
    match body(members)? {
        Call::Send(proposal) if proposal.data.is_none() => {
            bad("what is sent is one file, and stands in `data`")
        }
        Call::Edge(call) if call.takes_input() => bad("the request has no `samples`"),
        call => Ok(Request::Call { tag: 0, call }),
    }
}

fn body<'a, T: Deserialize<'a>>(
    members: impl Iterator<Item = (Cow<'a, str>, Raw<'a>)>,
) -> Checked<T> {
    let mut members = members.collect::<Vec<_>>();
    // It is known what the others are for where this is known first.
    members.sort_by_key(|(key, _)| key != "op");
    let read = members.iter().map(|(key, value)| (key.clone(), Given::of(key, value.0)));
    T::deserialize(MapDeserializer::new(read)).map_err(|error| {
        let said = error.to_string();
        check::refusal_of(&said)
            .unwrap_or_else(|| Refusal::new(0, BadArguments, words::of_fault(&members, &said)))
    })
}

/// A value as it was written.
pub(super) struct Raw<'a>(pub(super) &'a str);

/// A value that serde reads only where somebody asks for it.
enum Given<'a> {
    /// As it was written.
    Raw(&'a str),
    /// The `op` as the table of verbs has it: some count in any case.
    Op(&'static str),
}

impl<'a> Given<'a> {
    fn of(key: &str, raw: &'a str) -> Given<'a> {
        match key {
            "op" => words::op_of(raw).map_or(Given::Raw(raw), |entry| Given::Op(entry.op())),
            _ => Given::Raw(raw),
        }
    }
}

impl<'de> IntoDeserializer<'de, serde_json::Error> for Given<'de> {
    type Deserializer = Given<'de>;

    fn into_deserializer(self) -> Given<'de> {
        self
    }
}

impl<'de> Deserializer<'de> for Given<'de> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, serde_json::Error> {
        match self {
            Given::Raw(raw) => serde_json::Deserializer::from_str(raw).deserialize_any(visitor),
            Given::Op(op) => visitor.visit_borrowed_str(op),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(
        self,
        visitor: V,
    ) -> Result<V::Value, serde_json::Error> {
        match self {
            Given::Raw("null") => visitor.visit_none(),
            value => visitor.visit_some(value),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, serde_json::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, serde_json::Error> {
        match self {
            Given::Raw(raw) => {
                serde_json::Deserializer::from_str(raw).deserialize_enum(name, variants, visitor)
            }
            Given::Op(op) => visitor.visit_enum(op.into_deserializer()),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
