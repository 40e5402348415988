# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# The distribution's kernel, without root; sourced by the tools that boot one.

fetch_kernel() {    # fetch_kernel DIR META-PACKAGE...: unpack one there
    local dir=$1 meta packages=
    shift
    for meta in "$@"; do
        packages=$(newest "$meta" 'linux-image-[0-9]')
        [ -z "$packages" ] || break
    done
    [ -n "$packages" ] || {
        echo "apt knows no kernel; try apt-get update" >&2
        return 1
    }
    packages+=" $(newest "$packages" 'linux-modules-[0-9]')"    # Ubuntu's way
    # shellcheck disable=SC2086  # a list
    (cd "$dir" && apt-get download -qq $packages 2> download.log) || {
        cat "$dir/download.log" >&2
        return 1
    }
    for package in "$dir"/*.deb; do dpkg -x "$package" "$dir"; done
    [ -e "$dir/lib" ] || ln -s usr/lib "$dir/lib"
    depmod -b "$dir" "$(ls "$dir/lib/modules")"
}

newest() {    # newest PACKAGE PATTERN: what it depends on that begins so
    { apt-cache depends --important "$1" 2> /dev/null || :; } |
        sed -n "s/^ *|\?\(Pre\)\?Depends: \($2.*\)/\2/p" | head -n 1
}

make_initrd() {    # make_initrd KERNEL-DIR INIT OUTPUT MODULE...
    local dir=$1 init=$2 output=$3 root module n=10
    shift 3
    root=$(mktemp -d "$dir/initrd.XXXXXX")
    mkdir -p "$root"/{bin,dev,proc,sys,modules,root}
    cp "$(command -v busybox)" "$root/bin/busybox"
    install -m 755 "$init" "$root/init"
    for module in "$@"; do
        modprobe -d "$dir" -S "$(ls "$dir/lib/modules")" \
            --show-depends "$module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' |
        while read -r module; do
            n=$((n + 1))
            unpacked "$module" > "$root/modules/$n.ko"
        done
    (cd "$root" && find . | cpio --quiet -o -H newc -R 0:0 | gzip) > "$output"
    rm -rf "$root"
}

unpacked() {    # unpacked FILE: busybox loads no packed modules
    case $1 in
    *.zst) zstd -dcq "$1" ;;
    *.xz) xz -dc "$1" ;;
    *) cat "$1" ;;
    esac
}
