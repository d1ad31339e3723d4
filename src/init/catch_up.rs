//! Waits until a link has delivered what its source wrote.

use std::time::{Duration, Instant};

use super::session::Session;
use super::undelivered;
use super::work::Work;
use super::{InitError, Progress};
use crate::catalog::names::literal;
use crate::catalog::position::read_position;
use crate::catalog::wal::flushed;
use crate::ids::LinkName;
use crate::lineage::gather::make_witness;
use crate::lsn::Lsn;

/// How long a copy waits for its source to apply what other nodes wrote before.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);
/// A shorter wait is not worth a word.
const TOLD_AFTER: Duration = Duration::from_secs(1);
/// Between two looks at the position.
const CATCH_UP_POLL: Duration = Duration::from_millis(100);
/// WAL without anything for a link after which its daemon moves the position; see `link`.
const IDLE_WAL_BYTES: usize = 1024 * 1024 + 4096;

/// Waits until the link has delivered what its source wrote up to `point`, or has nothing to
/// deliver and nobody who would.
pub(super) async fn wait_for(
    work: &Work<'_>,
    link: &LinkName,
    point: Lsn,
    progress: &mut dyn Progress,
) -> Result<(), InitError> {
    let target = work.session(&link.to);
    let began = Instant::now();
    let (mut nudged, mut told) = (false, false);
    loop {
        let position = read_position(&target.client, &link.from).await;
        let position = position.map_err(InitError::catalog(target.name()))?;
        if position.is_some_and(|position| position.end_lsn >= point) {
            return Ok(());
        }
        if !undelivered::is_streaming(work.config, link, work.sessions).await? {
            return undelivered::refuse(work.config, link, work.sessions).await;
        }
        if !nudged {
            nudge(work, link).await?;
            nudged = true;
        }
        if !told && began.elapsed() > TOLD_AFTER {
            told = true;
            progress.waiting(&format!(
                "{}: waiting until link {link} has delivered what {} had written, for {} s at most",
                link.to,
                link.from,
                CATCH_UP_MAX.as_secs()
            ));
        }
        if began.elapsed() > CATCH_UP_MAX {
            return Err(InitError::Behind {
                node: link.to.clone(),
                source_node: link.from.clone(),
            });
        }
        tokio::time::sleep(CATCH_UP_POLL).await;
    }
}

/// The position of a link moves with what it delivers, and past WAL without anything for it once
/// there is enough: so there is enough.
async fn nudge(work: &Work<'_>, link: &LinkName) -> Result<(), InitError> {
    let Ok(node) = work.config.node(&link.from) else {
        return Ok(());
    };
    // Its own session may be in the copy's transaction.
    let session = Session::open(work.config, node).await;
    let session = session.map_err(InitError::wire(&link.from, "connect"))?;
    let sql = format!(
        "select pg_catalog.pg_logical_emit_message(false, 'mmrepl_idle', pg_catalog.repeat({}, {IDLE_WAL_BYTES}))",
        literal(" ")
    );
    session.batch("let the link go on", &sql).await?;
    // Its commit flushes the message.
    let made = make_witness(&session.client, link).await;
    made.map_err(InitError::catalog(&link.from))?;
    let reached = flushed(&session.client).await;
    reached.map(drop).map_err(InitError::catalog(&link.from))
}
