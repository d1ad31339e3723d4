//! Rows that are kept aside come back when nothing newer is in their way.
//!
//! A row comes back with its own version, which is a transaction's: so each return is a transaction
//! of its own, with the commit time of the write and an origin that stands for its node
//! (`ids::return_origin_name`). Under the table's lock it looks again at what a glance has shown,
//! pushes older rivals aside, and writes the row. What it pushes aside is looked at in its turn;
//! see `conflict::unique` for why that ends.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use tokio_postgres::{Client, Row};

use crate::apply::error::ApplyError;
use crate::apply::send::prepared::{BEGIN, LEAVE_ORIGIN, ROLL_BACK};
use crate::apply::settle::unique::{
    Rival, failed, lock_statement, push_aside, push_forget, rival_parameters, rivals_of, run,
};
use crate::apply::shape::guard::Guard;
use crate::apply::shape::mapping::{KeyValues, TableMap};
use crate::apply::shape::origins::Origins;
use crate::apply::shape::versions::Versions;
use crate::apply::sql::shadows::Look;
use crate::apply::target::statement::{Statement, Target};
use crate::catalog::CatalogError;
use crate::catalog::load_tables::load_table;
use crate::catalog::table::Table;
use crate::commit_time::CommitTime;
use crate::conflict::unique::{Claim, is_newer, reclaim};
use crate::conflict::{Held, Rules, Version};
use crate::error::{RetryClass, Retryable};
use crate::ids::{NodeName, RelationId, return_origin_name};
use crate::pgoutput::{Tuple, Value};
use crate::relation::{Relation, RelationColumn, ReplicaIdentity};
use crate::wire::{Outcome, RowExt, Session, Unread, WireError, each};

/// How many rows kept aside are looked at together.
const CHUNK: i64 = 200;
/// The commit time of a row that returns and whose time is not known. The server keeps no time 0,
/// and this one is older than any write.
pub(super) const OLDEST: &str = "2000-01-01 00:00:00.000001+00";

const KEPT: &str = "
select s.relation, s.key, s.names, s.vals,
       (extract(epoch from s.written_at) * 1000000)::int8 - 946684800000000, s.node, s.since::text,
       n.nspname::text, c.relname::text
from mmrepl.shadow s
left join pg_catalog.pg_class c on c.oid = s.relation
left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where (s.relation, s.key) > ($1, $2) order by s.relation, s.key limit $3";

/// What a look at every row kept aside came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Returned {
    /// Rows that are kept aside still.
    pub kept: u64,
    /// Rows that came back, or went because a newer version of their key is here.
    pub gone: u64,
}

/// A row of `mmrepl.shadow` as it is stored.
struct Stored {
    relation: u32,
    key: String,
    names: Vec<String>,
    texts: Vec<Option<String>>,
    /// Microseconds since 2000.
    written: Option<i64>,
    writer: String,
    since: String,
    /// Schema and name of its table; nothing where that is gone.
    table: Option<(String, String)>,
}

impl Stored {
    /// Reads a row of [`KEPT`].
    fn of(row: &Row) -> Result<Self, Unread> {
        let (schema, name): (Option<String>, Option<String>) = (row.read(7)?, row.read(8)?);
        Ok(Self {
            relation: row.read(0)?,
            key: row.read(1)?,
            names: row.read(2)?,
            texts: row.read(3)?,
            written: row.read(4)?,
            writer: row.read(5)?,
            since: row.read(6)?,
            table: schema.zip(name),
        })
    }
}

/// A row of `mmrepl.shadow`, understood.
struct Kept {
    relation: u32,
    /// As it is stored.
    stored_key: String,
    since: String,
    version: Option<Version>,
    node: NodeName,
    target: Arc<Target>,
    key: KeyValues,
    values: Tuple,
}

impl Kept {
    fn held(&self) -> Held {
        Held {
            rank: self.target.versions().of_row(&self.values),
            version: self.version.clone(),
        }
    }
}

/// What is to become of it.
enum Fate {
    /// Its key has a newer version here.
    Drop,
    /// The row of its key is older, and goes.
    Unseat,
    /// A rival is newer.
    Stay,
    /// It comes back, and these rows go aside.
    Return(Vec<Rival>),
}

