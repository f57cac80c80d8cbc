//! The client's loop: one thread that moves bytes between the socket and the brain, and does what
//! the brain asks for. Whatever may block (typing, printing, files, connecting) has a thread of
//! its own and sends [`News`].

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher as _, RandomState},
    io,
    sync::{PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, Waker};
use signal_hook::consts::{SIGCONT, SIGINT, SIGWINCH};
use signal_hook_mio::v1_0::Signals;

mod connection;
mod signals;
mod stopped;
mod stuck;

pub use connection::{send_next, standpoint_of};

use super::{
    arguments::Plan,
    blocks::Inbox,
    brain::{Brain, Effect, Login, Opening, Style},
    canvas::{self, Canvas},
    channel::{self, Channels, Started},
    core::exit,
    core::order::{self, Local, Order},
    input, manner,
    mover::Mover,
    outlet::{Mouth, Outlet},
    password,
    post::{News, Post},
    progress::Bars,
    prompt::{self, Names},
    screen::{Screen, Shown, Where, tame::Tame},
    secure::{self, Connected},
    weigh::{note_what_is_here, weigh},
};
use crate::{
    limits::CLIENT_NAMES_MAX,
    sys::{
        ask, clock,
        pulse::PulseWatch,
        terminal::{self, StdoutError, Stream as Standard, TerminalState},
        transport::Transport,
    },
    transfer::Fault,
    wire::{ErrorCode, Name, Secret, Tag},
};

const SOCKET: Token = Token(0);
const SIGNALS: Token = Token(1);
const NEWS: Token = Token(2);

/// Reads in one turn, after which news and signals have theirs.
const READS_PER_TURN: usize = 8;

/// Time that the goodbye has to reach the server.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// A session from its first byte to the exit code.
pub struct Session<'a> {
    plan: &'a Plan,
    style: Style,
    poll: Poll,
    post: Post,
    news: mpsc::Receiver<News>,
    signals: Signals,
    transport: Option<Transport>,
    pulse: PulseWatch,
    /// The socket may have bytes for us: it is edge-triggered, so this is to be remembered.
    readable: bool,
    /// The server has closed its half: there is an end to be read, of which nothing else tells.
    read_closed: bool,
    inbox: Inbox,
    brain: Brain,
    screen: Screen,
    bars: Bars,
    /// What is on the whole of the terminal, where the server is watched on one.
    canvas: Option<Canvas>,
    /// When the clocks of the brain began to run.
    clocks: HashMap<Tag, Instant>,
    /// The only output of a prompt; else standard output.
    out: Option<Outlet>,
    /// Standard error, where it leads elsewhere.
    err: Option<Outlet>,
    outlets_open: usize,
    movers: HashMap<Tag, Mover>,
    /// The way to other clients.
    channels: Option<Channels>,
    source: Source,
    /// A line was asked for and has not come: the cursor is behind a prompt.
    asked: bool,
    /// The terminal of the prompt.
    edited: Option<TerminalState>,
    /// We were stopped and run again; line editing has its terminal back when this is off.
    resumes: bool,
    /// Allows the reader of standard input one more block.
    input: Option<mpsc::Sender<()>>,
    names: Names,
    /// Why no password may be sent on the present connection, if so.
    unsafe_because: Option<String>,
    /// The terminal before it was asked for a password, while it is.
    asked_terminal: Option<TerminalState>,
    leaving: Option<Leaving>,
    /// A signal has asked for the end.
    patience: Option<stuck::Patience>,
    /// How we are connected at first, for those who want to know.
    detail: Option<String>,
    began: Instant,
}

/// Where orders come from.
enum Source {
    Given(Vec<Order>),
    /// A thread that sends a line for every question.
    Asked(mpsc::Sender<()>),
    /// Nowhere any more.
    Ended,
}

struct Leaving {
    code: u8,
    /// The server's time to take the goodbye.
    until: Instant,
    /// Even what waits for the outputs is given up.
    at_once: bool,
}

