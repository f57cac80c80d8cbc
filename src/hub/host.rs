//! The host commands: what the hub does by itself, and what it lets the shell find out.

use super::{CloseReason, Effect, Hub, SessionId, Work, operation::Program};
use crate::{
    limits::PROGRAM_TIMEOUT_MS,
    wire::{Call, ErrorCode, Event, HostCall, Outcome, Refusal, Stream, Tag},
};

/// Puts the cursor into the corner and clears the screen and what was scrolled off it (ECMA-48,
/// CUP and ED; `3` is xterm's), then ends the line: the answer is made of whole lines.
const CLEAR: &[u8] = b"\x1b[H\x1b[2J\x1b[3J\n";

impl Hub {
    pub(super) fn on_host_call(&mut self, id: SessionId, tag: Tag, call: HostCall<'_>) {
        match call {
            HostCall::Clear => {
                let stream = Stream::Stdout;
                self.say(id, &Event::Output { tag, stream, bytes: CLEAR });
                self.say_done(id, tag);
            }
            HostCall::Disconnect => {
                self.say_done(id, tag);
                self.close(id, CloseReason::PeerLeft, None);
            }
            HostCall::Reset => self.on_reset(id, tag),
            HostCall::Kill => self.on_kill(id, tag),
            HostCall::Ask(_)
            | HostCall::Ping { .. }
            | HostCall::PythonVersion
            | HostCall::Script { .. } => self.on_start(id, tag, Call::Host(call)),
        }
    }

    fn say_done(&mut self, id: SessionId, tag: Tag) {
        self.say(id, &Event::End { tag, outcome: &Outcome::Done });
    }

    /// Ends every session, that of who asked for it too, and has the shell listen again.
    fn on_reset(&mut self, id: SessionId, tag: Tag) {
        if self.stopping.is_some() {
            let refusal = Refusal::new(tag, ErrorCode::ShuttingDown, "the server is stopping");
            let outcome = Outcome::Failed(refusal);
            return self.say(id, &Event::End { tag, outcome: &outcome });
        }
        self.say_done(id, tag);
        let who = self.who_is(id);
        log::info!("{who} ends all sessions");
        let text = format!("all sessions were ended by {who}; connect again");
        let why = Refusal::new(0, ErrorCode::Reset, text);
        self.effects.push_back(Effect::ListenAgain);
        for id in self.ids() {
            self.close(id, CloseReason::Reset, Some(&why));
        }
    }

    /// Ends every session, and the server as soon as they are told.
    fn on_kill(&mut self, id: SessionId, tag: Tag) {
        self.say_done(id, tag);
        let who = self.who_is(id);
        log::info!("{who} stops the server");
        let text = format!("the server was stopped by {who}");
        let why = Refusal::new(0, ErrorCode::ShuttingDown, text);
        self.stopping = Some(self.now);
        self.effects.push_back(Effect::Quit);
        for id in self.ids() {
            self.hasten(id);
            self.close(id, CloseReason::ShuttingDown, Some(&why));
        }
    }

    fn who_is(&self, id: SessionId) -> String {
        let name = self.session(id).and_then(|session| session.name());
        name.map_or_else(|| "somebody without a name".to_owned(), |name| name.to_string())
    }
}

/// What the shell is to do for a host command, whether standard input may follow, and its limit
/// in milliseconds.
pub(super) fn work_of(call: HostCall<'_>) -> (Work, bool, u64) {
    let program =
        |program, stdin, timeout_ms| (Work::Program { program, stdin }, stdin, timeout_ms);
    match call {
        HostCall::Ask(question) => (Work::Ask(question), false, 0),
        HostCall::Ping { host } => program(Program::Ping(host), false, PROGRAM_TIMEOUT_MS),
        HostCall::PythonVersion => program(Program::PythonVersion, false, PROGRAM_TIMEOUT_MS),
        HostCall::Script { interpreter, command, stdin, timeout_ms } => {
            let command = command.into_owned();
            program(Program::Script { interpreter, command }, stdin, timeout_ms)
        }
        HostCall::Clear | HostCall::Disconnect | HostCall::Reset | HostCall::Kill => {
            unreachable!("done at once")
        }
    }
}
