//! TLS for probes: rustls with ring, and this machine's own root certificates where they matter.

use std::{io, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{net::TcpStream, sync::OnceCell};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::Failure;
use crate::config::health::{Host, Tls};

/// The protocol that is spoken over TLS.
#[derive(Clone, Copy, Debug)]
pub(super) enum Alpn {
    Http1,
    Http2,
}

impl Alpn {
    fn name(self) -> Vec<u8> {
        match self {
            Self::Http1 => b"http/1.1".to_vec(),
            Self::Http2 => b"h2".to_vec(),
        }
    }
}

/// What makes TLS connections, each made when first needed.
#[derive(Default)]
pub(super) struct Connectors {
    unverified: OnceCell<Pair>,
    verified: OnceCell<Pair>,
}

/// By ALPN: HTTP/1.1 and HTTP/2.
struct Pair(Connector, Connector);

impl Connectors {
    pub(super) async fn get(&self, tls: Tls, alpn: Alpn) -> Result<&Connector, Failure> {
        let pair = if tls.verify {
            let roots = async {
                let roots = tokio::task::spawn_blocking(native_roots).await;
                pair(Some(
                    roots.map_err(|error| Failure::NotAsked(error.to_string()))??,
                ))
            };
            self.verified.get_or_try_init(|| roots).await?
        } else {
            self.unverified.get_or_try_init(async || pair(None)).await?
        };
        let Pair(http1, http2) = pair;
        Ok(match alpn {
            Alpn::Http1 => http1,
            Alpn::Http2 => http2,
        })
    }
}

fn pair(roots: Option<RootCertStore>) -> Result<Pair, Failure> {
    let roots = roots.map(Arc::new);
    Ok(Pair(
        Connector::new(roots.clone(), Alpn::Http1)?,
        Connector::new(roots, Alpn::Http2)?,
    ))
}

/// The roots that this machine trusts; `SSL_CERT_FILE` and `SSL_CERT_DIR` say which others.
fn native_roots() -> Result<RootCertStore, Failure> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let errors = found.errors.iter().map(ToString::to_string);
        let errors: Vec<String> = errors.collect();
        return Err(Failure::NotAsked(format!(
            "this machine trusts no root certificate; install ca-certificates: {}",
            errors.join(", ")
        )));
    }
    Ok(roots)
}

/// Makes TLS connections of one kind.
pub(super) struct Connector(TlsConnector);

impl Connector {
    /// `None` takes any certificate.
    pub(super) fn new(roots: Option<Arc<RootCertStore>>, alpn: Alpn) -> Result<Self, Failure> {
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::NotAsked(error.to_string()))?;
        let mut config = match roots {
            Some(roots) => config.with_root_certificates(roots),
            None => config
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))),
        }
        .with_no_client_auth();
        config.alpn_protocols = vec![alpn.name()];
        // A session that goes on would not show a certificate that has expired since.
        config.resumption = Resumption::disabled();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Shakes hands as for the host: its name goes out in the clear (SNI), an address does not.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        host: &Host,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        let name = ServerName::try_from(host.name.clone())
            .map_err(|error| Failure::NotAsked(format!("{}: {error}", host.name)))?;
        let connected = self.0.connect(name, stream).await;
        connected.map_err(|error: io::Error| Failure::Failed(format!("TLS: {error}")))
    }
}

/// Takes any certificate, but only from whoever has its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
