//! Checks the section `[conflict]`.

use std::time::Duration;

use super::problems::{Problems, values_seen_twice};
use super::raw::{RawConflict, RawTableRule};
use super::table_filter::Pattern;
use super::{ConflictConfig, Node, Strategy, TableRule};
use crate::ids::NodeName;

pub(super) fn check_conflict(
    raw: RawConflict,
    nodes: &[Node],
    problems: &mut Problems,
) -> Option<ConflictConfig> {
    let skew = problems.keep(
        "conflict.max_clock_skew",
        parse_duration(&raw.max_clock_skew),
    );
    let history = problems.keep("conflict.history", parse_duration(&raw.history));
    let tombstones = problems.keep("conflict.tombstones", parse_duration(&raw.tombstones));
    if raw.strategy == Strategy::VersionColumn {
        problems.add(
            "conflict.strategy = \"version_column\" needs a column: name it table by table in [[conflict.table]]"
                .to_owned(),
        );
    }
    if raw.strategy == Strategy::Custom {
        problems.add(
            "conflict.strategy = \"custom\" needs a function: name it table by table in [[conflict.table]]"
                .to_owned(),
        );
    }
    let priority = raw.node_priority.as_deref();
    let node_priority = check_priority("conflict.node_priority", priority, nodes, problems);
    let uses_default = |rule: &RawTableRule| {
        rule.strategy == Strategy::NodePriority && rule.node_priority.is_none()
    };
    let used = raw.strategy == Strategy::NodePriority || raw.table.iter().any(uses_default);
    if priority.is_some() && !used {
        problems.add(
            "conflict.node_priority has no meaning without node_priority as a strategy; remove it"
                .to_owned(),
        );
    }
    for twice in values_seen_twice(raw.table.iter().map(|rule| rule.name.as_str())) {
        problems.add(format!(
            "two [[conflict.table]] sections name {twice}; merge them"
        ));
    }
    let tables = raw.table.into_iter();
    let tables = tables
        .map(|rule| check_rule(rule, nodes, problems))
        .collect();
    Some(ConflictConfig {
        strategy: raw.strategy,
        max_clock_skew: skew?,
        history: history?,
        history_per_minute: raw.history_per_minute,
        tombstones: tombstones?,
        node_priority,
        tables,
    })
}

/// Every node once.
fn check_priority(
    key: &str,
    raw: Option<&[String]>,
    nodes: &[Node],
    problems: &mut Problems,
) -> Option<Vec<NodeName>> {
    let named: Vec<&str> = raw?.iter().map(String::as_str).collect();
    let mut wanted: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    let mut given = named.clone();
    wanted.sort_unstable();
    given.sort_unstable();
    if wanted != given {
        problems.add(format!(
            "{key} must name every node once: {}",
            wanted.join(", ")
        ));
        return None;
    }
    named.iter().map(|name| name.parse().ok()).collect()
}

fn check_rule(rule: RawTableRule, nodes: &[Node], problems: &mut Problems) -> TableRule {
    let key = |part: &str| format!("conflict.table {}: {part}", rule.name);
    let pattern = problems.keep(&key("name"), rule.name.parse::<Pattern>());
    let table = pattern.as_ref().and_then(Pattern::only_table);
    if pattern.is_some() && table.is_none() {
        problems.add(format!("{} must be one table without *", key("name")));
    }
    let strategy = rule.strategy;
    let meaningless = |part: &str| {
        let key = key(part);
        format!(
            "{key} has no meaning under {}; remove it",
            strategy.as_str()
        )
    };
    match (&rule.version_column, strategy == Strategy::VersionColumn) {
        (None, true) => problems.add(format!(
            "{} is missing: name the column that holds the version",
            key("version_column")
        )),
        (Some(_), false) => problems.add(meaningless("version_column")),
        _ => {}
    }
    match (&rule.function, strategy == Strategy::Custom) {
        (None, true) => problems.add(format!(
            "{} is missing: name the function that decides, as schema.name",
            key("function")
        )),
        (Some(_), false) => problems.add(meaningless("function")),
        _ => {}
    }
    if rule.node_priority.is_some() && strategy != Strategy::NodePriority {
        problems.add(meaningless("node_priority"));
    }
    let adds_up = matches!(strategy, Strategy::HybridClock | Strategy::ColumnMerge);
    if !rule.delta_columns.is_empty() && !adds_up {
        problems.add(format!(
            "{} needs strategy = \"hybrid_clock\" or \"column_merge\"",
            key("delta_columns")
        ));
    }
    for twice in values_seen_twice(rule.delta_columns.iter().map(String::as_str)) {
        problems.add(format!("{} names {twice} twice", key("delta_columns")));
    }
    let given = rule.node_priority.as_deref();
    let function = rule.function.as_deref();
    TableRule {
        function: function.and_then(|name| check_function(&key("function"), name, problems)),
        node_priority: check_priority(&key("node_priority"), given, nodes, problems),
        name: table.unwrap_or(rule.name),
        strategy,
        version_column: rule.version_column,
        delta_columns: rule.delta_columns,
    }
}

