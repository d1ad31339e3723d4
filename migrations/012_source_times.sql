-- Several transactions of one source written as one, in clusters of three and more nodes.

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

-- When the row version with this `xmin`, of the row with this key, was written where it was written first. Volatile,
-- so that it looks with a snapshot of its own: who has waited for a row's lock sees a version that was committed after
-- the statement began, and must see its time too.
create function mmrepl.source_time(row_xmin xid, relation oid, key text) returns timestamptz
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select coalesce(
        (select s.times[array_position(s.keys, hashtextextended($3 collate "C", 0))]
            from mmrepl.source_time s where s.xid = $1::text::bigint and s.relation = $2),
        pg_xact_commit_timestamp($1))
$$;
