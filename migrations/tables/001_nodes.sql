-- What mmrepl keeps on every node of the cluster, its links and what `init` changed. The schema `mmrepl` and
-- `mmrepl.migration` are made by the runner.

-- The nodes of the cluster as this server knows them. `init` fills it; `here` marks this server. `rules`: those that
-- the server's own daemon goes by, in one text; see `config::agreement`.
create table mmrepl.node (
    name text primary key,
    here boolean not null,
    system_id text not null,
    origin_id oid,
    rules text
);
create unique index node_here on mmrepl.node (here) where here;

-- The truth about what has been applied here: one row per source, updated in the transaction that writes the data.
-- `end_lsn` is where the source's stream goes on. `began`: the source's clock when the link was set up; what the source
-- had written until then is here. `seen`: what the source itself had applied from the other nodes at `end_lsn`: for each
-- node the newest commit time, in microseconds since 2000-01-01 UTC.
create table mmrepl.apply_position (
    source text primary key,
    commit_lsn pg_lsn not null,
    end_lsn pg_lsn not null,
    commit_time timestamptz,
    source_system_id text not null,
    source_timeline integer not null,
    began timestamptz not null default now(),
    seen jsonb
) with (fillfactor = 50);

-- The replica identities that `init` changed, each as the clause that `drop` sets back.
create table mmrepl.replica_identity (
    relation oid primary key,
    before text not null
);

-- What a person asked of a link that starts here. Kept on the server so that it outlives the daemon.
create table mmrepl.link_control (
    link text primary key,
    paused boolean not null,
    since timestamptz not null default now()
);