/// Brings rows back on one server.
///
/// Not cancel-safe: a call that is dropped half-way leaves a transaction open on the session.
pub struct Returner {
    session: Session,
    catalog: Client,
    origins: Origins,
    rules: Rules,
    /// Nodes with a second origin here.
    nodes: Vec<NodeName>,
    /// On whose origin the session is.
    on: Option<NodeName>,
    targets: HashMap<(u32, Vec<String>), Arc<Target>>,
    /// Tables whose rows could not return; each was logged.
    told: HashSet<u32>,
}

impl Returner {
    /// `session` is a session like that of a link, without an origin; `origins` are the server's
    /// own.
    pub fn new(
        session: Session,
        catalog: Client,
        (origins, nodes): (Origins, Vec<NodeName>),
        rules: Rules,
    ) -> Self {
        Self {
            rules,
            session,
            catalog,
            origins,
            nodes,
            on: None,
            targets: HashMap::new(),
            told: HashSet::new(),
        }
    }

    /// Looks at every row kept aside once, and brings back those that can come.
    pub async fn pass(&mut self) -> Result<Returned, ApplyError> {
        // Tables may have changed since the last time.
        self.targets.clear();
        let (mut sum, mut after) = (Returned::default(), (0_u32, String::new()));
        loop {
            let rows = self
                .catalog
                .query(KEPT, &[&after.0, &after.1, &CHUNK])
                .await;
            let rows = rows.map_err(|error| catalog("rows kept aside", error))?;
            let rows: Result<Vec<Stored>, _> = each(&rows, Stored::of);
            let rows = rows.map_err(|unread| ApplyError::Catalog {
                table: "rows kept aside".to_owned(),
                source: Box::new(unread.into()),
            })?;
            let Some(last) = rows.last() else {
                // Others may need it meanwhile: `mender`.
                return self.leave().await.map(|()| sum);
            };
            after = (last.relation, last.key.clone());
            let (looked_at, mut chunk) = (rows.len() as u64, Vec::new());
            for row in rows {
                chunk.extend(self.understand(row).await?);
            }
            let gone = self.chunk(chunk).await?;
            sum.gone += gone;
            sum.kept += looked_at - gone;
        }
    }

    /// Understands a row of `mmrepl.shadow`; nothing for one that cannot come back as it is.
    async fn understand(&mut self, row: Stored) -> Result<Option<Kept>, ApplyError> {
        let Stored { relation, .. } = row;
        let Some((schema, name)) = &row.table else {
            // The table is gone, and its rows with it.
            let sql = "delete from mmrepl.shadow where relation = $1";
            let done = self.catalog.execute(sql, &[&relation]).await;
            return done
                .map(|_| None)
                .map_err(|error| catalog("a table that is gone", error));
        };
        let table = (relation, schema.as_str(), name.as_str());
        let Some(target) = self.target(table, &row.names).await? else {
            return Ok(None);
        };
        let text = |column: &RelationColumn| {
            let place = row.names.iter().position(|name| *name == column.name)?;
            row.texts.get(place)?.clone()
        };
        let columns = target.map.relation.columns.iter();
        let value =
            |text: Option<String>| text.map_or(Value::Null, |text| Value::Text(Bytes::from(text)));
        let values = Tuple(columns.map(|column| value(text(column))).collect());
        let Some(key) = target.map.key_of(&values) else {
            return Ok(None);
        };
        let writer: Option<NodeName> = row.writer.parse().ok();
        let known = writer.filter(|node| self.nodes.contains(node));
        // A node that has left the cluster is nobody's rival; its rows are this node's now.
        let node = known.unwrap_or_else(|| self.origins.target().clone());
        let version = row.written.map(|micros| Version {
            time: CommitTime::from_postgres_micros(micros),
            node: node.clone(),
        });
        Ok(Some(Kept {
            relation,
            stored_key: row.key,
            since: row.since,
            version,
            node,
            target,
            key,
            values,
        }))
    }

