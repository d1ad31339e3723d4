//! A mapped table with the SQL of its statements, each text made once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::apply::encode::binary;
use crate::apply::shape::guard::Guard;
use crate::apply::shape::mapping::TableMap;
use crate::apply::shape::versions::Versions;
use crate::apply::sql;
use crate::apply::sql::kind::{Kind, UpdateGuard};
use crate::apply::sql::one_row::LookedUp;
use crate::apply::sql::shadows::Look;
use crate::apply::sql::strict::Expected;
use crate::conflict::Tie;
use crate::pgoutput::{Tuple, Value};

/// SQL text, shared so that the session recognises a prepared statement by it.
pub(in crate::apply) type Sql = Arc<str>;

/// A statement whose text depends on the table only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statement {
    /// Insert; a row that is there already is left alone.
    InsertNew,
    /// Insert; a duplicate is an error.
    Insert,
    /// Guarded delete by key.
    DeleteOlder,
    /// Delete by key, the decision made.
    Delete,
    /// Tell a row's version.
    SeeRow,
    /// Lock a row and tell its version.
    LockRow,
    /// The versions of the tombstones that cover a key.
    Tombstones,
    /// Leave a tombstone where no row is.
    LeaveTombstone,
    /// Leave a tombstone where no row is and something older than the delete can still come.
    LeaveNeededTombstone,
    /// Leave a tombstone where no row is, beside the one that the key has.
    LeaveTombstoneBeside,
    /// Which of the inserted keys were deleted later, or without the source's knowledge.
    DeletesAbove,
    /// Which of the keys have a row, although they are to have none.
    StillThere,
    /// Record a conflict.
    Record,
    /// Make the last record one that waits for a person.
    Pend,
    /// End the records that wait, where a write knows what they wait for.
    Supersede,
    /// A row as the function of rule `custom` sees it.
    Image,
    /// Call that function.
    CallFunction,
    /// What it returned, as a row of the table.
    FunctionResult,
    /// The siblings of a key.
    Siblings,
    /// Forget the siblings of a key.
    DropSiblings,
    /// Keep a sibling.
    KeepSibling,
    /// Keep a row of the table aside.
    PushAside,
    /// Keep an incoming row aside.
    KeepAside,
    /// Lock a key's shadow and tell its version.
    LockShadow,
    /// Forget a key's shadow.
    DropShadow,
    /// Forget the tombstone of a key that is kept aside.
    ForgetTombstone,
    /// How many shadows are newer than a truncate.
    NewerShadows,
    /// Forget shadows older than a truncate.
    DropOlderShadows,
    /// Keep when the source wrote rows, where their transaction is stamped with another time.
    SourceTimes,
    /// Keep truncates away.
    HoldTable,
    /// When the table was emptied last.
    Truncates,
    /// Whether the table was emptied after a time.
    NewerTruncate,
    /// Record a row that a truncate takes, of a table without a key.
    RecordTaken,
    /// Copy rows whose values are in binary form.
    CopyBinary,
    /// Fail where a column is not of the type that it was; keeps it as it is from there on.
    ExpectTypes,
}

/// What happens to a row that is found by all its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::apply) enum Whole {
    /// It goes.
    Delete,
    /// Another one takes its place.
    Update,
}

/// How many statements `Statement` names.
pub(in crate::apply) const STATEMENTS: usize = Statement::ExpectTypes as usize + 1;

/// One table on the target as this link writes it.
#[derive(Debug)]
pub struct Target {
    /// Columns and key.
    pub map: TableMap,
    guard: Guard,
    versions: Versions,
    /// Third nodes and their origins.
    third: Vec<(u32, String)>,
    texts: [OnceLock<Sql>; STATEMENTS],
    all_updated: Vec<usize>,
    unique_columns: Vec<usize>,
    update: OnceLock<Sql>,
    /// Other updates, by the columns they write.
    updates: Mutex<HashMap<(Vec<usize>, UpdateGuard), Sql>>,
    /// Statements for many rows.
    sets: Mutex<HashMap<Kind, Sql>>,
    /// Statements that fail unless they do what was expected, by the plain ones.
    strict: Mutex<HashMap<Sql, Sql>>,
    /// Statements that find a row by all its values, by what an index is asked for.
    whole: Mutex<HashMap<(Whole, LookedUp), Sql>>,
    /// Looks at rivals, one for each unique index: without locks, and with.
    rivals: [OnceLock<Vec<Sql>>; 2],
}

