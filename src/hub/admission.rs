//! Who is let in at all: by where a connection comes from, whose it is, and what protects it.

use std::net::IpAddr;
use std::net::SocketAddr;

use super::{rights::Rights, strangers::SourceNet};
use crate::wire::{ErrorCode, Refusal};

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Origin {
    /// `::ffff:a.b.c.d` counts as the IPv4 address that it stands for.
    address: IpAddr,
    port: u16,
    owner: Owner,
}

/// Whose the other end of a connection is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Owner {
    /// That of the account that runs the server, or of root.
    Ours,
    /// That of another account of this machine.
    Other,
    /// Nobody knows, or nobody has asked.
    Unknown,
}

impl Origin {
    /// The origin of a connection from `peer`.
    pub fn new(peer: SocketAddr, owner: Owner) -> Origin {
        Origin { address: peer.ip().to_canonical(), port: peer.port(), owner }
    }

    /// The address, never an IPv4-mapped one.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The address with the port.
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// What counts as one source.
    pub(super) fn source(&self) -> SourceNet {
        SourceNet::of(self.address)
    }

    /// Whether it comes from this machine for sure: from `::1` or 127.0.0.0/8. The machine's own
    /// addresses of other kinds do not count.
    pub fn is_local(&self) -> bool {
        self.address.is_loopback()
    }
}

/// Whom the server serves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Who is let in, and what they may do.
    pub mode: Mode,
    /// Whether other machines may come without TLS.
    pub plaintext: bool,
}

/// Who is let in, and what they may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// The account that runs the server, and root, from this machine: they may do everything, as
    /// they could anyway.
    Protected,
    /// Anybody.
    Open {
        /// What anybody may do.
        rights: Rights,
    },
    /// Whoever has a name and its password.
    Credentials {
        /// What each of them may do beyond their own rights.
        grant: Rights,
        /// Failed logins in a row that block a name, 1 to [`LOGIN_ATTEMPTS_MAX`].
        ///
        /// [`LOGIN_ATTEMPTS_MAX`]: crate::limits::LOGIN_ATTEMPTS_MAX
        attempts: u8,
    },
}

/// The head of what the strangers of a protected server are told.
macro_rules! protected {
    ($whom:literal) => {
        concat!(
            "this server is in protected mode and serves only the account that runs it, and root, \
             from its own machine; ",
            $whom,
            ". To serve others, start it with --credentials FILE, which asks everybody for a name \
             and a password, or with --open, which serves anybody, without run, upload and admin"
        )
    };
}

impl Policy {
    /// Decides about a connection, once its dialect is known. `secured` is whether TLS protects it.
    ///
    /// # Errors
    /// One sentence that says why not, and what to do.
    pub fn admit(&self, origin: &Origin, secured: bool) -> Result<(), Refusal> {
        let denied = |text: &'static str| Err(Refusal::new(0, ErrorCode::Denied, text));
        match (self.mode, origin.owner) {
            (Mode::Protected, _) if !origin.is_local() => {
                denied(protected!("you come from elsewhere"))
            }
            (Mode::Protected, Owner::Other) => denied(protected!("yours is another account")),
            (Mode::Protected, Owner::Unknown) => denied(protected!(
                "whose your connection is could not be found out (keep it open until you are \
                 answered)"
            )),
            (Mode::Protected, Owner::Ours) => Ok(()),
            _ if origin.is_local() || secured || self.plaintext => Ok(()),
            _ => denied(
                "from other machines this server takes TLS alone; use `client` or `ncat --ssl`. \
                 --plaintext, given to both the server and the client, does without, and lets \
                 everybody on the way read passwords and all else",
            ),
        }
    }

    /// Whether a session has to log in with a password before it may do anything.
    pub fn asks_for_passwords(&self) -> bool {
        matches!(self.mode, Mode::Credentials { .. })
    }

    /// What everybody may do who has logged in, beyond their own rights.
    pub fn granted(&self) -> Rights {
        match self.mode {
            Mode::Credentials { grant, .. } => grant,
            Mode::Protected | Mode::Open { .. } => Rights::NONE,
        }
    }

