//! What goes wrong on request, as our client meets it. Faults that the client's own tests need are
//! tested there; these are the others, and the settings.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

use std::time::Duration;

use eventhubs::{
    client::{
        Backoff, Client, ConnectionString, Error, ErrorKind, EventData, Options, Receiver,
        ReceiverOptions, Target,
    },
    emulator::{
        After, Append, Config, Emulator, Fault, HubConfig, Kind, LinkKind, OffsetMode, Scope, Seed,
        Settings, Trim,
    },
    filter::Position,
};

const HUB: &str = "hub";
const SOON: Duration = Duration::from_secs(30);

struct Bench {
    emulator: Emulator,
    client: Client,
}

impl Bench {
    fn start() -> Self {
        let emulator = Emulator::start(Config::with_hubs([HubConfig::new(HUB, 1)])).unwrap();
        let string: ConnectionString = emulator.connection_string(HUB).parse().unwrap();
        let options = Options {
            call_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(2),
            backoff: Backoff { first: Duration::from_millis(10), max: Duration::from_millis(50) },
            ..Options::default()
        };
        let client = Client::new(string.endpoint, string.auth, options);
        Self { emulator, client }
    }

    fn arm(&self, fault: Fault) {
        self.emulator.control().arm(fault);
    }

    fn change(&self, change: impl FnOnce(&mut Settings)) {
        let mut settings = self.emulator.control().settings();
        change(&mut settings);
        self.emulator.control().set_settings(settings);
    }

    fn append(&self, count: usize) {
        let events = (0..count).map(|index| Seed::new(index.to_string())).collect();
        let partition = Some("0".to_owned());
        let append = Append { hub: HUB.into(), partition, events, ..Append::default() };
        self.emulator.control().append(append).unwrap();
    }

    async fn receiver(&self, start: Position) -> Result<Receiver, Error> {
        self.client.hub(HUB).receiver(ReceiverOptions::new("0", start)).await
    }

    /// The numbers of the next events.
    async fn numbers(&self, receiver: &mut Receiver, count: usize) -> Vec<i64> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            let events = receiver.receive(count - numbers.len(), SOON).await.unwrap();
            assert!(!events.is_empty(), "nothing comes after {numbers:?}");
            numbers.extend(events.iter().map(|event| event.sequence_number));
        }
        numbers
    }

    async fn send(&self) -> Result<(), Error> {
        let sender = self.client.hub(HUB).sender(Default::default());
        sender.send_events(Target::Partition("0".into()), &[EventData::from("x")]).await
    }
}

