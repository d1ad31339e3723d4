//! Settling keys under rule `custom`: lock, look at all of it, call the function, write.

use std::collections::BTreeSet;

use crate::apply::encode::params;
use crate::apply::error::ApplyError;
use crate::apply::plan::change::RowChange;
use crate::apply::plan::custom::{Taken, meta, take};
use crate::apply::send::transaction::Applier;
use crate::apply::settle::ordered::{Act, failed, push, supersede};
use crate::apply::settle::record::{Record, incoming_arrays};
use crate::apply::shape::op::{Put, RowOp};
use crate::apply::sql::custom::{shown, unknown_columns};
use crate::apply::sql::merging::ROW_COLUMNS;
use crate::apply::target::statement::{Statement, Target};
use crate::apply::write::pending;
use crate::apply::write::push::keyed;
use crate::conflict::{Local, Rank, Sibling, Siblings, Verdict};
use crate::ids::NodeName;
use crate::pgoutput::{Tuple, Value};
use crate::wire::{Batch, Outcome, WireError};

/// What the target has for a key.
struct Found {
    local: Local,
    row: Option<Tuple>,
    kept: Vec<Sibling<Tuple>>,
}

impl Found {
    /// The row, else the tombstone, as a write.
    fn holds(&self) -> Option<Sibling<Tuple>> {
        let known = self.local.known();
        let version = match (&self.row, known) {
            (None, None) => return None,
            (_, known) => known.unwrap_or_else(Rank::knowing_nothing),
        };
        let row = self.row.clone();
        Some(Sibling { version, row })
    }
}

/// What is written for one key.
struct Step<'a> {
    change: &'a RowChange,
    record: Option<Record>,
    /// The change, or what the function made of it and of what it did not know.
    written: RowChange,
    act: Act,
    /// What is kept beside the row, where it is not the only write.
    siblings: Option<Siblings<Tuple>>,
    /// Whether something was kept before.
    had_siblings: bool,
}

