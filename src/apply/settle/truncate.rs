//! TRUNCATE: every row older than it goes, rows written later on another node stay.

use std::sync::Arc;

use crate::apply::error::ApplyError;
use crate::apply::plan::change::Stamp;
use crate::apply::send::transaction::Applier;
use crate::apply::sql;
use crate::apply::target::statement::{Statement, Target};
use crate::error::Retryable;
use crate::wire::Outcome;

/// SQLSTATE of "cannot truncate a table referenced in a foreign key constraint" (0A000).
const FEATURE_NOT_SUPPORTED: &str = "0A000";

impl Applier {
    /// Applies a truncate.
    ///
    /// The tables are locked first, so no row can be written between the look and the act.
    pub(in crate::apply) async fn truncate(
        &mut self,
        targets: &[Arc<Target>],
        stamp: &Stamp,
    ) -> Result<(), ApplyError> {
        // Where rows carry their version, the deletes of all of them came first.
        let by_time = targets
            .iter()
            .filter(|target| !target.versions().is_in_row());
        let targets: Vec<Arc<Target>> = by_time.cloned().collect();
        if targets.is_empty() {
            return Ok(());
        }
        self.open().await?;
        let maps: Vec<_> = targets.iter().map(|target| &target.map).collect();
        self.run_one(&sql::truncate::lock_tables(&maps), &[], None)
            .await?;
        let time = stamp.time.to_string();
        let mut emptied = Vec::new();
        for target in &targets {
            // A newer truncate counts too: emptied again, the table would forget when.
            let spares_rows = self.record_truncate(target, stamp).await?;
            if self.truncate_shadows(target, &time).await? || spares_rows {
                self.delete_older(target, &time).await?;
            } else {
                emptied.push(target);
            }
        }
        self.empty(&emptied, &time).await
    }

    /// Forgets older shadows; tells whether some are newer and stay.
    async fn truncate_shadows(&mut self, target: &Target, time: &str) -> Result<bool, ApplyError> {
        if !target.has_rivals() {
            return Ok(false);
        }
        let source = self.source.clone();
        let parameters = [Some(time.as_bytes()), Some(source.as_str().as_bytes())];
        let forget = target.sql(Statement::DropOlderShadows);
        self.run_one(forget, &parameters, Some(target)).await?;
        let count = target.sql(Statement::NewerShadows);
        let left = self.run_one(count, &parameters, Some(target)).await?;
        let left = left.get::<u64>(0, 0, "how many rows kept aside are newer");
        let left = left.map_err(|source| ApplyError::target(source, Some(target.map.label())))?;
        Ok(left > 0)
    }

    async fn delete_older(&mut self, target: &Target, time: &str) -> Result<(), ApplyError> {
        let parameters = [Some(time.as_bytes())];
        let delete = sql::truncate::delete_older(&target.map, target.guard());
        self.run_one(&delete, &parameters, Some(target)).await?;
        let remember = sql::truncate::leave_table_tombstone(&target.map, target.guard());
        self.run_one(&remember, &parameters, Some(target))
            .await
            .map(drop)
    }

    /// Truncates; where a foreign key of another table forbids it, deletes the same rows.
    async fn empty(&mut self, targets: &[&Arc<Target>], time: &str) -> Result<(), ApplyError> {
        let maps: Vec<_> = targets.iter().map(|target| &target.map).collect();
        if maps.is_empty() {
            return Ok(());
        }
        self.run_one("savepoint before_truncate", &[], None).await?;
        match self
            .run_one(&sql::truncate::truncate(&maps), &[], None)
            .await
        {
            Ok(_) => {
                let release = "release savepoint before_truncate";
                return self.run_one(release, &[], None).await.map(drop);
            }
            Err(ApplyError::Target { source, .. })
                if source.sqlstate() == Some(FEATURE_NOT_SUPPORTED) => {}
            Err(other) => return Err(other),
        }
        self.run_one("rollback to savepoint before_truncate", &[], None)
            .await?;
        for target in targets {
            self.delete_older(target, time).await?;
        }
        Ok(())
    }

    /// Runs one statement in a round trip of its own.
    pub(in crate::apply) async fn run_one(
        &mut self,
        sql: &str,
        parameters: &[Option<&[u8]>],
        target: Option<&Target>,
    ) -> Result<Outcome, ApplyError> {
        let failed = |source| ApplyError::target(source, target.map(|t| t.map.label()));
        let mut batch = self.session.batch();
        batch.push(&sql.into(), parameters).map_err(failed)?;
        let mut outcomes = batch.run().await.map_err(|error| failed(error.error))?;
        Ok(outcomes.pop().unwrap_or_default())
    }
}
