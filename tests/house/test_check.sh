#!/bin/bash
# The tree passes its own checks, and the ladder check sees a planted fault in each direction.
set -eu
cd "$(dirname "$0")/../.."
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/src/base" "$tmp/src/api" "$tmp/server"
layers=$PWD/tools/check_layers.sh
expect() { # status file line
    echo "#include \"$3\"" >"$tmp/$2"
    if (cd "$tmp" && "$layers" "$2" >/dev/null); then got=0; else got=1; fi
    [ $got = "$1" ] || { echo "$2 including $3: expected status $1"; exit 1; }
}
expect 1 src/base/a.c model/model.h
expect 0 src/api/a.c model/model.h
expect 1 server/a.c model/model.h
expect 0 server/a.c base/error.h
tools/check.sh
