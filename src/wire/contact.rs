//! What the client of an offer, or of its acceptance, tells the client of the other user: the
//! `introduction` that the server passes on as it is.

use std::net::IpAddr;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Announcement, Candidates, Fingerprint, Introduction, OneTimeToken, event::Object,
    introduction::scope_is_loopback,
};

/// A client as it introduces itself to another one.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Contact {
    /// Of the key of this session.
    pub fingerprint: Fingerprint,
    /// Where its UDP sockets are; nothing where it has none, and all is to go through the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct: Option<Place>,
    /// Good for this one meeting; from the one who offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<OneTimeToken>,
}

/// The UDP sockets of a client.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Place {
    /// Of both families.
    #[serde(deserialize_with = "super::introduction::port")]
    pub port: u16,
    /// Of its interfaces.
    #[serde(default, deserialize_with = "super::introduction::addresses")]
    pub addresses: Vec<IpAddr>,
}

/// Where we are, as far as we can tell by our connection to the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Standpoint {
    /// The address from which we reach the server.
    pub own: IpAddr,
    /// The address at which we reach it.
    pub server: IpAddr,
    /// Where it sees us, if it has told that: another address than our own behind a translator.
    pub seen: Option<IpAddr>,
}

impl Standpoint {
    /// Whether the server is on this machine.
    pub fn is_near_server(&self) -> bool {
        scope_is_loopback(self.own)
    }

    /// The server tells where it sees us. That we are beside it we know better.
    pub fn note_seen(&mut self, seen: IpAddr) {
        let seen = seen.to_canonical();
        self.seen = Some(seen).filter(|seen| scope_is_loopback(*seen) == self.is_near_server());
    }
}

impl Contact {
    /// As the member of a request.
    pub fn to_object(&self) -> Object {
        match serde_json::to_value(self) {
            Ok(Value::Object(object)) => object,
            other => unreachable!("a contact is an object, not {other:?}"),
        }
    }

    /// What another client has told; nothing where it means something else by it.
    pub fn of_object(object: &Object) -> Option<Contact> {
        serde_json::from_value(Value::Object(object.clone())).ok()
    }

    /// What we need to meet this client, which the server sees at `seen`; our interfaces have the
    /// addresses `interfaces`.
    pub fn introduction(
        &self,
        token: OneTimeToken,
        seen: SocketAddr,
        standpoint: Standpoint,
        interfaces: &[IpAddr],
    ) -> Introduction {
        let fingerprint = self.fingerprint;
        let Some(Place { port, addresses }) = &self.direct else {
            return Introduction { fingerprint, token, candidates: Candidates::default() };
        };
        let Standpoint { own, server, seen: own_seen } = standpoint;
        // It is on the server's machine: there we reach it as we reach the server.
        let is_beside_server = scope_is_loopback(seen.ip()) && !scope_is_loopback(own);
        let seen = if is_beside_server { server } else { seen.ip() };
        let addresses = addresses.clone();
        let announcement = Announcement { fingerprint, port: *port, addresses };
        Introduction {
            fingerprint,
            token,
            candidates: announcement.candidates(seen, own_seen.unwrap_or(own), interfaces),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(direct: bool) -> Contact {
        let addresses = vec!["192.0.2.5".parse().expect("an address")];
        let direct = direct.then_some(Place { port: 40000, addresses });
        let token = Some(OneTimeToken([9; 32]));
        Contact { fingerprint: Fingerprint([7; 32]), direct, token }
    }

    fn standpoint(own: &str, server: &str) -> Standpoint {
        let ip = |text: &str| text.parse().expect("an address");
        Standpoint { own: ip(own), server: ip(server), seen: None }
    }

    fn places(contact: &Contact, seen: &str, standpoint: Standpoint) -> Vec<String> {
        let seen = seen.parse().expect("a place");
        let interfaces = ["10.0.0.9", "192.0.2.9"].map(|it| it.parse().expect("an address"));
        let token = OneTimeToken([9; 32]);
        let introduction = contact.introduction(token, seen, standpoint, &interfaces);
        introduction.candidates.as_slice().iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn a_contact_is_read_as_it_was_written_and_nothing_else_is() {
        for contact in [contact(true), contact(false)] {
            assert_eq!(Contact::of_object(&contact.to_object()), Some(contact.clone()));
            assert!(!format!("{contact:?}").contains("9, 9"), "the token is shown");
        }
        let mut low = contact(true).to_object();
        low["direct"]["port"] = 1023.into();
        assert_eq!(Contact::of_object(&low), None);
        let mut stranger = contact(true).to_object();
        stranger["direct"]["addresses"] = serde_json::json!(["127.0.0.1"]);
        assert_eq!(Contact::of_object(&stranger), None);
        assert_eq!(Contact::of_object(&Object::new()), None);
    }

    #[test]
    fn who_is_beside_the_server_is_looked_for_where_the_server_is() {
        let both_near = standpoint("::1", "::1");
        let loopback = ["[::1]:40000", "127.0.0.1:40000"];
        assert_eq!(places(&contact(true), "127.0.0.1:5", both_near), loopback);
        let far = standpoint("2001:db8::9", "2001:db8::1");
        let found = places(&contact(true), "[::1]:5", far);
        assert_eq!(found, ["[2001:db8::1]:40000", "192.0.2.5:40000"]);
        assert!(places(&contact(false), "[::1]:5", far).is_empty());
        assert!(both_near.is_near_server() && !far.is_near_server());
    }

    #[test]
    fn behind_one_translator_private_addresses_are_of_use_and_behind_two_they_are_not() {
        let mut home = contact(true);
        let private = "10.0.0.5".parse().expect("an address");
        home.direct.as_mut().expect("it has sockets").addresses = vec![private];
        let mut standpoint = standpoint("10.0.0.9", "203.0.113.80");
        assert_eq!(places(&home, "203.0.113.1:5", standpoint), ["203.0.113.1:40000"]);
        for (seen, count) in [("203.0.113.1", 2), ("203.0.113.2", 1), ("::ffff:203.0.113.1", 2)] {
            standpoint.note_seen(seen.parse().expect("an address"));
            let found = places(&home, "203.0.113.1:5", standpoint);
            assert_eq!(found.len(), count, "{found:?}");
        }
        // A server cannot talk us into its loopback.
        standpoint.note_seen("127.0.0.1".parse().expect("an address"));
        assert_eq!(standpoint.seen, None);
    }
}
