//! From what is there to what must be done. Pure.

use std::collections::BTreeSet;

use super::links::{self, LinkCondition, LinkState};
use super::noted;
use super::planned::{LinkWork, Plan};
use super::state::{NodeState, PartitionState, TableState};
pub(super) use super::step::{Step, StepKind};
use super::triggers::Trigger;
use super::versions::InRow;
use super::{InitError, InitOptions, gaps, identity, publication, triggers};
use crate::catalog::dropped::DroppedNode;
use crate::catalog::names::{ident, literal};
use crate::config::Config;
use crate::config::agreement::{moved_places, rules_text};
use crate::ids::{
    LinkName, NodeName, large_origin_name, origin_name, return_origin_name, worker_origin_name,
};
use crate::lineage::Cause;

/// How many statements one transaction runs on tables, each holding its lock until the end.
const STATEMENTS_PER_TRANSACTION: usize = 400;

/// Makes the plan; refuses where going on would hide a loss. Nodes of `differ` are copied to even
/// where their links are in order.
pub(super) fn plan(
    config: &Config,
    options: &InitOptions,
    (states, differ): (&[NodeState], &BTreeSet<NodeName>),
) -> Result<Plan, InitError> {
    check_places(config, states)?;
    check_dropped(config, options, states)?;
    let conditions = links::conditions(config, states);
    let gaps = gaps::tables(states);
    let mut differ = differ.clone();
    if !gaps.is_empty() {
        // The rows of a table with a gap begin anew on every other node.
        differ.extend(config.nodes.iter().map(|node| node.name.clone()));
    }
    let (links, copy_to) = link_work(options, &conditions, differ)?;
    let remade = |link: &LinkName| links.iter().any(|work| work.link == *link);
    let kept: Vec<&LinkName> = conditions
        .iter()
        .map(|state| &state.link)
        .filter(|link| !remade(link))
        .collect();
    let read = |state: &&NodeState| kept.iter().any(|link| link.from == state.name);
    let joining: BTreeSet<(String, String)> = states
        .iter()
        .filter(read)
        .flat_map(publication::missing)
        .map(|table| (table.table.schema.clone(), table.table.name.clone()))
        .collect();
    let in_kept = |name: &NodeName| {
        kept.iter()
            .any(|link| link.from == *name || link.to == *name)
    };
    let mut prepare: Vec<Step> = Vec::new();
    prepare.extend(states.iter().filter_map(migrate_step));
    prepare.extend(
        states
            .iter()
            .filter_map(|state| node_step(config, states, state)),
    );
    prepare.extend(states.iter().filter_map(made_step));
    prepare.extend(states.iter().filter_map(event_step));
    prepare.extend(states.iter().flat_map(|state| table_steps(config, state)));
    let publish = states
        .iter()
        .flat_map(|state| publish_steps(state, !read(&state)))
        .collect();
    let names = states.iter().map(|state| state.name.clone());
    Ok(Plan {
        prepare,
        publish,
        joining: joining.into_iter().collect(),
        join_nodes: names.filter(in_kept).collect(),
        gaps,
        links,
        copy_to,
        states: states.to_vec(),
    })
}

/// Which links are made, and which nodes are copied to: those of `differ` among others.
fn link_work(
    options: &InitOptions,
    conditions: &[LinkState],
    differ: BTreeSet<NodeName>,
) -> Result<(Vec<LinkWork>, Vec<NodeName>), InitError> {
    let mut work: Vec<LinkWork> = Vec::new();
    for state in conditions {
        work.extend(work_for(options, state)?);
    }
    let Some(from) = &options.copy_from else {
        return Ok((work, Vec::new()));
    };
    // Other nodes may have got what the copied one has not, and can get no more: all start over.
    let into = |state: &&LinkState| state.link.to == *from;
    let cut_off = |state: &LinkState| matches!(state.condition, LinkCondition::Broken { .. });
    if conditions.iter().filter(into).any(cut_off) {
        let kept = conditions.iter().filter(|state| state.is_complete());
        work.extend(kept.map(|state| LinkWork {
            link: state.link.clone(),
            slot_left: true,
        }));
        let nodes = conditions.iter().map(|state| state.link.to.clone());
        let targets: BTreeSet<NodeName> = nodes.filter(|node| node != from).collect();
        return Ok((work, targets.into_iter().collect()));
    }
    let ends = work
        .iter()
        .flat_map(|work| [work.link.from.clone(), work.link.to.clone()]);
    let ends = ends.chain(differ).filter(|end| end != from);
    let targets: BTreeSet<NodeName> = ends.collect();
    // What is copied begins where the copy's snapshot was taken, so its slot begins there too.
    for state in conditions {
        let copied = state.link.from == *from && targets.contains(&state.link.to);
        if copied && state.is_complete() {
            work.push(LinkWork {
                link: state.link.clone(),
                slot_left: true,
            });
        }
    }
    Ok((work, targets.into_iter().collect()))
}

