//! A device without a person: it measures by a command, every so often, and uploads what that
//! gives. What cannot be uploaded waits in the spool, and is uploaded once each.
//!
//! ```text
//!   every 10 s: command ─▶ spool ─▶ upload ─▶ gone from the spool
//!                            ▲         │ lost, or the server is busy: again, with the same id
//!                            └─────────┘
//! ```

use std::collections::VecDeque;

use super::{
    Effect, Front, Happening, Job, JobNews, OpenError,
    spool::Holding,
    talk::{News, Talk, Who},
    unreachable_text,
    upload::{Step, Target, Upload},
};
use crate::{
    client::core::{backoff::Backoff, exit},
    wire::{ErrorCode, Refusal, escape::escape},
};

/// How the runner was started.
#[derive(Clone)]
pub struct Setup {
    /// Who the device is.
    pub who: Who,
    /// From one measurement to the next, in milliseconds.
    pub every_ms: u64,
    /// Measure so often, upload it, and leave; else for ever.
    pub times: Option<u64>,
    /// Print nothing but complaints.
    pub quiet: bool,
    /// Print objects.
    pub json: bool,
}

/// See the head of this file.
pub struct Runner {
    setup: Setup,
    talk: Talk,
    /// When the command is due next.
    due_ms: u64,
    measuring: bool,
    measured: u64,
    holding: Holding,
    upload: Option<Upload>,
    /// A job changes the spool: nothing is uploaded meanwhile.
    spooling: bool,
    /// The server could not take the batch; it is tried again then.
    pause_ms: Option<u64>,
    backoff: Backoff,
    /// Whether it was said already that there is no server.
    said_away: bool,
    /// Something has failed for good.
    failed: bool,
    leaving: bool,
    count: u64,
    effects: VecDeque<Effect>,
}

impl Runner {
    /// A runner that has not begun; `holding` waits in the spool from earlier.
    pub fn new(setup: Setup, holding: Holding) -> Runner {
        Runner {
            setup,
            talk: Talk::default(),
            due_ms: 0,
            measuring: false,
            measured: 0,
            holding,
            upload: None,
            spooling: false,
            pause_ms: None,
            backoff: Backoff::default(),
            said_away: false,
            failed: false,
            leaving: false,
            count: 0,
            effects: VecDeque::new(),
        }
    }

    fn say(&mut self, text: String) {
        if !self.setup.quiet {
            self.effects.push_back(Effect::Print(text));
        }
    }

    fn complain(&mut self, text: &str) {
        self.effects.push_back(Effect::Complain(format!("{}\n", escape(text))));
    }

    fn leave(&mut self, code: u8) {
        if !std::mem::replace(&mut self.leaving, true) {
            self.talk.leave();
            self.effects.push_back(Effect::Leave(code));
        }
    }

    /// What is due is begun.
    fn go_on(&mut self, now_ms: u64) {
        if self.leaving {
            return;
        }
        let wants_more = self.setup.times.is_none_or(|times| self.measured < times);
        if wants_more && !self.measuring && now_ms >= self.due_ms {
            self.measuring = true;
            self.measured += 1;
            // What was missed is not made up for.
            let missed = (now_ms - self.due_ms) / self.setup.every_ms;
            let step_ms = self.setup.every_ms.saturating_mul(missed + 1);
            self.due_ms = self.due_ms.saturating_add(step_ms);
            self.effects.push_back(Effect::Do(Job::Measure));
        }
        if self.pause_ms.is_some_and(|until| until <= now_ms) {
            self.pause_ms = None;
        }
        let may_upload = self.talk.is_ready() && self.pause_ms.is_none() && !self.spooling;
        if let Some(batch) = self.holding.first.clone().filter(|_| may_upload)
            && self.upload.is_none()
        {
            self.count += 1;
            let target = Target::Server { file_id: batch.file_id, request: batch.request };
            let upload = Upload::new(target, batch.path);
            let job = self.upload.insert(upload).begin(self.count);
            self.effects.push_back(Effect::Do(job));
        }
        if !wants_more && !self.measuring && self.holding.count == 0 {
            self.leave(if self.failed { exit::FAILED } else { exit::DONE });
        }
    }

    fn handle_job(&mut self, news: JobNews) {
        match news {
            JobNews::Measured(measured) => {
                self.measuring = false;
                match measured {
                    Ok(holding) => self.take_holding(holding),
                    Err(why) => {
                        self.failed = true;
                        self.complain(&why);
                    }
                }
            }
            JobNews::Spool(changed) => {
                self.spooling = false;
                match changed {
                    Ok(holding) => self.take_holding(holding),
                    Err(why) => {
                        self.complain(&why);
                        self.leave(exit::FAILED);
                    }
                }
            }
            news => {
                let Some(upload) = &mut self.upload else { return };
                match upload.handle(news, &mut self.talk) {
                    Step::Nothing => {}
                    Step::Do(job) => self.effects.push_back(Effect::Do(job)),
                    Step::Bad(OpenError::Missing) => {
                        self.complain("a batch is gone from the spool");
                        self.end_upload(Job::Delivered);
                    }
                    Step::Bad(OpenError::Bad(why)) => {
                        self.complain(&why);
                        self.end_upload(Job::PutAside);
                    }
                    Step::Broken(why) => self.complain(&why),
                }
            }
        }
    }

