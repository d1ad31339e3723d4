//! Values as the server's own binary form, made from their text. Pure.
//!
//! For the server, reading a number or a time as text costs several times what reading its binary
//! form costs, and lines of text must be searched byte by byte. Here the text is a few bytes in the
//! cache. Only what has one obvious binary form is translated, and only text as the server writes
//! it under the settings that every session pins (ISO dates, hexadecimal `bytea`): whatever else
//! is met goes as text, where the server's own input function decides what it is.
//!
//! The forms are those of the types' receive functions in the server's `utils/adt`, the same in
//! versions 14 to 19.

/// OIDs that are fixed in every server (`pg_type.dat`).
pub(in crate::apply) mod oid {
    pub(in crate::apply) const BOOL: u32 = 16;
    pub(in crate::apply) const BYTEA: u32 = 17;
    pub(in crate::apply) const INT8: u32 = 20;
    pub(in crate::apply) const INT2: u32 = 21;
    pub(in crate::apply) const INT4: u32 = 23;
    pub(in crate::apply) const TEXT: u32 = 25;
    pub(in crate::apply) const JSON: u32 = 114;
    pub(in crate::apply) const FLOAT4: u32 = 700;
    pub(in crate::apply) const FLOAT8: u32 = 701;
    pub(in crate::apply) const BPCHAR: u32 = 1042;
    pub(in crate::apply) const VARCHAR: u32 = 1043;
    pub(in crate::apply) const DATE: u32 = 1082;
    pub(in crate::apply) const TIMESTAMP: u32 = 1114;
    pub(in crate::apply) const TIMESTAMPTZ: u32 = 1184;
    pub(in crate::apply) const NUMERIC: u32 = 1700;
    pub(in crate::apply) const UUID: u32 = 2950;
    pub(in crate::apply) const JSONB: u32 = 3802;
}

/// Days from the first March of year 0 to 2000-01-01, the server's day 0.
const DAY_0: i64 = 730_425;
const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// Decimal digits in one digit of a `numeric`.
const GROUP: usize = 4;
/// `NUMERIC_NEG` of the server's `numeric.c`.
const NEGATIVE: u16 = 0x4000;
/// The version byte before the text of a `jsonb`.
const JSONB_VERSION: u8 = 1;

/// Appends the binary form of a text; `None` where the server has to read it as text.
pub(in crate::apply) type Encoder = fn(&[u8], &mut Vec<u8>) -> Option<()>;

/// Whether every version of the server prints values of the type alike, as far as is known here.
pub(in crate::apply) fn has_one_form(type_oid: u32) -> bool {
    encoder(type_oid).is_some()
}

/// What translates values of the type, if anything can.
pub(in crate::apply) fn encoder(type_oid: u32) -> Option<Encoder> {
    Some(match type_oid {
        oid::BOOL => boolean,
        oid::BYTEA => bytea,
        oid::INT2 => |text, out| put(out, &parsed::<i16>(text)?.to_be_bytes()),
        oid::INT4 => |text, out| put(out, &parsed::<i32>(text)?.to_be_bytes()),
        oid::INT8 => |text, out| put(out, &parsed::<i64>(text)?.to_be_bytes()),
        // The server writes the shortest text that is read as the same number.
        oid::FLOAT4 => |text, out| put(out, &parsed::<f32>(text)?.to_be_bytes()),
        oid::FLOAT8 => |text, out| put(out, &parsed::<f64>(text)?.to_be_bytes()),
        oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::JSON => |text, out| put(out, text),
        oid::JSONB => |text, out| {
            out.push(JSONB_VERSION);
            put(out, text)
        },
        oid::DATE => |text, out| {
            let days = i32::try_from(days(text)?).ok()?;
            put(out, &days.to_be_bytes())
        },
        oid::TIMESTAMP => |text, out| put(out, &timestamp(text)?.to_be_bytes()),
        oid::TIMESTAMPTZ => |text, out| put(out, &timestamp_with_zone(text)?.to_be_bytes()),
        oid::NUMERIC => numeric,
        oid::UUID => uuid,
        _ => return None,
    })
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the end of encoders that may give up"
)]
fn put(out: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    out.extend_from_slice(bytes);
    Some(())
}

fn parsed<N: std::str::FromStr>(text: &[u8]) -> Option<N> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn boolean(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    match text {
        b"t" => put(out, &[1]),
        b"f" => put(out, &[0]),
        _ => None,
    }
}

fn bytea(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    hex(text.strip_prefix(b"\\x")?, out)
}

fn hex(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    for pair in text.chunks_exact(2) {
        let byte = digit(pair[0])? << 4 | digit(pair[1])?;
        out.push(u8::try_from(byte).ok()?);
    }
    Some(())
}

/// 8-4-4-4-12 hexadecimal digits.
fn uuid(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if text.len() != 36 {
        return None;
    }
    for part in [0..8, 9..13, 14..18, 19..23, 24..36] {
        if part.start > 0 && text[part.start - 1] != b'-' {
            return None;
        }
        hex(&text[part], out)?;
    }
    Some(())
}

