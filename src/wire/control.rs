//! The JSON bodies of control frames, one type for both directions of travel.
//!
//! Unknown members are ignored, so that a newer peer may say more than we know.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{
    Blob, Call, EdgeCall, ErrorCode, Form, HostCall, Name, Outcome, Parcel, Proposal, Refusal,
    Secret, SharePath, Tag, check,
    edge::{ComputeBody, DeleteBody, JoinBody, UploadBody},
    error::ErrorCode::*,
    event::{Ended, Entry, Object, UdpPort, Witness},
    host::{self, Interpreter, Question},
    name::NAME_RULE,
    offer,
};
use crate::limits::{INFO_INTERVAL_MS, OUTPUT_WINDOW_BYTES, TEXT_MAX_BYTES};

/// The version of the framed dialect that this code speaks.
pub const VERSION: u32 = 1;

/// The first frame of a client.
#[derive(Debug, Deserialize, Serialize)]
pub struct HelloBody<'a> {
    /// [`VERSION`]; a server refuses what it does not speak.
    pub version: u32,
    /// The name to be known by.
    #[serde(borrow)]
    pub user: Cow<'a, str>,
    /// What proves it, where the server asks for that.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret<'a>>,
    /// What the client can do beyond version 1; none so far.
    #[serde(default)]
    pub capabilities: Vec<String>,
}

/// The answer to a good hello.
#[derive(Debug, Deserialize, Serialize)]
pub struct WelcomeBody<'a> {
    /// The version that the connection speaks from now on.
    pub version: u32,
    /// The name as accepted.
    pub user: Name,
    /// Name and version of the server program.
    #[serde(borrow)]
    pub server: Cow<'a, str>,
    /// What the server can do beyond version 1; none so far.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Longest text of a message, in bytes.
    pub text_max_bytes: u32,
    /// Output that the server sends in one operation before it waits for credit, in bytes.
    pub output_window_bytes: u32,
}

impl WelcomeBody<'_> {
    /// The welcome of this server for `user`.
    pub fn new(user: Name) -> WelcomeBody<'static> {
        WelcomeBody {
            version: VERSION,
            user,
            server: Cow::Borrowed(concat!("sixfour ", env!("CARGO_PKG_VERSION"))),
            capabilities: Vec::new(),
            text_max_bytes: TEXT_MAX_BYTES as u32,
            output_window_bytes: OUTPUT_WINDOW_BYTES,
        }
    }
}

