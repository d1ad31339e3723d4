-- What keeps the versions of rows while their table is rewritten. An application's command never fails because of it.

-- Remembers which rows of a table that is about to be rewritten have a version that matters. By then its columns may be
-- described as they will be, so nothing but what every row has is looked at.
create or replace function mmrepl.note_versions(relation oid) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set max_parallel_workers_per_gather = 0 set enable_seqscan = on set enable_indexscan = off
set enable_indexonlyscan = off set enable_bitmapscan = off set jit = off as $$
declare
    now_at bigint := pg_current_xact_id()::xid::text::bigint;
    lowest timestamptz;
    forged boolean := false;
    known text[];
    forgotten bigint[];
begin
    if current_setting('transaction_isolation') <> 'read committed'
        or (select c.relam from pg_class c where c.oid = relation) <> 2 then
        return;
    end if;
    if exists (select from mmrepl.table_file f, pg_class c
        where f.relation = note_versions.relation and c.oid = f.relation and c.relfilenode <> f.file) then
        execute format('select coalesce(bool_or(mmrepl.is_forged(q.xmin, $1)), false) '
            || 'from (select distinct xmin from only %s) q', relation::regclass) into forged using relation;
    end if;
    if forged then
        return;
    end if;
    select case when bool_and(k.up_to is not null) then min(k.up_to) else '-infinity' end into lowest
        from mmrepl.known_up_to() k;
    select coalesce(array_agg(r.xid || ' ' || r.cid), '{}'), coalesce(array_agg(r.xid) filter (where r.kept = 0), '{}')
        into known, forgotten from mmrepl.rewrite r where r.relation = note_versions.relation;
    execute format(
        'insert into mmrepl.rewriting (relation, transaction, total, places, xids, own) '
        || 'select $1, pg_current_xact_id(), count(*), coalesce(array_agg(q.n) filter (where q.needed), ''{}''), '
        || 'coalesce(array_agg(q.x) filter (where q.needed), ''{}''), '
        || 'coalesce(array_agg(q.own) filter (where q.needed), ''{}'') '
        || 'from (select s.*, case when s.t is null then s.own or s.mine and s.x::text::bigint <> all ($5) '
        || 'else s.t > $2 and ($5 = ''{}'' or s.x::text::bigint <> all ($5)) end as needed '
        || 'from (select s.*, s.mine and (s.x || '' '' || s.c) <> all ($4) as own '
        || 'from (select s.*, s.t is null and (s.x::text::bigint - $3 + 4294967296) %% 4294967296 < 2147483648 as mine '
        || 'from (select row_number() over () as n, xmin as x, cmin as c, pg_xact_commit_timestamp(xmin) as t '
        || 'from only %s) s) s) s) q', relation::regclass)
        using relation, lowest, now_at, known, forgotten;
end $$;

-- The columns whose type such clauses of ALTER TABLE change.
create or replace function mmrepl.columns_altered(clauses text) returns setof name
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select mmrepl.as_identifier(f.found[1])
    from regexp_matches(clauses, '\malter\s+(?:column\s+)?("(?:[^"]|"")+"|[^\s."(),;*'']+)\s+(?:set\s+data\s+)?type\M',
        'gi') f(found)
$$;

-- Before ALTER TABLE. Where a column of an index changes its type, nothing that reads the table can be planned by the time
-- the table is rewritten: the index is there and empty. So the rows are noted now, under the lock that the command takes.
-- All that is known is the text (see mmrepl.tables_altered); what is noted in vain is forgotten afterwards.
create or replace function mmrepl.rewrite_may_begin() returns event_trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    context text;
    message text := current_query();
    found oid;
begin
    if current_setting('mmrepl.following', true) = 'on' then
        return;
    end if;
    get diagnostics context = pg_context;
    if context || ' ' || message !~* '\mtype\M' then
        return;
    end if;
    for found in
        select distinct leaf.relid from mmrepl.tables_altered(context, message) f
        join pg_class c on c.oid = f.relation
        cross join lateral (
            select p.relid from pg_partition_tree(c.oid) p where p.isleaf
            union select c.oid where c.relkind = 'r') leaf
        join pg_attribute a on a.attrelid = leaf.relid and not a.attisdropped
        where c.relkind in ('r', 'p') and mmrepl.is_replicated(leaf.relid)
          and exists (select from mmrepl.columns_altered(f.clauses) n where n = a.attname)
          and exists (
              select from pg_index i where i.indrelid = leaf.relid
                and (a.attnum = any (i.indkey)
                     or exists (select from pg_depend d where d.classid = 'pg_class'::regclass
                         and d.objid = i.indexrelid and d.refclassid = 'pg_class'::regclass
                         and d.refobjid = leaf.relid and d.refobjsubid = a.attnum)))
    loop
        perform set_config('synchronize_seqscans', 'off', true);
        begin
            delete from mmrepl.rewriting w
                where w.relation = found and w.transaction = pg_current_xact_id() and w.early;
            execute format('lock table only %s in access exclusive mode', found::regclass);
            perform mmrepl.note_versions(found);
            update mmrepl.rewriting w set early = true
                where w.relation = found and w.transaction = pg_current_xact_id();
            perform set_config('mmrepl.rewriting', 'perhaps', true);
        exception when others then
            raise log 'mmrepl: the rows of % are not noted early: %', found::regclass, sqlerrm;
        end;
    end loop;
