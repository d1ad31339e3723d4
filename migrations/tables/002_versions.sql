-- What is known of rows beside the rows themselves.

-- The memory that a key was deleted. When and by whom is the row's own commit time and origin
-- (pg_xact_commit_timestamp_origin of its xmin). A key is the text of its text[]; the empty text stands for the whole
-- table (truncate). Keys are looked up and never shown in order: comparing bytes is enough, and costs a fraction of
-- comparing words of a language.
--
-- `version`: that of the delete, as its column's type prints it; null where the table keeps none. `image`: the row that
-- was deleted, names and values in turn, and what was merged into it since; only of tables whose rows merge.
--
-- `bulk`: tombstones that one statement left of many rows have a place of their own beside the one of the same key.
-- Nobody else writes there, so they are plain inserts: `on conflict` is a speculative insert, which costs the writer as
-- much again and whoever decodes the WAL several times as much.
create table mmrepl.tombstone (
    relation oid not null,
    key text collate "C" not null,
    left_at timestamptz not null default clock_timestamp(),
    version text,
    image text[],
    bulk boolean not null default false,
    primary key (relation, key, bulk)
);
create index tombstone_left_at on mmrepl.tombstone (left_at);

-- The newest version of a key whose row is not in its table, because a newer row holds one of its unique
-- values. `key` is written as in mmrepl.tombstone. Values are what the types' output functions print, so
-- that they can be read back exactly. The version is that of the write, wherever it was made; a time that
-- is not known is older than any. While a shadow is here, mmrepl.tombstone has nothing older for its key:
-- a tombstone of the same key was left later, by a local delete.
create table mmrepl.shadow (
    relation oid not null,
    key text not null,
    names text[] not null,
    vals text[] not null,
    written_at timestamptz,
    node text not null,
    since timestamptz not null default clock_timestamp(),
    primary key (relation, key)
);

-- custom: writes of one key that did not know of each other, as long as the row is what the function made of them.
--
-- One row for each write, where a key has more than one: the node that made it, its version, its columns as their
-- types' output functions print them (null of a delete). They stand only as long as the row, or where there is none
-- the tombstone, has the join of their versions; after a later write they are of no use. `key` is as of tombstones.
create table mmrepl.sibling (
    relation oid not null,
    key text not null,
    node text not null,
    version text not null,
    names text[],
    vals text[],
    primary key (relation, key, node)
);

-- Several transactions of one source written as one, in clusters of three and more nodes.
--
-- When the source wrote the rows of such a transaction, as far as that is not the time it is stamped with: the
-- newest one of all. Between two nodes nobody ever asks; a third one may have written a row in between. `xid` is the
-- transaction that wrote them here, as `xmin` shows it (32 bits); `keys` are hashes of the texts that
-- mmrepl.tombstone would have, and each time stands where its key does. Two keys with the same hash would share a
-- time that is right for one of them, and wrong by no more than the transaction's span for the other.
create table mmrepl.source_time (
    xid bigint not null,
    relation oid not null,
    keys bigint[] not null,
    times timestamptz[] not null,
    left_at timestamptz not null default clock_timestamp(),
    primary key (xid, relation)
);
-- Random numbers: compressing them takes time and saves no room.
alter table mmrepl.source_time alter column keys set storage external, alter column times set storage external;
create index source_time_left_at on mmrepl.source_time (left_at);