/// Written as tables are.
fn check_function(key: &str, name: &str, problems: &mut Problems) -> Option<(String, String)> {
    let pattern = name.parse::<Pattern>().ok();
    let names = pattern.as_ref().and_then(Pattern::only_names);
    if names.is_none() {
        problems.add(format!(
            "{key} must be schema.name, without arguments; names that contain a dot or * go in double quotes"
        ));
    }
    names
}

/// A length of time with its unit: `10s`, `500ms`, `30d`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|_| format!("`{text}` is not a length of time such as 10s, 500ms or 30d"))?;
    if duration.is_zero() {
        Err(format!("`{text}` must be longer than zero"))
    } else {
        Ok(duration)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigError};
    use crate::conflict::Rule;

    const TWO: &str = "[cluster]\nname = \"shop\"\n\
        [[node]]\nname = \"east\"\ndsn = \"host=h port=1 dbname=a user=u\"\nadmin = \"127.0.0.1:1\"\n\
        [[node]]\nname = \"west\"\ndsn = \"host=h port=2 dbname=a user=u\"\nadmin = \"127.0.0.1:2\"\n";

    fn parse(conflict: &str) -> Result<Config, ConfigError> {
        crate::config::parse(&format!("{TWO}[conflict]\n{conflict}"), &|_| None)
    }

    fn problem(conflict: &str) -> String {
        parse(conflict).unwrap_err().to_string()
    }

    fn rule(conflict: &str, table: &str) -> String {
        let rules = parse(conflict).unwrap().rules();
        rules.of("public", table, true).to_string()
    }

    #[test]
    fn each_table_has_its_rule() {
        let text = "strategy = \"hybrid_clock\"\nnode_priority = [\"west\", \"east\"]\n\
            [[conflict.table]]\nname = \"public.v\"\nstrategy = \"version_column\"\nversion_column = \"no\"\n\
            [[conflict.table]]\nname = \"public.n\"\nstrategy = \"node_priority\"\n\
            [[conflict.table]]\nname = \"public.f\"\nstrategy = \"first_write_wins\"\n\
            [[conflict.table]]\nname = \"public.c\"\nstrategy = \"column_merge\"\n\
            [[conflict.table]]\nname = \"public.d\"\nstrategy = \"hybrid_clock\"\n\
            delta_columns = [\"n\", \"m\"]\n\
            [[conflict.table]]\nname = \"public.l\"\n";
        assert_eq!(rule(text, "t"), "hybrid_clock");
        assert_eq!(rule(text, "v"), "version_column(no)");
        assert_eq!(rule(text, "n"), "node_priority(west, east)");
        assert_eq!(rule(text, "f"), "first_write_wins");
        assert_eq!(rule(text, "c"), "column_merge");
        assert_eq!(rule(text, "d"), "hybrid_clock adding up n, m");
        assert_eq!(rule(text, "l"), "last_write_wins");
        let by_hand = "[[conflict.table]]\nname = \"public.m\"\nstrategy = \"manual\"\n";
        assert_eq!(rule(by_hand, "m"), "manual(east, west)");
        let by_function = "[[conflict.table]]\nname = \"public.m\"\nstrategy = \"custom\"\nfunction = \"app.f\"\n";
        assert_eq!(rule(by_function, "m"), "custom(east, west) by app.f");
        let priority = parse("strategy = \"node_priority\"")
            .unwrap()
            .rules()
            .default;
        assert!(matches!(priority, Rule::NodePriority(nodes) if nodes[0].as_str() == "east"));
    }

    #[test]
    fn what_a_rule_needs_must_be_there_and_nothing_else() {
        let table = |more: &str| format!("[[conflict.table]]\nname = \"public.t\"\n{more}");
        let column = "strategy = \"version_column\"\n";
        assert!(problem(column).contains("needs a column"));
        assert!(problem(&table(column)).contains("version_column is missing"));
        assert!(problem(&table("version_column = \"v\"")).contains("has no meaning under last"));
        let priority = "node_priority = [\"east\"]";
        assert!(problem(&table(priority)).contains("has no meaning"));
        assert!(problem(priority).contains("must name every node once: east, west"));
        let both = "node_priority = [\"east\", \"west\"]";
        assert!(problem(both).contains("has no meaning"));
        assert!(problem(&table("delta_columns = [\"n\"]")).contains("needs strategy ="));
        let twice = "strategy = \"column_merge\"\ndelta_columns = [\"n\", \"n\"]";
        assert!(problem(&table(twice)).contains("names n twice"));
        let custom = "strategy = \"custom\"\n";
        assert!(problem(custom).contains("needs a function"));
        assert!(problem(&table(custom)).contains("function is missing"));
        assert!(problem(&table("function = \"public.f\"")).contains("has no meaning under last"));
        for bad in ["f", "public.*", "public.f(jsonb)x y"] {
            let text = format!("{custom}function = \"{bad}\"");
            assert!(
                problem(&table(&text)).contains("must be schema.name"),
                "{bad}"
            );
        }
    }
}
