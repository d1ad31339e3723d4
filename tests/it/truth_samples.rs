//! What a cluster said of itself during a trouble, and what must hold of it whatever the trouble
//! was. The rules are pure; they are tested below.

use serde_json::Value;

/// States in which nothing gets through.
const FAILED: [&str; 3] = ["retrying", "blocked", "stopped"];
/// States in which changes get through.
const MOVES: [&str; 3] = ["streaming", "catching_up", "waiting"];

/// One link at one moment, as a daemon or the command told it.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkSample {
    /// Milliseconds since sampling began.
    pub at: u64,
    /// `east->west`.
    pub link: String,
    pub state: String,
    pub since: String,
    pub reason: Option<String>,
    pub lag: Option<f64>,
    pub exact: bool,
    pub transactions: u64,
    /// Its daemon told it.
    pub by_daemon: bool,
}

/// One answer of `/readyz`.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadySample {
    pub at: u64,
    pub daemon: String,
    pub code: u16,
    pub words: String,
}

/// The state of a link in `/metrics`.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricSample {
    pub at: u64,
    pub link: String,
    /// All that are set; there must be one.
    pub states: Vec<String>,
    pub lag: Option<f64>,
}

/// Everything that was seen.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    pub links: Vec<LinkSample>,
    pub ready: Vec<ReadySample>,
    pub metrics: Vec<MetricSample>,
}

/// What the test did, as far as it can be told from outside.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// The link that the trouble concerns.
    pub link: String,
    /// It could be in no other state all the time.
    pub only: Vec<&'static str>,
    /// It could not get anything through.
    pub stuck: bool,
    /// A commit waits since this long before sampling began, in milliseconds.
    pub waits_ms: Option<u64>,
    /// Nothing waits.
    pub idle: bool,
    /// What no sample may hold, such as a row value.
    pub never: Vec<&'static str>,
}

impl LinkSample {
    /// Reads a link of `status --json`.
    pub fn read(at: u64, link: &Value) -> Self {
        let text = |name: &str| link[name].as_str().unwrap_or("").to_owned();
        Self {
            at,
            link: format!("{}->{}", text("from"), text("to")),
            state: text("state"),
            since: text("since"),
            reason: link["reason"].as_str().map(str::to_owned),
            lag: link["lag"]["seconds"].as_f64(),
            exact: link["lag"]["exact"].as_bool().unwrap_or(true),
            transactions: link["totals"]["transactions"].as_u64().unwrap_or(0),
            by_daemon: text("source") == "daemon",
        }
    }
}

impl MetricSample {
    /// Reads the links of `/metrics`.
    pub fn read(at: u64, text: &str) -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        for line in text.lines() {
            let Some((name, rest)) = line.split_once('{') else {
                continue;
            };
            let Some((labels, value)) = rest.split_once("} ") else {
                continue;
            };
            let label = |wanted: &str| {
                let (_, rest) = labels.split_once(&format!("{wanted}=\""))?;
                rest.split('"').next()
            };
            let (Some(from), Some(to)) = (label("from"), label("to")) else {
                continue;
            };
            let link = format!("{from}->{to}");
            let place = found.iter().position(|sample| sample.link == link);
            let place = place.unwrap_or_else(|| {
                found.push(Self {
                    at,
                    link,
                    states: Vec::new(),
                    lag: None,
                });
                found.len() - 1
            });
            match name {
                "mmrepl_link_state" if value == "1" => {
                    found[place].states.push(label("state").unwrap().to_owned());
                }
                "mmrepl_link_lag_seconds" => found[place].lag = value.parse().ok(),
                _ => {}
            }
        }
        found
    }
}

