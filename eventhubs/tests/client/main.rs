//! The client against the emulator: what arrives, what comes back after each kind of loss, and
//! what each refusal is called.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test that cannot go on shall stop, and all it spawned with it"
)]

mod sending;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use eventhubs::{
    client::{
        Auth, Backoff, BodyKind, Client, ConnectionString, Error, ErrorKind, EventData, Hub,
        MessageId, Options, ReceivedEvent, Receiver, ReceiverOptions, SenderOptions, SimpleValue,
        Symbol, Target, Timestamp, Uuid,
    },
    condition,
    emulator::{
        Append, Config, Emulator, Fault, HubConfig, Kind, LinkKind, Scope, Seed, Settings, Steal,
    },
    filter::Position,
};

const HUB: &str = "hub";
const WAIT: Duration = Duration::from_secs(10);

/// One emulator with one hub of two partitions, and a client that is quick to notice.
struct Bench {
    emulator: Emulator,
    hub: Hub,
}

fn options() -> Options {
    Options {
        connect_timeout: Duration::from_secs(5),
        call_timeout: Duration::from_secs(2),
        idle_timeout: Duration::from_secs(2),
        quiet_check: Duration::from_millis(500),
        backoff: Backoff { first: Duration::from_millis(10), max: Duration::from_secs(1) },
        ..Options::default()
    }
}

fn bench() -> Bench {
    bench_with(Settings::default(), options())
}

fn bench_with(settings: Settings, options: Options) -> Bench {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_test_writer().with_env_filter(filter).try_init();
    let config = Config { settings, ..Config::with_hubs([HubConfig::new(HUB, 2)]) };
    let emulator = Emulator::start(config).unwrap();
    let string: ConnectionString = emulator.connection_string(HUB).parse().unwrap();
    let hub = Client::new(string.endpoint, string.auth, options).hub(HUB);
    Bench { emulator, hub }
}

impl Bench {
    async fn receiver(&self, start: Position) -> Receiver {
        self.hub.receiver(ReceiverOptions::new("0", start)).await.unwrap()
    }

    /// Puts events numbered `from..to` into partition 0, past the client.
    fn append(&self, numbers: std::ops::Range<i64>) {
        let events = numbers.map(|number| Seed::new(number.to_string())).collect();
        let append =
            Append { hub: HUB.into(), partition: Some("0".into()), partition_key: None, events };
        self.emulator.control().append(append).unwrap();
    }

    fn arm(&self, kind: Kind) {
        self.emulator.control().arm(Fault::new(kind));
    }

    fn arm_link(&self, link: LinkKind, kind: Kind) {
        self.emulator.control().arm(Fault::new(kind).within(Scope::link(link)));
    }

    fn stored(&self, partition: &str) -> usize {
        self.emulator.control().events(HUB, partition, 0).unwrap().len()
    }
}

/// Receives until event `last` has come, and checks that each number came once and in order.
async fn receive_through(receiver: &mut Receiver, first: i64, last: i64) {
    let mut next = first;
    while next <= last {
        let events = match receiver.receive(100, WAIT).await {
            Ok(events) => events,
            Err(error) if error.is_transient() => continue,
            Err(error) => panic!("at {next}: {error}"),
        };
        for event in events {
            assert_eq!(event.sequence_number, next, "no gap and no repetition");
            next += 1;
        }
    }
}

