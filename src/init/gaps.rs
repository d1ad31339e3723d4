//! Writes that were left out of a node's stream while somebody had changed its publication.
//!
//! The publication is mended in a moment, and what was left out meanwhile comes to no other node by
//! itself. So whoever sees such a change, the daemon or `init`, notes the tables in `mmrepl.gap`.
//! `init` compares their rows; where they are equal the note goes, where they differ a person says
//! whose rows count.

use std::collections::{BTreeSet, HashMap, HashSet};

use tokio_postgres::Client;

use super::execute::{Work, differences, open_snapshot};
use super::observe::{NodeState, TableState};
use super::plan::Step;
use super::session::Session;
use super::{InitError, PUBLICATION, Progress, compare, overwrite, undelivered};
use crate::catalog::CatalogError;
use crate::catalog::gap::note_sql;
use crate::catalog::names::{literal, readable};
use crate::config::Config;
use crate::ids::{LinkName, NodeName, slot_name};
use crate::lsn::Lsn;
use crate::wire::{RowExt, each};

/// From this version on a change whose publication did not exist yet is left out of the stream
/// without a word; earlier servers refuse to send anything more.
pub(super) const LEAVES_OUT_SINCE: u32 = 18;
/// How often rows are compared again that may have been under way.
const ROUNDS: usize = 4;

/// A table whose writes here were not all sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) schema: String,
    pub(super) name: String,
    /// When that was noticed, as text.
    pub(super) since: String,
    /// What was left out, as words: `deletes`. May be empty.
    pub(super) left_out: String,
    /// What happened that may have made rows differ though all was sent, as words. May be empty.
    pub(super) happened: String,
}

impl Gap {
    /// `schema.table`, for people.
    pub(super) fn readable(&self) -> String {
        readable(&self.schema, &self.name)
    }

    /// What people are told of tables that something happened to, as the text around their names.
    pub(super) fn unsure(happened: &str) -> (String, String) {
        ("rows may differ in ".to_owned(), format!(": {happened}"))
    }

    /// What people are told, each as the text before and after the names of tables.
    pub(super) fn sentences(&self) -> Vec<(String, String)> {
        let (left_out, happened, since) = (&self.left_out, &self.happened, &self.since);
        let not_sent = (
            format!("{left_out} made here in "),
            format!(
                " were not sent to the other nodes for a while (noticed {since}), so their rows may differ"
            ),
        );
        let unsure = Self::unsure(&format!("{happened} (noticed {since})"));
        let said = [(left_out, not_sent), (happened, unsure)];
        let said = said.into_iter().filter(|(what, _)| !what.is_empty());
        said.map(|(_, around)| around).collect()
    }
}

/// What a node knows of writes that were not sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Noted {
    /// By peer: whether its slot may read what was written before the publication was made.
    pub(super) predated: HashMap<NodeName, bool>,
    /// Tables that were published once, by `pg_class.oid`.
    pub(super) sent_before: HashSet<u32>,
    /// Tables whose writes were not all sent.
    pub(super) gaps: Vec<Gap>,
}

impl Noted {
    /// Reads it.
    pub(super) async fn read(
        config: &Config,
        node: &NodeName,
        client: &Client,
    ) -> Result<Self, CatalogError> {
        let mut predated = HashMap::new();
        for peer in config.peers_of(node) {
            let link = LinkName {
                from: node.clone(),
                to: peer.name.clone(),
            };
            let slot = slot_name(&config.cluster, &peer.name);
            let anew = predates_publication(client, (&link, &slot)).await?;
            predated.insert(link.to, anew);
        }
        Ok(Self {
            predated,
            sent_before: sent_before(client).await?,
            gaps: read(client).await?,
        })
    }
}