/// Every way in which the samples contradict themselves or what was done.
pub fn contradictions(samples: &Samples, done: &Done) -> Vec<String> {
    let mut found = Vec::new();
    for sample in &samples.links {
        found.extend(shape(sample));
        found.extend(contradicts(sample, done));
    }
    let mut links: Vec<&str> = samples.links.iter().map(|s| s.link.as_str()).collect();
    links.sort_unstable();
    links.dedup();
    for link in links {
        let series: Vec<&LinkSample> = samples.links.iter().filter(|s| s.link == link).collect();
        found.extend(series.windows(2).filter_map(|pair| jumps(pair[0], pair[1])));
    }
    found.extend(
        samples
            .metrics
            .iter()
            .filter_map(|m| metric(m, &samples.links)),
    );
    found.extend(
        samples
            .ready
            .iter()
            .filter_map(|r| ready(r, &samples.links)),
    );
    for never in &done.never {
        if format!("{samples:?}").contains(never) {
            found.push(format!("`{never}` was told"));
        }
    }
    found
}

/// What holds of every sample.
fn shape(sample: &LinkSample) -> Option<String> {
    let streams = sample.state == "streaming";
    let reason = sample.reason.as_deref().unwrap_or("");
    let wrong = (streams != sample.reason.is_none() && !reason.contains("slot is in use"))
        || (!streams && reason.is_empty())
        || reason.chars().any(char::is_control)
        || reason.len() > 4_000;
    wrong.then(|| format!("state and reason do not fit: {sample:?}"))
}

/// What the test did, and the sample does not say.
fn contradicts(sample: &LinkSample, done: &Done) -> Option<String> {
    if sample.link != done.link {
        return None;
    }
    let state = sample.state.as_str();
    if !done.only.is_empty() && !done.only.contains(&state) {
        return Some(format!("not one of {:?}: {sample:?}", done.only));
    }
    if done.stuck && state == "streaming" {
        return Some(format!("nothing gets through: {sample:?}"));
    }
    if let Some(waits) = done.waits_ms {
        // The servers are looked at every second, on a busy machine a little later.
        #[allow(clippy::cast_precision_loss)]
        let age = (sample.at + waits).saturating_sub(4_000) as f64 / 1000.0;
        if sample.lag.is_some_and(|lag| lag < age) {
            return Some(format!("a commit waits for {age} s: {sample:?}"));
        }
    }
    let lags = sample.lag.is_some_and(|lag| lag > 5.0) && sample.exact;
    (done.idle && lags).then(|| format!("nothing waits: {sample:?}"))
}

/// What two samples of a link, one after the other, cannot both say.
fn jumps(before: &LinkSample, after: &LinkSample) -> Option<String> {
    let fails = |sample: &LinkSample| FAILED.contains(&sample.state.as_str());
    // Another daemon counts from 0; without one nobody knows since when.
    if after.transactions < before.transactions || !(before.by_daemon && after.by_daemon) {
        return None;
    }
    let same = after.transactions == before.transactions;
    if fails(before) && fails(after) && same && after.since != before.since {
        return Some(format!("failed since two times: {before:?} {after:?}"));
    }
    None
}

fn metric(sample: &MetricSample, links: &[LinkSample]) -> Option<String> {
    if sample.states.len() != 1 {
        return Some(format!("not one state: {sample:?}"));
    }
    let near = near(links, sample.at, |link| link.link == sample.link);
    let fails = |state: &str| FAILED.contains(&state);
    let same = |link: &&LinkSample| fails(&link.state) == fails(&sample.states[0]);
    (!near.is_empty() && !near.iter().any(same)).then(|| format!("{sample:?} beside {near:?}"))
}

/// Ready although one of the daemon's own links does not move.
fn ready(sample: &ReadySample, links: &[LinkSample]) -> Option<String> {
    let from = format!("{}->", sample.daemon);
    let near = near(links, sample.at, |link| link.link.starts_with(&from));
    let moves = |link: &&LinkSample| MOVES.contains(&link.state.as_str());
    let wrong = sample.code == 200 && !near.is_empty() && !near.iter().any(moves);
    let unsaid = sample.code != 200 && sample.words.trim().is_empty();
    (wrong || unsaid).then(|| format!("{sample:?} beside {near:?}"))
}

/// The last sample before, and the first after.
fn near(links: &[LinkSample], at: u64, is_it: impl Fn(&LinkSample) -> bool) -> Vec<&LinkSample> {
    let before = links.iter().rev().find(|l| l.at <= at && is_it(l));
    let after = links.iter().find(|l| l.at > at && is_it(l));
    before.into_iter().chain(after).collect()
}

