//! What the server says, and what follows from it.

use super::{
    After, Brain, Effect, Ending, ErrorCode, Heard, Online, Run, Shown, Stream, Tag, Task, exit,
};
use crate::limits::CLIENT_NAMES_MAX;
use crate::wire::{
    EdgeAnswer, Form,
    control::{DetailBody, OutcomeBody, RefusalBody},
    event::UdpPort,
};

impl Brain {
    pub(super) fn handle_heard(&mut self, heard: Heard<'_>, now_ms: u64) {
        match heard {
            Heard::Welcome(body) => {
                let again = std::mem::replace(&mut self.was_welcome, true);
                self.announce();
                self.show(match again {
                    true => Shown::Notice("connected again".to_owned()),
                    false => Shown::Welcome { user: body.user, server: body.server.into_owned() },
                });
            }
            Heard::Message { from, text, serial } => {
                let shown = Shown::Message { from, text: text.to_owned() };
                let wanted = serial != 0 && self.setup.shows_messages;
                let after = wanted.then_some(After::Acknowledge(serial, self.connection));
                self.effects.push_back(Effect::Seen(from));
                self.effects.push_back(Effect::Show(shown, after));
            }
            Heard::Detail(0, detail) => self.handle_offer(detail, now_ms),
            Heard::Detail(tag, detail) => self.handle_detail(tag, detail, now_ms),
            Heard::End(tag, outcome) => self.handle_end(tag, outcome, now_ms),
            Heard::InputRoom(_) => {
                self.send_input();
                self.pump();
            }
            Heard::Pong(number) => self.handle_pong(number),
            Heard::Delivered(number, body) => {
                self.show(Shown::Delivered { to: body.to, by: body.by });
                self.count_receipt(number, false);
            }
            Heard::Error(number, body) => self.handle_error(number, &body),
            Heard::Goodbye(why) => self.handle_goodbye(why),
            Heard::Data(..) => unreachable!("data goes its own way"),
        }
        self.settle();
    }

    fn handle_detail(&mut self, tag: Tag, detail: DetailBody<'_>, now_ms: u64) {
        match (self.tasks.get_mut(&tag), detail) {
            (Some(Task::Answer(_)), DetailBody::Users { names }) => {
                self.effects.extend(names.iter().map(|name| Effect::Seen(*name)));
                self.show(Shown::Users(names.into_owned()));
            }
            (Some(Task::Roster(roster)), DetailBody::Users { names })
                if roster.len() + names.len() > CLIENT_NAMES_MAX =>
            {
                let text = "the server lists more users than there can be".to_owned();
                self.effects.push_back(Effect::Lost(text));
            }
            (Some(Task::Roster(roster)), DetailBody::Users { names }) => {
                roster.extend(names.iter().map(|name| (*name, None)));
                self.effects.extend(names.iter().map(|name| Effect::Seen(*name)));
            }
            (Some(Task::Roster(roster)), DetailBody::UdpPorts { ports }) => {
                for UdpPort { user, port } in ports.iter() {
                    // Both are in the order of the names.
                    if let Ok(at) = roster.binary_search_by(|(name, _)| name.cmp(user)) {
                        roster[at].1 = Some(*port);
                    }
                }
            }
            (Some(Task::Answer(_)), DetailBody::Entries { entries }) => {
                self.show(Shown::Entries(entries.into_owned()));
            }
            (Some(Task::Answer(_)), DetailBody::Text { text }) => {
                self.show(Shown::Text(text.into_owned()));
            }
            (Some(Task::Transfer(_)), DetailBody::Accepted { form, introduction, address, .. }) => {
                let contact = introduction.as_deref().zip(address.as_deref());
                self.handle_joined(tag, form, contact, now_ms);
            }
            (Some(Task::Transfer(_)), DetailBody::File { .. }) => {
                self.handle_joined(tag, Form::Raw, None, now_ms);
            }
            (Some(Task::Transfer(_)), DetailBody::DataEnd) => {
                self.effects.push_back(Effect::PeerEnded(tag));
            }
            (Some(Task::Answer(_) | Task::Samples), DetailBody::Object { object }) => {
                match EdgeAnswer::of_object(&object) {
                    Some(answer) => self.show(Shown::Edge(answer)),
                    None => {
                        self.count_facts();
                        self.show(Shown::Info(object.into_owned()));
                    }
                }
            }
            (Some(Task::Announcement), DetailBody::Text { text }) => self.note_seen(&text),
            (Some(Task::Pong(_)), DetailBody::Text { text }) => {
                self.handle_pong_text(tag, text.into_owned());
            }
            // A newer server may tell more than we know.
            _ => {}
        }
    }

