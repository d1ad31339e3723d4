//! The careful way for tables in which values are unique beside the key: claim, push aside, write.
//!
//! What may be there is decided by `conflict::unique`. A table in which rows are kept aside, or a
//! duplicate is met, is written only here: one change at a time, and by one transaction at a time
//! (`mmrepl.lock_shadows`; a group holds the same lock together with other groups, and makes sure
//! that nothing is kept aside). A shadow counts as the row of its key everywhere in the case table.

use crate::apply::error::ApplyError;
use crate::apply::plan::change::RowChange;
use crate::apply::plan::decide::{Decision, decide};
use crate::apply::send::transaction::Applier;
use crate::apply::settle::ordered::sets_identity;
use crate::apply::settle::record::{Record, incoming_arrays};
use crate::apply::shape::mapping::KeyValues;
use crate::apply::shape::op::{Put, RowOp};
use crate::apply::shape::origins::Origins;
use crate::apply::sql::kind::UpdateGuard;
use crate::apply::sql::shadows::Look;
use crate::apply::target::statement::{Sql, Statement, Target};
use crate::apply::write::push::{keyed, update_of, written};
use crate::apply::write::tombstones::{leaving, push_leaving};
use crate::conflict::unique::{Claim, claim, is_newer};
use crate::conflict::{Held, Local, Rank, Verdict, Version};
use crate::pgoutput::Tuple;
use crate::wire::{Batch, Outcome, WireError};

/// What the target holds for a key.
pub(in crate::apply) struct HeldKey {
    /// As the case table sees it: a shadow is a row.
    pub local: Local,
    /// There is a row in the table.
    pub row: bool,
    /// A shadow is kept, perhaps one that a local write has made stale.
    pub shadow: bool,
}

/// A row under another key that may not be there beside the incoming one.
pub(in crate::apply) struct Rival {
    pub key: KeyValues,
    pub version: Option<Version>,
    /// This very transaction wrote it.
    pub own: bool,
}

/// What a batch of [`LOOK`] statements said of one key.
pub(in crate::apply) fn held(
    target: &Target,
    origins: &Origins,
    outcomes: &[Outcome],
) -> Result<HeldKey, WireError> {
    let [row, tombstones, shadow] = outcomes else {
        unreachable!("three statements each");
    };
    let (versions, tombstones) = (target.versions(), origins.held(tombstones)?);
    let kept = if shadow.rows.is_empty() {
        None
    } else {
        Some(Held {
            rank: Rank::read(shadow.text(0, 2).map(str::as_bytes)),
            version: Origins::kept_version(shadow)?,
        })
    };
    let there = origins.held(row)?.pop();
    let (has_row, has_shadow) = (there.is_some(), kept.is_some());
    // What a local write has left since is newer, unless the rule says otherwise.
    let kept = kept.filter(|kept| match &there {
        Some(row) => versions.is_in_row() && is_newer(kept, row, versions.tie()),
        None => !tombstones
            .iter()
            .any(|delete| is_newer(delete, kept, versions.tie())),
    });
    Ok(HeldKey {
        row: has_row,
        shadow: has_shadow,
        local: Local {
            row: kept.or(there),
            tombstones,
        },
    })
}

/// What tells what a target holds for a key, the row before what remains of it.
pub(in crate::apply) const LOOK: [Statement; 3] = [
    Statement::LockRow,
    Statement::Tombstones,
    Statement::LockShadow,
];

/// The parameters of a look at rivals.
pub(in crate::apply) fn rival_parameters<'a>(
    target: &Target,
    key: &'a KeyValues,
    values: &'a Tuple,
) -> Vec<Option<&'a [u8]>> {
    let mut parameters: Vec<_> = key.iter().map(|value| Some(value.as_ref())).collect();
    parameters.extend(written(target, values));
    parameters
}

