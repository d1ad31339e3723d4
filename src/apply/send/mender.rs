//! Writes of rows that differ between nodes, with the versions that the rows have already.
//!
//! A row that is mended keeps the version of the write that it shows, which is a transaction's: so
//! rows of one version are a transaction of their own, with the commit time of that write and an
//! origin that stands for its node (`ids::return_origin_name`). Nobody is sent what is written so,
//! and whatever is newer wins over it, on its way or not.
//!
//! What was judged is looked at again under the rows' locks: a row that anybody has written since
//! is left alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::apply::encode::params::array_literal;
use crate::apply::error::ApplyError;
use crate::apply::send::mend::{
    ASKED, BagMend, KeyState, Mend, MendedTable, RowImage, Source, act, change, parameters,
    push_aside, push_bag, push_locks, push_record, value,
};
use crate::apply::send::prepared::{BEGIN, LEAVE_ORIGIN, ROLL_BACK};
use crate::apply::send::returner::as_sent;
use crate::apply::settle::ordered::{Act, push, supersede};
use crate::apply::settle::unique::{failed, lock_statement, run};
use crate::apply::shape::guard::Guard;
use crate::apply::shape::mapping::{KeyValues, TableMap};
use crate::apply::shape::origins::Origins;
use crate::apply::shape::versions::Versions;
use crate::apply::sql;
use crate::apply::sql::mend::{BEFORE_BAG, BEFORE_VALUES};
use crate::apply::target::statement::{Sql, Statement, Target};
use crate::catalog::table::Table;
use crate::conflict::{Rules, Version};
use crate::error::Retryable;
use crate::ids::{NodeName, return_origin_name};
use crate::pgoutput::Tuple;
use crate::wire::{Outcome, Session, WireError};

/// SQLSTATE of an origin that another session holds: the daemon, for as long as a row returns.
const IN_USE: &str = "55006";
/// How often, and after which time each, an origin is asked for.
const TRIES: u32 = 150;
const PAUSE: Duration = Duration::from_millis(200);

/// Looks at rows and mends them on one node.
///
/// Not cancel-safe: a call that is dropped half-way leaves a transaction open on the session.
pub struct Mender {
    session: Session,
    origins: Origins,
    rules: Rules,
    /// On whose origin the session is.
    on: Option<NodeName>,
}

impl Mender {
    /// `session` is a session like that of a link, without an origin; `origins` are the server's
    /// own.
    pub fn new(session: Session, origins: Origins, rules: Rules) -> Self {
        Self {
            session,
            origins,
            rules,
            on: None,
        }
    }

    /// The table `own` of this node as these columns of `source` are written to it.
    pub fn table(
        &self,
        source: &Table,
        own: &Table,
        columns: &[String],
    ) -> Result<MendedTable, ApplyError> {
        let here = self.origins.target();
        let sent = Arc::new(as_sent(source, columns));
        let map = TableMap::new(sent, Some(own.clone()), here.as_str())?;
        let rule = self.rules.of(&own.schema, &own.name, map.key.is_some());
        let versions = Versions::new(rule.clone(), here.clone(), &map)?;
        let guard = Guard::none();
        let record =
            |rule: &str| -> Sql { sql::history::record(&map, &guard, rule, "0::oid").into() };
        Ok(MendedTable {
            look: sql::mend::look(&map, &guard, &versions).into(),
            hold: sql::mend::hold(&map).into(),
            aside: sql::mend::aside(&map).into(),
            records: [record(versions.rule().name()), record(ASKED)],
            target: Arc::new(Target::new(map, guard, Vec::new(), versions)),
        })
    }

