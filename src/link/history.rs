//! Whether the histories of a link's two servers agree, and where its stream goes on.

use tokio_postgres::Client;

use super::LinkContext;
use super::error::LinkError;
use super::sessions::{catalog_at, not_set_up, open_control};
use crate::catalog::position::Position;
use crate::catalog::slots::{SlotState, slot_state};
use crate::commit_time::CommitTime;
use crate::lineage::gather::{read_pair, recall, remember};
use crate::lineage::{Advice, Cause, Finding, Known, Pair, Proof, check_slot, judge};
use crate::lsn::Lsn;

/// The slot is ours now; until then it may have become another one of the same name, and the
/// server begins where the slot does, whatever it is asked for.
pub(super) async fn check_begin(
    context: &LinkContext,
    source: &Client,
    (slot, position): (&str, Lsn),
) -> Result<(), LinkError> {
    let begun_at = read_slot(context, source, slot).await?;
    let begins = check_slot(&context.link, (slot, begun_at.as_ref()), position);
    begins.map_err(|cause| Box::new(Finding::of_slot(&context.link, cause)).into())
}

/// What was set up once and is not there now has been lost, or the DSN leads elsewhere: the verdict
/// on both servers says more than that `init` has not been run.
pub(super) async fn explained(context: &LinkContext, error: LinkError) -> LinkError {
    let controls = async {
        let source = open_control(context, &context.source).await?;
        Ok::<_, LinkError>((source, open_control(context, &context.target).await?))
    };
    let Ok((source, target)) = controls.await else {
        return error;
    };
    let Ok(pair) = gather_pair(context, &source, &target).await else {
        return error;
    };
    match judge(&pair) {
        Err(finding) if finding.advice != Advice::Init => finding.into(),
        _ => error,
    }
}

async fn read_slot(
    context: &LinkContext,
    source: &Client,
    name: &str,
) -> Result<Option<SlotState>, LinkError> {
    let slot = slot_state(source, name).await;
    slot.map_err(catalog_at(&context.source.name))
}

/// Both servers' witnesses, and what this daemon remembers.
pub(super) async fn gather_pair(
    context: &LinkContext,
    source: &Client,
    target: &Client,
) -> Result<Pair, LinkError> {
    let pair = read_pair(&context.cluster, &context.link, (source, target)).await;
    let mut pair = pair.map_err(|error| not_set_up(&context.target, error))?;
    if let Some(kept) = context.checkpoints.load(&context.link)? {
        let known = recall(source, &kept).await;
        let known = known.map_err(catalog_at(&context.source.name))?;
        pair.forward.known.push(known);
    }
    Ok(pair)
}

/// Where the stream goes on. What only this daemon knows is left on its server where it matters.
pub(super) async fn agreed_start(
    context: &LinkContext,
    pair: &Pair,
    source: &Client,
) -> Result<Lsn, LinkError> {
    let finding = match judge(pair) {
        Ok(start) => {
            forget_what_is_gone(context, start).await?;
            return Ok(start);
        }
        Err(finding) => finding,
    };
    if let Cause::TargetLost { durable, .. } = finding.cause {
        let began = began(pair.forward.position.as_ref());
        let proof = Proof::Unknown;
        let known = Known {
            durable,
            began,
            proof,
        };
        let kept = remember(source, &context.link, known).await;
        kept.map_err(|error| not_set_up(&context.source, error))?;
    }
    Err(finding.into())
}

/// Where the link goes on before what this daemon remembers, both servers were put back.
async fn forget_what_is_gone(context: &LinkContext, start: Lsn) -> Result<(), LinkError> {
    let kept = context.checkpoints.load(&context.link)?;
    if let Some(kept) = kept.filter(|kept| kept.position > start) {
        let (link, had) = (&context.link, kept.position);
        tracing::warn!(
            %link, %had, %start,
            "both servers were put back to an earlier moment; the link goes on from there"
        );
        context.checkpoints.forget(link).await?;
    }
    Ok(())
}

pub(super) fn began(position: Option<&Position>) -> CommitTime {
    position.map_or_else(CommitTime::default, |position| position.began)
}
