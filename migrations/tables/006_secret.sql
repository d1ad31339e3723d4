-- What seals the messages that mmrepl leaves in this server's WAL: any role may write messages there, and only the
-- owner of this table knows the secret.
create table mmrepl.secret (
    one boolean primary key default true check (one),
    secret bytea not null default pg_catalog.sha256(
        (pg_catalog.gen_random_uuid()::text || pg_catalog.gen_random_uuid()::text)::bytea)
);
insert into mmrepl.secret default values;
