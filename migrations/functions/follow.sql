-- Event triggers: what `init` made on a table follows when an application changes the table. Only a superuser
-- can make them; elsewhere `mmrepl status` asks for `init`. Whatever fails here, the application's statement
-- goes on.

-- The names of tables that such a text alters, without their schemas.
create or replace function mmrepl.tables_altered(said text) returns text[]
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select array(
        select case when f.found[1] like '"%' then replace(trim('"' from f.found[1]), '""', '"')
                    else lower(f.found[1]) end
        from regexp_matches(said, 'alter\s+table\s+(?:if\s+exists\s+)?(?:only\s+)?'
            || '(?:(?:"(?:[^"]|"")+"|[^\s."(]+)\s*\.\s*)?("(?:[^"]|"")+"|[^\s."(;*]+)', 'gi') f(found))
$$;

-- Before ALTER TABLE. A trigger whose WHEN looks at a column keeps that column from getting another type and
-- from being dropped, so such triggers go, and come back afterwards. All that is known is the text: that of the
-- client's message, and inside functions that of the statement.
create or replace function mmrepl.release_columns() returns event_trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    said text;
    names text[];
    held record;
    released jsonb := '[]';
begin
    if current_setting('mmrepl.following', true) = 'on' then
        return;
    end if;
    perform set_config('mmrepl.released', '', true);
    get diagnostics said = pg_context;
    said := said || ' ' || coalesce(current_query(), '');
    if said !~* '\m(type|drop)\M' or said ~* '\mtrigger\M' then
        return;
    end if;
    names := mmrepl.tables_altered(said);
    for held in
        select n.nspname, c.relname, t.tgname, t.tgenabled, pg_get_triggerdef(t.oid) as definition
        from pg_trigger t
        join pg_class c on c.oid = t.tgrelid
        join pg_namespace n on n.oid = c.relnamespace
        join pg_proc p on p.oid = t.tgfoid
        where t.tgparentid = 0 and t.tgqual is not null and c.relname = any (names)
          and p.pronamespace = 'mmrepl'::regnamespace
    loop
        perform set_config('mmrepl.following', 'on', true);
        execute format('drop trigger %I on %I.%I', held.tgname, held.nspname, held.relname);
        released := released || jsonb_build_object('table', format('%I.%I', held.nspname, held.relname),
            'trigger', format('%I', held.tgname), 'enabled', held.tgenabled, 'definition', held.definition);
    end loop;
    perform set_config('mmrepl.released', released::text, true);
    perform set_config('mmrepl.following', '', true);
exception when others then
    raise log 'mmrepl: triggers keep their columns: %', sqlerrm;
end $$;

-- After ALTER TABLE and CREATE TABLE: what was released comes back, and new partitions get what theirs have.
create or replace function mmrepl.follow_tables() returns event_trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    released jsonb := coalesce(nullif(current_setting('mmrepl.released', true), ''), '[]');
    held jsonb;
    changed record;
begin
    if current_setting('mmrepl.following', true) = 'on' then
        return;
    end if;
    perform set_config('mmrepl.following', 'on', true);
    perform set_config('mmrepl.released', '', true);
    for held in select jsonb_array_elements(released) loop
        begin
            execute held ->> 'definition';
            execute format('alter table %s %s trigger %s', held ->> 'table', case held ->> 'enabled'
                when 'A' then 'enable always' when 'D' then 'disable' when 'R' then 'enable replica'
                else 'enable' end, held ->> 'trigger');
        exception when others then
            -- The column is gone. `mmrepl status` says what is missing.
            raise log 'mmrepl: trigger % is not made again: %', held ->> 'trigger', sqlerrm;
        end;
    end loop;
    -- An index that was the replica identity may be gone: deletes and updates would fail.
    for changed in
        select n.nspname, c.relname
        from pg_event_trigger_ddl_commands() d
        join pg_class c on c.oid = d.objid and c.relkind in ('r', 'p') and c.relreplident = 'i'
        join pg_namespace n on n.oid = c.relnamespace
        where d.classid = 'pg_class'::regclass and d.object_type = 'table'
          and exists (select from pg_trigger t join pg_proc f on f.oid = t.tgfoid
                      where t.tgrelid = c.oid and f.pronamespace = 'mmrepl'::regnamespace)
          and not exists (select from pg_index i where i.indrelid = c.oid and i.indisreplident)
    loop
        execute format('alter table only %I.%I replica identity full', changed.nspname, changed.relname);
    end loop;
    for changed in
        select distinct n.nspname, c.relname, c.oid
        from pg_event_trigger_ddl_commands() d
        cross join lateral pg_partition_tree(coalesce(pg_partition_root(d.objid), d.objid)) p
        join pg_class c on c.oid = p.relid and c.relkind in ('r', 'p')
        join pg_namespace n on n.oid = c.relnamespace
        where d.classid = 'pg_class'::regclass and d.object_type = 'table' and p.level > 0
          and exists (select from pg_trigger t join pg_proc f on f.oid = t.tgfoid
                      where t.tgrelid = pg_partition_root(p.relid) and f.pronamespace = 'mmrepl'::regnamespace)
    loop
        begin
            perform mmrepl.prepare_partition(changed.oid, changed.nspname, changed.relname);
        exception when others then
            raise log 'mmrepl: partition % is not prepared: %', changed.relname, sqlerrm;
        end;
    end loop;
    perform set_config('mmrepl.following', '', true);
exception when others then
    raise log 'mmrepl: tables are not followed: %', sqlerrm;
end $$;

-- What `init` makes on a partition.
create or replace function mmrepl.prepare_partition(relation oid, schema name, name name) returns void
language plpgsql as $$
declare
    clone record;
begin
    if not exists (select from pg_trigger t where t.tgrelid = relation and t.tgname = 'mmrepl_truncate_partition') then
        execute format('create trigger mmrepl_truncate_partition before truncate on %I.%I for each statement'
            || ' when (pg_catalog.current_setting(''mmrepl.applying'', true) is distinct from ''on'')'
            || ' execute function mmrepl.truncate_partition()', schema, name);
        execute format('alter table only %I.%I enable always trigger mmrepl_truncate_partition', schema, name);
    end if;
    -- Before 15 a partition's clone does not fire always because its root's does.
    for clone in
        select t.tgname from pg_trigger t join pg_trigger root on root.tgname = t.tgname
            and root.tgrelid = pg_partition_root(relation)
        where t.tgrelid = relation and t.tgparentid <> 0 and t.tgname::text ~ '^(zzz_)?mmrepl_'
          and root.tgenabled = 'A' and t.tgenabled <> 'A'
    loop
        execute format('alter table only %I.%I enable always trigger %I', schema, name, clone.tgname);
    end loop;
end $$;
