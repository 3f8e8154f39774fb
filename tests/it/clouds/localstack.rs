//! LocalStack, and queues and topics in it.

use aws_sdk_sqs::types::QueueAttributeName;
use eventferry::cloud::aws::Config;
use tokio::sync::OnceCell;

use super::{cord::Cord, free_port, start, state_dir};

/// How to reach LocalStack, as the file's `aws` block. Starts it on first use.
pub async fn settings() -> Config {
    static ENDPOINT: OnceCell<String> = OnceCell::const_new();
    let endpoint = ENDPOINT.get_or_init(|| async {
        if let Ok(running) = std::env::var("EVENTFERRY_TEST_LOCALSTACK") {
            return running;
        }
        let port = free_port();
        let state = state_dir("localstack");
        let started = tokio::task::spawn_blocking(move || {
            let nothing = state.join("none.json");
            std::fs::create_dir_all(&state).unwrap();
            std::fs::write(&nothing, "{}").unwrap();
            let env = [
                ("LOCALSTACK_PORT", port.to_string()),
                ("LOCALSTACK_STATE", state.display().to_string()),
                ("LOCALSTACK_SEED", nothing.display().to_string()),
            ];
            start("localstack/localstack.sh", &state, &env);
        });
        started.await.unwrap();
        format!("http://127.0.0.1:{port}")
    });
    Config {
        region: Some("us-east-1".into()),
        endpoint: Some(endpoint.await.clone()),
        ..Config::default()
    }
}

/// The same through a cord that can be cut.
pub async fn on_a_cord() -> (Config, Cord) {
    let direct = settings().await;
    let endpoint = direct.endpoint.as_deref().unwrap();
    let port = endpoint.rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap();
    let cord = Cord::to(port).await;
    (Config { endpoint: Some(format!("http://127.0.0.1:{}", cord.port)), ..direct }, cord)
}

/// An SQS client for what a foreign program would do.
pub async fn sqs() -> aws_sdk_sqs::Client {
    aws_sdk_sqs::Client::new(&loaded().await)
}

/// The same for SNS.
pub async fn sns() -> aws_sdk_sns::Client {
    aws_sdk_sns::Client::new(&loaded().await)
}

async fn loaded() -> aws_config::SdkConfig {
    settings().await.load().await
}

/// Makes a queue with this visibility timeout and answers its name. A name that ends in `.fifo`
/// makes a FIFO queue.
pub async fn queue(name: &str, visibility_s: u32) -> String {
    let mut request = sqs().await.create_queue().queue_name(name);
    request = request.attributes(QueueAttributeName::VisibilityTimeout, visibility_s.to_string());
    if name.ends_with(".fifo") {
        request = request.attributes(QueueAttributeName::FifoQueue, "true");
    }
    request.send().await.unwrap();
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
