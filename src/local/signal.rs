//! Signals without unsafe code: the shell's own `kill` sends them.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A process that waits for a disk stands still later; then it is not waited for.
const FREEZE_LIMIT: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(1);

/// The signals that tests and the demo send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ends at once; cannot be caught.
    Kill,
    /// Asks a daemon to finish.
    Term,
    /// Asks as Ctrl-C does. A postmaster shuts down fast on it.
    Int,
    /// A postmaster shuts down at once on it, without a checkpoint.
    Quit,
    /// Freezes.
    Stop,
    /// Lets a frozen process go on.
    Cont,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Term => "TERM",
            Self::Int => "INT",
            Self::Quit => "QUIT",
            Self::Stop => "STOP",
            Self::Cont => "CONT",
        }
    }
}

/// Sends `signal` to every process of `pids` that still lives.
pub fn send(signal: Signal, pids: &[u32]) {
    if pids.is_empty() {
        return;
    }
    // One kill per process: with a list, some shells stop at the first that is gone.
    let script = format!("for p in \"$@\"; do kill -{} \"$p\"; done", signal.name());
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &script, "sh"])
        .args(pids.iter().map(u32::to_string));
    // Processes that are gone are as good as signalled.
    let _ = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// Freezes one process and waits until it stands still: a signal takes a moment to be acted on.
pub fn freeze(pid: u32) {
    send(Signal::Stop, &[pid]);
    let moves =
        || parent_and_state(pid).is_some_and(|(_, state)| !['T', 'Z', 'X'].contains(&state));
    let deadline = Instant::now() + FREEZE_LIMIT;
    while moves() && Instant::now() < deadline {
        std::thread::sleep(POLL);
    }
}

/// Whether a process with this number exists and is not a zombie.
pub fn is_alive(pid: u32) -> bool {
    parent_and_state(pid).is_some_and(|(_, state)| state != 'Z' && state != 'X')
}

/// The direct children of a process. A postmaster's backends lead process groups of their own
/// (each calls `setsid`), so a process group does not reach them, but their parent is known.
pub fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent_and_state(*pid).is_some_and(|(ppid, _)| ppid == parent))
        .collect()
}

/// From `/proc/PID/stat`: `pid (name) state ppid …`, where the name may hold anything.
fn parent_and_state(pid: u32) -> Option<(u32, char)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_seen_frozen_and_killed() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(children(std::process::id()).contains(&child.id()));
        freeze(child.id());
        assert_eq!(
            parent_and_state(child.id()).map(|(_, state)| state),
            Some('T')
        );
        send(Signal::Kill, &[u32::MAX - 1, child.id()]);
        child.wait().unwrap();
        assert!(!is_alive(child.id()));
    }
}