/// Reads what looks at rivals found, each row once.
pub(in crate::apply) fn rivals_of(
    origins: &Origins,
    keys: usize,
    outcomes: &[Outcome],
) -> Result<Vec<Rival>, WireError> {
    let mut rivals: Vec<Rival> = Vec::new();
    for row in outcomes.iter().flat_map(|outcome| &outcome.rows) {
        let key: KeyValues = row.iter().take(keys).flatten().cloned().collect();
        if rivals.iter().any(|known| known.key == key) {
            continue;
        }
        let column = |index: usize| row.get(keys + index)?.as_deref();
        rivals.push(Rival {
            key,
            version: origins.version(column(0), column(1))?,
            own: column(2) == Some(b"true"),
        });
    }
    Ok(rivals)
}

/// Takes the lock under which shadows are made and return.
pub(in crate::apply) fn lock_statement() -> Sql {
    "select mmrepl.lock_shadows($1)".into()
}

/// Moves a row of the table aside; `version` is the row's.
pub(in crate::apply) fn push_aside(
    batch: &mut Batch<'_>,
    target: &Target,
    key: &KeyValues,
    (version, target_node): (Option<&Version>, &str),
) -> Result<(), WireError> {
    let key: Vec<Option<&[u8]>> = key.iter().map(|value| Some(value.as_ref())).collect();
    let time = version.map(|version| version.time.to_string());
    let node = version.map_or(target_node, |version| version.node.as_str());
    let mut parameters = key.clone();
    parameters.extend([time.as_ref().map(String::as_bytes), Some(node.as_bytes())]);
    batch.push(target.sql(Statement::PushAside), &parameters)?;
    batch.push(target.sql(Statement::Delete), &key)?;
    push_forget(batch, target, &key, time.as_deref())
}

/// The delete of a row that is kept aside left a tombstone, which is not one of the key.
pub(in crate::apply) fn push_forget(
    batch: &mut Batch<'_>,
    target: &Target,
    key: &[Option<&[u8]>],
    time: Option<&str>,
) -> Result<(), WireError> {
    let mut parameters = key.to_vec();
    parameters.push(Some(time.unwrap_or("-infinity").as_bytes()));
    batch.push(target.sql(Statement::ForgetTombstone), &parameters)
}

impl Applier {
    /// From now on this transaction alone makes shadows in the table.
    async fn lock_shadows(&mut self, target: &Target) -> Result<(), ApplyError> {
        let oid = target.map.table.oid;
        if self.locked.insert(oid) {
            let oid = oid.to_string();
            self.run_one(&lock_statement(), &[Some(oid.as_bytes())], Some(target))
                .await?;
        }
        Ok(())
    }

