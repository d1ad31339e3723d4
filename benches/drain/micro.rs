//! What `make micro` has measured, read from the files that criterion leaves.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::summary::{grouped, head, row};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/criterion");

const ALLOCATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench/allocations.md");

/// Empty where it has not been run.
pub(crate) fn table() -> String {
    let mut rows: Vec<String> = Vec::new();
    let mut found = benchmarks(Path::new(FOLDER));
    found.sort();
    for folder in found {
        rows.extend(line(&folder));
    }
    if rows.is_empty() {
        return String::new();
    }
    let allocations = std::fs::read_to_string(ALLOCATIONS).unwrap_or_default();
    head(&["", "per second", "ns each", "MB/s"]) + &rows.concat() + "\n" + &allocations
}

/// Folders that hold a result.
fn benchmarks(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for path in entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
    {
        if path.ends_with("new") {
            found.push(path);
        } else if !path.ends_with("base") && !path.ends_with("change") {
            found.extend(benchmarks(&path));
        }
    }
    found
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

/// One benchmark: its name, and how long one item takes.
fn line(folder: &Path) -> Option<String> {
    let about = read(&folder.join("benchmark.json"))?;
    let ns = read(&folder.join("estimates.json"))?["median"]["point_estimate"].as_f64()?;
    let both = &about["throughput"]["ElementsAndBytes"];
    let items = both["elements"]
        .as_f64()
        .or_else(|| about["throughput"]["Elements"].as_f64())?;
    let bytes = both["bytes"].as_f64();
    let rate = bytes.map_or_else(String::new, |bytes| grouped(bytes / ns * 1000.0));
    Some(row(&[
        about["full_id"].as_str()?.to_owned(),
        grouped(items / ns * 1e9),
        format!("{:.0}", ns / items),
        rate,
    ]))
}