    /// The first of what waits stays the first, as long as it is being uploaded.
    fn take_holding(&mut self, holding: Holding) {
        self.holding = holding;
    }

    fn end_upload(&mut self, job: Job) {
        if let Some(mut upload) = self.upload.take() {
            self.effects.push_back(Effect::Do(upload.stop()));
        }
        self.spooling = true;
        self.effects.push_back(Effect::Do(job));
    }

    fn settle(&mut self, now_ms: u64, random: u64) {
        while let Some(news) = self.talk.poll_news() {
            self.handle_news(news, now_ms, random);
        }
    }

    fn handle_news(&mut self, news: News, now_ms: u64, random: u64) {
        match news {
            News::Reachable => {}
            News::Connect => self.effects.push_back(Effect::Connect),
            News::Disconnect => self.effects.push_back(Effect::Disconnect),
            News::Ready { .. } => {
                if std::mem::take(&mut self.said_away) {
                    self.complain("connected again");
                }
            }
            News::Refused(refusal) => {
                let hint = match refusal.code {
                    ErrorCode::LoginRequired => {
                        "; give the password with --password-file FILE or in SIXFOUR_PASSWORD"
                    }
                    _ => "",
                };
                self.complain(&format!("{}{hint}", refusal.text));
                self.leave(exit::of_error(refusal.code));
            }
            News::Unreachable(why) | News::Away(why) => self.say_away(&unreachable_text(&why)),
            News::Lost(why) => {
                self.say_away(&format!("connection lost: {why}"));
                if let Some(mut upload) = self.upload.take() {
                    self.effects.push_back(Effect::Do(upload.stop()));
                }
            }
            News::Answer(answer) => match self.setup.json {
                true => {
                    let mut object = answer.to_object();
                    object.insert("event".to_owned(), "edge".into());
                    let object = serde_json::Value::Object(object).to_string();
                    self.say(format!("{}\n", crate::wire::escape::escape_json(&object)));
                }
                false => self.say(super::lines_of(&answer.text())),
            },
            News::Ended(ended) => self.handle_ended(ended, now_ms, random),
            News::MoreInput => {
                let Some(upload) = &mut self.upload else { return };
                if let Step::Do(job) = upload.go_on(&mut self.talk) {
                    self.effects.push_back(Effect::Do(job));
                }
            }
            News::Offer(offer, _) => {
                self.talk.turn_down(offer, "this device takes no files");
            }
            // Nobody is here to read it, and nothing else was asked for.
            News::Message { .. } | News::Accepted => {}
            News::Coming(..) | News::Piece(..) | News::Complete(..) | News::Broken(..) => {}
            News::Arrived(..) => {}
        }
    }

    fn say_away(&mut self, what: &str) {
        if !std::mem::replace(&mut self.said_away, true) {
            let text = format!("{what}; measuring goes on, and what it gives is kept");
            self.complain(&text);
        }
    }

    fn handle_ended(&mut self, ended: Result<(), Refusal>, now_ms: u64, random: u64) {
        let Err(refusal) = ended else {
            self.backoff = Backoff::default();
            return self.end_upload(Job::Delivered);
        };
        self.complain(&refusal.text);
        if is_lasting(refusal.code) {
            self.failed = true;
            return self.end_upload(Job::PutAside);
        }
        if refusal.code == ErrorCode::Denied {
            return self.leave(exit::REFUSED);
        }
        if let Some(mut upload) = self.upload.take() {
            self.effects.push_back(Effect::Do(upload.stop()));
        }
        self.pause_ms = Some(now_ms + 1000 + self.backoff.next_ms(random));
    }
}

/// Whether the same batch would be refused again for ever.
fn is_lasting(code: ErrorCode) -> bool {
    use ErrorCode::{BadArguments, BadSamples, IdInUse, TextTooLong};
    matches!(code, BadArguments | BadSamples | IdInUse | TextTooLong)
}

impl Front for Runner {
    fn talk(&mut self) -> &mut Talk {
        &mut self.talk
    }

    fn handle(&mut self, happening: Happening, now_ms: u64, random: u64) {
        match happening {
            Happening::Start => {
                self.due_ms = now_ms;
                self.talk.be_patient();
                self.talk.log_in(self.setup.who.clone());
                if self.holding.count > 0 {
                    let text = format!("{} batches wait from earlier\n", self.holding.count);
                    self.effects.push_back(Effect::Complain(text));
                }
            }
            Happening::Job(news) => self.handle_job(news),
            Happening::Line { .. } | Happening::LinesEnd(_) | Happening::Time => {}
            Happening::Interrupt(number) => self.leave(exit::of_signal(number)),
        }
        self.settle(now_ms, random);
        self.go_on(now_ms);
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn poll_timeout_ms(&self) -> Option<u64> {
        if self.leaving {
            return None;
        }
        let wants_more = self.setup.times.is_none_or(|times| self.measured < times);
        let due = (wants_more && !self.measuring).then_some(self.due_ms);
        due.into_iter().chain(self.pause_ms).min()
    }
}