/// A request with an answer of its own.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum CallBody<'a> {
    /// See [`Call::Download`].
    Download {
        /// Relative to the root.
        path: Blob<'a>,
    },
    /// See [`Call::Fetch`].
    Fetch {
        /// Relative to the root.
        paths: Vec<Blob<'a>>,
    },
    /// See [`Call::Store`].
    Store {
        /// Relative to the root; absent for the root itself.
        #[serde(default)]
        into: Option<Blob<'a>>,
    },
    /// See [`Call::Run`].
    Run {
        /// As the shell gets it.
        #[serde(borrow)]
        command: Cow<'a, str>,
        /// Whether standard input follows.
        #[serde(default)]
        stdin: bool,
        /// Milliseconds; 0 is no limit.
        #[serde(default)]
        timeout_ms: u64,
        /// What runs it; absent for `/bin/sh`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        interpreter: Option<Interpreter>,
    },
    /// See [`Call::List`].
    Ls {
        /// Relative to the root; absent for the root itself.
        #[serde(default)]
        path: Option<Blob<'a>>,
    },
    /// See [`Call::Who`].
    Who,
    /// See [`Call::Announce`].
    Announce {
        /// 0: nowhere.
        udp_port: u16,
    },
    /// See [`Call::Echo`].
    Echo {
        /// Any text.
        #[serde(borrow)]
        text: Cow<'a, str>,
    },
    /// See [`Call::Help`].
    Help,
    /// See [`EdgeCall::Join`].
    #[serde(rename = "edge.join")]
    EdgeJoin(JoinBody),
    /// See [`EdgeCall::Upload`].
    #[serde(rename = "edge.upload", borrow)]
    EdgeUpload(UploadBody<'a>),
    /// See [`EdgeCall::Compute`].
    #[serde(rename = "edge.compute", borrow)]
    EdgeCompute(ComputeBody<'a>),
    /// See [`EdgeCall::Delete`].
    #[serde(rename = "edge.delete", borrow)]
    EdgeDelete(DeleteBody<'a>),
    /// See [`EdgeCall::List`].
    #[serde(rename = "edge.list")]
    EdgeList,
    /// See [`EdgeCall::Leave`].
    #[serde(rename = "edge.leave")]
    EdgeLeave,
    /// See [`Question::Addresses`].
    Ip,
    /// See [`Question::Name`].
    Name,
    /// See [`Question::Memory`].
    Ram,
    /// See [`Question::System`].
    Os,
    /// See [`Question::Processor`].
    Cpu,
    /// See [`Question::Info`].
    Info {
        /// Milliseconds.
        #[serde(default = "info_interval_ms")]
        interval_ms: u32,
    },
    /// See [`Question::Pong`] and, with a host, [`HostCall::Ping`].
    Ping {
        /// Whom the server is to ping.
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        host: Option<Cow<'a, str>>,
    },
    /// See [`HostCall::PythonVersion`].
    PythonVersion,
    /// See [`HostCall::Clear`].
    Clear,
    /// See [`HostCall::Disconnect`].
    Disconnect,
    /// See [`HostCall::Reset`].
    Reset,
    /// See [`HostCall::Kill`].
    Kill,
    /// See [`Call::Send`].
    Send {
        /// To whom.
        #[serde(borrow)]
        to: Cow<'a, str>,
        /// See [`Parcel::name`].
        name: Blob<'a>,
        /// Bytes in all; may be missing where `data` is there, or it is not known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
        /// Seconds since 1970.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        modified: Option<i64>,
        /// How many.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        files: u64,
        /// Whether the name is that of a folder.
        #[serde(default, skip_serializing_if = "is_false")]
        folder: bool,
        /// The most that the sender can speak.
        #[serde(default, skip_serializing_if = "is_raw")]
        form: Form,
        /// For the receiver's client.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        introduction: Option<Object>,
        /// The content, if it is small enough.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data: Option<Blob<'a>>,
    },
    /// See [`Call::Accept`].
    Accept {
        /// The number of the offer.
        offer: u32,
        /// The most that the receiver can speak.
        #[serde(default, skip_serializing_if = "is_raw")]
        form: Form,
        /// For the sender's client.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        introduction: Option<Object>,
    },
    /// See [`Call::Refuse`].
    Refuse {
        /// The number of the offer.
        offer: u32,
        /// Why, for the sender.
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        reason: Option<Cow<'a, str>>,
    },
}

fn info_interval_ms() -> u32 {
    INFO_INTERVAL_MS
}

fn one() -> u64 {
    1
}

fn is_one(count: &u64) -> bool {
    *count == 1
}

fn is_false(it: &bool) -> bool {
    !it
}

fn is_raw(form: &Form) -> bool {
    *form == Form::Raw
}

impl<'a> CallBody<'a> {
    /// Whether bytes of the client follow.
    pub fn takes_input(&self) -> bool {
        match self {
            CallBody::Run { stdin, .. } => *stdin,
            CallBody::EdgeUpload(body) => body.samples.is_none(),
            CallBody::Fetch { .. } | CallBody::Store { .. } => true,
            CallBody::Send { .. } | CallBody::Accept { .. } => true,
            _ => false,
        }
    }

    /// Checks what only looks like a request so far.
    pub fn check(self, tag: Tag) -> Result<Call<'a>, Refusal> {
        let checked = match self {
            CallBody::Download { path } => match SharePath::parse(&path.0) {
                Ok(path) => Ok(Call::Download { path }),
                Err(fault) => Err(Refusal::new(tag, BadPath, fault.to_string())),
            },
            CallBody::Fetch { paths } if paths.is_empty() => {
                Err(Refusal::new(tag, BadArguments, "no file is named"))
            }
            CallBody::Fetch { paths } => paths
                .iter()
                .map(|path| SharePath::parse(&path.0))
                .collect::<Result<_, _>>()
                .map(|paths| Call::Fetch { paths })
                .map_err(|fault| Refusal::new(tag, BadPath, fault.to_string())),
            CallBody::Store { into } => {
                let bytes = into.as_ref().map_or(&b""[..], |path| &path.0);
                check::folder(bytes).map(|into| Call::Store { into })
            }
            CallBody::Run { command, .. } if command.trim().is_empty() => {
                Err(Refusal::new(tag, BadArguments, "the command is empty"))
            }
            CallBody::Run { command, stdin, timeout_ms, interpreter } => {
                let interpreter = interpreter.unwrap_or(Interpreter::Linux);
                let checked = check::command(command);
                checked.map(|command| host::script(interpreter, command, stdin, timeout_ms))
            }
            CallBody::Ls { path } => {
                let bytes = path.as_ref().map_or(&b""[..], |path| &path.0);
                check::folder(bytes).map(|path| Call::List { path })
            }
            CallBody::Who => Ok(Call::Who),
            CallBody::Announce { udp_port } => Ok(Call::Announce { udp_port }),
            CallBody::Echo { text } if text.len() > TEXT_MAX_BYTES => {
                let text = format!("a text may have {TEXT_MAX_BYTES} bytes");
                Err(Refusal::new(tag, TextTooLong, text))
            }
            CallBody::Echo { text } => Ok(Call::Echo { text }),
            CallBody::Help => Ok(Call::Help),
            CallBody::EdgeJoin(JoinBody { udp_port }) => {
                Ok(Call::Edge(EdgeCall::Join { udp_port }))
            }
            CallBody::EdgeUpload(body) => body.check().map(Call::Edge),
            CallBody::EdgeCompute(body) => body.check().map(Call::Edge),
            CallBody::EdgeDelete(body) => body.check().map(Call::Edge),
            CallBody::EdgeList => Ok(Call::Edge(EdgeCall::List)),
            CallBody::EdgeLeave => Ok(Call::Edge(EdgeCall::Leave)),
            body @ CallBody::Send { .. } => body.check_send(tag),
            CallBody::Accept { offer, form, introduction } => {
                offer::check_introduction(tag, introduction.as_ref()).map(|()| Call::Accept {
                    offer,
                    form,
                    introduction: introduction.map(Box::new),
                })
            }
            CallBody::Refuse { offer, reason } => {
                let reason = offer::check_reason(tag, reason.as_deref().unwrap_or(""));
                reason.map(|reason| Call::Refuse { offer, reason })
            }
            CallBody::Info { interval_ms } => host::info(interval_ms),
            CallBody::Ping { host: Some(host) } => host::ping(&host),
            CallBody::Ping { host: None } => Ok(Call::Host(HostCall::Ask(Question::Pong))),
            CallBody::Ip => Ok(Call::Host(HostCall::Ask(Question::Addresses))),
            CallBody::Name => Ok(Call::Host(HostCall::Ask(Question::Name))),
            CallBody::Ram => Ok(Call::Host(HostCall::Ask(Question::Memory))),
            CallBody::Os => Ok(Call::Host(HostCall::Ask(Question::System))),
            CallBody::Cpu => Ok(Call::Host(HostCall::Ask(Question::Processor))),
            CallBody::PythonVersion => Ok(Call::Host(HostCall::PythonVersion)),
            CallBody::Clear => Ok(Call::Host(HostCall::Clear)),
            CallBody::Disconnect => Ok(Call::Host(HostCall::Disconnect)),
            CallBody::Reset => Ok(Call::Host(HostCall::Reset)),
            CallBody::Kill => Ok(Call::Host(HostCall::Kill)),
        };
        checked.map_err(|refusal| Refusal { tag, ..refusal })
    }

    fn check_send(self, tag: Tag) -> Result<Call<'a>, Refusal> {
        let CallBody::Send { to, name, size, modified, files, folder, form, introduction, data } =
            self
        else {
            unreachable!("the caller has looked")
        };
        let to = Name::parse(&to).ok_or_else(|| Refusal::new(tag, BadName, NAME_RULE))?;
        let data = data.map(Blob::into_owned);
        let size = size.or(data.as_ref().map(|data| data.0.len() as u64));
        let name = name.into_owned();
        let parcel = Parcel { name, size, modified, files, folder, form, introduction };
        Proposal { to, parcel, data }.check(tag).map(|proposal| Call::Send(Box::new(proposal)))
    }
}

