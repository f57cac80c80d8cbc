//! The dialog with a person, or with a script that stands for one.
//!
//! ```text
//!   Username ─▶ Password ─▶ LoggingIn ─▶ Prompt ⇄ Working ─▶ Leaving
//!       ▲          ▲            │ refused
//!       └──────────┴────────────┘
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::OsString,
    path::PathBuf,
};

use super::{
    Effect, Front, Happening, Job, JobNews, OpenError,
    command::{self, Command, PROMPT},
    data_name, line_of, lines_of,
    talk::{News, Offered, Talk, Who},
    unreachable_text,
    upload::{Step, Target, Upload},
};
use crate::{
    client::core::exit,
    limits::DEVICE_FILE_MAX_BYTES,
    wire::{
        EdgeCall, ErrorCode, Name, Refusal, Secret, SharePath, Tag,
        edge::RequestId,
        escape::{escape, escape_bytes},
        name::NAME_RULE,
    },
};

/// What is said of a file that is not here.
pub const NO_SUCH_FILE: &str = "the file to be uploaded does not exist";

/// What the server says of a wrong password, and we of none.
const INVALID_PASSWORD: &str = "Invalid Password. Please try again";

/// What is said of a command that needs the server while there is none.
const AWAY: &str = "there is no connection to the server at the moment; try again when it is back";

/// See the head of this file.
pub struct Dialog {
    talk: Talk,
    state: State,
    udp_port: u16,
    /// Who we are, once we are in.
    user: Option<Name>,
    /// The beginning of all ids of our requests.
    random: u64,
    /// How many requests and jobs there were.
    count: u64,
    /// No more lines will come.
    ended: bool,
    /// Files that come from other devices.
    coming: BTreeMap<Tag, Offered>,
    effects: VecDeque<Effect>,
}

enum State {
    Username,
    Password(Name),
    LoggingIn(Name),
    Prompt,
    Working(Box<Work>),
    Leaving,
}

/// A command under way.
struct Work {
    command: Command,
    /// The same for every time that it is asked.
    request: RequestId,
    upload: Option<Upload>,
}

impl Dialog {
    /// A dialog that has not begun.
    pub fn new(udp_port: u16, random: u64) -> Dialog {
        Dialog {
            talk: Talk::default(),
            state: State::Username,
            udp_port,
            user: None,
            random,
            count: 0,
            ended: false,
            coming: BTreeMap::new(),
            effects: VecDeque::new(),
        }
    }

    fn print(&mut self, text: impl Into<String>) {
        self.effects.push_back(Effect::Print(text.into()));
    }

    fn ask_username(&mut self) {
        self.state = State::Username;
        self.print("Username: ");
        self.effects.push_back(Effect::Read);
    }

    fn ask_password(&mut self, user: Name) {
        self.state = State::Password(user);
        self.print("Password: ");
        self.effects.push_back(Effect::Echo(false));
        self.effects.push_back(Effect::Read);
    }

    fn prompt(&mut self) {
        if self.ended {
            return self.leave(exit::DONE);
        }
        self.state = State::Prompt;
        self.print(PROMPT);
        self.effects.push_back(Effect::Read);
    }

    fn leave(&mut self, code: u8) {
        if !matches!(self.state, State::Leaving) {
            self.state = State::Leaving;
            self.talk.leave();
            self.effects.push_back(Effect::Leave(code));
        }
    }

    fn handle_line(&mut self, line: String, shown: bool) {
        if !shown {
            self.print("\n");
        }
        match std::mem::replace(&mut self.state, State::Prompt) {
            State::Username => match Name::parse(&line) {
                Some(user) => self.ask_password(user),
                None => {
                    self.print(format!("{NAME_RULE}\n"));
                    self.ask_username();
                }
            },
            State::Password(user) => {
                self.effects.push_back(Effect::Echo(true));
                self.state = State::LoggingIn(user);
                let password = Some(line).filter(|line| !line.is_empty()).map(Secret::from);
                self.talk.log_in(Who { user, password, udp_port: self.udp_port });
            }
            State::Prompt => match command::parse(&line) {
                Ok(command) => self.begin(command),
                Err(wrong) => {
                    self.print(format!("{wrong}\n"));
                    self.prompt();
                }
            },
            other => self.state = other,
        }
    }

