-- TRUNCATE by an application, of tables and of partitions.

-- After TRUNCATE of a whole table: every row written before is gone.
create or replace function mmrepl.leave_truncate_tombstone() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    insert into mmrepl.tombstone (relation, key) values (tg_relid, '')
        on conflict (relation, key, bulk) do update set left_at = excluded.left_at;
    perform set_config('mmrepl.truncating', '', true);
    return null;
end $$;

-- Before TRUNCATE of a partitioned table: tells the triggers of its partitions that they go with it.
create or replace function mmrepl.truncate_begins() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform set_config('mmrepl.truncating', tg_relid::text, true);
    return null;
end $$;

-- Before TRUNCATE of one partition by name, by an application: with publish_via_partition_root such a
-- truncate is not in the stream (manual, CREATE PUBLICATION), so its rows are deleted instead.
create or replace function mmrepl.truncate_partition() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set row_security = off as $$
begin
    if coalesce(current_setting('mmrepl.truncating', true), '') <> pg_partition_root(tg_relid)::oid::text then
        execute format('delete from %I.%I', tg_table_schema, tg_table_name);
    end if;
    return null;
end $$;

-- Before TRUNCATE by an application of a table whose rows carry their version: its rows are deleted instead,
-- so that each delete has the version of its row.
create or replace function mmrepl.truncate_as_delete() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set row_security = off as $$
begin
    if current_setting('mmrepl.applying', true) = 'on' then
        return null;
    end if;
    execute format('delete from %s %I.%I',
        case when (select c.relkind from pg_class c where c.oid = tg_relid) = 'p' then '' else 'only' end,
        tg_table_schema, tg_table_name);
    return null;
end $$;
