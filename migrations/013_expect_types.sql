-- Rows copied in binary form.

-- Raises MR006 where a column of the table is of another type than the daemon knows: eight bytes may be a number or a
-- time, and nothing in them tells. Called in the transaction that copies, by a statement that holds a lock on the
-- table, so that no type changes afterwards. Runs inside an apply session, whose search path is empty.
create function mmrepl.expect_types(relation oid, columns name[], types oid[]) returns void
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