    /// What a session may do that has not logged in.
    pub fn rights_of_anybody(&self) -> Rights {
        match self.mode {
            Mode::Protected => Rights::ALL,
            Mode::Open { rights } => rights,
            Mode::Credentials { .. } => Rights::NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::REFUSAL_TEXT_MAX_BYTES;

    const CREDENTIALS: Mode = Mode::Credentials { grant: Rights::NONE, attempts: 3 };
    const OPEN: Mode = Mode::Open { rights: Rights::OPEN };

    fn origin(address: &str, owner: Owner) -> Origin {
        Origin::new(address.parse().expect("an address"), owner)
    }

    #[test]
    fn this_machine_is_loopback_alone_and_mapped_addresses_are_what_they_map() {
        for near in ["127.0.0.1:9", "127.0.0.2:9", "[::1]:9", "[::ffff:127.0.0.1]:9"] {
            assert!(origin(near, Owner::Unknown).is_local(), "{near}");
        }
        for far in [
            "10.0.0.1:9",
            "[::ffff:10.0.0.1]:9",
            "[fe80::1%1]:9",
            "[2001:db8::1]:9",
            "[::]:9",
            "[::ffff:0.0.0.0]:9",
            "[::127.0.0.1]:9",
            "0.0.0.0:9",
            "192.0.2.1:9",
        ] {
            assert!(!origin(far, Owner::Ours).is_local(), "{far}");
        }
    }

    #[test]
    fn protected_mode_serves_one_account_on_one_machine_whatever_else_holds() {
        for plaintext in [false, true] {
            let policy = Policy { mode: Mode::Protected, plaintext };
            assert!(policy.admit(&origin("[::1]:9", Owner::Ours), false).is_ok());
            for (address, owner) in [
                ("[::1]:9", Owner::Other),
                ("127.0.0.1:9", Owner::Unknown),
                ("192.0.2.1:9", Owner::Ours),
                ("[::ffff:192.0.2.1]:9", Owner::Unknown),
            ] {
                for secured in [false, true] {
                    let refusal = policy.admit(&origin(address, owner), secured);
                    let text = refusal.expect_err(address).text;
                    assert!(text.len() < REFUSAL_TEXT_MAX_BYTES, "{}", text.len());
                    assert!(text.contains("--credentials FILE") && text.contains("--open"));
                }
            }
        }
    }

    #[test]
    fn other_machines_need_tls_unless_the_operator_does_without() {
        for mode in [OPEN, CREDENTIALS] {
            for (address, secured, plaintext, is_in) in [
                ("127.0.0.1:9", false, false, true),
                ("[::1]:9", true, false, true),
                ("192.0.2.1:9", false, false, false),
                ("[::ffff:192.0.2.1]:9", false, false, false),
                ("[2001:db8::1]:9", true, false, true),
                ("[2001:db8::1]:9", false, true, true),
            ] {
                let origin = origin(address, Owner::Unknown);
                let admitted = Policy { mode, plaintext }.admit(&origin, secured);
                assert_eq!(admitted.is_ok(), is_in, "{mode:?} {address} {secured} {plaintext}");
                if let Err(refusal) = admitted {
                    assert!(refusal.text.contains("--plaintext"), "{}", refusal.text);
                }
            }
        }
    }

    #[test]
    fn nobodies_may_do_nothing_where_passwords_are_asked_for() {
        let policy = |mode| Policy { mode, plaintext: false };
        assert_eq!(policy(CREDENTIALS).rights_of_anybody(), Rights::NONE);
        assert_eq!(policy(OPEN).rights_of_anybody(), Rights::OPEN);
        assert_eq!(policy(Mode::Protected).rights_of_anybody(), Rights::ALL);
        assert!(policy(CREDENTIALS).asks_for_passwords());
        assert!(!policy(OPEN).asks_for_passwords());
    }
}