    /// The table as these columns of it are written.
    async fn target(
        &mut self,
        (relation, schema, name): (u32, &str, &str),
        names: &[String],
    ) -> Result<Option<Arc<Target>>, ApplyError> {
        let place = (relation, names.to_vec());
        if let Some(known) = self.targets.get(&place) {
            return Ok(Some(Arc::clone(known)));
        }
        let table = load_table(&self.catalog, schema, name).await;
        let table = table.map_err(|source| ApplyError::Catalog {
            table: format!("{schema}.{name}"),
            source: Box::new(source),
        })?;
        let Some(table) = table else { return Ok(None) };
        let sent = Arc::new(as_sent(&table, names));
        let map = TableMap::new(sent, Some(table), self.origins.target().as_str());
        let map = match map {
            Ok(map) if map.key.is_some() => map,
            Ok(_) => return Ok(None),
            Err(error) => {
                self.tell(relation, &error.into());
                return Ok(None);
            }
        };
        let rule = self.rules.of(schema, name, true).clone();
        let versions = match Versions::new(rule, self.origins.target().clone(), &map) {
            Ok(versions) => versions,
            Err(error) => {
                self.tell(relation, &error.into());
                return Ok(None);
            }
        };
        let target = Arc::new(Target::new(map, Guard::none(), Vec::new(), versions));
        self.targets.insert(place, Arc::clone(&target));
        Ok(Some(target))
    }

    /// Glances at rows and brings back those that nothing keeps aside; says how many are gone.
    async fn chunk(&mut self, mut chunk: Vec<Kept>) -> Result<u64, ApplyError> {
        // Newest first: what comes back is then not pushed aside again.
        chunk.sort_by(|a, b| b.version.cmp(&a.version));
        let mut gone = 0;
        for (kept, stays) in self.glance(chunk).await? {
            if stays {
                continue;
            }
            match self.bring_back(&kept).await {
                Ok(true) => gone += 1,
                Ok(false) => {}
                Err(error) => {
                    self.roll_back().await?;
                    if error.retry_class() == RetryClass::Transient && error.sqlstate().is_none() {
                        return Err(error);
                    }
                    self.tell(kept.relation, &error);
                }
            }
        }
        Ok(gone)
    }

    /// A local writer may be in the way for a moment; anything else a person should know, once.
    fn tell(&mut self, relation: u32, error: &ApplyError) {
        let passes = error.retry_class() == RetryClass::Transient
            || matches!(error.sqlstate(), Some("23505" | "23P01"));
        if !passes && self.told.insert(relation) {
            tracing::warn!(%error, "a row that is kept aside cannot return");
        }
    }

    async fn roll_back(&mut self) -> Result<(), ApplyError> {
        let done = self.session.simple(ROLL_BACK).await;
        done.map(drop)
            .map_err(|source| ApplyError::target(source, None))
    }

    /// Whether each of the rows stays, as far as a look without locks can tell.
    async fn glance(&mut self, chunk: Vec<Kept>) -> Result<Vec<(Kept, bool)>, ApplyError> {
        let mut batch = self.session.batch();
        let mut counts = Vec::with_capacity(chunk.len());
        for kept in &chunk {
            let before = batch.len();
            let how = (Statement::SeeRow, Look::Glance);
            push_look(&mut batch, kept, how)?;
            counts.push(batch.len() - before);
        }
        let outcomes = batch.run().await;
        let outcomes = outcomes.map_err(|failed| ApplyError::target(failed.error, None))?;
        let mut rest = outcomes.as_slice();
        let mut seen = Vec::with_capacity(chunk.len());
        for (kept, count) in chunk.into_iter().zip(counts) {
            let (own, others) = rest.split_at(count);
            rest = others;
            let fate = self.fate(&kept, own);
            let fate = fate.map_err(|source| failed(&kept.target, source))?;
            let stays = matches!(fate, Fate::Stay);
            seen.push((kept, stays));
        }
        Ok(seen)
    }

