-- Versions that are kept in the row: what rules other than last_write_wins decide by.

-- version_column: before an update that would take the version back. Argument: the column.
create or replace function mmrepl.keep_version() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if current_setting('mmrepl.applying', true) = 'on' then
        return new;
    end if;
    return jsonb_populate_record(new, jsonb_build_object(tg_argv[0], to_jsonb(old) -> tg_argv[0]));
end $$;

-- What follows fires for every row that an application writes, with the session's settings: to switch them costs as much
-- as all the rest. So everything is qualified. What is applied has its version already. Who writes need not have any right
-- in this schema, so what calls another function of it runs as its owner.

-- Microseconds since 1970.
create or replace function mmrepl.clock_now() returns bigint
language sql volatile as $$
    select (extract(epoch from pg_catalog.clock_timestamp()) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8
$$;

-- hybrid_clock: before insert and update.
create or replace function mmrepl.keep_clock() returns trigger
language plpgsql security definer as $$
begin
    if (pg_catalog.current_setting('mmrepl.applying', true) OPERATOR(pg_catalog.=) 'on') is not true
        and (pg_catalog.current_setting('mmrepl.lifting', true) OPERATOR(pg_catalog.<>) '') is not true then
        new.mmrepl_version := mmrepl.clock_now();
        if tg_op OPERATOR(pg_catalog.=) 'UPDATE' then
            new.mmrepl_version := greatest(new.mmrepl_version, old.mmrepl_version OPERATOR(pg_catalog.+) 1);
        end if;
    end if;
    return new;
end $$;

-- first_write_wins: before insert and update.
create or replace function mmrepl.keep_count() returns trigger
language plpgsql security definer as $$
begin
    if (pg_catalog.current_setting('mmrepl.applying', true) OPERATOR(pg_catalog.=) 'on') is not true
        and (pg_catalog.current_setting('mmrepl.lifting', true) OPERATOR(pg_catalog.<>) '') is not true then
        new.mmrepl_version := 1;
        if tg_op OPERATOR(pg_catalog.=) 'UPDATE' then
            new.mmrepl_version := coalesce(old.mmrepl_version, 0) OPERATOR(pg_catalog.+) 1;
        end if;
    end if;
    return new;
end $$;

-- One more edit in the place of a node, of `places` nodes.
create or replace function mmrepl.count_edit(edits bigint[], place integer, places integer) returns bigint[]
language plpgsql immutable as $$
declare
    counted pg_catalog.int8[] := coalesce(edits, '{}');
    had constant pg_catalog.int4 := pg_catalog.cardinality(counted);
begin
    for i in had OPERATOR(pg_catalog.+) 1 .. places loop
        counted[i] := 0;
    end loop;
    if place OPERATOR(pg_catalog.>) 0 then
        counted[place] := coalesce(counted[place], 0) OPERATOR(pg_catalog.+) 1;
    end if;
    return counted;
end $$;

-- node_priority: before insert and update. Arguments: the place of this node, how many there are.
create or replace function mmrepl.keep_edits() returns trigger
language plpgsql security definer as $$
begin
    if (pg_catalog.current_setting('mmrepl.applying', true) OPERATOR(pg_catalog.=) 'on') is not true
        and (pg_catalog.current_setting('mmrepl.lifting', true) OPERATOR(pg_catalog.<>) '') is not true then
        if tg_op OPERATOR(pg_catalog.=) 'UPDATE' then
            new.mmrepl_versions := mmrepl.count_edit(old.mmrepl_versions, tg_argv[0]::pg_catalog.int4,
                tg_argv[1]::pg_catalog.int4);
        else
            new.mmrepl_versions := mmrepl.count_edit(null, tg_argv[0]::pg_catalog.int4,
                tg_argv[1]::pg_catalog.int4);
        end if;
    end if;
    return new;
end $$;
