//! X-Ray's trace header as W3C trace context.
//! <https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader>

use std::sync::Arc;

/// `Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1` as `traceparent`.
/// `None` where root or parent is missing or malformed.
pub(super) fn traceparent(header: &str) -> Option<Arc<str>> {
    let field = |name: &str| {
        header.split(';').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
    };
    let mut root = field("Root")?.splitn(3, '-');
    let (version, epoch, unique) = (root.next()?, root.next()?, root.next()?);
    let parent = field("Parent")?;
    let hex = |text: &str, length| {
        text.len() == length
            && text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
    };
    if version != "1" || !hex(epoch, 8) || !hex(unique, 24) || !hex(parent, 16) {
        return None;
    }
    let sampled = if field("Sampled") == Some("1") { "01" } else { "00" };
    Some(format!("00-{epoch}{unique}-{parent}-{sampled}").into())
}

/// `traceparent` as X-Ray's header, which costs none of the ten attributes. `None` where it is
/// not of version 00's shape.
#[must_use]
pub fn header(traceparent: &str) -> Option<String> {
    let mut parts = traceparent.split('-');
    let (version, trace, parent, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    if version.len() != 2
        || trace.len() != 32
        || parent.len() != 16
        || !is_hex(trace)
        || !is_hex(parent)
    {
        return None;
    }
    let sampled = u8::from_str_radix(flags, 16).ok()? & 1;
    Some(format!("Root=1-{}-{};Parent={parent};Sampled={sampled}", &trace[..8], &trace[8..]))
}
