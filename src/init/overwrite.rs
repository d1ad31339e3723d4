//! `--copy-from`: the rows of one node replace those of others, with writers busy on all of them.
//!
//! What a node that is overwritten has written and not delivered would be gone there and still
//! arrive elsewhere. So its tables are locked against writes first, and the copied node must have
//! applied everything that the other one has before its snapshot is taken. What it still has
//! alone then is kept in its history ([`overwritten`](super::overwritten)).

use std::time::Duration;

use super::catch_up::wait_for;
use super::copy::{self, Stamp};
use super::planned::Plan;
use super::rows::{all_tables, copy_in_transaction, open_snapshot};
use super::session::{self, Session};
use super::slots::{self, MadeSlots};
use super::step::Step;
use super::undelivered;
use super::work::Work;
use super::{InitError, Progress};
use crate::catalog::position::read_position;
use crate::config::Config;
use crate::error::Retryable;
use crate::ids::{LinkName, NodeName, slot_name};
use crate::lsn::Lsn;

/// A daemon whose link is stopped takes the origin for a moment whenever it looks again.
const ORIGIN_TRIES: u32 = 50;
/// Between two tries.
const ORIGIN_PAUSE: Duration = Duration::from_millis(100);

/// A node that is about to be overwritten: its copy's transaction is open, its tables locked.
pub(super) struct Locked {
    pub(super) node: NodeName,
    /// Where its WAL stood when nobody could write to its tables any more.
    pub(super) at: Lsn,
}

/// Looks at everything that a copy needs, before anything is changed: no daemon may apply to a node
/// that is overwritten from the copied one, and what cannot be delivered is named.
pub(super) async fn check(
    config: &Config,
    plan: &Plan,
    from: &NodeName,
    sessions: &[Session],
) -> Result<(), InitError> {
    for work in &plan.links {
        let session = session::of(sessions, &work.link.from);
        let slot = slot_name(&config.cluster, &work.link.to);
        if let Some(pid) = slots::user(session, &slot).await? {
            return Err(InitError::InUse {
                node: work.link.from.clone(),
                what: format!("the replication slot of {} (by process {pid})", work.link),
                daemon: work.link.from.clone(),
            });
        }
    }
    for to in &plan.copy_to {
        let session = session::of(sessions, to);
        enter_origin(config, session, from).await?;
        leave_origin(session).await?;
        let link = LinkName {
            from: to.clone(),
            to: from.clone(),
        };
        if plan.links.iter().all(|work| work.link != link) {
            undelivered::refuse(config, &link, sessions).await?;
        }
    }
    Ok(())
}

/// Takes the origin, which a daemon with a stopped link may hold for a moment.
async fn enter_origin(
    config: &Config,
    target: &Session,
    source: &NodeName,
) -> Result<(), InitError> {
    let mut tries_left = ORIGIN_TRIES;
    loop {
        tries_left -= 1;
        match copy::enter_origin(config, target, source).await {
            Err(InitError::InUse { .. }) if tries_left > 0 => {
                tokio::time::sleep(ORIGIN_PAUSE).await;
            }
            // The first setup makes it.
            Err(InitError::Server { source, .. }) if source.sqlstate() == Some("42704") => {
                return Ok(());
            }
            result => return result,
        }
    }
}

/// Leaves the origin, where it was there to be taken.
pub(super) async fn leave_origin(target: &Session) -> Result<(), InitError> {
    let sql = "select pg_catalog.pg_replication_origin_session_reset()
               where pg_catalog.pg_replication_origin_session_is_setup()";
    target.batch("leave the origin", sql).await
}

/// Opens the copies' transactions and locks the tables of all nodes that are overwritten.
pub(super) async fn lock_all(
    work: &Work<'_>,
    from: &NodeName,
    locked: &mut Vec<Locked>,
) -> Result<(), InitError> {
    for to in &work.plan.copy_to {
        let target = work.session(to);
        enter_origin(work.config, target, from).await?;
        locked.push(Locked {
            node: to.clone(),
            at: Lsn::ZERO,
        });
        lock(work, target).await?;
        let at = flushed_or_later(target).await?;
        if let Some(last) = locked.last_mut() {
            last.at = at;
        }
    }
    Ok(())
}

