//! Asking a person for a password, at the terminal and without showing what is typed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::SIGINT;
use zeroize::Zeroizing;

/// Whether there is a terminal to ask at, wherever standard input and output lead.
#[must_use]
pub fn can_ask() -> bool {
    std::fs::File::options().read(true).write(true).open("/dev/tty").is_ok()
}

/// Asks at the terminal of this process and waits for a line. While it waits the terminal shows
/// nothing; a process that ends meanwhile must put it back, see
/// [`super::terminal::TerminalState::save_controlling`].
///
/// # Errors
/// `Interrupted` after Ctrl-C, which is also sent to this process as a signal and does not end it;
/// `UnexpectedEof` after Ctrl-D; else there is no terminal.
pub fn password(prompt: &str) -> io::Result<Zeroizing<String>> {
    // Ended by the signal, the process would leave the terminal without echo.
    let _ = signal_hook::flag::register(SIGINT, Arc::new(AtomicBool::new(false)));
    let typed = rpassword::prompt_password(prompt);
    // The line end that was typed is not shown either.
    if let Ok(mut terminal) = std::fs::File::options().write(true).open("/dev/tty") {
        let _ = io::Write::write_all(&mut terminal, b"\n");
    }
    typed.map(Zeroizing::new)
}
