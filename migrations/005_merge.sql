-- Rows that merge: counters that add up, columns that are decided each by itself.

-- The row that was deleted, names and values in turn, and what was merged into it since. Only of tables
-- whose rows merge.
alter table mmrepl.tombstone add column image text[];

-- As before; `keys` yields a text[], the version of the delete and the image of the row.
create or replace function mmrepl.tombstone_statement(keys text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select 'insert into mmrepl.tombstone (relation, key, version, image)'
        || ' select $1, k.key::text, k.version, k.image from (' || keys || ') k(key, version, image)'
        || ' on conflict (relation, key) do update'
        || ' set left_at = excluded.left_at, version = excluded.version, image = excluded.image'
$$;

-- As before; a third argument is the image over `d`.
create or replace function mmrepl.leave_tombstones() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC'
set extra_float_digits = 1 set bytea_output = 'hex' as $$
begin
    execute mmrepl.tombstone_statement(format('select distinct on (1) %s, %s, %s from mmrepl_old d',
        tg_argv[0], coalesce(tg_argv[1], 'null'), coalesce(tg_argv[2], 'null::text[]'))) using tg_relid;
    return null;
end $$;

-- As before; a third argument is the image over `d`.
create or replace function mmrepl.leave_tombstone() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC'
set extra_float_digits = 1 set bytea_output = 'hex' as $$
declare
    root oid := coalesce(pg_partition_root(tg_relid)::oid, tg_relid);
    keys text := format('select %s, %s, %s from (select ($2).*) d', tg_argv[0],
        coalesce(tg_argv[1], 'null'), coalesce(tg_argv[2], 'null::text[]'));
begin
    if tg_op = 'UPDATE' then
        execute mmrepl.tombstone_statement(keys || ', (select ($3).*) n') using root, old, new;
    else
        execute mmrepl.tombstone_statement(keys) using root, old;
    end if;
    return null;
end $$;

-- One more change by `node` of the counter `name`, which was `old` and is now `new`. A counter that has not
-- been counted before begins with what it was; every node has that.
create function mmrepl.count_delta(counters jsonb, name text, old numeric, new numeric, node text, clock bigint)
returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select counters || jsonb_build_object(name, jsonb_build_object(
        'b', coalesce(counters -> name -> 'b', jsonb_build_array(0, '', old::text)),
        'e', coalesce(counters -> name -> 'e', '{}') || jsonb_build_object(node, jsonb_build_array(clock,
            (coalesce((counters -> name -> 'e' -> node ->> 1)::numeric, 0) + (new - old))::text))))
$$;
