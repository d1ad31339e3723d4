//! One round: rows are looked at on every node, decided, and written where they are to be.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::aim::{Aim, failed};
use super::decide::{NodeState, Rule, Winner, decide};
use crate::apply::{ApplyError, KeyState, Mend, MendedTable, Mender, Source};
use crate::error::{RetryClass, Retryable};
use crate::verify::error::VerifyError;
use crate::verify::report::{Action, Repair};
use crate::verify::scan::{Seen, Side, Suspect};

/// Keys that are looked at, and written, together.
const KEYS_AT_ONCE: usize = 500;
/// SQLSTATEs of a unique value that another row has.
const TAKEN: [&str; 2] = ["23505", "23P01"];
const CHANGED: &str = "somebody wrote the row meanwhile: run the command again";
const ASIDE: &str = "a row of this key is kept aside until a unique value comes free";

/// One round over rows of one table.
pub(super) struct Round<'a, 's> {
    aim: &'a Aim,
    sides: &'a [Side<'s>],
    menders: &'a mut [Mender],
    tables: &'a Tables,
}

/// The table, by the node that has a row and the node that gets it.
pub(super) type Tables = Vec<Vec<Arc<MendedTable>>>;

/// Rows that are written on one node in one transaction: they have one version.
type Group = (usize, usize, Source);

/// A row to be written, and its place among the suspects.
struct Job {
    at: usize,
    mend: Mend,
    /// The row that counts, as it was read.
    identity: Option<String>,
}

/// What came of some rows of a group.
enum Written {
    Done,
    Changed,
    Failed(ApplyError),
}

