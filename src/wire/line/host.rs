//! The host commands that take arguments, as lines have them.

use std::borrow::Cow;

use crate::wire::{
    Call, HostCall, Refusal, check,
    error::ErrorCode::BadArguments,
    host::{Interpreter, PingHost, Question, script},
    verbs::{Entry, Verb},
};

/// Reads what stands behind the word, without spaces round it.
pub fn parse<'a>(entry: &Entry, rest: &'a str) -> Result<Call<'a>, Refusal> {
    match entry.verb {
        Verb::Linux => parse_script(Interpreter::Linux, entry, rest),
        Verb::Dos => parse_script(Interpreter::Dos, entry, rest),
        Verb::PowerShell => parse_script(Interpreter::PowerShell, entry, rest),
        Verb::Ping if rest.is_empty() => Ok(Call::Host(HostCall::Ask(Question::Pong))),
        Verb::Ping => Ok(Call::Host(HostCall::Ping { host: PingHost::check(rest)? })),
        Verb::Python if rest.eq_ignore_ascii_case("--version") => {
            Ok(Call::Host(HostCall::PythonVersion))
        }
        Verb::Python => {
            let text = format!("only its version can be asked for; write `{}`", entry.usage);
            Err(Refusal::new(0, BadArguments, text))
        }
        other => unreachable!("{other:?} is no host command with arguments"),
    }
}

fn parse_script<'a>(
    interpreter: Interpreter,
    entry: &Entry,
    rest: &'a str,
) -> Result<Call<'a>, Refusal> {
    if rest.is_empty() {
        let text = format!("no command is named; write `{}`", entry.usage);
        return Err(Refusal::new(0, BadArguments, text));
    }
    Ok(script(interpreter, check::command(Cow::Borrowed(rest))?, false, 0))
}
