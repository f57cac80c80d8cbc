//! The signals that a session hears of.

use std::{io, sync::Arc};

use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGWINCH, SIGXFSZ};
use signal_hook_mio::v1_0::Signals;

use crate::sys::terminal;

/// Those that end it, and those that change its terminal.
pub(super) fn listen(takes_whole_terminal: bool, is_edited: bool) -> io::Result<Signals> {
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    if takes_whole_terminal {
        signals.add_signal(SIGWINCH)?;
    }
    if is_edited {
        signals.add_signal(SIGCONT)?;
        terminal::take_stops(false);
    }
    // A write beyond the file size limit is an error then, and not the end.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    Ok(signals)
}
