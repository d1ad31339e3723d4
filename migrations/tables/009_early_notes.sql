-- Rows noted before the command that may rewrite their table has begun: while it rewrites a table with an index of which
-- a column changes its type, nothing can be planned that reads the table.
alter table mmrepl.rewriting add column early boolean not null default false;
