//! The connections of the API: so many at once, each with bounds on what it may send and how long
//! that may take, and those that ask nothing make room, so that nobody can hold up the probes or fill
//! the memory.

use std::{
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{self, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::DefaultBodyLimit,
    middleware::map_response,
};
use hyper::{
    Request,
    body::{Frame, Incoming, SizeHint},
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    access::{self, Peer},
    setting,
    tls::{Tls, TlsError, names},
};

/// Connections at once. For whoever comes then, one that asks nothing is ended.
const CONNECTIONS_MAX: usize = 256;
/// Bytes of the body of a request.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Bytes of the head of a request.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// How long the head of a request may take, and how long a connection may be without one.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long the other end may take nothing of an answer.
const SILENT_MAX: Duration = Duration::from_secs(30);
/// How long the end of the daemon waits for answers to what was asked before.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// A pause where the system has no connection left to give.
const PAUSE: Duration = Duration::from_secs(1);

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be bound.
    #[error("the address cannot be had")]
    Bind(#[from] std::io::Error),
    /// The certificates cannot be used.
    #[error("`admin.tls`: {0}")]
    Tls(#[from] TlsError),
}

/// A listener that is open.
#[derive(Debug)]
pub struct Opened {
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
}

/// Opens the listener, so that a port in use is an error at start.
///
/// # Errors
/// The address cannot be bound, or the certificates not be used.
pub async fn listen(
    address: SocketAddr,
    tls: Option<&setting::Tls>,
) -> Result<Opened, ListenError> {
    let tls = match tls {
        Some(setting) => Some(Arc::new(Tls::open(setting).await?)),
        None => None,
    };
    let listener = TcpListener::bind(address).await?;
    tracing::info!(
        address = %listener.local_addr()?,
        tls = tls.is_some(),
        "serving the page, the admin API, /livez, /readyz and /metrics"
    );
    Ok(Opened { listener, tls })
}

impl Opened {
    /// Where it is.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `end`, and then until what was asked before is answered, for a moment at most:
    /// streams have no end of their own.
    pub async fn serve(self, router: Router, end: CancellationToken) {
        let router =
            router.layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).layer(map_response(access::seal));
        let mut connections = JoinSet::new();
        let mut open: Vec<(AbortHandle, Arc<Rest>)> = Vec::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = end.cancelled() => break,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "no connection to the admin API can be taken");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            if !makes_room(&mut open) {
                tracing::debug!(%address, "no room for another connection to the admin API");
                continue;
            }
            end_when_silent(&stream);
            let (router, tls, end) = (router.clone(), self.tls.clone(), end.clone());
            let rest = Arc::<Rest>::default();
            let of = rest.clone();
            let serving = connections.spawn(async move {
                connection(stream, address, tls, router, of, &end).await;
            });
            open.push((serving, rest));
        }
        let answered = async { while connections.join_next().await.is_some() {} };
        let _ = timeout(LAST_ANSWERS, answered).await;
    }
}

/// Since when a connection asks nothing; none while something is asked or its answer goes on.
#[derive(Debug)]
struct Rest(Mutex<Option<Instant>>);

impl Default for Rest {
    fn default() -> Self {
        Self(Mutex::new(Some(Instant::now())))
    }
}

impl Rest {
    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body of an answer: once it is over, its connection asks nothing.
struct Answer {
    body: Body,
    rest: Arc<Rest>,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        *self.rest.since() = Some(Instant::now());
    }
}

/// Makes room for another connection: at the cost of the one that has asked nothing for longest.
/// Answers whether there is room.
fn makes_room(open: &mut Vec<(AbortHandle, Arc<Rest>)>) -> bool {
    open.retain(|(serving, _)| !serving.is_finished());
    if open.len() < CONNECTIONS_MAX {
        return true;
    }
    let resting = open.iter().enumerate();
    let resting = resting.filter_map(|(index, (_, rest))| Some(((*rest.since())?, index)));
    let Some((_, longest)) = resting.min() else { return false };
    open.remove(longest).0.abort();
    true
}

/// Has the system end a connection that takes nothing of an answer, which would keep its place for
/// ever. Systems other than Linux cannot.
fn end_when_silent(stream: &TcpStream) {
    #[cfg(target_os = "linux")]
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(SILENT_MAX)) {
        tracing::debug!(%error, "a connection to the admin API may stay silent");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, SILENT_MAX);
}

/// Serves a connection to its end. What goes wrong is the other end's matter.
async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
    router: Router,
    rest: Arc<Rest>,
    end: &CancellationToken,
) {
    let Some(tls) = tls else {
        return requests(stream, Peer { address, certificate: None }, router, rest, end).await;
    };
    match timeout(HANDSHAKE_MAX, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let certificate = names(&stream);
            requests(stream, Peer { address, certificate }, router, rest, end).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, %address, "no TLS with the admin API"),
        Err(_) => tracing::debug!(%address, "a handshake with the admin API takes too long"),
    }
}

