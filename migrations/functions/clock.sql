-- The clock rule: no apply transaction commits before the time that it is stamped with.

-- Raises MR001 while this server's clock has not passed `commit_time` (design: the clock rule).
create or replace function mmrepl.require_clock(commit_time timestamptz) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    ahead_us bigint := ceil(extract(epoch from commit_time - clock_timestamp()) * 1000000);
begin
    if ahead_us >= 0 then
        raise exception using errcode = 'MR001',
            message = format('the commit time lies %s microseconds ahead of this server''s clock', ahead_us);
    end if;
end $$;
