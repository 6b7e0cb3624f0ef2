//! `hostile-agent`: agents as they should not be, for a network whose image this is. It listens where an agent's HTTP port is and
//! answers by its ordinal in the StatefulSet:
//!
//! | ordinal | to a request for its report it |
//! |---|---|
//! | 0 | sends what is no report |
//! | 1 | sends three MiB |
//! | 2 | never answers |
//! | 3 | sends an HTTP error |
//! | 4 | sends the report of a true agent of the network `honest`, of the same namespace, asked with the same nonce |
//! | 5 | sends that report with a byte changed |
//!
//! Blocking, one thread for each connection. Only the standard library: `testbed/image-archives` builds it with `rustc` alone.

use std::io::{Error, Read, Result, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

const PORT: u16 = 8080;
const HONEST: &str = "honest-0.honest:8080";
const OVERSIZED: usize = 3 << 20;
/// A peer that is silent for longer is gone.
const DEADLINE: Duration = Duration::from_secs(5);
/// Longer than any reader waits, and bounded.
const NEVER: Duration = Duration::from_secs(60);
const MAX_REQUEST: usize = 16 << 10;

fn main() -> ExitCode {
    let name = std::env::var("PEERNET_NAME").unwrap_or_default();
    let ordinal = name
        .rsplit('-')
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    match serve(ordinal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hostile-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(ordinal: u32) -> Result<()> {
    for connection in TcpListener::bind(("0.0.0.0", PORT))?.incoming() {
        let connection = connection?;
        thread::spawn(move || {
            if let Err(error) = answer(connection, ordinal) {
                eprintln!("hostile-agent: a connection ended: {error}");
            }
        });
    }
    Ok(())
}

fn answer(mut connection: TcpStream, ordinal: u32) -> Result<()> {
    connection.set_read_timeout(Some(DEADLINE))?;
    connection.set_write_timeout(Some(DEADLINE))?;
    let request = read_head(&mut connection)?;
    if !request.starts_with("GET /v1/report") {
        // Ready and alive, as far as Kubernetes can see.
        return respond(&mut connection, "200 OK", b"ok");
    }
    match ordinal {
        0 => respond(&mut connection, "200 OK", b"<html>this is no report</html>"),
        1 => respond(&mut connection, "200 OK", &vec![b'x'; OVERSIZED]),
        2 => {
            thread::sleep(NEVER);
            Ok(())
        }
        3 => respond(&mut connection, "500 Internal Server Error", b"no"),
        _ => {
            let mut report = fetch(&request)?;
            // The last byte is of the signature.
            if ordinal == 5
                && let Some(last) = report.last_mut()
            {
                *last ^= 1;
            }
            respond(&mut connection, "200 OK", &report)
        }
    }
}

fn read_head(connection: &mut TcpStream) -> Result<String> {
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = connection.read(&mut chunk)?;
        if read == 0 || head.len() > MAX_REQUEST {
            return Err(Error::other("no request"));
        }
        head.extend_from_slice(chunk.get(..read).unwrap_or_default());
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn respond(connection: &mut TcpStream, status: &str, body: &[u8]) -> Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes())?;
    connection.write_all(body)
}

/// Passes the operator's question on to a true agent.
fn fetch(request: &str) -> Result<Vec<u8>> {
    let path = request.split(' ').nth(1).ok_or_else(|| Error::other("no path"))?;
    let address = HONEST
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| Error::other("no address"))?;
    let mut connection = TcpStream::connect_timeout(&address, DEADLINE)?;
    connection.set_read_timeout(Some(DEADLINE))?;
    write!(
        connection,
        "GET {path} HTTP/1.1\r\nHost: {HONEST}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    connection.take(OVERSIZED as u64).read_to_end(&mut answer)?;
    let head = answer
        .windows(4)
        .position(|end| end == b"\r\n\r\n")
        .ok_or_else(|| Error::other("no answer"))?;
    Ok(answer.split_off(head + 4))
}