fn work_for(options: &InitOptions, state: &LinkState) -> Result<Option<LinkWork>, InitError> {
    let work = |slot_left: bool| {
        Some(LinkWork {
            link: state.link.clone(),
            slot_left,
        })
    };
    let in_use = |pid: i32| InitError::InUse {
        node: state.link.from.clone(),
        what: format!("the replication slot of {} (by process {pid})", state.link),
        daemon: state.link.from.clone(),
    };
    // Somebody said whose rows count.
    let said = options.assume_identical || options.copy_from.is_some();
    match &state.condition {
        LinkCondition::Moved(finding) if !said => Err(InitError::broken(finding)),
        LinkCondition::Complete | LinkCondition::Moved(_) => Ok(None),
        LinkCondition::Fresh { slot_left } => Ok(work(*slot_left)),
        LinkCondition::InUse(pid) => Err(in_use(*pid)),
        LinkCondition::Broken {
            finding,
            slot_left,
            active_pid,
        } => {
            // Whose rows count is no answer to a wrong dsn.
            if matches!(finding.cause, Cause::Misled { .. }) {
                return Err(InitError::broken(finding));
            }
            let anew = matches!(finding.cause, Cause::PublicationAnew { .. });
            if anew {
                // Rows are compared, and the slot is free but for the moments of vain tries.
                return Ok(work(*slot_left));
            }
            if !said {
                return Err(InitError::broken(finding));
            }
            active_pid.map_or_else(|| Ok(work(*slot_left)), |pid| Err(in_use(pid)))
        }
    }
}

fn migrate_step(state: &NodeState) -> Option<Step> {
    (!state.pending.is_empty()).then(|| {
        let what = format!("set up schema mmrepl ({})", state.pending.join(", "));
        let sql = state
            .pending
            .iter()
            .map(|name| format!("-- migrations/{name}.sql"))
            .collect();
        Step {
            kind: StepKind::Migrate,
            ..Step::new(&state.name, what, sql)
        }
    })
}

fn made_step(state: &NodeState) -> Option<Step> {
    let sql = state.made.statements();
    let what = "make again what was changed in schema mmrepl";
    (!sql.is_empty()).then(|| Step::new(&state.name, what, sql))
}

fn event_step(state: &NodeState) -> Option<Step> {
    let sql = state.event_triggers.statements();
    let what = "make event triggers, by which triggers follow their tables";
    (!sql.is_empty()).then(|| Step::new(&state.name, what, sql))
}

/// Versions under `manual` and `custom` have a place for each node, in the order of the file.
fn check_places(config: &Config, states: &[NodeState]) -> Result<(), InitError> {
    let ours = rules_text(&config.rules());
    let before = states.iter().flat_map(|state| &state.nodes);
    let mut moved = before.filter_map(|row| {
        row.rules
            .as_ref()
            .and_then(|there| moved_places(there, &ours))
    });
    moved
        .next()
        .map_or(Ok(()), |how| Err(InitError::Places(how)))
}

/// A file that was not changed after `drop --node` does not bring the node back: its slots would
/// hold WAL for a daemon that is gone.
fn check_dropped(
    config: &Config,
    options: &InitOptions,
    states: &[NodeState],
) -> Result<(), InitError> {
    let dropped = states.iter().flat_map(|state| &state.dropped);
    let mut named = dropped.filter(|dropped| {
        let mut nodes = config.nodes.iter();
        let is_named = nodes.any(|node| node.name.as_str() == dropped.node);
        let rejoins = options.rejoin.as_ref().map(NodeName::as_str);
        is_named && rejoins != Some(&*dropped.node)
    });
    named.next().map_or(Ok(()), |DroppedNode { node, at }| {
        Err(InitError::Refused(format!(
            "node {node} was dropped on {at}: take its [[node]] section out of the file on every host, or set it up again with `mmrepl init --rejoin {node}`; nothing was changed"
        )))
    })
}

