//! Who is at the other end: owners of connections, and passwords, found out away from the loop.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use mio::{Waker, net::TcpStream};

use super::{arguments::Arguments, credentials, credentials::Credentials};
use crate::{
    hub::{
        SessionId, Verdict,
        admission::{Mode, Origin, Owner, Policy},
        rights::Rights,
    },
    limits::Limits,
    sys::{
        held_place::HeldPlace,
        peer_owner::{FarEnd, OwnAccount, SocketTable, find_in_proc},
        workers::{Behalf, Workers},
    },
    wire::{Name, Secret},
};

/// Connections whose owner is looked up the slow way and that may wait for that.
const LOOKUPS_MAX: usize = 1024;

/// What was asked for, checked as far as that goes without sockets.
pub struct Plan {
    policy: Policy,
    credentials: Option<(HeldPlace, Credentials)>,
    /// Where a file with passwords is, or would be found at the next start.
    hidden: Vec<HeldPlace>,
    /// What devices may store where anybody may be one.
    open_quota_bytes: u64,
    /// Do without the quick way to find owners, for kernels where it tells nonsense.
    slow_owners: bool,
}

impl Plan {
    /// Reads the credentials file, if one was named or lies in the working folder.
    ///
    /// # Errors
    /// One sentence for the operator.
    pub fn prepare(arguments: &Arguments) -> Result<Plan, String> {
        let grant = arguments.grant.unwrap_or(Rights::NONE);
        let found = PathBuf::from(credentials::DEFAULT_PATH);
        let path = match &arguments.credentials {
            Some(path) => Some(path.clone()),
            // A link that leads nowhere is no reason to do without passwords.
            None => found.symlink_metadata().is_ok().then_some(found),
        };
        let credentials = match path {
            Some(path) if arguments.open => {
                return Err(format!(
                    "--open serves anybody, and {} here asks for passwords; take one of them away",
                    path.display()
                ));
            }
            Some(path) => {
                let place = place_of(&path)?;
                let credentials = Credentials::load(&place).map_err(|error| error.to_string())?;
                Some((place, credentials))
            }
            None => None,
        };
        let mut hidden = vec![place_of(Path::new(credentials::DEFAULT_PATH))?];
        hidden.extend(credentials.as_ref().map(|(place, _)| place.clone()));
        let mode = match &credentials {
            Some(_) => Mode::Credentials { grant, attempts: arguments.attempts() },
            None if arguments.open => Mode::Open { rights: Rights::OPEN.union(grant) },
            None => Mode::Protected,
        };
        if mode == Mode::Protected && (arguments.grant.is_some() || arguments.plaintext) {
            log::warn!(
                "--grant and --plaintext change nothing in protected mode; they go with \
                 --credentials or --open"
            );
        }
        let policy = Policy { mode, plaintext: arguments.plaintext };
        let (slow_owners, open_quota_bytes) = (arguments.no_sock_diag, arguments.open_quota);
        Ok(Plan { policy, credentials, hidden, open_quota_bytes, slow_owners })
    }

    /// How much devices may store, unless all who may do so are known.
    pub fn quota_bytes(&self) -> Option<u64> {
        let is_open = matches!(self.policy.mode, Mode::Open { .. });
        is_open.then_some(self.open_quota_bytes)
    }

    /// Whom the server serves.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// What must not be served: the file with the passwords, and any that would be one at the
    /// next start.
    pub fn hidden_places(&self) -> Vec<HeldPlace> {
        self.hidden.clone()
    }
}

