//! Names and texts as SQL.

use postgres_protocol::escape::{escape_identifier, escape_literal};

/// An identifier in double quotes.
pub fn ident(name: &str) -> String {
    escape_identifier(name)
}

/// `"schema"."table"`.
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// A string literal, safe under either setting of `standard_conforming_strings`.
pub fn literal(text: &str) -> String {
    escape_literal(text).trim_start().to_owned()
}

/// `schema.table` for people, quoted only where it must be.
pub fn readable(schema: &str, name: &str) -> String {
    let part = |text: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if text.chars().all(plain) {
            text.to_owned()
        } else {
            ident(text)
        }
    };
    format!("{}.{}", part(schema), part(name))
}

/// Identifiers in double quotes, comma-separated.
pub fn ident_list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(ident).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_doubled() {
        assert_eq!(qualified("My \"S\"", "t"), "\"My \"\"S\"\"\".\"t\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\b"), "E'a\\\\b'");
        assert_eq!(readable("public", "Été"), "public.\"Été\"");
        assert_eq!(ident_list(["a", "b"].into_iter()), "\"a\", \"b\"");
    }
}
