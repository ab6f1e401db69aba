#!/bin/sh
# tensorrt_headers.sh DIR TAG REPO PARSER - TensorRT's public headers at TAG into DIR/include, by a
# sparse clone; NvOnnxParser.h from PARSER's release of the same name where REPO lacks it (TensorRT 10).
# Called by make tensorrt-headers.
set -eu
dir=$1 tag=$2 repo=$3 parser=$4
fail() { echo "tensorrt-headers: $*" >&2; exit 1; }
command -v git >/dev/null || fail "git is needed"
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT

sparse() { # url ref folder name
    git -c advice.detachedHead=false clone -q --depth 1 --filter=blob:none --sparse --branch "$2" "$1" "$work/$4" 2>"$work/log" ||
        fail "cannot fetch $2 of $1: $(tail -n 1 "$work/log")"
    [ -z "$3" ] || git -C "$work/$4" sparse-checkout set "$3" 2>"$work/log" ||
        fail "cannot fetch $3 of $1: $(tail -n 1 "$work/log")"
}

sparse "$repo" "$tag" include trt
[ -e "$work/trt/include/NvInfer.h" ] || fail "$repo at $tag has no include/NvInfer.h"
if [ ! -e "$work/trt/include/NvOnnxParser.h" ]; then
    sparse "$parser" "release/$(echo "${tag#v}" | cut -d. -f1,2)-GA" '' parser
    [ -e "$work/parser/NvOnnxParser.h" ] || fail "$parser has no NvOnnxParser.h"
    cp "$work/parser/NvOnnxParser.h" "$work/trt/include/"
fi
mkdir -p "$dir"
rm -rf "$dir/include"
cp -R "$work/trt/include" "$work/trt/LICENSE" "$dir/"
echo "TensorRT $tag: headers in $dir/include; next: make trt"
