-- Deletes of many rows by one statement, on servers from 17 on; keys in the order of their bytes.

-- Keys are looked up and never shown in order: comparing bytes is enough, and costs a fraction of comparing words of a
-- language. The table is not rewritten, its index is.
alter table mmrepl.tombstone alter column key type text collate "C";

-- After DELETE, per statement, on ordinary tables that keep no versions and whose key is unique at any
-- moment, not only at the end of a transaction. Argument: the key as a text[] expression over `d`.
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
