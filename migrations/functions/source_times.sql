-- When rows were written that arrived in a transaction made of several.

-- When the row version with this `xmin`, of the row with this key, was written where it was written first. Volatile,
-- so that it looks with a snapshot of its own: who has waited for a row's lock sees a version that was committed after
-- the statement began, and must see its time too.
create or replace function mmrepl.source_time(row_xmin xid, relation oid, key text) returns timestamptz
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select coalesce(
        (select s.times[array_position(s.keys, hashtextextended($3 collate "C", 0))]
            from mmrepl.source_time s where s.xid = $1::text::bigint and s.relation = $2),
        pg_xact_commit_timestamp($1))
$$;
