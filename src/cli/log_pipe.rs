//! Where log lines go: a thread of their own writes them to standard error.
//!
//! Logging never fails anything and never keeps anything waiting. A reader that has gone away, a
//! full disk, a terminal that was stopped: lines that find no room are counted, and the count is
//! told once somebody reads again.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use super::log_format::LogFormat;
use crate::commit_time::CommitTime;
use crate::text;

/// Lines that may wait to be written.
const LINES_MAX: usize = 4096;
/// The longest line of the text format, in bytes.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// How long the end of the process waits for the last lines.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

static PIPE: OnceLock<LogPipe> = OnceLock::new();

enum Message {
    Line(Vec<u8>),
    /// Answered once everything before it is written.
    Flush(SyncSender<()>),
}

/// The near end of the pipe; clones share it.
#[derive(Clone)]
pub(super) struct LogPipe {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    format: LogFormat,
    colour: bool,
}

impl LogPipe {
    /// Starts the thread that writes.
    pub(super) fn start(format: LogFormat, colour: bool) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let pipe = Self {
            sender,
            dropped: Arc::clone(&dropped),
            format,
            colour,
        };
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(&receiver, (&dropped, format), &mut io::stderr()))?;
        // A second start is refused by the subscriber.
        let _ = PIPE.set(pipe.clone());
        Ok(pipe)
    }

    fn line(&self, line: &[u8]) {
        let line = match self.format {
            LogFormat::Json => line.to_vec(),
            LogFormat::Text => plain(line, self.colour),
        };
        if self.sender.try_send(Message::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Waits a moment until what was logged is written.
pub(super) fn flush() {
    let Some(pipe) = PIPE.get() else { return };
    let (done, written) = sync_channel(1);
    if pipe.sender.try_send(Message::Flush(done)).is_ok() {
        // Nobody may be reading: the process ends all the same.
        let _ = written.recv_timeout(FLUSH_LIMIT);
    }
}

/// Writes until the process ends. What cannot be written is lost, and counted.
fn write_all(
    lines: &Receiver<Message>,
    (dropped, format): (&AtomicU64, LogFormat),
    out: &mut impl Write,
) {
    while let Ok(message) = lines.recv() {
        let line = match message {
            Message::Line(line) => line,
            Message::Flush(asked) => {
                // Whoever asked may have gone on.
                let _ = asked.try_send(());
                continue;
            }
        };
        let lost = dropped.swap(0, Ordering::Relaxed);
        let told = lost == 0 || out.write_all(lost_lines(lost, format).as_bytes()).is_ok();
        let written = out.write_all(&line).is_ok();
        let lost = u64::from(!written) + if told { 0 } else { lost };
        dropped.fetch_add(lost, Ordering::Relaxed);
    }
}

fn lost_lines(lost: u64, format: LogFormat) -> String {
    let now = CommitTime::now();
    let words = format!("{lost} log lines could not be written");
    match format {
        LogFormat::Text => format!("{now}  WARN mmrepl: {words}\n"),
        LogFormat::Json => {
            let now = now.to_string();
            let line = serde_json::json!({"timestamp": now, "level": "WARN", "message": words});
            format!("{line}\n")
        }
    }
}

/// A text line without anything that moves the cursor or begins another line. Colours are ours.
fn plain(line: &[u8], colour: bool) -> Vec<u8> {
    let line = String::from_utf8_lossy(line);
    let line = line.strip_suffix('\n').unwrap_or(&line);
    let line = text::shortened(line, LINE_BYTES_MAX);
    let mut shown = if colour {
        text::visible_coloured(&line, text::is_unsafe)
    } else {
        text::visible(&line).into_owned()
    };
    shown.push('\n');
    shown.into_bytes()
}

impl Write for LogPipe {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogPipe {
    type Writer = Self;

    fn make_writer(&self) -> Self::Writer {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str, colour: bool) -> String {
        String::from_utf8(plain(line.as_bytes(), colour)).unwrap()
    }

    #[test]
    fn a_line_stays_one_line_and_keeps_its_own_colours_only() {
        assert_eq!(shown("one\ntwo\n", false), "one\\ntwo\n");
        assert_eq!(
            shown("\x1b[32mINFO\x1b[0m \x1b[2Jx", true),
            "\x1b[32mINFO\x1b[0m \\u{1b}[2Jx\n"
        );
        assert_eq!(shown("\x1b[32mINFO", false), "\\u{1b}[32mINFO\n");
        assert!(shown(&"x".repeat(3_000_000), false).len() < 17_000);
    }

    /// Fails as often as it is told to.
    struct Broken(usize, Vec<u8>);

    impl Write for Broken {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            if self.0 > 0 {
                self.0 -= 1;
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.1.write(line)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_told_later() {
        let (sender, receiver) = sync_channel(8);
        for line in ["first\n", "second\n", "third\n"] {
            sender.send(Message::Line(line.into())).unwrap();
        }
        drop(sender);
        let mut out = Broken(3, Vec::new());
        let dropped = AtomicU64::new(4);
        write_all(&receiver, (&dropped, LogFormat::Text), &mut out);
        let text = String::from_utf8(out.1).unwrap();
        assert!(text.contains("5 log lines could not be written"), "{text}");
        assert!(text.ends_with("third\n"), "{text}");
        assert_eq!(dropped.into_inner(), 0);
    }
}