impl Applier {
    /// Joins each change with what the target has for its key. No key comes twice.
    pub(in crate::apply) async fn settle_custom(
        &mut self,
        rows: &[&RowChange],
    ) -> Result<(), ApplyError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut found = self.look_with_siblings(rows).await?;
        let unlocked = unlocked(rows, &found);
        if !unlocked.is_empty() {
            self.keep_inserts_away(&unlocked).await?;
            found = self.look_with_siblings(rows).await?;
        }
        let mut steps = Vec::with_capacity(rows.len());
        for (change, found) in rows.iter().zip(found) {
            if let Some(taken) = take(change, found.holds(), found.kept.clone()) {
                steps.push(self.step(change, &found, taken).await?);
            }
        }
        self.carry_out_steps(&steps).await
    }

    /// What becomes of a key that has a new write.
    async fn step<'a>(
        &mut self,
        change: &'a RowChange,
        found: &Found,
        taken: Taken,
    ) -> Result<Step<'a>, ApplyError> {
        if matches!(&change.op, RowOp::Put(put) if !put.is_whole()) {
            let table = change.target.map.label();
            return Err(ApplyError::NotWhole { table });
        }
        let record = if taken.is_conflict {
            self.record_merge(change, &found.local)
        } else {
            None
        };
        let only = taken.siblings.only();
        let is_alone = only.is_some();
        let written = match only {
            Some(only) if change.rank.is_some() => written(change, only.clone()),
            Some(_) => change.clone(),
            None => self.fold(change, &taken.siblings).await?,
        };
        Ok(Step {
            act: act_of(&written, found.row.as_ref()),
            change,
            record,
            written,
            siblings: (!is_alone).then_some(taken.siblings),
            had_siblings: !found.kept.is_empty(),
        })
    }

    /// Counts a conflict; gives the record of it unless there are too many.
    fn record_merge(&mut self, change: &RowChange, local: &Local) -> Option<Record> {
        self.counts.conflicts += 1;
        if !self.ledger.take(&change.target) {
            return None;
        }
        let rival = pending::rival(change, local, self.origins.target());
        let known = local.known();
        let has_row = local.row.is_some();
        let rivals = (&rival, known.as_ref());
        Some(Record::new(change, Verdict::Merge, rivals, has_row))
    }

    /// The change with what the function makes of all siblings, and with what they know.
    async fn fold(
        &mut self,
        change: &RowChange,
        siblings: &Siblings<Tuple>,
    ) -> Result<RowChange, ApplyError> {
        let rule = change.target.versions().rule();
        let nodes = rule.places().unwrap_or_default().to_vec();
        let mut sides = siblings.in_order(&nodes).into_iter();
        let first = sides.next().map(|(_, sibling)| sibling.clone());
        let mut folded = first.unwrap_or_else(|| crate::apply::plan::custom::of_change(change));
        for (_, side) in sides {
            if folded.row.is_some() || side.row.is_some() {
                folded.row = self.call(change, (&folded, side), &nodes).await?;
            }
            folded.version = folded.version.joined(&side.version);
        }
        Ok(written(change, folded))
    }

    /// What the function makes of two sides; nothing where it deletes the row.
    async fn call(
        &mut self,
        change: &RowChange,
        (a, b): (&Sibling<Tuple>, &Sibling<Tuple>),
        nodes: &[NodeName],
    ) -> Result<Option<Tuple>, ApplyError> {
        let target = &change.target;
        let a_image = self.image(change, a.row.as_ref()).await?;
        let b_image = self.image(change, b.row.as_ref()).await?;
        let told = meta(&target.map.label(), [&a.version, &b.version], nodes);
        let arguments = [a_image.as_deref(), b_image.as_deref(), Some(&told)];
        let arguments = arguments.map(|text| text.map(str::as_bytes));
        let returned = self
            .ask(change, Statement::CallFunction, &arguments)
            .await?;
        let result = returned.text(0, 0).filter(|text| *text != "null");
        let Some(result) = result else {
            return Ok(None);
        };
        let bad = |what: String| ApplyError::BadResult {
            table: target.map.label(),
            function: function_of(target),
            what,
        };
        let unknown = unknown_columns(&target.map, result);
        let unknown = unknown.ok_or_else(|| bad("no JSON object".to_owned()))?;
        if let Some(name) = unknown.first() {
            return Err(bad(format!(
                "a column \"{name}\" that the table does not have"
            )));
        }
        let mut parameters = vec![Some(result.as_bytes())];
        parameters.extend(keyed(change));
        let row = self
            .ask(change, Statement::FunctionResult, &parameters)
            .await?;
        let row = row.rows.first().map(|row| values_of(row));
        row.map(Some)
            .ok_or_else(|| bad("another key than that of the rows it was given".to_owned()))
    }

    /// A row as the function sees it.
    async fn image(
        &mut self,
        change: &RowChange,
        row: Option<&Tuple>,
    ) -> Result<Option<String>, ApplyError> {
        let Some(row) = row else { return Ok(None) };
        let target = &change.target;
        let columns = shown(&target.map, target.versions());
        let values: Vec<_> = columns
            .map(|(index, _)| params::value(&row.0[index]))
            .collect();
        let image = self.ask(change, Statement::Image, &values).await?;
        let image = image.get(0, 0, "a row as JSON");
        image.map(Some).map_err(|source| failed(change, source))
    }

    /// Runs one statement around the function; what fails is the function's.
    async fn ask(
        &mut self,
        change: &RowChange,
        statement: Statement,
        parameters: &[Option<&[u8]>],
    ) -> Result<Outcome, ApplyError> {
        let target = &change.target;
        let failed = |source: WireError| ApplyError::Function {
            table: target.map.label(),
            function: function_of(target),
            source: Box::new(source),
        };
        let mut batch = self.session.batch();
        batch
            .push(target.sql(statement), parameters)
            .map_err(failed)?;
        let mut outcomes = batch.run().await.map_err(|error| failed(error.error))?;
        Ok(outcomes.swap_remove(0))
    }

    async fn look_with_siblings(&mut self, rows: &[&RowChange]) -> Result<Vec<Found>, ApplyError> {
        const EACH: [Statement; 3] = [
            Statement::LockRow,
            Statement::Tombstones,
            Statement::Siblings,
        ];
        let mut batch = self.session.batch();
        for row in rows {
            let key = keyed(row);
            for statement in EACH {
                batch
                    .push(row.target.sql(statement), &key)
                    .map_err(|source| failed(row, source))?;
            }
        }
        let outcomes = batch.run().await.map_err(|error| {
            let row = error.index.and_then(|index| rows.get(index / EACH.len()));
            ApplyError::target(error.error, row.map(|row| row.target.map.label()))
        })?;
        let found = rows.iter().zip(outcomes.chunks(EACH.len()));
        let found = found.map(|(row, answers)| {
            let there = answers[0].rows.first();
            Ok(Found {
                local: self.local(row, &answers[..2])?,
                row: there.map(|row| values_of(&row[ROW_COLUMNS..])),
                kept: kept(&row.target, &answers[2]).map_err(|source| failed(row, source))?,
            })
        });
        found.collect()
    }

    async fn carry_out_steps(&mut self, steps: &[Step<'_>]) -> Result<(), ApplyError> {
        let mut owners = Vec::with_capacity(steps.len());
        let nodes = (self.source.as_str(), self.origins.target().as_str());
        let mut batch = self.session.batch();
        for step in steps {
            if let Some(record) = &step.record {
                // First: it copies the row that is there.
                Self::push_record(&mut batch, nodes, step.change, record)
                    .map_err(|source| failed(step.change, source))?;
            }
            push(&mut batch, &step.written, &step.act)
                .and_then(|()| supersede(&mut batch, &step.written, &step.act))
                .and_then(|()| push_siblings(&mut batch, step))
                .map_err(|source| failed(step.change, source))?;
            owners.resize(batch.len(), step.change);
        }
        batch.run().await.map_err(|error| {
            let row = error.index.and_then(|index| owners.get(index));
            ApplyError::target(error.error, row.map(|row| row.target.map.label()))
        })?;
        let inserted = steps
            .iter()
            .filter(|step| matches!(step.act, Act::Insert(_)));
        self.note_inserted(inserted.map(|step| &step.written));
        Ok(())
    }
}

