//! `yardstick`: round trips without PeerNet, in the same pods: over TCP and UDP, and the HTTP check of other tools; and a busy
//! loop, to have neighbours.
//!
//! Blocking and single-threaded on the measured path, so that nothing but the kernel and the network stands between two
//! timestamps. Only the standard library: `testbed/image-archives` builds it with `rustc` alone, statically.
//!
//! ```text
//! yardstick serve PORT                                   echo over TCP and UDP, and HTTP on the port after it, for ever
//! yardstick tcp|udp|http|http-close ADDRESS:PORT ROUNDS PACE_MS
//!                                                        round trips on one connection; http-close: a connection for each.
//!                                                        One JSON line: {"rounds":..,"answered":..,"p50_ns":..,"cpu_ns":..}
//! yardstick get ADDRESS:PORT PATH                        print what HTTP answers there
//! yardstick burn SECONDS                                 keep one CPU busy
//! ```
//!
//! PORT and ADDRESS:PORT are the same for all of them: HTTP adds one itself.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// As large as a libp2p ping.
const PAYLOAD: usize = 32;
/// A peer that is silent for longer is gone: a measurement fails then, instead of hanging.
const DEADLINE: Duration = Duration::from_secs(10);
/// A datagram without an answer is lost.
const DATAGRAM_DEADLINE: Duration = Duration::from_secs(1);
/// Bounds the memory of the samples.
const MAX_ROUNDS: usize = 1_000_000;
/// An idle connection gives its thread back.
const IDLE_CONNECTION: Duration = Duration::from_secs(600);
/// No busy loop outlives the longest recipe by much.
const MAX_BURN: u64 = 3600;
/// Lines of an HTTP head, at most.
const MAX_HEAD: usize = 64;
/// Bytes of a line of an HTTP head, at most.
const MAX_LINE: u64 = 4096;

/// Bytes of an HTTP body that is printed, at most.
const MAX_BODY: u64 = 16 << 20;

const USAGE: &str = "usage: yardstick serve PORT | yardstick tcp|udp|http|http-close ADDRESS:PORT ROUNDS PACE_MS | yardstick get ADDRESS:PORT PATH | yardstick burn SECONDS";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["serve", port] => number(port).and_then(serve),
        ["burn", seconds] => number(seconds).and_then(burn),
        ["get", address, path] => get(address, path),
        [kind, address, rounds, pace] => measure(kind, address, rounds, pace),
        _ => Err(Error::other(USAGE)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("yardstick: {error}");
            ExitCode::FAILURE
        }
    }
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N> {
    text.parse()
        .map_err(|_| Error::other(format!("{text:?} is not a number in range; {USAGE}")))
}

