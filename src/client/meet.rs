//! Introductions as a client makes and reads them. Pure.

use std::net::{IpAddr, SocketAddr};

use super::channel::Meeting;
use crate::wire::{Contact, OneTimeToken, Standpoint, event::Object, introduction::own_addresses};

/// What we tell others of ourselves, and how we look at what they tell.
#[derive(Debug, Default)]
pub struct Meet {
    /// Nothing where we have no key: then the server could read what it passes on.
    own: Option<(Contact, Tokens)>,
    /// Where we are, while we are connected.
    standpoint: Option<Standpoint>,
}

/// Makes tokens that nobody can guess.
struct Tokens {
    key: [u8; 32],
    made: u64,
}

/// Whoever knows the key knows all tokens.
impl std::fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Tokens({} made)", self.made)
    }
}

impl Meet {
    /// What others are told; `random` is from the system's random source.
    pub fn set_contact(&mut self, contact: Contact, random: [u8; 32]) {
        self.own = Some((contact, Tokens { key: random, made: 0 }));
    }

    /// Where we take files straight from others, if anywhere.
    pub fn udp_port(&self) -> Option<u16> {
        self.own.as_ref().and_then(|(contact, _)| Some(contact.direct.as_ref()?.port))
    }

    /// There is a connection, from this standpoint; our interfaces have these addresses now.
    pub fn set_standpoint(&mut self, standpoint: Option<Standpoint>, interfaces: Vec<IpAddr>) {
        self.standpoint = standpoint;
        if let Some((Contact { direct: Some(place), .. }, _)) = &mut self.own {
            place.addresses = own_addresses(interfaces);
        }
    }

    /// The server has told where it sees us.
    pub fn note_seen(&mut self, address: &str) {
        let seen = address.parse::<SocketAddr>().ok();
        if let (Some(standpoint), Some(seen)) = (&mut self.standpoint, seen) {
            standpoint.note_seen(seen.ip());
        }
    }

    /// A token for one more meeting, where we have a key.
    pub fn token(&mut self) -> Option<OneTimeToken> {
        let (_, tokens) = self.own.as_mut()?;
        tokens.made += 1;
        let hash = blake3::keyed_hash(&tokens.key, &tokens.made.to_be_bytes());
        Some(OneTimeToken(*hash.as_bytes()))
    }

    /// What we say to the client of somebody else; with the token where we are the one to say it.
    pub fn introduce(&self, token: Option<OneTimeToken>) -> Option<Object> {
        let (contact, _) = self.own.as_ref()?;
        Some(Contact { token, ..contact.clone() }.to_object())
    }

    /// How we meet a client that has said this, and that the server sees at `address`; `token` is
    /// the one that we have said, where we have.
    pub fn meeting(
        &self,
        introduction: Option<&Object>,
        address: Option<&str>,
        token: Option<OneTimeToken>,
    ) -> Option<Meeting> {
        let (own, _) = self.own.as_ref()?;
        let standpoint = self.standpoint?;
        let contact = Contact::of_object(introduction?)?;
        let seen: SocketAddr = address?.parse().ok()?;
        let is_direct = own.direct.is_some() && contact.direct.is_some();
        let interfaces = own.direct.as_ref().map_or(&[][..], |place| &place.addresses);
        let token = token.or(contact.token)?;
        let introduction = contact.introduction(token, seen, standpoint, interfaces);
        Some(Meeting { introduction, is_direct, same_host: standpoint.is_near_server() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Fingerprint, contact::Place};

    fn meet(number: u8, is_direct: bool) -> Meet {
        let direct = is_direct.then_some(Place { port: 40000, addresses: Vec::new() });
        let fingerprint = Fingerprint([number; 32]);
        let near = "::1".parse().expect("an address");
        let standpoint = Some(Standpoint { own: near, server: near, seen: None });
        let mut meet = Meet { own: None, standpoint };
        meet.set_contact(Contact { fingerprint, direct, token: None }, [number; 32]);
        meet
    }

    #[test]
    fn both_ends_of_a_meeting_have_one_token_and_the_key_of_the_other() {
        for (first, second) in [(true, true), (true, false), (false, true)] {
            let (mut alice, bob) = (meet(1, first), meet(2, second));
            let token = alice.token();
            let (offer, answer) = (alice.introduce(token), bob.introduce(None));
            let seen = Some("[::1]:5");
            let at_bob = bob.meeting(offer.as_ref(), seen, None).expect("they meet");
            let at_alice = alice.meeting(answer.as_ref(), seen, token).expect("they meet");
            assert_eq!(Some(at_bob.introduction.token), token);
            assert_eq!(Some(at_alice.introduction.token), token);
            assert_eq!(at_bob.introduction.fingerprint, Fingerprint([1; 32]));
            assert_eq!(at_alice.introduction.fingerprint, Fingerprint([2; 32]));
            assert_eq!((at_alice.is_direct, at_bob.is_direct), (first && second, first && second));
            assert_ne!(alice.token(), token);
        }
    }

    #[test]
    fn without_an_introduction_a_token_and_an_address_nobody_meets() {
        let (mut alice, bob) = (meet(1, true), meet(2, true));
        let token = alice.token();
        let offer = alice.introduce(token);
        let seen = Some("[::1]:5");
        assert!(bob.meeting(offer.as_ref(), seen, None).is_some());
        assert_eq!(bob.meeting(None, seen, None), None);
        assert_eq!(bob.meeting(offer.as_ref(), None, None), None);
        assert_eq!(bob.meeting(offer.as_ref(), Some("nowhere"), None), None);
        assert_eq!(bob.meeting(alice.introduce(None).as_ref(), seen, None), None);
        assert_eq!(Meet::default().meeting(offer.as_ref(), seen, None), None);
        assert_eq!((Meet::default().token(), Meet::default().introduce(token)), (None, None));
    }
}
