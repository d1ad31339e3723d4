-- Versions that are kept in the row: what rules other than last_write_wins decide by.

-- version_column: before an update that would take the version back. Argument: the column.
create or replace function mmrepl.keep_version() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    return jsonb_populate_record(new, jsonb_build_object(tg_argv[0], to_jsonb(old) -> tg_argv[0]));
end $$;

-- hybrid_clock: before insert and update.
create or replace function mmrepl.keep_clock() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    clock bigint := extract(epoch from clock_timestamp()) * 1000000;
begin
    if coalesce(current_setting('mmrepl.lifting', true), '') = '' then
        if tg_op = 'UPDATE' then
            clock := greatest(clock, old.mmrepl_version + 1);
        end if;
        new.mmrepl_version := clock;
    end if;
    return new;
end $$;

-- first_write_wins: before insert and update.
create or replace function mmrepl.keep_count() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    edits bigint := 1;
begin
    if coalesce(current_setting('mmrepl.lifting', true), '') = '' then
        if tg_op = 'UPDATE' then
            edits := coalesce(old.mmrepl_version, 0) + 1;
        end if;
        new.mmrepl_version := edits;
    end if;
    return new;
end $$;

-- One more edit in the place of a node, of `places` nodes.
create or replace function mmrepl.count_edit(edits bigint[], place integer, places integer) returns bigint[]
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select array_agg(coalesce(edits[i], 0) + (i = place)::integer order by i)
    from generate_series(1, greatest(places, cardinality(edits))) i
$$;

-- node_priority: before insert and update. Arguments: the place of this node, how many there are.
create or replace function mmrepl.keep_edits() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    edits bigint[];
begin
    if coalesce(current_setting('mmrepl.lifting', true), '') = '' then
        if tg_op = 'UPDATE' then
            edits := old.mmrepl_versions;
        end if;
        new.mmrepl_versions := mmrepl.count_edit(edits, tg_argv[0]::integer, tg_argv[1]::integer);
    end if;
    return new;
end $$;
