-- Versions that are kept in the row: what rules other than last_write_wins decide by.

-- Nobody calls it any more.
drop function mmrepl.advance_position(text, pg_lsn, pg_lsn, timestamptz);

-- The rules that the server's own daemon goes by, in one text; see `config::agreement`.
alter table mmrepl.node add column rules text;

-- The versions in the rows, where the rule keeps them there.
alter table mmrepl.conflict
    add column incoming_version text,
    add column local_version text;

-- The version of the delete, as its column's type prints it; null where the table keeps none.
alter table mmrepl.tombstone add column version text;

-- As before; `keys` yields a text[] and the version of the delete.
create or replace function mmrepl.tombstone_statement(keys text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select 'insert into mmrepl.tombstone (relation, key, version) select $1, k.key::text, k.version from ('
        || keys || ') k(key, version) on conflict (relation, key) do update'
        || ' set left_at = excluded.left_at, version = excluded.version'
$$;

-- As before; a second argument is the version of the delete over `d`.
create or replace function mmrepl.leave_tombstones() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC'
set extra_float_digits = 1 set bytea_output = 'hex' as $$
begin
    execute mmrepl.tombstone_statement(format('select distinct on (1) %s, %s from mmrepl_old d',
        tg_argv[0], coalesce(tg_argv[1], 'null'))) using tg_relid;
    return null;
end $$;

-- As before; the version may also name the new row of an update, `n`.
create or replace function mmrepl.leave_tombstone() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC'
set extra_float_digits = 1 set bytea_output = 'hex' as $$
declare
    root oid := coalesce(pg_partition_root(tg_relid)::oid, tg_relid);
    keys text := format('select %s, %s from (select ($2).*) d', tg_argv[0], coalesce(tg_argv[1], 'null'));
begin
    if tg_op = 'UPDATE' then
        execute mmrepl.tombstone_statement(keys || ', (select ($3).*) n') using root, old, new;
    else
        execute mmrepl.tombstone_statement(keys) using root, old;
    end if;
    return null;
end $$;

-- hybrid_clock: what a delete counts as its time. One for all deletes of a transaction, in the WAL before
-- the first of them, so that every node knows the version that the tombstone has here. Before DELETE, per
-- statement; per row on partitioned tables, where a partition may be named.
create function mmrepl.delete_begins() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    clock bigint := extract(epoch from clock_timestamp()) * 1000000;
begin
    if coalesce(current_setting('mmrepl.delete_clock', true), '') = '' then
        perform set_config('mmrepl.delete_clock', clock::text, true);
        perform pg_logical_emit_message(true, 'mmrepl', 'deletes at ' || clock);
    end if;
    if tg_level = 'ROW' then
        return old;
    end if;
    return null;
end $$;

-- What `delete_begins` has said in this transaction.
create function mmrepl.delete_clock() returns bigint
language sql stable set search_path = pg_catalog, pg_temp as $$
    select nullif(current_setting('mmrepl.delete_clock', true), '')::bigint
$$;

-- version_column: before an update that would take the version back. Argument: the column.
create function mmrepl.keep_version() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    return jsonb_populate_record(new, jsonb_build_object(tg_argv[0], to_jsonb(old) -> tg_argv[0]));
end $$;

-- hybrid_clock: before insert and update.
create function mmrepl.keep_clock() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    clock bigint := extract(epoch from clock_timestamp()) * 1000000;
begin
    if coalesce(current_setting('mmrepl.lifting', true), '') = '' then
        if tg_op = 'UPDATE' then
            clock := greatest(clock, old.mmrepl_version + 1);
        end if;
        new.mmrepl_version := clock;
    end if;
    return new;
end $$;

-- first_write_wins: before insert and update.
create function mmrepl.keep_count() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    edits bigint := 1;
begin
    if coalesce(current_setting('mmrepl.lifting', true), '') = '' then
        if tg_op = 'UPDATE' then
            edits := coalesce(old.mmrepl_version, 0) + 1;
        end if;
        new.mmrepl_version := edits;
    end if;
    return new;
end $$;

-- One more edit in the place of a node, of `places` nodes.
create function mmrepl.count_edit(edits bigint[], place integer, places integer) returns bigint[]
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select array_agg(coalesce(edits[i], 0) + (i = place)::integer order by i)
    from generate_series(1, greatest(places, cardinality(edits))) i
$$;

-- node_priority: before insert and update. Arguments: the place of this node, how many there are.
create function mmrepl.keep_edits() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    edits bigint[];
begin
    if coalesce(current_setting('mmrepl.lifting', true), '') = '' then
        if tg_op = 'UPDATE' then
            edits := old.mmrepl_versions;
        end if;
        new.mmrepl_versions := mmrepl.count_edit(edits, tg_argv[0]::integer, tg_argv[1]::integer);
    end if;
    return new;
end $$;

-- A row that comes back is lifted above the delete of its key. After the insert, which may have waited for
-- the delete's commit. Arguments: the key over `d`, "row t has the key of d", the column, its value over
-- `d` and the tombstone `x`, null where nothing is to be lifted.
--
-- A snapshot that is older than the delete does not show it, so there a tombstone is tried in its place:
-- the server then raises a serialization failure (40001).
create function mmrepl.lift_versions() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC'
set extra_float_digits = 1 set bytea_output = 'hex' as $$
declare
    root oid := coalesce(pg_partition_root(tg_relid)::oid, tg_relid);
    changed text := case tg_level when 'STATEMENT' then 'mmrepl_new' else '(select ($2).*)' end;
    probe text := format('insert into mmrepl.tombstone (relation, key, left_at) select $1, (%s)::text, ''-infinity'''
        || ' from %s d on conflict do nothing', tg_argv[0], changed);
    lift text := format('update only %I.%I t set %s = d.mmrepl_lifted from (select d.*, %s as mmrepl_lifted from %s d'
        || ' join mmrepl.tombstone x on x.relation = $1 and x.key = (%s)::text) d'
        || ' where d.mmrepl_lifted is not null and %s', tg_table_schema, tg_table_name, tg_argv[2], tg_argv[3],
        changed, tg_argv[0], tg_argv[1]);
begin
    -- A delete that is being applied and finds no row waits for this transaction; see `apply::crossing`.
    perform pg_advisory_xact_lock_shared(1835889264, root::bigint::bit(32)::integer);
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        if tg_level = 'STATEMENT' then
            execute probe using root;
        else
            execute probe using root, new;
        end if;
        delete from mmrepl.tombstone t where t.relation = root and t.left_at = '-infinity';
    elsif not exists (select from mmrepl.tombstone t where t.relation = root) then
        return null;
    end if;
    perform set_config('mmrepl.lifting', 'on', true);
    if tg_level = 'STATEMENT' then
        execute lift using root;
    else
        execute lift using root, new;
    end if;
    perform set_config('mmrepl.lifting', '', true);
    return null;
end $$;

-- Before TRUNCATE by an application of a table whose rows carry their version: its rows are deleted instead,
-- so that each delete has the version of its row.
create function mmrepl.truncate_as_delete() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    execute format('delete from %s %I.%I',
        case when (select c.relkind from pg_class c where c.oid = tg_relid) = 'p' then '' else 'only' end,
        tg_table_schema, tg_table_name);
    return null;
end $$;
