//! Questions about the host: facts from workers, and rates from two looks with a timer between.
//!
//! ```text
//!   text:      start --> worker --> answer
//!   cpu, info: start --> first look --> until due --> second look, facts --> disks? --> answer
//! ```
//!
//! Nothing of it happens on the loop: `/proc` takes a while on large machines, and a dead network
//! file system never answers. So the survey of the disks has a time limit of its own, and only
//! one is under way at a time: at worst it holds one of the workers for ever.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::Arc,
    time::Instant,
};

use super::answers;
use crate::{
    hub::{Counts, OperationId, SessionId},
    limits::INFO_INTERVAL_MS,
    sys::{
        clock,
        host::{self, addresses::Address, disks::Survey, processor::Sample},
        workers::{Behalf, NotTaken, Workers},
    },
    wire::{ErrorCode, Outcome, Refusal, event::Object, host::Question, info::Info},
};

/// Threads: one for the survey of the disks, and one for everything else.
const WORKERS: usize = 2;
/// Time that file systems have to answer beyond the interval, in milliseconds.
const DISKS_MS: u64 = 2000;

/// All questions that are not answered yet.
pub struct Questions {
    workers: Workers<Done>,
    asked: HashMap<OperationId, Asked>,
    /// The look at the file systems that is under way.
    survey: Option<Survey>,
}

/// What a worker has found out.
pub enum Done {
    /// The text that answers the question, or why there is none.
    Text(OperationId, io::Result<Vec<String>>),
    /// What the processors have done so far.
    Sampled(OperationId, io::Result<Look>),
    /// The same and all facts of the host.
    Gathered(OperationId, Box<io::Result<Facts>>),
    /// The file systems have answered.
    Surveyed,
}

/// A look at the processors, and when that was.
#[derive(Clone, Copy)]
pub struct Look {
    /// What they have done so far.
    pub sample: Sample,
    /// When it was taken.
    pub at: Instant,
}

/// What a worker finds out for `info`, but for the file systems.
pub struct Facts {
    /// The second look.
    pub look: Look,
    /// See [`host::system`].
    pub system: host::System,
    /// See [`host::memory`].
    pub memory: host::Memory,
    /// See [`host::uptime_seconds`].
    pub uptime_seconds: u64,
    /// See [`host::load`].
    pub load: [f64; 3],
    /// See [`host::resident_bytes`].
    pub resident_bytes: u64,
    /// See [`host::addresses`].
    pub addresses: Vec<Address>,
}

/// What the server has to do at the moment.
#[derive(Clone, Copy, Debug)]
pub struct Busy {
    /// Milliseconds since it was started.
    pub now: u64,
    /// What the hub has.
    pub counts: Counts,
    /// Files under way.
    pub transfers: usize,
    /// Commands under way.
    pub commands: usize,
}

enum Asked {
    /// A worker looks for a text.
    Text,
    /// A worker takes the first look.
    Beginning(Measure),
    /// The first look was taken; the second is due.
    Waiting { measure: Measure, first: Look, due: u64 },
    /// A worker takes the second look.
    Ending { measure: Measure, first: Look },
    /// All is known but what the file systems say.
    Surveying { info: Box<Info>, survey: Survey, until: u64 },
    /// What is still to be said.
    Answer(VecDeque<Piece>),
    /// It failed.
    Failed(Refusal),
}

/// What is measured.
struct Measure {
    session: SessionId,
    interval_ms: u64,
    /// Messages that the hub had routed at that time, in milliseconds.
    messages: u64,
    since: u64,
    /// The survey, where it is not only about the processors.
    survey: Option<Survey>,
}

/// A piece of an answer.
pub enum Piece {
    /// Lines.
    Text(String),
    /// Facts.
    Object(Object),
}

/// What a question has to say.
pub enum Produced {
    /// This.
    Piece(Piece),
    /// Nothing for now.
    Nothing,
    /// It is over.
    Over(Outcome),
}

impl Questions {
    /// None so far.
    pub fn new(waker: Arc<mio::Waker>) -> Questions {
        let workers = Workers::new(WORKERS, 2048, waker);
        Questions { workers, asked: HashMap::new(), survey: None }
    }

