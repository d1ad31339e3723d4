//! The conditions under which a statement may touch a row: who wrote it, and when. Pure.

use std::fmt::Write as _;

use crate::apply::shape::keys::key_text_of;
use crate::apply::shape::mapping::TableMap;
use crate::apply::shape::versions::Versions;
use crate::ids::OriginId;

/// Where a version stands: in a row of the table, or a row of `mmrepl.tombstone`, by its alias.
#[derive(Debug, Clone, Copy)]
pub(in crate::apply) enum Place<'a> {
    /// A row of the table.
    Row(&'a str),
    /// A tombstone.
    Tombstone(&'a str),
}

impl<'a> Place<'a> {
    fn alias(self) -> &'a str {
        let (Self::Row(alias) | Self::Tombstone(alias)) = self;
        alias
    }

    /// The text of its key.
    fn key(self, map: &TableMap) -> String {
        match self {
            Self::Row(alias) => key_text_of(map, alias),
            Self::Tombstone(alias) => format!("{alias}.key"),
        }
    }
}

/// "The row `alias` has its `xmin` from a rewrite of its table that kept the versions of rows".
pub(in crate::apply) fn rewritten(alias: &str) -> String {
    format!(
        "exists (select from mmrepl.rewrite w where w.relation = {alias}.tableoid \
         and w.xid = {alias}.xmin::text::int8)"
    )
}

/// When and by whom such a row was written.
fn before_rewrite(alias: &str) -> String {
    format!("mmrepl.written_before({alias}.xmin, {alias}.tableoid, {alias}.*)")
}

/// The same as a table `b`, with the columns that `pg_xact_commit_timestamp_origin` has.
fn before_as(alias: &str) -> String {
    format!("{} b(\"timestamp\", roident)", before_rewrite(alias))
}

/// "The row `alias` may have been written long before its `xmin` says, and nobody kept when".
pub(in crate::apply) fn forged(alias: &str) -> String {
    format!(
        "(exists (select from mmrepl.table_file f, pg_class c where f.relation = {alias}.tableoid \
         and c.oid = f.relation and c.relfilenode <> f.file) \
         and mmrepl.is_forged({alias}.xmin, {alias}.tableoid))"
    )
}

/// When and by whom the row `alias` was written, as a query with the columns that
/// `pg_xact_commit_timestamp_origin` has.
pub(in crate::apply) fn version_query(alias: &str) -> String {
    format!(
        "(select b.* from {} where {1} union all \
         select c.* from pg_xact_commit_timestamp_origin({alias}.xmin) c where not {1})",
        before_as(alias),
        rewritten(alias)
    )
}

/// What a guard compares with: numbers of replication origins on the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// The origin of this link's source on the target.
    pub origin: u32,
    /// Origins of the nodes that win a tie against the source (their names sort after it).
    pub stronger: Vec<u32>,
    /// Origins of third nodes. What has any other origin counts as written on the target.
    pub others: Vec<u32>,
    /// Source and target are the whole cluster.
    pub pair: bool,
    /// Second origins of nodes, each with its first (0 for the target).
    pub again: Vec<(u32, u32)>,
}

impl Guard {
    /// How many floors a guarded statement takes, as its first parameters: the target's, then
    /// one for each of `others`. (`conflict::Seen::floor`)
    pub fn floors(&self) -> usize {
        1 + self.others.len()
    }

    /// For statements without a guard.
    pub(in crate::apply) fn none() -> Self {
        Self {
            origin: 0,
            stronger: Vec::new(),
            others: Vec::new(),
            pair: false,
            again: Vec::new(),
        }
    }

    /// The numbers that stand for the node of a first origin.
    pub(in crate::apply) fn both(&self, first: u32) -> impl Iterator<Item = u32> {
        let again = self.again.iter().filter(move |(_, of)| *of == first);
        std::iter::once(first).chain(again.map(|(id, _)| *id))
    }

