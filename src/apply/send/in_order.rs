//! The careful way: every change of a transaction by itself, in the order the source made them.

use crate::apply::error::ApplyError;
use crate::apply::plan::change::Entry;
use crate::apply::plan::group::entries_of;
use crate::apply::send::transaction::Applier;
use crate::apply::settle::ordered::Own;
use crate::assemble::{Change, Piece};

impl Applier {
    /// Writes the changes of a piece one by one, each under its row's lock.
    pub(in crate::apply) async fn write_in_order(
        &mut self,
        piece: &Piece,
    ) -> Result<(), ApplyError> {
        let respelled = self.respelled(std::slice::from_ref(piece)).await?;
        self.open().await?;
        for (index, change) in piece.changes.iter().enumerate() {
            let stamp = self.stamp_of(piece, index);
            let Some(change) = &self.let_by(piece, change).await? else {
                continue;
            };
            if let Change::Truncate { relations, .. } = change {
                let targets = self.targets(relations).await?;
                self.truncate(&targets, &stamp).await?;
            } else if let Some(relation) = change.relation() {
                let target = self.target(relation).await?;
                let in_place = respelled.in_place(change, &target);
                for entry in entries_of(in_place.as_ref().unwrap_or(change), &target, &stamp)? {
                    self.write_entry(&entry).await?;
                }
            }
        }
        self.mark_skipped(piece).await?;
        self.refuse_deleted(&[]).await
    }

    async fn write_entry(&mut self, entry: &Entry) -> Result<(), ApplyError> {
        match entry {
            Entry::Row(row) if row.target.has_rivals() => self.settle_unique(row).await,
            Entry::Row(row) => self.settle(&[row], Own::Older).await.map(drop),
            Entry::WholeRow(change) => {
                let entry = std::slice::from_ref(entry);
                if self.not_emptied(entry).await?.is_empty() {
                    return Ok(());
                }
                self.write_whole_row(change).await
            }
        }
    }
}
