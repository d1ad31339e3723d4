//! Text from outside, made safe and short: names and messages of servers, values, whatever a
//! caller sent. The only place that decides what may reach a log, a status, a terminal. Pure.
//!
//! Control characters would move a terminal's cursor, and a newline would forge a log line; signs
//! that turn the direction of writing make a line read as something else. All of them are shown as
//! escapes, `\n` or `\u{1b}`, so that nothing is hidden. A server's message may be megabytes long.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The longest message of a server that is kept, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1_000;
/// The longest name that is kept, in bytes: PostgreSQL's own end at 63.
pub const NAME_BYTES_MAX: usize = 200;

/// Whether a sign must not reach a terminal or a log as it is.
pub fn is_unsafe(sign: char) -> bool {
    sign.is_control()
        || matches!(
            sign,
            '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{feff}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

/// `text` on one line, every sign that is no plain text as an escape.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, &is_unsafe)
}

/// The same over several lines: line ends stay, as in a table that was laid out here.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    escaped(text, &|sign| sign != '\n' && is_unsafe(sign))
}

fn escaped<'a>(text: &'a str, is_unsafe: &dyn Fn(char) -> bool) -> Cow<'a, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for sign in text.chars() {
        match sign {
            sign if !is_unsafe(sign) => shown.push(sign),
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            // Writing to a string cannot fail.
            sign => drop(write!(shown, "\\u{{{:x}}}", u32::from(sign))),
        }
    }
    Cow::Owned(shown)
}

/// The same for text that was coloured here: our own colour sequences stay.
pub fn visible_coloured(text: &str, is_unsafe: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\u{1b}') {
        let end = at + colour_bytes(&rest[at..]);
        shown.push_str(&escaped(&rest[..at], &is_unsafe));
        if end == at {
            shown.push_str("\\u{1b}");
            rest = &rest[at + 1..];
        } else {
            shown.push_str(&rest[at..end]);
            rest = &rest[end..];
        }
    }
    shown.push_str(&escaped(rest, &is_unsafe));
    shown
}

/// The length of the colour sequence at the start of `text`, such as `ESC [ 3 2 m`, or 0.
fn colour_bytes(text: &str) -> usize {
    let Some(rest) = text.strip_prefix("\u{1b}[") else {
        return 0;
    };
    let numbers = rest.trim_start_matches(|sign: char| sign.is_ascii_digit() || sign == ';');
    if numbers.starts_with('m') {
        text.len() - numbers.len() + 1
    } else {
        0
    }
}

/// At most `max` bytes of `text`, and how long it was where that is less.
pub fn shortened(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let boundary = |end: &usize| text.is_char_boundary(*end);
    let end = (0..=max).rev().find(boundary).unwrap_or(0);
    Cow::Owned(format!("{} … ({} bytes)", &text[..end], text.len()))
}

/// A message from outside: short, on one line, without signs that do something.
pub fn message(text: &str) -> String {
    visible(&shortened(text, MESSAGE_BYTES_MAX)).into_owned()
}

/// A sentence of ours with messages and names from outside in it.
pub fn sentence(text: &str) -> String {
    visible(&shortened(text, 2 * MESSAGE_BYTES_MAX)).into_owned()
}

/// A name from outside, in the same way.
pub fn name(text: &str) -> String {
    visible(&shortened(text, NAME_BYTES_MAX)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    #[test]
    fn what_does_something_becomes_visible() {
        assert_eq!(visible("plain ä „text“"), "plain ä „text“");
        assert_eq!(visible("a\nb\tc\r"), "a\\nb\\tc\\r");
        assert_eq!(visible("\x1b[31mred\u{7}"), "\\u{1b}[31mred\\u{7}");
        assert_eq!(visible("\u{9b}31m \u{202e}txt"), "\\u{9b}31m \\u{202e}txt");
        assert_eq!(visible_lines("a\n\x1bb"), "a\n\\u{1b}b");
        assert_eq!(
            visible_coloured("\x1b[32;1mINFO\x1b[0m \x1b[2Jx", is_unsafe),
            "\x1b[32;1mINFO\x1b[0m \\u{1b}[2Jx"
        );
    }

    #[test]
    fn what_is_long_becomes_short_and_says_so() {
        let long = "ä".repeat(1_500_000);
        let short = message(&long);
        assert!(short.len() < 1_100, "{}", short.len());
        assert!(short.ends_with("… (3000000 bytes)"), "{short}");
        assert_eq!(message("short"), "short");
        assert!(name(&long).len() < 300);
    }

    proptest! {
        #[test]
        fn nothing_unsafe_is_left(text in any_text()) {
            prop_assert!(!visible(&text).contains(is_unsafe));
            prop_assert!(!message(&text).contains('\n'));
            let once = visible(&text);
            prop_assert_eq!(visible(&once), once.as_ref());
        }
    }

    fn any_text() -> impl proptest::strategy::Strategy<Value = String> {
        proptest::prelude::any::<String>()
    }
}
