use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{io::AsyncReadExt as _, net::TcpListener};
use tokio_rustls::TlsAcceptor;

use super::{
    super::{Aim, Target, tcp},
    *,
};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn roots(authority: &Authority) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    Arc::new(roots)
}

/// A certificate for `www.example.com` and 127.0.0.1.
fn params() -> CertificateParams {
    let names = ["www.example.com", "127.0.0.1"].map(str::to_owned);
    CertificateParams::new(names).unwrap()
}

/// Shakes hands with a server that has a certificate of an authority.
async fn connect(
    connector: &Connector,
    host: &str,
    authority: &Authority,
    params: CertificateParams,
) -> Result<Option<Vec<u8>>, Failure> {
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        // Until the client is done, which it may be soon.
        if let Ok(mut stream) = TlsAcceptor::from(Arc::new(server)).accept(stream).await {
            stream.read_u8().await.ok();
        }
    });
    let to = Target {
        address: target,
        aim: Aim::default(),
    };
    let stream = tcp::connect(&to).await.unwrap();
    let host = Host {
        authority: host.to_owned(),
        name: host.to_owned(),
    };
    let connected = connector.connect(stream, &host).await;
    let alpn = connected.map(|stream| stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec));
    server.await.unwrap();
    alpn
}

#[tokio::test]
async fn verifies_who_it_is_and_who_says_so() {
    let authority = authority();
    let connector = Connector::new(Some(roots(&authority)), Alpn::Http1).unwrap();
    for host in ["www.example.com", "127.0.0.1"] {
        let alpn = connect(&connector, host, &authority, params()).await;
        assert_eq!(alpn, Ok(Some(b"http/1.1".to_vec())), "{host}");
    }
    for host in ["example.com", "127.0.0.2"] {
        let refused = connect(&connector, host, &authority, params()).await;
        let said = refused.unwrap_err().to_string();
        assert!(said.contains("not valid for name"), "{said}");
    }
    let stranger = self::authority();
    let refused = connect(&connector, "www.example.com", &stranger, params()).await;
    let said = refused.unwrap_err().to_string();
    // The stranger goes by the same name, with another key.
    assert!(said.contains("BadSignature"), "{said}");
}

#[tokio::test]
async fn an_expired_certificate_fails_only_where_it_is_verified() {
    let authority = authority();
    let mut params = params();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
    let strict = Connector::new(Some(roots(&authority)), Alpn::Http1).unwrap();
    let refused = connect(&strict, "www.example.com", &authority, params.clone()).await;
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("certificate expired"), "{said}");
    let lenient = Connector::new(None, Alpn::Http2).unwrap();
    let alpn = connect(&lenient, "other.example.com", &authority, params).await;
    assert_eq!(alpn, Ok(Some(b"h2".to_vec())));
}