async fn requests(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    router: Router,
    rest: Arc<Rest>,
    end: &CancellationToken,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        *rest.since() = None;
        let (answered, rest) =
            (TowerToHyperService::new(router.clone()).call(request), rest.clone());
        async move { answered.await.map(|it| it.map(|body| Answer { body, rest })) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = served.as_mut() => served,
        () = end.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the admin API has broken");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// What is answered to these bytes, until the connection ends.
    async fn answer(bytes: &[u8]) -> String {
        let opened = listen("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        let address = opened.address().unwrap();
        let router = Router::new().route("/", post(async |body: Bytes| body.len().to_string()));
        let mut serving = JoinSet::new();
        serving.spawn(opened.serve(router, CancellationToken::new()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut answer = Vec::new();
        // It may have been refused before all of it was sent.
        let _ = stream.write_all(bytes).await;
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    fn post_of(bytes: usize, more: &str) -> Vec<u8> {
        let head = format!(
            "POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {bytes}\r\n\
             {more}\r\n"
        );
        [head.into_bytes(), vec![b'x'; bytes]].concat()
    }

    #[tokio::test]
    async fn a_body_has_64_kib_and_a_head_so_many_lines_and_bytes() {
        let fits = answer(&post_of(BODY_BYTES_MAX, "")).await;
        assert!(fits.starts_with("HTTP/1.1 200") && fits.ends_with("65536"), "{fits}");
        let large = answer(&post_of(BODY_BYTES_MAX + 1, "")).await;
        assert!(large.starts_with("HTTP/1.1 413"), "{large}");
        let many = "a: b\r\n".repeat(HEADERS_MAX);
        let many = answer(&post_of(1, &many)).await;
        assert!(many.starts_with("HTTP/1.1 431"), "{many}");
        // What has come at once is read, even if it is a little more.
        let long = format!("a: {}\r\n", "b".repeat(4 * HEAD_BYTES_MAX));
        let long = answer(&post_of(1, &long)).await;
        assert!(long.starts_with("HTTP/1.1 431"), "{long}");
    }

    /// As a probe asks, on a connection of its own.
    async fn ask(address: SocketAddr) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        (stream, String::from_utf8(answer).unwrap())
    }

    #[tokio::test]
    async fn those_who_ask_nothing_make_room_for_who_does() {
        let opened = listen("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        let address = opened.address().unwrap();
        let stream = async || {
            let endless = futures::stream::pending::<Result<Bytes, std::io::Error>>();
            Body::from_stream(endless)
        };
        let router = Router::new().route("/", get(async || "alive")).route("/live", get(stream));
        let mut serving = JoinSet::new();
        serving.spawn(opened.serve(router, CancellationToken::new()));

        let mut watching = TcpStream::connect(address).await.unwrap();
        watching.write_all(b"GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut head = [0; 12];
        watching.read_exact(&mut head).await.unwrap();
        let (mut silent, mut idle) = (Vec::new(), Vec::new());
        for _ in 0..CONNECTIONS_MAX {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        for _ in 0..CONNECTIONS_MAX + 10 {
            let (stream, answer) = ask(address).await;
            assert_eq!(answer, "HTTP/1.1 200");
            idle.push(stream);
        }
        let mut end = [0; 1];
        let mut ended = async |stream: &mut TcpStream| {
            matches!(
                timeout(Duration::from_secs(10), stream.read(&mut end)).await,
                Ok(Ok(0) | Err(_))
            )
        };
        for stream in &mut silent {
            assert!(ended(stream).await, "one that asks nothing keeps its place");
        }
        // Nor do those that come at once make room for one another.
        for answer in futures::future::join_all((0..20).map(|_| ask(address))).await {
            assert_eq!(answer.1, "HTTP/1.1 200");
        }
        // An answer that goes on is left alone, whatever it is.
        let mut rest = Vec::new();
        let more = timeout(Duration::from_millis(200), watching.read_to_end(&mut rest)).await;
        assert!(more.is_err(), "a stream was cut off");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn who_takes_nothing_of_an_answer_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (near, _) = listener.accept().await.unwrap();
        end_when_silent(&near);
        let told = socket2::SockRef::from(&near).tcp_user_timeout().unwrap();
        assert_eq!(told, Some(SILENT_MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_finish_a_head_is_left() {
        let told = answer(b"POST / HTTP/1.1\r\nhost: localh").await;
        assert!(told.is_empty() || told.starts_with("HTTP/1.1 408"), "{told}");
    }
}
