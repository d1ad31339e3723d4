-- What was changed and put back before anybody looked: the rows of the catalog have other transaction numbers since.

-- The fingerprints of every table that is published and of its partitions. The publication's owner comes last, because
-- another owner changes nothing.
create or replace function mmrepl.fingerprints() returns table (relation oid, kind text, print text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    with published as (
        select r.prrelid as relation, concat_ws(' ', p.oid, p.xmin, r.oid, r.xmin, p.pubowner) as print
        from pg_publication p join pg_publication_rel r on r.prpubid = p.oid
        where p.pubname = 'mmrepl'
    ), tree as (
        select coalesce(t.relid::oid, d.relation) as relation, coalesce(t.level, 0) as level
        from published d left join lateral pg_partition_tree(d.relation) t on true
    )
    select d.relation, 'published', d.print from published d
    union all
    select t.tgrelid, 'triggers', string_agg(concat(t.oid, ':', t.xmin), ' ' order by t.oid)
    from tree join pg_trigger t on t.tgrelid = tree.relation
    join pg_proc f on f.oid = t.tgfoid and f.pronamespace = to_regnamespace('mmrepl')
    group by t.tgrelid
    union all
    select tree.relation, 'attached', string_agg(concat(i.inhrelid, ':', i.xmin), ' ' order by i.inhrelid)
    from tree
    cross join lateral pg_partition_ancestors(tree.relation) a
    join pg_inherits i on i.inhrelid = a.relid
    where tree.level > 0
    group by tree.relation
$$;

-- Whether a partition holds rows that were written before it was attached: nobody has sent them. Where its rows may not be
-- read, those of the table may.
create or replace function mmrepl.was_filled_before(partition oid) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp set row_security = off set lock_timeout = '500ms' as $$
declare
    attached record;
    older constant text := 'select exists (select from %s t where t.tableoid = $1 and (age(t.xmin) > age($2)'
        || ' or t.xmin = $2 and t.cmin::text::bigint < $3))';
    filled boolean;
begin
    if pg_relation_size(partition) is not distinct from 0 then
        return false;
    end if;
    -- The latest of its own and those of the tables above it.
    select i.xmin, i.cmin::text::bigint as cmin into attached
    from pg_partition_ancestors(partition) a join pg_inherits i on i.inhrelid = a.relid
    order by age(i.xmin), i.cmin::text::bigint desc limit 1;
    begin
        execute format(older, 'only ' || partition::regclass) into filled using partition, attached.xmin, attached.cmin;
    exception when insufficient_privilege then
        execute format(older, pg_partition_root(partition)) into filled using partition, attached.xmin, attached.cmin;
    end;
    return filled;
end $$;

-- What happened to replicated tables since their fingerprints were taken, in words.
create or replace function mmrepl.changed_behind() returns table (relation oid, happened text)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    begun record;
begin
    select f.xmin, age(f.xmin) as age into begun from mmrepl.fingerprint f where f.relation = 0;
    if begun is null then
        return;
    end if;
    return query
        with now as materialized (select * from mmrepl.fingerprints()),
        -- A partition that has gone is not asked about, nor is a table that is not published now.
        lost as (
            select f.relation, f.kind, null::text as print from mmrepl.fingerprint f
            where f.kind = 'triggers' and not exists (select from now n where n.relation = f.relation and n.kind = f.kind)
              and exists (select from now n where n.relation = f.relation)
        ),
        changed as (
            select n.relation, n.kind, f.print as old, n.print as new
            from (select * from now union all select * from lost) n
            left join mmrepl.fingerprint f on f.relation = n.relation and f.kind = n.kind
            where f.print is distinct from n.print
        )
        select coalesce(pg_partition_root(c.relation)::oid, c.relation),
            case c.kind when 'published' then 'its part in publication mmrepl was changed'
                when 'triggers' then 'triggers of mmrepl were off or changed'
                else format('partition %s %s', c.relation::regclass,
                    case when c.old is null then 'was attached with rows' else 'was detached for a while' end) end
        from changed c
        where case c.kind when 'attached' then c.old is not null or mmrepl.was_filled_before(c.relation)
            when 'published' then regexp_replace(c.old, ' \d+$', '') <> regexp_replace(c.new, ' \d+$', '')
            -- A partition that is attached gets triggers of its own.
            else c.old is not null and not exists (select from changed o where o.relation = c.relation and o.kind = 'attached') end;
    -- A transaction that committed without a time although nothing as young was frozen since.
    if current_setting('track_commit_timestamp') = 'on'
        and begun.xmin::text::bigint <> coalesce(pg_current_xact_id_if_assigned()::text::bigint & 4294967295, 0)
        and pg_xact_commit_timestamp(begun.xmin) is null
        and begun.age < (select max(age(d.datfrozenxid)) from pg_database d) then
        return query select f.relation, 'track_commit_timestamp was off'::text
            from mmrepl.fingerprint f where f.kind = 'published';
    end if;
end $$;

-- Forgets tables that are gone, and begins: the row of relation 0 is written again before its time can be forgotten.
create or replace function mmrepl.tend_fingerprints() returns void
language sql set search_path = pg_catalog, pg_temp as $$
    delete from mmrepl.fingerprint f where f.relation <> 0 and not exists (select from pg_class c where c.oid = f.relation);
    insert into mmrepl.fingerprint as f (relation, kind, print) values (0, 'begun', '')
        on conflict (relation, kind) do update set print = excluded.print where age(f.xmin) > 1000000
            or current_setting('track_commit_timestamp') = 'on' and pg_xact_commit_timestamp(f.xmin) is null
$$;

-- Takes the fingerprints anew: what this transaction changed is as it should be.
create or replace function mmrepl.take_fingerprints() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    lock table mmrepl.fingerprint in share row exclusive mode;
    insert into mmrepl.fingerprint as f (relation, kind, print) select n.relation, n.kind, n.print from mmrepl.fingerprints() n
        on conflict (relation, kind) do update set print = excluded.print where f.print <> excluded.print;
    perform mmrepl.tend_fingerprints();
end $$;

-- Notes what happened and takes the fingerprints anew, both by one snapshot. Where there are none yet they begin.
create or replace function mmrepl.note_changes() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    lock table mmrepl.fingerprint in share row exclusive mode;
    with noted as (
        insert into mmrepl.gap as g (schema_name, table_name, happened)
            select n.nspname, c.relname, string_agg(distinct b.happened, ', ' order by b.happened)
            from mmrepl.changed_behind() b join pg_class c on c.oid = b.relation join pg_namespace n on n.oid = c.relnamespace
            group by 1, 2
            on conflict (schema_name, table_name) do update set since = excluded.since,
                happened = case when strpos(g.happened, excluded.happened) > 0 then g.happened
                    else concat_ws(', ', nullif(g.happened, ''), excluded.happened) end
    )
    insert into mmrepl.fingerprint as f (relation, kind, print) select n.relation, n.kind, n.print from mmrepl.fingerprints() n
        on conflict (relation, kind) do update set print = excluded.print where f.print <> excluded.print;
    perform mmrepl.tend_fingerprints();
end $$;
