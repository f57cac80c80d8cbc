//! Passwords at rest, and how one is compared with them: argon2id (RFC 9106), as strings in the
//! form of the password hashing competition (PHC), or plain.

use std::fmt;
use std::io;

use argon2::password_hash::{Output, PasswordHash, PasswordHasher as _, SaltString};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, Version};

/// The environment variable from which a client takes its password. Children never get it.
pub const PASSWORD_VARIABLE: &str = "SIXFOUR_PASSWORD";

/// How every PHC string begins, and no plain password can.
pub const PHC_PREFIX: &str = "$argon2";

/// Version 1.3, the only one of RFC 9106.
const VERSION: u32 = 0x13;
/// Most memory that one comparison may take, in KiB; two may run at once. `server passwd` writes
/// 19 MiB, RFC 9106 recommends 64 MiB where memory is short.
const MEMORY_MAX_KIB: u32 = 256 * 1024;
/// Most passes over it.
const PASSES_MAX: u32 = 16;
/// Most lanes.
const LANES_MAX: u32 = 16;
/// Most memory times passes, in KiB: about a second.
const WORK_MAX_KIB: u64 = 1024 * 1024;
/// An allocation above this is a mapping of its own and goes back to the system when it is freed
/// (mallopt(3), the upper limit of `M_MMAP_THRESHOLD`). Smaller ones of this kind stay in the heap,
/// and hardly fit into the gap that the one before has left: every login would cost 19 MiB more.
const MAPPED_BYTES: usize = 32 * 1024 * 1024;
/// The salt and the hash may have so many bytes.
const SALT_BYTES: std::ops::RangeInclusive<usize> = 8..=48;
/// See [`SALT_BYTES`].
const HASH_BYTES: std::ops::RangeInclusive<usize> = 16..=64;

/// The hash of a password, checked so that comparing with it is bounded in time and memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash {
    phc: String,
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(..)")
    }
}

/// Why a string is no hash that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashFault {
    /// It is cut off, or not of the form.
    Malformed,
    /// It is argon2i or argon2d.
    Algorithm,
    /// It is not of version 1.3.
    Version,
    /// Comparing with it would take too much memory or time.
    Cost,
}

impl fmt::Display for HashFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the hash is cut off or not in PHC form"),
            Self::Algorithm => f.write_str("the hash is argon2, but not argon2id"),
            Self::Version => f.write_str("the hash is not of version 19 (v=19)"),
            Self::Cost => write!(
                f,
                "the hash costs too much to compare with; at most m={MEMORY_MAX_KIB}, \
                 t={PASSES_MAX}, p={LANES_MAX} and m times t {WORK_MAX_KIB}"
            ),
        }
    }
}

impl Hash {
    /// Checks a PHC string.
    ///
    /// # Errors
    /// [`HashFault`].
    pub fn parse(phc: &str) -> Result<Self, HashFault> {
        let parsed = PasswordHash::new(phc).map_err(|_| HashFault::Malformed)?;
        if parsed.algorithm != ARGON2ID_IDENT {
            return Err(HashFault::Algorithm);
        }
        if parsed.version != Some(VERSION) {
            return Err(HashFault::Version);
        }
        let params = Params::try_from(&parsed).map_err(|_| HashFault::Cost)?;
        let work = u64::from(params.m_cost()) * u64::from(params.t_cost());
        if params.m_cost() > MEMORY_MAX_KIB
            || params.t_cost() > PASSES_MAX
            || params.p_cost() > LANES_MAX
            || work > WORK_MAX_KIB
        {
            return Err(HashFault::Cost);
        }
        let salt_bytes = parsed.salt.map(|salt| {
            let mut buffer = [0; 64];
            salt.decode_b64(&mut buffer).map_or(0, <[u8]>::len)
        });
        let hash_bytes = parsed.hash.map(|hash| hash.len());
        let has = |bytes: Option<usize>, range: std::ops::RangeInclusive<usize>| {
            bytes.is_some_and(|bytes| range.contains(&bytes))
        };
        if !has(salt_bytes, SALT_BYTES) || !has(hash_bytes, HASH_BYTES) {
            return Err(HashFault::Malformed);
        }
        Ok(Self { phc: phc.to_owned() })
    }

