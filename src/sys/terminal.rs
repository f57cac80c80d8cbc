//! The terminal of a client: what it is, how it was, and output that may end at any time.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp,
    tcsetattr,
};

/// Pasted text arrives in brackets, or does no more (xterm control sequences, mode 2004).
const BRACKETED_PASTE_ON: &[u8] = b"\x1b[?2004h";
const BRACKETED_PASTE_OFF: &[u8] = b"\x1b[?2004l";

/// The second screen, no cursor, no wrapping (xterm control sequences, modes 1049, 25 and 7).
const ALTERNATE_SCREEN_ON: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[?7l";
const ALTERNATE_SCREEN_OFF: &[u8] = b"\x1b[?7h\x1b[?25h\x1b[?1049l";

/// How often a process in the background looks whether it has come to the foreground.
pub const BACKGROUND_LOOK_EVERY: Duration = Duration::from_millis(100);

/// A special character that does nothing (`_POSIX_VDISABLE`, fpathconf(3)).
const DISABLED: u8 = 0;

/// One of the three streams every process starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard input.
    Stdin,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// True if the stream is a terminal.
#[must_use]
pub fn is_terminal(stream: Stream) -> bool {
    match stream {
        Stream::Stdin => io::stdin().is_terminal(),
        Stream::Stdout => io::stdout().is_terminal(),
        Stream::Stderr => io::stderr().is_terminal(),
    }
}

/// The width in columns of the first stream that is a terminal and knows it: standard error
/// (where progress is drawn), output, input.
#[must_use]
pub fn width() -> Option<u16> {
    width_of(io::stderr()).or_else(|| width_of(io::stdout())).or_else(|| width_of(io::stdin()))
}

fn width_of(stream: impl AsFd) -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    Some(size.ws_col).filter(|&columns| columns > 0)
}

/// The columns and rows of standard output, if that is a terminal and knows them.
#[must_use]
pub fn size() -> Option<(u16, u16)> {
    size_of(io::stdout())
}

fn size_of(stream: impl AsFd) -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// True if the stream should carry colour: a terminal that is not `TERM=dumb`, unless the user
/// says otherwise by `NO_COLOR` (no-color.org), `CLICOLOR` or `CLICOLOR_FORCE`
/// (bixense.com/clicolors).
#[must_use]
pub fn wants_colour(stream: Stream) -> bool {
    decide_colour(is_terminal(stream), |name| std::env::var_os(name))
}

fn decide_colour(terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if set("NO_COLOR").is_some() {
        return false;
    }
    if set("CLICOLOR_FORCE").is_some_and(|value| value != "0") {
        return true;
    }
    let switched_off = set("CLICOLOR").is_some_and(|value| value == "0");
    let dumb = set("TERM").is_some_and(|value| value == "dumb");
    terminal && !switched_off && !dumb
}

/// True if standard input is a terminal that shows what is typed.
#[must_use]
pub fn shows_input() -> bool {
    tcgetattr(io::stdin()).is_ok_and(|modes| modes.local_modes.contains(LocalModes::ECHO))
}

/// What is typed on standard input is not shown, as long as this lives.
#[derive(Debug)]
pub struct HiddenInput(Termios);

impl HiddenInput {
    /// Hides it; `None` where it is not shown anyway.
    #[must_use]
    pub fn begin() -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut modes = before.clone();
        modes.local_modes.remove(LocalModes::ECHO);
        let is_shown = before.local_modes.contains(LocalModes::ECHO);
        let hidden = is_shown && tcsetattr(io::stdin(), OptionalActions::Now, &modes).is_ok();
        hidden.then_some(Self(before))
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// How the terminal was before line editing, to be put back on every way out: a process that ends
/// in raw mode leaves its user without echo.
///
/// Restores when dropped; `std::process::exit` drops nothing, so call [`TerminalState::restore`]
/// before it, and from the panic hook.
pub struct TerminalState {
    terminal: OwnedFd,
    modes: Termios,
    pastes_in_brackets: AtomicBool,
}

impl TerminalState {
    /// Saves the modes of standard input; `None` if that is no terminal, as there is then nothing
    /// to restore.
    #[must_use]
    pub fn save() -> Option<Self> {
        Self::save_of(io::stdin())
    }

