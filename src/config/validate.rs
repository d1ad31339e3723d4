//! From the file as written to a checked [`Config`]: every problem is collected, then reported.

use std::net::SocketAddr;

use super::conninfo;
use super::problems::{Problems, values_seen_twice};
use super::raw::{RawConfig, RawNode, RawTables};
use super::table_filter::Pattern;
use super::validate_conflict::check_conflict;
use super::{Config, ConfigError, Node, TableFilter};
use crate::ids::{ClusterName, NodeName, WORKERS_MAX};

/// Stands in for the process environment.
type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Checks everything; on failure every problem is in the error.
pub(super) fn validate(raw: RawConfig, env: Env<'_>) -> Result<Config, ConfigError> {
    let mut problems = Problems::default();
    let cluster = problems.keep("cluster.name", raw.cluster.name.parse::<ClusterName>());
    let nodes = check_nodes(&raw.node, env, &mut problems);
    let tables = check_tables(&raw.tables, &mut problems);
    let conflict = check_conflict(raw.conflict, &nodes, &mut problems);
    let apply_workers = raw.apply.apply_workers;
    if !(1..=WORKERS_MAX).contains(&apply_workers) {
        problems.add(format!(
            "apply.apply_workers is {apply_workers}; it must be 1 to {WORKERS_MAX}"
        ));
    }
    match (cluster, tables, conflict) {
        (Some(cluster), Some(tables), Some(conflict)) if problems.0.is_empty() => Ok(Config {
            cluster,
            nodes,
            tables,
            conflict,
            streaming: raw.apply.streaming,
            apply_workers,
        }),
        _ => Err(ConfigError::Invalid(problems.0)),
    }
}

fn check_nodes(raw: &[RawNode], env: Env<'_>, problems: &mut Problems) -> Vec<Node> {
    // One is a cluster that waits for others: a node was dropped, or the second is yet to come.
    if raw.is_empty() {
        problems.add("there is no [[node]] section; each node of the cluster has one".to_owned());
    }
    let names = raw.iter().map(|node| node.name.as_str());
    let admins = raw.iter().map(|node| node.admin.as_str());
    for (key, twice) in [
        ("name", values_seen_twice(names)),
        ("admin", values_seen_twice(admins)),
    ] {
        for value in twice {
            problems.add(format!(
                "two nodes have {key} = \"{value}\"; give each node its own"
            ));
        }
    }
    let nodes: Vec<Node> = raw
        .iter()
        .filter_map(|node| check_node(node, env, problems))
        .collect();
    let targets: Vec<String> = nodes.iter().map(|node| node.dsn.describe()).collect();
    for twice in values_seen_twice(targets.iter().map(String::as_str)) {
        let there = nodes.iter().filter(|node| node.dsn.describe() == twice);
        let names: Vec<&str> = there.map(|node| node.name.as_str()).collect();
        problems.add(format!(
            "nodes {} lead to the same database {twice}; each node needs its own",
            names.join(" and ")
        ));
    }
    nodes
}

fn check_node(raw: &RawNode, env: Env<'_>, problems: &mut Problems) -> Option<Node> {
    let at = |key: &str| format!("node {}: {key}", raw.name);
    let name = problems.keep("node.name", raw.name.parse::<NodeName>());
    let dsn = problems.keep(&at("dsn"), conninfo::parse(&raw.dsn, env));
    let local_dsn = raw.local_dsn.as_ref().and_then(|local| {
        let local = problems.keep(&at("local_dsn"), conninfo::parse(local, env))?;
        let other = dsn.as_ref().filter(|dsn| dsn.dbname() != local.dbname());
        if let Some(dsn) = other {
            problems.add(format!(
                "{} names the database {}, dsn {}: both must lead to the same one",
                at("local_dsn"),
                local.dbname(),
                dsn.dbname()
            ));
        }
        Some(local)
    });
    let admin = problems.keep(&at("admin"), parse_admin(&raw.admin));
    let exposed = admin.is_some_and(|address| !address.ip().is_loopback());
    if exposed && raw.admin_token_file.is_none() {
        problems.add(format!(
            "node {}: admin = \"{}\" can be reached from other hosts: set admin_token_file, or use a loopback address",
            raw.name, raw.admin
        ));
    }
    Some(Node {
        name: name?,
        dsn: dsn?,
        local_dsn,
        admin: admin?,
        admin_token_file: raw.admin_token_file.clone(),
    })
}

