-- What others than the cluster wrote on the source, under an origin of their own, is applied up to here, where that is
-- not as far as everything else: the stream leaves it out. NULL: as far as everything else. See `link::missed`.
alter table mmrepl.apply_position add column others_lsn pg_lsn;
