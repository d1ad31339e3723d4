//! The verdict, witness by witness.

use super::*;
use crate::catalog::slots::PLUGIN;
use crate::error::{RetryClass, Retryable};

fn end(node: &str) -> EndFacts {
    EndFacts {
        node: node.parse().unwrap(),
        system_id: SystemId(if node == "east" { 1 } else { 2 }),
        timeline: TimelineId(1),
        database: "app".to_owned(),
        flushed: Lsn::new(500),
        here: Some(node.to_owned()),
        dropped: Vec::new(),
        set_up_on: Some(SystemId(if node == "east" { 1 } else { 2 })),
    }
}

fn began() -> CommitTime {
    CommitTime::from_postgres_micros(7)
}

fn facts(source: &str) -> LinkFacts {
    LinkFacts {
        slot_name: "mmrepl_shop_x".to_owned(),
        position: Some(Position {
            source: source.parse().unwrap(),
            commit_lsn: Lsn::new(290),
            end_lsn: Lsn::new(300),
            commit_time: None,
            source_system_id: end(source).system_id,
            source_timeline: TimelineId(1),
            began: began(),
            witness: None,
            others_lsn: None,
        }),
        slot: Some(SlotState {
            active_pid: None,
            restart_lsn: Some(Lsn::new(90)),
            confirmed_flush: Some(Lsn::new(300)),
            wal_status: "reserved".to_owned(),
            retained_bytes: 0,
            plugin: PLUGIN.to_owned(),
            database: "app".to_owned(),
            invalidation: None,
            sent: None,
        }),
        proof: Proof::Holds,
        known: vec![Known {
            durable: Lsn::new(300),
            began: began(),
            proof: Proof::Unknown,
        }],
        predates_publication: false,
    }
}

fn pair() -> Pair {
    Pair {
        from: end("east"),
        to: end("west"),
        forward: facts("east"),
        backward: facts("west"),
    }
}

fn finding(change: impl Fn(&mut Pair)) -> Finding {
    let mut changed = pair();
    change(&mut changed);
    *judge(&changed).unwrap_err()
}

fn copies_from(change: impl Fn(&mut Pair)) -> String {
    let found = finding(change);
    let from = found.advice.copy_from();
    from.unwrap_or_else(|| panic!("{found}")).to_string()
}

fn ahead(facts: &mut LinkFacts) {
    facts.slot.as_mut().unwrap().confirmed_flush = Some(Lsn::new(301));
}

#[test]
fn agreeing_witnesses_give_the_position() {
    assert_eq!(judge(&pair()), Ok(Lsn::new(300)));
    let mut unknown = pair();
    unknown.forward.proof = Proof::Unknown;
    unknown.forward.known.clear();
    // A clean failover: another timeline with everything that was applied.
    unknown.from.timeline = TimelineId(2);
    assert_eq!(judge(&unknown), Ok(Lsn::new(300)));
}

#[test]
fn a_link_that_never_was_is_set_up() {
    let new = finding(|pair| {
        pair.forward = LinkFacts::default();
        pair.backward = LinkFacts::default();
    });
    assert_eq!(new.advice, Advice::Init);
    // A slot without a position was left by a setup that did not end.
    let begun = finding(|pair| {
        pair.forward.position = None;
        pair.forward.known.clear();
    });
    assert_eq!(begun.advice, Advice::Init);
}

#[test]
fn nobody_is_told_to_copy_from_the_side_that_lost() {
    // A base backup of east: no slots there, and west's slot is ahead of its position.
    let restored = |pair: &mut Pair| {
        pair.forward.slot = None;
        ahead(&mut pair.backward);
    };
    assert_eq!(copies_from(restored), "west");
    let mut both = pair();
    restored(&mut both);
    let back = judge(&both.reversed()).unwrap_err();
    assert_eq!(back.advice.copy_from().unwrap().as_str(), "west");
    // The same where east only lost what it had written itself.
    assert_eq!(
        copies_from(|pair| pair.forward.proof = Proof::Fails),
        "west"
    );
    assert_eq!(
        copies_from(|pair| pair.from.flushed = Lsn::new(299)),
        "west"
    );
    // An empty server, and another one.
    assert_eq!(copies_from(|pair| pair.from.here = None), "west");
    let other = |pair: &mut Pair| {
        pair.from.system_id = SystemId(9);
        pair.from.set_up_on = None;
    };
    assert_eq!(copies_from(other), "west");
    let emptied = |pair: &mut Pair| {
        pair.to.here = None;
        pair.forward.position = None;
        pair.forward.known.clear();
    };
    assert_eq!(copies_from(emptied), "east");
    // The target: what it was known to have, and what the slot no longer has.
    let lost = |pair: &mut Pair| pair.forward.known[0].durable = Lsn::new(301);
    assert_eq!(copies_from(lost), "east");
    assert_eq!(copies_from(|pair| ahead(&mut pair.forward)), "east");
    let forgotten = |pair: &mut Pair| pair.forward.position = None;
    assert_eq!(copies_from(forgotten), "east");
}

