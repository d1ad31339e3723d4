//! The tables, one for each rule.

/// The table that takes no part.
pub(crate) const PLAIN: &str = "plain";

/// A rule, with the name of its table.
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    /// What the configuration says of the table.
    config: &'static str,
}

pub(crate) const ALL: [Rule; 9] = [
    Rule {
        name: "last_write_wins",
        config: "strategy = \"last_write_wins\"",
    },
    Rule {
        name: "version_column",
        config: "strategy = \"version_column\"\nversion_column = \"v\"",
    },
    Rule {
        name: "hybrid_clock",
        config: "strategy = \"hybrid_clock\"",
    },
    Rule {
        name: "first_write_wins",
        config: "strategy = \"first_write_wins\"",
    },
    Rule {
        name: "node_priority",
        config: "strategy = \"node_priority\"",
    },
    Rule {
        name: "column_merge",
        config: "strategy = \"column_merge\"",
    },
    Rule {
        name: "counters",
        config: "strategy = \"hybrid_clock\"\ndelta_columns = [\"v\"]",
    },
    Rule {
        name: "manual",
        config: "strategy = \"manual\"",
    },
    Rule {
        name: "custom",
        config: "strategy = \"custom\"\nfunction = \"public.newest\"",
    },
];

/// Makes the tables.
pub(crate) fn schema(rules: &[&Rule]) -> String {
    let table = |name: &str| {
        format!("create table {name} (id bigint primary key, v bigint not null, note text);\n")
    };
    let tables = rules.iter().map(|rule| table(rule.name));
    let function = "create function newest(a jsonb, b jsonb, meta jsonb) returns jsonb
        language sql immutable as 'select coalesce(b, a)';\n";
    format!(
        "{function}{}{}",
        table(PLAIN),
        tables.collect::<Vec<_>>().concat()
    )
}

/// The configuration behind the nodes.
pub(crate) fn config(rules: &[&Rule]) -> String {
    let table = |rule: &&Rule| {
        format!(
            "[[conflict.table]]\nname = \"public.{}\"\n{}\n",
            rule.name, rule.config
        )
    };
    let tables: String = rules.iter().map(table).collect();
    format!("[tables]\nexclude = [\"public.{PLAIN}\"]\n{tables}")
}
