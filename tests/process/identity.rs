//! Other accounts of this machine, credentials, and clients that log in with them.

use std::{
    net::IpAddr, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command, thread,
};

use rustix::process::{Uid, geteuid};
use serde_json::{Value, json};
use sixfour::wire::frame::client;
use tempfile::TempDir;

use super::{Framed, Line, News, Server, folder};

/// An account that owns nothing.
pub const NOBODY: u32 = 65_534;

/// Does something as another account, in a thread of its own: on Linux, each thread has its
/// credentials (setresuid(2)). `None`, with the reason printed, where that is not allowed.
pub fn as_nobody<T: Send>(what: impl FnOnce() -> T + Send) -> Option<T> {
    if !geteuid().is_root() {
        println!("skipped: only root may act as another account");
        return None;
    }
    let act = || {
        let nobody = Uid::from_raw(NOBODY);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("we are root");
        what()
    };
    thread::scope(|scope| Some(scope.spawn(act).join().expect("it does not panic")))
}

/// A server with a credentials file, `credentials.txt` in its working folder.
pub struct Guarded {
    pub server: Server,
    pub folder: TempDir,
}

impl Guarded {
    pub fn start(credentials: &str, arguments: &[&str]) -> Guarded {
        let folder = folder();
        put_credentials(&folder, credentials);
        let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
        command.args(["--port", "0"]).args(arguments).current_dir(folder.path());
        Guarded { server: Server::start_command(command), folder }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("credentials.txt")
    }

    /// Replaces the file and has it read.
    pub fn reload(&self, credentials: &str) {
        put_credentials(&self.folder, credentials);
        self.server.signal(rustix::process::Signal::HUP);
    }

    /// What a line session hears that says only this.
    pub fn say(&self, ip: IpAddr, text: &str) -> String {
        let mut line = self.server.line(ip);
        line.send_bytes(text.as_bytes());
        line.half_close();
        line.rest_text()
    }

    /// A line session that has logged in.
    pub fn user(&self, ip: IpAddr, name: &str, password: &str) -> Line {
        let mut line = self.server.line(ip);
        line.send(&format!("user {name} {password}"));
        assert_eq!(line.next(), format!("welcome {name}"));
        line
    }

    /// A framed session that has said its hello, and the answer.
    pub fn framed(&self, ip: IpAddr, name: &str, password: &str) -> (Framed, News) {
        let mut framed = Framed::begin(self.server.connect(ip));
        let hello: Value = json!({"version": 1, "user": name, "password": password});
        framed.send(client::HELLO, 0, hello.to_string().as_bytes());
        let answer = framed.next();
        (framed, answer)
    }
}

fn put_credentials(folder: &TempDir, text: &str) {
    let path = folder.path().join("credentials.txt");
    std::fs::write(&path, text).expect("a file of the test");
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&path, private).expect("our own file");
}

/// The argon2id hash of a password, as `server passwd` makes it.
pub fn hashed(password: &str) -> String {
    let hash = sixfour::sys::password::Hash::of(password.as_bytes()).expect("randomness");
    hash.as_str().to_owned()
}
