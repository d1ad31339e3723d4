//! Types on the target that cannot hold what the source's type holds, and do not say so. Pure.
//!
//! A value arrives as text and is read by the target's type. Many types refuse what they cannot
//! hold, and the link says so. Others take it and change it: `numeric(10,1)` and `timestamptz(0)`
//! round, `real` keeps six digits, `date` drops the time, `character(n)` pads. Only built-in types
//! have the same number on both servers, so only those are compared.

use crate::apply::encode::binary::oid;

/// A type by its OID, and its modifier: -1 for none.
pub(in crate::apply) type Typed = (u32, i32);

/// What becomes of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::apply) enum Loss {
    /// Some may change, and nothing tells which.
    Silent,
    /// Those of more characters than this: texts lose blanks at their end, or are refused; whole
    /// numbers lose digits.
    LongerThan(usize),
}

const CHAR: u32 = 18;
const NAME: u32 = 19;
const MONEY: u32 = 790;
const TIME: u32 = 1083;
const INTERVAL: u32 = 1186;
const TIMETZ: u32 = 1266;
const BIT: u32 = 1560;
const VARBIT: u32 = 1562;

/// Arrays with the type of their elements.
const ARRAYS: [(u32, u32); 19] = [
    (1002, CHAR),
    (1003, NAME),
    (1005, oid::INT2),
    (1007, oid::INT4),
    (1009, oid::TEXT),
    (1014, oid::BPCHAR),
    (1015, oid::VARCHAR),
    (1016, oid::INT8),
    (1021, oid::FLOAT4),
    (1022, oid::FLOAT8),
    (791, MONEY),
    (1115, oid::TIMESTAMP),
    (1182, oid::DATE),
    (1183, TIME),
    (1185, oid::TIMESTAMPTZ),
    (1187, INTERVAL),
    (1231, oid::NUMERIC),
    (1270, TIMETZ),
    (1561, BIT),
];

/// Whole numbers of so many digits are exact.
const FLOAT4_DIGITS: usize = 7;
const FLOAT8_DIGITS: usize = 15;

const WHOLE: [u32; 3] = [oid::INT2, oid::INT4, oid::INT8];
const TEXTS: [u32; 3] = [oid::TEXT, oid::VARCHAR, oid::BPCHAR];

/// What of the values of type `from` a column of type `to` would not keep.
pub(in crate::apply) fn loss(from: Typed, to: Typed) -> Option<Loss> {
    match (element_of(from.0), element_of(to.0)) {
        (Some(from_element), Some(to_element)) => {
            loss_of_one((from_element, from.1), (to_element, to.1)).map(|_| Loss::Silent)
        }
        (None, None) => loss_of_one(from, to),
        _ => None,
    }
}

fn element_of(array: u32) -> Option<u32> {
    let found = ARRAYS.iter().find(|(of, _)| *of == array);
    found.map(|(_, element)| *element)
}

fn loss_of_one(from: Typed, to: Typed) -> Option<Loss> {
    let is = |list: &[u32]| list.contains(&from.0);
    let silent = |loses: bool| loses.then_some(Loss::Silent);
    match to.0 {
        oid::NUMERIC => silent(rounds(from, to.1)),
        oid::FLOAT4 if is(&[oid::INT4, oid::INT8]) => Some(Loss::LongerThan(FLOAT4_DIGITS)),
        oid::FLOAT4 => silent(is(&[oid::FLOAT8, oid::NUMERIC])),
        oid::FLOAT8 if is(&[oid::INT8]) => Some(Loss::LongerThan(FLOAT8_DIGITS)),
        oid::FLOAT8 => silent(is(&[oid::NUMERIC])),
        MONEY => silent(is(&[oid::NUMERIC, oid::FLOAT4, oid::FLOAT8])),
        oid::DATE => silent(is(&[oid::TIMESTAMP, oid::TIMESTAMPTZ])),
        TIME => silent(
            is(&[TIMETZ, oid::TIMESTAMP, oid::TIMESTAMPTZ]) || is(&[TIME]) && digits_go(from, to),
        ),
        TIMETZ => silent(is(&[TIME, TIMETZ]) && digits_go(from, to)),
        oid::TIMESTAMP => {
            silent(is(&[oid::TIMESTAMPTZ]) || is(&[oid::TIMESTAMP]) && digits_go(from, to))
        }
        oid::TIMESTAMPTZ => silent(is(&[oid::TIMESTAMP, oid::TIMESTAMPTZ]) && digits_go(from, to)),
        INTERVAL => silent(is(&[INTERVAL]) && fields_go(from.1, to.1)),
        oid::BPCHAR => silent(is(&[oid::TEXT, oid::VARCHAR, NAME])),
        NAME | CHAR => silent(is(&TEXTS) || to.0 == CHAR && is(&[NAME])),
        oid::JSONB => silent(is(&[oid::JSON])),
        BIT => silent(is(&[VARBIT]) || is(&[BIT]) && from.1 != to.1),
        oid::VARCHAR => cut(from, to.1),
        _ => None,
    }
}

