-- A row that comes back is given a version above that of its delete.

-- The value of a column, given as SQL names it, in a row that is kept aside.
create or replace function mmrepl.version_aside(names text[], vals text[], wanted text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select vals[i] from generate_subscripts(names, 1) i
    where wanted in (quote_ident(names[i]), '"' || replace(names[i], '"', '""') || '"')
$$;

-- A row that comes back is lifted above the delete of its key, and above a row of this key that is kept aside. After
-- the insert, which may have waited for the delete's commit. Arguments: the key over `d`, the shape that it had then, "row t
-- has the key of d", the column, its value over `d` and the tombstone `x`, null where nothing is to be lifted; the key's
-- index and its columns (`key_now`).
--
-- A snapshot that is older than the delete does not show it, so there a tombstone is tried in its place:
-- the server then raises a serialization failure (40001).
create or replace function mmrepl.lift_versions() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp set row_security = off
set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC'
set extra_float_digits = 1 set bytea_output = 'hex' as $$
declare
    root oid := coalesce(pg_partition_root(tg_relid)::oid, tg_relid);
    key text := mmrepl.key_now(root, tg_argv[0], tg_argv[1], tg_argv[5]::oid, tg_argv[6]::text[], true);
    same text := mmrepl.key_now(root, tg_argv[2], tg_argv[1], tg_argv[5]::oid, tg_argv[6]::text[], false);
    changed text := case tg_level when 'STATEMENT' then 'mmrepl_new' else '(select ($2).*)' end;
    probe text := format('insert into mmrepl.tombstone (relation, key, left_at) select $1, (%s)::text, ''-infinity'''
        || ' from %s d on conflict do nothing', key, changed);
    version_type text := (select format_type(a.atttypid, null) from pg_attribute a where a.attrelid = tg_relid
        and not a.attisdropped and tg_argv[3] in (quote_ident(a.attname), '"' || replace(a.attname, '"', '""') || '"'));
    known text := format('select o.version from mmrepl.tombstone o where o.relation = $1 and o.key = (%1$s)::text'
        || ' union all select mmrepl.version_aside(s.names, s.vals, %2$L) from mmrepl.shadow s'
        || ' where s.relation = $1 and s.key = (%1$s)::text', key, tg_argv[3]);
    -- Where rows merge, a bigint is followed by the name of a node. Another rule may have left another type.
    ranked text := case version_type when 'bigint' then 'split_part(y.version, '' '', 1)::bigint'
        when 'bigint[]' then 'case when y.version like ''{%'' then y.version::bigint[] end'
        else 'y.version::' || version_type end;
    lift text := format('update only %I.%I t set %s = d.mmrepl_lifted from (select d.*, %s as mmrepl_lifted from %s d'
        || ' cross join lateral (select y.version from (%s) y order by %s desc nulls last limit 1) x) d'
        || ' where d.mmrepl_lifted is not null and %s', tg_table_schema, tg_table_name, tg_argv[3], tg_argv[4],
        changed, known, ranked, same);
begin
    if key is null then
        return null;
    end if;
    -- A delete that is being applied and finds no row waits for this transaction; see `apply::crossing`.
    perform pg_advisory_xact_lock_shared(1835889264, root::bigint::bit(32)::integer);
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        if tg_level = 'STATEMENT' then
            execute probe using root;
        else
            execute probe using root, new;
        end if;
        delete from mmrepl.tombstone t where t.relation = root and t.left_at = '-infinity';
    elsif not exists (select from mmrepl.tombstone t where t.relation = root)
        and not exists (select from mmrepl.shadow s where s.relation = root) then
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
