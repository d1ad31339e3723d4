//! What one server says, as far as the checks need it.

use std::collections::{BTreeMap, BTreeSet};

use super::sequence_facts::Sequence;
use crate::catalog::names::readable;
use crate::catalog::server::Server;
use crate::catalog::table::Table;
use crate::config::TableFilter;
use crate::ids::NodeName;

/// Everything the checks know about one node.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// The node.
    pub name: NodeName,
    /// Host, port and database, for people.
    pub target: String,
    /// Identity and settings.
    pub server: Server,
    /// The tables that take part.
    pub tables: Vec<Table>,
    /// How the server's clock compares with this machine's.
    pub clock: ClockOffset,
    /// What the role may do.
    pub rights: Rights,
    /// Things about tables that deserve a word.
    pub oddities: Oddities,
    /// How the patterns of the configuration fit.
    pub scope: Scope,
    /// The functions that decide under rule `custom`, in the order of their tables.
    pub functions: Vec<Function>,
    /// The node that `mmrepl.node` says this server is, where it was set up before.
    pub here: Option<String>,
    /// Slots and origins of this cluster that exist already.
    pub ours: Ours,
    /// Who else has slots under the cluster's name.
    pub neighbours: Neighbours,
    /// Subscriptions of its database, in words.
    pub subscriptions: Vec<String>,
}

/// A function that decides, as the server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// `schema.table` that it decides about.
    pub table: String,
    /// `schema.name`, ready for SQL.
    pub name: String,
    /// The schema, ready for SQL.
    pub schema: String,
    /// Nothing where the server does not have it.
    pub found: Option<FoundFunction>,
}

/// What a function is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFunction {
    /// Its result type; with a word before it where it returns a set or is no plain function.
    pub returns: String,
    /// Whether it is declared to depend on more than its arguments and the database.
    pub is_volatile: bool,
    /// Whether the role may call it.
    pub may_call: bool,
    /// A hash of its body.
    pub body: String,
    /// The statement that makes it, empty where it is no plain function.
    pub definition: String,
}

/// A server's clock against this machine's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockOffset {
    /// Microseconds by which the server is ahead; negative when behind.
    pub ahead_us: i64,
    /// The round trip of the best sample: the offset is right within half of it.
    pub round_trip_us: i64,
}

/// What mmrepl has already made on a server, so that it is not counted as missing room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ours {
    /// Slots of this cluster.
    pub slots: i64,
    /// Of these, the ones that stream now.
    pub streaming: i64,
    /// Origins of this cluster.
    pub origins: i64,
}

/// What the role may not do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Whether the role has the attribute REPLICATION.
    pub replication: bool,
    /// Whether the role may create the schema.
    pub create_on_database: bool,
    /// Parameters of apply sessions that it may not set: `session_replication_role`.
    pub parameters_refused: Vec<&'static str>,
    /// Origin functions it may not execute, with their argument types.
    pub functions_missing: Vec<String>,
    /// Schemas of tables that it may not use.
    pub schemas_closed: Vec<String>,
    /// Tables it may not do everything with.
    pub tables: Vec<TableRights>,
}

/// A table on which some right is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRights {
    /// The schema.
    pub schema: String,
    /// The table.
    pub name: String,
    /// `select, insert`: what was not granted; empty when all was.
    pub missing: Vec<String>,
    /// The table's owner, where the role is not a member of it.
    pub foreign_owner: Option<String>,
    /// Whether row level security hides rows from the role.
    pub row_security: bool,
}

/// What is allowed but may surprise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Oddities {
    /// Unlogged tables that the patterns match.
    pub unlogged: Vec<String>,
    /// Unique or exclusion indexes beside the key: table and index.
    pub extra_unique: Vec<(String, String)>,
    /// Those of tables without a key, and of single partitions: table and index.
    pub blocking_unique: Vec<(String, String)>,
    /// Rows that are kept aside.
    pub shadows: i64,
    /// Columns that CHECK constraints look at: table, column and constraint.
    pub checked_columns: Vec<(String, String, String)>,
    /// Generated columns that are not stored (18 and newer): table and column.
    pub virtual_columns: Vec<(String, String)>,
    /// Triggers that fire for applied rows too: table and trigger.
    pub always_triggers: Vec<(String, String)>,
    /// Sequences whose values must not be given twice.
    pub sequences: Vec<Sequence>,
    /// Functions that do not find what they name while rows are applied.
    pub unqualified: Vec<Unqualified>,
    /// Partitions that are foreign tables: the partitioned table and the partition.
    pub foreign_partitions: Vec<(String, String)>,
    /// Partitioned tables without primary key: a new partition has no replica identity.
    pub partitions_unkeyed: Vec<String>,
}

/// A function whose text names things without their schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unqualified {
    /// The function with its arguments, ready for SQL.
    pub function: String,
    /// What calls it: `constraint c of public.t`.
    pub caller: String,
    /// The schemas where the things are.
    pub schemas: Vec<String>,
}

/// A logical slot of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSlot {
    /// Its name.
    pub name: String,
    /// The database it decodes.
    pub database: String,
    /// How much WAL it holds back, in bytes.
    pub retained_bytes: i64,
}

/// What a server has under the cluster's name beside what belongs to the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// A slot of another database that stands where the cluster's own would be, or that shows whose
    /// the origins are.
    pub taken: Option<NamedSlot>,
    /// Nodes that the server remembers and the configuration does not name, with their slots.
    pub gone: Vec<(NodeName, Option<NamedSlot>)>,
    /// Another cluster that has this database, and one of its slots here.
    pub other: Option<(String, String)>,
}

/// What a server has beside the tables that take part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Patterns that match no table here.
    pub unused: BTreeSet<String>,
    /// Schemas with tables that no pattern matches, neither to include nor to exclude; and how
    /// many.
    pub unnamed: BTreeMap<String, usize>,
    /// Patterns that match partitions alone, each with the tables that these are part of.
    pub of_partitions: BTreeMap<String, BTreeSet<Root>>,
}

/// A partitioned table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Root {
    /// `schema.table`.
    pub(super) name: String,
    /// Whether it takes part.
    pub(super) included: bool,
}

impl Root {
    pub(super) fn of(filter: &TableFilter, (schema, table): &(String, String)) -> Self {
        Self {
            name: readable(schema, table),
            included: filter.matches(schema, table),
        }
    }
}
