//! Machines of the test's own: network namespaces, which pairs of virtual interfaces may join.
//!
//! Needs root and `ip` (iproute2); without them the tests say so and pass.

use std::process::{Command, Stdio};

/// Namespaces that are told apart by a letter; gone when dropped.
pub struct Machines {
    name: String,
    letters: &'static [char],
}

/// One end of a line between two machines.
pub struct End<'a> {
    pub machine: char,
    pub interface: &'a str,
    pub v6: &'a str,
    pub v4: &'a str,
}

impl Machines {
    /// `None`, with the reason printed, where this host does not allow it.
    pub fn new(purpose: &str, letters: &'static [char]) -> Option<Machines> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root may make network namespaces");
            return None;
        }
        let name = format!("sixfour-{purpose}-{}", std::process::id());
        let machines = Machines { name, letters };
        for letter in letters {
            if let Err(why) = ip(&["netns", "add", &machines.namespace(*letter)]) {
                println!("skipped: no network namespaces here ({why})");
                return None;
            }
            machines.set(*letter, &["link", "set", "lo", "up"]);
        }
        Some(machines)
    }

    /// The name that the host knows this machine's namespace by.
    pub fn namespace(&self, letter: char) -> String {
        format!("{}-{letter}", self.name)
    }

    /// Lays a line between two machines. `None`, with the reason printed, where this host does not
    /// allow it.
    pub fn join(&self, ends: [End; 2]) -> Option<()> {
        let [this, other] = ends.each_ref().map(|end| self.namespace(end.machine));
        let near = ["link", "add", ends[0].interface, "netns", &this, "type", "veth"];
        let far = ["peer", "name", ends[1].interface, "netns", &other];
        if let Err(why) = ip(&[&near[..], &far[..]].concat()) {
            println!("skipped: no virtual interfaces here ({why})");
            return None;
        }
        for end in ends {
            let (v6, v4) = (format!("{}/64", end.v6), format!("{}/24", end.v4));
            self.set(end.machine, &["address", "add", &v6, "dev", end.interface, "nodad"]);
            self.set(end.machine, &["address", "add", &v4, "dev", end.interface]);
            self.set(end.machine, &["link", "set", end.interface, "up"]);
        }
        Some(())
    }

    /// Runs `ip` with these arguments on this machine.
    pub fn set(&self, letter: char, arguments: &[&str]) {
        let namespace = self.namespace(letter);
        ip(&[&["-n", &namespace], arguments].concat()).expect("a network of our own");
    }

    /// Begins what runs on this machine: words that a program and its arguments are put behind.
    pub fn prefix(&self, letter: char) -> [String; 4] {
        ["ip".into(), "netns".into(), "exec".into(), self.namespace(letter)]
    }

    /// A program that runs on this machine.
    pub fn command(&self, letter: char, program: &str) -> Command {
        let prefix = self.prefix(letter);
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]).arg(program);
        command
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for letter in self.letters {
            let _ = ip(&["netns", "delete", &self.namespace(*letter)]);
        }
    }
}

/// Runs `ip`; the error says why it could not.
fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}
