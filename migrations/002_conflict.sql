-- What a node knew when it wrote, and the history of conflicts.

-- `began`: the source's clock when the link was set up; what the source had written until then is here.
-- `seen`: what the source itself had applied from the other nodes at `end_lsn`: for each node the newest
-- commit time, in microseconds since 2000-01-01 UTC.
alter table mmrepl.apply_position
    add column began timestamptz not null default now(),
    add column seen jsonb;

-- One row for each conflict that was decided here, written in the transaction that decided it. The incoming
-- write was made on `source`; a side without columns is a delete. Values are what the types' output
-- functions print, so that they can be read back exactly; columns that could not be known are left out.
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
    restored_at timestamptz
);
create index conflict_decided_at on mmrepl.conflict (decided_at);

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

-- As the four-argument function, and remembers what the source had seen.
create function mmrepl.advance_position(
    source text, commit_lsn pg_lsn, end_lsn pg_lsn, commit_time timestamptz, seen jsonb
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    update mmrepl.apply_position p
        set commit_lsn = advance_position.commit_lsn, end_lsn = advance_position.end_lsn,
            commit_time = coalesce(advance_position.commit_time, p.commit_time),
            seen = coalesce(advance_position.seen, p.seen)
        where p.source = advance_position.source and p.end_lsn < advance_position.end_lsn;
    if not found then
        raise exception using errcode = 'MR002',
            message = format('the position of %s is not before %s', source, end_lsn);
    end if;
end $$;

-- The last act of an apply transaction: moves the position, leaves `marker` in the WAL, stamps the
-- transaction with the source's commit time. A marker must not carry the session's origin, or this
-- node's own stream would leave it out.
create function mmrepl.finish(
    source text, commit_lsn pg_lsn, end_lsn pg_lsn, commit_time timestamptz, seen jsonb,
    origin text, marker text
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    perform mmrepl.advance_position(source, commit_lsn, end_lsn, commit_time, seen);
    perform pg_replication_origin_session_reset();
    perform pg_logical_emit_message(false, 'mmrepl', marker);
    perform pg_replication_origin_session_setup(origin);
    perform pg_replication_origin_xact_setup(commit_lsn, commit_time);
end $$;

-- Counts conflicts that were not recorded.
create function mmrepl.leave_out(source text, target text, schema_name text, table_name text, left_out bigint)
returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    insert into mmrepl.conflict_left_out as c
        values (date_trunc('minute', clock_timestamp()), $1, $2, $3, $4, $5)
        on conflict (minute, source, schema_name, table_name) do update set left_out = c.left_out + excluded.left_out
$$;