    fn handle_lines_end(&mut self, why: Option<String>) {
        self.ended = true;
        self.effects.push_back(Effect::Echo(true));
        if let Some(why) = why {
            self.print(format!("\n{}\n", escape(&why)));
        }
        match self.state {
            // Nobody will say who we are.
            State::Username | State::Password(_) => {
                self.print("\n");
                self.leave(exit::FAILED);
            }
            State::Prompt => {
                self.print("\n");
                self.leave(exit::DONE);
            }
            // The end comes with the next prompt.
            State::LoggingIn(_) | State::Working(_) | State::Leaving => {}
        }
    }

    fn begin(&mut self, command: Command) {
        let is_local = matches!(command, Command::Generate { .. });
        if !is_local && !self.talk.is_ready() {
            // There is nobody to take leave of.
            if command == Command::Leave {
                return self.leave(exit::DONE);
            }
            self.print(format!("{AWAY}\n"));
            return self.prompt();
        }
        self.count += 1;
        let request = format!("{:016x}-{}", self.random, self.count);
        let request = RequestId::parse(&request).expect("digits are good");
        self.state = State::Working(Box::new(Work { command, request, upload: None }));
        self.work();
    }

    /// Does what the command needs, from its beginning.
    fn work(&mut self) {
        self.count += 1;
        let State::Working(work) = &mut self.state else { return };
        let user = self.user.expect("commands are given by who is in");
        let request = Some(work.request.clone());
        let call = match &work.command {
            Command::Generate { file_id, amount } => {
                let path = data_name(&user, *file_id);
                let job = Job::Generate { path, amount: u64::from(*amount) };
                return self.effects.push_back(Effect::Do(job));
            }
            Command::Upload { file_id } => {
                let path = data_name(&user, *file_id);
                let target = Target::Server { file_id: *file_id, request: work.request.clone() };
                let upload = Upload::new(target, path);
                let job = work.upload.insert(upload).begin(self.count);
                return self.effects.push_back(Effect::Do(job));
            }
            Command::Compute { file_id, operation } => {
                EdgeCall::Compute { file_id: *file_id, operation: *operation }
            }
            Command::Delete { file_id } => EdgeCall::Delete { file_id: *file_id, request },
            Command::List => EdgeCall::List,
            Command::Leave => EdgeCall::Leave,
            Command::Send { device, file } => {
                let upload = Upload::new(Target::Device { to: *device }, PathBuf::from(file));
                let job = work.upload.insert(upload).begin(self.count);
                return self.effects.push_back(Effect::Do(job));
            }
        };
        self.talk.ask(&call);
    }

    /// What comes of the conversation.
    fn settle(&mut self) {
        while let Some(news) = self.talk.poll_news() {
            self.handle_news(news);
        }
    }

    fn handle_news(&mut self, news: News) {
        match news {
            News::Reachable => self.ask_username(),
            News::Connect => self.effects.push_back(Effect::Connect),
            News::Disconnect => self.effects.push_back(Effect::Disconnect),
            News::Ready { again: false } => {
                if let State::LoggingIn(user) = self.state {
                    self.user = Some(user);
                }
                self.print("Welcome!\n");
                self.prompt();
            }
            News::Ready { again: true } => self.handle_back(),
            News::Refused(refusal) => self.handle_refused(&refusal),
            News::Unreachable(why) => {
                self.print(format!("{}\n", escape(&unreachable_text(&why))));
                self.leave(exit::CANNOT_CONNECT);
            }
            News::Lost(why) => self.handle_lost(&why),
            // The loss was said; that it lasts is no news.
            News::Away(_) => {}
            News::Answer(answer) => self.print(lines_of(&answer.text())),
            News::Ended(ended) => self.handle_ended(ended),
            News::MoreInput => {
                let State::Working(work) = &mut self.state else { return };
                let Some(upload) = &mut work.upload else { return };
                let step = upload.go_on(&mut self.talk);
                self.follow(step);
            }
            News::Accepted => {
                let State::Working(work) = &self.state else { return };
                let Some(upload) = &work.upload else { return };
                self.effects.push_back(Effect::Do(upload.accepted()));
            }
            News::Offer(offer, offered) => self.handle_offer(offer, offered),
            News::Coming(tag, offered) => self.begin_file(tag, offered),
            News::Piece(tag, bytes) => {
                self.effects.push_back(Effect::Do(Job::Take { tag, bytes }));
            }
            News::Complete(tag, hash) => {
                self.effects.push_back(Effect::Do(Job::Keep { tag, hash }));
            }
            News::Broken(tag, why) => {
                self.effects.push_back(Effect::Do(Job::Discard { tag }));
                self.end_file(tag, Err(why));
            }
            News::Arrived(offered, kept) => self.tell_arrived(&offered, kept),
            News::Message { from, text } => {
                let shown = format!("{from}: {}\n", escape(&text));
                self.interject(&shown);
            }
        }
    }

