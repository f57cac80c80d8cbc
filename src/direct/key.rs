//! The key of a session, and the only question asked of the other end's: is it the one that the
//! server has introduced?
//!
//! Both ends show a certificate that they have signed themselves and prove by a signature that
//! they own its key. Names, dates and issuers in it say nothing and are not looked at.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    PeerIncompatible, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};

use crate::wire::Fingerprint;

/// An Ed25519 private key in PKCS #8 (RFC 8410, section 7), up to its 32 bytes.
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// The name in certificates and handshakes: there has to be one, and nobody reads it.
pub(super) const NAME: &str = "sixfour";

/// The key pair of one client process, with a certificate signed by itself. Never stored.
pub struct SessionKey {
    certificate: CertificateDer<'static>,
    private: PrivatePkcs8KeyDer<'static>,
    fingerprint: Fingerprint,
}

impl SessionKey {
    /// The key that these 32 bytes are, which must be fresh and from the system's random source.
    pub fn from_seed(seed: &[u8; 32]) -> SessionKey {
        let private = PrivatePkcs8KeyDer::from([&PKCS8_PREFIX[..], seed].concat());
        let pair = rcgen::KeyPair::try_from(&private).expect("any 32 bytes are an Ed25519 key");
        let mut params =
            rcgen::CertificateParams::new(Vec::new()).expect("no names are good names");
        params.distinguished_name.push(rcgen::DnType::CommonName, NAME);
        params.serial_number = Some(1u64.into());
        let certificate = params.self_signed(&pair).expect("a key signs its own certificate");
        let certificate = certificate.der().clone();
        SessionKey { fingerprint: fingerprint(&certificate), certificate, private }
    }

    /// By which the other end will know us: the BLAKE3 hash of the certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.private.clone_key())
    }

    /// What a dialling end needs to meet `peer` and nobody else.
    pub(super) fn client_config(&self, peer: Fingerprint, protocol: &[u8]) -> ClientConfig {
        let verifier = Introduced::new(Peers::default());
        verifier.peers.set(vec![peer]);
        let mut config = ClientConfig::builder_with_provider(verifier.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has suites of TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(vec![self.certificate.clone()], self.private())
            .expect("the key is that of the certificate");
        config.alpn_protocols = vec![protocol.to_vec()];
        config.enable_sni = false;
        // A resumed session shows no certificate.
        config.resumption = Resumption::disabled();
        config
    }

    /// What a listening end needs to meet those in `peers`, as they are at the time.
    pub(super) fn server_config(&self, peers: Peers, protocol: &[u8]) -> ServerConfig {
        let verifier = Introduced::new(peers);
        let mut config = ServerConfig::builder_with_provider(verifier.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has suites of TLS 1.3")
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(vec![self.certificate.clone()], self.private())
            .expect("the key is that of the certificate");
        config.alpn_protocols = vec![protocol.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config
    }
}

/// The private half is not for logs.
impl fmt::Debug for SessionKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SessionKey({:?})", self.fingerprint)
    }
}

/// The fingerprint of a certificate.
pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> Fingerprint {
    Fingerprint(*blake3::hash(certificate).as_bytes())
}

/// Who may come: shared with the verifier inside a running endpoint.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers(Arc<Mutex<Vec<Fingerprint>>>);

impl Peers {
    pub(super) fn set(&self, peers: Vec<Fingerprint>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = peers;
    }

    fn contains(&self, peer: &Fingerprint) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(peer)
    }
}

/// Ring with AES first where the processor has it (5 GB/s, and 1.4 for ChaCha20), else last.
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    use rustls::CipherSuite::{TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256};
    let first = match has_aes() {
        true => TLS13_AES_128_GCM_SHA256,
        false => TLS13_CHACHA20_POLY1305_SHA256,
    };
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != first);
    provider
}

#[cfg(target_arch = "x86_64")]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}

/// Verifies that the other end is one of these and owns its key.
#[derive(Debug)]
struct Introduced {
    peers: Peers,
    provider: Arc<CryptoProvider>,
}

impl Introduced {
    fn new(peers: Peers) -> Introduced {
        Introduced { peers, provider: Arc::new(provider()) }
    }

    fn check(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        match others.is_empty() && self.peers.contains(&fingerprint(leaf)) {
            true => Ok(()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    /// Without this a copied certificate would do.
    fn check_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signed, algorithms)
    }
}

impl ServerCertVerifier for Introduced {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Introduced {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
