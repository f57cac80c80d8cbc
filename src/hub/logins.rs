//! Logins: names without passwords, passwords on their way to the check, and who takes over.
//!
//! ```text
//!   login --blocked, no room--> refused
//!     \--> waiting --a place is free, and the name may fail once more--> being checked
//!                \--meanwhile blocked--> refused       right: in, wrong: refused, counted
//! ```
//!
//! The hub never sees what a password is compared with: the shell does that, and says how it went.
//! A check goes on when its session has gone, and counts.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddr,
};

use super::{
    CloseReason, Effect, Hub, Phase, SessionId, SourceNet, Time,
    admission::Mode,
    debts::Debts,
    lockout::{Failed, Lockout, Standing},
    names::Keyed,
    record,
    rights::Rights,
    timers::Alarm,
};
use crate::{
    limits::{LOGIN_FAILURES_MAX, PASSWORD_MAX_BYTES, PEER_SILENT_MAX},
    wire::{Dialect, ErrorCode::*, Event, Name, Refusal, Secret},
};

const WRONG: &str = "Invalid Password. Please try again";
const WRONG_AND_BLOCKED: &str =
    "Invalid Password. Your account has been blocked. Please try again later";
const BLOCKED: &str =
    "Your account is blocked due to multiple authentication failures. Please try again later";

/// What a check of a password has found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is the user's.
    Right,
    /// It is not, or there is no such user.
    Wrong,
    /// Nothing: it could not be checked, and does not count.
    Unchecked,
}

/// Whoever wants in with a password.
#[derive(Debug)]
pub(super) struct Logins {
    lockout: Lockout,
    /// Who has a password, and what they may do with it.
    accounts: HashMap<Name, Rights, Keyed>,
    /// Logins that wait for their check, oldest first.
    waiting: VecDeque<Waiting>,
    /// Those that are being checked, for whom it may concern by now, and where they came from.
    running: Vec<(SessionId, Name, SocketAddr)>,
    /// Logins from where many have failed, by the time from which on they wait as all others do.
    paced: BTreeMap<(Time, SessionId), Waiting>,
    /// For when an alarm is set for them.
    paced_due: Time,
    debts: Debts,
}

#[derive(Debug)]
struct Waiting {
    session: SessionId,
    name: Name,
    password: Secret<'static>,
    peer: SocketAddr,
}

impl Waiting {
    fn source(&self) -> SourceNet {
        SourceNet::of(self.peer.ip())
    }
}

impl Logins {
    pub(super) fn new(lockout: Lockout, key: Keyed) -> Logins {
        let accounts = HashMap::with_hasher(key);
        let (waiting, running, paced) = (VecDeque::new(), Vec::new(), BTreeMap::new());
        Logins {
            lockout,
            accounts,
            waiting,
            running,
            paced,
            paced_due: Time::NEVER,
            debts: Debts::new(key),
        }
    }

    /// Where the last of those waits that have come from the source with the most, if those are
    /// more than so many: they make room for a source that has fewer.
    fn last_of_many(&self, beyond: usize) -> Option<usize> {
        let of = |it: &Waiting| {
            self.waiting.iter().filter(|other| other.source() == it.source()).count()
        };
        let counts = self.waiting.iter().enumerate().map(|(at, it)| (of(it), at));
        counts.max().filter(|(count, _)| *count > beyond).map(|(_, at)| at)
    }

    /// The session has gone: nobody waits for its check any more.
    pub(super) fn forget(&mut self, id: SessionId) {
        self.waiting.retain(|waiting| waiting.session != id);
        if !self.paced.is_empty() {
            self.paced.retain(|_, waiting| waiting.session != id);
        }
    }

    /// How many are kept back, wait, and are checked.
    pub(super) fn counts(&self, unknown_max: usize) -> (usize, usize, usize) {
        assert_eq!(self.lockout.pending(), self.running.len(), "each check is counted once");
        assert!(self.lockout.unknown_count() <= unknown_max, "unknown names are bounded");
        (self.paced.len(), self.waiting.len(), self.running.len())
    }

    /// Whether the session waits or is checked: once.
    pub(super) fn has(&self, id: SessionId) -> bool {
        let waiting = self.waiting.iter().chain(self.paced.values());
        let waiting = waiting.filter(|waiting| waiting.session == id).count();
        let running = self.running.iter().filter(|(session, ..)| *session == id).count();
        assert!(waiting + running <= 1, "{id:?} is checked twice");
        waiting + running == 1
    }
}

