//! Rows that a guarded statement did not take: looked at, judged, written, recorded.

pub(super) mod crossing;
pub(super) mod custom;
pub(super) mod emptied;
pub(super) mod fetch;
pub(super) mod inserted;
pub(super) mod ledger;
pub(super) mod merging;
pub(super) mod ordered;
pub(super) mod overtaken;
pub(super) mod record;
pub(super) mod rewrites;
pub(super) mod truncate;
pub(super) mod unique;
pub(super) mod visible;
