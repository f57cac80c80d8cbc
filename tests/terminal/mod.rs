//! The client at a terminal: a pseudo-terminal with the screen that it paints.

#![allow(dead_code, reason = "every test takes what it needs")]

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::IpAddr,
    process::Command,
    sync::mpsc,
    thread,
    time::Instant,
};

use expectrl::{Session, session::OsSession};
use rustix::{
    process::Pid,
    termios::{LocalModes, Winsize, tcgetattr, tcgetpgrp, tcsetwinsize},
};
use tempfile::TempDir;

use crate::process::{PATIENCE, Server, await_true};

pub const ROWS: u16 = 24;
pub const COLUMNS: u16 = 80;

/// A client in a pseudo-terminal.
pub struct Terminal {
    session: OsSession,
    master: File,
    bytes: mpsc::Receiver<Vec<u8>>,
    pub screen: vt100::Parser,
    pub folder: TempDir,
}

impl Terminal {
    /// The prompt.
    pub fn start(server: &Server, ip: IpAddr, user: &str) -> Terminal {
        let mut terminal = Terminal::start_with(server, ip, &["--user", user]);
        terminal.await_last(&format!("{user}>"));
        terminal
    }

    /// The client with these arguments.
    pub fn start_with(server: &Server, ip: IpAddr, arguments: &[&str]) -> Terminal {
        let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
        command.args(["--ip", &ip.to_string(), "--port", &server.port.to_string()]);
        command.args(arguments);
        Terminal::start_command(command)
    }

    /// Any program.
    pub fn start_command(mut command: Command) -> Terminal {
        let folder = TempDir::new().expect("a folder");
        command.current_dir(folder.path());
        command.env("XDG_STATE_HOME", folder.path()).env("TERM", "xterm-256color");
        let mut session = Session::spawn(command).expect("the client starts");
        session.get_process_mut().set_window_size(COLUMNS, ROWS).expect("a window");
        let master = session.get_process().get_raw_handle().expect("our end");
        let mut reader = master.try_clone().expect("a descriptor");
        let (sender, bytes) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A terminal that is left by its last program gives an error.
            while let Ok(count @ 1..) = reader.read(&mut buffer)
                && sender.send(buffer[..count].to_vec()).is_ok()
            {}
        });
        let screen = vt100::Parser::new(ROWS, COLUMNS, 0);
        Terminal { session, master, bytes, screen, folder }
    }

    pub fn write(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("it takes keys");
    }

    pub fn lines(&self) -> Vec<String> {
        let contents = self.screen.screen().contents();
        contents.lines().map(|line| line.trim_end().to_owned()).filter(|l| !l.is_empty()).collect()
    }

    /// Paints until the screen is as it should be.
    pub fn await_screen(&mut self, what: &str, is_so: impl Fn(&[String]) -> bool) {
        let begun = Instant::now();
        while !is_so(&self.lines()) {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            match self.bytes.recv_timeout(left) {
                Ok(bytes) => self.screen.process(&bytes),
                Err(_) => panic!("never came: {what}; the screen:\n{}", self.lines().join("\n")),
            }
        }
    }

    pub fn await_line(&mut self, line: &str) {
        self.await_screen(line, |lines| lines.iter().any(|it| it == line));
    }

    pub fn await_start(&mut self, start: &str) {
        self.await_screen(start, |lines| lines.iter().any(|it| it.starts_with(start)));
    }

    pub fn await_last(&mut self, line: &str) {
        self.await_screen(line, |lines| lines.last().is_some_and(|it| it == line));
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.session.get_process().pid().as_raw()).expect("a process")
    }

    /// The process group that has the terminal.
    pub fn foreground(&self) -> Pid {
        tcgetpgrp(&self.master).expect("a group")
    }

    /// Waits for the end of the client and gives back its code.
    pub fn code(&mut self) -> i32 {
        use expectrl::process::unix::WaitStatus;
        let mut code = None;
        await_true("the end of the client", || {
            match self.session.get_process().status().expect("it is our child") {
                WaitStatus::StillAlive => {}
                WaitStatus::Exited(_, exited) => code = Some(exited),
                other => panic!("{other:?}"),
            }
            code.is_some()
        });
        code.expect("it was awaited")
    }

    /// Makes the window larger or smaller, of which the client is told.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        self.screen.screen_mut().set_size(rows, columns);
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).expect("a window");
    }

    /// Paints what is there until the client has ended and its code is this one.
    pub fn await_end(&mut self, code: i32) {
        assert_eq!(self.code(), code);
        // The reader ends with the terminal.
        while let Ok(bytes) = self.bytes.recv_timeout(PATIENCE) {
            self.screen.process(&bytes);
        }
    }

    pub fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.master).expect("a terminal").local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ISIG)
    }
}
