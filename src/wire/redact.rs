//! Keeps row values out of error messages. Pure.
//!
//! The server quotes the offending value in messages about data (`invalid input syntax for type
//! integer: "…"`), and a function of the user may say anything, under any SQLSTATE. Such messages
//! end up in logs and in `status`, where row values never belong. What helps stays: the SQLSTATE,
//! the names of table, column and constraint, and which function spoke.

/// Classes of SQLSTATE whose messages may hold values: 22 data exception, 38 and 39 external
/// routines, HV foreign data, P0 PL/pgSQL (manual appendix A).
const CLASSES_WITH_VALUES: [&str; 5] = ["22", "38", "39", "HV", "P0"];

/// The class of mmrepl's own functions.
const OWN_CLASS: &str = "MR";
/// Where PL/pgSQL passes on what the user wrote.
const RAISING_ROUTINES: [&str; 2] = ["exec_stmt_raise", "exec_stmt_assert"];
/// Source files of other languages, which pass on what the user wrote.
const RAISING_FILES: [&str; 4] = ["plpy_elog.c", "plperl.c", "pltcl.c", "plv8.cc"];

/// Where in the server an error was raised (fields `F`, `R`, `W`, `q`; manual 55.8).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Raised<'a> {
    /// The source file.
    pub(super) file: Option<&'a str>,
    /// The routine in it.
    pub(super) routine: Option<&'a str>,
    /// The call stack, innermost first. May hold values.
    pub(super) context: Option<&'a str>,
    /// A statement that was made inside the server failed.
    pub(super) has_query: bool,
}

/// What may be passed on of a message.
pub(super) fn safe_message(sqlstate: &str, raised: Raised<'_>, message: &str) -> String {
    if is_own(sqlstate, raised) {
        return message.to_owned();
    }
    if is_users(raised) {
        let place = raised.context.and_then(function_in);
        let place = place.unwrap_or_else(|| "a function of the database".to_owned());
        return format!("{place} raised an error, whose text is in the server's log");
    }
    // A statement that a function put together may have values in its text.
    if may_hold_values(sqlstate) || raised.has_query {
        mask_values(message)
    } else {
        message.to_owned()
    }
}

/// Whether a hint of the server is its own.
pub(super) fn may_hint(sqlstate: &str, raised: Raised<'_>) -> bool {
    is_own(sqlstate, raised) || !(is_users(raised) || may_hold_values(sqlstate) || raised.has_query)
}

fn is_own(sqlstate: &str, raised: Raised<'_>) -> bool {
    let function = raised.context.and_then(function_in);
    let ours = function.is_some_and(|name| name.starts_with("function mmrepl."));
    ours || sqlstate.starts_with(OWN_CLASS)
}

fn is_users(raised: Raised<'_>) -> bool {
    let is = |value: Option<&str>, list: &[&str]| value.is_some_and(|value| list.contains(&value));
    is(raised.routine, &RAISING_ROUTINES) || is(raised.file, &RAISING_FILES)
}

/// `function public.guard() line 3` out of a context such as `PL/pgSQL function public.guard() line
/// 3 at RAISE`, where it is nothing but names.
fn function_in(context: &str) -> Option<String> {
    let first = context.lines().next()?;
    let (_, rest) = first.split_once("PL/pgSQL function ")?;
    let (name, rest) = rest.split_once('(')?;
    let (_, rest) = rest.split_once(") line ")?;
    let line: u32 = rest.split(' ').next()?.parse().ok()?;
    let is_name = |sign: char| sign.is_alphanumeric() || matches!(sign, '_' | '.' | '$' | '"');
    (name.len() < 130 && name.chars().all(is_name))
        .then(|| format!("function {name}() line {line}"))
}

/// Stands where a value was.
const MASK: &str = "…";

/// The quotation marks of the server's translations.
const QUOTES: &[char] = &[
    '"', '\'', '`', '„', '“', '”', '«', '»', '‘', '’', '‚', '「', '」',
];

/// True where the text of an error with this SQLSTATE may hold row values.
fn may_hold_values(sqlstate: &str) -> bool {
    sqlstate
        .get(..2)
        .is_some_and(|class| CLASSES_WITH_VALUES.contains(&class))
}

