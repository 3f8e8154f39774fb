//! Names of the nodes that links attach to.

use std::{fmt, str::FromStr};

/// A node of a namespace.
///
/// [`Display`](fmt::Display) writes the relative form, [`Address::absolute`] the other one, and
/// parsing takes both: the SDKs differ. Names of hubs and consumer groups do not differ by case;
/// they are kept as written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// Takes tokens; see [`crate::cbs`].
    Cbs,
    /// Answers questions; see [`crate::management`].
    Management,
    /// Takes events and picks the partition by key, or in turn.
    Hub {
        /// Name of the hub.
        hub: String,
    },
    /// Takes events for one partition.
    Partition {
        /// Name of the hub.
        hub: String,
        /// Id of the partition.
        partition: String,
    },
    /// Takes events of one publisher, under a publisher policy.
    Publisher {
        /// Name of the hub.
        hub: String,
        /// Name of the publisher.
        publisher: String,
    },
    /// Gives the events of one partition to a member of a consumer group.
    Events {
        /// Name of the hub.
        hub: String,
        /// Name of the consumer group.
        group: String,
        /// Id of the partition.
        partition: String,
    },
}

/// The consumer group that every hub has.
pub const DEFAULT_CONSUMER_GROUP: &str = "$Default";

/// What is not the name of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address of a hub, of one of its partitions, `$cbs` or `$management`")]
pub struct InvalidAddress(String);

impl Address {
    /// The hub, unless the node belongs to the namespace itself.
    pub fn hub(&self) -> Option<&str> {
        match self {
            Self::Cbs | Self::Management => None,
            Self::Hub { hub }
            | Self::Partition { hub, .. }
            | Self::Publisher { hub, .. }
            | Self::Events { hub, .. } => Some(hub),
        }
    }

    /// The form with scheme and host, which is also the audience of a token for this node.
    /// `host` is a host name without scheme, with a port if need be.
    pub fn absolute(&self, scheme: &str, host: &str) -> String {
        format!("{scheme}://{host}/{self}")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cbs => f.write_str(crate::cbs::NODE),
            Self::Management => f.write_str(crate::management::NODE),
            Self::Hub { hub } => f.write_str(hub),
            Self::Partition { hub, partition } => write!(f, "{hub}/Partitions/{partition}"),
            Self::Publisher { hub, publisher } => write!(f, "{hub}/Publishers/{publisher}"),
            Self::Events { hub, group, partition } => {
                write!(f, "{hub}/ConsumerGroups/{group}/Partitions/{partition}")
            }
        }
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress(text.to_owned());
        let path = match text.split_once("://") {
            Some((_, rest)) => rest.split_once('/').ok_or_else(invalid)?.1,
            None => text,
        };
        let decoded = percent_decode(path).ok_or_else(invalid)?;
        let parts: Vec<&str> = decoded.trim_matches('/').split('/').collect();
        let is = |part: &str, word: &str| part.eq_ignore_ascii_case(word);
        let owned = |part: &str| part.to_owned();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(invalid());
        }
        match parts[..] {
            [node] if is(node, crate::cbs::NODE) => Ok(Self::Cbs),
            [node] if is(node, crate::management::NODE) => Ok(Self::Management),
            [hub] => Ok(Self::Hub { hub: owned(hub) }),
            // Java and .NET ask the management node of a hub.
            [_, node] if is(node, crate::management::NODE) => Ok(Self::Management),
            [hub, word, partition] if is(word, "partitions") => {
                Ok(Self::Partition { hub: owned(hub), partition: owned(partition) })
            }
            [hub, word, publisher] if is(word, "publishers") => {
                Ok(Self::Publisher { hub: owned(hub), publisher: owned(publisher) })
            }
            [hub, groups, group, partitions, partition]
                if is(groups, "consumergroups") && is(partitions, "partitions") =>
            {
                Ok(Self::Events {
                    hub: owned(hub),
                    group: owned(group),
                    partition: owned(partition),
                })
            }
            _ => Err(invalid()),
        }
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(group: &str) -> Address {
        Address::Events { hub: "eh1".into(), group: group.into(), partition: "0".into() }
    }

    #[test]
    fn every_form_that_an_sdk_writes_is_understood() {
        for (text, address) in [
            ("$cbs", Address::Cbs),
            ("amqps://127.0.0.1/$management", Address::Management),
            ("amqps://127.0.0.1/eh1/ConsumerGroups/$Default/Partitions/0", events("$Default")),
            ("eh1/consumergroups/%24Default/partitions/0", events("$Default")),
            ("sb://127.0.0.1:5672/eh1", Address::Hub { hub: "eh1".into() }),
            ("eh1/Partitions/3", Address::Partition { hub: "eh1".into(), partition: "3".into() }),
            ("eh1/Publishers/me", Address::Publisher { hub: "eh1".into(), publisher: "me".into() }),
        ] {
            assert_eq!(text.parse(), Ok(address), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let address = events("g");
        assert_eq!(address.to_string().parse(), Ok(address.clone()));
        assert_eq!(address.absolute("amqps", "ns.servicebus.windows.net").parse(), Ok(address));
    }

    #[test]
    fn other_paths_are_refused() {
        for text in [
            "",
            "/",
            "sb://host",
            "eh1/Partitions",
            "eh1/Partitions/",
            "a/b/c/d/e",
            "%zz",
            "%",
            "%f",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
