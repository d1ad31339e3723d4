//! The store against kills, damage, full disks and second owners.

use crate::error::{RetryClass, Retryable};
use crate::lsn::Lsn;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;
use crate::commit_time::CommitTime;
use crate::ids::{SystemId, TimelineId};

const STORE_OF_CHILD: &str = "MMREPL_TEST_STORE";
const FAST: Duration = Duration::from_millis(1);

fn link(text: &str) -> LinkName {
    text.parse().unwrap()
}

fn at(position: u64) -> Checkpoint {
    Checkpoint {
        position: Lsn::new(position),
        target_system_id: SystemId(7),
        target_timeline: TimelineId(1),
        source_system_id: SystemId(8),
        source_timeline: TimelineId(1),
        slot: "mmrepl_shop_west".into(),
        began: CommitTime::default(),
        witness: None,
    }
}

fn open(dir: &Path) -> Checkpoints {
    let (store, notice) = Checkpoints::open_with(dir, FAST).unwrap();
    assert_eq!(notice, None);
    store
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn save_all(dir: &Path, positions: std::ops::RangeInclusive<u64>) {
    let store = open(dir);
    runtime().block_on(async {
        for position in positions {
            store.save(&link("east->west"), at(position)).await.unwrap();
        }
    });
}

#[tokio::test]
async fn what_was_saved_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert_eq!(store.load(&link("east->west")).unwrap(), None);
    store.save(&link("east->west"), at(5)).await.unwrap();
    store.save(&link("east->north"), at(3)).await.unwrap();
    store.forget(&link("east->north")).await.unwrap();
    store.close().await;
    assert!(matches!(
        store.save(&link("east->west"), at(6)).await,
        Err(CheckpointError::Closed)
    ));

    let store = open(dir.path());
    assert_eq!(store.load(&link("east->west")).unwrap(), Some(at(5)));
    assert_eq!(store.load(&link("east->north")).unwrap(), None);
}

#[tokio::test]
async fn positions_of_one_history_never_go_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let name = link("east->west");
    store.save(&name, at(5)).await.unwrap();
    store.save(&name, at(5)).await.unwrap();
    let error = store.save(&name, at(4)).await.unwrap_err();
    assert!(
        matches!(error, CheckpointError::Backwards { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("from 0/5 to 0/4"), "{error}");
    assert_eq!(store.load(&name).unwrap(), Some(at(5)));

    let restored = Checkpoint {
        target_timeline: TimelineId(2),
        ..at(2)
    };
    store.save(&name, restored.clone()).await.unwrap();
    assert_eq!(store.load(&name).unwrap(), Some(restored));
    store.forget(&name).await.unwrap();
    store.save(&name, at(1)).await.unwrap();
}

#[tokio::test]
async fn saves_of_one_window_share_a_flush_and_the_latest_wins() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Checkpoints::open_with(dir.path(), Duration::from_secs(3600)).unwrap();
    let name = link("east->west");
    // The first save after a rest is written at once and opens the window.
    store.save(&name, at(1)).await.unwrap();
    let saves: Vec<_> = (2..=100)
        .map(|position| store.writer.submit(&name, Some(at(position))).unwrap())
        .collect();
    assert_eq!(
        store.load(&name).unwrap(),
        Some(at(1)),
        "the window is still open"
    );
    store.close().await;
    for save in saves {
        save.await.unwrap().unwrap();
    }
    assert_eq!(store.flushes(), 2);
    assert_eq!(open(dir.path()).load(&name).unwrap(), Some(at(100)));
}

#[test]
fn a_second_owner_is_refused_and_a_look_says_locked() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(peek(dir.path()).unwrap(), Peek::Absent);
    assert_eq!(peek(&dir.path().join("missing")).unwrap(), Peek::Absent);
    save_all(dir.path(), 1..=3);
    let Peek::Found(found) = peek(dir.path()).unwrap() else {
        panic!("the lock is free")
    };
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        [(link("east->west"), at(3))]
    );

    let store = open(dir.path());
    let pid = Some(std::process::id());
    let error = Checkpoints::open(dir.path()).unwrap_err();
    assert!(matches!(error, CheckpointError::Locked { pid: holder, .. } if holder == pid));
    assert_eq!(error.retry_class(), RetryClass::Operator);
    assert_eq!(peek(dir.path()).unwrap(), Peek::Locked { pid });
    drop(store);
    drop(open(dir.path()));
}