/// Origins of all peers and the rows of `mmrepl.node`.
fn node_step(config: &Config, states: &[NodeState], state: &NodeState) -> Option<Step> {
    let mut sql: Vec<String> = Vec::new();
    let peers = config.peers_of(&state.name).into_iter();
    let first = peers.map(|peer| origin_name(&config.cluster, &peer.name));
    let nodes = config.nodes.iter();
    let again = nodes.map(|node| return_origin_name(&config.cluster, &node.name));
    // Only in a pair is anything applied while it is still running.
    let pair = config.nodes.len() == 2;
    let peers = config.peers_of(&state.name).into_iter().filter(|_| pair);
    let large = peers.map(|peer| large_origin_name(&config.cluster, &peer.name));
    // One for each session that applies beside a link's first.
    let peers = config.peers_of(&state.name).into_iter();
    let workers = peers.flat_map(|peer| {
        let name = |number| worker_origin_name(&config.cluster, &peer.name, number);
        (2..=config.apply_workers).map(name)
    });
    for origin in first.chain(again).chain(large).chain(workers) {
        if !state.origins.contains_key(&origin) {
            sql.push(format!(
                "select pg_catalog.pg_replication_origin_create({})",
                literal(&origin)
            ));
        }
    }
    let rows = states
        .iter()
        .filter_map(|other| node_row(config, state, other));
    let named = |dropped: &&DroppedNode| states.iter().any(|s| s.name.as_str() == dropped.node);
    let back = state.dropped.iter().filter(named);
    let rows: Vec<String> = rows
        .chain(back.map(|dropped| {
            let node = literal(&dropped.node);
            format!("delete from mmrepl.dropped where node = {node}")
        }))
        .collect();
    if !rows.is_empty() {
        // Whatever relied on the number of nodes (`mmrepl.applies_from_only_peer`) has committed
        // before it changes.
        sql.push("lock table mmrepl.node in access exclusive mode".to_owned());
    }
    sql.extend(rows);
    (!sql.is_empty()).then(|| Step::new(&state.name, "name the nodes and make origins", sql))
}

/// The statement that makes the row of `other` on `state` right, where it is not.
fn node_row(config: &Config, state: &NodeState, other: &NodeState) -> Option<String> {
    let here = state.name == other.name;
    let origin = origin_name(&config.cluster, &other.name);
    let system_id = other.server.system_id.to_string();
    let row = state
        .nodes
        .iter()
        .find(|row| row.name == other.name.as_str());
    let rules = rules_text(&config.rules());
    let origin_right =
        |id: Option<u32>| here || (id.is_some() && id == state.origins.get(&origin).copied());
    let right = |row: &super::state::NodeRow| {
        row.here == here
            && row.system_id == system_id
            && origin_right(row.origin_id)
            && (!here || row.rules.as_ref() == Some(&rules))
    };
    (!row.is_some_and(right)).then(|| {
        let rules = if here {
            literal(&rules)
        } else {
            "null".to_owned()
        };
        let origin = if here {
            "null".to_owned()
        } else {
            format!(
                "(select roident from pg_catalog.pg_replication_origin where roname = {})",
                literal(&origin)
            )
        };
        format!(
            "insert into mmrepl.node (name, here, system_id, origin_id, rules) values ({}, {here}, {}, {origin}, {rules}) on conflict (name) do update set here = excluded.here, system_id = excluded.system_id, origin_id = excluded.origin_id, rules = excluded.rules",
            literal(other.name.as_str()),
            literal(&system_id)
        )
    })
}

/// Identities and triggers, many tables to a transaction.
fn table_steps(config: &Config, state: &NodeState) -> Vec<Step> {
    let rules = config.rules();
    let by_column = state.event_triggers.release_columns();
    let mut steps = Vec::new();
    let (mut names, mut sql): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for table in &state.tables {
        let own = &table.table;
        let rule = rules.of(&own.schema, &own.name, own.key.is_some());
        let in_row = InRow::of(rule, own, &state.name);
        let statements = table_statements(table, in_row.as_ref(), by_column);
        if statements.is_empty() {
            continue;
        }
        names.push(table.table.readable());
        sql.extend(statements);
        let full = names.len() >= publication::TABLES_PER_TRANSACTION
            || sql.len() >= STATEMENTS_PER_TRANSACTION;
        if full {
            steps.extend(table_step(state, &mut names, &mut sql));
        }
    }
    steps.extend(table_step(state, &mut names, &mut sql));
    steps
}

fn table_step(state: &NodeState, names: &mut Vec<String>, sql: &mut Vec<String>) -> Option<Step> {
    let (names, sql) = (std::mem::take(names), std::mem::take(sql));
    let first = names.first()?;
    let tables = match names.len() {
        1 => first.clone(),
        many => format!(
            "{many} tables ({first} to {})",
            names.last().unwrap_or(first)
        ),
    };
    let what = format!("prepare {tables}: replica identity and triggers");
    Some(Step::new(&state.name, what, sql).fingerprinted())
}

