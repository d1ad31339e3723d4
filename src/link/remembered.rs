//! What a source had applied from others, as earlier connections to it have learned.

use std::sync::{Arc, Mutex, PoisonError};

use crate::conflict::SeenHistory;
use crate::ids::{SystemId, TimelineId};

/// A source, and what it had applied from others by each position of its WAL.
pub(super) type Remembered = ((SystemId, TimelineId), Arc<Mutex<SeenHistory>>);

/// What `source` had `seen`, with what earlier connections to it have learned.
pub(super) fn with_remembered(
    seen: SeenHistory,
    source: (SystemId, TimelineId),
    remembered: Option<&Remembered>,
) -> SeenHistory {
    match remembered {
        Some((known, earlier)) if *known == source => {
            seen.after(&earlier.lock().unwrap_or_else(PoisonError::into_inner))
        }
        _ => seen,
    }
}
