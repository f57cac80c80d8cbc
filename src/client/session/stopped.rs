//! A prompt that was stopped by Ctrl-Z or a signal, and runs again.

use super::Session;

impl Session<'_> {
    /// Line editing goes on where the shell stopped us, as soon as we are in front again. A prompt
    /// that shows none at the moment takes the terminal by itself.
    pub(super) fn resume_prompt(&mut self) {
        let edited = self.edited.as_ref().filter(|_| self.asked);
        self.resumes = edited.is_some_and(|terminal| !terminal.edit_lines_again());
        if !self.resumes
            && self.asked
            && let Some(out) = &self.out
        {
            // Line editing paints its line anew below whatever is printed: here, nothing.
            out.text(b"\x1b[A\n".to_vec(), None);
        }
    }
}