/// Whether `numeric` with this modifier has fewer digits behind the point.
fn rounds(from: Typed, modifier: i32) -> bool {
    let Some((_, scale)) = numeric(modifier) else {
        return false;
    };
    match from.0 {
        oid::NUMERIC => numeric(from.1).is_none_or(|(_, before)| before > scale),
        oid::FLOAT4 | oid::FLOAT8 | MONEY => true,
        _ => WHOLE.contains(&from.0) && scale < 0,
    }
}

/// Precision and scale; the scale may be negative since 15.
fn numeric(modifier: i32) -> Option<(i32, i32)> {
    let packed = modifier.checked_sub(4).filter(|packed| *packed >= 0)?;
    Some((packed >> 16, ((packed & 0x7ff) ^ 1024) - 1024))
}

/// Whether fractions of a second have fewer digits.
fn digits_go(from: Typed, to: Typed) -> bool {
    let digits = |modifier: i32| if modifier < 0 { 6 } else { modifier };
    digits(from.1) > digits(to.1)
}

/// All fields of an interval, or all digits of its seconds.
const ALL: (i32, i32) = (0x7fff, 0xffff);

/// Fields and digits of an interval.
fn interval(modifier: i32) -> (i32, i32) {
    if modifier < 0 {
        return ALL;
    }
    (modifier >> 16 & ALL.0, modifier & ALL.1)
}

fn fields_go(from: i32, to: i32) -> bool {
    let ((before, digits_before), (after, digits_after)) = (interval(from), interval(to));
    before & !after != 0 || digits_before.min(6) > digits_after.min(6)
}

fn cut(from: Typed, modifier: i32) -> Option<Loss> {
    let length = |modifier: i32| usize::try_from(modifier.checked_sub(4)?).ok();
    let most = length(modifier)?;
    let fits = from.0 != oid::TEXT && length(from.1).is_some_and(|before| before <= most);
    (TEXTS.contains(&from.0) && !fits).then_some(Loss::LongerThan(most))
}

/// How SQL writes one of these types.
pub(in crate::apply) fn name_of((of, modifier): Typed) -> String {
    if let Some(element) = element_of(of) {
        return format!("{}[]", name_of((element, modifier)));
    }
    let sized = |name: &str, size: i32, rest: &str| match size {
        ..0 => format!("{name}{rest}"),
        _ => format!("{name}({size}){rest}"),
    };
    match of {
        oid::NUMERIC => match numeric(modifier) {
            Some((precision, scale)) => format!("numeric({precision},{scale})"),
            None => "numeric".to_owned(),
        },
        oid::VARCHAR => sized("character varying", modifier.saturating_sub(4), ""),
        oid::BPCHAR => sized("character", modifier.saturating_sub(4), ""),
        BIT => sized("bit", modifier, ""),
        VARBIT => sized("bit varying", modifier, ""),
        TIME => sized("time", modifier, " without time zone"),
        TIMETZ => sized("time", modifier, " with time zone"),
        oid::TIMESTAMP => sized("timestamp", modifier, " without time zone"),
        oid::TIMESTAMPTZ => sized("timestamp", modifier, " with time zone"),
        INTERVAL => name_of_interval(modifier),
        _ => plain_name(of).to_owned(),
    }
}