    /// The same for the terminal that controls this process, wherever its streams lead.
    #[must_use]
    pub fn save_controlling() -> Option<Self> {
        Self::save_of(std::fs::File::options().read(true).write(true).open("/dev/tty").ok()?)
    }

    fn save_of(stream: impl AsFd) -> Option<Self> {
        let modes = tcgetattr(&stream).ok()?;
        // A descriptor of its own: standard input may be closed before the process ends.
        let terminal = rustix::io::fcntl_dupfd_cloexec(stream, 3).ok()?;
        Some(Self { terminal, modes, pastes_in_brackets: AtomicBool::new(false) })
    }

    /// Notes that line editing switches bracketed paste on, so that restoring switches it off.
    pub fn note_bracketed_paste(&self) {
        self.pastes_in_brackets.store(true, Ordering::Relaxed);
    }

    /// Hands over each key as it is pressed and does not show it. Ctrl-C still interrupts; Ctrl-Z,
    /// which would stop this process with its screen left as it is, does nothing.
    ///
    /// Does nothing in the background, as [`TerminalState::restore`].
    pub fn hand_over_keys(&self) {
        if self.is_in_background() {
            return;
        }
        let mut modes = self.modes.clone();
        modes.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        modes.special_codes[SpecialCodeIndex::VSUSP] = DISABLED;
        // Where it fails keys come with the line that they are in, and nothing else is lost.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &modes);
    }

    /// Gives line editing the terminal again after this process was stopped: the shell has put its
    /// own modes back meanwhile. False in the background, where nothing is done.
    #[must_use]
    pub fn edit_lines_again(&self) -> bool {
        if self.is_in_background() {
            return false;
        }
        let mut modes = self.modes.clone();
        modes.input_modes -= InputModes::BRKINT
            | InputModes::ICRNL
            | InputModes::INPCK
            | InputModes::ISTRIP
            | InputModes::IXON;
        modes.local_modes -=
            LocalModes::ICANON | LocalModes::ECHO | LocalModes::IEXTEN | LocalModes::ISIG;
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        // Where this fails, the terminal is gone, and reading it says so.
        let _ = tcsetattr(&self.terminal, OptionalActions::Drain, &modes);
        let _ = rustix::io::write(&self.terminal, BRACKETED_PASTE_ON);
        true
    }

    /// Puts the terminal back as it was; may be called often and from any thread.
    ///
    /// Does nothing in the background of the shell: the terminal is somebody else's then, and the
    /// kernel would stop this process for touching it (`SIGTTOU`, tcsetattr(3)).
    pub fn restore(&self) {
        if self.is_in_background() {
            return;
        }
        // On the way out nobody can do anything about an error, and the terminal may be gone.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.modes);
        if self.pastes_in_brackets.swap(false, Ordering::Relaxed) {
            let _ = rustix::io::write(&self.terminal, BRACKETED_PASTE_OFF);
        }
    }

    fn is_in_background(&self) -> bool {
        is_in_background_of(&self.terminal)
    }
}

/// The kernel tells the foreground group of our controlling terminal alone, `ENOTTY` of any other:
/// there, nobody would be stopped.
fn is_in_background_of(terminal: impl AsFd) -> bool {
    let foreground = tcgetpgrp(terminal).ok().map(|group| group.as_raw_nonzero().get());
    foreground.is_some_and(|foreground| own_group().is_some_and(|own| own != foreground))
}

/// Waits until something was typed on standard input, which is a terminal, and is for us. In the
/// background of the shell what is typed is for the shell, and the kernel would stop us for
/// reading it (`SIGTTIN`); of coming to the foreground nobody tells a process that runs.
pub fn await_input() {
    await_input_of(io::stdin());
}

fn await_input_of(terminal: impl AsFd) {
    loop {
        if is_in_background_of(&terminal) {
            std::thread::sleep(BACKGROUND_LOOK_EVERY);
            continue;
        }
        let mut polled = [PollFd::new(&terminal, PollFlags::IN)];
        match poll(&mut polled, None) {
            Err(Errno::INTR) => {}
            // Whatever is wrong with it, reading says so.
            _ if !is_in_background_of(&terminal) => return,
            _ => {}
        }
    }
}

/// Whether Ctrl-Z (`SIGTSTP`) may stop this process through this thread; threads that it starts
/// are born alike. Where one thread alone takes the signal, what it does after the key comes after
/// the stop; else the kernel picks another thread, and this one runs on for a moment.
#[allow(unsafe_code, reason = "the mask of a thread has no safe form here")]
pub fn take_stops(is_taker: bool) {
    let how = if is_taker { libc::SIG_UNBLOCK } else { libc::SIG_BLOCK };
    // SAFETY: a set of signals is plain data that sigemptyset makes whole, and both calls keep to
    // it; the mask is that of the calling thread.
    unsafe {
        let mut stops: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut stops);
        libc::sigaddset(&raw mut stops, libc::SIGTSTP);
        libc::pthread_sigmask(how, &raw const stops, std::ptr::null_mut());
    }
}

