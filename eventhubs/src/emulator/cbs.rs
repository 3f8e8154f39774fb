//! The node `$cbs`: takes every token, as long as its audience exists.

use super::{
    armed::Moment,
    core::Core,
    event::AnyMessage,
    fault::{Kind, Place},
    journal::What,
    request::{Answer, property},
    roster::Connection,
};
use crate::{
    address::Address,
    cbs::{ACCEPTED, NAME, OPERATION, PUT_TOKEN},
};

/// Answers a request; `None`: not at all.
pub(crate) fn answer(
    core: &Core,
    connection: &Connection,
    place: &Place,
    request: &AnyMessage,
) -> Option<Answer> {
    let audience = property(request, NAME).unwrap_or_default();
    let answer = match core.strike(Moment::Cbs, place, 0, 0) {
        Some(Kind::CbsSilent) => return None,
        Some(Kind::Cbs { code }) => Answer::status(code, "The emulator was asked to answer this."),
        _ => take(core, connection, audience, property(request, OPERATION)),
    };
    core.note(place, What::PutToken { audience: audience.to_owned(), code: answer.code });
    Some(answer)
}

fn take(core: &Core, connection: &Connection, audience: &str, operation: Option<&str>) -> Answer {
    if operation != Some(PUT_TOKEN) {
        return Answer::status(400, "The operation is not put-token.");
    }
    let address = audience.parse::<Address>().ok();
    let hub = address.as_ref().and_then(Address::hub);
    match hub {
        // Answered here, because clients report a refused attach as something else.
        Some(hub) if core.namespace.hub(hub).is_none() => {
            Answer::status(404, format!("The messaging entity '{audience}' could not be found."))
        }
        Some(hub) => {
            connection.put_token(hub);
            Answer::status(ACCEPTED, "Accepted")
        }
        // A token for the whole namespace.
        None => Answer::status(ACCEPTED, "Accepted"),
    }
}
