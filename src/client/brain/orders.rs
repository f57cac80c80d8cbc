//! What becomes of an order: a request and a task, or an end.

use super::*;

impl Task {
    /// Whether standard input goes to it.
    fn takes_input(&self) -> bool {
        match self {
            Task::Run(run) => run.takes_input,
            Task::Samples => true,
            Task::Answer(_) | Task::Roster(_) | Task::Pong(_) | Task::Transfer(_) => false,
            Task::Refusal | Task::Announcement => false,
        }
    }
}

impl Brain {
    pub(super) fn perform(&mut self, order: Order, now_ms: u64) {
        let Online::Here(link) = &mut self.online else { unreachable!("the caller has looked") };
        let (call, task) = match &order {
            Order::Message { to, text, receipt_ms } => {
                return self.post(to, text, *receipt_ms, now_ms);
            }
            Order::Download { paths, target, again, .. } => {
                let names = paths.iter().map(|path| Blob::borrowed(path)).collect();
                let (paths, target) = (paths.clone(), target.clone());
                let transfer = Transfer::fetch(paths, target, again.clone(), now_ms);
                (CallBody::Fetch { paths: names }, Task::Transfer(Box::new(transfer)))
            }
            Order::Upload { paths, into, again, .. } => {
                let transfer = Transfer::store(paths, into.clone(), again.clone(), now_ms);
                let into = into.as_deref().map(Blob::borrowed);
                (CallBody::Store { into }, Task::Transfer(Box::new(transfer)))
            }
            Order::Run { command, stdin, timeout_ms } => {
                let (stdin, timeout_ms) = (*stdin, *timeout_ms);
                let run = Run::new(command, stdin);
                let (command, interpreter) = (command.into(), None);
                let call = CallBody::Run { command, stdin, timeout_ms, interpreter };
                (call, Task::Run(Box::new(run)))
            }
            Order::List { path } => {
                let path = path.as_deref().map(Blob::borrowed);
                (CallBody::Ls { path }, Task::Answer("entries"))
            }
            Order::Who { long: false } => (CallBody::Who, Task::Answer("users")),
            Order::Who { long: true } => (CallBody::Who, Task::Roster(Vec::new())),
            Order::Echo { text } => (CallBody::Echo { text: text.into() }, Task::Answer("")),
            Order::Send { .. } | Order::Accept { .. } | Order::Refuse { .. } => {
                return self.perform_between(order, now_ms);
            }
            Order::Receive { .. } => return self.perform_between(order, now_ms),
            Order::Edge(call) if call.takes_input() => (call.into(), Task::Samples),
            Order::Edge(call) => (call.into(), Task::Answer("devices")),
            Order::Host(call) => (call.into(), host::task_of(call)),
            Order::Probe { route, count, interval_ms } => {
                return self.start_probe(route.clone(), *count, *interval_ms, now_ms);
            }
            Order::Help | Order::Clear | Order::Quit => {
                unreachable!("these do not concern the server")
            }
        };
        if !frame::fits_request(&call) {
            let text = format!("a request may have {REQUEST_BODY_MAX_BYTES} bytes as JSON");
            return self.refuse(ErrorCode::TextTooLong, &text);
        }
        let tag = link.request(&call);
        let credit_step_bytes = link.credit_step_bytes();
        let opening = match order {
            Order::Download { paths, target, limit, .. } => {
                Some(Opening::Fetch { paths, target, limit, credit_step_bytes })
            }
            Order::Upload { paths, limit, .. } => Some(Opening::Store { paths, limit }),
            _ => None,
        };
        let open = |opening| Effect::Open(tag, opening);
        self.effects.extend(opening.map(open));
        if task.takes_input() {
            self.effects.push_back(Effect::StartInput);
        }
        if matches!(&task, Task::Pong(_)) {
            self.effects.push_back(Effect::StartClock(tag));
        }
        self.tasks.insert(tag, task);
    }

    pub(super) fn cancel(&mut self, tag: Tag) {
        if let Some(link) = self.link() {
            link.cancel(tag);
        }
        self.abandon(tag);
    }

    pub(super) fn cancel_all(&mut self) {
        let tags: Vec<_> = self.tasks.keys().copied().collect();
        tags.into_iter().for_each(|tag| self.cancel(tag));
    }

    /// Moves standard input on to the command, as far as both ends allow.
    pub(super) fn send_input(&mut self) {
        let taker = self.tasks.iter().find(|(_, task)| task.takes_input()).map(|(tag, _)| *tag);
        let (Some(tag), Online::Here(link)) = (taker, &mut self.online) else { return };
        while let Some(block) = self.input.blocks.front() {
            self.input.sent += link.input(tag, &block[self.input.sent..]);
            if self.input.sent < block.len() {
                return;
            }
            self.input.blocks.pop_front();
            self.input.sent = 0;
            self.effects.push_back(Effect::MoreInput);
        }
        if self.input.ended {
            link.input_end(tag, b"");
        }
    }
}
