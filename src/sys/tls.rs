//! How TLS is set up on both sides: one version, one protocol, nothing to resume.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};

use super::fingerprint::Fingerprint;

/// What both sides agree on inside TLS (RFC 7301), so that nobody's browser or mail program is
/// talked into speaking to us, or we to its server.
pub const PROTOCOL: &[u8] = b"sixfour";

/// The cryptography. AES-128 goes first: it is the quickest with the instructions that processors
/// have for it, and TLS 1.3 asks for no more.
fn provider() -> Arc<CryptoProvider> {
    use ring::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    let cipher_suites =
        vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
    Arc::new(CryptoProvider { cipher_suites, ..ring::default_provider() })
}

/// The server's side, under these certificates, the server's own first.
///
/// A client that offers protocols and not ours is refused; one that offers none is a `ncat --ssl`.
///
/// # Errors
/// The key is not that of the certificate, or either is of no use.
pub fn server_config(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // A handshake takes a third of a millisecond; what is kept to shorten the next one would have
    // to be kept safe.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// How a client knows the server that it wants.
#[derive(Clone, Debug)]
pub enum Trust {
    /// By the fingerprint of its key: one of these, or any where there is none, for the first use.
    Pins(Vec<Fingerprint>),
    /// By a certificate for its name, from one of these authorities.
    Authorities(Arc<RootCertStore>),
}

/// The fingerprint that a server has shown, once it has.
pub type Seen = Arc<OnceLock<Fingerprint>>;

/// The client's side.
///
/// # Errors
/// No authority is known.
pub fn client_config(trust: Trust) -> Result<(Arc<ClientConfig>, Seen), Error> {
    let (provider, seen) = (provider(), Seen::default());
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Pins(pins) => {
            Arc::new(PinVerifier { pins, seen: Arc::clone(&seen), provider: Arc::clone(&provider) })
        }
        Trust::Authorities(roots) => {
            WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                .build()
                .map_err(|error| Error::General(error.to_string()))?
        }
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    Ok((Arc::new(config), seen))
}

/// Reads the certificates of authorities from a file in PEM form (RFC 7468).
///
/// # Errors
/// A sentence that names the file.
pub fn read_authorities(path: &Path) -> Result<Arc<RootCertStore>, String> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let bad = |why: &dyn fmt::Display| format!("{}: a bad certificate: {why}", path.display());
        let certificate = certificate.map_err(|error| bad(&error))?;
        roots.add(certificate).map_err(|error| bad(&error))?;
    }
    match roots.is_empty() {
        true => Err(format!("{}: there is no certificate in PEM form in it", path.display())),
        false => Ok(Arc::new(roots)),
    }
}

/// Takes a server for the right one by its key alone, whatever name and date its certificate says.
#[derive(Debug)]
struct PinVerifier {
    pins: Vec<Fingerprint>,
    seen: Seen,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let fingerprint = Fingerprint::of(end_entity)?;
        // There is one handshake for one configuration.
        let _ = self.seen.set(fingerprint);
        match self.pins.is_empty() || self.pins.contains(&fingerprint) {
            true => Ok(ServerCertVerified::assertion()),
            false => {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }

    /// That the server has the key, and not just its certificate, which everybody may have.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
