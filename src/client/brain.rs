//! The client's brain: orders and server news in, things to show and to do out.
//!
//! No I/O, no clock, no randomness: `now_ms` counts from any fixed moment, `random` is any number.
//! The same brain serves the prompt, piped lines and the one-shot verbs; [`Style`] tells them
//! apart. Every order ends in something shown, and every failure in an exit code.
//!
//! ```text
//!   order ──▶ task (tag) ──detail, data──▶ ... ──end──▶ shown, task gone ──▶ next order
//!                  └── transfer: also waits for our own half of its conversation
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

use super::{
    core::{
        backoff::Backoff,
        exit,
        order::{Local, Order, Target},
    },
    link::{Heard, Link},
    screen::{Ending, Shown},
};
use crate::{
    limits::REQUEST_BODY_MAX_BYTES,
    wire::{
        Call, ErrorCode, Name, Refusal, Stream, Tag,
        control::OutcomeBody,
        escape::{escape, escape_bytes},
        frame, verbs,
    },
};

mod between;
mod host;
mod login;
mod news;
mod opening;
mod orders;
mod posts;
mod runs;
#[cfg(test)]
mod tests;
mod transfer;

use between::Between;
use host::{Probe, Watching};
pub use host::{Trips, Watch};
use login::Asking;
pub use login::Login;
pub use opening::Opening;
use posts::{Posted, Receipts, away_text};
use runs::Run;
use transfer::Transfer;
pub use transfer::{Folders, pump_queue};

/// Where orders come from, and so what happens between them and at their end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Style {
    /// A person at a prompt: orders run side by side, a lost server is tried again.
    Prompt,
    /// Lines from a pipe: one order after the other, the first failure is the exit code.
    Piped,
    /// The arguments: all orders at once, then the end.
    Verb,
    /// No orders: the server is watched, and a lost one is tried again.
    Watch,
}

impl Style {
    /// Whether a lost server is tried again, whatever was asked for.
    fn returns(self) -> bool {
        matches!(self, Style::Prompt | Style::Watch)
    }
}

/// How the client was started, as far as the brain has to know.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// See [`Style`].
    pub style: Style,
    /// Who we are.
    pub user: Name,
    /// The exit code of every failure of our own, where the verb has one: that of `run`.
    pub own_failure: Option<u8>,
    /// Tell the progress of transfers at most so often, in milliseconds; `None`: bars do that.
    pub progress_ms: Option<u64>,
    /// Files within folders are told of one by one, not together.
    pub tells_every_file: bool,
    /// Output of `run` is shown as lines or objects instead of going out byte for byte.
    pub shows_output: bool,
    /// Messages are shown, and so may be acknowledged.
    pub shows_messages: bool,
    /// Somebody can be asked whether an offer is to be taken.
    pub can_ask: bool,
    /// What to watch; only with [`Style::Watch`].
    pub watch: Option<Watch>,
}

/// Something to be done by the glue.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Show it, and report back afterwards.
    Show(Shown, Option<After>),
    /// Somebody of this name exists: worth completing.
    Seen(Name),
    /// The next order may come.
    Next,
    /// Start the thread of a transfer; data of this tag goes to it from now on.
    Open(Tag, Opening),
    /// The connection has taken so many bytes of what that thread said.
    Taken(Tag, usize),
    /// The server has ended the transfer: nothing more comes for the thread.
    Close(Tag),
    /// The other user of the transfer says no more.
    PeerEnded(Tag),
    /// All of a file that comes as it is has come, with this hash if the sender has told one.
    Verify(Tag, Option<[u8; 32]>),
    /// Drop the thread.
    Abandon(Tag),
    /// Look at what is to be sent, then call [`Brain::handle_weighed`] with this number.
    Weigh(u64, Vec<Local>),
    /// Read standard input; each block goes to [`Brain::handle_input`].
    StartInput,
    /// One more block of standard input may be read.
    MoreInput,
    /// Ask the user for the password of this name, after this explanation; then call
    /// [`Brain::handle_password`].
    Ask {
        /// Whose password.
        user: Name,
        /// Why it is asked for again.
        why: Option<String>,
    },
    /// Connect again, then call [`Brain::handle_connected`] or [`Brain::handle_unreachable`].
    Connect,
    /// The server has ended the connection for this reason: call [`Brain::handle_lost`].
    Lost(String),
    /// Drop the connection: it is of no use any more.
    Disconnect,
    /// The clock of this number starts to run.
    StartClock(u32),
    /// It stops: call [`Brain::handle_clock`].
    StopClock(u32),
    /// All is done: write what waits, then exit with this code.
    Leave(u8),
}

