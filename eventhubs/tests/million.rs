//! A million events pass client and emulator without a stall.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test on the wall clock that stops when it cannot go on"
)]

use std::time::{Duration, Instant};

use eventhubs::{
    client::{Client, ConnectionString, EventData, Options, ReceiverOptions, Target},
    emulator::{Config, Emulator, HubConfig},
    filter::Position,
};

const EVENTS: usize = 1_000_000;
const EVENT_BYTES: usize = 512;
const PARTITIONS: usize = 4;
const BATCH: usize = 200;
/// Longer than any call that does not stall takes.
const STALL: Duration = Duration::from_secs(10);

fn client(emulator: &Emulator) -> Client {
    let string: ConnectionString = emulator.connection_string("hub").parse().unwrap();
    Client::new(string.endpoint, string.auth, Options::default())
}

async fn send_all(client: Client, partition: usize) {
    let sender = client.hub("hub").sender(Default::default());
    let target = Target::Partition(partition.to_string());
    let event = EventData::from(vec![b'x'; EVENT_BYTES]);
    let mut batch = sender.batch(target).await.unwrap();
    for _ in 0..BATCH {
        assert!(batch.try_add(&event).unwrap());
    }
    let (sender, batch) = (&sender, &batch);
    let batches = EVENTS / PARTITIONS / BATCH;
    // Several in flight, as a relay would have.
    for _ in 0..batches / 10 {
        let round = (0..10).map(|_| tokio::time::timeout(STALL, sender.send(batch)));
        for sent in futures::future::join_all(round).await {
            sent.expect("a batch has stalled").unwrap();
        }
    }
}

async fn receive_all(client: Client, partition: usize) {
    let options = ReceiverOptions::new(partition.to_string(), Position::Earliest);
    let mut receiver = client.hub("hub").receiver(options).await.unwrap();
    let mut next = 0;
    while next < (EVENTS / PARTITIONS) as i64 {
        let events = receiver.receive(1000, STALL).await.unwrap();
        assert!(!events.is_empty(), "receiving has stalled at {next}");
        for event in events {
            assert_eq!((event.sequence_number, event.body.len()), (next, EVENT_BYTES));
            next += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_events_of_512_bytes_pass_without_a_stall() {
    let hub = HubConfig::new("hub", PARTITIONS as u32);
    let emulator = Emulator::start(Config::with_hubs([hub])).unwrap();
    let (sending, receiving) = (client(&emulator), client(&emulator));
    let started = Instant::now();
    let senders = (0..PARTITIONS).map(|id| tokio::spawn(send_all(sending.clone(), id)));
    for sender in futures::future::join_all(senders).await {
        sender.unwrap();
    }
    let sent = started.elapsed();
    let started = Instant::now();
    let receivers = (0..PARTITIONS).map(|id| tokio::spawn(receive_all(receiving.clone(), id)));
    for receiver in futures::future::join_all(receivers).await {
        receiver.unwrap();
    }
    let rate = |time: Duration| EVENTS as f64 / time.as_secs_f64();
    println!("sent {:.0}/s, received {:.0}/s", rate(sent), rate(started.elapsed()));
}
