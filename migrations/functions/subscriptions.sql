-- Rows that come to this server by subscriptions from outside of the cluster.

-- A stream that leaves out what has an origin leaves out what a subscription brings, too. This stands in the WAL before
-- its first row, so that whoever reads the stream asks for everything from there on; see `link::foreign`.
create or replace function mmrepl.subscription_begins() returns event_trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform pg_logical_emit_message(false, 'mmrepl', 'subscription');
end $$;

-- Only a superuser can make an event trigger. Without it daemons notice subscriptions a second later.
do $$
begin
    if (select r.rolsuper from pg_catalog.pg_roles r where r.rolname = current_user)
        and not exists (select from pg_catalog.pg_event_trigger e where e.evtname = 'mmrepl_subscription') then
        create event trigger mmrepl_subscription on ddl_command_start
            when tag in ('CREATE SUBSCRIPTION') execute function mmrepl.subscription_begins();
        alter event trigger mmrepl_subscription enable always;
    end if;
end $$;
