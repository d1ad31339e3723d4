//! What somebody meets who sets mmrepl up for the first time: each mistake is told with what mends
//! it.

use std::process::Output;

use mmrepl::local::{LocalServer, ServerOptions};

use crate::support::pool;

/// A server that asks for a password, and a file for a cluster of it alone.
struct Alone {
    server: LocalServer,
    dir: tempfile::TempDir,
}

impl Alone {
    async fn start() -> Self {
        let options = ServerOptions {
            password: Some("se cret".to_owned()),
            ..Default::default()
        };
        let work = move || pool::start(pool::usual_major(), &options);
        let server = tokio::task::spawn_blocking(work).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        Self { server, dir }
    }

    fn write(&self, file: &str, text: &str) -> std::path::PathBuf {
        let path = self.dir.path().join(file);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn file(&self) -> String {
        let dsn = self.server.dsn("postgres");
        format!(
            "[cluster]\nname = \"shop\"\n\n[[node]]\nname = \"east\"\ndsn = \"{dsn}\"\n\
             admin = \"127.0.0.1:7441\"\n"
        )
    }

    async fn mmrepl(&self, arguments: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_mmrepl"));
        command
            .args(arguments)
            .env("NO_COLOR", "1")
            .env("HOME", self.dir.path())
            .env("PGPASSFILE", self.dir.path().join("passwords"))
            .env_remove("PGPASSWORD");
        command.kill_on_drop(true).output().await.unwrap()
    }
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(&[out.as_slice(), err].concat()).into_owned()
}

/// The line that the sentence names is the one that helps.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_password_is_told_with_the_line_that_gives_it() {
    let alone = Alone::start().await;
    let file = alone.write("cluster.toml", &alone.file());
    let check = ["--config", file.to_str().unwrap(), "check"];
    let said = text(&alone.mmrepl(&check).await);
    assert!(
        said.contains("~/.pgpass") && said.contains("$PGPASSFILE"),
        "{said}"
    );
    let line = said.split("put the line ").nth(1).expect("a line to put");
    let line = line.split(" into").next().unwrap_or_default();
    let passwords = alone.write("passwords", &line.replace("PASSWORD", "se cret"));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(passwords, mode).unwrap();
    let said = text(&alone.mmrepl(&check).await);
    assert!(!said.contains("password"), "{said}");
}

/// Each mistake in the file is one sentence.
#[tokio::test(flavor = "multi_thread")]
async fn mistakes_in_the_file_are_told_in_a_sentence() {
    let alone = Alone::start().await;
    let right = alone.file();
    for (wrong, told) in [
        (
            right.replace("[[node]]", "[node]"),
            "write [[node]], in two pairs of brackets",
        ),
        (
            right.replace("[cluster]", "[[cluster]]"),
            "write [cluster], in one pair of brackets",
        ),
        (
            right.replace("dsn =", "dns ="),
            "unknown key `dns`, did you mean `dsn`?",
        ),
        (
            right.replace("[cluster]", "[clsuter]"),
            "did you mean `cluster`?",
        ),
        (
            right.replace("admin = \"127.0.0.1:7441\"", ""),
            "missing field `admin`",
        ),
        (
            right.replace("127.0.0.1:7441", "localhost"),
            "is not an address and port such as",
        ),
    ] {
        let file = alone.write("wrong.toml", &wrong);
        for order in [
            ["--config", file.to_str().unwrap(), "status"],
            ["status", "--config", file.to_str().unwrap()],
        ] {
            let output = alone.mmrepl(&order).await;
            let said = text(&output);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains(told), "{told}: {said}");
            assert_eq!(said.trim().lines().count(), 1, "{said}");
        }
    }
}
