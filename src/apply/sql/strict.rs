//! Statements that fail by themselves where a row needs a closer look. Pure.
//!
//! A group that is sent ahead is committed before anybody has seen what its statements did. So the
//! server compares how many rows each one wrote with how many it was given.

/// How many rows a statement is to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::apply) enum Expected {
    /// One.
    One,
    /// As many as its first parameter, an array, has elements.
    AsGiven,
}

/// `statement`, failing where it does not write every row that it is given.
pub(in crate::apply) fn taking_all(statement: &str, expected: Expected) -> String {
    let expected = match expected {
        Expected::One => "1",
        Expected::AsGiven => "cardinality($1)",
    };
    format!(
        "with taken as ({statement} returning 1) \
         select mmrepl.expect_rows((select count(*) from taken), {expected})"
    )
}

/// `question`, failing where it finds anything.
pub(in crate::apply) fn finding_none(question: &str) -> String {
    format!("select mmrepl.expect_rows(count(*), 0) from ({question}) found")
}
