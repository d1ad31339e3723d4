//! Waiting until nothing that was written before is in flight.
//!
//! Each node writes a mark; when every other node has applied it, it has applied everything that
//! was committed on that node before.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::error::{AskError, VerifyError};
use crate::catalog::CatalogError;
use crate::catalog::position::read_positions;
use crate::catalog::wal;
use crate::ids::{LinkName, NodeName};
use crate::lsn::Lsn;

/// Between two looks at the positions.
const POLL: Duration = Duration::from_millis(50);
/// How long a fence may take.
const LIMIT: Duration = Duration::from_secs(120);

/// A node and a connection to it.
pub(super) struct Post<'a> {
    pub(super) node: &'a NodeName,
    pub(super) client: &'a Client,
}

/// Writes the marks and waits for them.
pub(super) async fn pass(posts: &[Post<'_>]) -> Result<(), VerifyError> {
    let mut marks: Vec<(&NodeName, Lsn)> = Vec::new();
    for post in posts {
        let mark = wal::mark(post.client).await.map_err(asked(post))?;
        marks.push((post.node, mark));
    }
    let began = Instant::now();
    loop {
        let Some(link) = behind(posts, &marks).await? else {
            return Ok(());
        };
        if began.elapsed() > LIMIT {
            let seconds = LIMIT.as_secs();
            return Err(VerifyError::InFlight { link, seconds });
        }
        tokio::time::sleep(POLL).await;
    }
}

fn asked(post: &Post<'_>) -> impl FnOnce(CatalogError) -> AskError {
    let node = post.node.clone();
    move |source| AskError { node, source }
}

/// A link that has not brought its mark.
async fn behind(
    posts: &[Post<'_>],
    marks: &[(&NodeName, Lsn)],
) -> Result<Option<LinkName>, VerifyError> {
    for post in posts {
        let positions = read_positions(post.client).await.map_err(asked(post))?;
        let applied = |source: &NodeName| {
            let position = positions.iter().find(|position| position.source == *source);
            position.map_or(Lsn::ZERO, |position| position.end_lsn)
        };
        let mut others = marks.iter().filter(|(node, _)| *node != post.node);
        if let Some((from, _)) = others.find(|(node, mark)| applied(node) < *mark) {
            return Ok(Some(LinkName {
                from: (*from).clone(),
                to: post.node.clone(),
            }));
        }
    }
    Ok(None)
}
