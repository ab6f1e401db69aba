#!/bin/sh
# setup.sh [test] - install what the build and the demo need, with "test" also what the tests need.
# A second run does nothing.
#
# Debian packages come through apt-get when this user may (root, or sudo without a password);
# otherwise the exact line is printed. Wheels go into $PYENV (default build/py), never elsewhere.
set -eu
cd "$(dirname "$0")/.."
PYENV=${PYENV:-build/py}
packages=tools/packages.txt wheels=
if [ "${1:-}" = test ]; then
    packages="$packages tools/packages-test.txt" wheels=tools/requirements-test.txt
fi

missing=
for p in $(cat $packages | sed 's/#.*//'); do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ]; then as=''; elif sudo -n true 2>/dev/null; then as='sudo'; else
        echo "setup: these packages are missing and this user may not install them; run" >&2
        echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing" >&2
        exit 1
    fi
    echo "setup: installing$missing"
    $as apt-get update -qq
    $as env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

[ -n "$wheels" ] || exit 0
stamp=$PYENV/.setup
if ! cmp -s "$wheels" "$stamp"; then
    echo "setup: Python wheels into $PYENV"
    [ -x "$PYENV/bin/python" ] || python3 -m venv "$PYENV"
    "$PYENV/bin/python" -m pip install -q --disable-pip-version-check -r "$wheels"
    cp "$wheels" "$stamp"
fi
