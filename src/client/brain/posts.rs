//! Messages on their way: which of them the server has taken, and what is told of the others.
//!
//! A message has no answer where all is well. So a ping follows each one: the server works in
//! order, and when the pong comes it has taken the message or has said what is wrong with it. What
//! has no pong when the connection ends may be lost, and that is told text by text.

use super::{Brain, Online, Order, Shown, Style, exit};

/// A prompt that is left waits so long for the server to take what was typed before, in
/// milliseconds.
const LAST_POSTS_MS: u64 = 3000;

/// What is said of an order that is given while there is no connection.
pub(super) fn away_text(order: &Order) -> String {
    match order {
        Order::Message { to, text, .. } => {
            format!("there is no connection at the moment, so this was not sent: {text}|{to}")
        }
        _ => "there is no connection at the moment, so nothing was sent; try again when it is back"
            .to_owned(),
    }
}

/// A message whose pong has not come.
#[derive(Debug)]
pub(super) struct Posted {
    pong: u32,
    to: String,
    text: String,
    /// The server has said what is wrong with it.
    failed: bool,
}

/// A message with receipts.
#[derive(Debug)]
pub(super) struct Receipts {
    pub(super) left: usize,
    pub(super) due_ms: u64,
}

impl Brain {
    pub(super) fn post(&mut self, to: &str, text: &str, receipt_ms: Option<u64>, now_ms: u64) {
        let Online::Here(link) = &mut self.online else { return };
        let number = link.message(to, text, receipt_ms.is_some());
        let Some(wait_ms) = receipt_ms else {
            let pong = link.ping();
            let (to, text) = (to.to_owned(), text.to_owned());
            return self.posted.push_back(Posted { pong, to, text, failed: false });
        };
        let mut names: Vec<_> = to.split(',').map(str::trim).collect();
        names.sort_unstable();
        names.dedup();
        let receipts = Receipts { left: names.len(), due_ms: now_ms.saturating_add(wait_ms) };
        self.receipts.insert(number, receipts);
    }

    pub(super) fn handle_pong(&mut self, number: u32) {
        if self.handle_probe_pong(number) {
            return;
        }
        if self.posted.front().is_none_or(|posted| posted.pong != number) {
            return;
        }
        if let Some(posted) = self.posted.pop_front().filter(|posted| !posted.failed) {
            self.show(Shown::Sent { to: posted.to });
        }
    }

    /// The server refuses the message with this number; those without receipts have none.
    pub(super) fn fail_posted(&mut self, number: u32) {
        if let Some(posted) = self.posted.front_mut().filter(|_| number == 0) {
            posted.failed = true;
        }
    }

    /// The connection has ended: tells of every message that may be lost.
    pub(super) fn tell_unsent(&mut self) {
        for Posted { to, text, .. } in
            std::mem::take(&mut self.posted).into_iter().filter(|posted| !posted.failed)
        {
            self.fail(exit::FAILED);
            let text = format!("nobody knows whether the server has taken it: {text}|{to}");
            self.show(Shown::Error { code: "not-sent", text });
        }
    }

    /// Leaves; a prompt first sees, for a moment, what the server has to say to the last messages.
    pub(super) fn quit(&mut self, now_ms: u64) {
        let is_here = matches!(&self.online, Online::Here(link) if link.is_ready());
        let waits = is_here && self.setup.style == Style::Prompt && !self.posted.is_empty();
        match waits && self.quit_due_ms.is_none() {
            true => self.quit_due_ms = Some(now_ms + LAST_POSTS_MS),
            false => self.leave(None),
        }
    }

    /// Whether the prompt is left as soon as the last messages are taken: then that is seen to.
    pub(super) fn is_quitting(&mut self) -> bool {
        let is_quitting = self.quit_due_ms.is_some();
        if is_quitting && self.posted.is_empty() {
            self.leave(None);
        }
        is_quitting
    }

    pub(super) fn handle_quit_timeout(&mut self, now_ms: u64) {
        if self.quit_due_ms.is_some_and(|due| due <= now_ms)
            && !matches!(self.online, Online::Leaving(_))
        {
            self.leave(None);
        }
    }

    /// A piped line, or a verb, is over before all was said.
    pub(super) fn lost_text(&self, why: &str) -> String {
        let rest = match self.setup.style {
            Style::Piped if !self.orders_ended => "; the lines behind the last one were not sent",
            _ => "",
        };
        format!("connection lost: {why}{rest}")
    }
}