/// What is reported when something was really shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum After {
    /// So many bytes of the operation's output were taken.
    Consumed(Tag, u32),
    /// The message with this serial was seen, on the connection with this number.
    Acknowledge(u32, u32),
}

/// Where the bytes of an operation go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Route {
    /// To the thread of the transfer.
    Mover,
    /// To our own outputs, byte for byte.
    Outputs,
    /// To [`Brain::handle_output`].
    Screen,
    /// Nowhere: nobody wants them any more.
    Nowhere,
}

/// Data of an operation: these of the bytes handed in.
pub type Piece = (Tag, Stream, Range<usize>);

#[derive(Debug)]
enum Task {
    /// `who`, `ls`, `echo`, `help`, `info` and the like; what is counted.
    Answer(&'static str),
    /// `who --long`: the users, and where each takes files.
    Roster(Vec<(Name, Option<u16>)>),
    /// `ping`, and its answer until the time that it took is known.
    Pong(String),
    Run(Box<Run>),
    Transfer(Box<Transfer>),
    /// Standard input goes to the server as a file of samples.
    Samples,
    /// An offer is refused; whether it still was there does not matter.
    Refusal,
    /// The server is told where we take files; an older one may not know what that is.
    Announcement,
}

/// Standard input on its way to a command.
#[derive(Debug, Default)]
struct Input {
    blocks: VecDeque<Vec<u8>>,
    /// Bytes of the first block that are sent already.
    sent: usize,
    ended: bool,
}

#[derive(Debug)]
enum Online {
    Here(Link),
    /// No connection; tried again at that moment, or just now.
    Away {
        last_number: Tag,
        backoff: Backoff,
        due_ms: Option<u64>,
    },
    /// Nothing more is asked.
    Leaving(Option<Link>),
}

impl Online {
    /// No connection, and nothing that brings it back by itself.
    fn waiting(last_number: Tag) -> Online {
        Online::Away { last_number, backoff: Backoff::default(), due_ms: None }
    }
}

/// See the head of this file.
#[derive(Debug)]
pub struct Brain {
    setup: Setup,
    login: Login,
    asking: Asking,
    online: Online,
    /// Counts connections, so that an acknowledgement goes to the one it belongs to.
    connection: u32,
    was_welcome: bool,
    tasks: BTreeMap<Tag, Task>,
    posted: VecDeque<Posted>,
    receipts: BTreeMap<u32, Receipts>,
    /// The prompt is left, at the latest then.
    quit_due_ms: Option<u64>,
    probe: Option<Probe>,
    watching: Watching,
    input: Input,
    between: Between,
    /// The order source was asked for more and has not answered yet.
    awaiting: bool,
    /// No more orders will come.
    orders_ended: bool,
    interrupted: bool,
    /// The code of the first failure.
    code: Option<u8>,
    effects: VecDeque<Effect>,
}

impl Brain {
    /// A brain on a fresh connection.
    pub fn new(setup: Setup, now_ms: u64) -> Brain {
        Brain {
            setup,
            login: Login::default(),
            asking: Asking::default(),
            online: Online::Here(Link::new(setup.user, None, 0, now_ms)),
            connection: 0,
            was_welcome: false,
            tasks: BTreeMap::new(),
            posted: VecDeque::new(),
            receipts: BTreeMap::new(),
            quit_due_ms: None,
            probe: None,
            watching: Watching::default(),
            input: Input::default(),
            between: Between::default(),
            awaiting: false,
            orders_ended: false,
            interrupted: false,
            code: None,
            effects: VecDeque::new(),
        }
    }

    /// What is to be done next; `None` until something else happens.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The connection's bytes, while there is a connection.
    pub fn link(&mut self) -> Option<&mut Link> {
        match &mut self.online {
            Online::Here(link) | Online::Leaving(Some(link)) => Some(link),
            Online::Away { .. } | Online::Leaving(None) => None,
        }
    }

