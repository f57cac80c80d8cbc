//! Commands that run at the server, and what comes of their output to the screen.

use super::{After, Brain, Effect, Shown, Stream, Style, Tag, Task};
use crate::client::screen::lines::LineBuffer;

/// A line that has begun is shown after so long without its end, in milliseconds.
const PART_AFTER_MS: u64 = 100;
/// Characters of a command that tell which one is meant.
const COMMAND_SHOWN_CHARACTERS: usize = 60;
/// Between two such parts.
const PART_PAUSE_MS: u64 = 1000;

#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) takes_input: bool,
    /// Which one it is, for people.
    command: String,
    pub(super) stdout: LineBuffer,
    pub(super) stderr: LineBuffer,
    /// When the beginning of a line is shown though its end has not come.
    part_due_ms: Option<u64>,
    /// Not before: what moves all the time would fill the screen.
    next_part_ms: u64,
}

impl Run {
    pub(super) fn new(command: &str, takes_input: bool) -> Run {
        let mut shown: String = command.chars().take(COMMAND_SHOWN_CHARACTERS).collect();
        if shown.len() < command.len() {
            shown.push_str("...");
        }
        Run { command: shown, takes_input, ..Run::default() }
    }

    pub(super) fn part_due_ms(&self) -> Option<u64> {
        self.part_due_ms
    }

    /// The beginnings of lines that are due.
    fn parts(&mut self, now_ms: u64) -> Vec<Shown> {
        if self.part_due_ms.is_none_or(|due| due > now_ms) {
            return Vec::new();
        }
        (self.part_due_ms, self.next_part_ms) = (None, now_ms + PART_PAUSE_MS);
        let both = [(Stream::Stdout, &mut self.stdout), (Stream::Stderr, &mut self.stderr)];
        let shown = |(stream, lines): (Stream, &mut LineBuffer)| {
            lines.part().map(|bytes| Shown::Output { stream, bytes })
        };
        both.into_iter().filter_map(shown).collect()
    }
}

impl Brain {
    /// Output of a command that goes to the screen.
    pub fn handle_output(&mut self, tag: Tag, stream: Stream, bytes: &[u8], now_ms: u64) {
        let count = bytes.len() as u32;
        let lines_wanted = self.setup.style == Style::Prompt;
        let Some(Task::Run(run)) = self.tasks.get_mut(&tag) else { return };
        let buffer = if stream == Stream::Stdout { &mut run.stdout } else { &mut run.stderr };
        let ready = if lines_wanted { buffer.push(bytes) } else { Some(bytes.to_vec()) };
        if run.stdout.has_part() || run.stderr.has_part() {
            let due_ms = (now_ms + PART_AFTER_MS).max(run.next_part_ms);
            run.part_due_ms.get_or_insert(due_ms);
        }
        match ready {
            Some(bytes) => {
                let shown = Shown::Output { stream, bytes };
                self.effects.push_back(Effect::Show(shown, Some(After::Consumed(tag, count))));
            }
            None => self.handle_after(After::Consumed(tag, count)),
        }
    }

    /// The connection of a prompt is lost: what is to be said of each command that was under way,
    /// after what had come of its output, and of whatever else waits for an answer.
    pub(super) fn take_unanswered(&mut self) -> Vec<Shown> {
        let mut told = Vec::new();
        for task in self.tasks.values_mut() {
            let text = match task {
                Task::Run(run) => {
                    let outputs =
                        [(Stream::Stdout, &mut run.stdout), (Stream::Stderr, &mut run.stderr)];
                    for (stream, lines) in outputs {
                        let rest = lines.finish().map(|bytes| Shown::Output { stream, bytes });
                        told.extend(rest);
                    }
                    format!("run {}: whether it has ended is not known", run.command)
                }
                Task::Answer(_) | Task::Roster(_) | Task::Pong(_) | Task::Samples => {
                    "an answer that was awaited is lost with the connection".to_owned()
                }
                // These tell it by themselves, or nobody waits for them.
                Task::Transfer(_) | Task::Refusal | Task::Announcement => continue,
            };
            told.push(Shown::Error { code: "lost", text });
        }
        told
    }

    /// What has come of a line that has no end is shown, as nothing more seems to come.
    pub(super) fn show_parts(&mut self, now_ms: u64) {
        for task in self.tasks.values_mut() {
            if let Task::Run(run) = task {
                for shown in run.parts(now_ms) {
                    self.effects.push_back(Effect::Show(shown, None));
                }
            }
        }
    }
}
