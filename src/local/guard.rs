//! What we start does not outlive us, however we end.
//!
//! A guard is a small shell that waits for its standard input to close. That happens when this
//! process ends in any way, `kill -9` included; then it cleans up what it was told to. Rust gives
//! no such promise by itself: statics are never dropped, and nothing is after SIGKILL.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Ends what it guards unless told "off" first. `$1` is a process, or a server's folder.
const WAIT: &str = "read -r word; [ \"$word\" = off ] && exit 0; ";
const KILL_PROCESS: &str = "kill -CONT \"$1\"; kill -KILL \"$1\"";
/// Stops the server by its pid file, waits, and removes the folder unless it is to be kept.
const STOP_SERVER: &str = r#"
f=$1/data/postmaster.pid
p=$(head -n 1 "$f") && kill -QUIT "$p" && kill -CONT "$p"
n=0; while [ -n "$p" ] && kill -0 "$p" && [ $n -lt 100 ]; do sleep 0.1; n=$((n+1)); done
[ -e "$1/keep" ] || rm -rf "$1"
"#;
/// Removes a folder once the servers in it have had the time to end.
const REMOVE_FOLDER: &str = "sleep 3; rm -rf \"$1\"";

/// Cleans up when this process ends; see the module.
#[derive(Debug)]
pub struct Guard {
    shell: Option<Child>,
}

impl Guard {
    /// Kills the process.
    pub fn process(pid: u32) -> Self {
        Self::start(KILL_PROCESS, pid.to_string().as_ref())
    }

    /// Stops the server in this folder and removes the folder.
    pub fn server(dir: &Path) -> Self {
        Self::start(STOP_SERVER, dir.as_os_str())
    }

    /// Removes the folder.
    pub fn folder(dir: &Path) -> Self {
        Self::start(REMOVE_FOLDER, dir.as_os_str())
    }

    /// Without a shell there is no guard; dropping what we started still works.
    fn start(script: &str, argument: &std::ffi::OsStr) -> Self {
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(format!("{WAIT}{script}"))
            .arg("sh")
            .arg(argument);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Its own process group: Ctrl-C in a terminal must not end the guard.
        Self {
            shell: command.process_group(0).spawn().ok(),
        }
    }
}

impl Drop for Guard {
    /// What was guarded has been ended in an orderly way: nothing is left to do.
    fn drop(&mut self) {
        let Some(mut shell) = self.shell.take() else {
            return;
        };
        if let Some(mut stdin) = shell.stdin.take() {
            let _ = stdin.write_all(b"off\n");
        }
        let _ = shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::signal::is_alive;

    #[test]
    fn a_dropped_guard_leaves_the_process_alone() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        drop(Guard::process(child.id()));
        assert!(is_alive(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_closed_input_ends_the_process() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let mut guard = Guard::process(child.id());
        let mut shell = guard.shell.take().unwrap();
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