    /// Takes up a question.
    pub fn start(
        &mut self,
        id: OperationId,
        session: SessionId,
        question: Question,
        busy: &Busy,
    ) -> Result<(), Refusal> {
        let find: fn() -> io::Result<Vec<String>> = match question {
            Question::Pong => {
                let text = format!("pong {}", clock::wall_clock_text());
                self.asked.insert(id, Asked::Answer([Piece::Text(text)].into()));
                return Ok(());
            }
            Question::Processor => {
                return self.start_measure(id, session, INFO_INTERVAL_MS, None, busy);
            }
            Question::Info { interval_ms } => {
                let survey = self.start_survey()?;
                return self.start_measure(id, session, interval_ms, Some(survey), busy);
            }
            Question::Addresses => answers::addresses,
            Question::Name => answers::name,
            Question::Memory => answers::memory,
            Question::System => answers::system,
        };
        let on_panic = Done::Text(id, Err(fault()));
        let job = move || Done::Text(id, find());
        self.workers.submit(session.into(), job, on_panic).map_err(full)?;
        self.asked.insert(id, Asked::Text);
        Ok(())
    }

    fn start_measure(
        &mut self,
        id: OperationId,
        session: SessionId,
        interval_ms: u32,
        survey: Option<Survey>,
        busy: &Busy,
    ) -> Result<(), Refusal> {
        self.submit_look(id, session)?;
        let (messages, since) = (busy.counts.messages, busy.now);
        let interval_ms = interval_ms.into();
        let measure = Measure { session, interval_ms, messages, since, survey };
        self.asked.insert(id, Asked::Beginning(measure));
        Ok(())
    }

    fn submit_look(&self, id: OperationId, session: SessionId) -> Result<(), Refusal> {
        let on_panic = Done::Sampled(id, Err(fault()));
        let job = move || Done::Sampled(id, Look::take());
        self.workers.submit(session.into(), job, on_panic).map_err(full)
    }

    /// Joins the survey that is under way, or starts one.
    fn start_survey(&mut self) -> Result<Survey, Refusal> {
        if let Some(survey) = &self.survey {
            return Ok(survey.clone());
        }
        let survey = Survey::default();
        let worker = survey.clone();
        let job = move || {
            worker.run();
            Done::Surveyed
        };
        self.workers.submit(Behalf::SERVER, job, Done::Surveyed).map_err(full)?;
        self.survey = Some(survey.clone());
        Ok(survey)
    }

    /// The next thing that a worker has found out.
    pub fn try_recv(&mut self) -> Option<Done> {
        self.workers.try_recv()
    }

    /// Takes it in; whoever may have something to say now.
    pub fn on_done(&mut self, done: Done, busy: &Busy) -> Vec<OperationId> {
        let (id, next) = match done {
            Done::Surveyed => {
                self.survey = None;
                return self.end_surveys(|survey, _| survey.is_finished());
            }
            Done::Text(id, found) => match self.asked.get(&id) {
                Some(Asked::Text) => (id, answer(found)),
                _ => return Vec::new(),
            },
            Done::Sampled(id, look) => match (self.asked.remove(&id), look) {
                (None, _) => return Vec::new(),
                (Some(Asked::Beginning(measure)), Ok(first)) => {
                    let due = busy.now + measure.interval_ms;
                    (id, Asked::Waiting { measure, first, due })
                }
                (Some(Asked::Ending { first, .. }), Ok(second)) => {
                    let text = answers::processor(&first, &second).to_string();
                    (id, Asked::Answer([Piece::Text(text)].into()))
                }
                (Some(_), Err(error)) => (id, failed(&error)),
                (Some(other), Ok(_)) => (id, other),
            },
            Done::Gathered(id, facts) => match (self.asked.remove(&id), *facts) {
                (Some(Asked::Ending { measure, first }), Ok(facts)) => {
                    (id, gathered(measure, &first, facts, busy))
                }
                (Some(_), Err(error)) => (id, failed(&error)),
                _ => return Vec::new(),
            },
        };
        self.asked.insert(id, next);
        vec![id]
    }

    /// Takes the second looks that are due, and waits no longer for file systems that do not
    /// answer; returns whoever may have something to say now.
    pub fn tick(&mut self, now: u64) -> Vec<OperationId> {
        if self.asked.is_empty() {
            return Vec::new();
        }
        let is_due = |asked: &Asked| matches!(asked, Asked::Waiting { due, .. } if *due <= now);
        let due: Vec<_> =
            self.asked.iter().filter(|(_, it)| is_due(it)).map(|(id, _)| *id).collect();
        let mut news = self.end_surveys(|survey, until| survey.is_finished() || until <= now);
        for id in due {
            let Some(Asked::Waiting { measure, first, .. }) = self.asked.remove(&id) else {
                continue;
            };
            let submitted = match measure.survey {
                None => self.submit_look(id, measure.session),
                Some(_) => {
                    let job = move || Done::Gathered(id, Box::new(Facts::gather()));
                    let on_panic = Done::Gathered(id, Box::new(Err(fault())));
                    let behalf = measure.session.into();
                    self.workers.submit(behalf, job, on_panic).map_err(full)
                }
            };
            let next = match submitted {
                Ok(()) => Asked::Ending { measure, first },
                Err(refusal) => Asked::Failed(refusal),
            };
            self.asked.insert(id, next);
            news.push(id);
        }
        news
    }