impl Hub {
    pub(super) fn on_login(
        &mut self,
        id: SessionId,
        dialect: Dialect,
        name: Name,
        password: Option<Secret<'_>>,
    ) {
        let session = self.session(id).expect("its request is at hand");
        if let Some(own) = session.name() {
            let text = format!("you are {own}; to be somebody else, connect again");
            return self.refuse(id, 0, AlreadyNamed, text);
        }
        if !self.policy.asks_for_passwords() {
            return self.log_in_by_name(id, dialect, name);
        }
        let Some(password) = password.filter(|password| !password.reveal().is_empty()) else {
            let usage = dialect.login_usage();
            let text = format!(
                "this server asks for a password: {usage}, or a client that prompts for it"
            );
            return self.refuse_login(id, Refusal::new(0, LoginRequired, text));
        };
        if password.reveal().len() > PASSWORD_MAX_BYTES {
            let text = format!("a password has at most {PASSWORD_MAX_BYTES} bytes");
            return self.refuse_login(id, Refusal::new(0, BadArguments, text));
        }
        if self.logins.lockout.standing(&name, self.now) == Standing::Blocked {
            self.logins.lockout.count_refused(&name);
            return self.refuse_login(id, Refusal::new(0, Blocked, BLOCKED));
        }
        let peer = self.session(id).expect("its request is at hand").origin.peer();
        let login = Waiting { session: id, name, password: password.into_owned(), peer };
        let wait = self.logins.debts.wait(login.source(), self.now);
        if !wait.is_zero() {
            let due = self.now + wait;
            let session = self.session_mut(id).expect("its request is at hand");
            session.phase = Phase::Verifying { dialect };
            self.logins.paced.insert((due, id), login);
            return self.arm_paced();
        }
        if let Err(login) = self.queue(login) {
            return self.refuse_busy(login.session);
        }
        let session = self.session_mut(id).expect("its request is at hand");
        session.phase = Phase::Verifying { dialect };
        self.start_checks();
    }

    /// Has a login wait for its check, where there is room for it and for its source.
    fn queue(&mut self, login: Waiting) -> Result<(), Waiting> {
        let waiting = &self.logins.waiting;
        let limits = &self.limits;
        let own = || waiting.iter().filter(|it| it.source() == login.source()).count();
        let has_failed = self.logins.debts.has_any(login.source(), self.now);
        if has_failed && own() >= limits.logins_by_source_max {
            return Err(login);
        }
        if waiting.len() >= limits.logins_waiting_max {
            let Some(at) = self.logins.last_of_many(own() + 1) else { return Err(login) };
            let other = self.logins.waiting.remove(at).expect("it was found there");
            self.refuse_busy(other.session);
            self.freed.push(other.session);
        }
        self.logins.waiting.push_back(login);
        Ok(())
    }

    fn refuse_busy(&mut self, id: SessionId) {
        let text = "too many passwords are being checked at the moment; try again";
        self.refuse_login(id, Refusal::new(0, Busy, text));
    }

    /// Logins that were kept back because of failures before them have waited for long enough.
    pub(super) fn on_paced(&mut self) {
        while let Some(entry) = self.logins.paced.first_entry()
            && entry.key().0 <= self.now
        {
            let login = entry.remove();
            let id = login.session;
            if self.logins.lockout.standing(&login.name, self.now) == Standing::Blocked {
                self.logins.lockout.count_refused(&login.name);
                self.refuse_login(id, Refusal::new(0, Blocked, BLOCKED));
            } else if self.queue(login).is_err() {
                self.refuse_busy(id);
            } else {
                continue;
            }
            self.resume(id);
        }
        self.logins.paced_due = Time::NEVER;
        self.arm_paced();
        self.start_checks();
    }

    /// Sees to it that the first of those that are kept back is let go when it is due.
    fn arm_paced(&mut self) {
        let Some((&(due, _), _)) = self.logins.paced.first_key_value() else { return };
        if due < self.logins.paced_due {
            self.logins.paced_due = due;
            self.set_alarm(due, Alarm::Logins);
        }
    }

