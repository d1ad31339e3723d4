//! What must hold for any bytes at all: shared by the property test and the fuzz target.

use bytes::{Bytes, BytesMut};

use super::{Message, decode, encode};

/// Decodes `payload` both ways and checks what the decoder promises.
///
/// # Panics
/// When a promise is broken: an error points into the message, and a message survives being
/// encoded and decoded again.
pub fn check_any_bytes(payload: &[u8]) {
    for in_stream in [false, true] {
        match decode(Bytes::copy_from_slice(payload), in_stream) {
            Ok(message) => check_round_trip(&message, in_stream),
            Err(error) => {
                assert!(error.offset <= payload.len(), "{error}");
                assert_eq!(error.tag, payload.first().copied());
            }
        }
    }
}

/// Encodes and decodes `message`.
///
/// # Panics
/// When it does not come out equal.
pub fn check_round_trip(message: &Message, in_stream: bool) {
    let mut bytes = BytesMut::new();
    assert_eq!(encode(message, &mut bytes), Ok(()), "{message:?}");
    let back = decode(bytes.freeze(), in_stream);
    assert_eq!(back.as_ref(), Ok(message));
}
