-- Versions of rows whose table was rewritten, and rows of which nobody knows when they were written. The reasons are in
-- src/apply/settle/rewrites.rs.

-- The transactions that last described the table, its indexes and the table of its large values; one that gives a table
-- another file describes all of them anew.
create or replace function mmrepl.describers(relation oid) returns bigint[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select array_agg(distinct c.xmin::text::bigint) from pg_class c where c.oid in (
        select $1
        union all select i.indexrelid from pg_index i where i.indrelid = $1
        union all select t.reltoastrelid from pg_class t where t.oid = $1)
$$;

-- Looks at the files of all replicated tables: remembers those of new tables, and who changed one.
create or replace function mmrepl.look_at_files() returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    delete from mmrepl.table_file f where not exists (select from pg_class c where c.oid = f.relation);
    -- Noted before a command that did not rewrite, where somebody has dropped the event trigger that forgets it.
    delete from mmrepl.rewriting w where w.transaction < pg_snapshot_xmin(pg_current_snapshot());
    insert into mmrepl.table_file (relation, file, since)
        select c.oid, c.relfilenode, pg_snapshot_xmin(pg_current_snapshot())::xid::text::bigint
        from (select r.prrelid as relation from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
                where p.pubname = 'mmrepl'
              union
              select t.relid from pg_publication_rel r join pg_publication p on p.oid = r.prpubid,
                  pg_partition_tree(r.prrelid) t where p.pubname = 'mmrepl') replicated
        join pg_class c on c.oid = replicated.relation and c.relfilenode <> 0
        where not exists (select from mmrepl.table_file f where f.relation = c.oid)
        on conflict do nothing;
    update mmrepl.table_file f set noticed = c.relfilenode,
            suspects = array(select distinct s from unnest(f.suspects || mmrepl.describers(f.relation)) s)
        from pg_class c
        where c.oid = f.relation and c.relfilenode <> f.file and c.relfilenode is distinct from f.noticed;
$$;

-- Whether the table, or the root of its partition tree, is replicated.
create or replace function mmrepl.is_replicated(relation oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (
        select from pg_publication p join pg_publication_rel r on r.prpubid = p.oid
        where p.pubname = 'mmrepl'
          and (r.prrelid = $1 or r.prrelid in (select a.relid from pg_partition_ancestors($1) a)))
$$;

-- For each replication origin of the cluster, and 0 for this node: the time up to which the node's rows were known to
-- every other node when that one wrote what was applied last. NULL: not known of any. Infinite: there is nobody else.
create or replace function mmrepl.known_up_to() returns table (origin oid, up_to timestamptz)
language sql stable set search_path = pg_catalog, pg_temp as $$
    with node as (
        select n.name, n.here, coalesce(n.origin_id, 0) as id, o.roname
        from mmrepl.node n left join pg_replication_origin o on o.roident = n.origin_id
    ), prefix as (
        select left(n.roname, length(n.roname) - length(n.name)) as text
        from node n where not n.here and n.roname is not null limit 1
    ), number as (
        select n.name, n.id from node n
        union
        select n.name, o.roident from node n, prefix p, pg_replication_origin o
        where o.roname = p.text || n.name or starts_with(o.roname, p.text || n.name || '-')
    )
    select i.id, case when count(s.*) = 0 then 'infinity'
                      when count(s.time) = count(s.*) then min(s.time) end
    from number i
    left join lateral (
        select n.name, timestamptz '2000-01-01 00:00:00+00' + (p.seen ->> i.name)::float8 * interval '1 microsecond' as time
        from node n left join mmrepl.apply_position p on p.source = n.name
        where not n.here and n.name <> i.name) s on true
    group by i.id
$$;

-- The text that tells a row `x` of the table from others, as an expression: its key, or all of it.
create or replace function mmrepl.row_text(relation oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    with root as (
        select coalesce(pg_partition_root($1)::oid, $1) as oid
    ), usable as (
        select i.indrelid, i.indnkeyatts, i.indkey
        from root r join pg_index i on i.indrelid = r.oid
        join pg_class c on c.oid = i.indexrelid
        where i.indisunique and i.indisvalid and i.indisready and i.indpred is null and i.indexprs is null
          and not exists (
              select from generate_series(0, i.indnkeyatts - 1) g(k)
              join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[g.k]
              where not a.attnotnull)
        order by i.indisprimary desc, i.indimmediate desc, c.relname limit 1
    ), named as (
        select a.attname, g.k from usable u, generate_series(0, u.indnkeyatts - 1) g(k), pg_attribute a
        where a.attrelid = u.indrelid and a.attnum = u.indkey[g.k]
        union all
        select a.attname, a.attnum from pg_attribute a, root r
        where not exists (select from usable) and a.attrelid = r.oid and a.attnum > 0
          and not a.attisdropped and a.attgenerated = ''
    )
    select format('row(%s)::text', string_agg(format('x.%I', n.attname), ', ' order by n.k)) from named n
$$;

-- What mmrepl.kept_version says of a row, by the hash of its text.
create or replace function mmrepl.kept(
    of_rewrite mmrepl.rewrite, hash bigint, out found boolean, out at timestamptz, out origin oid
)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select count(*) > 0, (array_agg(q.at))[1], (array_agg(q.origin))[1]
    from (select v.times[p.place] as at, v.origins[p.place] as origin
          from mmrepl.kept_version v, array_position(v.keys, $2) p(place)
          where v.rewrite = ($1).id and v.bucket = abs($2 % ($1).buckets) and p.place is not null
          order by v.late desc limit 1) q
$$;

-- When and by whom a row was written, seen through a rewrite of its table. Nothing: long ago.
create or replace function mmrepl.written_before(
    row_xmin xid, relation oid, whole anyelement, out at timestamptz, out origin oid
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC'
set extra_float_digits = 1 set bytea_output = 'hex' as $$
declare
    done mmrepl.rewrite;
    hash bigint;
    kept record;
begin
    select r.* into done from mmrepl.rewrite r
        where r.relation = written_before.relation and r.xid = row_xmin::text::bigint order by r.id desc limit 1;
    if found and done.kept = 0 then
        return;
    end if;
    if found then
        execute format('select hashtextextended(%s collate "C", 0) from (select ($1).*) x', mmrepl.row_text(relation))
            into hash using whole;
        select k.* into kept from mmrepl.kept(done, hash) k;
        if not kept.found then
            return;
        end if;
    end if;
    if found and kept.at is not null then
        at := kept.at;
        origin := kept.origin;
    else
        select c."timestamp", c.roident into at, origin from pg_xact_commit_timestamp_origin(row_xmin) c;
    end if;
end $$;

-- Whether rows of this transaction may have been written long before it: it gave the table another file, did not empty
-- it, and nobody kept what they were.
create or replace function mmrepl.is_forged(row_xmin xid, relation oid) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    number bigint := row_xmin::text::bigint;
    before bigint;
    older boolean;
begin
    if coalesce((pg_xact_commit_timestamp_origin(row_xmin)).roident, 0) <> 0
        or exists (select from mmrepl.rewrite r where r.relation = is_forged.relation and r.xid = number)
        or exists (select from mmrepl.tombstone t
            where t.relation in (is_forged.relation, pg_partition_root(is_forged.relation)::oid)
              and t.key = '' and t.xmin = row_xmin)
    then
        return false;
    end if;
    if exists (select from mmrepl.table_file f where f.relation = is_forged.relation and number = any (f.suspects))
        or number = any (mmrepl.describers(relation))
    then
        return true;
    end if;
    -- pg_repack copies in one transaction and changes the file in another: no row is older than the copy.
    if to_regnamespace('repack') is null then
        return false;
    end if;
    select f.since into before from mmrepl.table_file f where f.relation = is_forged.relation;
    if (number - before + 4294967296) % 4294967296 >= 2147483648 then
        return false;
    end if;
    execute format('select exists (select from only %s x where (x.xmin::text::bigint - $1 + 4294967296) '
        || '%% 4294967296 >= 2147483648)', relation::regclass) into older using before;
    return not older;
end $$;

-- Forgets what rows were before rewrites that ended before this transaction: whatever still arrives was made by somebody
-- who had seen them. So does a file that was given to a table by then.
create or replace function mmrepl.forget_rewrites(before bigint) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    if pg_snapshot_xmin(pg_current_snapshot())::text::bigint - before not between 0 and 1000000000 then
        return;
    end if;
    delete from mmrepl.rewrite r
        where (((before - r.xmin::text::bigint) % 4294967296) + 4294967296) % 4294967296 between 1 and 2147483647;
    update mmrepl.table_file f
        set file = f.noticed, since = before % 4294967296, noticed = null, suspects = '{}'
        from pg_class c
        where c.oid = f.relation and c.relfilenode = f.noticed
          and not exists (select from unnest(f.suspects) s
              where (((before - s) % 4294967296) + 4294967296) % 4294967296 not between 1 and 2147483647);
end $$;

-- Whether mmrepl.forget_rewrites may have something to forget.
create or replace function mmrepl.has_rewrites() returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from mmrepl.rewrite r where r.left_at < now() - interval '1 minute')
        or exists (select from mmrepl.table_file f where f.noticed is not null)
$$;
