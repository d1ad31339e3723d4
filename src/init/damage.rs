//! What `init` made against what is there, on one node. Pure.
//!
//! The same observation that `init` plans by: whatever is named here, a plan has a step for.

use super::identity::{self, Identity};
use super::noted;
use super::state::{NodeState, PublicationState, TableState};
use super::triggers::{self, Fault};
use super::versions::InRow;
use super::{PUBLICATION, gaps, plan};
use std::collections::BTreeMap;

use crate::catalog::names::readable;
use crate::catalog::parameter::REPLICATION_ROLE;
use crate::check::facts::Rights;
use crate::config::Config;
use crate::damage::{Damage, DamageKind};
use crate::ids::{origin_name, return_origin_name, slot_name};

/// Everything that is not as `init` made it.
pub(super) fn damages(config: &Config, state: &NodeState) -> Vec<Damage> {
    if !state.has_schema {
        return vec![Damage::new(
            DamageKind::Schema,
            true,
            "schema mmrepl is not there: it was dropped, or the server was never set up",
        )];
    }
    let mut found = Vec::new();
    if !state.pending.is_empty() {
        let what = format!(
            "schema mmrepl is not what this program makes ({} differ)",
            state.pending.join(", ")
        );
        found.push(Damage::new(DamageKind::Schema, false, what));
    }
    let faults = state.made.faults();
    if !faults.is_empty() {
        found.push(Damage::new(DamageKind::Schema, true, shortened(&faults)));
    }
    found.extend(publication(state));
    found.extend(left_gaps(state));
    let events = state.event_triggers.faults();
    if !events.is_empty() {
        let what = format!(
            "event triggers are missing or disabled: {}",
            events.join(", ")
        );
        found.push(Damage::new(DamageKind::Triggers, false, what));
    }
    let rules = config.rules();
    let by_column = state.event_triggers.release_columns();
    for table in &state.tables {
        let own = &table.table;
        let rule = rules.of(&own.schema, &own.name, own.key.is_some());
        let in_row = InRow::of(rule, own, &state.name);
        found.extend(published(state, table));
        found.extend(table_triggers(table, in_row.as_ref(), by_column));
        found.extend(identities(table, in_row.is_some()));
    }
    let excluded = state.leftovers.iter().filter(|left| left.published);
    found.extend(excluded.map(|left| {
        let what = format!(
            "table {} does not take part and is replicated all the same",
            left.readable()
        );
        Damage::new(DamageKind::Excluded, false, what)
    }));
    found.extend(links(config, state));
    found
}

/// Tables of ours that are gone: nothing makes them again with what they held.
pub(super) fn lost_tables(names: &[String]) -> Option<Damage> {
    let what = format!(
        "tables of schema mmrepl are gone ({}): stop the daemons, drop and init anew",
        names.join(", ")
    );
    let damage = Damage::new(DamageKind::Schema, true, what);
    let mend = "mmrepl drop --yes --discard";
    (!names.is_empty()).then(|| damage.mended_by(mend))
}

/// What the daemon's role may do no longer.
pub(super) fn rights(user: &str, rights: &Rights) -> Option<Damage> {
    let mut lost: Vec<String> = rights.functions_missing.clone();
    let tables = rights
        .tables
        .iter()
        .filter(|table| !table.missing.is_empty());
    lost.extend(tables.map(|table| {
        let name = readable(&table.schema, &table.name);
        format!("{} on {name}", table.missing.join(", "))
    }));
    let closed = rights.schemas_closed.iter();
    lost.extend(closed.map(|schema| format!("usage on schema {schema}")));
    let refused = rights.parameters_refused.iter();
    let needed = refused.filter(|name| **name == REPLICATION_ROLE);
    lost.extend(needed.map(|name| format!("set on parameter {name}")));
    let what = format!("role {user} may no longer: {}", shortened(&lost));
    let damage = Damage::new(DamageKind::Rights, false, what);
    (!lost.is_empty()).then(|| damage.mended_by("mmrepl check"))
}

/// The publication as a whole.
fn publication(state: &NodeState) -> Option<Damage> {
    let lost = |what: String| Damage::new(DamageKind::Publication, true, what);
    let Some(publication) = &state.publication else {
        let what = format!("publication {PUBLICATION} is gone: what is written here ");
        let how = if state.server.major() >= noted::LEAVES_OUT_SINCE {
            "is left out of the stream and reaches no other node"
        } else {
            "does not reach the other nodes, and links from here stop"
        };
        return Some(lost(what + how));
    };
    let mut faults = publication.faults.clone();
    if publication.all_tables {
        faults.push("is for all tables".to_owned());
    }
    for schema in &publication.schemas {
        faults.push(format!("is for the whole schema {schema}"));
    }
    let what = format!("publication {PUBLICATION} {}", faults.join(", "));
    (!faults.is_empty()).then(|| lost(what))
}

/// What was wrong for a while and is right again: the nodes' rows may differ by it.
fn left_gaps(state: &NodeState) -> Vec<Damage> {
    let open = gaps::open(state);
    let is_over = |gap: &&noted::Gap| {
        let id = (gap.schema.as_str(), gap.name.as_str());
        let takes_part = state.tables.iter().any(|table| table.table.id() == id);
        takes_part && open.iter().all(|(table, _)| table.table.id() != id)
    };
    let gaps = state.noted.gaps.iter().filter(is_over);
    tell_gaps(gaps.flat_map(|gap| {
        let around = gap.sentences().into_iter();
        around.map(|around| (around, gap.readable()))
    }))
}

/// What [`super::fingerprints::found`] has found and nobody has noted yet: tables, what happened.
pub(super) fn behind(found: &[(String, String)]) -> Vec<Damage> {
    let found = found.iter();
    tell_gaps(found.map(|(table, happened)| (noted::Gap::unsure(happened), table.clone())))
}

