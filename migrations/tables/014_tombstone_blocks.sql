-- Tombstones of statements that deleted very many rows: a few rows with many keys each, in place of a row for each key
-- in mmrepl.tombstone. Each key means the row that it would have there, with `bulk`. When and by whom a key was deleted is
-- the block's own commit time and origin.
--
-- One list has the keys, `kind` says which. i, `ints`: the number n stands for the key {n}. u, `uuids`: likewise.
-- t, `texts`: keys of all other kinds, as they are. Keys lie in the order of their places, `low` is the first one's and
-- `high` the last one's: a number's is the number, a uuid's its first eight bytes, any other key's its hash.
--
-- Two blocks of one kind and layer have no place in common but that at which one ends and the next one of the same
-- statement begins. So a key is in the last block that begins before its place, or in those that begin with it. A statement
-- that deletes keys from among those of others takes another layer.
create table mmrepl.tombstone_block (
    relation oid not null,
    kind "char" not null,
    layer smallint not null,
    low bigint not null,
    high bigint not null,
    left_at timestamptz not null default clock_timestamp(),
    ints bigint[],
    uuids uuid[],
    texts text[] collate "C"
);
-- To compress them would take time.
alter table mmrepl.tombstone_block alter column ints set storage external, alter column uuids set storage external,
    alter column texts set storage external;
create index tombstone_block_places on mmrepl.tombstone_block (relation, kind, layer, low, high);
create index tombstone_block_left_at on mmrepl.tombstone_block (left_at);