impl Target {
    /// Takes the map; texts are made when first needed.
    pub fn new(map: TableMap, guard: Guard, third: Vec<(u32, String)>, versions: Versions) -> Self {
        let mut target = Self {
            versions,
            third,
            all_updated: sql::one_row::updated_columns(&map, |_| true),
            unique_columns: Vec::new(),
            map,
            guard,
            texts: [const { OnceLock::new() }; STATEMENTS],
            update: OnceLock::new(),
            updates: Mutex::new(HashMap::new()),
            sets: Mutex::new(HashMap::new()),
            strict: Mutex::new(HashMap::new()),
            whole: Mutex::default(),
            rivals: Default::default(),
        };
        if target.has_rivals() {
            target.unique_columns = target.map.unique_columns();
        }
        target
    }

    /// The guard of this link.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The rule of the table and where it keeps versions.
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Third nodes and their origins on the target.
    pub fn third(&self) -> &[(u32, String)] {
        &self.third
    }

    /// The text of a statement.
    pub fn sql(&self, statement: Statement) -> &Sql {
        self.texts[statement as usize].get_or_init(|| self.text(statement).into())
    }

    fn text(&self, statement: Statement) -> String {
        let (map, guard, versions) = (&self.map, &self.guard, &self.versions);
        match statement {
            Statement::InsertNew => sql::one_row::insert_new(map),
            Statement::Insert => sql::one_row::insert(map),
            Statement::DeleteOlder => sql::one_row::delete_older_row(map, guard, versions),
            Statement::Delete => sql::one_row::delete_decided(map),
            Statement::SeeRow => sql::one_row::see_row(map, guard, versions),
            Statement::LockRow if versions.looks_whole() => {
                sql::merging::lock_row(map, guard, versions)
            }
            Statement::LockRow => {
                format!("{} for update", sql::one_row::see_row(map, guard, versions))
            }
            Statement::Tombstones if versions.merging().is_some() => {
                sql::merging::lock_tombstones(map, guard)
            }
            Statement::Tombstones => sql::tombstones::tombstones(map, guard),
            Statement::LeaveTombstone => sql::tombstones::leave_tombstone(map, versions),
            Statement::LeaveNeededTombstone => {
                sql::tombstones::leave_needed_tombstone(map, versions)
            }
            Statement::LeaveTombstoneBeside => {
                sql::tombstones::leave_tombstone_beside(map, versions)
            }
            Statement::DeletesAbove => sql::tombstones::deletes_above(map, guard, versions),
            Statement::StillThere => sql::many_rows::still_there(map),
            Statement::Record => {
                let origin = sql::history::origin_of_rival(&self.third, "$10");
                sql::history::record(map, guard, versions.rule().name(), &origin)
            }
            Statement::Pend => sql::history::pend(map),
            Statement::Supersede => sql::history::supersede(map),
            Statement::Image => sql::custom::image(map, versions),
            Statement::CallFunction => {
                let custom = versions.rule().custom();
                custom.map_or_else(String::new, |custom| sql::custom::call(map, custom))
            }
            Statement::FunctionResult => sql::custom::result(map),
            Statement::Siblings => sql::custom::siblings(map),
            Statement::DropSiblings => sql::custom::drop_siblings(map),
            Statement::KeepSibling => sql::custom::keep_sibling(map),
            Statement::PushAside => sql::shadows::push_aside(map),
            Statement::KeepAside => sql::shadows::keep_aside(map),
            Statement::LockShadow => sql::shadows::lock_shadow(map, &self.versions),
            Statement::DropShadow => sql::shadows::drop_shadow(map),
            Statement::ForgetTombstone => sql::shadows::forget_tombstone(map, guard),
            Statement::NewerShadows => sql::shadows::newer_shadows(map),
            Statement::DropOlderShadows => sql::shadows::drop_older_shadows(map),
            Statement::SourceTimes => sql::source_times::keep(map),
            Statement::HoldTable => sql::emptied::hold(map),
            Statement::Truncates => sql::emptied::truncates(map, guard),
            Statement::NewerTruncate => sql::emptied::newer_truncate(map, guard),
            Statement::RecordTaken => sql::emptied::record(map, guard, &self.third),
            Statement::CopyBinary => sql::many_rows::copy(map) + " (format binary)",
            Statement::ExpectTypes => sql::many_rows::expect_types(map),
        }
    }

