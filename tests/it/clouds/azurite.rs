//! Azurite, and queues and containers in it.

use std::path::PathBuf;

use azure_core::http::Url;
use azure_storage_blob::BlobContainerClient;
use azure_storage_queue::QueueClient;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use eventferry::{
    cloud::azure::{Config, storage::Account},
    config::secret::Secret,
};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use tokio::sync::OnceCell;

use super::{cord::Cord, free_port, start, state_dir, unique};

const SCRIPT: &str = "azurite/azurite.sh";
const ACCOUNT: &str = "devstoreaccount1";
/// Every emulator of Azure Storage has this key; it is published.
pub const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Where the services of an Azurite are.
#[derive(Debug, Clone)]
pub struct Azurite {
    /// With the account in its path.
    pub queues: String,
    /// With the account in its path.
    pub blobs: String,
    /// Gone with it.
    state: PathBuf,
    /// What its script is told; nothing for one that runs already.
    env: Vec<(&'static str, String)>,
}

/// The Azurite of this run. `EVENTFERRY_TEST_AZURITE=QUEUE_PORT,BLOB_PORT` names one that runs
/// already; else one is started on first use.
pub async fn azurite() -> Azurite {
    static AZURITE: OnceCell<Azurite> = OnceCell::const_new();
    let running = || async {
        match std::env::var("EVENTFERRY_TEST_AZURITE") {
            Ok(ports) => {
                let (queue, blob) = ports.split_once(',').unwrap();
                at(queue.parse().unwrap(), blob.parse().unwrap())
            }
            Err(_) => started(false).await,
        }
    };
    AZURITE.get_or_init(running).await.clone()
}

/// One of one's own, which keeps what it holds when it is stopped in order.
pub async fn on_disk() -> Azurite {
    started(true).await
}

fn at(queue: u16, blob: u16) -> Azurite {
    let state = state_dir("azurite");
    std::fs::create_dir_all(&state).unwrap();
    let url = |port: u16| format!("http://127.0.0.1:{port}/{ACCOUNT}");
    Azurite { queues: url(queue), blobs: url(blob), state, env: Vec::new() }
}

async fn started(on_disk: bool) -> Azurite {
    let (queue, blob) = (free_port(), free_port());
    let azurite = at(queue, blob);
    let nothing = azurite.state.join("none.json");
    std::fs::write(&nothing, "{}").unwrap();
    let mut env = vec![
        ("AZURITE_QUEUE_PORT", queue.to_string()),
        ("AZURITE_BLOB_PORT", blob.to_string()),
        ("AZURITE_STATE", azurite.state.display().to_string()),
        ("AZURITE_SEED", nothing.display().to_string()),
    ];
    if on_disk {
        env.push(("AZURITE_DATA", azurite.state.join("data").display().to_string()));
    }
    let (state, told) = (azurite.state.clone(), env.clone());
    let start = move || start(SCRIPT, &state, &told);
    tokio::task::spawn_blocking(start).await.unwrap();
    Azurite { env, ..azurite }
}

impl Azurite {
    /// The same through a cord that can be cut.
    pub async fn on_a_cord(&self) -> (Self, Cord) {
        let port = Url::parse(&self.queues).unwrap().port().unwrap();
        let cord = Cord::to(port).await;
        let queues = format!("http://127.0.0.1:{}/{ACCOUNT}", cord.port);
        (Self { queues, ..self.clone() }, cord)
    }

    /// Stops it.
    pub async fn stop(&self) {
        super::command(SCRIPT, "stop", &self.env).await;
    }

    /// Starts it again on the same ports.
    pub async fn start_again(&self) {
        super::command(SCRIPT, "start", &self.env).await;
    }

    /// Makes a queue and answers a client for what a foreign program would do.
    pub async fn queue(&self, name: &str) -> QueueClient {
        let url = format!("{}/{name}?{}", self.queues, sas());
        let client = QueueClient::new(Url::parse(&url).unwrap(), None, None).unwrap();
        client.create(None).await.unwrap();
        client
    }

    /// The file's `azure` block: requests are signed with the account's key.
    pub fn by_key(&self) -> Config {
        self.by(&format!("AccountName={ACCOUNT};AccountKey={KEY}"))
    }

    /// The connection string that SDKs take.
    pub fn for_sdks(&self) -> String {
        let blobs = &self.blobs;
        format!(
            "DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};\
             BlobEndpoint={blobs};"
        )
    }

    /// The same with a shared access signature instead of the key.
    pub fn by_signature(&self) -> Config {
        self.by(&format!("SharedAccessSignature={}", sas()))
    }

    /// A connection string in a file, which is the only way to give one.
    pub fn by(&self, auth: &str) -> Config {
        let text = format!("{auth};QueueEndpoint={};BlobEndpoint={}", self.queues, self.blobs);
        let path = self.state.join(unique("connection-string"));
        std::fs::write(&path, text).unwrap();
        let secret = Secret::File(path.display().to_string());
        Config { storage: Some(Account::ConnectionString(secret)), ..Config::default() }
    }
}

/// How to reach Azurite, as the file's `azure` block.
pub async fn settings() -> Config {
    azurite().await.by_key()
}

/// The same in the Azurite of this run.
pub async fn queue(name: &str) -> QueueClient {
    azurite().await.queue(name).await
}

/// A client for a queue that is there.
pub async fn client(name: &str) -> QueueClient {
    let url = format!("{}/{name}?{}", azurite().await.queues, sas());
    QueueClient::new(Url::parse(&url).unwrap(), None, None).unwrap()
}

/// Makes a container and answers a client for what a foreign program would do.
pub async fn container(name: &str) -> BlobContainerClient {
    let url = format!("{}/{name}?{}", azurite().await.blobs, sas());
    let client = BlobContainerClient::new(Url::parse(&url).unwrap(), None, None).unwrap();
    client.create(None).await.unwrap();
    client
}

/// A signature that permits everything, made from the account's key.
/// <https://learn.microsoft.com/rest/api/storageservices/create-account-sas>
pub fn sas() -> String {
    let (permissions, services, resources) = ("rwdlacup", "bq", "sco");
    let (end, protocols, version) = ("2099-01-01T00:00:00Z", "https,http", "2018-11-09");
    let text = format!(
        "{ACCOUNT}\n{permissions}\n{services}\n{resources}\n\n{end}\n\n{protocols}\n{version}\n"
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(&BASE64.decode(KEY).unwrap()).unwrap();
    mac.update(text.as_bytes());
    let signature = BASE64.encode(mac.finalize().into_bytes());
    let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    format!(
        "sp={permissions}&ss={services}&srt={resources}&se={end}&spr={protocols}&sv={version}&sig={signature}"
    )
}
