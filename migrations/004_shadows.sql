-- Rows that lost a unique value, and their return.

-- The newest version of a key whose row is not in its table, because a newer row holds one of its unique
-- values. `key` is written as in mmrepl.tombstone. Values are what the types' output functions print, so
-- that they can be read back exactly. The version is that of the write, wherever it was made; a time that
-- is not known is older than any. While a shadow is here, mmrepl.tombstone has nothing older for its key:
-- a tombstone of the same key was left later, by a local delete.
create table mmrepl.shadow (
    relation oid not null,
    key text not null,
    names text[] not null,
    vals text[] not null,
    written_at timestamptz,
    node text not null,
    since timestamptz not null default clock_timestamp(),
    primary key (relation, key)
);

-- Whoever makes shadows in a table, or lets them return, holds the table's lock alone; who writes on the
-- assumption that there are none holds it together with others. Local writers need none.
create function mmrepl.lock_shadows(relation oid) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    perform pg_advisory_xact_lock(1835889267, relation::bigint::bit(32)::int);
end $$;

-- Raises MR004 where one of the tables has a shadow; keeps others from making one.
create function mmrepl.refuse_shadows(relations oid[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    relation oid;
begin
    foreach relation in array relations loop
        perform pg_advisory_xact_lock_shared(1835889267, relation::bigint::bit(32)::int);
    end loop;
    if exists (select from mmrepl.shadow s where s.relation = any (relations)) then
        raise exception using errcode = 'MR004', message = 'rows of the table are kept aside';
    end if;
end $$;

-- The value of a column, given as SQL names it, in a row that is kept aside.
create function mmrepl.version_aside(names text[], vals text[], wanted text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select vals[i] from generate_subscripts(names, 1) i
    where wanted in (quote_ident(names[i]), '"' || replace(names[i], '"', '""') || '"')
$$;

-- As before, and a row that takes the key of one that is kept aside is lifted above that one too.
create or replace function mmrepl.lift_versions() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC'
set extra_float_digits = 1 set bytea_output = 'hex' as $$
declare
    root oid := coalesce(pg_partition_root(tg_relid)::oid, tg_relid);
    changed text := case tg_level when 'STATEMENT' then 'mmrepl_new' else '(select ($2).*)' end;
    probe text := format('insert into mmrepl.tombstone (relation, key, left_at) select $1, (%s)::text, ''-infinity'''
        || ' from %s d on conflict do nothing', tg_argv[0], changed);
    version_type text := (select format_type(a.atttypid, null) from pg_attribute a where a.attrelid = tg_relid
        and not a.attisdropped and tg_argv[2] in (quote_ident(a.attname), '"' || replace(a.attname, '"', '""') || '"'));
    known text := format('select o.version from mmrepl.tombstone o where o.relation = $1 and o.key = (%1$s)::text'
        || ' union all select mmrepl.version_aside(s.names, s.vals, %2$L) from mmrepl.shadow s'
        || ' where s.relation = $1 and s.key = (%1$s)::text', tg_argv[0], tg_argv[2]);
    -- Where rows merge, a bigint is followed by the name of a node. Another rule may have left another type.
    ranked text := case version_type when 'bigint' then 'split_part(y.version, '' '', 1)::bigint'
        when 'bigint[]' then 'case when y.version like ''{%'' then y.version::bigint[] end'
        else 'y.version::' || version_type end;
    lift text := format('update only %I.%I t set %s = d.mmrepl_lifted from (select d.*, %s as mmrepl_lifted from %s d'
        || ' cross join lateral (select y.version from (%s) y order by %s desc nulls last limit 1) x) d'
        || ' where d.mmrepl_lifted is not null and %s', tg_table_schema, tg_table_name, tg_argv[2], tg_argv[3],
        changed, known, ranked, tg_argv[1]);
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
