//! Statements that fail by themselves where a row needs a closer look. Pure.
//!
//! A group that is sent ahead is committed before anybody has seen what its statements did. So the
//! server compares how many rows each one wrote with how many it was given.

/// How many rows a statement is to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::apply) enum Expected {
    /// One. The rows of all such statements of a transaction are counted together, in a setting,
    /// and looked at in the end (`mmrepl.finish`): a query around the statement would have to be
    /// planned and begun for each.
    One,
    /// As many as its first parameter, an array, has elements.
    AsGiven,
}

/// Sets the count before a session's first transaction; each begins with it.
pub(in crate::apply) const COUNT_FROM_NOTHING: &str = "set mmrepl.taken = '0'";

/// Fails where single rows were not all written by now. Parameter: how many they are.
pub(in crate::apply) const ALL_COUNTED: &str = "select mmrepl.expect_rows(\
pg_catalog.current_setting('mmrepl.taken')::pg_catalog.int8, $1)";

/// Adds one to the count, until the transaction ends.
const COUNTED: &str = "pg_catalog.set_config('mmrepl.taken', \
(pg_catalog.current_setting('mmrepl.taken')::pg_catalog.int8 + 1)::pg_catalog.text, true)";

/// `statement`, failing or counting where it does not write every row that it is given.
pub(in crate::apply) fn taking_all(statement: &str, expected: Expected) -> String {
    match expected {
        Expected::One => format!("{statement} returning {COUNTED}"),
        Expected::AsGiven => format!(
            "with taken as ({statement} returning 1) \
             select mmrepl.expect_rows(count(*), cardinality($1)) from taken"
        ),
    }
}

/// `question`, failing where it finds anything.
pub(in crate::apply) fn finding_none(question: &str) -> String {
    format!("select mmrepl.expect_rows(count(*), 0) from ({question}) found")
}
