//! What a server's key is known by: SHA-256 of its public key, as people compare it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;

/// What stands before the digest.
const PREFIX: &str = "SHA256:";

/// SHA-256 of the SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7) of a certificate: a new
/// certificate for the same key has the same one. Shown as `SHA256:` and base64 without padding,
/// as ssh shows keys.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// That of the key in this certificate.
    ///
    /// # Errors
    /// The bytes are no X.509 certificate of version 3.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Fingerprint, rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        Ok(Fingerprint(sha256(&parsed.subject_public_key_info())))
    }

    /// Reads what [`Fingerprint`] shows; padding is allowed.
    pub fn parse(text: &str) -> Option<Fingerprint> {
        let digest = BASE64.decode(text.strip_prefix(PREFIX)?.trim_end_matches('=')).ok()?;
        Some(Fingerprint(digest.try_into().ok()?))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE64.encode(self.0))
    }
}

/// By the cryptography that TLS brings along.
fn sha256(bytes: &[u8]) -> [u8; 32] {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("it is of TLS 1.3");
    let digest = suite.common.hash_provider.hash(bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_sha_256() {
        // FIPS 180-2, appendix B.1.
        let known = "SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0";
        assert_eq!(Fingerprint(sha256(b"abc")).to_string(), known);
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        let fingerprint = Fingerprint(sha256(b"abc"));
        let shown = fingerprint.to_string();
        assert_eq!(Fingerprint::parse(&shown), Some(fingerprint));
        assert_eq!(Fingerprint::parse(&format!("{shown}=")), Some(fingerprint));
        for bad in ["", "SHA256:", "sha256:x", &shown[7..], &shown[..40], &format!("{shown}AA")] {
            assert_eq!(Fingerprint::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn certificates_of_one_key_have_one_fingerprint() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = |name: &str| {
            let params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
            params.self_signed(&key).unwrap().der().clone()
        };
        let (one, other) = (certificate("one"), certificate("other"));
        assert_ne!(one, other);
        assert_eq!(Fingerprint::of(&one).unwrap(), Fingerprint::of(&other).unwrap());
        assert!(Fingerprint::of(&CertificateDer::from(vec![0x30, 0])).is_err());
    }
}
