//! The whole of a terminal, on which [`View`] paints, and the keys beside it.

use std::{io::Read as _, thread};

use super::{
    outlet::Outlet,
    post::{News, Post},
    screen::Shown,
    top::View,
};
use crate::sys::terminal::{self, AlternateScreen, Stream};

/// Columns and rows of a terminal that does not know its size.
const USUAL_SIZE: (u16, u16) = (80, 24);

/// A view on its terminal. Dropped, the terminal shows again what it showed before.
pub struct Canvas {
    view: View,
    colours: bool,
    _screen: AlternateScreen,
}

impl Canvas {
    /// Takes the terminal for a view of the server of this name.
    pub fn open(server: String) -> Canvas {
        let colours = terminal::wants_colour(Stream::Stdout);
        Canvas { view: View::new(server), colours, _screen: AlternateScreen::enter() }
    }

    /// Takes in what others would print, and paints.
    pub fn show(&mut self, shown: &Shown, outlet: &Outlet) {
        self.view.take(shown);
        self.paint(outlet);
    }

    /// Paints anew. A terminal that has not taken the last picture yet gets none: the next one
    /// will be fresher.
    pub fn paint(&self, outlet: &Outlet) {
        if outlet.is_idle() {
            let (columns, rows) = terminal::size().unwrap_or(USUAL_SIZE);
            outlet.text(self.view.paint(columns, rows, self.colours), None);
        }
    }

    /// Gives the terminal back; what has ended the view is returned.
    pub fn close(self) -> Option<Shown> {
        self.view.into_error()
    }
}

/// Reads keys, and says when one of them means the end.
///
/// # Errors
/// The system has no thread for it; a sentence.
pub fn start_keys(post: Post) -> Result<(), String> {
    let spawned = thread::Builder::new().name("keys".into()).spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut key = [0];
        // A terminal that is gone tells by a signal, and other input has an end like any.
        while let Ok(1) = input.read(&mut key) {
            if matches!(key[0], b'q' | b'Q') && !post.send(News::Enough) {
                return;
            }
        }
    });
    spawned.map(drop).map_err(|error| format!("no thread can be had to read keys: {error}"))
}
