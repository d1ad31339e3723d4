-- Transactions that follow one another without waiting for an answer.

-- Raises MR005: a statement wrote more or fewer rows than it was given, or a question that was to
-- find nothing has found something. Runs inside an apply session, whose search path is empty.
create function mmrepl.expect_rows(rows bigint, expected bigint) returns void
language plpgsql volatile as $$
begin
    if rows <> expected then
        raise exception using errcode = 'MR005', message = 'some rows must be looked at one by one';
    end if;
end $$;

drop function mmrepl.finish(text, pg_lsn, pg_lsn, timestamptz, jsonb, text, text);
drop function mmrepl.advance_position(text, pg_lsn, pg_lsn, timestamptz, jsonb);

-- Moves the position of the link from `source` on. Raises MR002 where it does not stand at
-- `previous` (null: anywhere before `end_lsn`): a transaction that was sent behind another must not
-- commit when that one has failed.
create function mmrepl.advance_position(
    source text, previous pg_lsn, commit_lsn pg_lsn, end_lsn pg_lsn, commit_time timestamptz,
    seen jsonb
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    update mmrepl.apply_position p
        set commit_lsn = advance_position.commit_lsn, end_lsn = advance_position.end_lsn,
            commit_time = coalesce(advance_position.commit_time, p.commit_time),
            seen = coalesce(advance_position.seen, p.seen)
        where p.source = advance_position.source and p.end_lsn < advance_position.end_lsn
            and (previous is null or p.end_lsn = previous);
    if not found then
        raise exception using errcode = 'MR002',
            message = format('the position of %s is not at %s, before %s', source, previous, end_lsn);
    end if;
end $$;

-- The last act of an apply transaction: moves the position, leaves `marker` in the WAL, stamps the
-- transaction with the source's commit time. A marker must not carry the session's origin, or this
-- node's own stream would leave it out.
create function mmrepl.finish(
    source text, previous pg_lsn, commit_lsn pg_lsn, end_lsn pg_lsn, commit_time timestamptz,
    seen jsonb, origin text, marker text
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    perform mmrepl.advance_position(source, previous, commit_lsn, end_lsn, commit_time, seen);
    perform pg_replication_origin_session_reset();
    perform pg_logical_emit_message(false, 'mmrepl', marker);
    perform pg_replication_origin_session_setup(origin);
    perform pg_replication_origin_xact_setup(commit_lsn, commit_time);
end $$;