    fn handle_end(&mut self, tag: Tag, outcome: OutcomeBody<'_>, now_ms: u64) {
        if matches!(self.tasks.get(&tag), Some(Task::Transfer(_))) {
            return self.handle_transfer_end(tag, outcome, now_ms);
        }
        let task = self.tasks.remove(&tag);
        if matches!(task, Some(Task::Refusal | Task::Announcement)) {
            return;
        }
        if let OutcomeBody::Failed { code, text } = &outcome {
            if !self.ask_again(*code, now_ms) {
                self.refuse(*code, text);
                // What is refused once is refused again.
                self.setup.watch.into_iter().for_each(|_| self.leave(None));
            }
            return;
        }
        match task {
            Some(Task::Run(run)) => self.handle_run_end(*run, outcome),
            Some(Task::Roster(roster)) => {
                let count = roster.len() as u64;
                self.show(Shown::Roster(roster));
                self.show(Shown::Counted { count, what: "users" });
            }
            Some(Task::Answer(what)) => {
                if let OutcomeBody::Counted { count } = outcome {
                    self.show(Shown::Counted { count, what });
                }
            }
            Some(Task::Transfer(_) | Task::Pong(_) | Task::Samples) | None => {}
            Some(Task::Refusal | Task::Announcement) => {}
        }
    }

    fn handle_run_end(&mut self, mut run: Run, outcome: OutcomeBody<'_>) {
        for (stream, buffer) in
            [(Stream::Stdout, &mut run.stdout), (Stream::Stderr, &mut run.stderr)]
        {
            if let Some(bytes) = buffer.finish() {
                self.effects.push_back(Effect::Show(Shown::Output { stream, bytes }, None));
            }
        }
        let Some(ending) = Ending::of(&outcome) else {
            return self.refuse(ErrorCode::Protocol, "the server did not tell how it ended");
        };
        if let OutcomeBody::Exit { directory: Some(path), .. } = outcome {
            self.show(Shown::Directory(path.0.into_owned()));
        }
        self.show(Shown::Ended(ending));
        let code = match ending {
            Ending::Exit(code) => code,
            Ending::Signal(number, _) => exit::of_signal(number),
        };
        if code != exit::DONE {
            self.code.get_or_insert(code);
        }
    }

    fn handle_error(&mut self, number: u32, body: &RefusalBody<'_>) {
        self.fail_posted(number);
        self.refuse(body.code, &body.text);
        use ErrorCode::{NoSuchUser, NotDelivered, PeerBusy};
        let one_of_them = matches!(body.code, NoSuchUser | PeerBusy | NotDelivered);
        self.count_receipt(number, !one_of_them);
    }

    fn count_receipt(&mut self, number: u32, all: bool) {
        if let Some(receipts) = self.receipts.get_mut(&number) {
            receipts.left -= 1;
            if all || receipts.left == 0 {
                self.receipts.remove(&number);
            }
        }
    }

    fn handle_goodbye(&mut self, why: Option<RefusalBody<'_>>) {
        let Some(why) = why else {
            let text = "the server has said goodbye".to_owned();
            return self.effects.push_back(Effect::Lost(text));
        };
        if self.ask_after(&why) {
            return;
        }
        // What was refused now is refused again, but for a name that our own lost connection may
        // still hold.
        let again = self.was_welcome && self.returns();
        use ErrorCode::{Denied, LoginFailed, LoginRequired, NotSupported, Replaced};
        let lasting =
            matches!(why.code, Denied | NotSupported | LoginRequired | LoginFailed | Replaced);
        if !matches!(self.online, Online::Leaving(_)) && (lasting || !again) {
            self.drop_tasks();
            self.code = None;
            self.refuse_login(&why);
            self.online = Online::Leaving(None);
            return self.leave(self.code);
        }
        self.effects.push_back(Effect::Lost(why.text.into_owned()));
    }
}
