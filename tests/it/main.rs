//! Integration tests against real servers. One binary, so that tests share servers.
// `pub` here means "for the other modules of this binary"; a failing helper fails its test.
#![allow(
    clippy::disallowed_methods,
    reason = "an answer that is not as expected fails a test"
)]
#![allow(unreachable_pub, clippy::unwrap_used, clippy::panic)]

mod altered_tables;
mod asked_copy;
mod bad_input;
mod blocks;
mod case_table;
mod cases;
mod changing_tables;
mod chaos;
mod check;
mod circles;
mod clocks;
mod conflicts;
mod copying;
mod crossing;
mod custom;
mod daemon_process;
mod damage;
mod encodings;
#[cfg(feature = "failpoints")]
mod equivalence;
#[cfg(feature = "failpoints")]
mod failpoints;
mod forged;
mod gaps;
mod harness;
mod histories;
// The model's own language for histories; not all of it is used here.
#[allow(dead_code)]
#[path = "../model/history.rs"]
mod history;
mod housekeeping;
mod identities;
mod init;
mod init_rows;
mod key_changes;
mod keyless;
mod large;
mod leaving;
mod lineage;
mod local_ways;
mod manual;
mod mends;
mod merge;
mod migrations;
mod narrower_types;
mod newcomer;
mod newest_server;
mod not_shown;
mod operators;
mod origin_progress;
mod own_functions;
mod pgbench;
mod put_back;
mod rare_shapes;
mod read_ahead;
mod repair;
mod replica_role;
mod replication;
mod rewrites;
mod row_security;
mod sequences;
mod settings;
mod shapes;
mod skip;
mod spelled_keys;
mod status_truth;
mod streaming;
mod subscriptions;
#[path = "../support/mod.rs"]
mod support;
mod temporal_keys;
mod together;
mod tombstones;
mod truth;
mod truth_samples;
mod truth_setup;
mod types;
mod undone;
mod unique;
mod unique_cases;
mod upgraded_server;
mod verify;
mod versions;
mod waiting;
mod workers;