async fn read(client: &Client) -> Result<Vec<Gap>, CatalogError> {
    let sql = "select schema_name, table_name, left_out,
                      pg_catalog.to_char(since at time zone 'UTC',
                                         'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
                      happened
               from mmrepl.gap order by 1, 2";
    let rows = client.query(sql, &[]).await;
    let rows = rows.map_err(CatalogError::query("read mmrepl.gap"))?;
    let gap = |row: &tokio_postgres::Row| {
        Ok(Gap {
            schema: row.read(0)?,
            name: row.read(1)?,
            left_out: row.read(2)?,
            since: row.read(3)?,
            happened: row.read(4)?,
        })
    };
    Ok(each(&rows, gap)?)
}

/// The tables that were published once: whatever is made beside them was never to be sent.
async fn sent_before(client: &Client) -> Result<HashSet<u32>, CatalogError> {
    let sql = "select distinct coalesce(pg_catalog.pg_partition_root(relation)::oid, relation)
               from mmrepl.table_file";
    let rows = client.query(sql, &[]).await;
    let rows = rows.map_err(CatalogError::query("read mmrepl.table_file"))?;
    Ok(each(&rows, |row| row.read(0))?)
}

/// Whether the link's slot may still read what was written before the publication was made. Once
/// the server has moved the slot's horizon past the publication's making, it does not.
async fn predates_publication(
    client: &Client,
    (link, slot): (&LinkName, &str),
) -> Result<bool, CatalogError> {
    let sql = "
        select p.oid is null or p.oid <> m.publication
               and not coalesce(pg_catalog.age(p.xmin) > pg_catalog.age(s.catalog_xmin), false)
        from mmrepl.link_memory m
        left join pg_catalog.pg_publication p on p.pubname = $2
        left join pg_catalog.pg_replication_slots s on s.slot_name = $3
        where m.link = $1 and m.publication is not null";
    let row = client
        .query_opt(sql, &[&link.to_string(), &PUBLICATION, &slot])
        .await;
    let row = row.map_err(CatalogError::query("read which publication a slot knows"))?;
    Ok(row.map(|row| row.read(0)).transpose()?.unwrap_or_default())
}

/// Remembers for all links, or for one, that slot and publication belong together.
pub(super) fn remember_publication(link: Option<&LinkName>) -> String {
    let publication = literal(PUBLICATION);
    let publication =
        format!("(select oid from pg_catalog.pg_publication where pubname = {publication})");
    match link {
        None => format!("update mmrepl.link_memory set publication = {publication}"),
        Some(link) => format!(
            "insert into mmrepl.link_memory (link, publication) values ({}, {publication})
             on conflict (link) do update set publication = excluded.publication",
            literal(&link.to_string())
        ),
    }
}

/// Whether whatever was written before the publication was made anew has been left out.
fn has_left_all_out(state: &NodeState) -> bool {
    state.server.major() >= LEAVES_OUT_SINCE && state.noted.predated.values().any(|anew| *anew)
}

/// What the publication leaves out of a table right now; nothing where it sends everything.
fn left_out(state: &NodeState, table: &TableState) -> Option<String> {
    let was_set_up =
        table.published.is_some() || state.noted.sent_before.contains(&table.table.oid);
    if !was_set_up || state.slots.is_empty() {
        return None;
    }
    if has_left_all_out(state) {
        return Some("all writes".to_owned());
    }
    let publication = state.publication.as_ref()?;
    if publication.all_tables {
        return None;
    }
    if table.published.is_none() {
        return Some("all writes".to_owned());
    }
    if table.is_restricted() {
        return Some("some rows or columns".to_owned());
    }
    let said = publication.faults.iter().filter_map(|fault| {
        let kind = fault.strip_prefix("does not send ");
        let partitions = table.table.partitioned && fault.contains("partitions");
        kind.filter(|kind| KINDS.contains(kind))
            .or(partitions.then_some("changes of partitions"))
    });
    let said: Vec<&str> = said.collect();
    (!said.is_empty()).then(|| said.join(", "))
}

/// Kinds of changes that a publication may leave out.
const KINDS: [&str; 4] = ["inserts", "updates", "deletes", "truncates"];

/// The tables that the publication leaves something of out right now.
pub(super) fn open(state: &NodeState) -> Vec<(&TableState, String)> {
    let with = |table| left_out(state, table).map(|left_out| (table, left_out));
    state.tables.iter().filter_map(with).collect()
}

/// The tables whose writes were not all sent: those on record, and those that are left out now.
pub(super) fn tables(states: &[NodeState]) -> Vec<(String, String)> {
    let mut found = BTreeSet::new();
    for state in states {
        let on_record = state.noted.gaps.iter();
        found.extend(on_record.map(|gap| (gap.schema.clone(), gap.name.clone())));
        let open = open(state).into_iter().map(|(table, _)| &table.table);
        found.extend(open.map(|table| (table.schema.clone(), table.name.clone())));
    }
    let known = |id: &(String, String)| {
        let mut tables = states.iter().flat_map(|state| &state.tables);
        tables.any(|table| table.table.id() == (&id.0, &id.1))
    };
    // A table that is gone, or takes part no longer, has nothing to compare.
    found.retain(known);
    found.into_iter().collect()
}

/// The statements that note what is left out right now.
pub(super) fn note(state: &NodeState) -> Vec<String> {
    let open = open(state);
    let gaps: Vec<[&str; 3]> = open
        .iter()
        .map(|(table, left_out)| [&*table.table.schema, &*table.table.name, &**left_out])
        .collect();
    let mut sql: Vec<String> = note_sql(&gaps).into_iter().collect();
    if has_left_all_out(state) && state.publication.is_some() {
        sql.push(remember_publication(None));
    }
    sql
}

/// Compares the tables that had a gap, and forgets the gaps where all nodes have the same rows, or
/// where the command line has said whose count.
pub(super) async fn close(work: &Work<'_>, progress: &mut dyn Progress) -> Result<(), InitError> {
    let ids = &work.plan.gaps;
    if ids.is_empty() {
        return Ok(());
    }
    let mut forget = Vec::new();
    for session in work.sessions {
        forget.push(forget_those_of(session, ids).await?);
    }
    let joined = |id: &&(String, String)| work.plan.joining.contains(id);
    let left: Vec<_> = ids.iter().filter(|id| !joined(id)).cloned().collect();
    if work.options.copy_from.is_none() && !work.options.assume_identical {
        compare(work, left, progress).await?;
    }
    for (session, sql) in work.sessions.iter().zip(&forget) {
        session.batch("forget gaps", sql).await?;
    }
    let what = format!("{} table(s) that might differ are equal", ids.len());
    for session in work.sessions {
        progress.step(&Step::new(session.name(), what.clone(), Vec::new()));
    }
    Ok(())
}

/// The statement that forgets the gaps of these tables as they are now: one that is noted while
/// rows are compared stays.
async fn forget_those_of(session: &Session, ids: &[(String, String)]) -> Result<String, InitError> {
    let row =
        |(schema, name): &(String, String)| format!("({}, {})", literal(schema), literal(name));
    let rows: Vec<String> = ids.iter().map(row).collect();
    let sql = format!(
        "select coalesce(pg_catalog.string_agg(pg_catalog.quote_literal(g.ctid), ', '), 'null')
         from mmrepl.gap g where (schema_name, table_name) in ({})",
        rows.join(", ")
    );
    let row = session.client.query_one(&sql, &[]).await;
    let row = row.map_err(CatalogError::query("read mmrepl.gap"));
    let row = row.map_err(InitError::catalog(session.name()))?;
    let places: String = row.read(0).map_err(InitError::unread(session.name()))?;
    Ok(format!("delete from mmrepl.gap where ctid in ({places})"))
}

async fn compare(
    work: &Work<'_>,
    mut ids: Vec<(String, String)>,
    progress: &mut dyn Progress,
) -> Result<(), InitError> {
    let nodes: Vec<_> = work.sessions.iter().map(|s| s.name().clone()).collect();
    let mut found = Vec::new();
    for _ in 0..ROUNDS {
        settle(work, progress).await?;
        for session in work.sessions {
            open_snapshot(session, &[]).await?;
        }
        let differ = differences(work, &nodes, &ids).await;
        for session in work.sessions {
            session.batch("close the snapshot", "commit").await?;
        }
        found = differ?.0;
        let differs = |(schema, name): &(String, String)| {
            let name = readable(schema, name);
            found.iter().any(|difference| difference.table == name)
        };
        ids.retain(differs);
        if ids.is_empty() {
            return Ok(());
        }
    }
    Err(compare::refuse(&found))
}

/// Waits until every link that streams has delivered what was written before.
pub(super) async fn settle(work: &Work<'_>, progress: &mut dyn Progress) -> Result<(), InitError> {
    for link in work.config.links() {
        if undelivered::is_streaming(work.config, &link, work.sessions).await? {
            let point = flushed(work.session(&link.from)).await?;
            overwrite::wait_for(work, &link, point, progress).await?;
        }
    }
    Ok(())
}

async fn flushed(session: &Session) -> Result<Lsn, InitError> {
    let flushed = crate::catalog::wal::flushed(&session.client).await;
    flushed.map_err(InitError::catalog(session.name()))
}
