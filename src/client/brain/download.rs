//! Downloads, as the brain sees them: asked for, arriving, being verified.

use super::{Brain, Effect, Link, OutcomeBody, Shown, Tag, Target, Task, escape_bytes, exit};
use crate::wire::ErrorCode;

/// What the writer of a download has to know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Opening {
    /// What the user asked for: for people, never a name to write to.
    pub path: Vec<u8>,
    /// Where it goes.
    pub target: Target,
    /// Bytes that follow; more are an error.
    pub size: u64,
    /// Seconds since 1970.
    pub modified: i64,
    /// Bytes that may be taken before they are reported.
    pub credit_step_bytes: u32,
}

#[derive(Debug)]
pub(super) struct Download {
    path: Vec<u8>,
    target: Target,
    size: u64,
    received: u64,
    state: State,
    began_ms: u64,
    /// When the progress was told last, and how much had been received then.
    told: (u64, u64),
}

#[derive(Debug, Eq, PartialEq)]
enum State {
    Asked,
    Arriving,
    /// All is there and the server is done; the writer is not.
    Verifying {
        hash: String,
    },
    /// It failed here; the server has yet to end it.
    Abandoned,
}

impl Download {
    pub(super) fn new(path: Vec<u8>, target: Target, now_ms: u64) -> Download {
        let (state, told) = (State::Asked, (now_ms, 0));
        Download { path, target, size: 0, received: 0, state, began_ms: now_ms, told }
    }

    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.state == State::Arriving
    }
}

impl Brain {
    /// The writer has given the file its name.
    pub fn handle_saved(&mut self, tag: Tag, now_ms: u64) {
        if let Some(Task::Download(download)) = self.tasks.remove(&tag)
            && let State::Verifying { hash } = download.state
        {
            use std::os::unix::ffi::OsStringExt as _;
            let target = match download.target {
                Target::File(path) => Some(path.into_os_string().into_vec()),
                Target::Stdout => None,
            };
            let seconds = now_ms.saturating_sub(download.began_ms) as f64 / 1000.0;
            let (path, size) = (download.path, download.size);
            self.show(Shown::Saved { path, target, size, hash, seconds });
        }
        self.settle();
    }

    /// The writer could not go on, and has removed what it had written.
    pub fn handle_unsaved(&mut self, tag: Tag, why: &str) {
        let Some(Task::Download(download)) = self.tasks.get_mut(&tag) else { return };
        let ended = matches!(download.state, State::Verifying { .. });
        let text = format!("{}: {why}", escape_bytes(&download.path));
        download.state = State::Abandoned;
        self.fail(exit::FAILED);
        self.show(Shown::failure(text));
        match ended {
            true => drop(self.tasks.remove(&tag)),
            false => self.link().into_iter().for_each(|link: &mut Link| link.cancel(tag)),
        }
        self.settle();
    }

    pub(super) fn handle_file(&mut self, tag: Tag, size: u64, modified: i64, now_ms: u64) {
        let Some(credit_step_bytes) = self.link().map(|link| link.credit_step_bytes()) else {
            return;
        };
        let Some(Task::Download(download)) = self.tasks.get_mut(&tag) else { return };
        if download.state != State::Asked {
            return;
        }
        (download.size, download.state) = (size, State::Arriving);
        (download.began_ms, download.told) = (now_ms, (now_ms, 0));
        let (path, target) = (download.path.clone(), download.target.clone());
        self.show(Shown::File { path: path.clone(), size });
        let opening = Opening { path, target, size, modified, credit_step_bytes };
        self.effects.push_back(Effect::Open(tag, opening));
    }

    pub(super) fn handle_progress(&mut self, tag: Tag, bytes: u64, now_ms: u64) {
        let Some(Task::Download(download)) = self.tasks.get_mut(&tag) else { return };
        download.received += bytes;
        let (told_ms, told_bytes) = download.told;
        let Some(every_ms) = self.setup.progress_ms else { return };
        let passed_ms = now_ms.saturating_sub(told_ms);
        if passed_ms < every_ms || download.received >= download.size {
            return;
        }
        download.told = (now_ms, download.received);
        let (received, size) = (download.received, download.size);
        let per_second = (received - told_bytes) * 1000 / passed_ms.max(1);
        let path = download.path.clone();
        self.show(Shown::Progress { path, received, size, per_second });
    }

    pub(super) fn handle_download_end(&mut self, tag: Tag, outcome: OutcomeBody<'_>, _now_ms: u64) {
        let Some(Task::Download(download)) = self.tasks.get_mut(&tag) else { return };
        let path = escape_bytes(&download.path).into_owned();
        let failure = match (&download.state, outcome) {
            (State::Abandoned, _) => {
                self.tasks.remove(&tag);
                return;
            }
            (State::Arriving, OutcomeBody::Sent { hash }) => match blake3::Hash::from_hex(&*hash) {
                Ok(good) => {
                    download.state = State::Verifying { hash: hash.into_owned() };
                    self.effects.push_back(Effect::Close(tag, *good.as_bytes()));
                    return;
                }
                Err(_) => (ErrorCode::Protocol, "the server told no hash".into()),
            },
            (_, OutcomeBody::Failed { code, text }) => (code, text),
            _ => (ErrorCode::Protocol, "the server ended it without sending it".into()),
        };
        let (code, text) = failure;
        let text = match text.contains(&path) {
            true => text.into_owned(),
            false => format!("{path}: {text}"),
        };
        self.abandon(tag);
        self.tasks.remove(&tag);
        self.refuse(code, &text);
    }

    /// Drops the writer of a download, if it has one.
    pub(super) fn abandon(&mut self, tag: Tag) {
        let Some(Task::Download(download)) = self.tasks.get_mut(&tag) else { return };
        if matches!(download.state, State::Arriving | State::Verifying { .. }) {
            self.effects.push_back(Effect::Abandon(tag));
        }
        download.state = State::Abandoned;
    }
}
