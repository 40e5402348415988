# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Install what the project needs on this machine; sourced by other tools.
# They install only what is missing, and say so.

export PATH=$PATH:/usr/sbin:/sbin
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)

say() { printf '%s\n' "$*" >&2; }

die() { say "$*"; exit 1; }

quietly() {    # quietly COMMAND...: print its output only if it fails
    local log
    log=$(mktemp)
    if ! "$@" > "$log" 2>&1 < /dev/null; then
        cat "$log" >&2
        rm "$log"
        die "This failed: $*"
    fi
    rm "$log"
}

need_packages() {    # need_packages PROFILE: as bindep.txt has it
    local missing
    if ! command -v apt-get > /dev/null; then
        say "There is no apt-get here: please install the packages of bindep.txt."
        return
    fi
    mapfile -t missing < <(missing_packages "$1")
    [ ${#missing[@]} -gt 0 ] || return 0
    say "Installing with apt: ${missing[*]}"
    if [ ${#as_root[@]} -gt 0 ]; then
        command -v sudo > /dev/null || die "This needs root, or sudo."
        sudo -v    # asks for the password now, not behind a log file
    fi
    quietly "${as_root[@]}" apt-get -q update
    start_no_services
    quietly "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -q install -y --no-install-recommends "${missing[@]}"
    start_services_again
}

# The tests start their own services, so packages must not start any.  An
# administrator's policy-rc.d stays as it is.
may_start=/usr/sbin/policy-rc.d

start_no_services() {
    [ ! -e "$may_start" ] || return 0
    trap start_services_again EXIT
    quietly "${as_root[@]}" sh -c \
        "printf '#!/bin/sh\nexit 101  # imagecache\n' > '$may_start'
         chmod 755 '$may_start'"
}

start_services_again() {
    grep -qs imagecache "$may_start" || return 0
    quietly "${as_root[@]}" rm "$may_start"
}

missing_packages() {    # missing_packages PROFILE
    local package
    wanted_packages "$1" | while read -r package; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null |
            grep -qx installed || echo "$package"
    done
}

wanted_packages() {    # wanted_packages PROFILE: of this system, as bindep(1)
    awk -v true="$1 platform:dpkg $(
        # shellcheck source=/etc/os-release
        . "${OS_RELEASE:-/etc/os-release}"
        echo "platform:$ID platform:$ID-${VERSION_CODENAME-}"
    )" '
        BEGIN { split(true, words); for (i in words) is[words[i]] }
        /^#/ || !NF { next }
        {   gsub(/[][]/, "")
            places = here = profiles = asked = denied = 0
            for (i = 2; i <= NF; i++)
                if ($i ~ /^!/) denied += substr($i, 2) in is
                else if ($i ~ /^platform:/) { places++; here += $i in is }
                else { profiles++; asked += $i in is }
            if (!denied && (here || !places) && (asked || !profiles))
                print $1
        }' "$top/bindep.txt"
}

need_account() {    # need_account USER GROUP WHY: an account of the system
    if ! getent group "$2" > /dev/null; then
        say "Adding the group $2: $3"
        quietly "${as_root[@]}" groupadd --system "$2"
    fi
    if ! getent passwd "$1" > /dev/null; then
        say "Adding the user $1: $3"
        quietly "${as_root[@]}" useradd --system --gid "$2" \
            --no-create-home "$1"
    fi
}

need_venv() {    # need_venv DIR PIP-ARGUMENT...
    local venv=$1 made_of
    shift
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "This needs Python 3.11: Debian 12, Ubuntu 24.04, or newer."
    made_of=$(cat "$top"/{pyproject.toml,*requirements.txt} - <<< "$*" |
        sha256sum)
    grep -qsxF "$made_of" "$venv/made-of" && return
    say "Installing with pip, in ${venv#"$top"/}: $*"
    # pbr asks git for a version, and there may be no git repository.
    git -C "$top" rev-parse HEAD > /dev/null 2>&1 || export PBR_VERSION=0.0.1
    [ -d "$venv" ] || rm -f "$venv"    # tox writes a file of this name
    [ -x "$venv/bin/pip" ] || quietly python3 -m venv --clear "$venv"
    cd "$top" && quietly "$venv/bin/pip" install --quiet "$@"
    echo "$made_of" >> "$venv/made-of"
}

need_ceph() {    # need_ceph VENV: link the distribution's bindings
    local venv=$1 suffix module
    suffix=$("$venv/bin/python" -c \
        'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
    mkdir -p "$venv/ceph"
    for module in rados rbd; do
        [ -e "/usr/lib/python3/dist-packages/$module$suffix" ] || die \
            "python3-$module does not fit the Python of ${venv#"$top"/}:" \
            "please make that environment with the distribution's python3."
        ln -sf "/usr/lib/python3/dist-packages/$module$suffix" "$venv/ceph/"
    done
    echo "$venv/ceph" > "$("$venv/bin/python" -c \
        'import sysconfig; print(sysconfig.get_path("purelib"))')/ceph.pth"
}
