//! Whether others than the cluster write on a link's source; `foreign` finds out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::conflict::MARKER_PREFIX;
use crate::lsn::Lsn;

/// What the event trigger says.
const SUBSCRIPTION_BEGINS: &[u8] = b"subscription";

/// Whether anything but the cluster writes on the source in the name of others. Once it is so, it
/// stays: rows of one that is gone may still be on their way.
#[derive(Clone, Debug, Default)]
pub struct Foreign(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_there: AtomicBool,
    /// No transaction of others is in the WAL up to here, but what was asked for by then.
    looked_up_to: AtomicU64,
}

impl Foreign {
    /// Whether everything must be asked for.
    pub(super) fn is_there(&self) -> bool {
        self.0.is_there.load(Ordering::Relaxed)
    }

    /// True the first time.
    pub(super) fn note(&self) -> bool {
        !self.0.is_there.swap(true, Ordering::Relaxed)
    }

    /// A message of the source's WAL. True where the stream must be asked for anew.
    pub(super) fn announced(&self, prefix: &str, content: &[u8]) -> bool {
        prefix == MARKER_PREFIX && content == SUBSCRIPTION_BEGINS && self.note()
    }

    /// The slot may forget what lies before this. Of a stream `with_all` nothing is left out.
    pub(super) fn may_be_confirmed(&self, flushed: Lsn, with_all: bool) -> Lsn {
        let looked = Lsn::new(self.0.looked_up_to.load(Ordering::Relaxed));
        if with_all {
            flushed
        } else {
            flushed.min(looked)
        }
    }

    /// Nothing counts as looked at.
    pub(super) fn forget_looks(&self) {
        self.0.looked_up_to.store(0, Ordering::Relaxed);
    }

    /// No transaction of others is in the WAL up to there.
    pub(super) fn looked_up_to(&self, end: Lsn) {
        self.0
            .looked_up_to
            .fetch_max(end.as_u64(), Ordering::Relaxed);
    }
}
