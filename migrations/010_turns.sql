-- Several sessions that write one link's transactions at once, and commit them in the source's order.

-- Waits until the transaction before this one is committed: then the position of the link from `source` stands
-- at `previous`. While that transaction is open it holds the advisory lock (`link`, `turn`), so whoever waits here
-- takes part in the server's search for deadlocks.
--
-- The lock is free, too, when that transaction has not begun yet, or was rolled back. The daemon cancels this in
-- the latter case. A daemon that is gone cannot: after a minute in which nothing was committed MR002 is raised.
create function mmrepl.await_turn(source text, previous pg_lsn, link integer, turn integer) returns void
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
