#!/bin/sh
# check_layers.sh FILE... - the ladder of docs/DESIGN.md: a file may include its own folder and lower
# floors, and nothing else; server/ sees rerank.h and src/base only. Run from the repository root.
# Prints each offence; exits 1 if there is one.
exec awk '
    function floor_of(f) {
        if (f ~ /^src\/base\//) return 1
        if (f ~ /^src\/model\//) return 2
        if (f ~ /^src\/text\//) return 3
        if (f ~ /^src\/(backend|onnx|quant)\//) return 4
        if (f ~ /^src\/sched\//) return 5
        if (f ~ /^src\/api\//) return 6
        if (f ~ /^server\//) return 7
        if (f ~ /^cli\//) return 8
        return 9 # tests, fuzzers, benchmarks
    }
    function folder(f) { sub(/\/[^\/]*$/, "", f); return f }
    /^#include "/ {
        split($0, q, "\"")
        path = q[2]
        if (path == "rerank.h" || path !~ /\//) next # the public header, or a file beside this one
        target = path ~ /^(cli|server|tests)\// ? path : "src/" path
        if (folder(target) == folder(FILENAME)) next
        mine = floor_of(FILENAME); theirs = floor_of(target)
        ok = theirs < mine
        if (FILENAME ~ /^src\/backend\// && target == "src/backend/backend.h") ok = 1
        if (mine == 7) ok = theirs == 1 || target ~ /^server\//
        if (!ok) { print FILENAME ":" FNR ": includes " path " (floor " theirs " from floor " mine ")"; bad = 1 }
    }
    END { exit bad }' "$@"
