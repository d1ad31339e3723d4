//! Whether a row that looked different is different.
//!
//! Rows are read on one node after another while everybody writes, so that most of what looks
//! different is in flight. A difference is told only where it stands still: the row is read on
//! every node, then everything that was committed before is waited for (`fence`), then the row is
//! read again. Where no node's row has changed meanwhile, each node has applied what all the others
//! had when they were read first; nothing can come any more that makes them equal. Where one has
//! changed, the row is looked at again. What changes each time is counted by itself.

use super::error::{AskError, VerifyError};
use super::fence::{self, Post};
use super::scan::{Seen, Side, Suspect};

/// How often a row that has changed is looked at again.
const ROUNDS: usize = 12;
/// Rows that one statement looks at.
const ROWS_PER_LOOK: usize = 2_000;

/// What came of some suspects.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// Those that differ.
    pub(super) different: Vec<Suspect>,
    /// Those that nobody can tell about.
    pub(super) busy: u64,
}

/// What every node has of a suspect, in the order of the nodes.
type Everywhere = Vec<Option<Seen>>;

/// Judges `suspects`.
pub(super) async fn judge(
    sides: &[Side<'_>],
    posts: &[Post<'_>],
    suspects: Vec<Suspect>,
) -> Result<Judged, VerifyError> {
    let mut judged = Judged::default();
    let seen = look(sides, &suspects).await?;
    let mut open: Vec<(Suspect, Everywhere)> = suspects.into_iter().zip(seen).collect();
    for _ in 0..ROUNDS {
        open.retain(|(_, seen)| !is_equal(seen));
        if open.is_empty() {
            return Ok(judged);
        }
        fence::pass(posts).await?;
        let suspects: Vec<Suspect> = open.iter().map(|(suspect, _)| suspect.clone()).collect();
        let again = look(sides, &suspects).await?;
        let mut changed = Vec::new();
        for ((mut suspect, before), now) in open.into_iter().zip(again) {
            if is_equal(&now) {
                continue;
            }
            if before == now {
                if suspect.key.is_empty() {
                    let counts = now
                        .iter()
                        .map(|seen| seen.as_ref().map_or(0, |seen| seen.content));
                    suspect.counts = counts.collect();
                }
                judged.different.push(suspect);
            } else {
                changed.push((suspect, now));
            }
        }
        open = changed;
    }
    judged.busy = open.len() as u64;
    Ok(judged)
}

/// Whether all nodes have the row alike.
pub(super) fn is_equal(seen: &[Option<Seen>]) -> bool {
    let content = |seen: &Option<Seen>| seen.as_ref().map(|seen| seen.content);
    let mut contents = seen.iter().map(content);
    let first = contents.next();
    contents.all(|content| Some(content) == first)
}

/// What every node has of each suspect.
async fn look(sides: &[Side<'_>], suspects: &[Suspect]) -> Result<Vec<Everywhere>, AskError> {
    let mut all: Vec<Everywhere> = Vec::with_capacity(suspects.len());
    for chunk in suspects.chunks(ROWS_PER_LOOK) {
        let looks = sides.iter().map(|side| side.look(chunk, false));
        let mut looks: Vec<_> = futures_util::future::try_join_all(looks)
            .await?
            .into_iter()
            .map(Vec::into_iter)
            .collect();
        all.extend((0..chunk.len()).map(|_| {
            let next = looks.iter_mut().map(|look| look.next().flatten());
            next.collect::<Everywhere>()
        }));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_equal_by_their_content() {
        let seen = |content: i64, identity: &str| {
            Some(Seen {
                content,
                identity: identity.to_owned(),
                shown: None,
            })
        };
        assert!(is_equal(&[seen(1, "a"), seen(1, "b")]));
        assert!(is_equal(&[None, None]));
        assert!(!is_equal(&[seen(1, "a"), None]));
        assert!(!is_equal(&[seen(1, "a"), seen(2, "a"), seen(1, "a")]));
    }
}
