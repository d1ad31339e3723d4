//! Which tables are replicated: patterns such as `public.*`, include minus exclude.

use std::fmt;
use std::str::FromStr;

/// Schemas that never take part, whatever the patterns say.
const NEVER: [&str; 3] = ["mmrepl", "pg_catalog", "information_schema"];

/// One piece of a pattern: text that must match, or `*` for any run of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Any,
}

/// A pattern for one name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Glob(Vec<Piece>);

/// `schema.table`, each part with `*` wildcards, or in double quotes to be taken as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    schema: Glob,
    table: Glob,
}

/// The text is not a table pattern.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is not a table pattern: write schema.table with * as wildcard, such as public.*, and put names that contain a dot or * in double quotes"
)]
pub struct BadPattern(String);

/// The tables that take part: included, not excluded, and not mmrepl's or the server's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFilter {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

impl TableFilter {
    /// Everything that matches `include` and not `exclude`.
    pub fn new(include: Vec<Pattern>, exclude: Vec<Pattern>) -> Self {
        Self { include, exclude }
    }

    /// All patterns, those that exclude too.
    pub fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.include.iter().chain(&self.exclude)
    }

    /// Whether nobody has written any pattern, or only what stands for that.
    pub fn is_default(&self) -> bool {
        let shown: Vec<String> = self.patterns().map(Pattern::to_string).collect();
        shown == ["public.*"]
    }

    /// Whether the table takes part. Names are compared exactly, as the catalog holds them.
    pub fn matches(&self, schema: &str, table: &str) -> bool {
        let any = |patterns: &[Pattern]| {
            patterns
                .iter()
                .any(|pattern| pattern.matches(schema, table))
        };
        !NEVER.contains(&schema)
            && !schema.starts_with("pg_")
            && any(&self.include)
            && !any(&self.exclude)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let special = |piece: &Piece| match piece {
            Piece::Text(text) => text.contains(['.', '*', '"']),
            Piece::Any => false,
        };
        let quote = if self.0.iter().any(special) { "\"" } else { "" };
        f.write_str(quote)?;
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => f.write_str(text)?,
                Piece::Any => f.write_str("*")?,
            }
        }
        f.write_str(quote)
    }
}

impl Pattern {
    /// Whether the pattern means this table.
    pub fn matches(&self, schema: &str, table: &str) -> bool {
        self.schema.matches(schema) && self.table.matches(table)
    }

    /// The only table it can match, as `schema.table` without quotes.
    pub fn only_table(&self) -> Option<String> {
        let (schema, table) = self.only_names()?;
        Some(format!("{schema}.{table}"))
    }

    /// The only names it can match: the schema and what is in it.
    pub(super) fn only_names(&self) -> Option<(String, String)> {
        let text = |glob: &Glob| -> Option<String> {
            let pieces = glob.0.iter().map(|piece| match piece {
                Piece::Text(text) => Some(text.as_str()),
                Piece::Any => None,
            });
            pieces.collect()
        };
        Some((text(&self.schema)?, text(&self.table)?))
    }
}

impl Glob {
    /// Greedy match with one step of memory: linear in practice, never recursive.
    fn matches(&self, name: &str) -> bool {
        let mut rest = name;
        let mut floating = false;
        for (index, piece) in self.0.iter().enumerate() {
            let Piece::Text(text) = piece else {
                floating = true;
                continue;
            };
            let last = index + 1 == self.0.len();
            let found = match (floating, last) {
                (false, _) => rest.starts_with(text.as_str()).then_some(0),
                (true, true) => rest
                    .ends_with(text.as_str())
                    .then(|| rest.len() - text.len()),
                (true, false) => rest.find(text.as_str()),
            };
            let Some(at) = found else { return false };
            rest = &rest[at + text.len()..];
            floating = false;
        }
        floating || rest.is_empty()
    }
}

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let bad = || BadPattern(text.to_owned());
        let (schema, rest) = take_part(text).ok_or_else(bad)?;
        let rest = rest.strip_prefix('.').ok_or_else(bad)?;
        let (table, rest) = take_part(rest).ok_or_else(bad)?;
        if rest.is_empty() {
            Ok(Self { schema, table })
        } else {
            Err(bad())
        }
    }
}

/// Takes one name off the front: quoted and literal, or plain up to the next dot with wildcards.
fn take_part(text: &str) -> Option<(Glob, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (name, rest) = take_quoted(quoted)?;
        return (!name.is_empty()).then(|| (Glob(vec![Piece::Text(name)]), rest));
    }
    let end = text.find('.').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let usable = !name.is_empty() && !name.contains('"') && !name.contains(char::is_whitespace);
    usable.then(|| (wildcards(name), rest))
}

/// Reads up to the closing quote; a doubled quote stands for one, as in SQL.
fn take_quoted(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        if char != '"' {
            name.push(char);
        } else if chars.next_if(|(_, next)| *next == '"').is_some() {
            name.push('"');
        } else {
            return Some((name, &text[at + 1..]));
        }
    }
    None
}

fn wildcards(name: &str) -> Glob {
    let mut pieces = Vec::new();
    for (index, text) in name.split('*').enumerate() {
        if index > 0 {
            pieces.push(Piece::Any);
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
    }
    Glob(pieces)
}

impl fmt::Display for TableFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} patterns minus {}",
            self.include.len(),
            self.exclude.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(include: &[&str], exclude: &[&str]) -> TableFilter {
        let parse = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        TableFilter::new(parse(include), parse(exclude))
    }

    #[test]
    fn wildcards_match_runs_of_characters() {
        let filter = filter(&["public.*", "app_*.o*s"], &["public.audit_*", "*.tmp"]);
        for (schema, table) in [
            ("public", "t"),
            ("app_x", "orders"),
            ("app_", "os"),
            ("public", "Été"),
        ] {
            assert!(filter.matches(schema, table), "{schema}.{table}");
        }
        for (schema, table) in [
            ("public", "audit_1"),
            ("public", "tmp"),
            ("app", "orders"),
            ("app_x", "o"),
        ] {
            assert!(!filter.matches(schema, table), "{schema}.{table}");
        }
    }

    #[test]
    fn the_servers_and_our_own_schemas_never_take_part() {
        let filter = filter(&["*.*"], &[]);
        for schema in [
            "mmrepl",
            "pg_catalog",
            "information_schema",
            "pg_toast",
            "pg_temp_3",
        ] {
            assert!(!filter.matches(schema, "t"), "{schema}");
        }
    }

    #[test]
    fn quoted_names_are_taken_as_they_stand() {
        let filter = filter(&["\"My \"\"S\"\".x\".\"a*b\""], &[]);
        assert!(filter.matches("My \"S\".x", "a*b") && !filter.matches("My \"S\".x", "aab"));
    }

    #[test]
    fn suffix_and_middle_do_not_overlap() {
        let filter = filter(&["public.ab*ba"], &[]);
        assert!(filter.matches("public", "abba") && !filter.matches("public", "aba"));
        assert!(
            "public.a*b"
                .parse::<Pattern>()
                .is_ok_and(|pattern| pattern.only_table().is_none())
        );
    }

    #[test]
    fn what_is_not_a_pattern_is_refused() {
        for text in [
            "", "orders", ".t", "s.", "a.b.c", "\"a.b", "a b.c", "\"\".t",
        ] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }
}
