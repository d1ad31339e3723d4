//! The `keyword = 'value'` form of connection strings (manual 34.1.1.1).

use super::error::ConnInfoError;

/// Splits the text into keywords and values, in the order they were written.
///
/// Follows libpq's `conninfo_parse`: a backslash takes the next character as it is, in and out
/// of quotes, and a quoted value may be followed directly by the next keyword.
pub(super) fn split(text: &str) -> Result<Vec<(String, String)>, ConnInfoError> {
    let mut scan = Scan { text, at: 0 };
    let mut pairs = Vec::new();
    loop {
        scan.skip_spaces();
        if scan.peek().is_none() {
            return Ok(pairs);
        }
        let keyword = scan.keyword()?;
        let value = scan.value()?;
        pairs.push((keyword, value));
    }
}

/// Quotes a value so that [`split`] reads it back exactly.
pub fn quote_value(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('\'');
    for c in value.chars() {
        if matches!(c, '\'' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('\'');
    quoted
}

/// What C's `isspace` calls a space, which is what libpq asks.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<char> {
        self.text
            .get(self.at..)
            .and_then(|rest| rest.chars().next())
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn skip_spaces(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.next();
        }
    }

    fn keyword(&mut self) -> Result<String, ConnInfoError> {
        let mut keyword = String::new();
        while let Some(c) = self.peek().filter(|c| *c != '=' && !is_space(*c)) {
            keyword.push(c);
            self.next();
        }
        self.skip_spaces();
        let at = self.at;
        match self.next() {
            Some('=') if !keyword.is_empty() => Ok(keyword),
            Some('=') => Err(ConnInfoError::Syntax {
                what: "there is no keyword before `=`",
                at,
            }),
            _ => Err(ConnInfoError::Syntax {
                what: "a keyword has no `=` after it",
                at,
            }),
        }
    }

    fn value(&mut self) -> Result<String, ConnInfoError> {
        self.skip_spaces();
        if self.peek() == Some('\'') {
            self.quoted()
        } else {
            Ok(self.unquoted())
        }
    }

    fn quoted(&mut self) -> Result<String, ConnInfoError> {
        let start = self.at;
        self.next();
        let mut value = String::new();
        while let Some(c) = self.next() {
            match c {
                '\'' => return Ok(value),
                '\\' => value.extend(self.next()),
                c => value.push(c),
            }
        }
        Err(ConnInfoError::Syntax {
            what: "a quoted value has no closing quote",
            at: start,
        })
    }

    fn unquoted(&mut self) -> String {
        let mut value = String::new();
        while let Some(c) = self.peek().filter(|c| !is_space(*c)) {
            self.next();
            match c {
                '\\' => value.extend(self.next()),
                c => value.push(c),
            }
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        split(text).unwrap()
    }

    fn pair(keyword: &str, value: &str) -> (String, String) {
        (keyword.to_owned(), value.to_owned())
    }

    #[test]
    fn reads_what_libpq_reads() {
        assert_eq!(pairs(""), vec![]);
        assert_eq!(pairs("  \t\n"), vec![]);
        assert_eq!(
            pairs("host = a  port=5 "),
            vec![pair("host", "a"), pair("port", "5")]
        );
        assert_eq!(
            pairs("password='a b\\'c\\\\d'"),
            vec![pair("password", "a b'c\\d")]
        );
        assert_eq!(pairs("password=a\\ b"), vec![pair("password", "a b")]);
        assert_eq!(pairs("a='1'b=2"), vec![pair("a", "1"), pair("b", "2")]);
        assert_eq!(pairs("a= b="), vec![pair("a", "b=")]);
        assert_eq!(pairs("a=''"), vec![pair("a", "")]);
    }

    #[test]
    fn says_where_the_text_is_broken_and_never_repeats_it() {
        for text in [
            "password=my secret",
            "password='my secret",
            "=secret",
            "secret",
        ] {
            let error = split(text).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = split(&text);
        }

        #[test]
        fn quoting_round_trips(value in ".*", other in ".*") {
            let text = format!("a={} b = {}", quote_value(&value), quote_value(&other));
            prop_assert_eq!(split(&text).unwrap(), vec![pair("a", &value), pair("b", &other)]);
        }
    }
}
