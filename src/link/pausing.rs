//! Whether somebody has paused a link, seen when it connects.

use tokio_postgres::Client;

use super::LinkContext;
use super::error::LinkError;
use super::sessions::not_set_up;
use crate::catalog::link_control::read_paused;

/// Where somebody has paused the link, the caller learns it and gives the attempt up.
pub(super) async fn note(context: &LinkContext, source_control: &Client) -> Result<(), LinkError> {
    let paused = read_paused(source_control, &context.link).await;
    if paused.map_err(|error| not_set_up(&context.source, error))? {
        context.set_paused(true);
    }
    Ok(())
}
