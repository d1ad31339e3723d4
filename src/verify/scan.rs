//! Reading a table on one node: once by groups of rows, and again the rows of groups that differ.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use tokio_postgres::{Client, Row};

use super::columns::Compared;
use super::error::AskError;
use super::sql::{self, Part};
use crate::catalog::CatalogError;
use crate::catalog::names::qualified;
use crate::ids::NodeName;
use crate::wire::{RowExt, each};

/// No statement reads more pages than these, so that none holds back vacuum for long: 1 GB.
const PAGES_MAX: i64 = 131_072;
/// With a share of the time, statements are shorter: 64 MB.
const PAGES_MAX_SHARED: i64 = 8_192;
/// Rows of a group, roughly, and how many groups there are.
const GROUP_ROWS: i64 = 64;
const GROUPS_MIN: u32 = 1 << 10;
const GROUPS_MAX: u32 = 1 << 18;

/// One node's side of a table.
pub(super) struct Side<'a> {
    pub(super) node: &'a NodeName,
    pub(super) client: &'a Client,
    pub(super) compared: Compared<'a>,
    pub(super) parts: Vec<Part>,
    /// Which share of the time is spent reading.
    pub(super) share: f64,
}

/// Of each group how many rows there are, and the sum of their hashes.
pub(super) type Groups = HashMap<i32, (i64, i128)>;

/// What holds a table's rows.
pub(super) struct Layout {
    pub(super) parts: Vec<Part>,
    /// How many rows the server believes there are.
    pub(super) rows: i64,
}

/// Asks in which parts a table is read.
pub(super) async fn layout(
    client: &Client,
    compared: &Compared<'_>,
    share: f64,
) -> Result<Layout, CatalogError> {
    let rows = client.query(sql::RELATIONS, &[&compared.table.oid]).await;
    let rows = rows.map_err(CatalogError::query("look at a table's partitions"))?;
    let relation = |row: &Row| {
        let (schema, name): (&str, &str) = (row.read(0)?, row.read(1)?);
        let pages: i64 = row.read(2)?;
        let known: i64 = row.read(3)?;
        Ok((qualified(schema, name), pages, known, row.read::<bool>(4)?))
    };
    let relations: Vec<(String, i64, i64, bool)> = each(&rows, relation)?;
    let known: i64 = relations.iter().map(|(_, _, rows, _)| rows).sum();
    let may_read = relations.iter().all(|(_, _, _, may)| *may);
    let parts = if may_read && !relations.is_empty() {
        let most = if share < 1.0 {
            PAGES_MAX_SHARED
        } else {
            PAGES_MAX
        };
        let parts = relations
            .iter()
            .map(|(name, pages, ..)| split(name, *pages, most));
        parts.flatten().collect()
    } else {
        vec![Part {
            relation: compared.table.only(),
            pages: None,
        }]
    };
    Ok(Layout { parts, rows: known })
}

fn split(name: &str, pages: i64, most: i64) -> Vec<Part> {
    let relation = format!("only {name}");
    if pages <= most {
        return vec![Part {
            relation,
            pages: None,
        }];
    }
    let step = usize::try_from(most).unwrap_or(1);
    let starts = (0..pages).step_by(step);
    let part = |first: i64| {
        let end = first + most;
        Part {
            relation: relation.clone(),
            // Pages that are added meanwhile belong to the last part.
            pages: Some((first, (end < pages).then_some(end))),
        }
    };
    starts.map(part).collect()
}

/// How many groups a table of so many rows falls into: a power of two.
pub(super) fn group_count(rows: i64) -> u32 {
    let wanted = u32::try_from(rows / GROUP_ROWS).unwrap_or(GROUPS_MAX);
    wanted.clamp(GROUPS_MIN, GROUPS_MAX).next_power_of_two()
}

