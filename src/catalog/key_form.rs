//! How the text of a key is made comparable, by the type of its column. Pure.
//!
//! The daemon itself has the texts that arrived and nothing else. [`Spelling`] says what they tell.

use std::borrow::Cow;

/// Element types whose equality is wider than equality of output, inside arrays and ranges.
const WIDE_ELEMENTS: [&str; 8] = [
    "", "numeric", "float4", "float8", "interval", "bpchar", "jsonb", "money",
];

/// Types of ranges whose bounds may have a nondeterministic collation that nothing here tells.
const COLLATED_BOUNDS: [&str; 2] = ["text", "varchar"];

/// How a value of a key column becomes text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// A cast to text: built-in types whose output is canonical under the pinned settings.
    Cast,
    /// The same for `character(n)`: the cast strips the padding, as its equality does.
    Padded,
    /// The output function, where it is canonical and a cast may be somebody's own: enums, and
    /// ranges over types whose output is.
    Label,
    /// The output function of a type that somebody else defined and that has no hash. Values that
    /// print differently count as different.
    Output,
    /// `numeric`: without trailing zeros.
    Numeric,
    /// `real` and `double precision`: adding zero turns -0 into 0.
    Float,
    /// `money`: its output depends on `lc_monetary`, its number does not.
    Money,
    /// `oid` and the `reg*` types: their names depend on the search path, their numbers do not.
    Number,
    /// `citext`: equal when equal in lower case under the database's collation (its definition).
    LowerCase,
    /// `jsonb`: its own hash does not tell `[[1]]` from `[1]`, what surrounds the numbers does.
    Jsonb,
    /// The type's own hash function, qualified, which takes (value, seed).
    Hash(String),
    /// An array by the hashes of its elements, under this collation where it is nondeterministic;
    /// the hash does not tell how many dimensions it has.
    Array(Option<String>),
    /// Text under a nondeterministic collation, given ready for SQL.
    Collated(String),
}

impl KeyForm {
    /// The form for a type.
    pub(super) fn of_type(key: KeyType) -> Self {
        let element = key.element.as_deref();
        let is_in = |list: &[&str]| element.is_some_and(|element| list.contains(&element));
        let wide = is_in(&WIDE_ELEMENTS);
        let hashed = key.hash.clone().map_or(Self::Output, Self::Hash);
        let is_array = key.kind == "b" && key.name.starts_with('_') && element.is_some();
        match (key.kind.as_str(), key.name.as_str()) {
            ("r" | "m", _) if wide || is_in(&COLLATED_BOUNDS) => hashed,
            ("e" | "r" | "m", _) => Self::Label,
            _ if is_array && (wide || key.collation.is_some()) => match key.hash {
                Some(_) => Self::Array(key.collation),
                None => Self::Output,
            },
            _ if is_array => Self::Cast,
            (_, "citext") if !key.builtin => Self::LowerCase,
            _ if !key.builtin || key.kind != "b" => hashed,
            _ => Self::of_builtin(&key.name, key.collation, hashed),
        }
    }

    fn of_builtin(name: &str, collation: Option<String>, hashed: Self) -> Self {
        if let Some(collation) = collation {
            return Self::Collated(collation);
        }
        match name {
            "bpchar" => Self::Padded,
            "numeric" => Self::Numeric,
            "float4" | "float8" => Self::Float,
            "money" => Self::Money,
            "interval" => hashed,
            "jsonb" => Self::Jsonb,
            "oid" => Self::Number,
            reg if reg.starts_with("reg") => Self::Number,
            _ => Self::Cast,
        }
    }

    /// What the text of a value tells.
    pub fn spelling(&self) -> Spelling {
        match self {
            Self::Cast | Self::Label | Self::Money | Self::Number => Spelling::Exact,
            Self::Numeric => Spelling::Numeric,
            Self::Float => Spelling::Float,
            Self::Padded => Spelling::Padded,
            Self::Output
            | Self::LowerCase
            | Self::Jsonb
            | Self::Hash(_)
            | Self::Array(_)
            | Self::Collated(_) => Spelling::Open,
        }
    }

    /// ` collate x` where values that are not a column's are to be compared as the key's are.
    pub fn collate(&self) -> Cow<'static, str> {
        match self {
            Self::Collated(collation) | Self::Array(Some(collation)) => {
                format!(" collate {collation}").into()
            }
            _ => "".into(),
        }
    }

    /// The expression that turns `value`, an expression of the column's type, into text.
    pub fn text_of(&self, value: &str) -> String {
        match self {
            Self::Cast | Self::Padded => format!("({value})::pg_catalog.text"),
            Self::Label | Self::Output => format!("pg_catalog.format('%s', {value})"),
            Self::Numeric => format!("pg_catalog.trim_scale({value})::pg_catalog.text"),
            Self::Float => format!("({value} OPERATOR(pg_catalog.+) 0)::pg_catalog.text"),
            Self::Money => {
                format!("pg_catalog.trim_scale(({value})::pg_catalog.numeric)::pg_catalog.text")
            }
            Self::Number => format!("({value})::pg_catalog.oid::pg_catalog.text"),
            Self::LowerCase => format!(
                "pg_catalog.lower(({value})::pg_catalog.text collate pg_catalog.\"default\")"
            ),
            Self::Jsonb => format!(
                "pg_catalog.concat(pg_catalog.jsonb_hash_extended({value}, 0), '/', \
                 pg_catalog.hashtextextended(pg_catalog.translate(({value})::pg_catalog.text, \
                 '0123456789.', '') collate pg_catalog.\"C\", 0))"
            ),
            Self::Hash(function) => format!("{function}({value}, 0)::pg_catalog.text"),
            Self::Array(_) => format!(
                "pg_catalog.concat(pg_catalog.hash_array_extended({value}{}, 0), \
                 pg_catalog.array_dims({value}))",
                self.collate()
            ),
            Self::Collated(collation) => format!(
                "pg_catalog.hashtextextended(({value})::pg_catalog.text collate {collation}, 0)::pg_catalog.text"
            ),
        }
    }
}

