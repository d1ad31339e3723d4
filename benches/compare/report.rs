//! The result as a document.

use std::fmt;

use crate::outcome::Outcome;
use crate::system::System;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/comparison.md");

const INTRODUCTION: &str = include_str!("introduction.md");

/// All results.
pub(crate) struct Report {
    names: Vec<&'static str>,
    versions: Vec<String>,
    skipped: Vec<String>,
    cases: Vec<(&'static str, Vec<Outcome>)>,
}

impl Report {
    pub(crate) fn new(systems: &[System], skipped: Vec<String>) -> Self {
        Self {
            names: systems.iter().map(|system| system.name).collect(),
            versions: Vec::new(),
            skipped,
            cases: Vec::new(),
        }
    }

    /// Of every system its version and how it did.
    pub(crate) fn add(&mut self, case: &'static str, played: Vec<(String, Outcome)>) {
        let (versions, outcomes) = played.into_iter().unzip();
        self.versions = versions;
        self.cases.push((case, outcomes));
    }

    /// One line as soon as there is one, because all of them take minutes.
    pub(crate) fn print_last(&self) {
        if let Some((case, outcomes)) = self.cases.last() {
            println!("{}", line(case, outcomes));
        }
    }

    pub(crate) fn write(&self) {
        let text = format!("{INTRODUCTION}\n{self}");
        std::fs::write(DOCUMENT, text).expect("docs/comparison.md is writable");
        println!("wrote docs/comparison.md");
    }

    /// How many cases ended in each way.
    fn verdict(&self, system: usize) -> String {
        let outcomes = || self.cases.iter().map(|(_, outcomes)| &outcomes[system]);
        let count = |is: fn(&Outcome) -> bool| outcomes().filter(|outcome| is(outcome)).count();
        let clean = count(|outcome| matches!(outcome, Outcome::Equal(_, None)));
        let flawed = count(|outcome| matches!(outcome, Outcome::Equal(_, Some(_))));
        let different = count(|outcome| matches!(outcome, Outcome::Different(..)));
        let stopped = count(|outcome| matches!(outcome, Outcome::Stopped(..)));
        format!(
            "{}: {} equal ({flawed} of them with a flaw), {different} different, {stopped} stopped",
            self.names[system],
            clean + flawed,
        )
    }

    fn details(&self, f: &mut fmt::Formatter<'_>, system: usize) -> fmt::Result {
        writeln!(f, "\n### {}\n", self.names[system])?;
        for (case, outcomes) in &self.cases {
            let outcome = &outcomes[system];
            writeln!(f, "- {case}: {}; {}", outcome.cell(), outcome.detail())?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| case | {} |", self.names.join(" | "))?;
        writeln!(f, "|---|{}", "---|".repeat(self.names.len()))?;
        writeln!(f, "| *version* | {} |", self.versions.join(" | "))?;
        for (case, outcomes) in &self.cases {
            writeln!(f, "{}", line(case, outcomes))?;
        }
        writeln!(f)?;
        for system in 0..self.names.len() {
            writeln!(f, "- {}", self.verdict(system))?;
        }
        for sentence in &self.skipped {
            writeln!(f, "- {sentence}")?;
        }
        writeln!(f, "\n## What the nodes had")?;
        (0..self.names.len()).try_for_each(|system| self.details(f, system))
    }
}

/// A row of the table.
fn line(case: &str, outcomes: &[Outcome]) -> String {
    let cells: Vec<String> = outcomes.iter().map(Outcome::cell).collect();
    format!("| {case} | {} |", cells.join(" | "))
}
