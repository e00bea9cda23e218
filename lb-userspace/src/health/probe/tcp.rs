//! A TCP connection is made.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::{Failure, failure};

/// Connects, for this probe or for one over it.
///
/// The connection will end by RST when it is dropped (`SO_LINGER` 0): a FIN would leave a socket in `TIME_WAIT`
/// here for a minute after every probe.
pub(super) async fn connect(target: SocketAddr) -> Result<TcpStream, Failure> {
    let connect = async {
        let stream = TcpStream::connect(target).await?;
        stream.set_zero_linger()?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    connect.await.map_err(|error| failure("connect", &error))
}
