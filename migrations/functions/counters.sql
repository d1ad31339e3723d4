-- Counters that add up.

-- One more change by `node` of the counter `name`, which was `old` and is now `new`. A counter that has not
-- been counted before begins with what it was; every node has that.
create or replace function mmrepl.count_delta(counters jsonb, name text, old numeric, new numeric, node text, clock bigint)
returns jsonb
language sql immutable as $$
    select counters OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object(name, pg_catalog.jsonb_build_object(
        'b', coalesce(counters OPERATOR(pg_catalog.->) name OPERATOR(pg_catalog.->) 'b',
            pg_catalog.jsonb_build_array(0, '', old::pg_catalog.text)),
        'e', coalesce(counters OPERATOR(pg_catalog.->) name OPERATOR(pg_catalog.->) 'e', '{}'::pg_catalog.jsonb)
            OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object(node, pg_catalog.jsonb_build_array(clock,
            (coalesce((counters OPERATOR(pg_catalog.->) name OPERATOR(pg_catalog.->) 'e' OPERATOR(pg_catalog.->) node
                OPERATOR(pg_catalog.->>) 1)::pg_catalog.numeric, 0)
                OPERATOR(pg_catalog.+) (new OPERATOR(pg_catalog.-) old))::pg_catalog.text))))
$$;