/// Our process group as the kernel numbers it: 0 if its leader is outside of our PID namespace, as
/// it may be in a container (pid_namespaces(7)), which getpgrp(2) in rustix does not allow for.
fn own_group() -> Option<i32> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // proc_pid_stat(5): the name in brackets may hold anything; then state, parent, group.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(2)?.parse().ok()
}

impl Drop for TerminalState {
    fn drop(&mut self) {
        self.restore();
    }
}

/// The second screen of the terminal on standard output, without a cursor and without a line that
/// goes on in the next one. Dropped, the first one is back as it was.
#[derive(Debug)]
pub struct AlternateScreen(());

impl AlternateScreen {
    /// Switches to it.
    #[must_use]
    pub fn enter() -> Self {
        // Whoever cannot write now learns that by the first picture.
        let _ = write_stdout(ALTERNATE_SCREEN_ON);
        Self(())
    }
}

impl Drop for AlternateScreen {
    fn drop(&mut self) {
        let _ = write_stdout(ALTERNATE_SCREEN_OFF);
    }
}

/// Why writing to standard output ended.
#[derive(Debug)]
pub enum StdoutError {
    /// The reader went away, as `head` does when it has enough: end quietly.
    Closed,
    /// A real failure, such as a full disk behind `>`: say so and exit with an error.
    Failed(io::Error),
}

/// Whether standard output was closed when this process began (`>&-`). The runtime of Rust puts
/// `/dev/null` in its place before `main`, where nobody would learn that all of it is lost.
static STDOUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);

#[allow(unsafe_code, reason = "nothing else runs before the runtime has opened what was closed")]
mod before_main {
    use super::{Ordering, STDOUT_WAS_CLOSED};

    // SAFETY: what the section holds is called once, before the runtime is there; the function
    // needs nothing of it.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static LOOK: extern "C" fn() = look;

    extern "C" fn look() {
        // SAFETY: the call asks for the flags of a descriptor, open or not, and changes nothing.
        let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
        STDOUT_WAS_CLOSED.store(flags == -1, Ordering::Relaxed);
    }
}

/// Writes all bytes to standard output, at once and past the buffer of `print!`; use one of the two
/// alone, or flush between them.
///
/// # Errors
/// [`StdoutError`].
pub fn write_stdout(bytes: &[u8]) -> Result<(), StdoutError> {
    if STDOUT_WAS_CLOSED.load(Ordering::Relaxed) {
        return Err(StdoutError::Failed(Errno::BADF.into()));
    }
    write_to(io::stdout(), bytes)
}

