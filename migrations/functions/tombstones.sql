-- What a delete leaves behind, and the triggers that leave it.

-- The statement that leaves one tombstone per key; `keys` is a query that yields a text[], the version of the delete
-- and the image of the row.
create or replace function mmrepl.tombstone_statement(keys text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select 'insert into mmrepl.tombstone (relation, key, version, image)'
        || ' select $1, k.key::text, k.version, k.image from (' || keys || ') k(key, version, image)'
        || ' on conflict (relation, key, bulk) do update'
        || ' set left_at = excluded.left_at, version = excluded.version, image = excluded.image'
$$;

-- Whether this session applies what the only peer sends. Under a rule that decides by time whatever that peer still sends
-- was written after its delete, and whatever is written here from now on is newer: no older write of the key can come, and
-- no tombstone is needed. The session says that it applies; the number of nodes is looked up because a third one may join
-- before the daemon has another configuration. The look-up holds a lock on the table until the delete has committed: who
-- adds a node waits for that (`init`).
create or replace function mmrepl.applies_from_only_peer() returns boolean
language sql stable as $$
    select coalesce(pg_catalog.current_setting('mmrepl.only_peer', true) OPERATOR(pg_catalog.=) 'on', false)
        and (select pg_catalog.count(*) from mmrepl.node) OPERATOR(pg_catalog.=) 2
$$;

-- The query `keys` of `mmrepl.tombstone_statement`, less the keys that have no tombstone. One that is there is replaced in
-- any case: what the source writes next does not meet a delete again that this one has won over.
create or replace function mmrepl.with_tombstone(keys text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select 'select n.* from (' || keys || ') n(key, version, image) cross join lateral'
        || ' (select from mmrepl.tombstone t where t.relation = $1 and t.key = n.key::text limit 1) found'
$$;

-- The statement that leaves a tombstone for each row that a statement has deleted, where the key is not what it was when
-- the table's own trigger function was made; null where the table has no key any more. `expression`: the key as a text[]
-- over `d`; `made`: the shape that it had; over `d` the version of the delete and the image of the row. The caller pins settings.
create or replace function mmrepl.tombstones_made_anew(relation oid, expression text, made text, version text, image text)
returns text
language plpgsql stable as $$
declare
    key text := mmrepl.key_made_anew(relation, expression, made, mmrepl.key_shape(relation), true);
    keys text := format('select distinct on (1) %s, %s, %s from mmrepl_old d', key, version, image);
begin
    if key is null then
        return null;
    end if;
    if version = 'null' and mmrepl.applies_from_only_peer() then
        keys := mmrepl.with_tombstone(keys);
    end if;
    return mmrepl.tombstone_statement(keys);
end $$;

-- Pins the settings that texts depend on, until `unpin_settings` gets what this returns. For statements that are put
-- together when they run, inside of functions that run with the session's settings.
create or replace function mmrepl.pin_settings() returns text[]
language plpgsql volatile as $$
declare
    pinned constant pg_catalog.text[] := array['search_path', 'pg_catalog, pg_temp', 'datestyle', 'ISO, YMD', 'intervalstyle',
        'postgres', 'timezone', 'UTC', 'extra_float_digits', '1', 'bytea_output', 'hex', 'row_security', 'off'];
    before pg_catalog.text[] := '{}';
    place pg_catalog.int4 := 1;
begin
    while pinned[place] is not null loop
        before := before OPERATOR(pg_catalog.||) pinned[place]
            OPERATOR(pg_catalog.||) pg_catalog.current_setting(pinned[place]);
        perform pg_catalog.set_config(pinned[place], pinned[place OPERATOR(pg_catalog.+) 1], true);
        place := place OPERATOR(pg_catalog.+) 2;
    end loop;
    return before;
end $$;

-- Sets back what `pin_settings` found.
create or replace function mmrepl.unpin_settings(before text[]) returns text[]
language plpgsql volatile as $$
declare
    place pg_catalog.int4 := 1;
begin
    while before[place] is not null loop
        perform pg_catalog.set_config(before[place], before[place OPERATOR(pg_catalog.+) 1], true);
        place := place OPERATOR(pg_catalog.+) 2;
    end loop;
    return null;
end $$;

-- The statement that forgets the earlier tombstones of `rows` keys; `keys` is a row source `k(key)`.
--
-- Earlier tombstones are looked up in the index, whatever the server believes of the table's size: a join might read
-- the whole table. Since 17 the server goes through the index once for a sorted list of keys; before, it compared a list
-- with all tombstones of the table, and the keys go one by one. Very many are worth a join. Everything is planned when
-- it runs, as the table may grow fast.
create or replace function mmrepl.forgetting(rows bigint, keys text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case
        when rows > 100000 then 'delete from mmrepl.tombstone t using ' || keys
            || ' where t.relation OPERATOR(pg_catalog.=) $1 and t.key OPERATOR(pg_catalog.=) k.key'
        when current_setting('server_version_num')::int >= 170000 then
            'delete from mmrepl.tombstone t where t.relation OPERATOR(pg_catalog.=) $1'
            || ' and t.key OPERATOR(pg_catalog.=) any (array(select k.key from ' || keys || '))'
        else 'delete from mmrepl.tombstone t where t.ctid OPERATOR(pg_catalog.=) any (array(select found.ctid from '
            || keys || ' cross join lateral (select x.ctid from mmrepl.tombstone x'
            || ' where x.relation OPERATOR(pg_catalog.=) $1 and x.key OPERATOR(pg_catalog.=) k.key offset 0) found))'
        end
$$;

-- After DELETE (partitioned tables) and after UPDATE of the key, per row. Arguments: the key as a text[] over `d`, the
-- shape that it had then; over `d` the version of the delete and the image of the row, where rows keep their version; the
-- key's index and its columns (`key_now`). The version may also name the new row of an update, `n`.
create or replace function mmrepl.leave_tombstone() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC'
set extra_float_digits = 1 set bytea_output = 'hex' as $$
declare
    root oid := coalesce(pg_partition_root(tg_relid)::oid, tg_relid);
    key text := mmrepl.key_now(root, tg_argv[0], tg_argv[1], tg_argv[tg_nargs - 2]::oid,
        tg_argv[tg_nargs - 1]::text[], true);
    keys text := format('select %s, %s, %s from (select ($2).*) d', key,
        case when tg_nargs > 4 then tg_argv[2] else 'null' end,
        case when tg_nargs > 5 then tg_argv[3] else 'null::text[]' end);
begin
    if key is null then
        return null;
    end if;
    if tg_op = 'UPDATE' then
        -- Where the trigger could not tell whether the key has changed, this does.
        keys := keys || format(', (select ($3).*) n'
            || ' where (%1$s)::text collate "C" <> (select (%1$s)::text collate "C" from (select ($3).*) d)', key);
    end if;
    if tg_nargs = 4 and mmrepl.applies_from_only_peer() then
        keys := mmrepl.with_tombstone(keys);
    end if;
    if tg_op = 'UPDATE' then
        execute mmrepl.tombstone_statement(keys) using root, old, new;
    else
        execute mmrepl.tombstone_statement(keys) using root, old;
    end if;
    return null;
end $$;

-- hybrid_clock: what a delete counts as its time. One for all deletes of a transaction, in the WAL before
-- the first of them, so that every node knows the version that the tombstone has here. Before DELETE, per
-- statement; per row on partitioned tables, where a partition may be named.
create or replace function mmrepl.delete_begins() returns trigger
language plpgsql security definer as $$
declare
    said pg_catalog.text;
    lsn pg_catalog.pg_lsn;
begin
    if (pg_catalog.current_setting('mmrepl.delete_clock', true) OPERATOR(pg_catalog.<>) '') is not true
        and (pg_catalog.current_setting('mmrepl.applying', true) OPERATOR(pg_catalog.=) 'on') is not true then
        said := mmrepl.clock_now();
        said := pg_catalog.set_config('mmrepl.delete_clock', said, true);
        lsn := pg_catalog.pg_logical_emit_message(true, 'mmrepl', pg_catalog.concat('deletes at ', said));
    end if;
    if tg_level OPERATOR(pg_catalog.=) 'ROW' then
        return old;
    end if;
    return null;
end $$;

-- What `delete_begins` has said in this transaction.
create or replace function mmrepl.delete_clock() returns bigint
language sql stable as $$
    select case when pg_catalog.current_setting('mmrepl.delete_clock', true) OPERATOR(pg_catalog.<>) ''
        then pg_catalog.current_setting('mmrepl.delete_clock', true)::pg_catalog.int8 end
$$;