fn place_of(path: &Path) -> Result<HeldPlace, String> {
    HeldPlace::of(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

/// Finds out who is who.
pub struct Admission {
    policy: Policy,
    account: OwnAccount,
    owners: Owners,
    passwords: Option<Passwords>,
}

/// How owners of connections are found.
enum Owners {
    /// Nobody asks.
    NotAsked,
    /// In no time.
    Quick(Box<SocketTable>),
    /// By a worker.
    Slow(Workers<Found>),
}

/// The credentials in force, and those who compare passwords with them.
struct Passwords {
    /// The same place that is hidden, whatever becomes of the path that was named.
    place: HeldPlace,
    current: Arc<Credentials>,
    workers: Workers<Done>,
    /// Whether the file is being read, and whether it is to be read once more after that.
    reading: bool,
    read_again: bool,
}

/// A connection whose owner was looked up; `None` where that failed badly.
type Found = Option<(TcpStream, SocketAddr, Owner)>;

enum Done {
    Checked { session: SessionId, name: Name, verdict: Verdict, with: Arc<Credentials> },
    Read(io::Result<Credentials>),
}

/// Something that was found out.
pub enum News {
    /// Whose this connection is.
    Arrived(TcpStream, Origin),
    /// Whether a password was right.
    Verified(SessionId, Verdict),
    /// There are other accounts now, and some have other passwords.
    Accounts(Vec<(Name, Rights)>, Vec<Name>),
}

impl Admission {
    /// Does what `plan` says.
    pub fn new(plan: Plan, limits: &Limits, waker: Arc<Waker>) -> Admission {
        let Plan { policy, credentials, slow_owners, .. } = plan;
        let owners = match policy.mode {
            Mode::Open { .. } | Mode::Credentials { .. } => Owners::NotAsked,
            Mode::Protected if slow_owners => Owners::slow(Arc::clone(&waker)),
            Mode::Protected => match SocketTable::open() {
                Ok(table) => Owners::Quick(Box::new(table)),
                Err(error) => {
                    log::info!("owners of connections are looked up in /proc: {error}");
                    Owners::slow(Arc::clone(&waker))
                }
            },
        };
        let passwords = credentials.map(|(place, credentials)| {
            credentials.warnings.iter().for_each(|warning| log::warn!("{warning}"));
            // The hub asks for no more at once; one place is for reading the file.
            let places = limits.verifications_max + 1;
            let workers = Workers::in_background(limits.verifications_max, places, waker);
            let current = Arc::new(credentials);
            Passwords { place, current, workers, reading: false, read_again: false }
        });
        Admission { policy, account: OwnAccount::current(), owners, passwords }
    }

    /// One line for the operator: whom the server serves.
    pub fn describe(&self) -> String {
        let clear = if self.policy.plaintext { ", other machines also in clear" } else { "" };
        match (self.policy.mode, &self.passwords) {
            (Mode::Protected, _) => format!(
                "protected mode: only this account (user id {}) and root on this machine are \
                 served, and may do everything; --credentials and --open serve others",
                self.account.id()
            ),
            (Mode::Open { rights }, _) => {
                format!("open: anybody is served, with the rights {rights}{clear}")
            }
            (Mode::Credentials { attempts, .. }, passwords) => {
                let Some(passwords) = passwords else { unreachable!("the mode has passwords") };
                format!(
                    "{} users of {} are served{clear}; {attempts} failed logins in a row block a \
                     name",
                    passwords.current.count(),
                    passwords.place.shown().display()
                )
            }
        }
    }

    /// Everybody who has a password.
    pub fn accounts(&self) -> Vec<(Name, Rights)> {
        self.passwords.as_ref().map_or(Vec::new(), |passwords| passwords.current.accounts())
    }

    /// Tells where a new connection comes from. Gives nothing back where that takes a while: then
    /// the connection is [`News::Arrived`] later.
    pub fn receive(&mut self, stream: TcpStream, peer: SocketAddr) -> Option<(TcpStream, Origin)> {
        let unknown = Origin::new(peer, Owner::Unknown);
        if matches!(self.owners, Owners::NotAsked) || !unknown.is_local() {
            return Some((stream, unknown));
        }
        let Ok(local) = stream.local_addr() else { return Some((stream, unknown)) };
        let end = FarEnd::new(peer, local);
        let account = self.account;
        match &mut self.owners {
            Owners::NotAsked => Some((stream, unknown)),
            Owners::Quick(table) => {
                let owner = owner_of(table.find(end), account);
                Some((stream, Origin::new(peer, owner)))
            }
            Owners::Slow(workers) => {
                let job = move || Some((stream, peer, owner_of(find_in_proc(end), account)));
                if let Err(why) = workers.submit(Behalf::SERVER, job, None) {
                    log::warn!("a connection from {peer} was dropped: {why}");
                }
                None
            }
        }
    }

    /// Has a password checked; [`News::Verified`] follows.
    ///
    /// # Errors
    /// Nobody is free for it, or passwords are not asked for.
    pub fn verify(
        &mut self,
        session: SessionId,
        name: Name,
        password: Secret<'static>,
    ) -> Result<(), Verdict> {
        let passwords = self.passwords.as_mut().ok_or(Verdict::Unchecked)?;
        let with = Arc::clone(&passwords.current);
        let fallback = Done::Checked {
            session,
            name,
            verdict: Verdict::Unchecked,
            with: Arc::clone(&passwords.current),
        };
        let job = move || {
            let verdict = match with.is_right(&name, &password) {
                true => Verdict::Right,
                false => Verdict::Wrong,
            };
            Done::Checked { session, name, verdict, with }
        };
        passwords.workers.submit(session.into(), job, fallback).map_err(|_| Verdict::Unchecked)
    }

    /// Reads the credentials file again; [`News::Accounts`] follows if it is good.
    pub fn reload(&mut self) {
        match &mut self.passwords {
            None => log::info!("SIGHUP: there is no credentials file in force to be read again"),
            Some(passwords) if passwords.reading => passwords.read_again = true,
            Some(passwords) => passwords.read(),
        }
    }

    /// The next thing that was found out; to be asked after a wake-up until it is `None`.
    pub fn try_recv(&mut self) -> Option<News> {
        if let Owners::Slow(workers) = &self.owners {
            while let Some(found) = workers.try_recv() {
                if let Some((stream, peer, owner)) = found {
                    return Some(News::Arrived(stream, Origin::new(peer, owner)));
                }
            }
        }
        let passwords = self.passwords.as_mut()?;
        loop {
            match passwords.workers.try_recv()? {
                Done::Checked { session, name, verdict, with } => {
                    let verdict = passwords.judge(&name, verdict, &with);
                    return Some(News::Verified(session, verdict));
                }
                Done::Read(read) => {
                    if let Some(news) = passwords.take_in(read) {
                        return Some(news);
                    }
                }
            }
        }
    }
}

impl Owners {
    fn slow(waker: Arc<Waker>) -> Owners {
        Owners::Slow(Workers::new(1, LOOKUPS_MAX, waker))
    }
}

fn owner_of(found: io::Result<Option<u32>>, account: OwnAccount) -> Owner {
    match found {
        Ok(Some(id)) if account.is_ours(id) => Owner::Ours,
        Ok(Some(_)) => Owner::Other,
        Ok(None) => Owner::Unknown,
        Err(error) => {
            log::warn!("the owner of a connection cannot be found: {error}");
            Owner::Unknown
        }
    }
}

impl Passwords {
    fn read(&mut self) {
        let place = self.place.clone();
        let job = move || Done::Read(Credentials::load(&place));
        let on_panic = Done::Read(Err(io::Error::other("a fault of ours")));
        let submitted = self.workers.submit(Behalf::SERVER, job, on_panic);
        self.reading = submitted.is_ok();
        if let Err(why) = submitted {
            log::error!("SIGHUP: the credentials in force are the old ones: {why}");
        }
    }

    /// What was compared with passwords that hold no more says nothing.
    fn judge(&self, name: &Name, verdict: Verdict, with: &Arc<Credentials>) -> Verdict {
        let is_current = Arc::ptr_eq(with, &self.current) || with.agrees(&self.current, name);
        match verdict {
            _ if !is_current => Verdict::Unchecked,
            _ => verdict,
        }
    }

    fn take_in(&mut self, read: io::Result<Credentials>) -> Option<News> {
        self.reading = false;
        if std::mem::take(&mut self.read_again) {
            // What was read may be older than the last signal.
            self.read();
        }
        match read {
            Ok(credentials) => {
                credentials.warnings.iter().for_each(|warning| log::warn!("{warning}"));
                let changed = credentials.changed_since(&self.current);
                self.current = Arc::new(credentials);
                let path = self.place.shown().display();
                log::info!("{} users of {path} are served", self.current.count());
                Some(News::Accounts(self.current.accounts(), changed))
            }
            Err(error) => {
                log::error!("SIGHUP: the credentials in force are the old ones: {error}");
                None
            }
        }
    }
}
