-- What a delete leaves behind, and the triggers that leave it.

-- The statement that leaves one tombstone per key; `keys` is a query that yields a text[], the version of the delete
-- and the image of the row.
create or replace function mmrepl.tombstone_statement(keys text) returns text
language sql immutable as $$
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
    select pg_catalog.current_setting('mmrepl.only_peer', true) is not distinct from 'on'
        and (select pg_catalog.count(*) from mmrepl.node) = 2
$$;

-- The query `keys` of `mmrepl.tombstone_statement`, less the keys that have no tombstone. One that is there is replaced in
-- any case: what the source writes next does not meet a delete again that this one has won over.
create or replace function mmrepl.with_tombstone(keys text) returns text
language sql immutable as $$
    select 'select n.* from (' || keys || ') n(key, version, image) cross join lateral'
        || ' (select from mmrepl.tombstone t where t.relation = $1 and t.key = n.key::text limit 1) found'
$$;

-- After DELETE, per statement, on ordinary tables. Arguments: the key as a text[] over `d`, the shape that it had then;
-- over `d` the version of the delete and the image of the row, where rows keep their version; the key's index and its
-- columns (`key_now`).
create or replace function mmrepl.leave_tombstones() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC'
set extra_float_digits = 1 set bytea_output = 'hex' as $$
declare
    key text := mmrepl.key_now(tg_relid, tg_argv[0], tg_argv[1], tg_argv[tg_nargs - 2]::oid,
        tg_argv[tg_nargs - 1]::text[], true);
    keys text := format('select distinct on (1) %s, %s, %s from mmrepl_old d', key,
        case when tg_nargs > 4 then tg_argv[2] else 'null' end,
        case when tg_nargs > 5 then tg_argv[3] else 'null::text[]' end);
begin
    if key is null then
        return null;
    end if;
    if tg_nargs = 4 and mmrepl.applies_from_only_peer() then
        keys := mmrepl.with_tombstone(keys);
    end if;
    execute mmrepl.tombstone_statement(keys) using tg_relid;
    return null;
end $$;

-- After DELETE (partitioned tables) and after UPDATE of the key, per row. Arguments as of `leave_tombstones`; the
-- version may also name the new row of an update, `n`.
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

-- After DELETE, per statement, on ordinary tables that keep no versions and whose key is unique at any
-- moment, not only at the end of a transaction. Arguments as of `leave_tombstones`.
--
-- Who deletes a row has waited for whoever deleted the one that had its key before. So with a snapshot taken
-- now an earlier tombstone of the key is visible, and no other can come in between. A snapshot of the whole
-- transaction may be older, and a parent table gives its children's rows too: these go the slow way, like
-- the few rows that are not worth another statement.
--
-- Earlier tombstones are looked up in the index, whatever the server believes of the table's size: a join might read
-- the whole table. Since 17 the server goes through the index once for a sorted list of keys; before, it compared a list
-- with all tombstones of the table, and the keys go one by one. Very many are worth a join. Everything is planned when
-- it runs, as the table may grow fast.
create or replace function mmrepl.remember_deletes() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC'
set extra_float_digits = 1 set bytea_output = 'hex' as $$
declare
    key text := mmrepl.key_now(tg_relid, tg_argv[0], tg_argv[1], tg_argv[tg_nargs - 2]::oid,
        tg_argv[tg_nargs - 1]::text[], true);
    singly text := format('select distinct on (1) %s, null, null::text[] from mmrepl_old d', key);
    keys text := format('(select (%s)::text from mmrepl_old d) k(key)', key);
    rows bigint;
begin
    if key is null then
        return null;
    end if;
    if mmrepl.applies_from_only_peer() then
        if exists (select from mmrepl.tombstone t where t.relation = tg_relid) then
            execute mmrepl.tombstone_statement(mmrepl.with_tombstone(singly)) using tg_relid;
        end if;
        return null;
    end if;
    rows := (select count(*) from (select from mmrepl_old limit 100001) counted);
    if rows < 20
        or current_setting('transaction_isolation') in ('repeatable read', 'serializable')
        or (select c.relhassubclass from pg_class c where c.oid = tg_relid) then
        execute mmrepl.tombstone_statement(singly) using tg_relid;
        return null;
    end if;
    if rows > 100000 then
        execute 'delete from mmrepl.tombstone t using ' || keys || ' where t.relation = $1 and t.key = k.key'
            using tg_relid;
    elsif current_setting('server_version_num')::int >= 170000 then
        execute 'delete from mmrepl.tombstone t where t.relation = $1 and t.key = any (array(select k.key from '
            || keys || '))' using tg_relid;
    else
        execute 'delete from mmrepl.tombstone t where t.ctid = any (array(select found.ctid from ' || keys
            || ' cross join lateral (select x.ctid from mmrepl.tombstone x'
            || ' where x.relation = $1 and x.key = k.key offset 0) found))' using tg_relid;
    end if;
    execute 'insert into mmrepl.tombstone (relation, key, left_at, bulk) select distinct $1, k.key, $2, true from '
        || keys using tg_relid, clock_timestamp();
    return null;
end $$;

-- hybrid_clock: what a delete counts as its time. One for all deletes of a transaction, in the WAL before
-- the first of them, so that every node knows the version that the tombstone has here. Before DELETE, per
-- statement; per row on partitioned tables, where a partition may be named.
create or replace function mmrepl.delete_begins() returns trigger
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
create or replace function mmrepl.delete_clock() returns bigint
language sql stable set search_path = pg_catalog, pg_temp as $$
    select nullif(current_setting('mmrepl.delete_clock', true), '')::bigint
$$;
