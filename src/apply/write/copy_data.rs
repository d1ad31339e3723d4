//! The rows of a `COPY`, in binary form or as text. Pure.

use crate::apply::encode::binary::Encoder;
use crate::apply::encode::{binary, params};
use crate::apply::plan::choose::RowSet;
use crate::pgoutput::Value;

/// Before the rows of the binary format (manual, COPY): a signature, no flags, no extension.
const BINARY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// In place of the next row's number of columns.
const BINARY_END: i16 = -1;

/// In place of a value's length.
const BINARY_NULL: i32 = -1;

/// The rows in COPY's text format (manual, COPY): the written columns of each.
pub(in crate::apply) fn copy_text(set: &RowSet<'_>) -> Vec<u8> {
    let columns: Vec<usize> = set.target.map.written().collect();
    let mut text = Vec::with_capacity(set.wire_bytes());
    for values in set.puts() {
        for (position, index) in columns.iter().enumerate() {
            if position > 0 {
                text.push(b'\t');
            }
            match params::value(&values.0[*index]) {
                Some(value) => push_escaped(&mut text, value),
                None => text.extend_from_slice(b"\\N"),
            }
        }
        text.push(b'\n');
    }
    text
}

/// The rows in COPY's binary format; `None` where a column or a value has to go as text.
pub(in crate::apply) fn copy_binary(set: &RowSet<'_>) -> Option<Vec<u8>> {
    let map = &set.target.map;
    let encoder = |index: usize| Some((index, binary::encoder(map.columns[index].type_oid)?));
    let columns: Vec<(usize, Encoder)> = map.written().map(encoder).collect::<Option<_>>()?;
    let count = i16::try_from(columns.len()).ok()?;
    let mut data = Vec::with_capacity(set.wire_bytes());
    data.extend_from_slice(BINARY_HEADER);
    for values in set.puts() {
        data.extend_from_slice(&count.to_be_bytes());
        for (index, encode) in &columns {
            push_binary(&mut data, *encode, &values.0[*index])?;
        }
    }
    data.extend_from_slice(&BINARY_END.to_be_bytes());
    Some(data)
}

/// A value behind its length.
fn push_binary(data: &mut Vec<u8>, encode: Encoder, value: &Value) -> Option<()> {
    let place = data.len();
    data.extend_from_slice(&BINARY_NULL.to_be_bytes());
    let text = match value {
        Value::Text(text) => text,
        Value::Binary(_) => return None,
        Value::Null | Value::Unchanged => return Some(()),
    };
    encode(text, data)?;
    let length = i32::try_from(data.len() - place - 4).ok()?;
    data[place..place + 4].copy_from_slice(&length.to_be_bytes());
    Some(())
}

/// What stands for a byte that the format gives a meaning to; 0 for every other byte.
const fn escape(byte: u8) -> u8 {
    match byte {
        b'\\' => b'\\',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => 0,
    }
}

/// Looks at every byte whatever it finds: that is done sixteen bytes at a time.
fn is_plain(value: &[u8]) -> bool {
    !value
        .iter()
        .fold(false, |found, byte| found | (escape(*byte) != 0))
}

fn push_escaped(text: &mut Vec<u8>, mut value: &[u8]) {
    if is_plain(value) {
        text.extend_from_slice(value);
        return;
    }
    while let Some(place) = value.iter().position(|byte| escape(*byte) != 0) {
        text.extend_from_slice(&value[..place]);
        text.extend_from_slice(&[b'\\', escape(value[place])]);
        value = &value[place + 1..];
    }
    text.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_format_gives_a_meaning_to_is_escaped() {
        let mut text = Vec::new();
        push_escaped(&mut text, b"a\tb\\c\r\nd\xff");
        push_escaped(&mut text, b"\\N");
        push_escaped(&mut text, b"");
        assert_eq!(text, b"a\\tb\\\\c\\r\\nd\xff\\\\N");
    }
}
