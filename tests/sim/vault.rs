//! The passwords of the simulation: who has which, what is being checked, and whether the hub
//! keeps to the rule of the lockout.

use std::collections::BTreeMap;

use sixfour::{
    hub::{Input, SessionId, Verdict, rights::Rights},
    wire::Name,
};

use crate::{LIMITS, World};

/// Failures in a row that block a name.
pub const ATTEMPTS: u8 = 2;

/// Passwords, and what the shell does with them.
#[derive(Default)]
pub struct Vault {
    /// Whether passwords are asked for at all.
    pub is_closed: bool,
    /// How often the password of each name was changed.
    versions: Vec<u32>,
    /// What is being checked: for whom, whose password, what was given and how it was then.
    checks: Vec<Check>,
    /// Failures in a row, and until when a name is blocked, as the rule says.
    failures: BTreeMap<Name, (u8, u64)>,
}

struct Check {
    session: SessionId,
    name: Name,
    verdict: Verdict,
    version: u32,
}

impl Vault {
    pub fn new(is_closed: bool, names: usize) -> Vault {
        Vault { is_closed, versions: vec![0; names], ..Vault::default() }
    }

    /// The password of `p0`, `p1` ...
    pub fn password(&self, name: usize) -> Option<String> {
        let version = self.versions.get(name).filter(|_| self.is_closed)?;
        Some(format!("secret {name} {version}"))
    }

    fn version(&self, name: &Name) -> u32 {
        let number: usize = name.as_str()[1..].parse().expect("names are p and a number");
        self.versions.get(number).copied().unwrap_or(u32::MAX)
    }

    pub fn is_checking(&self, session: SessionId) -> bool {
        self.checks.iter().any(|check| check.session == session)
    }
}

impl World {
    /// Tells the hub who has a password.
    pub fn set_accounts(&mut self, changed: &[Name]) {
        let name = |at: usize| Name::parse(&format!("p{at}")).expect("a good name");
        let count = self.vault.versions.len();
        let accounts: Vec<_> = (0..count).map(|at| (name(at), Rights::ALL)).collect();
        self.input(Input::Accounts { accounts: &accounts, changed });
    }

    /// Somebody gets another password.
    pub fn change_password(&mut self) {
        let at = self.rng.range(0, self.vault.versions.len() - 1);
        self.vault.versions[at] += 1;
        self.saw("other password");
        let name = Name::parse(&format!("p{at}")).expect("a good name");
        self.set_accounts(&[name]);
        for peer in &mut self.peers {
            peer.password = self.vault.password(peer.name);
        }
    }

    /// The hub wants a password checked.
    pub fn begin_check(&mut self, session: SessionId, name: Name, password: &str) {
        assert!(self.vault.is_closed, "nobody asks for passwords");
        let (failures, until) = self.vault.failures.get(&name).copied().unwrap_or_default();
        assert!(failures < ATTEMPTS || until <= self.now, "{name} is blocked");
        let under_way = self.vault.checks.iter().filter(|check| check.name == name).count() as u8;
        let left = ATTEMPTS - if failures < ATTEMPTS { failures } else { 0 };
        assert!(under_way < left, "{name} has {left} failures to go, and all are taken");
        assert!(!self.vault.is_checking(session), "{session:?} is checked twice");
        let number = name.as_str()[1..].parse().expect("names are p and a number");
        let verdict = match self.vault.password(number).is_some_and(|it| it == password) {
            true => Verdict::Right,
            false => Verdict::Wrong,
        };
        let version = self.vault.version(&name);
        self.vault.checks.push(Check { session, name, verdict, version });
        assert!(self.vault.checks.len() <= LIMITS.verifications_max);
    }

    /// Some check is over.
    pub fn end_check(&mut self) {
        if self.vault.checks.is_empty() {
            return;
        }
        let at = self.rng.range(0, self.vault.checks.len() - 1);
        let Check { session, name, verdict, version } = self.vault.checks.remove(at);
        let is_stale = version != self.vault.version(&name);
        let verdict = if is_stale { Verdict::Unchecked } else { verdict };
        let (failures, until) = self.vault.failures.entry(name).or_default();
        match verdict {
            Verdict::Right => *failures = 0,
            Verdict::Wrong => {
                *failures = if *failures < ATTEMPTS { *failures + 1 } else { 1 };
                *until = self.now + LIMITS.lockout_time.as_millis() as u64;
            }
            Verdict::Unchecked => {}
        }
        self.saw(&format!("{verdict:?}"));
        if self.dead_sessions.contains(&session) {
            self.saw("check of a ghost");
        }
        self.input(Input::Verified { session, verdict });
    }
}