exception when others then
    raise log 'mmrepl: no rows are noted early: %', sqlerrm;
end $$;

-- Before a table is rewritten by ALTER TABLE or ALTER TYPE.
create or replace function mmrepl.rewrite_begins() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    found oid := pg_event_trigger_table_rewrite_oid();
    why text;
    is_noted boolean;
begin
    if not mmrepl.is_replicated(found) then
        return;
    end if;
    -- The rewrite reads the table from its beginning, as the scan here does.
    perform set_config('synchronize_seqscans', 'off', true), set_config('mmrepl.rewriting', 'on', true);
    begin
        delete from mmrepl.rewriting w
            where w.relation = found and w.transaction = pg_current_xact_id() and w.early;
        perform mmrepl.note_versions(found);
    exception when others then
        why := sqlerrm;
        update mmrepl.rewriting w set early = false
            where w.relation = found and w.transaction = pg_current_xact_id() and w.early returning true into is_noted;
        if is_noted is null then
            raise warning 'mmrepl cannot keep the versions of the rows of %: %', found::regclass, why;
        end if;
    end;
end $$;

-- Rows inserted, updated and deleted in the table by this transaction so far.
create or replace function mmrepl.writes_here(relation oid) returns bigint
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select case when current_setting('track_counts')::boolean then
        pg_stat_get_xact_tuples_inserted($1) + pg_stat_get_xact_tuples_updated($1) + pg_stat_get_xact_tuples_deleted($1)
        else -1 end
$$;

-- Keeps the versions of what mmrepl.note_versions remembered, now that the table has been rewritten.
create or replace function mmrepl.keep_versions(noted mmrepl.rewriting) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC'
set extra_float_digits = 1 set bytea_output = 'hex'
set max_parallel_workers_per_gather = 0 set enable_seqscan = on set enable_indexscan = off
set enable_indexonlyscan = off set enable_bitmapscan = off set jit = off as $$
declare
    name text := (noted.relation)::regclass::text;
    writer xid;
    command cid;
    total bigint;
    rows bigint := cardinality(noted.places);
    made mmrepl.rewrite;
begin
    execute format('select xmin, cmin from only %s limit 1', name) into writer, command;
    if writer is not null then
        if rows > 0 then
            execute format('select count(*) from only %s', name) into total;
            if total <> noted.total then
                raise exception 'there are % rows instead of %', total, noted.total;
            end if;
        end if;
        insert into mmrepl.rewrite (relation, xid, cid, kept, buckets, writes)
            values (noted.relation, writer::text::bigint, command::text::bigint, 0, greatest(rows / 200, 1),
                mmrepl.writes_here(noted.relation))
            returning * into made;
        if rows > 0 then
            execute format(
                'with c as materialized (select * from unnest($3::bigint[], $4::xid[], $5::boolean[]) c(n, x, own)), '
                || 'by_xid as materialized (select d.x, r.id as rewrite, t."timestamp" as at, t.roident as origin, '
                || 'coalesce(u.up_to, case when u.origin is null then l.up_to end, ''-infinity'') as up_to '
                || 'from (select distinct c.x from c) d cross join lateral pg_xact_commit_timestamp_origin(d.x) t '
                || 'left join (select distinct on (r.xid) r.xid, r.id from mmrepl.rewrite r where r.relation = $6 '
                || 'and r.id <> $1 order by r.xid, r.id desc) r on r.xid = d.x::text::bigint '
                || 'left join mmrepl.known_up_to() u on u.origin = t.roident '
                || 'left join mmrepl.known_up_to() l on l.origin = 0), '
                || 'kept as materialized (select v.rewrite, k.* from mmrepl.kept_version v, '
                || 'unnest(v.keys, v.times, v.origins) k(hash, at, origin) '
                || 'where v.rewrite in (select b.rewrite from by_xid b)) '
                || 'insert into mmrepl.kept_version (rewrite, bucket, late, keys, times, origins) '
                || 'select $1, abs(v.hash %% $2), false, array_agg(v.hash), array_agg(v.at), array_agg(v.origin) '
                || 'from (select h.hash, case when h.own then null when k.at is null then h.at else k.at end as at, '
                || 'case when h.own then 0 when k.at is null then h.origin else k.origin end as origin '
                || 'from (select c.own, b.*, hashtextextended(r.text collate "C", 0) as hash '
                || 'from (select row_number() over () as n, %s as text from only %s x) r '
                || 'join c using (n) join by_xid b using (x)) h '
                || 'left join kept k on k.rewrite = h.rewrite and k.hash = h.hash and not h.own '
                || 'where h.own or k.hash is not null or h.rewrite is null and h.at > h.up_to) v group by 2',
                mmrepl.row_text(noted.relation), name)
                using made.id, made.buckets, noted.places, noted.xids, noted.own, noted.relation;
            update mmrepl.rewrite r set kept = (select coalesce(sum(cardinality(v.keys)), 0)
                from mmrepl.kept_version v where v.rewrite = made.id) where r.id = made.id;
        end if;
        delete from mmrepl.rewrite r where r.relation = made.relation and r.xid = made.xid and r.id < made.id;
    end if;
    insert into mmrepl.table_file (relation, file, since)
        select c.oid, c.relfilenode, pg_snapshot_xmin(pg_current_snapshot())::xid::text::bigint
        from pg_class c where c.oid = noted.relation
        on conflict (relation) do update set file = excluded.file, noticed = null, suspects = '{}';
