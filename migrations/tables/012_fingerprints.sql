-- What somebody changed and put back before anybody looked; see `init::fingerprints`.

-- What the rows of the catalog that replication of a table depends on had for transaction numbers when they were last
-- known to be right. The row of relation 0 has none: its own transaction tells whether commit times are still kept.
create table mmrepl.fingerprint (
    relation oid not null,
    kind text not null,
    print text not null,
    primary key (relation, kind)
);

-- What happened to a table by which its rows may differ on the nodes although all writes were sent.
alter table mmrepl.gap alter column left_out set default '';
alter table mmrepl.gap add column happened text not null default '';
