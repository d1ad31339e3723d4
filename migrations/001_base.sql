-- What mmrepl keeps on every node. The schema `mmrepl` and `mmrepl.migration` are made by the runner.

-- The nodes of the cluster as this server knows them. `init` fills it; `here` marks this server.
create table mmrepl.node (
    name text primary key,
    here boolean not null,
    system_id text not null,
    origin_id oid
);
create unique index node_here on mmrepl.node (here) where here;

-- The truth about what has been applied here: one row per source, updated in the transaction that
-- writes the data. `end_lsn` is where the source's stream goes on.
create table mmrepl.apply_position (
    source text primary key,
    commit_lsn pg_lsn not null,
    end_lsn pg_lsn not null,
    commit_time timestamptz,
    source_system_id text not null,
    source_timeline integer not null
) with (fillfactor = 50);

-- The replica identities that `init` changed, each as the clause that `drop` sets back.
create table mmrepl.replica_identity (
    relation oid primary key,
    before text not null
);

-- What a person asked of a link that starts here. Kept on the server so that it outlives the daemon.
create table mmrepl.link_control (
    link text primary key,
    paused boolean not null,
    since timestamptz not null default now()
);

-- The memory that a key was deleted. When and by whom is the row's own commit time and origin
-- (pg_xact_commit_timestamp_origin of its xmin). A key is the text of its text[]; the empty text
-- stands for the whole table (truncate).
create table mmrepl.tombstone (
    relation oid not null,
    key text not null,
    left_at timestamptz not null default clock_timestamp(),
    primary key (relation, key)
);
create index tombstone_left_at on mmrepl.tombstone (left_at);

-- Raises MR001 while this server's clock has not passed `commit_time` (design: the clock rule).
create function mmrepl.require_clock(commit_time timestamptz) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    ahead_us bigint := ceil(extract(epoch from commit_time - clock_timestamp()) * 1000000);
begin
    if ahead_us >= 0 then
        raise exception using errcode = 'MR001',
            message = format('the commit time lies %s microseconds ahead of this server''s clock', ahead_us);
    end if;
end $$;

-- The statement that leaves one tombstone per key; `keys` is a query that yields text[] values.
create function mmrepl.tombstone_statement(keys text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select 'insert into mmrepl.tombstone (relation, key) select $1, k.key::text from (' || keys || ') k(key)'
        || ' on conflict (relation, key) do update set left_at = excluded.left_at'
$$;

-- After DELETE, per statement, on ordinary tables. Argument: the key as a text[] expression over `d`.
create function mmrepl.leave_tombstones() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC'
set extra_float_digits = 1 set bytea_output = 'hex' as $$
begin
    execute mmrepl.tombstone_statement('select distinct ' || tg_argv[0] || ' from mmrepl_old d') using tg_relid;
    return null;
end $$;

-- After DELETE (partitioned tables) and after UPDATE of the key, per row. Same argument.
create function mmrepl.leave_tombstone() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC'
set extra_float_digits = 1 set bytea_output = 'hex' as $$
begin
    execute mmrepl.tombstone_statement('select ' || tg_argv[0] || ' from (select ($2).*) d')
        using coalesce(pg_partition_root(tg_relid)::oid, tg_relid), old;
    return null;
end $$;

-- After TRUNCATE of a whole table: every row written before is gone.
create function mmrepl.leave_truncate_tombstone() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    insert into mmrepl.tombstone (relation, key) values (tg_relid, '')
        on conflict (relation, key) do update set left_at = excluded.left_at;
    perform set_config('mmrepl.truncating', '', true);
    return null;
end $$;

-- Before TRUNCATE of a partitioned table: tells the triggers of its partitions that they go with it.
create function mmrepl.truncate_begins() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform set_config('mmrepl.truncating', tg_relid::text, true);
    return null;
end $$;

-- Before TRUNCATE of one partition by name, by an application: with publish_via_partition_root such a
-- truncate is not in the stream (manual, CREATE PUBLICATION), so its rows are deleted instead.
create function mmrepl.truncate_partition() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if coalesce(current_setting('mmrepl.truncating', true), '') <> pg_partition_root(tg_relid)::oid::text then
        execute format('delete from %I.%I', tg_table_schema, tg_table_name);
    end if;
    return null;
end $$;

-- Moves the position of `source` forward inside the transaction that applied its changes. Raises
-- MR002 when the row is gone or already there: another daemon, or a restore, came in between.
create function mmrepl.advance_position(
    source text, commit_lsn pg_lsn, end_lsn pg_lsn, commit_time timestamptz
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    update mmrepl.apply_position p
        set commit_lsn = advance_position.commit_lsn, end_lsn = advance_position.end_lsn,
            commit_time = coalesce(advance_position.commit_time, p.commit_time)
        where p.source = advance_position.source and p.end_lsn < advance_position.end_lsn;
    if not found then
        raise exception using errcode = 'MR002',
            message = format('the position of %s is not before %s', source, end_lsn);
    end if;
end $$;

-- Raises MR003: a key that is about to be committed here was deleted later than its version.
create function mmrepl.raise_deleted() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    raise exception using errcode = 'MR003', message = 'a newer delete of the same key came in between';
end $$;
