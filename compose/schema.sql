-- Both nodes start with the same tables and no rows.
create table product (id int primary key, name text not null, stock int not null);
create table orders (
    id uuid primary key default gen_random_uuid(),
    customer text not null,
    product_id int not null references product,
    placed_at timestamptz not null default now()
);
