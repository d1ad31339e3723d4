-- Rows that lost a unique value, and their return.

-- The newest version of a key whose row is not in its table, because a newer row holds one of its unique
-- values. `key` is written as in mmrepl.tombstone. Values are what the types' output functions print, so
-- that they can be read back exactly. The version is that of the write, wherever it was made; a time that
-- is not known is older than any. While a shadow is here, mmrepl.tombstone has nothing older for its key:
-- a tombstone of the same key was left later, by a local delete.
create table mmrepl.shadow (
    relation oid not null,
    key text not null,
    names text[] not null,
    vals text[] not null,
    written_at timestamptz,
    node text not null,
    since timestamptz not null default clock_timestamp(),
    primary key (relation, key)
);

-- Whoever makes shadows in a table, or lets them return, holds the table's lock alone; who writes on the
-- assumption that there are none holds it together with others. Local writers need none.
create function mmrepl.lock_shadows(relation oid) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    perform pg_advisory_xact_lock(1835889267, relation::bigint::bit(32)::int);
end $$;

-- Raises MR004 where one of the tables has a shadow; keeps others from making one.
create function mmrepl.refuse_shadows(relations oid[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    relation oid;
begin
    foreach relation in array relations loop
        perform pg_advisory_xact_lock_shared(1835889267, relation::bigint::bit(32)::int);
    end loop;
    if exists (select from mmrepl.shadow s where s.relation = any (relations)) then
        raise exception using errcode = 'MR004', message = 'rows of the table are kept aside';
    end if;
end $$;
