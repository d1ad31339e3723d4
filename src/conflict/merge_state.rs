//! The column in which a row of a merging table keeps its clocks.
//!
//! ```json
//! {"n": "east",
//!  "c": {"note": [1767225600000001, "east"]},
//!  "d": {"on_hand": {"b": [1767225600000000, "west", "10.00"],
//!                    "e": {"east": [1767225600000001, "-3.00"]}}}}
//! ```
//!
//! `n` is the node that made the row's version, `c` when and where each column was set, `d` the
//! counters: base and sums. Decimals are strings, so that no reader of JSON rounds them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Counter, Decimal, Stamp};

/// The clocks of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergeState {
    /// The node that made the row's version.
    pub node: String,
    /// When and where columns were set.
    pub columns: BTreeMap<String, Stamp>,
    /// The counters.
    pub counters: BTreeMap<String, Counter>,
}

impl MergeState {
    /// Reads the column's text. What makes no sense is left out, as if it had never been written.
    pub fn read(text: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(text).unwrap_or_default();
        let entries = |key: &str| value[key].as_object().into_iter().flatten();
        let columns = entries("c").filter_map(|(name, set)| Some((name.clone(), stamp(set)?)));
        let counters = entries("d").filter_map(|(name, of)| Some((name.clone(), counter(of)?)));
        Self {
            node: value["n"].as_str().unwrap_or_default().to_owned(),
            columns: columns.collect(),
            counters: counters.collect(),
        }
    }

    /// As the column's type reads it.
    pub fn write(&self) -> String {
        let columns: Map<String, Value> = self
            .columns
            .iter()
            .map(|(name, set)| (name.clone(), json!([set.clock, set.node])))
            .collect();
        let counters: Map<String, Value> = self
            .counters
            .iter()
            .map(|(name, counter)| (name.clone(), written(counter)))
            .collect();
        json!({ "n": self.node, "c": columns, "d": counters }).to_string()
    }
}

fn stamp(value: &Value) -> Option<Stamp> {
    Some(Stamp {
        clock: value[0].as_i64()?,
        node: value[1].as_str()?.to_owned(),
    })
}

fn decimal(value: &Value) -> Option<Decimal> {
    value.as_str()?.parse().ok()
}

fn counter(value: &Value) -> Option<Counter> {
    let base = &value["b"];
    let new = Counter::new(stamp(base)?, decimal(&base[2])?);
    let sums = value["e"].as_object().into_iter().flatten();
    sums.map(|(node, sum)| Some((node.clone(), sum[0].as_i64()?, decimal(&sum[1])?)))
        .try_fold(new, |counter, sum| {
            let (node, clock, sum) = sum?;
            Some(counter.with(node, clock, sum))
        })
}

fn written(counter: &Counter) -> Value {
    let (base, from) = counter.base();
    let sums: Map<String, Value> = counter
        .sums()
        .map(|(node, clock, sum)| (node.to_owned(), json!([clock, sum.to_string()])))
        .collect();
    json!({ "b": [base.clock, base.node, from.to_string()], "e": sums })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"n": "east", "c": {"note": [1767225600000001, "east"]}, "d": {"on_hand":
        {"b": [1767225600000000, "west", "10.00"], "e": {"east": [1767225600000001, "-3.00"]}}}}"#;

    #[test]
    fn the_state_is_read_as_written() {
        let state = MergeState::read(TEXT.as_bytes());
        assert_eq!(state.node, "east");
        assert_eq!(state.columns["note"].to_string(), "1767225600000001 east");
        assert_eq!(state.counters["on_hand"].value().to_string(), "7.00");
        let same: Value = serde_json::from_str(TEXT).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&state.write()).unwrap(), same);
        assert_eq!(MergeState::read(state.write().as_bytes()), state);
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        for text in ["", "null", "[]", "7", r#"{"n": 1, "c": [], "d": null}"#] {
            assert_eq!(
                MergeState::read(text.as_bytes()),
                MergeState::default(),
                "{text}"
            );
        }
        for counter in [
            r#"{"e": {}}"#,
            r#"{"b": [1, "a", 10]}"#,
            r#"{"b": [1, "a", "NaN"]}"#,
            r#"{"b": [1, "a", "1"], "e": {"a": [1]}}"#,
        ] {
            let text = format!(r#"{{"c": {{"x": ["1", "a"]}}, "d": {{"n": {counter}}}}}"#);
            assert_eq!(
                MergeState::read(text.as_bytes()),
                MergeState::default(),
                "{text}"
            );
        }
    }
}
