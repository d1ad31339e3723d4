-- What a rewrite of a table would forge: it gives every row a new xmin, and with it a new version.

-- The rewrites of replicated tables whose rows still have the versions that they had before. `xid` is the transaction
-- that rewrote them, as `xmin` shows it (32 bits), `cid` the command; `kept` says how many rows have something in
-- mmrepl.kept_version. All the others are older than anything that can still arrive without knowing them.
create table mmrepl.rewrite (
    id bigint generated always as identity primary key,
    relation oid not null,
    xid bigint not null,
    cid bigint not null,
    kept bigint not null,
    buckets integer not null,
    writes bigint not null,
    left_at timestamptz not null default clock_timestamp()
);
create index rewrite_relation on mmrepl.rewrite (relation, xid);

-- Versions of rewritten rows: hashes of their keys with the time and the origin that their xmin had. No time: the
-- rewriting transaction wrote the row itself, so its version is right as it is.
create table mmrepl.kept_version (
    rewrite bigint not null references mmrepl.rewrite on delete cascade,
    bucket integer not null,
    late boolean not null,
    keys bigint[] not null,
    times timestamptz[] not null,
    origins oid[] not null,
    primary key (rewrite, bucket, late)
);
alter table mmrepl.kept_version alter column keys set storage external, alter column times set storage external,
    alter column origins set storage external;

-- Rows of a table that is just being rewritten: their places in the order of a scan, which a rewrite keeps, and xmins.
create table mmrepl.rewriting (
    relation oid not null,
    transaction xid8 not null,
    total bigint not null,
    places bigint[] not null,
    xids xid[] not null,
    -- Whether the transaction wrote the row itself.
    own boolean[] not null
);

-- The file of each replicated table when its rows' versions were last known to be right. Another file means that it was
-- rewritten, truncated or moved since: `noticed`, by one of `suspects`, transactions as `xmin` shows them. No transaction
-- below `since` gave it another file.
create table mmrepl.table_file (
    relation oid primary key,
    file oid not null,
    since bigint not null,
    noticed oid,
    suspects bigint[] not null default '{}'
);
