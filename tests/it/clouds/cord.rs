//! A cord between a connector and its cloud that a test can cut: every connection through it ends
//! at once, and a new one goes through, or none does until it is mended.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

pub struct Cord {
    pub port: u16,
    cuts: watch::Sender<Cuts>,
    refused: watch::Receiver<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Cuts {
    count: u64,
    /// Whether new connections end as well.
    apart: bool,
}

impl Cord {
    /// A cord to this port of this machine. Its connections end with it.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near_port = listener.local_addr().unwrap().port();
        let (cuts, mut cut) = watch::channel(Cuts::default());
        let (refuses, refused) = watch::channel(0);
        let target = SocketAddr::from(([127, 0, 0, 1], port));
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    Ok((near, _)) = listener.accept() => {
                        if cut.borrow().apart {
                            refuses.send_modify(|count| *count += 1);
                        } else {
                            tokio::spawn(carry(near, target, cut.clone()));
                        }
                    }
                    // What is cut is what was open; what comes later sees later cuts.
                    changed = cut.changed() => if changed.is_err() { return },
                }
            }
        });
        Self { port: near_port, cuts, refused }
    }

    /// Cuts what is open now.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| cuts.count += 1);
    }

    /// Cuts what is open now, and lets nothing through until it is mended.
    pub fn part(&self) {
        self.cuts.send_modify(|cuts| *cuts = Cuts { count: cuts.count + 1, apart: true });
    }

    /// Lets new connections through again.
    pub fn mend(&self) {
        self.cuts.send_modify(|cuts| cuts.apart = false);
    }

    /// Waits until so many connections have been refused since it was made.
    pub async fn refused(&self, count: u64) {
        self.refused.clone().wait_for(|refused| *refused >= count).await.unwrap();
    }
}

async fn carry(mut near: TcpStream, target: SocketAddr, mut cut: watch::Receiver<Cuts>) {
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    // Mending it cuts nothing.
    let count = cut.borrow_and_update().count;
    tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => {}
        _ = cut.wait_for(|cuts| cuts.count > count) => {}
    }
}
