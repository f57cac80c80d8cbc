//! The addresses of a host name, each family asked for by itself (RFC 8305, section 3).
//!
//! getaddrinfo(3) on a thread for each family is the authority: it knows the table of hosts, mDNS
//! and whatever else nsswitch.conf(5) names. It asks its name servers one after the other, though,
//! and waits seconds for a silent one. So what it has not answered soon is asked for beside it, of
//! all name servers at once ([`super::servers`]); whichever knows an address first is believed, as
//! both ask the same servers. That a name has no address is believed of getaddrinfo(3) alone.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use dns_lookup::{AddrInfoHints, LookupErrorKind, getaddrinfo};
use rustix::event::{EventfdFlags, eventfd};

use super::{ADDRESSES_MAX, Family, servers};

/// A resolver that has not answered after this time is helped.
const PATIENCE: Duration = Duration::from_millis(100);
/// socket(2): the numbers that getaddrinfo(3) takes.
const AF_INET: i32 = rustix::net::AddressFamily::INET.as_raw() as i32;
/// See [`AF_INET`].
const AF_INET6: i32 = rustix::net::AddressFamily::INET6.as_raw() as i32;
/// See [`AF_INET`].
const SOCK_STREAM: i32 = rustix::net::SocketType::STREAM.as_raw() as i32;

/// What became known of one family's addresses.
#[derive(Debug)]
pub(super) struct Answer {
    /// Which family.
    pub family: Family,
    /// Its addresses in the order of RFC 6724, none where the name has none; or what the resolver
    /// said instead.
    pub found: Result<Vec<SocketAddr>, String>,
}

/// A question for both families that is under way. Dropped, its threads are left to themselves:
/// getaddrinfo(3) cannot be interrupted.
#[derive(Debug)]
pub(super) struct Question {
    answers: mpsc::Receiver<Answer>,
    bell: Arc<OwnedFd>,
    /// Tells the helper by its end that nobody waits any more.
    _interest: mpsc::Sender<()>,
}

/// What the threads of a question share.
#[derive(Debug)]
struct Desk {
    /// The families that have no answer yet.
    open: Mutex<Vec<Family>>,
    answers: mpsc::Sender<Answer>,
    bell: Arc<OwnedFd>,
}

impl Question {
    /// Asks for the addresses of both families.
    ///
    /// # Errors
    /// A sentence, where not even the asking is possible here.
    pub(super) fn ask(name: &str, port: u16) -> Result<Self, String> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let bell = Arc::new(bell.map_err(|error| format!("cannot wait for answers ({error})"))?);
        let (sender, answers) = mpsc::channel();
        let (interest, interested) = mpsc::channel();
        let open = Mutex::new(vec![Family::V6, Family::V4]);
        let desk = Arc::new(Desk { open, answers: sender, bell: Arc::clone(&bell) });
        for family in [Family::V6, Family::V4] {
            let (desk, name) = (Arc::clone(&desk), name.to_owned());
            start("lookup", move || desk.take(family, ask_system(&name, port, family)))?;
        }
        let name = name.to_owned();
        start("name servers", move || desk.help(&name, port, &interested))?;
        Ok(Self { answers, bell, _interest: interest })
    }

    /// Becomes readable when there is an answer to take.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The next answer that is there. Each family is answered once.
    pub(super) fn next_answer(&self) -> Option<Answer> {
        let answer = self.answers.try_recv().ok();
        if answer.is_none() {
            // Quiet again: an answer that comes now rings anew. Nothing there is no fault.
            let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        }
        answer.or_else(|| self.answers.try_recv().ok())
    }

    /// Waits for an answer.
    pub(super) fn await_answer(&self, limit: Duration) -> Option<Answer> {
        self.answers.recv_timeout(limit).ok()
    }
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let started = thread::Builder::new().name(name.to_owned()).spawn(work);
    started.map(drop).map_err(|error| format!("cannot start a thread ({error})"))
}

impl Desk {
    /// Gives on the first answer of a family; later ones are of no use.
    fn take(&self, family: Family, found: Result<Vec<SocketAddr>, String>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(position) = open.iter().position(|open| *open == family) {
            open.swap_remove(position);
            // Nobody may listen any more; then the answer is of no use.
            let _ = self.answers.send(Answer { family, found });
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    /// Asks the name servers for what the resolver takes its time with.
    fn help(&self, name: &str, port: u16, interested: &mpsc::Receiver<()>) {
        if interested.recv_timeout(PATIENCE) != Err(mpsc::RecvTimeoutError::Timeout) {
            return;
        }
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if open.is_empty() || !servers::may_be_asked(name) {
            return;
        }
        let is_over = || interested.try_recv() == Err(mpsc::TryRecvError::Disconnected);
        servers::ask_all(name, &open, is_over, |family, addresses| {
            let addresses = addresses.into_iter().take(ADDRESSES_MAX);
            self.take(family, Ok(addresses.map(|ip| SocketAddr::new(ip, port)).collect()));
        });
    }
}

/// getaddrinfo(3) for one family. A name without such an address is no error.
fn ask_system(name: &str, port: u16, family: Family) -> Result<Vec<SocketAddr>, String> {
    let address = match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    };
    let hints = AddrInfoHints { socktype: SOCK_STREAM, address, ..AddrInfoHints::default() };
    let found = match getaddrinfo(Some(name), None, Some(hints)) {
        Ok(found) => found,
        Err(error) if matches!(error.kind(), LookupErrorKind::NoData) => return Ok(Vec::new()),
        Err(error) => {
            let text = io::Error::from(error).to_string();
            let start = "failed to lookup address information: ";
            return Err(text.strip_prefix(start).unwrap_or(&text).to_owned());
        }
    };
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for mut address in found.flatten().map(|it| it.sockaddr).take(ADDRESSES_MAX) {
        address.set_port(port);
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(5);

    #[test]
    fn each_family_of_a_name_is_answered_once() {
        let question = Question::ask("localhost", 7).unwrap();
        let answers = [question.await_answer(LONG), question.await_answer(LONG)];
        let [first, second] = answers.map(|answer| answer.expect("in time"));
        assert_ne!(first.family, second.family);
        for answer in [first, second] {
            for address in answer.found.unwrap_or_default() {
                assert_eq!(address.is_ipv6(), answer.family == Family::V6);
                assert_eq!(address.port(), 7);
            }
        }
        assert!(question.next_answer().is_none());
    }

    #[test]
    fn only_the_first_answer_of_a_family_is_given_on() {
        let (sender, answers) = mpsc::channel();
        let bell = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let open = Mutex::new(vec![Family::V6, Family::V4]);
        let desk = Desk { open, answers: sender, bell: Arc::clone(&bell) };
        let (interest, _) = mpsc::channel();
        let question = Question { answers, bell, _interest: interest };
        assert!(question.next_answer().is_none());
        let good: SocketAddr = "[::1]:7".parse().unwrap();
        desk.take(Family::V6, Ok(vec![good]));
        desk.take(Family::V6, Err("too late".to_owned()));
        let answer = question.next_answer().unwrap();
        assert_eq!((answer.family, answer.found), (Family::V6, Ok(vec![good])));
        assert!(question.next_answer().is_none());
        desk.take(Family::V4, Err("no such name".to_owned()));
        assert_eq!(question.next_answer().unwrap().found, Err("no such name".to_owned()));
    }
}
