//! Named crash points between the steps of apply, and a choice between its ways, for tests (cargo
//! feature `failpoints`).
//!
//! `MMREPL_FAILPOINT=after_commit:3` makes the process abort the third time it gets there, as
//! `kill -9` would: no destructor runs, nothing is flushed.

/// Every crash point, in the order a transaction passes them.
pub const NAMES: [&str; 6] = [
    "after_apply",
    "after_commit",
    "after_durable",
    "after_checkpoint",
    "before_feedback",
    "after_feedback",
];

/// Aborts here when asked to. Without the feature it is nothing.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn failpoint(_name: &'static str) {}

/// Aborts here when asked to.
#[cfg(feature = "failpoints")]
pub fn failpoint(name: &'static str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static WANTED: LazyLock<Option<(String, u32)>> = LazyLock::new(|| {
        let wanted = std::env::var("MMREPL_FAILPOINT").ok()?;
        let (name, count) = wanted.split_once(':')?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    static PASSED: AtomicU32 = AtomicU32::new(0);

    debug_assert!(NAMES.contains(&name), "unknown crash point {name}");
    let Some((wanted, count)) = WANTED.as_ref() else {
        return;
    };
    if wanted == name && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *count {
        eprintln!("failpoint {name} reached {count} times: aborting");
        std::process::abort();
    }
}

/// A panic here, as a fault in mmrepl would be. Without the feature it is nothing.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn fault_point(_name: &'static str) {}

/// Panics here when `MMREPL_FAULT` names this place, `link:3` the first three times.
#[cfg(feature = "failpoints")]
#[allow(clippy::missing_panics_doc, reason = "that is what it is for")]
pub fn fault_point(name: &'static str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static WANTED: LazyLock<Option<(String, u32)>> = LazyLock::new(|| {
        let wanted = std::env::var("MMREPL_FAULT").ok()?;
        let (name, count) = wanted.split_once(':')?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    static PASSED: AtomicU32 = AtomicU32::new(0);

    let Some((wanted, count)) = WANTED.as_ref() else {
        return;
    };
    let asked = wanted == name && PASSED.fetch_add(1, Ordering::SeqCst) < *count;
    assert!(!asked, "a fault that a test asked for: {wanted}");
}

/// How transactions are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Groups are not sent ahead.
    StepByStep,
    /// Every transaction by itself, every change one by one.
    InOrder,
    /// Groups are sent ahead however many were refused.
    AlwaysAhead,
}

/// The way that `MMREPL_APPLY` (`step_by_step`, `in_order`, `always_ahead`) asks for. Without the
/// feature there is none.
pub fn forced_way() -> Option<Way> {
    if !cfg!(feature = "failpoints") {
        return None;
    }
    match std::env::var("MMREPL_APPLY").ok()?.as_str() {
        "step_by_step" => Some(Way::StepByStep),
        "in_order" => Some(Way::InOrder),
        "always_ahead" => Some(Way::AlwaysAhead),
        _ => None,
    }
}

/// The most rows in a group: `most`, or fewer where `MMREPL_GROUP_ROWS` says so. Without the
/// feature it is `most`.
pub fn group_rows(most: usize) -> usize {
    if !cfg!(feature = "failpoints") {
        return most;
    }
    let fewer = std::env::var("MMREPL_GROUP_ROWS").ok();
    let fewer = fewer.and_then(|rows| rows.parse().ok());
    fewer.map_or(most, |rows: usize| rows.clamp(1, most))
}

/// Whether rows kept aside are not to return for now: while the file named by `MMREPL_HOLD_RETURNS`
/// is there. Without the feature they always may.
pub fn returns_are_held() -> bool {
    if !cfg!(feature = "failpoints") {
        return false;
    }
    std::env::var_os("MMREPL_HOLD_RETURNS").is_some_and(|file| std::path::Path::new(&file).exists())
}
