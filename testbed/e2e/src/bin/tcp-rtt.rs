//! `tcp-rtt`: raw TCP round trips between two pods, the yardstick for what the agents report.
//!
//! Blocking and single-threaded on the measured path, so that nothing but the kernel and the network stands between two
//! timestamps. Only the standard library: `testbed/image-archives` builds it with `rustc` alone, statically.
//!
//! ```text
//! tcp-rtt serve PORT                              echo, for ever
//! tcp-rtt ping ADDRESS:PORT ROUNDS PACE_MS        one JSON line: {"rounds":..,"min_ns":..,"p50_ns":..,"p99_ns":..,"max_ns":..}
//! ```

use std::io::{Error, Read, Result, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// As large as a libp2p ping.
const PAYLOAD: usize = 32;
/// A peer that is silent for longer is gone: a test fails then, instead of hanging.
const DEADLINE: Duration = Duration::from_secs(5);
/// Bounds the memory of the samples.
const MAX_ROUNDS: usize = 1_000_000;
/// An idle connection gives its thread back.
const IDLE_CONNECTION: Duration = Duration::from_secs(600);

const USAGE: &str = "usage: tcp-rtt serve PORT | tcp-rtt ping ADDRESS:PORT ROUNDS PACE_MS";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["serve", port] => number(port).and_then(serve),
        ["ping", address, rounds, pace] => {
            number(rounds).and_then(|rounds| ping(address, rounds, Duration::from_millis(number(pace)?)))
        }
        _ => Err(Error::other(USAGE)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tcp-rtt: {error}");
            ExitCode::FAILURE
        }
    }
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N> {
    text.parse()
        .map_err(|_| Error::other(format!("{text:?} is not a number in range; {USAGE}")))
}

fn serve(port: u16) -> Result<()> {
    for connection in TcpListener::bind(("0.0.0.0", port))?.incoming() {
        let connection = connection?;
        thread::spawn(move || {
            if let Err(error) = echo(connection) {
                eprintln!("tcp-rtt: a connection ended: {error}");
            }
        });
    }
    Ok(())
}

fn echo(mut connection: TcpStream) -> Result<()> {
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(IDLE_CONNECTION))?;
    connection.set_write_timeout(Some(DEADLINE))?;
    let mut payload = [0; PAYLOAD];
    loop {
        connection.read_exact(&mut payload)?;
        connection.write_all(&payload)?;
    }
}

fn ping(address: &str, rounds: usize, pace: Duration) -> Result<()> {
    if rounds == 0 || rounds > MAX_ROUNDS {
        return Err(Error::other(format!("ROUNDS: 1 to {MAX_ROUNDS}")));
    }
    let address = address
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| Error::other("the name has no address"))?;
    let mut connection = TcpStream::connect_timeout(&address, DEADLINE)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(DEADLINE))?;
    connection.set_write_timeout(Some(DEADLINE))?;

    let mut samples = Vec::with_capacity(rounds);
    let payload = [7; PAYLOAD];
    let mut answer = [0; PAYLOAD];
    for _ in 0..rounds {
        let sent = Instant::now();
        connection.write_all(&payload)?;
        connection.read_exact(&mut answer)?;
        samples.push(sent.elapsed().as_nanos());
        thread::sleep(pace);
    }
    samples.sort_unstable();
    let quantile = |percent: usize| {
        let rank = (samples.len() * percent).div_ceil(100).max(1);
        samples.get(rank - 1).copied().unwrap_or_default()
    };
    writeln!(
        std::io::stdout(),
        r#"{{"rounds":{rounds},"min_ns":{},"p50_ns":{},"p99_ns":{},"max_ns":{}}}"#,
        quantile(0),
        quantile(50),
        quantile(99),
        quantile(100),
    )
}
