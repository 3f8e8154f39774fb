//! A cord between a program and its cloud, on which a test makes the network fail.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

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

/// Its connections end with it.
pub struct Cord {
    pub port: u16,
    network: watch::Sender<Network>,
    refused: watch::Receiver<u64>,
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
        let target = SocketAddr::from(([127, 0, 0, 1], port));
        tokio::spawn(async move {
            let mut ended = watched.clone();
            loop {
                tokio::select! {
                    Ok((near, _)) = listener.accept() => {
                        if watched.borrow().fault == Fault::Apart {
                            reset(&near);
                            refuses.send_modify(|count| *count += 1);
                        } else {
                            tokio::spawn(carry(near, target, watched.clone()));
                        }
                    }
                    changed = ended.changed() => if changed.is_err() { return },
                }
            }
        });
        Self { port: near_port, network, refused }
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

async fn carry(mut near: TcpStream, target: SocketAddr, network: watch::Receiver<Network>) {
    let cuts = network.borrow().cuts;
    let Ok(mut far) = TcpStream::connect(target).await else { return reset(&near) };
    // As the clouds' own: an answer is not put off for 40 ms.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (mut cut, mut silence) = (network.clone(), network.clone());
    let end = {
        let ((near_in, near_out), (far_in, far_out)) = (near.split(), far.split());
        let ask = pump(near_in, far_out, network.clone(), false);
        let answer = pump(far_in, near_out, network.clone(), true);
        tokio::select! {
            biased;
            _ = silence.wait_for(|network| network.fault == Fault::HalfOpen) => End::Silence,
            _ = cut.wait_for(|network| network.cuts > cuts) => End::Reset,
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
                while near.read(&mut lost).await.is_ok_and(|count| count > 0) {}
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
            Fault::Latency(by) => sleep(by).await,
            Fault::Bandwidth(bytes) => {
                sleep(Duration::from_secs_f64(count as f64 / f64::from(bytes))).await;
            }
            Fault::CutAfter(most) if is_answer && said + count > most => {
                to.write_all(&buffer[..most - said]).await?;
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
            _ => {}
        }
        said = if matches!(fault, Fault::CutAfter(_)) { said + count } else { 0 };
        to.write_all(&buffer[..count]).await?;
    }
}