impl<'a, 's> Round<'a, 's> {
    pub(super) fn new(
        aim: &'a Aim,
        sides: &'a [Side<'s>],
        (menders, tables): (&'a mut [Mender], &'a Tables),
    ) -> Self {
        Self {
            aim,
            sides,
            menders,
            tables,
        }
    }

    /// Settles the rows; says of each what became of it.
    pub(super) async fn run(&mut self, suspects: &[Suspect]) -> Result<Vec<Repair>, VerifyError> {
        let mut told = Vec::with_capacity(suspects.len());
        for chunk in suspects.chunks(KEYS_AT_ONCE) {
            told.extend(self.chunk(chunk).await?);
        }
        Ok(told)
    }

    async fn chunk(&mut self, suspects: &[Suspect]) -> Result<Vec<Repair>, VerifyError> {
        if self.tables[0][0].merges() {
            let refused =
                Repair::refused("rows of this table merge: write it again on one node".to_owned());
            return Ok(vec![refused; suspects.len()]);
        }
        let states = self.states(suspects).await?;
        let mut contents = Vec::new();
        for side in self.sides {
            contents.push(side.look(suspects, false).await?);
        }
        let (mut told, mut groups) = (Vec::new(), BTreeMap::<Group, Vec<Job>>::new());
        for (at, suspect) in suspects.iter().enumerate() {
            let states: Vec<&KeyState> = states.iter().map(|of_node| &of_node[at]).collect();
            let seen: Vec<&Option<Seen>> = contents.iter().map(|of_node| &of_node[at]).collect();
            told.push(self.settle((at, suspect), &states, &seen, &mut groups));
        }
        if !self.aim.dry_run {
            for (group, jobs) in groups {
                self.write(&group, jobs, &mut told).await?;
            }
        }
        Ok(told)
    }

    /// What every node has of the keys, by node.
    async fn states(&mut self, suspects: &[Suspect]) -> Result<Vec<Vec<KeyState>>, VerifyError> {
        let keys: Vec<_> = suspects.iter().map(key_of).collect();
        let mut states = Vec::new();
        for (place, mender) in self.menders.iter_mut().enumerate() {
            let looked = mender.look(&self.tables[place][place], &keys).await;
            states.push(looked.map_err(failed(&self.aim.nodes[place]))?);
        }
        Ok(states)
    }

    /// Decides one key, and puts what is to be written into `groups`.
    fn settle(
        &self,
        (at, suspect): (usize, &Suspect),
        states: &[&KeyState],
        seen: &[&Option<Seen>],
        groups: &mut BTreeMap<Group, Vec<Job>>,
    ) -> Repair {
        let identity = |seen: &Option<Seen>| seen.as_ref().map(|seen| seen.identity.clone());
        let read = |state: &KeyState| state.row.as_ref().map(|row| row.identity.clone());
        let mut both = states.iter().zip(seen);
        if both.any(|(state, seen)| read(state) != identity(seen)) {
            return Repair::later(CHANGED);
        }
        if states.iter().any(|state| state.aside) {
            return Repair {
                kept_aside: true,
                ..Repair::later(ASIDE)
            };
        }
        let rows = states.iter().zip(seen);
        let rows = rows.map(|(state, seen)| NodeState {
            state,
            content: seen.as_ref().map(|seen| seen.content),
        });
        let rows: Vec<NodeState<'_>> = rows.collect();
        let winner = match decide(&rows, self.rule()) {
            Ok(winner) => winner,
            Err(undecided) => {
                return Repair {
                    undecided: true,
                    ..Repair::refused(undecided.to_string())
                };
            }
        };
        let content = rows[winner.place].content;
        let others = (0..rows.len()).filter(|place| rows[*place].content != content);
        let others: Vec<usize> = others.collect();
        for place in &others {
            let (source, job) = job((at, suspect), states, (&winner, *place), self.aim);
            let group = (*place, winner.place, source);
            groups.entry(group).or_default().push(job);
        }
        let name = |place: usize| self.aim.nodes[place].clone();
        let action = winner.delete.map_or(Action::Write, |_| Action::Delete);
        Repair::planned(
            name(winner.place),
            action,
            others.into_iter().map(name).collect(),
        )
    }

    fn rule(&self) -> Rule<'a> {
        let table = &self.tables[0][0];
        Rule {
            name: table.rule(),
            tie: table.tie(),
            nodes: &self.aim.nodes,
            from: self.aim.from,
        }
    }

    /// Writes the rows of a group, and tells what did not come of them.
    async fn write(
        &mut self,
        group: &Group,
        jobs: Vec<Job>,
        told: &mut [Repair],
    ) -> Result<(), VerifyError> {
        let jobs: Vec<&Job> = jobs.iter().collect();
        if let (Written::Done, true) = (self.together(group, &jobs).await?, jobs.len() > 1) {
            return Ok(());
        }
        for job in jobs {
            let written = self.alone(group, job).await?;
            note(&mut told[job.at], written);
        }
        Ok(())
    }

    /// One row; where another row has one of its unique values, it is kept aside.
    async fn alone(&mut self, group: &Group, job: &Job) -> Result<Written, VerifyError> {
        let (to, from, source) = group;
        let written = self.together(group, &[job]).await?;
        let Written::Failed(error) = &written else {
            return Ok(written);
        };
        let table = Arc::clone(&self.tables[*from][*to]);
        let is_taken = error.sqlstate().is_some_and(|state| TAKEN.contains(&state));
        if !is_taken || !table.keeps_aside() || job.mend.row.is_none() {
            return Ok(written);
        }
        let kept = self.menders[*to].put_aside(&table, source, &job.mend).await;
        self.written(*to, kept)
    }

    /// All these rows in one transaction, or none.
    async fn together(&mut self, group: &Group, jobs: &[&Job]) -> Result<Written, VerifyError> {
        let (to, from, source) = group;
        let table = Arc::clone(&self.tables[*from][*to]);
        let mends: Vec<Mend> = jobs.iter().map(|job| job.mend.clone()).collect();
        let still = match self.menders[*to].begin(&table, source, &mends).await {
            Ok(still) => still,
            Err(error) => return self.written(*to, Err(error)),
        };
        let held = if still.contains(&true) {
            self.hold(*from, jobs).await
        } else {
            Ok(Vec::new())
        };
        let written = match held {
            Ok(held) => {
                let kept = still.iter().zip(held).zip(&mends);
                let kept = kept.filter(|((still, held), _)| **still && *held);
                let kept: Vec<&Mend> = kept.map(|(_, mend)| mend).collect();
                let all = kept.len() == mends.len();
                if kept.is_empty() {
                    self.menders[*to].release().await.map(|()| false)
                } else {
                    let written = self.menders[*to].finish(&table, source, &kept).await;
                    written.map(|written| written && all)
                }
            }
            Err(error) => {
                let released = self.menders[*to].release().await;
                released.and(Err(error))
            }
        };
        let released = self.menders[*from].release().await;
        released.map_err(failed(&self.aim.nodes[*from]))?;
        self.written(*to, written)
    }

    /// Keeps the rows that count from being deleted while they are written where they are missing:
    /// a delete that arrives there first would find nothing to delete.
    async fn hold(&mut self, from: usize, jobs: &[&Job]) -> Result<Vec<bool>, ApplyError> {
        let is_missing = |job: &&Job| job.mend.row.is_some() && job.mend.judged.row.is_none();
        let missing: Vec<_> = jobs.iter().filter(|job| is_missing(job)).collect();
        let keys: Vec<_> = missing.iter().map(|job| &job.mend.key).collect();
        if keys.is_empty() {
            return Ok(vec![true; jobs.len()]);
        }
        let table = Arc::clone(&self.tables[from][from]);
        let mut held = self.menders[from].hold(&table, &keys).await?.into_iter();
        let stays = |job: &&Job| !is_missing(job) || held.next().flatten() == job.identity;
        Ok(jobs.iter().map(stays).collect())
    }

    /// What a result comes to: a lost connection ends the repair.
    fn written(&self, to: usize, result: Result<bool, ApplyError>) -> Result<Written, VerifyError> {
        match result {
            Ok(true) => Ok(Written::Done),
            Ok(false) => Ok(Written::Changed),
            Err(error) => {
                let is_lost = matches!(error, ApplyError::Target { .. })
                    && error.sqlstate().is_none()
                    && error.retry_class() == RetryClass::Transient;
                if is_lost {
                    return Err(failed(&self.aim.nodes[to])(error));
                }
                Ok(Written::Failed(error))
            }
        }
    }
}

