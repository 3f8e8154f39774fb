//! The bytes between a client's socket and the AMQP engine, where the network can be made to fail
//! without the engine's help.

use std::{sync::Arc, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::fault::Kind;

/// Bytes moved at a time, and held between socket and engine at most.
pub(crate) const BUFFER_BYTES: usize = 64 * 1024;

/// The state of one connection's wire, and the means to change it.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug, Clone, Default)]
struct State {
    end: Option<End>,
    frozen: bool,
    drops_in: bool,
    drops_out: bool,
    delay: Option<(Duration, Duration)>,
    bytes_per_second: Option<u64>,
    /// How many bytes have been asked to be corrupted so far.
    corruptions: u64,
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Reset,
    Finish,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    FromClient,
    ToClient,
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())) }
    }

    /// Lets a fault of the network happen. Other faults do nothing here.
    pub(crate) fn bend(&self, kind: &Kind, seed: u64) {
        self.state.send_modify(|state| {
            state.seed = seed;
            match kind {
                Kind::Rst => state.end = Some(End::Reset),
                Kind::Fin => state.end = Some(End::Finish),
                Kind::Freeze => state.frozen = true,
                Kind::BlackholeIn => state.drops_in = true,
                Kind::BlackholeOut => state.drops_out = true,
                Kind::Delay { ms, jitter } => {
                    state.delay =
                        Some((Duration::from_millis(*ms), Duration::from_millis(*jitter)));
                }
                Kind::Rate { bytes_s } => state.bytes_per_second = Some((*bytes_s).max(1)),
                Kind::CorruptByte => state.corruptions += 1,
                _ => {}
            }
        });
    }

    /// Makes the network well again. What is gone stays gone.
    pub(crate) fn mend(&self) {
        self.state.send_modify(|state| {
            *state = State { end: state.end, corruptions: state.corruptions, ..State::default() };
        });
    }
}

/// Carries bytes both ways until either side ends. `observe` sees what comes from the client.
pub(crate) async fn relay(
    mut socket: TcpStream,
    engine: DuplexStream,
    wire: Wire,
    observe: impl FnMut(&[u8]) + Send,
) {
    let reset_on_drop = {
        let (from_client, to_client) = socket.split();
        let (from_engine, to_engine) = tokio::io::split(engine);
        let inward = pump(from_client, to_engine, Direction::FromClient, &wire, observe);
        let outward = pump(from_engine, to_client, Direction::ToClient, &wire, |_: &[u8]| {});
        let mut ends = wire.state.subscribe();
        tokio::select! {
            end = ends.wait_for(|state| state.end.is_some()) => {
                end.is_ok_and(|state| state.end == Some(End::Reset))
            }
            () = async { tokio::join!(inward, outward); } => false,
        }
    };
    if reset_on_drop {
        // Best effort: a socket that is gone already cannot be reset any more.
        let _ = socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO));
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: Direction,
    wire: &Wire,
    mut observe: impl FnMut(&[u8]),
) {
    let mut states = wire.state.subscribe();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut corrupted = 0;
    loop {
        if states.wait_for(|state| !state.frozen).await.is_err() {
            return;
        }
        let read = tokio::select! {
            biased;
            changed = states.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            read = from.read(&mut buffer) => read,
        };
        let bytes = match read {
            Ok(0) | Err(_) => break,
            Ok(count) => &mut buffer[..count],
        };
        let state = states.borrow().clone();
        if direction == Direction::FromClient {
            observe(bytes);
        }
        let drops = match direction {
            Direction::FromClient => state.drops_in,
            Direction::ToClient => state.drops_out,
        };
        if drops {
            continue;
        }
        if direction == Direction::ToClient && state.corruptions > corrupted {
            corrupted = state.corruptions;
            let at = StdRng::seed_from_u64(state.seed).random_range(0..bytes.len());
            bytes[at] ^= 0xff;
        }
        hold_up(&state, bytes.len()).await;
        if to.write_all(bytes).await.is_err() {
            break;
        }
    }
    // The other side may be gone already.
    let _ = to.shutdown().await;
}

async fn hold_up(state: &State, bytes: usize) {
    if let Some((delay, jitter)) = state.delay {
        let jitter_ms = u64::try_from(jitter.as_millis()).unwrap_or(u64::MAX);
        let mut random = StdRng::seed_from_u64(state.seed ^ bytes as u64);
        sleep(delay + Duration::from_millis(random.random_range(0..=jitter_ms))).await;
    }
    if let Some(rate) = state.bytes_per_second {
        sleep_until(Instant::now() + Duration::from_secs_f64(bytes as f64 / rate as f64)).await;
    }
}