    /// Where data of this operation goes.
    pub fn route(&self, tag: Tag) -> Route {
        match self.tasks.get(&tag) {
            Some(Task::Transfer(transfer)) if transfer.is_wanted() => Route::Mover,
            Some(Task::Run(_)) if self.setup.shows_output => Route::Screen,
            Some(Task::Run(_)) => Route::Outputs,
            _ => Route::Nowhere,
        }
    }

    /// An order, or a mistake that was made instead of one.
    pub fn handle_order(&mut self, order: Result<Order, Refusal>, now_ms: u64) {
        match order {
            Err(refusal) => self.refuse(refusal.code, &refusal.text),
            Ok(Order::Quit) => self.quit(now_ms),
            Ok(Order::Clear) => self.show(Shown::Clear),
            Ok(Order::Help) => self.show(Shown::Text(verbs::help_at_prompt())),
            Ok(order) => match &self.online {
                Online::Here(link) if link.is_ready() => self.perform(order, now_ms),
                Online::Leaving(_) => {}
                Online::Here(_) | Online::Away { .. } => {
                    self.fail(exit::FAILED);
                    self.show(Shown::Error { code: "not-connected", text: away_text(&order) });
                }
            },
        }
    }

    /// Something failed on our side that is no answer to an order.
    pub fn handle_mistake(&mut self, text: &str) {
        self.fail(exit::FAILED);
        self.show(Shown::failure(text));
    }

    /// All orders of what was asked for with [`Effect::Next`] are given.
    pub fn handle_orders_done(&mut self) {
        self.awaiting = false;
        self.settle();
    }

    /// No more orders will come: finish, then leave.
    pub fn handle_orders_end(&mut self) {
        self.awaiting = false;
        self.orders_ended = true;
        self.settle();
    }

    /// Whether data comes next. What came before anything else has to be delivered first: that
    /// may be the end of its operation.
    pub fn expects_data(&mut self, bytes: &[u8]) -> bool {
        self.link().is_some_and(|link| link.expects_data(bytes))
    }

    /// Reads the next thing in `bytes`, which came from the server: how many bytes it took (none:
    /// more are needed), and where data is among them.
    pub fn handle_bytes(
        &mut self,
        bytes: &[u8],
        now_ms: u64,
    ) -> Result<(usize, Option<Piece>), Refusal> {
        let Some(link) = self.link() else { return Ok((bytes.len(), None)) };
        let (taken, heard) = link.handle(bytes, now_ms)?;
        match heard {
            Some(Heard::Data(tag, stream, range)) => Ok((taken, Some((tag, stream, range)))),
            Some(heard) => {
                self.handle_heard(heard, now_ms);
                Ok((taken, None))
            }
            None => Ok((taken, None)),
        }
    }

    /// Something was shown, or taken by the thread of a transfer.
    pub fn handle_after(&mut self, after: After) {
        match after {
            After::Consumed(tag, bytes) => {
                if let Some(link) = self.link() {
                    link.consumed(tag, bytes);
                }
            }
            After::Acknowledge(serial, connection) if connection == self.connection => {
                if let Online::Here(link) = &mut self.online {
                    link.acknowledge(serial);
                }
            }
            After::Acknowledge(..) => {}
        }
    }

    /// A block of standard input; empty at its end.
    pub fn handle_input(&mut self, bytes: Vec<u8>) {
        match bytes.is_empty() {
            true => self.input.ended = true,
            false => self.input.blocks.push_back(bytes),
        }
        self.send_input();
    }

    /// Nobody takes our standard output any more: end quietly, as if by SIGPIPE where it was a
    /// command's output, else as done.
    pub fn handle_output_closed(&mut self) {
        let goes_out = |task: &Task| match task {
            Task::Run(_) => true,
            Task::Transfer(transfer) => transfer.goes_to_stdout(),
            _ => false,
        };
        let is_cut = self.setup.own_failure.is_some() || self.tasks.values().any(goes_out);
        let code = if is_cut { exit::of_signal(13) } else { exit::DONE };
        self.drop_downloads_to_stdout();
        self.cancel_all();
        self.leave(Some(self.code.unwrap_or(code)));
    }

