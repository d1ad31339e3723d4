//! A row that is to be mended, and the statements that do it.

use std::sync::Arc;

use crate::apply::encode::params::array_literal;
use crate::apply::plan::change::RowChange;
use crate::apply::send::returner::OLDEST;
use crate::apply::settle::ordered::{Act, sets_identity};
use crate::apply::settle::record::incoming_arrays;
use crate::apply::settle::unique::push_forget;
use crate::apply::shape::mapping::KeyValues;
use crate::apply::shape::op::{Put, RowOp};
use crate::apply::sql;
use crate::apply::target::statement::{Sql, Statement, Target, Whole};
use crate::apply::write::push::written;
use crate::commit_time::CommitTime;
use crate::conflict::{Held, Local, Made, Rank, Tie, Version};
use crate::ids::NodeName;
use crate::pgoutput::{Tuple, Value};
use crate::wire::{Batch, WireError};

/// What a mended row is in the history.
const KIND: &str = "repair";
/// The rule in the history where a person has said whose row counts.
pub(super) const ASKED: &str = "from";
/// The rule in the history where rows of a table without a key are put back.
const BAG: &str = "bag";

/// A table whose rows are written with the values that another node has.
#[derive(Debug)]
pub struct MendedTable {
    pub(super) target: Arc<Target>,
    pub(super) look: Sql,
    pub(super) hold: Sql,
    pub(super) aside: Sql,
    /// The statements that record a mended row: where versions decided, and where a person did.
    pub(super) records: [Sql; 2],
}

/// A row as a node has it.
#[derive(Clone, Debug)]
pub struct RowImage {
    /// The shared columns.
    pub values: Tuple,
    /// Its version.
    pub held: Held,
    /// What tells this version of the row from every other on its node.
    pub identity: String,
    /// Its table was rewritten, and nobody knows when the row was written.
    pub forged: bool,
}

/// What a node has of a key.
#[derive(Clone, Debug, Default)]
pub struct KeyState {
    /// The row.
    pub row: Option<RowImage>,
    /// The memory of deletes that cover the key.
    pub tombstones: Vec<Held>,
    /// A row of the key is kept aside.
    pub aside: bool,
}

/// What a key is to become on a node.
#[derive(Clone, Debug)]
pub struct Mend {
    /// The key.
    pub key: KeyValues,
    /// What the node had when that was decided.
    pub judged: Local,
    /// The row that it gets; nothing where its row goes.
    pub row: Option<Tuple>,
    /// The version in the row, or of the delete, where the table keeps one there.
    pub rank: Option<Rank>,
}

/// A row of a table without a key, which a node has too rarely or too often.
#[derive(Clone, Debug)]
pub struct BagMend {
    /// The row.
    pub row: Tuple,
    /// How many of it come, or where negative go.
    pub more: i64,
}

/// The write that rows are mended to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// The node that has it.
    pub node: NodeName,
    /// When and where it was made, as far as that is known.
    pub version: Option<Version>,
    /// A person has said that it counts.
    pub asked: bool,
}

impl Source {
    pub(super) fn writer(&self) -> &NodeName {
        let version = self.version.as_ref();
        version.map_or(&self.node, |version| &version.node)
    }

    pub(super) fn time(&self) -> String {
        let version = self.version.as_ref();
        version.map_or_else(|| OLDEST.to_owned(), |version| version.time.to_string())
    }
}

impl KeyState {
    /// As the rules see it.
    pub fn local(&self) -> Local {
        Local {
            row: self.row.as_ref().map(|row| row.held.clone()),
            tombstones: self.tombstones.clone(),
        }
    }
}

impl MendedTable {
    /// What decides between equal versions.
    pub fn tie(&self) -> Tie {
        self.target.versions().tie()
    }

    /// Whether rows are told apart by their keys.
    pub fn has_key(&self) -> bool {
        self.target.map.key.is_some()
    }

    /// Whether rows merge.
    pub fn merges(&self) -> bool {
        self.target.versions().merging().is_some()
    }

    /// The name of the table's rule.
    pub fn rule(&self) -> &'static str {
        self.target.versions().rule().name()
    }

    /// Whether a row with a unique value that another row has may be kept aside.
    pub fn keeps_aside(&self) -> bool {
        self.target.has_rivals()
    }
}

pub(super) fn parameters(key: &KeyValues) -> Vec<Option<&[u8]>> {
    key.iter().map(|value| Some(value.as_ref())).collect()
}

pub(super) fn value(value: Option<&[u8]>) -> Value {
    let copied = value.map(bytes::Bytes::copy_from_slice);
    copied.map_or(Value::Null, Value::Text)
}

/// Pushes what locks rows and tells what is there, two statements each.
pub(super) fn push_locks(
    batch: &mut Batch<'_>,
    target: &Target,
    mends: &[Mend],
) -> Result<(), WireError> {
    for mend in mends {
        let key = parameters(&mend.key);
        for statement in [Statement::LockRow, Statement::Tombstones] {
            batch.push(target.sql(statement), &key)?;
        }
    }
    Ok(())
}