#[test]
fn a_look_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    save_all(dir.path(), 1..=3);
    let before = files(dir.path());
    peek(dir.path()).unwrap();
    assert_eq!(files(dir.path()), before);
}

fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), std::fs::read(path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn an_interrupted_snapshot_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    save_all(dir.path(), 1..=3);
    let planted = dir
        .path()
        .join(store::STORE_DIR)
        .join("snap.00000000000FFFFF.generating");
    std::fs::write(&planted, b"half a snapsh").unwrap();
    let Peek::Found(found) = peek(dir.path()).unwrap() else {
        panic!("the lock is free")
    };
    assert_eq!(found.get(&link("east->west")), Some(&at(3)));
    assert!(planted.exists(), "a look changes nothing");
    assert_eq!(
        open(dir.path()).load(&link("east->west")).unwrap(),
        Some(at(3))
    );
    assert!(!planted.exists());
}

#[test]
fn a_deleted_folder_starts_empty() {
    let dir = tempfile::tempdir().unwrap();
    save_all(dir.path(), 1..=3);
    std::fs::remove_dir_all(dir.path()).unwrap();
    assert_eq!(open(dir.path()).load(&link("east->west")).unwrap(), None);
}

/// Opens a store that was damaged on purpose: whatever comes out was once saved, or is announced.
fn open_damaged(dir: &Path, saved: u64) -> Option<OpenNotice> {
    let (store, notice) = Checkpoints::open_with(dir, FAST).unwrap();
    if let Some(found) = store.load(&link("east->west")).unwrap() {
        let position = found.position.as_u64();
        assert!(
            (1..=saved).contains(&position),
            "{position} was never saved"
        );
        assert_eq!(found, at(position));
    }
    if let Some(notice) = &notice {
        assert!(notice.moved_to.is_dir(), "{notice}");
        assert_eq!(store.load(&link("east->west")).unwrap(), None);
    }
    // Whatever was found, the store works.
    runtime()
        .block_on(store.save(&link("east->west"), at(saved + 1)))
        .unwrap();
    notice
}

#[test]
fn a_truncated_log_gives_an_older_value_or_a_notice() {
    for keep in [0, 1, 100, 4096, 8192, 200_000] {
        let dir = tempfile::tempdir().unwrap();
        save_all(dir.path(), 1..=200);
        let log = dir.path().join(store::STORE_DIR).join("db");
        let file = std::fs::OpenOptions::new().write(true).open(log).unwrap();
        file.set_len(keep).unwrap();
        drop(file);
        open_damaged(dir.path(), 200);
    }
}

#[test]
fn garbage_in_place_of_the_store_is_moved_aside() {
    let dir = tempfile::tempdir().unwrap();
    save_all(dir.path(), 1..=3);
    std::fs::write(
        dir.path().join(store::STORE_DIR).join("conf"),
        b"garbage instead of settings",
    )
    .unwrap();
    let notice = open_damaged(dir.path(), 3).expect("this cannot be read");
    assert!(notice.to_string().contains("nothing is lost"), "{notice}");
    assert!(notice.moved_to.join("conf").exists());
}

#[test]
fn flipped_bits_are_never_returned_as_a_position() {
    let original = tempfile::tempdir().unwrap();
    save_all(original.path(), 1..=50);
    let image = files(original.path());
    let mut seed = 0x2545_F491_4F6C_DD1D_u64;
    for round in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(store::STORE_DIR)).unwrap();
        for (path, bytes) in &image {
            let mut bytes = bytes.clone();
            // Three of four rounds damage the log with the values, the others everything.
            if round % 4 == 0 || path.ends_with("db") {
                (0..=round / 4).for_each(|_| flip(&mut bytes, &mut seed));
            }
            let relative = path.strip_prefix(original.path()).unwrap();
            std::fs::write(dir.path().join(relative), bytes).unwrap();
        }
        open_damaged(dir.path(), 50);
    }
}