fn write_to(stream: impl AsFd, mut bytes: &[u8]) -> Result<(), StdoutError> {
    while !bytes.is_empty() {
        match rustix::io::write(&stream, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            // Whoever shares the terminal or pipe with us may have made it non-blocking.
            Err(Errno::AGAIN) => {
                let mut polled = [PollFd::new(&stream, PollFlags::OUT)];
                match poll(&mut polled, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(errno) => return Err(StdoutError::Failed(errno.into())),
                }
            }
            Err(Errno::PIPE) => return Err(StdoutError::Closed),
            Err(errno) => return Err(StdoutError::Failed(errno.into())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;

    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    use rustix::termios::{Winsize, tcsetwinsize};

    use super::*;

    /// A pseudo-terminal: its master, and the end that a program would have.
    fn pseudo_terminal() -> (OwnedFd, OwnedFd) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let terminal = ioctl_tiocgptpeer(&master, flags).unwrap();
        (master, terminal)
    }

    fn is_cooked(terminal: &OwnedFd) -> bool {
        let modes = tcgetattr(terminal).unwrap().local_modes;
        modes.contains(LocalModes::ICANON) && modes.contains(LocalModes::ISIG)
    }

    fn make_raw(terminal: &OwnedFd) {
        let mut modes = tcgetattr(terminal).unwrap();
        modes.make_raw();
        tcsetattr(terminal, OptionalActions::Now, &modes).unwrap();
        assert!(!is_cooked(terminal));
    }

    fn set_columns(master: &OwnedFd, ws_col: u16) {
        tcsetwinsize(master, Winsize { ws_col, ws_row: 0, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    }

    #[test]
    fn the_process_group_is_known_even_where_its_leader_is_not() {
        // In a PID namespace of its own, whose first process has no other above it, it is 0.
        assert!(own_group().unwrap() >= 0);
    }

    #[test]
    fn a_raw_terminal_is_restored_by_call_and_by_drop() {
        let (_master, terminal) = pseudo_terminal();
        let state = TerminalState::save_of(&terminal).unwrap();
        state.note_bracketed_paste();
        make_raw(&terminal);
        state.restore();
        assert!(is_cooked(&terminal));
        assert!(!state.pastes_in_brackets.load(Ordering::Relaxed), "said once");
        make_raw(&terminal);
        drop(state);
        assert!(is_cooked(&terminal));
    }

    #[test]
    fn keys_are_handed_over_one_by_one_until_it_is_restored() {
        let (_master, terminal) = pseudo_terminal();
        let state = TerminalState::save_of(&terminal).unwrap();
        state.hand_over_keys();
        let modes = tcgetattr(&terminal).unwrap();
        assert!(!modes.local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO));
        assert!(modes.local_modes.contains(LocalModes::ISIG), "Ctrl-C still interrupts");
        assert_eq!(modes.special_codes[SpecialCodeIndex::VSUSP], DISABLED);
        state.restore();
        let modes = tcgetattr(&terminal).unwrap();
        assert!(modes.local_modes.contains(LocalModes::ICANON | LocalModes::ECHO));
        assert_ne!(modes.special_codes[SpecialCodeIndex::VSUSP], DISABLED);
    }

    #[test]
    fn without_a_terminal_there_is_nothing_to_save() {
        let (reader, writer) = io::pipe().unwrap();
        assert!(TerminalState::save_of(&reader).is_none());
        assert!(width_of(&writer).is_none());
    }

    #[test]
    fn the_width_is_that_of_the_terminal() {
        let (master, terminal) = pseudo_terminal();
        set_columns(&master, 132);
        assert_eq!(width_of(&terminal), Some(132));
        set_columns(&master, 0);
        assert_eq!(width_of(&terminal), None, "0 columns mean that nobody knows");
    }

    #[test]
    fn colour_follows_the_user_then_the_terminal() {
        let decide = |terminal: bool, set: &[(&str, &str)]| {
            decide_colour(terminal, |name| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
            })
        };
        assert!(decide(true, &[]));
        assert!(!decide(false, &[]));
        assert!(!decide(true, &[("NO_COLOR", "1")]));
        assert!(!decide(true, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]));
        assert!(decide(true, &[("NO_COLOR", "")]), "set but empty counts as unset");
        assert!(decide(false, &[("CLICOLOR_FORCE", "1")]));
        assert!(!decide(false, &[("CLICOLOR_FORCE", "0")]));
        assert!(!decide(true, &[("CLICOLOR", "0")]));
        assert!(!decide(true, &[("TERM", "dumb")]));
        assert!(decide(true, &[("TERM", "xterm-256color")]));
    }

    #[test]
    fn a_closed_reader_is_no_failure_and_a_full_disk_is_one() {
        let (reader, writer) = io::pipe().unwrap();
        write_to(&writer, b"hello").unwrap();
        drop(reader);
        assert!(matches!(write_to(&writer, b"x"), Err(StdoutError::Closed)));
        let full = File::options().write(true).open("/dev/full").unwrap();
        match write_to(&full, b"x") {
            Err(StdoutError::Failed(error)) => {
                assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_non_blocking_reader_gets_every_byte() {
        let (mut reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let sent: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 251) as u8).collect();
        let expected = sent.clone();
        let writing = std::thread::spawn(move || write_to(&writer, &sent));
        let mut received = Vec::new();
        reader.read_to_end(&mut received).unwrap();
        writing.join().unwrap().unwrap();
        assert!(received == expected);
    }
}
