-- The history of conflicts.

-- Counts conflicts that were not recorded.
create or replace function mmrepl.leave_out(source text, target text, schema_name text, table_name text, left_out bigint)
returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    insert into mmrepl.conflict_left_out as c
        values (date_trunc('minute', clock_timestamp()), $1, $2, $3, $4, $5)
        on conflict (minute, source, schema_name, table_name) do update set left_out = c.left_out + excluded.left_out
$$;
