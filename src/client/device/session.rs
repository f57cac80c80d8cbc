//! The device's loop: moves bytes between the socket and the front, and does what the front asks
//! for. Typing, printing, files, commands and connecting have threads of their own.

use std::{
    collections::HashMap,
    io,
    sync::mpsc,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, Waker};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

use super::{
    Effect, Front, Happening, Job,
    carriers::Carriage,
    files::{self, Coming},
    measure::Meter,
};
use crate::{
    client::{
        arguments::Plan,
        blocks::Chunk,
        brain::After,
        channel::{self, Channels, Started},
        core::exit,
        input,
        mover::Mover,
        outlet::{Mouth, Outlet},
        password,
        post::{News, Post},
        progress::Bars,
        secure::{self, Connected, left_ms},
        session::{random, send_next, standpoint_of},
    },
    limits::DIRECT_PORT_MIN,
    sys::{
        pulse::PulseWatch,
        terminal::{self, HiddenInput, StdoutError},
        transport::Transport,
        udp::interface_addresses,
    },
    wire::{Tag, escape::escape},
};

const SOCKET: Token = Token(0);
const SIGNALS: Token = Token(1);
const NEWS: Token = Token(2);

/// Time that the goodbye has to reach the server.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// The loop of a device.
pub struct Session<'a, F> {
    plan: &'a Plan,
    front: F,
    poll: Poll,
    post: Post,
    news: mpsc::Receiver<News>,
    signals: Signals,
    transport: Option<Transport>,
    pulse: PulseWatch,
    readable: bool,
    read_closed: bool,
    /// What was read and is not yet a whole frame.
    unread: Vec<u8>,
    buffer: Box<[u8]>,
    /// `None` once they only write what they have.
    out: Option<Outlet>,
    err: Option<Outlet>,
    outlets_open: usize,
    /// Asks the reader of standard input for a line.
    lines: Option<mpsc::Sender<()>>,
    /// Asks the reader of a file for a block.
    blocks: Option<mpsc::Sender<()>>,
    /// The writers of files that come from other devices.
    coming: HashMap<Tag, mpsc::Sender<Coming>>,
    /// The threads of files that go or come by other ways.
    movers: HashMap<Tag, Mover>,
    channels: Option<Channels>,
    meter: Option<Meter>,
    /// While a secret is typed.
    hidden: Option<HiddenInput>,
    leaving: Option<(u8, Instant)>,
    began: Instant,
}

