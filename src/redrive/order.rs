//! The order in which entries are sent again: as they came from their source, whatever the
//! dead-letter queue has made of it.

use std::{collections::HashMap, sync::Arc};

use super::entry::Entry;

/// Puts them into the order in which they came, and those of one key of a log into that of the log:
/// replicas that followed each other may have clocks that differ. What nobody knows the time of
/// goes first.
pub(super) fn in_order<T>(
    mut found: Vec<(Option<Arc<str>>, T)>,
    entry: impl Fn(&T) -> &Entry,
) -> Vec<(Option<Arc<str>>, T)> {
    found.sort_by_key(|(_, found)| entry(found).arrived());
    let mut of_logs: HashMap<_, Vec<(i64, usize)>> = HashMap::new();
    for (slot, (key, found)) in found.iter().enumerate() {
        if let (Some(key), Some(record)) = (key, &entry(found).record)
            && let Some((sequence, log)) = place(&record.position)
        {
            of_logs.entry((key, &record.resource, log)).or_default().push((sequence, slot));
        }
    }
    // Among themselves alone: all others stay where their times have put them.
    let mut order: Vec<usize> = (0..found.len()).collect();
    for places in of_logs.values_mut() {
        let slots: Vec<_> = places.iter().map(|(_, slot)| *slot).collect();
        places.sort_unstable();
        for (slot, (_, from)) in slots.iter().zip(places) {
            order[*slot] = *from;
        }
    }
    drop(of_logs);
    let mut found: Vec<_> = found.into_iter().map(Some).collect();
    order.into_iter().filter_map(|from| found[from].take()).collect()
}

/// The number of a place in a log, as [`crate::delivery::Origin::position`] spells it, and in which
/// partition of which hub it counts: a key may lie in several, between which there is no order but
/// that of time.
fn place(position: &str) -> Option<(i64, (&str, &str))> {
    let (place, made) = position.split_once('@')?;
    let (partition, sequence) = place.split_once('/')?;
    i64::from_str_radix(made, 16).ok()?;
    Some((sequence.parse().ok()?, (partition, made)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::redrive::entry::fixtures::entry;

    /// What comes of entries of these keys, arrival times and positions.
    fn sent(entries: &[(&str, i64, &str)]) -> Vec<String> {
        let found = entries.iter().map(|(key, at, position)| {
            let mut entry = entry(position, "route", "timeout", *at);
            let mut record = (**entry.record.as_ref().unwrap()).clone();
            record.position = (*position).to_owned();
            record.arrived = time::OffsetDateTime::from_unix_timestamp(*at).unwrap();
            entry.record = Some(Arc::new(record));
            ((!key.is_empty()).then(|| Arc::from(*key)), entry)
        });
        let sent = in_order(found.collect(), |entry| entry);
        let all: BTreeSet<_> = sent.iter().map(|(_, entry)| entry.event.id.clone()).collect();
        assert_eq!(all.len(), entries.len(), "each of them once");
        sent.into_iter().map(|(_, entry)| entry.record.unwrap().position.clone()).collect()
    }

    #[test]
    fn what_came_first_goes_first() {
        let entries = [("a", 3, "id-3"), ("", 1, "id-1"), ("a", 2, "id-2")];
        assert_eq!(sent(&entries), ["id-1", "id-2", "id-3"]);
    }

    #[test]
    fn a_key_of_a_log_goes_by_its_places_whatever_the_clocks_said() {
        let entries = [
            ("a", 5, "0/9@1f"),
            ("a", 1, "0/10@1f"),
            ("b", 2, "1/7@1f"),
            ("a", 4, "what somebody else put there"),
        ];
        let foreign = "what somebody else put there";
        assert_eq!(sent(&entries), ["0/9@1f", "1/7@1f", foreign, "0/10@1f"]);
    }

    #[test]
    fn a_key_in_several_partitions_or_hubs_goes_by_time_between_them() {
        let entries =
            [("a", 1, "3/90@1f"), ("a", 2, "10/1@1f"), ("a", 3, "3/2@20"), ("a", 4, "10/5@1f")];
        assert_eq!(sent(&entries), ["3/90@1f", "10/1@1f", "3/2@20", "10/5@1f"]);
    }

    #[test]
    fn no_text_is_too_odd_for_a_position() {
        for odd in ["", "@", "/@", "0/@1", "0/1@", "0/x@1", "0/1@zz", "0/1@1@1"] {
            assert_eq!(place(odd), None, "{odd}");
        }
    }
}
