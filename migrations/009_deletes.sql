-- Deletes of many rows by one statement.

-- Tombstones that such a statement left have a place of their own beside the one of the same key. Nobody
-- else writes there, so they are plain inserts: `on conflict` is a speculative insert, which costs the
-- writer as much again and whoever decodes the WAL several times as much.
alter table mmrepl.tombstone add column bulk boolean not null default false;
alter table mmrepl.tombstone drop constraint tombstone_pkey, add primary key (relation, key, bulk);

-- As before.
create or replace function mmrepl.tombstone_statement(keys text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select 'insert into mmrepl.tombstone (relation, key, version, image)'
        || ' select $1, k.key::text, k.version, k.image from (' || keys || ') k(key, version, image)'
        || ' on conflict (relation, key, bulk) do update'
        || ' set left_at = excluded.left_at, version = excluded.version, image = excluded.image'
$$;

-- As before.
create or replace function mmrepl.leave_truncate_tombstone() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    insert into mmrepl.tombstone (relation, key) values (tg_relid, '')
        on conflict (relation, key, bulk) do update set left_at = excluded.left_at;
    perform set_config('mmrepl.truncating', '', true);
    return null;
end $$;

-- After DELETE, per statement, on ordinary tables that keep no versions and whose key is unique at any
-- moment, not only at the end of a transaction. Argument: the key as a text[] expression over `d`.
--
-- Who deletes a row has waited for whoever deleted the one that had its key before. So with a snapshot taken
-- now an earlier tombstone of the key is visible, and no other can come in between. A snapshot of the whole
-- transaction may be older, and a parent table gives its children's rows too: these go the slow way, like
-- the few rows that are not worth another statement.
--
-- Earlier tombstones are looked up in the index by a list of keys: for some hundreds a join might read the
-- whole table, whose size the server does not know yet. Very many are worth a join, and might not fit into a
-- list. Everything is planned when it runs, as the table may grow fast.
create function mmrepl.remember_deletes() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC'
set extra_float_digits = 1 set bytea_output = 'hex' as $$
declare
    keys text := format('(select (%s)::text from mmrepl_old d) k(key)', tg_argv[0]);
    rows bigint := (select count(*) from (select from mmrepl_old limit 100001) counted);
begin
    if rows < 20
        or current_setting('transaction_isolation') in ('repeatable read', 'serializable')
        or (select c.relhassubclass from pg_class c where c.oid = tg_relid) then
        execute mmrepl.tombstone_statement(format('select distinct on (1) %s, null, null::text[] from mmrepl_old d',
            tg_argv[0])) using tg_relid;
        return null;
    end if;
    if rows <= 100000 then
        execute 'delete from mmrepl.tombstone t where t.relation = $1 and t.key = any (array(select k.key from '
            || keys || '))' using tg_relid;
    else
        execute 'delete from mmrepl.tombstone t using ' || keys || ' where t.relation = $1 and t.key = k.key'
            using tg_relid;
    end if;
    execute 'insert into mmrepl.tombstone (relation, key, left_at, bulk) select distinct $1, k.key, $2, true from '
        || keys using tg_relid, clock_timestamp();
    return null;
end $$;
