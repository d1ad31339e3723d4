-- How far each link has been applied, moved on in the transaction that applies.

-- `witness_xid`, `witness_time`: the source's last transaction by then, and when it committed there.
drop function if exists mmrepl.advance_position(text, pg_lsn, pg_lsn, pg_lsn, timestamptz, jsonb);
drop function if exists mmrepl.finish(text, pg_lsn, pg_lsn, pg_lsn, timestamptz, jsonb, text, text);
drop function if exists mmrepl.finish(
    text, pg_lsn, pg_lsn, pg_lsn, timestamptz, jsonb, text, text, xid, timestamptz);

-- Moves the position of the link from `source` on. Raises MR002 where it does not stand at
-- `previous` (null: anywhere before `end_lsn`): a transaction that was sent behind another must not
-- commit when that one has failed.
create or replace function mmrepl.advance_position(
    source text, previous pg_lsn, commit_lsn pg_lsn, end_lsn pg_lsn, commit_time timestamptz,
    seen jsonb, witness_xid xid, witness_time timestamptz
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    update mmrepl.apply_position p
        set commit_lsn = advance_position.commit_lsn, end_lsn = advance_position.end_lsn,
            commit_time = coalesce(advance_position.commit_time, p.commit_time),
            seen = coalesce(advance_position.seen, p.seen),
            witness_xid = coalesce(advance_position.witness_xid, p.witness_xid),
            witness_time = coalesce(advance_position.witness_time, p.witness_time)
        where p.source = advance_position.source and p.end_lsn < advance_position.end_lsn
            and (previous is null or p.end_lsn = previous);
    if not found then
        raise exception using errcode = 'MR002',
            message = format('the position of %s is not at %s, before %s', source, previous, end_lsn);
    end if;
end $$;

-- The last act of an apply transaction: makes sure that the statements for single rows wrote `taken` rows (MR005; each
-- row that they write adds one to the setting mmrepl.taken), that the server's clock has passed `commit_time` (MR001), moves the
-- position, leaves `marker` in the WAL, stamps the transaction with the source's commit time. A marker must not carry the
-- session's origin, or this node's own stream would leave it out.
create or replace function mmrepl.finish(
    source text, previous pg_lsn, commit_lsn pg_lsn, end_lsn pg_lsn, commit_time timestamptz,
    seen jsonb, origin text, marker text, witness_xid xid, witness_time timestamptz,
    taken bigint
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    if taken <> current_setting('mmrepl.taken')::bigint then
        perform mmrepl.expect_rows(current_setting('mmrepl.taken')::bigint, taken);
    end if;
    if commit_time >= clock_timestamp() then
        perform mmrepl.require_clock(commit_time);
    end if;
    update mmrepl.apply_position p
        set commit_lsn = finish.commit_lsn, end_lsn = finish.end_lsn,
            commit_time = coalesce(finish.commit_time, p.commit_time), seen = coalesce(finish.seen, p.seen),
            witness_xid = finish.witness_xid, witness_time = finish.witness_time
        where p.source = finish.source and p.end_lsn < finish.end_lsn
            and (previous is null or p.end_lsn = previous);
    if not found then
        -- It says what is wrong.
        perform mmrepl.advance_position(
            source, previous, commit_lsn, end_lsn, commit_time, seen, witness_xid, witness_time);
    end if;
    -- What is selected is computed from left to right.
    perform pg_replication_origin_session_reset(), pg_logical_emit_message(false, 'mmrepl', marker),
        pg_replication_origin_session_setup(origin), pg_replication_origin_xact_setup(commit_lsn, commit_time);
end $$;

-- The last act of a transaction that was left out by the stream and lies before the position, which stays at `previous`.
-- MR002 where the position has moved, or where this transaction was made up for already.
create or replace function mmrepl.finish_missed(
    source text, previous pg_lsn, commit_lsn pg_lsn, end_lsn pg_lsn, commit_time timestamptz,
    seen jsonb, origin text, marker text, witness_xid xid, witness_time timestamptz
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    if commit_time >= clock_timestamp() then
        perform mmrepl.require_clock(commit_time);
    end if;
    update mmrepl.apply_position p set others_lsn = finish_missed.end_lsn
        where p.source = finish_missed.source and p.end_lsn = previous and p.others_lsn < finish_missed.end_lsn;
    if not found then
        raise exception using errcode = 'MR002',
            message = format('the position of %s is not at %s, or %s was made up for', source, previous, end_lsn);
    end if;
    perform pg_replication_origin_session_reset(), pg_logical_emit_message(false, 'mmrepl', marker),
        pg_replication_origin_session_setup(origin), pg_replication_origin_xact_setup(commit_lsn, commit_time);
end $$;

-- Waits until the transaction before this one is committed: then the position of the link from `source` stands
-- at `previous`. While that transaction is open it holds the advisory lock (`link`, `turn`), so whoever waits here
-- takes part in the server's search for deadlocks.
--
-- The lock is free, too, when that transaction has not begun yet, or was rolled back. The daemon cancels this in
-- the latter case. A daemon that is gone cannot: after a minute in which nothing was committed MR002 is raised.
create or replace function mmrepl.await_turn(source text, previous pg_lsn, link integer, turn integer) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '0' as $$
declare
    here pg_lsn;
    before pg_lsn;
    tries integer := 0;
    slept float8 := 0;
begin
    loop
        select p.end_lsn into here from mmrepl.apply_position p where p.source = await_turn.source;
        if here = previous then
            return;
        end if;
        -- Not for the length of this transaction: the other one may be about to take it.
        perform pg_advisory_lock_shared(link, turn);
        perform pg_advisory_unlock_shared(link, turn);
        select p.end_lsn into here from mmrepl.apply_position p where p.source = await_turn.source;
        if here = previous then
            return;
        end if;
        if here is distinct from before then
            before := here;
            tries := 0;
            slept := 0;
        end if;
        if slept > 60 then
            raise exception using errcode = 'MR002',
                message = format('the position of %s has not come to %s', source, previous);
        end if;
        tries := tries + 1;
        -- Mostly the other session begins at this very moment.
        if tries > 2 then
            perform pg_sleep(least(tries - 2, 10) * 0.001);
            slept := slept + least(tries - 2, 10) * 0.001;
        end if;
    end loop;
end $$;