/// The change that the mended row comes to.
pub(super) fn change(target: &Arc<Target>, mend: &Mend, source: &Source) -> RowChange {
    let (op, made) = match &mend.row {
        Some(values) => {
            let put = Put {
                values: values.clone(),
                insert: mend.judged.row.is_none(),
                moved: false,
            };
            (RowOp::Put(put), Made::Insert)
        }
        None => (RowOp::Delete(None), Made::Delete),
    };
    let version = source.version.as_ref();
    let time = version.map_or(CommitTime::default(), |version| version.time);
    RowChange {
        target: Arc::clone(target),
        key: mend.key.clone(),
        op,
        made,
        seen: Arc::default(),
        time,
        since: time,
        rank: mend.rank.clone(),
        writes: Vec::new(),
    }
}

/// How the row is written.
pub(super) fn act(mend: &Mend, change: &RowChange) -> Act {
    match &change.op {
        RowOp::Delete(_) => Act::Delete,
        RowOp::Put(put) if mend.judged.row.is_none() => Act::Insert(put.values.clone()),
        RowOp::Put(put) if sets_identity(change) => Act::Replace(put.values.clone()),
        RowOp::Put(put) => Act::Overwrite(put.clone()),
    }
}

/// Pushes the statement that records what is replaced, which copies it.
pub(super) fn push_record(
    batch: &mut Batch<'_>,
    table: &MendedTable,
    (source, here): (&Source, &NodeName),
    (mend, change): (&Mend, &RowChange),
) -> Result<(), WireError> {
    let local = mend.judged.row.as_ref();
    let version = local.and_then(|held| held.version.as_ref());
    let local_time = version.map(|version| version.time.to_string());
    let local_node = version.map(|version| version.node.as_str());
    let key = array_literal(change.key.iter().map(|value| Some(value.as_ref())));
    let incoming = mend.row.as_ref();
    let (names, values) = incoming
        .map(|row| incoming_arrays(&table.target, row))
        .unzip();
    let ranks = [
        mend.rank.as_ref(),
        local.and_then(|held| held.rank.as_ref()),
    ];
    let ranks = ranks.map(|rank| rank.map(ToString::to_string));
    let time = source.time();
    let mut parameters = vec![
        Some(source.node.as_str().as_bytes()),
        Some(here.as_str().as_bytes()),
        Some(key.as_slice()),
        Some(KIND.as_bytes()),
        Some(b"applied".as_slice()),
        names.as_deref(),
        values.as_deref(),
        Some(time.as_bytes()),
        local_time.as_ref().map(String::as_bytes),
        local_node.map(str::as_bytes),
        ranks[0].as_ref().map(String::as_bytes),
        ranks[1].as_ref().map(String::as_bytes),
        Some(if local.is_some() { b"true" } else { b"false" }),
    ];
    debug_assert_eq!(parameters.len(), sql::history::RECORD_PARAMETERS);
    parameters.extend(change.key.iter().map(|value| Some(value.as_ref())));
    batch.push(&table.records[usize::from(source.asked)], &parameters)
}

/// Pushes the statements that record and write a row of a table without a key, so often.
pub(super) fn push_bag(
    batch: &mut Batch<'_>,
    target: &Target,
    (source, here): (&Source, &NodeName),
    mend: &BagMend,
) -> Result<(), WireError> {
    let record = sql::mend::record_bag(&target.map).into();
    let (names, values) = incoming_arrays(target, &mend.row);
    let row = [Some(names.as_slice()), Some(values.as_slice())];
    let (comes, goes) = if mend.more > 0 {
        (row, [None; 2])
    } else {
        ([None; 2], row)
    };
    let rule = if source.asked { ASKED } else { BAG };
    let time = source.time();
    let mut parameters = vec![
        Some(source.node.as_str().as_bytes()),
        Some(here.as_str().as_bytes()),
        Some(KIND.as_bytes()),
        Some(rule.as_bytes()),
    ];
    parameters.extend(comes);
    parameters.push(Some(time.as_bytes()));
    parameters.extend(goes);
    let sql = if mend.more > 0 {
        Arc::clone(target.sql(Statement::Insert))
    } else {
        target.whole(Whole::Delete, &mend.row)
    };
    let row = written(target, &mend.row);
    for _ in 0..mend.more.unsigned_abs() {
        batch.push(&record, &parameters)?;
        batch.push(&sql, &row)?;
    }
    Ok(())
}

/// Pushes what keeps the mended row aside; the row that is there goes.
pub(super) fn push_aside(
    batch: &mut Batch<'_>,
    (target, values): (&Target, &Tuple),
    (source, mend): (&Source, &Mend),
) -> Result<(), WireError> {
    let (names, texts) = incoming_arrays(target, values);
    let version = source.version.as_ref();
    let time = version.map(|version| version.time.to_string());
    let mut parameters = parameters(&mend.key);
    parameters.extend([Some(names.as_slice()), Some(texts.as_slice())]);
    let node = source.writer().as_str();
    parameters.extend([time.as_ref().map(String::as_bytes), Some(node.as_bytes())]);
    batch.push(target.sql(Statement::KeepAside), &parameters)?;
    let key: Vec<Option<&[u8]>> = mend.key.iter().map(|v| Some(v.as_ref())).collect();
    if mend.judged.row.is_some() {
        batch.push(target.sql(Statement::Delete), &key)?;
    }
    push_forget(batch, target, &key, time.as_deref())
}