    fn end_surveys(&mut self, is_over: impl Fn(&Survey, u64) -> bool) -> Vec<OperationId> {
        let mut news = Vec::new();
        for (id, asked) in &mut self.asked {
            if let Asked::Surveying { info, survey, until } = asked
                && is_over(survey, *until)
            {
                let info = std::mem::take(&mut **info);
                *asked = with_disks(info, survey);
                news.push(*id);
            }
        }
        news
    }

    /// When [`Questions::tick`] is due.
    pub fn next_deadline(&self) -> Option<u64> {
        let due = |asked: &Asked| match asked {
            Asked::Waiting { due, .. } => Some(*due),
            Asked::Surveying { until, .. } => Some(*until),
            _ => None,
        };
        self.asked.values().filter_map(due).min()
    }

    /// Waits for nothing any more: the server stops, and a question is to be no reason to stay.
    pub fn hurry(&mut self, now: u64) {
        for asked in self.asked.values_mut() {
            match asked {
                Asked::Beginning(measure) => measure.interval_ms = 0,
                Asked::Waiting { due, .. } => *due = now,
                Asked::Surveying { until, .. } => *until = now,
                _ => {}
            }
        }
    }

    /// What the question has to say next; without room only its end.
    pub fn produce(&mut self, id: OperationId, room: usize) -> Produced {
        match self.asked.get_mut(&id) {
            Some(Asked::Answer(pieces)) if pieces.is_empty() => Produced::Over(Outcome::Done),
            Some(Asked::Answer(pieces)) if room > 0 => {
                pieces.pop_front().map_or(Produced::Nothing, Produced::Piece)
            }
            Some(Asked::Failed(refusal)) => Produced::Over(Outcome::Failed(refusal.clone())),
            _ => Produced::Nothing,
        }
    }

    /// Forgets a question.
    pub fn drop_question(&mut self, id: OperationId) {
        self.asked.remove(&id);
    }

    /// True where the operation is a question that is not answered.
    pub fn has(&self, id: OperationId) -> bool {
        self.asked.contains_key(&id)
    }
}

impl Look {
    fn take() -> io::Result<Look> {
        Ok(Look { sample: Sample::take()?, at: Instant::now() })
    }
}

impl Facts {
    fn gather() -> io::Result<Facts> {
        Ok(Facts {
            look: Look::take()?,
            system: host::system(),
            memory: host::memory()?,
            uptime_seconds: host::uptime_seconds()?,
            load: host::load()?,
            resident_bytes: host::resident_bytes()?,
            addresses: host::addresses::addresses()?,
        })
    }
}

fn gathered(measure: Measure, first: &Look, facts: Facts, busy: &Busy) -> Asked {
    let milliseconds = busy.now.saturating_sub(measure.since).max(1);
    let messages = busy.counts.messages - measure.messages;
    let per_second = messages as f64 * 1000.0 / milliseconds as f64;
    let info = answers::info(first, facts, busy, per_second);
    match measure.survey {
        Some(survey) if survey.is_finished() => with_disks(info, &survey),
        Some(survey) => {
            let until = busy.now + DISKS_MS;
            Asked::Surveying { info: Box::new(info), survey, until }
        }
        None => unreachable!("all facts are gathered only where the file systems are asked too"),
    }
}

fn with_disks(mut info: Info, survey: &Survey) -> Asked {
    info.disks = answers::disks(survey.known());
    Asked::Answer([Piece::Object(info.into_object())].into())
}

fn answer(found: io::Result<Vec<String>>) -> Asked {
    match found {
        Ok(texts) => Asked::Answer(texts.into_iter().map(Piece::Text).collect()),
        Err(error) => failed(&error),
    }
}

fn failed(error: &io::Error) -> Asked {
    let text = format!("the host does not tell: {error}");
    Asked::Failed(Refusal::new(0, ErrorCode::SystemError, text))
}

fn fault() -> io::Error {
    io::Error::other("a fault of ours")
}

