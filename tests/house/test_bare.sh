#!/bin/bash
# Without protobuf-c, libmicrohttpd, nvcc and the x86 kernels: the report says what is missing, the
# rest is built and scores with ref, and the commands that are not there name what they need.
set -eu
cd "$(dirname "$0")/../.."
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
fail() { echo "$*"; exit 1; }

# A header that does not exist must not be found: the detection itself.
make -s report NVCC= CC="${CC:-gcc} -nostdinc" >"$tmp/report"
grep -q '✗ server  .*libmicrohttpd-dev' "$tmp/report" || fail "server found without headers: $(cat "$tmp/report")"
grep -q '✗ ONNX  .*libprotobuf-c-dev' "$tmp/report" || fail "ONNX found without headers"

make -s -j2 WITH_ONNX= WITH_SERVER= WITH_CPU= NVCC= BUILD="$tmp" "$tmp/rerank" >"$tmp/log"
"$tmp/rerank" score -m models/mini --raw -q 'capital of France' \
    'The Seine is a river.' 'Paris is the capital of France.' >"$tmp/out"
grep -q Paris "$tmp/out" || fail "no ranking: $(cat "$tmp/out")"
for want in 'export:libprotobuf-c-dev' 'serve:libmicrohttpd-dev'; do
    rc=0
    "$tmp/rerank" "${want%%:*}" >/dev/null 2>"$tmp/err" || rc=$?
    [ $rc = 1 ] || fail "${want%%:*} exits with $rc"
    grep -q "${want#*:}" "$tmp/err" || fail "no remedy: $(cat "$tmp/err")"
done
"$tmp/rerank" --help | grep -q 'serve .*not in this build' || fail "help does not say it"