    /// A device takes what single files it is sent, as far as they have good names.
    fn handle_offer(&mut self, offer: u32, offered: Offered) {
        let Offered { name, size, .. } = &offered;
        let is_name = !name.contains(&b'/') && SharePath::parse(name).is_ok();
        let reason = match size {
            None => "a device takes single files",
            Some(size) if *size > DEVICE_FILE_MAX_BYTES => "the file is too large for a device",
            Some(_) if !is_name => "the name of the file is no good one",
            Some(_) => return self.talk.accept(offer, offered),
        };
        self.talk.turn_down(offer, reason);
    }

    /// A file begins to come. We decide its name: `<sender>_<filename>`, in this folder.
    fn begin_file(&mut self, tag: Tag, offered: Offered) {
        use std::os::unix::ffi::OsStringExt as _;
        let name = [offered.from.as_bytes(), b"_", &offered.name].concat();
        let path = PathBuf::from(OsString::from_vec(name));
        let size = offered.size.unwrap_or(0);
        self.coming.insert(tag, offered);
        self.effects.push_back(Effect::Do(Job::Receive { tag, path, size }));
    }

    /// A file has come, or will not.
    fn end_file(&mut self, tag: Tag, ended: Result<Vec<u8>, String>) {
        let Some(offered) = self.coming.remove(&tag) else { return };
        if ended.is_err() {
            self.talk.stop_taking(tag);
        }
        self.tell_arrived(&offered, ended);
    }

    fn tell_arrived(&mut self, offered: &Offered, ended: Result<Vec<u8>, String>) {
        let Offered { from, name, .. } = offered;
        let usual = [from.as_str().as_bytes(), b"_", name].concat();
        let name = escape_bytes(name);
        let text = match ended {
            Ok(saved) => {
                let place = match saved == usual {
                    true => String::new(),
                    false => format!(", and is saved as {}", escape_bytes(&saved)),
                };
                format!("a file ({name}) has been received from {from}{place}\n")
            }
            Err(why) => {
                format!("a file ({name}) from {from} did not arrive: {}\n", escape(&why))
            }
        };
        self.interject(&text);
    }

    /// Prints something that nobody has asked for, and the prompt anew where that was there.
    fn interject(&mut self, text: &str) {
        match self.state {
            State::Prompt => self.print(format!("\n{text}{PROMPT}")),
            _ => self.print(text),
        }
    }

    fn handle_lost(&mut self, why: &str) {
        let text = format!("connection lost: {}; trying to get it back\n", escape(why));
        self.interject(&text);
        let State::Working(work) = &mut self.state else { return };
        let Some(upload) = &mut work.upload else { return };
        let job = upload.stop();
        self.effects.push_back(Effect::Do(job));
    }

    /// What was under way is asked for again: its id makes that harmless.
    fn handle_back(&mut self) {
        self.interject("connected again\n");
        let is_local = |work: &Work| matches!(work.command, Command::Generate { .. });
        if matches!(&self.state, State::Working(work) if !is_local(work)) {
            self.work();
        }
    }

