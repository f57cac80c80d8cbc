//! Asking a person for a password, at the terminal and without showing what is typed.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use signal_hook::consts::SIGINT;
use zeroize::Zeroizing;

/// The terminal that controls this process, wherever its streams lead (tty(4)).
const TERMINAL: &str = "/dev/tty";

/// Whether there is a terminal to ask at, wherever standard input and output lead.
#[must_use]
pub fn can_ask() -> bool {
    open().is_ok()
}

/// Asks at the terminal of this process and waits for a line. While it waits the terminal shows
/// nothing; a process that ends meanwhile must put it back, see
/// [`super::terminal::TerminalState::save_controlling`].
///
/// # Errors
/// `Interrupted` after Ctrl-C, which is also sent to this process as a signal and does not end it;
/// `UnexpectedEof` after Ctrl-D; else there is no terminal.
pub fn password(prompt: &str) -> io::Result<Zeroizing<String>> {
    let mut terminal = open()?;
    let before = tcgetattr(&terminal)?;
    let mut silent = before.clone();
    let shown = LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG;
    silent.local_modes.remove(shown);
    // Before anybody can see the question: what answers it at once must not be shown, nor a Ctrl-C
    // be lost between two modes.
    tcsetattr(&terminal, OptionalActions::Now, &silent)?;
    // Ended by the signal, the process would leave the terminal without echo.
    let handled = signal_hook::flag::register(SIGINT, Arc::new(AtomicBool::new(false)));
    let typed = handled.and_then(|_| rpassword::prompt_password(prompt)).map(Zeroizing::new);
    let restored = tcsetattr(&terminal, OptionalActions::Now, &before);
    // The line end that was typed is not shown either.
    let _ = terminal.write_all(b"\n");
    restored?;
    typed
}

fn open() -> io::Result<File> {
    File::options().read(true).write(true).open(TERMINAL)
}
