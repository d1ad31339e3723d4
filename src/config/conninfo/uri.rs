//! The `postgresql://` form of connection strings (manual 34.1.1.2).

use super::error::ConnInfoError;

const SCHEMES: [&str; 2] = ["postgresql://", "postgres://"];

/// True when the text is a URI and not keywords and values.
pub(super) fn is_uri(text: &str) -> bool {
    SCHEMES.iter().any(|scheme| text.starts_with(scheme))
}

/// Splits a URI into the keywords and values it stands for.
///
/// Follows libpq's `conninfo_uri_parse_options`; in particular `+` is not a space, and a host
/// list becomes comma-separated `host` and `port` values.
pub(super) fn split(text: &str) -> Result<Vec<(String, String)>, ConnInfoError> {
    let scheme = SCHEMES.iter().find(|scheme| text.starts_with(**scheme));
    let start = scheme.map_or(0, |scheme| scheme.len());
    let mut pairs = Vec::new();
    // As libpq looks ahead: an `@` before any `/` ends the credentials, even after a `?`.
    let ahead = text[start..].find(['@', '/']).map(|i| start + i);
    let hosts_from = match ahead.filter(|at| text[*at..].starts_with('@')) {
        Some(at) => {
            push_credentials(&mut pairs, text, (start, at))?;
            at + 1
        }
        None => start,
    };
    let (rest, query) = cut(text, hosts_from, text.len(), '?');
    let (hosts, dbname) = cut(text, rest.0, rest.1, '/');
    push_hosts(&mut pairs, text, hosts)?;
    if let Some(dbname) = dbname {
        push(&mut pairs, "dbname", text, dbname)?;
    }
    if let Some((from, to)) = query {
        push_query(&mut pairs, text, (from, to))?;
    }
    Ok(pairs)
}

fn push_credentials(
    pairs: &mut Vec<(String, String)>,
    text: &str,
    (from, to): Span,
) -> Result<(), ConnInfoError> {
    let (user, password) = cut(text, from, to, ':');
    push(pairs, "user", text, user)?;
    match password {
        Some(password) => push(pairs, "password", text, password),
        None => Ok(()),
    }
}

/// A piece of the text, as byte offsets, so that errors can say where they are.
type Span = (usize, usize);

/// Cuts a span at the first `at`; the second part is missing where `at` is.
fn cut(text: &str, from: usize, to: usize, at: char) -> (Span, Option<Span>) {
    match text[from..to].find(at) {
        Some(i) => ((from, from + i), Some((from + i + at.len_utf8(), to))),
        None => ((from, to), None),
    }
}

fn push(
    pairs: &mut Vec<(String, String)>,
    keyword: &str,
    text: &str,
    span: Span,
) -> Result<(), ConnInfoError> {
    let value = decode(text, span)?;
    if !value.is_empty() {
        pairs.push((keyword.to_owned(), value));
    }
    Ok(())
}

