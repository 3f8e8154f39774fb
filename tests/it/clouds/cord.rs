//! A cord between a program and its cloud, on which a test makes the network fail.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::free_port;
use crate::rig::PATIENCE;

/// What is wrong with the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    Nothing,
    /// What is said takes so long each way.
    Latency(Duration),
    /// So many bytes get through in a second, each way of each connection.
    Bandwidth(u32),
    /// A connection is reset in the midst of an answer, after so many bytes of it.
    CutAfter(usize),
    /// Connections are accepted, and nothing that is said on them arrives, nor does their end.
    /// One that was met by this stays so when the network is mended.
    HalfOpen,
    /// A new connection is reset as soon as it is there.
    Apart,
}

/// What a cord counts of what it has done: a network that did nothing has shown nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strike {
    /// Bytes that came later, for [`Fault::Latency`].
    Delayed,
    /// Bytes that waited for their turn, for [`Fault::Bandwidth`].
    Throttled,
    /// Answers that were cut, for [`Fault::CutAfter`].
    Cut,
    /// Connections that fell silent, for [`Fault::HalfOpen`].
    Silenced,
    /// Bytes that were said on these.
    Swallowed,
    /// Connections that were reset while they were open, for [`Cord::cut`].
    Reset,
    /// Connections that were refused, for [`Fault::Apart`].
    Refused,
    /// Connections that found nobody at the far end: the service itself was away.
    Unanswered,
}

impl Strike {
    const COUNT: usize = 8;
}

#[derive(Debug, Default)]
struct Strikes([AtomicU64; Strike::COUNT]);

impl Strikes {
    fn add(&self, strike: Strike, count: usize) {
        self.0[strike as usize].fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Its connections end with it.
pub struct Cord {
    pub port: u16,
    network: watch::Sender<Network>,
    refused: watch::Receiver<u64>,
    strikes: Arc<Strikes>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Network {
    /// How often what was open has been cut.
    cuts: u64,
    fault: Fault,
}

impl Cord {
    /// A cord to this port of this machine.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near_port = listener.local_addr().unwrap().port();
        let (network, watched) = watch::channel(Network::default());
        let (refuses, refused) = watch::channel(0);
        let strikes = Arc::new(Strikes::default());
        let target = SocketAddr::from(([127, 0, 0, 1], port));
        let counts = strikes.clone();
        tokio::spawn(async move {
            let mut ended = watched.clone();
            loop {
                tokio::select! {
                    Ok((near, _)) = listener.accept() => {
                        if watched.borrow().fault == Fault::Apart {
                            reset(&near);
                            counts.add(Strike::Refused, 1);
                            refuses.send_modify(|count| *count += 1);
                        } else {
                            tokio::spawn(carry(near, target, watched.clone(), counts.clone()));
                        }
                    }
                    changed = ended.changed() => if changed.is_err() { return },
                }
            }
        });
        Self { port: near_port, network, refused, strikes }
    }

    /// How much of this it has done since it was made.
    pub fn struck(&self, by: Strike) -> u64 {
        self.strikes.0[by as usize].load(Ordering::Relaxed)
    }

    /// Resets what is open now.
    pub fn cut(&self) {
        self.network.send_modify(|network| network.cuts += 1);
    }

    /// From now on, this is wrong.
    pub fn suffer(&self, fault: Fault) {
        self.network.send_modify(|network| network.fault = fault);
    }

    /// Resets what is open now, and lets nothing through until it is mended.
    pub fn part(&self) {
        self.suffer(Fault::Apart);
        self.cut();
    }

    /// Nothing is wrong any more, for new connections at least.
    pub fn mend(&self) {
        self.suffer(Fault::Nothing);
    }

    /// Waits until so many connections have been refused since it was made.
    pub async fn refused(&self, count: u64) {
        self.refused.clone().wait_for(|refused| *refused >= count).await.unwrap();
    }
}

/// It ends with a reset instead of a goodbye, once it is dropped.
fn reset(stream: &TcpStream) {
    // The other side may have been faster.
    let _ = stream.set_zero_linger();
}

/// How a connection ends.
enum End {
    Goodbye,
    Reset,
    /// Not at all.
    Silence,
}

async fn carry(
    mut near: TcpStream,
    target: SocketAddr,
    network: watch::Receiver<Network>,
    strikes: Arc<Strikes>,
) {
    let cuts = network.borrow().cuts;
    let Ok(mut far) = TcpStream::connect(target).await else {
        strikes.add(Strike::Unanswered, 1);
        return reset(&near);
    };
    // As the clouds' own: an answer is not put off for 40 ms.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (mut cut, mut silence) = (network.clone(), network.clone());
    let end = {
        let ((near_in, near_out), (far_in, far_out)) = (near.split(), far.split());
        let ask = pump(near_in, far_out, network.clone(), &strikes, false);
        let answer = pump(far_in, near_out, network.clone(), &strikes, true);
        tokio::select! {
            biased;
            _ = silence.wait_for(|network| network.fault == Fault::HalfOpen) => {
                strikes.add(Strike::Silenced, 1);
                End::Silence
            }
            _ = cut.wait_for(|network| network.cuts > cuts) => {
                strikes.add(Strike::Reset, 1);
                End::Reset
            }
            // A cut answer ends both ways.
            both = async { tokio::try_join!(ask, answer) } => match both {
                Ok(_) => End::Goodbye,
                Err(_) => End::Reset,
            },
        }
    };
    match end {
        End::Goodbye => {}
        End::Reset => reset(&near),
        End::Silence => {
            // What the far side says stays with us, and it is not told when the near one gives up
            // before the cord is gone.
            let swallow = async {
                let mut lost = [0; 4096];
                while let Ok(count @ 1..) = near.read(&mut lost).await {
                    strikes.add(Strike::Swallowed, count);
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = swallow => {}
                // The sender is gone.
                _ = silence.wait_for(|_| false) => {}
            }
        }
    }
}

/// Copies one way until its end, as badly as the network is. An error is a connection to reset.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    network: watch::Receiver<Network>,
    strikes: &Strikes,
    is_answer: bool,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 8 * 1024];
    // Bytes since it is cut after so many.
    let mut said = 0;
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        let fault = network.borrow().fault;
        match fault {
            Fault::Latency(by) => {
                strikes.add(Strike::Delayed, count);
                sleep(by).await;
            }
            Fault::Bandwidth(bytes) => {
                strikes.add(Strike::Throttled, count);
                sleep(Duration::from_secs_f64(count as f64 / f64::from(bytes))).await;
            }
            Fault::CutAfter(most) if is_answer && said + count > most => {
                strikes.add(Strike::Cut, 1);
                to.write_all(&buffer[..most - said]).await?;
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
            _ => {}
        }
        said = if matches!(fault, Fault::CutAfter(_)) { said + count } else { 0 };
        to.write_all(&buffer[..count]).await?;
    }
}

/// A cord to somebody who says again whatever he hears.
async fn to_an_echo() -> Cord {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cord = Cord::to(listener.local_addr().unwrap().port()).await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                // The other side may be gone.
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    cord
}

async fn connect(cord: &Cord) -> TcpStream {
    TcpStream::connect(("127.0.0.1", cord.port)).await.unwrap()
}

/// Says so many bytes, and hears them again.
async fn talk(stream: &mut TcpStream, bytes: usize) -> std::io::Result<()> {
    stream.write_all(&vec![b'x'; bytes]).await?;
    let mut heard = vec![0; bytes];
    let heard = timeout(PATIENCE, stream.read_exact(&mut heard)).await;
    heard.expect("nothing comes back").map(drop)
}

/// Connects and says something. Where it is reset at once, either of the two fails.
async fn try_to_talk(cord: &Cord) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", cord.port)).await?;
    talk(&mut stream, 1).await
}

