//! What the demo tells in words.

use std::{fmt::Write, path::Path};

use eventferry::{dead_letter::DeadLetter, event::Event};
use time::macros::format_description;

use crate::{outlets::Outlets, places::Places, tally::Tally};

/// Lines of a log that are worth showing after a failure.
const TAIL_LINES: usize = 15;

/// What is going to happen, and where.
pub(crate) fn introduction(places: &Places, config: &Path, count: Option<u32>) -> String {
    let port = |name| places.port(name);
    let config = config.strip_prefix(&places.root).unwrap_or(config).display();
    let end = match count {
        Some(count) => format!("{count} events are published, and what arrives is counted."),
        None => "It goes on until Ctrl-C, which ends all that was started here.".to_owned(),
    };
    format!(
        "\
eventferry demo: a shop in AWS, a plant's pumps in Azure, and eventferry in between.
Both clouds run on this machine; nothing leaves it.

  Orders    SNS topic orders   ->  event hub orders; Storage Queue audit, from 400 EUR review;
                                   card numbers and e-mail addresses do not leave AWS
  Readings  event hub devices  ->  SQS queue telemetry, or one in four telemetry-canary
  Alerts    event hub devices  ->  the same, ahead of the readings, and SNS topic device-alerts
  Poison    One order is in francs, which its schema does not know; one alert carries a crash dump
            too large for SNS. They must not be lost, nor hold up the others: they are parked in
            SQS queue parked, with the reason. README.md says how to send the order again.

  AWS       LocalStack          http://127.0.0.1:{localstack}
  Azure     Event Hubs          amqp://127.0.0.1:{event_hubs}
            Storage Queues      http://127.0.0.1:{queues}
  Relay     eventferry run --config {config}
            {admin}/         to watch it in a browser
  Logs      .local/demo/

{end}

",
        localstack = port("LOCALSTACK_PORT"),
        event_hubs = port("EVENTHUBS_PORT"),
        queues = port("AZURITE_QUEUE_PORT"),
        admin = places.admin(),
    )
}

/// Why `event` was parked in `queue`, and where it came from.
pub(crate) fn dead_letter(event: &Event, record: &DeadLetter, queue: &str) -> String {
    let DeadLetter { class, error, attempts, received, source, resource, position, .. } = record;
    let why = match (&record.route, &record.sink) {
        (Some(route), Some(sink)) => format!("route {route} could not deliver it to sink {sink}"),
        (Some(route), None) => format!("route {route} took it, and sent it nowhere"),
        _ => "no route could take it".to_owned(),
    };
    let tries = match attempts {
        0 => "none: it would never have been taken".to_owned(),
        1 => "one".to_owned(),
        count => count.to_string(),
    };
    let handed = match received {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    };
    let kind = event.kind.as_deref().unwrap_or("without a type");
    let clock = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    let when = record.last.format(&clock).unwrap_or_default();
    format!(
        "\
A dead letter: one event could not be delivered, and is parked in {queue}.
  event   {id} ({kind}), {bytes} bytes, kept as they were
  where   {why}
  why     {class}: {error}
  tries   {tries}
  origin  {resource}, read {handed} by source {source}
  place   {position}
  when    {when}
",
        id = event.id,
        bytes = thousands(event.body.len() as u64),
    )
}

/// The books at the end, one line for each outlet.
pub(crate) fn balance(tally: &Tally, outlets: &Outlets) -> String {
    let mut text = "What was published, and what the sinks were read back for:\n\n".to_owned();
    let balances = tally.balances();
    let width = outlets.names().map(|name| name.len()).max().unwrap_or(0);
    for name in outlets.names() {
        let one = balances.get(&**name).copied().unwrap_or_default();
        let _ = writeln!(
            text,
            "  {name:width$} {:>7} expected  {:>7} arrived  {:>4} lost  {:>4} duplicated{}{}",
            thousands(one.expected),
            thousands(one.arrived),
            one.missing(),
            one.duplicated,
            if one.strange > 0 {
                format!("  {} not meant for it", one.strange)
            } else {
                String::new()
            },
            if one.leaked > 0 { format!("  {} LEAKED", one.leaked) } else { String::new() },
        );
    }
    text
}

/// The end of a log, to be shown after what went wrong.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n  ");
    format!("the end of {}:\n  {last}", log.display())
}

/// 1234567 as `1,234,567`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_parted_by_commas() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")];
        for (number, text) in cases {
            assert_eq!(thousands(number), text);
        }
    }
}
