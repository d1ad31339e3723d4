-- What a write knew of each node: versions under manual and custom. For every row that an application writes, so
-- everything is qualified; see `versions`.

-- Whether a write of version `one` was made knowing the `other`.
create or replace function mmrepl.knows(one bigint[], other bigint[]) returns boolean
language plpgsql immutable as $$
begin
    for i in 1 .. coalesce(pg_catalog.cardinality(other), 0) loop
        if coalesce(one[i], 0) OPERATOR(pg_catalog.<) other[i] then
            return false;
        end if;
    end loop;
    return true;
end $$;

-- What both know.
create or replace function mmrepl.join_known(one bigint[], other bigint[]) returns bigint[]
language plpgsql immutable as $$
declare
    joined pg_catalog.int8[] := coalesce(one, other);
begin
    for i in 1 .. coalesce(greatest(pg_catalog.cardinality(one), pg_catalog.cardinality(other)), 0) loop
        joined[i] := greatest(coalesce(one[i], 0), coalesce(other[i], 0));
    end loop;
    return joined;
end $$;

-- A write at `clock`, by the node with this place of `places`, on top of what is known: its time is above all
-- others, so the greatest tells when and where the write was made.
create or replace function mmrepl.write_known(known bigint[], place integer, places integer, clock bigint) returns bigint[]
language plpgsql immutable as $$
declare
    written pg_catalog.int8[] := coalesce(known, '{}');
    latest pg_catalog.int8 := 0;
begin
    for i in 1 .. greatest(places, pg_catalog.cardinality(written)) loop
        latest := greatest(latest, written[i]);
        written[i] := coalesce(written[i], 0);
    end loop;
    if place OPERATOR(pg_catalog.>) 0 then
        written[place] := greatest(clock, latest OPERATOR(pg_catalog.+) 1);
    end if;
    return written;
end $$;

-- manual: before insert and update. Arguments: the place of this node, how many there are. Who resolves a
-- conflict says what else the write knows.
create or replace function mmrepl.keep_known() returns trigger
language plpgsql security definer as $$
declare
    known pg_catalog.int8[];
    said pg_catalog.text;
begin
    if (pg_catalog.current_setting('mmrepl.applying', true) OPERATOR(pg_catalog.=) 'on') is not true
        and (pg_catalog.current_setting('mmrepl.lifting', true) OPERATOR(pg_catalog.<>) '') is not true then
        said := pg_catalog.current_setting('mmrepl.known', true);
        if said OPERATOR(pg_catalog.<>) '' then
            known := said;
        end if;
        if tg_op OPERATOR(pg_catalog.=) 'UPDATE' then
            if known is null then
                known := old.mmrepl_known;
            else
                known := mmrepl.join_known(old.mmrepl_known, known);
            end if;
        end if;
        new.mmrepl_known := mmrepl.write_known(known, tg_argv[0]::pg_catalog.int4, tg_argv[1]::pg_catalog.int4,
            mmrepl.clock_now());
    end if;
    return new;
end $$;

-- manual: before an update that gives the row another key, after `keep_known`. What was known of the old key
-- says nothing of the new one. Arguments: as there.
create or replace function mmrepl.know_anew() returns trigger
language plpgsql security definer as $$
begin
    if (pg_catalog.current_setting('mmrepl.applying', true) OPERATOR(pg_catalog.=) 'on') is not true
        and (pg_catalog.current_setting('mmrepl.lifting', true) OPERATOR(pg_catalog.<>) '') is not true then
        new.mmrepl_known := mmrepl.write_known(null, tg_argv[0]::pg_catalog.int4, tg_argv[1]::pg_catalog.int4,
            mmrepl.clock_now());
    end if;
    return new;
end $$;
