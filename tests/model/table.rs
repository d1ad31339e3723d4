//! The table of the model as the product's own types describe it.

use std::sync::Arc;

use bytes::Bytes;
use mmrepl::apply::pure::{Guard, TableMap, Target, Versions};
use mmrepl::catalog::key_form::KeyForm;
use mmrepl::catalog::table::{Column, Key, KeyColumn, Table};
use mmrepl::catalog::unique::Uniques;
use mmrepl::ids::RelationId;
use mmrepl::pgoutput::{Tuple, Value};
use mmrepl::relation::{Relation, RelationColumn, ReplicaIdentity};

use crate::history::{NAMES, Strategy};
use crate::versions;

/// The version and the unique value come last.
fn columns(strategy: Strategy) -> [&'static str; 5] {
    ["id", "small", "large", versions::column(strategy), "taken"]
}

/// `t (id integer primary key, small integer, large text, version, taken integer unique)`, in a
/// cluster of two nodes or of more.
pub(crate) fn target(strategy: Strategy, source: u8, pair: bool, full: bool) -> Arc<Target> {
    let (relation, table) = (relation(strategy, full), table(strategy));
    let map = TableMap::new(relation, Some(table), "west").unwrap();
    let source = NAMES[usize::from(source)].parse().unwrap();
    let versions = Versions::new(versions::rule(strategy), source, &map).unwrap();
    let guard = Guard {
        origin: 1,
        stronger: vec![],
        others: vec![],
        pair,
        again: vec![],
    };
    Arc::new(Target::new(map, guard, vec![], versions))
}

fn relation(strategy: Strategy, full: bool) -> Arc<Relation> {
    let column = |name: &str| RelationColumn {
        name: name.to_owned(),
        type_oid: 25,
        type_modifier: -1,
        is_key: full || name == "id",
    };
    Arc::new(Relation {
        id: RelationId(7),
        schema: "public".to_owned(),
        name: "t".to_owned(),
        replica_identity: if full {
            ReplicaIdentity::Full
        } else {
            ReplicaIdentity::Default
        },
        columns: columns(strategy).map(column).to_vec(),
    })
}

fn table(strategy: Strategy) -> Table {
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
        replica_identity: 'd',
        columns: columns(strategy).map(column).to_vec(),
        can_skip_duplicates: true,
        uniques: Uniques::default(),
        indexed: Vec::new(),
        key: Some(Key {
            index: "t_pkey".to_owned(),
            columns: vec![key],
            primary: true,
            deferrable: false,
        }),
    }
}

/// A number as the stream sends it.
pub(crate) fn text(number: u16) -> Value {
    let digits: [u8; 5] = std::array::from_fn(|place| {
        let shifted = number / 10_u16.pow(4 - u32::try_from(place).expect("five places"));
        b'0' + u8::try_from(shifted % 10).expect("one digit")
    });
    Value::Text(Bytes::copy_from_slice(&digits))
}

/// What [`text`] wrote.
pub(crate) fn number(bytes: &[u8]) -> u16 {
    bytes
        .iter()
        .fold(0, |number, digit| number * 10 + u16::from(digit - b'0'))
}

/// A column of a tuple; nothing where the stream left it out.
pub(crate) fn column(tuple: &Tuple, index: usize) -> Option<u16> {
    tuple.0[index].as_bytes().map(|bytes| number(bytes))
}