fn push_hosts(
    pairs: &mut Vec<(String, String)>,
    text: &str,
    (mut from, to): Span,
) -> Result<(), ConnInfoError> {
    if from == to {
        return Ok(());
    }
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    loop {
        let (host, port, next) = one_host(text, (from, to))?;
        hosts.push(host);
        ports.push(port);
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    pairs.push(("host".to_owned(), hosts.join(",")));
    if ports.iter().any(|port| !port.is_empty()) {
        pairs.push(("port".to_owned(), ports.join(",")));
    }
    Ok(())
}

/// One `host:port`, and where the next one starts.
fn one_host(
    text: &str,
    (from, to): Span,
) -> Result<(String, String, Option<usize>), ConnInfoError> {
    let (host, rest) = if text[from..to].starts_with('[') {
        let Some(close) = text[from..to].find(']').map(|i| from + i) else {
            let what = "an IPv6 address has no closing `]`";
            return Err(ConnInfoError::Syntax { what, at: from });
        };
        if close == from + 1 {
            return Err(ConnInfoError::Syntax {
                what: "`[]` holds no IPv6 address",
                at: from,
            });
        }
        if !matches!(text[close + 1..to].chars().next(), None | Some(':' | ',')) {
            let what = "only `:`, `,` or `/` may follow an IPv6 address";
            return Err(ConnInfoError::Syntax {
                what,
                at: close + 1,
            });
        }
        ((from + 1, close), close + 1)
    } else {
        let end = text[from..to].find([':', ',']).map_or(to, |i| from + i);
        ((from, end), end)
    };
    let host = decode(text, host)?;
    let end = text[rest..to].find(',').map_or(to, |i| rest + i);
    let port = if text[rest..end].starts_with(':') {
        decode(text, (rest + 1, end))?
    } else {
        String::new()
    };
    Ok((host, port, (end < to).then_some(end + 1)))
}

fn push_query(
    pairs: &mut Vec<(String, String)>,
    text: &str,
    (mut from, to): Span,
) -> Result<(), ConnInfoError> {
    while from < to {
        let (parameter, rest) = cut(text, from, to, '&');
        let (keyword, value) = cut(text, parameter.0, parameter.1, '=');
        let Some(value) = value else {
            let what = "a query parameter has no `=`";
            return Err(ConnInfoError::Syntax {
                what,
                at: keyword.1,
            });
        };
        if let Some(i) = text[value.0..value.1].find('=') {
            let what = "a query parameter has a second `=`: write it as %3D";
            return Err(ConnInfoError::Syntax {
                what,
                at: value.0 + i,
            });
        }
        let (keyword, value) = (decode(text, keyword)?, decode(text, value)?);
        // What JDBC writes; libpq reads it too.
        match (keyword.as_str(), value.as_str()) {
            ("ssl", "true") => pairs.push(("sslmode".to_owned(), "require".to_owned())),
            _ => pairs.push((keyword, value)),
        }
        from = rest.map_or(to, |rest| rest.0);
    }
    Ok(())
}

/// Undoes percent-encoding. Zero bytes cannot be sent to a server, so they are refused here.
fn decode(text: &str, (from, to): Span) -> Result<String, ConnInfoError> {
    let bytes = &text.as_bytes()[from..to];
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&byte) = bytes.get(i) {
        if byte != b'%' {
            decoded.push(byte);
            i += 1;
            continue;
        }
        let digit = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (digit(i + 1), digit(i + 2)) {
            (Some(high), Some(low)) if high + low > 0 => {
                decoded.extend(u8::try_from(high * 16 + low));
            }
            _ => {
                let what = "`%` is not followed by two hexadecimal digits: write % itself as %25";
                return Err(ConnInfoError::Syntax { what, at: from + i });
            }
        }
        i += 3;
    }
    let what = "the percent-encoded bytes are not UTF-8";
    String::from_utf8(decoded).map_err(|_| ConnInfoError::Syntax { what, at: from })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> String {
        let pairs = split(text).unwrap();
        pairs
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn reads_the_examples_of_the_manual() {
        for (uri, pairs) in [
            ("postgresql://", ""),
            ("postgresql://localhost", "host=localhost"),
            ("postgresql://localhost:5433", "host=localhost port=5433"),
            ("postgresql://localhost/mydb", "host=localhost dbname=mydb"),
            ("postgresql://user@localhost", "user=user host=localhost"),
            (
                "postgresql://user:s%20t@localhost",
                "user=user password=s t host=localhost",
            ),
            (
                "postgresql://other@localhost/otherdb?connect_timeout=10&application_name=myapp",
                "user=other host=localhost dbname=otherdb connect_timeout=10 application_name=myapp",
            ),
            (
                "postgresql://host1:123,host2:456/somedb?target_session_attrs=any",
                "host=host1,host2 port=123,456 dbname=somedb target_session_attrs=any",
            ),
            (
                "postgresql:///mydb?host=localhost&port=5433",
                "dbname=mydb host=localhost port=5433",
            ),
            (
                "postgresql://[2001:db8::1234]/database",
                "host=2001:db8::1234 dbname=database",
            ),
            ("postgresql://[::1]:5,b", "host=::1,b port=5,"),
            (
                "postgresql:///dbname?host=/var/lib/postgresql",
                "dbname=dbname host=/var/lib/postgresql",
            ),
            (
                "postgresql://%2Fvar%2Flib%2Fpostgresql/dbname",
                "host=/var/lib/postgresql dbname=dbname",
            ),
            (
                "postgresql://u:a?b@h?port=1",
                "user=u password=a?b host=h port=1",
            ),
            ("postgres://h?ssl=true", "host=h sslmode=require"),
        ] {
            assert_eq!(read(uri), pairs, "{uri}");
        }
    }

    #[test]
    fn refuses_what_libpq_refuses_without_repeating_it() {
        for uri in [
            "postgresql://u:secret%zz@h",
            "postgresql://u:secret%00@h",
            "postgresql://u:secret%f@h",
            "postgresql://u:secret@[::1",
            "postgresql://u:secret@[]",
            "postgresql://u:secret@[::1]x",
            "postgresql://h?secret",
            "postgresql://h?password=secret=x",
            "postgresql://%ff@h",
        ] {
            let error = split(uri).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(rest in ".*") {
            let _ = split(&format!("postgresql://{rest}"));
        }

        #[test]
        fn any_arrangement_of_the_special_characters_too(rest in r"[\]\[/:@?&=,%a0é]*") {
            let _ = split(&format!("postgres://{rest}"));
        }
    }
}
