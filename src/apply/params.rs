//! Parameters as the server reads them. Pure.

use crate::pgoutput::Value;

/// A value as a text parameter; `None` is NULL. The caller has made sure that nothing is missing.
pub(super) fn value(value: &Value) -> Option<&[u8]> {
    match value {
        Value::Text(bytes) | Value::Binary(bytes) => Some(bytes),
        Value::Null | Value::Unchanged => None,
    }
}

/// A one-dimensional `text[]` literal (manual 8.15.2): every element quoted.
pub(super) fn array_literal<'a>(elements: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    nullable_array_literal(elements.map(Some))
}

/// The same with NULLs.
pub(super) fn nullable_array_literal<'a>(
    elements: impl Iterator<Item = Option<&'a [u8]>>,
) -> Vec<u8> {
    let mut literal = vec![b'{'];
    for (position, element) in elements.enumerate() {
        if position > 0 {
            literal.push(b',');
        }
        let Some(element) = element else {
            literal.extend_from_slice(b"NULL");
            continue;
        };
        literal.push(b'"');
        for &byte in element {
            if matches!(byte, b'"' | b'\\') {
                literal.push(b'\\');
            }
            literal.push(byte);
        }
        literal.push(b'"');
    }
    literal.push(b'}');
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn array_elements_are_quoted() {
        let elements: [&[u8]; 4] = [b"a", b"", b"q\"uo\\te", b"NULL"];
        let literal = array_literal(elements.into_iter());
        assert_eq!(literal, br#"{"a","","q\"uo\\te","NULL"}"#);
        assert_eq!(array_literal(std::iter::empty()), b"{}");
        let literal = nullable_array_literal([None, Some(&b"NULL"[..])].into_iter());
        assert_eq!(literal, br#"{NULL,"NULL"}"#);
    }
}
