-- Tombstones in blocks of many keys (mmrepl.tombstone_block): how they are made, and how a key is found in them. Triggers
-- call these with the settings of the session, so names and operators are qualified.
--
-- Blocks are looked up in their index, whatever the server believes of the table's size: in the index's order the first
-- one is the cheapest to find.

-- The place of a uuid: its first eight bytes as a number, in the order of uuids.
create or replace function mmrepl.place_of_uuid(id uuid) returns bigint
language sql immutable as $$
    select ('x'::pg_catalog.text OPERATOR(pg_catalog.||) pg_catalog.translate(pg_catalog.substr(id::pg_catalog.text, 1, 18),
        '-', ''))::pg_catalog.bit(64)::pg_catalog.int8 OPERATOR(pg_catalog.#) (1::pg_catalog.int8 OPERATOR(pg_catalog.<<) 63)
$$;

-- The place of a key that stands as text.
create or replace function mmrepl.place_of_text(key text) returns bigint
language sql immutable as $$
    select pg_catalog.hashtextextended(key collate pg_catalog."C", 0)
$$;

-- The number that stands for a key: of one that is a number, written in the only way in which numbers are.
create or replace function mmrepl.number_of(key text) returns bigint
language plpgsql immutable as $$
declare
    number pg_catalog.numeric;
begin
    if key OPERATOR(pg_catalog.!~) '^[{](0|-?[1-9][0-9]{0,18})[}]$' then
        return null;
    end if;
    number := pg_catalog.btrim(key, '{}')::pg_catalog.numeric;
    if number OPERATOR(pg_catalog.<) -9223372036854775808 or number OPERATOR(pg_catalog.>) 9223372036854775807 then
        return null;
    end if;
    return number::pg_catalog.int8;
end $$;

-- The uuid that stands for a key.
create or replace function mmrepl.uuid_of(key text) returns uuid
language plpgsql immutable as $$
begin
    if key collate pg_catalog."C"
            OPERATOR(pg_catalog.~) '^[{][0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}[}]$' then
        return pg_catalog.btrim(key, '{}')::pg_catalog.uuid;
    end if;
    return null;
end $$;

-- Whether a table has any block.
create or replace function mmrepl.has_blocks(relation oid) returns boolean
language plpgsql stable as $$
begin
    return (select true from mmrepl.tombstone_block b where b.relation OPERATOR(pg_catalog.=) $1
        order by b.kind, b.layer limit 1) is not null;
end $$;

-- The first layer that has no block between these places; null where none up to `last` is free. The caller holds the lock
-- that keeps others from making blocks of the table, and sees all that were made before.
create or replace function mmrepl.free_layer(relation oid, kind "char", low bigint, high bigint, last integer)
returns smallint
language plpgsql stable as $$
begin
    for at in 0 .. last loop
        if (select b.high OPERATOR(pg_catalog.>=) $3 from mmrepl.tombstone_block b
            where b.relation OPERATOR(pg_catalog.=) $1 and b.kind OPERATOR(pg_catalog.=) $2
              and b.layer OPERATOR(pg_catalog.=) at and b.low OPERATOR(pg_catalog.<=) $4
            order by b.low desc, b.high desc limit 1) is not true then
            return at;
        end if;
    end loop;
    return null;
end $$;

-- The blocks of a layer in which a place lies: several may begin with it, and the one before them may end with it.
create or replace function mmrepl.blocks_at(relation oid, kind "char", layer smallint, place bigint)
returns table (xmin xid, left_at timestamptz, uuids uuid[], texts text[])
language sql stable as $$
    (select b.xmin, b.left_at, b.uuids, b.texts from (
        select b.xmin, b.left_at, b.uuids, b.texts, b.high from mmrepl.tombstone_block b
        where b.relation OPERATOR(pg_catalog.=) $1 and b.kind OPERATOR(pg_catalog.=) $2
          and b.layer OPERATOR(pg_catalog.=) $3 and b.low OPERATOR(pg_catalog.<) $4
        order by b.low desc, b.high desc limit 1) b
        where b.high OPERATOR(pg_catalog.>=) $4)
    union all
    select b.xmin, b.left_at, b.uuids, b.texts from mmrepl.tombstone_block b
    where b.relation OPERATOR(pg_catalog.=) $1 and b.kind OPERATOR(pg_catalog.=) $2
      and b.layer OPERATOR(pg_catalog.=) $3 and b.low OPERATOR(pg_catalog.=) $4
$$;

-- The newest block that has a key of a table: who wrote it and when; nulls where none has, and where the key's second place
-- (mmrepl.tombstone, `bulk`) was taken since. The key's text says which lists may have it, whatever type its column has now.
create or replace function mmrepl.newest_block(relation oid, key text, out written_by xid, out at timestamptz)
language plpgsql stable strict as $$
declare
    top pg_catalog.int2;
    number pg_catalog.int8;
    id pg_catalog.uuid;
    place pg_catalog.int8;
    found_one record;
begin
    top := (select b.layer from mmrepl.tombstone_block b where b.relation OPERATOR(pg_catalog.=) $1
        and b.kind OPERATOR(pg_catalog.=) 'i' order by b.layer desc limit 1);
    if top is not null then
        number := mmrepl.number_of($2);
        for nth in 0 .. case when number is null then -1 else top end loop
            select b.xmin, b.left_at, b.high OPERATOR(pg_catalog.>=) number
                    and number OPERATOR(pg_catalog.=) any (b.ints) as has into found_one
                from mmrepl.tombstone_block b
                where b.relation OPERATOR(pg_catalog.=) $1 and b.kind OPERATOR(pg_catalog.=) 'i'
                  and b.layer OPERATOR(pg_catalog.=) nth::pg_catalog.int2 and b.low OPERATOR(pg_catalog.<=) number
                order by b.low desc, b.high desc limit 1;
            if found_one.has and (at OPERATOR(pg_catalog.>=) found_one.left_at) is not true then
                written_by := found_one.xmin;
                at := found_one.left_at;
            end if;
        end loop;
    end if;
    top := (select b.layer from mmrepl.tombstone_block b where b.relation OPERATOR(pg_catalog.=) $1
        and b.kind OPERATOR(pg_catalog.=) 'u' order by b.layer desc limit 1);
    if top is not null then
        id := mmrepl.uuid_of($2);
        place := mmrepl.place_of_uuid(id);
        for nth in 0 .. case when id is null then -1 else top end loop
            select b.xmin, b.left_at into found_one
                from mmrepl.blocks_at($1, 'u', nth::pg_catalog.int2, place) b where id OPERATOR(pg_catalog.=) any (b.uuids) limit 1;
            if found_one.left_at is not null and (at OPERATOR(pg_catalog.>=) found_one.left_at) is not true then
                written_by := found_one.xmin;
                at := found_one.left_at;
            end if;
        end loop;
    end if;
    top := (select b.layer from mmrepl.tombstone_block b where b.relation OPERATOR(pg_catalog.=) $1
        and b.kind OPERATOR(pg_catalog.=) 't' order by b.layer desc limit 1);
    if top is not null then
        place := mmrepl.place_of_text($2);
        for nth in 0 .. top loop
            select b.xmin, b.left_at into found_one
                from mmrepl.blocks_at($1, 't', nth::pg_catalog.int2, place) b where $2 OPERATOR(pg_catalog.=) any (b.texts) limit 1;
            if found_one.left_at is not null and (at OPERATOR(pg_catalog.>=) found_one.left_at) is not true then
                written_by := found_one.xmin;
                at := found_one.left_at;
            end if;
        end loop;
    end if;
    if at is not null and exists (select from mmrepl.tombstone t
            where t.relation OPERATOR(pg_catalog.=) $1 and t.key OPERATOR(pg_catalog.=) $2 and t.bulk
              and t.left_at OPERATOR(pg_catalog.>=) at) then
        written_by := null;
        at := null;
    end if;
end $$;

-- The tombstones that cover a key: its own, in rows and in a block, and the table's.
--
-- A key has two places for tombstones (mmrepl.tombstone, `bulk`), and its newest block stands in the second one. It takes
-- the place of whatever the key had before, as the statement that wrote it would have done with rows. Inlined into the
-- statements that look, and short: many of them are planned each time.
create or replace function mmrepl.tombstones_of(of_relation oid, of_key text)
returns table (xmin xid, key text, left_at timestamptz, version text, bulk boolean)
language sql stable as $$
    select x.xmin, x.key, x.left_at, x.version, x.bulk
    from mmrepl.newest_block(case when (select mmrepl.has_blocks($1)) then $1 end, $2) b
    cross join lateral (
        select t.xmin, t.key, t.left_at, t.version, t.bulk from mmrepl.tombstone t
            where t.relation OPERATOR(pg_catalog.=) $1 and t.key OPERATOR(pg_catalog.=) any (array[$2, ''])
              and (b.at is null or t.left_at OPERATOR(pg_catalog.>=) b.at or t.key OPERATOR(pg_catalog.=) '')
        union all
        select b.written_by, $2, b.at, null, true where b.at is not null) x
$$;

-- All keys in blocks.
create or replace function mmrepl.keys_in_blocks()
returns table (relation oid, key text, left_at timestamptz, written_by xid)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select b.relation, k.key, b.left_at, b.xmin
    from mmrepl.tombstone_block b
    cross join lateral (
        select format('{%s}', n) from unnest(b.ints) n
        union all select format('{%s}', u) from unnest(b.uuids) u
        union all select t from unnest(b.texts) t) k(key)
$$;

-- A row in mmrepl.tombstone for each key that a table has in blocks. A table whose rows keep their version has no blocks.
create or replace function mmrepl.spread_blocks(of_relation oid) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    insert into mmrepl.tombstone (relation, key, left_at, bulk)
        select distinct on (k.key) of_relation, k.key, k.left_at, true from mmrepl.keys_in_blocks() k
        where k.relation = of_relation order by k.key, k.left_at desc
        on conflict (relation, key, bulk) do nothing;
    delete from mmrepl.tombstone_block b where b.relation = of_relation;
end $$;