    fn fate(&self, kept: &Kept, outcomes: &[Outcome]) -> Result<Fate, WireError> {
        let [row, tombstones, rivals @ ..] = outcomes else {
            unreachable!("at least two statements each");
        };
        let versions = kept.target.versions();
        let own = kept.held();
        if let Some(there) = self.origins.held(row)?.first() {
            // A local write came later; in-row versions may say otherwise.
            let is_older = versions.is_in_row() && is_newer(&own, there, versions.tie());
            return Ok(if is_older { Fate::Unseat } else { Fate::Drop });
        }
        if self.has_newer(kept, tombstones)? {
            return Ok(Fate::Drop);
        }
        let rivals = rivals_of(&self.origins, kept.key.len(), rivals)?;
        let versions: Vec<_> = rivals.iter().map(|rival| rival.version.clone()).collect();
        Ok(match reclaim(kept.version.as_ref(), &versions) {
            Claim::Admitted => Fate::Return(rivals),
            Claim::Blocked(_) => Fate::Stay,
        })
    }

    /// Whether one of these tombstones is newer than the row.
    fn has_newer(&self, kept: &Kept, tombstones: &Outcome) -> Result<bool, WireError> {
        let (own, tie) = (kept.held(), kept.target.versions().tie());
        let deletes = self.origins.held(tombstones)?;
        Ok(deletes.iter().any(|delete| is_newer(delete, &own, tie)))
    }

    /// Brings one row back, or forgets it; false where it stays after all.
    async fn bring_back(&mut self, kept: &Kept) -> Result<bool, ApplyError> {
        self.enter(&kept.node).await?;
        let (target, oid) = (&kept.target, kept.relation.to_string());
        let mut batch = self.session.batch();
        let to_table = |source| failed(target, source);
        batch.push(&BEGIN.into(), &[]).map_err(to_table)?;
        batch
            .push(&lock_statement(), &[Some(oid.as_bytes())])
            .map_err(to_table)?;
        let still = "select 1 from mmrepl.shadow s where s.relation = $1 and s.key = $2 \
                     and s.since = $3::timestamptz for update";
        batch
            .push(
                &still.into(),
                &[
                    Some(oid.as_bytes()),
                    Some(kept.stored_key.as_bytes()),
                    Some(kept.since.as_bytes()),
                ],
            )
            .map_err(to_table)?;
        push_look(&mut batch, kept, (Statement::LockRow, Look::Lock))?;
        let outcomes = run(batch, target).await?;
        if outcomes[2].rows.is_empty() {
            // Replaced or gone since it was read.
            return self.roll_back().await.map(|()| false);
        }
        match self.fate(kept, &outcomes[3..]).map_err(to_table)? {
            Fate::Stay => self.roll_back().await.map(|()| false),
            Fate::Drop => self.finish(kept, &[], None).await,
            Fate::Unseat => self.unseat(kept).await.map(|()| false),
            Fate::Return(rivals) => self.finish(kept, &rivals, Some(&kept.values)).await,
        }
    }

    /// Forgets the row and, where it comes back, writes it; commits.
    async fn finish(
        &mut self,
        kept: &Kept,
        rivals: &[Rival],
        values: Option<&Tuple>,
    ) -> Result<bool, ApplyError> {
        let (target, node) = (&kept.target, self.origins.target().clone());
        let to_table = |source| failed(target, source);
        let mut batch = self.session.batch();
        let oid = kept.relation.to_string();
        let place = [Some(oid.as_bytes()), Some(kept.stored_key.as_bytes())];
        let forget = "delete from mmrepl.shadow s where s.relation = $1 and s.key = $2";
        batch.push(&forget.into(), &place).map_err(to_table)?;
        for rival in rivals {
            let version = (rival.version.as_ref(), node.as_str());
            push_aside(&mut batch, target, &rival.key, version).map_err(to_table)?;
        }
        if let Some(values) = values {
            let row = crate::apply::write::push::written(target, values);
            batch
                .push(target.sql(Statement::Insert), &row)
                .map_err(to_table)?;
        }
        let key: Vec<Option<&[u8]>> = kept.key.iter().map(|v| Some(v.as_ref())).collect();
        batch
            .push(target.sql(Statement::Tombstones), &key)
            .map_err(to_table)?;
        let outcomes = run(batch, target).await?;
        // The insert may have waited for a local delete of the same key.
        let deleted = outcomes.last().map(|last| self.has_newer(kept, last));
        let deleted = deleted.transpose().map_err(to_table)?;
        if values.is_some() && deleted == Some(true) {
            return self.roll_back().await.map(|()| false);
        }
        self.commit(kept).await.map(|()| true)
    }

