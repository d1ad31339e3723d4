//! From durable on the target to confirmed: the position is remembered first.

use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::Client;

use super::error::LinkError;
use crate::catalog::position::{Witness, read_position};
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
    (mut durable, witness): (watch::Receiver<Lsn>, watch::Receiver<Option<Witness>>),
    confirmed: watch::Sender<Lsn>,
) -> Result<(), LinkError> {
    while durable.changed().await.is_ok() {
        let position = *durable.borrow_and_update();
        let witness = *witness.borrow();
        failpoint("after_durable");
        checkpoints
            .save(
                &link,
                Checkpoint {
                    position,
                    witness,
                    ..identity.clone()
                },
            )
            .await?;
        failpoint("after_checkpoint");
        confirmed.send_replace(position);
    }
    Ok(())
}

/// How often a newer transaction stands for what was applied.
const WITNESS_EVERY: Duration = Duration::from_secs(5);

/// Keeps the witness that is remembered with positions fresh, for as long as it is polled.
pub(super) async fn renew_witness(
    link: &LinkName,
    target: &Client,
    witness: watch::Sender<Option<Witness>>,
) {
    loop {
        tokio::time::sleep(WITNESS_EVERY).await;
        let position = read_position(target, &link.from).await;
        // Whoever cannot be asked now is asked again; an older witness stands for less.
        if let Ok(Some(position)) = position
            && position.witness.is_some()
        {
            witness.send_replace(position.witness);
        }
    }
}
