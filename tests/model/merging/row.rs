//! A row that merges, with its clocks, and the text that a server would print of it.

use std::sync::Arc;

use mmrepl::apply::pure::{Guard, TableMap, Target, Versions};
use mmrepl::catalog::key_form::KeyForm;
use mmrepl::catalog::table::{Column, Key, KeyColumn, Table};
use mmrepl::conflict::{COUNT_COLUMN, Merge, Rule, STATE_COLUMN};
use mmrepl::ids::RelationId;
use mmrepl::pgoutput::{Tuple, Value};
use mmrepl::relation::{Relation, RelationColumn, ReplicaIdentity};
use serde_json::{Value as Json, json};

use crate::history::{KEYS, NAMES};

/// How many keys, as a length.
pub(super) const KEY_COUNT: usize = KEYS as usize;
const COLUMNS: [&str; 6] = ["id", "small", "large", "count", COUNT_COLUMN, STATE_COLUMN];

/// A clock and a node.
pub(super) type Stamp = (i64, u8);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) small: u16,
    pub(super) large: u16,
    pub(super) count: i64,
    pub(super) version: Stamp,
    /// When and where `small` and `large` were set; where that is kept.
    pub(super) set: Option<[Stamp; 2]>,
    pub(super) base: (Stamp, i64),
    /// By node: the clock of its last change and the sum of its changes.
    pub(super) sums: [Option<(i64, i64)>; 3],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grave {
    pub(super) rank: Stamp,
    pub(super) row: Row,
}

/// What a server's tables hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) rows: [Option<Row>; KEY_COUNT],
    pub(super) graves: [Option<Grave>; KEY_COUNT],
    pub(super) positions: [usize; 3],
}

impl State {
    pub(super) fn values(&self) -> [Option<(u16, u16, i64)>; KEY_COUNT] {
        self.rows
            .map(|row| row.map(|row| (row.small, row.large, row.count)))
    }

    /// Whether what is gone is remembered alike.
    pub(super) fn buried(&self, other: &Self) -> bool {
        let gone = (0..KEY_COUNT).filter(|key| self.rows[*key].is_none());
        gone.into_iter()
            .all(|key| self.graves[key] == other.graves[key])
    }
}

fn name(node: u8) -> &'static str {
    NAMES[usize::from(node)]
}

fn node(name: &str) -> u8 {
    let place = NAMES.iter().position(|known| *known == name).unwrap();
    u8::try_from(place).unwrap()
}

fn stamp(value: &Json) -> Stamp {
    (value[0].as_i64().unwrap(), node(value[1].as_str().unwrap()))
}

fn number(value: &Json) -> i64 {
    value.as_str().unwrap().parse().unwrap()
}

impl Row {
    pub(super) fn print(&self, key: usize) -> Tuple {
        let text = |text: String| Value::Text(text.into());
        let mut state = json!({"n": name(self.version.1), "c": {}, "d": {"count": {
            "b": [self.base.0.0, name(self.base.0.1), self.base.1.to_string()], "e": {}}}});
        for (column, set) in ["small", "large"].iter().zip(self.set.iter().flatten()) {
            state["c"][column] = json!([set.0, name(set.1)]);
        }
        for (node, sum) in self.sums.iter().enumerate() {
            if let Some((clock, sum)) = sum {
                state["d"]["count"]["e"][NAMES[node]] = json!([clock, sum.to_string()]);
            }
        }
        Tuple::from(vec![
            text(key.to_string()),
            text(self.small.to_string()),
            text(self.large.to_string()),
            text(self.count.to_string()),
            text(self.version.0.to_string()),
            text(state.to_string()),
        ])
    }

    pub(super) fn read(tuple: &Tuple, by_column: bool) -> Self {
        let text = |index: usize| std::str::from_utf8(tuple.0[index].as_bytes().unwrap()).unwrap();
        let state: Json = serde_json::from_str(text(5)).unwrap();
        let counter = &state["d"]["count"];
        let set = |column: &str| stamp(&state["c"][column]);
        Self {
            small: text(1).parse().unwrap(),
            large: text(2).parse().unwrap(),
            count: text(3).parse().unwrap(),
            version: (text(4).parse().unwrap(), node(state["n"].as_str().unwrap())),
            set: by_column.then(|| [set("small"), set("large")]),
            base: (stamp(&counter["b"]), number(&counter["b"][2])),
            sums: NAMES.map(|name| {
                let sum = counter["e"].get(name)?;
                Some((sum[0].as_i64().unwrap(), number(&sum[1])))
            }),
        }
    }
}

/// The table as a link from `source` writes it.
pub(super) fn target(source: u8, by_column: bool, pair: bool) -> Arc<Target> {
    let map = TableMap::new(relation(), Some(table()), "west").unwrap();
    let counters = vec!["count".to_owned()];
    let rule = Rule::Merge(Merge {
        by_column,
        counters,
    });
    let versions = Versions::new(rule, name(source).parse().unwrap(), &map).unwrap();
    let guard = Guard {
        origin: 1,
        stronger: vec![],
        others: vec![],
        again: vec![],
        pair,
    };
    Arc::new(Target::new(map, guard, vec![], versions))
}

fn relation() -> Arc<Relation> {
    let column = |name: &str| RelationColumn {
        name: name.to_owned(),
        type_oid: 25,
        type_modifier: -1,
        is_key: true,
    };
    Arc::new(Relation {
        id: RelationId(7),
        schema: "public".to_owned(),
        name: "t".to_owned(),
        replica_identity: ReplicaIdentity::Full,
        columns: COLUMNS.map(column).to_vec(),
    })
}

fn table() -> Table {
    let column = |name: &str| Column {
        name: name.to_owned(),
        type_name: "text".to_owned(),
        cast_type: None,
        type_oid: 25,
        not_null: false,
        has_default: false,
        generated: false,
        identity_always: false,
        base_type: (0, -1),
        is_bare_byte: false,
    };
    let key = KeyColumn {
        name: "id".to_owned(),
        type_name: "text".to_owned(),
        equality: "OPERATOR(pg_catalog.=)".to_owned(),
        form: KeyForm::Cast,
    };
    Table {
        oid: 1,
        schema: "public".to_owned(),
        name: "t".to_owned(),
        partitioned: false,
        is_partition: false,
        replica_identity: 'f',
        columns: COLUMNS.map(column).to_vec(),
        can_skip_duplicates: true,
        uniques: mmrepl::catalog::unique::Uniques::default(),
        indexed: Vec::new(),
        key: Some(Key {
            index: "t_pkey".to_owned(),
            columns: vec![key],
            primary: true,
            deferrable: false,
        }),
    }
}
