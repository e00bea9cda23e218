//! A backend: answers every HTTP request, and every UDP datagram, with its own name.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
};

use anyhow::{Context as _, Result};
use clap::Args;

/// What a backend serves.
#[derive(Args, Debug, Clone)]
pub struct Options {
    /// The name to answer with.
    #[arg(long)]
    pub name: String,
    /// Where to serve HTTP; `[::]` takes IPv4 too.
    #[arg(long, default_value = "[::]:80")]
    pub http: SocketAddr,
    /// Where to echo UDP. An answer must come from the VIP, so this names the VIP, not `[::]`.
    #[arg(long)]
    pub udp: Vec<SocketAddr>,
    /// Where to echo lines over long-lived connections.
    #[arg(long, default_value = "[::]:7000")]
    pub lasting: SocketAddr,
}

/// Serves until the process is killed.
pub fn run(options: &Options) -> Result<()> {
    let listener =
        TcpListener::bind(options.http).with_context(|| format!("listen on {}", options.http))?;
    for address in &options.udp {
        let socket = UdpSocket::bind(address).with_context(|| format!("bind UDP {address}"))?;
        let name = options.name.clone();
        thread::spawn(move || echo(&socket, &name));
    }
    let lasting = TcpListener::bind(options.lasting)
        .with_context(|| format!("listen on {}", options.lasting))?;
    let name = options.name.clone();
    thread::spawn(move || {
        if let Err(error) = super::lasting::server::serve(lasting, &name) {
            eprintln!("long-lived connections: {error:#}");
        }
    });
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let name = options.name.clone();
        thread::spawn(move || {
            // A client that went away is the client's affair.
            if let Err(error) = answer(&stream, &name) {
                eprintln!("connection ended early: {error}");
            }
        });
    }
    Ok(())
}

/// Answers one connection's requests until the client closes it or asks for that.
fn answer(mut stream: &TcpStream, name: &str) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let Some(request) = read_head(&mut reader)? else {
            return Ok(());
        };
        std::io::copy(
            &mut (&mut reader).take(body_len(&request)),
            &mut std::io::sink(),
        )?;
        let close = wants_close(&request);
        let connection = if close { "close" } else { "keep-alive" };
        let body = format!("{name}\n");
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes())?;
        if close {
            return Ok(());
        }
    }
}

/// Reads a request up to its empty line; `None` where the client has closed.
fn read_head(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Option<String>> {
    let mut head = String::new();
    loop {
        if reader.read_line(&mut head)? == 0 {
            return Ok(None);
        }
        if head.ends_with("\r\n\r\n") || head.ends_with("\n\n") {
            return Ok(Some(head));
        }
    }
}

fn wants_close(head: &str) -> bool {
    head.lines()
        .any(|line| line.to_ascii_lowercase().replace(' ', "") == "connection:close")
}

/// The length of a request's body, as its head tells.
fn body_len(head: &str) -> u64 {
    let length = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    };
    head.lines().find_map(length).unwrap_or(0)
}

/// Sends every datagram back with the backend's name in front.
fn echo(socket: &UdpSocket, name: &str) {
    let mut buffer = [0; 9000];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let mut answer = format!("{name} ").into_bytes();
        answer.extend(buffer.iter().take(length));
        if let Err(error) = socket.send_to(&answer, from) {
            eprintln!("answer to {from}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn serve_one() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || answer(&listener.accept().unwrap().0, "b1").unwrap());
        address
    }

    #[test]
    fn answers_with_its_name_and_closes_when_asked() {
        let mut stream = TcpStream::connect(serve_one()).unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nb1\n"), "{answer}");
    }

    #[test]
    fn keeps_a_connection_for_the_next_request() {
        let mut stream = TcpStream::connect(serve_one()).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        for _ in 0..2 {
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")
                .unwrap();
            let head = read_lines_to_blank(&mut reader);
            assert!(head.contains("Connection: keep-alive"), "{head}");
            let mut body = [0; 3];
            reader.read_exact(&mut body).unwrap();
            assert_eq!(&body, b"b1\n");
        }
    }

    fn read_lines_to_blank(reader: &mut impl std::io::BufRead) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(
                reader.read_line(&mut head).unwrap() > 0,
                "closed after {head}"
            );
        }
        head
    }
}
