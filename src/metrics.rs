//! The metrics a daemon shows to Prometheus, made from the same snapshots as its status.
//!
//! A registry is filled anew for every scrape: nothing can differ from what `/status` says.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::status::model::{LinkState, LinkStatus};
use crate::status::node::NodeStatus;

/// The media type of [`encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Prefix of every name below.
pub const PREFIX: &str = "mmrepl";
/// 1 for the state a link is in, 0 for the others; label `state`.
pub const LINK_STATE: &str = "link_state";
/// WAL of the source not yet applied.
pub const LAG_BYTES: &str = "link_lag_bytes";
/// Age of the oldest source commit not yet applied.
pub const LAG_SECONDS: &str = "link_lag_seconds";
/// WAL that the source keeps for the link.
pub const RETAINED_BYTES: &str = "slot_retained_bytes";
/// How far the target's clock is ahead of the source's.
pub const CLOCK_OFFSET_SECONDS: &str = "clock_offset_seconds";
/// Rows received and not yet applied.
pub const QUEUE_ROWS: &str = "queue_rows";
/// Bytes received and not yet applied.
pub const QUEUE_BYTES: &str = "queue_bytes";
/// Source transactions applied (`_total`, as all counters).
pub const TRANSACTIONS: &str = "transactions";
/// Row changes applied.
pub const ROWS: &str = "rows";
/// Conflicts met.
pub const CONFLICTS: &str = "conflicts";
/// Transactions tried again.
pub const RETRIES: &str = "retries";
/// Connections made anew.
pub const RECONNECTS: &str = "reconnects";
/// Faults in mmrepl itself.
pub const FAULTS: &str = "faults";
/// To within how much the clock offset is known.
pub const CLOCK_UNCERTAINTY_SECONDS: &str = "clock_uncertainty_seconds";
/// Tombstones on the node's server; label `node`.
pub const TOMBSTONES: &str = "tombstones";
/// Rows kept aside on the node's server; label `node`.
pub const SHADOWS: &str = "shadows";
/// Things on the node's server that are not as `init` made them; label `node`.
pub const DAMAGE: &str = "damage";
/// Those of them by which rows get lost; label `node`.
pub const DAMAGE_LOSING_ROWS: &str = "damage_losing_rows";
/// Tombstones pruned.
pub const TOMBSTONES_PRUNED: &str = "tombstones_pruned";

/// The labels of every metric: the two ends of the link.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LinkLabels {
    from: String,
    to: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabels {
    from: String,
    to: String,
    state: &'static str,
}

type FloatGauge = Gauge<f64, AtomicU64>;

/// The text a scrape gets.
pub fn encode(links: &[LinkStatus], node: &NodeStatus) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    states(&mut registry, links);
    gauges(&mut registry, links);
    counters(&mut registry, links);
    tombstones(&mut registry, node);
    shadows(&mut registry, node);
    damage(&mut registry, node);
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = text::encode(&mut out, &registry);
    out
}

fn states(registry: &mut Registry, links: &[LinkStatus]) {
    let family = Family::<StateLabels, Gauge>::default();
    for link in links {
        for state in LinkState::ALL {
            let LinkLabels { from, to } = labels(link);
            let labels = StateLabels {
                from,
                to,
                state: state.as_str(),
            };
            family
                .get_or_create(&labels)
                .set(i64::from(link.state == state));
        }
    }
    registry.register(LINK_STATE, "1 for the state the link is in", family);
}

fn gauges(registry: &mut Registry, links: &[LinkStatus]) {
    let lag = |link: &LinkStatus| Some(float(link.lag.bytes));
    gauge(registry, links, (LAG_BYTES, "WAL not yet applied"), lag);
    let age = |link: &LinkStatus| link.lag.seconds;
    let help = "Age of the oldest source commit not yet applied";
    gauge(registry, links, (LAG_SECONDS, help), age);
    let retained = |link: &LinkStatus| link.slot.as_ref().map(|slot| float(slot.retained_bytes));
    let help = "WAL that the source keeps for the link";
    gauge(registry, links, (RETAINED_BYTES, help), retained);
    let offset = |link: &LinkStatus| link.clock_offset_ms.map(|ms| ms / 1000.0);
    let help = "How far the target's clock is ahead of the source's";
    gauge(registry, links, (CLOCK_OFFSET_SECONDS, help), offset);
    let doubt = |link: &LinkStatus| link.clock_uncertainty_ms.map(|ms| ms / 1000.0);
    let help = "To within how much the clock offset is known";
    gauge(registry, links, (CLOCK_UNCERTAINTY_SECONDS, help), doubt);
    let rows = |link: &LinkStatus| link.bounds.map(|bounds| float(bounds.queue_rows));
    gauge(
        registry,
        links,
        (QUEUE_ROWS, "Rows received and not yet applied"),
        rows,
    );
    let bytes = |link: &LinkStatus| link.bounds.map(|bounds| float(bounds.queue_bytes));
    let help = "Bytes received and not yet applied";
    gauge(registry, links, (QUEUE_BYTES, help), bytes);
}

