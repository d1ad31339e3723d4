//! From durable on the target to confirmed: the position is remembered first.

use tokio::sync::watch;

use super::error::LinkError;
use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::failpoint::failpoint;
use crate::ids::LinkName;
use crate::lsn::Lsn;

/// Saves every durable position, then lets the reader confirm it.
///
/// Positions that come while one is being saved are skipped in favour of the latest.
pub(super) async fn run(
    link: LinkName,
    checkpoints: Checkpoints,
    identity: Checkpoint,
    mut durable: watch::Receiver<Lsn>,
    confirmed: watch::Sender<Lsn>,
) -> Result<(), LinkError> {
    while durable.changed().await.is_ok() {
        let position = *durable.borrow_and_update();
        failpoint("after_durable");
        checkpoints
            .save(
                &link,
                Checkpoint {
                    position,
                    ..identity.clone()
                },
            )
            .await?;
        failpoint("after_checkpoint");
        confirmed.send_replace(position);
    }
    Ok(())
}
