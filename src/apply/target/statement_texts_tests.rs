//! The text of every statement, kept in a file: tables × rules × pair and mesh. Nothing in a text
//! depends on the server's major but through what the catalog says of the table.
//!
//! What is meant to change a text changes the file in the same commit: `MMREPL_WRITE_TEXTS=1` with
//! this test writes the file anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::apply::send::{prepared, workers};
use crate::apply::shape::guard::Guard;
use crate::apply::shape::mapping::TableMap;
use crate::apply::shape::versions::Versions;
use crate::apply::sql;
use crate::apply::sql::kind::{Kind, UpdateGuard};
use crate::apply::sql::one_row::updated_columns;
use crate::apply::sql::shadows::Look;
use crate::apply::sql::strict::Expected;
use crate::apply::target::statement::{STATEMENTS, Sql, Statement, Target, Whole};
use crate::catalog::indexed::IndexedColumn;
use crate::catalog::key_form::KeyForm;
use crate::catalog::table::{Column, Key, KeyColumn, Table};
use crate::catalog::unique::{Unique, UniqueColumn, UniquePart, Uniques};
use crate::conflict::{Custom, Merge, Rule};
use crate::ids::{NodeName, RelationId};
use crate::pgoutput::{Tuple, Value};
use crate::relation::{Relation, RelationColumn, ReplicaIdentity};

const FILE: &str = "src/apply/target/statement_texts.txt";

const ALL: [Statement; STATEMENTS] = [
    Statement::InsertNew,
    Statement::Insert,
    Statement::DeleteOlder,
    Statement::Delete,
    Statement::SeeRow,
    Statement::LockRow,
    Statement::Tombstones,
    Statement::LeaveTombstone,
    Statement::LeaveNeededTombstone,
    Statement::LeaveTombstoneBeside,
    Statement::DeletesAbove,
    Statement::StillThere,
    Statement::Record,
    Statement::Pend,
    Statement::Supersede,
    Statement::Image,
    Statement::CallFunction,
    Statement::FunctionResult,
    Statement::Siblings,
    Statement::DropSiblings,
    Statement::KeepSibling,
    Statement::PushAside,
    Statement::KeepAside,
    Statement::LockShadow,
    Statement::DropShadow,
    Statement::ForgetTombstone,
    Statement::NewerShadows,
    Statement::DropOlderShadows,
    Statement::SourceTimes,
    Statement::HoldTable,
    Statement::Truncates,
    Statement::NewerTruncate,
    Statement::RecordTaken,
    Statement::CopyBinary,
    Statement::ExpectTypes,
];

type ByText = BTreeMap<String, Vec<String>>;

/// By a statement's name: its texts, each with the cases that have it.
#[derive(Default)]
struct Texts(BTreeMap<String, ByText>);

impl Texts {
    fn add(&mut self, statement: &str, case: &str, text: &str) {
        let texts = self.0.entry(statement.to_owned()).or_default();
        let cases = texts.entry(text.to_owned()).or_default();
        cases.push(case.to_owned());
    }

    fn print(&self) -> String {
        let mut printed = String::new();
        for (statement, texts) in &self.0 {
            writeln!(printed, "=== {statement}").unwrap();
            for (text, cases) in texts {
                writeln!(printed, "--- {}\n{text}", cases.join(", ")).unwrap();
            }
        }
        printed
    }
}

#[test]
fn every_statement_has_the_text_that_the_file_says() {
    let mut texts = Texts::default();
    fixed(&mut texts);
    for (case, target) in cases() {
        of_table(&mut texts, &case, &target);
        of_keyless(&mut texts, &case, &target);
        outside_target(&mut texts, &case, &target);
    }
    let now = texts.print();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if std::env::var_os("MMREPL_WRITE_TEXTS").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    let line = (1..)
        .zip(now.lines().zip(kept.lines()))
        .find(|(_, (now, kept))| now != kept);
    assert!(now == kept, "{FILE} differs, first at line {line:#?}");
}

#[test]
fn every_statement_is_listed_once() {
    let places: BTreeSet<usize> = ALL.iter().map(|statement| *statement as usize).collect();
    assert_eq!(places.len(), STATEMENTS);
}

/// What depends on no table.
fn fixed(texts: &mut Texts) {
    texts.add("begin", "always", prepared::BEGIN);
    for (text, _) in prepared::COMMIT {
        texts.add("commit", "always", text);
    }
    texts.add("reset", "always", &workers::reset("mmrepl_east"));
}

