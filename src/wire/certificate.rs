//! The few fields of an X.509 certificate that webpki does not show (RFC 5280, 4.1).
//!
//! libpq accepts a certificate that names its host only in the subject's common name, and one
//! that is itself in the root file, which is how most self-signed servers are set up.

/// What decides about a certificate besides its signatures and alternative names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    /// The last common name of the subject.
    pub(super) common_name: Option<String>,
    /// First second of validity, Unix time.
    pub(super) not_before: i64,
    /// Last second of validity, Unix time.
    pub(super) not_after: i64,
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]`, the version; missing in version 1.
const VERSION: u8 = 0xa0;
/// id-at-commonName, 2.5.4.3.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// Reads a DER certificate; none when it is malformed.
pub(super) fn summarize(der: &[u8]) -> Option<Summary> {
    let (certificate, _) = expect(der, SEQUENCE)?;
    let (mut fields, _) = expect(certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        fields = take(fields)?.2;
    }
    let (_serial, fields) = skip(fields)?;
    let (_signature, fields) = skip(fields)?;
    let (_issuer, fields) = skip(fields)?;
    let (validity, fields) = expect(fields, SEQUENCE)?;
    let (subject, _) = expect(fields, SEQUENCE)?;
    let (not_before, rest) = time(validity)?;
    let (not_after, _) = time(rest)?;
    Some(Summary {
        common_name: common_name(subject),
        not_before,
        not_after,
    })
}

/// True where `pattern`, which may start with `*.`, stands for `host`. The star is one label.
pub(super) fn name_matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(domain) => host
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(domain)),
        None => pattern.eq_ignore_ascii_case(host),
    }
}

fn common_name(mut subject: &[u8]) -> Option<String> {
    let mut found = None;
    while let Some((set, rest)) = expect(subject, SET) {
        subject = rest;
        let (attribute, _) = expect(set, SEQUENCE)?;
        let (id, value) = expect(attribute, OBJECT_ID)?;
        if id == COMMON_NAME {
            // A zero byte hides the real end of the name from C programs: never a match.
            let text = std::str::from_utf8(take(value)?.1).ok()?;
            found = (!text.contains('\0')).then(|| text.to_owned());
        }
    }
    found
}

/// Tag, content and what follows one DER value.
fn take(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        let digits = digits.iter().map(|d| usize::from(*d));
        // Four bytes of length are more than any certificate has.
        let len = (digits.len() <= 4).then(|| digits.fold(0, |len, d| len << 8 | d))?;
        (len, rest)
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

fn expect(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = take(bytes)?;
    (tag == wanted).then_some((content, rest))
}

fn skip(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    take(bytes).map(|(_, content, rest)| (content, rest))
}

fn time(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (tag, content, rest) = take(bytes)?;
    let text = std::str::from_utf8(content).ok()?;
    let text = match tag {
        // Two digits of the year: 50 to 99 are in the last century (RFC 5280, 4.1.2.5.1).
        UTC_TIME => format!("{}{text}", if text < "50" { "20" } else { "19" }),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let civil = jiff::civil::DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    let time = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some((time.timestamp().as_second(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let len = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], &len[..], content].concat()
    }

    #[test]
    fn finds_name_and_validity() {
        let attribute = der(
            SEQUENCE,
            &[der(OBJECT_ID, &COMMON_NAME), der(0x0c, b"db")].concat(),
        );
        let times = [
            der(UTC_TIME, b"700101000001Z"),
            der(GENERALIZED_TIME, b"20500101000000Z"),
        ]
        .concat();
        let fields = [
            der(VERSION, &der(2, &[2])),
            der(2, &[1]),
            der(SEQUENCE, &[]),
            der(SEQUENCE, &[]),
            der(SEQUENCE, &times),
            der(SEQUENCE, &der(SET, &attribute)),
        ];
        let certificate = der(SEQUENCE, &der(SEQUENCE, &fields.concat()));
        let wanted = Summary {
            common_name: Some("db".to_owned()),
            not_before: 1,
            not_after: 2_524_608_000,
        };
        assert_eq!(summarize(&certificate), Some(wanted));
    }

    #[test]
    fn a_star_stands_for_one_label() {
        assert!(name_matches("db.Example", "DB.example"));
        assert!(name_matches("*.example", "db.example"));
        for host in ["example", ".example", "a.b.example"] {
            assert!(!name_matches("*.example", host), "{host}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_summarized_or_not(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = summarize(&bytes);
            let _ = summarize(&der(SEQUENCE, &der(SEQUENCE, &bytes)));
        }
    }
}
