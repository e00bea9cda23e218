//! The backend's side: its name first, then every line with the name before it.

use std::{io, net, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    time,
};

/// How long accepting waits after an error, such as too many open files: it would only fail again at once.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// Serves until the process is killed.
pub fn serve(listener: net::TcpListener, name: &str) -> Result<()> {
    super::raise_open_files()?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start tokio")?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        let name: Arc<str> = name.into();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(answer(stream, Arc::clone(&name)))),
                Err(error) => {
                    eprintln!("accept: {error}");
                    time::sleep(AFTER_ERROR).await;
                }
            }
        }
    })
}

async fn answer(stream: TcpStream, name: Arc<str>) {
    // A client that went away is the client's affair.
    if let Err(error) = echo(stream, &name).await {
        eprintln!("connection ended early: {error}");
    }
}

async fn echo(mut stream: TcpStream, name: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.split();
    writer.write_all(format!("{name}\n").as_bytes()).await?;
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        writer
            .write_all(format!("{name} {line}\n").as_bytes())
            .await?;
    }
    Ok(())
}
