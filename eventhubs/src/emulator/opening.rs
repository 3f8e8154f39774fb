//! Reads the Open performative from the bytes of a client: the AMQP engine keeps it to itself,
//! and faults are aimed by container id.

use bytes::{Buf, BytesMut};
use fe2o3_amqp_types::performatives::Open;

/// The header by which AMQP itself begins, after SASL.
const AMQP_HEADER: [u8; 8] = *b"AMQP\x00\x01\x00\x00";
/// An Open is never this far into a connection.
const GIVE_UP_BYTES: usize = 64 * 1024;

/// Watches for the Open.
#[derive(Debug, Default)]
pub(crate) struct Opening {
    seen: BytesMut,
    done: bool,
}

impl Opening {
    /// Takes the next bytes, and gives the Open once, when it is complete.
    pub(crate) fn observe(&mut self, bytes: &[u8]) -> Option<Open> {
        if self.done {
            return None;
        }
        self.seen.extend_from_slice(bytes);
        let open = self.find();
        if open.is_some() || self.seen.len() > GIVE_UP_BYTES {
            self.done = true;
            self.seen = BytesMut::new();
        }
        open
    }

    fn find(&self) -> Option<Open> {
        let header =
            self.seen.windows(AMQP_HEADER.len()).position(|window| window == AMQP_HEADER)?;
        let mut frame = &self.seen[header + AMQP_HEADER.len()..];
        if frame.len() < 8 {
            return None;
        }
        let size = frame.get_u32() as usize;
        // The data offset counts words of four bytes, and includes the size itself.
        let performative = usize::from(frame[0]) * 4;
        let frame = frame.get(performative.checked_sub(4)?..size.checked_sub(4)?)?;
        serde_amqp::from_slice(frame).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_open_is_found_when_its_bytes_come_one_by_one() {
        let open = Open {
            container_id: "me".into(),
            hostname: None,
            max_frame_size: 512.into(),
            channel_max: 1.into(),
            idle_time_out: None,
            outgoing_locales: None,
            incoming_locales: None,
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        };
        let body = serde_amqp::to_vec(&open).unwrap();
        let mut bytes = b"AMQP\x03\x01\x00\x00sasl".to_vec();
        bytes.extend(AMQP_HEADER);
        bytes.extend((body.len() as u32 + 8).to_be_bytes());
        bytes.extend([2, 0, 0, 0]);
        bytes.extend(body);
        bytes.extend(b"more");
        let mut opening = Opening::default();
        let found: Vec<_> = bytes.iter().filter_map(|byte| opening.observe(&[*byte])).collect();
        assert_eq!(found, [open]);
    }
}
