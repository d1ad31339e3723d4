-- Counters that add up.

-- One more change by `node` of the counter `name`, which was `old` and is now `new`. A counter that has not
-- been counted before begins with what it was; every node has that.
create or replace function mmrepl.count_delta(counters jsonb, name text, old numeric, new numeric, node text, clock bigint)
returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select counters || jsonb_build_object(name, jsonb_build_object(
        'b', coalesce(counters -> name -> 'b', jsonb_build_array(0, '', old::text)),
        'e', coalesce(counters -> name -> 'e', '{}') || jsonb_build_object(node, jsonb_build_array(clock,
            (coalesce((counters -> name -> 'e' -> node ->> 1)::numeric, 0) + (new - old))::text))))
$$;