impl<'a> From<&'a HostCall<'_>> for CallBody<'a> {
    fn from(call: &'a HostCall<'_>) -> CallBody<'a> {
        match call {
            HostCall::Ask(Question::Addresses) => CallBody::Ip,
            HostCall::Ask(Question::Name) => CallBody::Name,
            HostCall::Ask(Question::Memory) => CallBody::Ram,
            HostCall::Ask(Question::System) => CallBody::Os,
            HostCall::Ask(Question::Processor) => CallBody::Cpu,
            HostCall::Ask(Question::Pong) => CallBody::Ping { host: None },
            HostCall::Ask(Question::Info { interval_ms }) => {
                CallBody::Info { interval_ms: *interval_ms }
            }
            HostCall::Ping { host } => CallBody::Ping { host: Some(host.as_str().into()) },
            HostCall::PythonVersion => CallBody::PythonVersion,
            HostCall::Script { interpreter, command, stdin, timeout_ms } => CallBody::Run {
                command: Cow::Borrowed(command),
                stdin: *stdin,
                timeout_ms: *timeout_ms,
                interpreter: Some(*interpreter),
            },
            HostCall::Clear => CallBody::Clear,
            HostCall::Disconnect => CallBody::Disconnect,
            HostCall::Reset => CallBody::Reset,
            HostCall::Kill => CallBody::Kill,
        }
    }
}

