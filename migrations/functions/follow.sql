-- Event triggers: what `init` made on a table follows when an application changes the table. Only a superuser
-- can make them; elsewhere `mmrepl status` asks for `init`. Whatever fails here, the application's statement
-- goes on.

drop function if exists mmrepl.tables_altered(text);

-- Who runs an ALTER TABLE and where unqualified names are looked up. The event triggers below cannot see either, because
-- they run as this schema's owner and with a search path of their own. Nothing of the role's runs between this and them.
create or replace function mmrepl.note_caller() returns event_trigger
language plpgsql as $$
begin
    perform pg_catalog.set_config('mmrepl.caller',
        pg_catalog.jsonb_build_array(current_user, pg_catalog.current_schemas(true))::pg_catalog.text, true);
end $$;

-- An identifier as the server reads it.
create or replace function mmrepl.as_identifier(written text) returns name
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select (case when written like '"%' then replace(substr(written, 2, length(written) - 2), '""', '"')
                 else lower(written) end)::name
$$;

-- The tables that an ALTER TABLE under way may be about, with what the text has after each one's name. All that is known
-- is the text: that of the client's message, and inside functions (`context` has more than a line) that of the statement.
-- Only tables count that the caller could alter, because the server has not looked at that yet.
create or replace function mmrepl.tables_altered(context text, message text) returns table (relation oid, clauses text)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    part constant text := '(?:"(?:[^"]|"")+"|[^\s."(),;*'']+)';
    caller jsonb;
    said text;
    place int;
    words text[];
    found record;
begin
    if not exists (select from pg_event_trigger e where e.evtname = 'mmrepl_caller' and e.evtenabled = 'A'
        and e.evtfoid = to_regproc('mmrepl.note_caller')) then
        return;
    end if;
    caller := current_setting('mmrepl.caller', true);
    place := strpos(context, E'\n');
    said := coalesce(substring(substr(context, nullif(place, 0)) from '(?i)\malter\M.*'), message, '');
    -- Quoted identifiers stay. Comments, strings and quoted bodies go.
    said := regexp_replace(said, '("(?:[^"]|"")*")|--[^\n]*|/\*(?:[^*]|\*+[^*/])*\*+/'
        || '|\me''(?:[^''\\]|''''|\\.)*''|''(?:[^'']|'''')*''|\$\$(?:[^$]|\$[^$])*\$\$'
        || '|\$[a-z_]\w*\$(?:[^$]|\$[0-9])*\$[a-z_]\w*\$', '\1 ', 'gi');
    for words in
        select f.words from regexp_matches(said, '\malter\s+table\s+(?:if\s+exists\s+)?(?:only\s+)?'
            || '(?:(' || part || ')\s*\.\s*)?(' || part || ')\s*((?:"(?:[^"]|"")*"|[^;"])*)', 'gi') f(words)
    loop
        select c.oid, c.relowner into found
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        join jsonb_array_elements_text(caller -> 1) with ordinality s(name, place)
            on words[1] is not null or s.name = n.nspname
        where c.relname = mmrepl.as_identifier(words[2])
          and (words[1] is null or n.nspname = mmrepl.as_identifier(words[1]))
        order by s.place limit 1;
        if found.oid is not null and pg_has_role((caller ->> 0)::name, found.relowner, 'USAGE') then
            relation := found.oid;
            clauses := words[3];
            return next;
        end if;
    end loop;
end $$;

-- Before ALTER TABLE. A trigger whose WHEN looks at a column keeps that column from getting another type and
-- from being dropped, so such triggers go, and come back afterwards.
create or replace function mmrepl.release_columns() returns event_trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    context text;
    message text := current_query();
    held record;
begin
    if current_setting('mmrepl.following', true) = 'on' then
        return;
    end if;
    get diagnostics context = pg_context;
    if context || ' ' || message !~* '\m(type|drop)\M' or context || ' ' || message ~* '\mtrigger\M' then
        return;
    end if;
    for held in
        select distinct n.nspname, c.relname, c.oid as relation, t.tgname, t.tgenabled,
            pg_get_triggerdef(t.oid) as definition
        from mmrepl.tables_altered(context, message) f
        join pg_trigger t on t.tgrelid = f.relation
        join pg_class c on c.oid = t.tgrelid
        join pg_namespace n on n.oid = c.relnamespace
        join pg_proc p on p.oid = t.tgfoid
        where t.tgparentid = 0 and t.tgqual is not null and p.pronamespace = 'mmrepl'::regnamespace
          and f.clauses ~* '\m(type|drop)\M'
    loop
        perform set_config('mmrepl.following', 'on', true);
        execute format('drop trigger %I on %I.%I', held.tgname, held.nspname, held.relname);
        insert into mmrepl.released (transaction, relation, name, enabled, definition)
            values (pg_current_xact_id(), held.relation, held.tgname, held.tgenabled, held.definition)
            on conflict (transaction, relation, name) do update
                set enabled = excluded.enabled, definition = excluded.definition;
    end loop;
    perform set_config('mmrepl.following', '', true);
exception when others then
    raise log 'mmrepl: triggers keep their columns: %', sqlerrm;
end $$;

-- After ALTER TABLE and CREATE TABLE: what was released comes back, and new partitions get what theirs have.
create or replace function mmrepl.follow_tables() returns event_trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    held record;
    changed record;
    came_back oid[] := '{}';
begin
    if current_setting('mmrepl.following', true) = 'on' then
        return;
    end if;
    perform set_config('mmrepl.following', 'on', true);
    if pg_current_xact_id_if_assigned() is not null then
        for held in
            with gone as (delete from mmrepl.released r where r.transaction = pg_current_xact_id() returning r.*)
            select g.*, n.nspname, c.relname from gone g
            left join pg_class c on c.oid = g.relation left join pg_namespace n on n.oid = c.relnamespace
        loop
            begin
                execute held.definition;
                execute format('alter table %I.%I %s trigger %I', held.nspname, held.relname, case held.enabled
                    when 'A' then 'enable always' when 'D' then 'disable' when 'R' then 'enable replica'
                    else 'enable' end, held.name);
                came_back := came_back || held.relation;
            exception when others then
                -- The column is gone. `mmrepl status` says what is missing.
                raise log 'mmrepl: trigger % is not made again: %', held.name, sqlerrm;
            end;
        end loop;
    end if;
    if came_back <> '{}' then
        begin
            update mmrepl.fingerprint f set print = n.print from mmrepl.fingerprints() n
            where n.relation = f.relation and n.kind = f.kind and n.kind = 'triggers'
              and coalesce(pg_partition_root(n.relation)::oid, n.relation) = any(came_back);
        exception when others then
            -- `mmrepl status` asks for a comparison that was not needed.
            raise log 'mmrepl: fingerprints are not taken: %', sqlerrm;
        end;
    end if;
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