    /// Hashes a password with a new salt, at the cost that OWASP recommends: 19 MiB, 2 passes.
    /// Takes some 20 ms.
    ///
    /// # Errors
    /// The system has no randomness, or no memory.
    pub fn of(password: &[u8]) -> io::Result<Self> {
        let salt = random_salt()?;
        let hash = Argon2::default().hash_password(password, &salt).map_err(io::Error::other)?;
        Ok(Self { phc: hash.to_string() })
    }

    /// A hash that no password has, as costly to compare with as `self`.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn decoy(&self) -> io::Result<Self> {
        let mut output = [0; 32];
        fill_randomly(&mut output)?;
        let output = Output::new(&output).map_err(io::Error::other)?;
        let (salt, parsed) = (random_salt()?, self.parsed());
        let decoy = PasswordHash { salt: Some(salt.as_salt()), hash: Some(output), ..parsed };
        Ok(Self { phc: decoy.to_string() })
    }

    /// Whether it is the hash of this password. Takes as long as it costs, whatever the answer;
    /// for a worker.
    #[must_use]
    pub fn is_of(&self, password: &[u8]) -> bool {
        let parsed = self.parsed();
        let params = Params::try_from(&parsed).expect("it was checked");
        // Room that is not touched costs nothing.
        let blocks = params.block_count();
        let room = blocks.max(MAPPED_BYTES / Block::SIZE + 1);
        let mut memory = Vec::with_capacity(room);
        memory.resize(blocks, Block::default());
        let mut salt = [0; 64];
        let (Some(expected), Some(Ok(salt))) =
            (parsed.hash, parsed.salt.map(|it| it.decode_b64(&mut salt)))
        else {
            return false;
        };
        let mut output = [0; *HASH_BYTES.end()];
        let output = &mut output[..expected.len()];
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let hashed = argon2.hash_password_into_with_memory(password, salt, output, &mut memory);
        // This comparison takes the same time wherever the two differ.
        hashed.is_ok() && Output::new(output).is_ok_and(|output| output == expected)
    }

    /// Memory in KiB, passes and lanes.
    #[must_use]
    pub fn cost(&self) -> (u32, u32, u32) {
        let params = Params::try_from(&self.parsed()).expect("it was checked");
        (params.m_cost(), params.t_cost(), params.p_cost())
    }

    /// The PHC string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.phc
    }

    fn parsed(&self) -> PasswordHash<'_> {
        PasswordHash::new(&self.phc).expect("it was checked")
    }
}

fn random_salt() -> io::Result<SaltString> {
    let mut salt = [0; 16];
    fill_randomly(&mut salt)?;
    SaltString::encode_b64(&salt).map_err(io::Error::other)
}

fn fill_randomly(bytes: &mut [u8]) -> io::Result<()> {
    getrandom::fill(bytes).map_err(|error| io::Error::other(format!("no randomness: {error}")))
}

/// A key under which two texts are compared in a time that tells nothing of them.
#[derive(Clone)]
pub struct Comparison([u8; 32]);

impl fmt::Debug for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Comparison(..)")
    }
}

