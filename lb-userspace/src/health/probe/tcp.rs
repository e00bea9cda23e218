//! A TCP connection is made.

use tokio::net::{TcpSocket, TcpStream};

use super::{Failure, Target, failure};

/// Connects, for this probe or for one over it.
///
/// The connection will end by RST when it is dropped (`SO_LINGER` 0): a FIN would leave a socket in `TIME_WAIT`
/// here for a minute after every probe.
pub(super) async fn connect(to: &Target) -> Result<TcpStream, Failure> {
    let connect = async {
        let socket = if to.address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        to.aim.mark(&socket)?;
        if let Some(source) = to.aim.source {
            socket.bind((source, 0).into())?;
        }
        let stream = socket.connect(to.address).await?;
        stream.set_zero_linger()?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    connect.await.map_err(|error| failure("connect", &error))
}
