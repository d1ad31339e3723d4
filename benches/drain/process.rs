//! What `/proc` tells about a process.

/// Clock ticks per second in `/proc` (`USER_HZ`, fixed on Linux).
const TICKS: f64 = 100.0;

fn read(pid: &str, file: &str) -> String {
    if pid.is_empty() {
        return String::new();
    }
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

/// User and system time; 0 for a process that is not there.
pub(crate) fn cpu_seconds(pid: &str) -> f64 {
    let stat = read(pid, "stat");
    // The name may hold spaces; utime and stime are the 12th and 13th field after it (proc(5)).
    let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
    let ticks: f64 = fields
        .skip(11)
        .take(2)
        .filter_map(|t| t.parse::<f64>().ok())
        // A sum of nothing would be -0.
        .fold(0.0, |sum, t| sum + t);
    ticks / TICKS
}

/// The same in nanoseconds: what a few thousand statements take is a few clock ticks. Right for a
/// process that sleeps.
#[allow(dead_code, reason = "one of the benches uses it")]
pub(crate) fn cpu_nanos(pid: &str) -> u64 {
    // Time on a processor, time waited for one, times it ran (Documentation/scheduler/sched-stats).
    let ran = read(pid, "schedstat");
    let ran = ran.split_whitespace().next();
    ran.and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
}

/// The largest resident set so far.
pub(crate) fn peak_mib(pid: &str) -> f64 {
    let status = read(pid, "status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|text| text.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0.0) / 1024.0
}
