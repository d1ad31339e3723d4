//! Tables without a key: bags of rows, of which a node has some too rarely or too often.
//!
//! How often each node has a row was judged across a fence. What applications write meanwhile
//! comes to every node alike, so the difference stays what it was: it is added or taken, and
//! nobody waits. A row that some node has more often than another was lost there; only a person
//! can say that it was not.

use std::collections::HashMap;
use std::sync::Arc;

use super::aim::{Aim, failed};
use super::carry::Tables;
use crate::apply::{ApplyError, BagMend, Mender, Source};
use crate::error::Retryable;
use crate::verify::error::VerifyError;
use crate::verify::report::{Action, Repair};
use crate::verify::scan::{Side, Suspect};

/// Rows that are looked for together: each look reads the whole table.
const ROWS_AT_ONCE: usize = 10_000;
/// Nobody has the row any more.
const CHANGED: &str = "somebody wrote the row meanwhile: run the command again";

/// One round over rows of one table without a key.
pub(super) struct Bags<'a, 's> {
    pub(super) aim: &'a Aim,
    pub(super) sides: &'a [Side<'s>],
    pub(super) menders: &'a mut [Mender],
    pub(super) tables: &'a Tables,
}

impl Bags<'_, '_> {
    /// Settles the rows; says of each what became of it.
    pub(super) async fn run(&mut self, suspects: &[Suspect]) -> Result<Vec<Repair>, VerifyError> {
        let mut told = Vec::with_capacity(suspects.len());
        for chunk in suspects.chunks(ROWS_AT_ONCE) {
            let mut chosen: HashMap<usize, Vec<&Suspect>> = HashMap::new();
            for suspect in chunk {
                chosen.entry(self.model(suspect)).or_default().push(suspect);
            }
            let mut said = HashMap::new();
            for (place, suspects) in chosen {
                self.from(place, &suspects, &mut said).await?;
            }
            let of = |suspect: &Suspect| said.remove(&suspect.hash).unwrap_or_default();
            told.extend(chunk.iter().map(of));
        }
        Ok(told)
    }

    /// The node that has the row as often as all are to have it.
    fn model(&self, suspect: &Suspect) -> usize {
        let places = 0..suspect.counts.len();
        let most = places.max_by_key(|place| suspect.counts[*place]);
        self.aim.from.or(most).unwrap_or_default()
    }

    /// Brings the others to what `place` has.
    async fn from(
        &mut self,
        place: usize,
        suspects: &[&Suspect],
        said: &mut HashMap<i64, Repair>,
    ) -> Result<(), VerifyError> {
        let hashes: Vec<i64> = suspects.iter().map(|suspect| suspect.hash).collect();
        let mut rows = HashMap::new();
        // Who is to have none has none to show.
        for (at, mender) in self.menders.iter_mut().enumerate() {
            if at == place || self.aim.from.is_some() {
                let hash = self.sides[at].compared.row_hash();
                let found = mender.bag(&self.tables[at][at], (&hash, &hashes)).await;
                for (hash, row) in found.map_err(failed(&self.aim.nodes[at]))? {
                    rows.entry(hash).or_insert(row);
                }
            }
        }
        for suspect in suspects {
            let Some((row, version)) = rows.remove(&suspect.hash) else {
                said.insert(suspect.hash, Repair::later(CHANGED));
                continue;
            };
            let source = Source {
                node: self.aim.nodes[place].clone(),
                version,
                asked: self.aim.from.is_some(),
            };
            let mut repair = self.planned(place, suspect);
            for (to, count) in suspect.counts.iter().enumerate() {
                let more = suspect.counts[place] - count;
                if more != 0 && !self.aim.dry_run {
                    let row = row.clone();
                    self.write((place, to), &source, BagMend { row, more }, &mut repair)
                        .await?;
                }
            }
            said.insert(suspect.hash, repair);
        }
        Ok(())
    }

    fn planned(&self, place: usize, suspect: &Suspect) -> Repair {
        let wanted = suspect.counts[place];
        let others = (0..suspect.counts.len()).filter(|at| suspect.counts[*at] != wanted);
        let nodes = others.map(|at| self.aim.nodes[at].clone()).collect();
        Repair::planned(self.aim.nodes[place].clone(), Action::Count, nodes)
    }

    async fn write(
        &mut self,
        (from, to): (usize, usize),
        source: &Source,
        mend: BagMend,
        repair: &mut Repair,
    ) -> Result<(), VerifyError> {
        let table = Arc::clone(&self.tables[from][to]);
        match self.menders[to].mend_bag(&table, source, &mend).await {
            Ok(()) => {}
            Err(error) if is_answer(&error) => *repair = Repair::refused(error.to_string()),
            Err(error) => return Err(failed(&self.aim.nodes[to])(error)),
        }
        Ok(())
    }
}

/// The server has said no: its session goes on.
fn is_answer(error: &ApplyError) -> bool {
    error.sqlstate().is_some() || !matches!(error, ApplyError::Target { .. })
}