fn of_table(texts: &mut Texts, case: &str, target: &Target) {
    for statement in ALL {
        texts.add(&format!("{statement:?}"), case, target.sql(statement));
    }
    let all = updated_columns(&target.map, |_| true);
    let some = updated_columns(&target.map, |index| index != 1);
    for (columns, name) in [(&all, "all columns"), (&some, "some columns")] {
        for how in [
            UpdateGuard::Older,
            UpdateGuard::SameWriter,
            UpdateGuard::Decided,
        ] {
            let statement = format!("Update {name} {how:?}");
            texts.add(&statement, case, &target.update(columns, how));
            let set = target.set(&Kind::Update(columns.clone(), how));
            texts.add(&format!("Set{statement}"), case, &set);
        }
    }
    let kinds = [Kind::Delete, Kind::DeleteListed, Kind::Insert, Kind::Copy];
    for kind in kinds {
        let set = target.set(&kind);
        texts.add(&format!("Set{kind:?}"), case, &set);
    }
    for look in [Look::Glance, Look::Lock] {
        for text in target.rivals(look) {
            texts.add(&format!("Rivals {look:?}"), case, text);
        }
    }
    strict(texts, case, target);
}

fn strict(texts: &mut Texts, case: &str, target: &Target) {
    let none = target.finding_none(target.sql(Statement::DeletesAbove));
    texts.add("finding none", case, &none);
    let set: Sql = target.set(&Kind::Insert);
    for expected in [Expected::One, Expected::AsGiven] {
        let text = target.taking_all(&set, expected);
        texts.add(&format!("taking {expected:?}"), case, &text);
    }
}

fn of_keyless(texts: &mut Texts, case: &str, target: &Target) {
    let value = |text: &'static str| Value::Text(Bytes::from_static(text.as_bytes()));
    let columns = target.map.relation.columns.len();
    let some = Tuple((0..columns).map(|_| value("1")).collect());
    let none = Tuple((0..columns).map(|_| Value::Null).collect());
    for (what, name) in [(Whole::Delete, "delete"), (Whole::Update, "update")] {
        texts.add(&format!("whole {name}"), case, &target.whole(what, &some));
        let text = target.whole(what, &none);
        texts.add(&format!("whole {name} of nulls"), case, &text);
    }
}

/// Statements that are made anew each time.
fn outside_target(texts: &mut Texts, case: &str, target: &Target) {
    let (map, guard) = (&target.map, target.guard());
    texts.add("same keys", case, &sql::one_row::same_keys(map));
    texts.add("fetch", case, &sql::fetch::fetch(map, &[1, 2], false));
    texts.add("fetch at", case, &sql::fetch::fetch(map, &[1, 2], true));
    texts.add(
        "lock tables",
        case,
        &sql::truncate::lock_tables(&[map, map]),
    );
    texts.add("truncate", case, &sql::truncate::truncate(&[map, map]));
    let remember = sql::truncate::leave_table_tombstone(map, guard);
    texts.add("table tombstone", case, &remember);
    texts.add("judge rows", case, &sql::truncate::judge_rows(map, guard));
    let third = target.third();
    let record = sql::truncate::record_truncated(map, guard, third);
    texts.add("record truncated", case, &record);
    texts.add(
        "delete older",
        case,
        &sql::truncate::delete_older(map, guard),
    );
    texts.add("bury", case, &sql::merging::bury(map));
}

/// Every rule on a table of all kinds of columns, and every other shape under two of them.
fn cases() -> Vec<(String, Target)> {
    let mut cases = Vec::new();
    for (rule_name, rule) in rules() {
        for (shape_name, shape) in shapes() {
            for (cluster, guard, third) in clusters() {
                if !is_told(rule_name, shape_name, cluster) {
                    continue;
                }
                let (relation, table) = shape(&rule);
                let map = TableMap::new(relation, Some(table), "west").unwrap();
                let versions = Versions::new(rule.clone(), node("east"), &map).unwrap();
                let case = format!("{shape_name} {rule_name} {cluster}");
                cases.push((case, Target::new(map, guard, third, versions)));
            }
        }
    }
    cases
}

/// Enough of all combinations that every text is there.
fn is_told(rule: &str, shape: &str, cluster: &str) -> bool {
    match (rule, shape, cluster) {
        (rule, shape, "pair again") => rule == "last_write_wins" && shape == "wide",
        (_, "wide", _) | ("last_write_wins", ..) => true,
        (rule, _, cluster) => rule == "hybrid_clock" && cluster == "mesh",
    }
}