/// What became of a row on one node.
fn note(told: &mut Repair, written: Written) {
    match written {
        Written::Done => {}
        Written::Changed => told.why_not = Some(CHANGED.to_owned()),
        Written::Failed(error) => {
            told.is_final = error.retry_class() == RetryClass::Definite;
            told.why_not = Some(error.to_string());
        }
    }
}

/// The table as every node's rows are written on every other one.
pub(super) fn tables(sides: &[Side<'_>], menders: &[Mender]) -> Result<Tables, ApplyError> {
    let into = |from: &Side<'_>| {
        let tables = menders.iter().zip(sides).map(|(mender, to)| {
            let (from, to) = (from.compared, to.compared);
            let table = mender.table(from.table, to.table, from.columns);
            table.map(Arc::new)
        });
        tables.collect::<Result<Vec<_>, _>>()
    };
    sides.iter().map(into).collect()
}

fn key_of(suspect: &Suspect) -> Vec<bytes::Bytes> {
    let values = suspect.key.iter().cloned();
    values.map(bytes::Bytes::from).collect()
}

/// What is written on the node at `place`, and as whose write.
fn job(
    (at, suspect): (usize, &Suspect),
    states: &[&KeyState],
    (winner, place): (&Winner, usize),
    aim: &Aim,
) -> (Source, Job) {
    let row = match winner.delete {
        None => states[winner.place].row.as_ref(),
        Some(_) => None,
    };
    let held = winner.delete.as_ref().or(row.map(|row| &row.held));
    let source = Source {
        node: aim.nodes[winner.place].clone(),
        version: held.and_then(|held| held.version.clone()),
        asked: winner.asked,
    };
    let mend = Mend {
        key: key_of(suspect),
        judged: states[place].local(),
        row: row.map(|row| row.values.clone()),
        rank: held.and_then(|held| held.rank.clone()),
    };
    let identity = row.map(|row| row.identity.clone());
    (source, Job { at, mend, identity })
}