    /// Rows settled together are not written in the source's order. Where one of them wants
    /// a unique value that another row has, only that order tells whether the two ever met.
    pub(in crate::apply) async fn refuse_rivals(
        &mut self,
        writes: Vec<&RowChange>,
    ) -> Result<(), ApplyError> {
        let mut batch = self.session.batch();
        for row in writes {
            let RowOp::Put(put) = &row.op else { continue };
            let parameters = rival_parameters(&row.target, &row.key, &put.values);
            for sql in row.target.rivals(Look::Glance) {
                batch
                    .push(sql, &parameters)
                    .map_err(|source| failed(&row.target, source))?;
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        let looked = batch.run().await;
        let looked = looked.map_err(|error| ApplyError::target(error.error, None))?;
        if looked.iter().any(|outcome| !outcome.rows.is_empty()) {
            return Err(ApplyError::Overtaken);
        }
        Ok(())
    }

    /// Settles one change of a table with unique values.
    pub(in crate::apply) async fn settle_unique(
        &mut self,
        row: &RowChange,
    ) -> Result<(), ApplyError> {
        self.lock_shadows(&row.target).await?;
        let mut held = self.look_unique(row).await?;
        if self
            .wait_for_inserts(std::iter::once((row, &held.local)))
            .await?
        {
            held = self.look_unique(row).await?;
        }
        let decision = decide(row, &held.local, &self.source);
        let record = self.record(row, &held.local, decision.verdict()).await;
        match (decision, &row.op) {
            (Decision::Overtaken, _) => Err(ApplyError::Overtaken),
            (Decision::Discard, _) => self.write_unique(row, record, |_| Ok(())).await,
            (_, RowOp::Delete(_)) => self.remove(row, &held, record).await,
            (_, RowOp::Put(put)) => self.claim(row, put, &held, record).await,
        }
    }

    async fn look_unique(&mut self, row: &RowChange) -> Result<HeldKey, ApplyError> {
        let mut batch = self.session.batch();
        for statement in LOOK {
            let pushed = batch.push(row.target.sql(statement), &keyed(row));
            pushed.map_err(|source| failed(&row.target, source))?;
        }
        let outcomes = run(batch, &row.target).await?;
        held(&row.target, &self.origins, &outcomes).map_err(|source| failed(&row.target, source))
    }

    async fn remove(
        &mut self,
        row: &RowChange,
        held: &HeldKey,
        record: Option<Record>,
    ) -> Result<(), ApplyError> {
        let statement = if held.row {
            Statement::LeaveTombstone
        } else {
            leaving(row, &held.local.tombstones, &self.source)
        };
        let act = |batch: &mut Batch<'_>| {
            if held.row {
                batch.push(row.target.sql(Statement::Delete), &keyed(row))?;
            }
            if !held.row || row.target.versions().is_in_row() {
                push_leaving(batch, row, statement)?;
            }
            drop_shadow(batch, row, held)
        };
        self.write_unique(row, record, act).await
    }

    /// Writes a row whose key it has won, or keeps it aside.
    async fn claim(
        &mut self,
        row: &RowChange,
        put: &Put,
        held: &HeldKey,
        record: Option<Record>,
    ) -> Result<(), ApplyError> {
        let map = &row.target.map;
        let Some(values) = self.fetcher.complete(map, &row.key, put).await? else {
            // The source has deleted the row since; that delete is on its way. See `settle`.
            let leave = |batch: &mut Batch<'_>| match held.local.row {
                None => push_leaving(batch, row, Statement::LeaveNeededTombstone),
                Some(_) => Ok(()),
            };
            return self.write_unique(row, record, leave).await;
        };
        let rivals = self.rivals(row, &values).await?;
        let version = Version {
            time: row.time,
            node: self.source.clone(),
        };
        let versions: Vec<_> = rivals.iter().map(|rival| rival.version.clone()).collect();
        match claim(&version, &versions) {
            Claim::Admitted => {
                let (verdict, of) = (Verdict::Apply, rivals.iter());
                let records = self.unique_records(row, &values, verdict, of);
                self.admit(row, (&values, held), &rivals, (record, records))
                    .await
            }
            Claim::Blocked(by) => {
                let (verdict, of) = (Verdict::Discard, rivals[by..=by].iter());
                let records = self.unique_records(row, &values, verdict, of);
                self.keep_aside(row, (&values, held), (record, records))
                    .await
            }
        }
    }

    /// The row's rivals in the table, their rows locked.
    async fn rivals(&mut self, row: &RowChange, values: &Tuple) -> Result<Vec<Rival>, ApplyError> {
        let target = &row.target;
        let parameters = rival_parameters(target, &row.key, values);
        let mut batch = self.session.batch();
        for sql in target.rivals(Look::Lock) {
            batch
                .push(sql, &parameters)
                .map_err(|source| failed(target, source))?;
        }
        let outcomes = run(batch, target).await?;
        let rivals = rivals_of(&self.origins, row.key.len(), &outcomes);
        let mut rivals = rivals.map_err(|source| failed(target, source))?;
        for rival in rivals.iter_mut().filter(|rival| rival.own) {
            // An earlier change of the same transaction, which this one follows.
            rival.version = Some(Version {
                time: row.time,
                node: self.source.clone(),
            });
        }
        Ok(rivals)
    }

