#!/bin/sh
# Adds pglogical to Debian's PostgreSQL 15 where that is possible, for `make compare` and `make
# bench`, which do without it otherwise. Safe to run again.
set -u

[ -e /usr/lib/postgresql/15/lib/pglogical.so ] && exit 0
if [ "$(id -u)" = 0 ] && [ -z "${MMREPL_NO_APT:-}" ] && command -v apt-get >/dev/null 2>&1; then
    export DEBIAN_FRONTEND=noninteractive
    install='apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 postgresql-15-pglogical'
    echo 'installing postgresql-15-pglogical with apt-get' >&2
    $install >/dev/null 2>&1 </dev/null && exit 0
    apt-get update -q >/dev/null 2>&1 </dev/null && $install >/dev/null 2>&1 </dev/null && exit 0
fi
echo 'pglogical cannot be installed here (as root on Debian it can): it is left out' >&2
exit 0
