//! The standard health service of gRPC, `grpc.health.v1.Health/Check`.
//!
//! tonic speaks gRPC, over a connection that is made here: its own transport would keep connections and dial again
//! by itself, which is the opposite of a probe.

use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use hyper::{
    Request, Response, Uri,
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::{Code, body::Body, codegen::Service};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{
    Failure, Target, failed, over, tcp,
    tls::{Alpn, Connectors},
};
use crate::config::health::Grpc;

pub(super) async fn probe(
    to: &Target,
    grpc: &Grpc,
    connectors: &Connectors,
) -> Result<(), Failure> {
    let stream = tcp::connect(to).await?;
    match grpc.tls {
        None => call(stream, grpc).await,
        Some(tls) => {
            let connector = connectors.get(tls, Alpn::Http2).await?;
            call(connector.connect(stream, &grpc.host).await?, grpc).await
        }
    }
}

async fn call(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    grpc: &Grpc,
) -> Result<(), Failure> {
    let scheme = if grpc.tls.is_some() { "https" } else { "http" };
    let origin = Uri::builder()
        .scheme(scheme)
        .authority(grpc.host.authority.as_str())
        .path_and_query("/")
        .build()
        .map_err(|error| Failure::NotAsked(error.to_string()))?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|error| failed("ask", &error))?;
    let mut client = HealthClient::with_origin(Channel(sender), origin);
    let request = HealthCheckRequest {
        service: grpc.service.clone(),
    };
    let exchange = async move {
        match client.check(request).await {
            Ok(response) => match response.into_inner().status() {
                ServingStatus::Serving => Ok(()),
                status => {
                    let text = format!("the answer is {}", status.as_str_name());
                    Err(Failure::Failed(text))
                }
            },
            Err(status) => Err(match status.code() {
                Code::Unimplemented => {
                    Failure::Failed("the server has no grpc.health.v1.Health".to_owned())
                }
                Code::NotFound => {
                    Failure::Failed(format!("the server does not know {:?}", grpc.service))
                }
                _ => failed("ask", &status),
            }),
        }
    };
    over(connection, exchange).await
}

/// One HTTP/2 connection, as tonic wants it.
struct Channel(SendRequest<Body>);

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
