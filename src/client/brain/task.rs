//! What the server was asked for, until it has answered.

use super::Transfer;
use crate::client::screen::LineBuffer;

/// One thing that was asked for.
#[derive(Debug)]
pub enum Task {
    /// `who`, `ls`, `echo`, `help`, `info` and the like; what is counted.
    Answer(&'static str),
    /// `ping`, and its answer until the time that it took is known.
    Pong(String),
    /// `run`.
    Run(Box<Run>),
    /// `download`, `upload`.
    Transfer(Box<Transfer>),
    /// Standard input goes to the server as a file of samples.
    Samples,
}

impl Task {
    /// Whether standard input goes to it.
    pub fn takes_input(&self) -> bool {
        match self {
            Task::Run(run) => run.takes_input,
            Task::Samples => true,
            Task::Answer(_) | Task::Pong(_) | Task::Transfer(_) => false,
        }
    }
}

/// A command that runs.
#[derive(Debug, Default)]
pub struct Run {
    /// Standard input goes to it.
    pub takes_input: bool,
    /// Its outputs, cut into lines.
    pub stdout: LineBuffer,
    /// See [`Run::stdout`].
    pub stderr: LineBuffer,
}
