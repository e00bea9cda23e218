//! An HTTP/1.1 GET, in the clear or over TLS.

use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{ACCEPT, CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Failure, Target, failed, over, tcp,
    tls::{Alpn, Connectors},
};
use crate::config::health::Http;

/// So much of a body is read, in bytes; the rest of a longer one is not asked for.
const BODY: usize = 64 * 1024;

pub(super) async fn probe(
    to: &Target,
    http: &Http,
    connectors: &Connectors,
) -> Result<(), Failure> {
    let stream = tcp::connect(to).await?;
    match http.tls {
        None => get(stream, http).await,
        Some(tls) => {
            let connector = connectors.get(tls, Alpn::Http1).await?;
            get(connector.connect(stream, &http.host).await?, http).await
        }
    }
}

async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    http: &Http,
) -> Result<(), Failure> {
    let request = Request::get(&http.path)
        .header(HOST, &http.host.authority)
        .header(USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Failure::NotAsked(error.to_string()))?;
    let asked = |error: hyper::Error| failed("ask", &error);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(asked)?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(asked)?;
        let status = response.status();
        if !http.expect_status.contains(status.as_u16()) {
            return Err(Failure::Failed(format!("the answer is {status}")));
        }
        read(response.into_body()).await
    };
    over(connection, exchange).await
}

/// Reads the body, since an answer that breaks off or never ends is none.
async fn read(mut body: Incoming) -> Result<(), Failure> {
    let mut length = 0;
    while length < BODY
        && let Some(frame) = body.frame().await
    {
        let frame = frame.map_err(|error| failed("read the answer", &error))?;
        length += frame.data_ref().map_or(0, Bytes::len);
    }
    Ok(())
}