    /// Without passwords the first one of a name has it, as long as there is anybody.
    fn log_in_by_name(&mut self, id: SessionId, dialect: Dialect, name: Name) {
        if let Some(other) = self.names.get(name.as_bytes())
            && !self.is_half_open(other)
        {
            self.probe(other);
            let text = format!("somebody called {name} is here; choose another name");
            return match dialect {
                Dialect::Line | Dialect::Json => self.refuse(id, 0, NameTaken, text),
                // The first frame decides: there is nothing a nameless client could do.
                Dialect::Frame => {
                    let refusal = Refusal::new(0, NameTaken, text);
                    self.close(id, CloseReason::NameTaken, Some(&refusal));
                }
            };
        }
        self.enter(id, dialect, name, self.policy.rights_of_anybody());
    }

    /// Gives the name to the session, whoever had it.
    fn enter(&mut self, id: SessionId, dialect: Dialect, name: Name, rights: Rights) {
        if let Some(other) = self.names.get(name.as_bytes()) {
            let address = self.session(id).expect("the caller has it").origin.address();
            let text = format!("replaced by a login from {address}");
            self.close(other, CloseReason::Replaced, Some(&Refusal::new(0, Replaced, text)));
        }
        let is_free = self.names.claim(name, id);
        assert!(is_free, "whoever had the name was closed");
        let session = self.session_mut(id).expect("the caller has it");
        session.phase = Phase::Ready { dialect, name: Some(name) };
        session.rights = rights;
        session.login_by = None;
        let source = session.origin.source();
        record::logged_in(session, &name, dialect);
        self.strangers.remove(id, source);
        if matches!(self.policy.mode, Mode::Open { .. }) {
            self.unproven.insert(id, source);
        }
        self.arm(id);
        self.say(id, &Event::Welcome { name });
    }

    /// Whether the session is most likely one whose peer has vanished: it was asked whether it is
    /// there and has not answered, or has for long said nothing and taken nothing of what waits.
    fn is_half_open(&self, id: SessionId) -> bool {
        let session = self.session(id).expect("a taken name belongs to a session");
        let passed = |since: Time, time| since + time <= self.now;
        let is_stalled = session.stalled.is_some_and(|since| {
            let patience = self.limits.slow_consumer_timeout;
            passed(since, patience) && passed(session.heard, patience)
        });
        is_stalled || session.pinged.is_some_and(|since| passed(since, self.limits.half_open_after))
    }

    /// Asks a session whether it is there, ahead of time: somebody wants its name.
    fn probe(&mut self, id: SessionId) {
        let (now, doubt) = (self.now, PEER_SILENT_MAX + 2 * self.limits.watch_every);
        let session = self.session_mut(id).expect("a taken name belongs to a session");
        let is_asked = session.pinged.is_some() || session.dialect() != Some(Dialect::Frame);
        session.doubted_until = now + doubt;
        // Who has spoken just now is there.
        if !is_asked && session.heard < now {
            session.pinged = Some(now);
            self.say(id, &Event::Ping { number: now.0 as u32 });
        }
        self.watch(id);
    }

    /// Answers a login that has failed. Lines may try again; a framed client has to connect again,
    /// since its first frame decides.
    fn refuse_login(&mut self, id: SessionId, refusal: Refusal) {
        let Some(session) = self.session_mut(id) else { return };
        let has_failed = matches!(refusal.code, LoginFailed | Blocked);
        session.login_failures += u8::from(has_failed);
        let is_enough = session.login_failures >= LOGIN_FAILURES_MAX;
        match session.phase {
            Phase::Closing { .. } => {}
            _ if is_enough => self.close(id, CloseReason::NotLoggedIn, Some(&refusal)),
            _ if session.dialect() == Some(Dialect::Frame) => {
                self.close(id, CloseReason::NotLoggedIn, Some(&refusal));
            }
            Phase::Verifying { dialect } => {
                session.phase = Phase::Ready { dialect, name: None };
                self.arm(id);
                self.say(id, &Event::Error(&refusal));
            }
            _ => self.say(id, &Event::Error(&refusal)),
        }
    }