/// Decimal digits and nothing else, not so many that they could overflow.
fn digits(text: &[u8]) -> Option<i64> {
    let all = !text.is_empty() && text.len() <= 9 && text.iter().all(u8::is_ascii_digit);
    let next = |number, byte: &u8| number * 10 + i64::from(byte - b'0');
    all.then(|| text.iter().fold(0, next))
}

/// The two numbers around `separator`, and what follows the second, which has two digits.
fn two_more(text: &[u8], separator: u8) -> Option<(i64, &[u8])> {
    if text.len() < 3 || text[0] != separator {
        return None;
    }
    Some((digits(&text[1..3])?, &text[3..]))
}

/// `2025-12-31` as days since 2000-01-01. Years before 1 and `infinity` are left to the server.
fn days(text: &[u8]) -> Option<i64> {
    let (year, rest) = text.split_at(text.iter().position(|byte| *byte == b'-')?);
    let (month, rest) = two_more(rest, b'-')?;
    let (day, rest) = two_more(rest, b'-')?;
    let is_date = (1..=12).contains(&month) && (1..=31).contains(&day);
    if year.len() < 4 || !is_date || !rest.is_empty() {
        return None;
    }
    // Counted in years that begin in March: the leap day is the last one of its year.
    let months_since_march = (month + 9) % 12;
    let year = digits(year)? - i64::from(month <= 2);
    let leap_days = year / 4 - year / 100 + year / 400;
    let day_of_year = (153 * months_since_march + 2) / 5 + day - 1;
    Some(365 * year + leap_days + day_of_year - DAY_0)
}

/// `23:59:58.123456` as microseconds, and what follows.
fn time_of_day(text: &[u8]) -> Option<(i64, &[u8])> {
    let hour = digits(text.get(..2)?)?;
    let (minute, rest) = two_more(&text[2..], b':')?;
    let (second, rest) = two_more(rest, b':')?;
    let whole = (hour * 3600 + minute * 60 + second) * MICROS_PER_SECOND;
    let Some(fraction) = rest.strip_prefix(b".") else {
        return Some((whole, rest));
    };
    let places = fraction
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let (fraction, rest) = fraction.split_at(places);
    let missing = u32::try_from(6_usize.checked_sub(places)?).ok()?;
    Some((whole + digits(fraction)? * 10_i64.pow(missing), rest))
}

fn date_and_time(text: &[u8]) -> Option<(i64, &[u8])> {
    let (date, time) = text.split_at(text.iter().position(|byte| *byte == b' ')?);
    let (micros, rest) = time_of_day(&time[1..])?;
    Some((
        days(date)? * SECONDS_PER_DAY * MICROS_PER_SECOND + micros,
        rest,
    ))
}

/// Microseconds since 2000-01-01.
fn timestamp(text: &[u8]) -> Option<i64> {
    let (micros, rest) = date_and_time(text)?;
    rest.is_empty().then_some(micros)
}

/// The same, of a time with the offset of its zone: `+02`, `-03:30`, `+00:19:32`.
fn timestamp_with_zone(text: &[u8]) -> Option<i64> {
    let (micros, zone) = date_and_time(text)?;
    let sign = match zone.first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, mut rest) = two_more(zone, zone[0])?;
    let mut seconds = hours * 3600;
    for unit in [60, 1] {
        if !rest.is_empty() {
            let (number, after) = two_more(rest, b':')?;
            seconds += number * unit;
            rest = after;
        }
    }
    rest.is_empty()
        .then_some(micros - sign * seconds * MICROS_PER_SECOND)
}

/// How many digits follow, the power of 10,000 of the first one, the sign, how many decimal places
/// are shown; then the digits, each of 0 to 9999 (`numeric_send`). `NaN` and infinities are left
/// to the server.
fn numeric(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (sign, text) = match text.strip_prefix(b"-") {
        Some(rest) => (NEGATIVE, rest),
        None => (0, text),
    };
    let point = text.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = point.map_or((text, &text[..0]), |at| (&text[..at], &text[at + 1..]));
    let is_number = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let whole = &whole[whole.iter().take_while(|byte| **byte == b'0').count()..];
    let weight = i16::try_from(whole.len().div_ceil(GROUP)).ok()? - 1;
    let scale = i16::try_from(fraction.len()).ok()?;
    let header = out.len();
    out.extend_from_slice(&[0; 8]);
    let first = whole.len() % GROUP;
    if first > 0 {
        push_group(&whole[..first], 1, out);
    }
    whole[first..]
        .chunks_exact(GROUP)
        .for_each(|group| push_group(group, 1, out));
    for group in fraction.chunks(GROUP) {
        let missing = GROUP - group.len();
        push_group(group, [1, 10, 100, 1000][missing], out);
    }
    let count = u16::try_from((out.len() - header - 8) / 2).ok()?;
    let fields = [count, weight.cast_unsigned(), sign, scale.cast_unsigned()];
    for (place, field) in out[header..].chunks_exact_mut(2).zip(fields) {
        place.copy_from_slice(&field.to_be_bytes());
    }
    Some(())
}