/// Begins the transaction with all tables locked; tries again a few times where somebody writes.
async fn lock(work: &Work<'_>, target: &Session) -> Result<(), InitError> {
    let tables = work.tables(target.name());
    let mut names: Vec<String> = tables.values().map(|table| table.only()).collect();
    names.sort();
    let begin = if names.is_empty() {
        "begin".to_owned()
    } else {
        let names = names.join(", ");
        format!("begin; lock table {names} in share row exclusive mode")
    };
    let mut tries_left = session::LOCK_TRIES;
    loop {
        tries_left -= 1;
        let locked = target.batch("lock its tables", &begin).await;
        if locked.is_err() {
            target.batch("roll back", "rollback").await?;
        }
        match locked {
            Err(InitError::Locked { .. }) if tries_left > 0 => {}
            result => return result,
        }
    }
}

async fn flushed_or_later(session: &Session) -> Result<Lsn, InitError> {
    let end = crate::catalog::wal::inserted(&session.client).await;
    end.map_err(InitError::catalog(session.name()))
}

/// Ends what [`lock_all`] began, where it was not ended.
pub(super) async fn release(work: &Work<'_>, locked: &[Locked]) -> Result<(), InitError> {
    let mut released = Ok(());
    for Locked { node, .. } in locked {
        let target = work.session(node);
        let ended = target.batch("end the copy", "rollback").await;
        let left = leave_origin(target).await;
        released = released.and(ended).and(left);
    }
    released
}

/// Waits until the copied node has applied everything that the overwritten ones have: their own
/// writes, and what they applied of third nodes. Links that are made anew deliver nothing.
pub(super) async fn wait_delivered(
    work: &Work<'_>,
    from: &NodeName,
    locked: &[Locked],
    progress: &mut dyn Progress,
) -> Result<(), InitError> {
    let kept = |link: &LinkName| work.plan.links.iter().all(|work| work.link != *link);
    for Locked { node, at } in locked {
        for origin in work.sessions.iter().map(Session::name) {
            let link = LinkName {
                from: origin.clone(),
                to: from.clone(),
            };
            if origin == from || !kept(&link) {
                continue;
            }
            let point = if origin == node {
                Some(*at)
            } else {
                let position = read_position(&work.session(node).client, origin).await;
                let position = position.map_err(InitError::catalog(node))?;
                position.map(|position| position.end_lsn)
            };
            if let Some(point) = point {
                wait_for(work, &link, point, progress).await?;
            }
        }
    }
    Ok(())
}

/// Copies every table to every target, each in one transaction with the position row.
pub(super) async fn copy_all(
    work: &Work<'_>,
    from: &NodeName,
    time: &str,
    made: &[MadeSlots],
    progress: &mut dyn Progress,
) -> Result<(), InitError> {
    let source = work.session(from);
    for to in &work.plan.copy_to {
        let Some(slots) = made.iter().find(|slots| slots.node == *from) else {
            continue;
        };
        let Some((link, start)) = slots.starts.iter().find(|(link, _)| link.to == *to) else {
            continue;
        };
        let stamp = Stamp {
            lsn: *start,
            time: time.to_owned(),
        };
        open_snapshot(source, made).await?;
        let copied = copy_to(work, link, &stamp, &slots.known).await;
        source.batch("close the snapshot", "commit").await?;
        let (tables, rows, kept) = copied?;
        let what = format!("copied {rows} row(s) of {tables} table(s) from {from}");
        progress.step(&Step::new(to, what, Vec::new()));
        if kept > 0 {
            let what = format!(
                "kept {kept} overwritten row(s) in the history (mmrepl conflicts list, restore)"
            );
            progress.step(&Step::new(to, what, Vec::new()));
        }
    }
    Ok(())
}

async fn copy_to(
    work: &Work<'_>,
    link: &LinkName,
    stamp: &Stamp,
    known: &slots::Known,
) -> Result<(usize, u64, u64), InitError> {
    let target = work.session(&link.to);
    let counts = copy_in_transaction(work, link, stamp, &all_tables(work)).await?;
    let source = &work.state(&link.from).server;
    slots::write_position(target, source, (link, stamp.lsn), (known, None)).await?;
    target.batch("end the copy", "commit").await?;
    copy::leave_origin(target).await?;
    Ok(counts)
}
