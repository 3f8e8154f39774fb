//! How a body travels that is too large for its sink as it is.

use std::io::Read as _;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::claim::BODY_MAX;

/// What was done to a body to make its event fit. The encoding that a service needs for its text
/// comes on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// It is compressed: frames of Zstandard (RFC 8878).
    Zstd,
    /// It is in an object store, and a reference in its place.
    ClaimCheck,
}

/// Fast, and within a few percent of what slower levels reach on events.
const LEVEL: i32 = 3;
/// The window that every decoder must take, as a power of two: what a frame can make us reserve.
/// <https://www.rfc-editor.org/rfc/rfc8878#section-3.1.1.1.2>
const WINDOW_LOG_MAX: u32 = 23;

/// `body`, compressed; `None` if it is larger than what is decompressed again.
#[must_use]
pub fn compress(body: &[u8]) -> Option<Bytes> {
    if body.len() > BODY_MAX {
        return None;
    }
    // Compressing in memory fails for want of memory alone.
    zstd::bulk::compress(body, LEVEL).ok().map(Bytes::from)
}

/// What [`compress`] was given.
///
/// # Errors
/// It is not compressed, or holds more than [`BODY_MAX`].
pub(super) fn decompress(body: &[u8]) -> Result<Bytes, &'static str> {
    let wrong = |_| "body is not the Zstandard that it claims to be";
    let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(wrong)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(wrong)?;
    let mut whole = Vec::new();
    // One byte more than is allowed tells that there is more.
    decoder.take(BODY_MAX as u64 + 1).read_to_end(&mut whole).map_err(wrong)?;
    if whole.len() > BODY_MAX {
        Err("body has more than 64 MiB decompressed")
    } else {
        Ok(whole.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_is_decompressed() {
        for body in [&b""[..], b"x", &[7; 3_000_000]] {
            let compressed = compress(body).unwrap();
            assert!(compressed.len() < 1000);
            assert_eq!(decompress(&compressed).unwrap(), body);
        }
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let bomb = zstd::bulk::compress(&vec![0; BODY_MAX + 1], 3).unwrap();
        assert!(bomb.len() < 10_000);
        assert_eq!(decompress(&bomb).unwrap_err(), "body has more than 64 MiB decompressed");
        let whole = vec![0; BODY_MAX];
        assert_eq!(decompress(&compress(&whole).unwrap()).unwrap().len(), BODY_MAX);
        assert!(compress(&vec![0; BODY_MAX + 1]).is_none());
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let mut cut = compress(b"hello, hello, hello").unwrap().to_vec();
        cut.pop();
        for body in [&b"no frame"[..], &cut] {
            let error = decompress(body).unwrap_err();
            assert_eq!(error, "body is not the Zstandard that it claims to be");
        }
    }
}
