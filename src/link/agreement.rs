//! Both ends of a link must go by the same rules, or they would not end equal.

use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::Client;

use super::LinkContext;
use super::error::LinkError;
use super::sessions::not_set_up;
use crate::catalog::rules::{read_rules, write_rules};
use crate::config::agreement::{difference, moved_places, rules_text};

/// How often a link at work looks at the target's rules: its daemon may have got another file.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Leaves our rules where the links to us look for them, and looks at those of the target.
pub(super) async fn check_rules(
    context: &LinkContext,
    source: &Client,
    target: &Client,
) -> Result<(), LinkError> {
    let ours = rules_text(&context.rules);
    let before = read_rules(source).await;
    let before = before.map_err(|error| not_set_up(&context.source, error))?;
    if let Some(how) = before.and_then(|before| moved_places(&before, &ours)) {
        return Err(LinkError::RulesDiffer(how));
    }
    let left = write_rules(source, &ours).await;
    left.map_err(|error| not_set_up(&context.source, error))?;
    compare(context, target).await
}

async fn compare(context: &LinkContext, target: &Client) -> Result<(), LinkError> {
    let there = read_rules(target).await;
    let there = there.map_err(|error| not_set_up(&context.target, error))?;
    let here = rules_text(&context.rules);
    let differs = there.and_then(|there| difference(&here, &there, &context.target.name));
    differs.map_or(Ok(()), |how| Err(LinkError::RulesDiffer(how)))
}

/// Waits until the target goes by other rules. A server that does not answer is `alive`'s.
pub(super) async fn until_rules_differ(context: &LinkContext, target: &Client) -> LinkError {
    loop {
        sleep(LOOK_EVERY).await;
        if let Err(error @ LinkError::RulesDiffer(_)) = compare(context, target).await {
            return error;
        }
    }
}