fn full(why: NotTaken) -> Refusal {
    let text = format!("the host cannot be asked now: {why}; try again");
    Refusal::new(0, ErrorCode::Busy, text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll, Token, Waker};

    use super::*;
    use crate::limits::INFO_INTERVAL_MIN_MS;

    struct Desk {
        questions: Questions,
        poll: Poll,
    }

    impl Desk {
        fn new() -> Desk {
            let poll = Poll::new().expect("a poll");
            let waker = Arc::new(Waker::new(poll.registry(), Token(0)).expect("a waker"));
            Desk { questions: Questions::new(waker), poll }
        }

        fn start(&mut self, serial: u64, question: Question, now: u64) -> OperationId {
            let id = OperationId::new(serial as usize, serial);
            self.questions
                .start(id, SessionId::new(0, 1), question, &busy(now))
                .expect("it is taken up");
            id
        }

        /// Waits for one more result of a worker, and takes it in.
        fn await_done(&mut self, now: u64) -> Vec<OperationId> {
            let mut events = Events::with_capacity(1);
            loop {
                if let Some(done) = self.questions.try_recv() {
                    return self.questions.on_done(done, &busy(now));
                }
                self.poll.poll(&mut events, Some(Duration::from_secs(10))).expect("it polls");
                assert!(!events.is_empty(), "no worker has found anything");
            }
        }

        /// The object that answers, whole.
        fn object(&mut self, id: OperationId) -> Info {
            assert!(matches!(self.questions.produce(id, 0), Produced::Nothing), "without room");
            let Produced::Piece(Piece::Object(object)) = self.questions.produce(id, 1) else {
                panic!("no object")
            };
            let end = self.questions.produce(id, 0);
            assert!(matches!(end, Produced::Over(Outcome::Done)), "the end needs no room");
            Info::of(&object).expect("facts")
        }
    }

    fn busy(now: u64) -> Busy {
        let counts = Counts { sessions: 7, users: 6, operations: 5, messages: now };
        Busy { now, counts, transfers: 4, commands: 3 }
    }

    /// The survey that is joined is one that never ends: a file system does not answer.
    #[test]
    fn file_systems_that_do_not_answer_are_not_waited_for_beyond_their_time() {
        let mut desk = Desk::new();
        desk.questions.survey = Some(Survey::default());
        let id = desk.start(1, Question::Info { interval_ms: INFO_INTERVAL_MIN_MS }, 1000);
        assert_eq!(desk.await_done(1010), [id]);
        assert_eq!(desk.questions.next_deadline(), Some(1110));
        assert_eq!(desk.questions.tick(1109), []);
        assert_eq!(desk.questions.tick(1110), [id]);
        assert_eq!(desk.await_done(1120), [id]);
        assert_eq!(desk.questions.next_deadline(), Some(1120 + DISKS_MS));
        assert!(matches!(desk.questions.produce(id, 1), Produced::Nothing));
        // Meanwhile others are answered.
        let name = desk.start(2, Question::Name, 1130);
        assert_eq!(desk.await_done(1140), [name]);
        assert!(matches!(desk.questions.produce(name, 1), Produced::Piece(Piece::Text(_))));
        assert_eq!(desk.questions.tick(1119 + DISKS_MS), []);
        assert_eq!(desk.questions.tick(1120 + DISKS_MS), [id]);
        let info = desk.object(id);
        assert_eq!((info.disks.len(), info.server.users), (0, 6));
        // 120 messages in 120 ms, by the counts above.
        assert!((info.server.messages_per_second - 1000.0).abs() < 1e-6);
    }

    #[test]
    fn questions_at_once_share_a_survey_and_have_looks_of_their_own() {
        let mut desk = Desk::new();
        let info = |interval_ms| Question::Info { interval_ms };
        let (one, other) = (desk.start(1, info(100), 0), desk.start(2, info(200), 0));
        assert!(desk.questions.survey.is_some());
        let mut done = 0;
        while done < 3 {
            desk.await_done(10);
            done += 1;
        }
        assert!(desk.questions.survey.is_none(), "it is over");
        assert_eq!(desk.questions.next_deadline(), Some(110));
        assert_eq!(desk.questions.tick(110), [one]);
        assert_eq!(desk.await_done(120), [one]);
        assert!(desk.object(one).memory.total_bytes > 0);
        assert_eq!(desk.questions.tick(210), [other]);
        assert_eq!(desk.await_done(220), [other]);
        assert!(!desk.object(other).addresses.is_empty());
    }

    #[test]
    fn what_is_dropped_or_hurried_does_not_wait() {
        let mut desk = Desk::new();
        let info = Question::Info { interval_ms: 60_000 };
        let (gone, kept) = (desk.start(1, info, 0), desk.start(2, Question::Processor, 0));
        desk.questions.drop_question(gone);
        assert!(!desk.questions.has(gone) && desk.questions.has(kept));
        desk.questions.hurry(5);
        while desk.questions.next_deadline().is_none() {
            desk.await_done(5);
        }
        assert_eq!(desk.questions.tick(5), [kept]);
        while !desk.await_done(6).contains(&kept) {}
        assert!(matches!(desk.questions.produce(kept, 1), Produced::Piece(Piece::Text(_))));
        assert_eq!(desk.questions.next_deadline(), None);
    }
}
