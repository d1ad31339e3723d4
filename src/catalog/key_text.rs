//! The canonical text of a key: equal keys give equal texts, on one server.
//!
//! A tombstone remembers a deleted key as `text[]`. The delete trigger writes it from the row,
//! apply looks it up from the values that arrived; both use [`key_expression`], so they agree. A
//! type's own output is not enough where equal values print differently: `1.0 = 1.00` for numeric,
//! `-0 = 0` for float, `1 mon = 30 days` for interval, `'A' = 'a'` for citext and for collations
//! that ignore case. Such values are brought to one form, or replaced by the type's own 64-bit
//! hash, which agrees with its equality by construction; a collision would only make two keys share
//! a tombstone.

use super::table::{Key, KeyColumn};

/// How a value of a key column becomes text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// A cast to text: built-in types whose output is canonical under the pinned settings. For
    /// `character(n)` the cast also strips the padding, as its equality does.
    Cast,
    /// The output function, for types that somebody else defined and may have casts of their own.
    Output,
    /// `numeric`: without trailing zeros.
    Numeric,
    /// `real` and `double precision`: adding zero turns -0 into 0.
    Float,
    /// `money`: its output depends on `lc_monetary`, its number does not.
    Money,
    /// `oid` and the `reg*` types: their names depend on the search path, their numbers do not.
    Number,
    /// `citext`: equal when equal in lower case (its own definition).
    LowerCase,
    /// A hash function in `pg_catalog` that takes (value, 0).
    Hash(&'static str),
    /// Text under a nondeterministic collation, given ready for SQL.
    Collated(String),
}

/// Element types whose equality is wider than equality of output, inside arrays and ranges.
const WIDE_ELEMENTS: [&str; 8] = [
    "numeric", "float4", "float8", "interval", "citext", "bpchar", "jsonb", "money",
];

impl KeyForm {
    /// The form for a type: its `typname` under all domains, whether it is built in, its `typtype`,
    /// and the element or subtype name where it has one.
    pub(super) fn of_type(name: &str, builtin: bool, kind: &str, element: Option<&str>) -> Self {
        let wide = element.is_some_and(|element| WIDE_ELEMENTS.contains(&element));
        match (kind, name) {
            ("r", _) if wide => Self::Hash("hash_range_extended"),
            ("m", _) if wide => Self::Hash("hash_multirange_extended"),
            (_, "numeric") if builtin => Self::Numeric,
            (_, "float4" | "float8") if builtin => Self::Float,
            (_, "money") if builtin => Self::Money,
            (_, "interval") if builtin => Self::Hash("interval_hash_extended"),
            (_, "jsonb") if builtin => Self::Hash("jsonb_hash_extended"),
            (_, "oid") if builtin => Self::Number,
            (_, reg) if builtin && reg.starts_with("reg") => Self::Number,
            (_, "citext") => Self::LowerCase,
            ("b", array) if wide && array.starts_with('_') => Self::Hash("hash_array_extended"),
            _ if builtin => Self::Cast,
            _ => Self::Output,
        }
    }

    /// The expression that turns `value`, an expression of the column's type, into text.
    fn text_of(&self, value: &str) -> String {
        match self {
            Self::Cast => format!("({value})::pg_catalog.text"),
            Self::Output => format!("pg_catalog.format('%s', {value})"),
            Self::Numeric => format!("pg_catalog.trim_scale({value})::pg_catalog.text"),
            Self::Float => format!("({value} OPERATOR(pg_catalog.+) 0)::pg_catalog.text"),
            Self::Money => {
                format!("pg_catalog.trim_scale(({value})::pg_catalog.numeric)::pg_catalog.text")
            }
            Self::Number => format!("({value})::pg_catalog.oid::pg_catalog.text"),
            Self::LowerCase => format!("pg_catalog.lower(({value})::pg_catalog.text)"),
            Self::Hash(function) => format!("pg_catalog.{function}({value}, 0)::pg_catalog.text"),
            Self::Collated(collation) => format!(
                "pg_catalog.hashtextextended(({value})::pg_catalog.text collate {collation}, 0)::pg_catalog.text"
            ),
        }
    }
}

/// The key as a `text[]` expression. `value` gives, for each column, an expression of the column's
/// own type: `d."id"` in a trigger, `$3::pg_catalog.int4` in apply. Evaluate it with datestyle,
/// intervalstyle, timezone, `extra_float_digits` and `bytea_output` pinned, as both users do.
pub fn key_expression(key: &Key, value: impl Fn(usize, &KeyColumn) -> String) -> String {
    let texts: Vec<String> = key
        .columns
        .iter()
        .enumerate()
        .map(|(index, column)| column.form.text_of(&value(index, column)))
        .collect();
    format!("array[{}]::pg_catalog.text[]", texts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(name: &str, kind: &str, element: Option<&str>) -> KeyForm {
        KeyForm::of_type(name, true, kind, element)
    }

    #[test]
    fn types_with_wide_equality_get_a_canonical_form() {
        assert_eq!(form("int4", "b", None), KeyForm::Cast);
        assert_eq!(form("numeric", "b", None), KeyForm::Numeric);
        assert_eq!(
            form("_numeric", "b", Some("numeric")),
            KeyForm::Hash("hash_array_extended")
        );
        assert_eq!(form("_text", "b", Some("text")), KeyForm::Cast);
        assert_eq!(
            form("numrange", "r", Some("numeric")),
            KeyForm::Hash("hash_range_extended")
        );
        assert_eq!(form("int4range", "r", Some("int4")), KeyForm::Cast);
        assert_eq!(form("regclass", "b", None), KeyForm::Number);
        assert_eq!(
            KeyForm::of_type("citext", false, "b", None),
            KeyForm::LowerCase
        );
        assert_eq!(KeyForm::of_type("mood", false, "e", None), KeyForm::Output);
    }

    #[test]
    fn an_expression_lists_the_columns_in_key_order() {
        let column = |name: &str, form| KeyColumn {
            name: name.to_owned(),
            type_name: "x".to_owned(),
            equality: "OPERATOR(pg_catalog.=)".to_owned(),
            form,
        };
        let key = Key {
            index: "t_pkey".to_owned(),
            columns: vec![column("a", KeyForm::Cast), column("b", KeyForm::Numeric)],
            primary: true,
            deferrable: false,
        };
        let text = key_expression(&key, |index, column| format!("{}{index}", column.name));
        assert_eq!(
            text,
            "array[(a0)::pg_catalog.text, pg_catalog.trim_scale(b1)::pg_catalog.text]::pg_catalog.text[]"
        );
    }
}
