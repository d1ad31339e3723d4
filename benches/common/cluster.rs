//! The configuration of two sides, and `mmrepl` with it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mmrepl::local::{self, Guard};

/// The nodes of a cluster as `mmrepl` knows them.
pub(crate) struct Cluster {
    dir: PathBuf,
}

/// The program; another build may be given, to compare the two.
pub(crate) fn binary() -> PathBuf {
    let given = std::env::var_os("MMREPL_BENCH_BINARY");
    given.map_or_else(|| env!("CARGO_BIN_EXE_mmrepl").into(), PathBuf::from)
}

impl Cluster {
    /// Writes the configuration into `dir`: nodes with the way to them; `more` is put at its end.
    pub(crate) fn new(dir: &Path, nodes: &[(&str, String)], more: &str) -> Self {
        let node = |(name, dsn): &(&str, String)| {
            let port = local::free_port().expect("a free port");
            format!("[[node]]\nname = \"{name}\"\ndsn = \"{dsn}\"\nadmin = \"127.0.0.1:{port}\"\n")
        };
        let nodes: String = nodes.iter().map(node).collect();
        let cluster = Self {
            dir: dir.to_owned(),
        };
        let text = format!("[cluster]\nname = \"bench\"\n{nodes}{more}");
        std::fs::write(cluster.config(), text).expect("the folder is writable");
        cluster
    }

    fn config(&self) -> PathBuf {
        self.dir.join("cluster.toml")
    }

    /// `mmrepl` with this configuration.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.env("MMREPL_CONFIG", self.config()).args(arguments);
        command
    }

    /// Runs `mmrepl`, which must succeed; gives what it printed.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("mmrepl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "mmrepl {arguments:?}: {text}{error}"
        );
        text
    }

    pub(crate) fn start_daemon(&self, node: &str) -> Daemon {
        let mut command = self.command(&["run", "--node", node, "--data-dir"]);
        command
            .arg(self.dir.join(format!("data-{node}")))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().expect("mmrepl runs");
        let guard = Guard::process(child.id());
        Daemon {
            child,
            _guard: guard,
        }
    }
}

/// `mmrepl run`; killed when dropped.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    _guard: Guard,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has no other parent: both can only fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
