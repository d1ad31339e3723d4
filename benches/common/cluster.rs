//! The configuration of two sides, and `mmrepl` with it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mmrepl::local::{self, Guard};

use super::Side;

/// East and west as `mmrepl` knows them.
pub(crate) struct Cluster {
    dir: PathBuf,
}

impl Cluster {
    /// Writes the configuration into `dir`; `more` is put at its end.
    pub(crate) fn new(dir: &Path, (east, west): (&Side, &Side), more: &str) -> Self {
        let node = |name: &str, side: &Side| {
            let port = local::free_port().expect("a free port");
            format!(
                "[[node]]\nname = \"{name}\"\ndsn = \"{}\"\nadmin = \"127.0.0.1:{port}\"\n",
                side.dsn()
            )
        };
        let nodes = node("east", east) + &node("west", west);
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
        let mut command = Command::new(env!("CARGO_BIN_EXE_mmrepl"));
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
