#!/bin/sh
# Unpacks one major of PostgreSQL from Debian's archive into a folder: nothing is installed, no root
# is needed, nothing of the system's package manager is written, and the folder may be moved.
#
#   tools/debian-postgres.sh MAJOR DIR     the programs are then in DIR/bin
#
# Each major comes from a Debian release that has it, with the libraries of that release. Signatures
# are checked against the keyring that every Debian has. $DEBIAN_MIRROR is the archive to ask; by
# default the one that the system itself uses.
set -eu

major=$1
dir=$2
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

fail() { printf '%s\n' "$*" >&2; exit 1; }

suites() {
    case $1 in
        15) echo bookworm ;;
        17) echo trixie ;;
        18) echo sid ;;
        19) echo sid experimental ;;
    esac
}

# The first Debian archive of the system's sources that is not the one for security updates.
mirror() {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
        sed -nE 's/^(URIs:|deb)[[:space:]]+(\[[^]]*\][[:space:]]+)?([a-z+]+:\/\/[^[:space:]]*\/debian)\/?([[:space:]].*)?$/\3/p' |
        head -n 1
}

[ -n "$(suites "$major")" ] || fail "no release of Debian is known to have PostgreSQL $major"
for program in apt-get apt-cache dpkg dpkg-deb; do
    command -v $program >/dev/null 2>&1 || fail "$program is not installed"
done
[ -r $keyring ] || fail "$keyring is missing: signatures cannot be checked"
archive=${DEBIAN_MIRROR:-$(mirror)}
[ -n "$archive" ] || fail "no Debian archive among the system's sources: set DEBIAN_MIRROR"
architecture=$(dpkg --print-architecture)

mkdir -p "$(dirname "$dir")"
dir=$(cd "$(dirname "$dir")" && pwd)/$(basename "$dir")
work=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/debs" "$root"

# Sources, lists and cache of our own, and an empty list of installed packages, so that the resolver
# names every library that the server needs, whatever this system has.
: >"$work/status"
cat >"$work/debian.sources" <<END
Types: deb
URIs: $archive
Suites: $(suites "$major")
Components: main
Architectures: $architecture
Signed-By: $keyring
END
# An archive's snapshot is as good as the archive: its signatures do not expire.
cat >"$work/apt.conf" <<END
Dir::Etc::sourcelist "$work/debian.sources";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State::Lists "$work/lists";
Dir::State::status "$work/status";
Dir::State::extended_states "$work/extended_states";
Dir::Cache "$work/cache";
APT::Architecture "$architecture";
APT::Architectures { "$architecture"; };
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::Check-Valid-Until "false";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
END
export APT_CONFIG="$work/apt.conf"

apt() {
    apt-get -q "$@" >"$work/log" 2>&1 </dev/null || fail "$(tail -n 3 "$work/log")"
}

newest() { apt-cache madison "$1" | awk '{ print $3; exit }'; }

apt update
server=$(newest "postgresql-$major")
client=$(newest libpq5)
[ -n "$server" ] || fail "no postgresql-$major in $(suites "$major")"

# Libraries and the server's own packages are taken; perl, systemd, tzdata and their like are not.
apt-get -q install --print-uris -y --no-install-recommends \
    "postgresql-$major=$server" "postgresql-client-$major=$server" "libpq5=$client" |
    sed -n "s/^'[^']*' \([^_]*\)_.*/\1/p" |
    grep -E "^(lib.*|zlib1g|postgresql(-client)?-$major)\$" |
    grep -vE '^lib(perl|systemd-shared|c-l10n|pam-modules|c-gconv)|-perl$|-common$' |
    sed "s/^postgresql-.*/&=$server/; s/^libpq5\$/&=$client/" >"$work/wanted"
[ -s "$work/wanted" ] || fail "the packages of PostgreSQL $major cannot be resolved"
(cd "$work/debs" && apt download $(cat "$work/wanted"))
for package in "$work"/debs/*.deb; do dpkg-deb -x "$package" "$root"; done

# Releases before trixie keep the C library in /lib.
if [ -d "$root/lib" ] && [ ! -L "$root/lib" ]; then
    cp -a "$root/lib/." "$root/usr/lib/"
    rm -rf "$root/lib"
fi
for part in etc var usr/share/doc usr/share/man usr/share/locale usr/share/lintian; do
    rm -rf "${root:?}/$part"
done

# Every program becomes a script that starts it with the unpacked loader and libraries. PostgreSQL
# finds its other folders from the name it is started with, which --argv0 keeps. LD_LIBRARY_PATH would
# be inherited by programs of the system that a server starts.
bin=$root/usr/lib/postgresql/$major/bin
loader=$(cd "$root/usr/lib" && find . -name 'ld-linux-*.so.*' | head -n 1)
[ -n "$loader" ] || fail "no loader was unpacked with PostgreSQL $major"
loader=${loader#./}
mkdir "$root/usr/lib/postgresql/$major/exe"
for program in "$bin"/*; do
    [ -L "$program" ] && continue
    name=$(basename "$program")
    mv "$program" "$root/usr/lib/postgresql/$major/exe/$name"
    cat >"$program" <<END
#!/bin/sh
self=\$(readlink -f "\$0")
lib=\${self%/postgresql/$major/bin/*}
exec "\$lib/$loader" --argv0 "\$self" --library-path "\$lib/$(dirname "$loader")" \\
    "\$lib/postgresql/$major/exe/$name" "\$@"
END
    chmod 755 "$program"
done
ln -s "usr/lib/postgresql/$major/bin" "$root/bin"
chmod -R a+rX "$root"
"$root/bin/postgres" --version >/dev/null || fail "PostgreSQL $major was unpacked and does not run"
rm -rf "$dir"
mv "$root" "$dir"
