//! The sentence that says which lock a session of ours waits for, and who holds it since when.
//! Pure; `catalog::lock_waits` asks the server.

use std::fmt::Write as _;

use crate::commit_time::CommitTime;
use crate::ids::NodeName;
use crate::text;

/// A lock that a session of ours waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockWait {
    /// `relation`, `transactionid`, `tuple`, `advisory` …
    pub kind: String,
    /// `schema.table`, where the lock is on one or on one of its rows.
    pub table: Option<String>,
    /// Since when.
    pub since: Option<CommitTime>,
    /// A slot is being made, which waits until every transaction that was open before has ended.
    pub makes_slot: bool,
    /// Those that hold it, or wait for it before us.
    pub holders: Vec<Holder>,
}

/// Who holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// The server process; 0 for a prepared transaction.
    pub pid: i32,
    /// What it calls itself.
    pub application: Option<String>,
    /// Its role.
    pub user: Option<String>,
    /// Where it comes from; nothing where it is on the server's own machine.
    pub address: Option<String>,
    /// `active`, `idle in transaction` …
    pub state: Option<String>,
    /// Since when it is in that state.
    pub state_since: Option<CommitTime>,
    /// When its transaction began.
    pub begun: Option<CommitTime>,
    /// It waits for a lock itself.
    pub waits: bool,
    /// The name of the prepared transaction.
    pub prepared: Option<String>,
    /// Its database, where that is another one.
    pub database: Option<String>,
}

impl LockWait {
    /// Whether it is about what `other` is about, whatever has passed since.
    pub fn is_like(&self, other: &Self) -> bool {
        let who = |wait: &Self| -> Vec<_> {
            let holders = wait.holders.iter();
            holders.map(|h| (h.pid, h.prepared.clone())).collect()
        };
        self.makes_slot == other.makes_slot && self.table == other.table && who(self) == who(other)
    }
}

/// The sentence.
pub fn sentence(node: &NodeName, wait: &LockWait) -> String {
    let mut words = if wait.makes_slot {
        format!(
            "{node}: making a replication slot waits for the end of what was open before it began"
        )
    } else {
        format!("{node}: waiting for a lock{}", on_what(wait))
    };
    let holders: Vec<String> = wait.holders.iter().map(holder).collect();
    if holders.is_empty() {
        words.push_str(", whose holder the server does not tell");
    } else {
        let held = if wait.makes_slot { ":" } else { " held by" };
        // Writing to a string cannot fail.
        let _ = write!(words, "{held} {}", holders.join(" and by "));
    }
    if let Some(advice) = wait.holders.iter().find_map(advice) {
        let _ = write!(words, "; {advice} on {node} ends that");
    }
    words
}

fn on_what(wait: &LockWait) -> String {
    let table = wait.table.as_deref().map(text::name);
    match (wait.kind.as_str(), table) {
        ("transactionid" | "tuple", Some(table)) => format!(" on a row of {table}"),
        ("transactionid" | "tuple", None) => " on a row".to_owned(),
        (_, Some(table)) => format!(" on {table}"),
        (kind, None) => format!(" ({})", text::name(kind)),
    }
}

fn holder(holder: &Holder) -> String {
    match &holder.prepared {
        Some(name) => format!(
            "the prepared transaction '{}'{}{}",
            text::name(name),
            who(holder),
            doing(holder)
        ),
        None if holder.pid == 0 => "a prepared transaction".to_owned(),
        None => format!("process {}{}{}", holder.pid, who(holder), doing(holder)),
    }
}

/// ` (application psql, user app)`, as far as it is told.
fn who(holder: &Holder) -> String {
    let mut who = Vec::new();
    let mut add = |what: &str, value: &Option<String>| {
        let value = value.as_deref().filter(|value| !value.is_empty());
        who.extend(value.map(|value| format!("{what}{}", text::name(value))));
    };
    add("application ", &holder.application);
    add("user ", &holder.user);
    add("from ", &holder.address);
    add("database ", &holder.database);
    if who.is_empty() {
        String::new()
    } else {
        format!(" ({})", who.join(", "))
    }
}

