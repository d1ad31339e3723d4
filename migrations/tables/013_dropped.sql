-- Nodes that a person took out of the cluster (`mmrepl drop --node`), and when. `init --rejoin` forgets one.
create table mmrepl.dropped (
    node text primary key,
    at timestamptz not null default now()
);
