//! `mmrepl run` as a child process whose log is read.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use mmrepl::local::Guard;
use mmrepl::local::signal::{self, Signal};

/// A daemon must end within 5 s of SIGTERM (interface.md); a slow machine gets more.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// How to start the daemon of one node.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    /// The node.
    pub node: String,
    /// Its configuration file.
    pub config: PathBuf,
    /// Where it keeps its checkpoints.
    pub data_dir: PathBuf,
    /// Where its log goes; appended over restarts.
    pub log: PathBuf,
    /// Environment, such as `FAILPOINTS`.
    pub env: Vec<(String, String)>,
}

/// A running daemon. Dropped, it is killed.
pub struct Daemon {
    child: Child,
    _guard: Guard,
}

impl Daemon {
    /// Starts it; it may still be connecting when this returns.
    pub fn start(options: &DaemonOptions) -> Self {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&options.log)
            .unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mmrepl"));
        command.args([
            "run",
            "--log-format",
            "json",
            "--node",
            &options.node,
            "--config",
        ]);
        command
            .arg(&options.config)
            .arg("--data-dir")
            .arg(&options.data_dir);
        command.envs(options.env.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let child = command.spawn().unwrap();
        let guard = Guard::process(child.id());
        Self {
            child,
            _guard: guard,
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// `kill -9`.
    pub fn kill9(mut self) {
        self.end_now();
    }

    /// SIGTERM, and waits for its end.
    pub fn terminate(mut self) -> ExitStatus {
        signal::send(Signal::Term, &[self.pid()]);
        let deadline = Instant::now() + STOP_LIMIT;
        while self.is_running() {
            assert!(
                Instant::now() < deadline,
                "the daemon did not end after SIGTERM"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child.wait().unwrap()
    }

    /// Waits for it to end by itself, as after a failpoint that aborts.
    pub fn wait_end(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Freezes it.
    pub fn sigstop(&self) {
        signal::send(Signal::Stop, &[self.pid()]);
    }

    /// Lets it go on.
    pub fn sigcont(&self) {
        signal::send(Signal::Cont, &[self.pid()]);
    }

    /// Largest resident memory so far, in bytes (`VmHWM` of `/proc/PID/status`).
    pub fn peak_memory_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .unwrap();
        let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kilobytes * 1024
    }

    /// CPU time so far, in clock ticks (`utime + stime` of `/proc/PID/stat`).
    pub fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<_> = stat[stat.rfind(')').unwrap() + 1..]
            .split_whitespace()
            .collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    fn end_now(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end_now();
    }
}

/// The lines of a log at level ERROR that contain none of the allowed texts. A panic is one too.
pub fn unexpected_errors(log: &Path, allowed: &[String]) -> Vec<String> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let is_error =
        |line: &&str| line.contains("\"level\":\"ERROR\"") || line.contains("panicked at");
    let listed = |line: &&str| allowed.iter().any(|part| line.contains(part.as_str()));
    text.lines()
        .filter(is_error)
        .filter(|line| !listed(line))
        .map(str::to_owned)
        .collect()
}