end $$;

-- After ALTER TABLE or ALTER TYPE.
create or replace function mmrepl.rewrite_ends() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    noted mmrepl.rewriting;
begin
    if coalesce(current_setting('mmrepl.rewriting', true), '') = '' then
        return;
    end if;
    perform set_config('mmrepl.rewriting', '', true);
    for noted in select w.* from mmrepl.rewriting w where w.transaction = pg_current_xact_id() and not w.early loop
        begin
            perform mmrepl.keep_versions(noted);
        exception when others then
            raise warning 'mmrepl cannot keep the versions of the rows of %: %', noted.relation::regclass, sqlerrm;
        end;
    end loop;
    delete from mmrepl.rewriting w where w.transaction = pg_current_xact_id();
end $$;

-- As a transaction with a rewrite commits: what it wrote in the table afterwards has the transaction's own version.
create or replace function mmrepl.rewrite_commits() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC'
set extra_float_digits = 1 set bytea_output = 'hex' as $$
declare
    writes bigint := mmrepl.writes_here(new.relation);
    added bigint;
begin
    if (writes = new.writes and writes >= 0)
        or not exists (select from mmrepl.rewrite r where r.id = new.id)
        or not exists (select from pg_class c where c.oid = new.relation) then
        return null;
    end if;
    begin
        execute format(
            'with late as (select hashtextextended(%s collate "C", 0) as hash from only %s x '
            || 'where x.xmin = $1::text::xid and x.cmin::text <> $2::text), '
            || 'made as (insert into mmrepl.kept_version (rewrite, bucket, late, keys, times, origins) '
            || 'select $3, abs(l.hash %% $4), true, array_agg(l.hash), array_agg(null::timestamptz), array_agg(0::oid) '
            || 'from late l group by 2) select count(*) from late',
            mmrepl.row_text(new.relation), new.relation::regclass)
            into added using new.xid, new.cid, new.id, new.buckets;
        update mmrepl.rewrite r set kept = r.kept + added where r.id = new.id and added > 0;
    exception when others then
        -- Then nobody knows: the table's file is one that was never seen.
        delete from mmrepl.rewrite r where r.id = new.id;
        update mmrepl.table_file f set file = 0 where f.relation = new.relation;
        raise warning 'mmrepl cannot keep the versions of the rows of %: %', new.relation::regclass, sqlerrm;
    end;
    return null;
end $$;

-- Only a superuser can make event triggers. Without them a rewrite is noticed by the table's file.
create or replace function mmrepl.make_event_triggers() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    drop trigger if exists mmrepl_commits on mmrepl.rewrite;
    create constraint trigger mmrepl_commits after insert on mmrepl.rewrite
        deferrable initially deferred for each row execute function mmrepl.rewrite_commits();
    alter table mmrepl.rewrite enable always trigger mmrepl_commits;
    begin
        if not exists (select from pg_event_trigger where evtname = 'mmrepl_caller') then
            create event trigger mmrepl_caller on ddl_command_start when tag in ('ALTER TABLE')
                execute function mmrepl.note_caller();
            alter event trigger mmrepl_caller enable always;
        end if;
        if not exists (select from pg_event_trigger where evtname = 'mmrepl_rewrite_may_begin') then
            create event trigger mmrepl_rewrite_may_begin on ddl_command_start when tag in ('ALTER TABLE')
                execute function mmrepl.rewrite_may_begin();
            alter event trigger mmrepl_rewrite_may_begin enable always;
        end if;
        if exists (select from pg_event_trigger where evtname = 'mmrepl_rewrite_begins') then
            return;
        end if;
        create event trigger mmrepl_rewrite_begins on table_rewrite execute function mmrepl.rewrite_begins();
        create event trigger mmrepl_rewrite_ends on ddl_command_end when tag in ('ALTER TABLE', 'ALTER TYPE')
            execute function mmrepl.rewrite_ends();
        alter event trigger mmrepl_rewrite_begins enable always;
        alter event trigger mmrepl_rewrite_ends enable always;
    exception
        when insufficient_privilege or duplicate_object then null;
    end;
end $$;
select mmrepl.make_event_triggers();
