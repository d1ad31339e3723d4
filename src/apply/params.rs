//! Parameters as the server reads them. Pure.

use crate::pgoutput::Value;

/// A value as a text parameter; `None` is NULL. The caller has made sure that nothing is missing.
pub(super) fn value(value: &Value) -> Option<&[u8]> {
    match value {
        Value::Text(bytes) | Value::Binary(bytes) => Some(bytes),
        Value::Null | Value::Unchanged => None,
    }
}

/// A one-dimensional `text[]` literal (manual 8.15.2): every element quoted, so that only what is
/// not quoted is NULL.
pub(super) fn array_literal<'a>(elements: impl Iterator<Item = Option<&'a [u8]>>) -> Vec<u8> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn array_elements_are_quoted() {
        let elements: [&[u8]; 4] = [b"a", b"", b"q\"uo\\te", b"NULL"];
        let literal = array_literal(elements.into_iter().map(Some).chain([None]));
        assert_eq!(literal, br#"{"a","","q\"uo\\te","NULL",NULL}"#);
        assert_eq!(array_literal(std::iter::empty()), b"{}");
    }
}