/// What the text of a value, as the source prints it, tells of the value's equality.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// Equal values have equal texts.
    Exact,
    /// Texts can be brought to one form without asking a server.
    Numeric,
    /// The same: -0 is 0.
    Float,
    /// The same: blanks at the end do not count.
    Padded,
    /// Only a server can tell whether different texts are equal values.
    Open,
}

impl Spelling {
    /// The form that equal values share, as far as the text tells.
    pub fn one_form(self, text: &[u8]) -> &[u8] {
        match self {
            Self::Float if text == b"-0" => b"0",
            Self::Padded => trimmed(text, b' '),
            Self::Numeric if text.contains(&b'.') => {
                let text = trimmed(text, b'0');
                text.strip_suffix(b".").unwrap_or(text)
            }
            _ => text,
        }
    }
}

/// `text` without `byte` at its end.
fn trimmed(text: &[u8], byte: u8) -> &[u8] {
    let kept = text.iter().rposition(|other| *other != byte);
    &text[..kept.map_or(0, |last| last + 1)]
}

/// What the catalog says of a key column's type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyType {
    /// `typname` under all domains.
    pub(super) name: String,
    /// It is in `pg_catalog`.
    pub(super) builtin: bool,
    /// `typtype`.
    pub(super) kind: String,
    /// The `typname` of an array's elements, or of a range's bounds, where those are scalars of
    /// `pg_catalog`; empty for other elements.
    pub(super) element: Option<String>,
    /// A nondeterministic collation.
    pub(super) collation: Option<String>,
    /// The function that hashes values equal by the index's equality alike, where there is one for
    /// the type and all its parts.
    pub(super) hash: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(name: &str, kind: &str, element: Option<&str>) -> KeyForm {
        KeyForm::of_type(KeyType {
            name: name.to_owned(),
            builtin: true,
            kind: kind.to_owned(),
            element: element.map(str::to_owned),
            collation: None,
            hash: Some("pg_catalog.its_hash".to_owned()),
        })
    }

    #[test]
    fn types_with_wide_equality_get_a_canonical_form() {
        let hash = || KeyForm::Hash("pg_catalog.its_hash".to_owned());
        assert_eq!(form("int4", "b", None), KeyForm::Cast);
        assert_eq!(form("numeric", "b", None), KeyForm::Numeric);
        assert_eq!(form("bpchar", "b", None), KeyForm::Padded);
        assert_eq!(form("interval", "b", None), hash());
        assert_eq!(form("_numeric", "b", Some("numeric")), KeyForm::Array(None));
        // Elements that somebody else defined.
        assert_eq!(form("_citext", "b", Some("")), KeyForm::Array(None));
        assert_eq!(form("_text", "b", Some("text")), KeyForm::Cast);
        assert_eq!(form("name", "b", Some("char")), KeyForm::Cast);
        assert_eq!(form("numrange", "r", Some("numeric")), hash());
        assert_eq!(form("int4range", "r", Some("int4")), KeyForm::Label);
        assert_eq!(form("regclass", "b", None), KeyForm::Number);
        assert_eq!(form("mood", "e", None), KeyForm::Label);
        assert_eq!(form("pair", "c", None), hash());
    }

    #[test]
    fn a_type_of_somebody_else_without_a_hash_is_what_it_prints() {
        let key = |name: &str| KeyType {
            name: name.to_owned(),
            kind: "b".to_owned(),
            ..KeyType::default()
        };
        assert_eq!(KeyForm::of_type(key("ltree")), KeyForm::Output);
        assert_eq!(KeyForm::of_type(key("citext")), KeyForm::LowerCase);
        assert_eq!(KeyForm::Output.spelling(), Spelling::Open);
    }

    #[test]
    fn texts_of_equal_values_have_one_form() {
        let form = |spelling: Spelling, text: &str| {
            String::from_utf8(spelling.one_form(text.as_bytes()).to_vec()).unwrap()
        };
        let numbers = ["1.00", "100", "0.0", "-1.50", "NaN", "0.10"];
        let forms = numbers.map(|text| form(Spelling::Numeric, text));
        assert_eq!(forms, ["1", "100", "0", "-1.5", "NaN", "0.1"]);
        assert_eq!(form(Spelling::Float, "-0"), "0");
        assert_eq!(form(Spelling::Float, "-0.5"), "-0.5");
        assert_eq!(form(Spelling::Padded, "a b  "), "a b");
        assert_eq!(form(Spelling::Padded, "  "), "");
        assert_eq!(form(Spelling::Exact, "a "), "a ");
    }
}
