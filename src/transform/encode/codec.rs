//! Each coding by itself: bytes in, bytes out, within a bound.

use std::io::{ErrorKind, Read as _, Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use flate2::{Compression, bufread::MultiGzDecoder, write::GzEncoder};
use zstd::zstd_safe::{self, ErrorCode, zstd_sys::ZSTD_ErrorCode};

use super::Coding;
use crate::{config::units::Size, transform::Failure};

/// What a decoded body may have, in bytes: well above what any of the services takes, and well
/// below what a compressed bomb wants.
pub const OUTPUT_BYTES_MAX: usize = 16 << 20;

/// zstd's own default: about as fast as the network, and smaller than gzip.
const ZSTD_LEVEL: i32 = 3;
/// The least room that unpacking begins with, in bytes.
const ROOM_BYTES_MIN: usize = 16 << 10;
/// How many times larger the next room is when one was too small.
const ROOM_GROWTH: usize = 4;
/// How zstd says that the room was too small: the negated number of the error.
const TOO_SMALL: ErrorCode = (ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall as usize).wrapping_neg();

pub(super) fn encode(coding: Coding, bytes: &[u8]) -> Result<Bytes, Failure> {
    match coding {
        Coding::Json => {
            let text = std::str::from_utf8(bytes).map_err(|_| {
                failed("the body is no UTF-8 text, and `json` takes no other; use `base64`")
            })?;
            serde_json::to_vec(text).map(Bytes::from).map_err(|_| failed("cannot write JSON"))
        }
        Coding::Base64 => Ok(BASE64.encode(bytes).into()),
        Coding::Gzip => {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
            let written = gzip.write_all(bytes).and_then(|()| gzip.finish());
            written.map(Bytes::from).map_err(|_| failed("cannot write gzip"))
        }
        Coding::Zstd => compress(bytes),
    }
}

/// The inverse of [`encode`]. Only what compresses can grow, and answers to `max` bytes.
pub(super) fn decode(coding: Coding, bytes: &[u8], max: usize) -> Result<Bytes, Failure> {
    match coding {
        Coding::Json => serde_json::from_slice::<String>(bytes)
            .map(Bytes::from)
            .map_err(|_| undecodable("the body is not one JSON string")),
        Coding::Base64 => BASE64
            .decode(bytes)
            .map(Bytes::from)
            .map_err(|_| undecodable("the body is no base64 with padding")),
        Coding::Gzip => gunzip(bytes, max),
        Coding::Zstd => decompress(bytes, max),
    }
}

/// `bytes` as one zstd frame, which says how many they were.
///
/// # Errors
/// zstd got no memory to work with.
pub fn compress(bytes: &[u8]) -> Result<Bytes, Failure> {
    let packed = zstd::bulk::compress(bytes, ZSTD_LEVEL);
    packed.map(Bytes::from).map_err(|_| failed("zstd got no memory"))
}

/// What the zstd frames in `bytes` hold, one after the other.
///
/// # Errors
/// They hold more than `max` bytes, are damaged or cut short, or something else is among them. The
/// class is `decode`.
pub fn decompress(bytes: &[u8], max: usize) -> Result<Bytes, Failure> {
    // To zstd, nothing at all is no frames, and fine.
    if bytes.is_empty() {
        return Err(undecodable("the body is empty, and so no zstd"));
    }
    // A frame claims a size and a window. Neither is believed: unpacked in one go, zstd needs no
    // window, and what does not fit gets more room, up to the bound.
    let mut room = bytes.len().saturating_mul(ROOM_GROWTH).max(ROOM_BYTES_MIN).min(max);
    loop {
        let mut unpacked = Vec::with_capacity(room);
        match zstd_safe::decompress(&mut unpacked, bytes) {
            Ok(_) if unpacked.len() > max => return Err(too_large("zstd", max)),
            Ok(_) => {
                unpacked.shrink_to_fit();
                return Ok(unpacked.into());
            }
            Err(TOO_SMALL) if room < max => room = room.saturating_mul(ROOM_GROWTH).min(max),
            Err(TOO_SMALL) => return Err(too_large("zstd", max)),
            Err(_) => return Err(undecodable("the body is no zstd, or a damaged one")),
        }
    }
}

/// What the gzip members in `bytes` hold, one after the other.
fn gunzip(bytes: &[u8], max: usize) -> Result<Bytes, Failure> {
    let mut unpacked = Vec::new();
    let bound = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    match MultiGzDecoder::new(bytes).take(bound).read_to_end(&mut unpacked) {
        Ok(_) if unpacked.len() > max => Err(too_large("gzip", max)),
        Ok(_) => Ok(unpacked.into()),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            Err(undecodable("the body is no gzip, or is cut short"))
        }
        Err(_) => Err(undecodable("the body is no gzip, or a damaged one")),
    }
}

fn failed(text: &str) -> Failure {
    Failure::new("encode", text)
}

fn undecodable(text: &str) -> Failure {
    Failure::new("decode", text)
}

fn too_large(coding: &str, max: usize) -> Failure {
    Failure::new("decode", format!("the body is larger than {} without `{coding}`", Size(max)))
}
