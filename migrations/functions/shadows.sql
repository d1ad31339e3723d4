-- Rows that lost a unique value and are kept aside until it is free again.

-- Whoever makes shadows in a table, or lets them return, holds the table's lock alone; who writes on the
-- assumption that there are none holds it together with others. Local writers need none.
create or replace function mmrepl.lock_shadows(relation oid) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    perform pg_advisory_xact_lock(1835889267, relation::bigint::bit(32)::int);
end $$;

-- Raises MR004 where one of the tables has a shadow; keeps others from making one.
create or replace function mmrepl.refuse_shadows(relations oid[]) returns void
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
