-- The history of conflicts.

-- One row for each conflict that was decided here, written in the transaction that decided it. The incoming
-- write was made on `source`; a side without columns is a delete. Values are what the types' output
-- functions print, so that they can be read back exactly; columns that could not be known are left out.
-- `incoming_version`, `local_version`: the versions in the rows, where the rule keeps them there.
--
-- `resolved_at`, `resolved_as`: when and how a pending conflict ended: `local`, `remote` (a person took that
-- side), `superseded` (a write that knew the incoming one was made or arrived), `replaced` (a later write of
-- the same source waits instead). `relation` and `row_key` name the row as tombstones do.
create table mmrepl.conflict (
    id bigint generated always as identity primary key,
    decided_at timestamptz not null default clock_timestamp(),
    source text not null,
    target text not null,
    schema_name text not null,
    table_name text not null,
    key_columns text[],
    key_values text[],
    kind text not null,
    rule text not null,
    outcome text not null,
    incoming_columns text[],
    incoming_values text[],
    incoming_time timestamptz not null,
    incoming_origin oid not null,
    local_columns text[],
    local_values text[],
    local_time timestamptz,
    local_node text,
    local_origin oid,
    restored_at timestamptz,
    incoming_version text,
    local_version text,
    relation oid,
    row_key text,
    resolved_at timestamptz,
    resolved_as text
);
create index conflict_decided_at on mmrepl.conflict (decided_at);
create index conflict_pending on mmrepl.conflict (relation, row_key)
    where outcome = 'pending' and resolved_at is null;

-- How many conflicts of a storm were counted and not recorded.
create table mmrepl.conflict_left_out (
    minute timestamptz not null,
    source text not null,
    target text not null,
    schema_name text not null,
    table_name text not null,
    left_out bigint not null,
    primary key (minute, source, schema_name, table_name)
);
