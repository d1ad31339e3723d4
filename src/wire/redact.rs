//! Keeps row values out of error messages.
//!
//! The server quotes the offending value in messages about data (`invalid input syntax for type
//! integer: "…"`). Such messages end up in logs and in `status`, where row values never belong.

/// Classes of SQLSTATE whose messages may hold values: 22 data exception, and P0, where a
/// function of the user wrote the message (manual appendix A).
const CLASSES_WITH_VALUES: [&str; 2] = ["22", "P0"];

/// Stands where a value was.
const MASK: &str = "…";

/// The quotation marks of the server's translations.
const QUOTES: &[char] = &[
    '"', '\'', '`', '„', '“', '”', '«', '»', '‘', '’', '‚', '「', '」',
];

/// True where the text of an error with this SQLSTATE may hold row values.
pub(super) fn may_hold_values(sqlstate: &str) -> bool {
    sqlstate
        .get(..2)
        .is_some_and(|class| CLASSES_WITH_VALUES.contains(&class))
}

/// Masks everything from the first to the last quotation mark (a value may hold some itself),
/// and every word outside parentheses that starts with a digit.
pub(super) fn mask_values(message: &str) -> String {
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

    proptest! {
        #[test]
        fn a_quoted_value_never_survives(value in "[A-Z0-9\"' ]{3,20}") {
            let masked = mask_values(&format!("no good: \"{value}\" here"));
            prop_assert_eq!(masked, "no good: … here");
        }
    }
}