    /// Lets passwords through to the check, as many as may be there at once. Whoever's name may
    /// not fail once more waits, and does not hold up those behind.
    fn start_checks(&mut self) {
        let now = self.now;
        while self.logins.running.len() < self.limits.verifications_max {
            let Logins { lockout, waiting, .. } = &mut self.logins;
            let is_free = |it: &Waiting| lockout.standing(&it.name, now) == Standing::Free;
            let Some(at) = waiting.iter().position(is_free) else { return };
            let next = waiting.remove(at).expect("it was found there");
            let Waiting { session, name, password, peer } = next;
            let refused = lockout.let_through(name, now);
            if refused > 0 {
                let known = self.logins.accounts.contains_key(&name).then_some(&name);
                record::block_over(known, refused);
            }
            self.logins.running.push((session, name, peer));
            self.effects.push_back(Effect::Verify { session, name, password });
        }
    }

    pub(super) fn on_verified(&mut self, id: SessionId, verdict: Verdict) {
        let mut running = self.logins.running.iter();
        let Some(at) = running.position(|(session, ..)| *session == id) else { return };
        let (_, name, peer) = self.logins.running.remove(at);
        let known = self.logins.accounts.contains_key(&name).then_some(&name);
        let lockout = &mut self.logins.lockout;
        match verdict {
            Verdict::Right => {
                lockout.succeed(name);
                self.admit(id, name);
            }
            Verdict::Wrong => {
                let failed = lockout.fail(name, self.now);
                record::login_failed(known, id, peer, lockout.failures_of(&name));
                self.logins.debts.add(SourceNet::of(peer.ip()), self.now);
                match failed {
                    Failed::MayTryAgain => {
                        self.refuse_login(id, Refusal::new(0, LoginFailed, WRONG));
                    }
                    Failed::IsBlocked => {
                        record::blocked(known, peer, self.limits.lockout_time.as_secs());
                        self.refuse_login(id, Refusal::new(0, Blocked, WRONG_AND_BLOCKED));
                        self.refuse_waiting(name);
                    }
                }
            }
            Verdict::Unchecked => {
                lockout.give_back(name);
                let text = "the password could not be checked just now; try again";
                self.refuse_login(id, Refusal::new(0, Busy, text));
            }
        }
        self.start_checks();
        self.resume(id);
    }

    /// Lets in whoever has given the right password, if there is still anybody.
    fn admit(&mut self, id: SessionId, name: Name) {
        let Some(Phase::Verifying { dialect }) = self.session(id).map(|it| &it.phase) else {
            return;
        };
        let dialect = *dialect;
        match self.logins.accounts.get(&name) {
            Some(rights) => {
                let rights = rights.union(self.policy.granted());
                self.enter(id, dialect, name, rights);
            }
            // It was taken away since the check began.
            None => self.refuse_login(id, Refusal::new(0, LoginFailed, WRONG)),
        }
    }

    /// Refuses those who wait for a check of this name, which is blocked now: unchecked.
    fn refuse_waiting(&mut self, name: Name) {
        let mut refused = Vec::new();
        self.logins.waiting.retain(|waiting| {
            if waiting.name == name {
                refused.push(waiting.session);
            }
            waiting.name != name
        });
        for id in refused {
            self.logins.lockout.count_refused(&name);
            self.refuse_login(id, Refusal::new(0, Blocked, BLOCKED));
            self.resume(id);
        }
    }

    /// Takes in who has a password from now on. Sessions of those in `changed`, whose password is
    /// another one, and of those who have none any more have to log in again; the others may do
    /// from now on what their accounts say.
    pub(super) fn on_accounts(&mut self, accounts: &[(Name, Rights)], changed: &[Name]) {
        self.logins.lockout.set_names(accounts.iter().map(|(name, _)| *name));
        self.logins.accounts.clear();
        self.logins.accounts.extend(accounts.iter().copied());
        if !self.policy.asks_for_passwords() {
            return;
        }
        let granted = self.policy.granted();
        let named: Vec<_> = self.names.iter().map(|(name, id)| (*name, id)).collect();
        for (name, id) in named {
            match self.logins.accounts.get(&name) {
                Some(rights) if !changed.contains(&name) => {
                    let rights = rights.union(granted);
                    self.set_rights(id, rights);
                }
                _ => {
                    let text = "your password was changed or taken away; log in again";
                    let refusal = Refusal::new(0, LoginRequired, text);
                    self.close(id, CloseReason::NotLoggedIn, Some(&refusal));
                }
            }
        }
    }
}