    /// Counts conflicts over unique values; gives the records of them, unless there are too many.
    fn unique_records<'a>(
        &mut self,
        row: &RowChange,
        values: &Tuple,
        verdict: Verdict,
        rivals: impl Iterator<Item = &'a Rival>,
    ) -> Vec<Record> {
        let mut records = Vec::new();
        for rival in rivals {
            let Some(version) = &rival.version else {
                continue;
            };
            if version.node == self.source || row.seen.includes(version) {
                continue;
            }
            self.counts.conflicts += 1;
            if self.ledger.take(&row.target) {
                let rival = (&rival.key, version);
                records.push(Record::unique(values.clone(), verdict, rival));
            }
        }
        records
    }

    async fn admit(
        &mut self,
        row: &RowChange,
        (values, held): (&Tuple, &HeldKey),
        rivals: &[Rival],
        (record, records): (Option<Record>, Vec<Record>),
    ) -> Result<(), ApplyError> {
        let node = self.origins.target().clone();
        let act = |batch: &mut Batch<'_>| {
            for rival in rivals {
                let version = (rival.version.as_ref(), node.as_str());
                push_aside(batch, &row.target, &rival.key, version)?;
            }
            drop_shadow(batch, row, held)?;
            push_write(batch, row, values, held.row)
        };
        let records = record.into_iter().chain(records);
        self.write_unique(row, records, act).await?;
        if !held.row {
            self.note_inserted(std::iter::once(row));
        }
        Ok(())
    }

    async fn keep_aside(
        &mut self,
        row: &RowChange,
        (values, held): (&Tuple, &HeldKey),
        (record, records): (Option<Record>, Vec<Record>),
    ) -> Result<(), ApplyError> {
        let (names, values) = incoming_arrays(&row.target, values);
        let (time, node) = (row.time.to_string(), self.source.clone());
        let act = |batch: &mut Batch<'_>| {
            let mut parameters = keyed(row);
            parameters.extend([Some(names.as_slice()), Some(values.as_slice())]);
            parameters.extend([Some(time.as_bytes()), Some(node.as_str().as_bytes())]);
            batch.push(row.target.sql(Statement::KeepAside), &parameters)?;
            if held.row {
                batch.push(row.target.sql(Statement::Delete), &keyed(row))?;
            }
            push_forget(batch, &row.target, &keyed(row), Some(&time))
        };
        self.write_unique(row, record.into_iter().chain(records), act)
            .await
    }

    /// Writes records, which copy what is there, and then acts.
    async fn write_unique(
        &mut self,
        row: &RowChange,
        records: impl IntoIterator<Item = Record>,
        act: impl FnOnce(&mut Batch<'_>) -> Result<(), WireError>,
    ) -> Result<(), ApplyError> {
        let nodes = (self.source.as_str(), self.origins.target().as_str());
        let mut batch = self.session.batch();
        for record in records {
            Self::push_record(&mut batch, nodes, row, &record)
                .map_err(|source| failed(&row.target, source))?;
        }
        act(&mut batch).map_err(|source| failed(&row.target, source))?;
        run(batch, &row.target).await.map(drop)
    }
}

fn drop_shadow(batch: &mut Batch<'_>, row: &RowChange, held: &HeldKey) -> Result<(), WireError> {
    if held.shadow {
        batch.push(row.target.sql(Statement::DropShadow), &keyed(row))?;
    }
    Ok(())
}

fn push_write(
    batch: &mut Batch<'_>,
    row: &RowChange,
    values: &Tuple,
    exists: bool,
) -> Result<(), WireError> {
    let target = &row.target;
    if exists && !sets_identity(row) {
        let put = Put {
            values: values.clone(),
            insert: false,
            moved: false,
        };
        let (sql, columns) = update_of(target, &put, UpdateGuard::Decided);
        let mut parameters = keyed(row);
        let value = |index: &usize| crate::apply::encode::params::value(&put.values.0[*index]);
        parameters.extend(columns.iter().map(value));
        return batch.push(&sql, &parameters);
    }
    if exists {
        batch.push(target.sql(Statement::Delete), &keyed(row))?;
    }
    batch.push(target.sql(Statement::Insert), &written(target, values))
}

/// Runs a batch about one table.
pub(in crate::apply) async fn run(
    batch: Batch<'_>,
    target: &Target,
) -> Result<Vec<Outcome>, ApplyError> {
    batch
        .run()
        .await
        .map_err(|error| failed(target, error.error))
}

pub(in crate::apply) fn failed(target: &Target, source: WireError) -> ApplyError {
    ApplyError::target(source, Some(target.map.label()))
}
