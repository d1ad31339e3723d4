//! Whether a statement on the source sees a transaction whose changes were already received. Pure.
//!
//! The stream sends a transaction once its commit record is in the WAL. The server shows it to
//! others only a moment later; much later where a synchronous standby has to confirm it first
//! (manual 27.2.8). A row read in between is the one from before.

/// True when the snapshot shows what transaction `xid` wrote, given that it has committed.
///
/// `snapshot` is the text of a `pg_snapshot`: `xmin:xmax:running,running` (manual 9.27.10). Its
/// numbers have 64 bits; the stream's have the lower 32 of them.
pub(in crate::apply) fn shows(snapshot: &str, xid: u32) -> bool {
    let mut parts = snapshot.splitn(3, ':');
    let number = |text: &str| text.parse::<u64>().ok();
    let (Some(_), Some(end)) = (parts.next(), parts.next().and_then(number)) else {
        return false;
    };
    let running = parts.next().unwrap_or_default();
    let Some(full) = full_xid(xid, end) else {
        return false;
    };
    full < end && !running.split(',').filter_map(number).any(|n| n == full)
}

/// The 64-bit number with the lower half `xid` that is nearest to `near`.
fn full_xid(xid: u32, near: u64) -> Option<u64> {
    const EPOCH: u64 = 1 << 32;
    let same = (near & !(EPOCH - 1)) | u64::from(xid);
    let around = [same.checked_sub(EPOCH), Some(same), same.checked_add(EPOCH)];
    around
        .into_iter()
        .flatten()
        .min_by_key(|n| n.abs_diff(near))
}

#[cfg(test)]
mod tests {
    use super::shows;

    #[test]
    fn what_is_over_is_shown() {
        assert!(shows("700:710:703,705", 699));
        assert!(shows("700:710:703,705", 704));
        assert!(!shows("700:710:703,705", 703));
        assert!(!shows("700:710:703,705", 705));
        assert!(shows("710:710:", 709));
    }

    #[test]
    fn what_the_snapshot_does_not_know_yet_is_not() {
        assert!(!shows("700:710:", 710));
        assert!(!shows("700:710:", 711));
    }

    #[test]
    fn numbers_wrap_around() {
        let start: u64 = 3 << 32;
        let snapshot = format!("{}:{}:{}", start - 5, start + 5, start - 3);
        assert!(shows(&snapshot, u32::MAX - 3));
        assert!(!shows(&snapshot, u32::MAX - 2));
        assert!(shows(&snapshot, 4));
        assert!(!shows(&snapshot, 6));
    }

    #[test]
    fn nonsense_shows_nothing() {
        for text in ["", ":", "a:b:c", "1"] {
            assert!(!shows(text, 0), "{text}");
        }
    }
}
