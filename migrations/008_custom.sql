-- custom: writes of one key that did not know of each other, as long as the row is what the function made of them.

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
