#!/bin/bash
# make tensorrt-headers, from repositories made here: one whose headers are whole (TensorRT 11), one whose
# parser's header is another's (TensorRT 10), and ones that are not there or hold something else.
set -eu
cd "$(dirname "$0")/../.."
command -v git >/dev/null || { echo "skip: no git"; exit 77; }
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
fail() { echo "$*"; exit 1; }
repo() { # name tag file...
    local dir=$tmp/$1 tag=$2
    shift 2
    git init -q "$dir"
    for f in "$@" LICENSE big/sample; do mkdir -p "$dir/$(dirname "$f")" && echo "$f" >"$dir/$f"; done
    git -C "$dir" add -A
    git -C "$dir" -c user.name=t -c user.email=t@t commit -qm x
    git -C "$dir" tag "$tag"
    git -C "$dir" config uploadpack.allowFilter true
}
repo trt11 v11.1 include/NvInfer.h include/NvOnnxParser.h
repo trt10 v10.9.2 include/NvInfer.h
repo parser release/10.9-GA NvOnnxParser.h
repo wrong v11.1 README.md
headers() { tools/tensorrt_headers.sh "$tmp/$1" "$2" "file://$tmp/$3" "file://$tmp/parser" >"$tmp/log" 2>&1; }

headers a v11.1 trt11 || fail "TensorRT 11: $(cat "$tmp/log")"
[ -e "$tmp/a/include/NvInfer.h" ] && [ -e "$tmp/a/include/NvOnnxParser.h" ] && [ -e "$tmp/a/LICENSE" ] || fail "headers are missing"
[ ! -e "$tmp/a/big" ] || fail "more than headers came"
headers b v10.9.2 trt10 || fail "TensorRT 10: $(cat "$tmp/log")"
[ "$(cat "$tmp/b/include/NvOnnxParser.h")" = NvOnnxParser.h ] || fail "no parser's header"
headers a v10.9.2 trt10 || fail "again: $(cat "$tmp/log")" # over what was there
! headers c v11.1 nowhere || fail "a repository that is not there"
grep -q 'cannot fetch v11.1' "$tmp/log" || fail "no reason: $(cat "$tmp/log")"
! headers c v11.1 wrong || fail "a repository without headers"
grep -q 'NvInfer.h\|include' "$tmp/log" || fail "no reason: $(cat "$tmp/log")"
[ ! -e "$tmp/c" ] || fail "a failure leaves something behind"
