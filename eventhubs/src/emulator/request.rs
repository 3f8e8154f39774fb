//! A pair of links on which a client asks and the service answers: `$cbs` and `$management`.

use std::sync::Arc;

use fe2o3_amqp::{Receiver, Sendable, Sender};
use fe2o3_amqp_types::messaging::{AmqpValue, ApplicationProperties, Body, MessageId, Properties};
use fe2o3_amqp_types::primitives::{OrderedMap, SimpleValue, Value};

use super::{
    cbs,
    core::Core,
    event::{self, AnyMessage},
    fault::LinkKind,
    management,
    roster::{Connection, Link},
};
use crate::cbs::{STATUS_CODE, STATUS_CODE_CAMEL, STATUS_DESCRIPTION, STATUS_DESCRIPTION_CAMEL};

/// A pair of links.
pub(crate) struct Pair {
    pub(crate) core: Arc<Core>,
    pub(crate) connection: Arc<Connection>,
    pub(crate) kind: LinkKind,
    pub(crate) requests: (Receiver, Arc<Link>),
    pub(crate) responses: (Sender, Arc<Link>),
}

/// The answer to a request.
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) description: String,
    pub(crate) body: Value,
}

impl Answer {
    /// A status without anything else.
    pub(crate) fn status(code: i32, description: impl Into<String>) -> Self {
        Self { code, description: description.into(), body: Value::Null }
    }
}

/// Answers requests until either link ends.
pub(crate) async fn run(pair: Pair) {
    let Pair { core, connection, kind, requests, responses } = pair;
    let (mut receiver, request_link) = requests;
    let (mut sender, response_link) = responses;
    while let Ok(delivery) = receiver.recv::<Body<Value>>().await {
        request_link.passed(1);
        response_link.passed(1);
        let (info, request) = delivery.into_parts();
        // As with events: the official Rust SDK does not see an outcome that comes too fast.
        tokio::time::sleep(core.disposition_delay()).await;
        if receiver.accept(info).await.is_err() {
            break;
        }
        let answer = match kind {
            LinkKind::Cbs => cbs::answer(&core, &connection, &request_link.place, &request),
            _ => management::answer(&core, &request_link.place, &request),
        };
        let Some(answer) = answer else { continue };
        let mut response: Sendable<Body<Value>> = respond(&request, answer).into();
        response.settled = Some(true);
        if sender.send_batchable(response).await.is_err() {
            break;
        }
    }
    core.ended(&connection, &request_link, None);
    core.ended(&connection, &response_link, None);
}

fn respond(request: &AnyMessage, answer: Answer) -> AnyMessage {
    let asked = request.properties.as_ref();
    let properties = Properties {
        // Unchanged, whatever its type: each SDK uses another.
        correlation_id: asked.and_then(|asked| asked.message_id.clone()),
        to: asked.and_then(|asked| asked.reply_to.clone()),
        message_id: Some(MessageId::String(uuid::Uuid::new_v4().to_string())),
        ..Properties::default()
    };
    let mut status = OrderedMap::new();
    for (name, value) in [
        (STATUS_CODE, SimpleValue::Int(answer.code)),
        (STATUS_CODE_CAMEL, SimpleValue::Int(answer.code)),
        (STATUS_DESCRIPTION, SimpleValue::String(answer.description.clone())),
        (STATUS_DESCRIPTION_CAMEL, SimpleValue::String(answer.description)),
    ] {
        status.insert(name.to_owned(), value);
    }
    AnyMessage {
        properties: Some(properties),
        application_properties: Some(ApplicationProperties(status)),
        ..event::bare(Body::Value(AmqpValue(answer.body)))
    }
}

/// An application property of a request, when it is text.
pub(crate) fn property<'a>(request: &'a AnyMessage, name: &str) -> Option<&'a str> {
    match request.application_properties.as_ref()?.0.get(name)? {
        SimpleValue::String(text) => Some(text),
        SimpleValue::Symbol(text) => Some(text.as_str()),
        _ => None,
    }
}