/// Registers one gauge; a link for which `value` knows nothing has no sample.
fn gauge(
    registry: &mut Registry,
    links: &[LinkStatus],
    (name, help): (&str, &str),
    value: impl Fn(&LinkStatus) -> Option<f64>,
) {
    let family = Family::<LinkLabels, FloatGauge>::default();
    for link in links {
        if let Some(value) = value(link) {
            family.get_or_create(&labels(link)).set(value);
        }
    }
    registry.register(name, help, family);
}

fn counters(registry: &mut Registry, links: &[LinkStatus]) {
    let transactions = |link: &LinkStatus| link.totals.transactions;
    counter(
        registry,
        links,
        (TRANSACTIONS, "Source transactions applied"),
        transactions,
    );
    counter(registry, links, (ROWS, "Row changes applied"), |link| {
        link.totals.rows
    });
    counter(registry, links, (CONFLICTS, "Conflicts met"), |link| {
        link.totals.conflicts
    });
    counter(
        registry,
        links,
        (RETRIES, "Transactions tried again"),
        |link| link.totals.retries,
    );
    let reconnects = |link: &LinkStatus| link.totals.reconnects;
    counter(
        registry,
        links,
        (RECONNECTS, "Connections made anew"),
        reconnects,
    );
    let help = "Faults in mmrepl itself, each of which ended one attempt";
    counter(registry, links, (FAULTS, help), |link| link.totals.faults);
}

fn counter(
    registry: &mut Registry,
    links: &[LinkStatus],
    (name, help): (&str, &str),
    value: impl Fn(&LinkStatus) -> u64,
) {
    let family = Family::<LinkLabels, Counter>::default();
    for link in links {
        family.get_or_create(&labels(link)).inc_by(value(link));
    }
    registry.register(name, help, family);
}

fn shadows(registry: &mut Registry, node: &NodeStatus) {
    let Some(shadows) = &node.shadows else {
        return;
    };
    let labels = [("node", node.node.to_string())];
    let kept = Family::<[(&str, String); 1], FloatGauge>::default();
    kept.get_or_create(&labels).set(float(shadows.kept));
    registry.register(
        SHADOWS,
        "Rows that lost a unique value and are kept aside",
        kept,
    );
}

fn damage(registry: &mut Registry, node: &NodeStatus) {
    let losing = node.damage.iter().filter(|damage| damage.loses_rows);
    for (name, help, count) in [
        (
            DAMAGE,
            "Things on the node's server that are not as init made them",
            node.damage.len(),
        ),
        (
            DAMAGE_LOSING_ROWS,
            "Those of them by which rows get lost",
            losing.count(),
        ),
    ] {
        let labels = [("node", node.node.to_string())];
        let family = Family::<[(&str, String); 1], FloatGauge>::default();
        family.get_or_create(&labels).set(float(count as u64));
        registry.register(name, help, family);
    }
}

fn tombstones(registry: &mut Registry, node: &NodeStatus) {
    let Some(tombstones) = &node.tombstones else {
        return;
    };
    let labels = [("node", node.node.to_string())];
    let kept = Family::<[(&str, String); 1], FloatGauge>::default();
    kept.get_or_create(&labels).set(float(tombstones.kept));
    registry.register(TOMBSTONES, "Tombstones on the node's server", kept);
    let pruned = Family::<[(&str, String); 1], Counter>::default();
    pruned.get_or_create(&labels).inc_by(tombstones.pruned);
    registry.register(TOMBSTONES_PRUNED, "Tombstones pruned", pruned);
}

fn labels(link: &LinkStatus) -> LinkLabels {
    LinkLabels {
        from: link.from.to_string(),
        to: link.to.to_string(),
    }
}

#[allow(clippy::cast_precision_loss)] // gauges are floats to Prometheus
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit_time::CommitTime;
    use crate::status::model::StatusSource;
    use crate::status::node::NodeMonitor;

    #[test]
    fn a_scrape_tells_what_the_status_tells() {
        let (link, at) = (
            "east->west".parse().unwrap(),
            CommitTime::from_postgres_micros(0),
        );
        let mut status = LinkStatus::new(&link, LinkState::Streaming, StatusSource::Daemon, at);
        status.totals.rows = 42;
        status.lag.seconds = Some(1.5);
        let monitor = NodeMonitor::new("east".parse().unwrap());
        monitor.set_tombstones(3, None);
        monitor.add_pruned(2, at);
        monitor.set_shadows(4, 1);
        let text = encode(&[status], &monitor.snapshot());
        for line in [
            "mmrepl_link_state{from=\"east\",to=\"west\",state=\"streaming\"} 1",
            "mmrepl_link_state{from=\"east\",to=\"west\",state=\"blocked\"} 0",
            "mmrepl_rows_total{from=\"east\",to=\"west\"} 42",
            "mmrepl_link_lag_seconds{from=\"east\",to=\"west\"} 1.5",
            "mmrepl_link_lag_bytes{from=\"east\",to=\"west\"} 0.0",
            "mmrepl_tombstones{node=\"east\"} 3.0",
            "mmrepl_shadows{node=\"east\"} 4.0",
            "mmrepl_tombstones_pruned_total{node=\"east\"} 2",
            "# EOF",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
        assert!(
            !text.contains("mmrepl_slot_retained_bytes{"),
            "nobody knows it:\n{text}"
        );
    }
}