    /// Ctrl-C, or SIGTERM (`number` 15): ends what runs; a second one leaves at once.
    pub fn handle_interrupt(&mut self, number: i32) {
        let commands = || self.tasks.iter().filter(|(_, task)| matches!(task, Task::Run(_)));
        let newest = commands().next_back().map(|(tag, _)| *tag);
        match self.setup.style {
            // Before the first prompt there is nothing else that could be meant.
            Style::Prompt if number == 2 && self.is_prompting() => {
                if let Some(tag) = newest.or(self.tasks.keys().next_back().copied()) {
                    self.cancel(tag);
                }
            }
            Style::Verb | Style::Piped if newest.is_some() && !self.interrupted => {
                self.interrupted = true;
                self.orders_ended = true;
                self.cancel_all();
            }
            // The way out of what has no other.
            Style::Watch if number == 2 => self.leave(Some(exit::DONE)),
            _ => {
                self.cancel_all();
                self.leave(Some(exit::of_signal(number)));
            }
        }
    }

    /// The user is at the prompt: asked for no password, and not leaving it.
    fn is_prompting(&self) -> bool {
        self.asking != Asking::Now && self.was_welcome && self.quit_due_ms.is_none()
    }

    /// Whether a lost server is tried again.
    fn returns(&self) -> bool {
        self.setup.style.returns() || self.is_receiving()
    }

    /// The connection is gone. Who can go on later tries to get it back.
    pub fn handle_lost(&mut self, why: &str, now_ms: u64, random: u64) {
        let (last_number, greeting) = match &self.online {
            Online::Here(link) => (link.last_number(), !self.was_welcome),
            Online::Away { .. } => return,
            Online::Leaving(_) => {
                self.online = Online::Leaving(None);
                self.effects.push_back(Effect::Disconnect);
                return;
            }
        };
        self.effects.push_back(Effect::Disconnect);
        if self.is_all_answered() {
            self.online = Online::waiting(last_number);
            return;
        }
        let returns = self.returns() && self.quit_due_ms.is_none();
        let is_prompt = self.setup.style == Style::Prompt;
        let unanswered = if is_prompt { self.take_unanswered() } else { Vec::new() };
        self.drop_tasks();
        if !returns || greeting {
            let code = if greeting { exit::CANNOT_CONNECT } else { exit::FAILED };
            self.fail(code);
            self.show(Shown::Error { code: "lost", text: self.lost_text(why) });
            unanswered.into_iter().for_each(|shown| self.show(shown));
            self.online = Online::Leaving(None);
            return self.leave(None);
        }
        let text = format!("connection lost: {}; trying to get it back", escape(why));
        self.show(Shown::Notice(text));
        unanswered.into_iter().for_each(|shown| self.show(shown));
        self.online = Online::waiting(last_number);
        self.retry(now_ms, random);
    }

    /// There is a connection again.
    pub fn handle_connected(&mut self, now_ms: u64) {
        let Online::Away { last_number, .. } = &self.online else { return };
        self.connection += 1;
        let (user, password) = (self.setup.user, self.login.sent_password());
        self.online = Online::Here(Link::new(user, password, *last_number, now_ms));
    }

    /// The attempt to connect again failed, for this reason.
    pub fn handle_unreachable(&mut self, why: &str, now_ms: u64, random: u64) {
        if self.is_first() && matches!(self.online, Online::Away { .. }) {
            self.fail(exit::CANNOT_CONNECT);
            self.show(Shown::Error { code: "cannot-connect", text: why.to_owned() });
            return self.leave(self.code);
        }
        self.retry(now_ms, random);
    }

    /// What answers there is not to be spoken to: that ends it, also at a prompt.
    pub fn handle_refused(&mut self, code: &'static str, text: String) {
        self.code = None;
        self.fail(exit::REFUSED);
        self.show(Shown::Error { code, text });
        self.online = Online::Leaving(None);
        self.leave(self.code);
    }

    /// Whether something is waited for that a dead server would never send.
    pub fn waits(&self) -> bool {
        let has_nothing =
            self.tasks.is_empty() && self.posted.is_empty() && self.receipts.is_empty();
        !has_nothing || self.probe.is_some()
    }

