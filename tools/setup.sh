#!/bin/sh
# setup.sh - install what the build, the demo and the tests need; a second run does nothing.
#
# Debian packages come through apt-get when this user may (root, or sudo without a password);
# otherwise the exact line is printed. Wheels go into $PYENV (default build/py), never elsewhere.
set -eu
cd "$(dirname "$0")/.."
PYENV=${PYENV:-build/py}

packages=$(sed 's/#.*//' tools/packages.txt)
missing=
for p in $packages; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
if [ -n "$missing" ]; then
    apt="DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends$missing"
    if [ "$(id -u)" = 0 ]; then as=''; elif sudo -n true 2>/dev/null; then as='sudo'; else
        echo "setup: these packages are missing and this user may not install them; run" >&2
        echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing" >&2
        exit 1
    fi
    echo "setup: installing$missing"
    $as apt-get update -qq
    $as sh -c "$apt -qq >/dev/null"
fi

stamp=$PYENV/.setup
want=$(cat tools/requirements.txt)
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$want" ]; then
    echo "setup: Python wheels into $PYENV"
    [ -x "$PYENV/bin/python" ] || python3 -m venv "$PYENV"
    "$PYENV/bin/python" -m pip install -q --disable-pip-version-check -r tools/requirements.txt
    printf '%s\n' "$want" >"$stamp"
fi