/// Flips one bit in the part of the file that is in use (sled fills the rest with zeroes).
fn flip(bytes: &mut [u8], seed: &mut u64) {
    let used = bytes
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1);
    if used > 0 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        let place = usize::try_from(*seed % used as u64).unwrap();
        bytes[place] ^= 1 << (*seed >> 61);
    }
}

/// A command that runs the ignored test `name` of this very program with `dir` as its store.
fn child(name: &str, dir: &Path, limit: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{limit} exec \"$0\" \"$@\"")]);
    command.arg(std::env::current_exe().unwrap());
    let test = format!("checkpoint::tests::{name}");
    command.args([test.as_str(), "--exact", "--ignored", "--nocapture"]);
    command
        .env(STORE_OF_CHILD, dir)
        .stdin(Stdio::null())
        .process_group(0);
    command
}

/// `None` when somebody runs the ignored tests by hand.
fn dir_of_child() -> Option<PathBuf> {
    std::env::var_os(STORE_OF_CHILD).map(PathBuf::from)
}

#[test]
#[ignore = "the child of killed_at_any_moment_nothing_acknowledged_is_lost"]
fn save_until_killed() {
    let Some(dir) = dir_of_child() else { return };
    let store = open(&dir);
    let name = link("east->west");
    let start = store
        .load(&name)
        .unwrap()
        .map_or(0, |found| found.position.as_u64());
    println!("start {start}");
    runtime().block_on(async {
        for position in start + 1.. {
            store.save(&name, at(position)).await.unwrap();
            println!("ack {position}");
        }
    });
}

#[test]
fn killed_at_any_moment_nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    for round in 0..40_u64 {
        let mut command = child("save_until_killed", dir.path(), "");
        let mut running = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = running.stdout.take().unwrap();
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        // Rounds differ in what the kill hits: the start, the open, the first saves, the stream.
        let until = (round * 7919) % 60;
        for _ in 0..until {
            last = last.max(acknowledged(lines.next()));
        }
        running.kill().unwrap();
        running.wait().unwrap();
        last = lines.fold(last, |last, line| last.max(acknowledged(Some(line))));
        let store = open(dir.path());
        let found = store.load(&link("east->west")).unwrap();
        let found = found.map_or(0, |checkpoint| checkpoint.position.as_u64());
        assert!(
            found >= last,
            "round {round}: {last} was acknowledged, {found} is left"
        );
    }
    assert!(last > 100, "the child hardly ran: {last}");
}

fn acknowledged(line: Option<String>) -> u64 {
    line.and_then(|line| line.strip_prefix("ack ")?.parse().ok())
        .unwrap_or(0)
}

#[test]
#[ignore = "the child of a_full_disk_is_reported_and_survived"]
fn save_beyond_the_limit() {
    let Some(dir) = dir_of_child() else { return };
    let store = open(&dir);
    let outcome = runtime().block_on(async {
        for position in 1..200_000 {
            store.save(&link("east->west"), at(position)).await?;
        }
        Ok::<(), CheckpointError>(())
    });
    let error = outcome.unwrap_err();
    assert!(matches!(error, CheckpointError::Store { .. }), "{error:?}");
    assert_eq!(error.retry_class(), RetryClass::Transient);
    let before = store.load(&link("east->west")).unwrap();

    // Once there is room again the same store goes on.
    let pid = std::process::id().to_string();
    let lifted = Command::new("prlimit")
        .args(["--pid", &pid, "--fsize=unlimited"])
        .status();
    assert!(lifted.unwrap().success());
    runtime()
        .block_on(store.save(&link("east->west"), at(200_000)))
        .unwrap();
    runtime().block_on(store.close());
    let found = open(&dir).load(&link("east->west")).unwrap();
    assert_eq!(found, Some(at(200_000)), "before: {before:?}");
}

#[test]
fn a_full_disk_is_reported_and_survived() {
    let dir = tempfile::tempdir().unwrap();
    // One block of 512 bytes: no file may grow beyond it, which the kernel reports as EFBIG.
    let limit = "trap '' XFSZ; ulimit -S -f 1;";
    let output = child("save_beyond_the_limit", dir.path(), limit)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{errors}"
    );
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Checkpoints::open(&file.path().join("data")).unwrap_err();
    assert!(
        matches!(error, CheckpointError::Directory { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("--data-dir"), "{error}");
}