    /// Update of `columns`; the one of all columns, the common case, without a look-up.
    pub fn update(&self, columns: &[usize], how: UpdateGuard) -> Sql {
        let make = || -> Sql {
            sql::one_row::update(&self.map, columns, how, (&self.guard, &self.versions)).into()
        };
        if how == UpdateGuard::Older && self.all_updated == columns {
            return Arc::clone(self.update.get_or_init(make));
        }
        let mut updates = self.updates.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(updates.entry((columns.to_vec(), how)).or_insert_with(make))
    }

    /// The statement that does this to the one row with all the values of `old`, of a table without
    /// a key.
    pub(in crate::apply) fn whole(&self, what: Whole, old: &Tuple) -> Sql {
        let is_indexed = |name: &str| self.map.table.indexed.iter().any(|c| c.name == name);
        let places = self.map.written();
        let indexed = places.filter(|index| is_indexed(&self.map.columns[*index].name));
        let looked_up: LookedUp = indexed
            .map(|index| (index, old.0[index] == Value::Null))
            .collect();
        let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        let text = || match what {
            Whole::Delete => sql::one_row::delete_whole(&self.map, &looked_up).into(),
            Whole::Update => sql::one_row::update_whole(&self.map, &looked_up).into(),
        };
        if let Some(known) = whole.get(&(what, looked_up.clone())) {
            return Arc::clone(known);
        }
        let sql: Sql = text();
        whole.insert((what, looked_up), Arc::clone(&sql));
        sql
    }

    /// Whether rows can be copied in binary form: every written column is of a type that has one.
    pub(in crate::apply) fn copies_binary(&self) -> bool {
        let map = &self.map;
        map.written()
            .all(|index| binary::encoder(map.columns[index].type_oid).is_some())
    }

    /// Whether time decides, and source and target are the whole cluster.
    pub(in crate::apply) fn is_by_time_in_a_pair(&self) -> bool {
        self.guard.pair && !self.versions.is_in_row()
    }

    /// Whether a row can have a rival under another key. Rows that merge, or for which a person
    /// decides, are not kept aside: a duplicate there is an error.
    pub(in crate::apply) fn has_rivals(&self) -> bool {
        let uniques = !self.map.table.uniques.is_empty();
        let ordered = self.versions.merging().is_none() && self.versions.tie() != Tie::Known;
        uniques && self.map.table.key.is_some() && ordered
    }

    /// The columns whose values decide which rows are rivals, by their place among what the source
    /// sends; none where no row has a rival.
    pub(in crate::apply) fn unique_columns(&self) -> &[usize] {
        &self.unique_columns
    }

    /// The looks at a row's rivals, one statement for each unique index.
    pub(in crate::apply) fn rivals(&self, look: Look) -> &[Sql] {
        let make = || {
            let indexes = self.map.table.uniques.indexes.iter();
            let text = |unique| sql::shadows::rivals(&self.map, &self.guard, (unique, look)).into();
            indexes.map(text).collect()
        };
        self.rivals[look as usize].get_or_init(make)
    }

    /// `statement`, failing where it does not write every row that it is given.
    pub(in crate::apply) fn taking_all(&self, statement: &Sql, expected: Expected) -> Sql {
        self.strict(statement, |text| sql::strict::taking_all(text, expected))
    }

    /// `question`, failing where it finds anything.
    pub(in crate::apply) fn finding_none(&self, question: &Sql) -> Sql {
        self.strict(question, sql::strict::finding_none)
    }

    fn strict(&self, plain: &Sql, make: impl Fn(&str) -> String) -> Sql {
        let mut strict = self.strict.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = strict.get(plain) {
            return Arc::clone(known);
        }
        let sql: Sql = make(plain).into();
        strict.insert(Arc::clone(plain), Arc::clone(&sql));
        sql
    }

    /// The statement that writes many rows at once.
    pub(in crate::apply) fn set(&self, kind: &Kind) -> Sql {
        let guards = (&self.guard, &self.versions);
        let make = || match kind {
            Kind::Delete => sql::many_rows::delete(&self.map, guards),
            Kind::DeleteListed => sql::many_rows::delete_listed(&self.map, &self.guard),
            Kind::Update(columns, how) => sql::many_rows::update(&self.map, columns, *how, guards),
            Kind::Insert => sql::many_rows::insert(&self.map),
            Kind::Copy => sql::many_rows::copy(&self.map),
        };
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = sets.get(kind) {
            return Arc::clone(known);
        }
        let sql: Sql = make().into();
        sets.insert(kind.clone(), Arc::clone(&sql));
        sql
    }
}
