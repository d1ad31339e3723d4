-- Changes that a person lets go by, because they cannot be applied here: of one table, or of the whole transaction whose
-- commit stands at `commit_lsn` in the WAL of `source`. `changes`: how many there were.
create table mmrepl.skip (
    source text not null,
    commit_lsn pg_lsn not null,
    table_name text not null default '',
    asked_at timestamptz not null default clock_timestamp(),
    asked_by text not null default session_user,
    done_at timestamptz,
    changes bigint,
    primary key (source, commit_lsn, table_name)
);
