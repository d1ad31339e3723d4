-- What the key of a table is, for triggers that were made when it was another one.
--
-- An application renames a column, changes its type or gives a table another primary key while the triggers
-- still have the key that they were made with. Its statements must not fail by that, and its deletes must be
-- remembered under the key that is looked up from then on. So each trigger carries the shape of its key too:
-- names and types of the columns, and its index. While the key has that shape, the expression is taken as it stands.
--
-- These run where settings are pinned, but for `key_shape`, which pins its own search path.

-- The shape of the key of a table: its primary key, else its first usable unique index (`catalog::table_query`
-- has the rule); null where it has none. `"id":23,"tenant":25`, with the numbers of the types.
create or replace function mmrepl.key_shape(relation oid) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
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
        join pg_am am on am.oid = ic.relam
        where i.indrelid = relation and i.indisunique and i.indisvalid and i.indisready
          and (am.amname = 'btree' or i.indisexclusion) and i.indpred is null and i.indexprs is null
          and not exists (
              select from generate_series(0, i.indnkeyatts - 1) g(k)
              join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[g.k]
              where not a.attnotnull or exists (
                  select from pg_constraint n
                  where n.conrelid = i.indrelid and n.contype = 'n' and not n.convalidated
                    and n.conkey[1] = a.attnum))
        order by i.indimmediate desc, i.indisexclusion, ic.relname limit 1
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

-- A column of the row `d` as text, the same for equal values: as `catalog::key_text` has it.
create or replace function mmrepl.key_text(relation oid, name text) returns text
language plpgsql stable as $$
declare
    said text := 'd.' || name;
    base pg_type;
    element pg_type;
    wider text;
    wide boolean;
    hash text;
begin
    with recursive under (oid, base, place) as (
        select t.oid, t.typbasetype, 1 from pg_attribute a join pg_type t on t.oid = a.atttypid
            where a.attrelid = relation and not a.attisdropped
              and '"' || replace(a.attname, '"', '""') || '"' = name
        union all
        select t.oid, t.typbasetype, u.place + 1 from under u join pg_type t on t.oid = u.base)
    select t.* into base from under u join pg_type t on t.oid = u.oid order by u.place desc limit 1;
    select e.* into element from pg_type e where e.oid = coalesce(
        (select r.rngsubtype from pg_range r where base.oid = r.rngtypid
            or base.oid = (to_jsonb(r) ->> 'rngmultitypid')::oid),
        nullif(base.typelem, 0));
    wide := element.typname in ('numeric', 'float4', 'float8', 'interval', 'bpchar', 'jsonb', 'money')
        or element.typnamespace <> 'pg_catalog'::regnamespace or element.typtype <> 'b' or element.typelem <> 0;
    select format('%I.%I', n.nspname, c.collname) into wider from pg_attribute a
        join pg_collation c on c.oid = a.attcollation and not c.collisdeterministic
        join pg_namespace n on n.oid = c.collnamespace
        where a.attrelid = relation and '"' || replace(a.attname, '"', '""') || '"' = name;
    -- What has parts hashes where these do.
    select format('%I.%I(%s, 0)::text', n.nspname, f.proname, said) into hash
        from pg_opclass o
        join pg_am m on m.oid = o.opcmethod and m.amname = 'hash'
        join pg_amproc p on p.amprocfamily = o.opcfamily and p.amprocnum = 2
            and p.amproclefttype = o.opcintype and p.amprocrighttype = o.opcintype
        join pg_proc f on f.oid = p.amproc
        join pg_namespace n on n.oid = f.pronamespace
        where o.opcdefault and o.opcintype = case when base.typtype = 'r' then 'anyrange'::regtype
                when base.typtype = 'm' then 'anymultirange'::regtype
                when base.typelem <> 0 and base.typlen = -1 then 'anyarray'::regtype else base.oid end
          and (element.oid is null or element.oid = 'varchar'::regtype or element.typtype = 'e' or exists (
                select from pg_opclass e join pg_am em on em.oid = e.opcmethod and em.amname = 'hash'
                where e.opcintype = element.oid and e.opcdefault))
        limit 1;
    hash := coalesce(hash, format('format(''%%s'', %s)', said));
    if base.typtype in ('r', 'm') and (wide or element.typname in ('text', 'varchar')) then
        return hash;
    elsif base.typtype in ('e', 'r', 'm') then
        return format('format(''%%s'', %s)', said);
    elsif starts_with(base.typname, '_') and element.oid is not null then
        return case when not wide and wider is null then format('(%s)::text', said)
            when starts_with(hash, 'format(') then hash
            else format('concat(hash_array_extended(%1$s%2$s, 0), array_dims(%1$s))', said, ' collate ' || wider) end;
    elsif base.typname = 'citext' and base.typnamespace <> 'pg_catalog'::regnamespace then
        return format('lower((%s)::text collate "default")', said);
    elsif base.typnamespace <> 'pg_catalog'::regnamespace or base.typtype <> 'b' or base.typname = 'interval' then
        return hash;
    elsif wider is not null then
        return format('hashtextextended((%s)::text collate %s, 0)::text', said, wider);
    end if;
    return format(case
        when base.typname = 'numeric' then 'trim_scale(%s)::text'
        when base.typname in ('float4', 'float8') then '(%s + 0)::text'
        when base.typname = 'money' then 'trim_scale((%s)::numeric)::text'
        when base.typname = 'jsonb' then 'concat(jsonb_hash_extended(%1$s, 0), ''/'', hashtextextended('
            || 'translate((%1$s)::text, ''0123456789.'', '''') collate "C", 0))'
        when base.typname = 'oid' or starts_with(base.typname, 'reg') then '(%s)::oid::text'
        else '(%s)::text' end, said);
end $$;

-- Where only names differ, the names are exchanged. Else the key is put together by the types, until `init`
-- makes the trigger anew, which `mmrepl status` asks for.
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
    return (select 'array[' || string_agg(mmrepl.key_text(relation, c.name), ', ' order by c.place) || ']::text[]'
        from mmrepl.key_columns(shape) c);
end $$;