    /// When what stands at `place` was written by its source.
    ///
    /// Between more than two nodes that need not be the time of its transaction, which is never
    /// before it: a statement that only asks whether a row is older may take that one.
    pub(in crate::apply) fn time_of(&self, place: Place<'_>, map: &TableMap) -> String {
        let alias = place.alias();
        let time = self.transaction_time(place, map);
        match place {
            Place::Tombstone(_) => time,
            Place::Row(_) => format!(
                "case when {} then ({}).at else {time} end",
                rewritten(alias),
                before_rewrite(alias)
            ),
        }
    }

    /// The same, however the table was rewritten since.
    fn transaction_time(&self, place: Place<'_>, map: &TableMap) -> String {
        let alias = place.alias();
        if self.pair {
            return format!("pg_xact_commit_timestamp({alias}.xmin)");
        }
        let (oid, key) = (map.table.oid, place.key(map));
        format!("mmrepl.source_time({alias}.xmin, {oid}, {key})")
    }

    /// When and by whom what stands at `place` was written, as two columns: microseconds since
    /// 2000-01-01 and the origin, as text.
    pub(in crate::apply) fn written(&self, map: &TableMap, place: Place<'_>) -> String {
        let alias = place.alias();
        let origin = format!("(pg_xact_commit_timestamp_origin({alias}.xmin)).roident");
        let origin = match place {
            Place::Tombstone(_) => origin,
            Place::Row(_) => format!(
                "case when {} then ({}).origin else {origin} end",
                rewritten(alias),
                before_rewrite(alias)
            ),
        };
        format!(
            "((extract(epoch from {}) * 1000000)::int8 - 946684800000000)::text, ({origin})::text",
            self.time_of(place, map)
        )
    }

    /// "The source wrote what was written at `written`".
    pub(in crate::apply) fn by_source(&self, written: &str) -> String {
        let ids: Vec<String> = self.both(self.origin).map(|id| id.to_string()).collect();
        format!("{written}.roident in ({})", ids.join(", "))
    }

    /// "The row version `alias` loses, and there is nothing to record": the source wrote it, or its
    /// version is unknown, or the source knew it and it is older. The last two in one comparison.
    ///
    /// Where rows carry their version, `incoming` is the change's and says which is older.
    pub(in crate::apply) fn takes(&self, versions: &Versions, incoming: &str) -> String {
        let takes = self.takes_above("t", |n| format!("${n}::timestamptz"));
        also_below(versions, incoming, takes)
    }

    /// The same with the floors somewhere else.
    pub(in crate::apply) fn takes_above(
        &self,
        alias: &str,
        floor: impl Fn(usize) -> String,
    ) -> String {
        let written = format!("(pg_xact_commit_timestamp_origin({alias}.xmin))");
        let floors: Vec<String> = (1..=self.floors()).map(&floor).collect();
        // The time alone is cheaper to ask for than time and origin, and mostly it is enough.
        let below_all = format!(
            "not coalesce(pg_xact_commit_timestamp({alias}.xmin) > least({}), false)",
            floors.join(", ")
        );
        let by_source = self.by_source(&written);
        if self.others.is_empty() {
            return format!("({below_all} or {by_source})");
        }
        let above = self.above_floor(&written, &format!("{written}.\"timestamp\""), floor);
        format!("({below_all} or {by_source} or not coalesce({above}, false))")
    }

    /// "What was written at `time` lies above the floor of the node that wrote it", which `written`
    /// tells.
    pub(in crate::apply) fn above_floor(
        &self,
        written: &str,
        time: &str,
        floor: impl Fn(usize) -> String,
    ) -> String {
        let mut bound = floor(1);
        if !self.others.is_empty() {
            let numbers = (2..).zip(&self.others);
            let cases: Vec<String> = numbers
                .flat_map(|(number, origin)| {
                    let case = |id| format!("when {id} then {}", floor(number));
                    self.both(*origin).map(case).collect::<Vec<_>>()
                })
                .collect();
            bound = format!(
                "case {written}.roident {} else {bound} end",
                cases.join(" ")
            );
        }
        format!("{time} > {bound}")
    }

