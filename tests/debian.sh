# debian.sh: bare Debian systems to test in, of this machine's architecture or an emulated AArch64; sourced
# by fresh-machine.sh and mixed-cluster.sh. The script gets $host_arch, $machine (the folder of the system, removed
# at exit unless it is to be kept), and the functions below. Needs root, debootstrap and a Debian host; for
# AArch64 on another machine also the package qemu-user-static.
#
# The bare system is kept as a tar file in $SBIT_CACHE (/var/tmp/sbit-fresh unless set), so that a second
# run starts at once. AArch64 is a Raspberry Pi 5's CPU, or the one that QEMU_CPU names.
# shellcheck shell=bash

repository=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
cache=${SBIT_CACHE:-/var/tmp/sbit-fresh}
host_arch=$(dpkg --print-architecture)
host_suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
handler=/proc/sys/fs/binfmt_misc/sbit-$$

die() {
    printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2
    exit 1
}

# own_mounts ARGUMENTS...: starts the script again, with its arguments, in a mount name space of its own, where
# nothing mounted can outlive it, however it ends.
own_mounts() {
    [ "$(id -u)" -eq 0 ] || die "needs root, for debootstrap and chroot"
    if [ "${SBIT_OWN_MOUNTS-}" != yes ]; then
        SBIT_OWN_MOUNTS=yes exec unshare --mount --propagation private "$(realpath "$0")" "$@"
    fi
    unset SBIT_OWN_MOUNTS
}

# start_machine SUITE ARCHITECTURE KEEP [FOLDER]: a bare system, or the one in FOLDER, kept before; it stays there
# after the script if KEEP is yes.
start_machine() {
    suite=$1 arch=$2 keep=$3 machine=${4-}
    command -v debootstrap >/dev/null || die "needs debootstrap (apt-get install debootstrap)"
    [ -e "/usr/share/debootstrap/scripts/$suite" ] || die "debootstrap knows no suite $suite"
    mkdir -p "$cache"
    [ -n "$machine" ] || machine=$(mktemp -d "$cache/$suite-$arch.XXXXXX")
    trap clean_up EXIT
    trap 'exit 130' INT TERM
    [ "$arch" = "$host_arch" ] || emulate
    set_enter
    [ $# -eq 4 ] || make_base
    copy_host_settings
    mount_all
}

clean_up() {
    local status=$?
    local place
    for place in dev/shm dev sys proc; do
        ! mountpoint -q "$machine/$place" || umount -l "$machine/$place"
    done
    [ ! -e "$handler" ] || echo -1 >"$handler"
    if [ "$keep" = yes ]; then
        echo "The system is in $machine"
    else
        rm -rf --one-file-system "$machine"
    fi
    exit $status
}

# Lets the kernel run AArch64 programs by qemu, until the script ends. The handler is the script's own, since
# another's might be removed while this one runs. Flag F has the kernel open qemu now, so that it is also there
# after a chroot; P tells a program the name that it was called by.
emulate() {
    [ "$arch" = arm64 ] || die "knows how to emulate arm64 only, not $arch"
    local qemu
    qemu=$(command -v qemu-aarch64-static) || die "needs qemu (apt-get install qemu-user-static)"
    mountpoint -q "${handler%/*}" || mount -t binfmt_misc binfmt_misc "${handler%/*}" ||
        die "needs a kernel with binfmt_misc"
    # An ELF file of 64 bits, little-endian, version 1, any system; executable or shared; of machine 183.
    local magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    local mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    printf '%s' ":${handler##*/}:M::$magic:$mask:$qemu:PF" >"${handler%/*}/register"
}

# The Debian package sources of this host, one a line: address, suite, component.
host_sources() {
    # shellcheck disable=SC2016  # the $ are for apt-get
    apt-get indextargets 'Created-By: Packages' "Architecture: $host_arch" \
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
        debootstrap --arch="$arch" --variant=minbase --include=git,ca-certificates "$suite" \
            "$machine/base" "$mirror" >"$machine/debootstrap.log" 2>&1 || {
            tail -n 20 "$machine/debootstrap.log" >&2
            die "debootstrap failed"
        }
        tar -C "$machine/base" --one-file-system -cf "$base.$$" .
        mv "$base.$$" "$base"
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

# bundle FILE: the committed state of the repository, for git clone, which then needs to trust no foreign folder.
bundle() {
    local owner
    owner=$(stat -c %U "$repository/.git")
    runuser -u "$owner" -- git -C "$repository" bundle create -q - HEAD >"$1"
}

# The lines of a shell that clones the file sbit.bundle into the folder sbit.
clone_commands="rm -rf sbit &&
    git -c advice.detachedHead=false -c init.defaultBranch=main clone -q sbit.bundle sbit &&
    git -C sbit log -1 --format='Cloned: %h %s'"

# The committed state as /root/sbit of the new machine.
clone() {
    bundle "$machine/root/sbit.bundle"
    inside "$clone_commands"
}

# The words that start a program in the new machine with an environment of its own, in $enter.
set_enter() {
    enter=(chroot "$machine" env -i HOME=/root TERM="${TERM:-dumb}" LANG=C.UTF-8 ${CI+CI="$CI"}
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
    if [ "$arch" != "$host_arch" ]; then
        enter+=(QEMU_CPU="${QEMU_CPU:-cortex-a76}"
            SBIT_TEST_TIMEOUT_FACTOR="${SBIT_TEST_TIMEOUT_FACTOR:-10}")
    fi
}

# inside COMMAND-LINE: by root's shell in the new machine.
inside() {
    "${enter[@]}" bash -c "cd /root && $1"
}