#[tokio::test]
async fn a_link_is_refused_as_asked_and_taken_the_next_time() {
    let bench = Bench::start();
    let refuse = || Kind::AttachRefuse { condition: eventhubs::condition::ENTITY_DISABLED.into() };
    bench.arm(Fault::new(refuse()).within(Scope::link(LinkKind::Send)));
    let refused = bench.send().await.unwrap_err().kind();
    // The emulator's engine grants credit to every link, also to one that is refused: events may
    // have gone out before the refusal is read, and then nobody knows what became of them.
    assert!(matches!(refused, ErrorKind::Disabled | ErrorKind::Ambiguous), "{refused}");
    bench.send().await.unwrap();

    bench.arm(Fault::new(refuse()).within(Scope::link(LinkKind::Recv)));
    let refused = match bench.receiver(Position::Earliest).await {
        Ok(mut receiver) => receiver.receive(1, SOON).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(refused.kind(), ErrorKind::Disabled, "{refused}");
    let mut receiver = bench.receiver(Position::Earliest).await.unwrap();
    assert_eq!(
        bench.numbers(&mut receiver, 1).await,
        [0],
        "what went to a refused link is not stored"
    );
}

#[tokio::test]
async fn a_stale_offset_is_an_invalid_position() {
    let bench = Bench::start();
    bench.arm(Fault::new(Kind::StaleOffset).within(Scope::link(LinkKind::Recv)));
    let error = match bench.receiver(Position::Earliest).await {
        Ok(mut receiver) => receiver.receive(1, SOON).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::PositionInvalid, "{error}");
}

#[tokio::test]
async fn a_gap_leaves_sequence_numbers_out() {
    let bench = Bench::start();
    bench.send().await.unwrap();
    bench.arm(Fault::new(Kind::Gap { n: 5 }));
    bench.send().await.unwrap();
    let mut receiver = bench.receiver(Position::Earliest).await.unwrap();
    assert_eq!(bench.numbers(&mut receiver, 2).await, [0, 6]);
}

#[tokio::test]
async fn a_token_that_is_not_answered_is_an_error_in_time() {
    let bench = Bench::start();
    bench.arm(Fault::new(Kind::CbsSilent));
    let error = bench.client.hub(HUB).properties().await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    bench.client.hub(HUB).properties().await.unwrap();
}

#[tokio::test]
async fn a_receiver_survives_a_network_that_drops_or_corrupts() {
    for kind in [Kind::BlackholeIn, Kind::BlackholeOut, Kind::CorruptByte] {
        let bench = Bench::start();
        bench.append(1);
        let mut receiver = bench.receiver(Position::Earliest).await.unwrap();
        assert_eq!(bench.numbers(&mut receiver, 1).await, [0]);
        bench.arm(Fault::new(kind.clone()));
        bench.append(3);
        // A corrupted byte may hit the body of an event: AMQP itself has no checksum.
        if kind == Kind::CorruptByte {
            let _ = receiver.receive(3, SOON).await;
            continue;
        }
        let mut numbers = Vec::new();
        while numbers.len() < 3 {
            match receiver.receive(3, SOON).await {
                Ok(events) => numbers.extend(events.iter().map(|event| event.sequence_number)),
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
        }
        assert_eq!(numbers, [1, 2, 3], "{kind:?}");
    }
}

#[tokio::test]
async fn a_slow_network_delivers_everything() {
    for kind in [Kind::Delay { ms: 20, jitter: 20 }, Kind::Rate { bytes_s: 100_000 }] {
        let bench = Bench::start();
        bench.append(200);
        bench.arm(Fault::new(kind));
        let mut receiver = bench.receiver(Position::Earliest).await.unwrap();
        assert_eq!(bench.numbers(&mut receiver, 200).await, (0..200).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_fault_strikes_after_so_many_bytes_or_so_much_time() {
    for after in [After::Bytes(2000), After::Ms(50)] {
        let bench = Bench::start();
        bench.append(10);
        bench.arm(Fault::new(Kind::Rst).after(after));
        // It may strike while this attaches.
        let mut receiver = loop {
            match bench.receiver(Position::Earliest).await {
                Ok(receiver) => break receiver,
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
        };
        assert_eq!(bench.numbers(&mut receiver, 10).await, (0..10).collect::<Vec<_>>());
        while !bench.emulator.control().log().contains(r#""fault":"rst""#) {
            // Traffic for the fault that counts bytes.
            let _ = bench.client.hub(HUB).properties().await;
        }
        bench.append(1);
        assert_eq!(bench.numbers(&mut receiver, 1).await, [10]);
    }
}

#[tokio::test]
async fn opaque_offsets_are_text_and_lead_back_to_their_event() {
    let bench = Bench::start();
    bench.change(|settings| settings.offsets = OffsetMode::Opaque);
    bench.append(3);
    let offset = bench.emulator.control().events(HUB, "0", 1).unwrap()[0].offset.clone();
    assert!(offset.parse::<i64>().is_err());
    let start = Position::Offset { offset, inclusive: false };
    let mut receiver = bench.receiver(start).await.unwrap();
    assert_eq!(bench.numbers(&mut receiver, 1).await, [2]);
}

#[tokio::test]
async fn retention_moves_the_beginning() {
    let bench = Bench::start();
    bench.append(10);
    let trim = Trim { hub: HUB.into(), before_sequence_number: Some(4), ..Trim::default() };
    assert_eq!(bench.emulator.control().trim(&trim).unwrap(), 4);
    let properties = bench.client.hub(HUB).partition_properties("0").await.unwrap();
    assert_eq!(properties.begin_sequence_number, 4);
    let start = Position::SequenceNumber { number: 1, inclusive: true };
    let mut receiver = bench.receiver(start).await.unwrap();
    assert_eq!(bench.numbers(&mut receiver, 1).await, [4]);
}

#[tokio::test]
async fn an_idle_link_and_an_old_token_are_detached_and_the_receiver_resumes() {
    for old in [true, false] {
        let bench = Bench::start();
        bench.append(1);
        let mut receiver = bench.receiver(Position::Earliest).await.unwrap();
        assert_eq!(bench.numbers(&mut receiver, 1).await, [0]);
        bench.change(|settings| match old {
            true => settings.token_ttl_ms = Some(1),
            // Ten minutes become 60 ms.
            false => settings.time_scale = 10_000.0,
        });
        let detached = async {
            while !bench.emulator.control().log().contains(r#""what":"detach""#) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(SOON, detached).await.unwrap();
        bench.emulator.control().set_settings(Settings::default());
        bench.append(1);
        assert_eq!(bench.numbers(&mut receiver, 1).await, [1]);
    }
}

#[tokio::test]
async fn too_many_reads_in_a_second_are_throttled() {
    let bench = Bench::start();
    bench.change(|settings| settings.max_management_reads_per_second = Some(1));
    let hub = bench.client.hub(HUB);
    let mut throttled = false;
    for _ in 0..3 {
        throttled |= hub.properties().await.is_err_and(|e| e.kind() == ErrorKind::ServerBusy);
    }
    assert!(throttled);
}

#[tokio::test]
async fn a_killed_emulator_starts_again_with_what_it_had() {
    let mut bench = Bench::start();
    bench.append(2);
    let mut receiver = bench.receiver(Position::Earliest).await.unwrap();
    assert_eq!(bench.numbers(&mut receiver, 2).await, [0, 1]);
    bench.emulator = bench.emulator.kill().start().unwrap();
    bench.append(1);
    let number = loop {
        match receiver.receive(1, SOON).await {
            Ok(events) if events.is_empty() => {}
            Ok(events) => break events[0].sequence_number,
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    };
    assert_eq!(number, 2);
}