    /// What the node has of these keys, all of one moment.
    pub async fn look(
        &mut self,
        table: &MendedTable,
        keys: &[KeyValues],
    ) -> Result<Vec<KeyState>, ApplyError> {
        let target = &table.target;
        let to_table = |source| failed(target, source);
        let mut batch = self.session.batch();
        let begin = "begin isolation level repeatable read read only";
        batch.push(&begin.into(), &[]).map_err(to_table)?;
        let tombstones = sql::tombstones::tombstones(&target.map, target.guard()).into();
        for key in keys {
            let key = parameters(key);
            for sql in [&table.look, &tombstones, &table.aside] {
                batch.push(sql, &key).map_err(to_table)?;
            }
        }
        batch.push(&"commit".into(), &[]).map_err(to_table)?;
        let looked = run(batch, target).await;
        let outcomes = self.or_roll_back(looked).await?;
        let outcomes = &outcomes[1..=3 * keys.len()];
        let states = outcomes.chunks(3).map(|of_key| self.state(of_key));
        let states: Result<Vec<KeyState>, WireError> = states.collect();
        states.map_err(to_table)
    }

    fn state(&self, outcomes: &[Outcome]) -> Result<KeyState, WireError> {
        let held = self.origins.held(&outcomes[0])?.into_iter().next();
        let image = |held| -> Result<RowImage, WireError> {
            let values = &outcomes[0].rows[0][BEFORE_VALUES..];
            Ok(RowImage {
                values: Tuple(values.iter().map(|text| value(text.as_deref())).collect()),
                held,
                forged: outcomes[0].flag(0, 3, "whether a row was rewritten")?,
                identity: outcomes[0].get(0, 4, "which version of a row it is")?,
            })
        };
        Ok(KeyState {
            row: held.map(image).transpose()?,
            tombstones: self.origins.held(&outcomes[1])?,
            aside: !outcomes[2].rows.is_empty(),
        })
    }

    /// Rows of a table without a key by the hash of all their values, which `row_hash` is: each
    /// once, with when and where it was written.
    pub async fn bag(
        &mut self,
        table: &MendedTable,
        (row_hash, hashes): (&str, &[i64]),
    ) -> Result<HashMap<i64, (Tuple, Option<Version>)>, ApplyError> {
        let target = &table.target;
        let to_table = |source| failed(target, source);
        let list = array_literal(
            hashes
                .iter()
                .map(i64::to_string)
                .collect::<Vec<_>>()
                .iter()
                .map(|hash| Some(hash.as_bytes())),
        );
        let sql = sql::mend::bag(&target.map, target.guard(), row_hash).into();
        let mut batch = self.session.batch();
        batch.push(&sql, &[Some(&list)]).map_err(to_table)?;
        let outcomes = run(batch, target).await?;
        let row = |at: usize| -> Result<_, WireError> {
            let hash: i64 = outcomes[0].get(at, 0, "the hash of a row")?;
            let text = |column| outcomes[0].text(at, column).map(str::as_bytes);
            let version = self.origins.version(text(1), text(2))?;
            let values = &outcomes[0].rows[at][BEFORE_BAG..];
            let values = values.iter().map(|text| value(text.as_deref()));
            Ok((hash, (Tuple(values.collect()), version)))
        };
        let rows = (0..outcomes[0].rows.len()).map(row);
        rows.collect::<Result<_, _>>().map_err(to_table)
    }

    /// Puts rows of a table without a key back, or removes them, in one transaction.
    pub async fn mend_bag(
        &mut self,
        table: &MendedTable,
        source: &Source,
        mend: &BagMend,
    ) -> Result<(), ApplyError> {
        self.enter(source.writer()).await?;
        let target = &table.target;
        let to_table = |source| failed(target, source);
        let mut batch = self.session.batch();
        batch.push(&BEGIN.into(), &[]).map_err(to_table)?;
        let nodes = (source, self.origins.target());
        push_bag(&mut batch, target, nodes, mend).map_err(to_table)?;
        let written = run(batch, target).await;
        self.or_roll_back(written).await?;
        self.commit(table, source).await
    }