fn table_statements(state: &TableState, in_row: Option<&InRow>, by_column: bool) -> Vec<String> {
    let table = &state.table;
    let qualified = table.qualified();
    let own = identity::Identity {
        now: table.replica_identity,
        index: state.identity_index.as_deref(),
        key_index: table.key.as_ref().map(|key| key.index.as_str()),
    };
    let mut sql = Vec::new();
    if let Some(clause) = identity::wanted(table, own, in_row.is_some()) {
        sql.extend(identity::statements(
            table.oid,
            &qualified,
            &clause,
            &identity::clause(own),
        ));
    }
    for partition in &state.partitions {
        sql.extend(partition_identity(state, partition, in_row.is_some()));
    }
    let wanted = triggers::of_table(table, in_row, state.key_index.as_ref(), by_column);
    let mut remade = BTreeSet::new();
    for trigger in &wanted {
        let statements = trigger.statements(&qualified, state.there());
        if !statements.is_empty() {
            remade.insert(trigger.name);
        }
        let mut there = state.triggers.iter();
        let there = there.find(|there| there.name == trigger.name);
        let other_rule = there.is_some_and(|there| !triggers::keeps_versions(there, in_row));
        if trigger.name.ends_with("_delete") && !statements.is_empty() && other_rule {
            // Versions of another rule mean nothing to this one.
            let oid = table.oid;
            sql.push(format!(
                "update mmrepl.tombstone set version = null, image = null where relation = {oid} \
                 and (version is not null or image is not null)"
            ));
        }
        let spreads = trigger.name == "mmrepl_delete" && !statements.is_empty();
        sql.extend(statements);
        if spreads && other_rule && in_row.is_some() {
            // After the trigger, which waits for deletes under way: none makes a block afterwards.
            let oid = table.oid;
            sql.push(format!("select mmrepl.spread_blocks({oid})"));
        }
    }
    for there in state
        .triggers
        .iter()
        .filter(|there| wanted.iter().all(|w| w.name != there.name))
    {
        sql.push(format!("drop trigger {} on {qualified}", there.name));
    }
    if !wanted.is_empty() {
        for partition in &state.partitions {
            sql.extend(partition_triggers(partition, &remade));
        }
    }
    sql
}

fn partition_identity(state: &TableState, partition: &PartitionState, whole: bool) -> Vec<String> {
    let own = identity::Identity {
        now: partition.replica_identity,
        index: partition.identity_index.as_deref(),
        key_index: partition.key_index.as_deref(),
    };
    let Some(clause) = identity::wanted(&state.table, own, whole) else {
        return Vec::new();
    };
    identity::statements(
        partition.oid,
        &partition.qualified,
        &clause,
        &identity::clause(own),
    )
}

/// The partition's own trigger, and its clones of the root's row triggers set to fire always:
/// before 15, `enable always` on the root does not reach them.
fn partition_triggers(partition: &PartitionState, remade: &BTreeSet<&str>) -> Vec<String> {
    let mut sql = triggers::of_partition().statements(&partition.qualified, partition.there());
    let is_own = |there: &&Trigger| !there.cloned && there.name != triggers::of_partition().name;
    // Made while it was a table of its own.
    for there in partition.triggers.iter().filter(is_own) {
        let (name, partition) = (ident(&there.name), &partition.qualified);
        sql.push(format!("drop trigger {name} on {partition}"));
    }
    for name in triggers::CLONED {
        let there = partition
            .triggers
            .iter()
            .find(|trigger| trigger.name == name);
        if remade.contains(name) || there.is_some_and(|there| there.enabled != 'A') {
            sql.push(format!(
                "alter table only {} enable always trigger {name}",
                partition.qualified
            ));
        }
    }
    sql
}

/// Whether partitions must have their clone of that trigger fire always.
pub(super) fn is_cloned_always(name: &str) -> bool {
    triggers::CLONED.contains(&name)
}

/// Whether slots go on with a publication that is made now: it takes the place of another one in a
/// transaction, or the server leaves out what it does not know.
fn keeps_slots(state: &NodeState) -> bool {
    let mut peers = state.slots.keys();
    let replaced =
        state.publication.is_some() && !peers.any(|peer| links::predates_publication(state, peer));
    state.server.major() >= noted::LEAVES_OUT_SINCE || replaced
}

/// The publication, and, where no link is at work yet, its tables.
fn publish_steps(state: &NodeState, with_tables: bool) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut make = publication::make(state);
    if !make.is_empty() {
        if state.publication.is_some() || !state.slots.is_empty() {
            make.splice(0..0, gaps::note(state));
        }
        if !state.slots.is_empty() && keeps_slots(state) {
            make.push(publication::remember_publication(None));
        }
        steps.push(Step::new(&state.name, "make the publication", make).fingerprinted());
    }
    for left in &state.leftovers {
        let what = format!("leave {} alone: it takes part no longer", left.readable());
        steps.push(Step::new(&state.name, what, left.statements()).fingerprinted());
    }
    let missing = publication::missing(state);
    if with_tables {
        for chunk in missing.chunks(publication::TABLES_PER_TRANSACTION) {
            let sql = publication::add(chunk.iter().map(|state| &state.table));
            let what = format!("publish {} table(s)", chunk.len());
            steps.push(Step::new(&state.name, what, vec![sql]).fingerprinted());
        }
    }
    steps
}