/// Receives until an error comes that is final.
async fn final_error(receiver: &mut Receiver) -> Error {
    loop {
        match receiver.receive(100, WAIT).await {
            Err(error) if !error.is_transient() => return error,
            _ => continue,
        }
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("within a minute")
}

fn every_property() -> Vec<(String, SimpleValue)> {
    let values = [
        SimpleValue::Null,
        SimpleValue::Bool(true),
        SimpleValue::Ubyte(255),
        SimpleValue::Ushort(65_535),
        SimpleValue::Uint(u32::MAX),
        SimpleValue::Ulong(u64::MAX),
        SimpleValue::Byte(-128),
        SimpleValue::Short(-32_768),
        SimpleValue::Int(i32::MIN),
        SimpleValue::Long(i64::MIN),
        SimpleValue::Float(1.5.into()),
        SimpleValue::Double((-2.25).into()),
        SimpleValue::Char('ß'),
        SimpleValue::Timestamp(Timestamp::from_milliseconds(1_700_000_000_123)),
        SimpleValue::Uuid(Uuid::from([7; 16])),
        SimpleValue::Binary(vec![0, 255].into()),
        SimpleValue::String("Grüße 🚢".into()),
        SimpleValue::Symbol(Symbol::new("symbol")),
    ];
    values.into_iter().enumerate().map(|(at, value)| (format!("p{at:02}"), value)).collect()
}

#[tokio::test]
async fn an_event_comes_back_with_everything_it_was_sent_with() {
    let bench = bench();
    let sent = EventData {
        body: vec![0, 159, 146, 150].into(),
        properties: every_property(),
        message_id: Some(MessageId::String("id-1".into())),
        correlation_id: Some(MessageId::Ulong(9)),
        content_type: Some("application/octet-stream".into()),
        subject: Some("subject".into()),
        partition_key: None,
    };
    let sender = bench.hub.sender(SenderOptions::default());
    let keyed = Target::Key("key".into());
    sender.send_events(keyed, std::slice::from_ref(&sent)).await.unwrap();
    sender.send_events(Target::Partition("0".into()), &[EventData::default()]).await.unwrap();

    let partition = eventhubs::partition_key::partition_of("key", 2).to_string();
    let options = ReceiverOptions::new(&partition, Position::Earliest);
    let mut receiver = bench.hub.receiver(options).await.unwrap();
    let events = soon(receiver.receive(10, WAIT)).await.unwrap();
    let ReceivedEvent { body, body_kind, properties, .. } = &events[0];
    assert_eq!((body, body_kind), (&sent.body, &BodyKind::Data));
    assert_eq!(properties, &sent.properties);
    assert_eq!(events[0].message_id, sent.message_id);
    assert_eq!(events[0].correlation_id, sent.correlation_id);
    assert_eq!(events[0].content_type, sent.content_type);
    assert_eq!(events[0].subject, sent.subject);
    assert_eq!(events[0].partition_key.as_deref(), Some("key"));
    assert_eq!(events[0].sequence_number, 0);
    assert!(events[0].offset.is_some());
    let age = SystemTime::now().duration_since(events[0].enqueued_time.unwrap()).unwrap();
    assert!(age < Duration::from_secs(60));
    assert_eq!(bench.stored("0") + bench.stored("1"), 2);
}

#[tokio::test]
async fn bodies_of_every_size_up_to_the_limit_arrive_byte_for_byte() {
    let bench = bench();
    let sender = bench.hub.sender(SenderOptions::default());
    let target = Target::Partition("0".into());
    let most = sender.batch_bytes_max(&target).await.unwrap() - 16;
    let sizes = [0, 1, 255, 256, 70_000, most];
    for size in sizes {
        let body: Vec<u8> = (0..size).map(|at| at as u8).collect();
        sender.send_events(target.clone(), &[body.into()]).await.unwrap();
    }
    let over = EventData::from(vec![0; most + 17]);
    let error = sender.send_events(target, &[over]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);

    let mut receiver = bench.receiver(Position::Earliest).await;
    let mut lengths = Vec::new();
    while lengths.len() < sizes.len() {
        for event in soon(receiver.receive(10, WAIT)).await.unwrap() {
            assert!(event.body.iter().enumerate().all(|(at, byte)| *byte == at as u8));
            lengths.push(event.body.len());
        }
    }
    assert_eq!(lengths, sizes);
}

#[tokio::test]
async fn hub_and_partition_say_what_they_hold() {
    let bench = bench();
    assert_eq!(bench.hub.properties().await.unwrap().partition_ids, ["0", "1"]);
    let empty = bench.hub.partition_properties("0").await.unwrap();
    assert!(empty.is_empty && empty.last_enqueued_sequence_number == -1);
    bench.append(0..3);
    let full = bench.hub.partition_properties("0").await.unwrap();
    assert!(!full.is_empty && full.last_enqueued_sequence_number == 2);
}

#[tokio::test]
async fn a_receiver_starts_where_it_is_told() {
    let bench = bench();
    bench.append(0..5);
    let time = bench.emulator.control().events(HUB, "0", 3).unwrap()[0].enqueued_ms;
    let number = |number, inclusive| Position::SequenceNumber { number, inclusive };
    for (start, first) in [
        (Position::Earliest, 0),
        (number(1, false), 2),
        (number(1, true), 1),
        (number(4, false), 5),
        (number(5, true), 5),
        (Position::Latest, 5),
        (Position::EnqueuedTime { millis: time - 1_000, inclusive: true }, 0),
    ] {
        let mut receiver = bench.receiver(start.clone()).await;
        if first == 5 {
            assert_eq!(
                receiver.receive(9, Duration::from_millis(300)).await.unwrap(),
                [],
                "{start:?}"
            );
        } else {
            soon(receive_through(&mut receiver, first, 4)).await;
        }
    }
}

#[tokio::test]
async fn latest_misses_nothing_that_comes_while_the_link_is_lost() {
    let bench = bench();
    bench.append(0..3);
    let mut receiver = bench.receiver(Position::Latest).await;
    bench.arm(Kind::Rst);
    bench.append(3..8);
    soon(receive_through(&mut receiver, 3, 7)).await;
}

#[tokio::test]
async fn latest_in_an_empty_partition_misses_nothing_either() {
    let bench = bench();
    let mut receiver = bench.receiver(Position::Latest).await;
    bench.arm(Kind::Rst);
    bench.append(0..4);
    soon(receive_through(&mut receiver, 0, 3)).await;
}

/// Reads through 2,000 events while `kind` strikes five times.
async fn resumes_through(kind: Kind, scope: Scope) {
    let bench = bench();
    bench.append(0..2_000);
    let mut receiver = bench.receiver(Position::Earliest).await;
    let (mut next, mut strikes) = (0, 0);
    while next < 2_000 {
        if next >= strikes * 400 {
            bench.emulator.control().arm(Fault::new(kind.clone()).within(scope.clone()));
            strikes += 1;
        }
        let events = match soon(receiver.receive(37, WAIT)).await {
            Err(error) if error.is_transient() => continue,
            events => events.unwrap(),
        };
        for event in events {
            assert_eq!(event.sequence_number, next);
            next += 1;
        }
    }
    assert_eq!(strikes, 5);
}

#[tokio::test]
async fn a_reset_connection_is_resumed_exactly() {
    resumes_through(Kind::Rst, Scope::default()).await;
}

#[tokio::test]
async fn a_connection_that_ends_without_a_word_is_resumed_exactly() {
    resumes_through(Kind::Fin, Scope::default()).await;
}

#[tokio::test]
async fn a_detached_link_is_resumed_exactly() {
    let condition = condition::LINK_DETACH_FORCED.to_owned();
    resumes_through(Kind::Detach { condition, closed: true }, Scope::link(LinkKind::Recv)).await;
}

#[tokio::test]
async fn an_ended_session_is_resumed_exactly() {
    let condition = condition::INTERNAL_ERROR.to_owned();
    resumes_through(Kind::SessionEnd { condition }, Scope::link(LinkKind::Recv)).await;
}

#[tokio::test]
async fn a_closed_connection_is_resumed_exactly() {
    let condition = condition::CONNECTION_FORCED.to_owned();
    resumes_through(Kind::AmqpClose { condition }, Scope::default()).await;
}

#[tokio::test]
async fn a_frozen_broker_is_noticed_and_left() {
    let bench = bench();
    bench.append(0..10);
    let mut receiver = bench.receiver(Position::Earliest).await;
    soon(receive_through(&mut receiver, 0, 9)).await;
    bench.arm(Kind::Freeze);
    bench.append(10..20);
    soon(receive_through(&mut receiver, 10, 19)).await;
}

#[tokio::test]
async fn an_event_that_is_sent_twice_is_handed_out_once() {
    let bench = bench();
    bench.arm_link(LinkKind::Recv, Kind::DupDelivery);
    bench.append(0..20);
    let mut receiver = bench.receiver(Position::Earliest).await;
    soon(receive_through(&mut receiver, 0, 19)).await;
}

#[tokio::test]
async fn a_dropped_receive_loses_nothing_and_repeats_nothing() {
    let bench = bench();
    bench.append(0..3_000);
    let mut receiver = bench.receiver(Position::Earliest).await;
    let mut next = 0;
    for round in 0u64.. {
        if next == 3_000 {
            break;
        }
        if round == 20 {
            bench.arm(Kind::Rst);
        }
        let patience = Duration::from_micros(50 * (round % 40));
        let receive = receiver.receive(13, WAIT);
        let Ok(events) = tokio::time::timeout(patience, receive).await else { continue };
        let Ok(events) = events else { continue };
        for event in events {
            assert_eq!(event.sequence_number, next);
            next += 1;
        }
    }
}

#[tokio::test]
async fn a_stolen_partition_is_an_error_of_its_own_and_is_not_stolen_back() {
    let bench = bench();
    bench.append(0..3);
    let options = |epoch| ReceiverOptions {
        epoch: Some(epoch),
        ..ReceiverOptions::new("0", Position::Earliest)
    };
    let mut loser = bench.hub.receiver(options(1)).await.unwrap();
    soon(receive_through(&mut loser, 0, 2)).await;
    let mut winner = bench.hub.receiver(options(1)).await.unwrap();
    let error = soon(final_error(&mut loser)).await;
    assert_eq!(error.kind(), ErrorKind::Stolen);
    assert_eq!(final_error(&mut loser).await.kind(), ErrorKind::Stolen);
    soon(receive_through(&mut winner, 0, 2)).await;
    assert_eq!(winner.receive(9, Duration::from_millis(300)).await.unwrap(), []);

    let mut late = bench.hub.receiver(options(0)).await.unwrap();
    assert_eq!(soon(final_error(&mut late)).await.kind(), ErrorKind::Stolen);

    let steal =
        Steal { hub: HUB.into(), group: "$Default".into(), partition: "0".into(), epoch: 2 };
    bench.emulator.control().steal(&steal).unwrap();
    assert_eq!(soon(final_error(&mut winner)).await.kind(), ErrorKind::Stolen);
}

#[tokio::test]
async fn a_position_that_is_not_in_the_hub_is_refused() {
    let bench = bench();
    bench.append(0..3);
    let start = Position::SequenceNumber { number: 500, inclusive: false };
    let error = bench.hub.receiver(ReceiverOptions::new("0", start)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PositionInvalid);
    let start = Position::Offset { offset: "never-issued".into(), inclusive: false };
    let mut receiver = bench.receiver(start).await;
    assert_eq!(soon(final_error(&mut receiver)).await.kind(), ErrorKind::PositionInvalid);
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let bench = bench();
    let absent = Hub::clone(&bench.hub);
    let error = absent.partition_properties("77").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let string: ConnectionString = bench.emulator.connection_string("nope").parse().unwrap();
    let absent = Client::new(string.endpoint, string.auth, options()).hub("nope");
    assert_eq!(absent.properties().await.unwrap_err().kind(), ErrorKind::NotFound);
    let sender = absent.sender(SenderOptions::default());
    let error = sender.batch(Target::RoundRobin).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_refused_token_is_unauthorized() {
    let bench = bench();
    bench.arm_link(LinkKind::Cbs, Kind::Cbs { code: 401 });
    assert_eq!(bench.hub.properties().await.unwrap_err().kind(), ErrorKind::Unauthorized);
    bench.hub.properties().await.unwrap();
}

#[tokio::test]
async fn silence_of_a_node_ends_at_the_deadline_and_the_next_request_is_answered() {
    let bench = bench();
    bench.hub.properties().await.unwrap();
    bench.arm_link(LinkKind::Mgmt, Kind::MgmtSilent);
    let error = soon(bench.hub.properties()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    soon(bench.hub.properties()).await.unwrap();
    bench.arm_link(LinkKind::Mgmt, Kind::Mgmt { code: 503 });
    let error = bench.hub.properties().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ServerBusy);
    assert!(error.retry_after().is_some());
}

/// Tokens that live for two seconds.
#[derive(Debug, Default)]
struct ShortLived(AtomicU32);

#[async_trait::async_trait]
impl TokenCredential for ShortLived {
    async fn get_token(
        &self,
        _: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let count = self.0.fetch_add(1, Ordering::Relaxed);
        let expires = SystemTime::now() + Duration::from_secs(2);
        Ok(AccessToken::new(format!("token-{count}"), expires.into()))
    }
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let settings = Settings { token_ttl_ms: Some(6_000), ..Settings::default() };
    let bench = bench_with(settings, options());
    let credential = Arc::new(ShortLived::default());
    let endpoint = bench.hub.endpoint().clone();
    let client = Client::new(endpoint, Auth::Credential(credential.clone()), options());
    let mut receiver =
        client.hub(HUB).receiver(ReceiverOptions::new("0", Position::Earliest)).await.unwrap();
    // Renewed every 1.3 s: the first one has ended long before the last.
    soon(async {
        let mut round = 0;
        while credential.0.load(Ordering::Relaxed) < 8 {
            bench.append(round..round + 1);
            assert_eq!(receiver.receive(9, WAIT).await.unwrap().len(), 1);
            assert_eq!(receiver.receive(9, Duration::from_secs(1)).await.unwrap(), []);
            round += 1;
        }
    })
    .await;
    let detached = bench.emulator.control().log().contains(condition::UNAUTHORIZED_ACCESS);
    assert!(!detached, "no link was ever without a token");
}

#[tokio::test]
async fn an_ended_token_is_replaced_and_the_receiver_resumes() {
    // The signature says it lasts for an hour; the service ends it after a second.
    let settings = Settings { token_ttl_ms: Some(1_000), ..Settings::default() };
    let bench = bench_with(settings, options());
    let mut receiver = bench.receiver(Position::Earliest).await;
    for round in 0..3 {
        bench.append(round..round + 1);
        soon(receive_through(&mut receiver, round, round)).await;
        let _ = receiver.receive(9, Duration::from_millis(1_300)).await;
    }
}

#[tokio::test]
async fn a_namespace_is_spoken_to_in_tls_from_the_first_byte() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("amqps://localhost:{}", listener.local_addr().unwrap().port());
    let hello = tokio::spawn(async move {
        let mut hello = [0; 3];
        let (mut socket, _) = listener.accept().await.unwrap();
        tokio::io::AsyncReadExt::read_exact(&mut socket, &mut hello).await.unwrap();
        hello
    });
    let auth = Auth::SharedAccessKey(eventhubs::client::SharedAccessKey::new("n", "k"));
    let client = Client::new(endpoint.parse().unwrap(), auth, options());
    let error = soon(client.hub(HUB).properties()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionLost);
    assert_eq!(hello.await.unwrap()[..2], [0x16, 0x03], "a TLS handshake record");
}

#[tokio::test]
async fn a_client_without_a_server_says_so_within_its_deadline() {
    let bench = bench();
    let endpoint = bench.hub.endpoint().clone();
    drop(bench);
    let key = "amqp".to_owned();
    let auth = Auth::SharedAccessKey(eventhubs::client::SharedAccessKey::new("n", key));
    let error = soon(Client::new(endpoint, auth, options()).hub(HUB).properties()).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::ConnectionLost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_events_go_in_and_come_out_once_each() {
    const BATCHES: usize = 1_000;
    const EVENTS: usize = 100;
    let bench = bench_with(Settings::default(), Options::default());
    let hub = bench.hub.clone();
    let start = tokio::time::Instant::now();
    let sending = tokio::spawn(async move {
        let sender = Arc::new(hub.sender(SenderOptions::default()));
        let lanes = (0..8).map(|lane| {
            let sender = sender.clone();
            tokio::spawn(async move {
                for number in (lane..BATCHES).step_by(8) {
                    let mut batch = sender.batch(Target::Partition("0".into())).await.unwrap();
                    for event in 0..EVENTS {
                        let mut body = vec![b'x'; 512];
                        let id = (number * EVENTS + event) as u64;
                        body[..8].copy_from_slice(&id.to_be_bytes());
                        assert!(batch.try_add(&body.into()).unwrap());
                    }
                    sender.send(&batch).await.unwrap();
                }
            })
        });
        for lane in futures::future::join_all(lanes).await {
            lane.unwrap();
        }
        start.elapsed()
    });
    let mut receiver = bench.receiver(Position::Earliest).await;
    let mut seen = HashSet::new();
    while seen.len() < BATCHES * EVENTS {
        for event in soon(receiver.receive(1_000, WAIT)).await.unwrap() {
            let id = u64::from_be_bytes(event.body[..8].try_into().unwrap());
            assert!(seen.insert(id), "{id} came twice");
        }
    }
    println!("sent in {:?}, received in {:?}", sending.await.unwrap(), start.elapsed());
}
