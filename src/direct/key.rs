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

/// The key pair of one client process, with a certificate signed by itself. Never stored; cheap
/// to clone.
#[derive(Clone)]
pub struct SessionKey(Arc<Pair>);

struct Pair {
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
        let fingerprint = fingerprint(&certificate);
        SessionKey(Arc::new(Pair { certificate, private, fingerprint }))
    }

    /// By which the other end will know us: the BLAKE3 hash of the certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.0.certificate.clone()]
    }

    fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.0.private.clone_key())
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
            .with_client_auth_cert(self.chain(), self.private())
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
            .with_single_cert(self.chain(), self.private())
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
        write!(formatter, "SessionKey({:?})", self.fingerprint())
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

#[cfg(test)]
mod tests {
    use rustls::{
        ClientConnection, ServerConnection,
        client::ResolvesClientCert,
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    };

    use super::*;

    /// Shows the certificate of one key, and signs with another.
    #[derive(Debug)]
    struct Copied(Arc<CertifiedKey>);

    impl Copied {
        fn new(shown: &SessionKey, used: &SessionKey) -> Arc<Copied> {
            let signer = provider().key_provider.load_private_key(used.private());
            let signer = signer.expect("our own key");
            Arc::new(Copied(Arc::new(CertifiedKey::new(shown.chain(), signer))))
        }
    }

    impl ResolvesServerCert for Copied {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(self.0.clone())
        }
    }

    impl ResolvesClientCert for Copied {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            Some(self.0.clone())
        }

        fn has_certs(&self) -> bool {
            true
        }
    }

    fn key(seed: u8) -> SessionKey {
        SessionKey::from_seed(&[seed; 32])
    }

    fn configs(client: &SessionKey, server: &SessionKey) -> (ClientConfig, ServerConfig) {
        let peers = Peers::default();
        peers.set(vec![client.fingerprint()]);
        let client = client.client_config(server.fingerprint(), b"test");
        (client, server.server_config(peers, b"test"))
    }

    /// Whether both ends believe in each other.
    fn meet((client, server): (ClientConfig, ServerConfig)) -> Result<(), Error> {
        let name = ServerName::try_from(NAME).expect("a name");
        let mut client = ClientConnection::new(Arc::new(client), name)?;
        let mut server = ServerConnection::new(Arc::new(server))?;
        for _ in 0..4 {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).expect("memory takes everything");
            server.read_tls(&mut &bytes[..]).expect("a few bytes");
            server.process_new_packets()?;
            bytes.clear();
            server.write_tls(&mut bytes).expect("memory takes everything");
            client.read_tls(&mut &bytes[..]).expect("a few bytes");
            client.process_new_packets()?;
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        Ok(())
    }

    #[test]
    fn a_key_is_known_by_its_fingerprint_and_shows_nothing_private() {
        assert_eq!(key(1).fingerprint(), key(1).fingerprint());
        assert_ne!(key(1).fingerprint(), key(2).fingerprint());
        let shown = format!("{:?}", key(1));
        assert!(shown.len() < 60, "{shown}");
        assert_eq!(key(1).chain()[0].len(), key(200).chain()[0].len());
    }

    #[test]
    fn only_the_introduced_meet() {
        assert_eq!(meet(configs(&key(1), &key(2))), Ok(()));
        let refused = Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        let (client, _) = configs(&key(1), &key(2));
        let (_, other) = configs(&key(1), &key(3));
        assert_eq!(meet((client, other)), Err(refused.clone()));
        let (_, server) = configs(&key(1), &key(2));
        let (other, _) = configs(&key(3), &key(2));
        assert_eq!(meet((other, server)), Err(refused));
    }

    #[test]
    fn a_copied_certificate_without_its_key_is_no_proof() {
        let bad = Error::InvalidCertificate(CertificateError::BadSignature);
        let (client, mut server) = configs(&key(1), &key(2));
        server.cert_resolver = Copied::new(&key(2), &key(3));
        assert_eq!(meet((client, server)), Err(bad.clone()));
        let (mut client, server) = configs(&key(1), &key(2));
        client.client_auth_cert_resolver = Copied::new(&key(1), &key(3));
        assert_eq!(meet((client, server)), Err(bad));
        let (mut client, mut server) = configs(&key(1), &key(2));
        client.client_auth_cert_resolver = Copied::new(&key(1), &key(1));
        server.cert_resolver = Copied::new(&key(2), &key(2));
        assert_eq!(meet((client, server)), Ok(()));
    }

    #[test]
    fn another_protocol_and_a_client_without_a_certificate_are_refused() {
        let (mut client, server) = configs(&key(1), &key(2));
        client.alpn_protocols = vec![b"other".to_vec()];
        assert!(meet((client, server)).is_err());
        let (_, server) = configs(&key(1), &key(2));
        let verifier = Introduced::new(Peers::default());
        verifier.peers.set(vec![key(2).fingerprint()]);
        let mut client = ClientConfig::builder_with_provider(verifier.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .expect("TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        client.alpn_protocols = vec![b"test".to_vec()];
        assert_eq!(meet((client, server)), Err(Error::NoCertificatesPresented));
    }
}
