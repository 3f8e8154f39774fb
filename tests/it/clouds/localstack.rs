//! LocalStack, and queues and topics in it.

use aws_sdk_sqs::types::QueueAttributeName;
use eventferry::cloud::aws::Config;
use tokio::sync::OnceCell;

use super::{cord::Cord, free_port, start, state_dir};

const SCRIPT: &str = "localstack/localstack.sh";

/// Where a LocalStack is.
#[derive(Debug, Clone)]
pub struct LocalStack {
    endpoint: String,
    /// What its script is told; nothing for one that runs already.
    env: Vec<(&'static str, String)>,
}

/// The LocalStack of this run. `EVENTFERRY_TEST_LOCALSTACK` is the endpoint of one that runs already;
/// else one is started on first use.
pub async fn localstack() -> LocalStack {
    static LOCALSTACK: OnceCell<LocalStack> = OnceCell::const_new();
    let running = || async {
        match std::env::var("EVENTFERRY_TEST_LOCALSTACK") {
            Ok(endpoint) => LocalStack { endpoint, env: Vec::new() },
            Err(_) => of_ones_own().await,
        }
    };
    LOCALSTACK.get_or_init(running).await.clone()
}

/// One that nobody else uses. It keeps nothing beyond its end.
pub async fn of_ones_own() -> LocalStack {
    let (port, state) = (free_port(), state_dir("localstack"));
    let nothing = state.join("none.json");
    std::fs::create_dir_all(&state).unwrap();
    std::fs::write(&nothing, "{}").unwrap();
    let env = vec![
        ("LOCALSTACK_PORT", port.to_string()),
        ("LOCALSTACK_STATE", state.display().to_string()),
        ("LOCALSTACK_SEED", nothing.display().to_string()),
    ];
    let told = env.clone();
    let start = move || start(SCRIPT, &state, &told);
    tokio::task::spawn_blocking(start).await.unwrap();
    LocalStack { endpoint: format!("http://127.0.0.1:{port}"), env }
}

impl LocalStack {
    /// How to reach it, as an `aws` block of the file.
    pub fn settings(&self) -> Config {
        Config {
            region: Some("us-east-1".into()),
            endpoint: Some(self.endpoint.clone()),
            ..Config::default()
        }
    }

    /// The same through a cord that can be cut.
    async fn on_a_cord(&self) -> (Config, Cord) {
        let port = self.endpoint.rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap();
        let cord = Cord::to(port).await;
        let endpoint = Some(format!("http://127.0.0.1:{}", cord.port));
        (Config { endpoint, ..self.settings() }, cord)
    }

    /// Stops it; it forgets all that it had.
    pub async fn stop(&self) {
        super::command(SCRIPT, "stop", &self.env).await;
    }

    /// Starts it again at the same port.
    pub async fn start_again(&self) {
        super::command(SCRIPT, "start", &self.env).await;
    }

    async fn sqs(&self) -> aws_sdk_sqs::Client {
        aws_sdk_sqs::Client::new(&self.settings().load().await)
    }

    /// Makes a queue with this visibility timeout. A name that ends in `.fifo` makes a FIFO queue.
    pub async fn queue(&self, name: &str, visibility_s: u32) {
        let visibility_s = visibility_s.to_string();
        let mut request = self.sqs().await.create_queue().queue_name(name);
        request = request.attributes(QueueAttributeName::VisibilityTimeout, visibility_s);
        if name.ends_with(".fifo") {
            request = request.attributes(QueueAttributeName::FifoQueue, "true");
        }
        request.send().await.unwrap();
    }
}

/// How to reach LocalStack, as the file's `aws` block.
pub async fn settings() -> Config {
    localstack().await.settings()
}

/// The same through a cord that can be cut.
pub async fn on_a_cord() -> (Config, Cord) {
    localstack().await.on_a_cord().await
}

/// An SQS client for what a foreign program would do.
pub async fn sqs() -> aws_sdk_sqs::Client {
    localstack().await.sqs().await
}

/// The same for SNS.
pub async fn sns() -> aws_sdk_sns::Client {
    aws_sdk_sns::Client::new(&settings().await.load().await)
}

/// Makes a queue with this visibility timeout and answers its name. A name that ends in `.fifo`
/// makes a FIFO queue.
pub async fn queue(name: &str, visibility_s: u32) -> String {
    localstack().await.queue(name, visibility_s).await;
    name.to_owned()
}

/// How many messages a queue has, visible or not.
pub async fn count(queue: &str) -> usize {
    let client = sqs().await;
    let url = client.get_queue_url().queue_name(queue).send().await.unwrap().queue_url.unwrap();
    let of = [
        QueueAttributeName::ApproximateNumberOfMessages,
        QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        QueueAttributeName::ApproximateNumberOfMessagesDelayed,
    ];
    let asked = client.get_queue_attributes().queue_url(url).set_attribute_names(Some(of.into()));
    let counts = asked.send().await.unwrap().attributes.unwrap();
    counts.values().map(|count| count.parse::<usize>().unwrap()).sum()
}