fn name_of_interval(modifier: i32) -> String {
    let (fields, digits) = interval(modifier);
    let named = match fields {
        0x4 => " year",
        0x2 => " month",
        0x8 => " day",
        0x400 => " hour",
        0x800 => " minute",
        0x1000 => " second",
        0x6 => " year to month",
        0x408 => " day to hour",
        0xc08 => " day to minute",
        0x1c08 => " day to second",
        0xc00 => " hour to minute",
        0x1c00 => " hour to second",
        0x1800 => " minute to second",
        _ => "",
    };
    if digits == ALL.1 {
        format!("interval{named}")
    } else {
        format!("interval{named}({digits})")
    }
}

fn plain_name(of: u32) -> &'static str {
    match of {
        oid::INT2 => "smallint",
        oid::INT4 => "integer",
        oid::INT8 => "bigint",
        oid::FLOAT4 => "real",
        oid::FLOAT8 => "double precision",
        oid::DATE => "date",
        oid::JSON => "json",
        oid::TEXT => "text",
        NAME => "name",
        MONEY => "money",
        _ => "another type",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn digits(precision: i32, scale: i32) -> Typed {
        (oid::NUMERIC, (precision << 16 | scale & 0x7ff) + 4)
    }
    const ANY_NUMERIC: Typed = (oid::NUMERIC, -1);

    #[test]
    fn digits_that_would_go_are_seen() {
        let silent = Some(Loss::Silent);
        assert_eq!(loss(ANY_NUMERIC, digits(10, 1)), silent);
        assert_eq!(loss(digits(10, 2), digits(12, 1)), silent);
        assert_eq!(loss(digits(10, 1), digits(12, 2)), None);
        assert_eq!(loss((oid::INT4, -1), digits(10, -2)), silent);
        assert_eq!(loss((oid::INT4, -1), digits(10, 0)), None);
        assert_eq!(loss((oid::FLOAT8, -1), (oid::FLOAT4, -1)), silent);
        assert_eq!(loss((oid::FLOAT4, -1), (oid::FLOAT8, -1)), None);
        assert_eq!(loss((oid::TIMESTAMPTZ, -1), (oid::TIMESTAMPTZ, 0)), silent);
        assert_eq!(loss((oid::TIMESTAMPTZ, 3), (oid::TIMESTAMPTZ, -1)), None);
        assert_eq!(loss((oid::TIMESTAMP, -1), (oid::DATE, -1)), silent);
        assert_eq!(loss((1231, -1), (1231, digits(4, 0).1)), silent);
        assert_eq!(loss((23, -1), (23, -1)), None);
        let exact = Some(Loss::LongerThan(15));
        assert_eq!(loss((oid::INT8, -1), (oid::FLOAT8, -1)), exact);
    }

    #[test]
    fn fields_and_blanks_that_would_go_are_seen() {
        let day = 0x8 << 16 | 0xffff;
        assert_eq!(loss((INTERVAL, -1), (INTERVAL, day)), Some(Loss::Silent));
        assert_eq!(loss((INTERVAL, day), (INTERVAL, -1)), None);
        assert_eq!(loss((INTERVAL, day), (INTERVAL, day)), None);
        let short = (oid::VARCHAR, 3 + 4);
        assert_eq!(loss((oid::TEXT, -1), short), Some(Loss::LongerThan(3)));
        assert_eq!(loss((oid::VARCHAR, 2 + 4), short), None);
        assert_eq!(loss((oid::TEXT, -1), (oid::BPCHAR, 9)), Some(Loss::Silent));
        assert_eq!(loss((BIT, 3), (BIT, 8)), Some(Loss::Silent));
    }

    #[test]
    fn types_are_named_as_sql_writes_them() {
        assert_eq!(name_of(digits(10, 2)), "numeric(10,2)");
        assert_eq!(
            name_of((oid::TIMESTAMPTZ, 0)),
            "timestamp(0) with time zone"
        );
        assert_eq!(name_of((1015, 7)), "character varying(3)[]");
        assert_eq!(
            name_of((INTERVAL, 0x1c08 << 16 | 3)),
            "interval day to second(3)"
        );
        assert_eq!(name_of((oid::VARCHAR, -1)), "character varying");
    }
}
