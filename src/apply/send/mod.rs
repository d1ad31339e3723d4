//! Target transactions: what is sent when, on which session, and what became of it.

pub(super) mod ahead;
pub(super) mod apart;
pub(super) mod give_way;
pub(super) mod in_order;
pub(super) mod lanes;
pub(super) mod mend;
pub(super) mod mender;
pub(super) mod position;
pub(super) mod positions;
pub(super) mod prepared;
pub(super) mod respelled;
pub(super) mod returner;
pub(super) mod running;
pub(super) mod session;
pub(super) mod skip;
pub(super) mod skips;
pub(super) mod steps;
pub(super) mod transaction;
pub(super) mod workers;
