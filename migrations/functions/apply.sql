-- What an apply transaction makes sure of before it writes.

-- Raises MR005: a statement wrote more or fewer rows than it was given, or a question that was to
-- find nothing has found something. Runs inside an apply session, whose search path is empty.
create or replace function mmrepl.expect_rows(rows bigint, expected bigint) returns void
language plpgsql volatile as $$
begin
    if rows <> expected then
        raise exception using errcode = 'MR005', message = 'some rows must be looked at one by one';
    end if;
end $$;

-- Raises MR006 where a column of the table is of another type than the daemon knows: eight bytes may be a number or a
-- time, and nothing in them tells. Called in the transaction that copies, by a statement that holds a lock on the
-- table, so that no type changes afterwards. Runs inside an apply session, whose search path is empty.
create or replace function mmrepl.expect_types(relation oid, columns name[], types oid[]) returns void
language plpgsql stable as $$
begin
    if exists (
        select from unnest(columns, types) as known (name, type)
        where not exists (
            select from pg_attribute a
            where a.attrelid = relation and a.attname = known.name and a.atttypid = known.type)
    ) then
        raise exception using errcode = 'MR006', message = format(
            'the types of the columns of %s have changed', relation::regclass);
    end if;
end $$;

-- Raises MR003: a key that is about to be committed here was deleted later than its version.
create or replace function mmrepl.raise_deleted() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    raise exception using errcode = 'MR003', message = 'a newer delete of the same key came in between';
end $$;
