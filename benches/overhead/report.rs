//! The table.

use std::fmt::Write as _;

use crate::writer::{Measure, Spent};

/// Each cost of a rule with how many times that of the plain table it is.
pub(crate) fn table(version: &str, columns: &[(&str, Spent)]) -> String {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let mut text = format!("PostgreSQL {version}\n\n| | {} |\n", names.join(" | "));
    let _ = writeln!(text, "|---|{}", "---|".repeat(columns.len()));
    for measure in Measure::ALL {
        line(
            &mut text,
            &format!("{}, µs", measure.words()),
            columns,
            |spent| spent.of(measure).micros,
        );
    }
    for measure in Measure::ALL {
        line(
            &mut text,
            &format!("{}, bytes of WAL", measure.words()),
            columns,
            |spent| spent.of(measure).wal_bytes,
        );
    }
    text
}

fn line(text: &mut String, words: &str, columns: &[(&str, Spent)], of: impl Fn(&Spent) -> f64) {
    let plain = columns.first().map_or(0.0, |(_, spent)| of(spent));
    let _ = write!(text, "| {words} |");
    for (place, (_, spent)) in columns.iter().enumerate() {
        let cost = of(spent);
        let places = usize::from(cost < 100.0);
        let _ = if place == 0 {
            write!(text, " {cost:.places$} |")
        } else {
            write!(text, " {cost:.places$} ({:.1} ×) |", cost / plain)
        };
    }
    text.push('\n');
}
