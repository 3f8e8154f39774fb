//! One client's connection, from its socket to its end.

use std::{sync::Arc, time::Duration};

use fe2o3_amqp::acceptor::{
    ConnectionAcceptor, ListenerConnectionHandle, SaslAcceptor, SessionAcceptor,
    sasl_acceptor::SaslServerFrame,
};
use fe2o3_amqp_types::definitions::{Error as AmqpError, Fields};
use fe2o3_amqp_types::primitives::{Array, Symbol, Value};
use fe2o3_amqp_types::sasl::{SaslCode, SaslInit, SaslOutcome, SaslResponse};
use tokio::{net::TcpStream, sync::mpsc, time::timeout};

use super::{
    armed::Moment,
    core::Core,
    journal::What,
    opening::Opening,
    roster::{Connection, amqp_error},
    session,
    wire::{self, BUFFER_BYTES},
};
use crate::{condition, limits};

/// How long a client may take to open, and to answer a close.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How often the idle rules and the age of tokens are looked at.
const INSPECTION: Duration = Duration::from_millis(100);

/// Serves a connection until it ends.
pub(crate) async fn serve(core: Arc<Core>, socket: TcpStream) {
    let (orders, mut ordered) = mpsc::channel(1);
    let connection = core.roster.enter(core.next_id(), orders);
    // Best effort: without it every small answer takes 40 ms on loopback.
    let _ = socket.set_nodelay(true);
    let (engine, wire_end) = tokio::io::duplex(BUFFER_BYTES);
    let observe = observer(Arc::clone(&core), Arc::clone(&connection));
    let relay = tokio::spawn(wire::relay(socket, wire_end, connection.wire.clone(), observe));
    if let Ok(Ok(handle)) = timeout(PATIENCE, acceptor().accept(engine)).await {
        run(&core, &connection, handle, &mut ordered).await;
    }
    core.roster.leave(connection.id);
    core.note(&connection.place(), What::Closed);
    // What is still on its way to the client may take its time, but not for ever.
    let abort = relay.abort_handle();
    if timeout(PATIENCE, relay).await.is_err() {
        abort.abort();
    }
}

fn observer(core: Arc<Core>, connection: Arc<Connection>) -> impl FnMut(&[u8]) + Send {
    let mut opening = Opening::default();
    move |bytes| {
        if let Some(open) = opening.observe(bytes) {
            let _ = connection.container.set(open.container_id);
            core.note(&connection.place(), What::Open);
            core.strike(Moment::Open, &connection.place(), 0, 0);
        }
        core.strike(Moment::Bytes, &connection.place(), 0, bytes.len() as u64);
    }
}

async fn run(
    core: &Arc<Core>,
    connection: &Arc<Connection>,
    mut handle: ListenerConnectionHandle,
    ordered: &mut mpsc::Receiver<AmqpError>,
) {
    let sessions = SessionAcceptor::builder()
        .incoming_window(5000)
        .outgoing_window(5000)
        // Never u32::MAX, which is left out on the wire and breaks the Python client.
        .handle_max(255_u32)
        .properties(product())
        .build();
    let mut inspection = tokio::time::interval(INSPECTION);
    loop {
        tokio::select! {
            biased;
            Some(error) = ordered.recv() => {
                // A client that does not answer is left anyway.
                let _ = timeout(PATIENCE, handle.close_with_error(error)).await;
                return;
            }
            incoming = handle.next_incoming_session() => {
                let Some(incoming) = incoming else { return };
                match sessions.accept_incoming_session(incoming, &mut handle).await {
                    Ok(accepted) => {
                        let (core, connection) = (Arc::clone(core), Arc::clone(connection));
                        tokio::spawn(session::serve(core, connection, accepted));
                    }
                    Err(_) => return,
                }
            }
            _ = inspection.tick() => inspect(core, connection),
        }
    }
}

/// The service's idle rules, and tokens that have grown old.
fn inspect(core: &Core, connection: &Connection) {
    let settings = core.settings();
    let scaled = |limit: Duration| limit.div_f64(settings.time_scale.max(0.001));
    if let Some((since, had_links)) = connection.idle_since() {
        let limit = if had_links { limits::IDLE_CONNECTION } else { limits::FIRST_LINK };
        if since.elapsed() > scaled(limit) {
            let text = "The connection was inactive for more than the allowed period of time.";
            let _ = connection.orders.try_send(amqp_error(condition::CONNECTION_FORCED, text));
        }
    }
    for link in connection.links() {
        if link.active_at().elapsed() > scaled(limits::IDLE_LINK) {
            let text = "The link is force detached by the broker because it was idle.";
            link.end(amqp_error(condition::LINK_DETACH_FORCED, text), true);
        }
        let put = link.place.hub.as_ref().and_then(|hub| connection.token_put_at(hub));
        if let (Some(ttl), Some(put)) = (settings.token_ttl_ms, put)
            && put.elapsed() > Duration::from_millis(ttl)
        {
            let text = "Unauthorized access. The token has expired.";
            link.end(amqp_error(condition::UNAUTHORIZED_ACCESS, text), true);
        }
    }
}

/// Never empty: the Python client reads this field without looking whether it is there.
pub(crate) fn product() -> Fields {
    let mut fields = Fields::new();
    fields.insert(Symbol::from("product"), Value::String("eventhubs-emulator".to_owned()));
    fields
}

fn acceptor() -> ConnectionAcceptor<(), AnyMechanism> {
    ConnectionAcceptor::builder()
        .container_id("eventhubs-emulator")
        .max_frame_size(65_536)
        .channel_max(4999)
        .idle_time_out(240_000_u32)
        .properties(product())
        .sasl_acceptor(AnyMechanism)
        .build()
}

/// Lets everybody in: authorization is not what the emulator is for.
#[derive(Debug, Clone)]
struct AnyMechanism;

impl SaslAcceptor for AnyMechanism {
    fn mechanisms(&self) -> Array<Symbol> {
        ["MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL"].map(Symbol::from).to_vec().into()
    }

    fn on_init(&mut self, _: SaslInit) -> SaslServerFrame {
        SaslServerFrame::Outcome(SaslOutcome { code: SaslCode::Ok, additional_data: None })
    }

    fn on_response(&mut self, _: SaslResponse) -> SaslServerFrame {
        SaslServerFrame::Outcome(SaslOutcome { code: SaslCode::Ok, additional_data: None })
    }
}