impl<'a> Session<'a> {
    /// Begins on a fresh connection.
    ///
    /// # Errors
    /// The system, or the terminal, does not give what a session needs; a sentence.
    pub fn new(
        plan: &'a Plan,
        password: Option<Secret<'static>>,
        connected: Connected,
    ) -> Result<Session<'a>, String> {
        let system = |error: io::Error| format!("cannot set up the event loop: {error}");
        let Connected { transport, until, detail, .. } = connected;
        let poll = Poll::new().map_err(system)?;
        let waker = Waker::new(poll.registry(), NEWS).map_err(system)?;
        let (post, news) = Post::new(waker);
        let takes_whole_terminal = manner::takes_whole_terminal(plan);
        let style = manner::style_of(plan);
        let edited = (style == Style::Prompt).then(TerminalState::save).flatten();
        let mut signals =
            signals::listen(takes_whole_terminal, edited.is_some()).map_err(system)?;
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE).map_err(system)?;
        let screen = manner::screen_of(plan, style);
        let visible = style == Style::Verb && !plan.json && !plan.quiet;
        let bars = Bars::new(visible && terminal::is_terminal(Standard::Stderr));
        let names = Names::default();
        let Begun { source, out, err } = begin(plan, style, &bars, &names, &post)?;
        let outlets_open = usize::from(out.is_some()) + usize::from(err.is_some());
        if takes_whole_terminal && terminal::is_terminal(Standard::Stdin) {
            canvas::start_keys(post.clone())?;
        }
        let began = Instant::now();
        let login = Login {
            account: plan.account,
            password,
            can_ask: ask::can_ask(),
            asks_first: password::is_exposed(&transport),
        };
        let mut session = Session {
            plan,
            style,
            poll,
            post,
            news,
            signals,
            transport: None,
            pulse: PulseWatch::default(),
            readable: false,
            read_closed: false,
            inbox: Inbox::default(),
            brain: Brain::with_login(manner::setup_of(plan, style, screen), login, 0),
            screen,
            bars,
            canvas: takes_whole_terminal.then(|| Canvas::open(plan.server())),
            clocks: HashMap::new(),
            out,
            err,
            outlets_open,
            movers: HashMap::new(),
            channels: None,
            source,
            asked: false,
            edited,
            resumes: false,
            input: None,
            names,
            unsafe_because: None,
            asked_terminal: None,
            leaving: None,
            patience: None,
            detail: plan.verbose.then_some(detail),
            began,
        };
        session.expect_offers();
        session.open_channels();
        session.adopt(transport).map_err(system)?;
        session.expect_welcome_until(until);
        Ok(session)
    }

    /// Lets the brain know what is to become of offers, which may come with the welcome.
    fn expect_offers(&mut self) {
        self.brain.set_rules(self.plan.accept.clone());
        if let Some(Order::Receive { count }) = self.plan.orders.iter().flatten().next() {
            self.brain.receive_early(*count);
        }
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// The event loop itself failed.
    pub fn run(mut self) -> io::Result<u8> {
        let mut events = Events::with_capacity(16);
        loop {
            self.turn();
            if let Some(code) = self.code_where_stuck() {
                return Ok(code);
            }
            if let Some(code) = self.exit_code() {
                if self.style == Style::Prompt && self.asked {
                    // What comes next on the terminal is not for the prompt.
                    let _ = terminal::write_stdout(b"\r\n");
                }
                if let Some(error) = self.canvas.take().and_then(Canvas::close) {
                    super::show(self.plan, &error);
                }
                return Ok(code);
            }
            match self.poll.poll(&mut events, self.timeout()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                match event.token() {
                    SOCKET => {
                        self.readable |= event.is_readable() || event.is_error();
                        self.read_closed |= event.is_read_closed();
                    }
                    SIGNALS => self.handle_signals(),
                    _ => {}
                }
            }
        }
    }

    /// Does all that can be done without waiting.
    fn turn(&mut self) {
        let news: VecDeque<_> = self.news.try_iter().collect();
        for news in news {
            self.handle_news(news);
            self.perform_effects();
        }
        self.read();
        let (now_ms, random) = (self.now_ms(), random());
        // After reading: a process that was stopped finds old timers and fresh bytes, and the
        // bytes win.
        self.brain.handle_timeout(now_ms, random);
        self.perform_effects();
        self.take_pulse();
        self.write();
        if self.resumes {
            self.resume_prompt();
        }
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn timeout(&self) -> Option<Duration> {
        if self.readable && !self.is_full() {
            return Some(Duration::ZERO);
        }
        let brain = self.brain.poll_timeout_ms().map(|at| {
            // Rounded up, or the loop would turn idly through the last millisecond.
            Duration::from_millis(at.saturating_sub(self.now_ms()) + 1)
        });
        let leaving = self.leaving.as_ref();
        let goodbye = leaving.filter(|_| self.transport.is_some()).map(|leaving| {
            leaving.until.saturating_duration_since(Instant::now()) + Duration::from_millis(1)
        });
        let pulse = self
            .pulse
            .due_ms()
            .filter(|_| self.transport.is_some())
            .map(|at| Duration::from_millis(at.saturating_sub(self.now_ms()) + 1));
        // Nobody tells a process that runs that it has come to the foreground.
        let resuming = self.resumes.then_some(terminal::BACKGROUND_LOOK_EVERY);
        brain.into_iter().chain(goodbye).chain(pulse).chain(resuming).chain(self.next_look()).min()
    }

    /// The code, once all is written and the server has heard our goodbye.
    fn exit_code(&self) -> Option<u8> {
        let leaving = self.leaving.as_ref()?;
        let heard = self.transport.is_none() || Instant::now() >= leaving.until;
        (leaving.at_once || heard && self.outlets_open == 0).then_some(leaving.code)
    }

    fn is_full(&self) -> bool {
        self.out.iter().chain(&self.err).any(Outlet::is_full)
    }
}

/// News from other threads, and signals.
impl Session<'_> {
    fn handle_line(&mut self, line: &str, now_ms: u64) {
        match order::parse(line) {
            Err(refusal) => self.brain.handle_order(Err(refusal), now_ms),
            Ok(orders) => {
                for order in orders {
                    self.brain.handle_order(Ok(order), now_ms);
                }
            }
        }
    }

    fn handle_signals(&mut self) {
        let numbers: Vec<_> = self.signals.pending().collect();
        for number in numbers {
            if number == SIGWINCH {
                self.paint();
                continue;
            }
            if number == SIGCONT {
                self.resumes = true;
                continue;
            }
            match &mut self.leaving {
                // Somebody does not want to wait for the outputs.
                Some(leaving) => (leaving.code, leaving.at_once) = (exit::of_signal(number), true),
                None => {
                    self.lose_patience(number);
                    self.brain.handle_interrupt(number);
                }
            }
        }
        self.perform_effects();
    }

    fn handle_news(&mut self, news: News) {
        let now_ms = self.now_ms();
        self.asked &= !matches!(news, News::Line(_) | News::Interrupted | News::LinesEnd(_));
        match news {
            News::Line(lines) => {
                // What was pasted has several.
                lines.lines().for_each(|line| self.handle_line(line, now_ms));
                self.brain.handle_orders_done();
            }
            News::Interrupted => {
                self.brain.handle_interrupt(SIGINT);
                self.brain.handle_orders_done();
            }
            News::LinesEnd(why) => {
                if let Some(why) = why {
                    self.brain.handle_mistake(&why);
                }
                match self.style {
                    Style::Prompt => self.brain.handle_order(Ok(Order::Quit), now_ms),
                    Style::Piped | Style::Verb | Style::Watch => self.brain.handle_orders_end(),
                }
            }
            News::Enough => self.brain.handle_order(Ok(Order::Quit), now_ms),
            News::Input(bytes) => self.brain.handle_input(bytes),
            News::After(after) => self.brain.handle_after(after),
            News::Drained => {}
            News::OutputFailed(StdoutError::Closed) => self.brain.handle_output_closed(),
            News::OutputFailed(StdoutError::Failed(error)) => self.fail_output(&error),
            News::OutputDone => self.outlets_open -= 1,
            News::Said(tag, segments) => self.brain.handle_said(tag, segments),
            News::Reports(tag, reports) => self.brain.handle_reports(tag, reports, now_ms),
            News::Weighed(number, weight) => self.brain.handle_weighed(number, weight, now_ms),
            News::Hashed(tag, hash) => self.brain.handle_hashed(tag, hash),
            News::Way(tag, way) => self.brain.handle_way(tag, way),
            News::Moved(tag, outcome) => self.brain.handle_moved(tag, outcome, now_ms),
            News::Password(typed) => {
                self.asked_terminal = None;
                self.brain.handle_password(typed);
            }
            News::Connected(connected) => self.handle_connected(connected),
            News::Unreachable(failure) if failure.exit == exit::REFUSED => {
                self.brain.handle_refused(failure.code, failure.text);
            }
            News::Unreachable(failure) => {
                self.brain.handle_unreachable(&failure.text, now_ms, random());
            }
            News::Device(_) => unreachable!("devices have a loop of their own"),
        }
    }
}

