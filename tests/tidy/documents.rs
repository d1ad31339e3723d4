//! Links of documents, and the files that they name, exist.

use std::fs;

use crate::source::{Source, assert_none, documents, root};

/// The anchor that a forge gives a heading.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    heading
        .chars()
        .filter(kept)
        .collect::<String>()
        .replace(' ', "-")
}

/// Where links of a document lead: what stands between `](` and `)`.
fn links(source: &Source) -> impl Iterator<Item = &str> {
    let after = source.text.split("](").skip(1);
    let targets = after.filter_map(|text| text.split(')').next());
    targets.filter(|target| !target.starts_with("http"))
}

fn leads_nowhere(from: &Source, target: &str) -> bool {
    let (file, place) = target.split_once('#').unwrap_or((target, ""));
    let folder = root().join(&from.path);
    let path = match file {
        "" => folder,
        _ => folder.parent().unwrap().join(file),
    };
    let headings = |text: String| text.lines().any(|line| is_heading(line, place));
    let found =
        path.exists() && (place.is_empty() || fs::read_to_string(&path).is_ok_and(headings));
    !found
}

fn is_heading(line: &str, place: &str) -> bool {
    line.starts_with('#') && anchor(line) == place
}

/// Files and folders of ours that a text names in backquotes; patterns are left out.
fn named_files(source: &Source) -> impl Iterator<Item = &str> {
    let ours = [
        "src/",
        "tests/",
        "benches/",
        "migrations/",
        "docs/",
        "tools/",
    ];
    let is_name = |c: char| c.is_alphanumeric() || "/._-".contains(c);
    let quoted = source.text.split('`').skip(1).step_by(2);
    quoted.filter(move |text| {
        ours.iter().any(|folder| text.starts_with(folder)) && text.chars().all(is_name)
    })
}

#[test]
fn documents_lead_somewhere() {
    let mut offences = Vec::new();
    for source in documents() {
        for target in links(&source).filter(|target| leads_nowhere(&source, target)) {
            offences.push(format!("{}: {target} leads nowhere", source.path));
        }
        for name in named_files(&source).filter(|name| !root().join(name).exists()) {
            offences.push(format!("{}: there is no {name}", source.path));
        }
    }
    assert_none(&offences);
}