    /// When [`Brain::handle_timeout`] is due, if ever.
    pub fn poll_timeout_ms(&self) -> Option<u64> {
        let receipts = self.receipts.values().map(|receipts| receipts.due_ms);
        let online = match &self.online {
            Online::Here(link) => Some(link.poll_timeout_ms()),
            Online::Away { due_ms, .. } => *due_ms,
            Online::Leaving(_) => None,
        };
        let parts = self.tasks.values().filter_map(|task| match task {
            Task::Run(run) => run.part_due_ms(),
            _ => None,
        });
        let others = self.host_due_ms().into_iter().chain(self.transfers_due_ms());
        let others = others.chain(parts).chain(self.quit_due_ms);
        receipts.chain(online).chain(others).min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now_ms: u64, random: u64) {
        let awaited = self.receipts.len();
        self.receipts.retain(|_, receipts| receipts.due_ms > now_ms);
        if self.receipts.len() < awaited {
            self.fail(exit::TIMED_OUT);
            let text = "no word of the delivery in time; the message may still arrive";
            self.show(Shown::refusal(ErrorCode::TimedOut, text));
            self.settle();
        }
        self.handle_host_timeout(now_ms);
        self.handle_transfers_timeout(now_ms);
        self.handle_quit_timeout(now_ms);
        self.show_parts(now_ms);
        match &mut self.online {
            Online::Here(link) => {
                if let Err(why) = link.handle_timeout(now_ms) {
                    self.handle_lost(&why, now_ms, random);
                }
            }
            Online::Away { due_ms, .. } if due_ms.is_some_and(|due| due <= now_ms) => {
                *due_ms = None;
                self.effects.push_back(Effect::Connect);
            }
            Online::Away { .. } | Online::Leaving(_) => {}
        }
    }
}

/// Between orders.
impl Brain {
    /// After the end of anything: is it time for the next order, or to leave?
    fn settle(&mut self) {
        if !self.was_welcome || matches!(self.online, Online::Leaving(_)) || self.is_quitting() {
            return;
        }
        if self.awaiting {
            return;
        }
        if let Some(watch) = self.setup.watch {
            return self.watch_on(watch);
        }
        let idle = self.tasks.is_empty() && self.posted.is_empty() && self.receipts.is_empty();
        let idle = idle && self.is_quiet_between();
        let idle = idle && self.probe.is_none();
        if !self.orders_ended && (idle || self.setup.style == Style::Prompt) {
            self.awaiting = true;
            self.effects.push_back(Effect::Next);
        } else if self.orders_ended && idle {
            self.leave(None);
        }
    }

    fn leave(&mut self, code: Option<u8>) {
        let code = match (code, self.setup.style) {
            (Some(code), _) => code,
            (None, Style::Prompt) if self.was_welcome => exit::DONE,
            (None, _) => self.code.unwrap_or(exit::DONE),
        };
        let away = Online::Leaving(None);
        self.online = match std::mem::replace(&mut self.online, away) {
            Online::Here(mut link) => {
                link.goodbye();
                Online::Leaving(Some(link))
            }
            Online::Leaving(link) => Online::Leaving(link),
            Online::Away { .. } => Online::Leaving(None),
        };
        self.quit_due_ms = None;
        self.drop_tasks();
        self.effects.push_back(Effect::Leave(code));
    }

    /// Whether the server has said all that it had to say to us, and our own threads alone have
    /// something left to do: then its end breaks nothing off.
    fn is_all_answered(&self) -> bool {
        let is_answered = |task: &Task| match task {
            Task::Transfer(transfer) => transfer.is_answered(),
            _ => false,
        };
        let waits = !self.posted.is_empty() || !self.receipts.is_empty() || self.probe.is_some();
        let may_ask = self.awaiting || !self.orders_ended;
        let is_idle = !waits && !may_ask && self.is_quiet_between();
        is_idle && !self.tasks.is_empty() && self.tasks.values().all(is_answered)
    }

    fn drop_tasks(&mut self) {
        let tags: Vec<_> = self.tasks.keys().copied().collect();
        tags.into_iter().for_each(|tag| self.abandon(tag));
        self.tasks.clear();
        self.tell_unsent();
        self.receipts.clear();
        self.probe = None;
        self.input = Input::default();
        self.drop_between();
    }

    fn retry(&mut self, now_ms: u64, random: u64) {
        if let Online::Away { backoff, due_ms, .. } = &mut self.online {
            *due_ms = Some(now_ms + backoff.next_ms(random));
        }
    }

    fn show(&mut self, shown: Shown) {
        self.effects.push_back(Effect::Show(shown, None));
    }

    fn fail(&mut self, code: u8) {
        self.code.get_or_insert(self.setup.own_failure.unwrap_or(code));
    }

    fn refuse(&mut self, code: ErrorCode, text: &str) {
        self.fail(exit::of_error(code));
        self.show(Shown::refusal(code, text));
    }
}
