//! The sessions that write beside a link's first: opening them, and ending those of earlier runs.

use tokio_postgres::Client;

use super::LinkContext;
use super::error::LinkError;
use super::sessions::{RUNNING, application_name, end_backends, open_session};
use crate::apply::Origins;
use crate::error::Retryable;
use crate::ids::WORKERS_MAX;
use crate::wire::Session;

/// SQLSTATE `configuration_limit_exceeded`: no room for another origin that is in use.
const LIMIT_EXCEEDED: &str = "53400";

/// The role, in its name, of a session that writes beside the first; `number` counts from 2.
fn worker_role(number: usize) -> String {
    format!("apply {number}")
}

/// Ends sessions of an earlier run that are not needed to go on, but may hold rows.
pub(super) async fn end_left_behind(context: &LinkContext, control: &Client) {
    let workers = (2..=WORKERS_MAX).map(worker_role);
    for role in workers.chain([RUNNING.to_owned()]) {
        end_backends(control, &application_name(context, &role), 0).await;
    }
}

/// Makes a session end soon after its daemon has gone, though it waits for its turn. Not every
/// server's system can tell; there the wait itself has an end.
async fn end_with_daemon(session: &mut Session) {
    let set = "set client_connection_check_interval = '2s'";
    if let Err(error) = session.simple(set).await {
        tracing::debug!(%error, "the server cannot tell when a connection is gone");
    }
}

/// Opens the sessions that write beside the `first`, each with the name of the origin it holds.
/// Where the target has no origins or no room for as many, there are fewer.
pub(super) async fn open_workers(
    context: &LinkContext,
    control: &Client,
    (origins, first): (&Origins, &mut Session),
) -> Result<Vec<(Session, String)>, LinkError> {
    let mut sessions = Vec::new();
    if context.apply_workers > 1 {
        end_with_daemon(first).await;
    }
    for number in 2..=context.apply_workers {
        let Some(origins) = origins.clone().holding_worker(number) else {
            fewer(
                context,
                number - 1,
                "it has no origins for more, run `mmrepl init`",
            );
            break;
        };
        let role = worker_role(number);
        match open_session(context, control, (&role, &origins)).await {
            Ok(mut session) => {
                end_with_daemon(&mut session).await;
                sessions.push((session, origins.session_origin()));
            }
            Err(error) if error.sqlstate() == Some(LIMIT_EXCEEDED) => {
                fewer(context, number - 1, &error.to_string());
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(sessions)
}

fn fewer(context: &LinkContext, there_are: usize, why: &str) {
    let (wanted, target) = (context.apply_workers, &context.target.name);
    let message = format!("{there_are} of {wanted} workers write to {target}: {why}");
    tracing::warn!(link = %context.link, "{message}");
    context.monitor.notice(message);
}
