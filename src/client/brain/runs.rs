//! Commands that run at the server, and what comes of their output to the screen.

use super::{After, Brain, Effect, Shown, Stream, Style, Tag, Task};
use crate::client::screen::lines::LineBuffer;

/// A line that has begun is shown after so long without its end, in milliseconds.
const PART_AFTER_MS: u64 = 100;
/// Between two such parts.
const PART_PAUSE_MS: u64 = 1000;

#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) takes_input: bool,
    pub(super) stdout: LineBuffer,
    pub(super) stderr: LineBuffer,
    /// When the beginning of a line is shown though its end has not come.
    part_due_ms: Option<u64>,
    /// Not before: what moves all the time would fill the screen.
    next_part_ms: u64,
}

impl Run {
    pub(super) fn new(takes_input: bool) -> Run {
        Run { takes_input, ..Run::default() }
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