    /// Keeps every other repair away until the session ends; false where one is at work.
    pub async fn be_the_only_one(&mut self) -> Result<bool, ApplyError> {
        let sql = "select pg_catalog.pg_try_advisory_lock(
                pg_catalog.hashtextextended('mmrepl.repair', 0))::pg_catalog.text";
        let outcome = self.session.simple(sql).await;
        let is_free = outcome.and_then(|outcomes| outcomes[0].flag(0, 0, "whether a lock is free"));
        is_free.map_err(|source| ApplyError::target(source, None))
    }

    /// Keeps rows from being deleted until [`Mender::release`]; tells of each which version it is.
    pub async fn hold(
        &mut self,
        table: &MendedTable,
        keys: &[&KeyValues],
    ) -> Result<Vec<Option<String>>, ApplyError> {
        let target = &table.target;
        let to_table = |source| failed(target, source);
        let mut batch = self.session.batch();
        batch.push(&BEGIN.into(), &[]).map_err(to_table)?;
        for key in keys {
            let pushed = batch.push(&table.hold, &parameters(key));
            pushed.map_err(to_table)?;
        }
        let held = run(batch, target).await;
        let outcomes = self.or_roll_back(held).await?;
        let identity = |outcome: &Outcome| outcome.text(0, 0).map(str::to_owned);
        Ok(outcomes[1..].iter().map(identity).collect())
    }

    /// Lets go what [`Mender::hold`] holds, or gives up what [`Mender::begin`] began.
    pub async fn release(&mut self) -> Result<(), ApplyError> {
        let done = self.session.simple(ROLL_BACK).await;
        done.map(drop)
            .map_err(|source| ApplyError::target(source, None))
    }

    /// Opens a transaction and locks the rows; tells which of them are still as they were judged.
    pub async fn begin(
        &mut self,
        table: &MendedTable,
        source: &Source,
        mends: &[Mend],
    ) -> Result<Vec<bool>, ApplyError> {
        self.enter(source.writer()).await?;
        let target = &table.target;
        let to_table = |source| failed(target, source);
        let mut batch = self.session.batch();
        batch.push(&BEGIN.into(), &[]).map_err(to_table)?;
        let time = source.time();
        let clock = "select mmrepl.require_clock($1)".into();
        batch
            .push(&clock, &[Some(time.as_bytes())])
            .map_err(to_table)?;
        push_locks(&mut batch, target, mends).map_err(to_table)?;
        let locked = run(batch, target).await;
        let outcomes = self.or_roll_back(locked).await?;
        let still = mends.iter().zip(outcomes[2..].chunks(2));
        let still = still.map(|(mend, now)| self.is_as_judged(mend, now));
        let still: Result<Vec<bool>, WireError> = still.collect();
        still.map_err(to_table)
    }

    fn is_as_judged(&self, mend: &Mend, now: &[Outcome]) -> Result<bool, WireError> {
        let row = self.origins.held(&now[0])?.into_iter().next();
        let tombstones = self.origins.held(&now[1])?;
        Ok(row == mend.judged.row && tombstones == mend.judged.tombstones)
    }

    /// Records what is replaced, writes the rows and commits what [`Mender::begin`] began. False
    /// where somebody came in between: then nothing was written.
    pub async fn finish(
        &mut self,
        table: &MendedTable,
        source: &Source,
        mends: &[&Mend],
    ) -> Result<bool, ApplyError> {
        let target = &table.target;
        let to_table = |source| failed(target, source);
        let mut batch = self.session.batch();
        let mut deletes = Vec::new();
        for mend in mends {
            let change = change(target, mend, source);
            push_record(
                &mut batch,
                table,
                (source, self.origins.target()),
                (mend, &change),
            )
            .map_err(to_table)?;
            let act = act(mend, &change);
            push(&mut batch, &change, &act)
                .and_then(|()| supersede(&mut batch, &change, &act))
                .map_err(to_table)?;
            if matches!(act, Act::Insert(_)) {
                deletes.push((batch.len(), *mend));
                let sql = target.sql(Statement::Tombstones);
                batch.push(sql, &parameters(&mend.key)).map_err(to_table)?;
            }
        }
        let written = run(batch, target).await;
        let outcomes = self.or_roll_back(written).await?;
        // An insert may have waited for a local delete of the same key.
        for (index, mend) in deletes {
            let now = self.origins.held(&outcomes[index]).map_err(to_table)?;
            if now != mend.judged.tombstones {
                return self.release().await.map(|()| false);
            }
        }
        self.commit(table, source).await.map(|()| true)
    }

    /// Like [`Mender::finish`] of one row with a unique value that another row has: the row is kept
    /// aside and returns when it may (`send::returner`). Begins a transaction of its own.
    pub async fn put_aside(
        &mut self,
        table: &MendedTable,
        source: &Source,
        mend: &Mend,
    ) -> Result<bool, ApplyError> {
        self.enter(source.writer()).await?;
        let target = &table.target;
        let to_table = |source| failed(target, source);
        let oid = target.map.table.oid.to_string();
        let mut batch = self.session.batch();
        batch.push(&BEGIN.into(), &[]).map_err(to_table)?;
        let lock = batch.push(&lock_statement(), &[Some(oid.as_bytes())]);
        lock.map_err(to_table)?;
        push_locks(&mut batch, target, std::slice::from_ref(mend)).map_err(to_table)?;
        let kept = batch.push(&table.aside, &parameters(&mend.key));
        kept.map_err(to_table)?;
        let locked = run(batch, target).await;
        let outcomes = self.or_roll_back(locked).await?;
        let is_free = outcomes[4].rows.is_empty();
        let still = self.is_as_judged(mend, &outcomes[2..4]).map_err(to_table)?;
        let Some(values) = mend.row.as_ref().filter(|_| is_free && still) else {
            return self.release().await.map(|()| false);
        };
        let mut batch = self.session.batch();
        let change = change(target, mend, source);
        let nodes = (source, self.origins.target());
        push_record(&mut batch, table, nodes, (mend, &change)).map_err(to_table)?;
        push_aside(&mut batch, (target, values), (source, mend)).map_err(to_table)?;
        let written = run(batch, target).await;
        self.or_roll_back(written).await?;
        self.commit(table, source).await.map(|()| true)
    }

    async fn commit(&mut self, table: &MendedTable, source: &Source) -> Result<(), ApplyError> {
        let target = &table.target;
        let to_table = |source| failed(target, source);
        let stamp = "select pg_catalog.pg_replication_origin_xact_setup('0/1', $1::timestamptz)";
        let time = source.time();
        let mut batch = self.session.batch();
        batch
            .push(&stamp.into(), &[Some(time.as_bytes())])
            .map_err(to_table)?;
        batch.push(&"commit".into(), &[]).map_err(to_table)?;
        let committed = run(batch, target).await;
        self.or_roll_back(committed).await.map(drop)
    }

    /// A failed transaction is ended, so that the session can be used again.
    async fn or_roll_back<T>(&mut self, result: Result<T, ApplyError>) -> Result<T, ApplyError> {
        if result.is_err() {
            // A session that cannot do that is lost, as the first error says already.
            let _ = self.release().await;
        }
        result
    }

    /// Puts the session on the second origin of `node`, which the daemon may hold for a moment.
    async fn enter(&mut self, node: &NodeName) -> Result<(), ApplyError> {
        if self.on.as_ref() == Some(node) {
            return Ok(());
        }
        let mut tries_left = TRIES;
        loop {
            self.leave().await?;
            tries_left -= 1;
            let origin = return_origin_name(self.origins.cluster(), node);
            let setup =
                format!("select pg_catalog.pg_replication_origin_session_setup('{origin}')");
            match self.session.simple(&setup).await {
                Ok(_) => {
                    self.on = Some(node.clone());
                    return Ok(());
                }
                Err(error) if error.sqlstate() == Some(IN_USE) && tries_left > 0 => {
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(ApplyError::target(error, None)),
            }
        }
    }

    /// Leaves the origin to others. Outside a transaction.
    pub async fn leave(&mut self) -> Result<(), ApplyError> {
        self.on = None;
        let done = self.session.simple(LEAVE_ORIGIN).await;
        done.map(drop)
            .map_err(|source| ApplyError::target(source, None))
    }
}