fn burn(seconds: u64) -> Result<()> {
    if seconds == 0 || seconds > MAX_BURN {
        return Err(Error::other(format!("SECONDS: 1 to {MAX_BURN}")));
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut work = 0_u64;
    while Instant::now() < end {
        for _ in 0..100_000 {
            work = std::hint::black_box(work.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
    Ok(())
}

// Answering.

fn serve(port: u16) -> Result<()> {
    let http_port = port
        .checked_add(1)
        .ok_or_else(|| Error::other("PORT: 1 to 65534"))?;
    let echo_listener = TcpListener::bind(("0.0.0.0", port))?;
    let http_listener = TcpListener::bind(("0.0.0.0", http_port))?;
    let datagrams = UdpSocket::bind(("0.0.0.0", port))?;
    thread::spawn(move || accept(&http_listener, answer_checks));
    thread::spawn(move || {
        let mut payload = [0; 2048];
        loop {
            // What can't be sent is lost, as datagrams are; the next one may be well.
            if let Ok((length, from)) = datagrams.recv_from(&mut payload) {
                let _ = datagrams.send_to(payload.get(..length).unwrap_or_default(), from);
            }
        }
    });
    accept(&echo_listener, echo);
    Ok(())
}

fn accept(listener: &TcpListener, answer: fn(TcpStream) -> Result<()>) {
    for connection in listener.incoming() {
        thread::spawn(move || {
            // The end of a connection is the other side's business.
            let _ = connection.and_then(|connection| {
                connection.set_nodelay(true)?;
                connection.set_read_timeout(Some(IDLE_CONNECTION))?;
                connection.set_write_timeout(Some(DEADLINE))?;
                answer(connection)
            });
        });
    }
}

fn echo(mut connection: TcpStream) -> Result<()> {
    let mut payload = [0; PAYLOAD];
    loop {
        connection.read_exact(&mut payload)?;
        connection.write_all(&payload)?;
    }
}

/// A health check's answer: 200, and two bytes.
fn answer_checks(connection: TcpStream) -> Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut writer = connection;
    loop {
        let (_, close) = read_head(&mut reader)?;
        let connection_header = if close { "close" } else { "keep-alive" };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nConnection: {connection_header}\r\n\r\nok"
        );
        writer.write_all(answer.as_bytes())?;
        if close {
            return Ok(());
        }
    }
}

/// Reads up to the empty line: the first line, and whether the connection is to be closed.
fn read_head(reader: &mut BufReader<TcpStream>) -> Result<(String, bool)> {
    let mut first = String::new();
    let mut close = false;
    for number in 0..MAX_HEAD {
        let mut line = String::new();
        if reader.by_ref().take(MAX_LINE).read_line(&mut line)? == 0 {
            return Err(Error::from(ErrorKind::UnexpectedEof));
        }
        match (number, line.trim_end()) {
            (0, text) => text.clone_into(&mut first),
            (_, "") => return Ok((first, close)),
            (_, text) => close |= text.eq_ignore_ascii_case("connection: close"),
        }
    }
    Err(Error::other("an HTTP head without an end"))
}

// Asking.

fn measure(kind: &str, address: &str, rounds: &str, pace: &str) -> Result<()> {
    let rounds: usize = number(rounds)?;
    if rounds == 0 || rounds > MAX_ROUNDS {
        return Err(Error::other(format!("ROUNDS: 1 to {MAX_ROUNDS}")));
    }
    let pace = Duration::from_millis(number(pace)?);
    let address = resolve(address)?;
    let samples = match kind {
        "tcp" => {
            let mut connection = connect(address)?;
            repeat(rounds, pace, || tcp_round(&mut connection).map(Some))?
        }
        "udp" => {
            let mut datagrams = Datagrams::to(address)?;
            repeat(rounds, pace, || datagrams.round())?
        }
        "http" => {
            let connection = connect(http(address)?)?;
            let mut reader = BufReader::new(connection.try_clone()?);
            let mut writer = connection;
            repeat(rounds, pace, || {
                check(&mut reader, &mut writer, "keep-alive").map(Some)
            })?
        }
        "http-close" => {
            let address = http(address)?;
            repeat(rounds, pace, || {
                let mut writer = connect(address)?;
                let mut reader = BufReader::new(writer.try_clone()?);
                check(&mut reader, &mut writer, "close").map(Some)
            })?
        }
        _ => return Err(Error::other(USAGE)),
    };
    print_summary(rounds, samples)
}

fn resolve(address: &str) -> Result<SocketAddr> {
    let first = address.to_socket_addrs()?.next();
    first.ok_or_else(|| Error::other("the name has no address"))
}

/// The body, if the answer is 200.
fn get(address: &str, path: &str) -> Result<()> {
    let mut connection = connect(resolve(address)?)?;
    write!(
        connection,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut reader = BufReader::new(connection);
    let (status, _) = read_head(&mut reader)?;
    if !status.starts_with("HTTP/1.1 200 ") {
        return Err(Error::other(format!("HTTP: {status:?}")));
    }
    std::io::copy(&mut reader.take(MAX_BODY), &mut std::io::stdout()).map(drop)
}

fn http(mut address: SocketAddr) -> Result<SocketAddr> {
    let port = address.port().checked_add(1);
    address.set_port(port.ok_or_else(|| Error::other("the port must be below 65535"))?);
    Ok(address)
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let connection = TcpStream::connect_timeout(&address, DEADLINE)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(DEADLINE))?;
    connection.set_write_timeout(Some(DEADLINE))?;
    Ok(connection)
}

/// At a fixed pace; who is late skips what is past, instead of catching up.
fn repeat(rounds: usize, pace: Duration, mut round: impl FnMut() -> Result<Option<()>>) -> Result<Vec<u128>> {
    let mut samples = Vec::with_capacity(rounds);
    let mut due = Instant::now();
    for _ in 0..rounds {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let sent = Instant::now();
        if round()?.is_some() {
            samples.push(sent.elapsed().as_nanos());
        }
        due = (due + pace).max(Instant::now());
    }
    Ok(samples)
}

fn tcp_round(connection: &mut TcpStream) -> Result<()> {
    let mut answer = [0; PAYLOAD];
    connection.write_all(&[7; PAYLOAD])?;
    connection.read_exact(&mut answer)
}

struct Datagrams {
    socket: UdpSocket,
    sent: u64,
}

impl Datagrams {
    fn to(address: SocketAddr) -> Result<Self> {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(DATAGRAM_DEADLINE))?;
        Ok(Self { socket, sent: 0 })
    }

    /// Nothing, if it was lost. An answer that comes too late is not taken for the next one's.
    fn round(&mut self) -> Result<Option<()>> {
        self.sent += 1;
        let mut payload = [7; PAYLOAD];
        for (into, byte) in payload.iter_mut().zip(self.sent.to_be_bytes()) {
            *into = byte;
        }
        self.socket.send(&payload)?;
        loop {
            let mut answer = [0; PAYLOAD];
            match self.socket.recv(&mut answer) {
                Ok(_) if answer == payload => return Ok(Some(())),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn check(reader: &mut BufReader<TcpStream>, writer: &mut TcpStream, connection: &str) -> Result<()> {
    let request = format!("GET /healthz HTTP/1.1\r\nHost: pod\r\nConnection: {connection}\r\n\r\n");
    writer.write_all(request.as_bytes())?;
    let (status, _) = read_head(reader)?;
    reader.read_exact(&mut [0; 2])?;
    if status.starts_with("HTTP/1.1 200 ") {
        Ok(())
    } else {
        Err(Error::other(format!("HTTP: {status:?}")))
    }
}

fn print_summary(rounds: usize, mut samples: Vec<u128>) -> Result<()> {
    samples.sort_unstable();
    // Nearest rank. Without a sample there is no number.
    let quantile = |percent: usize| {
        let rank = (samples.len() * percent).div_ceil(100).max(1);
        samples.get(rank - 1).copied()
    };
    let field = |name: &str, percent| {
        quantile(percent).map_or_else(String::new, |nanos| format!(r#""{name}":{nanos},"#))
    };
    writeln!(
        std::io::stdout(),
        r#"{{"rounds":{rounds},"answered":{},{}{}{}{}{}"cpu_ns":{}}}"#,
        samples.len(),
        field("min_ns", 0),
        field("p50_ns", 50),
        field("p90_ns", 90),
        field("p99_ns", 99),
        field("max_ns", 100),
        cpu_nanos()?,
    )
}

/// CPU time of this process, which asks with one thread: the first figure of `schedstat`.
fn cpu_nanos() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/schedstat")?;
    number(text.split_whitespace().next().unwrap_or_default())
}