/// Its name, the guard of the link, and third nodes with their origins.
type Cluster = (&'static str, Guard, Vec<(u32, String)>);

fn clusters() -> [Cluster; 3] {
    let guard = |pair, others: Vec<u32>, again| Guard {
        origin: 1,
        stronger: others.clone(),
        others,
        pair,
        again,
    };
    let third = vec![(2, "south".to_owned()), (3, "it's".to_owned())];
    [
        ("pair", guard(true, vec![], vec![]), vec![]),
        (
            "pair again",
            guard(true, vec![], vec![(8, 1), (9, 0)]),
            vec![],
        ),
        (
            "mesh",
            guard(false, vec![2, 3], vec![(8, 1), (9, 2)]),
            third,
        ),
    ]
}

fn rules() -> Vec<(&'static str, Rule)> {
    let nodes = || vec![node("east"), node("west"), node("south")];
    let custom = Custom {
        nodes: nodes(),
        schema: "Public".to_owned(),
        function: "merge_it".to_owned(),
    };
    let merge = |by_column, counters: &[&str]| {
        Rule::Merge(Merge {
            by_column,
            counters: counters.iter().map(|name| (*name).to_owned()).collect(),
        })
    };
    vec![
        ("last_write_wins", Rule::LastWriteWins),
        ("version_column", Rule::VersionColumn("revision".to_owned())),
        ("hybrid_clock", Rule::HybridClock),
        ("first_write_wins", Rule::FirstWriteWins),
        ("node_priority", Rule::NodePriority(nodes())),
        ("manual", Rule::Manual(nodes())),
        ("custom", Rule::Custom(custom)),
        ("column_merge", merge(true, &[])),
        ("counters", merge(false, &["revision"])),
        ("column_merge and counters", merge(true, &["revision"])),
    ]
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

type Shape = fn(&Rule) -> (Arc<Relation>, Table);

fn shapes() -> [(&'static str, Shape); 5] {
    [
        ("wide", wide),
        ("other keys", other_keys),
        ("open key", open_key),
        ("keyless", keyless),
        ("only a key", only_a_key),
    ]
}

/// Columns of many kinds, unique indexes of many kinds.
fn wide(rule: &Rule) -> (Arc<Relation>, Table) {
    let mut columns = vec![
        column("id", 20, "bigint"),
        column("revision", 23, "integer"),
        column("Na\"me", 25, "text"),
        column("price", 1700, "numeric(10,2)"),
        column("flag", 16, "boolean"),
        column("data", 3802, "jsonb"),
        column("note", 18, "\"char\""),
    ];
    columns[4].identity_always = true;
    columns[6].is_bare_byte = true;
    for (name, kind) in rule.added() {
        columns.push(column(name, if kind == "jsonb" { 3802 } else { 20 }, kind));
    }
    let mut generated = column("twice", 23, "integer");
    generated.generated = true;
    columns.push(generated);
    let mut table = table("t", columns, vec![key("id", "bigint", KeyForm::Cast)]);
    table.uniques = uniques(&table);
    table.indexed = vec![indexed("revision"), indexed("Na\"me")];
    (relation(&table), table)
}

/// Keys of several columns, each brought to one form.
fn other_keys(rule: &Rule) -> (Arc<Relation>, Table) {
    let mut columns = vec![
        column("a", 1700, "numeric"),
        column("b", 701, "double precision"),
        column("c", 1042, "character(8)"),
        column("d", 26, "oid"),
        column("e", 790, "money"),
        column("large", 25, "text"),
    ];
    columns.extend(rule.added().map(|(name, kind)| column(name, 20, kind)));
    let key = vec![
        key("a", "numeric", KeyForm::Numeric),
        key("b", "double precision", KeyForm::Float),
        key("c", "character(8)", KeyForm::Padded),
        key("d", "oid", KeyForm::Number),
        key("e", "money", KeyForm::Money),
    ];
    let mut table = table("Other", columns, key);
    table.partitioned = true;
    table.can_skip_duplicates = false;
    (relation(&table), table)
}

/// Keys that only a server can compare.
fn open_key(rule: &Rule) -> (Arc<Relation>, Table) {
    let mut columns = vec![
        column("id", 25, "text"),
        column("tags", 1009, "text[]"),
        column("doc", 3802, "jsonb"),
        column("mail", 90001, "public.citext"),
        column("span", 90002, "public.span"),
        column("large", 25, "text"),
    ];
    columns.extend(rule.added().map(|(name, kind)| column(name, 20, kind)));
    let collated = KeyForm::Collated("public.\"ci\"".to_owned());
    let key = vec![
        key("id", "text", collated),
        key("tags", "text[]", KeyForm::Array(None)),
        key("doc", "jsonb", KeyForm::Jsonb),
        key("mail", "public.citext", KeyForm::LowerCase),
        key(
            "span",
            "public.span",
            KeyForm::Hash("public.hash_span".to_owned()),
        ),
    ];
    let table = table("open", columns, key);
    (relation(&table), table)
}

fn keyless(rule: &Rule) -> (Arc<Relation>, Table) {
    let (_, mut table) = wide(rule);
    table.name = "keyless".to_owned();
    table.key = None;
    table.replica_identity = 'f';
    (relation(&table), table)
}

fn only_a_key(rule: &Rule) -> (Arc<Relation>, Table) {
    let mut columns = vec![column("id", 2950, "uuid")];
    columns.push(column("second", 23, "integer"));
    columns.push(column("third", 23, "integer"));
    columns.extend(rule.added().map(|(name, kind)| column(name, 20, kind)));
    let key = ["id", "second", "third"].map(|name| key(name, "uuid", KeyForm::Label));
    let table = table("keys", columns, key.to_vec());
    (relation(&table), table)
}

fn column(name: &str, type_oid: u32, type_name: &str) -> Column {
    Column {
        name: name.to_owned(),
        type_name: type_name.to_owned(),
        cast_type: Some(type_name.to_owned()),
        type_oid,
        not_null: false,
        has_default: false,
        generated: false,
        identity_always: false,
        base_type: (0, -1),
        is_bare_byte: false,
    }
}

fn key(name: &str, type_name: &str, form: KeyForm) -> KeyColumn {
    KeyColumn {
        name: name.to_owned(),
        type_name: type_name.to_owned(),
        equality: "OPERATOR(pg_catalog.=)".to_owned(),
        form,
    }
}

fn table(name: &str, columns: Vec<Column>, key: Vec<KeyColumn>) -> Table {
    Table {
        oid: 4_000_000_001,
        schema: "public".to_owned(),
        name: name.to_owned(),
        partitioned: false,
        is_partition: false,
        replica_identity: 'd',
        columns,
        can_skip_duplicates: true,
        uniques: Uniques::default(),
        indexed: Vec::new(),
        key: Some(Key {
            index: format!("{name}_pkey"),
            columns: key,
            primary: true,
            deferrable: false,
        }),
    }
}

fn indexed(name: &str) -> IndexedColumn {
    IndexedColumn {
        name: name.to_owned(),
        equality: "OPERATOR(pg_catalog.=)".to_owned(),
    }
}

fn uniques(table: &Table) -> Uniques {
    let part = |expression: &str, operator: &str, collation: Option<&str>| UniquePart {
        expression: expression.to_owned(),
        operator: format!("OPERATOR(pg_catalog.{operator})"),
        collation: collation.map(str::to_owned),
    };
    let unique = |index: &str, parts, predicate: Option<&str>, nulls_equal| Unique {
        index: index.to_owned(),
        parts,
        predicate: predicate.map(str::to_owned),
        nulls_equal,
    };
    let by_name = part("lower(\"Na\"\"me\")", "=", Some("pg_catalog.\"C\""));
    let of_column = |column: &Column| UniqueColumn {
        name: column.name.clone(),
        type_name: column.type_name.clone(),
        collation: (column.name == "Na\"me").then(|| "pg_catalog.\"C\"".to_owned()),
        generation: column.generated.then(|| "(revision * 2)".to_owned()),
    };
    Uniques {
        indexes: vec![
            unique("t_name", vec![by_name], Some("(flag IS TRUE)"), false),
            unique("t_twice", vec![part("twice", "=", None)], None, true),
            unique("t_excluded", vec![part("price", "&&", None)], None, false),
        ],
        columns: table.columns.iter().map(of_column).collect(),
    }
}

/// What the source sends: every column that is not computed.
fn relation(table: &Table) -> Arc<Relation> {
    let keys: Vec<&str> = table
        .key
        .iter()
        .flat_map(|key| &key.columns)
        .map(|c| &*c.name)
        .collect();
    let column = |column: &Column| RelationColumn {
        name: column.name.clone(),
        type_oid: column.type_oid,
        type_modifier: -1,
        is_key: keys.is_empty() || keys.contains(&&*column.name),
    };
    let sent = table.columns.iter().filter(|column| !column.generated);
    Arc::new(Relation {
        id: RelationId(7),
        schema: table.schema.clone(),
        name: table.name.clone(),
        replica_identity: match table.key {
            Some(_) => ReplicaIdentity::Default,
            None => ReplicaIdentity::Full,
        },
        columns: sent.map(column).collect(),
    })
}