/// What the brain asks for, and what comes after it.
impl Session<'_> {
    fn perform_effects(&mut self) {
        while let Some(effect) = self.brain.poll_effect() {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Show(mut shown, after) => {
                note_what_is_here(&mut shown, std::path::Path::new("."));
                self.show(&shown, after);
            }
            Effect::Seen(name) => {
                let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
                if names.len() < CLIENT_NAMES_MAX {
                    names.insert(name);
                }
            }
            Effect::Next => self.ask(),
            Effect::Open(tag, opening) => self.open(tag, opening),
            Effect::Taken(tag, bytes) => {
                self.movers.get(&tag).into_iter().for_each(|mover| mover.taken(bytes));
            }
            Effect::Verify(tag, hash) => {
                self.movers.get(&tag).into_iter().for_each(|mover| mover.verify(hash));
            }
            Effect::PeerEnded(tag) => {
                self.movers.get(&tag).into_iter().for_each(Mover::peer_ended);
            }
            Effect::Weigh(number, paths) => start_weighing(number, paths, self.post.clone()),
            Effect::Close(tag) => self.movers.get(&tag).into_iter().for_each(Mover::end),
            Effect::Abandon(tag) => drop(self.movers.remove(&tag)),
            Effect::StartInput => self.start_input(),
            Effect::MoreInput => {
                // At the end of the input nobody asks for more.
                if let Some(go) = &self.input {
                    let _ = go.send(());
                }
            }
            Effect::Ask { user, why } => self.ask_password(user, why),
            Effect::Connect => self.connect(),
            Effect::Lost(why) => self.lose(&why),
            Effect::Disconnect => {
                if let Some(mut transport) = self.transport.take() {
                    // With TLS the end is said, so that it is not taken for a broken connection.
                    let _ = transport.shutdown_write();
                }
                self.readable = false;
            }
            Effect::StartClock(number) => drop(self.clocks.insert(number, Instant::now())),
            Effect::StopClock(number) => {
                if let Some(began) = self.clocks.remove(&number) {
                    let us = began.elapsed().as_micros() as u64;
                    self.brain.handle_clock(number, us, self.now_ms());
                }
            }
            Effect::Leave(code) => self.leave(code),
        }
    }

    fn paint(&self) {
        if let (Some(canvas), Some(out)) = (&self.canvas, &self.out) {
            canvas.paint(out);
        }
    }

    fn show(&mut self, shown: &Shown, after: Option<super::brain::After>) {
        if let (Some(canvas), Some(out)) = (&mut self.canvas, &self.out) {
            return canvas.show(shown, out);
        }
        if self.screen.json && matches!(shown, Shown::Message { .. }) {
            self.screen.time = Some(clock::wall_clock());
        }
        let rendered = self.screen.render(shown);
        match rendered.and_then(|(place, bytes)| Some((self.outlet(place)?, bytes))) {
            Some((outlet, bytes)) => outlet.text(bytes, after),
            None => after.into_iter().for_each(|after| self.brain.handle_after(after)),
        }
        if matches!(shown, Shown::Welcome { .. })
            && let Some(detail) = self.detail.take()
        {
            self.show(&Shown::Notice(detail), None);
        }
    }

    fn outlet(&self, place: Where) -> Option<&Outlet> {
        let err = self.err.as_ref().filter(|_| place == Where::Err);
        err.or(self.out.as_ref())
    }

    fn ask(&mut self) {
        match &mut self.source {
            Source::Asked(go) => {
                // The thread ends by itself only after it has said why.
                self.asked = go.send(()).is_ok();
            }
            Source::Given(orders) => {
                let orders = std::mem::take(orders);
                self.source = Source::Ended;
                let now_ms = self.now_ms();
                for order in orders {
                    self.brain.handle_order(Ok(order), now_ms);
                }
                self.brain.handle_orders_end();
            }
            Source::Ended => {}
        }
    }

    fn open(&mut self, tag: Tag, opening: Opening) {
        let (bars, post) = (self.bars.clone(), self.post.clone());
        let mover = Mover::start(tag, opening, bars, post, self.channels.as_ref());
        self.movers.insert(tag, mover);
    }

    /// What is needed to meet other clients; without it their files go through the server, as
    /// they are.
    fn open_channels(&mut self) {
        if !manner::passes_files(self.plan, self.style) {
            return;
        }
        match channel::open(self.plan.udp_port, &self.post) {
            Ok((started, random)) => {
                let Started { channels, contact, notes } = started;
                self.channels = Some(channels);
                self.brain.set_contact(contact, random);
                notes.into_iter().for_each(|note| self.show(&Shown::Notice(note), None));
            }
            Err(error) => {
                let text = format!("files between users cannot be sealed: {error}");
                self.show(&Shown::Notice(text), None);
            }
        }
    }

    fn connect(&self) {
        secure::start_connecting(self.plan.wish(), self.post.clone());
    }

    fn ask_password(&mut self, user: Name, why: Option<String>) {
        if let Some(why) = &self.unsafe_because {
            return self.brain.handle_unsafe(why);
        }
        // Put back on the way out, should that come before the answer.
        self.asked_terminal = TerminalState::save_controlling();
        let post = self.post.clone();
        let failed = post.clone();
        let why = why.map_or(String::new(), |why| format!("{why}\n"));
        let spawned = thread::Builder::new().name("password".into()).spawn(move || {
            let typed = ask::password(&format!("{why}Password for {user}: "));
            post.send(News::Password(typed.ok().map(|it| Secret::from(it.as_str()).into_owned())))
        });
        if let Err(error) = spawned {
            self.brain.handle_mistake(&format!("no thread can be had to ask: {error}"));
            failed.send(News::Password(None));
        }
    }

    /// Without a thread for it, nothing can be typed: the command has no use.
    fn start_input(&mut self) {
        match input::start_blocks(self.post.clone()) {
            Ok(go) => self.input = Some(go),
            Err(why) => {
                self.brain.handle_mistake(&why);
                let now_ms = self.now_ms();
                self.brain.handle_order(Ok(Order::Quit), now_ms);
            }
        }
    }

    fn fail_output(&mut self, error: &io::Error) {
        let text = format!("cannot write to standard output: {error}");
        let Some(leaving) = &mut self.leaving else {
            self.brain.handle_mistake(&text);
            let now_ms = self.now_ms();
            return self.brain.handle_order(Ok(Order::Quit), now_ms);
        };
        // The brain has finished, and so have its outputs.
        leaving.code = super::fail(self.plan, "failed", &text, exit::FAILED);
    }

    fn leave(&mut self, code: u8) {
        if self.leaving.is_some() {
            return;
        }
        self.leaving =
            Some(Leaving { code, until: Instant::now() + GOODBYE_TIMEOUT, at_once: false });
        self.source = Source::Ended;
        // A thread that is dropped may have a bar to paint still.
        self.bars.close();
        (self.out, self.err) = (None, None);
    }
}

