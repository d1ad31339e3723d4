//! Names and texts as SQL.

use postgres_protocol::escape::{escape_identifier, escape_literal};

/// Words that name no schema without quotes (manual, appendix C).
const RESERVED: [&str; 101] = [
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "similar",
    "some",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
];

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

/// `schema.table` for people and for SQL, quoted only where it must be.
pub fn readable(schema: &str, name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let is_plain =
        |text: &str| text.chars().all(plain) && !text.starts_with(|c: char| c.is_ascii_digit());
    let part = |text: &str, quoted: bool| {
        if quoted || !is_plain(text) {
            ident(text)
        } else {
            text.to_owned()
        }
    };
    // What stands behind a dot may be any word.
    let reserved = RESERVED.contains(&schema);
    format!("{}.{}", part(schema, reserved), part(name, false))
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
        assert_eq!(readable("user", "order"), "\"user\".order");
        assert_eq!(readable("public", "1st"), "public.\"1st\"");
        assert_eq!(ident_list(["a", "b"].into_iter()), "\"a\", \"b\"");
    }
}
