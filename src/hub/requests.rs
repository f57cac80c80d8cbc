//! What each request does.

use super::{
    CloseReason, Hub, Phase, SessionId,
    rights::{Need, need_of},
    voice::Voice,
};
use crate::wire::{
    Call, Dialect, EdgeCall, Event, Name, Outcome, Request, Tag,
    error::{ErrorCode::*, Refusal},
    event::UdpPort,
    verbs,
};

/// Names in one event: at most 36 bytes of JSON each.
const NAMES_PER_EVENT: usize = 512;

impl Hub {
    /// The first good request of a session. Frames begin with who one is; lines and JSON may begin
    /// with anything, and have no name until they say one.
    pub(super) fn on_first(&mut self, id: SessionId, request: Request<'_>) {
        if request == Request::Nothing {
            return;
        }
        let Some(session) = self.session_mut(id) else { return };
        match session.connection.voice {
            Some(Voice::Frame(_)) if !matches!(request, Request::Login { .. }) => {
                return self.close(id, CloseReason::Protocol, Some(&hello_first()));
            }
            Some(Voice::Frame(_)) | None => {}
            Some(Voice::Line(_) | Voice::Json(_)) => session.connection.phase = Phase::Ready,
        }
        self.on_request(id, request);
    }

    /// Where those of these users take files straight who have said so.
    fn udp_ports(&self, names: &[Name]) -> Vec<UdpPort> {
        let of = |user: &Name| {
            let session = self.directory.session(user).and_then(|id| self.session(id));
            session?.udp_port.map(|port| UdpPort { user: *user, port })
        };
        names.iter().filter_map(of).collect()
    }

    pub(super) fn on_request(&mut self, id: SessionId, request: Request<'_>) {
        if let Err(refusal) = self.may(id, &request) {
            return self.deny(id, &request, refusal);
        }
        match request {
            Request::Message { tag, to, text } => self.on_message(id, tag, to, text),
            Request::Login { name, password } => self.on_login(id, name, password),
            Request::Call { tag, call } => self.on_call(id, tag, call),
            Request::Input { tag, bytes } => self.on_input(id, tag, bytes),
            Request::InputEnd { tag, hash } => self.on_input_end(id, tag, hash),
            Request::Credit { tag, bytes } => self.on_credit(id, tag, bytes),
            Request::Cancel { tag } => self.on_cancel(id, tag),
            Request::Acknowledge { serial } => self.on_acknowledge(id, serial),
            Request::Ping { number } => self.say(id, &Event::Pong { number }),
            Request::Pong | Request::Nothing => {}
            Request::Goodbye => self.close(id, CloseReason::PeerLeft, None),
            Request::Skip { refusal, .. } => self.say(id, &Event::Error(&refusal)),
        }
    }

    /// Whether the session may ask for this: the one place where that is decided.
    pub(super) fn may(&self, id: SessionId, request: &Request<'_>) -> Result<(), Refusal> {
        let session = self.session(id).expect("its request is at hand");
        match need_of(request) {
            Need::Nothing => Ok(()),
            _ if session.connection.login_by.is_some() => {
                let usage = session.connection.dialect().map_or("", Dialect::login_usage);
                let text =
                    format!("log in first: {usage}; until then there are help, echo and quit");
                Err(Refusal::new(0, LoginRequired, text))
            }
            Need::Login => Ok(()),
            Need::Right(right) if session.rights.has(right) => Ok(()),
            Need::Right(right) => Err(Refusal::new(0, Denied, right.denial())),
        }
    }

    /// Answers a request that its session may not make, as any that fails.
    fn deny(&mut self, id: SessionId, request: &Request<'_>, refusal: Refusal) {
        match *request {
            Request::Call { tag, ref call } if !self.is_in_use(id, tag) => {
                self.refuse_call(id, call, Refusal { tag, ..refusal });
            }
            Request::Call { tag, .. } | Request::Message { tag, .. } => {
                self.say(id, &Event::Error(&Refusal { tag, ..refusal }));
            }
            _ => self.say(id, &Event::Error(&refusal)),
        }
    }

    fn on_call(&mut self, id: SessionId, tag: Tag, call: Call<'_>) {
        if self.is_in_use(id, tag) {
            // Not an end: that would be taken for the end of the one that runs.
            let text = format!("the operation {tag} still runs; take another number");
            return self.refuse(id, tag, IdInUse, text);
        }
        match call {
            Call::Echo { text } => self.answer_text(id, tag, &text),
            Call::Help => self.answer_text(id, tag, &verbs::help()),
            Call::Who => {
                let names = self.directory.sorted();
                for names in names.chunks(NAMES_PER_EVENT) {
                    self.say(id, &Event::Users { tag, names });
                }
                for ports in self.udp_ports(&names).chunks(NAMES_PER_EVENT) {
                    self.say(id, &Event::UdpPorts { tag, ports });
                }
                let outcome = Outcome::Counted { count: names.len() as u64, noun: "users" };
                self.say(id, &Event::End { tag, outcome: &outcome });
            }
            Call::Announce { udp_port } => {
                let Some(session) = self.session_mut(id) else { return };
                session.udp_port = (udp_port > 0).then_some(udp_port);
                let seen = session.connection.origin.peer().to_string();
                self.answer_text(id, tag, &seen);
            }
            Call::Host(call) => self.on_host_call(id, tag, call),
            Call::Refused(refusal) => {
                self.say(id, &Event::End { tag, outcome: &Outcome::Failed(refusal) });
            }
            Call::Edge(call) => self.on_edge(id, tag, call),
            Call::Send(proposal) => self.on_send(id, tag, *proposal),
            Call::Accept { offer, form, introduction } => {
                self.on_accept(id, tag, offer, form, introduction.as_deref());
            }
            Call::Refuse { offer, reason } => self.on_refuse(id, tag, offer, reason),
            Call::Download { .. }
            | Call::Fetch { .. }
            | Call::Store { .. }
            | Call::Upload { .. }
            | Call::Run { .. }
            | Call::List { .. } => {
                self.on_start(id, tag, call);
            }
        }
    }

    /// A device is known by its name; who is active may be asked by anybody.
    fn on_edge(&mut self, id: SessionId, tag: Tag, call: EdgeCall) {
        let Some(session) = self.session(id) else { return };
        if session.name().is_none() && call != EdgeCall::List {
            let usage = session.connection.name_usage();
            let text = format!("a device has a name: say {usage} first");
            let outcome = Outcome::Failed(Refusal::new(tag, NotNamed, text));
            return self.say(id, &Event::End { tag, outcome: &outcome });
        }
        self.on_start(id, tag, Call::Edge(call));
    }

    fn is_in_use(&mut self, id: SessionId, tag: Tag) -> bool {
        tag != 0 && self.operation_of(id, tag).is_some()
    }

    fn answer_text(&mut self, id: SessionId, tag: Tag, text: &str) {
        self.say(id, &Event::Text { tag, text });
        self.say(id, &Event::End { tag, outcome: &Outcome::Done });
    }
}

pub(super) fn hello_first() -> Refusal {
    Refusal::new(0, Protocol, "the first frame must be a hello")
}