fn sample(at: u64, state: &str) -> LinkSample {
    LinkSample {
        at,
        link: "east->west".to_owned(),
        state: state.to_owned(),
        since: "2026-01-31T12:00:00Z".to_owned(),
        reason: (state != "streaming").then(|| "because".to_owned()),
        lag: Some(0.0),
        exact: true,
        transactions: 7,
        by_daemon: true,
    }
}

fn done() -> Done {
    Done {
        link: "east->west".to_owned(),
        ..Done::default()
    }
}

fn found(links: Vec<LinkSample>, done: &Done) -> Vec<String> {
    let samples = Samples {
        links,
        ..Samples::default()
    };
    contradictions(&samples, done)
}

#[test]
fn a_link_that_shows_itself_as_moving_is_found() {
    let flaps = ["blocked", "catching_up", "blocked", "streaming"];
    let links: Vec<_> = (0..)
        .zip(flaps)
        .map(|(at, state)| sample(at, state))
        .collect();
    assert_eq!(found(links.clone(), &done()), Vec::<String>::new());
    let stuck = Done {
        stuck: true,
        ..done()
    };
    assert_eq!(found(links.clone(), &stuck).len(), 1);
    let only = Done {
        only: vec!["blocked", "retrying"],
        ..done()
    };
    assert_eq!(found(links, &only).len(), 2);
}

#[test]
fn a_since_that_starts_anew_is_found() {
    let mut later = sample(2, "retrying");
    later.since = "2026-01-31T12:00:02Z".to_owned();
    let links = vec![sample(1, "retrying"), later.clone()];
    assert_eq!(found(links, &done()).len(), 1);
    later.transactions += 1;
    assert!(found(vec![sample(1, "retrying"), later], &done()).is_empty());
}

#[test]
fn a_lag_that_is_too_small_is_found() {
    let waits = Done {
        waits_ms: Some(2_000),
        ..done()
    };
    let at = |at, lag, exact| LinkSample {
        lag,
        exact,
        ..sample(at, "paused")
    };
    assert!(found(vec![at(0, Some(0.0), true), at(9_000, None, false)], &waits).is_empty());
    assert_eq!(found(vec![at(9_000, Some(0.0), true)], &waits).len(), 1);
    let idle = Done {
        idle: true,
        ..done()
    };
    assert_eq!(found(vec![at(9_000, Some(9.0), true)], &idle).len(), 1);
}

#[test]
fn metrics_and_readiness_that_say_something_else_are_found() {
    let text = "mmrepl_link_state{from=\"east\",to=\"west\",state=\"blocked\"} 1\n\
                mmrepl_link_state{from=\"east\",to=\"west\",state=\"paused\"} 0\n\
                mmrepl_link_lag_seconds{from=\"east\",to=\"west\"} 2.5\n";
    let metrics = MetricSample::read(5, text);
    assert_eq!(metrics[0].states, ["blocked"]);
    assert_eq!(metrics[0].lag, Some(2.5));
    let ready = |code| ReadySample {
        at: 5,
        daemon: "east".to_owned(),
        code,
        words: "x".to_owned(),
    };
    let samples = |state: &str, code| Samples {
        links: vec![sample(1, state), sample(9, state)],
        ready: vec![ready(code)],
        metrics: metrics.clone(),
    };
    assert!(contradictions(&samples("blocked", 503), &done()).is_empty());
    assert_eq!(contradictions(&samples("blocked", 200), &done()).len(), 1);
    assert_eq!(contradictions(&samples("streaming", 200), &done()).len(), 1);
}

#[test]
fn a_value_or_a_missing_reason_is_found() {
    let mut value = sample(1, "blocked");
    value.reason = Some("no s3cret here".to_owned());
    let never = Done {
        never: vec!["s3cret"],
        ..done()
    };
    assert_eq!(found(vec![value.clone()], &never).len(), 1);
    value.reason = None;
    assert_eq!(found(vec![value], &done()).len(), 1);
}
