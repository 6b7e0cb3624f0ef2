//! Asking an agent for its health, from beside it: for probes of a kubelet that can't know the agent's port.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// The kubelet gives up after five seconds: this says why before.
const DEADLINE: Duration = Duration::from_secs(4);
/// Health is told in a few words.
const MAX_ANSWER: u64 = 4 << 10;

/// Asks the agent on this host's port for a path. Good is an answer with status 200.
///
/// # Errors
/// If there is none, or another one.
pub fn check(port: u16, path: &str) -> io::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    Err(io::Error::other(format!("{path}: {status}")))
}