/// What it has done, in the order of [`Strike`], without what was swallowed.
fn counts(cord: &Cord) -> [u64; 7] {
    use Strike::{Cut, Delayed, Refused, Reset, Silenced, Throttled, Unanswered};
    [Delayed, Throttled, Cut, Silenced, Reset, Refused, Unanswered].map(|by| cord.struck(by))
}

#[tokio::test]
async fn a_cord_counts_what_it_does_and_nothing_else() {
    let cord = to_an_echo().await;
    let mut stream = connect(&cord).await;
    talk(&mut stream, 1_000).await.unwrap();
    assert_eq!(counts(&cord), [0; 7]);

    let by = Duration::from_millis(50);
    cord.suffer(Fault::Latency(by));
    let begun = Instant::now();
    talk(&mut stream, 10).await.unwrap();
    assert!(begun.elapsed() >= 2 * by, "{:?}", begun.elapsed());
    assert_eq!(counts(&cord), [20, 0, 0, 0, 0, 0, 0]);

    cord.suffer(Fault::Bandwidth(1_000));
    let begun = Instant::now();
    talk(&mut stream, 50).await.unwrap();
    assert!(begun.elapsed() >= 2 * by, "{:?}", begun.elapsed());
    assert_eq!(counts(&cord), [20, 100, 0, 0, 0, 0, 0]);

    cord.suffer(Fault::CutAfter(400));
    talk(&mut stream, 400).await.unwrap();
    assert_eq!(counts(&cord), [20, 100, 0, 0, 0, 0, 0]);
    assert!(talk(&mut stream, 1).await.is_err());
    assert_eq!(counts(&cord), [20, 100, 1, 0, 0, 0, 0]);

    cord.mend();
    let mut stream = connect(&cord).await;
    talk(&mut stream, 1_000).await.unwrap();
    cord.cut();
    assert!(talk(&mut stream, 1).await.is_err());
    assert_eq!(counts(&cord), [20, 100, 1, 0, 1, 0, 0]);

    cord.suffer(Fault::Apart);
    assert!(try_to_talk(&cord).await.is_err());
    assert_eq!(counts(&cord), [20, 100, 1, 0, 1, 1, 0]);
}

#[tokio::test]
async fn a_connection_that_fell_silent_stays_so_and_another_one_is_well() {
    let cord = to_an_echo().await;
    let mut stream = connect(&cord).await;
    talk(&mut stream, 10).await.unwrap();
    cord.suffer(Fault::HalfOpen);
    stream.write_all(&[0; 10]).await.unwrap();
    let swallowed = async {
        while cord.struck(Strike::Swallowed) < 10 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, swallowed).await.expect("what was said has got through");
    cord.mend();
    talk(&mut connect(&cord).await, 10).await.unwrap();
    let heard = stream.try_read(&mut [0; 10]).unwrap_err();
    assert_eq!(heard.kind(), std::io::ErrorKind::WouldBlock, "{heard}");
    assert_eq!(counts(&cord), [0, 0, 0, 1, 0, 0, 0]);
}

#[tokio::test]
async fn a_cord_counts_who_finds_nobody_at_its_far_end() {
    let cord = Cord::to(free_port()).await;
    assert!(try_to_talk(&cord).await.is_err());
    assert_eq!(counts(&cord), [0, 0, 0, 0, 0, 0, 1]);
}
