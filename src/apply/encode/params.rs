//! Parameters as the server reads them. Pure.

use crate::apply::encode::binary::oid;
use crate::commit_time::CommitTime;
use crate::pgoutput::Value;

/// Room for the header of a binary array.
const ARRAY_HEADER_BYTES: usize = 20;

/// A value as a text parameter; `None` is NULL. The caller has made sure that nothing is missing.
pub(in crate::apply) fn value(value: &Value) -> Option<&[u8]> {
    match value {
        Value::Text(bytes) | Value::Binary(bytes) => Some(bytes),
        Value::Null | Value::Unchanged => None,
    }
}

/// A one-dimensional `text[]` literal (manual 8.15.2): every element quoted, so that only what is
/// not quoted is NULL.
pub(in crate::apply) fn array_literal<'a>(
    elements: impl Iterator<Item = Option<&'a [u8]>>,
) -> Vec<u8> {
    let mut literal = vec![b'{'];
    for (position, element) in elements.enumerate() {
        if position > 0 {
            literal.push(b',');
        }
        match element {
            Some(element) => push_quoted(&mut literal, element),
            None => literal.extend_from_slice(b"NULL"),
        }
    }
    literal.push(b'}');
    literal
}

fn push_quoted(literal: &mut Vec<u8>, element: &[u8]) {
    literal.push(b'"');
    for &byte in element {
        if matches!(byte, b'"' | b'\\') {
            literal.push(b'\\');
        }
        literal.push(byte);
    }
    literal.push(b'"');
}

/// A one-dimensional `text[]` in binary form: nothing to quote here, nothing to parse there.
pub(in crate::apply) fn text_array<'a>(
    elements: impl Iterator<Item = Option<&'a [u8]>>,
) -> Vec<u8> {
    binary_array(oid::TEXT, elements, |element| element)
}

/// A `timestamptz` in binary form.
pub(in crate::apply) fn time_binary(time: CommitTime) -> [u8; 8] {
    time.as_postgres_micros().to_be_bytes()
}

/// A one-dimensional `timestamptz[]` in binary form.
pub(in crate::apply) fn time_array(elements: impl Iterator<Item = CommitTime>) -> Vec<u8> {
    let micros = elements.map(|time| Some(time_binary(time)));
    binary_array(oid::TIMESTAMPTZ, micros, |bytes| bytes)
}

/// Dimensions, whether a NULL may be among the elements, their type; length and lower bound of the
/// one dimension; then each element (`array_recv` in the server's `arrayfuncs.c`).
fn binary_array<E>(
    element_oid: u32,
    elements: impl Iterator<Item = Option<E>>,
    bytes: impl Fn(&E) -> &[u8],
) -> Vec<u8> {
    let mut array = vec![0; ARRAY_HEADER_BYTES];
    let (mut count, mut has_null) = (0_u32, 0_u32);
    for element in elements {
        count += 1;
        let Some(element) = element else {
            has_null = 1;
            array.extend_from_slice(&(-1_i32).to_be_bytes());
            continue;
        };
        let element = bytes(&element);
        // Longer than a message may be is refused when the batch is put together.
        let length = i32::try_from(element.len()).unwrap_or(i32::MAX);
        array.extend_from_slice(&length.to_be_bytes());
        array.extend_from_slice(element);
    }
    let header = [1, has_null, element_oid, count, 1];
    for (place, number) in array.chunks_exact_mut(4).zip(header) {
        place.copy_from_slice(&number.to_be_bytes());
    }
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_arrays_are_what_the_server_reads() {
        let mut wanted = vec![0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 25, 0, 0, 0, 3, 0, 0, 0, 1];
        wanted.extend_from_slice(b"\0\0\0\x02{\\\xff\xff\xff\xff\0\0\0\0");
        let elements: [Option<&[u8]>; 3] = [Some(br"{\"), None, Some(b"")];
        assert_eq!(text_array(elements.into_iter()), wanted);
        let time = CommitTime::from_postgres_micros(-2);
        let mut wanted = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 4, 160, 0, 0, 0, 1, 0, 0, 0, 1];
        wanted.extend_from_slice(b"\0\0\0\x08\xff\xff\xff\xff\xff\xff\xff\xfe");
        assert_eq!(time_array(std::iter::once(time)), wanted);
    }

    #[test]
    fn array_elements_are_quoted() {
        let elements: [&[u8]; 4] = [b"a", b"", b"q\"uo\\te", b"NULL"];
        let literal = array_literal(elements.into_iter().map(Some).chain([None]));
        assert_eq!(literal, br#"{"a","","q\"uo\\te","NULL",NULL}"#);
        assert_eq!(array_literal(std::iter::empty()), b"{}");
    }
}
