//! What becomes of an order: a request and a task, or an end.

use super::*;
use crate::wire::check;

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

/// What waits for the answer to a call.
fn task_of(call: &Call<'_>) -> Task {
    match call {
        Call::Host(call) => host::task_of(call),
        Call::Edge(call) if call.takes_input() => Task::Samples,
        Call::Edge(_) => Task::Answer("devices"),
        _ => Task::Answer(""),
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
                if paths.iter().map(Vec::len).sum::<usize>() > REQUEST_BODY_MAX_BYTES {
                    return self.refuse_too_long();
                }
                let names = match paths.iter().map(|path| check::path(path)).collect() {
                    Ok(names) => names,
                    Err(Refusal { code, text, .. }) => return self.refuse(code, &text),
                };
                let (paths, target) = (paths.clone(), target.clone());
                let transfer = Transfer::fetch(paths, target, again.clone(), now_ms);
                (Call::Fetch { paths: names }, Task::Transfer(Box::new(transfer)))
            }
            Order::Upload { paths, into, again, .. } => {
                let transfer = Transfer::store(paths, into.clone(), again.clone(), now_ms);
                let into = match check::folder(into.as_deref().unwrap_or_default()) {
                    Ok(into) => into,
                    Err(Refusal { code, text, .. }) => return self.refuse(code, &text),
                };
                (Call::Store { into }, Task::Transfer(Box::new(transfer)))
            }
            Order::Run { command, stdin, timeout_ms } => {
                let (stdin, timeout_ms) = (*stdin, *timeout_ms);
                let run = Run::new(command, stdin);
                let call = Call::Run { command: command.into(), stdin, timeout_ms };
                (call, Task::Run(Box::new(run)))
            }
            Order::List { path } => {
                let path = match check::folder(path.as_deref().unwrap_or_default()) {
                    Ok(path) => path,
                    Err(Refusal { code, text, .. }) => return self.refuse(code, &text),
                };
                (Call::List { path }, Task::Answer("entries"))
            }
            Order::Who { long: false } => (Call::Who, Task::Answer("users")),
            Order::Who { long: true } => (Call::Who, Task::Roster(Vec::new())),
            Order::Send { .. } | Order::Accept { .. } | Order::Refuse { .. } => {
                return self.perform_between(order, now_ms);
            }
            Order::Receive { .. } => return self.perform_between(order, now_ms),
            Order::Call(call) => (call.clone(), task_of(call)),
            Order::Probe { route, count, interval_ms } => {
                return self.start_probe(route.clone(), *count, *interval_ms, now_ms);
            }
            Order::Help | Order::Clear | Order::Quit => {
                unreachable!("these do not concern the server")
            }
        };
        if !frame::fits_request(&call) {
            return self.refuse_too_long();
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

    fn refuse_too_long(&mut self) {
        let text = format!("a request may have {REQUEST_BODY_MAX_BYTES} bytes as JSON");
        self.refuse(ErrorCode::TextTooLong, &text);
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
