//! What can go wrong on request, and where.

use serde::{Deserialize, Serialize};

/// A fault on request. Without `scope` it strikes anywhere, without `after` at once, without
/// `count` one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Where it may strike.
    #[serde(default)]
    pub scope: Scope,
    /// What happens.
    pub kind: Kind,
    /// What has to pass within the scope first.
    #[serde(default)]
    pub after: Option<After>,
    /// How often it strikes before it is over.
    #[serde(default = "once")]
    pub count: u32,
    /// Decides everything random about it.
    #[serde(default)]
    pub seed: u64,
}

fn once() -> u32 {
    1
}

impl Fault {
    /// Strikes once, anywhere, at once.
    pub fn new(kind: Kind) -> Self {
        Self { scope: Scope::default(), kind, after: None, count: 1, seed: 0 }
    }

    /// The same, only there.
    pub fn within(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    /// The same, only then.
    pub fn after(self, after: After) -> Self {
        Self { after: Some(after), ..self }
    }

    /// The same, that often.
    pub fn times(self, count: u32) -> Self {
        Self { count, ..self }
    }
}

/// Where a fault may strike: everywhere that nothing here speaks against.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scope {
    /// Number of the connection, as in the state and the log.
    pub conn: Option<u64>,
    /// Container id that the client opened its connection with.
    pub client_container: Option<String>,
    /// Name of a hub.
    pub hub: Option<String>,
    /// Id of a partition.
    pub partition: Option<String>,
    /// Name of a consumer group.
    pub group: Option<String>,
    /// Kind of link.
    pub link: Option<LinkKind>,
}

impl Scope {
    /// The links of one kind.
    pub fn link(kind: LinkKind) -> Self {
        Self { link: Some(kind), ..Self::default() }
    }

    pub(crate) fn names_a_link(&self) -> bool {
        self.hub.is_some()
            || self.partition.is_some()
            || self.group.is_some()
            || self.link.is_some()
    }

    /// Whether this place lies within. A place that does not know itself does not.
    pub(crate) fn contains(&self, place: &Place) -> bool {
        fn text(wanted: &Option<String>, actual: &Option<String>) -> bool {
            wanted.as_ref().is_none_or(|wanted| {
                actual.as_ref().is_some_and(|actual| actual.eq_ignore_ascii_case(wanted))
            })
        }
        self.conn.is_none_or(|conn| conn == place.conn)
            && text(&self.client_container, &place.client_container)
            && text(&self.hub, &place.hub)
            && text(&self.partition, &place.partition)
            && text(&self.group, &place.group)
            && self.link.is_none_or(|link| place.link == Some(link))
    }
}

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// The client publishes.
    Send,
    /// The client receives.
    Recv,
    /// Tokens.
    Cbs,
    /// Questions.
    Mgmt,
}

/// A connection, or a link on it.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Place {
    pub(crate) conn: u64,
    /// Number of the link, while it is attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) link_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_container: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) link: Option<LinkKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hub: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) partition: Option<String>,
}

/// What has to pass within the scope before a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum After {
    /// So many events, published or delivered.
    Events(u64),
    /// So many bytes from the client on the wire, for faults of connections; so many bytes of
    /// events, for faults of links.
    Bytes(u64),
    /// So many milliseconds from now.
    Ms(u64),
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Kind {
    /// The connection is reset (TCP RST).
    Rst,
    /// The connection is ended (TCP FIN) without a word of AMQP.
    Fin,
    /// Nothing is read or written any more, and the socket stays open.
    Freeze,
    /// What the client sends is thrown away.
    BlackholeIn,
    /// What the client should get is thrown away.
    BlackholeOut,
    /// Everything takes longer, each way.
    Delay {
        /// Milliseconds.
        ms: u64,
        /// Milliseconds that may be added.
        #[serde(default)]
        jitter: u64,
    },
    /// No more than this gets through, each way.
    Rate {
        /// Bytes per second.
        bytes_s: u64,
    },
    /// One byte to the client is changed.
    CorruptByte,
    /// The connection is closed by AMQP.
    AmqpClose {
        /// Why.
        condition: String,
    },
    /// The session is ended by AMQP.
    SessionEnd {
        /// Why.
        condition: String,
    },
    /// The link is detached.
    Detach {
        /// Why.
        condition: String,
        /// Whether it is also closed.
        #[serde(default = "yes")]
        closed: bool,
    },
    /// A transfer is rejected, its events are not kept.
    Reject {
        /// Why.
        condition: String,
    },
    /// A transfer is released, its events are not kept.
    Released,
    /// A transfer is modified, its events are not kept.
    Modified,
    /// A transfer is never answered, its events are kept.
    NoDisposition,
    /// The events of a transfer are kept, then the connection is reset: the client cannot know.
    DropAfterAppend,
    /// A link is refused.
    AttachRefuse {
        /// Why.
        condition: String,
    },
    /// A publisher is given no credit.
    CreditZero,
    /// A receiver is told that its offset was never issued.
    StaleOffset,
    /// A token is answered with this status.
    Cbs {
        /// Such as 401.
        code: i32,
    },
    /// A token is not answered.
    CbsSilent,
    /// A question is answered with this status.
    Mgmt {
        /// Such as 503.
        code: i32,
    },
    /// A question is not answered.
    MgmtSilent,
    /// An event is delivered twice.
    DupDelivery,
    /// So many sequence numbers are left out before the next transfer.
    Gap {
        /// How many.
        n: i64,
    },
}

fn yes() -> bool {
    true
}

impl Kind {
    /// Whether it ends or bends a whole connection.
    pub(crate) fn is_of_connection(&self) -> bool {
        matches!(
            self,
            Self::Rst
                | Self::Fin
                | Self::Freeze
                | Self::BlackholeIn
                | Self::BlackholeOut
                | Self::Delay { .. }
                | Self::Rate { .. }
                | Self::CorruptByte
                | Self::AmqpClose { .. }
        )
    }

    pub(crate) fn is_of_link(&self) -> bool {
        matches!(self, Self::SessionEnd { .. } | Self::Detach { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_the_control_api_is_written_as_the_readme_says() {
        let fault: Fault = serde_json::from_str(
            r#"{"scope": {"link": "recv", "hub": "orders"}, "kind": {"delay": {"ms": 5}},
                "after": {"bytes": 100}, "count": 3, "seed": 7}"#,
        )
        .unwrap();
        assert_eq!(fault.kind, Kind::Delay { ms: 5, jitter: 0 });
        assert_eq!(fault.after, Some(After::Bytes(100)));
        let fault: Fault = serde_json::from_str(r#"{"kind": "rst"}"#).unwrap();
        assert_eq!(fault, Fault::new(Kind::Rst));
    }
}
