#!/bin/bash
# Proves that a machine with nothing but Debian and git runs ./demo.sh and then ./test.sh from a
# fresh clone: makes such a system with debootstrap, clones the committed state into it, and runs
# both there. Needs root and debootstrap, a Debian host, and some minutes.
#
#   tests/fresh-machine.sh [--keep] bookworm|trixie
#
# --keep leaves the system (its folder is printed) for a look inside. The bare system is kept as a tar
# file in $SBIT_CACHE (/var/tmp/sbit-fresh unless set), so that a second run starts at once.
set -euo pipefail

die() {
    printf 'fresh-machine: %s\n' "$*" >&2
    exit 1
}

keep=no
if [ "${1-}" = --keep ]; then
    keep=yes
    shift
fi
[ $# -eq 1 ] || die "usage: tests/fresh-machine.sh [--keep] bookworm|trixie"
suite=$1
[ "$(id -u)" -eq 0 ] || die "needs root, for debootstrap and chroot"
command -v debootstrap >/dev/null || die "needs debootstrap (apt-get install debootstrap)"
[ -e "/usr/share/debootstrap/scripts/$suite" ] || die "debootstrap knows no suite $suite"

# In a mount name space of its own nothing mounted here can outlive the script, however it ends.
if [ "${SBIT_FRESH_MACHINE-}" != inside ]; then
    script=$(realpath "$0")
    options=()
    [ $keep = no ] || options=(--keep)
    SBIT_FRESH_MACHINE=inside exec unshare --mount --propagation private \
        "$script" "${options[@]}" "$suite"
fi

cd "$(dirname "$0")/.."
repository=$PWD
cache=${SBIT_CACHE:-/var/tmp/sbit-fresh}
arch=$(dpkg --print-architecture)
host_suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
mkdir -p "$cache"
machine=$(mktemp -d "$cache/$suite.XXXXXX")

clean_up() {
    local status=$?
    local place
    for place in dev/shm dev sys proc; do
        ! mountpoint -q "$machine/$place" || umount -l "$machine/$place"
    done
    if [ $keep = yes ]; then
        echo "The system is in $machine"
    else
        rm -rf --one-file-system "$machine"
    fi
    exit $status
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# The Debian package sources of this host, one a line: address, suite, component.
host_sources() {
    # shellcheck disable=SC2016  # the $ are for apt-get
    apt-get indextargets 'Created-By: Packages' "Architecture: $arch" \
        --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' |
        awk -v suite="$host_suite" '$2 ~ "^" suite "(-updates|-security)?$" && $3 == "main"'
}

# The same sources for the suite wanted, as a sources.list.
sources_list() {
    host_sources | sed "s/ $host_suite/ $suite/; s/^/deb /"
}

# base.tar: the bare system before anything is done with it.
make_base() {
    local base=$cache/$suite-$arch.tar
    if [ ! -e "$base" ]; then
        local mirror
        mirror=$(host_sources | awk -v suite="$host_suite" '$2 == suite { print $1; exit }')
        [ -n "$mirror" ] || die "found no Debian mirror for $host_suite in this host's apt sources"
        echo "Bootstrapping $suite ($arch)"
        debootstrap --variant=minbase --include=git,ca-certificates "$suite" "$machine/base" \
            "$mirror" >"$machine/debootstrap.log" 2>&1 || {
            tail -n 20 "$machine/debootstrap.log" >&2
            die "debootstrap failed"
        }
        tar -C "$machine/base" --one-file-system -cf "$base.new" .
        mv "$base.new" "$base"
        rm -rf --one-file-system "$machine/base" "$machine/debootstrap.log"
    fi
    tar -C "$machine" -xf "$base"
}

# How this host reaches its mirror holds for the new system too.
copy_host_settings() {
    sources_list >"$machine/etc/apt/sources.list"
    apt-config dump Acquire | grep -vE '^Acquire::(IndexTargets|CompressionTypes)' \
        >"$machine/etc/apt/apt.conf.d/90host"
    cp /etc/hosts /etc/resolv.conf "$machine/etc/"
}

mount_all() {
    mount -t proc proc "$machine/proc"
    mount --rbind /sys "$machine/sys"
    mount --bind /dev "$machine/dev"
    mount -t tmpfs -o mode=1777 tmpfs "$machine/dev/shm"
}

# By a bundle, so that git inside the machine does the cloning and needs to trust no foreign folder.
clone() {
    local owner
    owner=$(stat -c %U .git)
    runuser -u "$owner" -- git -C "$repository" bundle create -q - HEAD \
        >"$machine/root/sbit.bundle"
    inside "git -c advice.detachedHead=false -c init.defaultBranch=main clone -q sbit.bundle sbit && git -C sbit log -1 --format='Cloned: %h %s'"
}

# inside COMMAND-LINE: by root's shell in the new machine, with an environment of its own.
inside() {
    chroot "$machine" env -i HOME=/root TERM="${TERM:-dumb}" LANG=C.UTF-8 ${CI+CI="$CI"} \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        bash -c "cd /root && $1"
}

make_base
copy_host_settings
mount_all
clone
for script in demo test; do
    echo "== $suite: ./$script.sh"
    SECONDS=0
    inside "cd sbit && ./$script.sh" || die "$script.sh failed on $suite"
    echo "== $suite: ./$script.sh succeeded in $SECONDS s"
done
