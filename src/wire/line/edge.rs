//! The requests of devices as lines have them.

use crate::wire::{
    EdgeCall, Refusal,
    edge::{BAD_FILE_ID, Statistic, check_samples, parse_integer},
    error::ErrorCode::BadArguments,
    verbs::{Entry, Verb},
};

/// Reads what stands behind one of the verbs `edge.*`.
pub fn parse(entry: &Entry, rest: &str) -> Result<EdgeCall, Refusal> {
    let wrong =
        |what: &str| Refusal::new(0, BadArguments, format!("{what}; write `{}`", entry.usage));
    let mut words = rest.split_ascii_whitespace();
    let mut file_id = || words.next().and_then(parse_integer).ok_or_else(|| wrong(BAD_FILE_ID));
    let call = match entry.verb {
        Verb::EdgeJoin => {
            let port = words.next().and_then(parse_integer);
            let port = port.and_then(|port| u16::try_from(port).ok());
            let udp_port = port.ok_or_else(|| wrong("a UDP port is 0 to 65535"))?;
            EdgeCall::Join { udp_port }
        }
        Verb::EdgeUpload => {
            let file_id = file_id()?;
            let samples = words.by_ref().map(parse_sample).collect::<Option<Vec<i64>>>();
            let samples = samples.ok_or_else(|| wrong("a sample is a 64-bit integer"))?;
            let samples = Some(check_samples(samples)?);
            return Ok(EdgeCall::Upload { file_id, request: None, hash: None, samples });
        }
        Verb::EdgeCompute => {
            let file_id = file_id()?;
            let operation = words.next().ok_or_else(|| wrong("no operation is named"))?;
            EdgeCall::Compute { file_id, operation: Statistic::parse(operation)? }
        }
        Verb::EdgeDelete => EdgeCall::Delete { file_id: file_id()?, request: None },
        Verb::EdgeList => EdgeCall::List,
        Verb::EdgeLeave => EdgeCall::Leave,
        _ => unreachable!("the caller has looked"),
    };
    match words.next() {
        None => Ok(call),
        Some(_) => Err(wrong("there are too many arguments")),
    }
}

/// As files of samples have them: no `+`.
fn parse_sample(text: &str) -> Option<i64> {
    text.parse().ok().filter(|_| !text.starts_with('+'))
}
