use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
};

use futures::AsyncWriteExt;
use proptest::prelude::*;

use super::*;
use crate::ping::responder::Responder;

const SECOND: Duration = Duration::from_secs(1);
const FIRST: Ping = Ping {
    burst: 1,
    first: true,
};

/// One end of an in-memory byte stream that moves at most `chunk` bytes at a time, like a network in a bad mood.
struct Pipe {
    inner: tokio::io::DuplexStream,
    chunk: usize,
}

fn pipes(chunk: usize) -> (Pipe, Pipe) {
    let (a, b) = tokio::io::duplex(4096);
    (Pipe { inner: a, chunk }, Pipe { inner: b, chunk })
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        let end = out.len().min(self.chunk);
        let mut out = tokio::io::ReadBuf::new(&mut out[..end]);
        ready!(tokio::io::AsyncRead::poll_read(
            Pin::new(&mut self.inner),
            cx,
            &mut out
        ))?;
        Poll::Ready(Ok(out.filled().len()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let end = bytes.len().min(self.chunk);
        tokio::io::AsyncWrite::poll_write(Pin::new(&mut self.inner), cx, &bytes[..end])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        tokio::io::AsyncWrite::poll_flush(Pin::new(&mut self.inner), cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        tokio::io::AsyncWrite::poll_shutdown(Pin::new(&mut self.inner), cx)
    }
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn send(prober: &mut Prober<Pipe>, n: u8, at: Instant) {
    assert!(prober.send(FIRST, [n; SIZE], false, at));
}

fn outstanding(prober: &Prober<Pipe>) -> usize {
    prober.in_flight.iter().filter(|probe| !probe.given_up).count()
}

#[tokio::test]
async fn probes_don_t_wait_for_each_other() {
    let (ours, theirs) = pipes(7);
    let mut prober = Prober::new(ours, SECOND);
    let start = Instant::now();
    for n in 0..20 {
        send(&mut prober, n, start);
    }
    let mut responder = Responder::new(theirs);
    let answering = tokio::spawn(async move { poll_fn(|cx| responder.poll(cx)).await });
    for _ in 0..20 {
        poll_fn(|cx| prober.poll(cx)).await.unwrap();
    }
    assert_eq!(outstanding(&prober), 0);
    drop(prober);
    answering.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_late_answer_is_thrown_away_and_the_next_one_counts() {
    let (ours, mut theirs) = pipes(1000);
    let mut prober = Prober::new(ours, SECOND);
    let sent = Instant::now();
    send(&mut prober, 1, sent);
    send(&mut prober, 2, sent + SECOND);
    let lost = Ended {
        ping: FIRST,
        sent,
        host_limited: false,
    };
    assert_eq!(prober.give_up(sent + SECOND), [(lost, false)]);
    assert_eq!(prober.give_up(sent + SECOND), [], "given up once");
    assert_eq!(
        (outstanding(&prober), prober.next_deadline()),
        (1, Some(sent + SECOND * 2))
    );
    theirs.write_all(&[1; SIZE]).await.unwrap();
    theirs.write_all(&[2; SIZE]).await.unwrap();
    let (ended, _) = poll_fn(|cx| prober.poll(cx)).await.unwrap();
    assert_eq!((ended.sent, outstanding(&prober)), (sent + SECOND, 0));
    let nothing_more = futures::poll!(poll_fn(|cx| prober.poll(cx)));
    assert!(nothing_more.is_pending());
}

#[tokio::test]
async fn what_nobody_listened_for_gets_its_time_back() {
    let (ours, mut theirs) = pipes(1000);
    let mut prober = Prober::new(ours, SECOND);
    let sent = Instant::now();
    send(&mut prober, 1, sent);
    send(&mut prober, 2, sent);
    // The process did not run from before its time was up until half a second after.
    let woken = sent + SECOND + SECOND / 2;
    assert_eq!(prober.give_up(woken), []);
    assert_eq!(prober.next_deadline(), Some(woken + SECOND / 2));
    theirs.write_all(&[1; SIZE]).await.unwrap();
    let (answered, _) = poll_fn(|cx| prober.poll(cx)).await.unwrap();
    assert!(answered.host_limited);
    // The other one was listened for until its new time was up: it is lost, and that is certain.
    let lost = prober.give_up(woken + SECOND / 2);
    assert!(matches!(
        lost[..],
        [(
            Ended {
                host_limited: true,
                ..
            },
            false
        )]
    ));
}

#[test]
fn an_agent_that_is_never_there_in_time_says_that_it_can_t_tell() {
    let (ours, _theirs) = pipes(1000);
    let mut prober = Prober::new(ours, SECOND);
    send(&mut prober, 1, Instant::now());
    let mut given_up = Vec::new();
    for times in 0.. {
        let Some(deadline) = prober.next_deadline() else {
            assert_eq!(times, usize::from(MAX_POSTPONED) + 1);
            break;
        };
        given_up.extend(prober.give_up(deadline + SECOND / 10));
    }
    assert!(matches!(
        given_up[..],
        [(
            Ended {
                host_limited: true,
                ..
            },
            true
        )]
    ));
}

#[test]
fn a_little_late_is_in_time() {
    let (ours, _theirs) = pipes(1000);
    let mut prober = Prober::new(ours, SECOND);
    let sent = Instant::now();
    send(&mut prober, 1, sent);
    let given_up = prober.give_up(sent + SECOND + Duration::from_millis(3));
    assert!(matches!(
        given_up[..],
        [(
            Ended {
                host_limited: false,
                ..
            },
            false
        )]
    ));
}

#[test]
fn what_is_abandoned_is_told_with_what_is_known_of_it() {
    let (ours, _theirs) = pipes(1000);
    let mut prober = Prober::new(ours, SECOND);
    let sent = Instant::now();
    send(&mut prober, 1, sent);
    send(&mut prober, 2, sent + SECOND);
    let told: Vec<_> = prober
        .abandon(sent + SECOND * 2)
        .into_iter()
        .map(|(ended, unheard)| (ended.host_limited, unheard))
        .collect();
    assert_eq!(told, [(true, true), (false, false)]);
    assert_eq!(outstanding(&prober), 0);
}

#[tokio::test]
async fn wrong_bytes_and_answers_to_nothing_end_the_stream() {
    let (ours, mut theirs) = pipes(1000);
    let mut prober = Prober::new(ours, SECOND);
    send(&mut prober, 1, Instant::now());
    theirs.write_all(&[2; SIZE]).await.unwrap();
    let error = poll_fn(|cx| prober.poll(cx)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_eq!(prober.abandon(Instant::now()).len(), 1, "its end must be told");

    let (ours, mut theirs) = pipes(1000);
    theirs.write_all(&[0; SIZE]).await.unwrap();
    let mut prober = Prober::new(ours, SECOND);
    let error = poll_fn(|cx| prober.poll(cx)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);

    let (ours, theirs) = pipes(1000);
    drop(theirs);
    let mut prober = Prober::new(ours, SECOND);
    let error = poll_fn(|cx| prober.poll(cx)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn probes_on_the_way_are_bounded() {
    let (ours, _theirs) = pipes(1000);
    let mut prober = Prober::new(ours, SECOND);
    let sent = (0..1000)
        .filter(|_| prober.send(FIRST, [0; SIZE], false, Instant::now()))
        .count();
    assert_eq!(sent, MAX_IN_FLIGHT);
}

#[test]
fn a_responder_that_has_answered_waits_for_the_next_ping() {
    // libp2p::ping 0.48 installs the next read without polling it: no waker is left, and the next ping waits until
    // something else wakes the connection.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _guard = runtime.enter();
    let (ours, mut theirs) = pipes(1000);
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut cx = Context::from_waker(&waker);
    let mut responder = Responder::new(ours);
    for n in 0..5 {
        runtime.block_on(theirs.write_all(&[n; SIZE])).unwrap();
        let before = wakes.0.load(Ordering::SeqCst);
        assert!(responder.poll(&mut cx).is_pending());
        let mut answer = [9; SIZE];
        runtime
            .block_on(futures::AsyncReadExt::read_exact(&mut theirs, &mut answer))
            .unwrap();
        assert_eq!(answer, [n; SIZE]);
        runtime.block_on(theirs.write_all(&[n; 1])).unwrap();
        assert!(
            wakes.0.load(Ordering::SeqCst) > before,
            "ping {n}: nobody would notice the next one"
        );
        runtime.block_on(theirs.write_all(&[n; SIZE - 1])).unwrap();
        assert!(responder.poll(&mut cx).is_pending());
        runtime
            .block_on(futures::AsyncReadExt::read_exact(&mut theirs, &mut answer))
            .unwrap();
    }
}

proptest! {
    /// However the bytes are cut, every probe gets its own answer.
    #[test]
    fn every_probe_gets_its_answer(payloads in prop::collection::vec(any::<[u8; SIZE]>(), 1..60), chunk in 1_usize..100) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (ours, theirs) = pipes(chunk);
            let mut prober = Prober::new(ours, SECOND);
            for payload in &payloads {
                assert!(prober.send(FIRST, *payload, false, Instant::now()));
            }
            let mut responder = Responder::new(theirs);
            let answering = tokio::spawn(async move { poll_fn(|cx| responder.poll(cx)).await });
            for _ in &payloads {
                poll_fn(|cx| prober.poll(cx)).await.unwrap();
            }
            answering.abort();
        });
    }
}