#[test]
fn where_both_lost_no_side_is_named() {
    let found = finding(|pair| {
        ahead(&mut pair.forward);
        ahead(&mut pair.backward);
    });
    assert!(matches!(found.advice, Advice::Neither(..)), "{found}");
}

#[test]
fn a_slot_alone_says_nothing_of_its_server() {
    assert_eq!(copies_from(|pair| pair.forward.slot = None), "east");
    let invalid = |pair: &mut Pair| {
        pair.forward.slot.as_mut().unwrap().wal_status = "lost".to_owned();
    };
    assert_eq!(copies_from(invalid), "east");
    let foreign = finding(|pair| pair.forward.slot.as_mut().unwrap().database = "x".to_owned());
    assert_eq!(foreign.advice, Advice::OtherName);
}

#[test]
fn a_dsn_that_leads_astray_is_corrected() {
    let swapped = finding(|pair| {
        pair.from.here = Some("west".to_owned());
        pair.to.here = Some("east".to_owned());
    });
    let node = "east".parse().unwrap();
    assert_eq!(swapped.advice, Advice::CorrectDsn(node));
}

#[test]
fn what_an_earlier_link_had_does_not_count() {
    let mut anew = pair();
    anew.forward.known[0] = Known {
        durable: Lsn::new(9000),
        began: CommitTime::from_postgres_micros(6),
        proof: Proof::Unknown,
    };
    assert_eq!(judge(&anew), Ok(Lsn::new(300)));
}

#[test]
fn a_slot_that_is_still_being_made_needs_nobody() {
    let found = finding(|pair| pair.forward.slot.as_mut().unwrap().confirmed_flush = None);
    assert_eq!(found.retry_class(), RetryClass::Transient);
    assert_eq!(found.advice, Advice::Wait);
}

#[test]
fn what_both_were_put_back_behind_is_lost_by_none_alone() {
    // Only daemons remember more, and what they remember the sources have no longer either.
    let mut back = pair();
    for known in [&mut back.forward.known[0], &mut back.backward.known[0]] {
        known.durable = Lsn::new(400);
        known.proof = Proof::Fails;
    }
    assert_eq!(judge(&back), Ok(Lsn::new(300)));
    assert_eq!(judge(&back.reversed()), Ok(Lsn::new(300)));
}

#[test]
fn a_database_that_moved_to_another_server_waits_for_a_word_in_both_directions() {
    let move_west = |pair: &mut Pair| {
        pair.to.system_id = SystemId(3);
        pair.backward.slot = None;
    };
    for moved in [finding(move_west), {
        let mut pair = pair();
        move_west(&mut pair);
        *judge(&pair.reversed()).unwrap_err()
    }] {
        let said = moved.to_string();
        assert!(said.contains("as pg_upgrade leaves it"), "{said}");
        assert!(
            said.contains("if all that was written on west had"),
            "{said}"
        );
        assert!(!said.contains("--copy-from west"), "{said}");
    }
    // An older copy of the database, which shows: nothing is taken from it.
    let older = |pair: &mut Pair| {
        move_west(pair);
        ahead(&mut pair.forward);
    };
    assert_eq!(copies_from(older), "east");
    // What the slot on east lost besides is on east alone.
    let besides = |pair: &mut Pair| {
        move_west(pair);
        pair.forward.slot = None;
    };
    assert_eq!(copies_from(besides), "east");
    // Another database behind the DSN is no upgrade.
    let other = finding(|pair| {
        pair.from.system_id = SystemId(9);
        pair.from.set_up_on = Some(SystemId(9));
    });
    assert!(matches!(other.cause, Cause::OtherServer { .. }), "{other}");
}
