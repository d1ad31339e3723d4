//! The file as written: serde structures that refuse unknown keys.

use serde::Deserialize;

use super::{ConfigError, Strategy};
use crate::conflict::RECORDED_PER_MINUTE;

/// Every key of the file; a test holds `mmrepl.example.toml` against it.
#[cfg(test)]
pub(super) const KEYS: [&str; 18] = [
    "name",
    "dsn",
    "local_dsn",
    "admin",
    "admin_token_file",
    "include",
    "exclude",
    "strategy",
    "max_clock_skew",
    "history",
    "history_per_minute",
    "tombstones",
    "node_priority",
    "version_column",
    "delta_columns",
    "streaming",
    "apply_workers",
    "function",
];

/// The whole file. Not `Debug`: a DSN may hold a password.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    pub(super) cluster: RawCluster,
    #[serde(default)]
    pub(super) node: Vec<RawNode>,
    #[serde(default)]
    pub(super) tables: RawTables,
    #[serde(default)]
    pub(super) conflict: RawConflict,
    #[serde(default)]
    pub(super) apply: RawApply,
}

/// `[cluster]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCluster {
    pub(super) name: String,
}

/// `[[node]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNode {
    pub(super) name: String,
    pub(super) dsn: String,
    pub(super) local_dsn: Option<String>,
    pub(super) admin: String,
    pub(super) admin_token_file: Option<std::path::PathBuf>,
}

/// `[tables]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTables {
    pub(super) include: Vec<String>,
    pub(super) exclude: Vec<String>,
}

impl Default for RawTables {
    fn default() -> Self {
        Self {
            include: vec!["public.*".to_owned()],
            exclude: Vec::new(),
        }
    }
}

/// `[apply]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawApply {
    pub(super) streaming: bool,
    pub(super) apply_workers: usize,
}

impl Default for RawApply {
    fn default() -> Self {
        Self {
            streaming: true,
            apply_workers: 1,
        }
    }
}

/// `[conflict]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConflict {
    pub(super) strategy: Strategy,
    pub(super) max_clock_skew: String,
    pub(super) history: String,
    pub(super) history_per_minute: u64,
    pub(super) tombstones: String,
    pub(super) node_priority: Option<Vec<String>>,
    pub(super) table: Vec<RawTableRule>,
}

impl Default for RawConflict {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            max_clock_skew: "10s".to_owned(),
            history: "30d".to_owned(),
            history_per_minute: RECORDED_PER_MINUTE,
            tombstones: "7d".to_owned(),
            node_priority: None,
            table: Vec::new(),
        }
    }
}

/// `[[conflict.table]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTableRule {
    pub(super) name: String,
    #[serde(default)]
    pub(super) strategy: Strategy,
    pub(super) version_column: Option<String>,
    pub(super) node_priority: Option<Vec<String>>,
    #[serde(default)]
    pub(super) delta_columns: Vec<String>,
    pub(super) function: Option<String>,
}

/// Parses the text; the error names the line and, for an unknown key, the nearest known one.
pub(super) fn parse(text: &str) -> Result<RawConfig, ConfigError> {
    toml::from_str(text).map_err(|error| explain(text, &error))
}

/// Turns the parser's error into ours. `toml::de::Error`'s own text quotes the line, which may hold
/// a DSN with a password, so only its message and position are used.
fn explain(text: &str, error: &toml::de::Error) -> ConfigError {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text
        .as_bytes()
        .iter()
        .take(start)
        .filter(|&&byte| byte == b'\n')
        .count()
        + 1;
    let message = error.message();
    match unknown_key(message) {
        Some((key, nearest)) => ConfigError::UnknownKey { line, key, nearest },
        None => ConfigError::Syntax {
            line,
            message: in_words(text, line, message),
        },
    }
}

/// What a newcomer is likely to have meant; else the parser's words.
fn in_words(text: &str, line: usize, message: &str) -> String {
    let written = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let section = written.trim();
    let lists = ["node", "conflict.table"];
    let once = lists.iter().find(|list| section == format!("[{list}]"));
    let twice = section
        .strip_prefix("[[")
        .and_then(|name| name.strip_suffix("]]"));
    match (once, twice) {
        (Some(list), _) => {
            format!("write [[{list}]], in two pairs of brackets: there may be several")
        }
        (None, Some(name)) if !lists.contains(&name) && message.contains("invalid type") => {
            format!("write [{name}], in one pair of brackets: there is one such section")
        }
        _ => without_values(message),
    }
}

/// Reads serde's "unknown field `x`, expected one of `a`, `b`" (its fixed wording).
fn unknown_key(message: &str) -> Option<(String, Option<String>)> {
    let mut names = message
        .strip_prefix("unknown field ")?
        .split('`')
        .skip(1)
        .step_by(2);
    let key = names.next()?.to_owned();
    // The second knows letters that changed places, as in a short `dns` for `dsn`.
    let score = |name: &str| {
        let edits = strsim::normalized_damerau_levenshtein(name, &key);
        strsim::jaro_winkler(name, &key).max(edits)
    };
    let nearest = names.max_by(|a, b| score(a).total_cmp(&score(b)));
    let nearest = nearest.filter(|name| score(name) > 0.6).map(str::to_owned);
    Some((key, nearest))
}

/// Cuts a string value out of "invalid type: string "…", expected …".
fn without_values(message: &str) -> String {
    match (message.find('"'), message.rfind('"')) {
        (Some(open), Some(close)) if open < close => {
            format!("{}\"…\"{}", &message[..open], &message[close + 1..])
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_key_names_its_line_and_the_nearest_known_one() {
        let text = "[cluster]\nname = \"shop\"\n\n[conflict]\nstratgy = \"manual\"\n";
        assert_eq!(
            error(text),
            "line 5: unknown key `stratgy`, did you mean `strategy`?"
        );
        let text = "[cluster]\nname = \"a\"\n[[nodes]]\nname = \"x\"\n";
        assert_eq!(
            error(text),
            "line 3: unknown key `nodes`, did you mean `node`?"
        );
        let text = "[cluster]\nname = \"a\"\nqqq = 1\n";
        assert_eq!(error(text), "line 3: unknown key `qqq`");
    }

    #[test]
    fn brackets_are_explained() {
        let node = "name = \"e\"\ndsn = \"d\"\nadmin = \"a\"\n";
        let cluster = "[cluster]\nname = \"a\"\n";
        for text in [
            format!("{cluster}[node]\n{node}"),
            format!("{cluster}[node]\n{node}[node]\n{node}"),
            format!("{cluster}[[node]]\n{node}[node]\n{node}"),
        ] {
            let said = error(&text);
            assert!(said.contains("write [[node]], in two pairs"), "{said}");
        }
        let said = error(&format!("[[cluster]]\nname = \"a\"\n[[node]]\n{node}"));
        assert!(said.contains("write [cluster], in one pair"), "{said}");
    }

    #[test]
    fn a_value_of_the_wrong_type_names_its_line_but_not_the_value() {
        let text = "[cluster]\nname = \"a\"\n[tables]\ninclude = \"secret\"\n";
        let message = error(text);
        assert!(
            message.starts_with("line 4: ") && !message.contains("secret"),
            "{message}"
        );
    }

    #[test]
    fn an_unknown_strategy_lists_the_known_ones() {
        let message = error("[cluster]\nname = \"a\"\n[conflict]\nstrategy = \"newest\"\n");
        assert!(
            message.contains("last_write_wins") && message.starts_with("line 4"),
            "{message}"
        );
    }
}