impl Side<'_> {
    fn failed(&self) -> impl FnOnce(CatalogError) -> AskError {
        let node = self.node.clone();
        move |source| AskError { node, source }
    }

    /// Reads all rows by groups.
    pub(super) async fn groups(&self, count: u32) -> Result<Groups, AskError> {
        let mut groups = Groups::new();
        for part in &self.parts {
            let began = Instant::now();
            let sql = sql::groups(&self.compared, part, count);
            let read = self.group_part(&sql, &mut groups).await;
            read.map_err(self.failed())?;
            self.rest(began.elapsed()).await;
        }
        Ok(groups)
    }

    async fn group_part(&self, sql: &str, groups: &mut Groups) -> Result<(), CatalogError> {
        for row in self.client.query(sql, &[]).await.map_err(reading())? {
            let sum: i128 = CatalogError::parse("a sum of hashes", row.read(2)?)?;
            let group = groups.entry(row.read(0)?).or_default();
            *group = (group.0 + row.read::<i64>(1)?, group.1.wrapping_add(sum));
        }
        Ok(())
    }

    /// Reads the rows of these groups: for each hash of the key, hash of the row and key.
    pub(super) async fn rows(
        &self,
        (chosen, count): (&[i32], u32),
        mut take: impl FnMut(i64, i64, Vec<String>),
    ) -> Result<(), AskError> {
        for part in &self.parts {
            let began = Instant::now();
            let sql = sql::rows(&self.compared, part, count);
            let read = self.rows_of(&sql, chosen, &mut take).await;
            read.map_err(self.failed())?;
            self.rest(began.elapsed()).await;
        }
        Ok(())
    }

    async fn rows_of(
        &self,
        sql: &str,
        chosen: &[i32],
        take: &mut impl FnMut(i64, i64, Vec<String>),
    ) -> Result<(), CatalogError> {
        let rows = self
            .client
            .query_raw(sql, [chosen])
            .await
            .map_err(reading())?;
        let mut rows = std::pin::pin!(rows);
        while let Some(row) = rows.try_next().await.map_err(reading())? {
            take(row.read(0)?, row.read(1)?, row.read(2)?);
        }
        Ok(())
    }

    /// Leaves the server to others for the rest of the time.
    async fn rest(&self, worked: Duration) {
        if self.share < 1.0 {
            tokio::time::sleep(worked.mul_f64(1.0 / self.share - 1.0)).await;
        }
    }

    /// What these suspects are now, in their order.
    pub(super) async fn look(
        &self,
        suspects: &[Suspect],
        shown: bool,
    ) -> Result<Vec<Option<Seen>>, AskError> {
        let looked = match sql::by_key(&self.compared, shown) {
            Some(sql) => self.look_by_key(&sql, suspects).await,
            None => self.look_by_hash(suspects, shown).await,
        };
        looked.map_err(self.failed())
    }

    /// Which of these suspects wait for a person here.
    pub(super) async fn waiting(&self, suspects: &[Suspect]) -> Result<HashSet<usize>, AskError> {
        let Some(sql) = sql::waiting(&self.compared) else {
            return Ok(HashSet::new());
        };
        let read = async {
            let rows = self.client.query_raw(&sql, &key_arrays(suspects)).await;
            let mut rows = std::pin::pin!(rows.map_err(reading())?);
            let mut waiting = HashSet::new();
            while let Some(row) = rows.try_next().await.map_err(reading())? {
                waiting.extend(usize::try_from(row.read::<i64>(0)? - 1));
            }
            Ok(waiting)
        };
        read.await.map_err(self.failed())
    }

    async fn look_by_key(
        &self,
        sql: &str,
        suspects: &[Suspect],
    ) -> Result<Vec<Option<Seen>>, CatalogError> {
        let arrays = key_arrays(suspects);
        let rows = self
            .client
            .query_raw(sql, &arrays)
            .await
            .map_err(reading())?;
        let mut rows = std::pin::pin!(rows);
        let mut seen = vec![None; suspects.len()];
        while let Some(row) = rows.try_next().await.map_err(reading())? {
            let place: i64 = row.read(0)?;
            let place = usize::try_from(place - 1).unwrap_or(usize::MAX);
            if let Some(seen) = seen.get_mut(place) {
                *seen = Some(read_seen(&row, 1)?);
            }
        }
        Ok(seen)
    }

    async fn look_by_hash(
        &self,
        suspects: &[Suspect],
        shown: bool,
    ) -> Result<Vec<Option<Seen>>, CatalogError> {
        let sql = sql::by_hash(&self.compared, shown);
        let hashes: Vec<i64> = suspects.iter().map(|suspect| suspect.hash).collect();
        let rows = self
            .client
            .query(&sql, &[&hashes])
            .await
            .map_err(reading())?;
        let found = |row: &Row| Ok((row.read::<i64>(0)?, read_seen(row, 1)?));
        let found: Vec<(i64, Seen)> = each(&rows, found)?;
        let found: HashMap<i64, Seen> = found.into_iter().collect();
        Ok(hashes.iter().map(|hash| found.get(hash).cloned()).collect())
    }
}

/// One array for each column of the key.
fn key_arrays(suspects: &[Suspect]) -> Vec<Vec<&str>> {
    let columns = suspects.first().map_or(0, |suspect| suspect.key.len());
    let column = |at: usize| -> Vec<&str> {
        let values = suspects.iter().map(|suspect| suspect.key[at].as_str());
        values.collect()
    };
    (0..columns).map(column).collect()
}

fn reading() -> impl FnOnce(tokio_postgres::Error) -> CatalogError {
    CatalogError::query("read rows to compare them")
}

fn read_seen(row: &Row, from: usize) -> Result<Seen, crate::wire::Unread> {
    let mut seen = Seen {
        content: row.read(from)?,
        identity: row.read(from + 1)?,
        shown: None,
    };
    if row.len() > from + 2 {
        seen.shown = Some(Shown {
            values: row.read(from + 2)?,
            written_at: row.read(from + 3)?,
            written_by: row.read(from + 4)?,
        });
    }
    Ok(seen)
}

/// A row that may differ.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Suspect {
    /// The texts of its key's columns; empty in a table without a key.
    pub(super) key: Vec<String>,
    /// The hash of the row, for a table without a key.
    pub(super) hash: i64,
    /// In a table without a key how often each node has the row, once that is judged.
    pub(super) counts: Vec<i64>,
}

/// A row as a node has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// The hash of its values; in a table without a key how many such rows there are.
    pub(super) content: i64,
    /// What tells this version of the row from every other.
    pub(super) identity: String,
    /// For people.
    pub(super) shown: Option<Shown>,
}

/// What people see of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) values: Vec<Option<String>>,
    pub(super) written_at: Option<String>,
    pub(super) written_by: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_split_without_a_gap() {
        let pages = |parts: Vec<Part>| -> Vec<_> { parts.iter().map(|part| part.pages).collect() };
        assert_eq!(pages(split("t", 10, 10)), [None]);
        assert_eq!(
            pages(split("t", 25, 10)),
            [Some((0, Some(10))), Some((10, Some(20))), Some((20, None))]
        );
    }

    #[test]
    fn groups_are_a_power_of_two() {
        assert_eq!(group_count(0), GROUPS_MIN);
        assert_eq!(group_count(1_000_000), 16_384);
        assert_eq!(group_count(i64::MAX), GROUPS_MAX);
    }
}
