-- The end of an apply transaction in one call: a lone transaction is mostly made of its statements.

-- The last act of an apply transaction: makes sure that the server's clock has passed `commit_time` (MR001), moves the
-- position, leaves `marker` in the WAL, stamps the transaction with the source's commit time. A marker must not carry the
-- session's origin, or this node's own stream would leave it out.
create or replace function mmrepl.finish(
    source text, previous pg_lsn, commit_lsn pg_lsn, end_lsn pg_lsn, commit_time timestamptz,
    seen jsonb, origin text, marker text
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    if commit_time >= clock_timestamp() then
        perform mmrepl.require_clock(commit_time);
    end if;
    update mmrepl.apply_position p
        set commit_lsn = finish.commit_lsn, end_lsn = finish.end_lsn,
            commit_time = coalesce(finish.commit_time, p.commit_time), seen = coalesce(finish.seen, p.seen)
        where p.source = finish.source and p.end_lsn < finish.end_lsn
            and (previous is null or p.end_lsn = previous);
    if not found then
        -- It says what is wrong.
        perform mmrepl.advance_position(source, previous, commit_lsn, end_lsn, commit_time, seen);
    end if;
    -- What is selected is computed from left to right.
    perform pg_replication_origin_session_reset(), pg_logical_emit_message(false, 'mmrepl', marker),
        pg_replication_origin_session_setup(origin), pg_replication_origin_xact_setup(commit_lsn, commit_time);
end $$;
