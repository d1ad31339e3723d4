-- Triggers that an ALTER TABLE under way was let through by dropping them, and that come back after it. No setting of the
-- session may say what is made then: anyone could write it, and it is made with this schema's owner's rights.
create table mmrepl.released (
    transaction xid8 not null,
    relation oid not null,
    name name not null,
    enabled "char" not null,
    definition text not null,
    primary key (transaction, relation, name)
);