    /// "What stands at `place` loses against a write of this link's source at `time`".
    ///
    /// The same rule as `conflict::Version::wins_over`: the source's own rows and rows of unknown
    /// version always lose, a tie is decided by name.
    pub(in crate::apply) fn older(&self, place: Place<'_>, map: &TableMap, time: &str) -> String {
        let alias = place.alias();
        let written = format!("(pg_xact_commit_timestamp_origin({alias}.xmin))");
        let origin = format!("{written}.roident");
        let stamp = format!("{written}.\"timestamp\"");
        let beats = |at: &str, origin: &str| {
            let beats = beats(self.wins_ties(origin).as_deref(), at, time);
            format!("not coalesce({beats}, false)")
        };
        let by_source = self.by_source(&written);
        let mut older = format!("{by_source} or {}", beats(&stamp, &origin));
        if !self.pair {
            // The stamp first: it is there at once, and mostly enough.
            let at = self.transaction_time(place, map);
            let _ = write!(older, " or {}", beats(&at, &origin));
        }
        if let Place::Row(_) = place {
            // What a rewrite gave the row is later than all that it may have had before.
            let _ = write!(
                older,
                " or ({} and (select coalesce({}, false) or {} from {BEFORE}))",
                rewritten(alias),
                self.by_source("b"),
                beats("b.\"timestamp\"", "b.roident"),
                BEFORE = before_as(alias),
            );
        }
        format!("({older})")
    }

    /// "A node whose name sorts after the source's has the `origin`", where there is one.
    ///
    /// An origin that is none of the cluster's counts as the target's own, 0.
    fn wins_ties(&self, origin: &str) -> Option<String> {
        let text = |ids: Vec<u32>| {
            let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
            ids.join(", ")
        };
        if !self.stronger.contains(&OriginId::LOCAL.0) {
            let stronger = &self.stronger;
            return (!stronger.is_empty())
                .then(|| format!("{origin} in ({})", text(stronger.clone())));
        }
        let further = self.again.iter().map(|(id, _)| id);
        let known = std::iter::once(&self.origin)
            .chain(&self.others)
            .chain(further);
        let mut weaker: Vec<u32> = known.copied().collect();
        weaker.retain(|id| !self.stronger.contains(id));
        weaker.sort_unstable();
        weaker.dedup();
        Some(format!("{origin} not in ({})", text(weaker)))
    }

    /// "The row version `alias` holds what the source did not send of its own row".
    ///
    /// This very transaction wrote it, or the source did. The latter counts in a pair only: between
    /// two writes of the source a third node may have written its row, and that write may still be
    /// on its way here. (The target's own writes cannot: they would be in the row.)
    pub(in crate::apply) fn same_writer(&self, alias: &str) -> String {
        let own = format!("{alias}.xmin = pg_current_xact_id()::xid");
        if !self.pair {
            return own;
        }
        format!(
            "({} or {own})",
            self.by_source(&format!("(pg_xact_commit_timestamp_origin({alias}.xmin))"))
        )
    }
}

/// `takes`, and the version of row `t` is below `incoming`.
pub(in crate::apply) fn also_below(versions: &Versions, incoming: &str, takes: String) -> String {
    match versions.is_below("t", incoming) {
        Some(below) => format!("({below} and {takes})"),
        None => takes,
    }
}

/// "What was written at `written` is newer than `time`", or as new and it `wins_ties`.
fn beats(wins_ties: Option<&str>, written: &str, time: &str) -> String {
    match wins_ties {
        None => format!("{written} > {time}"),
        Some(wins) => format!("({written} > {time} or ({written} = {time} and {wins}))"),
    }
}