/// Tables in which a key without a row gets a tombstone, or may: no row is locked then, and another
/// link or a local insert may be about to write the key.
fn unlocked(rows: &[&RowChange], found: &[Found]) -> BTreeSet<u32> {
    let may_bury = |(change, found): &(&&RowChange, &Found)| {
        let deletes = matches!(change.op, RowOp::Delete(_));
        let taken = || take(change, found.holds(), found.kept.clone());
        let strangers = || taken().is_some_and(|taken| taken.siblings.only().is_none());
        found.row.is_none() && (deletes || strangers())
    };
    let rows = rows.iter().zip(found).filter(may_bury);
    rows.map(|(change, _)| change.target.map.table.oid)
        .collect()
}

/// The change with this row and version in place of its own.
fn written(change: &RowChange, write: Sibling<Tuple>) -> RowChange {
    let op = match (write.row, change.target.versions().index()) {
        (Some(mut values), Some(index)) => {
            values.values_mut()[index] = Value::Text(write.version.to_string().into());
            RowOp::Put(Put {
                values,
                insert: false,
                moved: false,
            })
        }
        _ => RowOp::Delete(None),
    };
    RowChange {
        op,
        rank: Some(write.version),
        ..change.clone()
    }
}

fn act_of(written: &RowChange, there: Option<&Tuple>) -> Act {
    match (&written.op, there) {
        (RowOp::Delete(_), Some(_)) => Act::Delete,
        (RowOp::Delete(_), None) => Act::LeaveTombstone(Statement::LeaveTombstone),
        (RowOp::Put(put), None) => Act::Insert(put.values.clone()),
        (RowOp::Put(put), Some(there)) if sets_identity(written, &put.values, there) => {
            Act::Replace(put.values.clone())
        }
        (RowOp::Put(put), Some(_)) => Act::Overwrite(put.clone()),
    }
}

/// True when a value changes that only an insert may set.
fn sets_identity(written: &RowChange, values: &Tuple, there: &Tuple) -> bool {
    let columns = written.target.map.columns.iter();
    let mut columns = columns.zip(values.0.iter().zip(there.0.iter()));
    columns.any(|(column, (new, old))| column.identity_always && !column.in_key && new != old)
}

fn function_of(target: &Target) -> String {
    let custom = target.versions().rule().custom();
    custom.map_or_else(String::new, ToString::to_string)
}

fn values_of(row: &[Option<bytes::Bytes>]) -> Tuple {
    let value = |value: &Option<bytes::Bytes>| {
        let copied = value.as_deref().map(bytes::Bytes::copy_from_slice);
        copied.map_or(Value::Null, Value::Text)
    };
    Tuple(row.iter().map(value).collect())
}

/// The siblings as the statement told them, in the order of the source's columns.
fn kept(target: &Target, outcome: &Outcome) -> Result<Vec<Sibling<Tuple>>, WireError> {
    let what = "a write that is kept beside others";
    let sibling = |row: usize| {
        let version = outcome.get(row, 0, what)?;
        let list = |column| -> Result<Option<Vec<Option<String>>>, WireError> {
            let text: Option<String> = outcome.optional(row, column, what)?;
            let list = text.map(|text| serde_json::from_str(&text)).transpose();
            list.map_err(|_| WireError::Unreadable { what })
        };
        let row = list(1)?.zip(list(2)?).map(|(names, values)| {
            let columns = target.map.columns.iter().map(|column| {
                let is_it = |name: &Option<String>| name.as_ref() == Some(&column.name);
                let place = names.iter().position(is_it)?;
                values.get(place)?.clone()
            });
            let value =
                |value: Option<String>| value.map_or(Value::Null, |text| Value::Text(text.into()));
            Tuple(columns.map(value).collect())
        });
        Ok(Sibling { version, row })
    };
    (0..outcome.rows.len()).map(sibling).collect()
}

/// Pushes the statements that keep the siblings of a key, and forget those it had.
fn push_siblings(batch: &mut Batch<'_>, step: &Step<'_>) -> Result<(), WireError> {
    let target = &step.change.target;
    if step.had_siblings {
        batch.push(target.sql(Statement::DropSiblings), &keyed(step.change))?;
    }
    let Some(siblings) = &step.siblings else {
        return Ok(());
    };
    let nodes = target.versions().rule().places().unwrap_or_default();
    for (node, sibling) in siblings.in_order(nodes) {
        let version = sibling.version.to_string();
        let row = sibling.row.as_ref();
        let (names, values) = row.map(|row| incoming_arrays(target, row)).unzip();
        let mut parameters = keyed(step.change);
        parameters.extend([
            Some(node.as_bytes()),
            Some(version.as_bytes()),
            names.as_deref(),
            values.as_deref(),
        ]);
        batch.push(target.sql(Statement::KeepSibling), &parameters)?;
    }
    Ok(())
}