impl Comparison {
    /// A new random key.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn new() -> io::Result<Self> {
        let mut key = [0; 32];
        fill_randomly(&mut key)?;
        Ok(Self(key))
    }

    /// Whether two texts are the same. Their keyed hashes are compared, in constant time; only the
    /// lengths show, in steps of 64 bytes.
    #[must_use]
    pub fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        blake3::keyed_hash(&self.0, one) == blake3::keyed_hash(&self.0, other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small costs, so that tests are quick: `m=8,t=1,p=1` of the password `x`.
    fn cheap(password: &str) -> Hash {
        let params = Params::new(8, 1, 1, None).unwrap();
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let salt = random_salt().unwrap();
        Hash::parse(&argon2.hash_password(password.as_bytes(), &salt).unwrap().to_string()).unwrap()
    }

    #[test]
    fn a_hash_is_of_its_password_and_of_no_other() {
        for password in ["x", " two words ", "nul \0 and\nline", &"long".repeat(256)] {
            let hash = cheap(password);
            assert!(hash.is_of(password.as_bytes()));
            for other in ["", "X", &format!("{password} "), password.trim_end_matches('x')] {
                assert!(other == password || !hash.is_of(other.as_bytes()), "{password:?}");
            }
            let decoy = hash.decoy().unwrap();
            assert_eq!(decoy.cost(), hash.cost());
            assert!(!decoy.is_of(password.as_bytes()) && Hash::parse(decoy.as_str()).is_ok());
        }
    }

    #[test]
    fn new_hashes_have_the_recommended_cost_and_a_salt_of_their_own() {
        let (one, other) = (Hash::of(b"x").unwrap(), Hash::of(b"x").unwrap());
        assert_eq!(one.cost(), (19 * 1024, 2, 1));
        assert!(one.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert_ne!(one, other);
        assert_eq!(Hash::parse(one.as_str()), Ok(one.clone()));
        assert!(one.is_of(b"x") && !one.is_of(b"y"));
        assert_eq!(format!("{one:?}"), "Hash(..)");
    }

    #[test]
    fn hashes_that_would_cost_too_much_or_are_none_are_named() {
        let rest = "c29tZXNhbHQ5OTk$RG0TxCbtFWXvKWEkAxfeHvKnQbSYtJGbyZ8Fzo8u3ZQ";
        let with = |head: &str| format!("{head}${rest}");
        assert!(Hash::parse(&with("$argon2id$v=19$m=65536,t=3,p=4")).is_ok());
        assert!(Hash::parse(&with("$argon2id$v=19$m=262144,t=4,p=1")).is_ok());
        for (text, fault) in [
            (with("$argon2id$v=19$m=4194304,t=2,p=1"), HashFault::Cost),
            (with("$argon2id$v=19$m=19456,t=1000000,p=1"), HashFault::Cost),
            (with("$argon2id$v=19$m=19456,t=2,p=255"), HashFault::Cost),
            (with("$argon2id$v=19$m=262144,t=5,p=1"), HashFault::Cost),
            (with("$argon2id$v=19$m=4294967295,t=2,p=1"), HashFault::Cost),
            (with("$argon2id$v=19$m=0,t=2,p=1"), HashFault::Cost),
            (with("$argon2id$v=16$m=19456,t=2,p=1"), HashFault::Version),
            (with("$argon2id$m=19456,t=2,p=1"), HashFault::Version),
            (with("$argon2i$v=19$m=19456,t=2,p=1"), HashFault::Algorithm),
            (with("$argon2d$v=19$m=19456,t=2,p=1"), HashFault::Algorithm),
            ("$argon2id$v=19$m=19456,t=2,p=1".to_owned(), HashFault::Malformed),
            ("$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ5OTk".to_owned(), HashFault::Malformed),
            ("$argon2id$v=19$m=19456,t=2,p=1$c2E$RG0TxCbtFWXv".to_owned(), HashFault::Malformed),
            ("$argon2id".to_owned(), HashFault::Version),
            ("$argon2".to_owned(), HashFault::Algorithm),
            ("$argon2id$".to_owned(), HashFault::Malformed),
        ] {
            assert_eq!(Hash::parse(&text), Err(fault), "{text}");
            assert!(!fault.to_string().contains('\n'));
        }
    }

    #[test]
    fn texts_are_the_same_or_not_whatever_their_lengths() {
        let comparison = Comparison::new().unwrap();
        assert!(comparison.is_same(b"secret", b"secret") && comparison.is_same(b"", b""));
        for other in [&b""[..], b"secre", b"secret ", b"Secret"] {
            assert!(!comparison.is_same(b"secret", other));
        }
    }
}
