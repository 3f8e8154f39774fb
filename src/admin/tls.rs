//! TLS of the listener. Certificates are read again when they have changed, since whoever renews
//! them does not tell.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
    server::{VerifierBuilderError, WebPkiClientVerifier},
};
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::setting::Tls as Setting;

/// How old a reading of the files may be when somebody connects.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// One has something else in it.
    #[error("{}: {what} in PEM is expected", .path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What is expected in it.
        what: &'static str,
        /// Why it is none.
        #[source]
        error: pem::Error,
    },
    /// There is no certificate in one.
    #[error("{}: no certificate is in it", .0.display())]
    Empty(PathBuf),
    /// Certificate and key do not fit each other, or are of no use.
    #[error("the certificate cannot be used with its key")]
    Unusable(#[from] rustls::Error),
    /// The authorities of clients are of no use.
    #[error("the authorities of `clients` cannot be used")]
    Authorities(#[from] VerifierBuilderError),
}

/// The certificates of a listener, as they are now.
#[derive(Debug)]
pub struct Tls {
    setting: Setting,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    files: Files,
    config: Arc<ServerConfig>,
    looked: Instant,
}

/// What the files say.
#[derive(Debug, PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: zeroize::Zeroizing<Vec<u8>>,
    clients: Option<Vec<u8>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// They cannot be used.
    pub async fn open(setting: &Setting) -> Result<Self, TlsError> {
        let files = Files::read(setting).await?;
        let config = Arc::new(files.config(setting)?);
        let current = Mutex::new(Current { files, config, looked: Instant::now() });
        Ok(Self { setting: setting.clone(), current })
    }

    /// Reads the files again if that was not done lately. What cannot be used changes nothing.
    pub async fn look(&self) {
        {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            if current.looked.elapsed() < LOOK_EVERY {
                return;
            }
            current.looked = Instant::now();
        }
        let read = Files::read(&self.setting).await;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let renewed = read.and_then(|files| {
            if files == current.files {
                return Ok(None);
            }
            Ok(Some((files.config(&self.setting)?, files)))
        });
        match renewed {
            Ok(None) => {}
            Ok(Some((config, files))) => {
                tracing::info!("the certificates of the admin API have changed");
                (current.config, current.files) = (Arc::new(config), files);
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(
                    %error, cause,
                    "the new certificates of the admin API cannot be used, the old ones stay"
                );
            }
        }
    }

    /// Greets whoever has connected. Bounded by the caller.
    ///
    /// # Errors
    /// They do not speak TLS, or have a certificate of somebody who is not trusted.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.look().await;
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner).config.clone();
        TlsAcceptor::from(current).accept(stream).await
    }
}

impl Files {
    async fn read(setting: &Setting) -> Result<Self, TlsError> {
        let bytes = async |path: &Path| {
            let read = tokio::fs::read(path).await;
            read.map_err(|error| TlsError::Read(path.to_owned(), error))
        };
        Ok(Self {
            certificate: bytes(&setting.certificate).await?,
            key: bytes(&setting.key).await?.into(),
            clients: match &setting.clients {
                Some(path) => Some(bytes(path).await?),
                None => None,
            },
        })
    }

    fn config(&self, setting: &Setting) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions()?;
        let builder = match (&self.clients, &setting.clients) {
            (Some(pem), Some(path)) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(path, pem)? {
                    roots.add(authority)?;
                }
                let roots = Arc::new(roots);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                // Probes have no certificate. Who has none is answered nothing else: see `access`.
                builder.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
            }
            _ => builder.with_no_client_auth(),
        };
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| TlsError::Pem {
            path: setting.key.clone(),
            what: "a private key",
            error,
        })?;
        let chain = certificates(&setting.certificate, &self.certificate)?;
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all =
        all.map_err(|error| TlsError::Pem { path: path.to_owned(), what: "a certificate", error })?;
    if all.is_empty() { Err(TlsError::Empty(path.to_owned())) } else { Ok(all) }
}

/// The alternative names in the certificate that the other end has shown, and the listener verified.
#[must_use]
pub fn names(stream: &TlsStream<TcpStream>) -> Option<Arc<[String]>> {
    let (_, connection) = stream.get_ref();
    let shown = connection.peer_certificates()?.first()?;
    let certificate = webpki::EndEntityCert::try_from(shown).ok()?;
    let names = certificate.valid_dns_names().chain(certificate.valid_uri_names());
    Some(names.map(ToOwned::to_owned).collect())
}
