-- Writes that were left out of this server's stream, because somebody changed the publication; see `init::gaps`.

-- The publication that there was when the slot of a link was made. Another one since: on servers up to 17 the slot cannot
-- send what was written before it, from 18 on that is left out.
alter table mmrepl.link_memory add column publication oid;
update mmrepl.link_memory
    set publication = (select p.oid from pg_catalog.pg_publication p where p.pubname = 'mmrepl');

-- Tables whose writes here were not all sent, since when that is known, and what was left out. `init` compares their rows
-- and forgets them then.
create table mmrepl.gap (
    schema_name text not null,
    table_name text not null,
    since timestamptz not null default clock_timestamp(),
    left_out text not null,
    primary key (schema_name, table_name)
);