    fn handle_refused(&mut self, refusal: &Refusal) {
        match (&self.state, refusal.code) {
            // Nothing was typed: to who sits here that is a password like any other wrong one.
            (State::LoggingIn(_), ErrorCode::LoginRequired) => {
                self.print(format!("{INVALID_PASSWORD}\n"));
            }
            // It is the end: no prompt follows.
            (State::Prompt, _) => self.print(format!("\n{}", line_of(refusal))),
            _ => self.print(line_of(refusal)),
        }
        match (&self.state, refusal.code) {
            (State::LoggingIn(_), ErrorCode::NameTaken | ErrorCode::BadName) if !self.ended => {
                self.ask_username();
            }
            (State::LoggingIn(user), ErrorCode::LoginFailed | ErrorCode::LoginRequired)
                if !self.ended =>
            {
                self.ask_password(*user);
            }
            (_, code) => self.leave(exit::of_error(code)),
        }
    }

    fn handle_ended(&mut self, ended: Result<(), Refusal>) {
        let State::Working(work) = &mut self.state else { return };
        let leaves = work.command == Command::Leave;
        let sent = match &work.command {
            Command::Send { device, file } => Some((*device, file.clone())),
            _ => None,
        };
        if let Some(upload) = &mut work.upload {
            let job = upload.stop();
            self.effects.push_back(Effect::Do(job));
        }
        match (ended, sent) {
            (Err(refusal), Some((device, _))) if refusal.code == ErrorCode::NoSuchUser => {
                self.print(format!("{device} is offline\n"));
            }
            (Err(refusal), _) => self.print(line_of(&refusal)),
            (Ok(()), Some((device, file))) => {
                self.print(format!("a file ({}) has been sent to {device}\n", escape(&file)));
            }
            (Ok(()), None) => {}
        }
        match leaves {
            true => self.leave(exit::DONE),
            false => self.prompt(),
        }
    }

    fn handle_job(&mut self, news: JobNews) {
        match news {
            JobNews::Taken(tag, bytes) => return self.talk.taken(tag, bytes),
            JobNews::Kept(tag, kept) => return self.end_file(tag, kept),
            _ => {}
        }
        let State::Working(work) = &mut self.state else { return };
        match news {
            JobNews::Generated(Ok(())) => {
                self.print("data generation done\n");
                self.prompt();
            }
            JobNews::Generated(Err(why)) => self.give_up(&why),
            news => {
                let Some(upload) = &mut work.upload else { return };
                let step = upload.handle(news, &mut self.talk);
                self.follow(step);
            }
        }
    }

    fn follow(&mut self, step: Step) {
        match step {
            Step::Nothing => {}
            Step::Do(job) => self.effects.push_back(Effect::Do(job)),
            Step::Bad(OpenError::Missing) => {
                let sent = match &self.state {
                    State::Working(work) => match &work.command {
                        Command::Send { file, .. } => Some(file),
                        _ => None,
                    },
                    _ => None,
                };
                let missing = match sent {
                    Some(file) => format!("there is no such file: {file}"),
                    None => NO_SUCH_FILE.to_owned(),
                };
                self.give_up(&missing);
            }
            Step::Bad(OpenError::Bad(why)) => self.give_up(&why),
            Step::Broken(why) => self.print(format!("{}\n", escape(&why))),
        }
    }

    fn give_up(&mut self, why: &str) {
        self.print(format!("{}\n", escape(why)));
        self.prompt();
    }
}

impl Front for Dialog {
    fn talk(&mut self) -> &mut Talk {
        &mut self.talk
    }

    fn handle(&mut self, happening: Happening, _now_ms: u64, _random: u64) {
        match happening {
            Happening::Start => self.talk.probe(),
            Happening::Line { line, shown } => self.handle_line(line, shown),
            Happening::LinesEnd(why) => self.handle_lines_end(why),
            Happening::Job(news) => self.handle_job(news),
            Happening::Time => {}
            Happening::Interrupt(number) => {
                self.effects.push_back(Effect::Echo(true));
                self.print("\n");
                self.leave(exit::of_signal(number));
            }
        }
        self.settle();
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn poll_timeout_ms(&self) -> Option<u64> {
        None
    }
}
