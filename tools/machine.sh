# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What this machine needs to run the project; sourced by the tools beside it.
# Nothing is installed that is there already, and nothing without saying so.

export PATH=$PATH:/usr/sbin:/sbin
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)

say() { printf '%s\n' "$*" >&2; }

quietly() {    # quietly COMMAND...: its output matters only when it fails
    local log
    log=$(mktemp)
    "$@" > "$log" 2>&1 < /dev/null && { rm "$log"; return; }
    say "failed: $*"
    cat "$log" >&2
    rm "$log"
    exit 1
}

need_packages() {    # need_packages PROFILE: as bindep.txt has it
    local missing
    command -v apt-get > /dev/null || {
        say "No apt-get here: install what bindep.txt lists yourself."
        return
    }
    mapfile -t missing < <(missing_packages "$1")
    [ ${#missing[@]} -gt 0 ] || return 0
    say "Installing with apt: ${missing[*]}"
    [ ${#as_root[@]} = 0 ] || command -v sudo > /dev/null || {
        say "This needs root or sudo."
        exit 1
    }
    [ ${#as_root[@]} = 0 ] || sudo -v    # asks for the password, if at all
    quietly "${as_root[@]}" apt-get -q update
    quietly "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -q install -y --no-install-recommends "${missing[@]}"
}

missing_packages() {    # missing_packages PROFILE
    local package
    sed -n "/^#/d; s/ \[platform:dpkg\(\| .*\b$1\b.*\)\]$//p" "$top/bindep.txt" |
        while read -r package; do
            dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null |
                grep -qx installed || echo "$package"
        done
}

need_venv() {    # need_venv DIR PIP-ARGUMENT...
    local venv=$1 made_of
    shift
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        say "This needs Python 3.11: Debian 12, Ubuntu 24.04 or newer."
        exit 1
    }
    made_of=$(cat "$top"/{pyproject.toml,*requirements.txt} - <<< "$*" |
        sha256sum)
    grep -qsxF "$made_of" "$venv/made-of" && return
    say "Installing with pip in ${venv#"$top"/}"
    # pbr asks git for a version, and there is not always a git to answer.
    git -C "$top" rev-parse HEAD > /dev/null 2>&1 || export PBR_VERSION=0.0.1
    [ -x "$venv/bin/pip" ] || quietly python3 -m venv --clear "$venv"
    (cd "$top" && quietly "$venv/bin/pip" install --quiet "$@") || exit
    echo "$made_of" >> "$venv/made-of"
}
