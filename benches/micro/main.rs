//! `make micro`: what the daemon itself does with a change, without servers: take messages apart,
//! put transactions together, find the net change, decide. And what each step allocates.
#![allow(clippy::print_stdout, missing_docs)]

mod stream;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use allocation_counter::measure;
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use mmrepl::apply::pure::{GroupBuilder, Segment, Stamp, Target};
use mmrepl::assemble::Piece;
use mmrepl::commit_time::CommitTime;
use mmrepl::conflict::{Held, Incoming, Local, Tie, Version, Write, resolve};
use mmrepl::pgoutput::{Message, decode};

use stream::{Kind, ROWS};

fn main() {
    count_allocations();
    let mut criterion = Criterion::default().configure_from_args();
    decoding(&mut criterion);
    assembling(&mut criterion);
    grouping(&mut criterion);
    resolving(&mut criterion);
    criterion.final_summary();
}

fn decode_all(stream: &[Bytes]) -> Vec<Message> {
    let message = |bytes: &Bytes| decode(bytes.clone(), false).expect("what was encoded");
    stream.iter().map(message).collect()
}

fn group(pieces: &[Piece], target: &Arc<Target>) -> Vec<Segment> {
    let mut group = GroupBuilder::default();
    for piece in pieces {
        let stamp = Stamp {
            time: piece.header.commit_time,
            seen: Arc::clone(piece.seen.at_end()),
            delete_clock: None,
        };
        for change in &piece.changes {
            group
                .row(change, target, &stamp)
                .expect("the table has a key");
        }
    }
    group.finish()
}

/// Where the document of `make bench` finds them.
const ALLOCATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench/allocations.md");

/// Allocations for each row, step by step: a table, printed and kept.
fn count_allocations() {
    let mut table = "| allocations per row (bytes) | decode | assemble | group |\n".to_owned()
        + "|---|---|---|---|\n";
    for (kind, each) in Kind::ALL
        .into_iter()
        .flat_map(|kind| [(kind, 1), (kind, ROWS)])
    {
        let [decoded, assembled, grouped] = allocations(kind, each);
        let what = format!("{}, {each} per transaction", kind.name());
        let cells = [what, decoded, assembled, grouped].join(" | ");
        table = table + "| " + &cells + " |\n";
    }
    println!("{table}");
    let folder = Path::new(ALLOCATIONS).parent().expect("it is in a folder");
    std::fs::create_dir_all(folder).expect("target/bench can be made");
    std::fs::write(ALLOCATIONS, table).expect("target/bench is writable");
}

/// What decoding, assembling and grouping allocate, in transactions of `each` rows.
fn allocations(kind: Kind, each: u32) -> [String; 3] {
    let target = stream::target();
    let stream = stream::transactions(kind, each);
    let (mut messages, mut pieces) = (Vec::new(), Vec::new());
    let steps = [
        measure(|| messages = decode_all(&stream)),
        measure(|| {
            pieces = stream::assemble(std::mem::take(&mut messages));
        }),
        measure(|| drop(black_box(group(&pieces, &target)))),
    ];
    #[allow(clippy::cast_precision_loss)] // far below 2^52
    let share = |total: u64| total as f64 / f64::from(ROWS);
    steps.map(|step| {
        let (count, bytes) = (share(step.count_total), share(step.bytes_total));
        format!("{count:.1} ({bytes:.0})")
    })
}

fn throughput(stream: &[Bytes]) -> Throughput {
    let bytes: usize = stream.iter().map(Bytes::len).sum();
    Throughput::ElementsAndBytes {
        elements: u64::from(ROWS),
        bytes: bytes as u64,
    }
}

fn decoding(criterion: &mut Criterion) {
    let mut benches = criterion.benchmark_group("decode");
    for kind in Kind::ALL {
        let changes = stream::changes(kind);
        benches.throughput(throughput(&changes));
        benches.bench_function(kind.name(), |bencher| {
            bencher.iter(|| {
                for bytes in &changes {
                    let _ = black_box(decode(bytes.clone(), false));
                }
            });
        });
    }
}

fn assembling(criterion: &mut Criterion) {
    let mut benches = criterion.benchmark_group("assemble");
    for (name, each) in [
        ("1 row per transaction", 1),
        ("1000 rows per transaction", ROWS),
    ] {
        let stream = stream::transactions(Kind::Update, each);
        benches.throughput(throughput(&stream));
        benches.bench_function(name, |bencher| {
            bencher.iter_batched(
                || decode_all(&stream),
                stream::assemble,
                BatchSize::SmallInput,
            );
        });
    }
}

fn grouping(criterion: &mut Criterion) {
    let mut benches = criterion.benchmark_group("group");
    let target = stream::target();
    for kind in Kind::ALL {
        let stream = stream::transactions(kind, 1);
        let pieces = stream::assemble(decode_all(&stream));
        benches.throughput(throughput(&stream));
        benches.bench_function(kind.name(), |bencher| {
            bencher.iter(|| group(&pieces, &target));
        });
    }
    // The same rows again and again: all but the last write of each fall away.
    let once = stream::assemble(decode_all(&stream::transactions(Kind::Update, 1)));
    let few: Vec<Piece> = once.iter().cycle().take(once.len() * 10).cloned().collect();
    benches.throughput(Throughput::Elements(few.len() as u64));
    benches.bench_function("update, each row ten times", |bencher| {
        bencher.iter(|| group(&few, &target));
    });
}

fn resolving(criterion: &mut Criterion) {
    let version = |micros: i64, node: &str| Version {
        time: CommitTime::from_postgres_micros(micros),
        node: node.parse().expect("a name of a node"),
    };
    let held = Held::at(Some(version(5, "west")));
    let row = Local {
        row: Some(held.clone()),
        tombstones: vec![],
    };
    let deleted = Local {
        row: None,
        tombstones: vec![held.clone(), held],
    };
    let mut benches = criterion.benchmark_group("resolve");
    benches.throughput(Throughput::Elements(1));
    for (name, local) in [("against a row", row), ("against two tombstones", deleted)] {
        let incoming = Incoming {
            write: Write::Put,
            version: version(6, "east"),
            rank: None,
        };
        benches.bench_function(name, |bencher| {
            bencher.iter(|| resolve(black_box(&incoming), black_box(&local), Tie::Later));
        });
    }
}