/// News of a running operation.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum DetailBody<'a> {
    /// See [`super::Event::File`].
    File {
        /// Without folders.
        name: Blob<'a>,
        /// Bytes.
        size: u64,
        /// Seconds since 1970.
        modified: i64,
    },
    /// See [`super::Event::DataEnd`].
    DataEnd,
    /// See [`super::Event::Offer`].
    Offer {
        /// Its number.
        offer: u32,
        /// Who offers.
        from: Name,
        /// See [`Parcel::name`].
        name: Blob<'a>,
        /// Bytes in all, if that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
        /// Seconds since 1970.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        modified: Option<i64>,
        /// How many.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        files: u64,
        /// Whether the name is that of a folder.
        #[serde(default, skip_serializing_if = "is_false")]
        folder: bool,
        /// The most that the sender can speak.
        #[serde(default)]
        form: Form,
        /// From the sender's client.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        introduction: Option<Cow<'a, Object>>,
        /// Of the sender's connection.
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        address: Option<Cow<'a, str>>,
    },
    /// See [`super::Event::OfferWithdrawn`].
    OfferWithdrawn {
        /// The number of the offer.
        offer: u32,
        /// The name of the error.
        code: ErrorCode,
        /// One sentence.
        #[serde(borrow)]
        text: Cow<'a, str>,
    },
    /// See [`super::Event::Accepted`].
    Accepted {
        /// The user at the other end.
        by: Name,
        /// What goes through.
        #[serde(default)]
        form: Form,
        /// From the other client.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        introduction: Option<Cow<'a, Object>>,
        /// Of the other's connection.
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        address: Option<Cow<'a, str>>,
    },
    /// See [`super::Event::Entries`].
    Entries {
        /// In the order of their names.
        entries: Cow<'a, [Entry]>,
    },
    /// See [`super::Event::Users`].
    Users {
        /// In the order of the names.
        names: Cow<'a, [Name]>,
    },
    /// See [`super::Event::UdpPorts`].
    UdpPorts {
        /// In the order of the names.
        ports: Cow<'a, [UdpPort]>,
    },
    /// See [`super::Event::Text`].
    Text {
        /// Without a line end at its end.
        #[serde(borrow)]
        text: Cow<'a, str>,
    },
    /// See [`super::Event::Object`].
    Object {
        /// Its members.
        object: Cow<'a, Object>,
    },
}

/// How an operation ended; see [`Outcome`].
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum OutcomeBody<'a> {
    /// All is said.
    Done,
    /// The file is sent.
    Sent {
        /// BLAKE3 as 64 hexadecimal digits.
        #[serde(borrow)]
        hash: Cow<'a, str>,
    },
    /// It has arrived with another user.
    Delivered {
        /// Who vouches for it.
        by: Witness,
    },
    /// The command ended by itself.
    Exit {
        /// 0 to 255.
        code: u8,
        /// The folder of the next commands, where this one has changed it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        directory: Option<Blob<'a>>,
    },
    /// The command was ended.
    Signal {
        /// As `signal(7)` numbers it.
        number: i32,
        /// Where the server did it: why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        because: Option<Ended>,
    },
    /// All are listed.
    Counted {
        /// How many.
        count: u64,
    },
    /// It failed.
    Failed {
        /// The name of the error.
        code: ErrorCode,
        /// One sentence.
        #[serde(borrow)]
        text: Cow<'a, str>,
    },
}

impl<'a> From<&'a Outcome> for OutcomeBody<'a> {
    fn from(outcome: &'a Outcome) -> OutcomeBody<'a> {
        match outcome {
            Outcome::Done => OutcomeBody::Done,
            Outcome::Sent { hash } => {
                OutcomeBody::Sent { hash: Cow::Owned(blake3::Hash::from(*hash).to_string()) }
            }
            Outcome::Delivered { by } => OutcomeBody::Delivered { by: *by },
            Outcome::Exit { code, directory } => OutcomeBody::Exit {
                code: *code,
                directory: directory.as_ref().map(|bytes| Blob::borrowed(bytes)),
            },
            Outcome::Signal { number, because } => {
                OutcomeBody::Signal { number: *number, because: *because }
            }
            Outcome::Counted { count, .. } => OutcomeBody::Counted { count: *count },
            Outcome::Failed(refusal) => {
                OutcomeBody::Failed { code: refusal.code, text: Cow::Borrowed(&refusal.text) }
            }
        }
    }
}

/// An error, or the reason of a goodbye.
#[derive(Debug, Deserialize, Serialize)]
pub struct RefusalBody<'a> {
    /// The name of the error.
    pub code: ErrorCode,
    /// One sentence.
    #[serde(borrow)]
    pub text: Cow<'a, str>,
}

/// A delivery.
#[derive(Debug, Deserialize, Serialize)]
pub struct DeliveredBody {
    /// The recipient.
    pub to: Name,
    /// Who vouches for it.
    pub by: Witness,
}
