//! The TCP stream under a connection: it can be cut, and tells when it last heard from the peer.
//!
//! The AMQP engine runs in a task of its own and waits without a deadline in places (a write into
//! a full socket, the peer's close). Cutting the stream under it ends all of these at once.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{oneshot, watch},
    time::Instant,
};

use super::{
    endpoint::Endpoint,
    error::{Error, ErrorKind},
};

/// The client's end of the cord to a [`WireStream`]. The stream is cut when it is dropped.
#[derive(Debug)]
pub(crate) struct Wire {
    cut: Mutex<Option<oneshot::Sender<()>>>,
    /// Milliseconds from `opened` to the last byte that came in.
    heard: Arc<AtomicU64>,
    opened: Instant,
    /// Closed once the engine has let go of the stream, or has been told that it is cut.
    ended: watch::Receiver<()>,
}

/// What the AMQP engine reads from and writes to.
#[derive(Debug)]
pub(crate) struct WireStream {
    tcp: TcpStream,
    /// `None` once cut.
    cut: Option<oneshot::Receiver<()>>,
    heard: Arc<AtomicU64>,
    opened: Instant,
    /// `None` once cut; [`Wire::ended`] waits for it to be dropped.
    alive: Option<watch::Sender<()>>,
}

impl Wire {
    pub(crate) async fn connect(endpoint: &Endpoint) -> Result<(Self, WireStream), Error> {
        let failed = |error: io::Error| {
            Error::new("connect", ErrorKind::ConnectionLost, endpoint.to_string())
                .with_source(error)
        };
        let address = (endpoint.host.as_str(), endpoint.port);
        let tcp = TcpStream::connect(address).await.map_err(failed)?;
        // Requests are small and each waits for its response: 40 ms apiece with Nagle.
        tcp.set_nodelay(true).map_err(failed)?;
        let (sender, receiver) = oneshot::channel();
        let (heard, opened) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let (alive, ended) = watch::channel(());
        let (cut, alive) = (Some(receiver), Some(alive));
        let stream = WireStream { tcp, cut, heard: heard.clone(), opened, alive };
        Ok((Self { cut: Mutex::new(Some(sender)), heard, opened, ended }, stream))
    }

    /// Ends the connection now, without a word to the peer.
    pub(crate) fn cut(&self) {
        drop(self.cut.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take());
    }

    /// Whether nobody has cut it and the engine still holds it.
    pub(crate) fn is_up(&self) -> bool {
        let cut = self.cut.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        cut.as_ref().is_some_and(|sender| !sender.is_closed())
    }

    /// Waits until it is down. Cancel-safe.
    pub(crate) async fn ended(&self) {
        // Nothing is ever sent: an error says that the other end is gone.
        while self.ended.clone().changed().await.is_ok() {}
    }

    /// How long it has been up.
    pub(crate) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Whether a byte has come in since `time`.
    pub(crate) fn heard_since(&self, time: Instant) -> bool {
        let heard = Duration::from_millis(self.heard.load(Ordering::Relaxed));
        self.opened + heard >= time
    }
}

impl WireStream {
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(cut) = &mut self.cut
            && Pin::new(cut).poll(cx).is_ready()
        {
            (self.cut, self.alive) = (None, None);
        }
        match self.cut {
            Some(_) => Ok(()),
            None => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "given up by the client")),
        }
    }
}

impl AsyncRead for WireStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_cut(cx)?;
        let result = Pin::new(&mut self.tcp).poll_read(cx, buf);
        if result.is_ready() {
            let heard = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.heard.store(heard, Ordering::Relaxed);
        }
        result
    }
}

impl AsyncWrite for WireStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_cut(cx)?;
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_cut(cx)?;
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