/// One digit of base 10,000 from up to four decimal ones, times `factor`.
fn push_group(group: &[u8], factor: u16, out: &mut Vec<u8>) {
    let next = |number: u16, byte: &u8| number * 10 + u16::from(byte - b'0');
    let digit = group.iter().fold(0, next) * factor;
    out.extend_from_slice(&digit.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(type_oid: u32, text: &str) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        encoder(type_oid)?(text.as_bytes(), &mut out).map(|()| out)
    }

    fn micros(text: &str) -> Option<i64> {
        encoded(oid::TIMESTAMPTZ, text).map(|bytes| i64::from_be_bytes(bytes.try_into().unwrap()))
    }

    #[test]
    fn numbers() {
        assert_eq!(encoded(oid::INT4, "-2"), Some(vec![255, 255, 255, 254]));
        assert_eq!(encoded(oid::INT2, "40000"), None);
        let infinite = Some(f64::NEG_INFINITY.to_be_bytes().to_vec());
        assert_eq!(encoded(oid::FLOAT8, "-Infinity"), infinite);
        assert_eq!(
            encoded(oid::FLOAT4, "1e-45"),
            Some(1_u32.to_be_bytes().to_vec())
        );
    }

    #[test]
    fn numerics_are_what_the_server_sends() {
        let words = |text| {
            let bytes = encoded(oid::NUMERIC, text)?;
            let word = |pair: &[u8]| u16::from_be_bytes([pair[0], pair[1]]);
            Some(bytes.chunks(2).map(word).collect::<Vec<u16>>())
        };
        assert_eq!(words("0"), Some(vec![0, 0xffff, 0, 0]));
        assert_eq!(
            words("-12345.6700"),
            Some(vec![3, 1, NEGATIVE, 4, 1, 2345, 6700])
        );
        assert_eq!(words("10000"), Some(vec![2, 1, 0, 0, 1, 0]));
        assert_eq!(words("0.00012"), Some(vec![2, 0xffff, 0, 5, 1, 2000]));
        for other in [
            "NaN",
            "Infinity",
            "-Infinity",
            "",
            "-",
            ".5",
            "1e5",
            "1.2.3",
        ] {
            assert_eq!(words(other), None, "{other}");
        }
    }

    #[test]
    fn times_count_from_2000() {
        assert_eq!(micros("2000-01-01 00:00:00+00"), Some(0));
        assert_eq!(micros("2000-01-01 00:00:00.5+00"), Some(500_000));
        assert_eq!(micros("1999-12-31 23:59:59.999999+00"), Some(-1));
        assert_eq!(
            micros("2000-01-01 05:30:01+05:30"),
            micros("1999-12-31 21:00:01-03")
        );
        assert_eq!(
            micros("1890-01-01 00:00:00+00:19:32"),
            micros("1889-12-31 23:40:28+00")
        );
        for other in [
            "infinity",
            "0044-03-15 12:00:00+00 BC",
            "2000-01-01 00:00:00",
            "2000-01-01 00:00:00 UTC",
            "01/02/2000 00:00:00+00",
            "2000-13-01 00:00:00+00",
        ] {
            assert_eq!(micros(other), None, "{other}");
        }
        let day = |text| encoded(oid::DATE, text);
        assert_eq!(day("1970-01-01"), Some((-10_957_i32).to_be_bytes().into()));
        assert_eq!(day("2000-03-01"), Some(60_i32.to_be_bytes().into()));
        assert_eq!(day("2001-01-01"), Some(366_i32.to_be_bytes().into()));
        assert_eq!(
            day("294276-12-31"),
            Some(106_751_982_i32.to_be_bytes().into())
        );
    }

    #[test]
    fn the_rest() {
        assert_eq!(encoded(oid::BOOL, "t"), Some(vec![1]));
        assert_eq!(encoded(oid::BOOL, "true"), None);
        assert_eq!(encoded(oid::BYTEA, "\\x00fF"), Some(vec![0, 255]));
        assert_eq!(encoded(oid::BYTEA, "\\x0"), None);
        assert_eq!(encoded(oid::BYTEA, "a\\000"), None);
        assert_eq!(encoded(oid::JSONB, "{}"), Some(b"\x01{}".to_vec()));
        let uuid = encoded(oid::UUID, "00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(uuid.map(|bytes| bytes[15]), Some(255));
        assert_eq!(
            encoded(oid::UUID, "00112233 4455-6677-8899-aabbccddeeff"),
            None
        );
        assert!(encoder(600).is_none(), "a point");
    }

    proptest! {
        /// Whatever the text is, nothing panics.
        #[test]
        fn any_bytes(text in proptest::collection::vec(any::<u8>(), 0..40), type_oid in 0..4000_u32) {
            let _ = encoder(type_oid).map(|encode| encode(&text, &mut Vec::new()));
        }

        #[test]
        fn any_digits(text in "[-+]?[0-9:. -]{0,40}", type_oid in prop::sample::select(vec![
            oid::DATE, oid::TIMESTAMP, oid::TIMESTAMPTZ, oid::NUMERIC, oid::UUID])) {
            let _ = encoder(type_oid).map(|encode| encode(text.as_bytes(), &mut Vec::new()));
        }
    }
}
