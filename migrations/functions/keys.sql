-- What the key of a table is, for triggers that were made when it was another one.
--
-- An application renames a column, changes its type or gives a table another primary key while the triggers
-- still have the key that they were made with. Its statements must not fail by that, and its deletes must be
-- remembered under the key that is looked up from then on. So each trigger carries the shape of its key too:
-- names and types of the columns, and its index. While the key has that shape, the expression is taken as it stands.
--
-- These run inside trigger functions, whose settings are pinned.

-- The shape of the key of a table: its primary key, else its first usable unique index (`catalog::table_query`
-- has the rule); null where it has none. `"id":23,"tenant":25`, with the numbers of the types.
create or replace function mmrepl.key_shape(relation oid) returns text
language plpgsql stable as $$
declare
    shape text;
begin
    select string_agg('"' || replace(a.attname, '"', '""') || '":' || a.atttypid, ',' order by k.place) into shape
    from pg_index i
    cross join lateral unnest(i.indkey::int2[]) with ordinality k(attnum, place)
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
    where i.indrelid = relation and i.indisprimary and k.place <= i.indnkeyatts;
    if shape is not null then
        return shape;
    end if;
    select string_agg('"' || replace(a.attname, '"', '""') || '":' || a.atttypid, ',' order by k.place) into shape
    from (
        select i.indrelid, i.indkey, i.indnkeyatts
        from pg_index i
        join pg_class ic on ic.oid = i.indexrelid
        join pg_am am on am.oid = ic.relam and am.amname = 'btree'
        where i.indrelid = relation and i.indisunique and i.indisvalid and i.indisready
          and i.indpred is null and i.indexprs is null
          and not exists (
              select from generate_series(0, i.indnkeyatts - 1) g(k)
              join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[g.k]
              where not a.attnotnull)
        order by i.indimmediate desc, ic.relname limit 1
    ) i
    cross join lateral unnest(i.indkey::int2[]) with ordinality k(attnum, place)
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
    where k.place <= i.indnkeyatts;
    return shape;
end $$;

-- `expression`, which was made for a key of the shape `made` and is over the rows `d` and `t`, for the key as
-- it is now; null where the table has no key any more. With `whole` the expression is the key as a text[] over
-- `d`, else a comparison of the keys of `d` and `t`. Every delete comes by here: while `index` is there and has
-- these columns, nothing has changed (a column that gets another type has its indexes made anew), and that is
-- found without a look at the catalog's tables.
create or replace function mmrepl.key_now(
    relation oid, expression text, made text, index oid, columns text[], whole boolean
) returns text
language plpgsql stable as $$
declare
    shape text;
    place integer := cardinality(columns);
begin
    while place > 0 and pg_get_indexdef(index, place, false) = columns[place] loop
        place := place - 1;
    end loop;
    if place = 0 then
        return expression;
    end if;
    shape := mmrepl.key_shape(relation);
    if shape = made then
        return expression;
    end if;
    return mmrepl.key_made_anew(relation, expression, made, shape, whole);
end $$;

-- The columns of a shape in their order.
create or replace function mmrepl.key_columns(shape text) returns table (place bigint, name text, type oid)
language sql immutable as $$
    select f.place, (f.found)[1], (f.found)[2]::oid
    from regexp_matches(shape, '("(?:[^"]|"")+"):(\d+)', 'g') with ordinality f(found, place)
$$;

-- Where only names differ, the names are exchanged. Else the key is put together by the types; the few whose
-- equal values print differently are written as `catalog::key_text` has them, others as they print. That is
-- until `init` makes the trigger anew, which `mmrepl status` asks for.
create or replace function mmrepl.key_made_anew(
    relation oid, expression text, made text, shape text, whole boolean
) returns text
language plpgsql stable as $$
declare
    said text := expression;
    renamed record;
begin
    if shape is null then
        return null;
    end if;
    if array(select c.type from mmrepl.key_columns(shape) c order by c.place)
        = array(select c.type from mmrepl.key_columns(made) c order by c.place) then
        -- By way of names that no column has: two columns may have changed places.
        for renamed in select o.place, o.name from mmrepl.key_columns(made) o loop
            said := replace(said, 'd.' || renamed.name, format('d."%s""mmrepl"', renamed.place));
            said := replace(said, 't.' || renamed.name, format('t."%s""mmrepl"', renamed.place));
        end loop;
        for renamed in select n.place, n.name from mmrepl.key_columns(shape) n loop
            said := replace(said, format('d."%s""mmrepl"', renamed.place), 'd.' || renamed.name);
            said := replace(said, format('t."%s""mmrepl"', renamed.place), 't.' || renamed.name);
        end loop;
        return said;
    end if;
    if not whole then
        return (select string_agg(format('t.%1$s is not distinct from d.%1$s', c.name), ' and ' order by c.place)
            from mmrepl.key_columns(shape) c);
    end if;
    return (select 'array[' || string_agg(format(case
            when b.typname = 'numeric' then 'trim_scale(d.%s)::text'
            when b.typname in ('float4', 'float8') then '(d.%s + 0)::text'
            when b.typname = 'money' then 'trim_scale((d.%s)::numeric)::text'
            when b.typname = 'oid' or b.typname like 'reg%%' then '(d.%s)::oid::text'
            when b.typname = 'interval' then 'pg_catalog.interval_hash_extended(d.%s, 0)::text'
            when b.typtype = 'b' and b.typnamespace = 'pg_catalog'::regnamespace then '(d.%s)::text'
            else 'format(''%%s'', d.%s)' end, c.name), ', ' order by c.place) || ']::text[]'
        from mmrepl.key_columns(shape) c
        join pg_type t on t.oid = c.type
        join pg_type b on b.oid = case when t.typtype = 'd' then t.typbasetype else t.oid end);
end $$;