/// One damage for all tables of which the same is told: the text around their names.
fn tell_gaps(told: impl Iterator<Item = ((String, String), String)>) -> Vec<Damage> {
    let mut kinds: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for (around, table) in told {
        kinds.entry(around).or_default().push(table);
    }
    let damage = |((before, after), tables): ((String, String), Vec<String>)| {
        let what = format!("{before}{}{after}", shortened(&tables));
        Damage::new(DamageKind::Gap, false, what)
    };
    kinds.into_iter().map(damage).collect()
}

/// The table's part in the publication.
fn published(state: &NodeState, table: &TableState) -> Option<Damage> {
    let name = table.table.readable();
    if table.is_restricted() {
        let what =
            format!("publication {PUBLICATION} sends only some rows or columns of table {name}");
        return Some(Damage::new(DamageKind::Publication, true, what));
    }
    let listed = |publication: &PublicationState| !publication.all_tables;
    let missing = state.publication.as_ref().is_some_and(listed) && table.published.is_none();
    missing.then(|| {
        let what = format!("table {name} takes part and is not replicated");
        Damage::new(DamageKind::Table, table.seems_filled, what)
    })
}

/// The triggers of the table and its partitions. A table that nobody has published yet has none.
fn table_triggers(state: &TableState, in_row: Option<&InRow>, by_column: bool) -> Option<Damage> {
    let wanted = triggers::of_table(&state.table, in_row, state.key_index.as_ref(), by_column);
    if state.published.is_none() || wanted.is_empty() {
        return None;
    }
    let mut faults: Vec<String> = Vec::new();
    for trigger in &wanted {
        let fault = trigger.fault(state.there());
        faults.extend(fault.map(|fault| words(trigger.name, fault)));
    }
    for partition in &state.partitions {
        let of_partition = triggers::of_partition();
        let fault = of_partition.fault(partition.there());
        let on = |text: String| format!("{text} on {}", partition.qualified);
        faults.extend(fault.map(|fault| on(words(of_partition.name, fault))));
        let off = |there: &&triggers::Trigger| {
            there.cloned && plan::is_cloned_always(&there.name) && there.enabled != 'A'
        };
        let off = partition.triggers.iter().filter(off);
        faults.extend(off.map(|there| on(words(&there.name, Fault::FiresOtherwise))));
    }
    let what = format!(
        "table {}: {}: a delete may be undone by an older change of another node",
        state.table.readable(),
        shortened(&faults)
    );
    (!faults.is_empty()).then(|| Damage::new(DamageKind::Triggers, true, what))
}

fn words(trigger: &str, fault: Fault) -> String {
    format!("trigger {trigger} {}", fault.words())
}

/// A few of many.
fn shortened(faults: &[String]) -> String {
    const SHOWN: usize = 6;
    let shown = faults.iter().take(SHOWN).cloned();
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if faults.len() > SHOWN {
        text = format!("{text} and {} more", faults.len() - SHOWN);
    }
    text
}

/// The replica identities of the table and its partitions.
fn identities(state: &TableState, whole: bool) -> Option<Damage> {
    state.published?;
    let table = &state.table;
    let own = Identity {
        now: table.replica_identity,
        index: state.identity_index.as_deref(),
        key_index: table.key.as_ref().map(|key| key.index.as_str()),
    };
    let of_partition = |partition: &super::state::PartitionState| {
        let identity = Identity {
            now: partition.replica_identity,
            index: partition.identity_index.as_deref(),
            key_index: partition.key_index.as_deref(),
        };
        let wanted = identity::wanted(table, identity, whole)?;
        Some((
            partition.qualified.clone(),
            identity::clause(identity),
            wanted,
        ))
    };
    let root = identity::wanted(table, own, whole)
        .map(|wanted| (table.readable(), identity::clause(own), wanted));
    let mut partitions = state.partitions.iter().filter_map(of_partition);
    let (name, now, wanted) = root.or_else(|| partitions.next())?;
    let what = format!(
        "table {name} has replica identity {now} where {wanted} is needed: {}",
        if now == "nothing" {
            "the application's updates and deletes fail"
        } else {
            "updates and deletes are sent without the key"
        }
    );
    Some(Damage::new(DamageKind::Identity, now != "nothing", what))
}

/// Origins, positions and slots.
fn links(config: &Config, state: &NodeState) -> Vec<Damage> {
    let mut found = Vec::new();
    for peer in config.peers_of(&state.name) {
        let peer = &peer.name;
        for origin in [
            origin_name(&config.cluster, peer),
            return_origin_name(&config.cluster, peer),
        ] {
            if !state.origins.contains_key(&origin) {
                let what = format!("replication origin {origin} is gone: {peer} cannot write here");
                found.push(Damage::new(DamageKind::Origin, false, what));
            }
        }
        if !state.positions.iter().any(|row| row.source == *peer) {
            let what = format!(
                "mmrepl.apply_position has no row for {peer}: what was applied from there is not known"
            );
            found.push(Damage::new(DamageKind::Position, false, what));
        }
        if !state.slots.contains_key(peer) {
            let what = format!(
                "replication slot {} is gone: what is written here is not kept for {peer}",
                slot_name(&config.cluster, peer)
            );
            found.push(Damage::new(DamageKind::Slot, true, what));
        }
    }
    let node = state
        .nodes
        .iter()
        .any(|row| row.here && row.name == state.name.as_str());
    if state.pending.is_empty() && !node {
        let what = "mmrepl.node does not name this server".to_owned();
        found.push(Damage::new(DamageKind::Schema, false, what));
    }
    found
}