impl<'a, F: Front> Session<'a, F> {
    /// A loop that has not begun. `meter`: where measurements come from, if it is a device that
    /// measures.
    ///
    /// # Errors
    /// The system does not give what it needs: a sentence.
    pub fn new(plan: &'a Plan, front: F, meter: Option<Meter>) -> Result<Session<'a, F>, String> {
        let system = |error: io::Error| format!("cannot set up the event loop: {error}");
        let poll = Poll::new().map_err(system)?;
        let waker = Waker::new(poll.registry(), NEWS).map_err(system)?;
        let (post, news) = Post::new(waker);
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(system)?;
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE).map_err(system)?;
        let outlet = |mouth| Outlet::start(mouth, None, post.clone()).map(Some);
        Ok(Session {
            plan,
            front,
            poll,
            news,
            signals,
            transport: None,
            pulse: PulseWatch::default(),
            readable: false,
            read_closed: false,
            unread: Vec::new(),
            buffer: vec![0; 64 * 1024].into_boxed_slice(),
            out: outlet(Mouth::Stdout)?,
            err: outlet(Mouth::Stderr(Bars::new(false)))?,
            outlets_open: 2,
            lines: None,
            blocks: None,
            coming: HashMap::new(),
            movers: HashMap::new(),
            channels: None,
            meter,
            hidden: None,
            leaving: None,
            began: Instant::now(),
            post,
        })
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// The event loop itself failed.
    pub fn run(mut self) -> io::Result<u8> {
        let mut events = Events::with_capacity(16);
        self.tell(Happening::Start);
        loop {
            self.turn();
            if let Some(code) = self.exit_code() {
                return Ok(code);
            }
            let timeout = self.timeout();
            match self.poll.poll(&mut events, timeout) {
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

    fn turn(&mut self) {
        let news: Vec<_> = self.news.try_iter().collect();
        news.into_iter().for_each(|news| self.handle_news(news));
        self.read();
        let now_ms = self.now_ms();
        self.front.talk().handle_timeout(now_ms, random());
        self.tell(Happening::Time);
        self.take_pulse();
        self.write();
    }

    /// What files by other ways need.
    fn carry(&mut self) {
        self.front.talk().pump_carriers();
        while let Some(carriage) = self.front.talk().carriers.poll() {
            match carriage {
                Carriage::Open(tag, opening) => {
                    let (bars, post) = (Bars::new(false), self.post.clone());
                    let mover = Mover::start(tag, opening, bars, post, self.channels.as_ref());
                    self.movers.insert(tag, mover);
                }
                Carriage::Drop(tag) => drop(self.movers.remove(&tag)),
                Carriage::Bytes(tag, bytes) => {
                    let mover = self.movers.get(&tag);
                    let _ = mover.map(|mover| mover.chunk(Chunk::Own(bytes)));
                }
                Carriage::Taken(tag, count) => {
                    self.movers.get(&tag).into_iter().for_each(|it| it.taken(count));
                }
                Carriage::PeerEnded(tag) => {
                    self.movers.get(&tag).into_iter().for_each(Mover::peer_ended);
                }
            }
        }
    }

    /// What a device needs to meet other clients. Without it files go through the server.
    pub fn open_channels(&mut self, udp_port: u16) {
        let is_wanted = udp_port >= DIRECT_PORT_MIN && self.plan.udp_port.is_some();
        let udp_port = is_wanted.then_some(udp_port);
        match channel::open(udp_port, &self.post) {
            Ok((Started { channels, contact, notes }, random)) => {
                self.channels = Some(channels);
                self.front.talk().carriers.meet.set_contact(contact, random);
                // The dialog has no words for it, and files go on by the other way.
                notes.iter().for_each(|note| log::warn!("{note}"));
            }
            Err(error) => log::warn!("files between devices cannot be sealed: {error}"),
        }
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn timeout(&mut self) -> Option<Duration> {
        if self.readable {
            return Some(Duration::ZERO);
        }
        let now_ms = self.now_ms();
        let due =
            self.front.talk().poll_timeout_ms().into_iter().chain(self.front.poll_timeout_ms());
        let due = due.chain(self.pulse.due_ms().filter(|_| self.transport.is_some()));
        // Rounded up, or the loop would turn idly through the last millisecond.
        let due = due.map(|at| Duration::from_millis(at.saturating_sub(now_ms) + 1));
        let leaving = self.leaving.filter(|_| self.transport.is_some());
        let goodbye = leaving.map(|(_, until)| {
            until.saturating_duration_since(Instant::now()) + Duration::from_millis(1)
        });
        due.chain(goodbye).min()
    }

    /// The code, once all is written and the server has heard our goodbye.
    fn exit_code(&self) -> Option<u8> {
        let (code, until) = self.leaving?;
        let heard = self.transport.is_none() || Instant::now() >= until;
        (heard && self.outlets_open == 0).then_some(code)
    }

    /// Tells the front, and does what it wants.
    fn tell(&mut self, happening: Happening) {
        let now_ms = self.now_ms();
        self.front.handle(happening, now_ms, random());
        while let Some(effect) = self.front.poll_effect() {
            self.perform(effect);
        }
    }

    fn handle_signals(&mut self) {
        let numbers: Vec<_> = self.signals.pending().collect();
        for number in numbers {
            match &mut self.leaving {
                // Somebody does not want to wait for the outputs.
                Some((code, until)) => {
                    (*code, *until) = (exit::of_signal(number), Instant::now());
                    self.outlets_open = 0;
                }
                None => self.tell(Happening::Interrupt(number)),
            }
        }
    }

    fn handle_news(&mut self, news: News) {
        match news {
            News::Line(line) => {
                let shown = self.hidden.is_none() && terminal::shows_input();
                self.tell(Happening::Line { line, shown });
            }
            News::LinesEnd(why) => self.tell(Happening::LinesEnd(why)),
            News::Device(news) => self.tell(Happening::Job(news)),
            News::Connected(connected) => self.handle_connected(connected),
            // Not the server that it was, or not one to give a password to: no time heals that.
            News::Unreachable(failure) if failure.exit == exit::REFUSED => {
                self.front.talk().handle_unsafe(&failure.text);
                self.tell(Happening::Time);
            }
            News::Unreachable(failure) => {
                self.unreachable(&failure.text);
                self.tell(Happening::Time);
            }
            News::OutputFailed(StdoutError::Closed) => self.leave(exit::DONE),
            News::OutputFailed(StdoutError::Failed(error)) => {
                let text = format!("error: cannot write to standard output: {error}\n");
                self.perform(Effect::Complain(text));
                self.leave(exit::FAILED);
            }
            News::Said(tag, segments) => self.front.talk().carriers.say(tag, segments),
            News::Reports(tag, reports) => self.front.talk().carriers.note(tag, reports),
            News::Moved(tag, outcome) => self.front.talk().carriers.over(tag, outcome),
            News::After(After::Consumed(tag, bytes)) => self.front.talk().taken(tag, bytes),
            News::OutputDone => self.outlets_open = self.outlets_open.saturating_sub(1),
            _ => {}
        }
    }

    fn unreachable(&mut self, why: &str) {
        let now_ms = self.now_ms();
        self.front.talk().handle_unreachable(why, now_ms, random());
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Print(text) => {
                self.out.iter().for_each(|out| out.text(text.clone().into_bytes(), None));
            }
            Effect::Complain(text) => {
                self.err.iter().for_each(|err| err.text(text.clone().into_bytes(), None));
            }
            Effect::Echo(true) => self.hidden = None,
            Effect::Echo(false) => self.hidden = HiddenInput::begin(),
            Effect::Read => {
                if self.lines.is_none() {
                    match input::start_lines(self.post.clone()) {
                        Ok(go) => self.lines = Some(go),
                        Err(why) => drop(self.post.send(News::LinesEnd(Some(why)))),
                    }
                }
                // The thread ends by itself only after it has said why.
                if let Some(go) = &self.lines {
                    let _ = go.send(());
                }
            }
            Effect::Connect => self.connect(),
            Effect::Disconnect => {
                self.write();
                self.transport = None;
                self.readable = false;
            }
            Effect::Do(job) => self.start(job),
            Effect::Leave(code) => self.leave(code),
        }
    }

    fn start(&mut self, job: Job) {
        let post = self.post.clone();
        match job {
            Job::Generate { path, amount } => files::generate(path, amount, random(), post),
            Job::Open { number, path, samples } => {
                self.blocks = Some(files::open(number, path, samples, post));
            }
            Job::Receive { tag, path, size } => {
                self.coming.insert(tag, files::receive(tag, path, size, post));
            }
            // A writer that has failed says so itself.
            Job::Take { tag, bytes } => {
                let _ = self.coming.get(&tag).map(|file| file.send(Coming::Bytes(bytes)));
            }
            Job::Keep { tag, hash } => {
                let _ = self.coming.remove(&tag).map(|file| file.send(Coming::End(hash)));
            }
            Job::Discard { tag } => drop(self.coming.remove(&tag)),
            Job::More => {
                // A reader that has come to its end has no more.
                let _ = self.blocks.as_ref().map(|go| go.send(()));
            }
            Job::Close => self.blocks = None,
            Job::Measure | Job::Delivered | Job::PutAside => {
                let meter = self.meter.as_ref().expect("only a device that measures asks for it");
                meter.start(job, random(), post);
            }
        }
    }

    fn leave(&mut self, code: u8) {
        if self.leaving.is_none() {
            self.leaving = Some((code, Instant::now() + GOODBYE_TIMEOUT));
            (self.out, self.err) = (None, None);
            self.meter.iter().for_each(Meter::stop);
        }
    }
}

/// The connection.
impl<F: Front> Session<'_, F> {
    fn connect(&self) {
        secure::start_connecting(self.plan.wish(), self.post.clone());
    }

    fn handle_connected(&mut self, Connected { transport, notices, until, detail }: Connected) {
        let detail = Some(detail).filter(|_| self.plan.verbose);
        for notice in notices.into_iter().chain(detail) {
            self.perform(Effect::Complain(format!("{}\n", escape(&notice))));
        }
        let now_ms = self.now_ms();
        match password::check_connection(self.plan, &transport) {
            Err(why) if self.front.talk().has_password() => self.front.talk().handle_unsafe(&why),
            _ => match self.adopt(transport) {
                Ok(()) => {
                    let is_exposed = self.transport.as_ref().is_some_and(password::is_exposed);
                    self.front.talk().ask_first(is_exposed);
                    self.front.talk().handle_connected(now_ms);
                    let link = self.front.talk().link();
                    link.into_iter().for_each(|link| link.expect_welcome_within(left_ms(until)));
                }
                Err(error) => self.unreachable(&error.to_string()),
            },
        }
        self.tell(Happening::Time);
    }

    fn adopt(&mut self, mut transport: Transport) -> io::Result<()> {
        let interfaces = interface_addresses().unwrap_or_default();
        let meet = &mut self.front.talk().carriers.meet;
        meet.set_standpoint(standpoint_of(&transport), interfaces);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut transport, SOCKET, interest)?;
        self.transport = Some(transport);
        self.pulse.begin();
        (self.readable, self.read_closed) = (true, false);
        self.unread.clear();
        Ok(())
    }

    /// A server that has vanished without a word is lost as soon as something waits for it.
    fn take_pulse(&mut self) {
        let (waits, now_ms) = (self.front.talk().waits(), self.now_ms());
        let Some(transport) = &self.transport else { return };
        if self.pulse.is_lost(transport.stream(), waits, now_ms) {
            self.lose("its host does not answer");
        }
    }

    fn read(&mut self) {
        while self.readable {
            let Some(transport) = &mut self.transport else {
                self.readable = false;
                return;
            };
            match transport.read(&mut self.buffer) {
                Ok(0) => return self.lose("the server closed it"),
                Ok(count) => {
                    let has_drained = transport.has_drained(count, self.buffer.len());
                    self.readable = !has_drained || self.read_closed;
                    self.unread.extend_from_slice(&self.buffer[..count]);
                    self.digest();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.lose(&error.to_string()),
            }
        }
    }

    fn digest(&mut self) {
        let mut unread = std::mem::take(&mut self.unread);
        let mut start = 0;
        let now_ms = self.now_ms();
        while start < unread.len() {
            match self.front.talk().handle_bytes(&unread[start..], now_ms, random()) {
                Ok(0) => break,
                Ok(count) => {
                    start += count;
                    self.tell(Happening::Time);
                }
                Err(refusal) => return self.lose(&refusal.text),
            }
        }
        unread.drain(..start);
        self.unread = unread;
    }

    fn write(&mut self) {
        self.carry();
        if let Some(transport) = &mut self.transport
            && transport.wants_write()
        {
            // What cannot be sent now is tried again when the socket is writable.
            let _ = transport.flush();
        }
        while let Some(transport) = &mut self.transport
            && let Some(link) = self.front.talk().link()
        {
            let Some(sent) = send_next(transport, link) else { return };
            match sent {
                Ok(count) => {
                    link.advance(count);
                    // There is room for more.
                    self.carry();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The reason for it may still be there to be read.
                Err(_) => {
                    self.readable = true;
                    return link.give_up();
                }
            }
        }
    }

    fn lose(&mut self, why: &str) {
        self.readable = false;
        self.transport = None;
        let now_ms = self.now_ms();
        self.front.talk().handle_lost(why, now_ms, random());
        self.tell(Happening::Time);
    }
}