/// Masks everything from the first to the last quotation mark (a value may hold some itself),
/// and every word outside parentheses that starts with a digit.
fn mask_values(message: &str) -> String {
    let first = message.find(QUOTES);
    let last = message.rfind(QUOTES);
    let (head, tail) = match (first, last) {
        (Some(first), Some(last)) if first < last => (&message[..first], Some(&message[last..])),
        // A lone mark may open a value of which the rest was cut off.
        (Some(first), _) => (&message[..first], Some("")),
        _ => (message, None),
    };
    let mut masked = mask_numbers(head);
    if let Some(tail) = tail {
        let after_mark = tail
            .chars()
            .next()
            .map_or("", |mark| &tail[mark.len_utf8()..]);
        masked.push_str(MASK);
        masked.push_str(&mask_numbers(after_mark));
    }
    masked
}

/// Numbers in parentheses belong to a type, as in `character varying(3)`.
fn mask_numbers(text: &str) -> String {
    let mut depth = 0_usize;
    let words = text.split(' ').map(|word| {
        let number = word
            .trim_start_matches(['-', '+'])
            .starts_with(|c: char| c.is_ascii_digit());
        let masked = if number && depth == 0 { MASK } else { word };
        let (opened, closed) = (word.matches('(').count(), word.matches(')').count());
        depth = (depth + opened).saturating_sub(closed);
        masked
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn masks_what_the_server_quotes() {
        for (message, masked) in [
            (
                "invalid input syntax for type integer: \"s3\"",
                "invalid input syntax for type integer: …",
            ),
            (
                "value \"9 9\" is out of range for type integer",
                "value … is out of range for type integer",
            ),
            (
                "malformed array literal: \"{\"a\": 1\"",
                "malformed array literal: …",
            ),
            (
                "ungültige Eingabesyntax für Typ integer: »s3«",
                "ungültige Eingabesyntax für Typ integer: …",
            ),
            (
                "invalid byte sequence for encoding \"UTF8\": 0xe2 0x28",
                "invalid byte sequence for encoding …: … …",
            ),
            (
                "value too long for type character varying(3)",
                "value too long for type character varying(3)",
            ),
            (
                "bit string length 5 does not match type bit(3)",
                "bit string length … does not match type bit(3)",
            ),
            ("cut off \"secr", "cut off …"),
            ("division by zero", "division by zero"),
        ] {
            assert_eq!(mask_values(message), masked);
        }
    }

    #[test]
    fn only_messages_about_data_are_masked() {
        assert!(may_hold_values("22P02") && may_hold_values("P0001"));
        assert!(!may_hold_values("23505") && !may_hold_values("") && !may_hold_values("2"));
    }

    fn raised(routine: &'static str) -> Raised<'static> {
        Raised {
            file: Some("pl_exec.c"),
            routine: Some(routine),
            context: Some("PL/pgSQL function public.guard() line 3 at RAISE\nSQL statement \"x\""),
            has_query: false,
        }
    }

    #[test]
    fn what_a_function_of_the_user_says_is_not_passed_on() {
        for sqlstate in ["P0001", "23514", "40001", "ZZ001", "53100"] {
            let words = safe_message(sqlstate, raised("exec_stmt_raise"), "refused value s3cret");
            assert_eq!(
                words,
                "function public.guard() line 3 raised an error, whose text is in the server's log"
            );
            assert!(!may_hint(sqlstate, raised("exec_stmt_raise")));
        }
        let python = Raised {
            file: Some("plpy_elog.c"),
            ..Raised::default()
        };
        let words = safe_message("XX000", python, "ValueError: s3cret");
        assert!(
            words.starts_with("a function of the database raised"),
            "{words}"
        );
        let evil = Raised {
            context: Some("PL/pgSQL function s3 cret() line 3 at RAISE"),
            ..raised("exec_stmt_raise")
        };
        assert!(!safe_message("P0001", evil, "x").contains("s3"));
    }

    #[test]
    fn what_the_server_says_itself_is_passed_on_with_its_names() {
        let check = "new row for relation \"t\" violates check constraint \"t_v_check\"";
        assert_eq!(safe_message("23514", Raised::default(), check), check);
        let own = safe_message("MR001", raised("exec_stmt_raise"), "17 microseconds");
        assert_eq!(own, "17 microseconds");
        let dynamic = Raised {
            has_query: true,
            ..Raised::default()
        };
        let words = safe_message("42601", dynamic, "syntax error at or near \"s3cret\"");
        assert_eq!(words, "syntax error at or near …");
    }

    proptest! {
        #[test]
        fn a_quoted_value_never_survives(value in "[A-Z0-9\"' ]{3,20}") {
            let masked = mask_values(&format!("no good: \"{value}\" here"));
            prop_assert_eq!(masked, "no good: … here");
        }
    }
}
