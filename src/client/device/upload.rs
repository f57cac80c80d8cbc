//! A file on its way to the server: looked through, then sent block by block as there is room.

use std::path::PathBuf;

use super::{Job, JobNews, OpenError, talk::Talk};
use crate::wire::{EdgeCall, edge::RequestId};

/// One upload. After a loss it is begun again, with the same id.
pub struct Upload {
    file_id: u32,
    request: RequestId,
    path: PathBuf,
    /// Tells the news of this attempt from older ones.
    number: u64,
    /// What is being sent, and how much of it is.
    block: Vec<u8>,
    sent: usize,
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
    pub fn new(file_id: u32, request: RequestId, path: PathBuf) -> Upload {
        Upload { file_id, request, path, number: 0, block: Vec::new(), sent: 0 }
    }

    /// Begins, for the first time or again; no two attempts have the same `number`.
    pub fn begin(&mut self, number: u64) -> Job {
        self.number = number;
        (self.block, self.sent) = (Vec::new(), 0);
        Job::Open { number, path: self.path.clone() }
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
                Ok(hash) => {
                    talk.ask(&EdgeCall::Upload {
                        file_id: self.file_id,
                        request: Some(self.request.clone()),
                        hash: Some(hash),
                        samples: None,
                    });
                    Step::Do(Job::More)
                }
            },
            JobNews::Block(number, block) if number == self.number => match block {
                Ok(bytes) if bytes.is_empty() => {
                    talk.input_end();
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