    /// Deletes the row of the key as if it had never been; whether the row kept aside can return is
    /// seen next time.
    async fn unseat(&mut self, kept: &Kept) -> Result<(), ApplyError> {
        let target = &kept.target;
        let to_table = |source| failed(target, source);
        let key: Vec<Option<&[u8]>> = kept.key.iter().map(|v| Some(v.as_ref())).collect();
        let mut batch = self.session.batch();
        batch
            .push(target.sql(Statement::Delete), &key)
            .map_err(to_table)?;
        push_forget(&mut batch, target, &key, None).map_err(to_table)?;
        run(batch, target).await?;
        self.commit(kept).await
    }

    async fn commit(&mut self, kept: &Kept) -> Result<(), ApplyError> {
        let time = kept
            .version
            .as_ref()
            .map(|version| version.time.to_string());
        let time = time.unwrap_or_else(|| OLDEST.to_owned());
        let stamp = "select pg_catalog.pg_replication_origin_xact_setup('0/1', $1::timestamptz)";
        let mut batch = self.session.batch();
        let to_table = |source| failed(&kept.target, source);
        batch
            .push(&stamp.into(), &[Some(time.as_bytes())])
            .map_err(to_table)?;
        batch.push(&"commit".into(), &[]).map_err(to_table)?;
        run(batch, &kept.target).await.map(drop)
    }

    /// Leaves the origin that the session is on.
    async fn leave(&mut self) -> Result<(), ApplyError> {
        if self.on.take().is_none() {
            return Ok(());
        }
        let done = self.session.simple(LEAVE_ORIGIN).await;
        done.map(drop)
            .map_err(|source| ApplyError::target(source, None))
    }

    /// Puts the session on the second origin of `node`.
    async fn enter(&mut self, node: &NodeName) -> Result<(), ApplyError> {
        if self.on.as_ref() == Some(node) {
            return Ok(());
        }
        self.on = None;
        let origin = return_origin_name(self.origins.cluster(), node);
        let enter = format!(
            "{LEAVE_ORIGIN};
             select pg_catalog.pg_replication_origin_session_setup('{origin}')"
        );
        let entered = self.session.simple(&enter).await;
        entered.map_err(|source| ApplyError::target(source, None))?;
        self.on = Some(node.clone());
        Ok(())
    }
}

/// Pushes what tells the fate of a row.
fn push_look(
    batch: &mut crate::wire::Batch<'_>,
    kept: &Kept,
    (row, rivals): (Statement, Look),
) -> Result<(), ApplyError> {
    let target = &kept.target;
    let to_table = |source| failed(target, source);
    let key: Vec<Option<&[u8]>> = kept.key.iter().map(|v| Some(v.as_ref())).collect();
    batch.push(target.sql(row), &key).map_err(to_table)?;
    batch
        .push(target.sql(Statement::Tombstones), &key)
        .map_err(to_table)?;
    let parameters = rival_parameters(target, &kept.key, &kept.values);
    for sql in target.rivals(rivals) {
        batch.push(sql, &parameters).map_err(to_table)?;
    }
    Ok(())
}

/// The table as if a stream sent these columns of it.
pub(super) fn as_sent(table: &Table, names: &[String]) -> Relation {
    let in_key = |name: &str| {
        let mut columns = table.key.iter().flat_map(|key| &key.columns);
        columns.any(|column| column.name == name)
    };
    let there = names.iter().filter_map(|name| table.column(name));
    let columns = there
        .filter(|column| !column.generated)
        .map(|column| RelationColumn {
            name: column.name.clone(),
            type_oid: column.base_type.0,
            type_modifier: column.base_type.1,
            is_key: in_key(&column.name),
        });
    Relation {
        id: RelationId(table.oid),
        schema: table.schema.clone(),
        name: table.name.clone(),
        replica_identity: ReplicaIdentity::Full,
        columns: columns.collect(),
    }
}

fn catalog(what: &str, error: tokio_postgres::Error) -> ApplyError {
    ApplyError::Catalog {
        table: what.to_owned(),
        source: Box::new(CatalogError::query("read mmrepl.shadow")(error)),
    }
}
