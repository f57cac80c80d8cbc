//! The form of calls in JSON, which frames and the JSON dialect share.
//!
//! Each of the types that make up [`Call`] derives its own form. The `op` says which of them is
//! meant; what stands before it waits until it is known.

use std::{borrow::Cow, fmt, marker::PhantomData, vec};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, IntoDeserializer, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;

use super::{Call, HostCall};
use crate::wire::{
    check::{Borrowed, carried},
    host::{self, PingHost, Question},
    verbs::{self, Shape},
};

impl Serialize for Call<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Call::Edge(call) => call.serialize(serializer),
            Call::Host(call) => Serialize::serialize(call, serializer),
            own => Call::serialize(own, serializer),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Call<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Call<'a>, D::Error> {
        deserializer.deserialize_map(CallVisitor(PhantomData))
    }
}

struct CallVisitor<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for CallVisitor<'a> {
    type Value = Call<'a>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with an `op`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Call<'a>, A::Error> {
        let mut before = Vec::new();
        let op = loop {
            match map.next_key::<Borrowed<'de>>()? {
                None => return Err(A::Error::missing_field("op")),
                Some(Borrowed(key)) if key == "op" => break map.next_value::<Borrowed<'de>>()?.0,
                Some(Borrowed(key)) => before.push((key, map.next_value::<Value>()?)),
            }
        };
        let entry = verbs::of_frames().find(|entry| entry.op() == op);
        let shape = entry.ok_or_else(|| unknown(&op))?.shape;
        let before = before.into_iter();
        let members = Members { next: Next::Op, op, before, value: None, rest: map };
        let body = MapAccessDeserializer::new(members);
        match shape {
            Shape::Own => Call::deserialize(body),
            Shape::Edge => Deserialize::deserialize(body).map(Call::Edge),
            Shape::Host => HostCall::deserialize(body).map(Call::Host),
            Shape::Question => Question::deserialize(body).map(HostCall::Ask).map(Call::Host),
            Shape::Command => host::Run::deserialize(body)?.check().map_err(carried),
            Shape::Ping => Ok(Call::Host(match Ping::deserialize(body)?.host {
                Some(host) => HostCall::Ping { host },
                None => HostCall::Ask(Question::Pong),
            })),
        }
    }
}

fn unknown<E: Error>(op: &str) -> E {
    let known: Vec<_> = verbs::of_frames().map(|entry| format!("`{}`", entry.op())).collect();
    E::custom(format_args!("unknown variant `{op}`, expected one of {}", known.join(", ")))
}

/// One op for two calls.
#[derive(Deserialize)]
struct Ping {
    #[serde(default)]
    host: Option<PingHost>,
}

/// The members of an object again, its `op` first.
struct Members<'de, A> {
    next: Next,
    op: Cow<'de, str>,
    before: vec::IntoIter<(Cow<'de, str>, Value)>,
    /// What belongs to the key that was told.
    value: Option<Value>,
    rest: A,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Next {
    /// The key of the `op`.
    Op,
    /// What it says.
    Said,
    /// The other members.
    Others,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Members<'de, A> {
    type Error = A::Error;

    fn next_key_seed<K: serde::de::DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        if self.next == Next::Op {
            self.next = Next::Said;
            return seed.deserialize("op".into_deserializer()).map(Some);
        }
        match self.before.next() {
            Some((key, value)) => {
                self.value = Some(value);
                seed.deserialize(key.into_deserializer()).map(Some)
            }
            None => self.rest.next_key_seed(seed),
        }
    }

    fn next_value_seed<V: serde::de::DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, A::Error> {
        if self.next == Next::Said {
            self.next = Next::Others;
            return seed.deserialize(std::mem::take(&mut self.op).into_deserializer());
        }
        match self.value.take() {
            Some(value) => seed.deserialize(value).map_err(A::Error::custom),
            None => self.rest.next_value_seed(seed),
        }
    }
}
