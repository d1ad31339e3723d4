//! What a link tells, by what was noted of it.

use super::*;
use crate::status::model::Lag;

fn at(seconds: f64) -> CommitTime {
    #[allow(clippy::cast_possible_truncation)]
    CommitTime::from_postgres_micros((seconds * 1e6) as i64)
}

fn monitor() -> LinkMonitor {
    LinkMonitor::new_at("east->west".parse().unwrap(), at(0.0))
}

fn error(at: CommitTime) -> LastError {
    LastError {
        at,
        sqlstate: None,
        message: "no".to_owned(),
        relation: None,
        retryable: true,
    }
}

#[test]
fn a_failure_lasts_until_a_transaction_was_applied() {
    let monitor = monitor();
    assert_eq!(monitor.snapshot(at(1.0)).state, LinkState::Starting);
    monitor.fails(LinkState::Retrying, error(at(2.0)));
    monitor.moves(LinkState::CatchingUp, None, false);
    monitor.fails(LinkState::Blocked, error(at(3.0)));
    let status = monitor.snapshot(at(4.0));
    assert_eq!((status.state, status.since), (LinkState::Blocked, at(2.0)));
    assert!(status.last_error.is_some_and(|error| error.at == at(3.0)));
    monitor.add_transactions(1);
    monitor.moves(LinkState::Streaming, None, false);
    let status = monitor.snapshot(at(6.0));
    assert_eq!((status.state, status.reason), (LinkState::Streaming, None));
}

#[test]
fn lag_is_the_age_of_the_oldest_unapplied_commit_and_idle_is_none() {
    let monitor = monitor();
    assert_eq!(monitor.snapshot(at(1.0)).lag.seconds, None);
    monitor.set_current_at(Lsn::new(900), at(1.0));
    monitor.set_applied(Lsn::new(400));
    monitor.waits_to_apply(at(2.0));
    monitor.waits_to_apply(at(3.0));
    let lag = Lag {
        bytes: 500,
        seconds: Some(1.5),
        exact: true,
    };
    assert_eq!(monitor.snapshot(at(3.5)).lag, lag);
    // A commit time ahead of our clock is no negative lag.
    assert_eq!(monitor.snapshot(at(1.0)).lag.seconds, Some(0.0));
    monitor.disconnected();
    assert_eq!(monitor.snapshot(at(9.0)).lag.seconds, Some(7.0));
    monitor.set_applied(Lsn::new(1000));
    monitor.set_current_at(Lsn::new(1000), at(3.5));
    assert_eq!(monitor.snapshot(at(4.0)).lag, Lag::default());
}

#[test]
fn a_link_that_stands_still_waits_for_nothing_until_something_is_there() {
    let monitor = monitor();
    monitor.set_applied(Lsn::new(400));
    monitor.set_current_at(Lsn::new(900), at(1.0));
    let told = |second| {
        let lag = monitor.snapshot(at(second)).lag;
        (lag.bytes, lag.seconds, lag.exact)
    };
    assert_eq!(told(1.0), (500, None, false));
    monitor.nothing_up_to_at(Lsn::new(900), at(2.0));
    assert_eq!(told(2.0), (0, Some(0.0), true));
    assert_eq!(monitor.snapshot(at(2.0)).lsn.applied, Lsn::new(400));
    monitor.set_current_at(Lsn::new(950), at(3.0));
    assert_eq!(told(3.0), (50, Some(1.0), false));
    monitor.waits_beyond(at(2.5));
    monitor.set_current_at(Lsn::new(960), at(4.0));
    assert_eq!(told(4.0), (60, Some(1.5), true));
    monitor.connected();
    assert_eq!(told(5.0), (560, Some(2.5), true));
    monitor.add_transactions(1);
    monitor.set_applied(Lsn::new(960));
    assert_eq!(told(5.0), (0, Some(0.0), true));
}

#[test]
fn counters_queue_and_limits_are_in_the_snapshot() {
    let monitor = monitor();
    monitor.add_transactions(1);
    monitor.add_conflicts(2);
    monitor.add_retry();
    monitor.add_reconnect();
    monitor.set_limits(1000, 64, 500);
    monitor.set_queue(7, 8);
    monitor.set_clock_offset_ms(-0.5, 0.1);
    let status = monitor.clone().snapshot(at(1.0));
    let totals = Totals {
        transactions: 1,
        rows: 0,
        conflicts: 2,
        retries: 1,
        reconnects: 1,
        faults: 0,
    };
    assert_eq!(status.totals, totals);
    let bounds = status.bounds.unwrap();
    assert_eq!(
        (bounds.queue_rows, bounds.queue_rows_max, bounds.window_rows),
        (7, 1000, 500)
    );
    assert_eq!(status.clock_offset_ms, Some(-0.5));
}

#[test]
fn what_was_received_was_sent() {
    let monitor = monitor();
    monitor.set_received(Lsn::new(7));
    assert_eq!(monitor.snapshot(at(1.0)).lsn.sent, Lsn::new(7));
    monitor.set_sent(Lsn::new(9));
    assert_eq!(monitor.snapshot(at(1.0)).lsn.sent, Lsn::new(9));
}

#[tokio::test]
async fn a_pause_reaches_who_waits_for_it() {
    let monitor = monitor();
    let mut paused = monitor.paused();
    assert!(!*paused.borrow());
    monitor.clone().pause();
    paused.changed().await.unwrap();
    assert!(*paused.borrow_and_update());
    monitor.resume();
    paused.changed().await.unwrap();
    assert!(!*paused.borrow());
}
