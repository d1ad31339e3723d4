//! Noticing that a server is gone while nothing is being sent to it, or nothing comes back.
//!
//! An idle link would learn of a dead peer only with the next change, and a half-open connection
//! (a firewall that forgot it, a frozen host) gives no error at all. A control connection beside
//! the working one is asked a trivial question from time to time; a server that is merely busy
//! with a long statement or a long decode still answers there.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Client;

use super::error::LinkError;
use crate::ids::NodeName;
use crate::wire::{WireError, from_tokio_postgres};

/// How often a closed connection is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the server is asked.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// A server that does not answer for this long is taken for gone.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Waits until the server behind `client` is gone, and says how that was noticed.
pub(super) async fn until_gone(node: &NodeName, client: &Client) -> LinkError {
    let mut asked = Instant::now();
    loop {
        sleep(LOOK_EVERY).await;
        let source = if client.is_closed() {
            Some(WireError::Closed)
        } else if asked.elapsed() >= ASK_EVERY {
            asked = Instant::now();
            ask(client).await
        } else {
            None
        };
        if let Some(source) = source {
            return LinkError::Node {
                node: node.clone(),
                source,
            };
        }
    }
}

/// Asks once; nothing when the server answers.
async fn ask(client: &Client) -> Option<WireError> {
    match timeout(ANSWER_LIMIT, client.simple_query("")).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(from_tokio_postgres(error)),
        Err(_) => Some(WireError::Timeout {
            what: "an answer of the server".to_owned(),
            after: ANSWER_LIMIT,
        }),
    }
}
