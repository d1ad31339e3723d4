//! Keys that an update spells differently, where only a server can tell whether that makes them
//! other keys: `Ann@x` and `ann@x` are one `citext`, and two texts.
//!
//! The source sends an old key whenever its bytes changed. An update that only spells its key
//! differently changes the row where it is; taken for a move it would delete a key and insert one,
//! and both are the same. So the target is asked once for all such updates of a group, by the
//! equality of the key's own index. Types whose texts tell are not asked about (`Spelling`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::apply::error::ApplyError;
use crate::apply::send::transaction::Applier;
use crate::apply::shape::mapping::KeyValues;
use crate::apply::sql;
use crate::apply::target::statement::Target;
use crate::assemble::{Change, Piece};
use crate::catalog::CatalogError;
use crate::pgoutput::OldImage;
use crate::wire::{RowExt, each};

/// A table's OID, a key before, and after.
type Pair = (u32, KeyValues, KeyValues);

/// The updates of a group that spell their keys differently.
#[derive(Debug, Default)]
pub(in crate::apply) struct Respelled {
    same: HashSet<Pair>,
}

impl Respelled {
    /// The update as one that does not change its key, where it only spells it differently.
    pub(in crate::apply) fn in_place(&self, change: &Change, target: &Target) -> Option<Change> {
        if self.same.is_empty() || !self.same.contains(&pair(change, target)?) {
            return None;
        }
        let Change::Update { relation, old, new } = change else {
            return None;
        };
        let old = match old {
            Some(OldImage::Full(old)) => Some(OldImage::Full(target.map.spelled_as(old, new))),
            _ => None,
        };
        Some(Change::Update {
            relation: Arc::clone(relation),
            old,
            new: new.clone(),
        })
    }
}

/// The keys of an update whose texts do not tell whether they are one.
fn pair(change: &Change, target: &Target) -> Option<Pair> {
    let Change::Update {
        old: Some(old),
        new,
        ..
    } = change
    else {
        return None;
    };
    let map = &target.map;
    if !map.has_open_key() {
        return None;
    }
    let (before, after) = (map.old_key(Some(old), new)?, map.key_of(new)?);
    map.is_open_between(&before, &after)
        .then_some((map.table.oid, before, after))
}

impl Applier {
    /// Asks the target which updates only spell their keys differently.
    pub(in crate::apply) async fn respelled(
        &mut self,
        pieces: &[Piece],
    ) -> Result<Respelled, ApplyError> {
        let mut asked: HashMap<u32, (Arc<Target>, HashSet<Pair>)> = HashMap::new();
        for change in pieces.iter().flat_map(|piece| &piece.changes) {
            let Change::Update {
                relation,
                old: Some(_),
                ..
            } = change
            else {
                continue;
            };
            let target = self.target(relation).await?;
            if let Some(pair) = pair(change, &target) {
                let of_table = asked.entry(pair.0).or_insert((target, HashSet::new()));
                of_table.1.insert(pair);
            }
        }
        let mut same = HashSet::new();
        for (target, pairs) in asked.into_values() {
            let pairs: Vec<Pair> = pairs.into_iter().collect();
            let answers = self.are_one_key(&target, &pairs).await?;
            let equal = pairs.into_iter().zip(answers).filter(|(_, equal)| *equal);
            same.extend(equal.map(|(pair, _)| pair));
        }
        Ok(Respelled { same })
    }

    async fn are_one_key(&self, target: &Target, pairs: &[Pair]) -> Result<Vec<bool>, ApplyError> {
        let columns = pairs.first().map_or(0, |pair| pair.1.len());
        let array = |index: usize, of: fn(&Pair) -> &KeyValues| -> Vec<String> {
            let texts = pairs.iter().map(|pair| &of(pair)[index]);
            texts
                .map(|text| String::from_utf8_lossy(text).into_owned())
                .collect()
        };
        let before = (0..columns).map(|index| array(index, |pair| &pair.1));
        let after = (0..columns).map(|index| array(index, |pair| &pair.2));
        let arrays: Vec<Vec<String>> = before.chain(after).collect();
        let parameters: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = arrays
            .iter()
            .map(|array| array as &(dyn tokio_postgres::types::ToSql + Sync))
            .collect();
        let question = sql::one_row::same_keys(&target.map);
        let rows = self.catalog.query(&question, &parameters).await;
        let rows = rows.map_err(|error| ApplyError::Catalog {
            table: target.map.label(),
            source: Box::new(CatalogError::query("compare keys")(error)),
        })?;
        each(&rows, |row| row.read(0)).map_err(|unread| ApplyError::Catalog {
            table: target.map.label(),
            source: Box::new(unread.into()),
        })
    }
}