fn parse_admin(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not an address and port such as 127.0.0.1:7441"))
}

fn check_tables(raw: &RawTables, problems: &mut Problems) -> Option<TableFilter> {
    if raw.include.is_empty() {
        problems.add(
            "tables.include is empty, so nothing would be replicated; leave it out for public.*"
                .to_owned(),
        );
    }
    let include = check_patterns("tables.include", &raw.include, problems);
    let exclude = check_patterns("tables.exclude", &raw.exclude, problems);
    Some(TableFilter::new(include?, exclude?))
}

fn check_patterns(key: &str, raw: &[String], problems: &mut Problems) -> Option<Vec<Pattern>> {
    let parsed: Vec<Option<Pattern>> = raw
        .iter()
        .map(|text| problems.keep(key, text.parse::<Pattern>()))
        .collect();
    parsed.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TWO: &str = "[cluster]\nname = \"shop\"\n\
        [[node]]\nname = \"east\"\ndsn = \"host=127.0.0.1 port=1 dbname=a user=u password=hunter2\"\nadmin = \"127.0.0.1:1\"\n\
        [[node]]\nname = \"west\"\ndsn = \"host=127.0.0.1 port=2 dbname=a user=u\"\nadmin = \"127.0.0.1:2\"\n";

    fn problems(text: &str) -> Vec<String> {
        match crate::config::parse(text, &|_| None) {
            Err(ConfigError::Invalid(list)) => list,
            Err(other) => vec![other.to_string()],
            Ok(_) => Vec::new(),
        }
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let config = crate::config::parse(TWO, &|_| None).unwrap();
        assert_eq!(config.conflict.max_clock_skew, Duration::from_secs(10));
        assert_eq!(config.conflict.history, Duration::from_secs(30 * 86_400));
        assert_eq!(config.conflict.tombstones, Duration::from_secs(7 * 86_400));
        assert!(config.tables.matches("public", "t") && !config.tables.matches("other", "t"));
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let text = "[cluster]\nname = \"Shop\"\n[[node]]\nname = \"e\"\ndsn = \"host=h dbname=a user=u\"\nadmin = \"0.0.0.0:1\"\n\
            [tables]\ninclude = [\"orders\"]\n[conflict]\nhistory = \"soon\"\nstrategy = \"custom\"\n";
        let found = problems(text);
        for part in [
            "cluster.name",
            "admin_token_file",
            "tables.include",
            "soon",
            "custom",
        ] {
            assert!(
                found.iter().any(|sentence| sentence.contains(part)),
                "{part}: {found:?}"
            );
        }
        assert_eq!(found.len(), 5, "{found:?}");
    }

    #[test]
    fn one_node_waits_for_others_and_none_is_a_mistake() {
        let (one, _) = TWO.rsplit_once("[[node]]").unwrap();
        assert!(problems(one).is_empty());
        let found = problems("[cluster]\nname = \"shop\"\n").concat();
        assert!(found.contains("no [[node]] section"), "{found}");
    }

    #[test]
    fn nodes_must_differ_in_name_admin_and_database() {
        let same = TWO
            .replace("west", "east")
            .replace("port=2", "port=1")
            .replace(":2\"", ":1\"");
        let found = problems(&same);
        for part in [
            "name = \"east\"",
            "admin = \"127.0.0.1:1\"",
            "the same database",
        ] {
            assert!(
                found.iter().any(|sentence| sentence.contains(part)),
                "{part}: {found:?}"
            );
        }
    }

    #[test]
    fn passwords_stay_out_of_debug_and_errors() {
        let config = crate::config::parse(TWO, &|_| None).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(
            !problems(&TWO.replace("admin", "amdin"))
                .concat()
                .contains("hunter2")
        );
    }

    #[test]
    fn the_same_table_ruled_twice_is_refused() {
        let rule = "[[conflict.table]]\nname = \"public.t\"\n";
        let found = problems(&format!("{TWO}{rule}{rule}"));
        assert!(
            found.concat().contains("two [[conflict.table]] sections"),
            "{found:?}"
        );
        let found = problems(&format!("{TWO}[[conflict.table]]\nname = \"public.*\"\n"));
        assert!(found.concat().contains("one table without *"), "{found:?}");
    }
}