fn doing(holder: &Holder) -> String {
    let mut words = String::new();
    if holder.waits {
        words.push_str(", which waits for a lock itself");
    } else if let Some(state) = holder.state.as_deref() {
        let _ = write!(words, ", {}", text::name(state));
        if let Some(since) = holder.state_since {
            let _ = write!(words, " since {since}");
        }
    }
    if let Some(begun) = holder.begun {
        let began = match holder.prepared {
            Some(_) => "prepared",
            None => "its transaction began",
        };
        let _ = write!(words, ", {began} {begun}");
    }
    words
}

/// Never to end what belongs to mmrepl: that goes on by itself.
fn advice(holder: &Holder) -> Option<String> {
    let ours = holder.application.as_deref();
    let ours = ours.is_some_and(|name| name.starts_with("mmrepl "));
    match (&holder.prepared, holder.pid) {
        (Some(name), _) => {
            let name = name.replace('\'', "''");
            Some(format!(
                "`commit prepared '{name}'` or `rollback prepared '{name}'`"
            ))
        }
        (None, 0) => None,
        (None, _) if ours => None,
        (None, pid) => Some(format!("`select pg_terminate_backend({pid})`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> CommitTime {
        CommitTime::from_postgres_micros(second * 1_000_000)
    }

    fn told(wait: &LockWait) -> String {
        sentence(&"west".parse().unwrap(), wait)
    }

    fn idle() -> Holder {
        Holder {
            pid: 4711,
            application: Some("psql".into()),
            user: Some("app".into()),
            address: Some("10.0.0.7".into()),
            state: Some("idle in transaction".into()),
            state_since: Some(at(1)),
            begun: Some(at(0)),
            ..Holder::default()
        }
    }

    fn wait(kind: &str, holders: &[Holder]) -> LockWait {
        LockWait {
            kind: kind.into(),
            table: Some("public.t".into()),
            since: Some(at(2)),
            makes_slot: false,
            holders: holders.to_vec(),
        }
    }

    #[test]
    fn a_row_held_by_an_idle_session() {
        assert_eq!(
            told(&wait("transactionid", &[idle()])),
            "west: waiting for a lock on a row of public.t held by process 4711 (application psql, \
             user app, from 10.0.0.7), idle in transaction since 2000-01-01T00:00:01.000000Z, its \
             transaction began 2000-01-01T00:00:00.000000Z; \
             `select pg_terminate_backend(4711)` on west ends that"
        );
    }

    #[test]
    fn a_prepared_transaction_and_somebody_who_waits() {
        let prepared = Holder {
            prepared: Some("it's".into()),
            user: Some("app".into()),
            begun: Some(at(0)),
            ..Holder::default()
        };
        let words = told(&wait("relation", &[prepared]));
        assert!(
            words.contains(
                "on public.t held by the prepared transaction 'it's' (user app), prepared \
                 2000-01-01T00:00:00.000000Z; `commit prepared 'it''s'` or"
            ),
            "{words}"
        );
        assert!(
            words.contains("`rollback prepared 'it''s'` on west"),
            "{words}"
        );
        let waiting = Holder {
            waits: true,
            ..idle()
        };
        let words = told(&wait("relation", &[waiting]));
        assert!(words.contains("which waits for a lock itself"), "{words}");
    }

    #[test]
    fn what_the_server_hides_is_left_out_and_ours_is_not_to_be_ended() {
        let hidden = Holder {
            pid: 9,
            ..Holder::default()
        };
        let words = told(&wait("relation", &[hidden]));
        assert!(words.contains("held by process 9;"), "{words}");
        assert!(told(&LockWait::default()).contains("whose holder the server does not tell"));
        let ours = Holder {
            application: Some("mmrepl shop east->west apply".into()),
            ..idle()
        };
        assert!(!told(&wait("relation", &[ours])).contains("terminate"));
    }

    #[test]
    fn a_slot_waits_for_transactions() {
        let slot = LockWait {
            makes_slot: true,
            table: None,
            ..wait("transactionid", &[idle()])
        };
        let words = told(&slot);
        assert!(
            words.contains("slot waits for the end of what was open before it began: process 4711"),
            "{words}"
        );
        assert!(slot.is_like(&slot) && !slot.is_like(&wait("transactionid", &[idle()])));
    }

    #[test]
    fn names_do_nothing_to_a_terminal() {
        let evil = Holder {
            application: Some("x\u{1b}[2J\nERROR".into()),
            ..idle()
        };
        let words = told(&wait("relation", &[evil]));
        assert!(!words.contains(['\u{1b}', '\n']), "{words}");
    }
}
