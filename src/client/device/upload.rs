//! A file on its way to the server, or by way of it to another device: looked through, then sent
//! block by block as there is room.

use std::path::PathBuf;

use super::{Job, JobNews, Look, OpenError, talk::Talk};
use crate::wire::{EdgeCall, Name, edge::RequestId};

/// One upload. After a loss it is begun again; to the server with the same id.
pub struct Upload {
    target: Target,
    path: PathBuf,
    /// Tells the news of this attempt from older ones.
    number: u64,
    look: Option<Look>,
    /// What is being sent, and how much of it is.
    block: Vec<u8>,
    sent: usize,
}

/// Whose it is to be.
pub enum Target {
    /// The server's: a file of samples.
    Server {
        /// Its number there.
        file_id: u32,
        /// The same for every time that it is asked.
        request: RequestId,
    },
    /// Another device's: any file.
    Device {
        /// Its name.
        to: Name,
    },
}

/// What comes of a thread's news.
#[derive(Debug)]
pub enum Step {
    /// They were about something else, or nothing follows.
    Nothing,
    /// This is to be done.
    Do(Job),
    /// There is nothing to upload, and nothing was asked of the server.
    Bad(OpenError),
    /// The file cannot be read on; the server is told, and its end follows.
    Broken(String),
}

impl Upload {
    /// An upload that has not begun.
    pub fn new(target: Target, path: PathBuf) -> Upload {
        Upload { target, path, number: 0, look: None, block: Vec::new(), sent: 0 }
    }

    /// Begins, for the first time or again; no two attempts have the same `number`.
    pub fn begin(&mut self, number: u64) -> Job {
        self.number = number;
        (self.block, self.sent) = (Vec::new(), 0);
        let samples = matches!(self.target, Target::Server { .. });
        Job::Open { number, path: self.path.clone(), samples }
    }

    /// The attempt is over: news of it are of the past.
    pub fn stop(&mut self) -> Job {
        self.number = 0;
        Job::Close
    }

    /// A thread has something.
    pub fn handle(&mut self, news: JobNews, talk: &mut Talk) -> Step {
        match news {
            JobNews::Opened(number, opened) if number == self.number => match opened {
                Err(error) => Step::Bad(error),
                // Lost meanwhile: it is begun again when the server is back.
                Ok(_) if !talk.is_ready() => Step::Nothing,
                Ok(look) => self.ask(look, talk),
            },
            JobNews::Block(number, block) if number == self.number => match block {
                Ok(bytes) if bytes.is_empty() => {
                    let hash = self.look.map(|look| look.hash).unwrap_or_default();
                    match self.target {
                        Target::Server { .. } => talk.input_end(b""),
                        Target::Device { .. } => talk.input_end(&hash),
                    }
                    Step::Nothing
                }
                Ok(bytes) => {
                    (self.block, self.sent) = (bytes, 0);
                    self.go_on(talk)
                }
                Err(why) => {
                    talk.cancel();
                    Step::Broken(why)
                }
            },
            _ => Step::Nothing,
        }
    }

    fn ask(&mut self, look: Look, talk: &mut Talk) -> Step {
        self.look = Some(look);
        match &self.target {
            Target::Server { file_id, request } => {
                talk.ask(&EdgeCall::Upload {
                    file_id: *file_id,
                    request: Some(request.clone()),
                    hash: Some(look.hash),
                    samples: None,
                });
                Step::Do(Job::More)
            }
            // The other one has to take it first: see `accepted`.
            Target::Device { to } => {
                talk.offer(*to, &self.path, look.size, look.modified);
                Step::Nothing
            }
        }
    }

    /// The other device takes it.
    pub fn accepted(&self) -> Job {
        Job::More
    }

    /// Moves the block on to the server, as far as there is room.
    pub fn go_on(&mut self, talk: &mut Talk) -> Step {
        if self.sent == self.block.len() {
            return Step::Nothing;
        }
        self.sent += talk.input(&self.block[self.sent..]);
        if self.sent < self.block.len() {
            return Step::Nothing;
        }
        (self.block, self.sent) = (Vec::new(), 0);
        Step::Do(Job::More)
    }
}