/// Where orders come from, and the outputs.
struct Begun {
    source: Source,
    out: Option<Outlet>,
    err: Option<Outlet>,
}

/// Starts the threads that read and print.
fn begin(
    plan: &Plan,
    style: Style,
    bars: &Bars,
    names: &Names,
    post: &Post,
) -> Result<Begun, String> {
    let outlet = |mouth, tame| Outlet::start(mouth, tame, post.clone()).map(Some);
    let tame = |stream| manner::tames(plan, stream).then(Tame::default);
    let both = || {
        let out = outlet(Mouth::Stdout, tame(Standard::Stdout))?;
        let err = outlet(Mouth::Stderr(bars.clone()), tame(Standard::Stderr))?;
        Ok::<_, String>((out, err))
    };
    let (source, (out, err)) = match (style, &plan.orders) {
        (Style::Prompt, _) => {
            let prompt = prompt::start(plan.user, names.clone(), post.clone())?;
            (Source::Asked(prompt.go), (outlet(Mouth::Prompt(prompt.printer), None)?, None))
        }
        (Style::Watch, _) => (Source::Ended, both()?),
        (_, Some(orders)) => (Source::Given(orders.clone()), both()?),
        (_, None) => (Source::Asked(input::start_lines(post.clone())?), both()?),
    };
    Ok(Begun { source, out, err })
}

/// Looks at what is to be sent, in a thread of its own.
fn start_weighing(number: u64, paths: Vec<Local>, post: Post) {
    let failed = post.clone();
    let look = move || post.send(News::Weighed(number, weigh(&paths)));
    if let Err(error) = thread::Builder::new().name("weigh".into()).spawn(look) {
        let text = format!("no thread can be had to look at the files: {error}");
        let fault = Fault::new(ErrorCode::SystemError, text);
        failed.send(News::Weighed(number, Err(fault)));
    }
}

/// Any number: each state of the standard library's maps has keys from the system's random
/// source.
pub fn random() -> u64 {
    RandomState::new().hash_one(0)
}
