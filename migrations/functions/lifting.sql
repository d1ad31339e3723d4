-- A row that comes back is given a version above that of its delete.

-- The value of a column, given as SQL names it, in a row that is kept aside.
create or replace function mmrepl.version_aside(names text[], vals text[], wanted text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select vals[i] from generate_subscripts(names, 1) i
    where wanted in (quote_ident(names[i]), '"' || replace(names[i], '"', '""') || '"')
$$;

-- A row that comes back is lifted above the delete of its key, and above a row of this key that is kept aside. After
-- the insert, which may have waited for the delete's commit. A table has a function of its own for what statements insert;
-- this is for rows that get another key, and for partitioned tables. Arguments: the key over `d`, the shape that it had then,
-- "row t has the key of d", the column, its value over `d` and the tombstone `x`, null where nothing is to be lifted; the
-- key's index and its columns (`key_now`).
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
    statements text[];
begin
    if current_setting('mmrepl.applying', true) = 'on' then
        return null;
    end if;
    -- A delete that is being applied and finds no row waits for this transaction; see `apply::crossing`.
    perform pg_advisory_xact_lock_shared(1835889264, root::bigint::bit(32)::integer);
    if current_setting('transaction_isolation') not in ('repeatable read', 'serializable')
        and not exists (select from mmrepl.tombstone t where t.relation = root)
        and not exists (select from mmrepl.shadow s where s.relation = root) then
        return null;
    end if;
    statements := mmrepl.lifting(tg_relid, tg_argv[0], tg_argv[1], tg_argv[2], tg_argv[3], tg_argv[4],
        '(select ($2).*)');
    if statements is null then
        return null;
    end if;
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        execute statements[1] using root, new;
        perform mmrepl.forget_probes(root);
    end if;
    perform set_config('mmrepl.lifting', 'on', true);
    execute statements[2] using root, new;
    perform set_config('mmrepl.lifting', '', true);
    return null;
end $$;

-- Two statements that lift the rows `changed` of a table: the tombstone that is tried, and the update. $1 is the root of the
-- table's partitions. Null where the table has no key any more. The other arguments as of `lift_versions`.
create or replace function mmrepl.lifting(
    relation oid, expression text, made text, matches text, version text, lifted text, changed text
) returns text[]
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    root oid := coalesce(pg_partition_root(relation)::oid, relation);
    shape text := mmrepl.key_shape(root);
    moved boolean := shape is distinct from made;
    key text := case when moved then mmrepl.key_made_anew(root, expression, made, shape, true) else expression end;
    same text := case when moved then mmrepl.key_made_anew(root, matches, made, shape, false) else matches end;
    probe text := format('insert into mmrepl.tombstone (relation, key, left_at) select $1, (%s)::text, ''-infinity'''
        || ' from %s d on conflict do nothing', key, changed);
    version_type text := (select format_type(a.atttypid, null) from pg_attribute a where a.attrelid = relation
        and not a.attisdropped and version in (quote_ident(a.attname), '"' || replace(a.attname, '"', '""') || '"'));
    known text := format('select o.version from mmrepl.tombstone o where o.relation = $1 and o.key = (%1$s)::text'
        || ' union all select mmrepl.version_aside(s.names, s.vals, %2$L) from mmrepl.shadow s'
        || ' where s.relation = $1 and s.key = (%1$s)::text', key, version);
    -- Where rows merge, a bigint is followed by the name of a node. Another rule may have left another type.
    ranked text := case version_type when 'bigint' then 'split_part(y.version, '' '', 1)::bigint'
        when 'bigint[]' then 'case when y.version like ''{%'' then y.version::bigint[] end'
        else 'y.version::' || version_type end;
begin
    return (select array[probe, format('update only %I.%I t set %s = d.mmrepl_lifted'
        || ' from (select d.*, %s as mmrepl_lifted from %s d'
        || ' cross join lateral (select y.version from (%s) y order by %s desc nulls last limit 1) x) d'
        || ' where d.mmrepl_lifted is not null and %s', n.nspname, c.relname, version, lifted, changed, known, ranked, same)]
        from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = relation and key is not null);
end $$;

-- Takes away what was tried.
create or replace function mmrepl.forget_probes(root oid) returns void
language plpgsql volatile as $$
begin
    delete from mmrepl.tombstone t where t.relation OPERATOR(pg_catalog.=) root
        and t.left_at OPERATOR(pg_catalog.=) '-infinity'::pg_catalog.timestamptz;
end $$;
