-- What shows later whether servers still have the history that a link stands on; see `lineage`.

-- The source's last transaction up to the position, and when it committed there: while the source has it, it has
-- everything before it.
alter table mmrepl.apply_position
    add column witness_xid xid,
    add column witness_time timestamptz;

-- What this server remembers of links that start here. `durable`: what the target had flushed once, kept when it was found
-- without it; `began`: of which setup of the link. `marked_at`: written to leave a transaction that can be looked for.
create table mmrepl.link_memory (
    link text primary key,
    durable pg_lsn,
    began timestamptz,
    marked_at timestamptz
);
