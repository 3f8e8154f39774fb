//! A cord between a connector and its cloud that a test can cut: every connection through it ends
//! at once, and a new one goes through.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

pub struct Cord {
    pub port: u16,
    cuts: watch::Sender<u64>,
}

impl Cord {
    /// A cord to this port of this machine. Its connections end with it.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cord =
            Self { port: listener.local_addr().unwrap().port(), cuts: watch::Sender::new(0) };
        let target = SocketAddr::from(([127, 0, 0, 1], port));
        let mut cut = cord.cuts.subscribe();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    Ok((near, _)) = listener.accept() => {
                        tokio::spawn(carry(near, target, cut.clone()));
                    }
                    // What is cut is what was open; what comes later sees later cuts.
                    changed = cut.changed() => if changed.is_err() { return },
                }
            }
        });
        cord
    }

    /// Cuts what is open now.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn carry(mut near: TcpStream, target: SocketAddr, mut cut: watch::Receiver<u64>) {
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => {}
        _ = cut.changed() => {}
    }
}
