//! The live view of a server: the latest facts on the whole of a terminal.
//!
//! Pure: what is to be shown in, one screen of bytes out. Lines that are too long and rows for
//! which there is no room are cut.

use super::{
    facts::{self, Fact},
    screen::Shown,
};
use crate::wire::{escape::escape, info::Info};

/// Columns of a bar, and columns of the terminal below which there are no bars.
const BAR_COLUMNS: usize = 20;
const BARS_FROM_COLUMNS: usize = 70;

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// What is known, and what is to be said about it.
#[derive(Debug)]
pub struct View {
    /// The server, as the user named it.
    server: String,
    info: Option<Info>,
    status: Status,
    /// The error that ends it: to be told where it stays, when the view is gone.
    error: Option<Shown>,
}

#[derive(Debug, PartialEq)]
enum Status {
    Connected,
    /// Something about the connection.
    Trouble(String),
}

impl View {
    /// An empty one.
    pub fn new(server: String) -> View {
        View { server, info: None, status: Status::Connected, error: None }
    }

    /// Takes in what others would print.
    pub fn take(&mut self, shown: &Shown) {
        match shown {
            Shown::Info(object) => {
                if let Some(info) = Info::of(object) {
                    (self.info, self.status) = (Some(info), Status::Connected);
                }
            }
            Shown::Welcome { .. } => self.status = Status::Connected,
            Shown::Notice(text) => self.status = Status::Trouble(text.clone()),
            Shown::Error { text, .. } => {
                self.status = Status::Trouble(text.clone());
                self.error = Some(shown.clone());
            }
            _ => {}
        }
    }

    /// What ended it, if anything did.
    pub fn into_error(self) -> Option<Shown> {
        self.error
    }

    /// One screen, from its first corner to its last, painted over the one before.
    pub fn paint(&self, columns: u16, rows: u16, colours: bool) -> Vec<u8> {
        let (columns, rows) = (usize::from(columns), usize::from(rows));
        let mut screen = String::from("\x1b[H");
        for (row, (style, line)) in self.lines(columns).into_iter().take(rows).enumerate() {
            if row > 0 {
                screen.push_str("\r\n");
            }
            let line: String = line.chars().take(columns).collect();
            match style.filter(|_| colours) {
                Some(style) => screen.push_str(&format!("{style}{line}{PLAIN}")),
                None => screen.push_str(&line),
            }
            screen.push_str("\x1b[K");
        }
        screen.push_str("\x1b[J");
        screen.into_bytes()
    }

    fn lines(&self, columns: usize) -> Vec<(Option<&'static str>, String)> {
        let server = escape(&self.server);
        let head = match &self.status {
            Status::Connected if self.info.is_none() => (None, format!("{server}: asking ...")),
            Status::Connected => (Some(BOLD), format!("{server}   q leaves")),
            Status::Trouble(text) => (Some(RED), format!("{server}: {}", escape(text))),
        };
        let mut lines = vec![head];
        if let Some(info) = &self.info {
            lines.extend(facts::heads(info).iter().map(|fact| (None, line_of(fact, columns))));
            lines.push((None, String::new()));
            lines.extend(facts::facts(info).iter().map(|fact| (None, line_of(fact, columns))));
        }
        lines
    }
}

fn line_of(fact: &Fact, columns: usize) -> String {
    let Fact { about, text, percent } = fact;
    match percent {
        Some(percent) if columns >= BARS_FROM_COLUMNS => {
            let full = (percent / 100.0 * BAR_COLUMNS as f64).round().clamp(0.0, 20.0) as usize;
            let (full, rest) = ("#".repeat(full), ".".repeat(BAR_COLUMNS - full));
            format!("{about:<9} [{full}{rest}] {text}")
        }
        _ => format!("{about:<9} {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::info::{Disk, Processor};

    fn painted(view: &View, columns: u16, rows: u16) -> Vec<String> {
        let mut parser = vt100::Parser::new(rows, columns, 0);
        // What is there already must not shine through.
        parser.process("#".repeat(usize::from(columns) * usize::from(rows)).as_bytes());
        parser.process(&view.paint(columns, rows, true));
        parser.screen().rows(0, columns).map(|row| row.trim_end().to_owned()).collect()
    }

    fn info() -> Info {
        let cpu = Processor { used_percent: 50.0, ..Processor::default() };
        let disk = Disk { path: "p".repeat(300), ..Disk::default() };
        Info { name: "host\u{1b}[2J".into(), cpu, disks: vec![disk; 100], ..Info::default() }
    }

    #[test]
    fn a_screen_is_filled_and_never_left() {
        let mut view = View::new("::1 port 5000".into());
        assert_eq!(painted(&view, 80, 24)[0], "::1 port 5000: asking ...");
        view.take(&Shown::Info(info().into_object()));
        for (columns, rows) in [(80, 24), (20, 5), (200, 60), (1, 1), (80, 1), (300, 200)] {
            let lines = painted(&view, columns, rows);
            assert!(lines[0].starts_with(&"::1 port 5000"[..usize::from(columns).min(13)]));
            assert!(!lines.concat().contains("##########################"), "{lines:#?}");
        }
        let lines = painted(&view, 80, 24);
        assert!(lines[1].starts_with("host      host\\x1b[2J, "), "{lines:#?}");
        assert!(lines[4].starts_with("cpu       [##########..........] 50.0 % of 0"), "{lines:#?}");
        assert!(painted(&view, 60, 24)[4].starts_with("cpu       50.0 %"));
    }

    #[test]
    fn a_lost_server_is_said_and_the_last_facts_stay() {
        let mut view = View::new("host".into());
        view.take(&Shown::Info(info().into_object()));
        view.take(&Shown::Notice("connection lost: x\u{1b}; trying".into()));
        let lines = painted(&view, 80, 24);
        assert_eq!(lines[0], "host: connection lost: x\\x1b; trying");
        assert!(lines[4].starts_with("cpu"));
        view.take(&Shown::Info(info().into_object()));
        assert_eq!(painted(&view, 80, 24)[0], "host   q leaves");
        assert_eq!(view.into_error(), None);
    }
}
