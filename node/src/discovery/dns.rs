//! Names that are looked up for as long as the agent runs, by the system's resolver.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// A look-up that takes longer is given up.
const DEADLINE: Duration = Duration::from_secs(5);
/// The system's resolver can't be interrupted: the next look-up waits this long for a thread that still hangs.
const STUCK: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// What a name stands for now.
#[derive(Debug)]
pub struct Resolution {
    /// Which of the caller's names this is.
    pub key: usize,
    /// Its addresses, sorted, each once.
    pub addresses: io::Result<Vec<IpAddr>>,
}

/// Looks a name up again and again until the receiver is gone: often while the answer changes or is missing, every few
/// seconds when it stays the same.
pub fn watch(key: usize, name: String, answers: mpsc::Sender<Resolution>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut pace = Pace::default();
        let mut last = Vec::new();
        loop {
            let addresses = look_up(&name).await;
            let changed = matches!(&addresses, Ok(found) if *found != last);
            if let Ok(found) = &addresses {
                last.clone_from(found);
            }
            if answers.send(Resolution { key, addresses }).await.is_err() {
                return;
            }
            sleep(pace.next(changed, rand::random())).await;
        }
    })
}

async fn look_up(name: &str) -> io::Result<Vec<IpAddr>> {
    let name = name.to_owned();
    let started = Instant::now();
    let mut thread = tokio::task::spawn_blocking(move || -> io::Result<Vec<IpAddr>> {
        let mut found: Vec<IpAddr> = (name.as_str(), 0)
            .to_socket_addrs()?
            .map(|address: SocketAddr| address.ip())
            .collect();
        found.sort_unstable();
        found.dedup();
        Ok(found)
    });
    if let Ok(answer) = timeout(DEADLINE, &mut thread).await {
        return answer.map_err(io::Error::other)?;
    }
    let late = timeout(STUCK, thread).await;
    tracing::debug!(after = ?started.elapsed(), ended = late.is_ok(), "the resolver hung");
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        format!("no answer from the resolver within {DEADLINE:?}"),
    ))
}

/// Pauses between look-ups: short at first and after a change, then doubling up to a bound. Failures count as no change,
/// so that a name server in trouble is not asked faster than one that works.
#[derive(Debug, Default)]
struct Pace {
    calm: u32,
}

impl Pace {
    /// The next pause, with a jitter of 20 % either way, given a random number from 0 to 1.
    fn next(&mut self, changed: bool, random: f64) -> Duration {
        self.calm = if changed {
            0
        } else {
            self.calm.saturating_add(1).min(8)
        };
        FIRST_PAUSE
            .saturating_mul(1 << self.calm)
            .min(LAST_PAUSE)
            .mul_f64(0.8 + random * 0.4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_start_anew_with_a_change() {
        let mut pace = Pace::default();
        assert_eq!(pace.next(true, 0.5), FIRST_PAUSE);
        assert_eq!(pace.next(false, 0.5), FIRST_PAUSE * 2);
        for _ in 0..1000 {
            assert!(pace.next(false, 1.0) <= LAST_PAUSE.mul_f64(1.2));
        }
        assert_eq!(pace.next(false, 0.5), LAST_PAUSE);
        assert_eq!(pace.next(true, 0.5), FIRST_PAUSE);
    }

    #[tokio::test]
    async fn a_name_is_looked_up_again_and_again_until_nobody_listens() {
        let (sender, mut answers) = mpsc::channel(1);
        let task = watch(7, "localhost".to_owned(), sender);
        for _ in 0..2 {
            let answer = answers.recv().await.unwrap();
            assert_eq!(answer.key, 7);
            assert!(answer.addresses.unwrap().iter().all(IpAddr::is_loopback));
        }
        drop(answers);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_name_that_is_none_is_an_error_and_not_the_end() {
        let (sender, mut answers) = mpsc::channel(1);
        let task = watch(0, "no such name".to_owned(), sender);
        assert!(answers.recv().await.unwrap().addresses.is_err());
        assert!(answers.recv().await.unwrap().addresses.is_err());
        task.abort();
    }
}
