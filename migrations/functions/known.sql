-- What a write knew of each node: versions under manual and custom.

-- Whether a write of version `one` was made knowing the `other`.
create or replace function mmrepl.knows(one bigint[], other bigint[]) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select coalesce(bool_and(coalesce(one[i], 0) >= other[i]), true) from generate_subscripts(other, 1) i
$$;

-- What both know.
create or replace function mmrepl.join_known(one bigint[], other bigint[]) returns bigint[]
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select array_agg(greatest(coalesce(one[i], 0), coalesce(other[i], 0)) order by i)
    from generate_series(1, greatest(cardinality(one), cardinality(other))) i
$$;

-- A write at `clock`, by the node with this place of `places`, on top of what is known: its time is above all
-- others, so the greatest tells when and where the write was made.
create or replace function mmrepl.write_known(known bigint[], place integer, places integer, clock bigint) returns bigint[]
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select array_agg(case when i = place
        then greatest(clock, (select max(k) from unnest(known) k) + 1, 1) else coalesce(known[i], 0) end order by i)
    from generate_series(1, greatest(places, cardinality(known))) i
$$;

-- manual: before insert and update. Arguments: the place of this node, how many there are. Who resolves a
-- conflict says what else the write knows.
create or replace function mmrepl.keep_known() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    known bigint[] := nullif(current_setting('mmrepl.known', true), '');
    clock bigint := extract(epoch from clock_timestamp()) * 1000000;
begin
    if coalesce(current_setting('mmrepl.lifting', true), '') = '' then
        if tg_op = 'UPDATE' then
            known := mmrepl.join_known(old.mmrepl_known, known);
        end if;
        new.mmrepl_known := mmrepl.write_known(known, tg_argv[0]::integer, tg_argv[1]::integer, clock);
    end if;
    return new;
end $$;

-- manual: before an update that gives the row another key, after `keep_known`. What was known of the old key
-- says nothing of the new one. Arguments: as there.
create or replace function mmrepl.know_anew() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if coalesce(current_setting('mmrepl.lifting', true), '') = '' then
        new.mmrepl_known := mmrepl.write_known(null, tg_argv[0]::integer, tg_argv[1]::integer,
            (extract(epoch from clock_timestamp()) * 1000000)::bigint);
    end if;
    return new;
end $$;
