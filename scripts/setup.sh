#!/usr/bin/env bash
# Everything a fresh Debian/Ubuntu machine needs: system libraries for a window, .venv, the pinned packages.
# Safe to repeat; does nothing when nothing changed.
set -euo pipefail
cd "$(dirname "$0")/.."

LIBRARIES="xvfb xauth libgl1 libegl1 libgl1-mesa-dri libglx-mesa0 libdbus-1-3 libfontconfig1 libxkbcommon-x11-0 \
libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-shape0 libxcb-xinerama0"

install_system_libraries() {
    command -v dpkg-query >/dev/null || return 0 # not Debian: nothing this script could name
    local missing=""
    for name in $LIBRARIES; do
        dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q "ok installed" || missing="$missing $name"
    done
    [ -n "$missing" ] || return 0
    local sudo=""
    if [ "$(id -u)" -ne 0 ]; then sudo="sudo -n"; fi
    # shellcheck disable=SC2086
    if $sudo true 2>/dev/null && $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends $missing >/dev/null; then
        return 0
    fi
    echo "A napari window needs these system libraries; ask an administrator for: apt-get install$missing" >&2
}

find_python() {
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null || continue
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return 0
        fi
    done
    echo "Python 3.11 or newer with venv is needed: apt-get install python3 python3-venv" >&2
    return 1
}

install_system_libraries

stamp=.venv/.installed
wanted=$(cat pyproject.toml constraints.txt | sha256sum | cut -d' ' -f1)
if [ "$(cat $stamp 2>/dev/null)" = "$wanted" ]; then exit 0; fi

python=$(find_python)
[ -x .venv/bin/python ] || "$python" -m venv .venv
echo "Installing the tested set of packages into .venv (about 6 GB with torch; two to five minutes the first time) ..."
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
echo "$wanted" >$stamp
