//! Why a test failed, told when it fails: a long run may not be there to its end, where the test
//! harness tells, and a failure that comes once in a hundred runs is worth every word.

use std::io::Write as _;
use std::panic;
use std::sync::Once;

/// So many lines of a daemon's log are told.
const LINES: usize = 12;

/// From now on every panic is told past the harness, which keeps what tests print to itself.
pub fn are_told_at_once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            tell(&format!("{}: {info}", thread.name().unwrap_or("a thread")));
            usual(info);
        }));
    });
}

/// Tells the last warnings and errors that a daemon has logged.
pub fn tell_end_of_log(node: &str, log: &str) {
    let grave = |line: &&str| !line.contains("\"level\":\"INFO\"");
    let mut lines: Vec<&str> = log.lines().rev().filter(grave).take(LINES).collect();
    lines.reverse();
    tell(&format!(
        "the end of the log of {node}:\n{}",
        lines.join("\n")
    ));
}

fn tell(text: &str) {
    // Without anybody to tell it to, nothing is to be done about it.
    let _ = writeln!(std::io::stderr(), "{text}");
}
