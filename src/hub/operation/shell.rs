//! Operations that the shell does.

use super::Intake;
use crate::wire::{Outcome, Refusal, Tag, event::Ended};

/// What the shell does for somebody.
///
/// ```text
///   Running --the hub ends it--> Stopping
///      |                            |
///      '-----------the shell says how it ended---> Draining --last piece is sent--> gone (Release)
///   any state: its owner has gone, and nothing of its files is queued --> gone (Stop)
/// ```
#[derive(Debug)]
pub(in crate::hub) struct ShellOperation {
    state: ShellState,
    /// Pieces of its files in the outbox: while there are any, the files must stay open.
    file_pieces: usize,
}

/// Where it stands.
#[derive(Debug)]
enum ShellState {
    Running(Underway),
    /// The hub wants it to end, and the shell has not said how it did. What it says meanwhile is
    /// passed on.
    Stopping {
        run: Underway,
        because: Ended,
        /// Its end, where the hub has a reason that the shell does not know.
        verdict: Option<Box<Refusal>>,
    },
    /// All is said, and pieces of its files still wait.
    Draining,
}

/// What it has while the shell works on it.
#[derive(Debug)]
struct Underway {
    /// Standard input on its way, where the work takes any.
    intake: Option<Box<Intake>>,
    /// A file was announced with its size, so that its bytes are owed.
    is_announced: bool,
}

/// How an operation of the shell has ended.
pub(in crate::hub) struct ShellEnd {
    /// As its owner is to hear it.
    pub(in crate::hub) outcome: Outcome,
    /// Why the hub has ended it before its time, if it has.
    pub(in crate::hub) because: Option<Ended>,
    /// Bytes were announced that do not come.
    pub(in crate::hub) owes_bytes: bool,
}

impl ShellOperation {
    /// An operation at its start, with standard input where it takes any.
    pub(in crate::hub) fn new(intake: Option<Intake>) -> ShellOperation {
        let run = Underway { intake: intake.map(Box::new), is_announced: false };
        ShellOperation { state: ShellState::Running(run), file_pieces: 0 }
    }

    fn run(&self) -> Option<&Underway> {
        match &self.state {
            ShellState::Running(run) | ShellState::Stopping { run, .. } => Some(run),
            ShellState::Draining => None,
        }
    }

    fn run_mut(&mut self) -> Option<&mut Underway> {
        match &mut self.state {
            ShellState::Running(run) | ShellState::Stopping { run, .. } => Some(run),
            ShellState::Draining => None,
        }
    }

    pub(in crate::hub) fn intake(&self) -> Option<&Intake> {
        self.run()?.intake.as_deref()
    }

    pub(in crate::hub) fn intake_mut(&mut self) -> Option<&mut Intake> {
        self.run_mut()?.intake.as_deref_mut()
    }

    pub(in crate::hub) fn is_draining(&self) -> bool {
        matches!(self.state, ShellState::Draining)
    }

    pub(in crate::hub) fn file_pieces(&self) -> usize {
        self.file_pieces
    }

    /// Whether a piece of a file may be its: one with a name of its own was announced, and a
    /// conversation, which takes input, names its files by itself.
    pub(in crate::hub) fn may_send_files(&self) -> bool {
        self.run().is_none_or(|run| run.is_announced || run.intake.is_some())
    }

    /// Its file was announced with its size.
    pub(in crate::hub) fn note_announced(&mut self) {
        if let Some(run) = self.run_mut() {
            run.is_announced = true;
        }
    }

    /// A piece of one of its files goes into the outbox.
    pub(in crate::hub) fn note_piece(&mut self) {
        self.file_pieces += 1;
    }

    /// Such a piece is sent; whether nothing of it is needed any more.
    pub(in crate::hub) fn note_piece_sent(&mut self) -> bool {
        self.file_pieces -= 1;
        self.file_pieces == 0 && self.is_draining()
    }

    /// The hub ends it; whether that is news. A verdict holds also where it comes later.
    pub(in crate::hub) fn stop(&mut self, why: Ended, refusal: Option<Refusal>) -> bool {
        match &mut self.state {
            ShellState::Running(run) => {
                let run = Underway { intake: run.intake.take(), ..*run };
                let verdict = refusal.map(Box::new);
                self.state = ShellState::Stopping { run, because: why, verdict };
                true
            }
            ShellState::Stopping { verdict, .. } => {
                if let Some(refusal) = refusal {
                    *verdict = Some(Box::new(refusal));
                }
                false
            }
            ShellState::Draining => false,
        }
    }

    /// The shell says that it has ended, and how; `None` where it had before.
    pub(in crate::hub) fn end(&mut self, tag: Tag, mut outcome: Outcome) -> Option<ShellEnd> {
        let before = std::mem::replace(&mut self.state, ShellState::Draining);
        let (run, why, verdict) = match before {
            ShellState::Running(run) => (run, None, None),
            ShellState::Stopping { run, because, verdict } => (run, Some(because), verdict),
            ShellState::Draining => return None,
        };
        match &mut outcome {
            Outcome::Signal { because, .. } => *because = why,
            Outcome::Failed(refusal) => refusal.tag = tag,
            _ => {}
        }
        if let Some(verdict) = verdict {
            outcome = Outcome::Failed(Refusal { tag, ..*verdict });
        }
        let owes_bytes = run.is_announced && matches!(outcome, Outcome::Failed(_));
        Some(ShellEnd { outcome, because: why, owes_bytes })
    }

    /// Its owner goes in order: whether it stays until the pieces of its files are sent.
    pub(in crate::hub) fn drain(&mut self) -> bool {
        let has_pieces = self.file_pieces > 0;
        if has_pieces {
            self.state = ShellState::Draining;
        }
        has_pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ErrorCode::Denied;

    #[test]
    fn a_verdict_of_the_hub_is_the_end_whatever_the_shell_says() {
        let mut shell = ShellOperation::new(None);
        assert!(shell.stop(Ended::TimedOut, None), "the shell has to hear of it");
        assert!(!shell.stop(Ended::Cancelled, Some(Refusal::new(0, Denied, "no more"))));
        let end = shell.end(7, Outcome::Done).expect("it had not ended");
        assert_eq!(end.because, Some(Ended::TimedOut), "the first reason holds");
        assert_eq!(end.outcome, Outcome::Failed(Refusal::new(7, Denied, "no more")));
        assert!(shell.end(7, Outcome::Done).is_none(), "it ends once");
        assert!(!shell.stop(Ended::Cancelled, None), "nothing is left to be stopped");
    }

    #[test]
    fn what_is_queued_of_a_file_keeps_it_until_the_last_piece_is_sent() {
        let mut shell = ShellOperation::new(None);
        assert!(!shell.drain(), "nothing is queued");
        shell.note_announced();
        shell.note_piece();
        shell.note_piece();
        assert!(!shell.note_piece_sent(), "the shell may have more");
        let failed = Outcome::Failed(Refusal::new(0, Denied, "it has shrunk"));
        let end = shell.end(7, failed).expect("it had not ended");
        assert!(end.owes_bytes, "they were announced");
        assert!(shell.is_draining() && shell.intake().is_none());
        assert!(shell.note_piece_sent(), "that was the last one");
    }
}
